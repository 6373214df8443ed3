//! Limits: connections, descriptors, a sink that does not take.

use std::io::{Read, Write};
use std::time::Duration;

use deadpeer::driver::bind;
use deadpeer::liveness::{Cause, EventKind, TrackerConfig};

use crate::watch::{PATIENCE, QUICK, Setup, Watch, connect, is, reset};

#[test]
fn at_the_limit_new_connections_wait_and_nobody_dies_for_it() {
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
    // The limit may be met again by an accept that finds nobody waiting; it is said once a time.
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
    assert!(late.read(&mut [0; 1]).is_err(), "nobody closes it");
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
    let mut watch = Watch::start(Setup::LAZY);
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
fn who_ended_has_left_its_port() {
    // The kernel takes a ring apart in the background, so one round would prove little.
    for _ in 0..30 {
        let watch = Watch::start(Setup::LAZY);
        let address = watch.address;
        watch.finish();
        bind(address, 1, &TrackerConfig::new(QUICK, 1)).expect("nobody listens there any more");
    }
}
