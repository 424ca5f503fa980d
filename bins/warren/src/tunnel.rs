//! Reaching a workspace: this machine's node, a tunnel to the workspace's agent, and words for its path.

use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::plain;
use crate::session::{self, Identity};
use io_adapters::access_url;
use io_adapters::driver;
use io_adapters::handle::{NodeHandle, PathState, PeerHandle, TunnelError};
use io_adapters::pcap::Tap;
use proto_core::coord::code;
use proto_core::explain::Reason;
use proto_core::id::{NodeId, RegionId};
use proto_core::key::NodePublic;
use proto_core::node::{CODE_KEY_CHANGED, Chooser, NodeConfig, NodeEvent, NodeStatus, SessionState};
use proto_core::relay_map::RelayMap;
use proto_core::route::Via;
use proto_core::stream::Header;
use proto_core::wire::api::{Agent, AgentStatus, Workspace};
use proto_core::wire::control::NodeKind;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// How long the coordinator, and then the workspace, may take to answer before a person is told.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a relay's answer is waited for once everything else is known.
const RELAY_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether direct paths are forbidden, while one is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// This machine's node.
#[derive(Clone)]
pub(crate) struct Client {
    /// The node.
    pub node: NodeHandle,
    map: watch::Receiver<RelayMap>,
    relays: watch::Receiver<Relays>,
    /// This process is the node for as long as it has one.
    _identity: Arc<Identity>,
}

/// What has become of the relays that were dialled.
#[derive(Clone, Debug, Default)]
struct Relays {
    up: BTreeSet<RegionId>,
    /// Why those are not up that never were, or could not be dialled again.
    troubles: BTreeMap<RegionId, String>,
}

impl Relays {
    fn note(&mut self, event: &NodeEvent) {
        match event {
            NodeEvent::RelayUp { region, .. } => {
                self.troubles.remove(region);
                self.up.insert(*region);
            }
            // One that was up may just not be needed any more.
            NodeEvent::RelayDown { region, why } if !self.up.remove(region) => {
                self.troubles.insert(*region, plain::line(why).into_owned());
            }
            _ => {}
        }
    }
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
        map_ports: global.map_ports,
        pins: global.config.pins()?.into_iter().map(|(id, key)| (NodeId(id), key)).collect(),
        relay: global.relay.clone().map(|relay| relay.region),
        relay_map: None,
    };
    let node = driver::start_here_tapped(config, tap).await;
    let (known, map) = watch::channel(RelayMap::default());
    let (noted, relays) = watch::channel(Relays::default());
    let mut events = node.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if matches!(event, NodeEvent::RelayUp { .. } | NodeEvent::RelayDown { .. }) {
                noted.send_modify(|relays| relays.note(&event));
            }
            match event {
                NodeEvent::RelayMap(newer) => drop(known.send_replace(newer)),
                NodeEvent::RelayDown { region, why } => tracing::info!(%region, why, "lost a relay"),
                _ => {}
            }
        }
    });
    Ok(Client { node, map, relays, _identity: Arc::new(identity) })
}

impl Client {
    /// A region's short name.
    pub(crate) fn region(&self, id: RegionId) -> String {
        self.map
            .borrow()
            .regions
            .get(&id)
            .map_or_else(|| id.to_string(), |region| plain::line(&region.code).into_owned())
    }

    /// Why relays cannot be used: each with its region.
    pub(crate) fn relay_troubles(&self) -> BTreeMap<RegionId, String> {
        self.relays.borrow().troubles.clone()
    }

    /// Waits until it is known what becomes of a relay, for a moment.
    pub(crate) async fn relay_settled(&self, region: RegionId) {
        let mut relays = self.relays.clone();
        let known = |relays: &Relays| relays.up.contains(&region) || relays.troubles.contains_key(&region);
        let _ = tokio::time::timeout(RELAY_PATIENCE, relays.wait_for(known)).await;
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
        remember(global, &agent.id, peer.key())?;
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
        Ok(serde_json::from_value(plain::document(serde_json::from_slice(&bytes)?))?)
    }

    /// Waits until the path is direct, or says why it is not.
    pub(crate) async fn wait_direct(&self, patience: Duration) -> Result<PathState> {
        let waited = async {
            tokio::select! {
                biased;
                state = self.peer.wait_direct() => Ok(state),
                forbidden = self.direct_forbidden() => Err(forbidden),
            }
        };
        match tokio::time::timeout(patience, waited).await {
            Ok(Ok(Ok(state))) => Ok(state),
            Ok(Ok(Err(e))) => Err(self.gone(&e.to_string())),
            Ok(Err(why)) => {
                let sentence = format!("no path to \"{}\" can be direct", self.workspace.name);
                Err(CliError::new(Exit::Failed, "DIRECT_FORBIDDEN", sentence)
                    .fact("why", why)
                    .hint("leave out --direct to use the relay"))
            }
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

    /// Waits until it is known that a policy forbids direct paths, and says whose.
    async fn direct_forbidden(&self) -> String {
        loop {
            let status = self.client.node.status().await.ok();
            let peer = status.as_ref().and_then(|s| s.peers.iter().find(|peer| peer.id == *self.peer.id()));
            match peer.filter(|peer| peer.verdict.reason == Reason::Forbidden) {
                Some(peer) => return peer.verdict.to_string(),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Why packets go through a relay, if they do: one sentence with its evidence.
    pub(crate) async fn why_relayed(&self) -> Option<String> {
        if self.peer.path().is_direct() {
            return None;
        }
        let status = self.client.node.status().await.ok()?;
        why_relayed(&status, self.peer.id())
    }

    /// The error of a login that is good no more, if the server has said so.
    pub(crate) fn shut_out(&self) -> Option<CliError> {
        let SessionState::Refused { code, message } = self.client.node.session() else { return None };
        let refused = refusal(&code, format!("lost workspace \"{}\": {message}", self.workspace.name));
        Some(refused).filter(|refused| refused.exit == Exit::Forbidden)
    }

    /// The error of a tunnel that ended: as the coordinator has said why, else as the stream saw it.
    pub(crate) fn gone(&self, why: &str) -> CliError {
        let told = self.peer.path().gone;
        if let Some(error) = self.shut_out() {
            return error;
        }
        let hint = match &told {
            Some(_) => "`warren status` shows what there is",
            None => "is the agent still running? See `warren status`",
        };
        let why = plain::line(told.as_deref().unwrap_or(why));
        let sentence = format!("lost workspace \"{}\": {why}", self.workspace.name);
        CliError::new(Exit::Unreachable, "AGENT_GONE", sentence).hint(hint)
    }
}

/// Remembers whose key this is. Where nothing can be written the tunnel is as good, and the next one learns it anew.
fn remember(global: &Global, agent: &NodeId, key: NodePublic) -> Result {
    match global.config.pin(&agent.0, key) {
        Err(error) if error.code == session::WRITE => {
            static ONCE: Once = Once::new();
            let words = format!("{}: the key of this workspace is not remembered", error.message);
            ONCE.call_once(|| output::warning(session::WRITE, &words));
            Ok(())
        }
        done => done,
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
    let sentence = |why: &str| format!("can't reach workspace \"{name}\": {}", plain::line(why));
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
    CliError::new(exit, &plain::line(code), plain::line(&sentence)).hint(hint)
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
