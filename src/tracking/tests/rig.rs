//! A driver whose loop is turned by the test: whatever a test does between two turns is there before the next one.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use socket2::SockRef;

use super::super::super::*;
use crate::liveness::{Death, Event, EventKind, Policy};
use crate::reactor::bind;
use crate::sys::tcp;

/// Bounds every wait: far beyond what anything here takes, so that only a missing event meets it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const CAPACITY: usize = 4 * limits::MAX_VISITS_PER_TURN;

type Sink = Box<dyn FnMut(Event)>;

pub(super) struct Rig {
    pub(super) driver: Driver<Sink>,
    pub(super) address: SocketAddr,
    events: Rc<RefCell<Vec<Event>>>,
    /// The number of events that [`Rig::until`] has passed.
    passed: usize,
    /// Makes the next event take long.
    pub(super) slow: Rc<Cell<bool>>,
}

impl Rig {
    pub(super) fn new(policy: Policy) -> Rig {
        Rig::with(policy, "127.0.0.1:0", |_| ())
    }

    /// `options` sets what connections inherit, on top of what the policy has set.
    pub(super) fn with(policy: Policy, listen: &str, options: impl FnOnce(SockRef<'_>)) -> Rig {
        let tracker = TrackerConfig::new(policy, CAPACITY);
        let listeners = bind(listen.parse().unwrap(), 1, &tracker).unwrap();
        let address = listeners[0].address().ip().unwrap();
        options(SockRef::from(&listeners[0]));
        let (events, slow) = <(Rc<RefCell<Vec<_>>>, Rc<Cell<bool>>)>::default();
        let (sink_events, sink_slow) = (Rc::clone(&events), Rc::clone(&slow));
        let sink: Sink = Box::new(move |event| {
            if sink_slow.take() {
                park_until(Instant::now() + limits::STALL_THRESHOLD + Duration::from_millis(100));
            }
            sink_events.borrow_mut().push(event);
        });
        let config = DriverConfig { tracker, batch_window: Duration::ZERO, io: super::IO };
        let (shared, wakeup) = (Arc::new(Shared::new(CAPACITY)), Arc::new(Wakeup::new().unwrap()));
        let driver = Driver::new(config, listeners, shared, Arc::default(), wakeup, sink).unwrap();
        Rig { driver, address, events, passed: 0, slow }
    }

    /// A peer that was accepted.
    pub(super) fn peer(&mut self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.until(|event| matches!(event.kind, EventKind::Up).then_some(()));
        stream
    }

    /// A peer that was accepted and has spoken.
    pub(super) fn speaker(&mut self) -> TcpStream {
        let mut peer = self.peer();
        peer.write_all(b"beat").unwrap();
        peer
    }

    /// This side's end of a connection.
    pub(super) fn ours(&self, peer: SocketAddr) -> SockRef<'_> {
        let view = self.driver.service.tracker.peers().find(|view| view.address == peer).unwrap();
        SockRef::from(self.driver.service.conns[view.peer.index() as usize].as_ref().unwrap())
    }

    pub(super) fn info(&self, peer: SocketAddr) -> tcp::TcpInfo {
        tcp::info(&*self.ours(peer)).unwrap()
    }

    /// Turns the loop until an event fits, of those from number `from` on. Returns also the number of the next event.
    fn search<T>(&mut self, mut from: usize, fits: impl Fn(&Event) -> Option<T>) -> (T, usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let events = self.events.borrow();
            for (number, event) in events.iter().enumerate().skip(from) {
                if let Some(found) = fits(event) {
                    return (found, number + 1);
                }
            }
            from = events.len();
            assert!(Instant::now() < end, "only {events:#?}");
            drop(events);
            self.driver.turn().unwrap();
        }
    }

    /// The first fitting event that comes behind those of earlier calls.
    pub(super) fn until<T>(&mut self, fits: impl Fn(&Event) -> Option<T>) -> T {
        let (found, next) = self.search(self.passed, fits);
        self.passed = next;
        found
    }

    /// The first fitting event of a peer, whenever it comes.
    pub(super) fn event(&mut self, peer: SocketAddr, fits: impl Fn(&EventKind) -> bool) -> Event {
        let is = |event: &Event| event.subject.as_ref().is_some_and(|subject| subject.address == peer);
        self.search(0, |event| (is(event) && fits(&event.kind)).then(|| event.clone())).0
    }

    pub(super) fn death(&mut self, peer: SocketAddr) -> Death {
        match self.event(peer, |kind| matches!(kind, EventKind::Died(_))).kind {
            EventKind::Died(death) => death,
            _ => unreachable!(),
        }
    }

    pub(super) fn deaths(&self) -> u64 {
        self.driver.service.tracker.counts().died.iter().sum()
    }
}

/// Waits until `after` has passed.
pub(super) fn park_until(after: Instant) {
    while Instant::now() <= after {
        std::thread::park_timeout(after.since(Instant::now()) + Duration::from_millis(1));
    }
}
