//! Which port a NAT will take next: what one side tells the other of its own NAT, which of the two can guess, and the
//! ports worth trying.

use super::classify::Scope;
use super::{Allocation, Dependence, Mapping, Report};
use crate::limits;
use crate::seed::Rng;
use core::net::{IpAddr, Ipv4Addr};

/// What one side's network is like, as far as the other side's attempts go by it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// Whether UDP passes, if known.
    pub udp: Option<bool>,
    /// How its NAT maps.
    pub mapping: Mapping,
    /// What its mappings depend on where they vary, if known.
    pub dependence: Option<Dependence>,
    /// How its NAT chooses ports, if known.
    pub allocation: Option<Allocation>,
    /// Its public IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// The port under which it is seen there, of one of its sockets.
    pub port: u16,
}

/// How well a side's port towards a new destination is known beforehand, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Grade {
    /// Not at all.
    Unknown,
    /// Each destination takes the next of a sequence.
    Next,
    /// Each address takes one of a sequence and keeps it, whatever the port there.
    Kept,
    /// Everybody sees the same.
    Easy,
}

impl Shape {
    /// Our own, from our netcheck.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let public = report.reflexive.iter().find_map(|seen| match seen.address.ip() {
            IpAddr::V4(ip) if Scope::of(IpAddr::V4(ip)) == Scope::Global => Some((ip, seen.address.port())),
            _ => None,
        });
        Self {
            udp: report.udp,
            mapping: report.mapping,
            dependence: report.dependence,
            allocation: report.allocation,
            address: public.map(|(ip, _)| ip),
            port: public.map_or(0, |(_, port)| port),
        }
    }

    /// How well its ports are known beforehand; none if nothing could be sent there.
    #[must_use]
    pub fn grade(&self) -> Option<Grade> {
        self.address.filter(|_| self.udp == Some(true) && self.port != 0)?;
        let sequence = matches!(self.allocation, Some(Allocation::Sequential(_)));
        match (self.mapping, self.dependence) {
            (Mapping::Unknown, _) => None,
            (Mapping::None | Mapping::Independent, _) => Some(Grade::Easy),
            (Mapping::Varies, Some(Dependence::Address)) if sequence => Some(Grade::Kept),
            (Mapping::Varies, Some(Dependence::AddressAndPort)) if sequence => Some(Grade::Next),
            (Mapping::Varies, _) => Some(Grade::Unknown),
        }
    }
}

/// Whether guesses can bring these two together: the one whose port is known better tries, the other opens. Two
/// sequences can meet; a sequence and chance cannot, since each try of a sequence goes out by a port of its own.
#[must_use]
pub fn can_meet(a: Grade, b: Grade) -> bool {
    let (better, worse) = (a.max(b), a.min(b));
    match better {
        Grade::Easy => worse != Grade::Easy,
        Grade::Kept => true,
        Grade::Next => worse == Grade::Next,
        Grade::Unknown => false,
    }
}

/// How a NAT picks ports, from a few that it took one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// One after another, so many apart.
    Sequential(u16),
    /// From a block of its customer's, of this many.
    Block(u16),
    /// Any.
    Random,
}

/// How these ports were picked. By chance four ports lie as close as a block once in a thousand times: whoever
/// guesses by it must not stop there.
#[must_use]
pub fn habit(ports: &[u16]) -> Habit {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Habit::Random };
    let gaps = || sorted.windows(2).map(|pair| pair[1] - pair[0]);
    let block = limits::PORT_BLOCKS.iter().find(|size| last - first < **size);
    match (gaps().min(), gaps().max(), block) {
        (Some(step), Some(widest), _) if widest <= limits::PORT_STEP_MAX => Habit::Sequential(step),
        (.., Some(size)) if sorted.len() >= limits::PORT_BLOCK_SEEN => Habit::Block(*size),
        _ => Habit::Random,
    }
}

/// The ports worth trying, the likeliest first, none twice among those near; all others follow in random order.
#[derive(Clone, Debug)]
pub struct Guesses {
    near: Vec<u16>,
    at: usize,
    /// A walk through all 65,536 numbers: x -> factor·x + step, which has that period since factor - 1 is a
    /// multiple of four and step is odd.
    walk: u16,
    factor: u16,
    step: u16,
}

impl Guesses {
    /// For a NAT that took these ports lately.
    #[must_use]
    pub fn new(ports: &[u16], rng: &mut Rng) -> Self {
        let draw = |rng: &mut Rng| u16::from_be_bytes(rng.bytes());
        let near = match habit(ports) {
            Habit::Sequential(step) => sequence(ports, step),
            Habit::Block(size) => block(ports, size, rng),
            Habit::Random => Vec::new(),
        };
        Self { near, at: 0, walk: draw(rng), factor: (draw(rng) & !3) | 1, step: draw(rng) | 1 }
    }
}

/// The next ports of a sequence: by its step, and then those that it skips.
fn sequence(ports: &[u16], step: u16) -> Vec<u16> {
    let highest = ports.iter().max().copied().unwrap_or(0);
    let next = |n: u32, step: u16| {
        let port = u32::from(highest) + n * u32::from(step);
        // It may also have begun anew at the lowest port.
        u16::try_from(if port > u32::from(u16::MAX) { port - u32::from(u16::MAX - PORT_MIN) } else { port })
            .unwrap_or(PORT_MIN)
    };
    let mut near: Vec<u16> = (1..=limits::SEQUENCE_GUESSES).map(|n| next(n, step)).collect();
    let skipped = (1..=limits::SEQUENCE_GUESSES).map(|n| next(n, 1));
    let skipped: Vec<u16> = skipped.filter(|port| !near.contains(port)).collect();
    near.extend(skipped);
    near
}

/// The ports of a block in random order: first where a block would be if blocks lie at multiples of their size, as
/// they mostly do, then wherever it may be that holds all of `ports`.
fn block(ports: &[u16], size: u16, rng: &mut Rng) -> Vec<u16> {
    let lowest = ports.iter().min().copied().unwrap_or(0);
    let highest = ports.iter().max().copied().unwrap_or(0);
    let window = highest.saturating_sub(size - 1).max(PORT_MIN)..=lowest.saturating_add(size - 1);
    let (mut first, mut then): (Vec<u16>, Vec<u16>) =
        window.partition(|port| port / size == lowest / size || port / size == highest / size);
    shuffle(&mut first, rng);
    shuffle(&mut then, rng);
    first.append(&mut then);
    first
}

fn shuffle(ports: &mut [u16], rng: &mut Rng) {
    for at in (1..ports.len()).rev() {
        let other = usize::try_from(rng.range(0..at as u64 + 1)).unwrap_or(0);
        ports.swap(at, other);
    }
}

/// NATs leave the well-known ports alone (RFC 4787, REQ-3).
const PORT_MIN: u16 = 1_024;

impl Iterator for Guesses {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some(port) = self.near.get(self.at) {
            self.at += 1;
            return Some(*port);
        }
        loop {
            self.walk = self.walk.wrapping_mul(self.factor).wrapping_add(self.step);
            if self.walk >= PORT_MIN {
                return Some(self.walk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use std::collections::BTreeSet;

    #[test]
    fn ports_tell_how_they_were_picked() {
        assert_eq!(habit(&[]), Habit::Random);
        assert_eq!(habit(&[7_000]), Habit::Random);
        assert_eq!(habit(&[7_001, 7_000]), Habit::Sequential(1));
        assert_eq!(habit(&[7_000, 7_004, 7_009]), Habit::Sequential(4));
        assert_eq!(habit(&[7_000, 7_500, 7_100, 7_300]), Habit::Block(1_024));
        assert_eq!(habit(&[7_000, 9_500, 7_100, 7_300]), Habit::Block(4_096));
        assert_eq!(habit(&[7_000, 7_500]), Habit::Random, "two say nothing");
        assert_eq!(habit(&[7_000, 7_001, 7_002, 41_000]), Habit::Random);
    }

    #[test]
    fn the_likeliest_come_first_and_then_every_port_once() {
        let mut rng = Seed::from_u64(1).rng();
        let next: Vec<u16> = Guesses::new(&[7_001, 7_000], &mut rng).take(3).collect();
        assert_eq!(next, [7_002, 7_003, 7_004]);
        let next: Vec<u16> = Guesses::new(&[7_000, 7_002], &mut rng).take(258).collect();
        assert_eq!((&next[..2], &next[256..]), (&[7_004, 7_006][..], &[7_003, 7_005][..]));
        let block: BTreeSet<u16> =
            Guesses::new(&[7_200, 7_500, 7_300, 7_400], &mut rng).take(1_024).collect();
        assert_eq!(block, (7_168..8_192).collect(), "a block at a multiple of its size");
        for seed in 0..20 {
            let mut rng = Seed::from_u64(seed).rng();
            let all: BTreeSet<u16> = Guesses::new(&[], &mut rng).take(64_512).collect();
            assert_eq!(all.len(), 64_512, "each port from 1,024 up, once");
        }
        let top: Vec<u16> = Guesses::new(&[65_534, 65_535], &mut rng).take(256).collect();
        assert_eq!((top[0], top[255]), (PORT_MIN + 1, PORT_MIN + 256));
    }

    #[test]
    fn the_one_whose_port_is_known_better_tries() {
        use Grade::{Easy, Kept, Next, Unknown};
        let pairs =
            [(Easy, Unknown), (Easy, Next), (Easy, Kept), (Kept, Unknown), (Kept, Next), (Kept, Kept)];
        assert!(pairs.into_iter().chain([(Next, Next)]).all(|(a, b)| can_meet(a, b) && can_meet(b, a)));
        for (a, b) in [(Easy, Easy), (Next, Unknown), (Unknown, Unknown)] {
            assert!(!can_meet(a, b) && !can_meet(b, a), "{a:?} {b:?}");
        }
    }

    #[test]
    fn nothing_is_guessed_of_a_network_that_is_not_known() {
        let shape = Shape {
            udp: Some(true),
            mapping: Mapping::Varies,
            dependence: Some(Dependence::Address),
            allocation: Some(Allocation::Sequential(1)),
            address: Some(Ipv4Addr::new(203, 0, 113, 9)),
            port: 7,
        };
        assert_eq!(shape.grade(), Some(Grade::Kept));
        let but = |change: fn(&mut Shape)| {
            let mut other = shape.clone();
            change(&mut other);
            other.grade()
        };
        assert_eq!(but(|shape| shape.allocation = None), Some(Grade::Unknown));
        assert_eq!(but(|shape| shape.address = None), None);
        assert_eq!(but(|shape| shape.udp = Some(false)), None);
        assert_eq!(but(|shape| shape.mapping = Mapping::Unknown), None);
    }
}
