//! The tracker held against its rules: pair by pair, in sequences that no person would write, and
//! beside a model that is too simple to be wrong.

use std::net::SocketAddr;
use std::time::Duration;

use super::Tracker;
use crate::frame::{FrameError, Identity, Kind};
use crate::limits;
use crate::liveness::state::{self, Input};
use crate::liveness::*;
use crate::time::Instant;

mod draining;
mod model;
mod path;
mod rules;
mod scene;
mod sequences;
mod singles;
mod table;

/// A fixed hour, far from the origin of the clock and on no grid.
const START: Instant = Instant::from_nanos(1_000_003_000_700);

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, (number % 250) as u8], 40_000))
}

fn actions(tracker: &mut Tracker) -> Vec<Action> {
    std::iter::from_fn(|| tracker.poll_action()).collect()
}

/// Feeds a fact, and returns the actions that follow.
fn tell(tracker: &mut Tracker, peer: PeerId, fact: Fact, at: Instant) -> Vec<Action> {
    tracker.handle(peer, fact, at);
    actions(tracker)
}

fn events(tracker: &mut Tracker) -> Vec<Event> {
    std::iter::from_fn(|| tracker.poll_event()).collect()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Idle 4 s, three probes a second apart, handshake 5 s.
fn policy(heartbeat: Heartbeat) -> Policy {
    Policy { heartbeat, ..Policy::STRICT }
}

fn config(heartbeat: Heartbeat, wake: Wake, capacity: usize) -> TrackerConfig {
    TrackerConfig { wake, ..TrackerConfig::new(policy(heartbeat), capacity) }
}

/// A tracker and its newcomers, which are up.
fn with_peers(config: TrackerConfig) -> (Tracker, Vec<PeerId>) {
    let mut tracker = Tracker::new(config, START);
    let accept = |number| tracker.accept(address(number), 0, START).expect("there is room");
    let peers = (0..config.capacity).map(accept).collect();
    assert_eq!(events(&mut tracker).len(), config.capacity);
    (tracker, peers)
}

fn after(time: u64) -> Instant {
    START + millis(time)
}

fn heard(last: Instant) -> Evidence {
    Evidence { received: 16, last_data: last, last_ack: last, ..Evidence::default() }
}

/// Bytes woke the poll.
const BYTES: Fact = Fact::Ready(PollMask(0x1));

const PONG: Fact = Fact::Frame { kind: Kind::Pong, sequence: 1 };

/// A look at a socket whose last byte and acknowledgement came at `last`.
fn seen(last: u64) -> Fact {
    Fact::Inspected(heard(after(last)))
}

fn drain(peer: PeerId) -> Action {
    Action::Drain { peer, to_end: false }
}

/// The step of a peer that an event tells of; `None` of an event of another kind.
fn step(kind: &EventKind) -> Option<Step> {
    Some(match kind {
        EventKind::Up => Step::Up,
        EventKind::Suspected { doubt: false, .. } => Step::Suspected,
        EventKind::Suspected { doubt: true, .. } => Step::Doubted,
        EventKind::Recovered { .. } => Step::Recovered,
        EventKind::HalfClosed => Step::HalfClosed,
        EventKind::Died(death) => Step::Died(death.cause),
        _ => return None,
    })
}

/// What the sink is told, in a word each. A doubt is a suspicion.
fn kinds(tracker: &mut Tracker) -> Vec<&'static str> {
    let word = |event: Event| match event.kind {
        EventKind::Suspected { .. } => "suspected",
        EventKind::Duplicate { .. } => "duplicate",
        EventKind::Stall { .. } => "stall",
        EventKind::PathOutage { .. } => "path_outage",
        EventKind::Saturated { .. } => "saturated",
        EventKind::Resumed => "resumed",
        kind => step(&kind).expect("all others are steps").as_str(),
    };
    events(tracker).into_iter().map(word).collect()
}

/// All of a tracker that a fact could change.
fn print(tracker: &Tracker) -> String {
    let Tracker { peers, counts, stalls, death_log, identities, outage, .. } = tracker;
    let due = tracker.next_due();
    // The slab's own Debug says how many there are, not which.
    let peers: Vec<_> = peers.iter().collect();
    format!("{peers:?} {counts:?} {stalls:?} {death_log:?} {identities:?} {outage} {due:?}")
}

/// The time from `from` to `to` during which this process was there: without the stalls, which are in order.
fn listened(stalls: &[(Instant, Instant)], from: Instant, to: Instant) -> Duration {
    let (mut time, mut covered) = (to.since(from), from);
    for &(start, end) in stalls {
        let (start, end) = (start.max(covered), end.min(to));
        time -= end.since(start);
        covered = covered.max(end);
    }
    time
}

fn peer_of(action: &Action) -> PeerId {
    match *action {
        Action::Inspect(peer)
        | Action::Drain { peer, .. }
        | Action::SetLowWater { peer, .. }
        | Action::Probe { peer, .. }
        | Action::Close { peer, .. } => peer,
    }
}

fn death(event: Option<Event>) -> Death {
    match event.map(|event| event.kind) {
        Some(EventKind::Died(death)) => death,
        other => panic!("{other:?} is no death"),
    }
}

/// Visits every peer that is due up to `end`, and answers with the time it was last heard.
fn run(
    tracker: &mut Tracker,
    end: Instant,
    mut last: impl FnMut(PeerId) -> Evidence,
) -> Vec<(Instant, Action)> {
    let mut done = Vec::new();
    while let Some(due) = tracker.next_due().filter(|&due| due <= end) {
        tracker.handle_time(due);
        while let Some(action) = tracker.poll_action() {
            done.push((due, action));
            match action {
                Action::Drain { peer, .. } => tracker.handle(peer, Fact::Emptied, due),
                Action::Inspect(peer) => tracker.handle(peer, Fact::Inspected(last(peer)), due),
                Action::Close { peer, .. } => tracker.release(peer),
                Action::SetLowWater { .. } | Action::Probe { .. } => {}
            }
        }
        tracker.audit();
    }
    done
}
