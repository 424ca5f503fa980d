//! The seven laws of a machine, written once as a property test for all of them.
//!
//! | law | what it says |
//! | --- | --- |
//! | drain | `poll` reaches `None` in bounded steps and stays there; nothing is left that only a later call reveals |
//! | progress | handling the deadline moves it or says something, and time cannot stand still for ever |
//! | idle is idle | waking the machine before its deadline does nothing, now or later |
//! | late is fine | one call after a long sleep catches up, without a burst of what was missed |
//! | monotone | a time before the latest seen counts as the latest seen |
//! | deterministic | the same seed and inputs give the same outputs, as `Debug` text |
//! | hostile bytes | no panic, no unbounded growth |
//!
//! A test says how to build the machine and what it may be told; the rest is drawn from a number:
//!
//! ```
//! # use proto_core::machine::{laws::Subject, Input, Machine, Outbox, Output};
//! # use proto_core::time::Time;
//! # #[derive(Debug, Default)] struct Echo { out: Outbox<u8> }
//! # impl Machine for Echo {
//! #     type Command = u8; type Event = u8;
//! #     fn handle(&mut self, input: Input<'_, u8>, _: Time) { if let Input::Command(c) = input { self.out.event(c); } }
//! #     fn poll(&mut self) -> Option<Output<u8>> { self.out.pop() }
//! #     fn deadline(&self) -> Option<(Time, &'static str)> { None }
//! # }
//! Subject::new(|_seed| Echo::default())
//!     .commands(|rng| rng.range(0..3) as u8)
//!     .size(10_000, |machine| format!("{machine:?}").len())
//!     .check(20);
//! ```
//!
//! Each case is a plan (plain data) that runs four times: watched, unwatched, unwatched again, and with times
//! clamped by the harness. What the runs print must agree. A broken law is reported with the shortest plan
//! found that still breaks it.

mod erased;
mod plan;
mod run;
#[cfg(test)]
mod tests;

pub use plan::{hostile_datagram, hostile_stream};

use super::{Machine, Output};
use crate::id::{LinkId, StreamId};
use crate::key::NodePublic;
use crate::route::Activity;
use crate::seed::{Rng, Seed};
use core::fmt;
use core::marker::PhantomData;
use core::net::{IpAddr, SocketAddr};
use erased::{AnyMachine, Erased, Said};

/// One of the seven.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Law {
    /// `poll` ends, and leaves nothing behind.
    Drain,
    /// The deadline moves.
    Progress,
    /// An early wake does nothing.
    Idle,
    /// One late wake catches up.
    Late,
    /// Time never goes back.
    Monotone,
    /// Equal inputs, equal outputs.
    Deterministic,
    /// No panic, no growth.
    Hostile,
}

/// A broken law.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub law: Law,
    /// What was seen.
    pub detail: String,
    /// The case's number.
    pub case: u64,
    /// The steps that led there, as text.
    pub steps: Vec<String>,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the law {:?} is broken in case {}: {}", self.law, self.case, self.detail)?;
        writeln!(f, "after {} steps:", self.steps.len())?;
        self.steps.iter().enumerate().try_for_each(|(i, step)| writeln!(f, "  {i:3} {step}"))
    }
}

/// An input that owns its bytes.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Input`, documented there")]
pub enum OwnedInput<C> {
    /// [`super::Input::Datagram`].
    Datagram { link: LinkId, from: SocketAddr, bytes: Vec<u8> },
    /// [`super::Input::StreamOpened`].
    StreamOpened { stream: StreamId },
    /// [`super::Input::StreamBytes`].
    StreamBytes { stream: StreamId, bytes: Vec<u8> },
    /// [`super::Input::StreamWritable`].
    StreamWritable { stream: StreamId, credit: usize },
    /// [`super::Input::StreamClosed`].
    StreamClosed { stream: StreamId, why: String },
    /// [`super::Input::Resolved`].
    Resolved { name: String, addresses: Vec<IpAddr> },
    /// [`super::Input::LinkUp`].
    LinkUp { link: LinkId, address: SocketAddr },
    /// [`super::Input::LinkDown`].
    LinkDown { link: LinkId },
    /// [`super::Input::Unreachable`].
    Unreachable { link: LinkId, to: SocketAddr },
    /// [`super::Input::Activity`].
    Activity(Activity),
    /// [`super::Input::Command`].
    Command(C),
    /// [`super::Input::Deadline`].
    Deadline,
}

type Make<'a> = Box<dyn Fn(Seed) -> Box<dyn AnyMachine> + 'a>;
type Generate<'a> = Box<dyn Fn(&mut Rng) -> OwnedInput<Erased> + 'a>;
type Reply<'a> = Box<dyn Fn(&dyn Said, &mut Rng) -> Option<Vec<OwnedInput<Erased>>> + 'a>;
type Measure<'a> = Box<dyn Fn(&dyn AnyMachine) -> usize + 'a>;

/// A machine to hold to the laws, and what may happen to it.
///
/// Only this door knows the machine's type. What stands behind it is compiled once for all machines: the
/// harness is large, and once for each it cost more to compile than everything that it checks.
pub struct Subject<'a, M: Machine> {
    world: World<'a>,
    machine: PhantomData<fn() -> M>,
}

/// What a subject comes to without its type.
struct World<'a> {
    make: Make<'a>,
    commands: Option<Generate<'a>>,
    inputs: Option<Generate<'a>>,
    replies: Option<Reply<'a>>,
    size: Option<(usize, Measure<'a>)>,
    peers: Vec<NodePublic>,
    steps: usize,
    outputs_max: usize,
    burst_max: usize,
}

impl<'a, M: Machine + 'static> Subject<'a, M>
where
    M::Command: Clone + fmt::Debug + 'static,
    M::Event: fmt::Debug + 'static,
{
    /// A machine made by `make`, at the time [`crate::time::Time::ZERO`].
    pub fn new(make: impl Fn(Seed) -> M + 'a) -> Self {
        let world = World {
            make: Box::new(move |seed| Box::new(make(seed))),
            commands: None,
            inputs: None,
            replies: None,
            size: None,
            peers: vec![NodePublic([1; 32]), NodePublic([2; 32])],
            steps: 120,
            outputs_max: 10_000,
            burst_max: 1_000,
        };
        Self { world, machine: PhantomData }
    }

    /// Commands to draw from.
    #[must_use]
    pub fn commands(mut self, draw: impl Fn(&mut Rng) -> M::Command + 'a) -> Self {
        self.world.commands = Some(Box::new(move |rng| OwnedInput::Command(Erased::new(draw(rng)))));
        self
    }

    /// Inputs of the machine's own world to draw from, besides the hostile ones: datagrams that open, streams
    /// that it knows, messages that make sense.
    #[must_use]
    pub fn inputs(mut self, draw: impl Fn(&mut Rng) -> OwnedInput<M::Command> + 'a) -> Self {
        self.world.inputs = Some(Box::new(move |rng| erased::input(draw(rng))));
        self
    }

    /// What the world answers to an output, some steps later; `None` for the usual: streams open or fail, names
    /// resolve or not, STUN requests are answered, some datagrams bounce.
    #[must_use]
    pub fn replies(
        mut self,
        reply: impl Fn(&Output<M::Event>, &mut Rng) -> Option<Vec<OwnedInput<M::Command>>> + 'a,
    ) -> Self {
        self.world.replies = Some(Box::new(move |said, rng| {
            let answers = reply(said.as_any().downcast_ref()?, rng)?;
            Some(answers.into_iter().map(erased::input).collect())
        }));
        self
    }

    /// How large the machine is (the length of its `Debug` text, or a count of what it keeps), and the size
    /// that it must never exceed.
    #[must_use]
    pub fn size(mut self, max: usize, measure: impl Fn(&M) -> usize + 'a) -> Self {
        let measure = move |machine: &dyn AnyMachine| machine.as_any().downcast_ref().map_or(0, &measure);
        self.world.size = Some((max, Box::new(measure)));
        self
    }

    /// The peers that reports of activity name.
    #[must_use]
    pub fn peers(mut self, peers: Vec<NodePublic>) -> Self {
        self.world.peers = peers;
        self
    }

    /// Steps a case, 120 at first.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.world.steps = steps;
        self
    }

    /// The most outputs that one late call may make, 1,000 at first.
    #[must_use]
    pub fn burst(mut self, outputs: usize) -> Self {
        self.world.burst_max = outputs;
        self
    }

    /// Runs cases 0 to `cases`.
    ///
    /// # Panics
    /// If a law is broken, with the law, what was seen and the steps.
    pub fn check(&self, cases: u64) {
        self.world.check(cases);
    }

    /// Runs one case.
    ///
    /// # Errors
    /// The law that it broke, with the shortest plan found that breaks it.
    pub fn verdict(&self, case: u64) -> Result<(), Violation> {
        self.world.verdict(case)
    }
}

impl World<'_> {
    fn check(&self, cases: u64) {
        for case in 0..cases {
            if let Err(violation) = self.verdict(case) {
                panic!("{violation:?}");
            }
        }
    }

    fn verdict(&self, case: u64) -> Result<(), Violation> {
        let steps = plan::draw(self, case);
        match run::try_plan(self, case, &steps, true) {
            Ok(()) => Ok(()),
            Err(broken) => Err(run::shrink(self, case, steps, broken)),
        }
    }
}
