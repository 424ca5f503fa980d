//! Sealed packets for one address, in one contiguous buffer of equal segments: what one GSO send takes.

use core::net::{Ipv4Addr, SocketAddr};
use proto_core::id::LinkId;

/// The most bytes that one GSO send takes: an IPv4 packet's 65,535 less its header and UDP's, rounded down.
pub const BATCH_BYTES: usize = 65_000;
/// The most segments that Linux takes in one GSO send (`UDP_MAX_SEGMENTS` of older kernels).
pub const BATCH_SEGMENTS: usize = 64;

/// Sealed packets for one address. All segments have [`SendBatch::segment`] bytes, but for the last, which may
/// be shorter. Keep one and use it again: its buffer stays.
#[derive(Clone, Debug)]
pub struct SendBatch {
    /// From which socket.
    pub link: LinkId,
    /// To whom.
    pub to: SocketAddr,
    pub(crate) segment: usize,
    pub(crate) len: usize,
    pub(crate) buffer: Vec<u8>,
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            link: LinkId(0),
            to: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            segment: 0,
            len: 0,
            buffer: Vec::new(),
        }
    }

    /// All segments, one after another.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The length of every segment but perhaps the last.
    #[must_use]
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// The segments, one by one, for whoever cannot send them at once.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes().chunks(self.segment.max(1))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Room for `len` more bytes, which [`SendBatch::commit`] makes part of the batch.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.buffer.len() < end {
            self.buffer.resize(end.max(BATCH_BYTES), 0);
        }
        &mut self.buffer[self.len..end]
    }

    /// Makes the next `len` bytes of the room part of the batch.
    pub(crate) fn commit(&mut self, len: usize) {
        self.len += len;
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
        self.segment = 0;
    }
}
