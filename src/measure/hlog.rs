//! Writes an interval log for HdrHistogram's readers (`.hlog`). [`log`](super::log) reads it.
//!
//! # Model
//!
//! A header, and then a line for each interval and tag: its begin, its length, its greatest value, and the whole
//! histogram. Values are nanoseconds. A reader chooses a tag and a stretch of time and can compute any percentile.
//!
//! # Contract
//!
//! - Version 1.3 of the format; histograms are V2, deflated, base64: the readers for Java, Python and JavaScript refuse
//!   plain V2.
//! - The greatest value is in millions of the histogram's unit, as HdrHistogram writes it: in milliseconds where values
//!   are nanoseconds. It is for people; readers take the histogram.
//! - A line is one write, so a crash tears at most the last line.
//! - A tag has no comma, space or line end; [`tag`] makes a tag of any name.
//!
//! # Example
//!
//! ```
//! use deadpeer::measure::hlog::HlogWriter;
//! use deadpeer::measure::recorded::Recorded;
//! use std::time::Duration;
//!
//! let mut latency = Recorded::new();
//! latency.record(31_000);
//! let began = Duration::from_secs(1_764_056_400); // since the epoch
//! let mut log = HlogWriter::begin(Vec::new(), began, &["deadpeer 0.1.0"])?;
//! log.interval("detect-fin", Duration::ZERO, Duration::from_secs(1), latency.histogram())?;
//! let text = String::from_utf8(log.into_inner()).unwrap();
//! assert!(text.contains("\nTag=detect-fin,0.000,1.000,"));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

/// The unit of the greatest value, by HdrHistogram's convention.
const MAX_UNIT: f64 = 1e6;

/// Writes the histograms of intervals.
pub struct HlogWriter<W: Write> {
    out: W,
    serializer: V2DeflateSerializer,
    encoded: Vec<u8>,
}

impl<W: Write> fmt::Debug for HlogWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HlogWriter").finish_non_exhaustive()
    }
}

impl<W: Write> HlogWriter<W> {
    /// Writes the header. Intervals count from `began`, a time since the epoch. Comments are for people.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn begin(mut out: W, began: Duration, comments: &[&str]) -> io::Result<HlogWriter<W>> {
        let mut header = String::from("#[Histogram log format version 1.3]\n");
        for line in comments.iter().flat_map(|comment| comment.lines()) {
            header.push_str(&format!("# {line}\n"));
        }
        let seconds = seconds(began);
        header.push_str(&format!("#[StartTime: {seconds} (seconds since epoch)]\n"));
        header.push_str(&format!("#[BaseTime: {seconds} (seconds since epoch)]\n"));
        let columns = ["StartTimestamp", "Interval_Length", "Interval_Max", "Interval_Compressed_Histogram"];
        header.push_str(&format!("{}\n", columns.map(|column| format!("\"{column}\"")).join(",")));
        out.write_all(header.as_bytes())?;
        Ok(HlogWriter { out, serializer: V2DeflateSerializer::new(), encoded: Vec::new() })
    }

    /// Writes the histogram of a tag in an interval that began `start` after the begin of the log.
    ///
    /// # Errors
    ///
    /// Those of the output.
    ///
    /// # Panics
    ///
    /// When `tag` is not a tag: see [`tag`].
    pub fn interval(
        &mut self,
        tag: &str,
        start: Duration,
        length: Duration,
        histogram: &Histogram<u64>,
    ) -> io::Result<()> {
        assert!(is_tag(tag), "`{tag}` would not be read back as one tag");
        self.encoded.clear();
        let encoded = self.serializer.serialize(histogram, &mut self.encoded);
        encoded.map_err(|error| io::Error::other(error.to_string()))?;
        let (start, length, max) = (seconds(start), seconds(length), histogram.max() as f64 / MAX_UNIT);
        let line = format!("Tag={tag},{start},{length},{max:.3},{}\n", STANDARD.encode(&self.encoded));
        self.out.write_all(line.as_bytes())
    }

    /// The output that the log is written to.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// Seconds with three digits after the point, which all readers understand.
fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && !text.chars().any(|letter| letter == ',' || letter.is_whitespace() || letter.is_control())
}

/// The tag of a name: letters, digits and single dashes. `deadpeer --wake beat` is `deadpeer-wake-beat`.
#[must_use]
pub fn tag(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    let tag = words.collect::<Vec<_>>().join("-");
    if tag.is_empty() { "unnamed".to_owned() } else { tag }
}

/// Returns the length of the complete lines in `tail`, the last bytes of a log whose first byte is `first`. A crash may
/// leave a part of a line behind them, which would corrupt the next line. `None` if the file is no log, or no line ends
/// in `tail`.
#[must_use]
pub fn complete_lines(first: u8, tail: &[u8]) -> Option<usize> {
    let end = tail.iter().rposition(|&byte| byte == b'\n')?;
    (first == b'#').then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use proptest::prelude::*;

    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        histogram
    }

    #[test]
    fn what_is_written_is_read_back_by_tag_and_interval() {
        let (early, late) = (histogram(&[1, 2_000, 3_000_000]), histogram(&[7]));
        let began = Duration::from_millis(1_764_056_400_250);
        let mut log = HlogWriter::begin(Vec::new(), began, &["two lines\nof comment"]).unwrap();
        log.interval("a", Duration::ZERO, Duration::from_secs(1), &early).unwrap();
        log.interval("b-c", Duration::from_millis(1_500), Duration::from_millis(20), &late).unwrap();
        let text = log.into_inner();
        let entries: Vec<_> = IntervalLogIterator::new(&text).map(Result::unwrap).collect();
        assert!(matches!(entries[0], LogEntry::StartTime(at) if at == began), "{entries:?}");
        assert!(matches!(entries[1], LogEntry::BaseTime(at) if at == began), "{entries:?}");
        let LogEntry::Interval(second) = &entries[3] else { panic!("{entries:?}") };
        assert_eq!(second.tag().unwrap().as_str(), "b-c");
        assert_eq!(second.start_timestamp(), Duration::from_millis(1_500));
        assert_eq!(second.duration(), Duration::from_millis(20));
        for (entry, expected) in entries[2..].iter().zip([early, late]) {
            let LogEntry::Interval(interval) = entry else { panic!("{entry:?}") };
            let bytes = STANDARD.decode(interval.encoded_histogram()).unwrap();
            let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            assert_eq!(read, expected);
            assert_eq!(interval.max(), (expected.max() as f64 / 1e3).round() / 1e3);
        }
        assert_eq!(entries.len(), 4);
    }

    /// Counts the calls of write.
    struct Writes(usize);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_interval_is_one_write_so_that_a_crash_tears_at_most_one_line() {
        let mut log = HlogWriter::begin(Writes(0), Duration::ZERO, &[]).unwrap();
        log.interval("a", Duration::ZERO, Duration::from_secs(1), &histogram(&[1])).unwrap();
        assert_eq!(log.into_inner().0, 2);
    }

    #[test]
    #[should_panic(expected = "would not be read back as one tag")]
    fn a_tag_with_a_comma_is_the_callers_fault() {
        let mut log = HlogWriter::begin(Vec::new(), Duration::ZERO, &[]).unwrap();
        let _ = log.interval("a,b", Duration::ZERO, Duration::ZERO, &histogram(&[]));
    }

    proptest! {
        #[test]
        fn a_tag_can_be_made_of_any_name(name in ".{0,40}") {
            let tag = tag(&name);
            prop_assert!(is_tag(&tag), "{}", tag);
        }
    }

    #[test]
    fn a_tag_still_reads_like_the_name() {
        for (name, made) in
            [("fin", "fin"), ("deadpeer --wake beat", "deadpeer-wake-beat"), ("--", "unnamed")]
        {
            assert_eq!(tag(name), made);
        }
    }
}
