//! The trait by which a sink turns events into bytes.

use crate::time::{Instant, WallClock};

/// What a sink writes, and how. It is called on the sink's thread, and on a loop's thread where that writes itself.
///
/// Nothing here may fail or block: an encoder appends to a buffer.
pub trait Encode: Send + 'static {
    /// The first line: everything is ready.
    type Opening: Send + 'static;
    /// An event of the service.
    type Event: Send + 'static;
    /// The last line: the summary.
    type Closing: Send + 'static;

    /// Sets the relation between clock and date. Called before everything that is written together.
    fn set_clock(&mut self, wall: WallClock);

    /// Appends the first line.
    fn opening(&mut self, opening: &Self::Opening, into: &mut Vec<u8>);

    /// Appends an event of the loop `ring`, or nothing.
    fn event(&mut self, ring: usize, event: &Self::Event, into: &mut Vec<u8>);

    /// Appends the last line.
    fn closing(&mut self, closing: &Self::Closing, into: &mut Vec<u8>);

    /// Whether there is a status line, written anew when nothing happens. Asked once, by [`Sink::spawn`](super::sink::Sink::spawn); the two
    /// methods below are called only if there is one.
    fn has_status(&self) -> bool {
        false
    }

    /// Clears the status line, so that lines can take its place.
    fn clear_status(&mut self, into: &mut Vec<u8>) {
        let _ = into;
    }

    /// Writes the status line, without an end of line.
    fn status(&mut self, now: Instant, into: &mut Vec<u8>) {
        let _ = (now, into);
    }
}
