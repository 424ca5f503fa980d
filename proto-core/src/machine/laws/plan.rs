//! What happens to a machine, drawn from a number and then frozen as data.

use super::erased::Erased;
use super::{OwnedInput, World};
use crate::id::{LinkId, StreamId};
use crate::key::NodePublic;
use crate::route::{Activity, Direction, Via};
use crate::seed::{Rng, Seed};
use crate::time::Duration;
use crate::wire::{derp, disco, stun};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// One step of a plan.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// How much time passes before it.
    pub(super) after: Duration,
    /// What happens.
    pub(super) act: Act,
}

/// What happens in a step.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// An input.
    Input(OwnedInput<Erased>),
    /// An input whose time lies this far before the latest.
    Back(Duration, OwnedInput<Erased>),
    /// One of the world's waiting answers is given, chosen by this number.
    Answer(u64),
    /// Bytes arrive on one of the open streams, chosen by this number.
    Bytes(u64, Vec<u8>),
    /// One of the open streams ends.
    End(u64),
    /// The machine is woken at its deadline.
    Wake,
    /// It is woken a microsecond too early, or an hour later if it has no deadline.
    Early,
    /// It is woken this long after its deadline.
    Late(Duration),
}

/// The plan of a case.
pub(super) fn draw(world: &World<'_>, case: u64) -> Vec<Step> {
    let mut rng = Seed::from_u64(case).fork("plan").rng();
    let mut steps = Vec::with_capacity(world.steps);
    // Most machines do nothing without a socket; every fourth case begins without.
    if case % 4 != 3 {
        for link in 0..2 {
            steps.push(Step { after: Duration::ZERO, act: Act::Input(link_up(link)) });
        }
    }
    while steps.len() < world.steps {
        let after = pause(&mut rng);
        let act = act(world, &mut rng);
        steps.push(Step { after, act });
    }
    steps
}

fn act(world: &World<'_>, rng: &mut Rng) -> Act {
    match rng.range(0..100) {
        0..20 => Act::Wake,
        20..26 => Act::Early,
        26..30 => Act::Late(lateness(rng)),
        30..50 => Act::Answer(rng.u64()),
        50..60 => Act::Bytes(rng.u64(), hostile_stream(rng)),
        60..62 => Act::End(rng.u64()),
        62..68 => Act::Back(back(rng), input(world, rng)),
        _ => Act::Input(input(world, rng)),
    }
}

/// An input: a command or one of the machine's own world if the subject has such, else anything.
fn input(world: &World<'_>, rng: &mut Rng) -> OwnedInput<Erased> {
    match (rng.range(0..10), &world.commands, &world.inputs) {
        (0..3, Some(commands), _) => commands(rng),
        (3..7, _, Some(inputs)) => inputs(rng),
        _ => anything(&world.peers, rng),
    }
}

fn anything(peers: &[NodePublic], rng: &mut Rng) -> OwnedInput<Erased> {
    let stream = StreamId(rng.range(0..4));
    match rng.range(0..17) {
        0..6 => {
            let link = LinkId(rng.range(0..3) as u32);
            OwnedInput::Datagram { link, from: address(rng), bytes: hostile_datagram(rng) }
        }
        6 => OwnedInput::StreamOpened { stream },
        7..9 => OwnedInput::StreamBytes { stream, bytes: hostile_stream(rng) },
        9 => OwnedInput::StreamWritable { stream, credit: rng.range(0..1 << 20) as usize },
        10 => OwnedInput::StreamClosed { stream, why: "the plan closes it".into() },
        11 => OwnedInput::Resolved { name: "relay.example".into(), addresses: vec![address(rng).ip()] },
        12 => link_up(rng.range(0..3) as u32),
        13 => OwnedInput::LinkDown { link: LinkId(rng.range(0..3) as u32) },
        16 => OwnedInput::Unreachable { link: LinkId(rng.range(0..3) as u32), to: address(rng) },
        14 => activity(peers, rng).map_or(OwnedInput::Deadline, OwnedInput::Activity),
        _ => OwnedInput::Deadline,
    }
}

fn activity(peers: &[NodePublic], rng: &mut Rng) -> Option<Activity> {
    let peer = *peers.get(rng.range(0..peers.len() as u64) as usize)?;
    let via = if rng.permille(500) {
        Via::Direct { link: LinkId(rng.range(0..3) as u32), addr: address(rng) }
    } else {
        Via::Relay(crate::id::RegionId(rng.range(0..4)))
    };
    let direction = if rng.permille(500) { Direction::Sent } else { Direction::Received };
    Some(Activity {
        peer,
        via,
        direction,
        packets: 1 + rng.range(0..64) as u32,
        bytes: rng.range(32..90_000),
    })
}

fn link_up(link: u32) -> OwnedInput<Erased> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 40_000 + link as u16));
    OwnedInput::LinkUp { link: LinkId(link), address }
}

/// One of a few addresses most of the time, so that the same one comes again.
pub(super) fn address(rng: &mut Rng) -> SocketAddr {
    if rng.permille(100) {
        let ip: [u8; 16] = rng.bytes();
        return SocketAddr::from((ip, rng.range(0..65_536) as u16));
    }
    let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, rng.range(1..6) as u8));
    SocketAddr::new(ip, 41_000 + rng.range(0..3) as u16)
}

fn pause(rng: &mut Rng) -> Duration {
    let most = [0, 1, 1_000, 50_000, 2_000_000, 40_000_000];
    let most = most[rng.range(0..most.len() as u64) as usize];
    Duration::from_micros(rng.range(0..1 + most))
}

fn lateness(rng: &mut Rng) -> Duration {
    let secs = [1, 60, 3_600, 86_400, 365 * 86_400];
    Duration::from_secs(secs[rng.range(0..secs.len() as u64) as usize])
}

fn back(rng: &mut Rng) -> Duration {
    let micros = [1, 1_000, 1_000_000, 3_600_000_000];
    Duration::from_micros(micros[rng.range(0..micros.len() as u64) as usize])
}

/// A datagram that nobody sensible would send, or that looks like one that somebody would.
#[must_use]
pub fn hostile_datagram(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = match rng.range(0..9) {
        0 => Vec::new(),
        1 => random(rng, 100),
        2 => random(rng, 1_500),
        3 => stun::request(stun::TransactionId::generate(rng)).to_vec(),
        4 => {
            let transaction = stun::TransactionId::generate(rng);
            stun::Response { transaction, mapped: address(rng) }.emit()
        }
        5 => [&disco::MAGIC[..], &random(rng, 200)].concat(),
        6 => {
            // To whoever cannot open it, random bytes of the right length are a sealed ping.
            let mut sealed = disco::MAGIC.to_vec();
            sealed.extend_from_slice(&rng.bytes::<86>());
            sealed
        }
        7 => [&[1 + rng.range(0..4) as u8, 0, 0, 0][..], &random(rng, 150)].concat(),
        _ => derp::Frame::KeepAlive.to_bytes(),
    };
    mutate(&mut bytes, rng);
    bytes
}

/// Stream bytes of the same kind: DERP frames and coordination messages, whole, broken and made up.
#[must_use]
pub fn hostile_stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = match rng.range(0..9) {
        0 => random(rng, 300),
        1 => derp::Frame::ServerKey { key: NodePublic(rng.bytes()) }.to_bytes(),
        2 => {
            let sealed = random(rng, 120);
            derp::Frame::ClientInfo { key: NodePublic(rng.bytes()), sealed: &sealed }.to_bytes()
        }
        3 => {
            let packet = random(rng, 200);
            let (peer, send) = (NodePublic([rng.range(0..3) as u8; 32]), rng.permille(500));
            let frame = if send {
                derp::Frame::SendPacket { to: peer, bytes: &packet }
            } else {
                derp::Frame::RecvPacket { from: peer, bytes: &packet }
            };
            frame.to_bytes()
        }
        4 => {
            let length = (rng.u64() as u32 >> rng.range(0..32)).to_be_bytes();
            [&[rng.range(0..0x18) as u8][..], &length, &random(rng, 100)].concat()
        }
        5 => "[".repeat(rng.range(0..2_000) as usize).into_bytes(),
        6 => br#"{"type":"welcome","version":"1.0","id":"n","resume":"r"}"#.to_vec(),
        7 => br#"{"type":"hello","version":"1.0","node_key":"nodekey:00"}"#.to_vec(),
        _ => br#"{"type":"from the future","id":{"deep":[1,2,3]}}"#.to_vec(),
    };
    mutate(&mut bytes, rng);
    bytes
}

/// Leaves half of them as they are; flips, cuts or doubles the others.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.range(0..bytes.len() as u64) as usize;
    match rng.range(0..8) {
        0 => bytes.truncate(at),
        1 | 2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.range(0..8);
            }
        }
        3 => bytes.extend_from_within(at..),
        _ => {}
    }
}

fn random(rng: &mut Rng, most: u64) -> Vec<u8> {
    let length = rng.range(0..most) as usize;
    let mut bytes = Vec::with_capacity(length + 32);
    while bytes.len() < length {
        bytes.extend_from_slice(&rng.bytes::<32>());
    }
    bytes.truncate(length);
    bytes
}
