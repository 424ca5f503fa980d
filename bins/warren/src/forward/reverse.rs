//! Ports and sockets of the workspace that lead here: its agent listens, and each connection comes by a stream.

use super::carry::CONNECTION_CLOSED;
use super::link::{Link, TOO_OLD, own_host};
use super::spec::{Forward, Place};
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::plain;
use io_adapters::dial;
use io_adapters::handle::{Incoming, NodeHandle, TunnelStream};
use io_adapters::splice::{Socket, splice};
use io_adapters::streams::StreamError;
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header, ListenAnswer, TcpAnswer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// How long the agent may take to listen.
const ANSWER: Duration = Duration::from_secs(10);
/// From one attempt to listen again to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// What the workspace listens at, for as long as the stream is held.
pub(crate) struct Reverse {
    wish: Forward,
    number: u32,
    control: TunnelStream,
    /// Where, as the agent said it.
    pub at: Vec<String>,
}

/// Why the workspace does not listen.
enum Refused {
    /// The tunnel broke: again is worth a try.
    Broken(String),
    /// The agent does not.
    Said(CliError),
}

impl Reverse {
    /// Has the workspace listen.
    ///
    /// # Errors
    /// If it cannot, with the reason.
    pub(crate) async fn listen(link: &Link, wish: &Forward, number: u32) -> Result<Self> {
        match Self::ask(link, wish, number).await {
            Ok(this) => Ok(this),
            Err(Refused::Said(error)) => Err(error),
            Err(Refused::Broken(why)) => {
                let sentence = format!("can't reach workspace \"{}\": {why}", link.name());
                Err(CliError::new(Exit::Unreachable, "AGENT_SILENT", sentence)
                    .hint("is its agent still running? See `warren status`"))
            }
        }
    }

    async fn ask(link: &Link, wish: &Forward, number: u32) -> std::result::Result<Self, Refused> {
        let header = Header::Listen { at: wish.listen_at(), listener: number };
        let asked = async {
            let peer = link.peer().await.map_err(|error| Refused::Broken(error.message))?;
            let mut control = peer.open(&header).await.map_err(|error| Refused::Broken(error.to_string()))?;
            control.flush().await.map_err(broken)?;
            let answer = answer(&mut control).await.map_err(broken)?;
            Ok((control, answer))
        };
        let silent = || Refused::Broken("its agent did not answer".into());
        let (control, answer) = timeout(ANSWER, asked).await.map_err(|_| silent())??;
        let ListenAnswer::Listening { at, port } = answer else {
            return Err(Refused::Said(refusal(link.name(), wish, answer)));
        };
        let at = at.iter().map(|place| plain::line(place).into_owned()).collect();
        // Any port that was free is to be the same one again.
        let from = if port == 0 { wish.from.clone() } else { Place::Port(port) };
        Ok(Self { wish: Forward { from, ..wish.clone() }, number, control, at })
    }

    /// Keeps the workspace listening, whatever becomes of its agent.
    pub(crate) async fn hold(mut self, link: Arc<Link>) {
        loop {
            let mut said = [0; 64];
            while !matches!(self.control.read(&mut said).await, Ok(0) | Err(_)) {}
            let mut told = None;
            self = loop {
                match Self::ask(&link, &self.wish, self.number).await {
                    Ok(again) => break again,
                    Err(Refused::Broken(why)) => tracing::debug!(why, "the workspace does not listen yet"),
                    Err(Refused::Said(error)) if told.as_ref() != Some(&error.message) => {
                        output::warning(&error.code, &format!("{}; trying again", error.message));
                        told = Some(error.message);
                    }
                    Err(Refused::Said(_)) => {}
                }
                sleep(AGAIN).await;
            };
            let words = format!("the workspace listens again at {}", self.at.join(" and "));
            output::news("LISTENS_AGAIN", &words);
        }
    }
}

fn broken(error: io::Error) -> Refused {
    match StreamError::of(&error) {
        Some(StreamError::Reset(code)) if code == u64::from(CODE_UNKNOWN_SERVICE) => Refused::Said(
            CliError::new(
                Exit::Failed,
                "UNKNOWN_SERVICE",
                format!("can't listen in the workspace: {TOO_OLD}"),
            )
            .hint("`warren workspaces list` shows the agent's version"),
        ),
        _ => Refused::Broken(error.to_string()),
    }
}

async fn answer(stream: &mut TunnelStream) -> io::Result<ListenAnswer> {
    let mut read = Vec::new();
    loop {
        let decoded = ListenAnswer::decode(&read);
        if let Some((answer, _)) = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
            return Ok(answer);
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn refusal(workspace: &str, wish: &Forward, answer: ListenAnswer) -> CliError {
    let (code, why, hint) = match answer {
        ListenAnswer::InUse => (
            "PORT_IN_USE",
            "another program listens there".to_owned(),
            format!(
                "stop that program, or take another: --reverse 0:{} takes any free port and prints it",
                wish.to
            ),
        ),
        ListenAnswer::Forbidden => (
            "PORT_FORBIDDEN",
            "its agent may not".to_owned(),
            "ports below 1024 are for root: take a higher one".to_owned(),
        ),
        ListenAnswer::Failed { why } => {
            let why = plain::line(&why).into_owned();
            ("PORT_UNUSABLE", why, "`warren port-forward --help` shows what can be given".to_owned())
        }
        ListenAnswer::Listening { .. } | ListenAnswer::Unknown => (
            "PORT_UNUSABLE",
            "its agent's answer makes no sense here".to_owned(),
            "`warren version` prints the versions".to_owned(),
        ),
    };
    let sentence = format!("can't listen on {} of workspace \"{workspace}\": {why}", wish.from.words());
    CliError::new(Exit::Failed, code, sentence).hint(hint)
}

/// Takes what comes from the workspace, for ever: `targets` are where each listener's connections go, by its number.
pub(crate) async fn serve(link: Arc<Link>, node: NodeHandle, targets: Vec<Forward>) {
    while let Some(Incoming { peer, header, stream }) = node.accept().await {
        let expected = link.with_tunnel(|tunnel| tunnel.peer.id() == peer.id()).await;
        let target = match header {
            Header::Reverse { listener } if expected => {
                usize::try_from(listener).ok().and_then(|n| targets.get(n)).cloned()
            }
            _ => None,
        };
        match target {
            Some(target) => _ = tokio::spawn(carry(link.clone(), stream, target)),
            None => stream.reset(CODE_UNKNOWN_SERVICE),
        }
    }
}

async fn carry(link: Arc<Link>, stream: TunnelStream, target: Forward) {
    let _open = link.totals.connection();
    match &target.to {
        Place::Port(port) => join(&link, stream, dial::tcp(own_host(*port)).await, &target).await,
        Place::Path(path) => join(&link, stream, dial::unix(Path::new(path)).await, &target).await,
    }
}

async fn join(
    link: &Arc<Link>,
    mut stream: TunnelStream,
    dialled: std::result::Result<impl Socket, TcpAnswer>,
    target: &Forward,
) {
    let answer = dialled.as_ref().err().copied().unwrap_or(TcpAnswer::Connected);
    if stream.write_u8(answer as u8).await.is_err() {
        return;
    }
    match dialled {
        Ok(socket) => match splice(&socket, stream, &link.totals.traffic).await {
            Ok(()) => {}
            Err(broken) if broken.is_lost() => link.lost(),
            Err(broken) => tracing::debug!(to = %target.to, error = %broken, "a connection ended early"),
        },
        Err(_) => {
            let _ = stream.shutdown().await;
            let why = match answer {
                TcpAnswer::Refused => "nothing listens there",
                TcpAnswer::Missing => "there is no such socket",
                TcpAnswer::Forbidden => "this user may not use it",
                TcpAnswer::TimedOut => "nobody answered there",
                _ => "it could not be reached",
            };
            let words =
                format!("a connection from the workspace to {} here was closed: {why}", target.to.words());
            output::warning(CONNECTION_CLOSED, &words);
        }
    }
}
