//! What waits to be written to one node, bounded.

use crate::id::NodeId;
use crate::limits;
use crate::wire::control::ToNode;
use std::collections::VecDeque;

/// The messages that wait for a node's stream to take more.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Bytes that may be written; unlimited until the stream has said so once.
    credit: Option<usize>,
    waiting: VecDeque<(Option<NodeId>, Vec<u8>)>,
    bytes: usize,
}

/// Too much waits: the node reads too slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

impl Outgoing {
    /// Queues a message. A peer's news replaces news of the same peer that still waits.
    pub(super) fn push(&mut self, message: &ToNode) -> Result<(), Full> {
        let about = match message {
            ToNode::Peer { peer } => Some(peer.id.clone()),
            _ => None,
        };
        let bytes = message.encode();
        self.bytes += bytes.len();
        let older = about.as_ref().and_then(|about| self.last_news(about));
        if let Some(slot) = older.and_then(|at| self.waiting.get_mut(at)) {
            self.bytes -= slot.1.len();
            slot.1 = bytes;
        } else {
            self.waiting.push_back((about, bytes));
        }
        let full = self.waiting.len() > limits::CONTROL_QUEUE_MAX || self.bytes > limits::CONTROL_QUEUE_BYTES;
        if full { Err(Full) } else { Ok(()) }
    }

    /// Where news of `about` wait, unless something else was said after them that may be about it, too.
    fn last_news(&self, about: &NodeId) -> Option<usize> {
        let end = self.waiting.iter().rposition(|(other, _)| other.is_none()).map_or(0, |at| at + 1);
        (end..self.waiting.len()).find(|at| self.waiting[*at].0.as_ref() == Some(about))
    }

    /// The stream takes this many bytes.
    pub(super) const fn grant(&mut self, credit: usize) {
        self.credit = Some(credit);
    }

    /// The next message that may be written. The last one may be longer than the credit left.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if self.credit == Some(0) {
            return None;
        }
        let (_, bytes) = self.waiting.pop_front()?;
        self.bytes -= bytes.len();
        self.credit = self.credit.map(|credit| credit.saturating_sub(bytes.len()));
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(id: usize) -> ToNode {
        ToNode::PeerLost { id: NodeId(id.to_string()), closed: false }
    }

    #[test]
    fn nothing_waits_until_the_stream_has_named_its_credit() {
        let mut queue = Outgoing::default();
        queue.push(&lost(1)).unwrap();
        assert!(queue.next().is_some());
        queue.grant(1);
        queue.push(&lost(2)).unwrap();
        queue.push(&lost(3)).unwrap();
        assert!(queue.next().is_some(), "a message may be longer than the credit left");
        assert!(queue.next().is_none());
        queue.grant(1_000);
        assert!(queue.next().is_some());
        assert_eq!((queue.bytes, queue.waiting.len()), (0, 0));
    }

    #[test]
    fn a_node_that_reads_nothing_is_noticed() {
        let mut queue = Outgoing::default();
        queue.grant(0);
        let pushed = (0..=limits::CONTROL_QUEUE_MAX).take_while(|n| queue.push(&lost(*n)).is_ok()).count();
        assert_eq!(pushed, limits::CONTROL_QUEUE_MAX);
    }
}
