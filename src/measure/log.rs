//! Reads an interval log (`.hlog`): what `deadpeer run --latency-log` writes.
//!
//! # Contract
//!
//! - A log that was continued after a restart has several headers. Intervals count from the first interval.
//! - A torn last line, as a crash leaves it, is left out and told. Any other line that cannot be read is an error.
//! - Memory is bounded: two histograms at a time, and a few words for each interval.
//!
//! ```
//! use deadpeer::measure::hlog::HlogWriter;
//! use deadpeer::measure::log::Log;
//! use deadpeer::measure::recorded::Recorded;
//! use std::time::Duration;
//!
//! let mut latency = Recorded::new();
//! latency.record(31_000);
//! let mut out = HlogWriter::begin(Vec::new(), Duration::ZERO, &[])?;
//! out.interval("heartbeat-rtt", Duration::ZERO, Duration::from_secs(10), latency.histogram())?;
//! let log = Log::parse(&String::from_utf8(out.into_inner()).unwrap()).unwrap();
//! assert_eq!((log.tags[0].name.as_str(), log.tags[0].whole.count()), ("heartbeat-rtt", 1));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::recorded::{Recorded, inflated};
use super::report::document::Stretch;
use crate::limits::MAX_LOG_TAGS;

/// Stretches of a tag that a chart can tell apart.
const STRETCHES: u64 = 90;
/// The name of intervals without a tag.
const UNTAGGED: &str = "untagged";

/// A latency log.
#[derive(Clone, Debug)]
pub struct Log {
    /// The tags, in the order in which they first stand in the log.
    pub tags: Vec<Tag>,
    /// The number of intervals of all tags.
    pub intervals: u64,
    /// From the begin of the first interval to the end of the last.
    pub until_ns: u64,
    /// Whether the last line was torn.
    pub torn: bool,
}

/// The intervals of one tag.
#[derive(Clone, Debug)]
pub struct Tag {
    /// The name of the tag.
    pub name: String,
    /// The place among the tags, from 0.
    pub place: usize,
    /// All intervals together.
    pub whole: Recorded,
    /// The intervals in order of time, put together until a chart can show them.
    pub stretches: Vec<Stretch>,
}

/// Why a log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// A line is not an interval: its number from 1, and the reason.
    Line(usize, String),
    /// The log has more than [`MAX_LOG_TAGS`] tags.
    Tags,
}

impl fmt::Display for LogError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Line(line, reason) => write!(out, "no latency log: line {line}: {reason}"),
            LogError::Tags => write!(out, "no latency log of deadpeer: it has more than {MAX_LOG_TAGS} tags"),
        }
    }
}

impl std::error::Error for LogError {}

/// An interval before its histogram is decoded.
struct Entry<'a> {
    line: usize,
    from_ns: u64,
    to_ns: u64,
    encoded: &'a str,
}

impl Log {
    /// Whether a text is a log rather than a result file.
    #[must_use]
    pub fn is_log(text: &str) -> bool {
        text.starts_with("#[") || text.starts_with("Tag=")
    }

    /// Reads the text of a log.
    ///
    /// # Errors
    ///
    /// When a line other than the last is not an interval, or there are too many tags.
    pub fn parse(text: &str) -> Result<Log, LogError> {
        let mut tags: Vec<(&str, Vec<Entry<'_>>)> = Vec::new();
        let (mut base_ns, mut torn) = (0, false);
        let last = text.lines().count();
        for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim_end())) {
            if let Some(comment) = line.strip_prefix('#') {
                base_ns = header(comment).unwrap_or(base_ns);
                continue;
            }
            if line.is_empty() || line.starts_with('"') {
                continue;
            }
            // What a line says is known to be whole when its histogram can be read.
            let entry = entry(line, base_ns, number);
            let whole = entry.and_then(|(tag, entry)| {
                if number == last {
                    decoded(&entry)?;
                }
                Ok((tag, entry))
            });
            match whole {
                Ok((tag, entry)) => {
                    let place = tags.iter().position(|(name, _)| *name == tag).unwrap_or(tags.len());
                    if place == MAX_LOG_TAGS {
                        return Err(LogError::Tags);
                    }
                    if place == tags.len() {
                        tags.push((tag, Vec::new()));
                    }
                    tags[place].1.push(entry);
                }
                Err(_) if number == last => torn = true,
                Err(error) => return Err(error),
            }
        }
        let all = || tags.iter().flat_map(|(_, entries)| entries);
        let first_ns = all().map(|entry| entry.from_ns).min().unwrap_or(0);
        let until_ns = all().map(|entry| entry.to_ns).max().unwrap_or(0).saturating_sub(first_ns);
        let intervals = all().count() as u64;
        let tags = tags.into_iter().enumerate().map(|(place, (name, mut entries))| {
            for entry in &mut entries {
                entry.from_ns -= first_ns;
                entry.to_ns -= first_ns;
            }
            let (whole, stretches) = summed(entries, until_ns)?;
            Ok(Tag { name: name.to_owned(), place, whole, stretches })
        });
        Ok(Log { tags: tags.collect::<Result<_, _>>()?, intervals, until_ns, torn })
    }
}

/// The instant from which further intervals count, if a comment says it.
fn header(comment: &str) -> Option<u64> {
    let rest = comment.strip_prefix("[BaseTime:").or_else(|| comment.strip_prefix("[StartTime:"))?;
    nanos(rest.split_whitespace().next()?)
}

/// Seconds with a fraction as nanoseconds.
fn nanos(text: &str) -> Option<u64> {
    let seconds: f64 = text.trim().parse().ok()?;
    (0.0..=1e10).contains(&seconds).then(|| (seconds * 1e9).round() as u64)
}

/// `Tag=NAME,START,LENGTH,MAX,HISTOGRAM`; the tag may be missing.
fn entry(line: &str, base_ns: u64, number: usize) -> Result<(&str, Entry<'_>), LogError> {
    let wrong = |what: &str| LogError::Line(number, what.to_owned());
    let (tag, rest) = match line.strip_prefix("Tag=") {
        Some(tagged) => tagged.split_once(',').ok_or_else(|| wrong("it has a tag only"))?,
        None => (UNTAGGED, line),
    };
    let cells: Vec<&str> = rest.split(',').collect();
    let [start, length, _, encoded] = cells[..] else { return Err(wrong("it has not four columns")) };
    let (Some(start), Some(length)) = (nanos(start), nanos(length)) else {
        return Err(wrong("its begin or its length is not a number of seconds"));
    };
    let from_ns = base_ns.saturating_add(start);
    Ok((tag, Entry { line: number, from_ns, to_ns: from_ns.saturating_add(length), encoded }))
}

/// All values of an interval.
fn decoded(entry: &Entry<'_>) -> Result<Recorded, LogError> {
    let wrong = |what: String| LogError::Line(entry.line, what);
    let bytes = STANDARD.decode(entry.encoded);
    let bytes = bytes.map_err(|error| wrong(format!("the histogram is not base64: {error}")))?;
    let fits = |digits, low, high| (1..=3).contains(&digits) && low == 1 && high <= 1 << 50;
    let histogram = inflated(&bytes, fits).map_err(wrong)?;
    let mut recorded = Recorded::new();
    for step in histogram.iter_recorded() {
        recorded.record_many(step.value_iterated_to(), step.count_since_last_iteration());
    }
    Ok(recorded)
}

/// All intervals of a tag together, and in stretches. The intervals of several threads that begin together are one
/// stretch.
fn summed(mut entries: Vec<Entry<'_>>, until_ns: u64) -> Result<(Recorded, Vec<Stretch>), LogError> {
    entries.sort_by_key(|entry| entry.from_ns);
    let usual = entries.get(entries.len() / 2).map_or(1, |entry| entry.to_ns - entry.from_ns);
    let width = usual.max(until_ns / STRETCHES).max(1);
    let (mut whole, mut stretches) = (Recorded::new(), Vec::new());
    for together in entries.chunk_by(|one, other| one.from_ns / width == other.from_ns / width) {
        let mut stretch = Recorded::new();
        for entry in together {
            stretch.merge(&decoded(entry)?);
        }
        whole.merge(&stretch);
        let to_ns = together.iter().map(|entry| entry.to_ns).max();
        if let (Some(first), Some(to_ns)) = (together.first(), to_ns)
            && let (Some(p50), Some(max)) = (stretch.percentile(50.0), stretch.max())
        {
            stretches.push(Stretch { from_ns: first.from_ns, to_ns, p50, max });
        }
    }
    Ok((whole, stretches))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::measure::Recorder;
    use crate::measure::hlog::HlogWriter;

    fn written(began: u64, intervals: u64) -> String {
        let mut log = HlogWriter::begin(Vec::new(), Duration::from_secs(began), &["a comment"]).unwrap();
        for number in 0..intervals {
            let mut recorder = Recorder::new();
            (1..=10).for_each(|micros| recorder.turn(Duration::from_micros(micros * (number + 1))));
            recorder.batch(3);
            for (tag, histogram) in recorder.histograms().into_iter().filter(|(_, values)| !values.is_empty())
            {
                let start = Duration::from_secs(number * 10);
                log.interval(tag, start, Duration::from_secs(10), histogram).unwrap();
            }
        }
        String::from_utf8(log.into_inner()).unwrap()
    }

    #[test]
    fn a_log_is_read_by_tag_and_over_time() {
        let log = Log::parse(&written(1_764_056_400, 3)).unwrap();
        let names: Vec<_> = log.tags.iter().map(|tag| (tag.name.as_str(), tag.whole.count())).collect();
        assert_eq!(names, [("loop-turn", 30), ("batch-size", 3)]);
        assert_eq!((log.intervals, log.until_ns, log.torn), (6, 30_000_000_000, false));
        assert_eq!(log.tags[1].whole.max(), Some(3));
        let turns = &log.tags[0];
        let max = turns.whole.max().unwrap();
        assert!((30_000..30_300).contains(&max), "{max}");
        let froms: Vec<_> = turns.stretches.iter().map(|stretch| stretch.from_ns / 1_000_000_000).collect();
        assert_eq!(froms, [0, 10, 20]);
        assert!(turns.stretches.windows(2).all(|pair| pair[0].max < pair[1].max));
    }

    #[test]
    fn a_log_that_was_continued_counts_from_its_first_interval() {
        let log = Log::parse(&(written(1_000, 1) + &written(1_100, 1))).unwrap();
        assert_eq!(log.until_ns, 110_000_000_000);
        assert_eq!(log.tags[0].stretches[1].from_ns, 100_000_000_000);
    }

    #[test]
    fn many_intervals_are_put_together_and_lose_no_value() {
        let log = Log::parse(&written(0, 1_000)).unwrap();
        let turns = &log.tags[0];
        assert!(turns.stretches.len() <= STRETCHES as usize + 1, "{}", turns.stretches.len());
        assert_eq!(turns.whole.count(), 10_000);
        assert_eq!(turns.stretches.iter().map(|stretch| stretch.max).max(), turns.whole.max());
    }

    #[test]
    fn a_torn_end_is_left_out_and_any_other_broken_line_is_an_error() {
        let text = written(0, 2);
        let torn = Log::parse(&text[..text.len() - 20]).unwrap();
        assert_eq!((torn.intervals, torn.torn), (3, true));
        for (broken, reason) in [
            ("Tag=a", "a tag only"),
            ("Tag=a,0,1", "four columns"),
            ("Tag=a,x,1,0,HISTFAAA", "number of seconds"),
            ("Tag=a,0,1,0,?", "base64"),
            ("0.0,1.0,0.0,HISTFAAAAAAAAAAAAAAA", "cannot be read"),
        ] {
            let error = Log::parse(&format!("{broken}\n{text}")).unwrap_err().to_string();
            assert!(error.contains("line 1: ") && error.contains(reason), "{broken}: {error}");
        }
    }

    #[test]
    fn more_tags_than_a_report_shows_are_refused() {
        let text = written(0, 1);
        let line = text.lines().last().unwrap();
        let many = (0..=MAX_LOG_TAGS).map(|number| line.replace("batch-size", &format!("t{number}")));
        assert_eq!(Log::parse(&many.collect::<Vec<_>>().join("\n")).unwrap_err(), LogError::Tags);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_mutation_of_a_log_makes_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = written(7, 2).into_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Log::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
