//! The ports through which the network's servers ask the product: who is this, may they talk, and what
//! happened. `warren-server` fills them with its database, simulations with [`MemStore`].

use proto_core::coord::{CoordinatorEvent, Principal, Verdict, code};
use proto_core::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why somebody is not let in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// A code that programs may rely on, such as `UNAUTHORIZED`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
}

impl Denied {
    /// The token is unknown, was revoked or has expired.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self {
            code: code::UNAUTHORIZED.into(),
            message: "the server does not know this token, or it has expired".into(),
        }
    }
}

/// Who may do what.
pub trait Admission: Send + Sync + 'static {
    /// Who the bearer of this token is: an agent, or a person with a session.
    ///
    /// # Errors
    /// If nobody is, or the database does not answer; the latter with a code of its own.
    fn admit(&self, bearer: &str) -> impl Future<Output = Result<Principal, Denied>> + Send;

    /// May `principal`, with its node `from`, talk to `to`?
    fn authorize(
        &self,
        principal: &Principal,
        from: &NodeId,
        to: &NodeId,
    ) -> impl Future<Output = Verdict> + Send;
}

/// What is kept.
pub trait Store: Admission {
    /// Something happened at the coordinator: a node came, changed or left. Events come in order.
    fn record(&self, event: CoordinatorEvent) -> impl Future<Output = ()> + Send {
        let _ = event;
        async {}
    }
}

/// A store in memory: tokens and who may talk to whom. Clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct MemStore(Arc<Mutex<Mem>>);

#[derive(Debug, Default)]
struct Mem {
    tokens: BTreeMap<String, Principal>,
    /// User and agent.
    allowed: BTreeSet<(String, NodeId)>,
    online: BTreeSet<NodeId>,
}

impl MemStore {
    /// An empty store: nobody is let in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the bearer of `token` in as `principal`.
    pub fn add_token(&self, token: &str, principal: Principal) {
        self.lock().tokens.insert(token.into(), principal);
    }

    /// Lets it in no more.
    pub fn remove_token(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    /// Lets all nodes of `user` talk to `agent`.
    pub fn allow(&self, user: &str, agent: &NodeId) {
        self.lock().allowed.insert((user.into(), agent.clone()));
    }

    /// Whether a node is connected to the coordinator.
    #[must_use]
    pub fn is_online(&self, id: &NodeId) -> bool {
        self.lock().online.contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, Mem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission for MemStore {
    async fn admit(&self, bearer: &str) -> Result<Principal, Denied> {
        self.lock().tokens.get(bearer).cloned().ok_or_else(Denied::unauthorized)
    }

    async fn authorize(&self, principal: &Principal, _from: &NodeId, to: &NodeId) -> Verdict {
        let allowed = match principal {
            Principal::User { user } => self.lock().allowed.contains(&(user.clone(), to.clone())),
            Principal::Server { .. } => true,
            Principal::Agent { .. } => false,
        };
        if allowed {
            return Verdict::Allowed;
        }
        Verdict::Refused {
            code: code::FORBIDDEN.into(),
            message: format!("there is no workspace {to}, or you may not reach it"),
        }
    }
}

impl Store for MemStore {
    async fn record(&self, event: CoordinatorEvent) {
        match event {
            CoordinatorEvent::Online { id, .. } => {
                self.lock().online.insert(id);
            }
            CoordinatorEvent::Offline { id, .. } => {
                self.lock().online.remove(&id);
            }
            _ => {}
        }
    }
}
