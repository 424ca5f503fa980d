//! Machines without their types: a small door for each, so that the harness is compiled once.

use super::OwnedInput;
use crate::id::StreamId;
use crate::machine::{Input, Machine, Output, Transmit};
use crate::time::Time;
use core::any::Any;
use core::fmt;
use std::rc::Rc;

/// Some machine's command.
#[derive(Clone)]
pub(super) struct Erased(Rc<dyn AnyDebug>);

trait AnyDebug: Any + fmt::Debug {}

impl<T: Any + fmt::Debug> AnyDebug for T {}

impl Erased {
    pub(super) fn new(command: impl Any + fmt::Debug) -> Self {
        Self(Rc::new(command))
    }

    fn downcast<C: Any + Clone>(&self) -> C {
        let command: &dyn Any = &*self.0;
        command.downcast_ref::<C>().expect("a subject draws its own machine's commands").clone()
    }
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The same input for any machine.
pub(super) fn input<C: Any + fmt::Debug>(input: OwnedInput<C>) -> OwnedInput<Erased> {
    match input {
        OwnedInput::Datagram { link, from, bytes } => OwnedInput::Datagram { link, from, bytes },
        OwnedInput::StreamOpened { stream } => OwnedInput::StreamOpened { stream },
        OwnedInput::StreamBytes { stream, bytes } => OwnedInput::StreamBytes { stream, bytes },
        OwnedInput::StreamWritable { stream, credit } => OwnedInput::StreamWritable { stream, credit },
        OwnedInput::StreamClosed { stream, why } => OwnedInput::StreamClosed { stream, why },
        OwnedInput::Resolved { name, addresses } => OwnedInput::Resolved { name, addresses },
        OwnedInput::LinkUp { link, address } => OwnedInput::LinkUp { link, address },
        OwnedInput::LinkDown { link } => OwnedInput::LinkDown { link },
        OwnedInput::Unreachable { link, to } => OwnedInput::Unreachable { link, to },
        OwnedInput::Activity(activity) => OwnedInput::Activity(activity),
        OwnedInput::Command(command) => OwnedInput::Command(Erased::new(command)),
        OwnedInput::Deadline => OwnedInput::Deadline,
    }
}

impl OwnedInput<Erased> {
    /// The input that borrows from this one, for a machine with these commands.
    fn as_input<C: Any + Clone>(&self) -> Input<'_, C> {
        match self {
            Self::Datagram { link, from, bytes } => Input::Datagram { link: *link, from: *from, bytes },
            Self::StreamOpened { stream } => Input::StreamOpened { stream: *stream },
            Self::StreamBytes { stream, bytes } => Input::StreamBytes { stream: *stream, bytes },
            Self::StreamWritable { stream, credit } => {
                Input::StreamWritable { stream: *stream, credit: *credit }
            }
            Self::StreamClosed { stream, why } => Input::StreamClosed { stream: *stream, why },
            Self::Resolved { name, addresses } => Input::Resolved { name, addresses },
            Self::LinkUp { link, address } => Input::LinkUp { link: *link, address: *address },
            Self::LinkDown { link } => Input::LinkDown { link: *link },
            Self::Unreachable { link, to } => Input::Unreachable { link: *link, to: *to },
            Self::Activity(activity) => Input::Activity(*activity),
            Self::Command(command) => Input::Command(command.downcast()),
            Self::Deadline => Input::Deadline,
        }
    }
}

/// A machine.
pub(super) trait AnyMachine {
    /// [`Machine::handle`].
    fn handle(&mut self, input: &OwnedInput<Erased>, now: Time);
    /// [`Machine::poll`].
    fn poll(&mut self) -> Option<Box<dyn Said>>;
    /// [`Machine::deadline`].
    fn deadline(&self) -> Option<(Time, &'static str)>;
    /// The machine itself.
    fn as_any(&self) -> &dyn Any;
}

impl<M: Machine + Any> AnyMachine for M
where
    M::Command: Any + Clone,
    M::Event: Any + fmt::Debug,
{
    fn handle(&mut self, input: &OwnedInput<Erased>, now: Time) {
        Machine::handle(self, input.as_input(), now);
    }

    fn poll(&mut self) -> Option<Box<dyn Said>> {
        Machine::poll(self).map(|output| Box::new(output) as Box<dyn Said>)
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        Machine::deadline(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What a machine said.
pub(super) trait Said: fmt::Debug {
    /// What it asks of the world.
    fn wish(&self) -> Wish<'_>;
    /// The [`Output`] itself.
    fn as_any(&self) -> &dyn Any;
}

/// What the world may answer to.
pub(super) enum Wish<'a> {
    Transmit(&'a Transmit),
    Open(StreamId),
    Write(StreamId),
    Close(StreamId),
    Resolve(&'a str),
    Nothing,
}

impl<E: Any + fmt::Debug> Said for Output<E> {
    fn wish(&self) -> Wish<'_> {
        match self {
            Self::Transmit(sent) => Wish::Transmit(sent),
            Self::Open { stream, .. } => Wish::Open(*stream),
            Self::Write { stream, .. } => Wish::Write(*stream),
            Self::Close { stream } => Wish::Close(*stream),
            Self::Resolve { name } => Wish::Resolve(name),
            Self::Bind { .. } | Self::Unbind { .. } | Self::Event(_) => Wish::Nothing,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
