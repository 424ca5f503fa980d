//! Terminals that outlive their visitors: they live in the agent, so a reload, a change of network and even the server's
//! restart leave them as they are.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`session`] | one terminal: its program, who sees it, and what each has yet to be shown |
//! | [`picture`] | what it shows and remembers, and the bytes that make an empty one the same |
//! | [`scan`] | what the model of the screen does not know: modes, character sets, where sequences end |

mod picture;
mod scan;
mod session;

use super::program::environment::Place;
use super::program::silence::Attended;
use io_adapters::frames::Frames;
use io_adapters::handle::{PeerHandle, TunnelStream};
use proto_core::key::NodePublic;
use proto_core::stream::terminal::{
    Ask, Ended, Problem, Ready, SILENCE_MAX, Sessions, Told, code, fitted, is_name,
};
use session::{Session, Visit};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};

/// Terminals of one agent: a team's, each with several. Each costs a shell, and at most a megabyte here.
const TERMINALS_MAX: usize = 512;
/// Terminals whose program has ended and whose last screen is kept; the oldest make room.
const ENDED_MAX: usize = 32;

/// A visitor's wish for a terminal.
pub(crate) struct Wish {
    /// The session's name.
    pub(crate) session: String,
    /// The visitor's window.
    pub(crate) size: (u16, u16),
    /// Whether the visitor only watches.
    pub(crate) watch: bool,
    /// The workspace's name.
    pub(crate) workspace: String,
}

/// All terminals of this agent.
pub(crate) struct Terminals {
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    /// How long one stays without anybody who sees it.
    idle_limit: Duration,
}

impl Terminals {
    /// None yet.
    pub(crate) fn new(idle_limit: Duration) -> Self {
        Self { sessions: Mutex::default(), idle_limit }
    }

    /// Serves a visitor of a terminal until either leaves.
    pub(crate) async fn serve(
        &self,
        stream: TunnelStream,
        peer: &PeerHandle,
        agent: NodePublic,
        wish: Wish,
    ) -> io::Result<()> {
        let (from, mut to) = split(Attended::new(stream, SILENCE_MAX));
        let place = Place {
            workspace: wish.workspace.clone(),
            visitor: peer.key().inner_address(),
            agent: agent.inner_address(),
        };
        let entered = self.enter(&wish, place).and_then(|(session, created)| {
            let visit = Session::visit(&session, wish.watch, fitted(wish.size.0, wish.size.1))?;
            Ok((visit, created))
        });
        match entered {
            Ok((visit, created)) => {
                let ready = Ready { created, session: visit.session().told() };
                to.write_all(&Told::Ready(ready).encode()).await?;
                tokio::select! {
                    biased;
                    left = listen(Frames::new(from), &visit) => left?,
                    shown = show(&mut to, &visit) => shown?,
                }
            }
            Err(problem) => to.write_all(&Told::Problem(problem).encode()).await?,
        }
        to.shutdown().await
    }

    /// The session wished for, and whether it was made for this.
    fn enter(&self, wish: &Wish, place: Place) -> Result<(Arc<Session>, bool), Problem> {
        if !is_name(&wish.session) {
            return Err(problem(code::BAD_NAME, "a session's name is a UUID".to_owned()));
        }
        let mut sessions = self.lock();
        clear(&mut sessions);
        if let Some(session) = sessions.get(&wish.session) {
            return Ok((session.clone(), false));
        }
        if wish.watch {
            return Err(problem(code::NO_SESSION, "there is no such session to watch".to_owned()));
        }
        if sessions.values().filter(|session| !session.has_ended()).count() >= TERMINALS_MAX {
            let sentence = format!("this workspace has {TERMINALS_MAX} terminals already: end one first");
            return Err(problem(code::TOO_MANY, sentence));
        }
        let size = fitted(wish.size.0, wish.size.1);
        let session = Session::start(wish.session.clone(), size, place, self.idle_limit)
            .map_err(|error| problem(code::NOT_STARTED, format!("can't start a terminal: {error}")))?;
        sessions.insert(wish.session.clone(), session.clone());
        Ok((session, true))
    }

    /// Tells of all.
    pub(crate) async fn list(&self, mut stream: TunnelStream) -> io::Result<()> {
        let mut sessions: Vec<_> = {
            let mut sessions = self.lock();
            clear(&mut sessions);
            sessions.values().map(|session| session.told()).collect()
        };
        sessions.sort_by(|a, b| (a.started_ms, &a.id).cmp(&(b.started_ms, &b.id)));
        stream.write_all(&serde_json::to_vec(&Sessions { sessions })?).await?;
        stream.shutdown().await
    }

    /// Ends one.
    pub(crate) async fn end(&self, mut stream: TunnelStream, name: &str) -> io::Result<()> {
        let session = self.lock().remove(name);
        if let Some(session) = &session {
            session.end();
        }
        stream.write_all(&serde_json::to_vec(&Ended { found: session.is_some() })?).await?;
        stream.shutdown().await
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets those that ended long ago, and the oldest of too many.
fn clear(sessions: &mut BTreeMap<String, Arc<Session>>) {
    sessions.retain(|_, session| !session.is_over());
    let mut ended: Vec<_> = sessions
        .iter()
        .filter(|(_, session)| session.has_ended())
        .map(|(name, session)| (session.told().active_ms, name.clone()))
        .collect();
    ended.sort();
    let spare = ended.len().saturating_sub(ENDED_MAX);
    for (_, name) in &ended[..spare] {
        sessions.remove(name);
    }
}

fn problem(code: &str, message: String) -> Problem {
    Problem { code: code.to_owned(), message }
}

/// Milliseconds of unix time.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Does what a visitor asks, until they leave.
async fn listen(mut frames: Frames<ReadHalf<Attended<TunnelStream>>>, visit: &Visit) -> io::Result<()> {
    while let Some((kind, held)) = frames.next().await? {
        let ask = Ask::parse(kind, &held).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        match ask {
            Ask::Input(bytes) => visit.typed(bytes),
            Ask::Resize { columns, rows } => visit.resized(fitted(columns, rows)),
            Ask::Shown(more) => visit.shown(more),
            Ask::Alive | Ask::Unknown => {}
        }
    }
    Ok(())
}

/// Sends a visitor what there is to be seen, until the end.
async fn show(to: &mut WriteHalf<Attended<TunnelStream>>, visit: &Visit) -> io::Result<()> {
    while let Some(frame) = visit.next().await {
        to.write_all(&frame).await?;
    }
    Ok(())
}
