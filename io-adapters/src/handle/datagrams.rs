//! Datagrams inside a tunnel, as programs use them: in flows, so that several programs' do not mix.

use super::PeerHandle;
use super::shared::{Shared, Signal, lock};
use bytes::Bytes;
use proto_core::stream::udp::{FlowTag, TAG_LEN};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Datagrams of one flow that may wait for its reader, and of one peer for the driver: a burst of a game or a call,
/// little enough that what is late is dropped.
pub(super) const DATAGRAMS_MAX: usize = 256;

/// What comes to a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Datagram {
    /// The peer sent this.
    Received(Bytes),
    /// What was sent here is longer than a packet to this peer can be: it comes back.
    TooLong(Bytes),
}

/// A flow of datagrams to a peer: unreliable, unordered, dropped if too many wait.
pub struct DatagramFlow {
    shared: Arc<Shared>,
    peer: PeerHandle,
    inbox: Arc<Inbox>,
    out: FlowTag,
}

impl DatagramFlow {
    pub(super) fn new(shared: Arc<Shared>, peer: PeerHandle, out: FlowTag) -> Self {
        let inbox = Arc::new(Inbox::default());
        peer.peer.inboxes().insert(out.back(), inbox.clone());
        Self { shared, peer, inbox, out }
    }

    /// Sends a datagram; false if it was dropped at once because too many wait.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let room = self.peer.peer.may_send_datagram();
        if room {
            let bytes = self.out.put_before(bytes).into();
            let (peer, inbox) = (self.peer.peer.clone(), self.inbox.clone());
            self.shared.signal(Signal::Datagram { peer, inbox, bytes });
        }
        room
    }

    /// What comes next; none once the peer is gone.
    pub async fn next(&self) -> Option<Datagram> {
        loop {
            let arrived = self.inbox.arrived.notified();
            let next = lock(&self.inbox.waiting).pop_front();
            if next.is_some() {
                return next;
            }
            if self.peer.path().gone.is_some() {
                return None;
            }
            arrived.await;
        }
    }

    /// How many were dropped because they were not read in time.
    #[must_use]
    pub fn missed(&self) -> usize {
        self.inbox.missed.load(Ordering::Relaxed)
    }
}

impl Drop for DatagramFlow {
    fn drop(&mut self) {
        let mut inboxes = self.peer.peer.inboxes();
        if inboxes.get(&self.out.back()).is_some_and(|inbox| Arc::ptr_eq(inbox, &self.inbox)) {
            inboxes.remove(&self.out.back());
        }
    }
}

impl fmt::Debug for DatagramFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatagramFlow({:?} to {:?})", self.out, self.peer)
    }
}

/// What waits for a flow's reader.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<VecDeque<Datagram>>,
    missed: AtomicUsize,
    arrived: Notify,
}

impl Inbox {
    /// Puts something in; the oldest is dropped if too many wait.
    pub(crate) fn put(&self, datagram: Datagram) {
        {
            let mut waiting = lock(&self.waiting);
            if waiting.len() == DATAGRAMS_MAX {
                waiting.pop_front();
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            waiting.push_back(datagram);
        }
        self.arrived.notify_one();
    }

    /// What was sent comes back, as it was given.
    pub(crate) fn give_back(&self, tagged: &Bytes) {
        self.put(Datagram::TooLong(tagged.slice(TAG_LEN.min(tagged.len())..)));
    }

    /// Its reader shall look again.
    pub(super) fn wake(&self) {
        self.arrived.notify_one();
    }
}
