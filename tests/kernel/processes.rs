//! Processes that are stopped: a peer's, and our own.

use std::time::Duration;

use crate::daemon::{Daemon, QUICK, beat};

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
    daemon.listen_for(Duration::from_secs(1)); // a peer that has not spoken yet is not suspected
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
fn when_the_daemon_is_stopped_no_peer_that_beats_dies_for_it() {
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
