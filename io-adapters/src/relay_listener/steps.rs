//! Steps of those who have not logged in, one at a time.
//!
//! Thousands may come at once, and each step of theirs costs tens of microseconds: to accept, to shake hands, to close.
//! Were all of them to run as the network wakes them, a packet of those who are connected would wait for hundreds.
//! So only as many of them as there are threads run at a time, and after each step everybody else goes first.

use super::turn::{let_others_go, one_a_thread};
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::Semaphore;

/// The steps of a front door. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Steps(Arc<Semaphore>);

impl Steps {
    pub(super) fn new() -> Self {
        Self(Arc::new(one_a_thread()))
    }

    /// Does the work a step at a time for as long as it is `slow`, and from then on like any other.
    pub(super) async fn walk<F: Future>(&self, work: F, slow: impl Fn() -> bool) -> F::Output {
        let mut work = pin!(work);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        while slow() {
            woken.wait().await;
            let step = self.0.acquire().await;
            let done = work.as_mut().poll(&mut Context::from_waker(&waker));
            let_others_go().await;
            drop(step);
            if let Poll::Ready(output) = done {
                return output;
            }
        }
        work.await
    }
}

/// Whether the work can go on: it can begin.
struct Woken {
    now: AtomicBool,
    task: AtomicWaker,
}

impl Default for Woken {
    fn default() -> Self {
        Self { now: AtomicBool::new(true), task: AtomicWaker::new() }
    }
}

impl Woken {
    async fn wait(&self) {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            if self.now.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.now.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::time::Duration;
    use tokio::task::{LocalSet, yield_now};

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Ran {
        Guest,
        Client,
    }

    /// Takes three steps, each noted.
    async fn guest(ran: &RefCell<Vec<Ran>>) {
        for _ in 0..3 {
            ran.borrow_mut().push(Ran::Guest);
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_is_connected_goes_between_any_two_steps_of_a_crowd() {
        let (ran, left) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(50)));
        let (steps, tasks) = (Steps::new(), LocalSet::new());
        for _ in 0..left.get() {
            let (steps, ran, left) = (steps.clone(), ran.clone(), left.clone());
            tasks.spawn_local(async move {
                steps.walk(guest(&ran), || true).await;
                left.set(left.get() - 1);
            });
        }
        let (seen, crowd) = (ran.clone(), left.clone());
        tasks.spawn_local(async move {
            while crowd.get() > 0 {
                seen.borrow_mut().push(Ran::Client);
                yield_now().await;
            }
        });
        tasks.await;
        let ran = ran.borrow();
        assert_eq!(ran.iter().filter(|ran| **ran == Ran::Guest).count(), 150);
        let first = ran.iter().position(|ran| *ran == Ran::Client).unwrap();
        assert!(ran[first..].windows(2).all(|two| two != [Ran::Guest; 2]), "{ran:?}");
    }

    #[tokio::test]
    async fn who_has_logged_in_goes_as_it_is_woken() {
        let steps = Steps::new();
        let held = steps.0.acquire().await.unwrap();
        let work = async { tokio::time::sleep(Duration::from_millis(1)).await };
        tokio::time::timeout(Duration::from_secs(10), steps.walk(work, || false)).await.unwrap();
        drop(held);
    }

    #[tokio::test]
    async fn work_that_was_begun_slowly_is_woken_when_it_is_slow_no_more() {
        let (steps, slow) = (Steps::new(), Cell::new(true));
        let work = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            slow.set(false);
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        tokio::time::timeout(Duration::from_secs(10), steps.walk(work, || slow.get())).await.unwrap();
        assert!(!slow.get());
    }
}
