//! The reading side of one connection: whole pieces of the stream, taken apart where they lie.
//!
//! All connections of a thread read into one buffer, so a quiet connection holds none; only a frame that has
//! not come whole is kept.

use super::{Connection, Inner, lock};
use proto_core::key::NodePublic;
use proto_core::relay::{ForwardCounters, Sender, ServerCommand};
use proto_core::time::Time;
use proto_core::wire::derp::{DerpError, Frame, FrameKind, decode, peek};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

/// Bytes of one read, beside what is kept of an unfinished frame.
const READ: usize = 128 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One connection's reading side.
pub(super) struct Reader<T> {
    io: ReadHalf<T>,
    connection: Arc<Connection>,
    /// Once it is known whose it is.
    sender: Option<Sender>,
    /// An unfinished frame, or what came after the login and waits for it.
    kept: Vec<u8>,
    /// Bytes still to come of a frame of an unknown kind.
    skip: usize,
    /// What is kept must be looked at before more is read.
    again: bool,
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
}

impl<T: AsyncRead> Reader<T> {
    pub(super) fn new(io: ReadHalf<T>, connection: Arc<Connection>) -> Self {
        Self { io, connection, sender: None, kept: Vec::new(), skip: 0, again: false }
    }

    /// One read: packets are on their way when it returns. None at the stream's end.
    pub(super) async fn read(&mut self, inner: &Inner) -> io::Result<Option<Work>> {
        poll_fn(|cx| self.poll_read(cx, inner)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, inner: &Inner) -> Poll<io::Result<Option<Work>>> {
        BUFFER.with_borrow_mut(|buffer| {
            if std::mem::take(&mut self.again) {
                let kept = std::mem::take(&mut self.kept);
                return Poll::Ready(self.frames(&kept, inner).map(Some));
            }
            let room = self.kept.len() + READ;
            if buffer.len() < room {
                buffer.resize(room, 0);
            }
            let mut read = ReadBuf::new(&mut buffer[..room]);
            read.put_slice(&self.kept);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.len() == self.kept.len() {
                return Poll::Ready(Ok(None));
            }
            self.kept.clear();
            Poll::Ready(self.frames(bytes, inner).map(Some))
        })
    }
}

impl<T> Reader<T> {
    /// The login is decided: packets may pass.
    pub(super) fn joined(&mut self, key: NodePublic, now: Time) {
        self.sender = Some(Sender::new(key, now));
        self.again = !self.kept.is_empty();
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn counters(&mut self) -> Option<&mut ForwardCounters> {
        self.sender.as_mut().map(|sender| &mut sender.counters)
    }

    /// Takes the frames in `bytes` apart.
    fn frames(&mut self, bytes: &[u8], inner: &Inner) -> io::Result<Work> {
        let mut rest = bytes;
        let mut work = Work::default();
        let mut wake: Vec<Arc<Connection>> = Vec::new();
        let now = inner.clock.time();
        let table = inner.table.read().unwrap_or_else(PoisonError::into_inner);
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            let Some(header) = peek(rest) else { break };
            header.check().map_err(broken)?;
            if !header.is_known() {
                self.skip = header.frame_len();
                continue;
            }
            let Some((frame, after)) = rest.split_at_checked(header.frame_len()) else { break };
            rest = after;
            let Some(sender) = &mut self.sender else {
                // The first frame is the login, or the server's task closes the connection.
                work.frames.extend_from_slice(frame);
                work.login = true;
                break;
            };
            if header.kind == FrameKind::SendPacket as u8
                && let Some((Frame::SendPacket { to, bytes: data }, _)) = decode(frame).map_err(broken)?
            {
                let forwarded = sender.forward(&table, &to, data, now);
                if let Some(to) = forwarded.to
                    && lock(&to.queue).push(sender.key(), data)
                {
                    wake.push(to.clone());
                }
                if forwarded.first {
                    let stream = self.connection.stream;
                    work.commands.push(ServerCommand::FirstPacket { stream, to });
                }
                if forwarded.not_here && lock(&self.connection.queue).push_gone(&to) {
                    wake.push(self.connection.clone());
                }
            } else {
                work.frames.extend_from_slice(frame);
            }
        }
        if let Some(sender) = &self.sender
            && table.dormant(sender.key(), self.connection.stream)
        {
            work.commands.push(ServerCommand::Spoke(self.connection.stream));
        }
        drop(table);
        for connection in wake {
            connection.wake.notify_one();
        }
        self.kept.extend_from_slice(rest);
        Ok(work)
    }
}

fn broken(error: DerpError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
