//! The loop that joins an engine to a tracker: the only place that sees both.
//!
//! A turn, always in this order: wait; read the clock once; reap a batch of completions; decode them
//! into facts and feed them; let the wheel name who is due; perform the tracker's actions; hand its
//! events over; submit everything with the next wait. Nothing is decided inside the reap.
//!
//! [`Driver`] is one thread's loop on its own ring, or on epoll where there is none. What several of them share is in
//! [`Shared`]: how many connections there may still be, the table of local addresses, and the word
//! to stop.

mod conn;
mod listener;
mod locals;
mod shared;
mod turn;

pub use crate::sys::engine::{EngineChoice, Readiness};
#[cfg(feature = "proxy")]
pub(crate) use listener::NotAccepted;
pub use listener::{ListenError, Listener, bind};
pub use locals::Locals;
pub use shared::Shared;
pub use turn::{AdoptError, Driver, DriverConfig, Probed, Report, StartError, default_batch_window, probe};
#[cfg(feature = "proxy")]
pub(crate) use turn::{obtained, suspended};

use crate::liveness::{Event, TrackerCounts};

/// Where the events `E` of a loop go. It must never block: a loop that waits for a pipe is a loop that
/// judges late.
pub trait EventSink<E = Event, C = TrackerCounts> {
    /// Offers a batch of at most [`EVENT_BATCH`](crate::limits::EVENT_BATCH) events, and returns an empty one.
    ///
    /// # Errors
    ///
    /// When there is no room: the batch comes back and is offered again later, and meanwhile the
    /// events behind it wait in the tracker. The sink wakes the driver when there is room again.
    fn offer(&mut self, batch: Vec<E>) -> Result<Vec<E>, Vec<E>>;

    /// Tells how many there are now; called once a turn, so it must cost next to nothing.
    fn progress(&mut self, counts: &C) {
        let _ = counts;
    }
}

impl<E, C, F: FnMut(E)> EventSink<E, C> for F {
    /// Calls the function for each event.
    fn offer(&mut self, mut batch: Vec<E>) -> Result<Vec<E>, Vec<E>> {
        batch.drain(..).for_each(self);
        Ok(batch)
    }
}
