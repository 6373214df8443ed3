//! Numbers of bytes on the command line: `1024`, `64KiB`, `1MiB`, `1GiB`; `1MB` is 1,000,000. What `64k` means, programs do
//! not agree about, so it is refused.

/// The units and their size in bytes.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Parses a whole number and its unit. Without a unit it is bytes.
fn parse(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

/// Returns a parser of numbers of bytes from `least` to `most`. Its error names the range and how a number is written.
pub(super) fn within<T: Copy + TryFrom<u64> + Into<u64>>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let (least, most) = (least.into(), most.into());
        let bytes = parse(text).filter(|bytes| (least..=most).contains(bytes));
        bytes.and_then(|bytes| T::try_from(bytes).ok()).ok_or_else(|| {
            format!("give a number of bytes from {least} to {most}, written like `1024`, `64KiB` or `1MB`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_and_without_a_unit() {
        let parse = within(1_u32, 1 << 30);
        for (text, bytes) in [
            ("1", 1),
            ("1024", 1_024),
            ("7B", 7),
            ("64KiB", 65_536),
            ("1GiB", 1 << 30),
            ("64kB", 64_000),
            ("1MB", 1_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_range_and_how_bytes_are_written() {
        let parse = within(1_u32, 65_536);
        for text in [
            "",
            "0",
            "-1",
            "KiB",
            "1.5KiB",
            "1 KiB",
            "1kb",
            "64k",
            "1M",
            "65537",
            "65KiB",
            "99999999999999999999",
            "16777216TiB",
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains("from 1 to 65536") && message.contains("`64KiB`"), "{text}: {message}");
        }
        assert!(within(0, u64::MAX)("18446744073709551615GiB").is_err());
    }
}
