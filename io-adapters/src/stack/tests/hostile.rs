//! What a peer that has our trust, but does not deserve it, can do.

use super::world::{Net, TestWg, World};
use super::*;

/// A packet of `peer` whose inner source is `source`.
fn forged(world: &World, source: usize, quic: &[u8]) -> Vec<u8> {
    let mut inner = inner::template(world.key(source).inner_address(), world.key(1).inner_address()).to_vec();
    inner.extend_from_slice(quic);
    inner::set_len(&mut inner, quic.len());
    TestWg::seal_as(world.key(0), &inner)
}

#[test]
fn a_spoofed_inner_source_is_dropped_and_counted() {
    let (mut world, ..) = World::with_stream(Net::PERFECT, 20);
    let bytes = forged(&world, 1, b"whatever");
    world.deliver(1, &bytes);
    assert_eq!(world.stacks[1].counters().foreign, 1);
    let bytes = forged(&world, 0, b"whatever");
    world.deliver(1, &bytes);
    assert_eq!(world.stacks[1].counters().foreign, 1, "the honest source passes to QUIC");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn hostile_inner_packets_never_panic(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1_400), 1..12),
        quic in any::<bool>(),
    ) {
        let (mut world, ..) = World::with_stream(Net::PERFECT, 21);
        for packet in packets {
            let bytes = if quic { forged(&world, 0, &packet) } else { TestWg::seal_as(world.key(0), &packet) };
            world.deliver(1, &bytes);
        }
        world.run(Duration::from_secs(5));
    }

    /// Honest packets with bytes changed: there is no cryptography in QUIC to catch it, so every frame parser is
    /// reached, at every stage of the connection.
    #[test]
    fn hostile_changes_to_honest_packets_never_panic(
        seed in any::<u64>(),
        changes in proptest::collection::vec((0usize..40, 48usize..400, any::<u8>()), 1..60),
    ) {
        let mut world = World::new(Net::PERFECT, seed);
        let (peer, now) = (world.key(1), world.now);
        let flow = world.stacks[0].open(&peer, now).unwrap();
        let _ = world.stacks[0].write(flow, &text(3_000));
        let mut n = 0;
        for _ in 0..120 {
            for packet in world.in_flight.values_mut() {
                n += 1;
                for (which, at, value) in &changes {
                    if *which == n % 40 && 16 + at < packet.bytes.len() {
                        packet.bytes[16 + at] = *value;
                    }
                }
            }
            let _ = world.stacks[0].write(flow, &text(500));
            if let Some(flow) = world.incoming(1) {
                let _ = world.stacks[1].write(flow, &text(2_000));
            }
            world.step();
        }
    }
}
