//! A relay's client that writes and reads the bytes of HTTP, WebSocket and DERP itself, as they are documented.

use io_adapters::relay_stream::tls::Trust;
use io_adapters::transport::AnyStream;
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::machine::TlsCheck;
use proto_core::seed::Seed;
use proto_core::wire::derp::ClientInfo;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a message in a WebSocket: frames of DERP share them and span several.
const MESSAGE: usize = 40_000;

pub(crate) const SEND_PACKET: u8 = 0x04;
const RECV_PACKET: u8 = 0x05;
pub(crate) const PEER_GONE: u8 = 0x08;
pub(crate) const PING: u8 = 0x12;
pub(crate) const PONG: u8 = 0x13;
const SERVER_KEY: u8 = 0x01;
const SERVER_INFO: u8 = 0x03;

/// How a relay is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// The upgrade over plain HTTP.
    Plain,
    /// The upgrade over TLS.
    Tls,
    /// A WebSocket over plain HTTP.
    WebSocket,
    /// A WebSocket over TLS.
    WebSocketTls,
}

impl Way {
    const fn is_web(self) -> bool {
        matches!(self, Self::WebSocket | Self::WebSocketTls)
    }

    pub(crate) const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::WebSocketTls)
    }
}

/// A client that is logged in.
pub(crate) struct Client {
    io: AnyStream,
    web: bool,
    /// Of a WebSocket, what is not a whole frame of it yet.
    raw: Vec<u8>,
    /// DERP's bytes.
    read: Vec<u8>,
    pub(crate) key: NodePublic,
}

impl Client {
    /// Logs in with the key of this number.
    pub(crate) async fn log_in(at: SocketAddr, way: Way, number: u64) -> io::Result<Self> {
        let seed = Seed::from_u64(number);
        let secret = NodeSecret::generate(&seed);
        let tcp = TcpStream::connect(at).await?;
        let io: AnyStream = if way.is_tls() {
            let tls = Trust::only(Vec::new()).connect(tcp, "127.0.0.1", &TlsCheck::Unchecked).await;
            Box::new(tls.map_err(io::Error::other)?)
        } else {
            Box::new(tcp)
        };
        let (web, key) = (way.is_web(), secret.public());
        let mut client = Self { io, web, raw: Vec::new(), read: Vec::new(), key };
        client.upgrade().await?;
        let greeting = client.until(SERVER_KEY).await?;
        assert_eq!(greeting[..8], *b"DERP\xf0\x9f\x94\x91");
        let relay = greeting[8..40].try_into().map_err(io::Error::other)?;
        let mut hello = Vec::new();
        ClientInfo::default().emit(&secret, &NodePublic(relay), &mut seed.rng(), &mut hello);
        client.write(&hello).await?;
        client.until(SERVER_INFO).await?;
        Ok(client)
    }

    async fn upgrade(&mut self) -> io::Result<()> {
        let fields = if self.web {
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: derp\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        } else {
            "Upgrade: DERP\r\n"
        };
        let request = format!("GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{fields}\r\n");
        self.io.write_all(request.as_bytes()).await?;
        self.io.flush().await?;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            more(&mut self.io, &mut answer).await?;
        };
        let rest = answer.split_off(end);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        if self.web {
            // RFC 6455, section 1.3, has the answer to this very key.
            let proof = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
            assert!(answer.to_ascii_lowercase().contains(proof), "{answer}");
            self.raw = rest;
        } else {
            self.read = rest;
        }
        Ok(())
    }

    /// Writes DERP's bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.web {
            for message in bytes.chunks(MESSAGE) {
                self.io.write_all(&masked(message)).await?;
            }
        } else {
            self.io.write_all(bytes).await?;
        }
        self.io.flush().await
    }

    /// Writes one packet.
    pub(crate) async fn send(&mut self, to: NodePublic, payload: &[u8]) -> io::Result<()> {
        self.write(&frame(SEND_PACKET, &[&to.0, payload])).await
    }

    /// The next packet: from whom, and what.
    pub(crate) async fn packet(&mut self) -> io::Result<(NodePublic, Vec<u8>)> {
        let mut frame = self.until(RECV_PACKET).await?;
        let payload = frame.split_off(32);
        Ok((NodePublic(frame.try_into().unwrap_or_default()), payload))
    }

    /// The payload of the next frame of this kind; others are skipped.
    pub(crate) async fn until(&mut self, wanted: u8) -> io::Result<Vec<u8>> {
        loop {
            if let Some(([kind, length @ ..], rest)) = self.read.split_first_chunk::<5>() {
                let (kind, length) = (*kind, u32::from_be_bytes(*length) as usize);
                if let Some(payload) = rest.get(..length) {
                    let payload = payload.to_vec();
                    self.read.drain(..5 + length);
                    if kind == wanted {
                        return Ok(payload);
                    }
                    continue;
                }
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        if !self.web {
            return more(&mut self.io, &mut self.read).await;
        }
        while !self.message()? {
            more(&mut self.io, &mut self.raw).await?;
        }
        Ok(())
    }

    /// Takes one whole frame of the WebSocket, if there is one.
    fn message(&mut self) -> io::Result<bool> {
        let Some(([first, second], rest)) = self.raw.split_first_chunk::<2>() else { return Ok(false) };
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (length, head) = match second {
            126 => (rest.first_chunk().map(|n| usize::from(u16::from_be_bytes(*n))), 4),
            127 => (rest.first_chunk().map(|n| u64::from_be_bytes(*n) as usize), 10),
            n => (Some(usize::from(*n)), 2),
        };
        let Some(length) = length else { return Ok(false) };
        let Some(payload) = self.raw.get(head..head + length) else { return Ok(false) };
        match first & 0x0f {
            // Binary, or more of it.
            2 | 0 => self.read.extend_from_slice(payload),
            8 => return Err(io::ErrorKind::UnexpectedEof.into()),
            other => return Err(io::Error::other(format!("a WebSocket frame of type {other}"))),
        }
        self.raw.drain(..head + length);
        Ok(true)
    }

    /// Waits until the relay has closed the connection, however it does that.
    pub(crate) async fn closed(&mut self) -> io::Result<()> {
        match self.until(0xff).await {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(e),
            _ => Ok(()),
        }
    }
}

/// A frame of DERP.
pub(crate) fn frame(kind: u8, payload: &[&[u8]]) -> Vec<u8> {
    let payload = payload.concat();
    let mut out = vec![kind];
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&payload);
    out
}

/// A binary message of a client (RFC 6455, section 5.2).
fn masked(payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![0x82];
    match payload.len() {
        n @ ..126 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

async fn more(io: &mut AnyStream, to: &mut Vec<u8>) -> io::Result<()> {
    match timeout(PATIENCE, io.read_buf(to)).await {
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
        Ok(Err(e)) => Err(e),
        Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(_)) => Ok(()),
    }
}
