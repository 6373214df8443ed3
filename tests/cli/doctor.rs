//! `deadpeer doctor`, run.

use std::process::{Command, Output};

use serde_json::Value;

use crate::refusals::without_io_uring;

fn doctor(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
    command.arg("doctor");
    command
}

#[test]
fn this_machine_would_run_it_and_the_two_forms_agree() {
    let output = doctor(program().arg("--json"));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = value["checks"].as_array().unwrap();
    assert_eq!(output.status.code(), Some(0), "{value:#}");
    assert_ne!(value["verdict"], "bad");
    let output = doctor(&mut program());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'), "no colours in a pipe");
    for check in checks {
        let name = check["name"].as_str().unwrap();
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        let word = line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).split_whitespace().next();
        assert_eq!(word, check["verdict"].as_str());
    }
}

#[test]
fn few_descriptors_are_told_with_the_room_that_they_leave() {
    let limited = |count: u32| {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={count}:{count}"))
            .arg(env!("CARGO_BIN_EXE_deadpeer"))
            .args(["doctor", "--json"]);
        let output = doctor(&mut command);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = value["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "descriptors").unwrap().clone();
        (check, output.status.code())
    };
    let (check, code) = limited(1_024);
    assert_eq!((&check["verdict"], code), (&"warn".into(), Some(0)), "{check:#}");
    assert!(check["found"].as_str().unwrap().starts_with("1,024: room for 9"), "{check:#}");
    assert!(check["cure"].as_str().unwrap().contains("ulimit -n"));
    let (check, code) = limited(60);
    assert_eq!((&check["verdict"], code), (&"bad".into(), Some(71)), "{check:#}");
}

#[test]
fn a_filter_that_forbids_the_ring_is_told_with_its_cure_and_what_runs_until_then() {
    for (errno, code, cause, cure) in [
        (libc::EPERM, 77, "Operation not permitted", "seccomp profile"),
        (libc::ENOSYS, 71, "Function not implemented", "Linux 6.1 or newer"),
    ] {
        let Some(mut command) = without_io_uring(errno, "doctor --json") else { return };
        let output = doctor(&mut command);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(code), 0), "{value:#}");
        assert_eq!(value["verdict"], "bad");
        let checks = value["checks"].as_array().unwrap();
        let of = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
        let says = |name: &str, key: &str, words: &[&str]| {
            let text = of(name)[key].as_str().unwrap();
            assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
        };
        says("io_uring", "found", &["cannot set up io_uring", cause]);
        let calls = "io_uring_setup, io_uring_enter and io_uring_register";
        says("io_uring", "cure", &[cure, calls, "until then `deadpeer run` takes epoll (--io auto)"]);
        says("seccomp", "found", &["a filter on this process"]);
        says("seccomp", "cure", &[calls, "docs/seccomp.json"]);
        says("operations", "found", &["there is no ring"]);
        let bad: Vec<_> = checks.iter().filter(|check| check["verdict"] == "bad").collect();
        assert_eq!(bad, [of("io_uring")], "nothing else is in its way");
        assert_eq!(of("seccomp")["verdict"], "warn");

        let Some(mut command) = without_io_uring(errno, "doctor") else { return };
        let output = doctor(&mut command);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("bad   io_uring") && line.contains(cause)),
            "{text}"
        );
        assert!(text.contains("takes epoll (--io auto)"), "{text}");
    }
}

#[test]
fn a_reader_that_leaves_disturbs_nothing() {
    let line = format!("{} doctor | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_deadpeer"));
    let output = doctor(Command::new("bash").args(["-c", &line]));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}
