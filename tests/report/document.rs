//! The documents against the files: fields, names and figures.

use std::collections::BTreeSet;

use deadpeer::measure::report::figures::Figure;
use deadpeer::measure::report::{Format, Options, render};
use deadpeer::measure::result::{Basis, DoubtKind, ResultFile, Way};
use serde_json::Value;

use crate::sample;

const DOCUMENT: &str = include_str!("../../docs/MEASURING.md");

fn section(title: &str) -> &'static str {
    let (_, section) =
        DOCUMENT.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no {title}"));
    section.split("\n## ").next().unwrap()
}

/// The words in backticks. Some of these are paths or lists.
fn words(text: &str) -> BTreeSet<&str> {
    let code = text.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')).collect()
}

/// The names of all fields, except where names are data.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                into.insert(name.clone());
                if name != "further" && name != "summary" {
                    fields(value, into);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, into)),
        _ => {}
    }
}

fn unsaid(value: &Value, section: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    fields(value, &mut names);
    assert!(names.len() > 50);
    let said = words(section);
    names.into_iter().filter(|name| !said.contains(name.as_str())).collect()
}

#[test]
fn the_document_names_every_field_of_the_result_file() {
    let result = serde_json::to_value(sample::whole(1)).unwrap();
    let unsaid = unsaid(&result, section("The result file"));
    assert!(unsaid.is_empty(), "docs/MEASURING.md does not say of a result file: {unsaid:?}");
}

#[test]
fn the_document_names_every_field_of_a_report_in_json() {
    let report =
        render(&[sample::whole(1), sample::elsewhere(2)], Format::Json, &Options::default()).unwrap();
    let sections = [section("The result file"), section("Reports and thresholds")].concat();
    let unsaid = unsaid(&serde_json::from_str(&report).unwrap(), &sections);
    assert!(unsaid.is_empty(), "docs/MEASURING.md does not say of a report: {unsaid:?}");
}

#[test]
fn the_document_names_every_way_figure_and_kind_of_doubt() {
    let said = words(section("The result file"));
    let missing: Vec<_> = Way::ALL.into_iter().filter(|way| !said.contains(way.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let kinds = DoubtKind::ALL.map(|kind| serde_json::to_value(kind).unwrap());
    let missing: Vec<_> = kinds.iter().filter(|kind| !said.contains(kind.as_str().unwrap())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let said = words(section("Reports and thresholds"));
    let missing: Vec<_> = Figure::ALL.into_iter().filter(|figure| !said.contains(figure.name())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_operating_says_of_low_water_marks_is_what_was_measured() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let result = ResultFile::parse(&read("docs/measured-comparison.json")).unwrap();
    let report = render(&[result], Format::Json, &Options::default()).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let rows = report["results"][0]["comparison"]["rows"].as_array().unwrap();
    let median = |subject: &str, figure: &str, of: &str| {
        let row = rows.iter().find(|row| row["subject"]["name"] == subject).unwrap();
        let cells = row["cells"].as_array().unwrap();
        cells.iter().find(|cell| cell["figure"] == figure).unwrap()[of]["median"].as_f64().unwrap()
    };
    let said = read("docs/OPERATING.md");
    for (mark, subject) in
        [("256", "deadpeer --unread 256"), ("1024 (default)", "deadpeer"), ("4096", "deadpeer --unread 4096")]
    {
        let (cpu, held) = (median(subject, "cpu", "ratio"), median(subject, "unread", "value"));
        let row = format!("| {mark} | {cpu:.3} | {:.1} KiB |", held / 1_024.0);
        assert!(said.contains(&row), "{row}");
    }
}

#[test]
fn the_bare_recv_stands_beside_the_ways_and_nothing_stands_for_one_that_was_not_measured() {
    let formats = [Format::Text, Format::Markdown, Format::Html, Format::Json];
    let says = |result: &ResultFile, format| {
        let report = render(std::slice::from_ref(result), format, &Options::default()).unwrap();
        report.matches("bare recv").count() + report.matches("\"injector_late\"").count()
    };
    let measured = sample::whole(1);
    let mut not = measured.clone();
    not.machine.bare_recv = None;
    let mut empty = measured.clone();
    empty.machine.bare_recv = Some(Default::default());
    for format in formats {
        assert!(says(&measured, format) > says(&not, format), "{format:?}");
        assert!(says(&empty, format) < says(&measured, format), "{format:?}");
    }
    // Without closed or reset peers there is no chart for the bare recv.
    let mut silent = measured.clone();
    silent.experiment.as_mut().unwrap().ways.retain(|way| way.basis == Basis::Expiry);
    let page = render(&[silent], Format::Html, &Options::default()).unwrap();
    assert!(!page.contains("spectrum-network") && page.contains("spectrum-silent"));
}

/// The tables of a document: their rows, the head first.
fn tables(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let tables = lines.chunk_by(|one, other| one.starts_with("| ") && other.starts_with("| "));
    tables.filter(|table| table.len() > 2 && table[0].starts_with("| ")).map(<[&str]>::to_vec).collect()
}

#[test]
fn the_figures_of_the_documents_are_those_of_the_committed_results() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path));
    let results = [
        ("comparison", None),
        ("comparison", Some("tokio-uring".to_owned())),
        ("experiment", None),
        ("ends", None),
        ("silence", None),
        ("stream", None),
        ("rates", None),
    ];
    let reported: BTreeSet<String> = results
        .into_iter()
        .flat_map(|(name, base)| {
            let result = ResultFile::parse(&read(&format!("docs/measured-{name}.json")).unwrap()).unwrap();
            let options = Options { base, ..Options::default() };
            let report = render(&[result], Format::Markdown, &options).unwrap();
            report.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut held = 0;
    for document in ["README.md", "docs/FIGURES.md", "docs/HTTP.md"] {
        let Ok(text) = read(document) else { continue };
        // A table with the head of a report's table must have rows of the reports.
        for table in tables(&text).into_iter().filter(|table| reported.contains(table[0])) {
            for row in &table[1..] {
                assert!(reported.contains(*row), "{document}: no report says: {row}");
            }
            held += table.len();
        }
    }
    assert!(held > 30, "the tables were not found");
}
