//! Puts the pieces of a stream in order, within bounds.
//!
//! QUIC delivers pieces as they arrive. Its library can put them in order itself, but then closes the whole
//! connection when one stream has more than 1,024 gaps, which a single overshoot of slow start does; so the
//! pieces are read unordered and put in order here, where too many gaps cost one stream and nothing else.

use core::ops::Bound;
use std::collections::{BTreeMap, VecDeque};

/// A piece of bytes: cheap to cut.
pub trait Piece: AsRef<[u8]> {
    /// Cuts `n` bytes (at most its length) off the front.
    fn advance(&mut self, n: usize);
    /// Cuts everything from `n` (at most its length) on off the back.
    fn truncate(&mut self, n: usize);
}

impl Piece for Vec<u8> {
    fn advance(&mut self, n: usize) {
        self.drain(..n.min(self.len()));
    }
    fn truncate(&mut self, n: usize) {
        Self::truncate(self, n);
    }
}

/// What a reassembler may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes that wait behind a gap or for the reader.
    pub bytes: usize,
    /// Pieces that wait: each costs its own bookkeeping, and may pin a larger buffer.
    pub pieces: usize,
}

/// The bounds would be broken: give the stream up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stream's pieces do not fit: {pieces} pieces of {bytes} bytes wait")]
pub struct TooMuch {
    /// Bytes that wait.
    pub bytes: usize,
    /// Pieces that wait.
    pub pieces: usize,
}

/// Pieces of one stream, by offset, none overlapping another.
#[derive(Clone, Debug)]
pub struct Reassembly<P> {
    /// How far the reader is.
    next: u64,
    /// Pieces in order, from `next` to `end`: where most pieces go, without a search.
    ready: VecDeque<P>,
    /// Where the pieces in order end.
    end: u64,
    /// Pieces behind a gap.
    waiting: BTreeMap<u64, P>,
    bytes: usize,
    bounds: Bounds,
}

impl<P: Piece> Reassembly<P> {
    /// An empty stream.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { next: 0, ready: VecDeque::new(), end: 0, waiting: BTreeMap::new(), bytes: 0, bounds }
    }

    /// How far the reader is.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// Bytes of these that wait behind a gap.
    #[must_use]
    pub fn behind_gaps(&self) -> usize {
        self.bytes - usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(self.bytes)
    }

    /// Whether [`Reassembly::pop`] gives something.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a piece in. What is known already is cut away.
    ///
    /// # Errors
    /// If more would wait than the bounds allow; the piece is dropped, what waits stays.
    pub fn insert(&mut self, offset: u64, mut piece: P) -> Result<(), TooMuch> {
        let mut offset = offset;
        if let Some(known) = self.end.checked_sub(offset).filter(|&known| known > 0) {
            piece.advance(clip(known, &piece));
            offset = self.end;
        }
        // Cut the front where the piece before reaches into this one.
        if let Some((&before, earlier)) = self.waiting.range(..=offset).next_back() {
            let end = before.saturating_add(len(earlier));
            if let Some(known) = end.checked_sub(offset) {
                piece.advance(clip(known, &piece));
                offset = end;
            }
        }
        // What follows: the longer one of two that overlap keeps its bytes, so that each piece is cut once.
        while !piece.as_ref().is_empty() {
            let end = offset.saturating_add(len(&piece));
            let next = self.waiting.range((Bound::Included(offset), Bound::Excluded(end))).next();
            let Some((&after, later)) = next else { break };
            if after.saturating_add(len(later)) > end {
                piece.truncate(usize::try_from(after - offset).unwrap_or(usize::MAX));
            } else if let Some(covered) = self.waiting.remove(&after) {
                self.bytes -= covered.as_ref().len();
            }
        }
        if piece.as_ref().is_empty() {
            return Ok(());
        }
        let bytes = self.bytes + piece.as_ref().len();
        let pieces = self.ready.len() + self.waiting.len() + 1;
        if bytes > self.bounds.bytes || pieces > self.bounds.pieces {
            return Err(TooMuch { bytes, pieces });
        }
        self.bytes = bytes;
        if offset > self.end {
            self.waiting.insert(offset, piece);
            return Ok(());
        }
        self.end += len(&piece);
        self.ready.push_back(piece);
        // The gap may have closed before what waits.
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() == self.end) {
            let piece = entry.remove();
            self.end += len(&piece);
            self.ready.push_back(piece);
        }
        Ok(())
    }

    /// The next piece in order, if it has arrived.
    pub fn pop(&mut self) -> Option<P> {
        let piece = self.ready.pop_front()?;
        self.next += len(&piece);
        self.bytes -= piece.as_ref().len();
        Some(piece)
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        self.next = self.end;
        self.ready.clear();
        self.waiting.clear();
        self.bytes = 0;
    }
}

/// A piece's length as an offset counts.
fn len<P: AsRef<[u8]>>(piece: &P) -> u64 {
    piece.as_ref().len() as u64
}

/// `n`, at most the piece's length.
fn clip<P: AsRef<[u8]>>(n: u64, piece: &P) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX).min(piece.as_ref().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOMY: Bounds = Bounds { bytes: 1 << 20, pieces: 10_000 };

    fn read(stream: &mut Reassembly<Vec<u8>>, into: &mut Vec<u8>) {
        while let Some(piece) = stream.pop() {
            assert!(!piece.is_empty());
            into.extend(piece);
        }
    }

    proptest! {
        /// Whatever pieces of a text arrive, in whatever order, overlapping or again: what is read is the text's
        /// beginning, as far as it has arrived without a gap.
        #[test]
        fn what_is_read_is_the_text(
            length in 1usize..3_000,
            cuts in proptest::collection::vec((0usize..3_000, 1usize..400), 0..200),
            eager in any::<bool>(),
        ) {
            let text: Vec<u8> = (0..length).map(|i| (i * 7 + i / 256) as u8).collect();
            let mut stream = Reassembly::new(ROOMY);
            let (mut out, mut arrived) = (Vec::new(), vec![false; length]);
            for (start, size) in cuts {
                let (start, end) = (start.min(length), (start + size).min(length));
                stream.insert(start as u64, text[start..end].to_vec()).unwrap();
                arrived[start..end].fill(true);
                if eager {
                    read(&mut stream, &mut out);
                }
            }
            read(&mut stream, &mut out);
            let contiguous = arrived.iter().take_while(|&&x| x).count();
            prop_assert_eq!(&out[..], &text[..contiguous]);
            prop_assert_eq!(stream.offset(), contiguous as u64);
            let total = arrived.iter().filter(|&&x| x).count();
            prop_assert_eq!(stream.waiting(), total - contiguous, "no byte is held twice");
        }
    }

    #[test]
    fn bounds_refuse_the_piece_and_keep_the_rest() {
        let mut stream = Reassembly::new(Bounds { bytes: 10, pieces: 2 });
        stream.insert(5, vec![1; 5]).unwrap();
        stream.insert(20, vec![2; 5]).unwrap();
        assert_eq!(stream.insert(30, vec![3; 1]), Err(TooMuch { bytes: 11, pieces: 3 }));
        assert_eq!(stream.insert(20, vec![9; 5]), Ok(()), "a repetition costs nothing");
        assert_eq!(stream.pop(), None);
        assert_eq!(stream.waiting(), 10);
    }

    #[test]
    fn offsets_at_the_end_of_their_range_do_not_wrap() {
        let mut stream = Reassembly::new(ROOMY);
        stream.insert(u64::MAX - 2, vec![1; 3]).unwrap();
        stream.insert(u64::MAX - 1, vec![1; 3]).unwrap();
        assert_eq!(stream.pop(), None);
    }
}
