//! Bad neighbours: clients of a relay that do what no good client does, each kind in its own way, from addresses of
//! their own on the loopback.
//!
//! The benchmark and the tests share them. All are bounded in number; what they send is paced where its amount
//! is not what makes them bad.

use proto_core::key::{NodePublic, NodeSecret};
use proto_core::seed::Seed;
use proto_core::wire::derp::{ClientInfo, Frame, FrameKind, decode, packet_header};
use proto_core::wire::disco;
use socket2::{SockFilter, SockRef};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

/// Connections of a kind that does something and is thrown out, one after the other.
const RUNNERS: usize = 4;
/// From one attempt of a runner to the next.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a runner waits to be thrown out.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one byte of a slow client to the next.
const DRIP: Duration = Duration::from_secs(1);
/// Slow clients of a kind.
pub(crate) const SLOW: usize = 400;
/// Connections of a crowd that never ends its requests: more than a relay has places for.
pub(crate) const CROWD: usize = 5_000;
/// Addresses that a crowd comes from.
const CROWD_ADDRESSES: usize = 4;
/// Clients that vanish or do not read, each with one that sends to it.
const DEAF: usize = 4;
/// Bytes of a packet in a flood.
const SIZE: usize = 1_400;
/// Bytes of one write in a flood.
const BURST: usize = 64 * 1024;

/// What makes a neighbour bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Sends packets to a friend as fast as it can.
    Flood,
    /// Logs in and reads nothing, while a friend sends to it.
    Stalled,
    /// Logs in and vanishes: its machine acknowledges nothing more, while a friend sends to it.
    HalfOpen,
    /// Begins a TLS handshake and goes on a byte a second.
    SlowTls,
    /// Writes a request a byte a second.
    SlowRequest,
    /// Writes its login a byte a second.
    SlowLogin,
    /// Asks over and over, and never reads an answer.
    DeafRequest,
    /// Thousands of connections with as much of a request as anybody waits for, and no end.
    Crowd,
    /// Announces a frame that is longer than any may be.
    TooLong,
    /// Leaves in the middle of a frame.
    Truncated,
    /// Names a key that it does not have.
    WrongKey,
    /// Says something else where its login should be.
    NoLogin,
    /// Says something that is no request.
    NoRequest,
    /// Sends to one key after the other, none of which is there.
    Strangers,
    /// Pings as fast as it can.
    Pings,
}

impl Kind {
    /// All of them, with their names.
    pub(crate) const ALL: [(&'static str, Self); 15] = [
        ("flood", Self::Flood),
        ("stalled", Self::Stalled),
        ("half_open", Self::HalfOpen),
        ("slow_tls", Self::SlowTls),
        ("slow_request", Self::SlowRequest),
        ("slow_login", Self::SlowLogin),
        ("deaf_request", Self::DeafRequest),
        ("crowd", Self::Crowd),
        ("too_long", Self::TooLong),
        ("truncated", Self::Truncated),
        ("wrong_key", Self::WrongKey),
        ("no_login", Self::NoLogin),
        ("no_request", Self::NoRequest),
        ("strangers", Self::Strangers),
        ("pings", Self::Pings),
    ];
}

/// Where bad neighbours of one kind work, and what they have done.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) at: SocketAddr,
    pub(crate) kind: Kind,
    /// Connections made.
    pub(crate) connections: Rc<Cell<u64>>,
    /// Packets or pings sent, where that is what they do.
    pub(crate) sent: Rc<Cell<u64>>,
}

impl Work {
    pub(crate) fn new(at: SocketAddr, kind: Kind) -> Self {
        Self { at, kind, connections: Rc::default(), sent: Rc::default() }
    }

    /// Does bad things until it is dropped, on tokio's local set. What the relay refuses is tried again.
    pub(crate) async fn run(&self) {
        let mut tasks = JoinSet::new();
        let number = match self.kind {
            Kind::SlowTls | Kind::SlowRequest | Kind::SlowLogin => SLOW,
            Kind::Crowd => CROWD,
            Kind::Strangers | Kind::Pings => 1,
            Kind::Stalled | Kind::HalfOpen | Kind::Flood | Kind::DeafRequest => DEAF,
            _ => RUNNERS,
        };
        for n in 0..number {
            let work = self.clone();
            tasks.spawn_local(async move {
                loop {
                    // A relay that closes the connection is what all of them expect.
                    let _ = work.once(n).await;
                    sleep(PAUSE).await;
                }
            });
            // Without a flood of connections, whose like is no kind of its own.
            if n % 16 == 15 {
                sleep(Duration::from_millis(4)).await;
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn once(&self, n: usize) -> io::Result<()> {
        match self.kind {
            Kind::Flood => self.flood(n).await,
            Kind::Stalled => self.stalled(n).await,
            Kind::HalfOpen => self.half_open(n).await,
            Kind::SlowTls => drip(self.connect(n).await?, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await,
            Kind::SlowRequest => drip(self.connect(n).await?, REQUEST.as_bytes()).await,
            Kind::SlowLogin => {
                let (io, relay) = self.upgrade(n).await?;
                drip(io, &hello(&self.secret(n), &relay)).await
            }
            Kind::DeafRequest => {
                // The answers are forty times as long as the questions, and more than any buffer holds.
                let mut io = self.connect(n).await?;
                io.write_all(&b"GET / HTTP/1.1\r\n\r\n".repeat(20_000)).await?;
                sleep(2 * PATIENCE).await;
                Ok(())
            }
            Kind::Crowd => self.throw(n, &[b"GET /", &[b'x'; 15_000][..]].concat()).await,
            Kind::NoRequest => self.throw(n, b"SSH-2.0-OpenSSH_9.2\r\n").await,
            Kind::NoLogin => {
                let (mut io, _) = self.upgrade(n).await?;
                io.write_all(&Frame::Ping([0; 8]).to_bytes()).await?;
                closed(&mut io).await
            }
            Kind::WrongKey => {
                let (mut io, relay) = self.upgrade(n).await?;
                let mut hello = hello(&self.secret(n), &relay);
                hello[5..37].copy_from_slice(&self.secret(n + 1).public().0);
                io.write_all(&hello).await?;
                closed(&mut io).await
            }
            Kind::TooLong => {
                let mut io = self.log_in(n).await?;
                io.write_all(&[FrameKind::SendPacket as u8, 0, 1, 0, 33]).await?;
                closed(&mut io).await
            }
            Kind::Truncated => {
                let mut io = self.log_in(n).await?;
                io.write_all(&packet_header(FrameKind::SendPacket, &self.secret(n).public(), SIZE)).await?;
                io.shutdown().await?;
                closed(&mut io).await
            }
            Kind::Strangers => self.strangers(n).await,
            Kind::Pings => {
                let io = self.log_in(n).await?;
                self.pour(io, Frame::Ping([7; 8]).to_bytes().repeat(BURST / 13), (BURST / 13) as u64).await
            }
        }
    }

    async fn flood(&self, n: usize) -> io::Result<()> {
        let sender = self.log_in(n).await?;
        let reader = self.log_in(n + 1_000).await?;
        let burst = packets(&self.secret(n + 1_000).public());
        tokio::select! {
            end = self.pour(sender, burst, (BURST / SIZE) as u64) => end,
            end = drain(reader) => end,
        }
    }

    async fn stalled(&self, n: usize) -> io::Result<()> {
        let reader = self.log_in(n).await?;
        SockRef::from(&reader).set_recv_buffer_size(4_096)?;
        let sender = self.log_in(n + 1_000).await?;
        let burst = packets(&self.secret(n).public());
        // Until the reader has been closed, and some more.
        let pouring = self.pour(sender, burst, (BURST / SIZE) as u64);
        timeout(Duration::from_secs(3), pouring).await?
    }

    async fn half_open(&self, n: usize) -> io::Result<()> {
        let vanished = self.log_in(n).await?;
        let mut sender = self.log_in(n + 1_000).await?;
        // The kernel drops whatever comes, and acknowledges nothing, as if the machine were gone.
        SockRef::from(&vanished).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
        let packet = Frame::SendPacket { to: self.secret(n).public(), bytes: &[1; 100] }.to_bytes();
        let mut tick = interval(Duration::from_millis(200));
        for _ in 0..150 {
            tick.tick().await;
            sender.write_all(&packet).await?;
        }
        Ok(())
    }

    async fn strangers(&self, n: usize) -> io::Result<()> {
        let io = self.log_in(n).await?;
        let (read, mut write) = io.into_split();
        let mut burst = Vec::new();
        let sending = async {
            loop {
                burst.clear();
                let first = self.sent.get();
                for number in first..first + 512 {
                    let mut key = [0x55; 32];
                    key[8..16].copy_from_slice(&number.to_be_bytes());
                    let mut payload = [0; disco::ENVELOPE_MIN];
                    payload[..6].copy_from_slice(&disco::MAGIC);
                    // Every eighth looks for its peer, the others are data.
                    let payload = if number % 8 == 0 { &payload[..] } else { &payload[..1] };
                    burst.extend_from_slice(&packet_header(
                        FrameKind::SendPacket,
                        &NodePublic(key),
                        payload.len(),
                    ));
                    burst.extend_from_slice(payload);
                }
                write.write_all(&burst).await?;
                self.sent.set(first + 512);
            }
        };
        tokio::select! {
            end = sending => end,
            end = drain(read) => end,
        }
    }

    /// Writes the same over and over.
    async fn pour(&self, io: TcpStream, burst: Vec<u8>, frames: u64) -> io::Result<()> {
        let (read, mut write) = io.into_split();
        let sending = async {
            loop {
                write.write_all(&burst).await?;
                self.sent.set(self.sent.get() + frames);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            end = sending => end,
            end = drain(read) => end,
        }
    }

    async fn throw(&self, n: usize, bytes: &[u8]) -> io::Result<()> {
        let mut io = self.connect(n).await?;
        io.write_all(bytes).await?;
        closed(&mut io).await
    }

    // --- What good clients do as well ---

    async fn connect(&self, n: usize) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // No other kind's, and no good client's.
        let host = match self.kind {
            Kind::Crowd => 100 + (n % CROWD_ADDRESSES) as u8,
            kind => 10 + kind as u8,
        };
        socket.bind(SocketAddr::from(([127, 0, 66, host], 0)))?;
        let io = socket.connect(self.at).await?;
        self.connections.set(self.connections.get() + 1);
        Ok(io)
    }

    fn secret(&self, n: usize) -> NodeSecret {
        NodeSecret::generate(&Seed::from_u64(0xbad_0000 + 10_000 * self.kind as u64 + n as u64))
    }

    /// As far as the relay's key.
    async fn upgrade(&self, n: usize) -> io::Result<(TcpStream, NodePublic)> {
        let mut io = self.connect(n).await?;
        io.write_all(REQUEST.as_bytes()).await?;
        let mut read = Vec::new();
        loop {
            if let Ok(Some((Frame::ServerKey { key }, _))) = decode(&read) {
                return Ok((io, key));
            }
            more(&mut io, &mut read).await?;
        }
    }

    async fn log_in(&self, n: usize) -> io::Result<TcpStream> {
        let (mut io, relay) = self.upgrade(n).await?;
        io.write_all(&hello(&self.secret(n), &relay)).await?;
        let mut read = Vec::new();
        loop {
            if let Ok(Some((Frame::ServerInfo { .. }, _))) = decode(&read) {
                return Ok(io);
            }
            more(&mut io, &mut read).await?;
        }
    }
}

const REQUEST: &str = "GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";

fn hello(secret: &NodeSecret, relay: &NodePublic) -> Vec<u8> {
    let mut hello = Vec::new();
    ClientInfo::default().emit(secret, relay, &mut Seed::from_u64(1).rng(), &mut hello);
    hello
}

/// Packets for one key, as many as fill a write.
fn packets(to: &NodePublic) -> Vec<u8> {
    let packet = [&packet_header(FrameKind::SendPacket, to, SIZE)[..], &[3; SIZE]].concat();
    packet.repeat(BURST / SIZE)
}

async fn more(io: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<()> {
    match timeout(PATIENCE, io.read_buf(read)).await?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Reads until the relay closes the connection.
async fn drain(mut io: impl tokio::io::AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    while io.read(&mut buffer).await? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn closed(io: &mut TcpStream) -> io::Result<()> {
    timeout(4 * PATIENCE, drain(io)).await?
}

/// Writes a byte a second, for as long as the relay lets it: what has a fixed end is never brought to it.
async fn drip(mut io: TcpStream, bytes: &[u8]) -> io::Result<()> {
    let (mut read, mut write) = io.split();
    let dripping = async {
        let mut tick = interval(DRIP);
        for byte in bytes {
            tick.tick().await;
            write.write_all(&[*byte]).await?;
        }
        std::future::pending().await
    };
    tokio::select! {
        end = dripping => end,
        end = drain(&mut read) => end,
    }
}
