//! The speed test's two ends: one sends a known pattern for a while, the other counts.

use crate::handle::TunnelStream;
use bytes::Bytes;
use proto_core::stream::CODE_CANCELLED;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWriteExt, ReadBuf};

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

/// Bytes of [`Carried`] as it is sent.
const CARRIED_LEN: usize = 16;

impl Carried {
    /// As it is told: bytes and microseconds (u64, big-endian).
    #[must_use]
    pub fn encode(self) -> [u8; CARRIED_LEN] {
        let micros = u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX);
        let mut out = [0; CARRIED_LEN];
        out[..8].copy_from_slice(&self.bytes.to_be_bytes());
        out[8..].copy_from_slice(&micros.to_be_bytes());
        out
    }

    fn decode([bytes @ .., a, b, c, d, e, f, g, h]: [u8; CARRIED_LEN]) -> Self {
        let time = Duration::from_micros(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        Self { bytes: u64::from_be_bytes(bytes), time }
    }
}

/// A second of a test, or what was left of one at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Second {
    /// Since the first byte.
    pub start: Duration,
    /// In this second.
    pub carried: Carried,
    /// Bytes of all seconds up to here.
    pub so_far: u64,
}

/// A shorter rest belongs to the second before: what is left of a burst would pass for a speed.
const REST_MIN: Duration = Duration::from_millis(100);

/// Adds up what passes, second by second. Each is held back until the next has begun in earnest.
struct Seconds {
    began: Instant,
    last: Instant,
    this: u64,
    total: u64,
    held: Option<Second>,
}

impl Seconds {
    const fn new(began: Instant) -> Self {
        Self { began, last: began, this: 0, total: 0, held: None }
    }

    /// Adds bytes: the second that is over, if one is.
    fn add(&mut self, bytes: usize, now: Instant) -> Option<Second> {
        let over = if now - self.last >= REST_MIN { self.held.take() } else { None };
        self.this += bytes as u64;
        self.total += bytes as u64;
        if now - self.last >= Duration::from_secs(1) {
            self.held = self.cut(now);
        }
        over
    }

    fn cut(&mut self, now: Instant) -> Option<Second> {
        let carried = Carried { bytes: self.this, time: now - self.last };
        let second = Second { start: self.last - self.began, carried, so_far: self.total };
        (self.last, self.this) = (now, 0);
        (carried.bytes > 0).then_some(second)
    }

    /// The seconds that are left.
    fn finish(&mut self, now: Instant) -> impl Iterator<Item = Second> {
        let (held, rest) = (self.held.take(), self.cut(now));
        let (first, second) = match (held, rest) {
            (Some(held), Some(rest)) if rest.carried.time < REST_MIN => {
                let carried = Carried {
                    bytes: held.carried.bytes + rest.carried.bytes,
                    time: held.carried.time + rest.carried.time,
                };
                (Some(Second { carried, so_far: rest.so_far, ..held }), None)
            }
            other => other,
        };
        first.into_iter().chain(second)
    }
}

/// Sends the pattern for `time`, then ends the stream; `each` is told about each second of what was taken for sending.
///
/// # Errors
/// If the stream breaks; a peer that has heard enough is not an error.
pub async fn send(
    stream: &mut TunnelStream,
    time: Duration,
    mut each: impl FnMut(Second),
) -> io::Result<Carried> {
    let chunk = chunk();
    let began = Instant::now();
    let mut seconds = Seconds::new(began);
    let deadline = began + time.min(LONGEST);
    let mut rest = chunk.clone();
    while Instant::now() < deadline {
        let before = rest.len();
        let write = poll_fn(|cx| stream.poll_write_bytes(cx, &mut rest));
        match tokio::time::timeout_at(deadline.into(), write).await {
            Ok(Ok(())) => {
                seconds.add(before - rest.len(), Instant::now()).into_iter().for_each(&mut each);
            }
            Ok(Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
            Ok(Err(_)) | Err(_) => break,
        }
        if rest.is_empty() {
            rest = chunk.clone();
        }
    }
    stream.shutdown().await?;
    let now = Instant::now();
    seconds.finish(now).for_each(each);
    Ok(Carried { bytes: seconds.total, time: now - began })
}

fn chunk() -> Bytes {
    Bytes::from(PATTERN.repeat(CHUNK / PATTERN.len()))
}

/// Sends the pattern for `time` to a peer that tells what has come; `each` is told about each second that it tells of.
/// What is still under way when it has told the last is abandoned.
///
/// # Errors
/// If the stream breaks, or the peer ends it without a word.
pub async fn send_told(
    stream: &mut TunnelStream,
    time: Duration,
    mut each: impl FnMut(Second),
) -> io::Result<Carried> {
    let chunk = chunk();
    let (mut rest, mut sends) = (chunk.clone(), true);
    let mut due = std::pin::pin!(tokio::time::sleep(time.min(LONGEST)));
    let mut told = Told::default();
    loop {
        let mut some = [0; 4 * CARRIED_LEN];
        let mut buffer = ReadBuf::new(&mut some);
        let did = poll_fn(|cx| {
            if let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                return Poll::Ready(read.map(|()| Did::Read));
            }
            if sends && due.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Did::End));
            }
            if sends && let Poll::Ready(written) = stream.poll_write_bytes(cx, &mut rest) {
                return Poll::Ready(written.map(|()| Did::Write));
            }
            Poll::Pending
        });
        match did.await {
            Ok(Did::Read) if buffer.filled().is_empty() => break,
            Ok(Did::Read) => told.add(buffer.filled(), &mut each),
            Ok(Did::Write) if rest.is_empty() => rest = chunk.clone(),
            Ok(Did::Write) => {}
            Ok(Did::End) => {
                sends = false;
                stream.shutdown().await?;
            }
            // It has heard enough, and will say what.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && sends => sends = false,
            Err(e) => return Err(e),
        }
    }
    stream.reset(CODE_CANCELLED);
    told.last.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

enum Did {
    Read,
    Write,
    End,
}

/// What a peer tells of an upload.
#[derive(Default)]
struct Told {
    /// The beginning of what it tells next.
    begun: Vec<u8>,
    last: Option<Carried>,
}

impl Told {
    fn add(&mut self, bytes: &[u8], mut each: impl FnMut(Second)) {
        self.begun.extend_from_slice(bytes);
        while let Some((record, rest)) = self.begun.split_first_chunk() {
            let (now, before) = (Carried::decode(*record), self.last.unwrap_or_default());
            self.begun = rest.to_vec();
            let carried = Carried {
                bytes: now.bytes.saturating_sub(before.bytes),
                time: now.time.saturating_sub(before.time),
            };
            if carried.bytes > 0 {
                each(Second { start: before.time, carried, so_far: now.bytes });
            }
            self.last = Some(now);
        }
    }
}

/// Counts what arrives until the stream ends, or `time` has passed since the first byte; `each` is told about each
/// second. Every byte is compared with the pattern as it comes, so that wrong bytes never pass for fast ones.
///
/// # Errors
/// If the stream breaks, or brings something else.
pub async fn receive<S: AsyncBufRead + Unpin>(
    stream: &mut S,
    time: Duration,
    mut each: impl FnMut(Second),
) -> io::Result<Carried> {
    let mut receiver = Receiver::new(stream, time);
    while let Some(second) = receiver.next().await? {
        each(second);
    }
    Ok(receiver.total())
}

/// What [`receive`] does, a second at a time.
pub struct Receiver<'a, S> {
    stream: &'a mut S,
    time: Duration,
    /// Where in the pattern the next byte is.
    at: usize,
    seconds: Option<Seconds>,
    /// When the last byte came, or time was up.
    last: Instant,
    left: VecDeque<Second>,
    is_over: bool,
}

impl<'a, S: AsyncBufRead + Unpin> Receiver<'a, S> {
    /// Nothing has come yet.
    pub fn new(stream: &'a mut S, time: Duration) -> Self {
        let (time, last) = (time.min(LONGEST), Instant::now());
        Self { stream, time, at: 0, seconds: None, last, left: VecDeque::new(), is_over: false }
    }

    /// The next second that is over; none at the end.
    ///
    /// # Errors
    /// If the stream breaks, or brings something else.
    pub async fn next(&mut self) -> io::Result<Option<Second>> {
        while !self.is_over {
            let came = match &self.seconds {
                None => check(self.stream, &mut self.at).await?,
                Some(seconds) => {
                    let until = seconds.began + self.time;
                    let came = tokio::time::timeout_at(until.into(), check(self.stream, &mut self.at)).await;
                    // What is there at once is never too late for a time-out.
                    match came {
                        Ok(came) if Instant::now() < until => came?,
                        _ => {
                            self.end(until);
                            break;
                        }
                    }
                }
            };
            if came == 0 {
                self.end(self.last);
                break;
            }
            self.last = Instant::now();
            let seconds = self.seconds.get_or_insert(Seconds::new(self.last));
            if let Some(over) = seconds.add(came, self.last) {
                return Ok(Some(over));
            }
        }
        Ok(self.left.pop_front())
    }

    fn end(&mut self, at: Instant) {
        self.is_over = true;
        self.last = at;
        self.left.extend(self.seconds.as_mut().into_iter().flat_map(|seconds| seconds.finish(at)));
    }

    /// What has come so far, and in what time.
    pub fn total(&self) -> Carried {
        let seconds = self.seconds.as_ref();
        seconds.map_or_else(Carried::default, |s| Carried { bytes: s.total, time: self.last - s.began })
    }

    /// The stream, to answer by.
    pub const fn stream(&mut self) -> &mut S {
        self.stream
    }
}

impl<S> std::fmt::Debug for Receiver<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("time", &self.time).finish_non_exhaustive()
    }
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
        let received = receive(&mut cut, LONGEST, |second| seen += second.carried.bytes).await.unwrap();
        assert_eq!(received.bytes, 1_000_001);
        assert_eq!(seen, received.bytes, "the intervals add up to the whole");
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        let mut bytes = PATTERN.to_vec();
        bytes[700] ^= 1;
        let error = receive(&mut bytes.as_slice(), LONGEST, |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn what_comes_too_late_is_not_counted() {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { while near.write_all(&PATTERN).await.is_ok() {} });
        let began = Instant::now();
        let mut far = tokio::io::BufReader::new(far);
        let received = receive(&mut far, Duration::from_millis(200), |_| {}).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(received.time, Duration::from_millis(200));
        assert!(received.bytes > 0);
    }

    #[test]
    fn a_rest_too_short_to_be_measured_belongs_to_the_second_before() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let rows = |ends: &[(usize, u64)], last| {
            let mut seconds = Seconds::new(began);
            let mut rows: Vec<_> =
                ends.iter().filter_map(|(bytes, ms)| seconds.add(*bytes, at(*ms))).collect();
            rows.extend(seconds.finish(at(last)));
            let row =
                |s: &Second| (s.start.as_millis(), s.carried.time.as_millis(), s.carried.bytes, s.so_far);
            rows.iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(rows(&[(5, 500), (5, 1_000), (1, 1_001)], 1_002), [(0, 1_002, 11, 11)]);
        assert_eq!(
            rows(&[(10, 1_000), (1, 1_050), (1, 1_150)], 1_200),
            [(0, 1_000, 10, 10), (1_000, 200, 2, 12)]
        );
        assert_eq!(rows(&[(10, 1_000)], 1_000), [(0, 1_000, 10, 10)]);
        assert_eq!(rows(&[(10, 50)], 60), [(0, 60, 10, 10)]);
        assert_eq!(rows(&[], 5_000), []);
    }

    #[test]
    fn what_a_peer_tells_is_read_in_any_pieces() {
        let carried = |bytes, ms| Carried { bytes, time: Duration::from_millis(ms) };
        let all = [carried(10, 1_000), carried(30, 2_500), carried(30, 2_600)].map(Carried::encode).concat();
        let (mut told, mut rows) = (Told::default(), Vec::new());
        for piece in all.chunks(7) {
            told.add(piece, |s| {
                rows.push((s.start.as_millis(), s.carried.bytes, s.carried.time.as_millis()))
            });
        }
        assert_eq!(rows, [(0, 10, 1_000), (1_000, 20, 1_500)]);
        assert_eq!(told.last, Some(carried(30, 2_600)));
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
