//! The progress of a measurement: a bar for each step, only on a terminal.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// The bar on standard error; hidden where that is no terminal.
pub(super) struct Progress(ProgressBar);

/// The number of marks of a full bar.
const MARKS: usize = 20;
const REDRAWN: Duration = Duration::from_millis(200);

impl Progress {
    pub(super) fn new() -> Progress {
        if !io::stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{passed}] {elapsed} {msg}") {
            bar.set_style(style.with_key("passed", |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A bar that cannot be written is not shown.
                let _ =
                    out.write_str(&marks(state.elapsed(), Duration::from_millis(state.len().unwrap_or(0))));
            }));
        }
        bar.enable_steady_tick(REDRAWN);
        Progress(bar)
    }

    /// Shows the next step, which takes about `lasts`.
    pub(super) fn step(&self, what: &str, lasts: Duration) {
        self.0.set_message(what.to_owned());
        self.0.set_length(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        self.0.reset_elapsed();
    }

    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// The marks for the share of a step that has passed. A step that takes longer than expected stays full.
fn marks(passed: Duration, whole: Duration) -> String {
    let share = passed.as_secs_f64() / whole.as_secs_f64().max(0.001);
    let full = ((share * MARKS as f64) as usize).min(MARKS);
    format!("{}{}", "#".repeat(full), ".".repeat(MARKS - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_time_and_never_overflows() {
        let full = |passed, whole| {
            let marks = marks(Duration::from_millis(passed), Duration::from_millis(whole));
            assert_eq!(marks.len(), MARKS);
            marks.matches('#').count()
        };
        assert_eq!(
            (full(0, 1_000), full(500, 1_000), full(1_000, 1_000), full(5_000, 1_000)),
            (0, 10, 20, 20)
        );
        assert_eq!((full(0, 0), full(7, 0)), (0, 20));
    }
}
