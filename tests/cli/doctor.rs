//! `deadpeer doctor`, run.

use std::process::{Command, Output};

use serde_json::Value;

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
fn a_reader_that_leaves_disturbs_nothing() {
    let line = format!("{} doctor | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_deadpeer"));
    let output = doctor(Command::new("bash").args(["-c", &line]));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}
