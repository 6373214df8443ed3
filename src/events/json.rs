//! Events for programs: JSON Lines, one object a line.
//!
//! # Contract
//!
//! - Every line is one valid JSON object and ends in a newline, whatever a peer calls itself.
//! - Every line has the same envelope: `event`, `seq` and, where the event is about a loop, `thread` come first,
//!   `mono_ns` and `time` last.
//! - `seq` counts the lines from 0, over all loops.
//! - Times are integers in the unit of the field's name, rounded down.
//! - A field without a value is left out. Only percentiles may be `null`: the sample is too small.
//! - A string holds no [unsafe character](crate::safe_text); each is written as `\uXXXX`.

use std::fmt;
use std::time::Duration;

use crate::events::body::{Body, append};
use crate::liveness::errno;
use crate::time::{Instant, WallClock};

/// The version of the format. Fields may be added within a version; none changes its meaning and none goes.
pub const VERSION: u32 = 1;

/// The effect of every limit that `saturated` reports.
pub(super) const SATURATED: &str = "new connections wait in the backlog until there is room";

/// Writes lines, and counts them.
#[derive(Debug)]
pub struct JsonEncoder {
    wall: WallClock,
    seq: u64,
}

impl JsonEncoder {
    /// An encoder at `seq` 0. It reads the clock.
    pub(super) fn new() -> JsonEncoder {
        JsonEncoder { wall: WallClock::read(), seq: 0 }
    }

    pub(super) fn set_clock(&mut self, wall: WallClock) {
        self.wall = wall;
    }

    /// The number of the next line.
    pub(super) fn next(&self) -> u64 {
        self.seq
    }

    /// Gives the next line this number.
    pub(super) fn go_back(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// Appends one line: the envelope around the fields that `body` gives.
    pub fn line(&mut self, event: &str, at: Instant, out: &mut Vec<u8>, body: impl FnOnce(&mut Body<'_>)) {
        append(out, format_args!(r#"{{"event":"{event}","seq":{}"#, self.seq));
        self.seq += 1;
        body(&mut Body::json(out));
        append(out, format_args!(r#","mono_ns":{},"time":"{}"}}"#, at.as_nanos(), self.wall.rfc3339(at)));
        out.push(b'\n');
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An errno by its name, or by its number where it has none.
pub(super) struct Errno(pub(super) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno::name(self.0) {
            "E?" => write!(f, "{}", self.0),
            name => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_envelope_around_its_fields() {
        let mut json = JsonEncoder { wall: WallClock::fixed(0), seq: 7 };
        let mut out = Vec::new();
        let at = Instant::from_nanos(5_000);
        json.line("resumed", at, &mut out, |body| {
            body.field("thread", 3);
        });
        let hostile = "\u{7f}\u{9b}\u{2028}\u{202e}\u{feff}\u{e0041}ü\n";
        json.line("x", at, &mut out, |body| {
            body.field("a", hostile).text(format_args!("for people"));
        });
        let expected = concat!(
            r#"{"event":"resumed","seq":7,"thread":3,"mono_ns":5000,"time":"1970-01-01T00:00:00.000005Z"}"#,
            "\n",
            r#"{"event":"x","seq":8,"a":"\u007f\u009b\u2028\u202e\ufeff\udb40\udc41ü\n","mono_ns":5000,"#,
            r#""time":"1970-01-01T00:00:00.000005Z"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_errno_without_a_name_is_its_number() {
        assert_eq!(Errno(libc::ETIMEDOUT).to_string(), "ETIMEDOUT");
        assert_eq!(Errno(4_000).to_string(), "4000");
    }
}
