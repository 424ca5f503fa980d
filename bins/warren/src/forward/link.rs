//! The workspace, reached again when it was away: one attempt at a time for all that wait for it.

use super::carry::CONNECTION_CLOSED;
use super::totals::Totals;
use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::plain;
use crate::tunnel::{self, Tunnel};
use io_adapters::handle::{DatagramFlow, NodeHandle, PeerHandle, TunnelStream};
use io_adapters::streams::StreamError;
use proto_core::coord::code;
use proto_core::node::SessionState;
use proto_core::stream::udp::FlowTag;
use proto_core::stream::{CODE_REFUSED, CODE_UNKNOWN_SERVICE, Header, TcpAnswer};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a connection waits for a workspace that is away: an agent that is started anew is back by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// From one attempt to reach it to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the workspace may take to connect: its own limit, and a way there and back.
const ANSWER: Duration = Duration::from_secs(12);
/// How long goodbyes may take: the person who has pressed Ctrl-C is to have the prompt within a second.
const GOODBYE: Duration = Duration::from_millis(700);
/// Connections that end within this time of one another are told of in one line.
const TOGETHER: Duration = Duration::from_millis(100);

/// The workspace.
pub(crate) struct Link {
    global: Global,
    api: Api,
    /// As the person named it.
    name: String,
    /// This machine's node, by which every tunnel goes.
    node: NodeHandle,
    reach: Mutex<Reach>,
    /// What was carried.
    pub totals: Totals,
    /// Connections that ended with the tunnel and have not been told of.
    lost: AtomicUsize,
    flows: AtomicU32,
}

struct Reach {
    tunnel: Tunnel,
    /// The last attempt, if it failed.
    failed: Option<(Instant, CliError)>,
    /// The person has been told that the workspace is away.
    told: bool,
}

/// Why a stream could not be had.
enum Miss {
    /// Another attempt may go better.
    Away(String),
    /// Nobody answered: the server may know why.
    Silent,
    /// It never will.
    Never(String),
}

impl Link {
    /// By a tunnel that is opened now.
    ///
    /// # Errors
    /// If there is no such workspace, or it cannot be reached.
    pub(crate) async fn open(global: &Global, name: &str) -> Result<Arc<Self>> {
        let api = Api::logged_in(&global.config.session()?);
        let tunnel = tunnel::open(global, name).await?;
        Ok(Arc::new(Self {
            global: global.clone(),
            api,
            name: name.to_owned(),
            node: tunnel.client.node.clone(),
            reach: Mutex::new(Reach { tunnel, failed: None, told: false }),
            totals: Totals::default(),
            lost: AtomicUsize::new(0),
            flows: AtomicU32::new(0),
        }))
    }

    /// The workspace's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The tunnel as it is now.
    pub(crate) async fn with_tunnel<T>(&self, look: impl FnOnce(&Tunnel) -> T) -> T {
        look(&self.reach.lock().await.tunnel)
    }

    /// This machine's node.
    pub(crate) const fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Leaves the network. A person who has had enough waits for nobody: neither for an attempt to reach the workspace
    /// that is under way, nor for long until a server that is away has been told.
    pub(crate) async fn close(&self) {
        let _ = timeout(GOODBYE, self.node.shutdown()).await;
    }

    /// Waits until the server has ended this login, and with it all that there was: nothing can be forwarded any more.
    pub(crate) async fn shut_out(&self) -> CliError {
        let mut events = self.node.events();
        loop {
            if let SessionState::Refused { code, message } = self.node.session()
                && code == code::EXPELLED
            {
                return tunnel::refusal(&code, format!("lost workspace \"{}\": {message}", self.name));
            }
            if events.next().await.is_none() {
                return std::future::pending().await;
            }
        }
    }

    /// The workspace's agent, by a new tunnel if the one there was is over. All who ask at once share one attempt.
    pub(crate) async fn peer(&self) -> Result<PeerHandle> {
        let mut reach = self.reach.lock().await;
        let gone = reach.tunnel.peer.path().gone;
        let Some(why) = gone else { return Ok(reach.tunnel.peer.clone()) };
        if let Some((at, error)) = &reach.failed
            && at.elapsed() < AGAIN
        {
            return Err(error.clone());
        }
        if !std::mem::replace(&mut reach.told, true) {
            let (why, patience) = (plain::line(&why), PATIENCE.as_secs());
            let words =
                format!("lost workspace \"{}\": {why}; connections wait up to {patience}s for it", self.name);
            output::warning("WORKSPACE_LOST", &words);
        }
        let client = reach.tunnel.client.clone();
        let attempt = async {
            let workspace = self.api.workspace(&self.name).await?;
            client.open(&self.global, workspace).await
        };
        match attempt.await {
            Ok(tunnel) => {
                output::news("WORKSPACE_BACK", &format!("workspace \"{}\" is back", self.name));
                let peer = tunnel.peer.clone();
                *reach = Reach { tunnel, failed: None, told: false };
                Ok(peer)
            }
            Err(error) => {
                reach.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// A stream to a port of the workspace, or to a socket, once something there has answered.
    ///
    /// # Errors
    /// In words for a person.
    pub(crate) async fn connect(&self, header: &Header) -> std::result::Result<TunnelStream, String> {
        self.persist(header, true).await.map(|(_, stream)| stream)
    }

    /// A flow of UDP to this port of the workspace's own host.
    ///
    /// # Errors
    /// In words for a person.
    pub(crate) async fn flow(&self, port: u16) -> std::result::Result<(TunnelStream, DatagramFlow), String> {
        let flow = self.flows.fetch_add(1, Ordering::Relaxed);
        let header = Header::Udp { to: own_host(port), flow };
        let (peer, stream) = self.persist(&header, false).await?;
        Ok((stream, peer.datagrams(FlowTag { flow, opener: true })))
    }

    /// Tries until it is done, cannot be done, or patience is at an end.
    async fn persist(
        &self,
        header: &Header,
        answered: bool,
    ) -> std::result::Result<(PeerHandle, TunnelStream), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let why = match timeout_at(until, self.attempt(header, answered)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Miss::Never(why))) => return Err(why),
                Ok(Err(Miss::Away(why))) => Some(why),
                Ok(Err(Miss::Silent)) | Err(_) => None,
            };
            if Instant::now() + AGAIN >= until {
                return Err(match why {
                    Some(why) => why,
                    None => self.why_silent().await,
                });
            }
            tracing::debug!(?why, "the workspace is away; trying again");
            sleep(AGAIN).await;
        }
    }

    /// A stream that begins with this header, and that was answered if it is to be.
    async fn attempt(
        &self,
        header: &Header,
        answered: bool,
    ) -> std::result::Result<(PeerHandle, TunnelStream), Miss> {
        let peer = self.peer().await.map_err(Miss::by)?;
        let mut stream = peer.open(header).await.map_err(|error| Miss::of(&io::Error::other(error)))?;
        if !answered {
            return Ok((peer, stream));
        }
        // The header leaves with the first byte, and here the other side speaks first.
        stream.flush().await.map_err(|error| Miss::of(&error))?;
        let answer = timeout(ANSWER, stream.read_u8()).await.map_err(|_| Miss::Silent)?;
        match TcpAnswer::from_byte(answer.map_err(|error| Miss::of(&error))?) {
            TcpAnswer::Connected => Ok((peer, stream)),
            refused => Err(Miss::Never(refused.to_string())),
        }
    }

    /// Nobody answered in time: what the server knows of the agent. One question for all who ask at once.
    async fn why_silent(&self) -> String {
        let mut reach = self.reach.lock().await;
        if let Some((at, error)) = &reach.failed
            && at.elapsed() < AGAIN
        {
            return error.message.clone();
        }
        let asked = timeout(AGAIN * 4, self.api.workspace(&self.name)).await;
        let error = match asked {
            Ok(Ok(workspace)) => tunnel::agent(&workspace).err(),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let error = error.unwrap_or_else(|| {
            let sentence =
                format!("workspace \"{}\" did not answer within {}s", self.name, PATIENCE.as_secs());
            CliError::new(Exit::Unreachable, "AGENT_SILENT", sentence)
        });
        reach.failed = Some((Instant::now(), error.clone()));
        error.message
    }

    /// A connection ended because the tunnel did. Those that end together are told of in one line.
    pub(crate) fn lost(self: &Arc<Self>) {
        if self.lost.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let link = self.clone();
        tokio::spawn(async move {
            sleep(TOGETHER).await;
            let count = link.lost.swap(0, Ordering::AcqRel);
            let what =
                if count == 1 { "a connection was".to_owned() } else { format!("{count} connections were") };
            let gone = link.with_tunnel(|tunnel| tunnel.peer.path().gone).await;
            let why = gone.unwrap_or_else(|| "its agent was started anew".into());
            let words = format!("{what} closed: lost workspace \"{}\": {}", link.name, plain::line(&why));
            output::warning(CONNECTION_CLOSED, &words);
        });
    }
}

impl Miss {
    /// The meaning of an error of a stream.
    fn of(error: &io::Error) -> Self {
        match StreamError::of(error) {
            Some(StreamError::Reset(code)) if code == u64::from(CODE_UNKNOWN_SERVICE) => {
                Self::Never(TOO_OLD.into())
            }
            Some(StreamError::Reset(code)) if code == u64::from(CODE_REFUSED) => {
                Self::Never("the workspace's agent has too much to do".into())
            }
            _ => Self::Away(error.to_string()),
        }
    }

    /// The meaning of an error on the way to the workspace.
    fn by(error: CliError) -> Self {
        match error.exit {
            Exit::Forbidden | Exit::NotFound | Exit::Usage => Self::Never(error.message),
            _ => Self::Away(error.message),
        }
    }
}

/// What is said of an agent that does not know a service.
pub(crate) const TOO_OLD: &str =
    "the workspace's agent is too old for this (UNKNOWN_SERVICE): put a newer warren-agent there";

/// A port of the workspace's own host.
pub(crate) fn own_host(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}
