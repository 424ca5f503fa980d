//! Coordination, both ends: who may talk to whom, where they are, and which relays there are.
//!
//! A node keeps a [`Session`] with a [`Coordinator`]. The coordinator carries no data: when it is away,
//! tunnels go on.

mod book;
mod coordinator;
mod outgoing;
mod policy;
mod session;

pub use coordinator::{
    Coordinator, CoordinatorCommand, CoordinatorConfig, CoordinatorCounters, CoordinatorEvent, Verdict, Who,
};
pub use policy::{Principal, code};
pub use session::{ControlTarget, Session, SessionCommand, SessionConfig, SessionEvent};

#[cfg(test)]
mod tests;
