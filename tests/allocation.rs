//! Nothing is allocated in steady state: neither by the judgement nor by the loop around it, nor by the proxy.
//!
//! An allocator that counts, only on the thread that asks for it and only while it asks.
#![allow(unsafe_code)] // a global allocator cannot be written without it

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use deadpeer::reactor::{EngineChoice, Shared, bind};

use deadpeer::frame::{Frame, Kind};
use deadpeer::liveness::{
    Action, Event, EventKind, Evidence, Fact, Heartbeat, Policy, PollMask, Tracker, TrackerConfig, Wake,
};
use deadpeer::measure::intervals::channel;
use deadpeer::sys::wakeup::Wakeup;
use deadpeer::time::Instant;
use deadpeer::tracking::{Driver, DriverConfig, LocalAddresses};

#[cfg(feature = "proxy")]
#[path = "allocation/proxied.rs"]
mod proxied;

struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    if WATCHED.get() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting touches only thread-locals
// of constant initialisation, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocated.
fn allocations(work: impl FnOnce()) -> u64 {
    COUNT.set(0);
    WATCHED.set(true);
    work();
    WATCHED.set(false);
    COUNT.get()
}

const POLICY: Policy = Policy {
    idle: Duration::from_millis(200),
    interval: Duration::from_millis(50),
    probes: 6,
    handshake: Duration::from_millis(300),
    ..Policy::STRICT
};

#[test]
fn the_counter_counts() {
    assert!(allocations(|| drop(std::hint::black_box(Box::new(7)))) > 0);
    assert_eq!(allocations(|| assert_eq!(std::hint::black_box(7), 7)), 0);
}

#[test]
fn the_judgement_allocates_nothing_for_beats_visits_suspicions_and_deaths() {
    const PEERS: usize = 1_000;
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut tracker =
        Tracker::new(TrackerConfig { dead_kept: 100, ..TrackerConfig::new(POLICY, PEERS) }, now);
    let address: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let mut deaths = 0;
    let mut round = |tracker: &mut Tracker, number: u64| {
        now = now + Duration::from_millis(20);
        while let Some(peer) = tracker.accept(address, 0, now) {
            tracker.handle(peer, Fact::Ready(PollMask(PollMask::IN)), now);
        }
        tracker.handle_time(now);
        while let Some(action) = tracker.poll_action() {
            match action {
                Action::Inspect(peer) => {
                    // One in three is silent, one in three speaks again when suspected.
                    let drawn =
                        (u64::from(peer.index()) + 7 * number).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
                    let age = match drawn % 3 {
                        0 => Duration::from_millis(1),
                        1 => Duration::from_millis(210),
                        _ => Duration::from_secs(1),
                    };
                    let evidence = Evidence { received: 1, last_data: now - age, ..Evidence::default() };
                    tracker.handle(peer, Fact::Inspected(evidence), now);
                }
                Action::Drain { peer, .. } => {
                    tracker.handle(peer, Fact::Taken { bytes: 16 }, now);
                    tracker.handle(peer, Fact::Emptied, now);
                }
                Action::Close { peer, .. } => tracker.release(peer),
                _ => {}
            }
        }
        while let Some(event) = tracker.poll_event() {
            deaths += u64::from(matches!(event.kind, EventKind::Died(_)));
        }
    };
    for number in 0..50 {
        round(&mut tracker, number);
    }
    let counted = allocations(|| (50..250).for_each(|number| round(&mut tracker, number)));
    assert_eq!(counted, 0);
    assert!(
        deaths > 1_000 && tracker.counts().recovered > 100,
        "nothing happened: {deaths} {:?}",
        tracker.counts()
    );
}

fn the_loop_allocates_nothing(heartbeat: Heartbeat, wake: Wake) {
    for io in [EngineChoice::Uring, EngineChoice::Epoll] {
        the_loop_on(io, heartbeat, wake);
    }
}

fn the_loop_on(io: EngineChoice, heartbeat: Heartbeat, wake: Wake) {
    const CLIENTS: usize = 20;
    let policy = Policy { heartbeat, ..POLICY };
    let tracker = TrackerConfig { wake, unread: 64, ..TrackerConfig::new(policy, 100) };
    let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &tracker).unwrap();
    let address = listeners[0].address().ip().unwrap();
    let shared = Arc::new(Shared::new(100));
    let config = DriverConfig { tracker, batch_window: Duration::ZERO, io };
    let wakeup = Arc::new(Wakeup::new().unwrap());
    let mut events = [0_u64; 4];
    let sink = |event: Event| match event.kind {
        EventKind::Up => events[0] += 1,
        EventKind::Suspected { .. } => events[1] += 1,
        EventKind::Recovered { .. } => events[2] += 1,
        EventKind::Died(_) => events[3] += 1,
        _ => {}
    };
    let mut driver =
        Driver::new(config, listeners, shared, Arc::new(LocalAddresses::default()), wakeup, sink).unwrap();
    let (basin, mut taps) = channel(1, Duration::from_millis(50), Instant::now());
    driver.log_latency(taps.remove(0));
    let writer = thread::spawn(move || {
        let mut intervals = 0;
        while let Ok(interval) = basin.next() {
            basin.give_back(interval.ring, interval.recorder);
            intervals += 1;
        }
        intervals
    });

    let stop = Arc::new(AtomicBool::new(false));
    let clients = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let beat = Frame { kind: Kind::Pong, sequence: 0, timestamp: 0 }.encode();
            let mut streams: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
            for round in 0_usize.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                for (index, stream) in streams.iter_mut().enumerate() {
                    // Some pause until they are suspected: after 250 ms with frames, 250 ms before the verdict. Others hang up and
                    // come again.
                    let pauses = index % 4 == 0 && round % 40 < 27;
                    if round % 5 == 0 && index == round / 5 % CLIENTS {
                        *stream = TcpStream::connect(address).unwrap();
                    }
                    if !pauses {
                        let _ = stream.write_all(&beat);
                    }
                }
                thread::park_timeout(Duration::from_millis(10));
            }
        }
    });
    let turns = |driver: &mut Driver<_>, span: Duration| {
        let end = Instant::now() + span;
        while Instant::now() < end {
            driver.turn().unwrap();
        }
    };
    turns(&mut driver, Duration::from_millis(1_500));
    let counted = allocations(|| turns(&mut driver, Duration::from_millis(1_500)));
    stop.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    let counts = *driver.tracker().counts();
    drop(driver);
    let intervals = writer.join().unwrap();
    assert_eq!(counted, 0, "{heartbeat:?} {wake:?}");
    assert!(intervals > 10, "only {intervals} intervals were handed over");
    assert!(events[0] > 30 && events[3] > 20, "nothing happened: {events:?}");
    assert!(counts.suspected > 0 && counts.recovered > 0, "no peer was suspected: {counts:?}");
}

#[test]
fn the_loop_allocates_nothing_in_lazy_mode() {
    the_loop_allocates_nothing(Heartbeat::Bytes, Wake::Lazy);
}

#[test]
fn the_loop_allocates_nothing_in_beat_mode() {
    the_loop_allocates_nothing(Heartbeat::Bytes, Wake::Beat);
}

#[test]
fn the_loop_allocates_nothing_with_frames() {
    the_loop_allocates_nothing(Heartbeat::Frames, Wake::Lazy);
}
