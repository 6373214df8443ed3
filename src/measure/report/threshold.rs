//! Thresholds: conditions like `detect.fin.p99>2ms` under which a result is not good enough.
//!
//! # Model
//!
//! `NAME OP VALUE`: a [name](super::names), one of `>` `>=` `<` `<=`, and a value in the unit of what is named:
//! a duration (`2ms`), bytes (`300`, `1KiB`), or a number. `change.NAME` is the ratio of the second result's
//! value to the first's.
//!
//! # Contract
//!
//! - A threshold fails when its condition is true.
//! - It also fails when there is no figure: not measured, or not carried by its sample. No figure is no pass.
//! - A name that no figure has is an error.
//! - Of two results the second is asked.

use std::fmt;
use std::time::Duration;

use super::figures::Figures;
use super::unit::Unit;
use super::{names, show};

/// A condition under which a result is not good enough.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    name: String,
    /// One of [`OPERATORS`].
    operator: &'static str,
    limit: Limit,
    /// The limit as it was written.
    written: String,
}

/// The operators. The longer ones come first, so that `>=` is not read as `>`.
const OPERATORS: [&str; 4] = [">=", "<=", ">", "<"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// A number without a unit.
    Plain(f64),
    Nanos(f64),
    Bytes(f64),
}

impl Limit {
    fn parse(text: &str, duration: impl Fn(&str) -> Result<Duration, String>) -> Result<Limit, String> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            if let Ok(plain) = text.parse::<f64>()
                && plain.is_finite()
            {
                return Ok(Limit::Plain(plain));
            }
            for (unit, bytes) in [("KiB", 1024.0), ("MiB", 1_048_576.0), ("B", 1.0)] {
                let number = text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
                if let Some(number) = number.filter(|number| number.is_finite()) {
                    return Ok(Limit::Bytes(number * bytes));
                }
            }
        }
        duration(text).map(|duration| Limit::Nanos(duration.as_nanos() as f64))
    }

    /// The limit in this unit. `None`: it has another unit.
    fn of(self, unit: Unit) -> Option<f64> {
        match (self, unit) {
            (Limit::Plain(plain), Unit::Count | Unit::Ratio | Unit::Bytes) => Some(plain),
            // 0 needs no unit.
            (Limit::Plain(0.0), Unit::Nanos) => Some(0.0),
            (Limit::Nanos(nanos), Unit::Nanos) => Some(nanos),
            (Limit::Bytes(bytes), Unit::Bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Why a threshold cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThresholdError {
    /// It has no operator, no name or no value.
    Grammar(String),
    /// Its value cannot be read.
    Limit(String, String),
    /// No figure has the name.
    Unknown(String, String),
    /// The value has another unit than the figure.
    Unit(String, &'static str),
    /// It asks for a change, and there is one result.
    Alone(String),
}

impl fmt::Display for ThresholdError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThresholdError::Grammar(text) => {
                write!(out, "`{text}` is no threshold: write it like `detect.fin.p99>2ms`")
            }
            ThresholdError::Limit(text, reason) => {
                write!(out, "the value of the threshold `{text}` cannot be read: {reason}")
            }
            ThresholdError::Unknown(name, names) => {
                write!(out, "nothing in the result is called `{name}`; its names are: {names}")
            }
            ThresholdError::Unit(text, wanted) => {
                write!(out, "the threshold `{text}` compares unlike things: its value must be {wanted}")
            }
            ThresholdError::Alone(text) => {
                write!(out, "the threshold `{text}` is about a change: give two results")
            }
        }
    }
}

impl std::error::Error for ThresholdError {}

impl fmt::Display for Threshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}{}", self.name, self.operator, self.written)
    }
}

impl Threshold {
    /// Reads a threshold. `duration` reads a duration as on the command line.
    ///
    /// # Errors
    ///
    /// When the text is not a threshold.
    pub fn parse(
        text: &str,
        duration: impl Fn(&str) -> Result<Duration, String>,
    ) -> Result<Threshold, ThresholdError> {
        let grammar = || ThresholdError::Grammar(text.to_owned());
        // A name may hold any letter but these; a value holds none of them.
        let at = text.rfind(['<', '>']).ok_or_else(grammar)?;
        let operator = OPERATORS.into_iter().find(|operator| text[at..].starts_with(operator));
        let operator = operator.ok_or_else(grammar)?;
        let name = text[..at].trim();
        let written = text[at + operator.len()..].trim();
        if name.is_empty() || written.is_empty() {
            return Err(grammar());
        }
        let limit = Limit::parse(written, duration);
        let limit = limit.map_err(|reason| ThresholdError::Limit(text.to_owned(), reason))?;
        Ok(Threshold { name: name.to_owned(), operator, limit, written: written.to_owned() })
    }

    /// Asks the last of the results. `Some`: the reason why the threshold fails.
    ///
    /// # Errors
    ///
    /// When no such result can have the figure.
    pub fn failure(&self, results: &[Figures]) -> Result<Option<String>, ThresholdError> {
        let (value, unit) = self.value(results)?;
        let Some(limit) = self.limit.of(unit) else {
            let wanted = match unit {
                Unit::Nanos => "a duration with its unit, like `2ms`",
                Unit::Bytes => "a number of bytes, like `300` or `1KiB`",
                Unit::Count | Unit::Ratio => "a number without a unit",
            };
            return Err(ThresholdError::Unit(self.to_string(), wanted));
        };
        let holds = |value: f64| match self.operator {
            ">=" => value >= limit,
            "<=" => value <= limit,
            ">" => value > limit,
            _ => value < limit,
        };
        Ok(match value {
            Err(why) => Some(format!("{self}: {why}")),
            Ok(value) => holds(value).then(|| format!("{self}: it is {}", exact(value, unit))),
        })
    }

    fn value(&self, results: &[Figures]) -> Result<(Result<f64, String>, Unit), ThresholdError> {
        let find = |figures: &Figures, name: &str| {
            let unknown = || ThresholdError::Unknown(name.to_owned(), names::outline(figures));
            names::find(figures, name).ok_or_else(unknown)
        };
        let Some(name) = self.name.strip_prefix("change.") else {
            let figures = results.last().ok_or_else(|| ThresholdError::Grammar(self.to_string()))?;
            let named = find(figures, &self.name)?;
            return Ok((named.value, named.unit));
        };
        let [first, second] = results else { return Err(ThresholdError::Alone(self.to_string())) };
        let (before, after) = (find(first, name)?.value, find(second, name)?.value);
        let change = before.map_err(|why| format!("in the first result, {why}")).and_then(|before| {
            let after = after.map_err(|why| format!("in the second result, {why}"))?;
            if before > 0.0 { Ok(after / before) } else { Err("in the first result, it is 0".to_owned()) }
        });
        Ok((change, Unit::Ratio))
    }
}

/// A value with all digits, so that it does not read like the limit.
fn exact(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanos if value >= 1e3 => format!("{} ({value:.0} ns)", show::value(Some(value), unit)),
        Unit::Nanos => format!("{value:.1} ns"),
        Unit::Bytes => format!("{value:.1} B"),
        Unit::Count => format!("{value:.0}"),
        Unit::Ratio => format!("{value:.6}"),
    }
}
