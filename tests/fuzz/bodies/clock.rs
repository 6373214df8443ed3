//! A clock that jumps forwards and backwards, stalls, and evidence dated anywhere: the tracker neither panics nor asks
//! without end, and each peer dies once and frees its place.

use std::net::SocketAddr;
use std::time::Duration;

use deadpeer::frame::{FrameError, Kind};
use deadpeer::liveness::{
    Action, EventKind, Evidence, Fact, Heartbeat, PeerId, Policy, PollMask, TcpState, Tracker, TrackerConfig,
    Wake,
};
use deadpeer::time::Instant;

use crate::input::Input;

/// Peers at once.
const CAPACITY: usize = 6;

/// Actions after one fact: a peer has at most one of each kind pending, and an answer asks for some more.
const MOST_ACTIONS: usize = 40 * CAPACITY;

struct World<'a> {
    input: Input<'a>,
    tracker: Tracker,
    now: Instant,
    /// Peers whose socket is open.
    open: Vec<PeerId>,
    born: u64,
    died: u64,
}

impl World<'_> {
    /// An instant: near `now`, far from it, or at an end of the clock.
    fn instant(&mut self) -> Instant {
        let distance = self.input.number();
        let near = Duration::from_nanos(distance % 60_000_000_000);
        match self.input.byte() % 10 {
            0..=3 => self.now + near,
            4 | 5 => self.now - near,
            6 => self.now + Duration::from_nanos(distance),
            7 => self.now - Duration::from_nanos(distance),
            8 => Instant::ZERO,
            _ => Instant::NEVER,
        }
    }

    fn evidence(&mut self) -> Evidence {
        Evidence {
            mask: PollMask(self.input.number() as u16),
            tcp_state: TcpState::from_kernel(self.input.byte() % 13),
            received: self.input.number() % 100_000,
            last_data: self.instant(),
            last_ack: self.instant(),
            ..Evidence::default()
        }
    }

    fn fact(&mut self) -> Fact {
        match self.input.byte() % 10 {
            0 | 1 => {
                Fact::Ready(PollMask(u16::from(self.input.byte()) | (self.input.number() as u16 & 0x2000)))
            }
            2 | 3 => Fact::Taken { bytes: self.input.number() as u32 },
            4 => Fact::Emptied,
            5 => Fact::Inspected(self.evidence()),
            6 => Fact::Frame { kind: Kind::Pong, sequence: self.input.number() as u32 },
            7 if self.input.byte().is_multiple_of(4) => Fact::End(self.evidence()),
            8 if self.input.byte().is_multiple_of(4) => {
                Fact::Failed { errno: i32::from(self.input.byte()) % 133 + 1, evidence: self.evidence() }
            }
            9 if self.input.byte().is_multiple_of(8) => Fact::Garbage(FrameError::BadMagic, self.evidence()),
            _ => Fact::Ready(PollMask(PollMask::IN)),
        }
    }

    /// Performs what the tracker asks for, as a driver does.
    fn settle(&mut self) {
        for count in 0.. {
            assert!(count < MOST_ACTIONS, "the tracker asks without end");
            let Some(action) = self.tracker.poll_action() else { break };
            match action {
                Action::Drain { peer, to_end } => {
                    let fact = if to_end { Fact::End(self.evidence()) } else { Fact::Emptied };
                    self.tracker.handle(peer, fact, self.now);
                }
                Action::Inspect(peer) => {
                    let fact = Fact::Inspected(self.evidence());
                    self.tracker.handle(peer, fact, self.now);
                }
                Action::Close { peer, .. } => {
                    let place = self.open.iter().position(|&open| open == peer);
                    self.open.swap_remove(place.expect("a socket is closed once"));
                    self.tracker.release(peer);
                }
                _ => {}
            }
        }
        while let Some(event) = self.tracker.poll_event() {
            self.died += u64::from(matches!(event.kind, EventKind::Died(_)));
        }
        self.tracker.audit();
    }

    fn step(&mut self) {
        match self.input.byte() % 12 {
            0 | 1 => self.now = self.instant(),
            2 | 3 => {
                let address = SocketAddr::from(([192, 0, 2, 1], self.born as u16));
                if let Some(peer) = self.tracker.accept(address, 0, self.now) {
                    self.open.push(peer);
                    self.born += 1;
                }
            }
            4..=7 if !self.open.is_empty() => {
                let peer = self.open[usize::from(self.input.byte()) % self.open.len()];
                let fact = self.fact();
                self.tracker.handle(peer, fact, self.now);
            }
            8 => {
                let (start, end) = (self.instant(), self.instant());
                self.tracker.handle_stall(start, end);
            }
            9 => {
                let held = Duration::from_nanos(self.input.number());
                self.tracker.handle_suspend(self.now, held);
            }
            _ => {
                // What a loop does: it sleeps until something is due.
                if let Some(due) = self.tracker.next_due() {
                    self.now = self.now.max(due);
                }
                self.tracker.handle_time(self.now);
            }
        }
        self.settle();
    }
}

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let policy = Policy {
        heartbeat: [Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None][usize::from(flags) % 3],
        half_closed_grace: Duration::from_secs(u64::from(flags & 16)),
        ..if flags & 32 == 0 { Policy::STANDARD } else { Policy::STRICT }
    };
    let wake = if flags & 64 == 0 { Wake::Lazy } else { Wake::Beat };
    let config = TrackerConfig { wake, dead_kept: 4, ..TrackerConfig::new(policy, CAPACITY) };
    let now = Instant::from_nanos(input.number());
    let tracker = Tracker::new(config, now);
    let mut world = World { input, tracker, now, open: Vec::new(), born: 0, died: 0 };
    while !world.input.is_empty() {
        world.step();
    }
    for peer in world.open.clone() {
        let evidence = world.evidence();
        world.tracker.handle(peer, Fact::End(evidence), world.now);
        world.settle();
        let fact = Fact::Failed { errno: 104, evidence: world.evidence() };
        world.tracker.handle(peer, fact, world.now);
        world.settle();
    }
    assert_eq!((world.died, world.tracker.len(), world.open.len()), (world.born, 0, 0));
}
