//! What a tracker thread measures of itself, and its summary.
//!
//! # Intuition
//!
//! A mean hides the one peer in a thousand that was judged too late, so every quantity is kept as a histogram.
//! Recording must cost little beside the work that it measures: it is one increment in an array that is allocated at
//! the start.
//!
//! # Model
//!
//! Every thread owns one [`Recorder`]. At the end all are [merged](Recorder::merge) and
//! [summarized](Recorder::summary) in a [`Summary`] of plain integers. `result` is the file of a bench, `log` reads a
//! latency log, and `report` makes reports of both.
//!
//! # Contract
//!
//! - Recording allocates nothing and cannot fail. A value beyond the range (a day, or 16 million completions) is counted
//!   at the end of the range and as `clipped`; the greatest value stays exact.
//! - `count`, `min` and `max` are exact; a percentile is at most 1 % too high.
//! - A percentile that the sample does not [carry](carries) is `None`: at least ten samples must lie beyond
//!   it.
//! - Units are in the names. Times are rounded down.
//!
//! # Example
//!
//! ```
//! use deadpeer::measure::Recorder;
//! use std::time::Duration;
//!
//! let mut recorder = Recorder::new();
//! for micros in 1..=100 {
//!     recorder.verdict(Duration::from_micros(micros));
//! }
//! let summary = recorder.summary();
//! assert_eq!(summary.verdict_us.count, 100);
//! assert_eq!(summary.verdict_us.max, Some(100));
//! assert_eq!(summary.verdict_us.p50, Some(50));
//! assert_eq!(summary.verdict_us.p90, Some(90));
//! assert_eq!(summary.verdict_us.p99, None); // wants 1,000 samples
//! assert_eq!(summary.rtt_us.count, 0);
//! ```

#[cfg(feature = "report")]
pub mod hlog;
pub mod intervals;
#[cfg(feature = "report")]
pub mod log;
#[cfg(feature = "report")]
pub mod recorded;
#[cfg(feature = "report")]
pub mod report;
#[cfg(feature = "report")]
pub mod result;

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::liveness::{Cause, Death};
use crate::time::nanos;

/// The longest time with a place of its own: a day, in nanoseconds.
const LONGEST: u64 = 86_400_000_000_000;
/// The largest batch with a place of its own.
const LARGEST: u64 = 1 << 24;
/// Significant digits: percentiles within 1 %. Three digits would take eight times the memory (300 KB instead of 40 KB
/// for a histogram), for a precision that two runs do not share.
const DIGITS: u8 = 2;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// What one thread measured. It takes about 240 KB.
#[derive(Clone, Debug)]
pub struct Recorder {
    verdict: Distribution,
    lateness: Distribution,
    silence: Distribution,
    turn: Distribution,
    batch: Distribution,
    rtt: Distribution,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// An empty recorder. All its memory is allocated here.
    #[must_use]
    pub fn new() -> Recorder {
        let [verdict, lateness, silence, turn, rtt] =
            [LONGEST; 5].map(|most| Distribution::up_to(most, DIGITS));
        let batch = Distribution::up_to(LARGEST, DIGITS);
        let mut recorder = Recorder { verdict, lateness, silence, turn, batch, rtt };
        // Writes to all of its memory, so that no page fault happens during a measurement.
        recorder.clear();
        recorder
    }

    /// Records a verdict on what the network reported: from the wake to the verdict.
    pub fn verdict(&mut self, took: Duration) {
        self.verdict.record(nanos(took));
    }

    /// Records an expiry: from the deadline to the verdict.
    pub fn lateness(&mut self, late: Duration) {
        self.lateness.record(nanos(late));
    }

    /// Records a silent death: from the last proof of life to the verdict.
    pub fn silence(&mut self, silent: Duration) {
        self.silence.record(nanos(silent));
    }

    /// Records the lateness of an expiry, and the silence of a peer to which a policy's detection time applied. It does
    /// not apply to a peer that never spoke: the silence of such a peer is the handshake time.
    pub fn death(&mut self, death: &Death) {
        if let Some(late) = death.lateness() {
            self.lateness(late);
        }
        if matches!(death.cause, Cause::HeartbeatExpired | Cause::KeepaliveExpired) {
            self.silence(death.silent_for());
        }
    }

    /// Records one turn of the loop without its wait.
    pub fn turn(&mut self, took: Duration) {
        self.turn.record(nanos(took));
    }

    /// Records the number of completions of one turn.
    pub fn batch(&mut self, completions: usize) {
        self.batch.record(completions as u64);
    }

    /// Records a round trip of a heartbeat.
    pub fn rtt(&mut self, rtt: Duration) {
        self.rtt.record(nanos(rtt));
    }

    /// The number of turns that were recorded.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turn.histogram.len()
    }

    /// Adds the values of another thread.
    pub fn merge(&mut self, other: &Recorder) {
        self.verdict.merge(&other.verdict);
        self.lateness.merge(&other.lateness);
        self.silence.merge(&other.silence);
        self.turn.merge(&other.turn);
        self.batch.merge(&other.batch);
        self.rtt.merge(&other.rtt);
    }

    /// Empties the recorder. Its memory stays allocated.
    pub fn clear(&mut self) {
        let Recorder { verdict, lateness, silence, turn, batch, rtt } = self;
        [verdict, lateness, silence, turn, batch, rtt].into_iter().for_each(Distribution::clear);
    }

    /// All histograms with their tags in a latency log. Values are nanoseconds; those of `batch-size` are numbers of
    /// completions.
    #[must_use]
    pub fn histograms(&self) -> [(&'static str, &Histogram<u64>); 6] {
        [
            ("loop-turn", &self.turn.histogram),
            ("batch-size", &self.batch.histogram),
            ("deadline-lateness", &self.lateness.histogram),
            ("heartbeat-rtt", &self.rtt.histogram),
            ("wake-to-verdict", &self.verdict.histogram),
            ("silence", &self.silence.histogram),
        ]
    }

    /// Summarizes all values.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            verdict_us: self.verdict.percentiles(MICRO),
            lateness_us: self.lateness.percentiles(MICRO),
            silence_ms: self.silence.percentiles(MILLI),
            loop_turn_us: self.turn.percentiles(MICRO),
            batch: self.batch.percentiles(1),
            rtt_us: self.rtt.percentiles(MICRO),
            turns: self.turns(),
        }
    }
}

/// What a recorder measured. The unit is in the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Summary {
    /// From the wake to the verdict, of deaths that the network reported.
    pub verdict_us: Percentiles,
    /// From the deadline to the verdict, of expiries.
    pub lateness_us: Percentiles,
    /// From the last proof of life to the verdict, of silent deaths.
    pub silence_ms: Percentiles,
    /// Turns of the loop, each without its wait.
    pub loop_turn_us: Percentiles,
    /// Completions of a turn.
    pub batch: Percentiles,
    /// Round trips of heartbeats.
    pub rtt_us: Percentiles,
    /// The number of turns of the loop.
    pub turns: u64,
}

/// A distribution in a few numbers. `None`: the sample does not carry the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Percentiles {
    /// The number of samples.
    pub count: u64,
    /// The least value.
    pub min: Option<u64>,
    /// The median; `None` without samples.
    pub p50: Option<u64>,
    /// p90, from 100 samples on.
    pub p90: Option<u64>,
    /// p99, from 1,000 samples on.
    pub p99: Option<u64>,
    /// p99.9, from 10,000 samples on.
    pub p999: Option<u64>,
    /// The greatest value, exact even beyond the range.
    pub max: Option<u64>,
    /// The number of samples beyond the range. Not serialized when it is 0.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_zero"))]
    pub clipped: u64,
}

#[cfg(feature = "serde")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Whether a sample of `count` values carries a percentile (0 to 100): at least ten values lie beyond it. p99 needs
/// 1,000 samples, p99.99 needs 100,000. Any sample carries the median.
#[must_use]
pub fn carries(count: u64, percentile: f64) -> bool {
    let beyond = count as f64 * (100.0 - percentile) / 100.0;
    // 1,000 x 0.01 is slightly less than 10 in binary.
    count > 0 && (percentile <= 50.0 || percentile >= 100.0 || beyond >= 10.0 - 1e-6)
}

/// A histogram with an exact least and greatest value.
#[derive(Clone, Debug, PartialEq)]
struct Distribution {
    histogram: Histogram<u64>,
    highest: u64,
    min: u64,
    max: u64,
    clipped: u64,
}

impl Distribution {
    fn up_to(highest: u64, digits: u8) -> Distribution {
        let histogram = Histogram::new_with_bounds(1, highest, digits);
        let histogram =
            histogram.expect("bounds from 1 to more than 2, and two or three digits, are in range");
        Distribution { histogram, highest, min: u64::MAX, max: 0, clipped: 0 }
    }

    fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    fn record_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        if value > self.highest {
            self.clipped = self.clipped.saturating_add(times);
        }
        self.histogram.saturating_record_n(value.min(self.highest), times);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn clear(&mut self) {
        self.histogram.reset();
        (self.min, self.max, self.clipped) = (u64::MAX, 0, 0);
    }

    fn merge(&mut self, other: &Distribution) {
        assert!(self.highest == other.highest, "only like is merged with like");
        self.histogram.add(&other.histogram).expect("histograms of the same bounds can be added");
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.clipped = self.clipped.saturating_add(other.clipped);
    }

    /// `None`: the sample does not [carry](carries) it.
    fn percentile(&self, percentile: f64) -> Option<u64> {
        // A histogram returns the upper end of a bucket, which may lie beyond the greatest value.
        let value = || self.histogram.value_at_percentile(percentile).clamp(self.min, self.max);
        carries(self.histogram.len(), percentile).then(value)
    }

    fn percentiles(&self, unit: u64) -> Percentiles {
        let count = self.histogram.len();
        let at = |percentile| self.percentile(percentile).map(|value| value / unit);
        Percentiles {
            count,
            min: (count > 0).then_some(self.min / unit),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: (count > 0).then_some(self.max / unit),
            clipped: self.clipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_invented() {
        let nothing = Recorder::new().summary();
        assert_eq!(nothing, Summary::default());
        let json = serde_json::to_string(&nothing.verdict_us).unwrap();
        let expected = r#"{"count":0,"min":null,"p50":null,"p90":null,"p99":null,"p999":null,"max":null}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn a_percentile_wants_enough_samples() {
        let mut recorder = Recorder::new();
        for (samples, p90, p99, p999) in [
            (1, false, false, false),
            (99, false, false, false),
            (100, true, false, false),
            (999, true, false, false),
            (1_000, true, true, false),
            (9_999, true, true, false),
            (10_000, true, true, true),
        ] {
            while recorder.summary().rtt_us.count < samples {
                let before = recorder.summary().rtt_us;
                recorder.rtt(Duration::from_micros(before.count + 1));
            }
            let rtt = recorder.summary().rtt_us;
            assert_eq!((rtt.p50.is_some(), rtt.p90.is_some()), (true, p90), "{samples}");
            assert_eq!((rtt.p99.is_some(), rtt.p999.is_some()), (p99, p999), "{samples}");
        }
    }

    #[test]
    fn ends_are_exact_and_percentiles_are_within_one_percent() {
        let mut recorder = Recorder::new();
        for micros in 1..=100_000 {
            recorder.verdict(Duration::from_micros(micros));
        }
        let verdict = recorder.summary().verdict_us;
        assert_eq!((verdict.min, verdict.max), (Some(1), Some(100_000)));
        for (value, exact) in
            [(verdict.p50, 50_000), (verdict.p90, 90_000), (verdict.p99, 99_000), (verdict.p999, 99_900)]
        {
            let value = value.unwrap();
            assert!(value >= exact && value * 100 <= exact * 101, "{value} for {exact}");
        }
    }

    #[test]
    fn what_is_beyond_the_range_is_counted_and_its_greatest_kept() {
        let mut recorder = Recorder::new();
        recorder.silence(Duration::from_secs(7));
        recorder.silence(Duration::from_secs(200_000));
        recorder.silence(Duration::MAX);
        let silence = recorder.summary().silence_ms;
        assert_eq!((silence.count, silence.clipped), (3, 2));
        assert_eq!(silence.min, Some(7_000));
        assert_eq!(silence.max, Some(u64::MAX / MILLI));
        assert!(serde_json::to_string(&silence).unwrap().contains(r#""clipped":2"#));
    }

    #[test]
    fn merging_is_as_if_one_thread_had_seen_it_all() {
        let (mut whole, mut left, mut right) = (Recorder::new(), Recorder::new(), Recorder::new());
        for value in 0..5_000_u64 {
            let half = if value % 3 == 0 { &mut left } else { &mut right };
            for recorder in [&mut whole, half] {
                let time = Duration::from_nanos(value * value);
                recorder.verdict(time);
                recorder.lateness(time);
                recorder.silence(time);
                recorder.turn(time);
                recorder.batch(value as usize);
                recorder.rtt(time);
            }
        }
        left.merge(&right);
        left.merge(&Recorder::new());
        assert_eq!(left.summary(), whole.summary());
        assert_eq!(left.turns(), 5_000);
    }
}
