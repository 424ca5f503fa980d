//! Browsers' sessions: a cookie that scripts cannot read, good only for requests from the server's own pages.

use super::problem::ApiError;
use crate::settings::AccessUrl;
use axum::http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN, UPGRADE};
use axum::http::{Method, StatusCode};

/// Set by browsers, never by scripts: where the page is that a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The session cookie's name. `__Host-` makes browsers refuse one that a neighbour under the same domain sets
/// (RFC 6265bis, section 4.1.3.2), but only over HTTPS.
pub(crate) const fn name(access_url: &AccessUrl) -> &'static str {
    if access_url.tls { "__Host-warren_session" } else { "warren_session" }
}

/// The name of the cookie that lasts while somebody is at the OpenID Connect provider.
pub(super) const fn oidc_name(access_url: &AccessUrl) -> &'static str {
    if access_url.tls { "__Host-warren_oidc" } else { "warren_oidc" }
}

/// The header that keeps a session in the browser for as long as it lasts, in seconds.
pub(super) fn set(access_url: &AccessUrl, token: &str, seconds: i64) -> Result<HeaderValue, ApiError> {
    line(access_url, name(access_url), token, seconds)
}

/// The header of a cookie of this name and value that lasts this many seconds.
pub(super) fn line(
    access_url: &AccessUrl,
    name: &str,
    value: &str,
    seconds: i64,
) -> Result<HeaderValue, ApiError> {
    let secure = if access_url.tls { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error.to_string()))
}

/// The header that takes it away.
pub(super) fn clear(access_url: &AccessUrl) -> Result<HeaderValue, ApiError> {
    set(access_url, "", 0)
}

/// The value of a request's cookie of this name.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    values(headers, name).next()
}

/// The values of all cookies of this name: neighbours under the same domain may have set some.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
}

/// Whether a request only looks: it changes nothing and opens nothing.
pub(super) fn only_looks(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !headers.contains_key(UPGRADE)
}

/// Refuses a request that the browser sends by a cookie, but for a page that is not the server's.
///
/// # Errors
/// 403 if it does not come from one of ours.
pub(crate) fn same_origin(access_url: &AccessUrl, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let ours = access_url.to_string();
    let from = text(&ORIGIN);
    let ok = match (text(&FETCH_SITE), from) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin.eq_ignore_ascii_case(&ours),
        (None, None) => false,
    };
    if ok {
        return Ok(());
    }
    let kind = (StatusCode::FORBIDDEN, "CSRF_REFUSED", "not from a page of this server");
    let detail = match from {
        Some(origin) => format!("this was sent from {origin} with a session of {ours}"),
        None => format!("this was sent with a session of {ours}, but does not say that a page of it sent it"),
    };
    Err(ApiError::new(kind, detail, format!("open {ours} and do it there; programs send a token instead")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn cookies_are_bound_to_the_host_and_out_of_reach_for_scripts() {
        let https: AccessUrl = "https://warren.example.com".parse().unwrap();
        let http: AccessUrl = "http://127.0.0.1:7080".parse().unwrap();
        assert_eq!(
            set(&https, "t", 60).unwrap(),
            "__Host-warren_session=t; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(clear(&http).unwrap(), "warren_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
        let sent = headers(&[("cookie", "a=b; warren_session=x=y"), ("cookie", "c=d")]);
        assert_eq!(value(&sent, "warren_session"), Some("x=y"));
        assert_eq!(value(&sent, "c"), Some("d"));
        assert_eq!(value(&sent, "warren"), None);
    }

    #[test]
    fn only_pages_of_the_server_act_by_its_cookie() {
        let url: AccessUrl = "https://warren.example.com".parse().unwrap();
        let may = |pairs: &[(&str, &str)]| same_origin(&url, &headers(pairs)).is_ok();
        assert!(may(&[("origin", "https://warren.example.com")]));
        assert!(may(&[("sec-fetch-site", "same-origin")]));
        for refused in [
            &[] as &[(&str, &str)],
            &[("origin", "null")],
            &[("origin", "https://evil.example")],
            &[("origin", "http://warren.example.com")],
            &[("origin", "https://warren.example.com.evil.example")],
            &[("origin", "https://warren.example.com:8443")],
            &[("origin", "https://app.warren.example.com"), ("sec-fetch-site", "same-site")],
            &[("origin", "https://warren.example.com"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("referer", "https://warren.example.com/")],
        ] {
            assert!(!may(refused), "{refused:?}");
        }
    }
}
