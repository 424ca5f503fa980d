//! One connection from the first byte of DERP to the end, of which the relay's task hears however it comes.

use super::ended::Ended;
use super::pace::Held;
use super::reader::Reader;
use super::turn::Turn;
use super::writer::write_all;
use super::{Arrival, Connection, Inner, Message, RelayHandle, lock};
use crate::transport::AnyStream;
use proto_core::id::StreamId;
use proto_core::limits::{RELAY_WORDS_RATE, RELAY_WRITE_TIMEOUT};
use proto_core::relay::{Bucket, ServerCommand};
use proto_core::time::Duration;
use proto_core::wire::derp::FRAME_HEADER_LEN;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep;

/// What it costs, in bytes of words, that a client's packets make its connection its key's active one: as much as a ping,
/// for the relay's task has as much to do. Two that fight over a key would otherwise say it with every packet.
const SPOKE: usize = FRAME_HEADER_LEN + 8;

impl RelayHandle {
    /// As [`RelayHandle::serve`], with the answer to the upgrade still to be sent: it leaves with the first frame.
    pub(super) async fn serve_after(&self, answer: Vec<u8>, io: AnyStream, who: Arrival) {
        let stream = StreamId(self.0.streams.fetch_add(1, Ordering::Relaxed));
        let connection = Arc::new(Connection::new(stream, who.from, &self.0.budget));
        if self.0.inbox.send(Message::Opened(connection.clone())).await.is_err() {
            return;
        }
        let served = Served::new(&self.0, &connection);
        let (read, write) = tokio::io::split(io);
        let mut reader = Reader::new(read, connection.clone(), who.place);
        let why = tokio::select! {
            biased;
            why = write_all(answer, write, &connection) => why,
            why = self.read_until_closed(&mut reader) => why,
        };
        lock(&connection.queue).abandon();
        self.absorb(&mut reader, &connection);
        self.0.endings.count(&why, reader.is_inside_frame());
        served.ended(why).await;
    }

    /// As [`RelayHandle::read`], but once the relay has closed the connection, nothing more that comes by it counts.
    /// What waits for it may still be written for a moment, however slowly it is taken.
    async fn read_until_closed(&self, reader: &mut Reader) -> Ended {
        let connection = reader.connection().clone();
        let ended = {
            let mut reading = std::pin::pin!(self.read(reader));
            poll_fn(|cx| {
                if connection.closing.load(Ordering::Acquire) {
                    return Poll::Ready(None);
                }
                reading.as_mut().poll(cx).map(Some)
            })
            .await
        };
        match ended {
            Some(why) => why,
            None => {
                sleep(RELAY_WRITE_TIMEOUT).await;
                Ended::Closed
            }
        }
    }

    /// Reads one connection to its end, and says why it ended.
    async fn read(&self, reader: &mut Reader) -> Ended {
        let connection = reader.connection().clone();
        let mut pace = self.0.rates.read().unwrap_or_else(PoisonError::into_inner).pace(self.0.clock.time());
        if let Some(pace) = &pace {
            reader.read_at_most(pace.piece());
        }
        let mut words = Bucket::new(RELAY_WORDS_RATE, self.0.clock.time());
        let mut turn = self.0.turns.begin();
        loop {
            let work = match reader.read(&self.0, &mut turn).await {
                Ok(Some(work)) => work,
                Ok(None) => return Ended::Left,
                Err(error) => return Ended::Broke(error),
            };
            let spoke = work.commands.iter().any(|command| matches!(command, ServerCommand::Spoke(_)));
            for command in work.commands {
                if self.0.inbox.send(Message::Command(command)).await.is_err() {
                    return Ended::Stopped;
                }
            }
            let said = work.frames.len() + if spoke { SPOKE } else { 0 };
            if !work.frames.is_empty() {
                let message = Message::Received { stream: connection.stream, bytes: work.frames };
                if self.0.inbox.send(message).await.is_err() {
                    return Ended::Stopped;
                }
            }
            if work.broken {
                // The server's task closes the connection.
                turn.end();
                return std::future::pending().await;
            }
            if work.login {
                // Nothing that follows means anything before we know whose it is.
                turn.end();
                connection.joined.notified().await;
                if let Some(key) = *lock(&connection.key) {
                    reader.joined(key, &self.0);
                }
                if connection.is_mesh() {
                    pace = None;
                    reader.read_at_most(usize::MAX);
                }
            }
            self.absorb(reader, &connection);
            if let Some(pace) = &mut pace {
                let wait = pace.charge(work.fresh, self.0.clock.time());
                hold(wait, &self.0.held, &mut turn).await;
            }
            if let Some(words) = &mut words {
                hold(words.charge(said, self.0.clock.time()), &self.0.hushed, &mut turn).await;
            }
            turn.took((work.bytes, work.count), &connection).await;
        }
    }

    fn absorb(&self, reader: &mut Reader, connection: &Connection) {
        let mut counted = core::mem::take(&mut lock(&connection.queue).counters);
        if let Some(counters) = reader.counters() {
            counted.absorb(counters);
        }
        self.0.count(&mut counted);
    }
}

/// Does not read a client for so long.
async fn hold(wait: Duration, held: &Held, turn: &mut Turn<'_>) {
    if !wait.is_zero() {
        turn.end();
        held.add(wait);
        sleep(wait).await;
    }
}

/// Says that a connection has ended: by a word, or, since whoever serves it may give it up at any moment (to make room
/// for others), when it is dropped. Without that the relay would count the connection as there for ever.
pub(super) struct Served<'a> {
    inner: &'a Arc<Inner>,
    connection: &'a Arc<Connection>,
    told: bool,
}

impl<'a> Served<'a> {
    /// For a connection that the relay's task has been told of.
    pub(super) const fn new(inner: &'a Arc<Inner>, connection: &'a Arc<Connection>) -> Self {
        Self { inner, connection, told: false }
    }

    /// It has ended.
    pub(super) async fn ended(mut self, why: Ended) {
        let _ = self.inner.inbox.send(Message::Closed { stream: self.connection.stream, why }).await;
        self.told = true;
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        self.inner.count(&mut self.connection.abandon());
        let message = Message::Closed { stream: self.connection.stream, why: Ended::GivenUp };
        if let Err(TrySendError::Full(message)) = self.inner.inbox.try_send(message)
            && let Ok(runtime) = Handle::try_current()
        {
            let inbox = self.inner.inbox.clone();
            runtime.spawn(async move { inbox.send(message).await });
        }
    }
}
