//! Where the daemon writes to: pipes that close or are full, files, terminals.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::daemon::{Daemon, Killed, PATIENCE, program};
use crate::outcome::{Outcome, deadpeer, end, outcome, until};
use crate::skip::skip;

const EVENTS: &str = "run --threads 1 --listen 127.0.0.1:0 --max-connections 3 --events -";

/// A daemon whose output is not read, and its address from the first line.
fn unread(line: &str) -> (Killed, BufReader<ChildStdout>, String) {
    let child = deadpeer(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Killed(child.unwrap());
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    (child, output, first)
}

fn address_of(listening: &str) -> SocketAddr {
    let listening: Value = serde_json::from_str(listening).unwrap();
    listening["address"].as_str().unwrap().parse().unwrap()
}

/// A daemon that has something to say, into a pipe that is full.
pub struct Stuck {
    pub child: Killed,
    output: BufReader<ChildStdout>,
    peers: Vec<TcpStream>,
}

impl Stuck {
    pub fn start() -> Stuck {
        let (child, output, listening) = unread(EVENTS);
        fill(output.get_ref());
        let address = address_of(&listening);
        let peers = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Its sink hangs in write(2) once it has taken the first event.
        until("the sink is stuck", || writes(child.0.id()));
        Stuck { child, output, peers }
    }
}

/// Fills a pipe to the brim with empty lines, by an opening of its own: the flags of the child's
/// stay as they are.
fn fill(pipe: &ChildStdout) {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut end = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    for lines in [&[b'\n'; 4_096][..], b"\n"] {
        while end.write(lines).map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock)).is_ok() {}
    }
}

fn writes(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut calls =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("syscall")).ok());
    calls.any(|call| call.starts_with(&format!("{} ", libc::SYS_write)))
}

#[test]
fn a_reader_that_leaves_ends_the_daemon_quietly_though_nothing_happens() {
    for line in [EVENTS, "run --listen 127.0.0.1:0"] {
        let (child, output, first) = unread(line);
        assert!(first.contains("127.0.0.1:"), "{first}");
        drop(output);
        Outcome::after(child).assert_quiet_success();
    }
}

#[test]
fn a_reader_that_leaves_after_the_first_line_ends_a_pipeline_quietly() {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -o pipefail; timeout 60 \"$0\" {EVENTS} | head -1")]);
    let outcome = Outcome::of(command.arg(program(None).get_program()));
    outcome.assert_quiet_success();
    assert_eq!(outcome.stdout.lines().count(), 1);
    address_of(&outcome.stdout);
}

#[test]
fn a_reader_of_a_fifo_that_leaves_is_missed_at_the_next_event() {
    let path = format!("{}/reader-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let line = EVENTS.replace("--events -", &format!("--events {path}"));
    let child = Killed(deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut fifo = BufReader::new(File::open(&path).unwrap());
    let mut first = String::new();
    fifo.read_line(&mut first).unwrap();
    drop(fifo);
    let _peer = TcpStream::connect(address_of(&first)).unwrap();
    Outcome::after(child).assert_quiet_success();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_stuck_reader_does_not_hold_up_the_end() {
    let stuck = Stuck::start();
    stuck.child.signal("-TERM");
    let outcome = Outcome::after(stuck.child);
    outcome.assert_refusal(
        1,
        &["the output is stuck", "events were not delivered", "read faster", "--events PATH"],
    );
    drop((stuck.output, stuck.peers));
}

#[test]
fn a_reader_that_was_stuck_finds_every_event() {
    let Stuck { mut child, output, peers } = Stuck::start();
    drop(peers);
    let (to, lines): (_, Receiver<Value>) = channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
            to.send(serde_json::from_str(&line).unwrap()).unwrap();
        }
    });
    let mut seen = vec!["listening".to_owned()];
    let mut next = || {
        let event = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {seen:?}"));
        assert_eq!(event["seq"], seen.len(), "{event:#}");
        seen.push(event["event"].as_str().unwrap().to_owned());
        seen.iter().filter(|event| *event == "died").count()
    };
    while next() < 3 {}
    child.signal("-TERM");
    assert_eq!(end(&mut child).code(), Some(0));
    assert_eq!(lines.iter().last().unwrap()["undelivered"], 0);
}

#[test]
fn a_file_is_appended_to_and_each_run_is_a_stream_of_its_own() {
    let path = format!("{}/appended-{}.jsonl", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    for _ in 0..2 {
        let before = std::fs::read_to_string(&path).unwrap_or_default().lines().count();
        let line = format!("run --threads 1 --listen 127.0.0.1:0 --events {path}");
        let child = Killed(deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        until("the stream begins", || {
            std::fs::read_to_string(&path).unwrap_or_default().lines().count() > before
        });
        child.signal("-TERM");
        let outcome = Outcome::after(child);
        outcome.assert_quiet_success();
        assert_eq!(outcome.stdout, "", "the events are in the file");
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        values.iter().map(|value| (value["event"].as_str().unwrap(), value["seq"].as_u64())).collect();
    let stream = [("listening", Some(0)), ("summary", Some(1))];
    assert_eq!(told, [stream, stream].concat());
    std::fs::remove_file(&path).unwrap();
}

// --- for people --------------------------------------------------------------------------------

/// Everything that the daemon says to people about one peer that comes and goes.
fn sentences(environment: &[(&str, &str)]) -> String {
    let mut command = deadpeer("run --threads 1 --listen 127.0.0.1:0");
    command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    let address = text.trim_end().rsplit_once(' ').unwrap().1;
    drop(TcpStream::connect(address).unwrap());
    while !text.contains("died") {
        assert_ne!(output.read_line(&mut text).unwrap(), 0, "{text}");
    }
    child.signal("-TERM");
    output.read_to_string(&mut text).unwrap();
    Outcome::after(child).assert_quiet_success();
    text
}

#[test]
fn a_pipe_gets_plain_sentences_without_escape_codes() {
    for environment in [&[][..], &[("NO_COLOR", "1")], &[("TERM", "xterm-256color")]] {
        let text = sentences(environment);
        let plain = |character: char| character == '\n' || !character.is_control();
        assert!(text.chars().all(plain), "{text:?}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(concat!(
            "deadpeer ",
            env!("CARGO_PKG_VERSION"),
            " listens on 127.0.0.1:"
        )));
        assert!(
            lines[1].starts_with("policy standard: any byte is life; suspect after 20 s, dead after 32 s")
        );
        assert!(lines[2].starts_with("io_uring (") && lines[2].contains("), 1 thread, room for "), "{text}");
        assert!(lines[3].contains("Z  up ") && lines[3].contains(" on 127.0.0.1:"), "{text}");
        assert!(lines[4].contains("Z  died ") && lines[4].contains("hung up (FIN)"), "{text}");
        assert!(lines[5].contains("1 opened, 0 open, 1 died in "), "{text}");
        assert!(lines.contains(&"  0 suspected, 0 recovered"), "{text}");
    }
}

/// A daemon on a terminal: the child, its keyboard, and what it shows.
fn terminal(
    environment: &str,
    options: &str,
) -> Option<(Killed, std::process::ChildStdin, Receiver<String>)> {
    if Command::new("script").arg("--version").output().is_err() {
        skip("no `script`: install bsdutils");
        return None;
    }
    let binary = program(None);
    let binary = binary.get_program().to_str().unwrap();
    let run = format!("exec env {environment} {binary} run --threads 1 --listen 127.0.0.1:0 {options}");
    let mut command = Command::new("script");
    command.args(["-qec", &run, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
    let mut child = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let keyboard = child.0.stdin.take().unwrap();
    let mut screen = child.0.stdout.take().unwrap();
    let (to, shown) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = screen.read(&mut buffer) {
            let _ = to.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    Some((child, keyboard, shown))
}

/// What the daemon shows on a terminal until Ctrl-C is typed, and its exit code.
fn on_a_terminal(environment: &str) -> Option<(String, Option<i32>)> {
    let (mut child, mut keyboard, shown) = terminal(environment, "")?;
    let mut text = String::new();
    let mut wait = |word: &str| {
        while !text.contains(word) {
            text += &shown.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {word} in {text:?}"));
        }
        text.clone()
    };
    let first = wait("connections");
    let address = first.lines().next().unwrap().rsplit_once(' ').unwrap().1.to_owned();
    drop(TcpStream::connect(address).unwrap());
    wait("died ");
    wait("hung up");
    keyboard.write_all(b"\x03").unwrap();
    let text = wait("recovered");
    Some((text, end(&mut child).code()))
}

const CLEAR_LINE: &str = "\r\x1b[K";
const CYAN: &str = "\x1b[36m";

#[test]
fn a_terminal_keeps_a_status_line_and_ctrl_c_ends_in_order() {
    let Some((text, code)) = on_a_terminal("") else { return };
    assert_eq!(code, Some(0), "{text:?}");
    let status = format!("{CLEAR_LINE}0 alive, 0 suspect, 0 half-closed, 0 died");
    assert!(text.contains(&status), "{text:?}");
    assert!(text.contains(CYAN), "{text:?}");
    // The summary stands where the status line stood, not behind it.
    let before = text.split_once("1 opened, 0 open, 1 died in").unwrap().0;
    let last_line = before.rsplit_once('\n').unwrap().1;
    let shown = last_line.rsplit_once(CLEAR_LINE).unwrap().1;
    assert!(!shown.contains("alive"), "{text:?}");
}

#[test]
fn a_terminal_shows_where_events_go_that_it_does_not_get_and_a_status_line() {
    let path = format!("{}/elsewhere-{}.jsonl", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let Some((mut child, mut keyboard, shown)) = terminal("", &format!("--events {path}")) else { return };
    let mut text = String::new();
    while !text.contains("0 alive, 0 suspect") {
        text += &shown.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{text:?}"));
    }
    assert!(
        text.contains("listens on 127.0.0.1:") && text.contains(&format!("events go to {path}")),
        "{text:?}"
    );
    keyboard.write_all(b"\x03").unwrap();
    assert_eq!(end(&mut child).code(), Some(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2, "listening and summary");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn only_the_named_events_are_written_and_a_wrong_name_is_refused() {
    let line = "run --threads 1 --listen 127.0.0.1:0 --only died --only stall,resumed --events -";
    let mut daemon = Daemon::of(deadpeer(line));
    drop(TcpStream::connect(daemon.address).unwrap());
    daemon.wait_for("died");
    daemon.child.signal("-TERM");
    daemon.wait_for("summary");
    let told: Vec<_> = daemon.seen.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told, ["listening", "died", "summary"]);
    assert!(daemon.seen.iter().enumerate().all(|(seq, event)| event["seq"] == seq));
    outcome("run --listen 127.0.0.1:0 --only dead")
        .assert_refusal(2, &["`dead`", "the events are up, suspected"]);
}

#[test]
fn no_color_takes_the_colours_and_leaves_the_status_line() {
    let Some((text, _)) = on_a_terminal("NO_COLOR=1") else { return };
    assert!(
        text.contains("0 alive, 0 suspect") && !text.contains("\x1b[3") && !text.contains("\x1b[0m"),
        "{text:?}"
    );
}

#[test]
fn a_terminal_that_can_do_nothing_gets_plain_sentences() {
    let Some((text, _)) = on_a_terminal("TERM=dumb") else { return };
    assert!(!text.contains('\x1b') && !text.contains("alive"), "{text:?}");
}

#[test]
fn help_into_a_pipe_that_closes_is_quiet() {
    let mut command = Command::new("bash");
    command.args(["-c", "\"$0\" run --help | head -1"]).arg(program(None).get_program());
    Outcome::of(&mut command).assert_quiet_success();
    assert!(!outcome("run --help").stdout.contains('\x1b'), "a pipe gets no escape codes");
}
