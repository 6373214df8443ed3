//! Turns by hand, where it matters what falls into one turn.

use std::io::Write;
use std::net::TcpStream;

use super::*;
use crate::driver::bind;
use crate::liveness::{Cause, Death, Policy};

/// A policy that judges within a second.
const QUICK: Policy = Policy {
    idle: Duration::from_millis(400),
    interval: Duration::from_millis(100),
    probes: 3,
    handshake: Duration::from_millis(600),
    ..Policy::STRICT
};

/// Turns that are enough for everything here, each of which waits for something.
const TURNS: usize = 1_000;

type Sink = Box<dyn FnMut(Event)>;

struct Hand {
    driver: UringDriver<Sink>,
    events: std::sync::mpsc::Receiver<Event>,
    address: SocketAddr,
}

impl Hand {
    fn new(policy: Policy) -> Hand {
        let tracker = TrackerConfig::new(policy, 100);
        let config = DriverConfig { tracker, batch_window: Duration::ZERO };
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &tracker).unwrap();
        let address = listeners[0].address();
        let (to, events) = std::sync::mpsc::channel();
        let sink: Sink = Box::new(move |event| to.send(event).unwrap());
        let shared = Arc::new(Shared::new(100));
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let driver = UringDriver::new(config, listeners, shared, Arc::default(), wakeup, sink).unwrap();
        Hand { driver, events, address }
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
    let due = hand.driver.tracker.next_due().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    // The reset and the appointment fall into one turn.
    park_until(due);
    let death = hand.death();
    assert_eq!((death.cause, death.proof.errno), (Cause::Aborted, Some(libc::ECONNRESET)));
}
