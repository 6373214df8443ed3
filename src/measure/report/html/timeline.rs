//! Over time: what the slowest of every stretch took, and its median below it. A stall that a
//! percentile of the whole hides stands out here, with its time.

use super::svg::{self, Area, Picture, Scale};
use super::text::time;
use crate::measure::recorded::Recorded;
use crate::measure::result::Interval;

/// Stretches that a picture can tell apart; more are drawn together.
const STRETCHES: usize = 90;

/// A stretch of the picture.
struct Stretch {
    from_ns: u64,
    to_ns: u64,
    p50: u64,
    max: u64,
}

/// One way to die of one or two results.
pub(super) struct Timeline<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// The intervals and the look of each result.
    pub(super) series: &'a [(&'a [Interval], usize)],
    pub(super) size: [f64; 2],
    /// Nanoseconds that all pictures must hold.
    pub(super) range: (u64, u64),
    /// The end of the horizontal axis.
    pub(super) until_ns: u64,
}

/// The least median and the greatest value of these intervals.
pub(super) fn range<'a>(all: impl IntoIterator<Item = &'a [Interval]>) -> Option<(u64, u64)> {
    let ends = all.into_iter().flat_map(stretches).map(|stretch| (stretch.p50, stretch.max));
    ends.reduce(|(low, high), (p50, max)| (low.min(p50), high.max(max)))
}

/// The end of the last interval.
pub(super) fn until<'a>(all: impl IntoIterator<Item = &'a [Interval]>) -> u64 {
    all.into_iter()
        .flatten()
        .map(|interval| interval.from_ns.saturating_add(interval.length_ns))
        .max()
        .unwrap_or(0)
}

/// Intervals with deaths, in order of time, so many together that a picture can show them.
fn stretches(intervals: &[Interval]) -> Vec<Stretch> {
    let mut sorted: Vec<_> = intervals.iter().filter(|interval| interval.latency.count() > 0).collect();
    sorted.sort_by_key(|interval| interval.from_ns);
    let together = sorted.len().div_ceil(STRETCHES).max(1);
    let stretch = |chunk: &[&Interval]| {
        let mut latency = Recorded::new();
        chunk.iter().for_each(|interval| latency.merge(&interval.latency));
        Some(Stretch {
            from_ns: chunk.first()?.from_ns,
            to_ns: chunk.last().map(|last| last.from_ns.saturating_add(last.length_ns))?,
            p50: latency.percentile(50.0)?,
            max: latency.max()?,
        })
    };
    sorted.chunks(together).filter_map(stretch).collect()
}

impl Timeline<'_> {
    /// The picture.
    pub(super) fn draw(&self) -> String {
        let (low, high) = svg::decades(self.range.0 as f64, self.range.1 as f64);
        let until = (self.until_ns as f64 / 1e9).max(1e-3);
        let [width, height] = self.size;
        let area = Area { left: 62.0, top: 8.0, right: width - 24.0, bottom: height - 44.0 };
        let x = Scale::linear(0.0, until, area.left, area.right);
        let y = Scale::logarithmic(low, high, area.bottom, area.top);
        let mut picture = Picture::new(self.id, self.size, self.name, &self.description());
        let up = svg::log_ticks(low, high, (height / 34.0) as usize, |nanos| time(nanos as u64));
        let across = svg::linear_ticks(until, 5, |seconds| format!("{} s", (seconds * 1e3).round() / 1e3));
        picture.frame(area, [&x, &y], [&across, &up], "since the load began");
        for (intervals, look) in self.series {
            draw(&mut picture, &stretches(intervals), *look, [x, y]);
        }
        picture.finish()
    }

    fn description(&self) -> String {
        let greatest = self.series.iter().flat_map(|(intervals, _)| *intervals);
        match greatest.filter_map(|interval| interval.latency.max()).max() {
            Some(max) => {
                format!("The maximum and the median of every interval. The greatest is {}.", time(max))
            }
            None => "Nothing was recorded.".to_owned(),
        }
    }
}

/// A line through the maxima with a mark on each, and one through the medians.
fn draw(picture: &mut Picture, stretches: &[Stretch], look: usize, [x, y]: [Scale; 2]) {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let middle = |stretch: &Stretch| f64::midpoint(seconds(stretch.from_ns), seconds(stretch.to_ns));
    let line = |value: fn(&Stretch) -> u64| {
        let mut points = Vec::new();
        let mut before = None;
        for stretch in stretches {
            // Where nobody died there is no line.
            if before.is_some_and(|end| end < stretch.from_ns) {
                points.push(None);
            }
            before = Some(stretch.to_ns);
            points.push(Some([x.at(middle(stretch)), y.at(value(stretch) as f64)]));
        }
        points
    };
    picture.path(&format!("median c{look}"), line(|stretch| stretch.p50));
    picture.path(&format!("line thin c{look}"), line(|stretch| stretch.max));
    if stretches.len() <= STRETCHES / 2 {
        let place = |stretch: &Stretch| [x.at(middle(stretch)), y.at(stretch.max as f64)];
        picture.marks(look, stretches.iter().map(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(from_ns: u64, length_ns: u64, values: &[u64]) -> Interval {
        let mut latency = Recorded::new();
        values.iter().for_each(|value| latency.record(*value));
        Interval { from_ns, length_ns, latency }
    }

    #[test]
    fn many_intervals_are_drawn_together_and_lose_no_greatest() {
        let intervals: Vec<_> = (0..1_000).map(|place| interval(place * 10, 10, &[5, 100 + place])).collect();
        let stretches = stretches(&intervals);
        assert!(stretches.len() <= STRETCHES);
        assert_eq!(stretches.iter().map(|stretch| stretch.max).max(), Some(1_099));
        assert_eq!((stretches[0].from_ns, stretches.last().unwrap().to_ns), (0, 10_000));
    }

    #[test]
    fn where_nobody_died_there_is_no_line() {
        let intervals =
            [interval(0, 10, &[7]), interval(10, 10, &[]), interval(20, 10, &[9]), interval(30, 10, &[8])];
        let series = [(&intervals[..], 0)];
        let timeline = Timeline {
            id: "x",
            name: "x",
            series: &series,
            size: [360.0, 190.0],
            range: (7, 9),
            until_ns: 40,
        };
        let picture = timeline.draw();
        let line = picture.lines().find(|line| line.contains("line thin")).unwrap();
        assert_eq!(line.matches('M').count(), 2, "{line}");
    }
}
