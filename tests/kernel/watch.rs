//! A driver on a thread of its own, and what it told.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use deadpeer::reactor::{Shared, bind};

use deadpeer::hosted::drive;
use deadpeer::liveness::{Death, Event, EventKind, Heartbeat, PeerId, Policy, TrackerConfig, Wake};
use deadpeer::reactor::EventSink;
use deadpeer::sys::wakeup::Wakeup;
use deadpeer::tracking::{Driver, DriverConfig, LocalAddresses, Report};

pub use crate::daemon::PATIENCE;
pub use crate::skip::skip;

/// A policy that judges within a second.
pub const QUICK: Policy = Policy {
    idle: Duration::from_millis(400),
    interval: Duration::from_millis(100),
    probes: 3,
    handshake: Duration::from_millis(600),
    ..Policy::STRICT
};

/// What a driver is started with.
#[derive(Clone, Copy)]
pub struct Setup {
    pub policy: Policy,
    pub wake: Wake,
    pub capacity: usize,
    pub listen: &'static str,
    pub unread: u32,
}

impl Setup {
    pub const LAZY: Setup =
        Setup { policy: QUICK, wake: Wake::Lazy, capacity: 1_000, listen: "127.0.0.1:0", unread: 1_024 };
    pub const BEAT: Setup = Setup { wake: Wake::Beat, ..Setup::LAZY };
    pub const FRAMES: Setup =
        Setup { policy: Policy { heartbeat: Heartbeat::Frames, ..QUICK }, ..Setup::LAZY };

    /// The setups that must agree on every way to die that has nothing to do with frames.
    pub const OPAQUE: [Setup; 3] = [
        Setup::LAZY,
        Setup::BEAT,
        Setup {
            policy: Policy { heartbeat: Heartbeat::None, idle: Duration::from_secs(2), ..QUICK },
            ..Setup::LAZY
        },
    ];
}

/// A sink that passes events on, and can be told to refuse for a while.
struct Passing {
    to: std::sync::mpsc::Sender<Event>,
    refuses: Arc<Mutex<bool>>,
}

impl EventSink for Passing {
    fn offer(&mut self, mut batch: Vec<Event>) -> Result<Vec<Event>, Vec<Event>> {
        if *self.refuses.lock().unwrap() {
            return Err(batch);
        }
        for event in batch.drain(..) {
            let _ = self.to.send(event);
        }
        Ok(batch)
    }
}

/// A running driver.
pub struct Watch {
    pub address: SocketAddr,
    pub locals: Arc<LocalAddresses>,
    refuses: Arc<Mutex<bool>>,
    shared: Arc<Shared>,
    wakeup: Arc<Wakeup>,
    events: Receiver<Event>,
    seen: Vec<Event>,
    thread: Option<JoinHandle<Report>>,
}

impl Watch {
    pub fn start(setup: Setup) -> Watch {
        let tracker = TrackerConfig {
            wake: setup.wake,
            unread: setup.unread,
            ..TrackerConfig::new(setup.policy, setup.capacity)
        };
        let listeners = bind(setup.listen.parse().unwrap(), 1, &tracker).unwrap();
        let address = listeners[0].address().ip().unwrap();
        let (to, events) = channel();
        let refuses = Arc::new(Mutex::new(false));
        let sink = Passing { to, refuses: Arc::clone(&refuses) };
        let shared = Arc::new(Shared::new(setup.capacity));
        let locals = Arc::new(LocalAddresses::default());
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let (shared2, locals2, wakeup2) = (Arc::clone(&shared), Arc::clone(&locals), Arc::clone(&wakeup));
        let config = DriverConfig { tracker, batch_window: Duration::ZERO, io: crate::IO };
        let thread = std::thread::spawn(move || {
            let driver = Driver::new(config, listeners, shared2, locals2, wakeup2, sink).unwrap();
            let report = if crate::HOSTED { tokio_uring::start(drive(driver)) } else { driver.run() };
            report.unwrap()
        });
        Watch { address, locals, refuses, shared, wakeup, events, seen: Vec::new(), thread: Some(thread) }
    }

    /// A peer, known to be accepted.
    pub fn peer(&mut self) -> TcpStream {
        let stream = connect(self.address);
        let address = stream.local_addr().unwrap();
        self.wait(|event| matches!(event.kind, EventKind::Up) && is(event, address));
        stream
    }

    /// A peer that has spoken.
    pub fn speaking_peer(&mut self) -> TcpStream {
        let mut peer = self.peer();
        peer.write_all(b"beat").unwrap();
        peer
    }

    pub fn refuse(&self, refuses: bool) {
        *self.refuses.lock().unwrap() = refuses;
        self.wakeup.wake();
    }

    /// The first event so far, or from now on, that fits.
    pub fn wait(&mut self, fits: impl Fn(&Event) -> bool) -> Event {
        if let Some(event) = self.seen.iter().find(|event| fits(event)) {
            return event.clone();
        }
        loop {
            let event =
                self.events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {:#?}", self.seen));
            self.seen.push(event.clone());
            if fits(&event) {
                return event;
            }
        }
    }

    /// Waits until a function over all events so far is true.
    pub fn until(&mut self, holds: impl Fn(&[Event]) -> bool) {
        while !holds(&self.seen) {
            let event = self
                .events
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{} events, the last {:#?}", self.seen.len(), self.seen.last()));
            self.seen.push(event);
        }
    }

    /// All events that came so far, without waiting.
    pub fn seen(&mut self) -> &[Event] {
        self.seen.extend(self.events.try_iter());
        &self.seen
    }

    pub fn death(&mut self, peer: SocketAddr) -> Death {
        let event = self.wait(|event| matches!(event.kind, EventKind::Died(_)) && is(event, peer));
        match event.kind {
            EventKind::Died(death) => death,
            _ => unreachable!(),
        }
    }

    pub fn is_dead(&mut self, peer: SocketAddr) -> bool {
        self.seen().iter().any(|event| matches!(event.kind, EventKind::Died(_)) && is(event, peer))
    }

    /// Ends the driver and holds all that it told against the contract.
    pub fn finish(mut self) -> (Vec<Event>, Report) {
        let report = self.stop().expect("stopped once");
        self.seen.extend(self.events.try_iter());
        check_contract(&self.seen);
        (std::mem::take(&mut self.seen), report)
    }

    fn stop(&mut self) -> Option<Report> {
        self.shared.stop();
        self.wakeup.wake();
        self.thread.take().map(|thread| thread.join().unwrap())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Up first, one death, nothing after it.
fn check_contract(events: &[Event]) {
    let mut lives: HashMap<PeerId, (bool, bool)> = HashMap::new();
    for event in events {
        let Some(subject) = &event.subject else { continue };
        let (up, dead) = lives.entry(subject.peer).or_default();
        assert!(!*dead, "an event after the death: {event:?}");
        match event.kind {
            EventKind::Up => assert!(!std::mem::replace(up, true), "up twice: {event:?}"),
            EventKind::Died(_) => *dead = true,
            _ => {}
        }
        assert!(*up, "not up first: {event:?}");
    }
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn is(event: &Event, address: SocketAddr) -> bool {
    event.subject.as_ref().is_some_and(|subject| subject.address == address)
}

/// Closes with a RST.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

pub fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}
