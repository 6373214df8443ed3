//! A latency log that a crash cut anywhere: the repair keeps every complete line and nothing else, and what is appended
//! afterwards stands on lines of its own.

use std::time::Duration;

use deadpeer::measure::hlog::{HlogWriter, complete_lines};
use deadpeer::measure::recorded::Recorded;

use crate::input::Input;

fn log(input: &mut Input) -> Vec<u8> {
    let began = Duration::from_nanos(input.number());
    let mut log = HlogWriter::begin(Vec::new(), began, &["deadpeer"]).unwrap();
    for _ in 0..input.byte() % 8 {
        let (start, length) = (Duration::from_nanos(input.number()), Duration::from_nanos(input.number()));
        let mut recorded = Recorded::new();
        for _ in 0..input.byte() % 8 {
            recorded.record(input.number());
        }
        log.interval("loop-turn", start, length, recorded.histogram()).unwrap();
    }
    log.into_inner()
}

fn is_line(line: &[u8]) -> bool {
    line.starts_with(b"#") || line.starts_with(b"\"StartTimestamp\"") || line.starts_with(b"Tag=loop-turn,")
}

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut old = log(&mut input);
    let torn = input.number() as usize % (old.len() + 1);
    old.truncate(torn);
    let (number, garbage) = (input.byte(), input.0);
    if number.is_multiple_of(4) {
        old.extend(garbage);
    }
    // A repair reads the first byte and the last bytes.
    let tail = &old[input.number() as usize % (old.len() + 1)..];
    let first = old.first().copied().unwrap_or(0);
    let Some(kept) = complete_lines(first, tail) else {
        assert!(first != b'#' || !tail.contains(&b'\n'), "a log with a complete line is repaired");
        return;
    };
    assert!(first == b'#' && tail[..kept].ends_with(b"\n") && !tail[kept..].contains(&b'\n'));
    old.truncate(old.len() - (tail.len() - kept));
    if number.is_multiple_of(4) {
        return;
    }
    old.extend(log(&mut Input(garbage)));
    assert!(old.ends_with(b"\n"));
    for line in old[..old.len() - 1].split(|&byte| byte == b'\n') {
        assert!(is_line(line), "{}", String::from_utf8_lossy(line));
    }
}
