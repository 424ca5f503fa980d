//! The coordinator's server: one task owns the machine, each connection has a task of its own.

use super::ControlStream;
use super::records::{Recorder, Records, records};
use crate::clock::Origin;
use crate::store::{Denied, Store};
use proto_core::coord::{Coordinator, CoordinatorCommand, CoordinatorConfig, CoordinatorEvent, Principal};
use proto_core::id::StreamId;
use proto_core::machine::{Input, Machine, Output};
use proto_core::seed::Seed;
use proto_core::time::Duration;
use proto_core::wire::control::ToNode;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// What may wait for the coordinator before connections are read more slowly.
const INBOX: usize = 1_024;
/// Bytes that may wait in front of one node's socket; beyond, the machine keeps them, merges and bounds.
const CREDIT: usize = 256 * 1024;
/// Questions to the store that may be open at once; further ones wait their turn.
const QUESTIONS_MAX: usize = 256;
/// What a reader of [`CoordinatorHandle::events`] may leave unread.
const EVENTS: usize = 1_024;
/// How long a node that was refused has to hear why.
const FAREWELL: Duration = Duration::from_secs(2);

type Query = Box<dyn FnOnce(&Coordinator) + Send>;

/// What comes to the coordinator's task.
enum Message {
    Admit { stream: StreamId, who: (Principal, Option<String>), out: Outgoing },
    Received { stream: StreamId, bytes: Vec<u8> },
    Sent { stream: StreamId },
    Closed { stream: StreamId, why: String, broken: bool },
    Command(CoordinatorCommand),
    Query(Query),
    Stop,
}

/// The way to one connection's task.
#[derive(Clone)]
struct Outgoing {
    messages: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes in it, so that the machine's credit bounds it.
    waiting: Arc<AtomicUsize>,
}

/// A running coordinator. Clones are the same one.
#[derive(Clone)]
pub struct CoordinatorHandle {
    inbox: mpsc::Sender<Message>,
    events: broadcast::Sender<CoordinatorEvent>,
    streams: Arc<AtomicU64>,
}

/// The coordinator itself: a future to be spawned, and joined so that its panics are seen.
pub struct CoordinatorTask<S> {
    machine: Coordinator,
    store: Arc<S>,
    clock: Origin,
    inbox: mpsc::Receiver<Message>,
    answers: mpsc::Sender<Message>,
    events: broadcast::Sender<CoordinatorEvent>,
    connections: BTreeMap<StreamId, Outgoing>,
    questions: JoinSet<()>,
    open: Arc<tokio::sync::Semaphore>,
    recorder: Recorder,
    records: Option<Records>,
}

/// Makes a coordinator: the handle to use it, and the task to spawn.
pub fn coordinator<S: Store>(
    config: CoordinatorConfig,
    store: Arc<S>,
    seed: Seed,
    clock: Origin,
) -> (CoordinatorHandle, CoordinatorTask<S>) {
    let (inbox, messages) = mpsc::channel(INBOX);
    let events = broadcast::Sender::new(EVENTS);
    let (recorder, records) = records();
    let task = CoordinatorTask {
        machine: Coordinator::new(config, seed, clock.time()),
        store,
        clock,
        inbox: messages,
        answers: inbox.clone(),
        events: events.clone(),
        connections: BTreeMap::new(),
        questions: JoinSet::new(),
        open: Arc::new(tokio::sync::Semaphore::new(QUESTIONS_MAX)),
        recorder,
        records: Some(records),
    };
    (CoordinatorHandle { inbox, events, streams: Arc::default() }, task)
}

impl CoordinatorHandle {
    /// Serves one node's connection to its end. `principal` is who its token says it is, `credential` the
    /// owner's name for that token, if it may be revoked by that name.
    pub async fn serve<T>(&self, socket: ControlStream<T>, principal: Principal, credential: Option<String>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stream = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        let (messages, outgoing) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let out = Outgoing { messages, waiting: waiting.clone() };
        if self.inbox.send(Message::Admit { stream, who: (principal, credential), out }).await.is_err() {
            return;
        }
        let (why, broken) = self.connection(stream, socket, outgoing, &waiting).await;
        let _ = self.inbox.send(Message::Closed { stream, why, broken }).await;
    }

    async fn connection<T>(
        &self,
        stream: StreamId,
        mut socket: ControlStream<T>,
        mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
        waiting: &AtomicUsize,
    ) -> (String, bool)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        enum Next {
            Received(Vec<u8>),
            Sent,
            Closed(String),
            Dismissed,
        }
        let mut unsent = 0;
        loop {
            let next = poll_fn(|cx| {
                loop {
                    match outgoing.poll_recv(cx) {
                        Poll::Ready(Some(message)) => {
                            unsent += message.len();
                            socket.queue(message);
                        }
                        Poll::Ready(None) => return Poll::Ready(Next::Dismissed),
                        Poll::Pending => break,
                    }
                }
                match socket.poll_flush(cx) {
                    Poll::Ready(Err(why)) => return Poll::Ready(Next::Closed(why)),
                    Poll::Ready(Ok(())) if unsent > 0 => return Poll::Ready(Next::Sent),
                    _ => {}
                }
                socket.poll_message(cx).map(|received| match received {
                    Ok(Some(bytes)) => Next::Received(bytes),
                    Ok(None) => Next::Closed("the node closed the connection".into()),
                    Err(why) => Next::Closed(why),
                })
            })
            .await;
            let message = match next {
                Next::Received(bytes) => Message::Received { stream, bytes },
                Next::Sent => {
                    waiting.fetch_sub(std::mem::take(&mut unsent), Ordering::AcqRel);
                    Message::Sent { stream }
                }
                Next::Closed(why) => return (why, socket.is_broken()),
                Next::Dismissed => {
                    // The machine closed the stream: what it said last is still sent.
                    socket.close();
                    let _ = timeout(FAREWELL, poll_fn(|cx| socket.poll_flush(cx))).await;
                    return ("closed by the coordinator".into(), false);
                }
            };
            if self.inbox.send(message).await.is_err() {
                return ("the coordinator has stopped".into(), false);
            }
        }
    }

    /// Tells somebody why it is not let in, and closes.
    pub async fn refuse<T>(mut socket: ControlStream<T>, denied: &Denied)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let message =
            ToNode::Refused { to: None, code: denied.code.clone(), message: denied.message.clone() };
        socket.queue(message.encode());
        socket.close();
        let _ = timeout(FAREWELL, poll_fn(|cx| socket.poll_flush(cx))).await;
    }

    /// Gives the coordinator an order. It is lost if the coordinator has stopped.
    pub async fn command(&self, command: CoordinatorCommand) {
        let _ = self.inbox.send(Message::Command(command)).await;
    }

    /// Asks the machine something; none if it has stopped.
    pub async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Coordinator) -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |machine| {
            let _ = reply.send(question(machine));
        });
        self.inbox.send(Message::Query(query)).await.ok()?;
        answer.await.ok()
    }

    /// What happens from now on. Whoever reads too slowly misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<CoordinatorEvent> {
        self.events.subscribe()
    }

    /// Stops the coordinator: all connections are closed.
    pub async fn stop(&self) {
        let _ = self.inbox.send(Message::Stop).await;
    }
}

impl<S: Store> CoordinatorTask<S> {
    /// Runs until [`CoordinatorHandle::stop`].
    ///
    /// # Panics
    /// If the store panicked.
    pub async fn run(mut self) {
        let store = self.store.clone();
        let records = self.records.take();
        let recording = async move {
            while let Some(records) = &records {
                let Some(event) = records.next().await else { break };
                store.record(event).await;
            }
        };
        let serving = async move {
            self.serve().await;
            // Ends the recording, once it has recorded everything.
            drop(self);
        };
        tokio::join!(serving, recording);
    }

    async fn serve(&mut self) {
        loop {
            self.drain();
            let deadline = self.machine.deadline().map(|(at, _)| self.clock.instant(at));
            tokio::select! {
                biased;
                message = self.inbox.recv() => {
                    let Some(message) = message else { return };
                    if !self.take(message) {
                        return;
                    }
                }
                Some(done) = self.questions.join_next() => {
                    if let Err(e) = done && e.is_panic() {
                        std::panic::resume_unwind(e.into_panic());
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => {
                    self.machine.handle(Input::Deadline, self.clock.time());
                }
            }
        }
    }

    fn take(&mut self, message: Message) -> bool {
        let now = self.clock.time();
        match message {
            Message::Admit { stream, who: (principal, credential), out } => {
                self.connections.insert(stream, out);
                let admit = CoordinatorCommand::Admit { stream, principal, credential };
                self.machine.handle(Input::Command(admit), now);
                self.machine.handle(Input::StreamWritable { stream, credit: CREDIT }, now);
            }
            Message::Received { stream, bytes } => {
                self.machine.handle(Input::StreamBytes { stream, bytes: &bytes }, now);
            }
            Message::Sent { stream } => {
                if let Some(out) = self.connections.get(&stream) {
                    let credit = CREDIT.saturating_sub(out.waiting.load(Ordering::Acquire));
                    self.machine.handle(Input::StreamWritable { stream, credit }, now);
                }
            }
            Message::Closed { stream, why, broken } => {
                self.connections.remove(&stream);
                self.machine.handle(
                    if broken {
                        Input::Command(CoordinatorCommand::Broken { stream })
                    } else {
                        Input::StreamClosed { stream, why: &why }
                    },
                    now,
                );
            }
            Message::Command(command) => self.machine.handle(Input::Command(command), now),
            Message::Query(query) => query(&self.machine),
            Message::Stop => return false,
        }
        true
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Write { stream, bytes } => {
                    if let Some(out) = self.connections.get(&stream) {
                        out.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
                        let _ = out.messages.send(bytes);
                    }
                }
                Output::Close { stream } => {
                    self.connections.remove(&stream);
                }
                Output::Event(event) => self.event(event),
                // A coordinator has no sockets of its own.
                Output::Open { .. }
                | Output::Transmit(_)
                | Output::Resolve { .. }
                | Output::Bind { .. }
                | Output::Unbind { .. } => {}
            }
        }
    }

    fn event(&mut self, event: CoordinatorEvent) {
        if let CoordinatorEvent::Authorize { request, principal, from, to } = event {
            let (store, answers, open) = (self.store.clone(), self.answers.clone(), self.open.clone());
            self.questions.spawn(async move {
                let _turn = open.acquire().await;
                let verdict = store.authorize(&principal, &from, &to).await;
                let answer = CoordinatorCommand::Authorized { request, verdict };
                let _ = answers.send(Message::Command(answer)).await;
            });
            return;
        }
        let _ = self.events.send(event.clone());
        self.recorder.put(event);
    }
}
