//! Which STUN servers a run asks, and when: all at first, later the nearest three and home.

use crate::id::RegionId;
use crate::limits;
use crate::time::Duration;
use core::net::IpAddr;
use std::collections::BTreeMap;

/// The STUN servers of a region, in the map's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StunRegion {
    /// Its number.
    pub id: RegionId,
    /// Whether it should rather not be home.
    pub avoid: bool,
    /// Its servers; never empty.
    pub servers: Vec<StunServer>,
}

/// A STUN server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StunServer {
    /// How it is reached by IPv4.
    pub v4: Reach,
    /// How it is reached by IPv6.
    pub v6: Reach,
    /// Its host name, for [`Reach::Name`].
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// Whether it is asked whatever families the interfaces have: it is on this host or made for tests.
    pub always: bool,
}

/// How a server is reached by one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Not at all.
    Off,
    /// At this address.
    At(IpAddr),
    /// At what its name resolves to.
    Name,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl StunServer {
    /// How it is reached by `family`.
    #[must_use]
    pub const fn reach(&self, family: Family) -> Reach {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The regions that may be measured.
    pub regions: &'a [StunRegion],
    /// Whether an interface has an IPv4 address, and a socket for it.
    pub have_v4: bool,
    /// The same of IPv6.
    pub have_v6: bool,
    /// The last run's round trips by IPv4; both empty if every region is to be asked.
    pub last_v4: &'a BTreeMap<RegionId, Duration>,
    /// And by IPv6.
    pub last_v6: &'a BTreeMap<RegionId, Duration>,
    /// The home region.
    pub home: Option<RegionId>,
}

/// One request: to the region's server of this index, so long after the run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Index into [`StunRegion::servers`].
    pub server: usize,
    /// Delay from the run's beginning.
    pub after: Duration,
}

/// A run's requests. The first answer of a set makes the rest of it needless.
pub type Plan = BTreeMap<(RegionId, Family), Vec<Probe>>;

impl Known<'_> {
    /// The plan of a full run: every region, three times, on its servers in turn.
    #[must_use]
    pub fn full(&self) -> Plan {
        let mut plan = Plan::new();
        let wanted =
            |r: &&StunRegion| !r.avoid || self.home == Some(r.id) || self.regions.iter().all(|r| r.avoid);
        for region in self.regions.iter().filter(wanted).take(limits::STUN_REGIONS_MAX) {
            for family in [Family::V4, Family::V6] {
                for attempt in 0..limits::STUN_TRIES {
                    self.add(&mut plan, region, family, (attempt, limits::STUN_RETRY * attempt));
                }
            }
        }
        plan
    }

    /// The plan of a later run: the nearest regions and home, spaced by what they took last time.
    #[must_use]
    pub fn incremental(&self) -> Plan {
        let latency = |id: RegionId| match (self.last_v4.get(&id), self.last_v6.get(&id)) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        };
        let mut regions: Vec<_> =
            self.regions.iter().filter(|r| !r.avoid || self.home == Some(r.id)).collect();
        regions.sort_by_key(|r| (latency(r.id).unwrap_or(Duration::MAX), r.id));
        let had_both = !self.last_v4.is_empty() && !self.last_v6.is_empty();
        let mut plan = Plan::new();
        for (i, region) in regions.into_iter().enumerate() {
            let is_home = self.home == Some(region.id);
            let important = i < 2 || is_home;
            if i >= limits::STUN_NEAREST && !is_home {
                continue;
            }
            let tries = if is_home { limits::STUN_TRIES + 1 } else { 1 + u32::from(i < 2) };
            let alternate = !important && had_both;
            let gap = latency(region.id).map_or(limits::STUN_RETRY * 2, |l| l * 6 / 5);
            for attempt in 0..tries {
                let extra = if attempt > 1 { limits::STUN_RETRY / 2 * attempt } else { Duration::ZERO };
                let at = (attempt, gap * attempt + extra);
                if !alternate || i % 2 == 0 {
                    self.add(&mut plan, region, Family::V4, at);
                }
                let v6_due = !self.last_v6.is_empty() || (important && attempt == 0);
                if v6_due && (!alternate || i % 2 == 1) {
                    self.add(&mut plan, region, Family::V6, at);
                }
            }
        }
        plan
    }

    fn add(&self, plan: &mut Plan, region: &StunRegion, family: Family, (attempt, after): (u32, Duration)) {
        let index = usize::try_from(attempt).unwrap_or(0) % region.servers.len().max(1);
        let Some(server) = region.servers.get(index) else { return };
        let have = match family {
            Family::V4 => self.have_v4,
            Family::V6 => self.have_v6,
        };
        if server.reach(family) == Reach::Off || !(have || server.always) {
            return;
        }
        plan.entry((region.id, family)).or_default().push(Probe { server: index, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// Region r has r servers, named 1a, 2a, 2b, …
    fn regions() -> Vec<StunRegion> {
        (1..=5)
            .map(|id| StunRegion {
                id: RegionId(id),
                avoid: false,
                servers: (0..id)
                    .map(|_| StunServer {
                        v4: Reach::Name,
                        v6: Reach::Name,
                        host: String::new(),
                        port: 3478,
                        always: false,
                    })
                    .collect(),
            })
            .collect()
    }

    fn show(plan: &Plan) -> String {
        plan.iter().fold(String::new(), |mut out, ((region, family), probes)| {
            let _ = write!(out, "{region}{family:?}");
            for probe in probes {
                let letter = char::from(b'a' + u8::try_from(probe.server).unwrap());
                let _ = write!(out, " {region}{letter}@{}", probe.after.as_millis());
            }
            out + "\n"
        })
    }

    fn incremental(v4: &[(u64, u64)], v6: &[(u64, u64)], have_v6: bool, home: Option<u64>) -> String {
        let map =
            |l: &[(u64, u64)]| l.iter().map(|(r, ms)| (RegionId(*r), Duration::from_millis(*ms))).collect();
        let (regions, last_v4, last_v6) = (regions(), map(v4), map(v6));
        let home = home.map(RegionId);
        show(
            &Known { regions: &regions, have_v4: true, have_v6, last_v4: &last_v4, last_v6: &last_v6, home }
                .incremental(),
        )
    }

    #[test]
    fn a_full_plan_asks_every_region_three_times_on_its_servers_in_turn() {
        let (regions, none) = (regions(), BTreeMap::new());
        let known = Known {
            regions: &regions,
            have_v4: true,
            have_v6: true,
            last_v4: &none,
            last_v6: &none,
            home: None,
        };
        insta::assert_snapshot!(show(&known.full()), @r"
        1V4 1a@0 1a@100 1a@200
        1V6 1a@0 1a@100 1a@200
        2V4 2a@0 2b@100 2a@200
        2V6 2a@0 2b@100 2a@200
        3V4 3a@0 3b@100 3c@200
        3V6 3a@0 3b@100 3c@200
        4V4 4a@0 4b@100 4c@200
        4V6 4a@0 4b@100 4c@200
        5V4 5a@0 5b@100 5c@200
        5V6 5a@0 5b@100 5c@200
        ");
    }

    #[test]
    fn a_later_plan_asks_the_nearest_and_home() {
        let four: &[_] = &[(1, 10), (2, 20), (3, 30), (4, 40)];
        insta::assert_snapshot!(incremental(four, &[], false, None), @r"
        1V4 1a@0 1a@12
        2V4 2a@0 2b@24
        3V4 3a@0
        ");
        insta::assert_snapshot!(incremental(four, &[], true, None), @r"
        1V4 1a@0 1a@12
        1V6 1a@0
        2V4 2a@0 2b@24
        2V6 2a@0
        3V4 3a@0
        ");
        insta::assert_snapshot!(incremental(&[(1, 10), (2, 20)], &[(3, 30), (4, 40)], true, None), @r"
        1V4 1a@0 1a@12
        1V6 1a@0 1a@12
        2V4 2a@0 2b@24
        2V6 2a@0 2b@24
        3V4 3a@0
        ");
        insta::assert_snapshot!(incremental(&[(1, 10), (2, 20)], &[(3, 30), (4, 40)], true, Some(1)), @r"
        1V4 1a@0 1a@12 1a@124 1a@186
        1V6 1a@0 1a@12 1a@124 1a@186
        2V4 2a@0 2b@24
        2V6 2a@0 2b@24
        3V4 3a@0
        ");
        let far: &[_] = &[(1, 50), (2, 20), (3, 30), (4, 40)];
        insta::assert_snapshot!(incremental(far, far, true, Some(1)), @r"
        1V4 1a@0 1a@60 1a@220 1a@330
        1V6 1a@0 1a@60 1a@220 1a@330
        2V4 2a@0 2b@24
        2V6 2a@0 2b@24
        3V4 3a@0 3b@36
        3V6 3a@0 3b@36
        4V4 4a@0
        ");
    }

    #[test]
    fn a_region_to_avoid_is_asked_only_if_it_is_home_or_all_are() {
        let (mut regions, none) = (regions(), BTreeMap::new());
        regions[0].avoid = true;
        let ask = |regions: &[StunRegion], home: Option<u64>| {
            let home = home.map(RegionId);
            Known { regions, have_v4: true, have_v6: false, last_v4: &none, last_v6: &none, home }
                .full()
                .contains_key(&(RegionId(1), Family::V4))
        };
        assert!(!ask(&regions, None));
        assert!(ask(&regions, Some(1)));
        assert!(ask(&regions[..1], None));
    }

    #[test]
    fn a_server_on_this_host_is_asked_without_an_interface() {
        let none = BTreeMap::new();
        let mut regions = regions();
        regions.truncate(1);
        regions[0].servers[0].always = true;
        regions[0].servers[0].v6 = Reach::Off;
        let known = Known {
            regions: &regions,
            have_v4: false,
            have_v6: false,
            last_v4: &none,
            last_v6: &none,
            home: None,
        };
        insta::assert_snapshot!(show(&known.full()), @r"
        1V4 1a@0 1a@100 1a@200
        ");
    }
}
