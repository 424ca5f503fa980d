//! Holds the simulator's model of WireGuard to the engine of production, packet for packet: both are put
//! behind the same port and through the same schedules, and everything that they send, when they send it and
//! everything that arrives must be equal.
//!
//! Times are compared exactly, without any tolerance: boringtun repeats handshakes without jitter, and the
//! model knows that timers run every quarter of a second. That the runs of the two begin at the same moment
//! is the lab's doing; in production a busy driver may be late.
#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

use lab::{Lab, Link, What, both};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proto_core::seed::Seed;
use proto_core::time::Time;
use proto_core::wg::{Opened, Sealed};
use std::cell::RefCell;
use std::collections::BTreeMap;

#[path = "../../../io-adapters/tests/support/boot_clock.rs"]
mod boot_clock;
mod lab;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Op {
    Send(usize, u8),
    Initiate(usize),
    Reset(usize),
    /// The peer is removed and added again.
    Forget(usize),
    /// Another process with the same key.
    Restart(usize),
    Link(usize, Link),
    /// Of what is held on a way, by its number.
    Deliver(usize, usize),
    Drop(usize, usize),
    Duplicate(usize, usize),
    Corrupt(usize, usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let side = 0..2_usize;
    let link = prop_oneof![
        4 => (0..400_u64).prop_map(Link::Prompt),
        2 => Just(Link::Held),
        2 => Just(Link::Deaf),
    ];
    // The moments at which something begins or ends, and a little before and after.
    const MOMENTS: [u64; 8] = [5_000, 10_000, 15_000, 90_000, 120_000, 165_000, 180_000, 540_000];
    let wait = prop_oneof![
        5 => 1..2_000_u64,
        3 => 2_000..20_000_u64,
        2 => 20_000..200_000_u64,
        1 => 200_000..700_000_u64,
        3 => (prop::sample::select(&MOMENTS[..]), prop::sample::select(&[0, 1, 2, 249, 250, 251, 252][..]))
            .prop_map(|(at, off)| at + off - 1),
    ];
    prop_oneof![
        6 => (side.clone(), 1..4_u8).prop_map(|(side, n)| Op::Send(side, n)),
        3 => side.clone().prop_map(Op::Initiate),
        1 => side.clone().prop_map(Op::Reset),
        1 => side.clone().prop_map(Op::Forget),
        1 => side.clone().prop_map(Op::Restart),
        3 => (side.clone(), link).prop_map(|(side, link)| Op::Link(side, link)),
        3 => (side.clone(), 0..8_usize).prop_map(|(side, n)| Op::Deliver(side, n)),
        1 => (side.clone(), 0..8_usize).prop_map(|(side, n)| Op::Drop(side, n)),
        2 => (side.clone(), 0..8_usize).prop_map(|(side, n)| Op::Duplicate(side, n)),
        1 => (side, 0..8_usize).prop_map(|(side, n)| Op::Corrupt(side, n)),
        9 => wait.prop_map(Op::Wait),
    ]
}

fn play(lab: &mut Lab, ops: &[Op]) {
    for op in ops {
        match *op {
            Op::Send(side, n) => (0..n).for_each(|_| lab.send(side)),
            Op::Initiate(side) => lab.initiate(side),
            Op::Reset(side) => lab.reset(side),
            Op::Forget(side) => lab.forget(side),
            Op::Restart(side) => lab.restart(side),
            Op::Link(side, link) => lab.links[side] = link,
            Op::Deliver(side, n) => lab.deliver(side, n),
            Op::Drop(side, n) => drop(lab.take(side, n)),
            Op::Duplicate(side, n) => lab.duplicate(side, n),
            Op::Corrupt(side, n) => lab.corrupt(side, n),
            Op::Wait(millis) => lab.wait(millis),
        }
    }
    // Whatever is left standing shows itself.
    lab.links = [Link::Prompt(20); 2];
    lab.send(0);
    lab.send(1);
    lab.wait(30_000);
}

#[test]
fn both_engines_say_the_same_at_the_same_time_whatever_happens() {
    let config = Config { cases: 700, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let seen: RefCell<BTreeMap<&str, u64>> = RefCell::default();
    let run = TestRunner::new_with_rng(config, rng).run(&prop::collection::vec(op(), 1..80), |ops| {
        let records = both(|lab| play(lab, &ops)).map_err(TestCaseError::fail)?;
        for record in records {
            *seen.borrow_mut().entry(record.what.name()).or_insert(0) += 1;
        }
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    // The schedules must reach everything that they compare.
    for (what, least) in [
        ("sent initiation", 10_000),
        ("sent response", 1_000),
        ("sent data", 5_000),
        ("sent keepalive", 2_000),
        ("sealed waiting", 1_000),
        ("opened data", 3_000),
        ("opened keepalive", 1_000),
        ("opened established", 1_000),
        ("refused", 300),
    ] {
        let count = seen.get(what).copied().unwrap_or(0);
        assert!(count >= least, "{what} only {count} times: {seen:?}");
    }
}

/// What a side sent after a moment: after how many milliseconds, and what.
fn sent(records: &[lab::Record], side: usize, from: Time) -> Vec<(u64, &'static str)> {
    let later = records.iter().filter(|r| r.side == side && r.at >= from);
    let sent = later.filter(|r| matches!(r.what, What::Sent(..)));
    sent.map(|r| ((r.at.as_micros() - from.as_micros()) / 1_000, r.what.name())).collect()
}

fn agreed(script: impl Fn(&mut Lab)) -> Vec<lab::Record> {
    both(script).unwrap_or_else(|difference| panic!("{difference}"))
}

/// A lab with a session that side 0 began at this moment.
const CONNECTED: Time = Time::from_secs(1);

fn connect(lab: &mut Lab) {
    lab.wait(1_000);
    lab.links = [Link::Prompt(0); 2];
    lab.initiate(0);
    lab.wait(0);
}

#[test]
fn an_unanswered_initiation_is_repeated_every_5_s_for_90_s_without_jitter() {
    let records = agreed(|lab| {
        lab.links = [Link::Deaf; 2];
        lab.wait(1_010);
        lab.initiate(0);
        lab.wait(600_000);
    });
    let from = Time::from_micros(1_010_000);
    // By runs of the timers, so that the first repetition waits for the run after its 5 s.
    let repeated = (0..17).map(|n| (5_240 + n * 5_000, "sent initiation"));
    let expected: Vec<_> = std::iter::once((0, "sent initiation")).chain(repeated).collect();
    assert_eq!(sent(&records, 0, from), expected);
}

#[test]
fn a_used_session_is_renewed_after_120_s_by_who_began_it_and_after_165_s_if_it_only_receives() {
    let records = agreed(|lab| {
        connect(lab);
        for _ in 0..14 {
            lab.wait(9_000);
            lab.send(1);
            lab.send(0);
        }
    });
    let renewed = sent(&records, 0, CONNECTED).into_iter().filter(|(_, what)| *what == "sent initiation");
    assert_eq!(renewed.collect::<Vec<_>>(), [(0, "sent initiation"), (120_000, "sent initiation")]);
    let records = agreed(|lab| {
        connect(lab);
        for _ in 0..20 {
            lab.wait(9_000);
            lab.send(1);
        }
    });
    let renewed = sent(&records, 0, CONNECTED).into_iter().filter(|(_, what)| *what == "sent initiation");
    assert_eq!(renewed.collect::<Vec<_>>(), [(0, "sent initiation"), (165_000, "sent initiation")]);
}

#[test]
fn data_without_an_answer_asks_for_a_keepalive_after_10_s_and_for_a_handshake_after_15() {
    let records = agreed(|lab| {
        connect(lab);
        lab.wait(1_000);
        lab.send(0);
        lab.wait(20_000);
    });
    assert_eq!(sent(&records, 1, CONNECTED).last(), Some(&(10_000, "sent keepalive")));
    let records = agreed(|lab| {
        connect(lab);
        lab.links[1] = Link::Deaf;
        lab.wait(1_000);
        lab.send(0);
        lab.wait(18_000);
    });
    assert_eq!(sent(&records, 0, CONNECTED).last(), Some(&(15_000, "sent initiation")));
}

#[test]
fn a_session_ends_after_180_s_at_the_next_run_of_the_timers() {
    for (after, sealed) in [(180_249, "sealed data"), (180_250, "sealed initiation")] {
        let records = agreed(|lab| {
            connect(lab);
            lab.wait(after);
            lab.send(1);
        });
        let last = records.iter().rfind(|r| matches!(r.what, What::Sealed(_)));
        assert_eq!(last.map(|r| r.what.name()), Some(sealed), "after {after} ms");
    }
}

#[test]
fn nine_minutes_without_a_handshake_end_one_under_way_and_what_comes_then_still_waits() {
    let records = agreed(|lab| {
        lab.links = [Link::Deaf; 2];
        lab.wait(500_000);
        lab.initiate(0);
        lab.wait(100_000);
        // Nothing has stood yet, so that this waits for the core's word.
        lab.send(0);
        lab.wait(10_000);
        lab.links = [Link::Prompt(10); 2];
        lab.initiate(0);
        lab.wait(1_000);
    });
    let repeats = sent(&records, 0, Time::from_secs(501)).len();
    assert_eq!(repeats, 7 + 1 + 2, "seven until 540 s, the last handshake, its keepalive and the packet");
    let arrived =
        records.iter().filter(|r| r.side == 1 && matches!(r.what, What::Opened(Opened::Data(..), _)));
    assert_eq!(arrived.count(), 1, "what waited has arrived");
}

#[test]
fn the_window_of_packets_that_may_come_late_is_the_same() {
    for seed in 0..8 {
        let records = agreed(|lab| {
            connect(lab);
            lab.links[0] = Link::Held;
            let mut rng = Seed::from_u64(seed).rng();
            for _ in 0..40 {
                (0..rng.range(1..300)).for_each(|_| lab.send(0));
                for _ in 0..rng.range(1..200) {
                    let held = lab.held(0) as u64;
                    let n = usize::try_from(rng.range(0..held.max(1))).unwrap();
                    if rng.permille(600) {
                        lab.duplicate(0, n);
                    }
                    lab.deliver(0, n);
                }
            }
        });
        let refused = records.iter().filter(|r| r.what.name() == "refused").count();
        let opened = records.iter().filter(|r| r.what.name() == "opened data").count();
        assert!(refused > 200 && opened > 1_000, "{refused} refused, {opened} opened");
    }
}

/// Both engines' answers to one datagram, boringtun's first.
fn answers(make: impl Fn(&mut Lab) -> Opened) -> [Opened; 2] {
    Lab::pair().map(|mut lab| make(&mut lab))
}

#[test]
fn under_load_boringtun_asks_for_a_cookie_and_the_model_never_does() {
    const MESSAGES: usize = 1_000;
    let flood = |count: usize, pause: u64| {
        move |lab: &mut Lab| {
            lab.links = [Link::Held; 2];
            lab.initiate(0);
            let first = lab.take(0, 0).unwrap();
            for _ in 0..count {
                lab.open(1, &first);
            }
            lab.wait(1);
            lab.initiate(0);
            lab.wait(pause);
            let fresh = lab.take(0, 0).unwrap();
            lab.open(1, &fresh)
        }
    };
    let [real, model] = answers(flood(MESSAGES, 0));
    assert!(matches!(real, Opened::Cookie(64)), "{real:?}");
    assert!(matches!(model, Opened::Reply(_, 92)), "{model:?}");
    for calm in [flood(MESSAGES - 1, 0), flood(MESSAGES, 1_000)] {
        let [real, model] = answers(calm);
        assert_eq!(real, model);
    }
}

#[test]
fn the_model_minds_the_last_bytes_of_a_handshake_message_and_boringtun_does_not() {
    let changed = |from_end: usize| {
        move |lab: &mut Lab| {
            lab.links = [Link::Held; 2];
            lab.initiate(0);
            let mut initiation = lab.take(0, 0).unwrap();
            let place = initiation.len() - from_end;
            initiation[place] ^= 1;
            lab.open(1, &initiation)
        }
    };
    for from_end in 1..=16 {
        let [real, model] = answers(changed(from_end));
        assert!(matches!(real, Opened::Reply(..)) && matches!(model, Opened::Refused(_)), "{from_end}");
    }
    for from_end in (17..=64).chain([140, 148]) {
        let [real, model] = answers(changed(from_end));
        assert!(matches!((real, model), (Opened::Refused(_), Opened::Refused(_))), "{from_end}");
    }
}

#[test]
fn only_ipv6_packets_pass_cut_to_the_length_they_say() {
    let mut packets = vec![vec![0x60; 39], vec![0xff; 60], vec![1]];
    let mut long = lab::ipv6(b"text");
    long.extend_from_slice(b"more");
    let mut short = lab::ipv6(b"text");
    short.pop();
    packets.extend([long, short, lab::ipv6(b"")]);
    let records = agreed(|lab| {
        connect(lab);
        for packet in &packets {
            lab.wait(300);
            lab.send_packet(0, packet);
        }
        lab.wait(60_000);
    });
    let opened = records.iter().filter(|r| r.side == 1 && r.at > Time::from_secs(1));
    let names: Vec<_> =
        opened.filter(|r| matches!(r.what, What::Opened(..))).map(|r| r.what.name()).collect();
    assert_eq!(names[..6], ["refused", "refused", "refused", "opened data", "refused", "opened data"]);
    // An IPv4 packet is refused by both, too, but boringtun answers it with a keepalive.
    let ipv4 = [&[0x45, 0, 0, 20][..], &[0; 16]].concat();
    let keepalives = Lab::pair().map(|mut lab| {
        connect(&mut lab);
        lab.wait(500);
        lab.send_packet(0, &ipv4);
        lab.wait(12_000);
        assert!(lab.records.iter().any(|r| r.what.name() == "refused"));
        sent(&lab.records, 1, Time::from_secs(2)).len()
    });
    assert_eq!(keepalives, [1, 0]);
}

#[test]
fn without_a_session_as_many_packets_wait() {
    let records = agreed(|lab| {
        (0..70).for_each(|_| lab.send(0));
        connect(lab);
        lab.wait(100);
    });
    let waiting = records.iter().filter(|r| r.what == What::Sealed(Sealed::Waiting)).count();
    let arrived = records.iter().filter(|r| r.what.name() == "opened data").count();
    assert_eq!((waiting, arrived), (64, 64));
}
