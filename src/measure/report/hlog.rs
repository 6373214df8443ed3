//! All histograms of a result as an interval log (`.hlog`), by tag.
//!
//! The intervals of a way are those of the experiment. A comparison does not keep the times of its runs, so each
//! round is an interval of one second after the experiment.

use std::collections::BTreeSet;
use std::time::Duration;

use super::document::plain;
use super::figures::Figures;
use crate::measure::hlog::{HlogWriter, tag};
use crate::measure::recorded::Recorded;

/// The length of a round of a comparison in the log.
const ROUND_NS: u64 = 1_000_000_000;

struct Line<'a> {
    tag: String,
    start_ns: u64,
    length_ns: u64,
    recorded: &'a Recorded,
}

pub fn render(figures: &Figures) -> String {
    let result = figures.result;
    let mut lines = lines(figures);
    // Readers expect intervals in order of their begin.
    lines.sort_by_key(|line| line.start_ns);
    let program = format!("deadpeer {}, values in nanoseconds", plain(&result.program.version));
    let began = Duration::from_secs(epoch_seconds(&result.started).unwrap_or(0));
    let memory = "writing into memory does not fail";
    let mut log = HlogWriter::begin(Vec::new(), began, &[&program, &plain(&result.started)]).expect(memory);
    for line in lines {
        let (start, length) = (Duration::from_nanos(line.start_ns), Duration::from_nanos(line.length_ns));
        log.interval(&line.tag, start, length, line.recorded.histogram()).expect(memory);
    }
    String::from_utf8(log.into_inner()).expect("a log is text")
}

fn lines<'a>(figures: &Figures<'a>) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let mut taken = BTreeSet::new();
    for way in figures.detection.iter().flat_map(|detection| &detection.ways) {
        let tag = unique(&format!("detect {}", way.way), &mut taken);
        lines.extend(way.source.intervals.iter().map(|interval| Line {
            tag: tag.clone(),
            start_ns: interval.from_ns,
            length_ns: interval.length_ns,
            recorded: &interval.latency,
        }));
    }
    let behind = figures.result.experiment.as_ref().map_or(0, |experiment| experiment.lasted_ns);
    let Some(comparison) = &figures.comparison else { return lines };
    for row in &comparison.rows {
        let tag = unique(&format!("detect {}", row.subject.name), &mut taken);
        let detections =
            comparison.runs(&row.subject.name).filter_map(|run| Some((run, run.detection.as_ref()?)));
        lines.extend(detections.map(|(run, detection)| Line {
            tag: tag.clone(),
            start_ns: behind.saturating_add(run.round.saturating_mul(ROUND_NS)),
            length_ns: ROUND_NS,
            recorded: &detection.latency,
        }));
    }
    lines
}

/// The tag of a name. Of two names with the same tag the second gets a number.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let made = tag(name);
    let numbered = (2..).map(|number| format!("{made}-{number}"));
    let free = std::iter::once(made.clone()).chain(numbered).find(|tag| !taken.contains(tag));
    let free = free.expect("numbers do not end");
    taken.insert(free.clone());
    free
}

/// The seconds from the epoch to a date like `2026-11-25T07:40:00Z`.
fn epoch_seconds(date: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = date.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
    };
    let marks = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    if !marks.iter().all(|(at, mark)| date.get(*at..).is_some_and(|rest| rest.starts_with(*mark))) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leaps + (153 * month + 2) / 5 + day - 1;
    const TO_1970: u64 = 719_468;
    Some((days.checked_sub(TO_1970)?) * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_counted_from_the_epoch() {
        for (date, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59Z", Some(951_868_799)),
            ("2026-11-25T07:40:00Z", Some(1_795_592_400)),
            ("2026-11-25T07:40:00.123Z", Some(1_795_592_400)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("yesterday", None),
            ("", None),
            ("２０２６-11-25T07:40:00Z", None),
        ] {
            assert_eq!(epoch_seconds(date), seconds, "{date}");
        }
    }

    #[test]
    fn names_that_make_one_tag_are_told_apart() {
        let mut taken = BTreeSet::new();
        let made = ["a b", "a-b", "a  b", "c"].map(|name| unique(name, &mut taken));
        assert_eq!(made, ["a-b", "a-b-2", "a-b-3", "c"]);
    }
}
