//! The seven laws, in a world that answers as the peer would.

use super::super::*;
use super::world::REGION;
use crate::id::NodeId;
use crate::key::NodeSecret;
use crate::machine::Transmit;
use crate::machine::laws::{OwnedInput, Subject};
use crate::nat::{Allocation, Dependence, Mapping};
use crate::wire::control::{FEATURE_GUESS, FEATURE_OPENED};
use crate::wire::disco::{Envelope, GuessWord, Message, TxId};

/// The other end: its keys are fixed, so that the world can speak for it.
pub(super) struct Other {
    key: DiscoPublic,
    node: NodePublic,
    pub(super) shared: SharedBox,
    pub(super) us: PeerConfig,
}

impl Other {
    pub(super) fn new() -> Self {
        let (ours, theirs) = (Seed::from_u64(11), Seed::from_u64(12));
        let (disco, our_disco) = (DiscoSecret::generate(&theirs), DiscoSecret::generate(&ours));
        Self {
            shared: disco.shared(&our_disco.public()),
            key: disco.public(),
            node: NodeSecret::generate(&theirs).public(),
            us: PeerConfig {
                us: NodeSecret::generate(&ours).public(),
                disco: our_disco,
                direct: true,
                guess: true,
                sockets: LinkId(crate::limits::GUESS_LINKS),
            },
        }
    }

    fn info(&self, rng: &mut Rng) -> NodeInfo {
        NodeInfo {
            id: NodeId("other".into()),
            node_key: self.node,
            disco_key: self.key,
            boot_id: rng.range(0..10) / 9,
            home: RegionId(rng.range(8..10)),
            endpoints: addresses(rng),
            mapped: addresses(rng).first().copied().filter(|_| rng.permille(200)),
            features: if rng.permille(700) {
                vec![FEATURE_OPENED.into(), FEATURE_GUESS.into()]
            } else {
                vec![]
            },
            direct_forbidden: None,
        }
    }

    /// What the coordinator says of it if it can do everything.
    pub(super) fn able(&self) -> NodeInfo {
        let features = vec![FEATURE_OPENED.into(), FEATURE_GUESS.into()];
        let info = self.info(&mut Seed::from_u64(5).rng());
        NodeInfo { home: REGION, features, ..info }
    }

    pub(super) fn seal(&self, message: &Message, rng: &mut Rng) -> Vec<u8> {
        message.seal(self.key, &self.shared, rng)
    }
}

fn address_of(rng: &mut Rng) -> SocketAddr {
    let ip: [&str; 7] =
        ["127.0.0.1", "10.0.0.7", "198.51.100.7", "198.51.100.8", "100.64.0.9", "2001:db8::7", "fd00::7"];
    SocketAddr::new(ip[rng.range(0..7) as usize].parse().unwrap(), 40_000 + rng.range(0..4) as u16)
}

fn addresses(rng: &mut Rng) -> Vec<SocketAddr> {
    (0..rng.range(0..6)).map(|_| address_of(rng)).collect()
}

fn relayed(other: &Other, message: &Message, rng: &mut Rng) -> OwnedInput<PeerCommand> {
    let bytes = other.seal(message, rng);
    OwnedInput::Command(PeerCommand::Relayed { region: REGION, bytes })
}

/// Hard or easy, mostly, so that guesses are made.
fn shape(rng: &mut Rng) -> Shape {
    let kinds = [Mapping::Varies, Mapping::Independent, Mapping::Unknown];
    Shape {
        udp: Some(true),
        mapping: kinds[rng.range(0..3) as usize],
        address: Some(core::net::Ipv4Addr::new(198, 51, 100, 7)),
        dependence: [None, Some(Dependence::Address), Some(Dependence::AddressAndPort)]
            [rng.range(0..3) as usize],
        allocation: [None, Some(Allocation::Sequential(1)), Some(Allocation::Random)]
            [rng.range(0..3) as usize],
        port: rng.range(40_000..42_000) as u16,
    }
}

/// A step of port guessing.
fn word(rng: &mut Rng) -> GuessWord {
    match rng.range(0..3) {
        0 => GuessWord::Ask,
        1 => GuessWord::Here { port: rng.range(0..65_536) as u16 },
        _ => GuessWord::Open {
            ports: (0..rng.range(0..5)).map(|_| rng.range(40_000..42_000) as u16).collect(),
        },
    }
}

fn command(other: &Other, rng: &mut Rng) -> PeerCommand {
    match rng.range(0..8) {
        6 => PeerCommand::Network { shape: shape(rng), stun: addresses(rng) },
        0 => PeerCommand::Info(other.info(rng)),
        1 => PeerCommand::Endpoints(addresses(rng)),
        2 | 3 => PeerCommand::Relay { region: RegionId(rng.range(7..11)), up: rng.permille(700) },
        4 => PeerCommand::Engaged(rng.permille(500)),
        5 => PeerCommand::Relayed { region: REGION, bytes: rng.bytes::<90>().to_vec() },
        _ => PeerCommand::NetworkChanged,
    }
}

fn input(other: &Other, rng: &mut Rng) -> OwnedInput<PeerCommand> {
    let sockets = crate::limits::GUESS_LINKS;
    match rng.range(0..10) {
        9 => OwnedInput::Unreachable { link: LinkId(rng.range(0..4) as u32), to: address_of(rng) },
        5 => relayed(other, &Message::Shape(shape(rng)), rng),
        6 => relayed(other, &Message::Guess(word(rng)), rng),
        7 => {
            let link = LinkId(sockets + rng.range(0..300) as u32);
            OwnedInput::LinkUp { link, address: "0.0.0.0:9".parse().unwrap() }
        }
        0 => relayed(other, &Message::CallMeMaybe { endpoints: addresses(rng) }, rng),
        1 => relayed(other, &Message::Opened { round: rng.range(0..9) as u32 }, rng),
        2 => {
            let address = if rng.permille(500) { "0.0.0.0:9" } else { "[::]:9" }.parse().unwrap();
            OwnedInput::LinkUp { link: LinkId(rng.range(0..4) as u32), address }
        }
        3 => {
            let link = LinkId(rng.range(0..4) as u32);
            let via = if rng.permille(700) {
                Via::Direct { link, addr: address_of(rng) }
            } else {
                Via::Relay(REGION)
            };
            let direction = if rng.permille(500) { Direction::Sent } else { Direction::Received };
            OwnedInput::Activity(Activity { peer: other.node, via, direction, packets: 3, bytes: 900 })
        }
        _ => {
            let ping = Message::Ping { tx: TxId(rng.bytes()), node_key: Some(other.node), padding: 0 };
            let bytes = other.seal(&ping, rng);
            OwnedInput::Datagram { link: LinkId(rng.range(0..4) as u32), from: address_of(rng), bytes }
        }
    }
}

/// Pings are answered, mostly.
fn reply(other: &Other, output: &Output<PeerEvent>, rng: &mut Rng) -> Option<Vec<OwnedInput<PeerCommand>>> {
    let Output::Transmit(Transmit { link, to, bytes, ttl: None }) = output else { return Some(vec![]) };
    let Ok(Message::Ping { tx, .. }) = Envelope::new_checked(bytes)?.open(&other.shared) else {
        return Some(vec![]);
    };
    if rng.permille(300) {
        return Some(vec![]);
    }
    let bytes = other.seal(&Message::Pong { tx, source: *to }, rng);
    Some(vec![OwnedInput::Datagram { link: *link, from: *to, bytes }])
}

#[test]
fn a_peer_keeps_the_seven_laws() {
    let other = Other::new();
    let make = |seed: Seed| {
        let info = other.info(&mut Seed::from_u64(5).rng());
        Peer::new(other.us.clone(), info, seed, Time::ZERO)
    };
    Subject::new(make)
        .commands(|rng| command(&other, rng))
        .inputs(|rng| input(&other, rng))
        .replies(|output, rng| reply(&other, output, rng))
        .peers(vec![other.node, NodePublic([2; 32])])
        .size(250_000, |peer| format!("{peer:?}").len())
        .steps(200)
        .check(40);
}
