//! The dashboard's files over HTTP: compressed where the browser takes it, kept by it, and able to do little.

use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use warren_dashboard::{Asset, INDEX};

/// What a page may load and whom it may ask: this server alone, and nothing that is written into a page.
const POLICY: &str = concat!(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; ",
    "connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
);
/// For the page of a server without its dashboard, which has nothing to load.
const BARE_POLICY: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";
/// The file's name changes with its bytes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Kept, but asked about each time: an upgrade shows at once.
const ASK: HeaderValue = HeaderValue::from_static("no-cache");

/// The dashboard's page, whatever its own router shows there.
pub(crate) fn page(headers: &HeaderMap) -> Response {
    warren_dashboard::find(INDEX)
        .map_or_else(|| StatusCode::NOT_FOUND.into_response(), |index| send(index, headers))
}

/// What is at a path of the dashboard: a file, a page of the guide, or for a browser that came by a wrong link the
/// dashboard, which says so. None if that is somebody else's to answer.
pub(crate) fn answer(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let path = uri.path().trim_start_matches('/');
    if path.starts_with("api/") || path.starts_with("derp") {
        return None;
    }
    let file = warren_dashboard::find(path)
        .or_else(|| warren_dashboard::find(&format!("{}.html", path.trim_end_matches('/'))));
    if let Some(file) = file {
        return Some(send(file, headers));
    }
    wants_page(headers).then(|| {
        let mut missing = page(headers);
        if missing.status() == StatusCode::OK {
            *missing.status_mut() = StatusCode::NOT_FOUND;
        }
        missing
    })
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

fn send(asset: &Asset, headers: &HeaderMap) -> Response {
    let (encoding, body) = encoded(asset, headers);
    let tag = format!("\"{}{}\"", asset.hash, encoding.map_or_else(String::new, |name| format!("-{name}")));
    let mut response = if has(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        // A HEAD request's answer loses its body on the way, and keeps its length.
        ([(CONTENT_LENGTH, HeaderValue::from(body.len()))], axum::body::Body::from(body)).into_response()
    };
    let fields = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        fields.insert(name, HeaderValue::from_static(value));
    };
    set(CONTENT_TYPE, asset.media_type);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(VARY, "accept-encoding");
    if asset.media_type.starts_with("text/html") {
        set(CONTENT_SECURITY_POLICY, if warren_dashboard::BUILT { POLICY } else { BARE_POLICY });
        set(REFERRER_POLICY, "no-referrer");
    }
    if let Some(name) = encoding {
        set(CONTENT_ENCODING, name);
    }
    fields.insert(CACHE_CONTROL, if asset.is_immutable() { FOREVER } else { ASK });
    if let Ok(tag) = HeaderValue::try_from(tag) {
        fields.insert(ETAG, tag);
    }
    response
}

fn encoded(asset: &Asset, headers: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let takes = |coding: &str| {
        accepted.split(',').any(|entry| {
            let (name, rest) = entry.split_once(';').unwrap_or((entry, ""));
            let refused = rest.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
            name.trim().eq_ignore_ascii_case(coding) && !refused
        })
    };
    match asset {
        Asset { brotli: Some(bytes), .. } if takes("br") => (Some("br"), bytes),
        Asset { gzip: Some(bytes), .. } if takes("gzip") => (Some("gzip"), bytes),
        _ => (None, asset.bytes),
    }
}

/// Whether the browser has the file of this tag already.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn get(path: &str, headers: &HeaderMap) -> Option<Response> {
        answer(&Method::GET, &path.parse().ok()?, headers)
    }

    #[test]
    fn files_are_compressed_as_the_browser_takes_them() {
        static ASSET: Asset = Asset {
            path: "assets/a.js",
            media_type: "text/javascript",
            hash: "1",
            bytes: b"identity",
            brotli: Some(b"br"),
            gzip: Some(b"gz"),
        };
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("br;q=0, gzip;q=0.5", Some("gzip")),
            ("deflate", None),
            ("brotli", None),
            ("", None),
        ] {
            let sent = send(&ASSET, &headers(&[(ACCEPT_ENCODING, accepted)]));
            let told = sent.headers().get(CONTENT_ENCODING).map(|name| name.to_str().unwrap().to_owned());
            assert_eq!(told.as_deref(), coding, "{accepted}");
            assert_eq!(sent.headers()[CACHE_CONTROL], FOREVER);
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let first = page(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[CACHE_CONTROL], ASK);
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(page(&again).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(page(&headers(&[(IF_NONE_MATCH, "\"another\"")])).status(), StatusCode::OK);
    }

    #[test]
    fn a_wrong_link_shows_the_dashboard_to_people_and_a_problem_to_programs() {
        let browser = headers(&[(ACCEPT, "text/html,application/xhtml+xml")]);
        assert_eq!(get("/no/such/page", &browser).unwrap().status(), StatusCode::NOT_FOUND);
        assert!(get("/no/such/page", &HeaderMap::new()).is_none());
        assert!(get("/api/v1/nothing", &browser).is_none());
        assert!(answer(&Method::POST, &Uri::from_static("/no/such/page"), &browser).is_none());
    }

    #[test]
    fn a_page_may_load_nothing_from_elsewhere_and_run_nothing_written_into_it() {
        let page = page(&HeaderMap::new());
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    }
}
