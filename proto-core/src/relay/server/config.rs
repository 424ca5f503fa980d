//! What a relay server is made of.

use crate::key::{NodePublic, NodeSecret, SharedBox};
use crate::limits;
use crate::wire::derp::MeshKey;
use core::fmt;
use std::sync::Arc;

/// What a relay server is made of.
#[derive(Clone, Debug)]
pub struct RelayServerConfig {
    /// The relay's own key.
    pub secret: NodeSecret,
    /// Another way to what `secret` and a client's key agree on, where there is a faster one than ours.
    pub agreement: Option<Agreement>,
    /// Whether each key is asked about by [`super::ServerEvent::Ask`]; if not, everybody is let in.
    pub ask: bool,
    /// Clients at once; more are closed.
    pub connections_max: usize,
    /// Bytes of packets that may wait for all clients together ([`crate::relay::Budget`]).
    pub queues_max: usize,
    /// What the relays of the mesh prove themselves by; none if there is no mesh.
    pub mesh: Option<MeshKey>,
}

impl RelayServerConfig {
    /// A relay of this key that lets everybody in.
    #[must_use]
    pub const fn new(secret: NodeSecret) -> Self {
        Self {
            secret,
            agreement: None,
            ask: false,
            connections_max: limits::RELAY_CONNECTIONS_MAX,
            queues_max: limits::RELAY_QUEUES_MAX,
            mesh: None,
        }
    }

    /// The box between the relay's key and this one.
    #[must_use]
    pub fn shared(&self, peer: &NodePublic) -> SharedBox {
        match &self.agreement {
            Some(agreement) => SharedBox::of_agreed(&(agreement.0)(peer)),
            None => self.secret.shared(peer),
        }
    }
}

/// What one secret key and any other's public half agree on (X25519, RFC 7748), by another's code: the same bytes
/// for the same keys, always.
#[derive(Clone)]
pub struct Agreement(Arc<dyn Fn(&NodePublic) -> [u8; 32] + Send + Sync>);

impl Agreement {
    /// The agreement that this function works out.
    #[must_use]
    pub fn new(agree: impl Fn(&NodePublic) -> [u8; 32] + Send + Sync + 'static) -> Self {
        Self(Arc::new(agree))
    }
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agreement(..)")
    }
}
