//! Limits: connections, descriptors, a sink that does not take.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use deadpeer::liveness::{Cause, EventKind, Policy, TrackerConfig};
use deadpeer::reactor::bind;
use serde_json::Value;

use crate::daemon::{Daemon, program};
use crate::watch::{PATIENCE, QUICK, Setup, Watch, connect, is, reset, skip};

#[test]
fn at_the_limit_new_connections_wait_and_no_peer_dies_for_it() {
    let mut watch = Watch::start(Setup { capacity: 3, ..Setup::LAZY });
    let mut peers: Vec<_> = (0..3).map(|_| watch.speaking_peer()).collect();
    let waiting = connect(watch.address);
    watch.wait(|event| matches!(event.kind, EventKind::Saturated { .. }));
    let address = waiting.local_addr().unwrap();
    assert!(!watch.seen().iter().any(|event| is(event, address)));
    let first = peers.remove(0);
    let gone = first.local_addr().unwrap();
    reset(first);
    assert_eq!(watch.death(gone).cause, Cause::Aborted);
    watch.wait(|event| matches!(event.kind, EventKind::Up) && is(event, address));
    watch.wait(|event| matches!(event.kind, EventKind::Resumed));
    let (events, _) = watch.finish();
    // The limit may be met again by an accept that finds no connection waiting; it is said once a time.
    let mut limits = events.iter().filter(|event| event.subject.is_none()).map(|event| &event.kind);
    assert!(matches!(limits.next(), Some(EventKind::Saturated { limit: "max_connections" })));
    assert!(matches!(limits.next(), Some(EventKind::Resumed)));
    assert_eq!(limits.filter(|kind| matches!(kind, EventKind::Resumed)).count(), 0);
}

#[test]
fn a_sink_that_refuses_for_a_while_loses_nothing_and_ends_in_back_pressure() {
    let mut watch = Watch::start(Setup { capacity: 100, ..Setup::LAZY });
    watch.refuse(true);
    let mut dead = Vec::new();
    // Each of the hundred dies, and its place is not given out again before its death was taken.
    for _ in 0..100 {
        let mut peer = connect(watch.address);
        peer.write_all(b"x").unwrap();
        dead.push(peer.local_addr().unwrap());
        reset(peer);
    }
    let mut late = connect(watch.address);
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    late.write_all(b"x").unwrap();
    assert!(late.read(&mut [0; 1]).is_err(), "no side closes it");
    assert!(watch.seen().is_empty());
    watch.refuse(false);
    let late_address = late.local_addr().unwrap();
    watch.wait(|event| matches!(event.kind, EventKind::Up) && is(event, late_address));
    for address in dead {
        assert_eq!(watch.death(address).cause, Cause::Aborted);
    }
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    watch.finish();
}

#[test]
fn a_flapping_peer_behind_a_stuck_sink_keeps_the_place_of_its_death() {
    // Suspected between two beats, and not dead before a busy machine has sent the next one.
    let policy = Policy { interval: Duration::from_secs(2), ..QUICK };
    let mut watch = Watch::start(Setup { policy, ..Setup::LAZY });
    watch.refuse(true);
    let mut peer = connect(watch.address);
    let address = peer.local_addr().unwrap();
    for _ in 0..6 {
        peer.write_all(b"x").unwrap();
        std::thread::park_timeout(Duration::from_millis(550));
    }
    reset(peer);
    std::thread::park_timeout(Duration::from_millis(100));
    watch.refuse(false);
    assert_eq!(watch.death(address).cause, Cause::Aborted);
    watch.finish();
}

#[test]
fn a_daemon_that_has_ended_has_left_its_port() {
    // The kernel takes a ring apart in the background, so one round would prove little.
    for _ in 0..30 {
        let watch = Watch::start(Setup::LAZY);
        let address = watch.address;
        watch.finish();
        bind(address, 1, &TrackerConfig::new(QUICK, 1)).expect("no program listens there any more");
    }
}

#[test]
fn out_of_descriptors_it_says_so_once_waits_without_spinning_and_goes_on() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return skip("no `prlimit`: install util-linux");
    }
    let mut daemon = Daemon::start(None, "127.0.0.1:0", &["--policy", "standard", "--handshake", "100s"]);
    let pid = daemon.child.0.id().to_string();
    let limit = |most: u64| {
        let nofile = format!("--nofile={most}:");
        let output = Command::new("prlimit").args(["--pid", &pid, &nofile]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let before: Vec<_> = (0..5).map(|_| connect(daemon.address)).collect();
    daemon.wait_for_many("up", 5);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    limit(open);
    let waiting: Vec<_> = (0..20).map(|_| connect(daemon.address)).collect();
    let saturated = daemon.wait_for("saturated");
    assert_eq!(saturated["limit"], "descriptors", "{saturated:#}");
    daemon.listen_for(Duration::from_secs(2));
    // A number below the limit may have been free still.
    assert!(daemon.count("up") < 10, "{:#?}", daemon.seen);
    assert_eq!((daemon.count("saturated"), daemon.count("died")), (1, 0));
    limit(1_000);
    daemon.wait_for_many("up", 25);
    daemon.wait_for("resumed");
    assert_eq!((daemon.count("saturated"), daemon.count("resumed")), (1, 1));
    daemon.child.signal("-TERM");
    let summary = daemon.wait_for("summary");
    assert_eq!((summary["opened"].as_u64(), summary["died"].as_u64()), (Some(25), Some(0)));
    // It looks ten times a second; a loop that spun would enter its ring some hundred thousand times.
    let enters = summary["ring"]["enters"].as_u64().unwrap();
    assert!(enters < 1_000, "{enters} entries into the ring in two seconds");
    drop((before, waiting));
}

#[test]
fn two_rings_share_port_and_limit_and_each_peer_belongs_to_one() {
    let mut command = program(None);
    command.args(["run", "--threads", "2", "--listen", "127.0.0.1:0", "--events", "-"]);
    command.args(["--policy", "standard", "--handshake", "100s", "--max-connections", "40"]);
    let mut daemon = Daemon::of(command);
    let mut peers: Vec<_> = (0..45).map(|_| connect(daemon.address)).collect();
    daemon.wait_for_many("up", 40);
    daemon.wait_for("saturated");
    assert_eq!(daemon.count("up"), 40);
    let ring_of = |event: &Value| event["id"].as_str().unwrap().split('-').next().unwrap().to_owned();
    let ups: Vec<_> = daemon.seen.iter().filter(|event| event["event"] == "up").cloned().collect();
    // All by chance on one ring: once in 2^39.
    for ring in ["0", "1"] {
        assert!(ups.iter().any(|up| ring_of(up) == ring), "no peer on ring {ring}");
    }
    // Room on one ring is room for a connection that waits at the other.
    let up = |address: &str| ups.iter().any(|up| up["peer"] == address);
    let (held, waiting): (Vec<_>, Vec<_>) =
        peers.drain(..).partition(|peer| up(&peer.local_addr().unwrap().to_string()));
    assert_eq!((held.len(), waiting.len()), (40, 5));
    held.into_iter().for_each(reset);
    daemon.wait_for_many("up", 45);
    daemon.wait_for_many("died", 40);
    for died in daemon.seen.iter().filter(|event| event["event"] == "died") {
        let same = |up: &&Value| up["peer"] == died["peer"];
        assert_eq!(ups.iter().find(same).map(ring_of), Some(ring_of(died)), "{died:#}");
    }
    daemon.wait_for("resumed");
    daemon.child.signal("-TERM");
    let summary = daemon.wait_for("summary");
    assert_eq!((summary["opened"].as_u64(), summary["died"].as_u64()), (Some(45), Some(40)));
    drop(waiting);
}
