//! Tests in which it matters what falls into one turn: the test calls the turns.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use super::super::super::*;
use crate::frame::{Decoder, Frame, Kind};
use crate::liveness::{Cause, Death, Event, EventKind, Policy};
use crate::reactor::bind;

/// A policy that judges within a second.
const QUICK: Policy = Policy {
    idle: Duration::from_millis(400),
    interval: Duration::from_millis(100),
    probes: 3,
    handshake: Duration::from_millis(600),
    ..Policy::STRICT
};

/// Turns that are enough for everything here, each of which waits for something.
const TURNS: usize = 200;

const CAPACITY: usize = 4 * limits::MAX_VISITS_PER_TURN;

type Sink = Box<dyn FnMut(Event)>;

struct Hand {
    driver: Driver<Sink>,
    events: std::sync::mpsc::Receiver<Event>,
    address: SocketAddr,
    /// Makes the next event take long.
    slow: Rc<Cell<bool>>,
}

impl Hand {
    fn new(policy: Policy) -> Hand {
        let tracker = TrackerConfig::new(policy, CAPACITY);
        let config = DriverConfig { tracker, batch_window: Duration::ZERO, io: super::IO };
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &tracker).unwrap();
        let address = listeners[0].address();
        let (to, events) = std::sync::mpsc::channel();
        let slow = Rc::new(Cell::new(false));
        let slows = Rc::clone(&slow);
        let sink: Sink = Box::new(move |event| {
            if slows.take() {
                park_until(Instant::now() + limits::STALL_THRESHOLD + Duration::from_millis(100));
            }
            to.send(event).unwrap();
        });
        let shared = Arc::new(Shared::new(CAPACITY));
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let driver = Driver::new(config, listeners, shared, Arc::default(), wakeup, sink).unwrap();
        Hand { driver, events, address, slow }
    }

    /// Turns until an event fits.
    fn until<T>(&mut self, fits: impl Fn(&Event) -> Option<T>) -> T {
        for _ in 0..TURNS {
            if let Some(found) = self.events.try_iter().find_map(|event| fits(&event)) {
                return found;
            }
            self.driver.turn().unwrap();
        }
        panic!("no such event in {TURNS} turns");
    }

    fn death(&mut self) -> Death {
        self.until(|event| match event.kind {
            EventKind::Died(death) => Some(death),
            _ => None,
        })
    }

    /// A peer that has spoken and was accepted.
    fn peer(&mut self) -> TcpStream {
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.write_all(b"beat").unwrap();
        self.until(|event| matches!(event.kind, EventKind::Up).then_some(()));
        peer
    }
}

/// Waits until the kernel has a connection's end.
fn park_until(after: Instant) {
    while Instant::now() <= after {
        std::thread::park_timeout(after.since(Instant::now()) + Duration::from_millis(1));
    }
}

#[test]
fn a_visit_in_the_turn_of_the_reset_leaves_the_errno_to_the_recv() {
    let mut hand = Hand::new(QUICK);
    let peer = hand.peer();
    let due = hand.driver.service.tracker.next_due().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    // The reset and the appointment fall into one turn.
    park_until(due);
    let death = hand.death();
    assert_eq!((death.cause, death.proof.errno), (Cause::Aborted, Some(libc::ECONNRESET)));
}

#[test]
fn a_listener_that_is_shut_from_outside_is_opened_again_and_not_spun_on() {
    let mut hand = Hand::new(QUICK);
    socket2::SockRef::from(&hand.driver.listeners.all[0].listener)
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    let limit = hand.until(|event| match event.kind {
        EventKind::Saturated { limit } => Some(limit),
        _ => None,
    });
    assert_eq!(limit, "accept");
    hand.until(|event| matches!(event.kind, EventKind::Resumed).then_some(()));
    drop(hand.peer());
    assert_eq!(hand.death().cause, Cause::Closed);
    let turns = hand.driver.service.recorder.turns();
    assert!(turns < 50, "{turns} turns for a few things that happened");
}

#[test]
fn room_is_told_when_no_limit_was_met_for_a_while_also_if_no_connection_comes() {
    let mut hand = Hand::new(Policy::STANDARD);
    while hand.driver.shared.take() {}
    let waiting = TcpStream::connect(hand.address).unwrap();
    hand.until(|event| matches!(event.kind, EventKind::Saturated { limit: "max_connections" }).then_some(()));
    hand.driver.shared.give(1);
    hand.until(|event| match event.kind {
        EventKind::Up => Some(()),
        EventKind::Resumed | EventKind::Saturated { .. } => panic!("{event:?}"),
        _ => None,
    });
    // The last place is taken, but no connection waits for another.
    hand.until(|event| match event.kind {
        EventKind::Saturated { .. } => panic!("{event:?}"),
        EventKind::Resumed => Some(()),
        _ => None,
    });
    drop(waiting);
}

#[test]
fn one_long_turn_is_one_stall_although_appointments_wait_behind_it() {
    let mut hand = Hand::new(Policy::STRICT);
    for _ in 0..3 * limits::MAX_VISITS_PER_TURN {
        hand.driver.service.tracker.accept(hand.address, 0, Instant::now()).unwrap();
        hand.driver.held += 1;
    }
    hand.driver.turn().unwrap();
    park_until(hand.driver.service.tracker.next_due().unwrap());
    hand.slow.set(true);
    hand.peer();
    hand.driver.turn().unwrap();
    assert_eq!(hand.driver.stalls, 1);
}

#[test]
fn a_quiet_loop_wakes_for_the_end_of_an_interval_and_does_not_spin_for_one_that_waits_for_its_writer() {
    let mut hand = Hand::new(QUICK);
    let now = Instant::now();
    let every = limits::MIN_LATENCY_INTERVAL;
    let (_writer, mut taps) = crate::measure::intervals::channel(1, every, now);
    hand.driver.log_latency(taps.remove(0));
    assert_eq!(hand.driver.wake_at(now), now + every);
    // The writer takes the first and gives nothing back.
    let closed = now + every;
    let tap = hand.driver.service.tap.as_mut().unwrap();
    tap.close(&mut hand.driver.service.recorder, closed);
    assert_eq!(hand.driver.wake_at(closed), closed + every);
    let late = closed + every;
    hand.driver.service.tap.as_mut().unwrap().close(&mut hand.driver.service.recorder, late);
    assert_eq!(hand.driver.wake_at(late), late + limits::MAX_WAIT);
}

#[test]
fn a_batch_window_does_not_hold_an_appointment_up() {
    let mut hand = Hand::new(QUICK);
    hand.driver.batch_window = Duration::from_secs(3);
    let peer = hand.peer();
    assert_eq!(hand.death().cause, Cause::HeartbeatExpired);
    assert_eq!(hand.driver.stalls, 0, "held up by its own window");
    drop(peer);
}

#[test]
fn a_peer_that_was_stuck_finds_only_whole_frames_when_it_reads_again() {
    let mut hand = Hand::new(Policy { heartbeat: Heartbeat::Frames, ..Policy::STANDARD });
    // Small buffers, and segments that are no multiple of a frame: some frame fits only in part.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.set_tcp_mss(503).unwrap();
    socket.connect(&hand.address.into()).unwrap();
    let mut peer = TcpStream::from(socket);
    peer.set_nonblocking(true).unwrap();
    let id = hand.until(|event| event.subject.as_ref().map(|subject| subject.peer));
    let mut sent = 0;
    let send = |hand: &mut Hand, sent: &mut u32| {
        *sent += 1;
        hand.driver.service.send(id, Frame { kind: Kind::Ping, sequence: *sent, timestamp: 1 });
    };
    while hand.driver.service.partial_frames.is_empty() {
        assert!(sent < 1_000_000, "nothing was ever cut");
        send(&mut hand, &mut sent);
    }
    let mut decoder = Decoder::new();
    let mut whole = 0;
    while whole < 5_000 {
        send(&mut hand, &mut sent);
        let mut buffer = [0; 1_000];
        let Ok(length) = peer.read(&mut buffer) else { continue };
        let mut bytes = &buffer[..length];
        while decoder.next(&mut bytes).expect("frames and nothing else").is_some() {
            whole += 1;
        }
    }
    drop(peer);
    hand.death();
    assert!(hand.driver.service.partial_frames.is_empty());
}

#[test]
fn more_recvs_than_buffers_are_tried_again_in_turns_of_as_many_as_there_are_buffers() {
    crate::sys::rlimit::raise_nofile().unwrap();
    let mut hand = Hand::new(Policy { heartbeat: Heartbeat::Frames, ..Policy::STANDARD });
    const PEERS: u64 = 1_000;
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let peer = TcpStream::connect(hand.address).unwrap();
            hand.until(|event| matches!(event.kind, EventKind::Up).then_some(()));
            peer
        })
        .collect();
    // The first frame of each wakes, and all are there at once.
    for mut peer in &peers {
        peer.write_all(&Frame::beat(1).encode()).unwrap();
    }
    let before = hand.driver.sockets.counters().submitted;
    for _ in 0..TURNS {
        if hand.driver.service.tracker.peers().all(|peer| peer.taken >= 16) {
            break;
        }
        hand.driver.turn().unwrap();
    }
    let submitted = hand.driver.sockets.counters().submitted - before;
    assert!(hand.driver.service.tracker.peers().all(|peer| peer.taken == 16));
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
