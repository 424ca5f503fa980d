use super::*;
use crate::seed::Seed;
use crate::wire::derp::decode;
use crate::wire::disco;
use std::collections::VecDeque;

const A: NodePublic = NodePublic([1; 32]);
const B: NodePublic = NodePublic([2; 32]);

fn disco_of(len: usize) -> Vec<u8> {
    let mut bytes = disco::MAGIC.to_vec();
    bytes.resize(len, 0);
    bytes
}

/// What a queue should hold: the frames of each lane by number, oldest first.
#[derive(Default)]
struct Model([VecDeque<(u64, usize)>; 3]);

impl Model {
    fn push(&mut self, lane: usize, number: u64, length: usize) -> u64 {
        let (frames, bytes) =
            [limits::RELAY_QUEUE_CONTROL, limits::RELAY_QUEUE_DISCO, limits::RELAY_QUEUE_DATA][lane];
        let queue = &mut self.0[lane];
        let mut dropped = 0;
        while !queue.is_empty()
            && (queue.len() >= frames || queue.iter().map(|(_, l)| l).sum::<usize>() + length > bytes)
        {
            queue.pop_front();
            dropped += 1;
        }
        queue.push_back((number, length));
        dropped
    }

    fn take(&mut self, max: usize) -> Vec<u64> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for queue in &mut self.0 {
            while let Some((number, length)) = queue.front() {
                if !taken.is_empty() && bytes + length > max {
                    return taken;
                }
                bytes += length;
                taken.push(*number);
                queue.pop_front();
            }
        }
        taken
    }
}

/// The numbers that the frames carry in their last eight bytes.
fn numbers(mut bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let (_, length) = decode(bytes).unwrap().unwrap();
        let (frame, rest) = bytes.split_at(length);
        numbers.push(u64::from_be_bytes(*frame.last_chunk().unwrap()));
        bytes = rest;
    }
    numbers
}

#[test]
fn queues_stay_bounded_keep_their_order_and_put_disco_first() {
    for seed in 0..30 {
        let mut rng = Seed::from_u64(seed).rng();
        let (mut queue, mut model, mut dropped) = (SendQueue::default(), Model::default(), 0);
        let busy = rng.range(1..40);
        for number in 0..3_000_u64 {
            let was_empty = queue.is_empty();
            let woken = match rng.range(0..10) {
                0 => {
                    let _ = model.push(0, number, 13); // Not a packet, so not counted.
                    queue.push_control(&Frame::Ping(number.to_be_bytes()).to_bytes())
                }
                kind => {
                    let (lane, head) = if kind < 3 { (1, disco_of(62)) } else { (2, vec![4; 20]) };
                    let mut payload = head;
                    payload.resize(payload.len() + rng.range(0..3_000) as usize, 0);
                    payload.extend_from_slice(&number.to_be_bytes());
                    dropped += model.push(lane, number, payload.len() + 37);
                    queue.push(&A, &payload)
                }
            };
            assert_eq!(woken, was_empty);
            assert!(queue.bytes() <= (512 + 64 + 32) << 10);
            if rng.range(0..busy) == 0 {
                let max = rng.range(0..100_000) as usize;
                let mut out = Vec::new();
                queue.take(max, &mut out);
                assert_eq!(numbers(&out), model.take(max), "seed {seed}, number {number}, max {max}");
            }
        }
        let mut out = Vec::new();
        queue.take(usize::MAX, &mut out);
        assert_eq!(numbers(&out), model.take(usize::MAX));
        assert!(queue.is_empty() && queue.bytes() == 0);
        assert_eq!(queue.counters.dropped.iter().flatten().sum::<u64>(), dropped);
    }
}

#[test]
fn what_a_dead_connection_leaves_behind_is_counted_and_counters_add_up() {
    let mut queue = SendQueue::default();
    queue.push(&A, b"data");
    queue.push(&A, &disco_of(62));
    queue.push_gone(&B);
    queue.abandon();
    assert!(queue.is_empty());
    let mut sum = ForwardCounters::default();
    sum.absorb(&mut queue.counters);
    assert_eq!(queue.counters, ForwardCounters::default());
    assert_eq!(sum.dropped(DropReason::Gone, PacketKind::Data), 1);
    assert_eq!(sum.dropped(DropReason::Gone, PacketKind::Disco), 1);
}

#[test]
fn many_full_queues_hold_no_more_than_their_budget_and_a_new_one_finds_room() {
    let (total, base) = (4 << 20, 32 << 10);
    let budget = Budget::new(total);
    let packet = [7; 1_400];
    let mut queues: Vec<_> = (0..100).map(|_| SendQueue::within(&budget)).collect();
    for queue in &mut queues {
        (0..512).for_each(|_| _ = queue.push(&A, &packet));
        // Its writer has its hands full, and gets no further.
        queue.take(64 << 10, &mut Vec::new());
        (0..512).for_each(|_| _ = queue.push(&A, &packet));
    }
    let held: usize = queues.iter().map(SendQueue::held).sum();
    assert!(budget.taken() <= total && held <= total + 100 * base, "{held} bytes");
    let counters = &queues[99].counters;
    assert!(counters.dropped(DropReason::Crowded, PacketKind::Data) > 500);
    assert_eq!(counters.dropped(DropReason::QueueHead, PacketKind::Data), 0);

    let mut new = SendQueue::within(&budget);
    (0..20).for_each(|_| _ = new.push(&A, &packet));
    assert_eq!(new.counters, ForwardCounters::default());
    // A packet that is longer than all that is left is not kept, and harms none that is there.
    assert!(!new.push(&A, &[0; PACKET_MAX]));
    assert_eq!(new.counters.dropped(DropReason::Crowded, PacketKind::Data), 1);
    let mut out = Vec::new();
    new.take(usize::MAX, &mut out);
    assert_eq!(new.counters.packets_out, 20);

    for queue in &mut queues {
        queue.take(usize::MAX, &mut out);
        queue.take(usize::MAX, &mut out);
    }
    assert_eq!(budget.taken(), 0);
    (0..512).for_each(|_| _ = queues[0].push(&A, &packet));
    assert!(budget.taken() > 0);
    queues[0].abandon();
    assert_eq!(budget.taken(), 0);
}
