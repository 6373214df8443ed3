//! A damaged result file is refused or read; what was read is written and read again as the same, and is reported
//! without a panic.

use deadpeer::measure::report::{Format, Options, render};
use deadpeer::measure::result::ResultFile;

use crate::input::Input;

const INTACT: &str = include_str!("../../../docs/measured-silence.json");

/// What a number or a text may be replaced with.
const VALUES: [&str; 12] = [
    "0",
    "1",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "0.5",
    "null",
    "[]",
    "{}",
    "\"\"",
    "true",
];

/// Replaces values, and removes or repeats lines, of a result file.
fn damaged(input: &mut Input) -> String {
    let mut lines: Vec<String> = INTACT.lines().map(str::to_owned).collect();
    while !input.is_empty() && !lines.is_empty() {
        let place = usize::from(u16::from_be_bytes([input.byte(), input.byte()])) % lines.len();
        let choice = usize::from(input.byte());
        match choice % 16 {
            0 => drop(lines.remove(place)),
            1 => lines.insert(place, lines[place].clone()),
            2 => {
                let garbage = String::from_utf8_lossy(input.bytes(8)).into_owned();
                lines[place].push_str(&garbage);
            }
            _ => {
                let line = &lines[place];
                let key = line.find(": ").map_or(0, |colon| colon + 2);
                let comma = if line.ends_with(',') { "," } else { "" };
                lines[place] = format!("{}{}{comma}", &line[..key], VALUES[choice % VALUES.len()]);
            }
        }
    }
    lines.join("\n")
}

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let text =
        if input.byte() == 0 { String::from_utf8_lossy(input.0).into_owned() } else { damaged(&mut input) };
    let Ok(result) = ResultFile::parse(&text) else { return };
    let again = ResultFile::parse(&result.to_json()).expect("what is written is read");
    assert_eq!(again, result);
    for format in [Format::Text, Format::Json] {
        let _ = render(std::slice::from_ref(&result), format, &Options::default());
    }
}
