//! The access URL: where users and agents find the server.

use proto_core::coord::ControlTarget;
use proto_core::machine::TlsCheck;

/// The path of the coordination WebSocket below the access URL.
pub const COORDINATE: &str = "/api/v1/coordinate";

/// Why an address is no access URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{url}\" is not an http:// or https:// address")]
pub struct AccessUrlError {
    /// What was given.
    pub url: String,
}

/// Where a node finds the coordinator of the server at `url`, and the token it shows there.
///
/// # Errors
/// If the address is not an `http://` or `https://` one with a host.
pub fn control_target(url: &str, token: &str) -> Result<ControlTarget, AccessUrlError> {
    let wrong = || AccessUrlError { url: url.to_owned() };
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err(wrong());
    }
    let prefix = uri.path().trim_end_matches('/');
    Ok(ControlTarget {
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        addresses: Vec::new(),
        tls: tls.then(|| TlsCheck::Roots { name: host.clone() }),
        path: format!("{prefix}{COORDINATE}"),
        bearer: Some(token.to_owned()),
        host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_to_the_coordinator() {
        let target = control_target("https://warren.example.com/", "t").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("warren.example.com", 443));
        assert_eq!(target.tls, Some(TlsCheck::Roots { name: "warren.example.com".into() }));
        assert_eq!(target.path, "/api/v1/coordinate");
        let target = control_target("http://[::1]:7080/warren", "t").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("::1", 7080, None));
        assert_eq!(target.path, "/warren/api/v1/coordinate");
    }

    #[test]
    fn other_texts_are_refused() {
        for url in ["", "warren.example.com", "ftp://a", "http://", "http://:80", "https://a b"] {
            assert!(control_target(url, "t").is_err(), "{url}");
        }
    }
}
