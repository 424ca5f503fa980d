//! Apps on origins of their own, under the wildcard.
//!
//! Whoever comes without a pass is led to the dashboard's origin, where the session is, and back with a [`Handover`] that
//! only this browser can use: it must know what the mark in it was made of. Then the host has a pass, a cookie of its own.

use super::access::{self, Denied};
use super::credential::Credential;
use super::headers::{self, Place};
use super::page::Trouble;
use super::path::redirect;
use super::ticket::{HANDOVER_MS, Handover, Pass, Target};
use super::{Name, guard, proxy};
use crate::api::{bearer, call::Call, cookie};
use crate::app::{App, Shared};
use crate::auth::token::sha256_of;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    SET_COOKIE, VARY,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use io_adapters::http::percent_encoded;
use std::sync::Arc;

/// Where a handover arrives on an app's host.
pub(crate) const ARRIVAL: &str = "/.warren/open";
/// Where the dashboard's origin hands over.
pub(crate) const DEPARTURE: &str = "/api/v1/apps/open";

/// Seconds that a browser remembers where it wanted to go: as long as logging in takes.
const WANTED_S: u32 = 900;
/// Seconds that a browser keeps a pass: it ends with the session, which the database is asked about.
const PASS_S: u32 = 30 * 24 * 3_600;
/// Bytes of a path that is kept while somebody logs in; longer ones begin at the app's first page.
const PATH_MAX: usize = 2_000;

/// One request to an app's host.
struct Visit {
    app: Shared,
    label: String,
    name: Name,
    place: Place,
    tls: bool,
}

/// Serves whatever comes to a host under the wildcard.
pub(crate) async fn serve(State(app): State<Shared>, call: Call, request: Request) -> Response {
    let (method, asked) = (request.method().clone(), request.headers().clone());
    if let Err(unfit) = headers::fit(&method, request.version(), &asked) {
        return super::unfit(unfit).answer(&asked);
    }
    let Some(visit) = Visit::of(&app, &call, &request) else {
        return super::denied(&Denied::Nothing).answer(&asked);
    };
    if request.uri().path() == ARRIVAL {
        return visit
            .arrive(&method, request.uri().clone(), &asked)
            .await
            .unwrap_or_else(|trouble| trouble.answer(&asked));
    }
    visit.enter(&method, &asked, request).await
}

/// The host that a request is for.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    // HTTP/2 has it in the address.
    uri.authority().map(|authority| authority.as_str()).or_else(|| headers.get(HOST)?.to_str().ok())
}

impl Visit {
    fn of(app: &Shared, call: &Call, request: &Request) -> Option<Self> {
        let wildcard = app.apps.wildcard.as_ref()?;
        let label = wildcard.label(host(request.uri(), request.headers())?)?.to_ascii_lowercase();
        let name = Name::parse(&label)?;
        let place = Place { origin: wildcard.origin(&label), base: String::new(), client: call.address };
        Some(Self { app: Arc::clone(app), name, place, tls: wildcard.tls, label })
    }

    /// Lets a request in, or says why not.
    async fn enter(&self, method: &Method, asked: &HeaderMap, request: Request) -> Response {
        if guard::is_preflight(method, asked)
            && let Some(answer) = self.preflight(asked).await
        {
            return answer;
        }
        let (target, credential, renewed) = match self.let_in(method, asked).await {
            Ok(found) => found,
            Err(Denied::LoginFirst) if guard::is_visit(method, asked) => return self.depart(request.uri()),
            Err(denied) => return super::denied(&denied).answer(asked),
        };
        let by_pass = matches!(credential, Credential::Pass(_));
        if by_pass && !guard::from_own_page(method, asked, &self.place.origin, &target.cors) {
            return super::foreign(&self.place.origin).answer(asked);
        }
        let by = (credential, self.name.clone());
        let mut answer = proxy::forward(&self.app, &target, &self.place, request, by).await;
        allow_origin(answer.headers_mut(), asked, &target);
        if let Some(cookie) = renewed {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        answer
    }

    /// By what a request is let in: a pass, a token of a program's, or since the app is everybody's. A pass that has to be
    /// renewed comes with its cookie.
    async fn let_in(
        &self,
        method: &Method,
        asked: &HeaderMap,
    ) -> Result<(Target, Credential, Option<HeaderValue>), Denied> {
        let app = &*self.app;
        if let Some(text) = bearer::of_warren(asked) {
            let asker = Some(sha256_of(text));
            let granted = access::grant(app, asker, &self.name).await?;
            if granted.only_looks && !guard::only_looks(method, asked) {
                return Err(Denied::OnlyLooks);
            }
            return Ok((granted.target, Credential::of(asker), None));
        }
        // A neighbour may have set one of the same name for all hosts: it is not good here.
        for text in cookie::values(asked, self.cookie_name()) {
            let Some(pass) = app.apps.keys.open::<Pass>(text).filter(|pass| pass.label == self.label) else {
                continue;
            };
            let credential = Credential::Pass(pass.token.clone());
            if access::is_fresh(app, pass.checked_at) {
                return Ok((pass.target, credential, None));
            }
            let now = app.clock.now();
            match credential.look(app, &self.name).await {
                Ok(granted) => {
                    let pass = Pass { checked_at: now, target: granted.target.clone(), ..pass };
                    return Ok((granted.target, credential, self.pass_cookie(&pass)));
                }
                Err(Denied::Store(error)) => return Err(Denied::Store(error)),
                Err(Denied::Nothing) => return Err(Denied::Nothing),
                Err(_) => {}
            }
        }
        let granted = access::grant(app, None, &self.name).await?;
        Ok((granted.target, Credential::Nobody, None))
    }

    /// Sends a browser to where its session is.
    fn depart(&self, uri: &Uri) -> Response {
        let mut secret = [0; 16];
        if getrandom::fill(&mut secret).is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let mark = self.app.apps.keys.mark(&secret);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.len() > PATH_MAX { "/" } else { path };
        let value = format!("{secret}.{}", URL_SAFE_NO_PAD.encode(path));
        let to =
            format!("{}{DEPARTURE}?app={}&mark={mark}", self.app.access_url, percent_encoded(&self.label));
        let mut response = redirect(StatusCode::FOUND, &to);
        if let Some(cookie) = self.cookie(&self.wanted_name(&mark), &value, WANTED_S) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }

    /// Takes a handover in, and goes where the browser wanted to.
    async fn arrive(&self, method: &Method, uri: Uri, asked: &HeaderMap) -> Result<Response, Trouble> {
        let app = &*self.app;
        let again = |detail: &str| {
            let kind = (StatusCode::BAD_REQUEST, "HANDOVER_UNFIT", "opening the app did not work");
            let hint = "begin again; if it stays so, see whether the browser keeps cookies of this site";
            Trouble::new(kind, detail, hint).with_link(format!("{}/", self.place.origin), "Begin again")
        };
        if *method != Method::GET {
            return Err(super::unfit(headers::Unfit::Method));
        }
        let query = uri.query().unwrap_or_default();
        let code = query.split('&').find_map(|pair| pair.strip_prefix("code="));
        let handover = code.and_then(|code| app.apps.keys.open::<Handover>(code));
        let handover = handover.filter(|handover| handover.label == self.label);
        let handover = handover.ok_or_else(|| again("this address is not one of this server's"))?;
        let now = app.clock.now();
        if !(0..=HANDOVER_MS).contains(&(now - handover.made_at)) {
            return Err(again("this address was good for a minute, which is over"));
        }
        let wanted = self.wanted_name(&handover.mark);
        let kept = cookie::values(asked, &wanted).find_map(|value| {
            let (secret, path) = value.split_once('.')?;
            (app.apps.keys.mark(secret) == handover.mark).then_some(path)
        });
        let kept =
            kept.ok_or_else(|| again("another browser asked for this, or this one keeps no cookies"))?;
        let credential = Credential::Pass(handover.token.clone());
        let granted = credential.look(app, &self.name).await.map_err(|why| super::denied(&why))?;
        let pass = Pass {
            label: self.label.clone(),
            token: handover.token,
            checked_at: now,
            target: granted.target,
        };
        let mut response = redirect(StatusCode::SEE_OTHER, &own_path(kept));
        let headers = response.headers_mut();
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        for cookie in [self.pass_cookie(&pass), self.cookie(&wanted, "", 0)].into_iter().flatten() {
            headers.append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// The answer to a browser that asks whether another site's page may ask the app; none if the app answers itself.
    async fn preflight(&self, asked: &HeaderMap) -> Option<Response> {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let Ok(Some(target)) = access::reachable(&self.app, &self.name).await else {
            // Whether there is such an app is not told either.
            response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
            return Some(response);
        };
        if target.cors.is_empty() && target.public {
            return None;
        }
        let headers = response.headers_mut();
        allow_origin(headers, asked, &target);
        if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            let mut echo = |from: HeaderName, to: HeaderName| {
                if let Some(value) = asked.get(from) {
                    headers.insert(to, value.clone());
                }
            };
            echo(ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS);
            echo(ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        Some(response)
    }

    fn pass_cookie(&self, pass: &Pass) -> Option<HeaderValue> {
        self.cookie(self.cookie_name(), &self.app.apps.keys.seal(pass), PASS_S)
    }

    /// The cookie's name. The prefix keeps neighbours from setting it (RFC 6265bis, section 4.1.3.2).
    const fn cookie_name(&self) -> &'static str {
        if self.tls { "__Host-warren_app" } else { "warren_app" }
    }

    /// The name of what keeps a browser's wish: of several tabs each has its own.
    fn wanted_name(&self, mark: &str) -> String {
        let prefix = if self.tls { "__Host-" } else { "" };
        format!("{prefix}warren_wanted_{}", mark.get(..8).unwrap_or_default())
    }

    fn cookie(&self, name: &str, value: &str, seconds: u32) -> Option<HeaderValue> {
        let secure = if self.tls { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&text).ok()
    }
}

/// The path on the app's own host that a browser wanted; its first page if that is none.
fn own_path(kept: &str) -> String {
    let path = URL_SAFE_NO_PAD.decode(kept).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // "//host" and "/\host" are other hosts for a browser.
    let own = |path: &String| {
        path.starts_with('/')
            && !path.starts_with("//")
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
    };
    path.filter(own).unwrap_or_else(|| "/".to_owned())
}

/// The word on other sites' pages is Warren's, not the app's; but for a public app that leaves it to itself.
fn allow_origin(headers: &mut HeaderMap, asked: &HeaderMap, target: &Target) {
    if target.cors.is_empty() && target.public {
        return;
    }
    super::strip_cors(headers);
    let any = target.cors.iter().any(|origin| origin == "*");
    if guard::named(asked, &target.cors).is_none() {
        // Nobody is named, and nobody allowed.
    } else if any {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else if let Some(origin) = asked.get(ORIGIN) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// The address on an app's host that takes a handover in.
pub(crate) fn arrival(app: &App, label: &str, handover: &Handover) -> Option<String> {
    let origin = app.apps.wildcard.as_ref()?.origin(label);
    Some(format!("{origin}{ARRIVAL}?code={}", app.apps.keys.seal(handover)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_leads_to_the_apps_own_host_or_to_its_first_page() {
        let led = |path: &str| own_path(&URL_SAFE_NO_PAD.encode(path));
        assert_eq!(led("/lab?token=1"), "/lab?token=1");
        for elsewhere in
            ["//evil.example", "/\\evil.example", "https://evil.example", "", "evil", "/a\r\nb: c", "/\t/x"]
        {
            assert_eq!(led(elsewhere), "/", "{elsewhere:?}");
        }
        assert_eq!(own_path("%%%"), "/");
    }
}
