//! The reading side of one connection: whole pieces of the stream, taken apart where they lie.
//!
//! All connections of a thread read into one buffer, so a quiet connection holds none; only a frame that has
//! not come whole is kept.

use super::lobby::Place;
use super::turn::Turn;
use super::{Connection, Inner, lock, room};
use crate::transport::AnyStream;
use proto_core::key::NodePublic;
use proto_core::relay::{ForwardCounters, Forwarded, SendQueue, Sender, ServerCommand};
use proto_core::wire::derp::{FRAME_HEADER_LEN, Frame, FrameKind, decode, peek};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

/// Bytes of one read, beside what is kept of an unfinished frame.
const READ: usize = 128 * 1024;
/// Frames of one read, about: what a frame costs hardly depends on its length, and others must get their turn. A read
/// of packets of full size has fewer; one of the smallest would have hundreds more.
const FRAMES: usize = 128;
/// Bytes of one read however many frames they are.
const READ_MIN: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One connection's reading side.
pub(super) struct Reader {
    io: ReadHalf<AnyStream>,
    connection: Arc<Connection>,
    /// Once it is known whose it is.
    sender: Option<Sender>,
    /// Until then.
    place: Option<Place>,
    /// An unfinished frame, or what came after the login and waits for it.
    kept: Vec<u8>,
    /// Bytes still to come of a frame of an unknown kind.
    skip: usize,
    /// What is kept must be looked at before more is read.
    again: bool,
    /// Bytes of one read at most.
    most: usize,
    /// Bytes of the next read, by how many frames the last ones were.
    next: usize,
}

/// What a read leaves to do for the server's task.
#[derive(Default)]
pub(super) struct Work {
    /// Whole frames that are not packets.
    pub frames: Vec<u8>,
    /// What the packets meant for who knows whom.
    pub commands: Vec<ServerCommand>,
    /// The frames are the login: read on when it is decided.
    pub login: bool,
    /// The stream is no DERP, as the frames or commands say: read no more.
    pub broken: bool,
    /// How much there was.
    pub bytes: usize,
    /// How much of it was read just now.
    pub fresh: usize,
    /// How many frames there were.
    pub count: usize,
}

impl Reader {
    pub(super) fn new(io: ReadHalf<AnyStream>, connection: Arc<Connection>, place: Option<Place>) -> Self {
        Self {
            io,
            connection,
            sender: None,
            place,
            kept: Vec::new(),
            skip: 0,
            again: false,
            most: READ,
            next: READ,
        }
    }

    /// Reads no more than this at a time.
    pub(super) fn read_at_most(&mut self, bytes: usize) {
        self.most = READ.min(bytes);
        self.next = self.most;
    }

    /// One read: packets are on their way when it returns. None at the stream's end.
    pub(super) async fn read(&mut self, inner: &Inner, turn: &mut Turn<'_>) -> io::Result<Option<Work>> {
        let busy = turn.is_busy();
        poll_fn(|cx| {
            let read = self.poll_read(cx, inner, busy);
            if read.is_pending() {
                turn.end();
            }
            read
        })
        .await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        inner: &Inner,
        busy: bool,
    ) -> Poll<io::Result<Option<Work>>> {
        BUFFER.with_borrow_mut(|buffer| {
            if std::mem::take(&mut self.again) {
                let kept = std::mem::take(&mut self.kept);
                return Poll::Ready(Ok(Some(self.frames(&kept, inner, busy))));
            }
            let room = self.kept.len() + self.next;
            if buffer.len() < room {
                buffer.resize(room, 0);
            }
            let mut read = ReadBuf::new(&mut buffer[..room]);
            read.put_slice(&self.kept);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            let fresh = bytes.len() - self.kept.len();
            if fresh == 0 {
                return Poll::Ready(Ok(None));
            }
            self.kept.clear();
            let work = Work { fresh, ..self.frames(bytes, inner, busy) };
            self.adapt(&work);
            Poll::Ready(Ok(Some(work)))
        })
    }
}

impl Reader {
    /// Reads less at a time from those whose frames are many, and again more when they are not.
    fn adapt(&mut self, work: &Work) {
        self.next = if work.count > FRAMES {
            (work.bytes / work.count * FRAMES).max(READ_MIN).min(self.most)
        } else {
            (self.next * 2).min(self.most)
        };
    }

    /// The login is decided: packets may pass.
    pub(super) fn joined(&mut self, key: NodePublic, inner: &Inner) {
        let table = inner.table.read().unwrap_or_else(PoisonError::into_inner);
        self.sender = Some(Sender::new(key, &table, inner.clock.time()));
        self.place = None;
        self.again = !self.kept.is_empty();
    }

    /// Whether the beginning of a frame has come, and not its end.
    pub(super) const fn is_inside_frame(&self) -> bool {
        !self.kept.is_empty() || self.skip > 0
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn counters(&mut self) -> Option<&mut ForwardCounters> {
        self.sender.as_mut().map(|sender| &mut sender.counters)
    }

    /// Takes the frames in `bytes` apart.
    fn frames(&mut self, bytes: &[u8], inner: &Inner, busy: bool) -> Work {
        let mut rest = bytes;
        let mut work = Work { bytes: bytes.len(), ..Work::default() };
        let now = inner.clock.time();
        let table = inner.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut run = Run { busy, open: None };
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            let Some(header) = peek(rest) else { break };
            if header.check_from_node().is_err() {
                // The server's task judges it by the header as we do, counts it and closes the connection.
                work.frames.extend_from_slice(&rest[..FRAME_HEADER_LEN]);
                work.broken = true;
                rest = &[];
                break;
            }
            if !header.is_known() {
                // Looked at and passed over: it costs its sender a place in the turn as any other.
                work.count += 1;
                self.skip = header.frame_len();
                continue;
            }
            if self.sender.is_none() && header.kind != FrameKind::ClientInfo as u8 {
                // None of it is waited for, nor kept.
                work.commands.push(ServerCommand::Broken(self.connection.stream));
                work.broken = true;
                rest = &[];
                break;
            }
            let Some((frame, after)) = rest.split_at_checked(header.frame_len()) else { break };
            rest = after;
            work.count += 1;
            let Some(sender) = &mut self.sender else {
                work.frames.extend_from_slice(frame);
                work.login = true;
                break;
            };
            if header.kind == FrameKind::SendPacket as u8
                && let Ok(Some((Frame::SendPacket { to, bytes: data }, _))) = decode(frame)
            {
                let forwarded = match run.found(&to) {
                    Some(found) => sender.forward_again(found, data),
                    None => sender.forward(&table, &to, data, now),
                };
                let from = *sender.key();
                run.obey(&forwarded, (&from, &to), data, (&self.connection, &mut work.commands));
            } else if header.kind == FrameKind::ForwardPacket as u8
                && self.connection.is_mesh()
                && let Ok(Some((Frame::ForwardPacket { from, to, bytes: data }, _))) = decode(frame)
            {
                let forwarded = sender.deliver(&table, (&from, &to), data, now);
                run.obey(&forwarded, (&from, &to), data, (&self.connection, &mut work.commands));
            } else {
                work.frames.extend_from_slice(frame);
            }
        }
        drop(run);
        if let Some(sender) = &self.sender
            && table.dormant(sender.key(), self.connection.stream)
        {
            work.commands.push(ServerCommand::Spoke(self.connection.stream));
        }
        drop(table);
        self.kept.extend_from_slice(rest);
        work
    }
}

/// Packets in a row for one destination, whose queue stays locked meanwhile: most of a read is one run. Only one
/// queue is ever locked, so that two readers never wait for one another in a circle.
struct Run<'t> {
    open: Option<Open<'t>>,
    /// The sender is busy: what it has for others who are may wait for their turn.
    busy: bool,
}

struct Open<'t> {
    to: NodePublic,
    connection: &'t Arc<Connection>,
    /// It is a link of the mesh.
    elsewhere: bool,
    queue: MutexGuard<'t, SendQueue>,
    /// The queue was empty: its writer waits to be woken.
    wake: bool,
}

impl<'t> Run<'t> {
    /// The connection by which this key is reached, if the run is its, and whether it is a link of the mesh.
    fn found(&self, to: &NodePublic) -> Option<(&'t Arc<Connection>, bool)> {
        self.open.as_ref().filter(|open| open.to == *to).map(|open| (open.connection, open.elsewhere))
    }

    /// Does with a packet what was decided; `sender` is the connection that it came by, and what is then to be said to
    /// the server's task.
    fn obey(
        &mut self,
        verdict: &Forwarded<&'t Arc<Connection>>,
        (from, to): (&NodePublic, &NodePublic),
        data: &[u8],
        sender: (&Connection, &mut Vec<ServerCommand>),
    ) {
        if verdict.first {
            sender.1.push(ServerCommand::FirstPacket { from: *from, to: *to });
        }
        match verdict.to {
            Some(connection) => {
                self.open(connection, verdict.elsewhere, to);
                self.push((from, to), data);
            }
            None if verdict.not_here => self.push_gone(sender.0, to),
            None => {}
        }
    }

    fn open(&mut self, connection: &'t Arc<Connection>, elsewhere: bool, to: &NodePublic) {
        if self.found(to).is_none() {
            self.end();
            let mut queue = lock(&connection.queue);
            if queue.wants_room() {
                queue.lend(room::take());
            }
            self.open = Some(Open { to: *to, connection, elsewhere, queue, wake: false });
        }
    }

    fn push(&mut self, (from, to): (&NodePublic, &NodePublic), data: &[u8]) {
        if let Some(open) = &mut self.open {
            open.wake |= if open.elsewhere {
                open.queue.push_forward(from, to, data)
            } else {
                open.queue.push(from, data)
            };
        }
    }

    fn push_gone(&mut self, sender: &Connection, to: &NodePublic) {
        // The sender's queue may be the locked one.
        self.end();
        if lock(&sender.queue).push_gone(to) {
            sender.wake.notify_one();
        }
    }

    fn end(&mut self) {
        if let Some(Open { connection, queue, wake, .. }) = self.open.take() {
            let wake = connection.must_wake(wake, (self.busy, queue.bytes()));
            drop(queue);
            if wake {
                connection.wake.notify_one();
            }
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
