//! What the store is yet to be told of nodes. However slow it is, no more waits than one event of each kind a
//! node: a later one says all that an earlier one of its kind did.

use proto_core::coord::CoordinatorEvent;
use proto_core::id::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The end that records are put in at. Dropping it ends the other.
pub(super) struct Recorder(Arc<Shared>);

/// The end that records are taken out of.
pub(super) struct Records(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Nodes that have something waiting, those that wait longest first.
    order: VecDeque<NodeId>,
    of: BTreeMap<NodeId, VecDeque<CoordinatorEvent>>,
    over: bool,
}

/// Both ends.
pub(super) fn records() -> (Recorder, Records) {
    let shared = Arc::<Shared>::default();
    (Recorder(shared.clone()), Records(shared))
}

impl Recorder {
    /// Puts an event in, and takes an earlier one of its kind and node out.
    pub(super) fn put(&self, event: CoordinatorEvent) {
        let id = match &event {
            CoordinatorEvent::Online { id, .. } | CoordinatorEvent::Offline { id, .. } => id.clone(),
            CoordinatorEvent::Changed { node } => node.id.clone(),
            // A question is no record, and how a path is, is of use only to those who look at this moment.
            CoordinatorEvent::Authorize { .. } | CoordinatorEvent::Path { .. } => return,
        };
        {
            let mut waiting = lock(&self.0);
            let waiting = &mut *waiting;
            let of = waiting.of.entry(id.clone()).or_insert_with(|| {
                waiting.order.push_back(id);
                VecDeque::new()
            });
            of.retain(|earlier| discriminant(earlier) != discriminant(&event));
            of.push_back(event);
        }
        self.0.wake.notify_one();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.0).over = true;
        self.0.wake.notify_one();
    }
}

impl Records {
    /// The next event, once there is one; none when all have been taken and no more can come.
    pub(super) async fn next(&self) -> Option<CoordinatorEvent> {
        loop {
            {
                let mut waiting = lock(&self.0);
                if let Some(event) = waiting.take() {
                    return Some(event);
                }
                if waiting.over {
                    return None;
                }
            }
            self.0.wake.notified().await;
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Option<CoordinatorEvent> {
        let id = self.order.front()?;
        let of = self.of.get_mut(id)?;
        let event = of.pop_front();
        if of.is_empty() {
            self.of.remove(id);
            self.order.pop_front();
        }
        event
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Waiting> {
    shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline(id: &str, gone: bool) -> CoordinatorEvent {
        CoordinatorEvent::Offline { id: NodeId(id.into()), gone }
    }

    #[tokio::test]
    async fn a_store_that_stands_still_costs_one_event_of_each_kind_a_node() {
        let (recorder, records) = records();
        for n in 0..10_000 {
            recorder.put(offline("a", n % 2 == 0));
            recorder.put(offline("b", false));
        }
        drop(recorder);
        assert_eq!(records.next().await, Some(offline("a", false)));
        assert_eq!(records.next().await, Some(offline("b", false)));
        assert_eq!(records.next().await, None);
    }
}
