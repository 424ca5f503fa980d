//! The coordinator's view of the product: who may talk to whom, and who came and left.

use super::Presence;
use crate::auth::{TokenKind, token};
use crate::clock::Clock;
use crate::store::{Store, StoreError, TokenRow};
use io_adapters::store::{Admission, Denied};
use proto_core::coord::{CoordinatorEvent, Principal, Verdict, code};
use proto_core::id::NodeId;
use proto_core::key::NodePublic;
use proto_core::wire::api::TokenScope;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who the bearer of a token is for the coordinator; nobody if it is of a kind that opens no connection.
pub(crate) fn principal(row: &TokenRow) -> Option<Principal> {
    match (row.kind, &row.user, &row.agent_id) {
        _ if row.scope == TokenScope::Read => None,
        (TokenKind::Session | TokenKind::Api, Some(user), _) if user.disabled_at.is_none() => {
            Some(Principal::User { user: user.id.clone() })
        }
        (TokenKind::Agent, _, Some(id)) => Some(Principal::Agent { id: NodeId(id.clone()) }),
        _ => None,
    }
}

/// The ports of the coordinator, filled by the server's store.
pub(crate) struct Gate {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Agents alone: only they have a row to note it in. At most as many as there are.
    present: Mutex<BTreeMap<NodeId, Presence>>,
}

impl Gate {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock, present: Mutex::default() }
    }

    pub(super) fn presence(&self, id: &NodeId) -> Option<Presence> {
        self.lock().get(id).cloned()
    }

    pub(super) fn present(&self) -> Vec<NodeId> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Presence>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token of this hash, as it is now.
    pub(super) async fn token(&self, sha256: &[u8]) -> Result<Option<TokenRow>, StoreError> {
        let Ok(sha256) = <[u8; 32]>::try_from(sha256) else { return Ok(None) };
        self.store.token(sha256).await
    }

    /// Remembers the key over a restart, when relays ask before the node has come back.
    async fn note_key(&self, token_id: &str, key: &NodePublic) {
        match self.store.note_node_key(token_id, key.0, self.clock.now()).await {
            // The token was revoked meanwhile: then there is nothing to remember.
            Ok(()) | Err(StoreError::Missing) => {}
            Err(error) => tracing::error!("can't note a node's key: {error}"),
        }
    }

    async fn seen(&self, id: NodeId, build: Option<String>) {
        if let Err(error) = self.store.agents_seen(&[(id.0, build)], self.clock.now()).await {
            tracing::error!("can't note that an agent came or left: {error}");
        }
    }
}

impl Admission for Gate {
    async fn admit(&self, bearer: &str) -> Result<Principal, Denied> {
        let sha256 = token::sha256_of(bearer);
        match self.store.token(sha256).await {
            Ok(Some(row)) if token::same(&row.sha256, &sha256) && !row.has_ended(self.clock.now()) => {
                principal(&row).ok_or_else(Denied::unauthorized)
            }
            Ok(_) => Err(Denied::unauthorized()),
            Err(error) => {
                tracing::error!("can't look up a token: {error}");
                let message = "the server's database does not answer: try again".to_owned();
                Err(Denied { code: code::UNAVAILABLE.to_owned(), message })
            }
        }
    }

    async fn authorize(&self, principal: &Principal, _: &NodeId, to: &NodeId) -> Verdict {
        let refused = |code: &str, message: String| Verdict::Refused { code: code.to_owned(), message };
        let user = match principal {
            Principal::Server { .. } => return Verdict::Allowed,
            Principal::Agent { .. } => {
                return refused(code::FORBIDDEN, "an agent asks for no tunnels".to_owned());
            }
            Principal::User { user } => user,
        };
        match self.store.may_reach(user, &to.0).await {
            Ok(true) => Verdict::Allowed,
            // One sentence for both, so that nobody can find out what others have.
            Ok(false) => refused(code::FORBIDDEN, format!("there is no agent {to}, or you may not reach it")),
            Err(error) => {
                tracing::error!("can't look up who may reach an agent: {error}");
                refused(code::UNAVAILABLE, "the server's database does not answer: try again".to_owned())
            }
        }
    }
}

impl io_adapters::store::Store for Gate {
    async fn record(&self, event: CoordinatorEvent) {
        if let CoordinatorEvent::Online { node_key, credential: Some(token_id), .. } = &event {
            self.note_key(token_id, node_key).await;
        }
        match event {
            CoordinatorEvent::Online { id, principal: Principal::Agent { .. }, node_key, build, .. } => {
                let presence = Presence { node_key, build: build.clone(), home: None };
                self.lock().insert(id.clone(), presence);
                self.seen(id, Some(build)).await;
            }
            CoordinatorEvent::Changed { node } => {
                if let Some(presence) = self.lock().get_mut(&node.id) {
                    presence.home = (node.home.0 != 0).then_some(node.home);
                }
            }
            CoordinatorEvent::Offline { id, .. } => {
                let was = self.lock().remove(&id);
                if was.is_some() {
                    self.seen(id, None).await;
                }
            }
            _ => {}
        }
    }
}
