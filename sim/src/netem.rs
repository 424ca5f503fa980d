//! One direction of a link: latency, jitter, loss (even or in bursts), duplication, reordering, rate with a
//! queue, MTU, and whether it carries anything at all.

use proto_core::seed::{Rng, Seed};
use proto_core::time::{Duration, Time};

/// Bytes of an IPv4 and a UDP header, which count for rate and MTU.
const HEADERS: usize = 28;

/// How a direction behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkProfile {
    /// One way, always.
    pub latency: Duration,
    /// Up to this much more; a later packet still never overtakes an earlier one.
    pub jitter: Duration,
    /// Parts per million of packets lost.
    pub loss_ppm: u32,
    /// Loss in bursts besides.
    pub burst: Option<Burst>,
    /// Parts per million of packets that arrive twice.
    pub duplicate_ppm: u32,
    /// Parts per million of packets that are held back so that later ones overtake them.
    pub reorder_ppm: u32,
    /// How long at most they are held back.
    pub reorder_by: Duration,
    /// Bits a second; none is without limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate; what comes on top is dropped.
    pub queue: u64,
    /// Bytes of the largest IP packet.
    pub mtu: usize,
}

impl LinkProfile {
    /// A clean link of this one-way latency.
    #[must_use]
    pub const fn clean(latency: Duration) -> Self {
        Self {
            latency,
            jitter: Duration::ZERO,
            loss_ppm: 0,
            burst: None,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            reorder_by: Duration::from_millis(20),
            rate: None,
            queue: 256 << 10,
            mtu: 1_500,
        }
    }

    /// Losing this many packets in a thousand.
    #[must_use]
    pub const fn losing(self, permille: u32) -> Self {
        Self { loss_ppm: permille * 1_000, ..self }
    }
}

/// Loss in bursts (Gilbert and Elliott): parts per million a packet of falling into the bad state, of
/// leaving it, and of loss within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Burst {
    /// From good to bad.
    pub enter_ppm: u32,
    /// From bad to good.
    pub leave_ppm: u32,
    /// Loss while bad.
    pub loss_ppm: u32,
}

/// Why a packet was lost on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lost {
    /// By chance.
    Loss,
    /// The queue was full.
    Queue,
    /// Longer than the MTU.
    Mtu,
    /// The direction is cut.
    Down,
}

/// When a packet arrives; twice if it was duplicated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The first time.
    pub at: Time,
    /// The second time.
    pub again: Option<Time>,
}

/// What a direction has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Packets carried.
    pub carried: u64,
    /// Bytes carried, with IP and UDP headers.
    pub bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets dropped at the queue.
    pub queue_drops: u64,
    /// Packets too long.
    pub too_long: u64,
    /// Packets stopped because the direction was cut.
    pub stopped: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets held back.
    pub reordered: u64,
    /// Packets and pieces of streams that jitter delayed beyond the latency.
    pub jittered: u64,
    /// Packets and pieces of streams that waited for the rate behind others.
    pub queued: u64,
}

/// A direction of a link.
#[derive(Debug)]
pub struct Direction {
    profile: LinkProfile,
    rng: Rng,
    bad: bool,
    cut: bool,
    /// When the last bit of what waits has left.
    busy_until: Time,
    last_arrival: Time,
    counters: LinkCounters,
}

impl Direction {
    /// A direction that draws from `seed`.
    #[must_use]
    pub fn new(profile: LinkProfile, seed: &Seed) -> Self {
        Self {
            profile,
            rng: seed.fork("link").rng(),
            bad: false,
            cut: false,
            busy_until: Time::ZERO,
            last_arrival: Time::ZERO,
            counters: LinkCounters::default(),
        }
    }

    /// How it behaves.
    #[must_use]
    pub const fn profile(&self) -> &LinkProfile {
        &self.profile
    }

    /// What it has done.
    #[must_use]
    pub const fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Behaves so from now on.
    pub const fn behave(&mut self, profile: LinkProfile) {
        self.profile = profile;
    }

    /// Cut it, or mend it.
    pub fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Whether it is cut.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Counts something that was stopped without being sent as a packet (a stream's bytes).
    pub fn count_stopped(&mut self) {
        self.counters.stopped += 1;
    }

    /// A UDP payload of `len` bytes enters at `now`.
    ///
    /// # Errors
    /// If it is lost, and how.
    pub fn pass(&mut self, now: Time, len: usize) -> Result<Arrival, Lost> {
        if self.cut {
            self.counters.stopped += 1;
            return Err(Lost::Down);
        }
        let size = len + HEADERS;
        if size > self.profile.mtu {
            self.counters.too_long += 1;
            return Err(Lost::Mtu);
        }
        if self.is_lost() {
            self.counters.lost += 1;
            return Err(Lost::Loss);
        }
        let Some(left) = self.serialise(now, size as u64) else {
            self.counters.queue_drops += 1;
            return Err(Lost::Queue);
        };
        self.counters.carried += 1;
        self.counters.bytes += size as u64;
        let at = self.arrival(left);
        let again = if self.chance(self.profile.duplicate_ppm) {
            self.counters.duplicated += 1;
            Some(at + Duration::from_micros(self.rng.range(1..5_000)))
        } else {
            None
        };
        Ok(Arrival { at, again })
    }

    /// How long a stream's bytes that enter at `now` take, with the delay that lost segments cost, which is
    /// `rto` doubled each time; none if the direction is cut.
    pub fn pass_stream(&mut self, now: Time, len: usize, rto: Duration) -> Option<Duration> {
        if self.cut {
            self.counters.stopped += 1;
            return None;
        }
        let mut wait = Duration::ZERO;
        let mut rto = rto;
        for _ in 0..8 {
            if !self.is_lost() {
                break;
            }
            self.counters.lost += 1;
            wait += rto;
            rto *= 2;
        }
        // A stream fills the queue at most; it is throttled, not dropped.
        let left = self.serialise(now, len as u64).unwrap_or(self.busy_until.max(now));
        self.counters.carried += 1;
        self.counters.bytes += len as u64;
        Some(left.since(now) + wait + self.delay())
    }

    fn arrival(&mut self, left: Time) -> Time {
        let at = left + self.delay();
        if self.chance(self.profile.reorder_ppm) {
            self.counters.reordered += 1;
            return at + self.up_to(self.profile.reorder_by);
        }
        self.last_arrival = self.last_arrival.max(at);
        self.last_arrival
    }

    fn delay(&mut self) -> Duration {
        let jitter = self.up_to(self.profile.jitter);
        self.counters.jittered += u64::from(jitter > Duration::ZERO);
        self.profile.latency + jitter
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 { Duration::ZERO } else { Duration::from_micros(self.rng.range(0..micros + 1)) }
    }

    fn serialise(&mut self, now: Time, size: u64) -> Option<Time> {
        let Some(rate) = self.profile.rate.filter(|rate| *rate > 0) else { return Some(now) };
        let start = self.busy_until.max(now);
        let waiting =
            u64::try_from(start.since(now).as_micros()).unwrap_or(u64::MAX).saturating_mul(rate) / 8_000_000;
        if waiting + size > self.profile.queue {
            return None;
        }
        self.counters.queued += u64::from(start > now);
        self.busy_until = start + Duration::from_micros(size * 8_000_000 / rate);
        Some(self.busy_until)
    }

    fn is_lost(&mut self) -> bool {
        let mut loss = self.profile.loss_ppm;
        if let Some(burst) = self.profile.burst {
            let turn = if self.bad { burst.leave_ppm } else { burst.enter_ppm };
            if self.chance(turn) {
                self.bad = !self.bad;
            }
            if self.bad {
                loss = loss.max(burst.loss_ppm);
            }
        }
        self.chance(loss)
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.range(0..1_000_000) < u64::from(ppm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(profile: LinkProfile) -> Direction {
        Direction::new(profile, &Seed::from_u64(1))
    }

    fn clean() -> LinkProfile {
        LinkProfile::clean(Duration::from_millis(10))
    }

    #[test]
    fn loss_duplication_and_reordering_come_as_often_as_asked() {
        let mut d =
            direction(LinkProfile { duplicate_ppm: 50_000, reorder_ppm: 200_000, ..clean().losing(100) });
        for n in 0..10_000 {
            let _ = d.pass(Time::from_millis(n), 100);
        }
        let c = d.counters();
        assert!((900..1_100).contains(&c.lost), "{c:?}");
        assert!((380..520).contains(&c.duplicated), "{c:?}");
        assert!((1_650..1_950).contains(&c.reordered), "{c:?}");
        assert_eq!((c.jittered, c.queued), (0, 0));
    }

    #[test]
    fn jitter_never_reorders_and_latency_is_the_least() {
        let mut d = direction(LinkProfile { jitter: Duration::from_millis(30), ..clean() });
        let mut last = Time::ZERO;
        for n in 0..1_000 {
            let now = Time::from_millis(n);
            let at = d.pass(now, 100).unwrap().at;
            assert!(
                at >= last && at >= now + Duration::from_millis(10) && at <= now + Duration::from_millis(70)
            );
            last = at;
        }
        assert!((950..=1_000).contains(&d.counters().jittered), "{:?}", d.counters());
    }

    #[test]
    fn a_rate_delays_and_a_full_queue_drops() {
        let mut d = direction(LinkProfile { rate: Some(8_000_000), queue: 10_000, ..clean() });
        let arrivals: Vec<_> = (0..12).map(|_| d.pass(Time::ZERO, 972).map(|a| a.at.as_micros())).collect();
        assert_eq!(arrivals[0], Ok(11_000));
        assert_eq!(arrivals[9], Ok(20_000));
        assert_eq!(arrivals[10], Err(Lost::Queue));
        assert!(d.pass(Time::from_millis(5), 972).is_ok(), "the queue drains");
        assert_eq!(d.counters().queued, 10, "only the first found the link free");
    }

    #[test]
    fn long_packets_and_cut_links_stop_packets_and_count_them() {
        let mut d = direction(LinkProfile { mtu: 1_280, ..clean() });
        assert_eq!(d.pass(Time::ZERO, 1_253), Err(Lost::Mtu));
        assert!(d.pass(Time::ZERO, 1_252).is_ok());
        d.cut(true);
        assert_eq!(d.pass(Time::ZERO, 10), Err(Lost::Down));
        assert_eq!(d.pass_stream(Time::ZERO, 10, Duration::from_millis(200)), None);
        assert_eq!(d.counters().stopped, 2);
    }

    #[test]
    fn bursts_lose_packets_in_rows() {
        let burst = Burst { enter_ppm: 10_000, leave_ppm: 125_000, loss_ppm: 1_000_000 };
        let mut d = direction(LinkProfile { burst: Some(burst), ..clean() });
        let lost: Vec<bool> = (0..20_000).map(|n| d.pass(Time::from_millis(n), 9).is_err()).collect();
        let total = lost.iter().filter(|l| **l).count();
        let after_loss = lost.windows(2).filter(|w| w[0] && w[1]).count();
        assert!((1_000..2_200).contains(&total), "{total}");
        assert!(after_loss * 100 / total > 80, "{after_loss} of {total}");
    }
}
