//! A distribution of durations that can be stored: exact ends and a histogram of three digits.
//!
//! # Intuition
//!
//! A result file must answer questions that come up after it was written, so it keeps whole histograms rather than
//! a choice of percentiles.
//!
//! # Contract
//!
//! - `count`, `min` and `max` are exact; percentiles are at most 0.1 % above what they stand for.
//! - A value beyond [`Recorded::LONGEST`] is counted at the end of the range and as `clipped`.
//! - A percentile that the sample [cannot carry](carries) is `None`.
//! - Serialized, the histogram is the standard compressed encoding (V2, deflated, base64) that every
//!   HdrHistogram library reads; what does not fit its own count is refused on reading.
//!
//! ```
//! use deadpeer::measure::recorded::Recorded;
//!
//! let mut latency = Recorded::new();
//! (1..=1_000).for_each(|micros| latency.record(micros * 1_000));
//! assert_eq!(latency.max(), Some(1_000_000));
//! assert_eq!(latency.percentile(99.9), None); // wants 10,000 samples
//! let stored = serde_json::to_string(&latency).unwrap();
//! assert_eq!(serde_json::from_str::<Recorded>(&stored).unwrap(), latency);
//! ```

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use super::Distribution;
pub use super::carries;
use crate::limits::{MAX_HISTOGRAM_BYTES, MAX_HISTOGRAM_SAMPLES};

/// The begin of every stored histogram: the cookie of V2 deflated, in base64.
pub(super) const COOKIE: &str = "HISTF";

/// A distribution of nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Recorded(Distribution);

/// The stored form. `count` and the ends are for readers without a histogram library.
#[derive(Serialize, Deserialize)]
struct Stored {
    count: u64,
    min_ns: Option<u64>,
    max_ns: Option<u64>,
    clipped: u64,
    /// HdrHistogram, V2, deflated, base64. Its values are nanoseconds.
    histogram: String,
}

impl Default for Recorded {
    fn default() -> Recorded {
        Recorded::new()
    }
}

impl Recorded {
    /// The longest time with a place of its own in the histogram: an hour.
    pub const LONGEST: u64 = 3_600_000_000_000;
    const DIGITS: u8 = 3;

    /// An empty distribution.
    #[must_use]
    pub fn new() -> Recorded {
        Recorded(Distribution::up_to(Recorded::LONGEST, Recorded::DIGITS))
    }

    /// Adds a value.
    pub fn record(&mut self, nanos: u64) {
        self.record_many(nanos, 1);
    }

    /// Adds a value so many times.
    pub fn record_many(&mut self, nanos: u64, times: u64) {
        self.0.record_many(nanos, times);
    }

    /// Adds the values of another distribution.
    pub fn merge(&mut self, other: &Recorded) {
        self.0.merge(&other.0);
    }

    /// The number of samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.histogram.len()
    }

    /// The number of samples beyond the range.
    #[must_use]
    pub fn clipped(&self) -> u64 {
        self.0.clipped
    }

    /// The least value, exact.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.0.min)
    }

    /// The greatest value, exact.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.0.max)
    }

    /// The mean, at most 0.1 % wrong.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.histogram.mean())
    }

    /// The value that so many per cent of the samples do not exceed. `None`: the sample does not
    /// [carry](carries) it.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> Option<u64> {
        self.0.percentile(percentile)
    }

    /// The histogram, in nanoseconds.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0.histogram
    }
}

impl From<Recorded> for Stored {
    fn from(recorded: Recorded) -> Stored {
        let mut bytes = Vec::new();
        let written = V2DeflateSerializer::new().serialize(&recorded.0.histogram, &mut bytes);
        written.expect("writing into memory does not fail");
        Stored {
            count: recorded.count(),
            min_ns: recorded.min(),
            max_ns: recorded.max(),
            clipped: recorded.clipped(),
            histogram: STANDARD.encode(bytes),
        }
    }
}

impl TryFrom<Stored> for Recorded {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Recorded, String> {
        if !stored.histogram.starts_with(COOKIE) {
            return Err(format!("a histogram cannot be read: it does not begin with {COOKIE}"));
        }
        let bytes = STANDARD.decode(&stored.histogram);
        let bytes = bytes.map_err(|error| format!("a histogram is not base64: {error}"))?;
        let mut recorded = Recorded::new();
        let fits = |digits, low, high| (digits, low, high) == (Recorded::DIGITS, 1, Recorded::LONGEST);
        let read = inflated(&bytes, fits)?;
        recorded.0.histogram.add(&read).map_err(|error| format!("a histogram is beyond an hour: {error}"))?;
        if recorded.count() != stored.count {
            let held = recorded.count();
            return Err(format!("a histogram holds {held} values, and `count` says {}", stored.count));
        }
        if stored.count > 0 {
            recorded.0.min = stored.min_ns.ok_or("`min_ns` is missing")?;
            recorded.0.max = stored.max_ns.ok_or("`max_ns` is missing")?;
            if recorded.0.min > recorded.0.max || stored.clipped > stored.count {
                return Err("`min_ns`, `max_ns`, `clipped` and `count` of a histogram contradict each other"
                    .to_owned());
            }
        }
        recorded.0.clipped = stored.clipped;
        Ok(recorded)
    }
}

/// Decodes a histogram in bounded memory and time. `fits` decides by its digits, its lowest and its highest value
/// whether it is read.
///
/// The crate's reader allocates as much memory as the head of the histogram asks for, up to 4 GB, and its arithmetic
/// overflows on the longest run of zeros. So the head and the runs are checked first.
pub(super) fn inflated(bytes: &[u8], fits: impl Fn(u8, u64, u64) -> bool) -> Result<Histogram<u64>, String> {
    /// Cookie, length, normalizing offset, digits, bounds, ratio: all big-endian.
    const HEAD: usize = 40;
    let broken = |what: &str| format!("a histogram cannot be read: {what}");
    // Behind a cookie and its length, a zlib stream of the plain encoding.
    let deflated = bytes.get(8..).ok_or_else(|| broken("it is too short"))?;
    let mut plain = Vec::new();
    let mut stream = ZlibDecoder::new(deflated).take(MAX_HISTOGRAM_BYTES + 1);
    stream.read_to_end(&mut plain).map_err(|error| broken(&error.to_string()))?;
    if plain.len() as u64 > MAX_HISTOGRAM_BYTES {
        return Err(broken("it inflates to more than a histogram has"));
    }
    let word = |at: usize| {
        plain.get(at..at + 4).map(|word| word.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    };
    let long = |at: usize| Some(word(at)? << 32 | word(at + 4)?);
    let head = || {
        let length = plain.len().checked_sub(HEAD)? as u64;
        let digits = u8::try_from(word(12)?).ok()?;
        (word(4)? == length && fits(digits, long(16)?, long(24)?)).then_some(())
    };
    if head().is_none() {
        return Err(broken("its head is not that of a latency in nanoseconds"));
    }
    let counts = &plain[HEAD..];
    // Nine bytes with all bits set are the one number whose negative does not fit.
    if counts.windows(9).any(|bytes| bytes.iter().all(|byte| *byte == 0xff)) {
        return Err(broken("a run of zeros is too long"));
    }
    let read: Histogram<u64> =
        Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|error| broken(&error.to_string()))?;
    if read.len() > MAX_HISTOGRAM_SAMPLES {
        return Err(broken("it has more samples than any experiment"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_wants_ten_samples_beyond_it() {
        for (percentile, least) in [(90.0, 100), (99.0, 1_000), (99.9, 10_000), (99.99, 100_000)] {
            assert!(carries(least, percentile), "p{percentile} of {least}");
            assert!(!carries(least - 1, percentile), "p{percentile} of {}", least - 1);
        }
        assert!(carries(1, 50.0) && carries(1, 100.0));
        assert!(!carries(0, 50.0) && !carries(0, 100.0));
    }

    #[test]
    fn what_is_stored_is_read_back_whole() {
        let mut recorded = Recorded::new();
        for value in [0, 1, 17, 123_456_789, Recorded::LONGEST + 5] {
            recorded.record(value);
        }
        for recorded in [recorded, Recorded::new()] {
            let text = serde_json::to_string(&recorded).unwrap();
            assert_eq!(serde_json::from_str::<Recorded>(&text).unwrap(), recorded);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut recorded = Recorded::new();
        recorded.record(5);
        let text = serde_json::to_string(&recorded).unwrap();
        for (from, to) in [
            (r#""count":1"#, r#""count":2"#),
            (r#""min_ns":5"#, r#""min_ns":null"#),
            (r#""histogram":"H"#, r#""histogram":"?"#),
        ] {
            let broken = text.replacen(from, to, 1);
            assert_ne!(broken, text, "{from} was not found");
            assert!(serde_json::from_str::<Recorded>(&broken).is_err(), "{from}");
        }
    }
}
