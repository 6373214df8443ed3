//! Slab, wheel and table joined: facts in, actions and events out.
//!
//! See the [module's page](super) for the contract. In the order of a turn:
//!
//! 1. [`Tracker::handle`] each fact of the batch (`facts`). A fact changes the record, may ask for
//!    actions, and may end the peer (`ending`).
//! 2. [`Tracker::handle_time`]: the wheel names the peers that could be overdue (`silence`). A visit
//!    asks for evidence; the answer comes back as [`Fact::Inspected`] and is *judged*. What follows is
//!    a step along the table (`transitions`).
//! 3. [`Tracker::poll_action`], [`Tracker::poll_event`].
//!
//! A living peer always has an appointment in the wheel, or a visit under way. A peer that owes the
//! sink three events does nothing more that would be reported, short of dying: it is looked at again
//! a little later. So the record's four lines of history are also the queue, and a sink that is stuck
//! costs no memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::event::{Death, Event, EventKind, Subject};
use super::fact::{Action, Fact};
use super::peer::{Flags, Peer, PeerId, PeerView, PendingActions, Step};
use super::policy::{Heartbeat, Policy};
use super::stalls::Stalls;
use super::state::{Cause, State};
use crate::frame::Kind;
use crate::limits;
use crate::time::Instant;
use crate::wheel::Wheel;

mod death_log;
pub(super) mod drain_schedule;
mod ending;
mod facts;
mod queue;
mod silence;
#[cfg(test)]
mod tests;
mod tracker_events;
mod transitions;

use death_log::DeathLog;
use ending::Ending;
use queue::Queue;
use tracker_events::TrackerEvents;

/// How a beat is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// Not at all: the kernel keeps the time, and a visit reads it.
    Lazy,
    /// As it comes; its bytes are taken off every so many beats.
    Beat,
}

impl Wake {
    /// The word of the command line and of events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Wake::Lazy => "lazy",
            Wake::Beat => "beat",
        }
    }
}

/// What a tracker is made from.
#[derive(Clone, Copy, Debug)]
pub struct TrackerConfig {
    /// The times, and what counts as life.
    pub policy: Policy,
    /// How many peers at once: 1 to [`limits::MAX_PEERS`].
    pub capacity: usize,
    /// How a beat is noticed.
    pub wake: Wake,
    /// Unread bytes that may lie in a socket before it wakes us (`SO_RCVLOWAT`).
    pub unread: u32,
    /// In beat mode: how many beats are noticed before their bytes are taken off.
    pub drain_every: u8,
    /// How many of the dead are remembered after they were reported.
    pub remembered: usize,
}

impl TrackerConfig {
    /// A configuration with the defaults of `deadpeer run`.
    #[must_use]
    pub const fn new(policy: Policy, capacity: usize) -> TrackerConfig {
        TrackerConfig {
            policy,
            capacity,
            wake: Wake::Lazy,
            unread: 1_024,
            drain_every: 8,
            remembered: limits::MAX_REMEMBERED_DEAD,
        }
    }

    /// The low-water mark of a new connection, in bytes (`SO_RCVLOWAT`): 1 in beat mode, and with frames, so that a
    /// HELLO is read when it comes; [`unread`](TrackerConfig::unread) otherwise.
    #[must_use]
    pub const fn first_low_water(&self) -> u32 {
        let on_byte = matches!(self.wake, Wake::Beat) || matches!(self.policy.heartbeat, Heartbeat::Frames);
        if on_byte { 1 } else { self.unread }
    }
}

/// How many, of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerCounts {
    /// Accepted since the start.
    pub opened: u64,
    /// Died since the start, by [`Cause::code`].
    pub died: [u64; Cause::ALL.len()],
    /// Suspicions since the start.
    pub suspected: u64,
    /// Recoveries since the start.
    pub recovered: u64,
    /// Visits since the start.
    pub visits: u64,
    /// Not dead now.
    pub living: u32,
    /// Suspect now.
    pub suspects: u32,
    /// Half-closed now.
    pub half_closed: u32,
}

/// A visit that cannot be finished now (no room for its event, an end on its way) is repeated after
/// this time.
const AGAIN: Duration = Duration::from_millis(100);

/// The judgement over all peers of one ring.
pub struct Tracker {
    config: TrackerConfig,
    peers: Slab<Peer>,
    wheel: Wheel,
    stalls: Stalls,
    action_queue: Queue,
    event_queue: Queue,
    tracker_events: TrackerEvents,
    identities: HashMap<u32, Arc<str>>,
    death_log: DeathLog,
    next_generation: u32,
    outage: bool,
    counts: TrackerCounts,
}

impl Tracker {
    /// A tracker without peers. All memory that it ever needs is reserved here. That of the [remembered
    /// dead](TrackerConfig::remembered) is touched, too (256 bytes each), so that no death waits for a page: every
    /// sixteenth would (traced on a virtual machine: 0.13 to 0.19 ms). The rest is touched as it is used.
    ///
    /// # Panics
    ///
    /// When the policy is one that [`Policy::check`] refuses, or the capacity is out of range.
    #[must_use]
    pub fn new(config: TrackerConfig, now: Instant) -> Tracker {
        assert!(config.policy.check().is_ok(), "{:?}", config.policy.check());
        assert!((1..=limits::MAX_PEERS).contains(&config.capacity), "capacity of {}", config.capacity);
        assert!(config.drain_every > 0, "a drain every 0 beats");
        Tracker {
            config,
            peers: Slab::with_capacity(config.capacity),
            wheel: Wheel::with_capacity(config.capacity, now),
            stalls: Stalls::default(),
            action_queue: Queue::with_capacity(config.capacity),
            event_queue: Queue::with_capacity(config.capacity),
            tracker_events: TrackerEvents::new(),
            identities: HashMap::new(),
            death_log: DeathLog::with_capacity(config.remembered, config.capacity),
            next_generation: 0,
            outage: false,
            counts: TrackerCounts::default(),
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// How many, of what.
    #[must_use]
    pub fn counts(&self) -> &TrackerCounts {
        &self.counts
    }

    /// Places that are not free: the living, and the dead that were not yet handed over or released.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether every place is free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether no place is free.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.peers.len() >= self.config.capacity
    }

    /// Takes a new connection in; `local` is the driver's number of its local address. `None` when
    /// no place is free.
    #[must_use]
    pub fn accept(&mut self, address: SocketAddr, local: u16, now: Instant) -> Option<PeerId> {
        if self.is_full() {
            return None;
        }
        let generation = self.next_generation;
        self.next_generation = (generation + 1) & ((1 << limits::GENERATION_BITS) - 1);
        let mut peer = Peer::new(address, local, generation, now);
        if self.config.first_low_water() == 1 {
            peer.flags.set(Flags::WAKE_ON_BYTE);
        }
        match self.config.wake {
            Wake::Beat => peer.flags.set(Flags::EAGER),
            Wake::Lazy => peer.pace = drain_schedule::stamp(now),
        }
        peer.flags.set(Flags::EVENT_QUEUED);
        let policy = &self.config.policy;
        let quiet = if peer.is_mute(policy) { policy.idle.min(policy.handshake) } else { policy.idle };
        // A first look early on tells its pace, so that already its first bytes need wake nobody.
        let foreseen = self.config.wake == Wake::Lazy && policy.heartbeat != Heartbeat::Frames;
        let first_look = drain_schedule::FIRST_LOOK.min(quiet / 4);
        let due = if foreseen { self.quiet_until(now + first_look) } else { now + quiet };
        peer.set_due(due);
        let index = self.peers.insert(peer) as u32;
        self.wheel.schedule(index, due);
        self.event_queue.push(index);
        self.counts.opened += 1;
        self.counts.living += 1;
        Some(PeerId::new(index, generation))
    }

    /// Tells that somebody else has taken so many bytes off before the peer was [taken in](Tracker::accept):
    /// they do not lie unread.
    pub fn taken_before(&mut self, id: PeerId, bytes: u64) {
        if let Some(peer) = self.living(id) {
            peer.taken = bytes;
        }
    }

    /// Feeds one fact. A fact about a peer that is not, or not any more, changes nothing.
    pub fn handle(&mut self, id: PeerId, fact: Fact, now: Instant) {
        let Some(peer) = self.living(id) else { return };
        let index = id.index();
        match fact {
            Fact::Ready(mask) => self.on_ready(index, mask, now),
            Fact::Taken { bytes } => self.on_taken(index, bytes, now),
            Fact::Emptied => {
                if peer.flags.has(Flags::VISITING) && self.config.policy.heartbeat == Heartbeat::Frames {
                    self.request(index, PendingActions::INSPECT);
                }
            }
            Fact::Inspected(evidence) => self.on_inspected(index, &evidence, false, now),
            Fact::End(evidence) => self.on_end(index, &evidence, now),
            Fact::Failed { errno, evidence } => self.on_failed(index, errno, &evidence, now),
            Fact::Frame { kind, .. } => {
                debug_assert!(!matches!(kind, Kind::Hello | Kind::Bye), "these have facts of their own");
                self.on_frame(index, now);
            }
            Fact::Hello(identity) => {
                peer.flags.set(Flags::HELLO);
                if !identity.as_str().is_empty() {
                    self.identities.insert(index, Arc::from(identity.as_str()));
                }
                self.on_frame(index, now);
            }
            Fact::Garbage(error, evidence) => {
                self.die(index, Ending { frame: Some(error), ..Ending::of(Cause::Protocol) }, &evidence, now);
            }
            Fact::Bye(evidence) => {
                self.die(index, Ending { bye: true, ..Ending::of(Cause::Closed) }, &evidence, now);
            }
        }
    }

    /// Tells that the loop itself was held up from `start` to `end`: deadlines are put off by as
    /// much, and an event says so.
    pub fn handle_stall(&mut self, start: Instant, end: Instant) {
        let held = end.since(start);
        self.stalls.add(start, end);
        self.notice(Event { at: end, subject: None, kind: EventKind::Stall { held } });
    }

    /// Tells that the machine was suspended for `held` and is back at `now`. The monotonic clock stood
    /// still meanwhile, but what the peers sent was lost: every deadline is put off by as much, at most
    /// by one detection time, and an event says so.
    pub fn handle_suspend(&mut self, now: Instant, held: Duration) {
        let grace = held.min(self.config.policy.detection_time());
        self.stalls.add(now, now + grace);
        self.notice(Event { at: now, subject: None, kind: EventKind::Stall { held } });
    }

    /// Lets the wheel name who could be overdue at `now`: at most [`limits::MAX_VISITS_PER_TURN`] of them, and so
    /// many that [`limits::VISITS_AT_ONCE`] have actions to be taken; the others stay due. Feed every completion
    /// that has been reaped before this.
    pub fn handle_time(&mut self, now: Instant) {
        for _ in 0..limits::MAX_VISITS_PER_TURN {
            if self.action_queue.len() >= limits::VISITS_AT_ONCE {
                break;
            }
            let Some(index) = self.wheel.expire(now) else { break };
            self.visit(index, now);
        }
    }

    /// When [`Tracker::handle_time`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// The next thing to do, until `None`.
    #[must_use = "an action that is not performed leaves its peer without a judgement"]
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            let index = self.action_queue.front()?;
            let Some(peer) = self.peers.get_mut(index as usize) else {
                unreachable!("a peer is released only after its actions were taken");
            };
            if peer.pending == 0 {
                peer.flags.clear(Flags::ACTION_QUEUED);
                self.action_queue.pop();
                continue;
            }
            let action = peer.pending & peer.pending.wrapping_neg();
            peer.pending &= !action;
            let peer_id = PeerId::new(index, peer.generation());
            return Some(match action {
                PendingActions::WAKE_ON_BYTE => Action::SetLowWater { peer: peer_id, bytes: 1 },
                PendingActions::WAKE_ON_MARK => {
                    Action::SetLowWater { peer: peer_id, bytes: self.config.unread }
                }
                PendingActions::PROBE => Action::Probe { peer: peer_id, sequence: u32::from(peer.probes) },
                PendingActions::DRAIN => Action::Drain { peer: peer_id, to_end: false },
                PendingActions::DRAIN_TO_END => Action::Drain { peer: peer_id, to_end: true },
                PendingActions::INSPECT => Action::Inspect(peer_id),
                PendingActions::CLOSE => Action::Close { peer: peer_id, abort: false },
                _ => Action::Close { peer: peer_id, abort: true },
            });
        }
    }

    /// The next event, until `None`. Take one only when the sink has room for it: what was taken is
    /// the caller's.
    #[must_use = "an event that is not delivered is lost"]
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(notice) = self.tracker_events.pop() {
            return Some(notice);
        }
        let index = self.event_queue.front()?;
        let Some(peer) = self.peers.get_mut(index as usize) else {
            unreachable!("a place is freed only after its last event was taken");
        };
        let Some((transition, before)) = peer.take_transition() else {
            unreachable!("who stands in the queue owes an event");
        };
        let kind = match transition.step() {
            Step::Up => EventKind::Up,
            step @ (Step::Suspected | Step::Doubted) => {
                // The life of now: it may be newer than the suspicion, and then says nothing of the
                // silence before it.
                let silent = transition.at().since(peer.last_life);
                let doubt = step == Step::Doubted;
                let at_least = if doubt { Duration::ZERO } else { self.config.policy.suspicion_time() };
                EventKind::Suspected { silent_for: silent.max(at_least), doubt }
            }
            Step::Recovered => {
                let suspected_at = before.map_or(peer.accepted_at, |before| before.at());
                EventKind::Recovered { suspected_for: transition.at().since(suspected_at) }
            }
            Step::HalfClosed => EventKind::HalfClosed,
            Step::Died(_) => EventKind::Died(self.death_log.tell(peer.death())),
        };
        let at = match &kind {
            EventKind::Died(death) => death.at,
            _ => transition.at(),
        };
        let subject = Subject {
            peer: PeerId::new(index, peer.generation()),
            address: peer.address(),
            local: peer.local,
            identity: self.identities.get(&index).cloned(),
        };
        if peer.untaken() == 0 {
            peer.flags.clear(Flags::EVENT_QUEUED);
            self.event_queue.pop();
            self.free_if_done(index);
        }
        Some(Event { at, subject: Some(subject), kind })
    }

    /// The driver holds nothing of a dead peer any more: its descriptor is closed and no operation
    /// on it is under way. Its place is free once its events were taken too.
    ///
    /// # Panics
    ///
    /// When the peer is not dead, or was released before.
    pub fn release(&mut self, id: PeerId) {
        let peer = self.peers.get_mut(id.index() as usize).expect("a peer is released once");
        assert!(peer.generation() == id.generation() && peer.state == State::Dead);
        assert!(peer.flags.raise(Flags::RELEASED), "a peer is released once");
        self.free_if_done(id.index());
    }

    /// Whether a peer has its place still, living or dead.
    #[must_use]
    pub fn has(&self, id: PeerId) -> bool {
        self.peers.get(id.index() as usize).is_some_and(|peer| peer.generation() == id.generation())
    }

    /// The record of a peer, as long as it has a place.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<PeerView> {
        let peer = self.peers.get(id.index() as usize)?;
        (peer.generation() == id.generation()).then(|| PeerView::of(id, peer))
    }

    /// Every peer that has a place.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.peers
            .iter()
            .map(|(index, peer)| PeerView::of(PeerId::new(index as u32, peer.generation()), peer))
    }

    /// The dead: those who were handed over, as many as are remembered, oldest first; then those who were not.
    pub fn dead(&self) -> impl DoubleEndedIterator<Item = &Death> {
        self.death_log.iter()
    }

    /// Adds an event of the driver's own (`Saturated`, `Resumed`) to the stream.
    pub fn notice(&mut self, event: Event) {
        self.tracker_events.push(event);
    }

    fn living(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id.index() as usize)?;
        (peer.generation() == id.generation() && peer.state != State::Dead).then_some(peer)
    }

    /// The record in a place that is known to be taken.
    fn at(&mut self, index: u32) -> &mut Peer {
        &mut self.peers[index as usize]
    }

    fn request(&mut self, index: u32, what: u8) {
        let peer = self.at(index);
        match what {
            PendingActions::WAKE_ON_BYTE => peer.pending &= !PendingActions::WAKE_ON_MARK,
            PendingActions::WAKE_ON_MARK => peer.pending &= !PendingActions::WAKE_ON_BYTE,
            PendingActions::DRAIN_TO_END => peer.pending &= !PendingActions::DRAIN,
            PendingActions::CLOSE | PendingActions::ABORT => peer.pending = 0,
            _ => {}
        }
        peer.pending |= what;
        if peer.flags.raise(Flags::ACTION_QUEUED) {
            self.action_queue.push(index);
        }
    }

    fn appoint(&mut self, index: u32, due: Instant) {
        self.at(index).set_due(due);
        self.wheel.schedule(index, due);
    }

    /// Holds every record against the invariants. O(n), for tests.
    pub fn audit(&self) {
        for (index, peer) in &self.peers {
            let index = index as u32;
            let waiting = self.wheel.is_scheduled(index) || peer.flags.has(Flags::VISITING);
            assert!((peer.state != State::Dead) == waiting, "{index}: {peer:?}");
            assert_eq!(peer.untaken() > 0, peer.flags.has(Flags::EVENT_QUEUED), "{index}: {peer:?}");
            assert!(peer.pending == 0 || peer.flags.has(Flags::ACTION_QUEUED), "{index}: {peer:?}");
        }
        let of = |state| self.peers.iter().filter(|(_, peer)| peer.state == state).count() as u32;
        assert_eq!(self.counts.suspects, of(State::Suspect));
        assert_eq!(self.counts.half_closed, of(State::HalfClosed));
        assert_eq!(self.counts.living, of(State::Alive) + self.counts.suspects + self.counts.half_closed);
    }
}
