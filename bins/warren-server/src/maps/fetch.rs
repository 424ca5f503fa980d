//! Fetches a document over HTTP or HTTPS.

use crate::settings::AccessUrl;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use io_adapters::relay_stream::tls;
use proto_core::machine::TlsCheck;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// For the whole document; a relay map is some 20 KiB.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often we let ourselves be sent elsewhere.
const REDIRECTS_MAX: usize = 3;

/// The document at `url`, at most `max` bytes; or why not, in words.
pub(crate) async fn get(url: &str, max: usize) -> Result<Vec<u8>, String> {
    let answer = tokio::time::timeout(TIMEOUT, follow(url, max)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
}

async fn follow(url: &str, max: usize) -> Result<Vec<u8>, String> {
    let mut url = url.to_owned();
    for _ in 0..=REDIRECTS_MAX {
        match ask(&url, max).await? {
            Answer::Document(bytes) => return Ok(bytes),
            Answer::Elsewhere(next) => url = next,
        }
    }
    Err(format!("it was sent elsewhere more than {REDIRECTS_MAX} times"))
}

enum Answer {
    Document(Vec<u8>),
    Elsewhere(String),
}

async fn ask(url: &str, max: usize) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|_| "it is not a URL".to_owned())?;
    let (scheme, authority) = uri
        .scheme_str()
        .zip(uri.authority())
        .ok_or_else(|| "the URL does not begin with http:// or https://".to_owned())?;
    let origin: AccessUrl = format!("{scheme}://{authority}").parse()?;
    let tcp = TcpStream::connect((origin.host.as_str(), origin.port))
        .await
        .map_err(|error| crate::fault::io_words(&error))?;
    if !origin.tls {
        return exchange(tcp, &uri, max).await;
    }
    let check = TlsCheck::Roots { name: origin.host.clone() };
    let tls = tls::connect(tcp, &origin.host, &check).await.map_err(|error| error.to_string())?;
    exchange(tls, &uri, max).await
}

async fn exchange<S>(stream: S, uri: &Uri, max: usize) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(USER_AGENT, concat!("warren-server/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(words)?;
    let status = response.status();
    let answer = if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        Ok(Answer::Elsewhere(absolute(to.ok_or("it sends us elsewhere without saying where")?, uri)))
    } else if status == StatusCode::OK {
        let body = Limited::new(response.into_body(), max).collect().await;
        body.map(|body| Answer::Document(body.to_bytes().to_vec())).map_err(|error| error.to_string())
    } else {
        Err(format!("the answer is {status}"))
    };
    connection.abort();
    answer
}

/// `to` as a whole URL, seen from `base`.
fn absolute(to: &str, base: &Uri) -> String {
    match (to.starts_with('/'), base.scheme_str(), base.authority()) {
        (true, Some(scheme), Some(authority)) => format!("{scheme}://{authority}{to}"),
        _ => to.to_owned(),
    }
}
