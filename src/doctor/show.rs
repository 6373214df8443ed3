//! The checks, for people and for programs.

use std::fmt::Write;

use super::checks::{Check, Verdict};

/// A line a check, its cure beneath it; with colours where they can be seen.
#[must_use]
pub fn text(checks: &[Check], colour: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let word = format!("{:<4}", check.verdict.as_str());
        let word = match (colour, check.verdict) {
            (false, _) => word,
            (true, Verdict::Ok) => format!("\x1b[32m{word}\x1b[0m"),
            (true, Verdict::Warn) => format!("\x1b[33m{word}\x1b[0m"),
            (true, Verdict::Bad) => format!("\x1b[31m{word}\x1b[0m"),
        };
        let _ = writeln!(out, "{word}  {:<width$}  {}", check.name, check.found);
        if let Some(cure) = &check.cure {
            let _ = writeln!(out, "      {:<width$}  -> {cure}", "");
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (warnings, bad) = (count(Verdict::Warn), count(Verdict::Bad));
    let last = match (bad, warnings) {
        (0, 0) => "deadpeer run would run well here".to_owned(),
        (0, warnings) => format!("deadpeer run would run here; {warnings} of these would limit it"),
        (bad, _) => format!("deadpeer run would not run well here: {bad} of these must change"),
    };
    let _ = writeln!(out, "\n{last}");
    out
}

/// One object: `version`, `verdict` (the worst), `checks`.
#[must_use]
pub fn json(checks: &[Check]) -> String {
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            serde_json::json!({
                "name": check.name,
                "verdict": check.verdict.as_str(),
                "found": check.found,
                "cure": check.cure,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({"version": 1, "verdict": worst.as_str(), "checks": checks}))
}
