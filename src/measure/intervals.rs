//! What was measured, interval by interval, handed from a ring's thread to one that may block.
//!
//! # Intuition
//!
//! A ring's thread can neither wait for a disk nor copy 240 KB of histograms in the middle of a turn. So there are two
//! recorders: one is filled while the other one is being written, and at the end of an interval they change
//! places.
//!
//! # Contract
//!
//! - [`Tap::close`] never blocks and allocates nothing.
//! - Nothing is lost: while the spare one is not back yet, the interval goes on, and is told as the longer one that
//!   it was.
//! - Whoever holds the [`Basin`] gives every recorder back, empty.
//!
//! # Example
//!
//! ```
//! use deadpeer::measure::Recorder;
//! use deadpeer::measure::intervals::basin;
//! use deadpeer::time::Instant;
//! use std::time::Duration;
//!
//! let start = Instant::from_nanos(0);
//! let (basin, mut taps) = basin(1, Duration::from_secs(10), start);
//! let mut recorder = Recorder::new();
//! recorder.turn(Duration::from_micros(30));
//! taps[0].close(&mut recorder, start + Duration::from_secs(10));
//! let interval = basin.next().unwrap();
//! assert_eq!((interval.recorder.turns(), recorder.turns()), (1, 0));
//! ```

use std::sync::mpsc::{Receiver, RecvError, SyncSender, sync_channel};
use std::time::Duration;

use super::Recorder;
use crate::time::Instant;

/// One ring's interval.
#[derive(Debug)]
pub struct Interval {
    /// Which ring.
    pub ring: usize,
    /// When it began.
    pub from: Instant,
    /// When it ended.
    pub to: Instant,
    /// What was measured in it.
    pub recorder: Recorder,
}

/// A ring's end.
#[derive(Debug)]
pub struct Tap {
    ring: usize,
    every: Duration,
    from: Instant,
    due: Instant,
    full: SyncSender<Interval>,
    empty: Receiver<Recorder>,
}

/// The end of the one that writes.
#[derive(Debug)]
pub struct Basin {
    full: Receiver<Interval>,
    empties: Vec<SyncSender<Recorder>>,
}

/// Taps for so many rings, whose intervals last `every` and begin `now`, and the basin that they flow into.
#[must_use]
pub fn basin(rings: usize, every: Duration, now: Instant) -> (Basin, Vec<Tap>) {
    // A ring has one spare, so it can have one interval on its way.
    let (send, full) = sync_channel(rings.max(1));
    let mut basin = Basin { full, empties: Vec::with_capacity(rings) };
    let taps = (0..rings).map(|ring| {
        let (give, empty) = sync_channel(1);
        give.try_send(Recorder::new()).expect("an empty place takes one");
        basin.empties.push(give);
        Tap { ring, every, from: now, due: now + every, full: send.clone(), empty }
    });
    let taps = taps.collect();
    (basin, taps)
}

impl Tap {
    /// Ends the interval if its time is over and the spare recorder is back: `recorder` is handed over, and is
    /// an empty one afterwards.
    pub fn close(&mut self, recorder: &mut Recorder, now: Instant) {
        if now < self.due {
            return;
        }
        let Ok(spare) = self.empty.try_recv() else { return };
        let recorded = std::mem::replace(recorder, spare);
        let interval = Interval { ring: self.ring, from: self.from, to: now, recorder: recorded };
        if let Err(kept) = self.full.try_send(interval) {
            // Nobody writes any more: then it stays here for the summary.
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(interval) | Disconnected(interval)) = kept;
            *recorder = interval.recorder;
            return;
        }
        self.from = now;
        self.due = now + self.every;
    }

    /// When the interval is over, unless that has passed: then it is the spare one that is waited for, and no
    /// hurry helps.
    #[must_use]
    pub fn due_after(&self, now: Instant) -> Option<Instant> {
        (self.due > now).then_some(self.due)
    }

    /// When the interval began that is not handed over yet.
    #[must_use]
    pub fn open_since(&self) -> Instant {
        self.from
    }
}

impl Basin {
    /// The next interval; waits for it.
    ///
    /// # Errors
    ///
    /// When all taps are gone.
    pub fn next(&self) -> Result<Interval, RecvError> {
        self.full.recv()
    }

    /// Gives a recorder back, which is emptied here.
    pub fn give_back(&self, ring: usize, mut recorder: Recorder) {
        recorder.clear();
        // There is one place for the one recorder of each ring; a ring that has ended takes none.
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
        let (basin, mut taps) = basin(1, SECOND, start);
        let mut recorder = filled(3);
        taps[0].close(&mut recorder, start + SECOND / 2);
        assert_eq!(recorder.turns(), 3); // its time is not over
        assert_eq!(taps[0].due_after(start), Some(start + SECOND));
        taps[0].close(&mut recorder, start + SECOND);
        assert_eq!(recorder.turns(), 0);

        // Nobody takes it: ten intervals become one.
        for number in 2..12 {
            recorder.turn(SECOND);
            taps[0].close(&mut recorder, start + SECOND * number);
        }
        assert_eq!(recorder.turns(), 10);
        assert_eq!(taps[0].due_after(start + SECOND * 11), None); // a loop that woke for it would spin
        let first = basin.next().unwrap();
        assert_eq!((first.from, first.to, first.recorder.turns()), (start, start + SECOND, 3));
        basin.give_back(0, first.recorder);
        taps[0].close(&mut recorder, start + SECOND * 12);
        let second = basin.next().unwrap();
        assert_eq!((second.from, second.to), (start + SECOND, start + SECOND * 12));
        assert_eq!((second.recorder.turns(), recorder.turns()), (10, 0));
        assert_eq!(taps[0].open_since(), start + SECOND * 12);
    }

    #[test]
    fn when_nobody_writes_any_more_all_stays_for_the_summary() {
        let start = Instant::from_nanos(5);
        let (basin, mut taps) = basin(2, SECOND, start);
        drop(basin);
        let mut recorder = filled(7);
        taps[1].close(&mut recorder, start + SECOND);
        taps[1].close(&mut recorder, start + SECOND * 2);
        assert_eq!(recorder.turns(), 7);
        assert_eq!(taps[1].open_since(), start);
    }

    #[test]
    fn a_recorder_that_comes_back_is_empty() {
        let start = Instant::from_nanos(5);
        let (basin, mut taps) = basin(1, SECOND, start);
        let mut recorder = filled(7);
        for number in 1..4 {
            taps[0].close(&mut recorder, start + SECOND * number);
            assert_eq!(recorder.summary(), Recorder::new().summary());
            recorder.batch(1);
            let interval = basin.next().unwrap();
            basin.give_back(interval.ring, interval.recorder);
        }
    }
}
