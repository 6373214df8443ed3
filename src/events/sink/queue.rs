//! The queue between the loops and the sink's thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Callback;
use crate::limits::{EVENT_BATCH, EVENT_BATCHES};

/// A panic of another thread leaves nothing half-done behind any of the locks here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the loops and the sink's thread share.
pub(super) struct Shared {
    pub(super) rings: Vec<Ring>,
    /// Events that were offered and taken.
    pub(super) accepted: AtomicU64,
    /// Events that were written.
    pub(super) delivered: AtomicU64,
    /// Nothing is written any more.
    pub(super) closed: AtomicBool,
    /// There is a [`Message::Rest`] in the queue.
    pub(super) rest: AtomicBool,
    pub(super) on_closed: Mutex<Option<Callback>>,
}

/// One loop's part of it, on a cache line of its own, so that one loop's offer is not another's miss.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Ring {
    /// Batches that were accepted and not yet given back.
    pub(super) in_flight: AtomicUsize,
    /// An offer was refused; the waker is to be called.
    pub(super) waiting: AtomicBool,
    pub(super) waker: Mutex<Option<Callback>>,
}

impl Shared {
    pub(super) fn undelivered(&self) -> u64 {
        // In this order: what is delivered was accepted before.
        let delivered = self.delivered.load(SeqCst);
        self.accepted.load(SeqCst) - delivered
    }

    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
        // Taken out first: the callback may use the sink.
        let callback = lock(&self.on_closed).take();
        if let Some(callback) = callback {
            callback();
        }
    }
}

/// A message in the queue. The first line and the last one have their places in the queue, and travel beside it: an
/// outlet knows the type of its events only.
pub(super) enum Message<E> {
    Opening,
    Batch {
        ring: usize,
        events: Vec<E>,
    },
    /// A loop's thread has encoded what the output did not accept at once.
    Rest,
    Closing,
}

/// The writer, as a loop's thread uses it while no other thread does.
pub(super) trait AtOnce<E>: Send + Sync {
    fn write(&self, ring: usize, events: &[E]) -> Written;
}

/// The outcome of a batch that a loop's thread wanted to write itself.
pub(super) enum Written {
    /// The batch is written.
    All,
    /// The batch is encoded, and the sink's thread has to write the rest.
    InPart,
    /// Nothing was done: the sink's thread has to write the batch.
    Not,
    /// Nothing was done, and never will be: a write to this output may wait.
    Never,
}

/// One loop's way to the sink.
pub struct Outlet<E> {
    pub(super) ring: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: SyncSender<Message<E>>,
    pub(super) empties: Receiver<Vec<E>>,
    /// The writer, where this loop's thread may use it.
    pub(super) writer: Option<Arc<dyn AtOnce<E>>>,
}

impl<E> fmt::Debug for Outlet<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("ring", &self.ring).field("in_flight", &self.in_flight()).finish()
    }
}

impl<E> Outlet<E> {
    /// Hands a batch over and returns an empty one, or returns the batch itself when there is no
    /// room: then keep it, offer it again once the waker was called, and let more events wait where
    /// they come from than it has room for. Never blocks; allocates only until there are
    /// as many batches as the sink is behind.
    ///
    /// # Errors
    ///
    /// The batch itself. [`EVENT_BATCHES`] are on their way already.
    ///
    /// # Panics
    ///
    /// When the batch has more than [`EVENT_BATCH`] events.
    pub fn offer(&mut self, batch: Vec<E>) -> Result<Vec<E>, Vec<E>> {
        assert!(batch.len() <= EVENT_BATCH, "a batch of {} events", batch.len());
        if batch.is_empty() {
            return Ok(batch);
        }
        let mut batch = batch;
        if self.write_at_once(&batch) {
            batch.clear();
            return Ok(batch);
        }
        let ring = &self.shared.rings[self.ring];
        if ring.in_flight.load(SeqCst) >= EVENT_BATCHES {
            // First store that we wait, then look again; the sink first makes room, then looks for a waiting
            // loop. In any order of the four steps, one of the two sees the other.
            ring.waiting.store(true, SeqCst);
            if ring.in_flight.load(SeqCst) >= EVENT_BATCHES {
                return Err(batch);
            }
            ring.waiting.store(false, SeqCst);
        }
        ring.in_flight.fetch_add(1, SeqCst);
        self.shared.accepted.fetch_add(batch.len() as u64, SeqCst);
        // The queue has a place for every batch of every ring, so the only failure is that the
        // thread is gone, after a panic. The events are counted as undelivered.
        let sent = self.queue.try_send(Message::Batch { ring: self.ring, events: batch });
        if sent.is_err() {
            self.shared.close();
            ring.in_flight.fetch_sub(1, SeqCst);
        }
        Ok(self.empty_batch())
    }

    /// Writes a batch on this thread, if it is a small one and nothing waits to be written before it.
    fn write_at_once(&mut self, batch: &[E]) -> bool {
        let Some(writer) = &self.writer else { return false };
        if batch.len() == EVENT_BATCH || self.shared.undelivered() > 0 {
            return false;
        }
        match writer.write(self.ring, batch) {
            Written::All => true,
            Written::InPart => {
                // One place is kept for it, and one is enough: the thread writes all that is there.
                if !self.shared.rest.swap(true, SeqCst) && self.queue.try_send(Message::Rest).is_err() {
                    self.shared.close();
                }
                true
            }
            Written::Not => false,
            Written::Never => {
                self.writer = None;
                false
            }
        }
    }

    /// An empty batch: one that came back, or a new one.
    pub fn empty_batch(&mut self) -> Vec<E> {
        self.empties.try_recv().unwrap_or_else(|_| Vec::with_capacity(EVENT_BATCH))
    }

    /// Sets what is called, on the sink's thread, when there is room after a refusal. Once a
    /// refusal; a call too many is possible and harmless.
    pub fn set_waker(&mut self, waker: Callback) {
        let ring = &self.shared.rings[self.ring];
        *lock(&ring.waker) = Some(waker.clone());
        // Room may have come after a refusal and before there was a waker.
        if ring.in_flight.load(SeqCst) < EVENT_BATCHES && ring.waiting.swap(false, SeqCst) {
            waker();
        }
    }

    /// The number of this loop, from 0: the `thread` of its events.
    #[must_use]
    pub fn ring(&self) -> usize {
        self.ring
    }

    /// Batches that were accepted and did not come back yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.rings[self.ring].in_flight.load(SeqCst)
    }
}
