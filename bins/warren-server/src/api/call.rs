//! What every request has: an id, which its answer and the log name, and an address that it comes from.

use super::Remote;
use super::problem::ApiError;
use crate::app::Shared;
use crate::settings::Network;
use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::HeaderValue;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use core::convert::Infallible;
use core::net::IpAddr;
use proto_core::wire::api::REQUEST_ID_HEADER;
use std::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

/// Who asks from where, and the name of the question.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Call {
    /// Unique; later ones are greater.
    pub(crate) request_id: String,
    /// The client's address: the other end of the connection, or what a trusted proxy says.
    pub(crate) address: Option<IpAddr>,
}

impl Call {
    /// The address for people and tables; empty if it is not known.
    pub(crate) fn address_text(&self) -> String {
        self.address.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Names the request, in its answer's header and, if that is a problem, in its text.
pub(super) async fn name(
    State(app): State<Shared>,
    remote: Option<Extension<Remote>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = remote.map(|Extension(Remote(from))| from.ip());
    let address = peer.map(|peer| client(peer, request.headers(), &app.trusted_proxies));
    let request_id = Uuid::now_v7().to_string();
    let span = tracing::error_span!("request", id = %request_id);
    request.extensions_mut().insert(Call { request_id: request_id.clone(), address });
    let since = Instant::now();
    let mut response = next.run(request).instrument(span).await;
    app.requests.count(response.status(), since.elapsed());
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        // The same document and headers, with the id in it.
        *response.body_mut() = Body::from(error.named(&request_id).json());
    }
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID_HEADER), id);
    }
    response
}

/// Where a request really comes from. Each trusted proxy adds its client at the end of `X-Forwarded-For`, so the
/// last one that is no trusted proxy is the client; what stands before it is that client's own word.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let trusts = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or_default());
    let told: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    for hop in told.iter().rev() {
        if !trusts(client) {
            break;
        }
        let Ok(ip) = hop.trim().parse::<IpAddr>() else { break };
        client = ip.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_say_who_their_client_is() {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
        let seen = |peer: &str, told: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in told {
                headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
            }
            client(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(seen("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "anybody can say that");
        assert_eq!(seen("10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen("::ffff:10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen("2001:db8::1", &["6.6.6.6, 198.51.100.7", "10.9.9.9"]), "198.51.100.7");
        assert_eq!(seen("10.1.2.3", &["6.6.6.6, nonsense"]), "10.1.2.3");
        assert_eq!(seen("10.1.2.3", &[]), "10.1.2.3");
    }
}
