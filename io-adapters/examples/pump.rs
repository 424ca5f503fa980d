//! How fast the data plane is without a kernel: two stacks with boringtun on one thread, one stream, packets
//! handed over in memory. `pump [seconds]`; half of the time goes to each side.
//! Times are the thread's own CPU time, so that other load on the machine counts little.
#![allow(clippy::print_stdout)]

use io_adapters::stack::{FlowId, SendBatch, Stack, StackConfig, StackEvent};
use io_adapters::streams::StreamError;
use io_adapters::wg::BoringTun;
use proto_core::id::{LinkId, NodeId};
use proto_core::key::NodeSecret;
use proto_core::machine::{Input, Output};
use proto_core::node::{NodeConfig, NodeEvent, WgCommand};
use proto_core::route::{Route, Via};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wire::control::NodeKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

const LINK: LinkId = LinkId(0);

struct Side {
    stack: Stack<BoringTun>,
    address: SocketAddr,
    /// Nanoseconds spent in here.
    spent: u128,
    packets: u64,
    batches: u64,
    incoming: Option<FlowId>,
}

/// The CPU time of this thread.
#[allow(unsafe_code)]
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn side(n: u8) -> (Side, NodeSecret) {
    let secret = NodeSecret::generate(&Seed::from_u64(u64::from(n)));
    let node = NodeConfig {
        node_key: secret.clone(),
        kind: NodeKind::Client,
        control: None,
        build: "pump".into(),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: BTreeMap::new(),
        relay: None,
        relay_map: None,
    };
    let config = StackConfig { node, receive_buffer: 4 << 20 };
    let stack = Stack::new(config, BoringTun::new(&secret), &Seed::from_u64(u64::from(n) + 10), Time::ZERO);
    let address = SocketAddr::from(([127, 0, 0, n], 1));
    (Side { stack, address, spent: 0, packets: 0, batches: 0, incoming: None }, secret)
}

impl Side {
    /// Takes what the side wants to send, in copies, as a kernel would.
    fn collect(&mut self, batch: &mut SendBatch, now: Time) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let mut idle = true;
            while let Some(output) = self.stack.poll() {
                idle = false;
                match output {
                    Output::Transmit(t) => out.push(t.bytes),
                    Output::Event(StackEvent::Incoming { flow, .. }) => self.incoming = Some(flow),
                    _ => {}
                }
            }
            for _ in 0..2 {
                if self.stack.poll_batch(batch, now) {
                    idle = false;
                    self.batches += 1;
                    for packet in batch.segments() {
                        out.push(packet.to_vec());
                        self.packets += 1;
                    }
                }
            }
            if idle || out.len() > 256 {
                return out;
            }
        }
    }

    fn deliver(&mut self, packets: &mut [Vec<u8>], from: SocketAddr, now: Time) {
        for packet in packets {
            self.stack.datagram(LINK, from, packet, now);
        }
        self.stack.end_of_batch(now);
        if self.stack.deadline().is_some_and(|(at, _)| at <= now) {
            self.stack.handle(Input::Deadline, now);
        }
    }
}

/// What sealing and opening alone take, in nanoseconds a full packet: the floor of the rest.
fn cipher_alone() -> (u128, u128) {
    use proto_core::wg::{Opened, Sealed, WgEngine};
    let secrets = [21, 22].map(|n| NodeSecret::generate(&Seed::from_u64(n)));
    let keys = [secrets[0].public(), secrets[1].public()];
    let [mut a, mut b] = [BoringTun::new(&secrets[0]), BoringTun::new(&secrets[1])];
    a.add_peer(keys[1]);
    b.add_peer(keys[0]);
    let (mut out, mut back, now) = ([0; 2_000], [0; 2_000], Time::ZERO);
    let n = a.initiate(&keys[1], &mut out, now).expect("nothing is under way");
    let Opened::Reply(_, n) = b.open(&out[..n], &mut back, now) else { panic!("no reply") };
    let Opened::Established(_, Some(n)) = a.open(&back[..n], &mut out, now) else { panic!("no session") };
    b.open(&out[..n], &mut back, now);
    let mut inner = vec![0; 1_420];
    inner[0] = 0x60;
    inner[4..6].copy_from_slice(&1_380u16.to_be_bytes());
    let (mut sealing, mut opening) = (Duration::ZERO, Duration::ZERO);
    let rounds = 100_000;
    for _ in 0..rounds / 50 {
        let mut sealed = Vec::new();
        let began = cpu();
        for _ in 0..50 {
            let Sealed::Data(n) = a.seal(&keys[1], &inner, &mut out, now) else { panic!("not sealed") };
            sealed.push((out, n));
        }
        let middle = cpu();
        for (packet, n) in &sealed {
            b.open(&packet[..*n], &mut back, now);
        }
        sealing += middle - began;
        opening += cpu() - middle;
    }
    (sealing.as_nanos() / rounds, opening.as_nanos() / rounds)
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(3u64);
    let ((mut a, a_key), (mut b, b_key)) = (side(1), side(2));
    for (us, peer, via) in [(&mut a, &b_key, 2), (&mut b, &a_key, 1)] {
        let key = peer.public();
        let addr = SocketAddr::from(([127, 0, 0, via], 1));
        let route = Route { generation: 1, primary: Some(Via::Direct { link: LINK, addr }), duplicate: None };
        us.stack.inject(&NodeEvent::PeerUp { id: NodeId("peer".into()), key, boot_id: 0 }, Time::ZERO);
        us.stack.inject(&NodeEvent::Route { key, route }, Time::ZERO);
    }
    a.stack.inject(&NodeEvent::Wg { key: b_key.public(), command: WgCommand::Initiate }, Time::ZERO);

    let start = Instant::now();
    let now = || Time::ZERO + start.elapsed();
    let flow = a.stack.open(&b_key.public(), now()).expect("the peer is there");
    let (chunk, mut buffer) = (vec![7; 256 << 10], vec![0; 256 << 10]);
    let (mut batch, mut received) = (SendBatch::new(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let began = cpu();
        while a.stack.write(flow, &chunk).is_ok() {}
        let mut there = a.collect(&mut batch, now());
        let middle = cpu();
        b.deliver(&mut there, a.address, now());
        if let Some(flow) = b.incoming {
            loop {
                match b.stack.read(flow, &mut buffer) {
                    Ok(n) => received += n as u64,
                    Err(StreamError::Blocked) => break,
                    Err(e) => panic!("{e}"),
                }
            }
        }
        let mut back = b.collect(&mut batch, now());
        let end = cpu();
        a.deliver(&mut back, b.address, now());
        a.spent += (middle - began).as_nanos() + (cpu() - end).as_nanos();
        b.spent += (end - middle).as_nanos();
    }
    let gbits = |nanos: u128| received as f64 * 8.0 / nanos as f64;
    let per_packet = |nanos: u128| nanos as f64 * 1_380.0 / received as f64;
    let (sealing, opening) = cipher_alone();
    println!("the cipher alone            {sealing} + {opening} ns/packet");
    println!("both sides on one core   {:6.2} Gbit/s", gbits(a.spent + b.spent));
    println!(
        "sender, a core of its own   {:6.2} Gbit/s  {:5.0} ns/1380 B",
        gbits(a.spent),
        per_packet(a.spent)
    );
    println!(
        "receiver, a core of its own {:6.2} Gbit/s  {:5.0} ns/1380 B",
        gbits(b.spent),
        per_packet(b.spent)
    );
    println!(
        "{:.1} packets a batch, rtt {:?}",
        a.packets as f64 / a.batches as f64,
        a.stack.rtt(&b_key.public())
    );
}
