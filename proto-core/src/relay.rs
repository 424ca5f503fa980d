//! Relays, both ends: DERP connections that carry sealed packets when no direct path does.
//!
//! A client keeps a [`RelayPool`] of [`RelayLink`]s, one a region. A server runs one [`RelayServer`], which
//! decides who is who; packets pass beside it through a [`ForwardTable`] and [`SendQueue`]s, called inline. A [`Lobby`]
//! holds those who have not logged in, an [`Admission`] decides who is let in, a [`Bucket`] how fast. The relays of one
//! region are joined by a [`RelayMesh`].

mod admission;
mod forward;
mod hub;
mod link;
mod lobby;
mod mesh;
mod pool;
mod queue;
mod rate;
mod server;
#[cfg(test)]
mod tests;

pub use crate::wire::derp::GoneReason;
pub use admission::{
    Admission, AdmissionCommand, AdmissionConfig, AdmissionCounters, AdmissionEvent, Admitted, Answer,
    Question, Refused,
};
pub use forward::{DropReason, ForwardCounters, ForwardTable, Forwarded, PacketKind, Sender, TableChange};
pub use hub::{HubCommand, HubEvent, RelayHub};
pub use link::{LinkCommand, LinkConfig, LinkEvent, RelayLink};
pub use lobby::{Entered, Lobby};
pub use mesh::{MeshChange, MeshCommand, MeshConfig, MeshEvent, RelayMesh};
pub use pool::{PoolCommand, PoolConfig, PoolEvent, RelayPool};
pub use queue::{Budget, SendQueue};
pub use rate::Bucket;
pub use server::{Agreement, RelayServer, RelayServerConfig, ServerCommand, ServerCounters, ServerEvent};
