//! What every loop needs: an engine, listening sockets, and what several loops of one program share.

mod listener;
mod shared;
mod start;

pub use crate::sys::engine::{EngineChoice, Readiness};
pub use listener::{ListenError, Listener, bind};
pub(crate) use listener::{NotAccepted, inherit};
pub use shared::Shared;
pub use start::{Probed, StartError, probe};
pub(crate) use start::{obtained, suspended};

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
