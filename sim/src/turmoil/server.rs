//! What runs on the public hosts of a lab: coordinator, relay and STUN, as their production adapters are, and what
//! a scenario orders of them.

use super::program::AGENT;
use super::socket::LabNetwork;
use super::wire::Wire;
use crate::world::server::{HTTP_PORT, STUN_PORT};
use io_adapters::clock::Origin;
use io_adapters::control::hub::{self, CoordinatorHandle};
use io_adapters::relay_listener::front::{Control, Front, Program};
use io_adapters::relay_listener::{self, RelayHandle, RelayStatus};
use io_adapters::relay_stream::Dialer;
use io_adapters::relay_stream::proxy::Proxies;
use io_adapters::relay_stream::tls::Trust;
use io_adapters::store::MemStore;
use io_adapters::stun_listener::{StunCounters, StunServer};
use io_adapters::transport::Network;
use proto_core::coord::{CoordinatorCommand, CoordinatorConfig, Principal};
use proto_core::id::NodeId;
use proto_core::key::NodeSecret;
use proto_core::relay::{MeshConfig, RelayServerConfig, ServerCommand};
use proto_core::relay_map::{RelayMap, RelayNode};
use proto_core::seed::Seed;
use proto_core::time::Duration;
use proto_core::wire::derp::MeshKey;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The coordinator's path.
pub const CONTROL_PATH: &str = "/api/v1/coordinate";
/// How often the relay's counters are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What the relays of a mesh prove themselves by.
const MESH_KEY: MeshKey = MeshKey([0x5a; 32]);
/// When clients of a relay that is about to stop may come back.
const COME_BACK: Duration = Duration::from_secs(1);

/// What a scenario wants of a server's process.
#[derive(Clone, Default)]
pub struct Orders {
    /// The relay map that the coordinator hands out; none on a host without a coordinator.
    pub map: Option<RelayMap>,
    /// The relay lets nobody in, and asks its clients to leave.
    pub draining: bool,
}

/// A server's process.
pub struct ServerPlan {
    /// Its network.
    pub network: LabNetwork,
    /// Everything random comes from it.
    pub seed: Seed,
    /// What is wanted of it.
    pub orders: watch::Receiver<Orders>,
    /// The relays of its mesh, itself among them; empty if there is none.
    pub mesh: Vec<RelayNode>,
    /// Where its relay's counters are told, and by which number.
    pub wire: (Wire, usize),
}

/// Runs a server.
///
/// # Errors
/// If a port cannot be bound, or a part of it ended.
pub async fn run(plan: ServerPlan) -> turmoil::Result {
    let ServerPlan { network, seed, orders, mesh, wire } = plan;
    let clock = Origin::now();
    let secret = NodeSecret::generate(&seed.fork("relay"));
    let mut config = RelayServerConfig::new(secret.clone());
    config.mesh = (!mesh.is_empty()).then_some(MESH_KEY);
    let (relay, mut relay_task) = relay_listener::relay(config, seed.fork("hub"), clock);
    if !mesh.is_empty() {
        let streams = relay_listener::MESH_STREAMS;
        let config = MeshConfig { identity: secret, key: MESH_KEY, relays: mesh, streams };
        let (trust, proxies) = (Trust::only(Vec::new()), Proxies::default());
        let dialer = Dialer { network: network.clone(), trust, proxies };
        relay_task = relay_task.joined_to(config, dialer, &seed.fork("mesh"));
    }
    let mut tasks: JoinSet<()> = JoinSet::new();
    tasks.spawn(relay_task.run());
    let map = orders.borrow().map.clone();
    let mut coordinator = None;
    if let Some(relay_map) = map {
        let config = CoordinatorConfig {
            direct: true,
            relay_map,
            relay: None,
            relay_websockets: false,
            browser_only: false,
            build: "sim".into(),
            resume_key: [7; 32],
        };
        let store = store();
        let (handle, task) = hub::coordinator(config, store.clone(), seed.fork("coordinator"), clock);
        tasks.spawn(task.run());
        coordinator = Some((handle, store));
    }
    let control = coordinator.clone().map(|(coordinator, store)| {
        // The path is the production server's.
        Control { path: CONTROL_PATH.into(), coordinator, store }
    });
    let draining = watch::Sender::new(false);
    let program = Program {
        build: "sim",
        draining: draining.subscribe(),
        stun_down: watch::Sender::new(None).subscribe(),
    };
    let front = Arc::new(Front::new(Some(relay.clone()), control).of_program(program));
    let listener = network.listen_tcp((Ipv4Addr::UNSPECIFIED, HTTP_PORT).into()).await?;
    tasks.spawn(async move { front.listen(listener, None).await });
    let stun = StunServer::bind_on(network.clone(), (network.address(), STUN_PORT).into(), None).await?;
    tasks.spawn(async move { stun.serve(&StunCounters::default(), watch::Sender::new(None)).await });
    tasks.spawn(look(relay.clone(), wire.clone()));
    tasks.spawn(obey(orders, (relay, draining), coordinator.map(|(handle, _)| handle), wire.0));
    match tasks.join_next().await {
        Some(Err(e)) => Err(e.into()),
        _ => Err("a part of the server ended".into()),
    }
}

fn store() -> Arc<MemStore> {
    let store = Arc::new(MemStore::new());
    let agent = NodeId(AGENT.into());
    store.add_token("agent-token", Principal::Agent { id: agent.clone() });
    store.add_token("user-token", Principal::User { user: "anna".into() });
    store.allow("anna", &agent);
    store
}

/// Tells what the relay has done, again and again: its process may end at any moment.
async fn look(relay: RelayHandle, (wire, number): (Wire, usize)) {
    let mut before = RelayStatus::default();
    while let Some(status) = relay.status().await {
        wire.count(|c| {
            c.carried[number] += status.forwarded.packets_out - before.forwarded.packets_out;
            c.sent_on += status.forwarded.mesh_out - before.forwarded.mesh_out;
            c.duplicates += status.server.duplicates - before.server.duplicates;
            c.connected[number] = status.connections as u64;
        });
        before = status;
        sleep(LOOK).await;
    }
}

/// Does what the scenario orders.
async fn obey(
    mut orders: watch::Receiver<Orders>,
    (relay, draining): (RelayHandle, watch::Sender<bool>),
    coordinator: Option<CoordinatorHandle>,
    wire: Wire,
) {
    let mut done = orders.borrow_and_update().clone();
    while orders.changed().await.is_ok() {
        let wanted = orders.borrow_and_update().clone();
        if let (true, Some(map), Some(coordinator)) = (wanted.map != done.map, &wanted.map, &coordinator) {
            coordinator.command(CoordinatorCommand::SetRelayMap(map.clone())).await;
        }
        if wanted.draining && !done.draining {
            draining.send_replace(true);
            let told = relay.status().await.map_or(0, |status| status.connections as u64);
            wire.count(|c| c.drained += told);
            relay.command(ServerCommand::Drain(COME_BACK)).await;
        }
        done = wanted;
    }
    // Nobody orders anything any more.
    std::future::pending().await
}
