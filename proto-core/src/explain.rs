//! From evidence to a verdict: why a pair is direct or not, on whose side the reason lies, and what would
//! change it. `ping`, `netcheck` and the dashboard print it.

use crate::nat::classify::Scope;
use crate::nat::predict::{Grade, Shape, can_meet};
use crate::nat::{Filtering, Mapping, Report, Router};
use crate::peer::{Loss, Outcome, PathStory, Tried};
use crate::wire::control::{Forbidder, NodeInfo};
use core::fmt;

/// What is known of one side's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// What forbids its direct paths, if anything does.
    pub direct_forbidden: Option<Forbidder>,
    /// Whether UDP passes, if known.
    pub udp: Option<bool>,
    /// Whether it is reachable by IPv4 at all, if known.
    pub ipv4: Option<bool>,
    /// Whether it is reachable by IPv6 at all, if known.
    pub ipv6: Option<bool>,
    /// How its NAT maps.
    pub mapping: Mapping,
    /// How well its ports can be guessed, if known.
    pub grade: Option<Grade>,
    /// Whether its router leads a port to it, whoever sends to it.
    pub mapped: bool,
}

impl Evidence {
    /// Our own side, from our netcheck and our router.
    #[must_use]
    pub fn ours(report: &Report, router: &Router, direct_forbidden: Option<Forbidder>) -> Self {
        let known = report.udp.is_some();
        Self {
            direct_forbidden,
            udp: report.udp,
            ipv4: known.then_some(report.ipv4),
            ipv6: known.then_some(report.ipv6),
            mapping: report.mapping,
            grade: Shape::of(report).grade(),
            mapped: router.public(report).is_some(),
        }
    }

    /// The peer's side, from the endpoints that it names. A node without a public endpoint got no answer from
    /// any STUN server; how its NAT maps, it does not say.
    #[must_use]
    pub fn theirs(info: &NodeInfo) -> Self {
        let public =
            |v4: bool| info.endpoints.iter().any(|e| e.is_ipv4() == v4 && Scope::of(e.ip()) == Scope::Global);
        let (ipv4, ipv6) = (public(true), public(false));
        Self {
            // A node of an earlier version only names no endpoints.
            direct_forbidden: info
                .direct_forbidden
                .or(info.endpoints.is_empty().then_some(Forbidder::Unknown)),
            udp: (ipv4 || ipv6).then_some(true),
            ipv4: Some(ipv4),
            ipv6: Some(ipv6),
            mapping: Mapping::Unknown,
            grade: None,
            mapped: info.mapped.is_some_and(|a| Scope::of(a.ip()) == Scope::Global),
        }
    }

    /// Whether peers have to guess its ports.
    fn hard(&self) -> bool {
        self.mapping == Mapping::Varies && !self.mapped
    }

    fn blocked(&self) -> bool {
        self.udp == Some(false)
    }
}

/// On whose side a reason lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// On ours.
    Ours,
    /// On the peer's.
    Theirs,
    /// On both.
    Both,
    /// Between them, or unknown.
    Between,
}

impl Side {
    /// A word that programs may rely on.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
            Self::Both => "both",
            Self::Between => "between",
        }
    }

    fn of(ours: bool, theirs: bool) -> Option<Self> {
        match (ours, theirs) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::Ours),
            (false, true) => Some(Self::Theirs),
            (false, false) => None,
        }
    }

    /// Whose network, for a sentence.
    const fn network(self) -> &'static str {
        match self {
            Self::Ours => "your network",
            Self::Theirs => "the peer's network",
            Self::Both => "either network",
            Self::Between => "a network in between",
        }
    }

    const fn nat(self) -> &'static str {
        match self {
            Self::Theirs => "the NAT before the peer",
            Self::Both => "the NAT on either side",
            Self::Ours | Self::Between => "the NAT before you",
        }
    }
}

/// Why a pair is direct or not. The text of [`Reason::code`] never changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It is direct.
    Direct,
    /// It is not yet known: attempts run.
    Trying,
    /// A policy forbids it.
    Forbidden,
    /// UDP does not pass.
    UdpBlocked,
    /// The NAT uses another port for each destination.
    HardNat,
    /// One side has only IPv4, the other only IPv6.
    NoCommonFamily,
    /// The peer named no address that could be tried.
    NoCandidates,
    /// The peer's probes arrive, ours are not answered.
    OneWay,
    /// A direct path passed probes but no data.
    NoData,
    /// Nothing came back from any address.
    Silent,
}

impl Reason {
    /// A code that programs may rely on.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Direct => "DIRECT",
            Self::Trying => "TRYING",
            Self::Forbidden => "DIRECT_FORBIDDEN",
            Self::UdpBlocked => "UDP_BLOCKED",
            Self::HardNat => "HARD_NAT",
            Self::NoCommonFamily => "NO_COMMON_FAMILY",
            Self::NoCandidates => "NO_CANDIDATES",
            Self::OneWay => "ONE_WAY",
            Self::NoData => "NO_DATA",
            Self::Silent => "SILENT",
        }
    }
}

/// A verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// On whose side.
    pub side: Side,
    /// The finding, one sentence for a person.
    pub sentence: String,
    /// What would change it, if anything would.
    pub remedy: Option<&'static str>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        self.remedy.map_or(Ok(()), |remedy| write!(f, " ({remedy})"))
    }
}

/// Why this pair is direct or not, from both sides' networks and the path's story, oldest first.
#[must_use]
pub fn pair(ours: &Evidence, theirs: &Evidence, story: &[PathStory]) -> Verdict {
    let now = Standing::of(story);
    if let Some(found) = now.direct {
        return direct(found);
    }
    if let Some(verdict) = forbidden(ours.direct_forbidden, theirs.direct_forbidden) {
        return verdict;
    }
    let (reason, side) = why_relayed(ours, theirs, &now);
    relayed(reason, side)
}

/// What the story comes down to.
#[derive(Clone, Copy, Debug, Default)]
struct Standing<'a> {
    direct: Option<&'a PathStory>,
    lost: Option<Loss>,
    tried: Option<&'a [Tried]>,
}

impl<'a> Standing<'a> {
    fn of(story: &'a [PathStory]) -> Self {
        let mut now = Self::default();
        for event in story {
            match event {
                PathStory::Direct { .. } | PathStory::Moved { .. } => {
                    now = Self { direct: Some(event), ..Self::default() };
                }
                PathStory::Lost { why, .. } => now = Self { lost: Some(*why), ..Self::default() },
                PathStory::Failed { tried, .. } => now.tried = Some(tried),
                _ => {}
            }
        }
        now
    }
}

fn why_relayed(ours: &Evidence, theirs: &Evidence, now: &Standing<'_>) -> (Reason, Side) {
    let families = |e: &Evidence| (e.ipv4.unwrap_or(true), e.ipv6.unwrap_or(true));
    let (a, b) = (families(ours), families(theirs));
    let apart = !((a.0 && b.0) || (a.1 && b.1)) && a != (false, false) && b != (false, false);
    let hard = Side::of(ours.hard(), theirs.hard());
    let heard = now.tried.is_some_and(|tried| tried.iter().any(|t| t.outcome == Outcome::HeardOnly));
    if let Some(side) = Side::of(ours.blocked(), theirs.blocked()) {
        (Reason::UdpBlocked, side)
    } else if now.lost == Some(Loss::NoData) {
        (Reason::NoData, Side::Between)
    } else if apart {
        (Reason::NoCommonFamily, Side::Between)
    } else if hard == Some(Side::Both) && !ours.grade.zip(theirs.grade).is_some_and(|(a, b)| can_meet(a, b)) {
        // Neither side can guess: nothing is waited for.
        (Reason::HardNat, Side::Both)
    } else if now.tried.is_none() {
        (Reason::Trying, Side::Between)
    } else if now.tried.is_some_and(<[_]>::is_empty)
        || (theirs.ipv4, theirs.ipv6) == (Some(false), Some(false))
    {
        (Reason::NoCandidates, Side::Theirs)
    } else if let Some(side) = hard {
        (Reason::HardNat, side)
    } else if heard || now.lost == Some(Loss::OneWay) {
        (Reason::OneWay, Side::Between)
    } else {
        (Reason::Silent, Side::Between)
    }
}

fn direct(found: &PathStory) -> Verdict {
    let sentence = match found {
        PathStory::Direct { addr, after, .. } => {
            format!("direct to {addr}, found after {} ms", after.as_millis())
        }
        PathStory::Moved { to, .. } => format!("direct to {to}, a better path than the first one"),
        _ => "direct".to_owned(),
    };
    Verdict { reason: Reason::Direct, side: Side::Between, sentence, remedy: None }
}

/// Who forbids a direct path and by what, if anybody does.
fn forbidden(ours: Option<Forbidder>, theirs: Option<Forbidder>) -> Option<Verdict> {
    const SERVER: Option<Forbidder> = Some(Forbidder::Server);
    // What stands in front of "disable-direct-connections", whose settings file it is being known.
    let by = |forbidder, whose: &str| match forbidder {
        Forbidder::Flag => ", by --disable-direct-connections".to_owned(),
        Forbidder::Variable => ", by the variable WARREN_DISABLE_DIRECT_CONNECTIONS".to_owned(),
        Forbidder::File => format!(", by disable-direct-connections in {whose} settings file"),
        Forbidder::Server | Forbidder::Unknown => String::new(),
    };
    let (side, sentence, remedy) = match (ours, theirs) {
        (None, None) => return None,
        (SERVER, _) | (_, SERVER) => (
            Side::Both,
            "the server's policy forbids direct connections, by block-direct-connections".to_owned(),
            "an administrator can allow them",
        ),
        (Some(ours), None) => (
            Side::Ours,
            format!("you have turned direct connections off{}", by(ours, "your")),
            match ours {
                Forbidder::Variable => "unset it to allow them",
                Forbidder::File => "take the line out to allow them",
                _ => "leave the flag out to allow them",
            },
        ),
        (None, Some(theirs)) => (
            Side::Theirs,
            format!("the peer has turned direct connections off{}", by(theirs, "its")),
            "whoever runs it can allow them",
        ),
        (Some(ours), Some(theirs)) => (
            Side::Both,
            format!(
                "you have turned direct connections off{}, and so has the peer{}",
                by(ours, "your"),
                by(theirs, "its")
            ),
            "both have to allow them",
        ),
    };
    let sentence = format!("relayed: {sentence}");
    Some(Verdict { reason: Reason::Forbidden, side, sentence, remedy: Some(remedy) })
}

fn relayed(reason: Reason, side: Side) -> Verdict {
    let (network, nat) = (side.network(), side.nat());
    let (sentence, remedy) = match reason {
        Reason::Direct => ("direct".to_owned(), None),
        Reason::Trying => ("relayed for now: a direct path is still being looked for".to_owned(), None),
        Reason::Forbidden => ("relayed: direct connections are not allowed".to_owned(), None),
        Reason::UdpBlocked => {
            (format!("relayed: {network} lets no UDP through"), Some("allow outgoing UDP in its firewall"))
        }
        Reason::HardNat => (
            format!(
                "relayed: {nat} uses another port for each destination (symmetric), so the other side cannot guess it"
            ),
            Some("turn on UPnP, NAT-PMP or PCP there, or forward a port; IPv6 on both sides helps too"),
        ),
        Reason::NoCommonFamily => (
            "relayed: one side has only IPv4, the other only IPv6".to_owned(),
            Some("IPv6 on both sides, or IPv4 on both"),
        ),
        Reason::NoCandidates => (
            "relayed: the peer has named no public address to try".to_owned(),
            Some("let the peer reach a STUN server"),
        ),
        Reason::OneWay => (
            "relayed: the peer's probes arrive here, but ours are not answered".to_owned(),
            Some("a firewall drops one direction; allow UDP replies on both sides"),
        ),
        Reason::NoData => (
            "relayed: a direct path answered short probes but lost full packets".to_owned(),
            Some("a link in between takes no packets of 1,308 bytes; raise its MTU"),
        ),
        Reason::Silent => (
            "relayed: no address of the peer answered".to_owned(),
            Some("a firewall on either side probably drops incoming UDP; allow it, or forward a port"),
        ),
    };
    Verdict { reason, side, sentence, remedy }
}

/// What a netcheck comes down to: how likely this host is to get direct paths.
#[must_use]
pub fn network(report: &Report, router: &Router) -> Verdict {
    let families = match (report.ipv4, report.ipv6) {
        (true, true) => "IPv4 and IPv6",
        (false, true) => "IPv6",
        _ => "IPv4",
    };
    match (report.udp, report.mapping) {
        (None, _) => Verdict {
            reason: Reason::Trying,
            side: Side::Ours,
            sentence: "not known yet: no STUN server has answered so far".to_owned(),
            remedy: None,
        },
        (Some(false), _) => Verdict {
            reason: Reason::UdpBlocked,
            side: Side::Ours,
            sentence: "UDP does not get out: every connection will be relayed".to_owned(),
            remedy: Some("allow outgoing UDP in the firewall"),
        },
        (Some(true), _) if router.public(report).is_some() => Verdict {
            reason: Reason::Direct,
            side: Side::Ours,
            sentence: format!(
                "UDP works over {families}, and the router leads a port to this machine: direct connections are likely"
            ),
            remedy: None,
        },
        (Some(true), Mapping::Varies) => Verdict {
            reason: Reason::HardNat,
            side: Side::Ours,
            sentence: format!(
                "UDP works over {families}, but the NAT uses another port for each destination: direct only with \
                 peers whose network is open"
            ),
            remedy: Some("turn on UPnP, NAT-PMP or PCP, or forward a port"),
        },
        (Some(true), mapping) => {
            let open = report.filtering == Filtering::Independent;
            let nat = match mapping {
                Mapping::None | Mapping::Independent if open => "and everybody is let in",
                Mapping::None => "without a NAT",
                Mapping::Independent => "behind a NAT that keeps its ports",
                Mapping::Unknown | Mapping::Varies => {
                    "behind a NAT not known closer, since too few servers answered"
                }
            };
            Verdict {
                reason: Reason::Direct,
                side: Side::Ours,
                sentence: format!("UDP works over {families}, {nat}: direct connections are likely"),
                remedy: None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
