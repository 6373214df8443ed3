//! docs/EVENTS.md, held against what the events have.

use std::collections::{BTreeMap, BTreeSet};

use crate::shapes::{PEER, SHAPES, THREAD, WHEN, names};

const DOCUMENT: &str = include_str!("../../docs/EVENTS.md");

/// The words in backticks.
fn words(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The names in the first column of tables of fields.
fn table_fields(section: &str) -> BTreeSet<&str> {
    let mut fields = BTreeSet::new();
    let mut in_fields = false;
    for line in section.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            in_fields &= line.starts_with('|');
            continue;
        };
        let first = row.split('|').next().unwrap();
        in_fields |= first.starts_with("field");
        if in_fields && !first.starts_with("field") {
            fields.extend(words(first));
        }
    }
    fields
}

#[test]
fn the_document_names_every_field_of_every_event_and_no_other() {
    // Examples are held against the encoder elsewhere; here it is about what is said of the fields.
    let prose: String = DOCUMENT.split("```").step_by(2).collect();
    let (mut common, mut events) = ("", BTreeMap::new());
    for section in prose.split("\n## ") {
        let (title, text) = section.split_once('\n').unwrap();
        match title.strip_prefix('`') {
            Some(word) => drop(events.insert(word.trim_end_matches('`'), text)),
            None if title == "Fields that many lines have" => common = text,
            None => {}
        }
    }
    let known: BTreeSet<&str> = SHAPES.iter().map(|(word, ..)| *word).collect();
    assert_eq!(events.keys().copied().collect::<BTreeSet<_>>(), known);

    let mut shared = BTreeSet::from(["event"]);
    for fields in [WHEN, PEER, THREAD] {
        names(fields, &mut shared);
    }
    assert_eq!(table_fields(common), shared);
    for (word, _, more) in SHAPES {
        let mut own = BTreeSet::new();
        names(more, &mut own);
        let said = words(events[word]);
        let unsaid: Vec<_> = own.iter().filter(|name| !said.contains(**name)).collect();
        assert!(unsaid.is_empty(), "docs/EVENTS.md does not say of `{word}`: {unsaid:?}");
        let unknown: Vec<_> =
            table_fields(events[word]).into_iter().filter(|name| !own.contains(name)).collect();
        assert!(unknown.is_empty(), "docs/EVENTS.md says of `{word}` what it has not: {unknown:?}");
    }
}
