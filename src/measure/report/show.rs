//! Numbers as people read them: three significant digits and a unit that keeps them short.

use super::figures::Rounds;
use super::unit::Unit;

/// Shown where nothing was measured, or where a sample does not carry a figure.
pub const NOTHING: &str = "-";

/// A number in its unit, or `-`.
#[must_use]
pub fn value(value: Option<f64>, unit: Unit) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return NOTHING.to_owned() };
    match unit {
        Unit::Nanos => scaled(value, &[("ns", 1e3), ("us", 1e3), ("ms", 1e3), ("s", f64::INFINITY)]),
        Unit::Bytes => scaled(
            value,
            &[("B", 1024.0), ("KiB", 1024.0), ("MiB", 1024.0), ("GiB", 1024.0), ("TiB", f64::INFINITY)],
        ),
        Unit::Count => format!("{value:.0}"),
        Unit::Ratio => ratio(value),
    }
}

/// Nanoseconds, or `-`.
#[must_use]
pub fn nanos(nanos: Option<u64>) -> String {
    value(nanos.map(|nanos| nanos as f64), Unit::Nanos)
}

/// The least and the greatest of a figure over rounds: `0.010-0.012`.
#[must_use]
pub fn range(rounds: Rounds, unit: Unit) -> String {
    format!("{}-{}", value(Some(rounds.min), unit), value(Some(rounds.max), unit))
}

/// A count with thousands separated: `240,000`.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 death`, `2 deaths`.
#[must_use]
pub fn counted(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// Words in a row: `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn listed<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

/// A command line as a POSIX shell reads it.
#[must_use]
pub fn shell(words: &[String]) -> String {
    let plain = |word: &str| {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,+@%".contains(&byte);
        !word.is_empty() && word.bytes().all(harmless)
    };
    let quoted = |word: &String| match plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A number in the largest unit in which it is at least 1. `steps` are units, and how many of each make one of the
/// next.
fn scaled(value: f64, steps: &[(&str, f64)]) -> String {
    let mut value = value;
    for (unit, next) in steps {
        // Half a digit below: 999.6 ns reads 1.00 us, not 1000 ns.
        if value.abs() < next - 0.5 {
            // The smallest unit has no parts worth showing above ten.
            let text = digits(value);
            let text = if value.fract() == 0.0 { format!("{value:.0}") } else { text };
            return format!("{text} {unit}");
        }
        value /= next;
    }
    NOTHING.to_owned()
}

/// Three significant digits; all digits before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        below if below < 9.995 => format!("{value:.2}"),
        below if below < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn ratio(value: f64) -> String {
    match value.abs() {
        below if below < 0.1 => format!("{value:.4}"),
        below if below < 1.0 => format!("{value:.3}"),
        _ => digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_say_their_unit() {
        for (nanos, text) in [
            (0.0, "0 ns"),
            (22.4, "22.4 ns"),
            (48.0, "48 ns"),
            (999.6, "1.00 us"),
            (31_234.0, "31.2 us"),
            (1_500_000_000.0, "1.50 s"),
            (5e12, "5000 s"),
        ] {
            assert_eq!(value(Some(nanos), Unit::Nanos), text);
        }
        assert_eq!(value(Some(122.0), Unit::Bytes), "122 B");
        assert_eq!(value(Some(-1_536.0), Unit::Bytes), "-1.50 KiB");
        assert_eq!(value(Some(0.011_23), Unit::Ratio), "0.0112");
        assert_eq!(value(Some(1.0), Unit::Ratio), "1.00");
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(super::count(count), text);
        }
    }

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["deadpeer", "bench", "--fail-if", "p99>2ms", "it's", ""].map(str::to_owned);
        assert_eq!(shell(&words), r"deadpeer bench --fail-if 'p99>2ms' 'it'\''s' ''");
    }

    #[test]
    fn lists_read_as_sentences_do() {
        assert_eq!(listed::<&str>(&[]), "");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b"]), "a and b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(counted(1, "death", "deaths"), "1 death");
        assert_eq!(counted(1_000, "death", "deaths"), "1,000 deaths");
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        for unit in [Unit::Nanos, Unit::Bytes, Unit::Count, Unit::Ratio] {
            assert_eq!(value(None, unit), NOTHING);
            assert_eq!(value(Some(f64::NAN), unit), NOTHING);
        }
    }
}
