//! A plan run over a machine, and what the runs must agree on.

use super::erased::{AnyMachine, Erased, Said, Wish};
use super::plan::{Act, Step, address, hostile_datagram, hostile_stream};
use super::{Law, OwnedInput, Violation, World};
use crate::id::{LinkId, StreamId};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Time};
use crate::wire::stun;
use core::net::{IpAddr, Ipv4Addr};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, UnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A machine that asks to be woken at one and the same moment more often than this stands still.
const SPINS_MAX: usize = 64;
/// Hostile datagrams, and pieces of streams, that follow a plan.
const FLOOD: usize = 600;
/// Answers of the world that wait at most.
const PENDING_MAX: usize = 256;
/// Shorter plans tried when a law is broken.
const SHRINKS_MAX: usize = 400;

/// A broken law, and the step that broke it.
pub(super) struct Broken {
    law: Law,
    detail: String,
    at: usize,
}

/// How a run is made.
#[derive(Clone, Copy)]
struct Mode {
    /// Wake the machine after every input and look whether it says anything.
    watched: bool,
    /// Flood it with hostile bytes in the end.
    flooded: bool,
    /// Never let time go back.
    clamped: bool,
}

pub(super) fn try_plan(subject: &World<'_>, case: u64, steps: &[Step], flooded: bool) -> Result<(), Broken> {
    let run = |watched, clamped| {
        let flooded = watched && flooded;
        Run::new(subject, case, Mode { watched, flooded, clamped }).all(steps)
    };
    let watched = run(true, false)?;
    let plain = run(false, false)?;
    compare(Law::Deterministic, "a second run", &plain, &run(false, false)?)?;
    compare(Law::Monotone, "a run whose times were clamped beforehand", &plain, &run(false, true)?)?;
    compare(Law::Idle, "a run with wakes in between that nothing was due at", &plain, &watched)
}

/// The lines of each step must be the same in both runs.
fn compare(law: Law, what: &str, plain: &[Vec<String>], other: &[Vec<String>]) -> Result<(), Broken> {
    for (at, (a, b)) in plain.iter().zip(other).enumerate() {
        if a != b {
            let differing = a.iter().zip(b).find(|(a, b)| a != b);
            let (a, b) = differing.map_or_else(
                || (format!("{} outputs", a.len()), format!("{}", b.len())),
                |(a, b)| (short(a), short(b)),
            );
            return Err(Broken { law, detail: format!("{what} differs: first {a}, then {b}"), at });
        }
    }
    Ok(())
}

/// Removes steps as long as the same law stays broken.
pub(super) fn shrink(subject: &World<'_>, case: u64, mut steps: Vec<Step>, mut broken: Broken) -> Violation {
    let flooded = broken.at == steps.len();
    steps.truncate(broken.at + 1);
    let mut tries = 0;
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut start = 0;
        while start < steps.len() && tries < SHRINKS_MAX {
            tries += 1;
            let mut fewer = steps.clone();
            fewer.drain(start..steps.len().min(start + chunk));
            match try_plan(subject, case, &fewer, flooded) {
                Err(again) if again.law == broken.law => {
                    fewer.truncate(again.at + 1);
                    (steps, broken) = (fewer, again);
                }
                _ => start += chunk,
            }
        }
        chunk /= 2;
    }
    let mut steps: Vec<_> =
        steps.iter().map(|step| short(&format!("{:?} later: {:?}", step.after, step.act))).collect();
    if flooded {
        steps.push("the flood of hostile bytes that follows every plan".into());
    }
    Violation { law: broken.law, detail: broken.detail, case, steps }
}

struct Run<'r, 's> {
    subject: &'r World<'s>,
    machine: Box<dyn AnyMachine>,
    mode: Mode,
    /// The time of the plan.
    now: Time,
    /// The latest time that the machine was told.
    told: Time,
    pending: Vec<OwnedInput<Erased>>,
    streams: Vec<StreamId>,
    rng: Rng,
    /// The plan is over; nobody compares what is said now.
    flooding: bool,
    /// What the machine said, step by step.
    lines: Vec<Vec<String>>,
}

impl<'r, 's> Run<'r, 's> {
    fn new(subject: &'r World<'s>, case: u64, mode: Mode) -> Self {
        let seed = Seed::from_u64(case);
        Self {
            subject,
            machine: (subject.make)(seed.fork("machine")),
            mode,
            now: Time::ZERO,
            told: Time::ZERO,
            pending: Vec::new(),
            streams: Vec::new(),
            rng: seed.fork("world").rng(),
            flooding: false,
            lines: Vec::new(),
        }
    }

    fn all(mut self, steps: &[Step]) -> Result<Vec<Vec<String>>, Broken> {
        for (at, step) in steps.iter().enumerate() {
            self.lines.push(Vec::new());
            let done = self.step(step);
            done.and_then(|()| if self.mode.watched && at % 16 == 0 { self.check_size() } else { Ok(()) })
                .map_err(|(law, detail)| Broken { law, detail, at })?;
        }
        if self.mode.flooded {
            let at = steps.len();
            self.flood().map_err(|(law, detail)| Broken { law, detail, at })?;
        }
        Ok(self.lines)
    }

    fn step(&mut self, step: &Step) -> Result<(), (Law, String)> {
        self.now += step.after;
        match &step.act {
            Act::Input(input) => self.give(input, self.now, Law::Hostile).map(drop),
            Act::Back(by, input) => {
                let at = if self.mode.clamped { self.told } else { self.told - *by };
                self.give(input, at, Law::Monotone).map(drop)
            }
            Act::Answer(pick) => match choose(&self.pending, *pick) {
                None => Ok(()),
                Some(i) => {
                    let input = self.pending.remove(i);
                    self.give(&input, self.now, Law::Hostile).map(drop)
                }
            },
            Act::Bytes(pick, bytes) => match choose(&self.streams, *pick) {
                None => Ok(()),
                Some(i) => {
                    let input = OwnedInput::StreamBytes { stream: self.streams[i], bytes: bytes.clone() };
                    self.give(&input, self.now, Law::Hostile).map(drop)
                }
            },
            Act::End(pick) => match choose(&self.streams, *pick) {
                None => Ok(()),
                Some(i) => {
                    let input = OwnedInput::StreamClosed { stream: self.streams[i], why: "end".into() };
                    self.give(&input, self.now, Law::Hostile).map(drop)
                }
            },
            Act::Wake => self.wake(),
            Act::Early => self.early(),
            Act::Late(by) => self.late(*by),
        }
    }

    fn wake(&mut self) -> Result<(), (Law, String)> {
        let Some((due, _)) = self.machine.deadline() else { return Ok(()) };
        self.now = self.now.max(due);
        for _ in 0..SPINS_MAX {
            let Some(before) = self.machine.deadline().filter(|(due, _)| *due <= self.now) else {
                return Ok(());
            };
            let said = self.give(&OwnedInput::Deadline, self.now, Law::Progress)?;
            if said == 0 && self.machine.deadline().is_some_and(|after| after.0 == before.0) {
                let detail = format!("handling the deadline {before:?} neither moved it nor said anything");
                return Err((Law::Progress, detail));
            }
        }
        let detail =
            format!("still due after {SPINS_MAX} wakes at {:?}: {:?}", self.now, self.machine.deadline());
        Err((Law::Progress, detail))
    }

    fn early(&mut self) -> Result<(), (Law, String)> {
        let deadline = self.machine.deadline();
        let at = match deadline {
            Some((due, _)) => due - Duration::from_micros(1),
            None => self.now + Duration::from_secs(3_600),
        };
        // A deadline that is due already cannot be met early.
        if at < self.now || deadline.is_some_and(|(due, _)| due <= at) {
            return Ok(());
        }
        self.now = at;
        let said = self.give(&OwnedInput::Deadline, at, Law::Idle)?;
        if said > 0 || self.machine.deadline() != deadline {
            let last = self.lines.last().and_then(|lines| lines.first()).cloned().unwrap_or_default();
            return Err((
                Law::Idle,
                format!("woken at {at:?}, before {deadline:?}, it said {}", short(&last)),
            ));
        }
        Ok(())
    }

    fn late(&mut self, by: Duration) -> Result<(), (Law, String)> {
        let Some((due, _)) = self.machine.deadline() else { return self.early() };
        self.now = self.now.max(due) + by;
        let said = self.give(&OwnedInput::Deadline, self.now, Law::Late)?;
        if said > self.subject.burst_max {
            return Err((Law::Late, format!("woken {by:?} late, it made {said} outputs at once")));
        }
        match self.machine.deadline() {
            Some(next) if next.0 <= self.now => {
                Err((Law::Late, format!("woken {by:?} late, at {:?}, it is still due: {next:?}", self.now)))
            }
            _ => Ok(()),
        }
    }

    /// Gives one input, drains, and if watched looks for what was left behind. The number of outputs.
    fn give(&mut self, input: &OwnedInput<Erased>, at: Time, context: Law) -> Result<usize, (Law, String)> {
        match input {
            OwnedInput::StreamOpened { stream } if !self.streams.contains(stream) => {
                self.streams.push(*stream)
            }
            OwnedInput::StreamClosed { stream, .. } => self.streams.retain(|open| open != stream),
            _ => {}
        }
        let outputs = self.call(input, at, context)?;
        for output in &outputs {
            self.answer(&**output);
        }
        let deadline = self.machine.deadline();
        if let Some(step) = self.lines.last_mut().filter(|_| !self.flooding) {
            step.extend(outputs.iter().map(|output| format!("{output:?}")));
            step.push(format!("deadline {deadline:?}"));
        }
        // Woken once more at the same time, with nothing due, it must have nothing more to say.
        if self.mode.watched && deadline.is_none_or(|(due, _)| due > self.told) {
            let left = self.call(&OwnedInput::Deadline, self.told, Law::Idle)?;
            if let Some(left) = left.first() {
                let detail = format!("a call with nothing to do revealed {}", short(&format!("{left:?}")));
                return Err((Law::Drain, detail));
            }
            if self.machine.deadline() != deadline {
                let moved = self.machine.deadline();
                return Err((Law::Idle, format!("a wake with nothing due moved {deadline:?} to {moved:?}")));
            }
        }
        Ok(outputs.len())
    }

    /// The one place where the machine runs.
    fn call(
        &mut self,
        input: &OwnedInput<Erased>,
        at: Time,
        context: Law,
    ) -> Result<Vec<Box<dyn Said>>, (Law, String)> {
        self.told = self.told.max(at);
        let (machine, most) = (&mut self.machine, self.subject.outputs_max);
        let outputs = quietly(AssertUnwindSafe(|| {
            machine.handle(input, at);
            let mut outputs = Vec::new();
            while let Some(output) = machine.poll() {
                if outputs.len() == most {
                    return Err(format!("poll has not ended after {most} outputs"));
                }
                outputs.push(output);
            }
            match machine.poll() {
                None => Ok(outputs),
                Some(more) => Err(format!("poll ended, and then gave {}", short(&format!("{more:?}")))),
            }
        }));
        match outputs {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(endless)) => Err((Law::Drain, endless)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let text = text.unwrap_or_default();
                Err((context, format!("it panicked on {}: {text}", short(&format!("{input:?}")))))
            }
        }
    }

    /// What the world will answer to an output.
    fn answer(&mut self, output: &dyn Said) {
        let own = self.subject.replies.as_ref().and_then(|reply| reply(output, &mut self.rng));
        let answers = own.unwrap_or_else(|| self.usual_answer(output).into_iter().collect());
        self.pending.extend(answers);
        let excess = self.pending.len().saturating_sub(PENDING_MAX);
        self.pending.drain(..excess);
    }

    fn usual_answer(&mut self, output: &dyn Said) -> Option<OwnedInput<Erased>> {
        let luck = self.rng.range(0..100);
        match output.wish() {
            Wish::Open(stream) if luck < 70 => Some(OwnedInput::StreamOpened { stream }),
            Wish::Open(stream) | Wish::Close(stream) => {
                Some(OwnedInput::StreamClosed { stream, why: "refused".into() })
            }
            Wish::Write(stream) if luck < 30 => Some(OwnedInput::StreamWritable { stream, credit: 65_536 }),
            Wish::Resolve(name) => {
                let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, luck as u8));
                let addresses = if luck < 70 { vec![address] } else { Vec::new() };
                Some(OwnedInput::Resolved { name: name.to_owned(), addresses })
            }
            Wish::Transmit(sent) => {
                let bytes = stun::answer(&sent.bytes, address(&mut self.rng)).filter(|_| luck < 60);
                let bounced = || (luck > 90).then(|| sent.bytes.clone());
                let bytes = bytes.or_else(bounced)?;
                Some(OwnedInput::Datagram { link: sent.link, from: sent.to, bytes })
            }
            Wish::Write(_) | Wish::Nothing => None,
        }
    }

    fn check_size(&self) -> Result<(), (Law, String)> {
        match &self.subject.size {
            Some((max, measure)) if measure(&*self.machine) > *max => {
                let size = measure(&*self.machine);
                Err((Law::Hostile, format!("it has grown to a size of {size}, more than {max}")))
            }
            _ => Ok(()),
        }
    }

    /// Nothing but hostile bytes, from ever new addresses and on every open stream.
    fn flood(&mut self) -> Result<(), (Law, String)> {
        (self.mode.watched, self.flooding) = (false, true);
        for i in 0..FLOOD {
            let from = (self.rng.bytes::<4>(), 1_024 + i as u16).into();
            let link = LinkId((i % 2) as u32);
            let bytes = hostile_datagram(&mut self.rng);
            self.give(&OwnedInput::Datagram { link, from, bytes }, self.now, Law::Hostile)?;
            if let Some(at) = choose(&self.streams, i as u64) {
                let bytes = if i % 8 == 0 { vec![0x20; 16_384] } else { hostile_stream(&mut self.rng) };
                let input = OwnedInput::StreamBytes { stream: self.streams[at], bytes };
                self.give(&input, self.now, Law::Hostile)?;
            }
            if let Some(own) = self.subject.inputs.as_ref().filter(|_| i % 2 == 0) {
                let input = own(&mut self.rng);
                self.give(&input, self.now, Law::Hostile)?;
            }
        }
        self.check_size()
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic without its report: while a plan is being shortened the same one comes hundreds of times.
fn quietly<T>(f: impl FnOnce() -> T + UnwindSafe) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(f);
    QUIET.set(false);
    result
}

fn choose<T>(from: &[T], pick: u64) -> Option<usize> {
    (!from.is_empty()).then(|| (pick % from.len() as u64) as usize)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(300) {
        None => text.to_owned(),
        Some((end, _)) => format!("{} ...", &text[..end]),
    }
}
