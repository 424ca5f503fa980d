//! The connections of a relay that have not logged in: how many there may be, and which of them goes when there
//! is no place for a newer one.
//!
//! Whoever opens connections and says nothing, or says it a byte at a time, holds places until a deadline. So
//! when all places are taken, the address that holds the most gives up its oldest; between equals, one that has
//! waited longer than any honest login takes. If there is none, the newcomer has to wait: after a restart
//! everybody comes at once, and those who came first must get to the end.

use crate::limits;
use crate::time::Time;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

/// Who waits, from where and since when.
#[derive(Clone, Debug)]
pub struct Lobby {
    places: usize,
    next: u64,
    /// By number, which is the order of their coming.
    waiting: BTreeMap<u64, (Time, Source)>,
    sources: BTreeMap<Source, BTreeSet<u64>>,
    /// How many each source has.
    sizes: BTreeSet<(usize, Source)>,
}

/// What became of a newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// It has a place, of this number.
    Placed(u64),
    /// It has a place, and the connection at `gone` must be closed: it has none any more.
    Instead {
        /// The newcomer's number.
        place: u64,
        /// Whose place it was.
        gone: u64,
    },
    /// There is no place.
    Full,
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, of which one host may have all addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Source {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl Lobby {
    /// A lobby with this many places, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            next: 0,
            waiting: BTreeMap::new(),
            sources: BTreeMap::new(),
            sizes: BTreeSet::new(),
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether all places are taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.places
    }

    /// Somebody comes.
    pub fn enter(&mut self, from: IpAddr, now: Time) -> Entered {
        let source = Source::from(from);
        let gone = if self.is_full() {
            let Some(gone) = self.who_goes(source, now) else { return Entered::Full };
            self.leave(gone);
            Some(gone)
        } else {
            None
        };
        let place = self.next;
        self.next += 1;
        self.waiting.insert(place, (now, source));
        self.change(source, |places| _ = places.insert(place));
        gone.map_or(Entered::Placed(place), |gone| Entered::Instead { place, gone })
    }

    /// Who was at this place has logged in, or is gone.
    pub fn leave(&mut self, place: u64) {
        if let Some((_, source)) = self.waiting.remove(&place) {
            self.change(source, |places| _ = places.remove(&place));
        }
    }

    fn who_goes(&self, newcomer: Source, now: Time) -> Option<u64> {
        let own = self.sources.get(&newcomer).map_or(0, BTreeSet::len);
        let (most, source) = self.sizes.last()?;
        if *most > own + 1 {
            return self.sources.get(source)?.first().copied();
        }
        let (oldest, (since, _)) = self.waiting.first_key_value()?;
        (now.since(*since) >= limits::RELAY_LOGIN_USUAL).then_some(*oldest)
    }

    fn change(&mut self, source: Source, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let places = self.sources.entry(source).or_default();
        self.sizes.remove(&(places.len(), source));
        change(places);
        let size = places.len();
        if size == 0 {
            self.sources.remove(&source);
        } else {
            self.sizes.insert((size, source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use crate::time::Duration;
    use proptest::prelude::*;

    fn host(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    fn placed(entered: Entered) -> u64 {
        match entered {
            Entered::Placed(place) | Entered::Instead { place, .. } => place,
            Entered::Full => panic!("no place"),
        }
    }

    #[test]
    fn whoever_holds_the_most_places_makes_room_for_others() {
        let mut lobby = Lobby::new(4);
        let crowd: Vec<_> = (0..4).map(|_| placed(lobby.enter(host(1), at(0)))).collect();
        assert_eq!(lobby.enter(host(1), at(1)), Entered::Full, "its own newcomer finds no place");
        assert_eq!(lobby.enter(host(2), at(1)), Entered::Instead { place: 4, gone: crowd[0] });
        assert_eq!(lobby.enter(host(3), at(1)), Entered::Instead { place: 5, gone: crowd[1] });
        // Now they are two, one and one: nobody has to go at once.
        assert_eq!(lobby.enter(host(2), at(1)), Entered::Full);
        lobby.leave(4);
        assert_eq!((lobby.len(), placed(lobby.enter(host(4), at(1)))), (3, 6));
    }

    #[test]
    fn between_equals_who_has_waited_too_long_goes_and_nobody_before() {
        let mut lobby = Lobby::new(3);
        for n in 0..3 {
            lobby.enter(host(n), at(u64::from(n)));
        }
        assert_eq!(lobby.enter(host(9), at(2)), Entered::Full);
        assert_eq!(lobby.enter(host(9), at(3)), Entered::Instead { place: 3, gone: 0 });
        assert_eq!(lobby.enter(host(9), at(3)), Entered::Full);
    }

    #[test]
    fn one_ipv6_network_is_one_source_and_a_mapped_address_is_ipv4() {
        let v6 = |n: u128| IpAddr::from(((0x2001_0db8_u128 << 96) + n).to_be_bytes());
        assert_eq!(Source::from(v6(1)), Source::from(v6(u128::from(u64::MAX))));
        assert!(Source::from(v6(1)) != Source::from(v6(1 << 64)));
        assert_eq!(Source::from("::ffff:192.0.2.7".parse::<IpAddr>().unwrap()), Source::from(host(7)));
    }

    /// Thousands of addresses say nothing, some thousand times a second; an honest client comes now and then.
    #[test]
    fn an_honest_login_gets_through_among_many_silent_addresses() {
        let mut lobby = Lobby::new(1_000);
        let mut rng = Seed::from_u64(1).rng();
        let (mut asked, mut served) = (0, 0);
        for millisecond in 0..20_000 {
            let now = Time::ZERO + Duration::from_millis(millisecond);
            // Each of them waits to be thrown out.
            let silent = IpAddr::from((rng.range(0..5_000) as u32 + (10 << 24)).to_be_bytes());
            lobby.enter(silent, now);
            if millisecond % 50 == 0 {
                asked += 1;
                served += u32::from(lobby.enter(host(1), now) != Entered::Full);
            }
        }
        assert!(lobby.len() == 1_000 && served * 4 > asked, "{served} of {asked}");
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_has_and_forgets_who_left(
            steps in proptest::collection::vec((any::<bool>(), 0u8..6, 0u64..30), 0..200),
        ) {
            let mut lobby = Lobby::new(7);
            let mut there = BTreeSet::new();
            let mut now = Time::ZERO;
            for (enters, n, which) in steps {
                now += Duration::from_millis(200);
                if enters {
                    match lobby.enter(host(n), now) {
                        Entered::Placed(place) => _ = there.insert(place),
                        Entered::Instead { place, gone } => {
                            prop_assert!(there.remove(&gone) && there.insert(place));
                        }
                        Entered::Full => prop_assert_eq!(there.len(), 7),
                    }
                } else if let Some(place) = there.iter().nth(which as usize).copied() {
                    there.remove(&place);
                    lobby.leave(place);
                    lobby.leave(place);
                }
                prop_assert!(lobby.len() == there.len() && there.len() <= 7);
                prop_assert_eq!(lobby.sizes.iter().map(|(size, _)| size).sum::<usize>(), there.len());
                prop_assert_eq!(lobby.sizes.len(), lobby.sources.len());
            }
            for place in there {
                lobby.leave(place);
            }
            prop_assert!(lobby.is_empty() && lobby.sources.is_empty() && lobby.sizes.is_empty());
        }
    }
}
