//! Processes that are stopped: a peer's, and our own.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Killed, QUICK, beat, program};
use crate::watch::PATIENCE;

#[test]
fn a_stopped_program_whose_kernel_answers_dies_of_its_heartbeat_and_the_proof_says_so() {
    // Keepalive counts whole seconds, so its answer comes into the proof of a policy of seconds.
    let options = ["--idle", "2s", "--interval", "500ms", "--probes", "4"];
    for heartbeat in ["bytes", "frames"] {
        let mut daemon =
            Daemon::start(None, "127.0.0.1:0", &[&options[..], &["--heartbeat", heartbeat]].concat());
        let peer = beat(None, daemon.address, &["--every", "100ms"]);
        daemon.wait_for("up");
        daemon.listen_for(Duration::from_millis(400));
        peer.signal("-STOP");
        let died = daemon.wait_for("died");
        assert_eq!(died["cause"], "heartbeat_expired", "{died:#}");
        assert_eq!(died["proof"]["transport"], "answering", "{died:#}");
        assert!(died["silent_ms"].as_u64().unwrap() >= 4_000, "{died:#}");
        peer.signal("-CONT");
    }
}

#[test]
fn a_stopped_program_stays_alive_where_only_its_kernel_is_asked() {
    let options = ["--heartbeat", "none", "--idle", "2s", "--interval", "500ms", "--probes", "2"];
    let mut daemon = Daemon::start(None, "127.0.0.1:0", &options);
    let peer = beat(None, daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    peer.signal("-STOP");
    daemon.listen_for(Duration::from_secs(5));
    assert_eq!(daemon.count("died"), 0, "{:#?}", daemon.seen);
    peer.signal("-CONT");
}

#[test]
fn a_peer_that_pauses_for_less_than_the_deadline_recovers() {
    let slow_to_judge = ["--idle", "400ms", "--interval", "1s", "--probes", "9"];
    let mut daemon = Daemon::start(None, "127.0.0.1:0", &slow_to_judge);
    let peer = beat(None, daemon.address, &["--every", "50ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_secs(1)); // who has not spoken yet is not suspected
    peer.signal("-STOP");
    daemon.wait_for("suspected");
    peer.signal("-CONT");
    daemon.wait_for("recovered");
    assert_eq!(daemon.count("died"), 0);
}

#[test]
fn a_killed_program_is_an_end_that_its_kernel_tells() {
    let mut daemon = Daemon::start(None, "127.0.0.1:0", QUICK);
    let peer = beat(None, daemon.address, &["--every", "50ms"]);
    daemon.wait_for("up");
    peer.signal("-KILL");
    let died = daemon.wait_for("died");
    assert!(died["cause"] == "closed" || died["cause"] == "aborted", "{died:#}");
}

#[test]
fn when_we_are_stopped_ourselves_nobody_who_beats_dies_for_it() {
    for wake in ["lazy", "beat"] {
        let mut daemon = Daemon::start(None, "127.0.0.1:0", &[QUICK, &["--wake", wake]].concat());
        let _peers = beat(None, daemon.address, &["--count", "50", "--every", "50ms"]);
        daemon.wait_for_many("up", 50);
        daemon.listen_for(Duration::from_millis(500));
        daemon.child.signal("-STOP");
        std::thread::park_timeout(Duration::from_millis(2_500)); // over three detection times
        daemon.child.signal("-CONT");
        let stall = daemon.wait_for("stall");
        assert!(stall["held_ms"].as_u64().unwrap() >= 500, "{stall:#}");
        daemon.listen_for(Duration::from_millis(1_500));
        assert_eq!(daemon.count("died"), 0, "{wake}: {:#?}", daemon.seen.last());
        assert_eq!(daemon.count("stall"), 1, "{wake}");
    }
}

#[test]
fn a_signal_ends_a_start_that_waits_for_the_reader_of_a_fifo() {
    let path = std::env::temp_dir().join(format!("deadpeer-fifo-{}", std::process::id()));
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut command = program(None);
    command.args(["run", "--listen", "127.0.0.1:0", "--threads", "1", "--events"]).arg(&path);
    let mut child = Killed(command.spawn().unwrap());
    let tasks = format!("/proc/{}/task", child.0.id());
    until(|| {
        let mut names = std::fs::read_dir(&tasks).unwrap().flatten().map(|task| task.path().join("comm"));
        names.any(|name| std::fs::read_to_string(name).is_ok_and(|name| name == "signals\n"))
    });
    child.signal("-TERM");
    let mut status = None;
    until(|| {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(128 + libc::SIGTERM));
    std::fs::remove_file(&path).unwrap();
}

/// Looks again and again until it holds.
fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never did");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
