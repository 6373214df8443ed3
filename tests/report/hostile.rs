//! Broken and hostile files: refused with a reason, in bounded memory, without a panic.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deadpeer::limits::{MAX_HISTOGRAM_SAMPLES, MAX_RESULT_HISTOGRAMS};
use deadpeer::measure::recorded::Recorded;
use deadpeer::measure::report::{Format, Options, render};
use deadpeer::measure::result::{ParseError, ResultFile};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use crate::sample;

const FORMATS: [Format; 6] =
    [Format::Text, Format::Markdown, Format::Json, Format::Hgrm, Format::Hlog, Format::Html];

fn full() -> Options {
    Options { full: true, ..Options::default() }
}

/// A histogram with this head and these counts, encoded as in a file.
fn histogram(length: u32, digits: u32, high: u64, payload: &[u8]) -> String {
    let mut plain = Vec::new();
    plain.extend(0x1c84_9313_u32.to_be_bytes());
    for word in [length, 0, digits] {
        plain.extend(word.to_be_bytes());
    }
    for long in [1, high, 1.0_f64.to_bits()] {
        plain.extend(long.to_be_bytes());
    }
    plain.extend(payload);
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::best());
    stream.write_all(&plain).unwrap();
    let deflated = stream.finish().unwrap();
    let head = [0x1c84_9314_u32.to_be_bytes(), (deflated.len() as u32).to_be_bytes()].concat();
    STANDARD.encode([head, deflated].concat())
}

fn stored(count: u64, histogram: &str) -> Result<Recorded, String> {
    let text = format!(r#"{{"count":{count},"min_ns":1,"max_ns":9,"clipped":0,"histogram":"{histogram}"}}"#);
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// An integer as HdrHistogram writes it: zigzag, seven bits in a byte, eight in the ninth.
fn varint(count: i64) -> Vec<u8> {
    let mut left = ((count << 1) ^ (count >> 63)) as u64;
    let mut bytes = Vec::new();
    while left >= 0x80 && bytes.len() < 8 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

#[test]
fn a_histogram_that_asks_for_too_much_is_refused_before_it_gets_it() {
    let hour = Recorded::LONGEST;
    let one = [varint(-5), varint(1)].concat();
    assert_eq!(stored(1, &histogram(one.len() as u32, 3, hour, &one)).unwrap().count(), 1);

    let run = varint(i64::MIN);
    let many = varint(MAX_HISTOGRAM_SAMPLES as i64 + 1);
    let long = varint(-(1 << 40));
    let behind = [long.clone(), varint(1)].concat();
    for (what, histogram, reason) in [
        ("a length of 4 GB", histogram(u32::MAX, 3, hour, &one), "its head"),
        ("a length too short", histogram(1, 3, hour, &one), "its head"),
        ("five digits", histogram(one.len() as u32, 5, hour, &one), "its head"),
        ("a range of 64 bits", histogram(one.len() as u32, 3, u64::MAX, &one), "its head"),
        ("a deflate bomb", histogram(64 << 20, 3, hour, &vec![0; 64 << 20]), "inflates to more"),
        ("the longest run", histogram(run.len() as u32, 3, hour, &run), "run of zeros"),
        ("a place beyond the end", histogram(behind.len() as u32, 3, hour, &behind), "cannot be read"),
        ("more samples than deaths", histogram(many.len() as u32, 3, hour, &many), "more samples"),
        ("nothing", String::new(), "does not begin"),
        ("only a cookie", "HISTFA==".to_owned(), "cannot be read"),
        ("no zlib", "HISTFAAAAAAAAAAAAAAA".to_owned(), "cannot be read"),
        ("no base64", "HISTF!".to_owned(), "base64"),
    ] {
        let error = stored(1, &histogram).expect_err(what);
        assert!(error.contains(reason), "{what}: {error}");
    }
}

#[test]
fn ends_that_contradict_each_other_are_refused() {
    let one = varint(1);
    let histogram = histogram(one.len() as u32, 3, Recorded::LONGEST, &one);
    for (ends, fits) in [("1,\"max_ns\":9", true), ("9,\"max_ns\":1", false)] {
        let text = format!(r#"{{"count":1,"min_ns":{ends},"clipped":0,"histogram":"{histogram}"}}"#);
        assert_eq!(serde_json::from_str::<Recorded>(&text).is_ok(), fits, "{ends}");
    }
}

#[test]
fn more_histograms_than_memory_has_room_for_are_refused_wherever_they_stand() {
    let empty = serde_json::to_value(Recorded::new()).unwrap();
    let text = empty["histogram"].as_str().unwrap();
    // A struct may also be written as an array, and a field twice.
    let array = serde_json::json!([0, null, null, 0, text]);
    for one in [empty.to_string(), array.to_string()] {
        let many = vec![one; MAX_RESULT_HISTOGRAMS + 1].join(",");
        let whole = sample::few(1).to_json();
        let bomb = whole.replacen("\"machine\":", &format!("\"bomb\":[{many}],\"machine\":"), 1);
        assert_ne!(bomb, whole);
        assert!(matches!(ResultFile::parse(&bomb), Err(ParseError::TooLarge)));
    }
}

#[test]
fn what_is_no_result_says_so() {
    let whole = sample::few(1).to_json();
    for (text, reason) in [
        (String::new(), "give a file that its --out wrote"),
        ("[]".to_owned(), "give a file"),
        ("{}".to_owned(), "missing field `format`"),
        ("[".repeat(100_000), "recursion limit"),
        (whole[..whole.len() / 2].to_owned(), "EOF"),
        (whole.replacen("deadpeer-result", "something", 1), "its format is `something`"),
        (whole.replacen("\"version\": 1", "\"version\": 2", 1), "take a newer deadpeer"),
        (whole.replacen("\"seed\": 1", "\"seed\": \"one\"", 1), "invalid type"),
        (whole.replacen("\"injected\": 40", "\"injected\": -40", 1), "invalid value"),
        (whole.replacen("\"way\": \"fin\"", "\"way\": \"flood\"", 1), "unknown variant `flood`"),
    ] {
        let error = ResultFile::parse(&text).expect_err(reason).to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_field_of_a_later_minor_version_is_ignored() {
    let whole = sample::few(1);
    let later = whole.to_json().replacen("\"seed\":", "\"weather\": {\"rain\": true}, \"seed\":", 1);
    assert_eq!(ResultFile::parse(&later).unwrap(), whole);
}

/// Sets every number of a value to an extreme one.
fn extreme(value: &mut serde_json::Value, number: &serde_json::Value) {
    match value {
        serde_json::Value::Number(_) => *value = number.clone(),
        serde_json::Value::Object(fields) => fields
            .iter_mut()
            // Except the version, and what must match the histogram.
            .filter(|(name, _)| !["version", "count", "min_ns", "max_ns", "clipped"].contains(&name.as_str()))
            .for_each(|(_, value)| extreme(value, number)),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| extreme(value, number)),
        _ => {}
    }
}

#[test]
fn extreme_numbers_are_reported_without_a_panic() {
    let whole = serde_json::to_value(sample::whole(1)).unwrap();
    let mut reported = 0;
    for number in
        [0_u64.into(), 1_u64.into(), u64::from(u32::MAX).into(), (i64::MAX as u64).into(), u64::MAX.into()]
    {
        let mut value = whole.clone();
        extreme(&mut value, &number);
        let Ok(result) = ResultFile::parse(&value.to_string()) else { continue };
        for format in FORMATS {
            let _ = render(std::slice::from_ref(&result), format, &full());
            let _ = render(&[result.clone(), sample::few(1)], format, &full());
        }
        reported += 1;
    }
    assert!(reported >= 3, "{reported}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_mutation_of_a_file_makes_anything_panic(
        seed in 0..4_u64, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut bytes = sample::few(seed).to_json().into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"0123456789\",:[]{}-"[usize::from(byte) % 18]),
                // Another digit leaves the file readable and changes a figure.
                _ => {
                    let digit = bytes.iter().skip(at).position(u8::is_ascii_digit).map(|more| at + more);
                    digit.into_iter().for_each(|at| bytes[at] = b'0' + byte % 10);
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(result) = ResultFile::parse(&text) {
            for format in FORMATS {
                let _ = render(std::slice::from_ref(&result), format, &full());
            }
        }
    }

    #[test]
    fn no_bytes_in_a_histogram_make_its_reader_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = stored(1, &histogram(payload.len() as u32, 3, Recorded::LONGEST, &payload));
        let _ = stored(1, &format!("HISTF{}", STANDARD.encode(&payload)));
    }
}
