//! What a check does on the network: a message to oneself through a relay, a question to a STUN server, a request to
//! the access URL.

use super::PATIENCE;
use crate::settings::AccessUrl;
use io_adapters::entropy;
use io_adapters::relay_stream::fallback::Fallback;
use io_adapters::relay_stream::{Dialer, Opened, websocket};
use io_adapters::transport::TokioNetwork;
use proto_core::key::NodeSecret;
use proto_core::machine::{StreamProtocol, StreamTarget, TlsCheck};
use proto_core::relay_map::RelayNode;
use proto_core::wire::derp::{ClientInfo, Decoder, Frame};
use proto_core::wire::stun::{Response, TransactionId, request};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What is sent through a relay: as long as a question of discovery.
const MESSAGE: [u8; 64] = *b"warren health check: this message goes to nobody but its sender.";
/// The most that is read of the access URL's answer.
const ANSWER_MAX: u64 = 16 * 1024;
/// How often a STUN server is asked: datagrams may be lost.
const STUN_TRIES: u32 = 3;

/// The round trip of a message to ourselves, once logged in.
pub(super) async fn relay(
    dialer: &Dialer<TokioNetwork>,
    node: &RelayNode,
    (key, protocol): &(NodeSecret, StreamProtocol),
) -> Result<Duration, String> {
    within(async {
        let target = node.stream_target(addresses(dialer, node).await?);
        let target = StreamTarget { protocol: *protocol, ..target };
        let opened = dialer.open(&target, &Fallback::default()).await;
        let Opened::Derp(io) = opened.map_err(|error| error.to_string())? else {
            return Err("it is no relay".to_owned());
        };
        exchange(io, key).await
    })
    .await
}

async fn exchange<T>(mut io: T, key: &NodeSecret) -> Result<Duration, String>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = Reader::default();
    let relay = reader
        .until(&mut io, |frame| if let Frame::ServerKey { key } = frame { Some(*key) } else { None })
        .await?;
    let mut hello = Vec::new();
    ClientInfo::default().emit(key, &relay, &mut entropy::seed().rng(), &mut hello);
    let told = |error: io::Error| format!("the connection broke: {error}");
    io.write_all(&hello).await.map_err(told)?;
    io.flush().await.map_err(told)?;
    reader
        .until(&mut io, |frame| if let Frame::ServerInfo { .. } = frame { Some(()) } else { None })
        .await
        .map_err(|why| format!("it did not let us in: {why}"))?;
    let since = Instant::now();
    let us = key.public();
    io.write_all(&Frame::SendPacket { to: us, bytes: &MESSAGE }.to_bytes()).await.map_err(told)?;
    io.flush().await.map_err(told)?;
    let came = |frame: &Frame<'_>| match frame {
        Frame::RecvPacket { from, bytes } if *from == us && *bytes == MESSAGE => Some(()),
        _ => None,
    };
    reader.until(&mut io, came).await.map_err(|why| format!("a message did not come through: {why}"))?;
    Ok(since.elapsed())
}

#[derive(Default)]
struct Reader {
    decoder: Decoder,
    read: Vec<u8>,
}

impl Reader {
    async fn until<T: AsyncRead + Unpin, R>(
        &mut self,
        io: &mut T,
        wanted: impl Fn(&Frame<'_>) -> Option<R>,
    ) -> Result<R, String> {
        loop {
            let read = core::mem::take(&mut self.read);
            let mut found = None;
            let mut frames = self.decoder.feed(&read);
            while let Some(frame) = frames.next().map_err(|error| error.to_string())? {
                found = found.or_else(|| wanted(&frame));
            }
            if let Some(found) = found {
                return Ok(found);
            }
            let mut more = Vec::with_capacity(4_096);
            match io.read_buf(&mut more).await {
                Ok(0) => return Err("it closed the connection".to_owned()),
                Ok(_) => self.read = more,
                Err(error) => return Err(format!("the connection broke: {error}")),
            }
        }
    }
}

/// The round trip to a STUN server.
pub(super) async fn stun(
    dialer: &Dialer<TokioNetwork>,
    node: &RelayNode,
    port: u16,
) -> Result<Duration, String> {
    within(async {
        let resolved = resolve(dialer, node).await?;
        let address = node.stun_addresses(&resolved).into_iter().next();
        ask_stun(SocketAddr::new(address.ok_or("it has no address")?, port)).await
    })
    .await
}

async fn ask_stun(at: SocketAddr) -> Result<Duration, String> {
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let failed = |error: io::Error| format!("it can't be asked: {error}");
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(at).await.map_err(failed)?;
    let transaction = TransactionId::generate(&mut entropy::seed().rng());
    let mut buffer = [0; 1_500];
    for _ in 0..STUN_TRIES {
        let since = Instant::now();
        socket.send(&request(transaction)).await.map_err(failed)?;
        let answer = async {
            loop {
                let len = socket.recv(&mut buffer).await.map_err(failed)?;
                let bytes = buffer.get(..len).unwrap_or_default();
                if Response::parse(bytes).is_ok_and(|answer| answer.transaction == transaction) {
                    return Ok::<_, String>(since.elapsed());
                }
            }
        };
        match timeout(PATIENCE / (STUN_TRIES + 1), answer).await {
            Ok(Ok(round_trip)) => return Ok(round_trip),
            Ok(Err(why)) => return Err(why),
            Err(_) => {}
        }
    }
    Err("it did not answer".to_owned())
}

/// Whether the access URL leads to this program, asked as a user would.
pub(super) async fn access_url(dialer: &Dialer<TokioNetwork>, url: &AccessUrl) -> Result<(), String> {
    within(async {
        let target = to(dialer, url, "/api/v1/buildinfo").await?;
        let mut io = dialer.dial(&target).await.map_err(|error| error.to_string())?;
        let head =
            format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.path, host(url));
        let failed = |error: io::Error| format!("the connection broke: {error}");
        io.write_all(head.as_bytes()).await.map_err(failed)?;
        io.flush().await.map_err(failed)?;
        let mut answer = Vec::new();
        // A connection that is torn down after the answer is as good as one that is closed.
        let read = (&mut io).take(ANSWER_MAX).read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        let status = text.lines().next().unwrap_or_default();
        if !status.contains(" 200") {
            return match read {
                Err(error) if answer.is_empty() => Err(failed(error)),
                _ => Err(format!("it answers \"{status}\"")),
            };
        }
        if text.contains(concat!("\"name\":\"", env!("CARGO_PKG_NAME"), "\"")) {
            Ok(())
        } else {
            Err("another program answers there".to_owned())
        }
    })
    .await
}

/// Whether a WebSocket gets through to the relay at the access URL.
pub(super) async fn web_socket(
    dialer: &Dialer<TokioNetwork>,
    url: &AccessUrl,
    path: &str,
) -> Result<(), String> {
    within(async {
        let target = to(dialer, url, path).await?;
        let io = dialer.dial(&target).await.map_err(|error| error.to_string())?;
        let mut io = websocket::connect(io, &target).await.map_err(|error| error.to_string())?;
        let mut reader = Reader::default();
        reader.until(&mut io, |frame| if let Frame::ServerKey { .. } = frame { Some(()) } else { None }).await
    })
    .await
}

async fn to(dialer: &Dialer<TokioNetwork>, url: &AccessUrl, path: &str) -> Result<StreamTarget, String> {
    let addresses = match url.ip() {
        Some(ip) => vec![ip],
        None => dialer.resolve(&url.host).await.map_err(|error| unresolved(&url.host, &error))?,
    };
    Ok(StreamTarget {
        protocol: StreamProtocol::Derp,
        host: url.host.clone(),
        port: url.port,
        addresses,
        tls: url.tls.then(|| TlsCheck::Roots { name: url.host.clone() }),
        path: path.to_owned(),
        bearer: None,
    })
}

fn host(url: &AccessUrl) -> String {
    let text = url.to_string();
    text.split_once("://").map_or(text.clone(), |(_, host)| host.to_owned())
}

async fn addresses(dialer: &Dialer<TokioNetwork>, node: &RelayNode) -> Result<Vec<IpAddr>, String> {
    Ok(node.addresses(&resolve(dialer, node).await?))
}

async fn resolve(dialer: &Dialer<TokioNetwork>, node: &RelayNode) -> Result<Vec<IpAddr>, String> {
    match node.name_to_resolve() {
        None => Ok(Vec::new()),
        Some(name) => dialer.resolve(name).await.map_err(|error| unresolved(name, &error)),
    }
}

fn unresolved(name: &str, error: &io::Error) -> String {
    format!("the name {name} could not be resolved: {error}")
}

async fn within<R>(work: impl Future<Output = Result<R, String>>) -> Result<R, String> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}
