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
use std::io::{self, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::liveness::errno;
use crate::safe_text::is_unsafe;
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

    /// Appends one line: the fields of `body`, which must be a map, in the envelope.
    pub(super) fn line(
        &mut self,
        event: &str,
        thread: Option<usize>,
        at: Instant,
        body: &impl Serialize,
        out: &mut Vec<u8>,
    ) {
        append(out, format_args!(r#"{{"event":"{event}","seq":{}"#, self.seq));
        self.seq += 1;
        if let Some(thread) = thread {
            append(out, format_args!(r#","thread":{thread}"#));
        }
        let start = out.len();
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, SafeStrings);
        body.serialize(&mut serializer).expect("a Vec takes every byte, and every key is a string");
        // `{...}` becomes `,...`, and `{}` nothing.
        out.pop();
        if out.len() == start + 1 {
            out.pop();
        } else {
            out[start] = b',';
        }
        append(out, format_args!(r#","mono_ns":{},"time":"{}"}}"#, at.as_nanos(), self.wall.rfc3339(at)));
        out.push(b'\n');
    }
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every byte");
}

/// The compact format, with unsafe characters escaped.
struct SafeStrings;

impl serde_json::ser::Formatter for SafeStrings {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        // Control characters below 0x20 are escaped before they come here.
        if text.bytes().all(|byte| byte.is_ascii() && byte != 0x7f) {
            return writer.write_all(text.as_bytes());
        }
        let mut written = 0;
        for (place, letter) in text.char_indices().filter(|&(_, letter)| is_unsafe(letter)) {
            writer.write_all(&text.as_bytes()[written..place])?;
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = place + letter.len_utf8();
        }
        writer.write_all(&text.as_bytes()[written..])
    }
}

/// A body without fields.
#[derive(Serialize)]
pub(super) struct NoFields {}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn is_false(flag: &bool) -> bool {
    !*flag
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

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A poll mask in the kernel's bits, in hexadecimal as strace shows it.
pub(super) struct Mask(pub(super) u16);

impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
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
        json.line("resumed", Some(3), at, &NoFields {}, &mut out);
        json.line(
            "x",
            None,
            at,
            &serde_json::json!({"a": "\u{7f}\u{9b}\u{2028}\u{202e}\u{feff}\u{e0041}ü\n"}),
            &mut out,
        );
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
