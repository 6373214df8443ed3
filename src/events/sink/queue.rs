//! The queue between the loops and the sink's thread, and what they share beside it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Callback;
use crate::events::encoder::Stream;

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
    /// Lines that a full disk did not take.
    pub(super) dropped: AtomicU64,
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

/// A message in the queue.
pub(super) enum Message<S: Stream> {
    Opening(Box<S::Opening>),
    Batch {
        ring: usize,
        events: Vec<S::Event>,
    },
    /// A loop's thread has encoded what the output did not accept at once.
    Rest,
    Closing(Box<S::Closing>),
}
