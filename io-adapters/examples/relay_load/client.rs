//! One client: connected, upgraded, logged in.

use crate::Load;
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::seed::Seed;
use proto_core::wire::derp::{ClientInfo, Frame, FrameKind, decode};
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection that bytes go in and out of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The connection's bytes as they come, if they are sealed.
    fn sealed(&mut self) -> Option<&mut TcpStream>;
}

impl Stream for TcpStream {
    fn sealed(&mut self) -> Option<&mut TcpStream> {
        None
    }
}

impl Stream for TlsStream<TcpStream> {
    fn sealed(&mut self) -> Option<&mut TcpStream> {
        Some(self.get_mut().0)
    }
}

/// A client that is logged in.
pub(crate) struct Client {
    pub io: Box<dyn Stream>,
    pub key: NodePublic,
    /// What came after the login already.
    pub read: Vec<u8>,
}

impl Client {
    /// The client of this number, from the first packet to the relay's ServerInfo.
    pub(crate) async fn log_in(load: &Load, number: usize) -> Result<Self, String> {
        let seed = seed(number);
        let secret = NodeSecret::generate(&seed);
        Self::log_in_as(load, &secret, &seed).await.map_err(|e| format!("client {number}: {e}"))
    }

    /// As [`Client::log_in`], with a key that is there.
    pub(crate) async fn log_in_as(load: &Load, secret: &NodeSecret, seed: &Seed) -> io::Result<Self> {
        let tcp = TcpStream::connect(load.address).await?;
        tcp.set_nodelay(true)?;
        let mut io: Box<dyn Stream> = match &load.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = rustls::pki_types::ServerName::from(IpAddr::from([127, 0, 0, 1]));
                Box::new(tls.connect(name, tcp).await?)
            }
        };
        let request = b"GET /derp HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n";
        io.write_all(request).await?;
        io.flush().await?;
        let mut read = Vec::with_capacity(1_024);
        let head = loop {
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut io, &mut read).await?;
        };
        if !read.starts_with(b"HTTP/1.1 101") {
            return Err(io::Error::other(String::from_utf8_lossy(&read[..head]).into_owned()));
        }
        read.drain(..head);
        let relay = loop {
            match decode(&read).map_err(io::Error::other)? {
                Some((Frame::ServerKey { key }, len)) => {
                    read.drain(..len);
                    break key;
                }
                Some((other, _)) => return Err(io::Error::other(format!("no ServerKey but {other:?}"))),
                None => more(&mut io, &mut read).await?,
            }
        };
        let mut hello = Vec::new();
        ClientInfo::default().emit(secret, &relay, &mut seed.rng(), &mut hello);
        io.write_all(&hello).await?;
        io.flush().await?;
        loop {
            match decode(&read).map_err(io::Error::other)? {
                Some((frame, len)) if frame.kind() == FrameKind::ServerInfo as u8 => {
                    read.drain(..len);
                    break;
                }
                Some((other, _)) => return Err(io::Error::other(format!("no ServerInfo but {other:?}"))),
                None => more(&mut io, &mut read).await?,
            }
        }
        Ok(Self { io, key: secret.public(), read })
    }
}

/// What client `number` of this process comes from: what the relay still has for clients of another must not reach ours.
pub(crate) fn seed(number: usize) -> Seed {
    Seed::from_u64(u64::from(std::process::id()) << 32 | number as u64)
}

async fn more(io: &mut Box<dyn Stream>, read: &mut Vec<u8>) -> io::Result<()> {
    if io.read_buf(read).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
