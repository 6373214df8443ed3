//! Holds README.md to its length and to the committed results.

use std::path::Path;

use deadpeer::measure::report::{Format, Options, render};
use deadpeer::measure::result::ResultFile;
use serde_json::Value;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A figure of a subject in the committed comparison: the median, and the median ratio to `base`.
fn figure(base: &str, subject: &str, figure: &str) -> (f64, f64) {
    let result = ResultFile::parse(&read("docs/measured-comparison.json")).unwrap();
    let options = Options { base: Some(base.to_owned()), ..Options::default() };
    let report: Value = serde_json::from_str(&render(&[result], Format::Json, &options).unwrap()).unwrap();
    let rows = report["results"][0]["comparison"]["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["subject"]["name"] == subject).unwrap();
    let cells = row["cells"].as_array().unwrap();
    let cell = cells.iter().find(|cell| cell["figure"] == figure).unwrap();
    (cell["value"]["median"].as_f64().unwrap(), cell["ratio"]["median"].as_f64().unwrap())
}

#[test]
fn the_readme_is_read_in_a_minute() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 130, "{lines} lines");
}

#[test]
fn the_table_of_the_readme_is_what_was_measured() {
    const OTHERS: [&str; 3] = ["epoll", "tokio", "tokio-uring"];
    let value = |subject: &str, name: &str| figure("epoll", subject, name).0;
    let bytes = |subject: &str| match value(subject, "user") + value(subject, "kernel") {
        sum if sum < 1_024.0 => format!("{sum:.0} B"),
        sum => format!("{:.1} KiB", sum / 1_024.0),
    };
    let row = |title: &str, cell: &dyn Fn(&str) -> String| {
        let cells: Vec<_> = ["deadpeer"].into_iter().chain(OTHERS).map(cell).collect();
        format!("| {title} | {} |", cells.join(" | "))
    };
    let beat = OTHERS.map(|other| format!("{:.0} times more", 1.0 / figure(other, "deadpeer", "cpu").1));
    let rows = [
        format!("| CPU per beat | {:.0} ns | {} |", value("deadpeer", "cpu"), beat.join(" | ")),
        row("memory per connection, kernel included", &bytes),
        row("a FIN or RST is reported after (median)", &|subject| {
            format!("{:.0} us", value(subject, "detect-p50") / 1e3)
        }),
        row("CPU per death", &|subject| format!("{:.1} us", value(subject, "death") / 1e3)),
    ];
    let readme = read("README.md");
    for row in rows {
        assert!(readme.contains(&row), "README.md must say: {row}");
    }
}

#[test]
fn the_picture_of_the_readme_is_made_from_the_committed_result() {
    let result = ResultFile::parse(&read("docs/measured-comparison.json")).unwrap();
    let options = Options { series: Some("ratio-cpu".to_owned()), ..Options::default() };
    let picture = render(&[result], Format::Svg, &options).unwrap();
    assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    assert_eq!(picture, read("docs/cpu-per-beat.svg"));
    assert!(read("README.md").contains("(docs/cpu-per-beat.svg)"));
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let mut broken = Vec::new();
    for path in documents.chain([root.join("README.md")]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let Ok(text) = std::fs::read_to_string(&target) else {
                broken.push(format!("{}: {link}", path.display()));
                continue;
            };
            let anchors = text.lines().filter(|line| line.starts_with('#')).map(slug);
            if !anchor.is_empty() && !anchors.into_iter().any(|known| known == anchor) {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// The anchor that GitHub gives to a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
