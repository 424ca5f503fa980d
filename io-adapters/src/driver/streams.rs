//! The node's streams to relays and to the coordinator, from dialing to their end.

use crate::control::ControlStream;
use crate::relay_stream::fallback::{DerpIo, Fallback};
use crate::relay_stream::{DialError, Dialer, Io, Opened};
use crate::transport::Network;
use proto_core::id::StreamId;
use proto_core::machine::{Input, StreamTarget};
use proto_core::node::NodeCommand;
use proto_core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Bytes that may wait in front of a relay's socket. More would only be delay: the kernel's own buffer is
/// behind it, and what does not fit waits in the tunnel's streams.
const CREDIT: usize = 256 * 1024;
/// Bytes of one read of a relay's stream.
const READ: usize = 128 * 1024;
/// Streams that were closed and still have something to say.
const CLOSING_MAX: usize = 32;
/// How long they have for it: a round trip to the far end of the world, several times.
const FAREWELL: Duration = Duration::from_secs(5);

/// The streams, by the names that the machines chose.
pub(super) struct Streams<N: Network> {
    dialer: Dialer<N>,
    fallback: Arc<Fallback>,
    dialing: JoinSet<(StreamId, Result<Opened<N::Tcp>, DialError>)>,
    resolving: JoinSet<(String, Vec<IpAddr>)>,
    open: BTreeMap<StreamId, Stream<N::Tcp>>,
    /// Closed, and until when they may say what they have to say.
    closing: Vec<(Stream<N::Tcp>, Instant)>,
    /// A task was spawned that nobody waits for yet.
    spawned: bool,
    buffer: Box<[u8]>,
}

enum Stream<T> {
    Dialing(AbortHandle),
    Derp(Derp<T>),
    Control(ControlStream<Io<T>>),
}

/// A relay's stream and what waits to be written to it.
struct Derp<T> {
    io: DerpIo<T>,
    out: Vec<u8>,
    sent: usize,
    /// Written, but perhaps not yet out of TLS.
    unflushed: bool,
}

type Inputs<'a> = dyn FnMut(Input<'_, NodeCommand>) + 'a;

impl<N: Network> Streams<N> {
    pub(super) fn new(dialer: Dialer<N>) -> Self {
        Self {
            dialer,
            fallback: Arc::default(),
            dialing: JoinSet::new(),
            resolving: JoinSet::new(),
            open: BTreeMap::new(),
            closing: Vec::new(),
            spawned: false,
            buffer: vec![0; READ].into_boxed_slice(),
        }
    }

    pub(super) fn open(&mut self, stream: StreamId, target: StreamTarget) {
        let (dialer, fallback) = (self.dialer.clone(), self.fallback.clone());
        let task = self.dialing.spawn(async move { (stream, dialer.open(&target, &fallback).await) });
        self.open.insert(stream, Stream::Dialing(task));
        self.spawned = true;
    }

    /// Another network: what was learnt of its proxies says nothing any more.
    pub(super) fn network_changed(&self) {
        self.fallback.forget();
    }

    pub(super) fn resolve(&mut self, name: String) {
        let dialer = self.dialer.clone();
        self.spawned = true;
        self.resolving.spawn(async move {
            let addresses = match dialer.resolve(&name).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    tracing::debug!(%error, name, "a name did not resolve");
                    Vec::new()
                }
            };
            (name, addresses)
        });
    }

    pub(super) fn write(&mut self, stream: StreamId, bytes: Vec<u8>) {
        match self.open.get_mut(&stream) {
            Some(Stream::Derp(derp)) => derp.queue(bytes),
            Some(Stream::Control(control)) => control.queue(bytes),
            // Closed in this very moment: whoever wrote will hear of it.
            Some(Stream::Dialing(_)) | None => {}
        }
    }

    /// Closes a stream, after what was written.
    pub(super) fn close(&mut self, stream: StreamId) {
        match self.open.remove(&stream) {
            Some(Stream::Dialing(task)) => task.abort(),
            Some(mut other) if self.closing.len() < CLOSING_MAX => {
                if let Stream::Control(control) = &mut other {
                    control.close();
                }
                self.closing.push((other, Instant::now() + FAREWELL));
            }
            _ => {}
        }
    }

    /// Whether nothing written to a closed stream waits.
    pub(super) fn is_idle(&self) -> bool {
        self.closing.is_empty()
    }

    /// Looks once at everything that may have news.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut inputs: impl FnMut(Input<'_, NodeCommand>),
    ) -> bool {
        let mut busy = self.poll_dialing(cx, &mut inputs);
        busy |= self.poll_resolving(cx, &mut inputs);
        let mut over = Vec::new();
        for (&stream, state) in &mut self.open {
            match read(stream, state, cx, &mut self.buffer, &mut inputs) {
                Poll::Ready(Ok(())) => busy = true,
                Poll::Ready(Err(why)) => over.push((stream, why)),
                Poll::Pending => {}
            }
        }
        for (stream, why) in over {
            busy = true;
            self.open.remove(&stream);
            inputs(Input::StreamClosed { stream, why: &why });
        }
        busy
    }

    fn poll_dialing(&mut self, cx: &mut Context<'_>, inputs: &mut Inputs<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some(joined)) = self.dialing.poll_join_next(cx) {
            let Some((stream, result)) = surfaced(joined) else { continue };
            if !matches!(self.open.get(&stream), Some(Stream::Dialing(_))) {
                continue;
            }
            busy = true;
            match result {
                Ok(Opened::Derp(io)) => {
                    let derp = Derp { io, out: Vec::new(), sent: 0, unflushed: false };
                    self.open.insert(stream, Stream::Derp(derp));
                    inputs(Input::StreamOpened { stream });
                    inputs(Input::StreamWritable { stream, credit: CREDIT });
                }
                Ok(Opened::Control(control)) => {
                    self.open.insert(stream, Stream::Control(control));
                    inputs(Input::StreamOpened { stream });
                }
                Err(error) => {
                    self.open.remove(&stream);
                    inputs(Input::StreamClosed { stream, why: &error.to_string() });
                }
            }
        }
        busy
    }

    fn poll_resolving(&mut self, cx: &mut Context<'_>, inputs: &mut Inputs<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some(joined)) = self.resolving.poll_join_next(cx) {
            let Some((name, addresses)) = surfaced(joined) else { continue };
            inputs(Input::Resolved { name: &name, addresses: &addresses });
            busy = true;
        }
        busy
    }

    /// Writes what waits, as far as the sockets take it.
    pub(super) fn flush(
        &mut self,
        cx: &mut Context<'_>,
        mut inputs: impl FnMut(Input<'_, NodeCommand>),
    ) -> bool {
        let mut over = Vec::new();
        // A set of tasks wakes only who has looked at it since.
        let mut busy = std::mem::take(&mut self.spawned);
        for (&stream, state) in &mut self.open {
            let result = match state {
                Stream::Derp(derp) => {
                    let waited = derp.waiting();
                    let result = derp.poll_flush(cx);
                    if derp.waiting() < waited {
                        let credit = CREDIT.saturating_sub(derp.waiting());
                        inputs(Input::StreamWritable { stream, credit });
                        busy = true;
                    }
                    result
                }
                Stream::Control(control) => control.poll_flush(cx),
                Stream::Dialing(_) => Poll::Pending,
            };
            if let Poll::Ready(Err(why)) = result {
                over.push((stream, why));
            }
        }
        for (stream, why) in over {
            busy = true;
            self.open.remove(&stream);
            inputs(Input::StreamClosed { stream, why: &why });
        }
        self.closing.retain_mut(|(state, until)| match state {
            _ if Instant::now() >= *until => false,
            Stream::Derp(derp) => derp.poll_flush(cx).is_pending(),
            Stream::Control(control) => control.poll_flush(cx).is_pending(),
            Stream::Dialing(_) => false,
        });
        busy
    }
}

/// What a task gave; none if it was aborted.
///
/// # Panics
/// With the task's own panic: nothing that happens in a task may be lost.
fn surfaced<T>(joined: Result<T, tokio::task::JoinError>) -> Option<T> {
    match joined {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// One read of a stream, handed on.
fn read<T: AsyncRead + AsyncWrite + Unpin>(
    stream: StreamId,
    state: &mut Stream<T>,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
    inputs: &mut impl FnMut(Input<'_, NodeCommand>),
) -> Poll<Result<(), String>> {
    match state {
        Stream::Dialing(_) => Poll::Pending,
        Stream::Derp(derp) => {
            let mut buffer = ReadBuf::new(buffer);
            std::task::ready!(Pin::new(&mut derp.io).poll_read(cx, &mut buffer))
                .map_err(|e| e.to_string())?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err("the relay closed the connection".into()));
            }
            inputs(Input::StreamBytes { stream, bytes: buffer.filled() });
            Poll::Ready(Ok(()))
        }
        Stream::Control(control) => match std::task::ready!(control.poll_message(cx))? {
            None => Poll::Ready(Err("the server closed the connection".into())),
            Some(message) => {
                inputs(Input::StreamBytes { stream, bytes: &message });
                Poll::Ready(Ok(()))
            }
        },
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Derp<T> {
    fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    fn queue(&mut self, bytes: Vec<u8>) {
        if self.waiting() == 0 {
            self.out = bytes;
            self.sent = 0;
        } else {
            self.out.extend_from_slice(&bytes);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        while self.sent < self.out.len() {
            match Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err("the connection takes nothing".into())),
                Poll::Ready(Ok(n)) => {
                    self.sent += n;
                    self.unflushed = true;
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e.to_string())),
                Poll::Pending => return self.pending(),
            }
        }
        self.out.clear();
        self.sent = 0;
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(|e| e.to_string())?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// What was sent must not be kept until all is.
    fn pending(&mut self) -> Poll<Result<(), String>> {
        if self.sent >= CREDIT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Poll::Pending
    }
}
