//! A timeline: the greatest value of each stretch and its median. A stall that a percentile of the whole hides stands
//! out here, with its time.

use super::svg::{self, Area, Picture, Scale};
use crate::measure::report::document::{Chart, Course, Stretch};
use crate::measure::report::unit::Unit;

/// Stretches up to which each has a mark.
const MARKED: usize = 45;

/// Draws a timeline. `until` is the end of the axis of time and the unit of the values.
pub(super) fn draw(chart: &Chart, courses: &[Course], range: (u64, u64), until: (u64, Unit)) -> String {
    let (low, high) = svg::decades(range.0 as f64, range.1 as f64);
    let end = (until.0 as f64 / 1e9).max(1e-3);
    let size @ [width, height] = svg::size(chart);
    let area = Area { left: 62.0, top: 8.0, right: width - 24.0, bottom: height - 44.0 };
    let x = Scale::linear(0.0, end, area.left, area.right);
    let y = Scale::logarithmic(low, high, area.bottom, area.top);
    let description = format!("The greatest value and the median of every interval; {}.", chart.remark);
    let mut picture = Picture::new(&chart.id, size, &format!("{} over time", chart.title), &description);
    let up = svg::log_ticks(low, high, (height / 34.0) as usize, |value| svg::value(value, until.1));
    let across = svg::linear_ticks(end, 5, |seconds| format!("{} s", (seconds * 1e3).round() / 1e3));
    picture.frame(area, [&x, &y], [&across, &up], "since the start");
    courses.iter().for_each(|course| line(&mut picture, course, [x, y]));
    picture.finish()
}

/// A line through the maxima with a mark on each, and one through the medians.
fn line(picture: &mut Picture, course: &Course, [x, y]: [Scale; 2]) {
    let (stretches, look) = (&course.stretches, course.look);
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let middle = |stretch: &Stretch| f64::midpoint(seconds(stretch.from_ns), seconds(stretch.to_ns));
    let points = |value: fn(&Stretch) -> u64| {
        let mut points = Vec::new();
        let mut before = None;
        for stretch in stretches {
            // An interval without values leaves a gap.
            if before.is_some_and(|end| end < stretch.from_ns) {
                points.push(None);
            }
            before = Some(stretch.to_ns);
            points.push(Some([x.at(middle(stretch)), y.at(value(stretch) as f64)]));
        }
        points
    };
    picture.path(&format!("median c{look}"), points(|stretch| stretch.p50));
    picture.path(&format!("line thin c{look}"), points(|stretch| stretch.max));
    if stretches.len() <= MARKED {
        let place = |stretch: &Stretch| [x.at(middle(stretch)), y.at(stretch.max as f64)];
        picture.marks(look, stretches.iter().map(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::report::document::Plot;

    #[test]
    fn an_interval_without_deaths_leaves_a_gap_in_the_line() {
        let stretch = |from_ns: u64, max| Stretch { from_ns, to_ns: from_ns + 10, p50: max, max };
        let stretches = vec![stretch(0, 7), stretch(20, 9), stretch(30, 8)];
        let courses = vec![Course { name: "x".to_owned(), look: 0, stretches }];
        let plot =
            Plot::Timeline { courses: courses.clone(), range: (7, 9), until_ns: 40, unit: Unit::Nanos };
        let chart = Chart::new("x", "x", plot);
        let picture = draw(&chart, &courses, (7, 9), (40, Unit::Nanos));
        let line = picture.lines().find(|line| line.contains("line thin")).unwrap();
        assert_eq!(line.matches('M').count(), 2, "{line}");
    }
}
