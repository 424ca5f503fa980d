use super::*;
use crate::streams::StreamError;
use core::net::SocketAddr;
use proptest::prelude::*;
use proto_core::id::{LinkId, NodeId, RegionId};
use proto_core::key::NodeSecret;
use proto_core::seed::Rng;
use proto_core::stream::Header;
use proto_core::wg::{Opened, Sealed};
use proto_core::wire::control::NodeKind;

mod hostile;
pub(crate) mod world;

use world::{Net, World};

/// Everything that can be read of a flow now; the end or the error that stopped it.
fn read_all(stack: &mut Stack<world::TestWg>, flow: FlowId, into: &mut Vec<u8>) -> Result<bool, StreamError> {
    let mut buffer = [0; 4_096];
    loop {
        match stack.read(flow, &mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => into.extend_from_slice(&buffer[..n]),
            Err(StreamError::Blocked) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

fn text(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn header_data_and_end_of_a_new_stream_travel_in_the_first_datagram() {
    for opener in 0..2 {
        let mut world = World::new(Net::PERFECT, 1);
        let (us, them) = (opener, 1 - opener);
        let peer = world.key(them);
        let now = world.now;
        let flow = world.stacks[us].open(&peer, now).unwrap();
        let mut bytes = Header::Ping.encode();
        bytes.extend_from_slice(&text(500));
        assert_eq!(world.stacks[us].write(flow, &bytes), Ok(bytes.len()));
        world.stacks[us].finish(flow).unwrap();
        world.collect(us);
        let first = world.in_flight.pop_first().unwrap().1;
        world.in_flight.clear();
        world.deliver(them, &first.bytes);
        let incoming = world.incoming(them).expect("the stream is there after one datagram");
        let mut read = Vec::new();
        assert_eq!(read_all(&mut world.stacks[them], incoming, &mut read), Ok(true), "and so is its end");
        assert_eq!(read, bytes);
    }
}

#[test]
fn both_sides_may_begin_at_once() {
    let mut world = World::new(Net::PERFECT, 2);
    let flows = [0, 1].map(|us| {
        let (peer, now) = (world.key(1 - us), world.now);
        let flow = world.stacks[us].open(&peer, now).unwrap();
        world.stacks[us].write(flow, &text(100)).unwrap();
        flow
    });
    world.run(Duration::from_secs(1));
    for us in 0..2 {
        let incoming = world.incoming(us).unwrap();
        world.stacks[us].write(incoming, b"answer").unwrap();
        let mut read = Vec::new();
        assert_eq!(read_all(&mut world.stacks[us], incoming, &mut read), Ok(false));
        assert_eq!(read, text(100));
    }
    world.run(Duration::from_secs(1));
    for (us, opened) in flows.into_iter().enumerate() {
        let mut read = Vec::new();
        assert_eq!(read_all(&mut world.stacks[us], opened, &mut read), Ok(false));
        assert_eq!(read, b"answer");
    }
    // From then on both use the same connection.
    for us in 0..2 {
        let (peer, now) = (world.key(1 - us), world.now);
        world.stacks[us].open(&peer, now).unwrap();
    }
}

/// Both directions of one stream at once; what each side reads.
fn exchange(net: Net, seed: u64, sizes: [usize; 2], limit: Duration) -> [Vec<u8>; 2] {
    let mut world = World::new(net, seed);
    let (peer, now) = (world.key(1), world.now);
    let mut flows = [Some(world.stacks[0].open(&peer, now).unwrap()), None];
    let texts = sizes.map(text);
    let (mut written, mut read, mut ended) = ([0; 2], [Vec::new(), Vec::new()], [false; 2]);
    let until = world.now + limit;
    while ended != [true; 2] && world.now < until {
        for us in 0..2 {
            if flows[us].is_none() {
                flows[us] = world.incoming(us);
            }
            let Some(flow) = flows[us] else { continue };
            while written[us] < texts[us].len() {
                match world.stacks[us].write(flow, &texts[us][written[us]..]) {
                    Ok(n) => written[us] += n,
                    Err(StreamError::Blocked) => break,
                    Err(e) => panic!("{e}"),
                }
                if written[us] == texts[us].len() {
                    world.stacks[us].finish(flow).unwrap();
                }
            }
            if texts[us].is_empty() && written[us] == 0 {
                let _ = world.stacks[us].finish(flow);
                written[us] = 1;
            }
            ended[us] |= read_all(&mut world.stacks[us], flow, &mut read[us]).unwrap();
        }
        world.step();
    }
    assert_eq!(ended, [true; 2], "both ends are read by {:?}", world.now);
    read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_whatever_the_network_does(
        seed in any::<u64>(),
        loss in 0u32..150,
        duplicate in 0u32..100,
        jitter_ms in 0u64..30,
        sizes in (1usize..200_000, 1usize..60_000),
    ) {
        let net = Net { loss, duplicate, jitter_ms, ..Net::PERFECT };
        let read = exchange(net, seed, [sizes.0, sizes.1], Duration::from_secs(600));
        prop_assert!(read[1] == text(sizes.0) && read[0] == text(sizes.1));
    }
}

#[test]
fn an_overshoot_of_thousands_of_gaps_costs_nothing_but_time() {
    // A fifth of what is sent in one round trip is lost, in single packets: far more than 1,024 gaps.
    let net = Net { loss: 200, delay_ms: 100, ..Net::PERFECT };
    let mut world = World::new(net, 5);
    let (peer, now) = (world.key(1), world.now);
    let flow = world.stacks[0].open(&peer, now).unwrap();
    let whole = text(12 << 20);
    let (mut written, mut read, mut incoming, mut ended) = (0, Vec::new(), None, false);
    world.net.loss = 0;
    while !ended && world.now < Time::from_secs(3_000) {
        // Slow start opens the window on a clean network, then one round trip is hit.
        world.net.loss = if (1_500..1_800).contains(&(world.now.as_micros() / 1_000)) { 300 } else { 0 };
        while written < whole.len() {
            match world.stacks[0].write(flow, &whole[written..(written + 65_536).min(whole.len())]) {
                Ok(n) => written += n,
                Err(_) => break,
            }
            if written == whole.len() {
                world.stacks[0].finish(flow).unwrap();
            }
        }
        incoming = incoming.or_else(|| world.incoming(1));
        if let Some(flow) = incoming {
            ended = read_all(&mut world.stacks[1], flow, &mut read).unwrap();
        }
        world.step();
    }
    assert!(ended && read == whole, "{} of {} bytes at {:?}", read.len(), whole.len(), world.now);
}

#[test]
fn packets_grow_to_what_the_path_takes() {
    // Ethernet under an outer IPv6 and IPv4 is used to the last byte, and others all but: a tunnel of 1,420
    // bytes, jumbo frames, a cloud's 8,896 bytes, the loopback.
    for (longest, least) in [
        (1_452, 1_452),
        (1_472, 1_472),
        (1_372, 1_352),
        (8_952, 8_951),
        (8_972, 8_972),
        (8_848, 8_828),
        (65_507, usize::from(crate::streams::PAYLOAD_MAX) + 80),
    ] {
        let mut world = World::new(Net { longest, ..Net::PERFECT }, 21);
        let (peer, now) = (world.key(1), world.now);
        let flow = world.stacks[0].open(&peer, now).unwrap();
        let chunk = text(1 << 16);
        let mut round_trips = 0;
        let mut incoming = None;
        while world.longest < least && round_trips < 40 {
            while world.stacks[0].write(flow, &chunk).is_ok() {}
            world.run(Duration::from_millis(2 * world.net.delay_ms));
            incoming = incoming.or_else(|| world.incoming(1));
            if let Some(incoming) = incoming {
                read_all(&mut world.stacks[1], incoming, &mut Vec::new()).unwrap();
            }
            round_trips += 1;
        }
        assert!(world.longest >= least, "{} of {longest} after {round_trips} round trips", world.longest);
    }
}

#[test]
fn halves_close_on_their_own() {
    let (mut world, ours, theirs) = World::with_stream(Net::PERFECT, 3);
    world.stacks[0].finish(ours).unwrap();
    assert_eq!(world.stacks[0].write(ours, b"more"), Err(StreamError::Closed));
    world.run(Duration::from_secs(1));
    let mut read = Vec::new();
    assert_eq!(read_all(&mut world.stacks[1], theirs, &mut read), Ok(true));
    world.stacks[1].write(theirs, b"still here").unwrap();
    world.run(Duration::from_secs(1));
    let mut read = Vec::new();
    assert_eq!(read_all(&mut world.stacks[0], ours, &mut read), Ok(false));
    assert_eq!(read, b"still here");
    assert!(world.saw(0, &StackEvent::Delivered(ours)), "what was finished has arrived");
}

#[test]
fn resets_and_stops_carry_their_codes() {
    let (mut world, ours, theirs) = World::with_stream(Net::PERFECT, 4);
    world.stacks[0].reset(ours, 7);
    world.stacks[0].stop(ours, 9);
    world.run(Duration::from_secs(1));
    let mut read = Vec::new();
    assert_eq!(read_all(&mut world.stacks[1], theirs, &mut read), Err(StreamError::Reset(7)));
    assert_eq!(world.stacks[1].write(theirs, b"x"), Err(StreamError::Stopped(9)));
    assert_eq!(world.stacks[1].write(theirs, b"x"), Err(StreamError::Closed));
    assert_eq!(world.stacks[0].read(ours, &mut [0; 8]), Err(StreamError::Closed));
}

#[test]
fn a_stream_that_nobody_reads_blocks_itself_alone() {
    let (mut world, ours, _unread) = World::with_stream(Net::PERFECT, 6);
    let chunk = text(65_536);
    let mut stuck = 0;
    for _ in 0..5_000 {
        match world.stacks[0].write(ours, &chunk) {
            Ok(n) => stuck += n,
            Err(StreamError::Blocked) => {}
            Err(e) => panic!("{e}"),
        }
        world.step();
    }
    assert!((16 << 20..70 << 20).contains(&stuck), "{stuck} bytes were taken");
    let (mut other, there) = world.another_stream();
    let mut moved = 0;
    let mut read = Vec::new();
    for _ in 0..20_000 {
        if let Ok(n) = world.stacks[0].write(other, &chunk) {
            moved += n;
        }
        read_all(&mut world.stacks[1], there, &mut read).unwrap();
        if read.len() > 8 << 20 {
            break;
        }
        world.step();
    }
    assert!(read.len() > 8 << 20, "{} of {moved} bytes passed the stuck stream", read.len());
    other = ours;
    assert_eq!(world.stacks[0].write(other, &chunk), Err(StreamError::Blocked));
}

#[test]
fn many_streams_that_nobody_reads_cost_no_byte_of_any() {
    // Together they hold more than may wait behind gaps, and none of it does.
    const STREAMS: usize = 70;
    const EACH: usize = 2 << 20;
    let mut world = World::new(Net { longest: 65_507, ..Net::PERFECT }, 22);
    let (peer, now) = (world.key(1), world.now);
    let whole = text(EACH);
    let flows: Vec<_> = (0..STREAMS).map(|_| world.stacks[0].open(&peer, now).unwrap()).collect();
    let mut written = [0; STREAMS];
    while written.iter().any(|&n| n < EACH) {
        for (flow, written) in flows.iter().zip(&mut written) {
            match world.stacks[0].write(*flow, &whole[*written..(*written + 65_536).min(EACH)]) {
                Ok(n) => *written += n,
                Err(StreamError::Blocked) => {}
                Err(e) => panic!("{e}"),
            }
        }
        world.step();
        assert!(world.now < Time::from_secs(60), "{written:?}");
    }
    world.run(Duration::from_secs(1));
    let incoming: Vec<_> = (0..STREAMS).filter_map(|_| world.incoming(1)).collect();
    assert_eq!(incoming.len(), STREAMS);
    for flow in incoming {
        let mut read = Vec::new();
        for _ in 0..1_000 {
            assert_eq!(read_all(&mut world.stacks[1], flow, &mut read), Ok(false));
            if read.len() == EACH {
                break;
            }
            world.step();
        }
        assert!(read == whole, "{} of {EACH} bytes", read.len());
    }
}

#[test]
fn after_an_outage_of_a_minute_data_flows_within_two_seconds() {
    let (mut world, ours, theirs) = World::with_stream(Net { delay_ms: 25, ..Net::PERFECT }, 7);
    world.net.loss = 1_000;
    world.stacks[0].write(ours, &text(20_000)).unwrap();
    world.run(Duration::from_secs(60));
    world.net.loss = 0;
    let mut read = Vec::new();
    let back = world.now;
    while read.len() < 20_000 && world.now < back + Duration::from_secs(90) {
        read_all(&mut world.stacks[1], theirs, &mut read).unwrap();
        world.step();
    }
    assert!(world.now.since(back) < Duration::from_secs(2), "{:?}", world.now.since(back));
}

#[test]
fn an_idle_connection_is_idle() {
    let (mut world, _, _) = World::with_stream(Net::PERFECT, 8);
    world.run(Duration::from_secs(30));
    let sent = world.sent;
    world.run(Duration::from_secs(3_600));
    assert_eq!(world.sent, sent);
}

#[test]
fn a_restarted_peer_takes_over_from_its_earlier_process() {
    for told in [true, false] {
        let (mut world, ours, _) = World::with_stream(Net::PERFECT, 9);
        world.restart(1, 99);
        if told {
            world.peer_up(0, 1);
            assert_eq!(world.stacks[0].read(ours, &mut [0; 8]), Err(StreamError::Lost));
        }
        let (peer, now) = (world.key(0), world.now);
        let fresh = world.stacks[1].open(&peer, now).unwrap();
        world.stacks[1].write(fresh, b"it is me again").unwrap();
        world.run(Duration::from_secs(1));
        assert_eq!(world.stacks[0].read(ours, &mut [0; 8]), Err(StreamError::Lost), "told: {told}");
        let incoming = world.incoming(0).unwrap();
        let mut read = Vec::new();
        read_all(&mut world.stacks[0], incoming, &mut read).unwrap();
        assert_eq!(read, b"it is me again");
        // The word of the restart may come late: it must not end the new connection.
        world.peer_up(0, 1);
        world.stacks[0].write(incoming, b"welcome back").unwrap();
        world.run(Duration::from_secs(1));
        let mut read = Vec::new();
        read_all(&mut world.stacks[1], fresh, &mut read).unwrap();
        assert_eq!(read, b"welcome back");
    }
}

#[test]
fn a_peer_that_lost_its_state_says_so_itself() {
    let (mut world, ours, _) = World::with_stream(Net::PERFECT, 10);
    world.restart(1, 99);
    // Nobody tells us; our next packet is answered by a stateless reset.
    world.stacks[0].write(ours, &text(3_000)).unwrap();
    world.run(Duration::from_secs(5));
    assert_eq!(world.stacks[0].read(ours, &mut [0; 8]), Err(StreamError::Lost));
}

#[test]
fn datagrams_pass_and_the_path_width_is_found() {
    let (mut world, _, _) = World::with_stream(Net::PERFECT, 11);
    world.run(Duration::from_secs(5));
    let (peer, now) = (world.key(1), world.now);
    assert_eq!(world.stacks[0].send_datagram(&peer, vec![1; 1_400].into(), now), Err(StreamError::TooLong));
    world.stacks[0].send_datagram(&peer, vec![2; 1_300].into(), now).unwrap();
    world.run(Duration::from_secs(1));
    let from = world.key(0);
    assert!(world.saw(1, &StackEvent::Datagrams(from)));
    assert_eq!(world.stacks[1].receive_datagram(&from).unwrap(), vec![2; 1_300]);
    assert_eq!(world.stacks[1].receive_datagram(&from), None);
}

#[test]
fn the_same_seed_sends_the_same_packets() {
    let run = || {
        let net = Net { loss: 50, jitter_ms: 9, ..Net::PERFECT };
        let mut world = World::new(net, 12);
        let (peer, now) = (world.key(1), world.now);
        let flow = world.stacks[0].open(&peer, now).unwrap();
        world.stacks[0].write(flow, &text(100_000)).unwrap();
        world.run(Duration::from_secs(20));
        (world.sent, world.trace)
    };
    assert_eq!(run(), run());
}

#[test]
fn streams_beyond_what_the_peer_permits_wait_for_room() {
    let (mut world, _, _) = World::with_stream(Net::PERFECT, 13);
    let (peer, now) = (world.key(1), world.now);
    let mut flows = Vec::new();
    let refused = loop {
        match world.stacks[0].open(&peer, now) {
            Ok(flow) => flows.push(flow),
            Err(e) => break e,
        }
    };
    assert_eq!((refused, flows.len()), (StreamError::TooMany, 255));
    for flow in &flows {
        world.stacks[0].write(*flow, b"x").unwrap();
    }
    world.run(Duration::from_secs(2));
    assert!(world.saw(0, &StackEvent::Openable(peer)), "the permission grows with use");
    let now = world.now;
    assert!(world.stacks[0].open(&peer, now).is_ok());
}

#[test]
fn a_relayed_tunnel_sends_no_more_than_the_relay_takes() {
    let (mut world, ours, theirs) = World::with_stream(Net::PERFECT, 14);
    world.relayed(RegionId(3));
    world.relay_credit = Some(40_000);
    // Before its first write a stack takes a usual credit for granted.
    world.grant(40_000);
    for _ in 0..50 {
        let _ = world.stacks[0].write(ours, &text(65_536));
        world.step();
    }
    assert!(world.relay_written <= 40_000 + 2_000, "{} bytes without credit", world.relay_written);
    world.relay_credit = None;
    world.grant(1 << 20);
    let mut read = Vec::new();
    for _ in 0..2_000 {
        world.grant(1 << 20);
        read_all(&mut world.stacks[1], theirs, &mut read).unwrap();
        world.step();
    }
    assert!(read.len() >= 65_536, "{} bytes came through the relay", read.len());
}

#[test]
fn what_a_dying_path_lost_goes_through_the_relay_as_soon_as_it_is_doubted_or_left() {
    for left in [false, true] {
        let (mut world, ours, theirs) = World::with_stream(Net::PERFECT, 15);
        world.net.longest = 0;
        for n in 0..5u8 {
            world.stacks[0].write(ours, &[n; 100]).unwrap();
            // The whole takes less than the first retransmission.
            world.run(Duration::from_millis(3));
        }
        let mut read = Vec::new();
        assert_eq!(read_all(&mut world.stacks[1], theirs, &mut read), Ok(false));
        assert!(read.is_empty(), "the path carries nothing");
        if left {
            world.relayed(RegionId(3));
        } else {
            world.doubted(RegionId(3));
        }
        world.run(Duration::from_millis(world.net.delay_ms));
        assert_eq!(read_all(&mut world.stacks[1], theirs, &mut read), Ok(false));
        assert_eq!(read.len(), 500, "all of it came by the relay at once");
        // What searches for a wider path is among it.
        let written = world.relay_written;
        assert!((500..70_000).contains(&written), "{written} bytes");
        if !left {
            world.doubted(RegionId(3));
            world.collect(0);
            assert_eq!(world.relay_written, written, "once is enough");
        }
    }
}
