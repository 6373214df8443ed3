//! Tells the program which commit it is built from: `DEADPEER_COMMIT`, which result files carry.
//!
//! Only release builds ask for it: a debug build would be compiled anew after each commit, and what it measures is
//! doubted anyway. The build goes on without git; the commit is then unknown.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let wanted = std::env::var_os("CARGO_FEATURE_BENCH").is_some()
        && std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = wanted.then(|| packaged().or_else(checked_out)).flatten() {
        println!("cargo::rustc-env=DEADPEER_COMMIT={commit}");
    }
}

/// The commit of a published package, which `cargo package` writes into it.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let commit = text.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(commit.to_owned())
}

/// The commit of the repository whose root this is; with `-modified` where a source differs from it.
fn checked_out() -> Option<String> {
    // A repository around this package has commits of something else.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let sources = ["src", "Cargo.toml", "Cargo.lock"];
    for path in sources {
        println!("cargo::rerun-if-changed={path}");
    }
    // A file that is not there would make every build run this again.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let changes = git(&["status", "--porcelain", "--", sources[0], sources[1], sources[2]])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-modified") })
}

/// What git prints, without the end of the line. `None` when there is no git or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
