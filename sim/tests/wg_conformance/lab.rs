//! Two engines of one kind and the wires between them.

use crate::boot_clock;
use io_adapters::wg::BoringTun;
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wg::{OVERHEAD, Opened, Sealed, WgEngine};
use sim::wg_model::WgModel;

/// Longer than every packet here.
const ROOM: usize = 256;

/// What a wire does with a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    /// Brings it after so many milliseconds.
    Prompt(u64),
    /// Keeps it until told what to do with it.
    Held,
    /// Loses it.
    Deaf,
}

/// Something that an engine did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) at: Time,
    pub(crate) side: usize,
    pub(crate) what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Sealed(Sealed),
    /// The message's type and length.
    Sent(u8, usize),
    /// What came of a datagram, and the packet inside.
    Opened(Opened, Vec<u8>),
}

impl What {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sealed(Sealed::Data(_)) => "sealed data",
            Self::Sealed(Sealed::Initiation(_)) => "sealed initiation",
            Self::Sealed(Sealed::Waiting) => "sealed waiting",
            Self::Sealed(Sealed::Dropped) => "sealed dropped",
            Self::Sent(1, _) => "sent initiation",
            Self::Sent(2, _) => "sent response",
            Self::Sent(4, OVERHEAD) => "sent keepalive",
            Self::Sent(4, _) => "sent data",
            Self::Sent(..) => "sent something else",
            Self::Opened(Opened::Data(..), _) => "opened data",
            Self::Opened(Opened::Keepalive(_), _) => "opened keepalive",
            Self::Opened(Opened::Reply(..), _) => "opened initiation",
            Self::Opened(Opened::Established(..), _) => "opened established",
            Self::Opened(Opened::Cookie(_), _) => "opened with a cookie",
            Self::Opened(Opened::Refused(_), _) => "refused",
        }
    }
}

struct Flight {
    due: Option<Time>,
    sequence: u64,
    bytes: Vec<u8>,
}

/// The engine of a side, and the number of its process: no process draws what another drew.
type Make = fn(usize, u64) -> Box<dyn WgEngine>;

/// The lab. A wire is named by the side that sends on it.
pub(crate) struct Lab {
    pub(crate) links: [Link; 2],
    pub(crate) records: Vec<Record>,
    make: Make,
    engines: [Box<dyn WgEngine>; 2],
    keys: [NodePublic; 2],
    wires: [Vec<Flight>; 2],
    now: Time,
    sequence: u64,
    packets: u32,
    processes: u64,
}

fn secret(side: usize) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(side as u64 + 1))
}

/// The shortest IPv6 packet with `text` in it.
pub(crate) fn ipv6(text: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, u8::try_from(text.len()).expect("a short text")];
    packet.resize(40, 0);
    packet.extend_from_slice(text);
    packet
}

/// What both engines did alike in a script, or where they differ.
pub(crate) fn both(script: impl Fn(&mut Lab)) -> Result<Vec<Record>, String> {
    let [real, model] = Lab::pair().map(|mut lab| {
        script(&mut lab);
        lab.records
    });
    let differs = (0..real.len().max(model.len())).find(|n| real.get(*n) != model.get(*n));
    let Some(at) = differs else { return Ok(model) };
    let mut text = "after\n".to_owned();
    for record in &real[at.saturating_sub(12)..at] {
        text += &format!("    {:?} side {} {}\n", record.at, record.side, record.what.name());
    }
    Err(format!("{text}boringtun: {:?}\nthe model: {:?}", real.get(at), model.get(at)))
}

impl Lab {
    /// A lab of boringtun and one of the model.
    pub(crate) fn pair() -> [Self; 2] {
        [
            Self::new(|side, _| Box::new(BoringTun::new(&secret(side)))),
            Self::new(|side, process| {
                let wall = boot_clock::WALL_SECS * 1_000_000;
                Box::new(WgModel::new(secret(side), wall, &Seed::from_u64(side as u64 + 2 * process)))
            }),
        ]
    }

    fn new(make: Make) -> Self {
        boot_clock::set(Time::ZERO);
        let mut lab = Self {
            links: [Link::Prompt(20); 2],
            records: Vec::new(),
            make,
            engines: [make(0, 0), make(1, 0)],
            keys: [secret(0).public(), secret(1).public()],
            wires: [Vec::new(), Vec::new()],
            now: Time::ZERO,
            sequence: 0,
            packets: 0,
            processes: 0,
        };
        for side in 0..2 {
            lab.engine(side).add_peer(secret(1 - side).public());
        }
        lab.wait(0);
        lab
    }

    fn engine(&mut self, side: usize) -> &mut dyn WgEngine {
        boot_clock::set(self.now);
        &mut *self.engines[side]
    }

    fn note(&mut self, side: usize, what: What) {
        self.records.push(Record { at: self.now, side, what });
    }

    fn transmit(&mut self, side: usize, bytes: &[u8]) {
        self.note(side, What::Sent(bytes[0], bytes.len()));
        let due = match self.links[side] {
            Link::Prompt(millis) => Some(self.now + Duration::from_millis(millis)),
            Link::Held => None,
            Link::Deaf => return,
        };
        self.sequence += 1;
        self.wires[side].push(Flight { due, sequence: self.sequence, bytes: bytes.to_vec() });
    }

    /// Sends a packet unlike all others.
    pub(crate) fn send(&mut self, side: usize) {
        self.packets += 1;
        let filler = vec![7; self.packets as usize % 64];
        let packet = ipv6(&[&self.packets.to_be_bytes()[..], &filler].concat());
        self.send_packet(side, &packet);
    }

    pub(crate) fn send_packet(&mut self, side: usize, packet: &[u8]) {
        let (mut out, now, peer) = ([0; ROOM], self.now, self.keys[1 - side]);
        let sealed = self.engine(side).seal(&peer, packet, &mut out, now);
        self.note(side, What::Sealed(sealed));
        if let Sealed::Data(len) | Sealed::Initiation(len) = sealed {
            self.transmit(side, &out[..len]);
        }
    }

    pub(crate) fn initiate(&mut self, side: usize) {
        let (mut out, now, peer) = ([0; ROOM], self.now, self.keys[1 - side]);
        if let Some(len) = self.engine(side).initiate(&peer, &mut out, now) {
            self.transmit(side, &out[..len]);
        }
    }

    pub(crate) fn reset(&mut self, side: usize) {
        let peer = self.keys[1 - side];
        self.engine(side).reset(&peer);
    }

    pub(crate) fn forget(&mut self, side: usize) {
        let peer = self.keys[1 - side];
        self.engine(side).remove_peer(&peer);
        self.engine(side).add_peer(peer);
        self.wait(0);
    }

    pub(crate) fn restart(&mut self, side: usize) {
        boot_clock::set(self.now);
        self.processes += 1;
        self.engines[side] = (self.make)(side, self.processes);
        let peer = self.keys[1 - side];
        self.engine(side).add_peer(peer);
        self.wait(0);
    }

    /// How many packets are on a wire.
    pub(crate) fn held(&self, from: usize) -> usize {
        self.wires[from].len()
    }

    /// Takes a packet off a wire.
    pub(crate) fn take(&mut self, from: usize, n: usize) -> Option<Vec<u8>> {
        (n < self.wires[from].len()).then(|| self.wires[from].remove(n).bytes)
    }

    pub(crate) fn deliver(&mut self, from: usize, n: usize) {
        if let Some(bytes) = self.take(from, n) {
            self.open(1 - from, &bytes);
        }
    }

    pub(crate) fn duplicate(&mut self, from: usize, n: usize) {
        if let Some(Flight { due, bytes, .. }) = self.wires[from].get(n) {
            let (due, bytes) = (*due, bytes.clone());
            self.sequence += 1;
            self.wires[from].push(Flight { due, sequence: self.sequence, bytes });
        }
    }

    pub(crate) fn corrupt(&mut self, from: usize, n: usize) {
        if let Some(flight) = self.wires[from].get_mut(n) {
            let middle = flight.bytes.len() / 2;
            flight.bytes[middle] ^= 1;
        }
    }

    /// Gives a side a datagram and sends what it answers.
    pub(crate) fn open(&mut self, side: usize, datagram: &[u8]) -> Opened {
        let (mut out, now, peer) = ([0; ROOM], self.now, self.keys[1 - side]);
        self.engine(side).source(Some([203, 0, 113, 7].into()));
        let opened = match self.engine(side).open(datagram, &mut out, now) {
            // Each says it in its own words.
            Opened::Refused(_) => Opened::Refused("refused"),
            opened => opened,
        };
        let inner = if let Opened::Data(_, len) = opened { out[..len].to_vec() } else { Vec::new() };
        self.note(side, What::Opened(opened, inner));
        if let Opened::Reply(_, len) | Opened::Established(_, Some(len)) | Opened::Cookie(len) = opened {
            self.transmit(side, &out[..len]);
        }
        while let Some(len) = self.engine(side).flush(&peer, &mut out, now) {
            self.transmit(side, &out[..len]);
        }
        opened
    }

    /// Lets time pass: timers run when they ask for it, then what is due arrives.
    pub(crate) fn wait(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        loop {
            let tick = self.engines.iter().filter_map(|engine| engine.next_tick()).min();
            let flights = self.wires.iter().flatten().filter_map(|flight| flight.due);
            let Some(at) = tick.into_iter().chain(flights).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            if tick.is_some_and(|tick| tick <= self.now) {
                (0..2).for_each(|side| self.tick(side));
            } else {
                self.arrive();
            }
        }
        self.now = until;
    }

    fn tick(&mut self, side: usize) {
        let (mut out, now) = ([0; ROOM], self.now);
        while let Some((_, len)) = self.engine(side).tick(&mut out, now) {
            self.transmit(side, &out[..len]);
        }
    }

    fn arrive(&mut self) {
        let due =
            |flight: &Flight| flight.due.filter(|due| *due <= self.now).map(|due| (due, flight.sequence));
        let next = (0..2).flat_map(|from| (0..self.wires[from].len()).map(move |n| (from, n)));
        let next = next.filter_map(|(from, n)| Some((due(&self.wires[from][n])?, from, n))).min();
        if let Some((_, from, n)) = next {
            self.deliver(from, n);
        }
    }
}
