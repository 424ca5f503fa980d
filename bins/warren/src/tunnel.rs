//! Reaching a workspace: this machine's node, a tunnel to the workspace's agent, and words for its path.

use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::session::Identity;
use io_adapters::access_url;
use io_adapters::driver;
use io_adapters::handle::{NodeHandle, PathState, PeerHandle, TunnelError};
use io_adapters::pcap::Tap;
use proto_core::coord::code;
use proto_core::id::{NodeId, RegionId};
use proto_core::node::{CODE_KEY_CHANGED, Chooser, NodeConfig, NodeEvent, NodeStatus};
use proto_core::relay_map::RelayMap;
use proto_core::route::Via;
use proto_core::stream::Header;
use proto_core::wire::api::{Agent, AgentStatus, Workspace};
use proto_core::wire::control::NodeKind;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// How long the coordinator, and then the workspace, may take to answer before a person is told.
const ANSWER: Duration = Duration::from_secs(10);

/// This machine's node.
#[derive(Clone)]
pub(crate) struct Client {
    /// The node.
    pub node: NodeHandle,
    map: watch::Receiver<RelayMap>,
    /// This process is the node for as long as it has one.
    _identity: Arc<Identity>,
}

/// A tunnel to a workspace.
pub(crate) struct Tunnel {
    /// This machine's node.
    pub client: Client,
    /// The workspace's agent.
    pub peer: PeerHandle,
    /// The workspace.
    pub workspace: Workspace,
}

/// Opens a tunnel to the workspace of this name.
pub(crate) async fn open(global: &Global, name: &str) -> Result<Tunnel> {
    open_tapped(global, name, None).await
}

/// As [`open`]; what travels in the tunnel is captured.
pub(crate) async fn open_tapped(global: &Global, name: &str, tap: Option<Tap>) -> Result<Tunnel> {
    let session = global.config.session()?;
    let api = Api::logged_in(&session);
    // The node connects while the API is asked, so that neither waits for the other.
    let client = start_tapped(global, tap).await?;
    let workspace = api.workspace(name).await?;
    client.open(global, workspace).await
}

/// Starts this machine's node with the login's token.
pub(crate) async fn start(global: &Global) -> Result<Client> {
    start_tapped(global, None).await
}

async fn start_tapped(global: &Global, tap: Option<Tap>) -> Result<Client> {
    let session = global.config.session()?;
    let control = access_url::control_target(&session.url, &session.token).map_err(|e| {
        CliError::new(Exit::Failed, "BAD_URL", e.to_string())
            .hint("run `warren login URL` with the right address")
    })?;
    let identity = global.config.identity()?;
    let config = NodeConfig {
        node_key: identity.secret.clone(),
        kind: NodeKind::Client,
        control: Some(control),
        build: concat!("warren ", env!("CARGO_PKG_VERSION")).into(),
        direct_forbidden: global.direct_forbidden,
        guess_ports: global.guess_ports,
        pins: global.config.pins()?.into_iter().map(|(id, key)| (NodeId(id), key)).collect(),
        relay: global.relay.clone().map(|relay| relay.region),
        relay_map: None,
    };
    let node = driver::start_here_tapped(config, tap).await;
    let (known, map) = watch::channel(RelayMap::default());
    let mut events = node.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                NodeEvent::RelayMap(newer) => drop(known.send_replace(newer)),
                NodeEvent::RelayDown { region, why } => tracing::info!(%region, why, "lost a relay"),
                _ => {}
            }
        }
    });
    Ok(Client { node, map, _identity: Arc::new(identity) })
}

impl Client {
    /// A region's short name.
    pub(crate) fn region(&self, id: RegionId) -> String {
        self.map.borrow().regions.get(&id).map_or_else(|| id.to_string(), |region| region.code.clone())
    }

    /// The choice of the home relay, if somebody chose.
    pub(crate) async fn choice(&self, global: &Global) -> Option<Choice> {
        let status = self.node.status().await.ok()?;
        choice(global, &self.map.borrow(), &status)
    }

    /// Waits until a map comes that lacks the relay that the person chose; the error then.
    async fn relay_unknown(&self, global: &Global) -> CliError {
        let mut map = self.map.clone();
        loop {
            let error = chosen(global, &map.borrow_and_update()).err();
            match error {
                Some(error) => return error,
                None if map.changed().await.is_err() => return std::future::pending().await,
                None => {}
            }
        }
    }

    /// Opens a tunnel to a workspace.
    pub(crate) async fn open(&self, global: &Global, workspace: Workspace) -> Result<Tunnel> {
        let (name, agent) = (&workspace.name, agent(&workspace)?);
        let open = async {
            tokio::select! {
                biased;
                unknown = self.relay_unknown(global) => Err(unknown),
                answer = self.node.open_tunnel(agent.id.clone()) => Ok(answer),
            }
        };
        let answer = tokio::time::timeout(ANSWER, open).await;
        let peer = match answer {
            Ok(answer) => answer?.map_err(|e| refused(name, e))?,
            Err(_) => return Err(no_answer(name, &self.node, agent).await),
        };
        global.config.pin(&agent.id.0, peer.key())?;
        Ok(Tunnel { client: self.clone(), peer, workspace })
    }
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
        self.client.region(id)
    }

    /// Asks the agent for a document: a service that answers once and ends.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, header: &Header, longest: usize) -> io::Result<T> {
        let mut stream = self.peer.open(header).await.map_err(io::Error::other)?;
        // The header leaves with the first byte, and here the other side speaks.
        stream.flush().await?;
        let mut bytes = Vec::new();
        stream.take(longest as u64).read_to_end(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
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

    /// Waits for as long as an agent may be silent that the coordinator takes for connected, and for ever if it has
    /// given a sign of life in the tunnel by then: a machine that sleeps or a stopped process gives none.
    pub(crate) async fn silence(&self) -> CliError {
        tokio::time::sleep(ANSWER).await;
        let status = self.client.node.status().await.ok();
        let ours = |status: &NodeStatus| {
            status.peers.iter().any(|peer| peer.id == *self.peer.id() && peer.handshake.is_some())
        };
        if status.as_ref().is_some_and(ours) {
            return std::future::pending().await;
        }
        let seen = self.workspace.agents.first().and_then(|agent| agent.last_seen.as_deref());
        let sentence =
            format!("workspace \"{}\" has not answered for {}s", self.workspace.name, ANSWER.as_secs());
        CliError::new(Exit::Unreachable, "AGENT_SILENT", sentence)
            .fact("asked by", self.path())
            .fact("agent last seen by the server", seen.unwrap_or("never"))
            .hint("is its machine asleep, or the agent stopped? `warren status` shows when the server has lost it too")
    }

    /// Why packets go through a relay, if they do: one sentence with its evidence.
    pub(crate) async fn why_relayed(&self) -> Option<String> {
        if self.peer.path().is_direct() {
            return None;
        }
        let status = self.client.node.status().await.ok()?;
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

/// Checks that the map has the relay that the person chose, if they chose any. An empty map says nothing.
pub(crate) fn chosen(global: &Global, map: &RelayMap) -> Result {
    let Some(wish) = global.relay.as_ref().filter(|_| !map.regions.is_empty()) else { return Ok(()) };
    match map.region_called(&wish.region) {
        Ok(_) => Ok(()),
        Err(unknown) => Err(CliError::new(Exit::NotFound, "RELAY_UNKNOWN", unknown.to_string())
            .fact("chosen by", &wish.by)
            .hint("name one of these, or leave it out to use the nearest; `warren netcheck` shows them all")),
    }
}

/// The choice of the home relay in words, if somebody chose: which, who, and whether it is in use.
pub(crate) fn choice(global: &Global, map: &RelayMap, status: &NodeStatus) -> Option<Choice> {
    let choice = status.choice.as_ref()?;
    let by = match choice.by {
        Chooser::Owner => global.relay.as_ref().map_or("you", |wish| wish.by.as_str()),
        Chooser::Server => "the server, for all who choose none",
    };
    Some(Choice {
        region: choice.region.map_or_else(|| choice.said.clone(), |region| map.label(region)),
        by: by.to_owned(),
        known: choice.region.is_some(),
        in_use: choice.region.is_some() && choice.region == status.home,
    })
}

/// A choice of the home relay, for people and scripts.
#[derive(serde::Serialize)]
pub(crate) struct Choice {
    /// The region's code, or what was said if the map has none of that name.
    region: String,
    /// Who chose.
    by: String,
    /// Whether there is such a region.
    known: bool,
    /// Whether it is the home.
    in_use: bool,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, chosen by {}", self.region, self.by)?;
        match (self.known, self.in_use) {
            (false, _) => f.write_str("; there is no such relay: the nearest is used"),
            (true, false) => f.write_str("; it cannot be reached: the nearest is used"),
            (true, true) => Ok(()),
        }
    }
}

/// The agent of a workspace, if it is there.
pub(crate) fn agent(workspace: &Workspace) -> Result<&Agent> {
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
    let sentence = |why: &str| format!("can't reach workspace \"{name}\": {why}");
    match error {
        TunnelError::Refused { code, message } if code == CODE_KEY_CHANGED => {
            CliError::new(Exit::Forbidden, &code, sentence(&message)).hint(format!(
                "if you know why, because its agent was set up anew for example, `warren workspaces trust {name}` \
                 takes the new key"
            ))
        }
        TunnelError::Refused { code, message } | TunnelError::SessionRefused { code, message } => {
            refusal(&code, sentence(&message))
        }
        TunnelError::Stopped => CliError::new(Exit::Failed, "STOPPED", "this program's node has stopped"),
    }
}

/// The error of what the coordinator refuses: what the code means for scripts, and what to do.
pub(crate) fn refusal(code: &str, sentence: String) -> CliError {
    let (exit, hint) = match code {
        code::UNAVAILABLE | code::TOO_MANY | code::TOO_SLOW | code::DRAINING | code::LATE => {
            (Exit::Unreachable, "try again in a moment")
        }
        code::FORBIDDEN => (Exit::Forbidden, "`warren workspaces list` shows those that you may reach"),
        code::BROWSER_ONLY => {
            (Exit::Forbidden, "`warren open NAME` shows the workspace in the browser, with a terminal")
        }
        code::VERSION => (Exit::Failed, "`warren version` prints the versions of both"),
        code::UNAUTHORIZED | code::EXPELLED => (Exit::Forbidden, LOG_IN),
        code if code.starts_with("TOKEN_") => (Exit::Forbidden, LOG_IN),
        _ => (Exit::Failed, "`warren -vv` with the same command says what was sent and heard"),
    };
    CliError::new(exit, code, sentence).hint(hint)
}

const LOG_IN: &str = "log in again with `warren login URL`";

async fn no_answer(name: &str, node: &NodeHandle, agent: &Agent) -> CliError {
    let sentence =
        format!("can't reach workspace \"{name}\": the server has not answered for {}s", ANSWER.as_secs());
    let mut error = CliError::new(Exit::Unreachable, "COORDINATOR_SILENT", sentence);
    if let Ok(status) = node.status().await {
        error = error.fact("session", status.session);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::node::SessionState;

    #[test]
    fn sessions_are_told_in_words() {
        let why = "connection refused".to_owned();
        let (code, message) = ("TOO_MANY".to_owned(), "too many connections".to_owned());
        let states = [
            SessionState::Idle,
            SessionState::Connecting,
            SessionState::Down { why },
            SessionState::Draining { retry_after: Duration::from_secs(2) },
            SessionState::Refused { code, message },
            SessionState::Stopped,
        ];
        insta::assert_snapshot!(states.map(|state| state.to_string()).join("\n"));
    }

    #[test]
    fn refusals_say_what_to_do_and_end_as_they_mean() {
        let codes = [
            code::FORBIDDEN,
            code::UNAUTHORIZED,
            "TOKEN_EXPIRED",
            code::EXPELLED,
            code::VERSION,
            code::UNAVAILABLE,
            code::BROWSER_ONLY,
            code::TOO_MANY,
            code::DRAINING,
            code::BAD_MESSAGE,
        ];
        let said = codes.map(|code| {
            let error = refusal(code, String::new());
            format!("{code}: {} {}", error.exit as u8, error.hint.unwrap_or_default())
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
