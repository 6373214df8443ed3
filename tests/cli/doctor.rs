//! `deadpeer doctor`: its verdict is that of `deadpeer run`, and the profile that it prints works.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};

use deadpeer::frame::Frame;
use serde_json::Value;

use crate::daemon::Killed;
use crate::outcome::{Outcome, outcome};
use crate::refusals::{events, sandboxed, without_io_uring};
use crate::skip::skip;

fn doctor(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
    command.arg("doctor");
    command
}

#[test]
fn on_this_machine_run_starts_and_the_two_forms_agree() {
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
    assert_eq!((&check["verdict"], code), (&"bad".into(), Some(78)), "{check:#}");
}

#[test]
fn where_io_uring_is_forbidden_doctor_and_run_agree() {
    for (errno, code, cause, cure) in [
        (libc::EPERM, 77, "Operation not permitted", "seccomp profile"),
        (libc::ENOSYS, 71, "Function not implemented", "Linux 6.1 or newer"),
    ] {
        for (io, code, engine, verdict) in [
            ("auto", 0, Value::from("epoll"), "warn"),
            ("epoll", 0, Value::from("epoll"), "ok"),
            ("uring", code, Value::Null, "bad"),
            ("tokio-uring", code, Value::Null, "bad"),
        ] {
            let Some(mut command) = without_io_uring(errno, &format!("doctor --json --io {io}")) else {
                return;
            };
            let output = doctor(&mut command);
            let value: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((output.status.code(), output.stderr.len()), (Some(code), 0), "{value:#}");
            assert_eq!(value["engine"], engine);
            let checks = value["checks"].as_array().unwrap();
            let of = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
            assert_eq!(of("io_uring")["verdict"], verdict);
            let bad = checks.iter().filter(|check| check["verdict"] == "bad").count();
            assert_eq!(bad, usize::from(verdict == "bad"), "{value:#}");

            let run = format!("run --listen 127.0.0.1:0 --events - --io {io}");
            let mut command = without_io_uring(errno, &run).expect("there was a sandbox a moment ago");
            let mut child = Killed(command.spawn().unwrap());
            if code == 0 {
                assert_eq!(events(&mut child)()["engine"], engine, "run takes what doctor says");
            } else {
                Outcome::after(child).assert_refusal(code, &[cause]);
            }
            if io == "epoll" {
                continue;
            }
            let says = |name: &str, key: &str, words: &[&str]| {
                let text = of(name)[key].as_str().unwrap();
                assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
            };
            says("io_uring", "found", &["cannot set up io_uring", cause]);
            let calls = "io_uring_setup, io_uring_enter and io_uring_register";
            says("io_uring", "cure", &[cure, calls, "until then", "epoll"]);
            says("seccomp", "found", &["a filter on this process"]);
            says("seccomp", "cure", &[calls, "deadpeer doctor --seccomp-profile"]);
            says("operations", "found", &["unknown without a ring"]);
        }
    }
}

/// Compiles the profile on standard input for this machine with libseccomp, as runc and crun do, and writes the filter
/// to standard output.
const COMPILE: &str = r#"
import ctypes, json, sys
seccomp = ctypes.CDLL("libseccomp.so.2")
class Condition(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_MASKED_EQ": 7}
def action(group, errno):
    return 0x7fff0000 if group["action"] == "SCMP_ACT_ALLOW" else 0x00050000 | group.get("errnoRet", errno)
seccomp.seccomp_init.restype = ctypes.c_void_p
profile = json.load(sys.stdin)
default = profile["defaultErrnoRet"]
filter = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(0x00050000 | default)))
for group in profile["syscalls"]:
    conditions = [Condition(c["index"], OPERATORS[c["op"]], c["value"], c.get("valueTwo", 0)) for c in group.get("args", [])]
    conditions = (Condition * len(conditions))(*conditions)
    for name in group["names"]:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            continue # newer than this libseccomp
        result = seccomp.seccomp_rule_add_array(
            filter, ctypes.c_uint32(action(group, default)), number, len(conditions), conditions)
        assert result == 0 or number < 0, (name, result)
assert seccomp.seccomp_export_bpf(filter, 1) == 0
"#;

#[test]
fn run_serves_on_a_ring_under_the_seccomp_profile_that_doctor_prints() {
    let printed = outcome("doctor --seccomp-profile");
    printed.assert_quiet_success();
    let mut library = Command::new("python3");
    library.args(["-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"]);
    if !library.output().is_ok_and(|tried| tried.status.success()) {
        return skip("no libseccomp.so.2 for python3: install python3 and libseccomp2");
    }
    let folder = env!("CARGO_TARGET_TMPDIR");
    let (profile, filter) = (format!("{folder}/profile.json"), format!("{folder}/profile.bpf"));
    std::fs::write(&profile, printed.stdout).unwrap();
    let mut compiler = Command::new("python3");
    compiler
        .args(["-c", COMPILE])
        .stdin(File::open(&profile).unwrap())
        .stdout(File::create(&filter).unwrap());
    assert!(compiler.status().unwrap().success());
    let under = |line: &str| {
        let mut command = sandboxed(&["--seccomp", "0"], line)?;
        command.stdin(File::open(&filter).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Some(Killed(command.spawn().unwrap()))
    };
    // A beat, a silence with its probes, a death by time; a FIN; the end.
    let line = "run --io uring --listen 127.0.0.1:0 --events - --heartbeat frames \
                --idle 200ms --interval 100ms --probes 2";
    let Some(mut child) = under(line) else { return };
    let mut next = events(&mut child);
    let listening = next();
    assert_eq!(listening["engine"], "io_uring", "{listening:#}");
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    let mut silent = TcpStream::connect(address).unwrap();
    silent.write_all(&Frame::beat(0).encode()).unwrap();
    let mut until =
        |event: &str| std::iter::repeat_with(&mut next).find(|seen| seen["event"] == event).unwrap();
    assert_eq!(until("died")["cause"], "heartbeat_expired");
    drop(TcpStream::connect(address).unwrap());
    assert_eq!(until("died")["cause"], "closed");
    // Its parent, the sandbox, would not hand a signal on.
    let pid = listening["pid"].to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(until("summary")["event"], "summary");
    Outcome::after(child).assert_quiet_success();

    let value = Outcome::after(under("doctor --json").unwrap()).stdout;
    let value: Value = serde_json::from_str(&value).unwrap();
    let checks = value["checks"].as_array().unwrap();
    let seccomp = checks.iter().find(|check| check["name"] == "seccomp").unwrap();
    assert_eq!(seccomp["found"], "a filter on this process, which allows io_uring");
    // The filter refuses what the profile does not list.
    let mut forbidden = Command::new("bwrap");
    forbidden.args(["--bind", "/", "/", "--seccomp", "0", "unshare", "--user", "true"]);
    let refused = forbidden.stdin(File::open(&filter).unwrap()).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Operation not permitted"), "{refused:?}");
}

#[test]
fn a_reader_that_leaves_disturbs_nothing() {
    let line = format!("{} doctor | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_deadpeer"));
    let output = doctor(Command::new("bash").args(["-c", &line]));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}
