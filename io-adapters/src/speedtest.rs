//! The speed test's two ends: one sends a known pattern for a while, the other counts.

use crate::handle::TunnelStream;
use bytes::Bytes;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt};

/// What is sent, over and over: no two of its 32-byte blocks are equal, so that a capture can be searched for it.
pub const PATTERN: [u8; 1_024] = pattern();

/// How much is written or read at once, in bytes: large enough that the calls cost nothing beside the cipher.
const CHUNK: usize = 256 * 1_024;

/// The longest test, whatever a peer asks for.
pub const LONGEST: Duration = Duration::from_secs(60);

const fn pattern() -> [u8; 1_024] {
    let mut out = [0; 1_024];
    let mut state = 0x9e37_79b9_u32;
    let mut i = 0;
    while i < out.len() {
        // xorshift32 (Marsaglia 2003): spreads well and never repeats within so few steps.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out[i] = (state >> 24) as u8;
        i += 1;
    }
    out
}

/// How long the two ends may need beyond the test's own time: what is under way must arrive, and a path may have to
/// be found anew meanwhile.
const GRACE: Duration = Duration::from_secs(30);

/// Bounds one end of a test of `time`: a peer that vanished says nothing, and never will.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`], or what `end` met.
pub async fn within<T>(time: Duration, end: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let limit = time.min(LONGEST) + GRACE;
    tokio::time::timeout(limit, end).await.unwrap_or_else(|_| {
        let why = format!("the other end did nothing for {} s", GRACE.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

/// How much was carried, and in what time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Bytes.
    pub bytes: u64,
    /// From the first byte to the last.
    pub time: Duration,
}

impl Carried {
    /// Bits a second.
    #[must_use]
    pub fn bits_per_second(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.bytes as f64 * 8.0 / self.time.as_secs_f64() }
    }
}

/// Adds up what passes and tells about each second.
struct Seconds<F> {
    began: Instant,
    last: Instant,
    this: u64,
    total: u64,
    tell: F,
}

impl<F: FnMut(Duration, Carried)> Seconds<F> {
    fn new(began: Instant, tell: F) -> Self {
        Self { began, last: began, this: 0, total: 0, tell }
    }

    fn add(&mut self, bytes: usize, now: Instant) {
        self.this += bytes as u64;
        self.total += bytes as u64;
        if now - self.last >= Duration::from_secs(1) {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        let carried = Carried { bytes: self.this, time: now - self.last };
        (self.tell)(self.last - self.began, carried);
        (self.last, self.this) = (now, 0);
    }

    fn finish(mut self, now: Instant) -> Carried {
        if self.this > 0 {
            self.tell(now);
        }
        Carried { bytes: self.total, time: now - self.began }
    }
}

/// Sends the pattern for `time`, then ends the stream; `each` is told about each second.
///
/// # Errors
/// If the stream breaks; a peer that has heard enough is not an error.
pub async fn send(
    stream: &mut TunnelStream,
    time: Duration,
    each: impl FnMut(Duration, Carried),
) -> io::Result<Carried> {
    let chunk = Bytes::from(PATTERN.repeat(CHUNK / PATTERN.len()));
    let began = Instant::now();
    let mut seconds = Seconds::new(began, each);
    let deadline = began + time.min(LONGEST);
    while Instant::now() < deadline {
        match stream.write_bytes(chunk.clone()).await {
            Ok(()) => seconds.add(chunk.len(), Instant::now()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break,
            Err(e) => return Err(e),
        }
    }
    stream.shutdown().await?;
    Ok(seconds.finish(Instant::now()))
}

/// Counts what arrives until the stream ends; `each` is told about each second. Every byte is compared with the
/// pattern as it comes, so that wrong bytes never pass for fast ones.
///
/// # Errors
/// If the stream breaks, or brings something else.
pub async fn receive<S: AsyncBufRead + Unpin>(
    stream: &mut S,
    each: impl FnMut(Duration, Carried),
) -> io::Result<Carried> {
    let mut at = 0;
    let mut read = check(stream, &mut at).await?;
    let mut last = Instant::now();
    let mut seconds = Seconds::new(last, each);
    while read > 0 {
        last = Instant::now();
        seconds.add(read, last);
        read = check(stream, &mut at).await?;
    }
    Ok(seconds.finish(last))
}

/// Compares what comes next with the pattern, from `at` on, which moves along: how many bytes; 0 at the end.
async fn check<S: AsyncBufRead + Unpin>(stream: &mut S, at: &mut usize) -> io::Result<usize> {
    // The pattern twice, so that a piece may begin anywhere in it; little enough to stay in the nearest cache.
    const TWICE: [u8; 2 * PATTERN.len()] = twice();
    let read = stream.fill_buf().await?;
    for piece in read.chunks(PATTERN.len()) {
        if *piece != TWICE[*at..*at + piece.len()] {
            let why = "the speed test brought other bytes than were sent";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        *at = (*at + piece.len()) % PATTERN.len();
    }
    let len = read.len();
    stream.consume(len);
    Ok(len)
}

const fn twice() -> [u8; 2 * PATTERN.len()] {
    let mut out = [0; 2 * PATTERN.len()];
    let mut i = 0;
    while i < out.len() {
        out[i] = PATTERN[i % PATTERN.len()];
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_received_is_counted_whole() {
        let bytes = PATTERN.repeat(1_000);
        // Cut anywhere but at the pattern's own ends.
        let mut cut = tokio::io::BufReader::with_capacity(10_007, &bytes[..1_000_001]);
        let mut seen = 0;
        let received = receive(&mut cut, |_, c| seen += c.bytes).await.unwrap();
        assert_eq!(received.bytes, 1_000_001);
        assert_eq!(seen, received.bytes, "the intervals add up to the whole");
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        let mut bytes = PATTERN.to_vec();
        bytes[700] ^= 1;
        let error = receive(&mut bytes.as_slice(), |_, _| {}).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_never_comes_is_not_waited_for() {
        let error =
            within(Duration::from_secs(5), std::future::pending::<io::Result<()>>()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn no_two_blocks_of_the_pattern_are_equal() {
        let blocks: std::collections::BTreeSet<_> = PATTERN.chunks(32).collect();
        assert_eq!(blocks.len(), 32);
    }
}
