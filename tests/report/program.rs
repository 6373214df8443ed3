//! `deadpeer report` as a process: exit codes, files, messages.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use deadpeer::measure::result::ResultFile;

use crate::sample;

/// The files of one test.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let folder = std::env::temp_dir().join(format!("deadpeer-report-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Files(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn result(&self, name: &str, result: &ResultFile) -> String {
        fs::write(self.0.join(name), result.to_json()).unwrap();
        self.path(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
    command.arg("report").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_format_is_written_to_standard_output_or_a_file() {
    let files = Files::new("formats");
    let result = files.result("a.json", &sample::without_comparison(1));
    for (format, words) in [
        ("text", "Ways to die"),
        ("markdown", "| way |"),
        ("json", "\"deadpeer-report\""),
        ("hgrm", "TotalCount"),
        ("hlog", "Tag=detect-fin,"),
        ("html", "<!doctype html>"),
    ] {
        let shown = report(&[&result, "--format", format]);
        assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(0), String::new()), "{format}");
        let shown = text(&shown.stdout);
        assert!(shown.to_lowercase().contains(&words.to_lowercase()), "{format}: {shown}");
        let out = files.path("out");
        let written = report(&[&result, "--format", format, "--out", &out]);
        assert_eq!((written.status.code(), text(&written.stdout)), (Some(0), String::new()));
        assert_eq!(fs::read_to_string(&out).unwrap(), shown, "{format}");
    }
}

#[test]
fn a_failed_threshold_is_exit_code_3_with_a_line_each() {
    let files = Files::new("thresholds");
    let result = files.result("a.json", &sample::whole(1));
    let failed = ["--fail-if", "detect.stop.missed>0", "--fail-if", "detect.path-loss.p99>1s"];
    let output = report(&[&[&result[..], "--fail-if", "detect.fin.p99>1s"], &failed[..]].concat());
    assert_eq!(output.status.code(), Some(3));
    let errors = text(&output.stderr);
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(
        lines[0].contains("detect.stop.missed>0: it is 1") && lines[1].contains("was not run"),
        "{errors}"
    );
    assert!(text(&output.stdout).contains("FAIL: "), "the report is written all the same");
    assert_eq!(report(&[&result, "--fail-if", "cpu.deadpeer/epoll>0.03"]).status.code(), Some(0));
}

#[test]
fn wrong_arguments_are_exit_code_2_and_name_the_cure() {
    let files = Files::new("usage");
    let result = files.result("a.json", &sample::whole(1));
    for (arguments, cure) in [
        (&[][..], "RESULT"),
        (&[&result[..], "--format", "pdf"], "markdown"),
        (&[&result, "--fail-if", "detect.fin.p99"], "write it like"),
        (&[&result, "--fail-if", "detect.fin.p99>2x"], "not a unit"),
        (&[&result, "--fail-if", "detect.fun.p99>2ms"], "fin|rst"),
        (&[&result, "--fail-if", "detect.fin.p99>2"], "a duration with its unit"),
        (&[&result, "--fail-if", "change.detect.fin.p99>2"], "give two results"),
        (&[&result, "--base", "nobody"], "tokio-uring"),
        (&[&result, "--format", "hgrm", "--series", "fin"], "detect.fin"),
        (&[&result, &result, "--format", "hlog"], "leave the second out"),
        (&[&result, &result, "--format", "hgrm"], "leave the second out"),
    ] {
        let output = report(arguments);
        let errors = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}: {errors}");
        assert!(errors.contains(cure), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_exit_code_1_and_named() {
    let files = Files::new("files");
    let result = files.result("a.json", &sample::few(1));
    let broken = files.path("broken.json");
    fs::write(&broken, "{\"format\": \"deadpeer-result\"").unwrap();
    let binary = files.path("binary");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    let large = files.path("large");
    fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    let folder = files.0.to_str().unwrap();
    let nowhere = files.path("no/such/folder");
    for (arguments, words) in [
        (vec!["/nowhere/result.json"], vec!["/nowhere/result.json", "No such file"]),
        (vec![folder], vec![folder, "directory"]),
        (vec![&broken], vec![&broken[..], "no result of `deadpeer bench`", "EOF"]),
        (vec![&binary], vec![&binary, "not text"]),
        (vec![&large], vec![&large, "larger than a report reads"]),
        (vec!["/dev/zero"], vec!["/dev/zero", "larger than a report reads"]),
        (vec![&result, &broken], vec![&broken]),
        (vec![&result, "--out", &nowhere], vec![&nowhere, "--out"]),
        (vec![&result, "--out", "/dev/full"], vec!["/dev/full", "No space"]),
    ] {
        let output = report(&arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.starts_with("deadpeer report: ") && !errors.contains("os error"), "{errors}");
        assert!(words.iter().all(|words| errors.contains(words)), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_latency_log_is_a_report_too_and_a_broken_one_is_named() {
    let files = Files::new("log");
    let result = files.result("a.json", &sample::without_comparison(1));
    let log = files.path("a.hlog");
    assert_eq!(report(&[&result, "--format", "hlog", "--out", &log]).status.code(), Some(0));
    for (format, words) in
        [("text", "detect-fin"), ("markdown", "| detect-fin |"), ("html", "<!doctype html>")]
    {
        let shown = report(&[&log, "--format", format]);
        assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(0), String::new()), "{format}");
        assert!(text(&shown.stdout).contains(words), "{format}");
    }
    for (arguments, words) in [
        (vec![&log[..], "--format", "json"], "text, markdown, html or svg"),
        (vec![&log, &log], "leave the second out"),
        (vec![&log, "--fail-if", "detect.fin.p99>1ms"], "give a result of bench"),
    ] {
        let output = report(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
    fs::write(&log, "#[Histogram log format version 1.3]\nTag=a,0,1\n#\n").unwrap();
    let output = report(&[&log]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("line 2: "), "{}", text(&output.stderr));
}

#[test]
fn a_closed_standard_output_is_no_fault() {
    let files = Files::new("closed");
    let result = files.result("a.json", &sample::whole(1));
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
    command.args(["report", &result, "--format", "hlog"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The log is larger than a pipe holds, so the write fails in the middle.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn no_escape_sequence_goes_where_no_terminal_is() {
    let files = Files::new("plain");
    let result = files.result("a.json", &sample::whole(1));
    assert!(!report(&[&result]).stdout.contains(&0x1b));
}
