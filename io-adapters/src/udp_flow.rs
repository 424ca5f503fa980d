//! One flow of UDP in the tunnel, either end: datagrams of the tunnel where they fit, the flow's stream where not.

use crate::handle::{Datagram, DatagramFlow, TunnelStream};
use bytes::{Buf, Bytes, BytesMut};
use proto_core::stream::udp::{UdpFrame, UdpNotice};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;

/// Frames that may wait for the stream. What comes beyond is dropped, as a full queue of a network does.
const FRAMES_MAX: usize = 64;
/// Bytes read from the stream at once.
const CHUNK: usize = 16 * 1024;

/// What comes out of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// A datagram.
    Datagram(Bytes),
    /// A word of the acceptor.
    Notice(UdpNotice),
}

/// One end of a flow.
#[derive(Debug)]
pub struct UdpFlow {
    reader: ReadHalf<TunnelStream>,
    read: BytesMut,
    frames: mpsc::Sender<Vec<u8>>,
    datagrams: DatagramFlow,
    /// Whether the other end understands datagrams by now.
    ready: bool,
    dropped: u64,
}

impl UdpFlow {
    /// The opener's end. Datagrams go by the stream until the acceptor is ready for others.
    #[must_use]
    pub fn opened(stream: TunnelStream, datagrams: DatagramFlow) -> Self {
        Self::new(stream, datagrams, false)
    }

    /// The acceptor's end, which says that it is ready.
    #[must_use]
    pub fn accepted(stream: TunnelStream, datagrams: DatagramFlow) -> Self {
        let mut flow = Self::new(stream, datagrams, true);
        flow.notify(UdpNotice::Ready);
        flow
    }

    fn new(stream: TunnelStream, datagrams: DatagramFlow, ready: bool) -> Self {
        let (reader, writer) = split(stream);
        let (frames, waiting) = mpsc::channel(FRAMES_MAX);
        tokio::spawn(write(writer, waiting));
        Self { reader, read: BytesMut::new(), frames, datagrams, ready, dropped: 0 }
    }

    /// Sends a datagram.
    pub fn send(&mut self, datagram: &[u8]) {
        if !self.ready {
            self.frame(UdpFrame::Datagram(datagram));
        } else if !self.datagrams.send(datagram) {
            self.dropped += 1;
        }
    }

    /// Says something to the opener.
    pub fn notify(&mut self, notice: UdpNotice) {
        self.frame(UdpFrame::Notice(notice));
    }

    fn frame(&mut self, frame: UdpFrame<'_>) {
        self.dropped += u64::from(self.frames.try_send(frame.encode()).is_err());
    }

    /// How many datagrams were dropped at this end because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped + self.datagrams.missed() as u64
    }

    /// What comes next; none at the flow's end. May be given up and called again at any time.
    ///
    /// # Errors
    /// If the stream or the tunnel broke.
    pub async fn next(&mut self) -> io::Result<Option<Came>> {
        loop {
            if let Some(came) = self.take()? {
                if came != Came::Notice(UdpNotice::Ready) {
                    return Ok(Some(came));
                }
                self.ready = true;
                continue;
            }
            self.read.reserve(CHUNK);
            tokio::select! {
                biased;
                datagram = self.datagrams.next() => match datagram {
                    Some(Datagram::Received(bytes)) => return Ok(Some(Came::Datagram(bytes))),
                    Some(Datagram::TooLong(bytes)) => self.frame(UdpFrame::Datagram(&bytes)),
                    // The stream knows why.
                    None => std::future::pending().await,
                },
                read = self.reader.read_buf(&mut self.read) => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Takes a frame off what was read.
    fn take(&mut self) -> io::Result<Option<Came>> {
        let decoded = UdpFrame::decode(&self.read);
        let decoded = decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let Some((frame, took)) = decoded else { return Ok(None) };
        let came = match frame {
            UdpFrame::Datagram(bytes) => Came::Datagram(Bytes::copy_from_slice(bytes)),
            UdpFrame::Notice(notice) => Came::Notice(notice),
        };
        self.read.advance(took);
        Ok(Some(came))
    }
}

async fn write(mut stream: WriteHalf<TunnelStream>, mut frames: mpsc::Receiver<Vec<u8>>) {
    // The first read or flush sends the header, also if there is nothing to say yet.
    let _ = stream.flush().await;
    while let Some(frame) = frames.recv().await {
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}
