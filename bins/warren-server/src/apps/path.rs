//! Apps on a path of the dashboard's own origin: `/@owner/workspace/apps/slug/…`.
//!
//! Whatever is there can act as the visitor, for a browser knows only origins. So only the workspace's owner meets an app
//! there as it is, and only while the workspace is shared with nobody, who could put something else there; for everybody
//! else the browser is told to give it an origin of no place, from which it reaches nobody.

use super::access::{self, Denied};
use super::credential::Credential;
use super::headers::Place;
use super::page::Trouble;
use super::{Name, guard, headers, proxy};
use crate::api::{bearer, call::Call};
use crate::app::Shared;
use crate::auth::token::sha256_of;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use io_adapters::http::percent_encoded;

/// The routes.
pub(crate) const ROUTES: [&str; 3] =
    ["/@{owner}/{name}/apps/{slug}", "/@{owner}/{name}/apps/{slug}/", "/@{owner}/{name}/apps/{slug}/{*rest}"];

/// Lets a page run and show itself, under an origin that is nobody's: neither cookies nor the API are its.
const SANDBOX: HeaderValue = HeaderValue::from_static(
    "sandbox allow-downloads allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox allow-scripts",
);

/// The parts of a path that say which app is meant.
#[derive(serde::Deserialize)]
pub(crate) struct Parts {
    owner: String,
    name: String,
    slug: String,
}

/// Serves an app on a path.
pub(crate) async fn serve(
    State(app): State<Shared>,
    call: Call,
    Path(Parts { owner, name, slug }): Path<Parts>,
    request: Request,
) -> Response {
    let (method, asked) = (request.method().clone(), request.headers().clone());
    if let Err(unfit) = headers::fit(&method, request.version(), &asked) {
        return super::unfit(unfit).answer(&asked);
    }
    let base = format!("/@{owner}/{name}/apps/{slug}");
    let rest = request.uri().path().strip_prefix(&base).map(str::to_owned);
    if !app.apps.path_apps || rest.is_none() {
        return no_path(app.apps.path_apps).answer(&asked);
    }
    let place = Place { origin: app.access_url.to_string(), base, client: call.address };
    let name = Name::app(&owner, &name, &slug);
    let asker = bearer::to_app(&app, &asked).map(sha256_of);
    let granted = match access::grant(&app, asker, &name).await {
        Ok(granted) => granted,
        Err(Denied::LoginFirst) if guard::is_visit(&method, &asked) => return to_login(&request),
        Err(denied) => return super::denied(&denied).answer(&asked),
    };
    let by_cookie = asker.is_some() && bearer::of_warren(&asked).is_none() && !granted.target.public;
    if by_cookie && !guard::from_own_page(&method, &asked, &place.origin, &[]) {
        return super::foreign(&place.origin).answer(&asked);
    }
    if granted.only_looks && !guard::only_looks(&method, &asked) {
        return super::denied(&Denied::OnlyLooks).answer(&asked);
    }
    if rest.is_some_and(|rest| rest.is_empty()) {
        return below(&request, &place.base);
    }
    let by = (Credential::of(asker), name);
    let mut answer = proxy::forward(&app, &granted.target, &place, request, by).await;
    // Whom the dashboard's origin answers is not an app's to say.
    super::strip_cors(answer.headers_mut());
    if !granted.alone {
        answer.headers_mut().append(CONTENT_SECURITY_POLICY, SANDBOX);
    }
    answer
}

fn no_path(apps_are_there: bool) -> Trouble {
    let kind = (StatusCode::NOT_FOUND, "APP_NOT_FOUND", "there is no such app here");
    if apps_are_there {
        return Trouble::new(kind, "this address leads to no app", "");
    }
    let kind = (StatusCode::FORBIDDEN, "PATH_APPS_DISABLED", "apps have addresses of their own here");
    Trouble::new(kind, "on this server apps do not open on a path", "open it from the workspace's page")
}

/// To the login page, and back.
fn to_login(request: &Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    redirect(StatusCode::FOUND, &format!("/login?next={}", percent_encoded(path)))
}

/// An app's first page has a slash at the end, so that what it names relative to itself is its own.
fn below(request: &Request, base: &str) -> Response {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    redirect(StatusCode::TEMPORARY_REDIRECT, &format!("{base}/{query}"))
}

/// Leads a browser elsewhere, this time.
pub(crate) fn redirect(status: StatusCode, to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => {
            (status, [(LOCATION, to), (CACHE_CONTROL, HeaderValue::from_static("no-store"))]).into_response()
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}
