//! One stream of a tunnel: what has arrived of it, in order, and what is still to be said about it.

use super::StreamError;
use super::config::STREAM_WINDOW;
use bytes::{Buf, Bytes};
use proto_core::stream::CODE_TOO_FRAGMENTED;
use proto_core::stream::reassembly::{Bounds, Piece, Reassembly};
use quinn_proto::{Connection, FinishError, ReadError, SendStream, StreamId, VarInt, WriteError};

/// What one stream may hold: as much again as the peer may send unread, since credit is given as pieces are
/// read, in order or not; and pieces enough for that many full packets.
const BOUNDS: Bounds =
    Bounds { bytes: 2 * STREAM_WINDOW as usize, pieces: 2 * STREAM_WINDOW as usize / 1_024 };
/// Bytes in order of one stream that are taken over from quinn-proto though nobody reads: beyond this they stay
/// there, and the peer runs out of credit.
const UNREAD_MAX: usize = 2 << 20;
/// The same of all streams of a peer: what its window lets it send unread, once more.
const UNREAD_ALL_MAX: usize = 64 << 20;
/// Bytes that may wait behind gaps of all streams of a peer: the bound of what a hostile peer can make us hold
/// beside its window.
const GAPS_ALL_MAX: usize = 128 << 20;
/// Pieces shorter than this are copied when they must wait: they would pin a whole receive buffer each.
const PIN_MIN: usize = 1_024;

/// A [`Bytes`] as a piece.
#[derive(Debug)]
pub(super) struct Chunk(Bytes);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Piece for Chunk {
    fn advance(&mut self, n: usize) {
        self.0.advance(n.min(self.0.len()));
    }
    fn truncate(&mut self, n: usize) {
        self.0.truncate(n);
    }
}

/// What waits here, in bytes: of a stream, or of all streams of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// In order, for a reader.
    pub(super) unread: usize,
    /// Behind gaps.
    pub(super) gaps: usize,
}

impl Held {
    /// The sum after a part of it has become another.
    pub(super) fn replace(&mut self, before: Self, after: Self) {
        self.unread = (self.unread + after.unread).saturating_sub(before.unread);
        self.gaps = (self.gaps + after.gaps).saturating_sub(before.gaps);
    }
}

/// The state of the half that we read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Open,
    /// The end has been read from quinn-proto; what waits is all there is.
    Ended,
    Reset(u64),
    Stopped,
}

/// The state of the half that we write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writing {
    Open,
    Finished,
    Closed,
}

/// One stream.
pub(super) struct Flow {
    pub(super) handle: usize,
    pub(super) id: StreamId,
    pub(super) read_blocked: bool,
    pub(super) write_blocked: bool,
    pub(super) lost: bool,
    /// Bytes written so far: a stream's first ones may use the reserve.
    pub(super) written: u64,
    pub(super) priority: i32,
    current: Bytes,
    order: Reassembly<Chunk>,
    reading: Reading,
    writing: Writing,
}

impl Flow {
    pub(super) fn new(handle: usize, id: StreamId) -> Self {
        Self {
            handle,
            id,
            read_blocked: false,
            write_blocked: false,
            lost: false,
            written: 0,
            priority: 0,
            current: Bytes::new(),
            order: Reassembly::new(BOUNDS),
            reading: Reading::Open,
            writing: Writing::Open,
        }
    }

    /// What waits here.
    pub(super) fn held(&self) -> Held {
        let gaps = self.order.behind_gaps();
        Held { unread: self.order.waiting() - gaps, gaps }
    }

    /// Takes over what quinn-proto has of this stream: all of it while the reader waits for a gap to close,
    /// a bounded part while the reader is slow. `others` is what the peer's other streams hold.
    pub(super) fn pull(&mut self, connection: &mut Connection, others: Held) {
        if self.reading != Reading::Open {
            return;
        }
        let mut stream = connection.recv_stream(self.id);
        let Ok(mut chunks) = stream.read(false) else {
            self.reading = Reading::Stopped;
            return;
        };
        let outcome = loop {
            let Held { unread, gaps } = self.held();
            if unread > 0 && (unread >= UNREAD_MAX || others.unread + unread >= UNREAD_ALL_MAX) {
                break Ok(());
            }
            if others.gaps + gaps > GAPS_ALL_MAX {
                break Err(());
            }
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    let mut bytes = chunk.bytes;
                    if bytes.len() < PIN_MIN {
                        bytes = Bytes::copy_from_slice(&bytes);
                    }
                    if self.order.insert(chunk.offset, Chunk(bytes)).is_err() {
                        break Err(());
                    }
                }
                Ok(None) => {
                    self.reading = Reading::Ended;
                    break Ok(());
                }
                Err(ReadError::Blocked) => break Ok(()),
                Err(ReadError::Reset(code)) => {
                    self.reading = Reading::Reset(code.into_inner());
                    break Ok(());
                }
            }
        };
        let _ = chunks.finalize();
        if outcome.is_err() {
            self.stop(Some(connection), CODE_TOO_FRAGMENTED);
            self.reading = Reading::Reset(u64::from(CODE_TOO_FRAGMENTED));
        }
    }

    /// Whether a read gives something: bytes, the end or an error.
    pub(super) fn is_readable(&self) -> bool {
        !self.current.is_empty() || self.order.is_ready() || self.reading != Reading::Open || self.lost
    }

    /// Makes `current` hold the next bytes. `Ok(false)` at the end.
    fn refill(&mut self, connection: Option<&mut Connection>, others: Held) -> Result<bool, StreamError> {
        if self.reading == Reading::Stopped {
            return Err(StreamError::Closed);
        }
        if !self.current.is_empty() {
            return Ok(true);
        }
        if !self.order.is_ready()
            && let Some(connection) = connection
        {
            self.pull(connection, others);
        }
        if let Reading::Reset(code) = self.reading {
            return Err(StreamError::Reset(code));
        }
        if let Some(Chunk(bytes)) = self.order.pop() {
            self.current = bytes;
            return Ok(true);
        }
        match self.reading {
            Reading::Ended => Ok(false),
            _ if self.lost => Err(StreamError::Lost),
            _ => {
                self.read_blocked = true;
                Err(StreamError::Blocked)
            }
        }
    }

    pub(super) fn read(
        &mut self,
        mut connection: Option<&mut Connection>,
        others: Held,
        buffer: &mut [u8],
    ) -> Result<usize, StreamError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.refill(connection.as_deref_mut(), others) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if filled > 0 => {
                    self.read_blocked = false;
                    break;
                }
                Err(e) => return Err(e),
            }
            let n = self.current.len().min(buffer.len() - filled);
            buffer[filled..filled + n].copy_from_slice(&self.current[..n]);
            self.current.advance(n);
            filled += n;
        }
        Ok(filled)
    }

    pub(super) fn read_chunk(
        &mut self,
        connection: Option<&mut Connection>,
        others: Held,
        max: usize,
    ) -> Result<Bytes, StreamError> {
        self.refill(connection, others)?;
        let n = self.current.len().min(max);
        Ok(self.current.split_to(n))
    }

    pub(super) fn write_with(
        &mut self,
        connection: Option<&mut Connection>,
        write: impl FnOnce(&mut SendStream<'_>) -> Result<usize, WriteError>,
    ) -> Result<usize, StreamError> {
        if self.writing != Writing::Open {
            return Err(StreamError::Closed);
        }
        let Some(connection) = connection else { return Err(StreamError::Lost) };
        match write(&mut connection.send_stream(self.id)) {
            Ok(n) => {
                self.written += n as u64;
                Ok(n)
            }
            Err(WriteError::Blocked) => {
                self.write_blocked = true;
                Err(StreamError::Blocked)
            }
            Err(WriteError::Stopped(code)) => {
                self.writing = Writing::Closed;
                // The peer has its reason; our half has nothing more to say.
                let _ = connection.send_stream(self.id).reset(code);
                Err(StreamError::Stopped(code.into_inner()))
            }
            Err(WriteError::ClosedStream) => Err(StreamError::Closed),
        }
    }

    pub(super) fn finish(&mut self, connection: Option<&mut Connection>) -> Result<(), StreamError> {
        if self.writing != Writing::Open {
            return Err(StreamError::Closed);
        }
        let Some(connection) = connection else { return Err(StreamError::Lost) };
        match connection.send_stream(self.id).finish() {
            Ok(()) => {
                self.writing = Writing::Finished;
                Ok(())
            }
            Err(FinishError::Stopped(code)) => {
                self.writing = Writing::Closed;
                let _ = connection.send_stream(self.id).reset(code);
                Err(StreamError::Stopped(code.into_inner()))
            }
            Err(FinishError::ClosedStream) => Err(StreamError::Closed),
        }
    }

    pub(super) fn reset(&mut self, connection: Option<&mut Connection>, code: u32) {
        if self.writing == Writing::Closed {
            return;
        }
        self.writing = Writing::Closed;
        if let Some(connection) = connection {
            let _ = connection.send_stream(self.id).reset(VarInt::from_u32(code));
        }
    }

    pub(super) fn stop(&mut self, connection: Option<&mut Connection>, code: u32) {
        let open = self.reading == Reading::Open;
        self.reading = Reading::Stopped;
        self.current = Bytes::new();
        self.order.clear();
        if let Some(connection) = connection.filter(|_| open) {
            let _ = connection.recv_stream(self.id).stop(VarInt::from_u32(code));
        }
    }

    /// Nobody holds the stream any more.
    pub(super) fn release(&mut self, mut connection: Option<&mut Connection>) {
        if self.writing == Writing::Open {
            self.reset(connection.as_deref_mut(), 0);
        }
        self.stop(connection, 0);
    }
}
