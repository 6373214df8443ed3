//! Tables for people, figures for programs: medians, percentiles, goals.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Plain aligned text; the first column is a name, the others are figures.
#[derive(Debug, Serialize)]
pub struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: impl Into<String>, head: &[&str]) -> Table {
        let head = head.iter().map(|&word| word.to_string()).collect();
        Table { title: title.into(), head, rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row has one cell for each column of '{}'", self.title);
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]);
            cells.chain([&self.head[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        writeln!(out, "{}", self.title)?;
        let mut line = |cells: &[String]| {
            let mut text = String::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                match column {
                    0 => text.extend(["  ", cell, &padding]),
                    _ => text.extend(["  ", &padding, cell]),
                }
            }
            writeln!(out, "{}", text.trim_end())
        };
        line(&self.head)?;
        self.rows.iter().try_for_each(|row| line(row))
    }
}

/// A figure that the project promised, next to what was measured.
#[derive(Debug, Serialize)]
pub struct Goal {
    what: String,
    measured: f64,
    limit: f64,
    reached: bool,
}

impl Goal {
    pub fn at_most(what: impl Into<String>, measured: f64, limit: f64) -> Goal {
        Goal { what: what.into(), measured, limit, reached: measured <= limit }
    }

    pub fn at_least(what: impl Into<String>, measured: f64, limit: f64) -> Goal {
        Goal { what: what.into(), measured, limit, reached: measured >= limit }
    }

    pub fn table(goals: &[Goal]) -> Table {
        let mut table = Table::new("goals", &["what", "measured", "goal", "reached"]);
        for goal in goals {
            let reached = match (goal.reached, goal.measured.is_finite()) {
                (true, _) => "yes",
                (_, true) => "no",
                _ => "not measured",
            };
            table.row(vec![goal.what.clone(), short(goal.measured), short(goal.limit), reached.into()]);
        }
        table
    }
}

/// Min, median and max of some rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// None when nothing was measured.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Spread { min, median, max })
    }

    pub fn cells(self) -> [String; 3] {
        [short(self.min), short(self.median), short(self.max)]
    }
}

/// Three figures or so, whatever the size.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Latencies in nanoseconds, to three digits, up to 100 s.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("bounds that the crate accepts"))
    }

    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile in microseconds; 100 is the maximum.
    pub fn micros(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1_000.0
    }
}
