//! Clients that wait for a place at an upstream, when each upstream has as many requests as it may have.
//!
//! Each thread has a queue, and shows the others since when its first client waits. The thread that sees a free place looks
//! for the client that has waited for longest. It serves that client, or wakes the thread that has it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::wakeup::Wakeup;
use crate::time::Instant;

/// The queue of one thread, as the others see it.
#[derive(Debug)]
struct Front {
    /// Since when its first client waits, in nanoseconds; `u64::MAX` if none does.
    since: AtomicU64,
    wakeup: Arc<Wakeup>,
}

/// The queues of all threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues(Arc<Mutex<Vec<Arc<Front>>>>);

/// A client that waits: since when, in which place, and the generation of its connection.
type Waiting = (Instant, usize, u32);

/// The queue of this thread.
#[derive(Debug)]
pub(super) struct Queue {
    all: Queues,
    own: Arc<Front>,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

impl Queue {
    pub(super) fn new(all: Queues, wakeup: Arc<Wakeup>) -> Queue {
        let own = Arc::new(Front { since: AtomicU64::new(u64::MAX), wakeup });
        all.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&own));
        Queue { all, own, waiting: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a client in its place of the order.
    pub(super) fn push(&mut self, waiting: Waiting) {
        let at = self.waiting.partition_point(|one| one.0 <= waiting.0);
        self.waiting.insert(at, waiting);
        self.show();
    }

    /// Removes a client that waits no more.
    pub(super) fn remove(&mut self, waiting: Waiting) {
        let first = self.waiting.partition_point(|one| one.0 < waiting.0);
        if let Some(at) = self.waiting.iter().skip(first).position(|&one| one == waiting) {
            self.waiting.remove(first + at);
            self.show();
        }
    }

    /// The client that is to have a free place, if it is one of this thread. Another thread is woken for its own.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        let fronts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |front: &Arc<Front>| front.since.load(SeqCst);
        let first = fronts.iter().min_by_key(|front| since(front)).filter(|front| since(front) < u64::MAX)?;
        if since(first) < since(&self.own) {
            first.wakeup.wake();
            return None;
        }
        drop(fronts);
        let next = self.waiting.pop_front();
        self.show();
        next
    }

    fn show(&self) {
        let since = self.waiting.front().map_or(u64::MAX, |waiting| waiting.0.as_nanos());
        self.own.since.store(since, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Instant {
        Instant::from_nanos(number)
    }

    #[test]
    fn the_one_that_has_waited_for_longest_is_next_on_whichever_thread_it_is() {
        let all = Queues::default();
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let mut queues = [0, 1].map(|_| Queue::new(all.clone(), Arc::clone(&wakeup)));
        for (queue, since, place) in [(0, 10, 1), (1, 20, 2), (0, 30, 3), (0, 30, 4), (1, 40, 5)] {
            queues[queue].push((at(since), place, 0));
        }
        queues[0].remove((at(30), 3, 0));
        queues[0].remove((at(30), 3, 0));
        let mut served = Vec::new();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let next: Vec<_> = queues.iter_mut().filter_map(Queue::next).map(|one| one.1).collect();
            assert!(!next.is_empty(), "nobody's turn");
            served.extend(next);
        }
        assert_eq!(served, [1, 2, 4, 5]);
        // One that did not get it after all is the first again.
        queues[0].push((at(50), 6, 0));
        queues[0].push((at(7), 7, 0));
        assert_eq!(queues[0].next(), Some((at(7), 7, 0)));
    }
}
