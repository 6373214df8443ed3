//! Hands what was measured in an interval from a tracker thread to a thread that may block.
//!
//! # Intuition
//!
//! A tracker thread can neither wait for a disk nor copy 240 KB of histograms in the middle of a turn. So it has two
//! recorders: one is filled while the other is written, and at the end of an interval they change places.
//!
//! # Contract
//!
//! - [`IntervalSender::close`] never blocks and allocates nothing.
//! - Nothing is lost: until the spare recorder is back, the interval goes on and is reported with its real length.
//! - The holder of the [`IntervalReceiver`] gives every recorder back, empty.
//!
//! # Example
//!
//! ```
//! use deadpeer::measure::Recorder;
//! use deadpeer::measure::intervals::channel;
//! use deadpeer::time::Instant;
//! use std::time::Duration;
//!
//! let start = Instant::from_nanos(0);
//! let (receiver, mut senders) = channel(1, Duration::from_secs(10), start);
//! let mut recorder = Recorder::new();
//! recorder.turn(Duration::from_micros(30));
//! senders[0].close(&mut recorder, start + Duration::from_secs(10));
//! let interval = receiver.next().unwrap();
//! assert_eq!((interval.recorder.turns(), recorder.turns()), (1, 0));
//! ```

use std::sync::mpsc::{Receiver, RecvError, SyncSender, sync_channel};
use std::time::Duration;

use super::Recorder;
use crate::time::Instant;

/// An interval of one thread.
#[derive(Debug)]
pub struct Interval {
    /// The number of the thread.
    pub ring: usize,
    /// The begin of the interval.
    pub from: Instant,
    /// The end of the interval.
    pub to: Instant,
    /// What was measured in the interval.
    pub recorder: Recorder,
}

/// The sending end, held by a tracker thread.
#[derive(Debug)]
pub struct IntervalSender {
    ring: usize,
    every: Duration,
    from: Instant,
    due: Instant,
    full: SyncSender<Interval>,
    empty: Receiver<Recorder>,
}

/// The receiving end, held by the thread that writes.
#[derive(Debug)]
pub struct IntervalReceiver {
    full: Receiver<Interval>,
    empties: Vec<SyncSender<Recorder>>,
}

/// The receiver, and a sender for each of so many threads. Intervals last `every` and begin `now`.
#[must_use]
pub fn channel(rings: usize, every: Duration, now: Instant) -> (IntervalReceiver, Vec<IntervalSender>) {
    // A thread has one spare recorder, so at most one of its intervals is in the queue.
    let (send, full) = sync_channel(rings.max(1));
    let mut receiver = IntervalReceiver { full, empties: Vec::with_capacity(rings) };
    let senders = (0..rings).map(|ring| {
        let (give, empty) = sync_channel(1);
        give.try_send(Recorder::new()).expect("an empty place takes one");
        receiver.empties.push(give);
        IntervalSender { ring, every, from: now, due: now + every, full: send.clone(), empty }
    });
    let senders = senders.collect();
    (receiver, senders)
}

impl IntervalSender {
    /// Ends the interval if its time is over and the spare recorder is back: `recorder` is sent, and an empty one takes
    /// its place.
    pub fn close(&mut self, recorder: &mut Recorder, now: Instant) {
        if now < self.due {
            return;
        }
        let Ok(spare) = self.empty.try_recv() else { return };
        let recorded = std::mem::replace(recorder, spare);
        let interval = Interval { ring: self.ring, from: self.from, to: now, recorder: recorded };
        if let Err(kept) = self.full.try_send(interval) {
            // The writer has ended: the interval stays here for the summary.
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(interval) | Disconnected(interval)) = kept;
            *recorder = interval.recorder;
            return;
        }
        self.from = now;
        self.due = now + self.every;
    }

    /// The end of the interval. `None`: it has passed and the spare recorder is not back, so waking up would not help.
    #[must_use]
    pub fn due_after(&self, now: Instant) -> Option<Instant> {
        (self.due > now).then_some(self.due)
    }

    /// The begin of the current interval.
    #[must_use]
    pub fn open_since(&self) -> Instant {
        self.from
    }
}

impl IntervalReceiver {
    /// Waits for the next interval.
    ///
    /// # Errors
    ///
    /// When all senders are gone.
    pub fn next(&self) -> Result<Interval, RecvError> {
        self.full.recv()
    }

    /// Empties a recorder and gives it back.
    pub fn give_back(&self, ring: usize, mut recorder: Recorder) {
        recorder.clear();
        // Each thread has one place for its one spare recorder. A thread that has ended takes none.
        let _ = self.empties[ring].try_send(recorder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn filled(turns: u64) -> Recorder {
        let mut recorder = Recorder::new();
        (0..turns).for_each(|micros| recorder.turn(Duration::from_micros(micros)));
        recorder
    }

    #[test]
    fn while_the_writer_is_stuck_the_interval_goes_on_and_nothing_is_lost() {
        let start = Instant::from_nanos(5);
        let (receiver, mut senders) = channel(1, SECOND, start);
        let mut recorder = filled(3);
        senders[0].close(&mut recorder, start + SECOND / 2);
        assert_eq!(recorder.turns(), 3); // its time is not over
        assert_eq!(senders[0].due_after(start), Some(start + SECOND));
        senders[0].close(&mut recorder, start + SECOND);
        assert_eq!(recorder.turns(), 0);

        // The writer is stuck: ten intervals become one.
        for number in 2..12 {
            recorder.turn(SECOND);
            senders[0].close(&mut recorder, start + SECOND * number);
        }
        assert_eq!(recorder.turns(), 10);
        assert_eq!(senders[0].due_after(start + SECOND * 11), None); // a loop that woke for it would spin
        let first = receiver.next().unwrap();
        assert_eq!((first.from, first.to, first.recorder.turns()), (start, start + SECOND, 3));
        receiver.give_back(0, first.recorder);
        senders[0].close(&mut recorder, start + SECOND * 12);
        let second = receiver.next().unwrap();
        assert_eq!((second.from, second.to), (start + SECOND, start + SECOND * 12));
        assert_eq!((second.recorder.turns(), recorder.turns()), (10, 0));
        assert_eq!(senders[0].open_since(), start + SECOND * 12);
    }

    #[test]
    fn after_the_writer_has_ended_all_stays_for_the_summary() {
        let start = Instant::from_nanos(5);
        let (receiver, mut senders) = channel(2, SECOND, start);
        drop(receiver);
        let mut recorder = filled(7);
        senders[1].close(&mut recorder, start + SECOND);
        senders[1].close(&mut recorder, start + SECOND * 2);
        assert_eq!(recorder.turns(), 7);
        assert_eq!(senders[1].open_since(), start);
    }

    #[test]
    fn a_recorder_that_comes_back_is_empty() {
        let start = Instant::from_nanos(5);
        let (receiver, mut senders) = channel(1, SECOND, start);
        let mut recorder = filled(7);
        for number in 1..4 {
            senders[0].close(&mut recorder, start + SECOND * number);
            assert_eq!(recorder.summary(), Recorder::new().summary());
            recorder.batch(1);
            let interval = receiver.next().unwrap();
            receiver.give_back(interval.ring, interval.recorder);
        }
    }
}
