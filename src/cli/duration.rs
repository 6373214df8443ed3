//! Durations on the command line: `500us`, `20ms`, `1.5s`, `2m`, `1h`.
//!
//! A number without a unit is refused: some programs read it as seconds and others as milliseconds, and a detection time
//! that is wrong by a factor of 1,000 is noticed too late. Only `0` is the same in every unit.
//!
//! ```
//! use deadpeer::cli::duration::{format, parse};
//! use std::time::Duration;
//!
//! assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1_500)));
//! assert_eq!(format(Duration::from_millis(1_500)), "1.5s");
//! assert_eq!(parse("30").unwrap_err(), "`30` has no unit: write `30s` for seconds or `30ms` for milliseconds");
//! ```

use std::time::Duration;

/// The units and their length in nanoseconds, longest first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration that is not zero.
pub fn positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => {
            Err(format!("`{text}` leaves no time at all: write a longer one, or leave the option out"))
        }
        duration => Ok(duration),
    }
}

/// Parses a decimal number and its unit, exactly.
///
/// # Errors
///
/// A sentence that names the fault and what to write instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(format!(
            "`{text}` is not a duration: write it like `500us`, `20ms`, `1.5s`, `2m` or `1h`"
        ));
    }
    if unit.is_empty() {
        let zero = number.bytes().all(|digit| matches!(digit, b'0' | b'.'));
        let unitless =
            format!("`{text}` has no unit: write `{text}s` for seconds or `{text}ms` for milliseconds");
        return if zero { Ok(Duration::ZERO) } else { Err(unitless) };
    }
    let Some(&(_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` in `{text}` is not a unit: there are h, m, s, ms, us and ns"));
    };
    let too_long = || format!("`{text}` is too long: durations end at 584 years");
    // The digits without the point, times the unit, divided by the place of the point.
    let value: u128 = format!("{whole}{fraction}").parse().map_err(|_| too_long())?;
    let place = u32::try_from(fraction.len()).ok().and_then(|digits| 10_u128.checked_pow(digits));
    let place = place.ok_or_else(|| finer(text))?;
    let nanos = value.checked_mul(u128::from(length)).ok_or_else(too_long)?;
    if !nanos.is_multiple_of(place) {
        return Err(finer(text));
    }
    u64::try_from(nanos / place).map(Duration::from_nanos).map_err(|_| too_long())
}

fn finer(text: &str) -> String {
    format!("`{text}` is finer than a nanosecond: give it fewer digits")
}

/// Formats a duration exactly, so that [`parse`] returns the same, in the longest unit that is not longer than it:
/// `90s`, `1.5s`, `2m`. Minutes and hours are used only if they are whole.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fits = |length: u128| nanos >= length && (length <= 1_000_000_000 || nanos.is_multiple_of(length));
    let Some(&(unit, length)) = UNITS.iter().find(|(_, length)| fits(u128::from(*length))) else {
        assert!(nanos == 0, "everything else is at least a nanosecond");
        return "0s".to_owned();
    };
    let length = u128::from(length);
    let (whole, rest) = (nanos / length, nanos % length);
    if rest == 0 {
        return format!("{whole}{unit}");
    }
    // A power of ten here: `1.05s` is 1 and 50,000,000 of 1,000,000,000, written with nine digits.
    let digits = length.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}{unit}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_and_written_exactly() {
        for (text, nanos) in [
            ("0s", 0),
            ("1ns", 1),
            ("500us", 500_000),
            ("20ms", 20_000_000),
            ("1.5s", 1_500_000_000),
            ("1.05s", 1_050_000_000),
            ("1.000000001s", 1_000_000_001),
            ("90s", 90_000_000_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(parse("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_refusal_names_the_cure() {
        for (text, cure) in [
            ("30", "write `30s`"),
            ("1.5", "write `1.5s`"),
            ("", "write it like"),
            ("s", "write it like"),
            ("-3s", "write it like"),
            ("1.2.3s", "write it like"),
            ("1.s", "write it like"),
            (".5s", "write it like"),
            ("3 s", "there are h, m"),
            ("3sec", "there are h, m"),
            ("3µs", "there are h, m"),
            ("0.1ns", "fewer digits"),
            ("99999999999999h", "584 years"),
            ("9999999999999999999999999999999999999999999999h", "584 years"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(cure), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(nanos: u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9.]{0,60}[a-zµ ]{0,3}") {
            let _ = parse(&text);
        }
    }
}
