//! Bars drawn with letters: where the samples of a distribution lie, and how ratios compare.

use super::document::{Block, cut};
use super::figures::{Compared, Figure, Spread, Unit};
use super::show;

/// Columns of a bar.
const WIDE: usize = 48;

/// A line for each distribution on one logarithmic axis: the denser the letter, the more samples lie there.
pub(super) fn latencies(drawn: impl Iterator<Item = (String, Spread)>) -> Vec<Block> {
    let drawn: Vec<_> = drawn.filter(|(_, spread)| spread.count > 0).collect();
    let log = |nanos: u64| (nanos.max(1) as f64).ln();
    let ends = drawn.iter().filter_map(|(_, spread)| Some((log(spread.min_ns?), log(spread.max_ns?))));
    let Some((low, high)) = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Vec::new() };
    let column = |nanos: u64| {
        let part = if high > low { (log(nanos) - low) / (high - low) } else { 0.0 };
        (part.clamp(0.0, 1.0) * (WIDE - 1) as f64).round() as usize
    };
    let name = drawn.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = drawn
        .iter()
        .map(|(way, spread)| format!("{way:name$} |{}|", bar(spread, column)).trim_end().to_owned())
        .collect();
    let (from, to) =
        (show::nanos(Some(low.exp().round() as u64)), show::nanos(Some(high.exp().round() as u64)));
    let gap = WIDE.saturating_sub(from.len() + to.len());
    lines.push(format!("{:name$}  {from}{:gap$}{to}", "", ""));
    lines.push(format!("{:name$}  █ to p50   ▓ to p90   ▒ to p99   ░ to the greatest; logarithmic", ""));
    vec![Block::Drawing(lines)]
}

fn bar(spread: &Spread, column: impl Fn(u64) -> usize) -> String {
    let mut letters = [' '; WIDE];
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

/// CPU per beat of every subject against the base, which is the whole of a bar unless another is longer.
pub(super) fn ratios(comparison: &Compared) -> Vec<Block> {
    let ratio =
        |row: &super::figures::Row| Some((cut(&row.subject.name), row.cell(Figure::Cpu).ratio?.median));
    let ratios: Vec<(String, f64)> = comparison.rows.iter().filter_map(ratio).collect();
    let most = ratios.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
    let Some(base) = comparison.base.filter(|_| most > 0.0) else { return Vec::new() };
    let name = ratios.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!("CPU per beat, {} is 1", cut(base))];
    for (subject, ratio) in &ratios {
        // Whoever costs anything has a mark.
        let marks = (ratio / most * WIDE as f64).round().clamp(1.0, WIDE as f64) as usize;
        let value = show::value(Some(*ratio), Unit::Ratio);
        lines.push(format!("{subject:name$} {} {value}", "█".repeat(marks)));
    }
    vec![Block::Drawing(lines)]
}
