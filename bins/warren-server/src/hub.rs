//! The coordinator, the relay, and who is there.

mod gate;

use crate::clock::Clock;
use crate::store::{Store, TokenRow};
use gate::Gate;
pub(crate) use gate::principal;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use io_adapters::clock::Origin;
use io_adapters::control::ControlStream;
use io_adapters::control::hub::{self, CoordinatorHandle};
use io_adapters::relay_listener::{self, RelayHandle};
use proto_core::coord::{
    Coordinator, CoordinatorCommand, CoordinatorConfig, CoordinatorCounters, CoordinatorEvent, Principal,
    Who, code,
};
use proto_core::id::{NodeId, RegionId};
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::relay::{RelayServerConfig, ServerCommand};
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use proto_core::wire::control::NodeKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// What a hub is made of.
pub(crate) struct HubConfig {
    /// Who may do what, and where it is noted who came and left.
    pub(crate) store: Arc<dyn Store>,
    /// What time it is.
    pub(crate) clock: Clock,
    /// The relay's secret key; none if it is off.
    pub(crate) relay_key: Option<[u8; 32]>,
    /// What resume tokens are sealed with.
    pub(crate) resume_key: [u8; 32],
    /// Whether nodes may talk directly.
    pub(crate) direct: bool,
    /// The relays to use.
    pub(crate) relay_map: RelayMap,
    /// The home relay's region for nodes that choose none themselves.
    pub(crate) relay: Option<String>,
    /// Whether nodes ask relays for a WebSocket from the start.
    pub(crate) relay_websockets: bool,
    /// Whether people come by browser alone.
    pub(crate) browser_only: bool,
    /// Program and version.
    pub(crate) build: String,
    /// Where its randomness comes from.
    pub(crate) seed: Seed,
}

/// An agent that is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Presence {
    /// Its node key.
    pub(crate) node_key: NodePublic,
    /// Its program and version.
    pub(crate) build: String,
    /// The region of its home relay, once it has one.
    pub(crate) home: Option<RegionId>,
}

/// The coordinator and the relay of this server.
pub(crate) struct Hub {
    gate: Arc<Gate>,
    coordinator: CoordinatorHandle,
    relay: Option<RelayHandle>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Hub {
    /// Starts both, in tasks of their own.
    pub(crate) fn start(config: HubConfig) -> Self {
        let gate = Arc::new(Gate::new(config.store, config.clock));
        let origin = Origin::now();
        let coordination = CoordinatorConfig {
            direct: config.direct,
            relay_map: config.relay_map,
            relay: config.relay,
            relay_websockets: config.relay_websockets,
            browser_only: config.browser_only,
            build: config.build,
            resume_key: config.resume_key,
        };
        let seed = config.seed.fork("coordinator");
        let (coordinator, task) = hub::coordinator(coordination, Arc::clone(&gate), seed, origin);
        let mut tasks = vec![tokio::spawn(task.run())];
        let relay = config.relay_key.map(|key| {
            // Whoever knows the address may use the relay, as with Tailscale's: it carries nothing readable.
            let mut relay = RelayServerConfig::new(NodeSecret::from_bytes(key));
            relay.queues_max = relay_listener::queues_max();
            let (handle, task) = relay_listener::relay(relay, config.seed.fork("relay"), origin);
            tasks.push(tokio::spawn(task.run()));
            handle
        });
        Self { gate, coordinator, relay, tasks: Mutex::new(tasks) }
    }

    /// What is known of an agent, if it is connected.
    pub(crate) fn presence(&self, id: &NodeId) -> Option<Presence> {
        self.gate.presence(id)
    }

    /// The agents that are connected.
    pub(crate) fn present_agents(&self) -> Vec<NodeId> {
        self.gate.present()
    }

    /// The nodes that have a tunnel with this one; none once the coordinator has stopped.
    pub(crate) async fn peers(&self, id: NodeId) -> Option<BTreeSet<NodeId>> {
        self.coordinator.ask(move |coordinator| coordinator.peers(&id).cloned().collect()).await
    }

    /// How many nodes are connected, by kind, and what the coordinator has counted.
    pub(crate) async fn nodes(&self) -> Option<(BTreeMap<NodeKind, u64>, CoordinatorCounters)> {
        let count = |coordinator: &Coordinator| {
            let mut nodes = BTreeMap::new();
            coordinator.online().for_each(|(_, kind)| *nodes.entry(kind).or_default() += 1);
            (nodes, *coordinator.counters())
        };
        self.coordinator.ask(count).await
    }

    /// Who comes, goes and changes, from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<CoordinatorEvent> {
        self.coordinator.events()
    }

    /// Whether a node of this key is connected, or was so lately that it is expected back.
    pub(crate) async fn knows_key(&self, key: NodePublic) -> bool {
        self.coordinator.ask(move |coordinator| coordinator.knows_key(&key)).await.unwrap_or(false)
    }

    /// The relay; none if it is off.
    pub(crate) const fn relay(&self) -> Option<&RelayHandle> {
        self.relay.as_ref()
    }

    /// Ends an agent's session and tunnels: it was removed.
    pub(crate) async fn expel_agent(&self, id: NodeId, why: &str) {
        let (code, message) = (code::EXPELLED.to_owned(), why.to_owned());
        self.coordinator.command(CoordinatorCommand::Expel { who: Who::Node(id), code, message }).await;
    }

    /// Ends the sessions and tunnels that this token has opened: it is good no more.
    pub(crate) async fn expel_token(&self, token_id: &str, why: &str) {
        let (code, message) = (code::EXPELLED.to_owned(), why.to_owned());
        let who = Who::Credential(token_id.to_owned());
        self.coordinator.command(CoordinatorCommand::Expel { who, code, message }).await;
    }

    /// Ends the sessions and tunnels of a person.
    pub(crate) async fn expel_user(&self, user_id: &str, why: &str) {
        let (code, message) = (code::EXPELLED.to_owned(), why.to_owned());
        let who = Who::User(user_id.to_owned());
        self.coordinator.command(CoordinatorCommand::Expel { who, code, message }).await;
    }

    /// Ends the tunnels of a person to an agent; the rest of his goes on.
    pub(crate) async fn withdraw(&self, user_id: &str, agent: NodeId, why: &str) {
        let user = user_id.to_owned();
        let nodes =
            self.coordinator.ask(move |known| known.nodes_of(&user).cloned().collect::<Vec<_>>()).await;
        for a in nodes.unwrap_or_default() {
            let (b, reason) = (agent.clone(), why.to_owned());
            self.coordinator.command(CoordinatorCommand::Withdraw { a, b, reason }).await;
        }
    }

    /// Tells every node of the relays to use from now on.
    pub(crate) async fn set_relay_map(&self, map: RelayMap) {
        self.coordinator.command(CoordinatorCommand::SetRelayMap(map)).await;
    }

    /// Asks every node to come back after about this long; nobody new is let in.
    pub(crate) async fn drain(&self, retry_after: Duration) {
        self.coordinator.command(CoordinatorCommand::Drain { retry_after }).await;
        if let Some(relay) = &self.relay {
            relay.command(ServerCommand::Drain(retry_after)).await;
        }
    }

    /// Ends both, once what was noted is written.
    pub(crate) async fn stop(&self) {
        self.coordinator.stop().await;
        if let Some(relay) = &self.relay {
            relay.stop().await;
        }
        let tasks = core::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!("the coordinator or the relay failed: {error}");
            }
        }
    }

    /// Serves the session of the server's own node to its end.
    pub(crate) async fn serve_own(&self, stream: ControlStream<DuplexStream>, principal: Principal) {
        self.coordinator.serve(stream, principal, None).await;
    }

    /// Serves a node's coordination connection to its end.
    pub(crate) async fn serve_control(&self, upgraded: Upgraded, principal: Principal, token: &TokenRow) {
        // What came with the request itself is kept by hyper and read first.
        let stream = ControlStream::accepted(TokioIo::new(upgraded), Vec::new()).await;
        let serving = self.coordinator.serve(stream, principal, Some(token.id.clone()));
        // A token that was revoked between the question at the door and the admission is found here.
        let again = async {
            if let Ok(None) = self.gate.token(&token.sha256).await {
                self.expel_token(&token.id, "the token was revoked").await;
            }
        };
        tokio::join!(serving, again);
    }
}
