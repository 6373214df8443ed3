//! Tests in which it matters what falls into one turn: the test calls the turns.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::super::super::*;
use super::rig::{Rig, park_until};
use crate::frame::{Decoder, Frame, Kind};
use crate::liveness::{Cause, Death, Event, EventKind, Policy};

/// A policy that judges within a second.
const QUICK: Policy = Policy {
    idle: Duration::from_millis(400),
    interval: Duration::from_millis(100),
    probes: 3,
    handshake: Duration::from_millis(600),
    ..Policy::STRICT
};

fn died(event: &Event) -> Option<Death> {
    match event.kind {
        EventKind::Died(death) => Some(death),
        _ => None,
    }
}

#[test]
fn a_visit_in_the_turn_of_the_reset_leaves_the_errno_to_the_recv() {
    let mut rig = Rig::new(QUICK);
    let peer = rig.speaker();
    let due = rig.driver.service.tracker.next_due().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    // The reset and the appointment fall into one turn.
    park_until(due);
    let death = rig.until(died);
    assert_eq!((death.cause, death.proof.errno), (Cause::Aborted, Some(libc::ECONNRESET)));
}

#[test]
fn a_listener_that_is_shut_from_outside_is_opened_again_and_not_spun_on() {
    let mut rig = Rig::new(QUICK);
    socket2::SockRef::from(&rig.driver.listeners.all[0].listener).shutdown(std::net::Shutdown::Both).unwrap();
    let limit = rig.until(|event| match event.kind {
        EventKind::Saturated { limit } => Some(limit),
        _ => None,
    });
    assert_eq!(limit, "accept");
    rig.until(|event| matches!(event.kind, EventKind::Resumed).then_some(()));
    drop(rig.speaker());
    assert_eq!(rig.until(died).cause, Cause::Closed);
    let turns = rig.driver.service.recorder.turns();
    assert!(turns < 50, "{turns} turns for a few things that happened");
}

#[test]
fn room_is_told_when_no_limit_was_met_for_a_while_also_if_no_connection_comes() {
    let mut rig = Rig::new(Policy::STANDARD);
    while rig.driver.shared.take() {}
    let waiting = TcpStream::connect(rig.address).unwrap();
    rig.until(|event| matches!(event.kind, EventKind::Saturated { limit: "max_connections" }).then_some(()));
    rig.driver.shared.give(1);
    rig.until(|event| match event.kind {
        EventKind::Up => Some(()),
        EventKind::Resumed | EventKind::Saturated { .. } => panic!("{event:?}"),
        _ => None,
    });
    // The last place is taken, but no connection waits for another.
    rig.until(|event| match event.kind {
        EventKind::Saturated { .. } => panic!("{event:?}"),
        EventKind::Resumed => Some(()),
        _ => None,
    });
    drop(waiting);
}

#[test]
fn one_long_turn_is_one_stall_although_appointments_wait_behind_it() {
    let mut rig = Rig::new(Policy::STRICT);
    for _ in 0..3 * limits::MAX_VISITS_PER_TURN {
        rig.driver.service.tracker.accept(rig.address, 0, Instant::now()).unwrap();
        rig.driver.held += 1;
    }
    rig.driver.turn().unwrap();
    park_until(rig.driver.service.tracker.next_due().unwrap());
    rig.slow.set(true);
    rig.speaker();
    rig.driver.turn().unwrap();
    assert_eq!(rig.driver.stalls, 1);
}

#[test]
fn a_quiet_loop_wakes_for_the_end_of_an_interval_and_does_not_spin_for_one_that_waits_for_its_writer() {
    let mut rig = Rig::new(QUICK);
    let now = Instant::now();
    let every = limits::MIN_LATENCY_INTERVAL;
    let (_writer, mut taps) = crate::measure::intervals::channel(1, every, now);
    rig.driver.log_latency(taps.remove(0));
    assert_eq!(rig.driver.wake_at(now), now + every);
    // The writer takes the first and gives nothing back.
    let closed = now + every;
    let tap = rig.driver.service.tap.as_mut().unwrap();
    tap.close(&mut rig.driver.service.recorder, closed);
    assert_eq!(rig.driver.wake_at(closed), closed + every);
    let late = closed + every;
    rig.driver.service.tap.as_mut().unwrap().close(&mut rig.driver.service.recorder, late);
    assert_eq!(rig.driver.wake_at(late), late + limits::MAX_WAIT);
}

#[test]
fn a_batch_window_does_not_hold_an_appointment_up() {
    let mut rig = Rig::new(QUICK);
    rig.driver.batch_window = Duration::from_secs(3);
    let peer = rig.speaker();
    assert_eq!(rig.until(died).cause, Cause::HeartbeatExpired);
    assert_eq!(rig.driver.stalls, 0, "held up by its own window");
    drop(peer);
}

#[test]
fn a_peer_that_was_stuck_finds_only_whole_frames_when_it_reads_again() {
    let mut rig = Rig::new(Policy { heartbeat: Heartbeat::Frames, ..Policy::STANDARD });
    // Small buffers, and segments that are no multiple of a frame: some frame fits only in part.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.set_tcp_mss(503).unwrap();
    socket.connect(&rig.address.into()).unwrap();
    let mut peer = TcpStream::from(socket);
    peer.set_nonblocking(true).unwrap();
    let id = rig.until(|event| event.subject.as_ref().map(|subject| subject.peer));
    let mut sent = 0;
    let send = |rig: &mut Rig, sent: &mut u32| {
        *sent += 1;
        rig.driver.service.send(id, Frame { kind: Kind::Ping, sequence: *sent, timestamp: 1 });
    };
    while rig.driver.service.partial_frames.is_empty() {
        assert!(sent < 1_000_000, "nothing was ever cut");
        send(&mut rig, &mut sent);
    }
    let mut decoder = Decoder::new();
    let mut whole = 0;
    while whole < 5_000 {
        send(&mut rig, &mut sent);
        let mut buffer = [0; 1_000];
        let Ok(length) = peer.read(&mut buffer) else { continue };
        let mut bytes = &buffer[..length];
        while decoder.next(&mut bytes).expect("frames and nothing else").is_some() {
            whole += 1;
        }
    }
    drop(peer);
    rig.until(died);
    assert!(rig.driver.service.partial_frames.is_empty());
}

#[test]
fn more_recvs_than_buffers_are_tried_again_in_turns_of_as_many_as_there_are_buffers() {
    crate::sys::rlimit::raise_nofile().unwrap();
    let mut rig = Rig::new(Policy { heartbeat: Heartbeat::Frames, ..Policy::STANDARD });
    const PEERS: u64 = 1_000;
    let peers: Vec<_> = (0..PEERS).map(|_| rig.peer()).collect();
    // The first frame of each wakes, and all are there at once.
    for mut peer in &peers {
        peer.write_all(&Frame::beat(1).encode()).unwrap();
    }
    let before = rig.driver.sockets.counters().submitted;
    for _ in 0..200 {
        if rig.driver.service.tracker.peers().all(|peer| peer.taken >= 16) {
            break;
        }
        rig.driver.turn().unwrap();
    }
    let submitted = rig.driver.sockets.counters().submitted - before;
    assert!(rig.driver.service.tracker.peers().all(|peer| peer.taken == 16));
    // A recv each and a poll each, and not as many again for nothing.
    assert!(submitted > 2 * PEERS && submitted < 7 * PEERS / 2, "{submitted}");
}

/// A sink that has no room most of the time, and calls the wakeup when it has.
struct Slow {
    wakeup: Arc<Wakeup>,
    refusals: usize,
}

impl EventSink for Slow {
    fn offer(&mut self, mut batch: Vec<Event>) -> Result<Vec<Event>, Vec<Event>> {
        self.refusals += 1;
        if !self.refusals.is_multiple_of(10) {
            self.wakeup.wake();
            return Err(batch);
        }
        batch.clear();
        Ok(batch)
    }
}

#[test]
fn the_last_events_leave_at_the_pace_of_the_sink() {
    const PEERS: usize = 400;
    let tracker = TrackerConfig::new(Policy::STANDARD, PEERS);
    let config = DriverConfig { tracker, batch_window: Duration::ZERO, io: super::IO };
    let wakeup = Arc::new(Wakeup::new().unwrap());
    let sink = Slow { wakeup: Arc::clone(&wakeup), refusals: 0 };
    let shared = Arc::new(Shared::new(PEERS));
    let mut driver = Driver::new(config, Vec::new(), shared, Arc::default(), wakeup, sink).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peers: Vec<TcpStream> = (0..PEERS)
        .map(|_| {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            driver.adopt(listener.accept().unwrap().0.into()).unwrap();
            peer
        })
        .collect();
    assert_eq!(driver.finish().unwrap().undelivered, 0);
    drop(peers);
}
