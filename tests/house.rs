//! The rules of the house that a compiler does not keep: which room may import which, where unsafe code may stand, what
//! the top level shows, and what a user's tree contains.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "house/circles.rs"]
mod circles;

/// Which rooms a room may import. A room that is not named here imports nothing of the crate.
const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("time", &["sys"]), // only sys::clock: time is the one reader of the clocks
    ("frame", &["limits"]),
    ("partial_frame", &["frame"]),
    ("wheel", &["limits", "time"]),
    ("liveness", &["frame", "limits", "time", "wheel"]),
    ("sys", &["limits", "time"]),
    ("safe_text", &[]),
    ("words", &[]),
    ("measure", &["liveness", "limits", "safe_text", "time"]),
    ("evidence", &["liveness", "sys"]),
    ("reactor", &["limits", "liveness", "sys", "time"]),
    (
        "tracking",
        &["evidence", "frame", "limits", "liveness", "measure", "partial_frame", "reactor", "sys", "time"],
    ),
    ("client", &["frame", "limits", "partial_frame", "sys", "time"]),
    ("doctor", &["reactor", "limits", "measure", "sys"]),
    ("http", &["limits"]),
    ("hosted", &["limits", "liveness", "reactor", "sys", "time", "tracking"]),
    ("watch", &["evidence", "limits", "liveness", "sys", "time"]),
    ("proxy", &["evidence", "http", "limits", "liveness", "reactor", "sys", "time", "wheel"]),
    (
        "events",
        &[
            "frame",
            "http",
            "limits",
            "liveness",
            "measure",
            "proxy",
            "reactor",
            "safe_text",
            "sys",
            "time",
            "tracking",
        ],
    ),
    ("bench", &["frame", "limits", "measure", "sys", "time"]),
    (
        "cli",
        &[
            "bench",
            "client",
            "doctor",
            "events",
            "frame",
            "hosted",
            "limits",
            "liveness",
            "measure",
            "proxy",
            "reactor",
            "safe_text",
            "sys",
            "time",
            "tracking",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    rust_files("src")
}

/// The Rust files under a folder of the top level: path below it, and text.
fn rust_files(top: &str) -> Vec<(PathBuf, String)> {
    fn walk(top: &Path, folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(top).unwrap().to_owned(), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(top), &root().join(top), &mut found);
    assert!(found.len() > 10, "the files were not found");
    found
}

/// The room a file belongs to: its first folder, or its own name.
fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The lines of a file that are code, without those of its tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = room(&path);
        if from == "lib" || from == "main" {
            continue;
        }
        let allowed = IMPORTS.iter().find(|(name, _)| *name == from);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{from} has no line in IMPORTS"));
        for line in code(&text) {
            for (position, _) in line.match_indices("crate::") {
                let rest = &line[position + "crate::".len()..];
                let to: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if to != from && !allowed.contains(&to.as_str()) && !to.is_empty() {
                    wrong.push(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the direction:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files = sources();
    let tree = circles::Tree::of(files.iter().map(|(path, text)| (path.as_path(), text.as_str())));
    let circles: Vec<_> = tree.circles().iter().map(|circle| circle.join(" ")).collect();
    assert!(circles.is_empty(), "files import each other:\n{}", circles.join("\n"));
}

#[test]
fn the_pure_rooms_read_no_clock_and_hold_no_descriptor() {
    for (path, text) in sources() {
        if matches!(room(&path).as_str(), "liveness" | "wheel" | "frame" | "http" | "limits") {
            for word in
                ["Instant::now", "std::os::fd", "std::fs", "std::io", "println!", "libc::c_", "thread::"]
            {
                let found = code(&text).any(|line| line.contains(word));
                assert!(!found, "{} must stay pure, but names {word}", path.display());
            }
        }
    }
}

#[test]
fn the_wall_clock_is_read_for_dates_only() {
    for (path, text) in sources() {
        let dates = matches!(room(&path).as_str(), "events" | "time")
            || path.ends_with("sys/clock.rs")
            || path.ends_with("cli/latency_log.rs") // the date of a log
            || path.ends_with("cli/bench.rs"); // the date of a result
        for word in ["WallClock", "realtime_nanos", "CLOCK_REALTIME", "SystemTime"] {
            let found = code(&text).any(|line| line.contains(word));
            assert!(dates || !found, "{} knows the wall clock by {word}", path.display());
        }
    }
}

/// The names of all tests in a file.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]").skip(1).filter_map(|rest| rest.split("fn ").nth(1)?.split('(').next())
}

/// The edge cases of the document: their section's text; and of each row its number and the tests that it names.
fn edge_cases() -> (String, Vec<(u32, Vec<String>)>) {
    let document = fs::read_to_string(root().join("docs/LIVENESS.md")).unwrap();
    let (_, section) = document.split_once("## Edge cases and where each is shown").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |row: &str| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (Ok(number), &[_, _, _, shown]) = (cells[0].parse(), &cells[..]) else { return None };
        Some((number, shown.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()))
    };
    (section.to_owned(), section.lines().filter_map(row).collect())
}

#[test]
fn every_edge_case_names_tests_that_exist() {
    let files: Vec<_> = ["src", "tests"].into_iter().flat_map(rust_files).collect();
    let tests: BTreeSet<_> = files.iter().flat_map(|(_, text)| tests(text)).collect();
    assert!(tests.len() > 100, "the tests were not found");
    let (_, rows) = edge_cases();
    for (number, names) in &rows {
        for name in names {
            assert!(tests.contains(name.as_str()), "row {number} names `{name}`, which is no test");
        }
    }
    assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=41).collect::<Vec<_>>());
}

#[test]
fn the_document_says_which_edge_cases_do_not_run_on_every_engine() {
    // In a file, and on so many engines is it run.
    let engines = |path: &Path| match () {
        () if path.ends_with("watcher.rs") => 1,
        () if path.starts_with("kernel") => 3,
        () if path.starts_with("tracking/tests") => 2,
        () => 1,
    };
    let mut most = BTreeMap::new();
    for (path, text) in ["src", "tests"].into_iter().flat_map(rust_files) {
        for name in tests(&text) {
            let most = most.entry(name.to_owned()).or_insert(0);
            *most = engines(&path).max(*most);
        }
    }
    let (section, rows) = edge_cases();
    let section = section.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows_on = |count: i32| {
        let fits =
            |(_, names): &&(u32, Vec<String>)| names.iter().map(|name| most[name]).max() == Some(count);
        let numbers: Vec<_> = rows.iter().filter(fits).map(|(number, _)| number.to_string()).collect();
        let (last, others) = numbers.split_last().unwrap();
        format!("{} and {last}", others.join(", "))
    };
    for says in
        [format!("Rows {} rest on these alone", rows_on(2)), format!("run once: rows {}.", rows_on(1))]
    {
        assert!(section.contains(&says), "docs/LIVENESS.md must say: {says}");
    }
}

#[test]
fn unsafe_code_stands_only_under_sys_and_every_block_has_its_reason() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            if line.starts_with("//") || !line.contains("unsafe {") {
                continue;
            }
            assert_eq!(room(&path), "sys", "{}:{}: unsafe outside of sys", path.display(), number + 1);
            let before = &lines[number.saturating_sub(8)..number];
            let reason = before.iter().any(|line| line.contains("SAFETY:"));
            assert!(reason, "{}:{}: no SAFETY line", path.display(), number + 1);
        }
    }
}

#[test]
fn the_top_level_shows_the_architecture_and_nothing_else() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "src",
        "benches",
        "examples",
        "tests",
        "docs",
        "packaging",
        "target",
    ];
    let shown: BTreeSet<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    assert!(shown.is_empty(), "unexpected at the top level: {shown:?}");
}

#[test]
fn every_dependency_has_its_reason_on_its_line() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            dependencies = line.contains("dependencies");
        } else if dependencies && line.contains('=') {
            assert!(line.contains(" # "), "no reason: {line}");
        }
    }
}

/// The crates that a program gets with these features of ours, itself not counted.
fn crates(features: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--no-default-features", "--features", features])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_library_user_gets_few_crates_and_no_yardstick() {
    let watch = crates("");
    assert_eq!(watch.len(), 7, "README.md and src/lib.rs say that it brings seven crates: {watch:?}");
    let tokio = crates("tokio");
    assert!(tokio.contains("tokio") && tokio.len() <= 14, "{tokio:?}");
    for features in ["", "tokio", "client", "tracker", "hosted", "proxy", "report", "cli"] {
        let crates = crates(features);
        for yardstick in ["tokio-util", "indicatif", "criterion"] {
            assert!(!crates.contains(yardstick), "{features} brings {yardstick}");
        }
        assert!(
            ["hosted", "cli"].contains(&features) || !crates.contains("tokio-uring"),
            "{features} brings tokio-uring"
        );
    }
}

#[test]
fn every_limit_has_its_reason() {
    let limits = fs::read_to_string(root().join("src/limits.rs")).unwrap();
    let lines: Vec<&str> = limits.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with("pub const") {
            assert!(lines[number - 1].starts_with("///"), "no reason: {line}");
        }
    }
}
