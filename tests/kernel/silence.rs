//! Silence, and what breaks it.

use std::io::Write;
use std::time::Duration;

use deadpeer::liveness::event::Transport;
use deadpeer::liveness::{Cause, EventKind, Heartbeat, Policy, Step, TcpState};
use deadpeer::time::Instant;

use crate::watch::{QUICK, Setup, Watch, half_close, is, reset};

#[test]
fn silence_is_suspected_and_then_expires_and_never_early() {
    for setup in [Setup::LAZY, Setup::BEAT] {
        let mut watch = Watch::start(setup);
        let mut peer = watch.peer();
        let address = peer.local_addr().unwrap();
        let before = Instant::now();
        peer.write_all(b"the last beat").unwrap();
        let suspected =
            watch.wait(|event| matches!(event.kind, EventKind::Suspected { .. }) && is(event, address));
        let death = watch.death(address);
        assert!(suspected.at.since(before) >= QUICK.idle);
        assert!(death.at.since(before) >= QUICK.detection_time());
        assert_eq!(death.cause, Cause::HeartbeatExpired);
        assert!(death.silent_for() >= QUICK.detection_time());
        assert_eq!(death.bytes, 13);
        assert_eq!(death.proof.evidence.tcp_state, TcpState::Established);
        let steps: Vec<_> = death.history.iter().flatten().map(|line| line.step()).collect();
        assert_eq!(steps, [Step::Up, Step::Suspected, Step::Died(Cause::HeartbeatExpired)]);
        watch.finish();
    }
}

#[test]
fn a_suspect_that_speaks_recovers_and_dies_only_of_the_next_silence() {
    // Time enough between suspicion and verdict for a busy machine to send a beat.
    let policy = Policy { interval: Duration::from_secs(1), ..QUICK };
    for setup in [Setup::LAZY, Setup::BEAT] {
        let mut watch = Watch::start(Setup { policy, ..setup });
        let mut peer = watch.speaking_peer();
        let address = peer.local_addr().unwrap();
        watch.wait(|event| matches!(event.kind, EventKind::Suspected { .. }) && is(event, address));
        let before = Instant::now();
        peer.write_all(b"still here").unwrap();
        watch.wait(|event| matches!(event.kind, EventKind::Recovered { .. }) && is(event, address));
        let death = watch.death(address);
        assert!(death.at.since(before) >= policy.detection_time());
        assert_eq!(death.bytes, 14);
        watch.finish();
    }
}

#[test]
fn a_peer_that_never_speaks_dies_of_the_handshake_deadline() {
    for setup in [Setup::LAZY, Setup::BEAT, Setup::FRAMES] {
        let mut watch = Watch::start(setup);
        let peer = watch.peer();
        let death = watch.death(peer.local_addr().unwrap());
        assert_eq!(death.cause, Cause::HandshakeExpired);
        assert_eq!(death.bytes, 0);
        assert!(death.at.since(death.accepted_at) >= QUICK.handshake);
        watch.finish();
    }
}

#[test]
fn beats_below_the_mark_wake_no_loop_and_keep_a_peer_alive() {
    // Shorter than the beats last, and longer than a busy machine keeps one back.
    let policy = Policy { idle: Duration::from_millis(1_200), ..QUICK };
    let mut watch = Watch::start(Setup { policy, unread: 4_096, ..Setup::LAZY });
    let mut peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    for _ in 0..40 {
        peer.write_all(&[0; 16]).unwrap();
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(!watch.is_dead(address));
    half_close(&peer);
    assert_eq!(watch.death(address).bytes, 644);
    let (events, _) = watch.finish();
    assert_eq!(events.len(), 2, "up and died: {events:#?}");
}

#[test]
fn a_stream_at_full_speed_is_never_silent_and_every_byte_is_counted() {
    for setup in [Setup::LAZY, Setup::BEAT, Setup { unread: 1, ..Setup::LAZY }] {
        let mut watch = Watch::start(setup);
        let mut peer = watch.peer();
        let address = peer.local_addr().unwrap();
        let chunk = vec![1_u8; 1 << 18];
        let mut sent = 0_u64;
        let end = Instant::now() + 2 * QUICK.detection_time();
        while Instant::now() < end {
            peer.write_all(&chunk).unwrap();
            sent += chunk.len() as u64;
        }
        half_close(&peer);
        let death = watch.death(address);
        assert_eq!((death.cause, death.bytes), (Cause::Closed, sent));
        let (_, report) = watch.finish();
        assert_eq!(report.counts.suspected, 0);
    }
}

#[test]
fn in_beat_mode_a_window_that_filled_in_one_stroke_is_drained_all_the_same() {
    let mut watch =
        Watch::start(Setup { policy: Policy { idle: Duration::from_secs(20), ..QUICK }, ..Setup::BEAT });
    let mut peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    // A calm peer first: single bytes, far apart.
    for _ in 0..12 {
        peer.write_all(b"x").unwrap();
        std::thread::park_timeout(Duration::from_millis(30));
    }
    let much = vec![2_u8; 1 << 24];
    peer.write_all(&much).unwrap();
    half_close(&peer);
    assert_eq!(watch.death(address).bytes, 16 + (1 << 24));
}

#[test]
fn a_byte_flood_from_one_peer_does_not_hide_the_others() {
    let mut watch = Watch::start(Setup::LAZY);
    let mut flood = watch.peer();
    let silent = watch.speaking_peer();
    let leaving = watch.speaking_peer();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flooding = std::thread::spawn({
        let stop = std::sync::Arc::clone(&stop);
        move || {
            let chunk = vec![0_u8; 1 << 16];
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                flood.write_all(&chunk).unwrap();
            }
            flood
        }
    });
    let address = leaving.local_addr().unwrap();
    reset(leaving);
    assert_eq!(watch.death(address).cause, Cause::Aborted);
    assert_eq!(watch.death(silent.local_addr().unwrap()).cause, Cause::HeartbeatExpired);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let flood = flooding.join().unwrap();
    assert!(!watch.is_dead(flood.local_addr().unwrap()));
}

#[test]
fn without_heartbeats_a_quiet_program_stays_alive_while_its_kernel_answers() {
    let policy = Policy {
        heartbeat: Heartbeat::None,
        idle: Duration::from_secs(2),
        interval: Duration::from_millis(500),
        ..QUICK
    };
    let mut watch = Watch::start(Setup { policy, ..Setup::LAZY });
    let peer = watch.peer();
    let address = peer.local_addr().unwrap();
    std::thread::park_timeout(policy.detection_time() + Duration::from_secs(1));
    assert!(!watch.is_dead(address));
    drop(peer);
    let death = watch.death(address);
    assert_eq!((death.cause, death.proof.transport), (Cause::Closed, Transport::Answering));
    let (_, report) = watch.finish();
    assert_eq!(report.counts.suspected, 0, "keepalive must answer before a peer is suspected");
}

#[test]
fn urgent_bytes_are_bytes_and_put_no_verdict_off() {
    for setup in [Setup::LAZY, Setup::BEAT] {
        let mut watch = Watch::start(Setup { unread: 64, ..setup });
        let mut peer = watch.peer();
        let address = peer.local_addr().unwrap();
        // Far apart, so that most are met by a recv before the next moves the urgent mark.
        for _ in 0..5_000 {
            peer.write_all(&[0; 64]).unwrap();
            socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap();
            std::thread::park_timeout(Duration::from_micros(100));
        }
        let death = watch.death(address);
        assert_eq!((death.cause, death.bytes), (Cause::HeartbeatExpired, 5_000 * 65));
        watch.finish();
    }
}
