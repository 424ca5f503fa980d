//! Reaching a workspace: this machine's node, a tunnel to the workspace's agent, and words for its path.

use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use io_adapters::access_url;
use io_adapters::driver;
use io_adapters::handle::{NodeHandle, PathState, PeerHandle, TunnelError};
use proto_core::id::{NodeId, RegionId};
use proto_core::node::{NodeConfig, NodeEvent, NodeStatus};
use proto_core::relay_map::RelayMap;
use proto_core::route::Via;
use proto_core::wire::api::{Agent, AgentStatus, Workspace};
use proto_core::wire::control::NodeKind;
use std::time::Duration;

/// How long the coordinator may take to answer before a person is told.
const ANSWER: Duration = Duration::from_secs(10);

/// A tunnel to a workspace.
pub(crate) struct Tunnel {
    /// This machine's node.
    pub node: NodeHandle,
    /// The workspace's agent.
    pub peer: PeerHandle,
    /// The workspace.
    pub workspace: Workspace,
    map: RelayMap,
}

/// Opens a tunnel to the workspace of this name.
pub(crate) async fn open(global: &Global, name: &str) -> Result<Tunnel> {
    let session = global.config.session()?;
    let api = Api::logged_in(&session);
    // The node connects while the API is asked, so that neither waits for the other.
    let node = start(global).await?;
    let mut events = node.events();
    let workspace = api.workspace(name).await?;
    let agent = agent(&workspace)?;
    let answer = tokio::time::timeout(ANSWER, node.open_tunnel(agent.id.clone())).await;
    let peer = match answer {
        Ok(answer) => answer.map_err(|e| refused(name, e))?,
        Err(_) => return Err(no_answer(name, &node, agent).await),
    };
    global.config.pin(&agent.id.0, peer.key())?;
    let mut map = RelayMap::default();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        if let NodeEvent::RelayMap(newer) = event {
            map = newer;
        }
    }
    Ok(Tunnel { node, peer, workspace, map })
}

/// Starts this machine's node with the login's token.
pub(crate) async fn start(global: &Global) -> Result<NodeHandle> {
    let session = global.config.session()?;
    let control = access_url::control_target(&session.url, &session.token).map_err(|e| {
        CliError::new(Exit::Failed, "BAD_URL", e.to_string())
            .hint("run `warren login URL` with the right address")
    })?;
    let config = NodeConfig {
        node_key: global.config.node_secret()?,
        kind: NodeKind::Client,
        control: Some(control),
        build: concat!("warren ", env!("CARGO_PKG_VERSION")).into(),
        direct_forbidden: global.direct_forbidden,
        pins: global.config.pins().into_iter().map(|(id, key)| (NodeId(id), key)).collect(),
        relay_map: None,
    };
    Ok(driver::start_here(config).await)
}

impl Tunnel {
    /// The path in words: `direct 203.0.113.9:41641` or `relay fra`.
    pub(crate) fn path(&self) -> String {
        self.path_of(&self.peer.path())
    }

    /// A path state in words.
    pub(crate) fn path_of(&self, state: &PathState) -> String {
        state.via().map_or_else(|| "none".into(), |via| self.via(via))
    }

    /// One way in words.
    pub(crate) fn via(&self, via: Via) -> String {
        match via {
            Via::Direct { addr, .. } => format!("direct {addr}"),
            Via::Relay(region) => format!("relay {}", self.region(region)),
        }
    }

    /// A region's short name.
    pub(crate) fn region(&self, id: RegionId) -> String {
        self.map.regions.get(&id).map_or_else(|| id.to_string(), |region| region.code.clone())
    }

    /// Waits until the path is direct, or says why it is not.
    pub(crate) async fn wait_direct(&self, patience: Duration) -> Result<PathState> {
        match tokio::time::timeout(patience, self.peer.wait_direct()).await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(e)) => Err(self.gone(&e.to_string())),
            Err(_) => Err(CliError::new(
                Exit::Failed,
                "NOT_DIRECT",
                format!(
                    "no direct path to \"{}\" after {}s: data goes by {}",
                    self.workspace.name,
                    patience.as_secs(),
                    self.path()
                ),
            )
            .fact("why", self.why_relayed().await.unwrap_or_else(|| "not known yet".into()))
            .hint("leave out --direct to use the relay, or see `warren netcheck`")),
        }
    }

    /// Why packets go through a relay, if they do: one sentence with its evidence.
    pub(crate) async fn why_relayed(&self) -> Option<String> {
        if self.peer.path().is_direct() {
            return None;
        }
        let status = self.node.status().await.ok()?;
        why_relayed(&status, self.peer.id())
    }

    /// The error of a tunnel that ended: as the coordinator has said why, else as the stream saw it.
    pub(crate) fn gone(&self, why: &str) -> CliError {
        let told = self.peer.path().gone;
        let hint = match &told {
            Some(_) => "`warren status` shows what there is",
            None => "is the agent still running? See `warren status`",
        };
        let why = told.as_deref().unwrap_or(why);
        let sentence = format!("lost workspace \"{}\": {why}", self.workspace.name);
        CliError::new(Exit::Unreachable, "AGENT_GONE", sentence).hint(hint)
    }
}

fn agent(workspace: &Workspace) -> Result<&Agent> {
    let name = &workspace.name;
    let Some(agent) = workspace.agents.first() else {
        return Err(CliError::new(Exit::NotFound, "NO_AGENT", format!("workspace \"{name}\" has no agent")));
    };
    if agent.status != AgentStatus::Connected {
        return Err(CliError::new(
            Exit::Unreachable,
            "AGENT_OFFLINE",
            format!("can't reach workspace \"{name}\": its agent is not connected"),
        )
        .fact("last seen", agent.last_seen.as_deref().unwrap_or("never"))
        .hint("start the agent in the workspace; the command was printed by `warren workspaces create`"));
    }
    Ok(agent)
}

fn refused(name: &str, error: TunnelError) -> CliError {
    match error {
        TunnelError::Refused { code, message } | TunnelError::SessionRefused { code, message } => {
            CliError::new(Exit::Forbidden, &code, format!("can't reach workspace \"{name}\": {message}"))
        }
        TunnelError::Stopped => CliError::new(Exit::Failed, "STOPPED", "this program's node has stopped"),
    }
}

async fn no_answer(name: &str, node: &NodeHandle, agent: &Agent) -> CliError {
    let sentence =
        format!("can't reach workspace \"{name}\": the server has not answered for {}s", ANSWER.as_secs());
    let mut error = CliError::new(Exit::Unreachable, "COORDINATOR_SILENT", sentence);
    if let Ok(status) = node.status().await {
        error = error.fact("session", format!("{:?}", status.session));
    }
    error.fact("agent last seen", agent.last_seen.as_deref().unwrap_or("never")).hint("try `warren status`")
}

/// The verdict on the path to one peer.
fn why_relayed(status: &NodeStatus, id: &NodeId) -> Option<String> {
    status.peers.iter().find(|peer| peer.id == *id).map(|peer| peer.verdict.to_string())
}

/// The first line of a speed test: the round trip and the path that carries the data.
pub(crate) fn headline(latency_micros: u64, path: &str) -> String {
    let by = if path.starts_with("direct") { path.to_string() } else { format!("via {path}") };
    format!("{} {by}", output::latency(latency_micros))
}
