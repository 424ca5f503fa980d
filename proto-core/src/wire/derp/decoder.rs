//! Frames out of a stream that comes in pieces.

use super::{DerpError, FRAME_HEADER_LEN, Frame, Header, PACKET_MAX, decode, peek};

/// Keeps the piece of a frame whose rest has not come yet: at most one frame of a known kind. Frames of
/// unknown kinds are skipped as they come, however long.
#[derive(Clone, Debug)]
pub struct Decoder {
    partial: Vec<u8>,
    /// Bytes still to come of a frame that is being skipped.
    skip: usize,
    /// What comes is from a node.
    at_relay: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of the stream from a relay.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: Vec::new(), skip: 0, at_relay: false }
    }

    /// A decoder at the start of the stream from a node, with the shorter lengths of [`Header::check_from_node`].
    #[must_use]
    pub const fn for_relay() -> Self {
        Self { partial: Vec::new(), skip: 0, at_relay: true }
    }

    fn check(&self, header: Header) -> Result<(), DerpError> {
        if self.at_relay { header.check_from_node() } else { header.check() }
    }

    /// Forgets the frame that was completed, and the room it took if that was much.
    fn reset(&mut self) {
        self.partial.clear();
        self.partial.shrink_to(2 * PACKET_MAX);
    }

    /// The frames that `bytes` complete. What is left over when the result is dropped is kept.
    pub fn feed<'a>(&'a mut self, bytes: &'a [u8]) -> Frames<'a> {
        Frames { decoder: self, rest: bytes, from_partial: false, failed: None }
    }

    /// Bytes kept.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len()
    }
}

/// The frames in what was fed; see [`Decoder::feed`].
#[derive(Debug)]
pub struct Frames<'a> {
    decoder: &'a mut Decoder,
    rest: &'a [u8],
    /// The frame given out last lies in the decoder's buffer, which is emptied at the next call.
    from_partial: bool,
    failed: Option<DerpError>,
}

impl Frames<'_> {
    /// The next frame, or `None` when the rest must come first. Frames of unknown kinds are left out.
    ///
    /// # Errors
    /// If a frame is longer than its kind may be; from then on always.
    #[expect(clippy::should_implement_trait, reason = "the frame borrows from the iterator itself")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, DerpError> {
        match self.advance() {
            Err(error) => {
                self.failed = Some(error);
                self.rest = &[];
                Err(error)
            }
            Ok(None) => Ok(None),
            Ok(Some(0)) => Ok(decode(&self.decoder.partial)?.map(|(frame, _)| frame)),
            Ok(Some(length)) => {
                let (whole, rest) = self.rest.split_at(length);
                self.rest = rest;
                Ok(decode(whole)?.map(|(frame, _)| frame))
            }
        }
    }

    /// Where the next known frame is: `Some(0)` in the decoder's buffer, `Some(n)` in the first `n` bytes of the
    /// rest.
    fn advance(&mut self) -> Result<Option<usize>, DerpError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if core::mem::take(&mut self.from_partial) {
            self.decoder.reset();
        }
        loop {
            self.skip_on();
            if !self.decoder.partial.is_empty() {
                if !self.complete_partial()? {
                    return Ok(None);
                }
                if self.from_partial {
                    return Ok(Some(0));
                }
                continue;
            }
            let Some(header) = peek(self.rest) else { return Ok(None) };
            self.decoder.check(header)?;
            if !header.is_known() {
                self.decoder.skip = header.frame_len();
                continue;
            }
            return Ok((self.rest.len() >= header.frame_len()).then_some(header.frame_len()));
        }
    }

    fn skip_on(&mut self) {
        let skipped = self.decoder.skip.min(self.rest.len());
        self.decoder.skip -= skipped;
        self.rest = &self.rest[skipped..];
    }

    /// Moves bytes to the piece kept: first up to a header, then up to the frame's end. True if it got
    /// further, false if more must come.
    fn complete_partial(&mut self) -> Result<bool, DerpError> {
        if !self.fill_to(FRAME_HEADER_LEN) {
            return Ok(false);
        }
        let Some(header) = peek(&self.decoder.partial) else { return Ok(false) };
        self.decoder.check(header)?;
        if !header.is_known() {
            // Only a header can have been kept of it.
            self.decoder.skip = header.frame_len().saturating_sub(self.decoder.partial.len());
            self.decoder.partial.clear();
            return Ok(true);
        }
        self.from_partial = self.fill_to(header.frame_len());
        Ok(self.from_partial)
    }

    fn fill_to(&mut self, length: usize) -> bool {
        let wanted = length.saturating_sub(self.decoder.partial.len()).min(self.rest.len());
        let (head, rest) = self.rest.split_at(wanted);
        self.decoder.partial.extend_from_slice(head);
        self.rest = rest;
        self.decoder.partial.len() >= length
    }
}

impl Drop for Frames<'_> {
    fn drop(&mut self) {
        if self.failed.is_some() {
            self.decoder.partial.clear();
            return;
        }
        // Whatever was not asked for is still decoded next time; only a caller that stops early leaves more
        // than one piece here.
        if core::mem::take(&mut self.from_partial) {
            self.decoder.reset();
        }
        self.skip_on();
        self.decoder.partial.extend_from_slice(self.rest);
    }
}
