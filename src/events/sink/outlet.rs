//! The end of the queue that a loop has.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};

use super::Callback;
use super::queue::{Message, Shared, lock};
use super::writer::{OutputWriter, Written};
use crate::events::counters::Counters;
use crate::events::encoder::Stream;
use crate::limits::{EVENT_BATCH, EVENT_BATCHES};
use crate::reactor::EventSink;

/// One loop's way to the sink: its events, and its counts for the status line.
pub struct Outlet<S: Stream> {
    pub(super) ring: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<[Counters]>,
    pub(super) queue: SyncSender<Message<S>>,
    pub(super) empties: Receiver<Vec<S::Event>>,
    /// The writer, where this loop's thread may use it.
    pub(super) writer: Option<Arc<Mutex<OutputWriter<S>>>>,
}

impl<S: Stream> fmt::Debug for Outlet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("ring", &self.ring).field("in_flight", &self.in_flight()).finish()
    }
}

impl<S: Stream> EventSink<S::Event, S::Counts> for Outlet<S> {
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
    fn offer(&mut self, mut batch: Vec<S::Event>) -> Result<Vec<S::Event>, Vec<S::Event>> {
        assert!(batch.len() <= EVENT_BATCH, "a batch of {} events", batch.len());
        if batch.is_empty() {
            return Ok(batch);
        }
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

    /// Stores the counts for the status line.
    fn progress(&mut self, counts: &S::Counts) {
        self.counters[self.ring].store(S::totals(counts));
    }
}

impl<S: Stream> Outlet<S> {
    /// Writes a batch on this thread, if it is a small one and nothing waits to be written before it.
    fn write_at_once(&mut self, batch: &[S::Event]) -> bool {
        let Some(writer) = &self.writer else { return false };
        if batch.len() == EVENT_BATCH || self.shared.undelivered() > 0 {
            return false;
        }
        match OutputWriter::write_at_once(writer, self.ring, batch) {
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
    pub fn empty_batch(&mut self) -> Vec<S::Event> {
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

    /// Batches that were accepted and did not come back yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.rings[self.ring].in_flight.load(SeqCst)
    }
}
