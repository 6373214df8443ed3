//! Many at once: places used again, all dying in one instant.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use deadpeer::liveness::{Cause, Event, EventKind, Policy};
use deadpeer::time::Instant;

use crate::watch::{PATIENCE, Setup, Watch, connect, reset};

#[test]
fn thousands_of_resets_in_one_instant_are_each_told_once() {
    // Eight times what one reap takes; and both ends of each are descriptors of this process.
    const PEERS: usize = 4_000;
    deadpeer::sys::rlimit::raise_nofile().unwrap();
    let mut watch = Watch::start(Setup { capacity: PEERS, ..Setup::LAZY });
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| connect(watch.address)).collect();
    let ups = |events: &[_]| {
        events.iter().filter(|event: &&deadpeer::liveness::Event| matches!(event.kind, EventKind::Up)).count()
    };
    watch.until(|events| ups(events) == PEERS);
    peers.drain(..).for_each(reset);
    let died = |events: &[deadpeer::liveness::Event]| {
        events.iter().filter(|event| matches!(event.kind, EventKind::Died(_))).count()
    };
    watch.until(|events| died(events) == PEERS);
    let (events, report) = watch.finish();
    let mut causes: HashMap<Cause, usize> = HashMap::new();
    for event in &events {
        if let EventKind::Died(death) = &event.kind {
            *causes.entry(death.cause).or_default() += 1;
        }
    }
    // On a busy machine a peer may be judged by the handshake deadline before the storm.
    let expired = causes.remove(&Cause::HandshakeExpired).unwrap_or(0);
    assert_eq!(causes.remove(&Cause::Aborted).unwrap_or(0), PEERS - expired);
    assert!(causes.is_empty(), "{causes:?}");
    assert_eq!(report.counts.living, 0);
}

#[test]
fn places_that_are_used_again_never_inherit_a_death() {
    let mut watch = Watch::start(Setup { capacity: 8, policy: Policy::STANDARD, ..Setup::LAZY });
    let mut expected = HashMap::new();
    let mut stays = watch.speaking_peer();
    for round in 0..1_000_u32 {
        let mut peer = connect(watch.address);
        let address = peer.local_addr().unwrap();
        peer.write_all(b"beat").unwrap();
        if round % 2 == 0 {
            reset(peer);
            expected.insert(address, Cause::Aborted);
        } else {
            drop(peer);
            expected.insert(address, Cause::Closed);
        }
        if round % 20 == 0 {
            stays.write_all(b"beat").unwrap();
        }
    }
    // Ports may come again within so many rounds; then the map has fewer lines than there were deaths.
    for (&address, &cause) in &expected {
        let death = watch.death(address);
        assert!(matches!(death.cause, Cause::Aborted | Cause::Closed), "{death:?}, expected {cause:?}");
    }
    let stayed = stays.local_addr().unwrap();
    assert!(!watch.is_dead(stayed));
    let (_, report) = watch.finish();
    assert_eq!(report.counts.died.iter().sum::<u64>(), 1_000);
    assert_eq!(report.counts.living, 1);
}

#[test]
fn peers_that_are_let_go_get_their_fin_at_once_also_a_thousand_together() {
    let mut watch = Watch::start(Setup::LAZY);
    let mut peers: Vec<_> = (0..500).map(|_| connect(watch.address)).collect();
    for peer in &mut peers {
        peer.write_all(b"x").unwrap();
        crate::watch::half_close(peer);
    }
    for mut peer in peers {
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
    watch.until(|events| {
        events.iter().filter(|event| matches!(event.kind, EventKind::Died(_))).count() == 500
    });
    watch.finish();
}

#[test]
fn no_death_is_dated_before_its_cause() {
    const PEERS: usize = 2_000;
    deadpeer::sys::rlimit::raise_nofile().unwrap();
    let mut watch = Watch::start(Setup { capacity: PEERS, policy: Policy::STANDARD, ..Setup::LAZY });
    let peers: Vec<TcpStream> = (0..PEERS).map(|_| connect(watch.address)).collect();
    let told = |events: &[Event], kind: fn(&EventKind) -> bool| {
        events.iter().filter(|event| kind(&event.kind)).count() == PEERS
    };
    watch.until(|events| told(events, |kind| matches!(kind, EventKind::Up)));
    // A few at a time, at all times of a turn.
    let mut causes = HashMap::new();
    for (number, peer) in peers.into_iter().enumerate() {
        let address = peer.local_addr().unwrap();
        let before = Instant::now();
        if number % 2 == 0 {
            reset(peer)
        } else {
            drop(peer)
        }
        causes.insert(address, before);
        let pause = Duration::from_micros(number as u64 % 50);
        while Instant::now().since(before) < pause {
            std::hint::spin_loop();
        }
    }
    watch.until(|events| told(events, |kind| matches!(kind, EventKind::Died(_))));
    let (events, _) = watch.finish();
    for event in &events {
        if let EventKind::Died(death) = &event.kind {
            let caused = causes[&death.address];
            // Kept to the microsecond, rounded down.
            assert!(death.at + Duration::from_micros(1) > caused, "{death:?} before {caused:?}");
        }
    }
}
