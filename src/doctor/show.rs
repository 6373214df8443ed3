//! A diagnosis as text and as JSON.

use std::fmt::Write;

use super::check::{Check, Verdict};
use super::diagnosis::Diagnosis;
use crate::reactor::EngineChoice;

/// Columns of the text: those of the narrowest usual terminal.
const WIDTH: usize = 80;

/// A paragraph for each check, with its cure beneath, and the conclusion at the end; coloured if `colour`.
#[must_use]
pub fn text(diagnosis: &Diagnosis, colour: bool) -> String {
    let checks = &diagnosis.checks;
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let indent = "warn  ".len() + width + 2;
    let mut out = String::new();
    for check in checks {
        let word = format!("{:<4}", check.verdict.as_str());
        let word = match (colour, check.verdict) {
            (false, _) => word,
            (true, Verdict::Ok) => format!("\x1b[32m{word}\x1b[0m"),
            (true, Verdict::Warn) => format!("\x1b[33m{word}\x1b[0m"),
            (true, Verdict::Bad) => format!("\x1b[31m{word}\x1b[0m"),
        };
        let _ = writeln!(out, "{word}  {:<width$}  {}", check.name, wrapped(&check.found, indent));
        if let Some(cure) = &check.cure {
            let _ = writeln!(out, "{:indent$}-> {}", "", wrapped(cure, indent + 3));
        }
    }
    let _ = writeln!(out, "\n{}", wrapped(&conclusion(diagnosis), 0));
    out
}

/// `text` broken into lines of at most [`WIDTH`] columns, of which the first `indent` are left free from the second line
/// on. A command between backticks is not broken, so that it can be copied.
fn wrapped(text: &str, indent: usize) -> String {
    let mut in_command = false;
    let words = text.split(|letter: char| {
        in_command ^= letter == '`';
        letter == ' ' && !in_command
    });
    let (mut out, mut column) = (String::new(), indent);
    for word in words {
        let length = word.chars().count();
        if out.is_empty() {
            column += length;
        } else if column + 1 + length <= WIDTH {
            out.push(' ');
            column += 1 + length;
        } else {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent + length;
        }
        out.push_str(word);
    }
    out
}

fn conclusion(diagnosis: &Diagnosis) -> String {
    let command = match diagnosis.io {
        EngineChoice::Auto => "deadpeer run".to_owned(),
        io => format!("deadpeer run --io {}", name(io)),
    };
    let (warnings, bad) = (diagnosis.count(Verdict::Warn), diagnosis.count(Verdict::Bad));
    match (diagnosis.engine, bad, warnings) {
        (Some(engine), 0, 0) => format!("{command} starts here, on {engine}"),
        (Some(engine), 0, 1) => format!("{command} starts here, on {engine}; the warning limits it"),
        (Some(engine), 0, _) => {
            format!("{command} starts here, on {engine}; the {warnings} warnings limit it")
        }
        (_, 1, _) => format!("{command} does not start here: the bad finding must change"),
        _ => format!("{command} does not start here: the {bad} bad findings must change"),
    }
}

fn name(io: EngineChoice) -> &'static str {
    match io {
        EngineChoice::Auto => "auto",
        EngineChoice::Uring => "uring",
        EngineChoice::Epoll => "epoll",
    }
}

/// One JSON object: `version`, `io`, `engine`, `verdict` (the most serious) and `checks`.
#[must_use]
pub fn json(diagnosis: &Diagnosis) -> String {
    let checks = diagnosis.checks.iter().map(|check| {
        let Check { name, verdict, found, cure } = check;
        serde_json::json!({ "name": name, "verdict": verdict.as_str(), "found": found, "cure": cure })
    });
    let object = serde_json::json!({
        "version": 1,
        "io": name(diagnosis.io),
        "engine": diagnosis.engine,
        "verdict": diagnosis.verdict().as_str(),
        "checks": checks.collect::<Vec<_>>(),
    });
    format!("{object:#}\n")
}
