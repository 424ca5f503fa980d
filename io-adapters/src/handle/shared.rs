//! What handles and the driver share: signals one way, answers and wake-ups the other.

use super::datagrams::{DATAGRAMS_MAX, Datagram, Inbox};
use super::{Incoming, PathState, PeerHandle, TunnelError, TunnelStream};
use crate::stack::FlowId;
use crate::streams::StreamError;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use proto_core::id::NodeId;
use proto_core::key::NodePublic;
use proto_core::node::{NodeStatus, SessionState};
use proto_core::stream::udp::{FlowTag, TAG_LEN};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// What a handle wants of the driver.
pub(crate) enum Signal {
    /// Open a tunnel.
    OpenTunnel {
        /// To whom.
        to: NodeId,
        /// Whom to answer.
        reply: oneshot::Sender<Result<PeerHandle, TunnelError>>,
    },
    /// Open a stream.
    Open {
        /// To whom.
        key: NodePublic,
        /// Its first bytes.
        header: Vec<u8>,
        /// Whom to answer.
        reply: oneshot::Sender<Result<TunnelStream, StreamError>>,
    },
    /// Something changed in a stream's pipe.
    Touched(FlowId),
    /// The last handle of a peer is gone.
    PeerHeld,
    /// Send a datagram.
    Datagram {
        /// To whom.
        peer: Arc<PeerShared>,
        /// Whom it goes back to if it is too long.
        inbox: Arc<Inbox>,
        /// What.
        bytes: Bytes,
    },
    /// What is known?
    Status(oneshot::Sender<NodeStatus>),
    /// Leave the network.
    Stop(Option<oneshot::Sender<()>>),
}

/// What handles and the driver share.
pub(crate) struct Shared {
    /// Our node key.
    pub key: NodePublic,
    /// The session with the coordinator, as the driver last saw it.
    pub session: Mutex<SessionState>,
    signals: Mutex<Signals>,
    driver: AtomicWaker,
    panic: Mutex<Option<String>>,
}

#[derive(Default)]
struct Signals {
    waiting: Vec<Signal>,
    stopped: bool,
}

impl Shared {
    pub(crate) fn new(key: NodePublic) -> Self {
        Self {
            key,
            session: Mutex::new(SessionState::Idle),
            signals: Mutex::new(Signals::default()),
            driver: AtomicWaker::new(),
            panic: Mutex::new(None),
        }
    }

    /// Leaves a signal and wakes the driver. Once the driver has stopped the signal is dropped, and with it
    /// the sender of its answer. Each signal comes from a handle that waits for it, is bounded at its source
    /// or comes once a stream, so the queue is bounded by the handles that exist.
    pub(crate) fn signal(&self, signal: Signal) {
        {
            let mut signals = lock(&self.signals);
            if signals.stopped {
                return;
            }
            signals.waiting.push(signal);
        }
        self.driver.wake();
    }

    /// Takes all signals into `into`, which must be empty, and remembers whom to wake for the next.
    pub(crate) fn take_signals(&self, into: &mut Vec<Signal>, driver: &std::task::Waker) {
        self.driver.register(driver);
        std::mem::swap(&mut lock(&self.signals).waiting, into);
    }

    /// The driver is gone: whoever waits is let go.
    pub(crate) fn stop(&self) {
        let waiting = {
            let mut signals = lock(&self.signals);
            signals.stopped = true;
            std::mem::take(&mut signals.waiting)
        };
        drop(waiting);
    }

    /// Keeps the driver's last words for whoever shuts the node down.
    pub(crate) fn keep_panic(&self, panic: &(dyn Any + Send)) {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        *lock(&self.panic) = Some(words.unwrap_or_else(|| "of unknown cause".into()));
    }

    pub(super) fn panic(&self) -> Option<String> {
        lock(&self.panic).clone()
    }
}

/// What handles of one peer and the driver share.
pub(crate) struct PeerShared {
    /// Who.
    pub id: NodeId,
    /// Its node key.
    pub key: NodePublic,
    /// Its path.
    pub path: watch::Sender<PathState>,
    held: AtomicUsize,
    sending: AtomicUsize,
    inboxes: Mutex<BTreeMap<FlowTag, Arc<Inbox>>>,
}

impl PeerShared {
    pub(crate) fn new(id: NodeId, key: NodePublic) -> Self {
        Self {
            id,
            key,
            path: watch::Sender::new(PathState::default()),
            held: AtomicUsize::new(0),
            sending: AtomicUsize::new(0),
            inboxes: Mutex::default(),
        }
    }

    pub(super) fn hold(&self) {
        self.held.fetch_add(1, Ordering::AcqRel);
    }

    /// True if that was the last handle.
    pub(super) fn let_go(&self) -> bool {
        self.held.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether any handle of the peer exists.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }

    pub(super) fn may_send_datagram(&self) -> bool {
        let room = self.sending.fetch_add(1, Ordering::AcqRel) < DATAGRAMS_MAX;
        if !room {
            self.datagram_sent();
        }
        room
    }

    /// The driver has taken a datagram off the signals.
    pub(crate) fn datagram_sent(&self) {
        self.sending.fetch_sub(1, Ordering::AcqRel);
    }

    /// The flows that somebody reads, by the tag that comes in.
    pub(super) fn inboxes(&self) -> MutexGuard<'_, BTreeMap<FlowTag, Arc<Inbox>>> {
        lock(&self.inboxes)
    }

    /// A datagram arrived. Nobody's is dropped.
    pub(crate) fn deliver_datagram(&self, bytes: Bytes) {
        let inbox = FlowTag::read(&bytes).and_then(|tag| self.inboxes().get(&tag).cloned());
        if let Some(inbox) = inbox {
            inbox.put(Datagram::Received(bytes.slice(TAG_LEN..)));
        }
    }

    /// The peer is gone.
    pub(crate) fn gone(&self, why: &str) {
        self.path.send_modify(|path| {
            path.gone = Some(why.to_string());
            path.route.primary = None;
            path.route.duplicate = None;
        });
        self.inboxes().values().for_each(|inbox| inbox.wake());
    }
}

/// Takes a lock. A panic while it was held is its holder's failure, told there; what it guards is only moved,
/// never half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queue of accepted streams: a listener that does not accept lets no more than this wait.
pub(crate) const INCOMING_MAX: usize = 1_024;

/// What is sent through the queue of accepted streams.
pub(crate) type IncomingSender = tokio::sync::mpsc::Sender<Incoming>;
