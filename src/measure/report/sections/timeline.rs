//! The timeline of a way to die: intervals, put together until a chart can show them.

use crate::measure::recorded::Recorded;
use crate::measure::report::document::{Course, Stretch};
use crate::measure::result::Interval;

/// Stretches that a chart can tell apart.
pub(super) const STRETCHES: usize = 90;

/// The course of a way. Intervals without deaths are left out.
pub(super) fn course(name: impl Into<String>, look: usize, intervals: &[Interval]) -> Course {
    let mut sorted: Vec<_> = intervals.iter().filter(|interval| interval.latency.count() > 0).collect();
    sorted.sort_by_key(|interval| interval.from_ns);
    let together = sorted.len().div_ceil(STRETCHES).max(1);
    let stretch = |chunk: &[&Interval]| {
        let mut latency = Recorded::new();
        chunk.iter().for_each(|interval| latency.merge(&interval.latency));
        let end = |interval: &&Interval| interval.from_ns.saturating_add(interval.length_ns);
        Some(Stretch {
            from_ns: chunk.first()?.from_ns,
            to_ns: chunk.last().map(end)?,
            p50: latency.percentile(50.0)?,
            max: latency.max()?,
        })
    };
    Course { name: name.into(), look, stretches: sorted.chunks(together).filter_map(stretch).collect() }
}

/// The least median and the greatest value of courses.
pub(super) fn range<'a>(courses: impl IntoIterator<Item = &'a Course>) -> Option<(u64, u64)> {
    let ends =
        courses.into_iter().flat_map(|course| &course.stretches).map(|stretch| (stretch.p50, stretch.max));
    ends.reduce(|(low, high), (p50, max)| (low.min(p50), high.max(max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_intervals_are_put_together_and_lose_no_greatest() {
        let interval = |place: u64| {
            let mut latency = Recorded::new();
            [5, 100 + place].into_iter().for_each(|value| latency.record(value));
            Interval { from_ns: place * 10, length_ns: 10, latency }
        };
        let intervals: Vec<_> = (0..1_000).map(interval).collect();
        let stretches = course("fin", 0, &intervals).stretches;
        assert!(stretches.len() <= STRETCHES);
        assert_eq!(stretches.iter().map(|stretch| stretch.max).max(), Some(1_099));
        assert_eq!((stretches[0].from_ns, stretches.last().unwrap().to_ns), (0, 10_000));
    }
}
