//! Events for people: one sentence a line, and a status line on a terminal.
//!
//! # Model
//!
//! ```text
//! 12:00:01.234Z  died         127.0.0.1:40312        heartbeat_expired  silent 7.003 s, program silent, …
//! ```
//!
//! On a terminal, lines break between words at its width, the status line is cleared before lines are written and
//! written anew after them, and routine lines beyond [`ROUTINE_LINES_PER_SECOND`] are folded into one line of counts
//! a second.
//!
//! # Contract
//!
//! - No byte that a peer chose reaches the terminal as a control character.
//! - Without colour and terminal, no escape sequence is written, and no line is broken or folded.
//! - Times of day are UTC, marked by a `Z`.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use crate::events::body::append;
use crate::events::counters::Totals;
use crate::limits::ROUTINE_LINES_PER_SECOND;
use crate::measure::Percentiles;
use crate::time::{Instant, WallClock};

/// The width of the column of event names: `half_closed`, `path_outage`. A longer name moves its line.
const NAME: usize = 11;
/// Where the text of a line begins: behind `12:00:00.000Z  ` and the name.
const TEXT: usize = 15 + NAME + 2;
/// On a narrower terminal a line's continuation is indented by four.
const NARROW: usize = 60;

/// A colour of the terminal's own palette (ECMA-48: SGR), so that it suits its background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// A problem of a peer.
    Red = 31,
    /// A good turn.
    Green = 32,
    /// The colour of a doubt.
    Yellow = 33,
    /// A problem of our own, or of the path.
    Magenta = 35,
    /// An orderly end.
    Cyan = 36,
}

/// The terminal that lines go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// None: a pipe, a file, or a terminal without escape sequences.
    #[default]
    None,
    /// The standard output of the process.
    Stdout,
    /// The standard error of the process.
    Stderr,
    /// A terminal of this width.
    Columns(usize),
}

impl Screen {
    /// The width of the terminal now; `None` where there is none or it does not say.
    fn columns(self) -> Option<usize> {
        let size = match self {
            Screen::None => None,
            Screen::Stdout => terminal_size::terminal_size_of(io::stdout()),
            Screen::Stderr => terminal_size::terminal_size_of(io::stderr()),
            Screen::Columns(columns) => return Some(columns),
        };
        size.map(|(width, _)| usize::from(width.0)).filter(|&width| width > 0)
    }
}

/// Writes lines and the status line.
#[derive(Debug)]
pub struct HumanEncoder {
    wall: WallClock,
    colour: bool,
    screen: Screen,
    columns: Option<usize>,
    fold: Fold,
    /// The length of the status line on the screen, in characters.
    shown: usize,
    /// When the rates were last counted, from which totals, and the result, a second.
    counted: Option<(Instant, Totals)>,
    rates: [f64; 5],
}

/// The routine lines of one second.
#[derive(Debug, Default)]
struct Fold {
    second: u64,
    written: u32,
    counts: BTreeMap<&'static str, u64>,
}

impl HumanEncoder {
    /// An encoder. It reads the clock.
    pub(super) fn new(colour: bool, screen: Screen) -> HumanEncoder {
        HumanEncoder {
            wall: WallClock::read(),
            colour,
            screen,
            columns: screen.columns(),
            fold: Fold::default(),
            shown: 0,
            counted: None,
            rates: [0.0; 5],
        }
    }

    /// Sets the relation between clock and date, and reads the terminal's width anew.
    pub(super) fn set_clock(&mut self, wall: WallClock) {
        self.wall = wall;
        self.columns = self.screen.columns();
    }

    /// Whether lines go to a terminal, which has a status line.
    pub(super) fn has_status(&self) -> bool {
        self.screen != Screen::None
    }

    /// Appends a line: when, the event's name, and its text.
    pub fn line(&mut self, at: Instant, name: &str, colour: Colour, text: &str, out: &mut Vec<u8>) {
        self.unfold(at, out);
        let time = self.time_of_day(at);
        if self.colour {
            append(out, format_args!("{time}  \x1b[{}m{name:<NAME$}\x1b[0m  ", colour as u8));
        } else {
            append(out, format_args!("{time}  {name:<NAME$}  "));
        }
        self.wrap(TEXT + name.len().saturating_sub(NAME), TEXT, text, out);
    }

    /// Appends a line without a time.
    pub fn plain(&mut self, text: fmt::Arguments<'_>, out: &mut Vec<u8>) {
        self.wrap(0, 4, &text.to_string(), out);
    }

    /// Counts a routine event in place of its line, when this second had its lines. Returns whether it did.
    pub(super) fn folds(&mut self, at: Instant, word: &'static str, out: &mut Vec<u8>) -> bool {
        if !self.has_status() {
            return false;
        }
        self.unfold(at, out);
        if self.fold.written < ROUTINE_LINES_PER_SECOND {
            self.fold.written += 1;
            return false;
        }
        *self.fold.counts.entry(word).or_default() += 1;
        true
    }

    /// Appends the counts of the second before that of `at`, if events were folded in it.
    fn unfold(&mut self, at: Instant, out: &mut Vec<u8>) {
        let second = at.as_nanos() / 1_000_000_000;
        if second <= self.fold.second {
            return; // loops hand over batches, which may be a little out of order
        }
        let fold = std::mem::replace(&mut self.fold, Fold { second, ..Fold::default() });
        self.write_fold(&fold, out);
    }

    /// Appends the counts that no line has shown, before the last lines.
    pub(super) fn unfold_all(&mut self, out: &mut Vec<u8>) {
        let fold = std::mem::take(&mut self.fold);
        self.write_fold(&fold, out);
    }

    fn write_fold(&self, fold: &Fold, out: &mut Vec<u8>) {
        if fold.counts.is_empty() {
            return;
        }
        let counts: Vec<_> = fold.counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let time = self.time_of_day(Instant::from_nanos(fold.second * 1_000_000_000));
        append(out, format_args!("{time}  {:<NAME$}  ", "folded"));
        self.wrap(TEXT, TEXT, &format!("{} more in this second", counts.join(", ")), out);
    }

    /// Appends a text that begins at column `start`, broken between words at the terminal's width, and ends the line.
    fn wrap(&self, start: usize, indent: usize, text: &str, out: &mut Vec<u8>) {
        let columns = self.columns.unwrap_or(usize::MAX);
        let indent = if columns < NARROW { 4 } else { indent };
        let mut column = start;
        for word in text.trim_end_matches(' ').split_inclusive(' ') {
            if column + word.trim_end_matches(' ').chars().count() > columns && column > indent {
                while out.last() == Some(&b' ') {
                    out.pop();
                }
                append(out, format_args!("\n{:indent$}", ""));
                column = indent;
            }
            out.extend_from_slice(word.as_bytes());
            column += word.chars().count();
        }
        out.push(b'\n');
    }

    /// Clears the status line, so that lines can take its place. A terminal that became narrower shows it on several
    /// rows.
    pub(super) fn clear_status(&mut self, out: &mut Vec<u8>) {
        if !self.has_status() {
            return;
        }
        let shown = std::mem::take(&mut self.shown);
        match self.columns.map_or(0, |columns| shown.saturating_sub(1) / columns) {
            0 => out.extend_from_slice(b"\r\x1b[K"),
            rows => append(out, format_args!("\r\x1b[{rows}A\x1b[J")),
        }
    }

    /// Brings the rates up to date, and returns them, in events a second. They are counted over at least a second:
    /// over less they flicker.
    pub(super) fn rates(&mut self, totals: &Totals, now: Instant) -> [f64; 5] {
        match self.counted {
            None => self.counted = Some((now, *totals)),
            Some((then, before)) if now.since(then) >= Duration::from_secs(1) => {
                let seconds = now.since(then).as_secs_f64();
                for (rate, (now, before)) in self.rates.iter_mut().zip(totals.iter().zip(before)) {
                    *rate = now.saturating_sub(before) as f64 / seconds;
                }
                self.counted = Some((now, *totals));
            }
            Some(_) => {}
        }
        self.rates
    }

    /// Writes the status line, as much of it as fits, without an end of line.
    pub(super) fn status(&mut self, text: &str, now: Instant, out: &mut Vec<u8>) {
        self.clear_status(out);
        self.unfold(now, out);
        let text = fitting(text, self.columns.unwrap_or(80).saturating_sub(1));
        self.shown = text.chars().count();
        out.extend_from_slice(text.as_bytes());
    }

    /// `12:00:01.234Z`.
    pub fn time_of_day(&self, at: Instant) -> String {
        let date = self.wall.rfc3339(at);
        let time = date.split_once('T').map_or("", |(_, time)| time);
        format!("{}Z", time.get(..12).unwrap_or(time))
    }
}

/// As much of a status line as fits, cut before a comma or a gap where there is one.
fn fitting(text: &str, columns: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(columns) else { return text };
    let boundary = |place: &usize| text[*place..].starts_with(", ") || text[*place..].starts_with("  ");
    let places = (0..=end).rev().filter(|&place| text.is_char_boundary(place));
    &text[..places.into_iter().find(boundary).unwrap_or(end)]
}

/// A number of things: `1 thread`, `2 threads`.
pub(super) struct Count(pub(super) u64, pub(super) &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A length of time in the two units that matter.
pub(super) struct Span(pub(super) Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match seconds {
            0..60 if millis == 0 => write!(f, "{seconds} s"),
            0..60 => write!(f, "{seconds}.{millis:03} s"),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} min", seconds / 3_600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
        }
    }
}

/// The percentiles that a sample carries, in `unit`.
pub(super) fn numbers(sample: &Percentiles, unit: &str) -> String {
    let Percentiles { count, min, p50, p90, p99, p999, max, .. } = *sample;
    let named = [("min", min), ("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max)];
    let carried = named.into_iter().filter_map(|(name, value)| Some(format!("{name} {} {unit}, ", value?)));
    format!("{}of {count}", carried.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(columns: usize) -> HumanEncoder {
        let mut human = HumanEncoder::new(false, Screen::Columns(columns));
        human.set_clock(WallClock::fixed(0));
        human
    }

    fn text(out: Vec<u8>) -> String {
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_breaks_between_words_at_the_terminals_width() {
        let sentence =
            "127.0.0.1:40312  heartbeat_expired  silent 7.003 s, program silent, kernel answering; lived 9 s";
        for columns in [40, 64, 80, 200] {
            let mut out = Vec::new();
            encoder(columns).line(Instant::ZERO, "died", Colour::Red, sentence, &mut out);
            let text = text(out);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}: {text}");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&text)[2..], words(sentence), "{columns}");
            assert_eq!(text.lines().count() == 1, columns == 200);
        }
    }

    #[test]
    fn a_status_line_fits_its_row_and_is_cleared_from_all_rows_after_a_resize() {
        let status = "96 alive, 3 suspect, 1 half-closed, 0 died  (+60/s -0/s)";
        for (columns, shown) in [
            (80, status),
            (57, status),
            (56, "96 alive, 3 suspect, 1 half-closed, 0 died"),
            (30, "96 alive, 3 suspect"),
            (5, "96 a"),
        ] {
            let mut human = encoder(columns);
            let mut out = Vec::new();
            human.status(status, Instant::ZERO, &mut out);
            assert_eq!(text(out), format!("\r\x1b[K{shown}"));
        }
        let mut human = encoder(80);
        human.status(status, Instant::ZERO, &mut Vec::new());
        human.columns = Some(20);
        let mut out = Vec::new();
        human.clear_status(&mut out);
        assert_eq!(text(out), "\r\x1b[2A\x1b[J", "56 characters stand on three rows of 20");
    }

    #[test]
    fn routine_lines_beyond_the_rate_become_one_line_of_counts() {
        let mut human = encoder(80);
        let mut out = Vec::new();
        let mut written = 0;
        for number in 0..u64::from(ROUTINE_LINES_PER_SECOND) + 1_000 {
            let word = if number % 2 == 0 { "up" } else { "closed" };
            written += u32::from(!human.folds(Instant::from_nanos(5_000_000_000 + number), word, &mut out));
        }
        assert_eq!((written, out.len()), (ROUTINE_LINES_PER_SECOND, 0));
        human.status("", Instant::from_nanos(6_000_000_000), &mut out);
        let folded = text(out);
        assert!(
            folded.contains("00:00:05.000Z  folded       500 closed, 500 up more in this second\n"),
            "{folded}"
        );
        let mut pipe = HumanEncoder::new(false, Screen::None);
        assert!((0..10_000).all(|_| !pipe.folds(Instant::ZERO, "up", &mut Vec::new())), "a pipe gets all");
    }

    #[test]
    fn a_span_is_shown_in_the_units_that_matter() {
        for (millis, text) in [
            (0, "0 s"),
            (7_003, "7.003 s"),
            (59_999, "59.999 s"),
            (60_000, "1 min 0 s"),
            (3_725_000, "1 h 2 min"),
            (180_000_000, "2 d 2 h"),
        ] {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
