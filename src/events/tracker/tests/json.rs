//! The exact lines for programs, and the document that promises them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::events::tests::{names_all, shows_each_line};
use crate::frame::FrameError;
use crate::liveness::Cause;
use crate::tracking::LocalAddresses;

/// The whole stream of JSON Lines.
fn stream() -> String {
    let mut encoder = encoder(Format::JsonLines);
    let mut out = Vec::new();
    encoder.opening(&samples::listening(), &mut out);
    for (thread, event) in event::samples() {
        encoder.event(thread, &event, &mut out);
    }
    encoder.closing(&samples::closing(), &mut out);
    String::from_utf8(out).unwrap()
}

fn line(thread: usize, event: &Event) -> String {
    let mut line = written(&mut encoder(Format::JsonLines), [(thread, event.clone())]);
    assert_eq!(line.pop(), Some('\n'));
    line
}

/// A line for each cause of a death.
fn deaths() -> Vec<String> {
    samples::deaths().iter().map(|event| line(0, event)).collect()
}

/// Every line that the samples give, with the version that the document and the golden file have.
fn all_lines() -> Vec<String> {
    let stream = stream().replace(env!("CARGO_PKG_VERSION"), "0.1.0");
    stream.lines().map(str::to_owned).chain(deaths()).collect()
}

#[test]
fn the_document_shows_each_line_as_it_is_written() {
    shows_each_line(DOCUMENT, &stream().replace(env!("CARGO_PKG_VERSION"), "0.1.0"));
}

#[test]
fn the_deaths_are_exactly_those_of_the_golden_file() {
    let golden = include_str!("golden.jsonl");
    let lines = deaths();
    for (line, golden) in lines.iter().zip(golden.lines()) {
        assert_eq!(line, golden);
    }
    assert_eq!(
        lines.len(),
        golden.lines().count(),
        "src/events/tracker/tests/golden.jsonl must be:\n{}",
        lines.join("\n")
    );
}

#[test]
fn every_line_is_one_object_and_seq_has_no_gap() {
    let stream = stream();
    assert!(stream.ends_with('\n'));
    for (number, line) in stream.lines().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["seq"], number);
        assert!(value["event"].is_string() && value["mono_ns"].is_u64() && value["time"].is_string());
    }
}

#[test]
fn every_cause_has_its_word_and_the_summary_has_all_words() {
    let summary: Value = serde_json::from_str(stream().lines().last().unwrap()).unwrap();
    let deaths = summary["deaths"].as_object().unwrap();
    let words: BTreeSet<_> = Cause::ALL.into_iter().map(Cause::as_str).collect();
    assert_eq!(deaths.keys().map(String::as_str).collect::<BTreeSet<_>>(), words);
    assert_eq!(deaths.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 151);
    for event in samples::deaths() {
        let died: Value = serde_json::from_str(&line(0, &event)).unwrap();
        assert!(deaths.contains_key(died["cause"].as_str().unwrap()), "{died}");
    }
}

#[test]
fn a_local_address_that_had_no_number_is_left_out() {
    let mut event = samples::reset();
    event.subject.as_mut().unwrap().local = LocalAddresses::UNKNOWN;
    assert!(!line(0, &event).contains("local"));
}

#[test]
fn an_address_that_was_interned_later_is_found() {
    let locals = samples::locals();
    let stream = TrackerStream::new(Arc::clone(&locals));
    let mut encoder = TrackerEncoder::new(stream, Format::JsonLines, Filter::default());
    written(&mut encoder, [(0, samples::reset())]);
    let mut event = samples::reset();
    event.subject.as_mut().unwrap().local = locals.intern("127.0.0.9:7400".parse().unwrap());
    assert!(written(&mut encoder, [(0, event)]).contains(r#""local":"127.0.0.9:7400""#));
}

proptest! {
    #[test]
    fn an_identity_comes_back_as_it_went_in(identity in "(?s)\\PC{0,20}.{0,20}[\"\\\\\n\r\u{0}\u{7f}\u{2028}\u{10ffff}]?") {
        let mut event = samples::reset();
        event.subject.as_mut().unwrap().identity = Some(identity.as_str().into());
        let line = line(0, &event);
        prop_assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&value["identity"], &Value::from(identity));
    }
}

const DOCUMENT: &str = include_str!("../../../../docs/EVENTS.md");

#[test]
fn the_document_names_every_field_and_every_word() {
    let causes = Cause::ALL.into_iter();
    let words = causes.clone().map(Cause::as_str).chain(causes.filter_map(Cause::detail));
    let words = words.chain(FrameError::ALL.map(FrameError::as_str)).chain(["clipped"]);
    names_all(DOCUMENT, &all_lines().join("\n"), words);
}

#[test]
fn the_examples_of_the_document_are_lines_of_ours() {
    let lines: Vec<Value> = all_lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut shown = BTreeSet::new();
    for block in DOCUMENT.split("```json\n").skip(1) {
        let block = block.split_once("```").expect("a block that begins also ends").0;
        for value in serde_json::Deserializer::from_str(block).into_iter::<Value>() {
            let value = value.unwrap();
            assert!(lines.contains(&value), "no line of ours: {value}");
            shown.insert(value["event"].as_str().unwrap().to_owned());
        }
    }
    let all: BTreeSet<_> = lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, all, "one example of each event");
}

/// Writes the golden file: `cargo test --lib write_the_golden_file -- --ignored`.
#[test]
#[ignore = "writes into the source"]
fn write_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/events/tracker/tests/golden.jsonl");
    std::fs::write(path, deaths().join("\n") + "\n").unwrap();
}
