//! The contract that every state machine keeps, so that one driver can run them all, in production and in
//! simulation. The seven laws that go with it are tests: `machine/laws.rs`.

use crate::id::{LinkId, StreamId};
use crate::route::Activity;
use crate::time::Time;
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

#[cfg(any(test, feature = "laws"))]
pub mod laws;

/// A state machine: bytes, commands and time go in; bytes, requests and events come out. Nothing else
/// exists for it: no socket, no clock, no thread.
pub trait Machine {
    /// What the machine's owner asks of it.
    type Command;
    /// What the machine tells its owner.
    type Event;

    /// The only way in. Never fails and never blocks: broken bytes are dropped, counted, and if it matters
    /// told as an event.
    fn handle(&mut self, input: Input<'_, Self::Command>, now: Time);

    /// The only way out. The owner drains it to `None` after every [`Machine::handle`].
    fn poll(&mut self) -> Option<Output<Self::Event>>;

    /// When to call [`Machine::handle`] with [`Input::Deadline`], and why.
    fn deadline(&self) -> Option<(Time, &'static str)>;
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a, C> {
    /// A datagram arrived on a UDP socket.
    Datagram {
        /// The socket it arrived on.
        link: LinkId,
        /// The source address as seen here.
        from: SocketAddr,
        /// The payload.
        bytes: &'a [u8],
    },
    /// A stream that this machine asked for (or, on a server, one that was accepted) is ready for bytes:
    /// TCP, TLS and the HTTP upgrade are done.
    StreamOpened {
        /// Which stream.
        stream: StreamId,
    },
    /// Bytes arrived in order. On a message stream (the coordinator's) exactly one message a call.
    StreamBytes {
        /// Which stream.
        stream: StreamId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The stream takes more bytes.
    StreamWritable {
        /// Which stream.
        stream: StreamId,
        /// How many bytes may be written before the next such word.
        credit: usize,
    },
    /// The stream ended or never opened. It is the last word about this stream.
    StreamClosed {
        /// Which stream.
        stream: StreamId,
        /// Why, in words for a person.
        why: &'a str,
    },
    /// The answer to [`Output::Resolve`]; no addresses if the name could not be resolved.
    Resolved {
        /// The name asked for.
        name: &'a str,
        /// Its addresses, best first.
        addresses: &'a [IpAddr],
    },
    /// A UDP socket is usable.
    LinkUp {
        /// Which socket.
        link: LinkId,
        /// Its bound address, perhaps a wildcard.
        address: SocketAddr,
    },
    /// A UDP socket is gone.
    LinkDown {
        /// Which socket.
        link: LinkId,
    },
    /// A datagram that was to leave for this address could not: the host's own network says that there is no way there.
    Unreachable {
        /// From which socket.
        link: LinkId,
        /// To whom.
        to: SocketAddr,
    },
    /// Data packets passed since the last such word: how liveness is judged by data.
    Activity(Activity),
    /// The owner wants something.
    Command(C),
    /// The moment named by [`Machine::deadline`] has come.
    Deadline,
}

/// What a machine asks of the world, or tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output<E> {
    /// Send a datagram.
    Transmit(Transmit),
    /// Open a stream; answered by [`Input::StreamOpened`] or [`Input::StreamClosed`].
    Open {
        /// The name the machine chose for it.
        stream: StreamId,
        /// Where to and how.
        target: StreamTarget,
    },
    /// Write to a stream: whole frames or one message.
    Write {
        /// Which stream.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close a stream; its [`Input::StreamClosed`] may still follow.
    Close {
        /// Which stream.
        stream: StreamId,
    },
    /// Resolve a name; answered by [`Input::Resolved`].
    Resolve {
        /// The name.
        name: String,
    },
    /// Bind a UDP socket more, of any port, under this name; answered by [`Input::LinkUp`], or [`Input::LinkDown`] if
    /// it cannot be.
    Bind {
        /// The name the machine chose for it.
        link: LinkId,
    },
    /// Close such a socket; no word follows.
    Unbind {
        /// Which socket.
        link: LinkId,
    },
    /// A word to the owner.
    Event(E),
}

impl<E> Output<E> {
    /// A word to the owner; what is asked of the world goes to `out`, as a machine says it that composes this one.
    pub fn into_event<F>(self, out: &mut Outbox<F>) -> Option<E> {
        out.push(match self {
            Self::Event(event) => return Some(event),
            Self::Transmit(transmit) => Output::Transmit(transmit),
            Self::Open { stream, target } => Output::Open { stream, target },
            Self::Write { stream, bytes } => Output::Write { stream, bytes },
            Self::Close { stream } => Output::Close { stream },
            Self::Resolve { name } => Output::Resolve { name },
            Self::Bind { link } => Output::Bind { link },
            Self::Unbind { link } => Output::Unbind { link },
        });
        None
    }
}

/// A datagram to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From which socket.
    pub link: LinkId,
    /// To whom.
    pub to: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
    /// A hop limit of its own (an opener that must die on its way), else the socket's.
    pub ttl: Option<u8>,
}

/// Where a stream leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamTarget {
    /// What is spoken on it once it is open.
    pub protocol: StreamProtocol,
    /// The name for the `Host` header and TLS.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Addresses to try, best first, never empty.
    pub addresses: Vec<IpAddr>,
    /// TLS and how the other side proves itself; none for plain TCP.
    pub tls: Option<TlsCheck>,
    /// The path of the HTTP request that starts it.
    pub path: String,
    /// The bearer token of that request.
    pub bearer: Option<String>,
}

/// What is spoken on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamProtocol {
    /// DERP frames as a byte stream, after `Upgrade: DERP`.
    Derp,
    /// The same inside a WebSocket, without trying the other way first.
    DerpInWebSocket,
    /// Coordination messages, one JSON document each, as WebSocket text messages.
    Control,
}

/// How a TLS server proves itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlsCheck {
    /// By a chain to a trusted root, for this name (usually the host's).
    Roots {
        /// The certificate's name.
        name: String,
    },
    /// By the SHA-256 of its one self-signed certificate (`CertName: "sha256-raw:…"`).
    Pinned {
        /// The hash of the certificate's DER form.
        sha256: [u8; 32],
    },
    /// Not at all (`InsecureForTests`).
    Unchecked,
}

/// The queue of outputs that every machine keeps: what [`Machine::poll`] drains.
#[derive(Debug)]
pub struct Outbox<E>(VecDeque<Output<E>>);

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<E> Outbox<E> {
    /// Queue any output.
    pub fn push(&mut self, output: Output<E>) {
        self.0.push_back(output);
    }

    /// Queue an event.
    pub fn event(&mut self, event: E) {
        self.push(Output::Event(event));
    }

    /// Queue a datagram with the socket's own hop limit.
    pub fn transmit(&mut self, link: LinkId, to: SocketAddr, bytes: Vec<u8>) {
        self.push(Output::Transmit(Transmit { link, to, bytes, ttl: None }));
    }

    /// The next output.
    pub fn pop(&mut self) -> Option<Output<E>> {
        self.0.pop_front()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
