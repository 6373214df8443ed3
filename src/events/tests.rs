//! What the documents of both services promise of the lines that are written.

use std::collections::BTreeSet;

use serde_json::Value;

/// Asserts that a document shows each line as it is written. It may fold long lines, and indent what follows.
pub(super) fn shows_each_line(document: &str, written: &str) {
    let unfolded: String = document.lines().map(str::trim_start).collect();
    for line in written.lines() {
        assert!(unfolded.contains(line), "the document does not show\n{line}");
    }
}

/// Asserts that the prose of a document has every name of a field in these lines and every one of `words`.
pub(super) fn names_all(document: &str, written: &str, words: impl IntoIterator<Item = &'static str>) {
    let prose: String = document.split("```").step_by(2).collect();
    let mut wanted: BTreeSet<String> = words.into_iter().map(str::to_owned).collect();
    for line in written.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        wanted.insert(value["event"].as_str().unwrap().to_owned());
        names(&value, &mut wanted);
    }
    let missing: Vec<_> = wanted.iter().filter(|name| !prose.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "the document does not say what these are: {missing:?}");
}

fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.keys().cloned());
            fields.values().for_each(|value| names(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
