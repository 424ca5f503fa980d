//! Each law must be able to fail: a sound machine, and its broken twins.

use super::*;
use crate::machine::{Input, Outbox};
use crate::time::{Duration, Monotone, Time};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is wrong with a [`Heart`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    EndlessPoll,
    PollRevives,
    LeavesForLater,
    DeadlineStays,
    Spins,
    BeatsEarly,
    DrawsWhenIdle,
    CatchesUpStepByStep,
    BurstsWhenLate,
    TrustsTime,
    CountsGlobally,
    IndexesBytes,
    KeepsAllSources,
    KeepsAllBytes,
}

/// A machine that beats every second once started, and remembers who wrote to it.
#[derive(Debug)]
struct Heart {
    fault: Fault,
    clock: Monotone,
    last: Time,
    next: Option<Time>,
    rng: Rng,
    sources: BTreeSet<SocketAddr>,
    buffer: Vec<u8>,
    later: Outbox<String>,
    out: Outbox<String>,
}

static GLOBAL: AtomicU64 = AtomicU64::new(0);
const BEAT: Duration = Duration::from_secs(1);

impl Heart {
    fn new(fault: Fault, seed: &Seed) -> Self {
        Self {
            fault,
            clock: Monotone::default(),
            last: Time::ZERO,
            next: None,
            rng: seed.fork("heart").rng(),
            sources: BTreeSet::new(),
            buffer: Vec::new(),
            later: Outbox::default(),
            out: Outbox::default(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn beat(&mut self, now: Time) {
        if self.has(Fault::DrawsWhenIdle) {
            self.rng.u64();
        }
        let Some(due) = self.next else { return };
        let early = if self.has(Fault::BeatsEarly) { Duration::from_micros(5) } else { Duration::ZERO };
        let exactly = self.has(Fault::DeadlineStays) && due == now;
        if now + early < due || exactly {
            return;
        }
        if self.has(Fault::BurstsWhenLate) {
            let missed = now.since(due).as_secs().min(9_000);
            (0..missed).for_each(|i| self.out.event(format!("missed beat {i}")));
        }
        self.out.event(format!("beat {}", self.rng.u64()));
        self.next = Some(if self.has(Fault::CatchesUpStepByStep) {
            due + BEAT
        } else if self.has(Fault::Spins) {
            due
        } else {
            now + BEAT
        });
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        if self.has(Fault::IndexesBytes) && bytes[0] == 0xff {
            return;
        }
        if self.has(Fault::KeepsAllSources) || self.sources.len() < 8 {
            self.sources.insert(from);
        }
        if self.has(Fault::CountsGlobally) {
            self.out.event(format!("datagram {}", GLOBAL.fetch_add(1, Ordering::Relaxed)));
        }
        if self.has(Fault::LeavesForLater) {
            self.later.event("datagram".into());
        }
    }
}

impl Machine for Heart {
    type Command = bool;
    type Event = String;

    fn handle(&mut self, input: Input<'_, bool>, now: Time) {
        let now = if self.has(Fault::TrustsTime) { now } else { self.clock.clamp(now) };
        self.last = now;
        while let Some(output) = self.later.pop() {
            self.out.push(output);
        }
        match input {
            Input::Command(true) => self.next = Some(now + BEAT),
            Input::Command(false) => self.next = None,
            Input::Datagram { from, bytes, .. } => self.datagram(from, bytes),
            Input::StreamBytes { bytes, .. } if self.has(Fault::KeepsAllBytes) => self.buffer.extend(bytes),
            Input::Deadline => self.beat(now),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Output<String>> {
        if self.has(Fault::EndlessPoll) {
            return Some(Output::Event("again".into()));
        }
        let output = self.out.pop();
        if output.is_none() && self.has(Fault::PollRevives) && !self.later.is_empty() {
            std::mem::swap(&mut self.out, &mut self.later);
        }
        if self.has(Fault::PollRevives) && matches!(output, Some(Output::Event(_))) && self.later.is_empty() {
            self.later.event("and another".into());
        }
        output
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        self.next.map(|next| (next, "beat"))
    }
}

fn subject(fault: Fault) -> Subject<'static, Heart> {
    Subject::new(move |seed| Heart::new(fault, &seed))
        .commands(|rng| rng.permille(800))
        .size(4_000, |heart| format!("{heart:?}").len())
}

fn first_violation(fault: Fault) -> Option<Violation> {
    let subject = subject(fault);
    (0..20).find_map(|case| subject.verdict(case).err())
}

#[test]
fn a_sound_machine_keeps_every_law() {
    subject(Fault::None).check(60);
}

#[test]
fn each_broken_machine_is_caught_by_the_law_it_breaks() {
    let cases = [
        (Fault::EndlessPoll, Law::Drain),
        (Fault::PollRevives, Law::Drain),
        (Fault::LeavesForLater, Law::Drain),
        (Fault::DeadlineStays, Law::Progress),
        (Fault::Spins, Law::Progress),
        (Fault::BeatsEarly, Law::Idle),
        (Fault::DrawsWhenIdle, Law::Idle),
        (Fault::CatchesUpStepByStep, Law::Late),
        (Fault::BurstsWhenLate, Law::Late),
        (Fault::TrustsTime, Law::Monotone),
        (Fault::CountsGlobally, Law::Deterministic),
        (Fault::IndexesBytes, Law::Hostile),
        (Fault::KeepsAllSources, Law::Hostile),
        (Fault::KeepsAllBytes, Law::Hostile),
    ];
    for (fault, law) in cases {
        let found = first_violation(fault).unwrap_or_else(|| panic!("{fault:?} was not caught"));
        assert_eq!(found.law, law, "{fault:?}: {found:?}");
    }
}

/// A machine may clamp what it does and still fail on the raw time; then it panics in the step that goes back.
#[test]
fn a_panic_on_a_time_that_goes_back_is_reported_as_such() {
    struct Raw(Heart);
    impl Machine for Raw {
        type Command = bool;
        type Event = String;
        fn handle(&mut self, input: Input<'_, bool>, now: Time) {
            let elapsed = now.as_micros().checked_sub(self.0.last.as_micros());
            assert!(elapsed.is_some(), "time went back");
            Machine::handle(&mut self.0, input, now);
        }
        fn poll(&mut self) -> Option<Output<String>> {
            Machine::poll(&mut self.0)
        }
        fn deadline(&self) -> Option<(Time, &'static str)> {
            Machine::deadline(&self.0)
        }
    }
    let subject = Subject::new(|seed| Raw(Heart::new(Fault::None, &seed))).commands(|rng| rng.permille(800));
    let found = (0..20).find_map(|case| subject.verdict(case).err()).unwrap();
    assert_eq!(found.law, Law::Monotone, "{found:?}");
}

#[test]
fn a_report_shows_the_shortest_plan() {
    let found = first_violation(Fault::IndexesBytes).unwrap();
    assert_eq!(found.steps.len(), 1, "{found:?}");
    assert!(found.detail.contains("panicked"), "{found:?}");
}

#[test]
fn plans_repeat_exactly() {
    let subject = subject(Fault::None);
    let text = |case| format!("{:?}", plan::draw(&subject.world, case));
    assert_eq!(text(3), text(3));
    assert_ne!(text(3), text(4));
}
