//! Whose page a request comes from. A browser adds its cookies to what any page asks for; apps under one domain count as
//! one site for it. So a request that is let in by a cookie must come from the app itself, from a page that the app's owner
//! named, or be somebody who follows a link.

use axum::http::Method;
use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, ORIGIN};

use super::headers::wants_websocket;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Whether a request only looks.
pub(crate) fn only_looks(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !wants_websocket(headers)
}

/// Whether the browser shows the answer as a page of its own: in a tab, and in no other page's frame.
pub(crate) fn is_visit(method: &Method, headers: &HeaderMap) -> bool {
    let document = match (text(headers, &FETCH_MODE), text(headers, &FETCH_DEST)) {
        (Some(mode), Some(dest)) => mode == "navigate" && dest == "document",
        // An old browser, or none.
        _ => super::page::wants_page(headers),
    };
    *method == Method::GET && !wants_websocket(headers) && document
}

/// The origin that a request comes from, if it is among those that an app lets ask.
pub(crate) fn named<'a>(headers: &'a HeaderMap, cors: &[String]) -> Option<&'a str> {
    let from = text(headers, &ORIGIN)?;
    cors.iter().any(|origin| origin == "*" || origin.eq_ignore_ascii_case(from)).then_some(from)
}

/// Whether a browser asks if it may ask.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a request that a cookie lets in comes from where it may.
pub(crate) fn from_own_page(method: &Method, headers: &HeaderMap, origin: &str, cors: &[String]) -> bool {
    let own = text(headers, &ORIGIN).map(|from| from.eq_ignore_ascii_case(origin));
    if named(headers, cors).is_some() {
        return true;
    }
    match (text(headers, &FETCH_SITE), own) {
        // "none": an address that was typed, a bookmark.
        (Some("same-origin" | "none"), None | Some(true)) => true,
        (Some(_), Some(true)) => false,
        (Some(_), _) => is_visit(method, headers) && own.is_none(),
        (None, Some(own)) => own,
        (None, None) => only_looks(method, headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const OWN: &str = "https://a.apps.example.com";

    fn may(method: &Method, pairs: &[(&'static str, &'static str)], cors: &[&str]) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let cors: Vec<String> = cors.iter().map(|origin| (*origin).to_owned()).collect();
        from_own_page(method, &headers, OWN, &cors)
    }

    const VISIT: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

    #[test]
    fn an_apps_own_pages_ask_whatever_they_like() {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert!(may(&method, &[("sec-fetch-site", "same-origin")], &[]));
            assert!(may(&method, &[("sec-fetch-site", "same-origin"), ("origin", OWN)], &[]));
            assert!(may(&method, &[("origin", OWN)], &[]), "an old browser");
        }
        assert!(may(
            &Method::GET,
            &[("origin", OWN), ("connection", "upgrade"), ("upgrade", "websocket")],
            &[]
        ));
        assert!(may(&Method::GET, &[("sec-fetch-site", "none"), VISIT[0], VISIT[1]], &[]));
    }

    #[test]
    fn pages_elsewhere_lead_there_and_do_nothing_more() {
        for site in ["same-site", "cross-site"] {
            assert!(may(&Method::GET, &[("sec-fetch-site", site), VISIT[0], VISIT[1]], &[]), "a link");
            assert!(!may(&Method::POST, &[("sec-fetch-site", site), VISIT[0], VISIT[1]], &[]), "a form");
            assert!(
                !may(&Method::GET, &[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")], &[]),
                "a picture"
            );
            let frame = [("sec-fetch-site", site), VISIT[0], ("sec-fetch-dest", "iframe")];
            assert!(!may(&Method::GET, &frame, &[]), "a frame");
        }
        for other in [
            "https://b.apps.example.com",
            "null",
            "http://a.apps.example.com",
            "https://a.apps.example.com.evil.example",
        ] {
            assert!(!may(&Method::GET, &[("origin", other)], &[]), "{other}");
            let socket = [("origin", other), ("connection", "upgrade"), ("upgrade", "websocket")];
            assert!(!may(&Method::GET, &socket, &[]), "{other}");
        }
        assert!(!may(&Method::POST, &[], &[]));
        assert!(!may(&Method::GET, &[("connection", "upgrade"), ("upgrade", "websocket")], &[]));
    }

    #[test]
    fn pages_that_the_owner_named_may_ask() {
        let asked = [("sec-fetch-site", "same-site"), ("origin", "https://b.apps.example.com")];
        assert!(may(&Method::POST, &asked, &["https://b.apps.example.com"]));
        assert!(!may(&Method::POST, &asked, &["https://c.apps.example.com"]));
    }
}
