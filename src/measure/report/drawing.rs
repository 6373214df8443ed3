//! Charts drawn with letters, for terminals and Markdown.

use super::document::{Bar, Chart, Course, Curve, Plot, cut};
use super::figures::Spread;
use super::show;
use super::unit::Unit;

/// The columns of a bar, at most and at least.
const BAR: (usize, usize) = (48, 10);
/// The heights of a sparkline.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Charts of one kind, in lines of at most `width` columns where names leave room for that.
pub(super) fn draw(charts: &[Chart], width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut timelines = Vec::new();
    for chart in charts {
        match &chart.plot {
            Plot::Spectrum { curves, .. } => {
                lines.push(cut(&chart.title));
                spectrum(curves, width, &mut lines);
            }
            Plot::Ratios { base, bars, .. } => {
                lines.push(format!("{}: times {}", cut(&chart.title), cut(base)));
                ratios(bars, width, &mut lines);
            }
            Plot::Timeline { courses, range, until_ns, unit } => {
                timelines.extend(courses.iter().map(|course| (course, *range, *until_ns, *unit)));
            }
        }
    }
    timeline(&timelines, width, &mut lines);
    if charts.iter().any(|chart| matches!(chart.plot, Plot::Spectrum { .. })) {
        lines.push("█ to p50  ▓ to p90  ▒ to p99  ░ to max  (log)".to_owned());
    }
    lines
}

/// The columns of a bar beside a name and a figure.
fn bar_width(width: usize, beside: usize) -> usize {
    width.saturating_sub(beside).clamp(BAR.1, BAR.0)
}

fn longest<'a>(names: impl Iterator<Item = &'a str>, width: usize) -> usize {
    names.map(|name| cut(name).chars().count()).max().unwrap_or(0).min(width / 2)
}

/// A name in so many columns; a longer one is shortened.
fn named(name: &str, columns: usize) -> String {
    let name = cut(name);
    if name.chars().count() <= columns {
        return format!("{name:columns$}");
    }
    name.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// A line for each curve on one logarithmic axis: the denser the letter, the more samples are there.
fn spectrum(curves: &[Curve], width: usize, lines: &mut Vec<String>) {
    let log = |value: u64| (value.max(1) as f64).ln();
    let ends = curves.iter().filter_map(|curve| Some((log(curve.spread.min_ns?), log(curve.spread.max_ns?))));
    let Some((low, high)) = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return };
    let name = longest(curves.iter().map(|curve| curve.name.as_str()), width);
    let wide = bar_width(width, name + 3);
    let column = |value: u64| {
        let part = if high > low { (log(value) - low) / (high - low) } else { 0.0 };
        (part.clamp(0.0, 1.0) * (wide - 1) as f64).round() as usize
    };
    for curve in curves {
        lines.push(format!("{} |{}|", named(&curve.name, name), bar(&curve.spread, wide, column)));
    }
    let unit = curves.first().map_or(Unit::Nanos, |curve| curve.unit);
    let [from, to] = [low, high].map(|end| show::value(Some(end.exp().round()), unit));
    let gap = wide.saturating_sub(from.len() + to.len());
    lines.push(format!("{:name$}  {from}{:gap$}{to}", "", ""));
}

fn bar(spread: &Spread, wide: usize, column: impl Fn(u64) -> usize) -> String {
    let mut letters = vec![' '; wide];
    let Some(min) = spread.min_ns else { return letters.iter().collect() };
    let parts = [('█', spread.p50_ns), ('▓', spread.p90_ns), ('▒', spread.p99_ns), ('░', spread.max_ns)];
    let mut from = column(min);
    for (letter, end) in parts {
        // What the sample does not carry is drawn as part of the next.
        let Some(end) = end.map(&column) else { continue };
        for place in letters.iter_mut().take(end + 1).skip(from) {
            *place = letter;
        }
        from = from.max(end + 1);
    }
    letters.iter().collect()
}

/// A bar for each subject and result. The longest is the whole width.
fn ratios(bars: &[Bar], width: usize, lines: &mut Vec<String>) {
    let known = bars.iter().flat_map(|bar| bar.ratios.iter().flatten());
    let most = known.map(|ratio| ratio.median).fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let name = longest(bars.iter().map(|bar| bar.name.as_str()), width);
    let wide = bar_width(width, name + 10);
    for bar in bars {
        for (place, ratio) in bar.ratios.iter().enumerate() {
            let Some(ratio) = ratio else { continue };
            let marks = (ratio.median / most * wide as f64).round().clamp(1.0, wide as f64) as usize;
            let value = show::value(Some(ratio.median), Unit::Ratio);
            let name = if place == 0 { named(&bar.name, name) } else { " ".repeat(name) };
            lines.push(format!("{name} {} {value}", "█".repeat(marks)));
        }
    }
}

/// A sparkline for each course: the greatest value of each stretch, on a logarithmic scale.
fn timeline(all: &[(&Course, (u64, u64), u64, Unit)], width: usize, lines: &mut Vec<String>) {
    let name = longest(all.iter().map(|(course, ..)| course.name.as_str()), width);
    let wide = bar_width(width, name + 18);
    for (course, (low, high), until_ns, unit) in all {
        let mut most = vec![None; wide];
        for stretch in &course.stretches {
            let middle = stretch.from_ns / 2 + stretch.to_ns / 2;
            let at = (middle as f64 / (*until_ns).max(1) as f64 * wide as f64) as usize;
            let place = &mut most[at.min(wide - 1)];
            *place = (*place).max(Some(stretch.max));
        }
        let [low, high] = [*low, *high].map(|end| (end.max(1) as f64).ln());
        let height = |value: Option<u64>| {
            let Some(value) = value else { return ' ' };
            let part = if high > low { ((value.max(1) as f64).ln() - low) / (high - low) } else { 0.0 };
            HEIGHTS[(part.clamp(0.0, 1.0) * (HEIGHTS.len() - 1) as f64).round() as usize]
        };
        let greatest = course.stretches.iter().map(|stretch| stretch.max).max();
        let greatest = show::value(greatest.map(|value| value as f64), *unit);
        let drawn: String = most.into_iter().map(height).collect();
        lines.push(format!("{} {drawn} max {greatest}", named(&course.name, name)));
    }
}
