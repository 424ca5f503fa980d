//! Runs of datagrams, out and in.

use std::net::{IpAddr, SocketAddr};

/// A run of datagrams to one address: `bytes` cut into pieces of `segment` bytes, the last perhaps shorter.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams<'a> {
    /// To whom.
    pub to: SocketAddr,
    /// All of them, one after the other; never empty.
    pub bytes: &'a [u8],
    /// The size of each but the last, in bytes; `bytes.len()` for a single one.
    pub segment: usize,
    /// A hop limit of its own, else the socket's. Only a single datagram may have one.
    pub ttl: Option<u8>,
}

impl<'a> Datagrams<'a> {
    /// One datagram.
    #[must_use]
    pub const fn one(to: SocketAddr, bytes: &'a [u8]) -> Self {
        Self { to, bytes, segment: bytes.len(), ttl: None }
    }

    /// Each datagram of the run.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.segment.max(1))
    }
}

/// Bytes of one receive slot: the longest UDP payload, and so the longest run that GRO may join.
pub const DATAGRAM_ROOM: usize = 65_536;

/// Room for what one call of a socket receives. Made once, used again and again.
pub struct RecvBatch {
    buffer: Box<[u8]>,
    filled: Vec<Filled>,
}

/// What one slot holds.
#[derive(Clone, Copy, Debug)]
struct Filled {
    from: SocketAddr,
    to: Option<IpAddr>,
    len: usize,
    stride: usize,
}

impl RecvBatch {
    /// Room for `slots` receives of [`DATAGRAM_ROOM`] bytes each, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let slots = slots.max(1);
        Self { buffer: vec![0; slots * DATAGRAM_ROOM].into_boxed_slice(), filled: Vec::with_capacity(slots) }
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// Whether nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// How many slots are still free.
    #[must_use]
    pub fn room(&self) -> usize {
        self.slots() - self.filled.len()
    }

    /// The free slots, in the order that [`RecvBatch::push`] will fill them.
    pub fn free(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let used = self.filled.len();
        self.buffer.chunks_exact_mut(DATAGRAM_ROOM).skip(used)
    }

    /// The next free slot.
    pub fn next_free(&mut self) -> Option<&mut [u8]> {
        self.free().next()
    }

    /// Says that the next free slot now holds `len` bytes: datagrams of `stride` bytes each from `from`,
    /// the last perhaps shorter. Ignored when no slot is free.
    pub fn push(&mut self, from: SocketAddr, len: usize, stride: usize) {
        self.push_to(None, from, len, stride);
    }

    /// As [`RecvBatch::push`], where it is known which address of this host they came to.
    pub fn push_to(&mut self, to: Option<IpAddr>, from: SocketAddr, len: usize, stride: usize) {
        if self.room() > 0 {
            let len = len.min(DATAGRAM_ROOM);
            self.filled.push(Filled { from, to, len, stride: if stride == 0 { len } else { stride } });
        }
    }

    /// The address of this host that the last of them came to, if the network tells.
    #[must_use]
    pub fn last_to(&self) -> Option<IpAddr> {
        self.filled.last().and_then(|f| f.to)
    }

    /// Every datagram received, in order, to be opened in place.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let filled = self.filled.iter();
        self.buffer.chunks_exact_mut(DATAGRAM_ROOM).zip(filled).flat_map(|(slot, f)| {
            // An empty datagram is one datagram, but says nothing to anybody here.
            slot[..f.len].chunks_mut(f.stride.max(1)).map(|bytes| (f.from, bytes))
        })
    }

    const fn slots(&self) -> usize {
        self.buffer.len() / DATAGRAM_ROOM
    }
}
