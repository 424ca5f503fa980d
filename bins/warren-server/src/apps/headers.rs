//! What of a request's and an answer's header passes between a browser and an app.
//!
//! Warren's own cookies and tokens never reach an app, an app's cookies are its own alone, and nothing that one says about
//! the connection, the server or other apps has an effect.

use axum::http::header::{
    ALT_SVC, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, LOCATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use axum::http::{Method, Version};
use core::net::IpAddr;

/// What is about one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What only we say to an app, be it that we say nothing: who comes from where, and who that is.
const ONLY_OURS: [&str; 2] = ["forwarded", "x-real-ip"];
/// How all the others begin.
const FORWARDED: &str = "x-forwarded-";

/// What is meant for caches on the way alone, by the names that they know (RFC 9213 has the first).
const SHARED_CACHES: [HeaderName; 2] =
    [HeaderName::from_static("cdn-cache-control"), HeaderName::from_static("surrogate-control")];

/// What an app may not say: it would hold for the whole server, its name or its other apps.
const NOT_AN_APPS: [HeaderName; 6] = [
    ALT_SVC,
    STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("service-worker-allowed"),
];

/// How the names of Warren's own cookies begin, behind a prefix that browsers know.
const OUR_COOKIES: &str = "warren_";
/// How Warren's own tokens begin.
const OUR_TOKENS: &str = "warren_";
/// The protocol that a connection may change to.
const WEBSOCKET: &str = "websocket";

/// Where an app is for the browser.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Its origin.
    pub(crate) origin: String,
    /// What its paths begin with there, without a slash at the end; empty if the origin is its own.
    pub(crate) base: String,
    /// Who asks.
    pub(crate) client: Option<IpAddr>,
}

/// Why a request is not passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// Two readers could see different ends of it.
    #[error("the request says in two ways where it ends")]
    Framing,
    /// Neither a browser nor a program asks an app so.
    #[error("no app is asked that way")]
    Method,
}

/// Whether a request is what it seems to be for everybody who reads it.
///
/// # Errors
/// [`Unfit`].
pub(crate) fn fit(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Unfit> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Unfit::Method);
    }
    // RFC 9112, section 6.1 and 6.3: what is sent on is framed anew, and what is doubtful is refused all the same.
    let coded = headers.get_all(TRANSFER_ENCODING).iter().count();
    let chunked =
        headers.get(TRANSFER_ENCODING).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let sized = headers.get_all(CONTENT_LENGTH).iter().count();
    let named = headers.get_all(HOST).iter().count() <= 1;
    let plain = coded == 0 || (coded == 1 && chunked && sized == 0 && version == Version::HTTP_11);
    if plain && sized <= 1 && named { Ok(()) } else { Err(Unfit::Framing) }
}

/// Whether a request asks for a WebSocket. Other protocols are not offered: the rest of such a connection would pass
/// unseen.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrades = listed(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    upgrades
        && headers
            .get(UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Makes a browser's header an app's.
pub(crate) fn to_app(headers: &mut HeaderMap, place: &Place) {
    let websocket = wants_websocket(headers);
    strip_hops(headers);
    headers.remove(EXPECT);
    strip_spoofed(headers);
    if headers.get_all(AUTHORIZATION).iter().any(is_our_token) {
        headers.remove(AUTHORIZATION);
    }
    strip_our_cookies(headers);
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
    let (scheme, host) = place.origin.split_once("://").unwrap_or_default();
    let mut tell = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    tell("x-forwarded-proto", scheme);
    tell("x-forwarded-host", host);
    if let Some(client) = place.client {
        tell("x-forwarded-for", &client.to_string());
    }
    if !place.base.is_empty() {
        tell("x-forwarded-prefix", &place.base);
    }
}

/// Takes out what only we say to an app.
pub(crate) fn strip_spoofed(headers: &mut HeaderMap) {
    let spoofed: Vec<HeaderName> = headers.keys().filter(|name| is_only_ours(name)).cloned().collect();
    for name in spoofed {
        headers.remove(name);
    }
}

/// Makes an app's header a browser's. `websocket`: the connection becomes one.
pub(crate) fn to_browser(headers: &mut HeaderMap, place: &Place, websocket: bool) {
    strip_hops(headers);
    for name in &NOT_AN_APPS {
        headers.remove(name);
    }
    let cookies: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter_map(|value| own_cookie(value, &place.base)).collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    if let Some(location) = headers.get(LOCATION).and_then(|value| below(value, &place.base)) {
        headers.insert(LOCATION, location);
    }
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
}

/// Leaves an answer to the browser alone: caches between us and it do not know whom an app is for, nor that not everybody
/// gets the same answer.
pub(crate) fn keep_private(headers: &mut HeaderMap) {
    for name in &SHARED_CACHES {
        headers.remove(name);
    }
    let not_for_all = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        !["public", "private", "s-maxage"].iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let kept = listed(headers, &CACHE_CONTROL).filter(not_for_all).fold("private".to_owned(), |text, one| {
        let comma = if one.is_empty() { "" } else { ", " };
        text + comma + one
    });
    headers
        .insert(CACHE_CONTROL, HeaderValue::from_str(&kept).unwrap_or(HeaderValue::from_static("no-store")));
}

/// Whether this is a header that only we send, or one that some apps take for it: those that read headers from their
/// environment (RFC 3875, section 4.1.18) cannot tell `_` from `-`.
fn is_only_ours(name: &HeaderName) -> bool {
    let begins = |with: &str| {
        let same = |(ours, theirs): (u8, u8)| theirs == ours || (theirs == b'_' && ours == b'-');
        name.as_str().len() >= with.len() && with.bytes().zip(name.as_str().bytes()).all(same)
    };
    begins(FORWARDED) || ONLY_OURS.iter().any(|ours| ours.len() == name.as_str().len() && begins(ours))
}

/// The parts of a header that is a list.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn strip_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = listed(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn is_our_token(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split_ascii_whitespace().any(|part| part.starts_with(OUR_TOKENS))
}

/// Whether this is the name of a cookie of Warren's.
fn is_our_cookie(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    let plain = ["__host-", "__secure-"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
    plain.starts_with(OUR_COOKIES)
}

fn strip_our_cookies(headers: &mut HeaderMap) {
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            if pair.trim_ascii().is_empty() || is_our_cookie(&String::from_utf8_lossy(name)) {
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair.trim_ascii());
        }
    }
    headers.remove(COOKIE);
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_bytes(&kept)) {
        headers.insert(COOKIE, value);
    }
}

/// An app's cookie, bound to the app's host and path; none if it is called like one of ours.
fn own_cookie(value: &HeaderValue, base: &str) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let mut parts = text.split(';');
    let pair = parts.next()?;
    let name = pair.split_once('=').map_or("", |(name, _)| name);
    // One without a name is sent back as its value alone, which then looks like another's name.
    let sent_back = if name.trim().is_empty() { pair.trim().trim_start_matches('=') } else { name };
    if is_our_cookie(sent_back) {
        return None;
    }
    let mut out = pair.trim().to_owned();
    let mut path = None;
    for part in parts {
        let (key, value) =
            part.split_once('=').map_or((part.trim(), ""), |(key, value)| (key.trim(), value.trim()));
        match key.to_ascii_lowercase().as_str() {
            "domain" => {}
            "path" => path = Some(value),
            _ => out = format!("{out}; {}", part.trim()),
        }
    }
    if base.is_empty() {
        if let Some(path) = path {
            out = format!("{out}; Path={path}");
        }
    } else {
        // The prefix wants the path to be "/", which is the dashboard's here.
        if name.trim().to_ascii_lowercase().starts_with("__host-") {
            return None;
        }
        let path = path.filter(|path| path.starts_with('/')).unwrap_or("/");
        let inside = path == base || path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
        let path = if inside { path.to_owned() } else { format!("{base}{path}") };
        out = format!("{out}; Path={path}");
    }
    HeaderValue::from_str(&out).ok()
}

/// Where an app sends a browser, if that is a path which must begin with the app's own.
fn below(location: &HeaderValue, base: &str) -> Option<HeaderValue> {
    let text = location.to_str().ok()?;
    let absolute = text.starts_with('/') && !text.starts_with("//");
    let inside = text == base || text.strip_prefix(base).is_some_and(|rest| rest.starts_with(['/', '?']));
    (absolute && !base.is_empty() && !inside)
        .then(|| HeaderValue::from_str(&format!("{base}{text}")).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
