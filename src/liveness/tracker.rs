//! The tracker: facts in, actions and events out. It joins the slab of peers, the wheel and the transition table.
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
//! A living peer always has an appointment in the wheel, or a visit under way. A peer with three events that the sink has
//! not taken makes no further transition but its death: it is visited again a little later. So the four lines of history
//! in the record are also the queue of events, and a sink that is stuck costs no memory.

use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use super::event::{Death, Event, EventKind, Subject};
use super::fact::{Action, Fact};
use super::peer::{Flags, Peer, PeerId, PeerView, PendingActions};
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
mod identities;
mod queue;
mod silence;
#[cfg(test)]
mod tests;
mod tracker_events;
mod transitions;

use death_log::DeathLog;
use ending::Ending;
use identities::{Duplicate, Identities};
use queue::Queue;
use tracker_events::TrackerEvents;

/// How a beat is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// A beat wakes nothing: the kernel keeps its time, and a visit reads it.
    Lazy,
    /// A beat wakes the loop; its bytes are read every [`drain_every`](TrackerConfig::drain_every) beats.
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

/// What happens to a living peer whose identity a newer connection gives. Both ways the newer one has an
/// [`EventKind::Duplicate`], which names the older.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDuplicate {
    /// The older peer stays, and both are judged by themselves.
    #[default]
    Keep,
    /// The older peer dies as `local`, `replaced`, and its connection is reset.
    Replace,
}

impl OnDuplicate {
    /// The word of the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OnDuplicate::Keep => "keep",
            OnDuplicate::Replace => "replace",
        }
    }
}

/// The configuration of a tracker. Build one with [`TrackerConfig::new`]: fields may be added.
///
/// ```
/// use deadpeer::{Policy, TrackerConfig, Wake};
///
/// let config = TrackerConfig { wake: Wake::Beat, ..TrackerConfig::new(Policy::STRICT, 10_000) };
/// assert_eq!(config.first_low_water(), 1); // every byte wakes the loop
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TrackerConfig {
    /// The times, and what counts as a proof of life.
    pub policy: Policy,
    /// The greatest number of peers at once: 1 to [`limits::MAX_PEERS`].
    pub capacity: usize,
    /// How a beat is noticed.
    pub wake: Wake,
    /// The low-water mark in bytes (`SO_RCVLOWAT`): so many unread bytes wake the poll of a socket. 1,024 by default.
    pub unread: u32,
    /// Beat mode: the number of beats, 1 to 255, after which their bytes are read. 8 by default.
    pub drain_every: u8,
    /// How many deaths [`Tracker::dead`] keeps after their events were taken: 0, the default, to
    /// [`limits::MAX_DEAD_KEPT`]. 256 bytes each.
    pub dead_kept: usize,
    /// What happens to a peer whose identity a newer connection gives in its HELLO.
    pub on_duplicate: OnDuplicate,
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
            dead_kept: 0,
            on_duplicate: OnDuplicate::Keep,
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

/// What a tracker has counted since its start, and how many peers it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrackerCounts {
    /// Connections accepted since the start.
    pub opened: u64,
    /// Deaths since the start, by [`Cause::code`].
    pub died: [u64; Cause::ALL.len()],
    /// Suspicions since the start; a peer may be suspected many times.
    pub suspected: u64,
    /// Recoveries from a suspicion since the start.
    pub recovered: u64,
    /// Visits since the start: how often a peer could be overdue and was looked at.
    pub visits: u64,
    /// Peers that are not dead now.
    pub living: u32,
    /// The number of peers that are suspect now.
    pub suspects: u32,
    /// The number of peers that are half-closed now.
    pub half_closed: u32,
}

/// The time after which a visit is repeated that cannot be finished now: its event has no room, or an end is on its way.
const AGAIN: Duration = Duration::from_millis(100);

/// Judges all peers of one loop. See the [module](super).
pub struct Tracker {
    config: TrackerConfig,
    peers: Slab<Peer>,
    wheel: Wheel,
    stalls: Stalls,
    action_queue: Queue,
    event_queue: Queue,
    tracker_events: TrackerEvents,
    identities: Identities,
    death_log: DeathLog,
    next_generation: u32,
    outage: bool,
    counts: TrackerCounts,
}

impl Tracker {
    /// Makes a tracker without peers. It reserves the memory for `capacity` peers, which is touched as it is used. What it
    /// allocates later is the text of identities, under [`Heartbeat::Frames`]: at most [`limits::MAX_IDENTITY`] bytes
    /// and a header of 16 for each peer that gave one. The memory of the deaths of one turn, and of
    /// [those to keep](TrackerConfig::dead_kept), is touched here: a death that meets a new page waits 0.13 to
    /// 0.19 ms for it (traced on a virtual machine).
    ///
    /// # Panics
    ///
    /// When the policy is one that [`Policy::check`] refuses; when `capacity` is not 1 to [`limits::MAX_PEERS`],
    /// `drain_every` is 0, or `dead_kept` is more than [`limits::MAX_DEAD_KEPT`].
    #[must_use]
    pub fn new(config: TrackerConfig, now: Instant) -> Tracker {
        assert!(config.policy.check().is_ok(), "{:?}", config.policy.check());
        assert!((1..=limits::MAX_PEERS).contains(&config.capacity), "capacity of {}", config.capacity);
        assert!(config.drain_every > 0, "a drain every 0 beats");
        assert!(config.dead_kept <= limits::MAX_DEAD_KEPT, "{} deaths to keep", config.dead_kept);
        let frames = config.policy.heartbeat == Heartbeat::Frames;
        Tracker {
            config,
            peers: Slab::with_capacity(config.capacity),
            wheel: Wheel::with_capacity(config.capacity, now),
            stalls: Stalls::default(),
            action_queue: Queue::with_capacity(config.capacity),
            event_queue: Queue::with_capacity(config.capacity),
            tracker_events: TrackerEvents::new(),
            identities: Identities::with_capacity(if frames { config.capacity } else { 0 }),
            death_log: DeathLog::with_capacity(config.dead_kept, config.capacity),
            next_generation: 0,
            outage: false,
            counts: TrackerCounts::default(),
        }
    }

    /// The configuration that was given to [`Tracker::new`].
    #[must_use]
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// What was counted since the start, and how many peers there are now.
    #[must_use]
    pub fn counts(&self) -> &TrackerCounts {
        &self.counts
    }

    /// The number of slots in use: living peers, and dead ones whose events were not taken or that were not released.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether no slot is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether every slot is in use.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.peers.len() >= self.config.capacity
    }

    /// Takes a new connection in. `local` is the number of its local address, as the driver counts them. `None` when every
    /// slot is in use.
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
        // An early first look shows the peer's pace, so that even its first bytes need no wake.
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

    /// Tells that the socket of a peer that was just [accepted](Tracker::accept) was adopted: it was connected and read
    /// elsewhere before. `taken` bytes of its stream have been read. Its silence counts from now, not from its last
    /// byte.
    pub fn adopted(&mut self, id: PeerId, taken: u64) {
        if let Some(peer) = self.living(id) {
            peer.taken = taken;
            peer.flags.set(Flags::ADOPTED);
        }
    }

    /// Feeds one fact. A fact about a dead or unknown peer changes nothing.
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
                self.on_identity(index, identity.as_str(), now);
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

    /// Reports that the loop was held up from `start` to `end`: deadlines are put off by as much, and an event reports it.
    pub fn handle_stall(&mut self, start: Instant, end: Instant) {
        let held = end.since(start);
        self.stalls.add(start, end);
        self.notice(Event { at: end, subject: None, kind: EventKind::Stall { held } });
    }

    /// Reports that the machine was suspended for `held` and is back at `now`. The monotonic clock stood still meanwhile, but
    /// what the peers sent was lost: every deadline is put off by `held`, at most by one detection time, and an event
    /// reports it.
    pub fn handle_suspend(&mut self, now: Instant, held: Duration) {
        let grace = held.min(self.config.policy.detection_time());
        self.stalls.add(now, now + grace);
        self.notice(Event { at: now, subject: None, kind: EventKind::Stall { held } });
    }

    /// Visits the peers that could be overdue at `now`: at most [`limits::MAX_VISITS_PER_TURN`], and until
    /// [`limits::VISITS_AT_ONCE`] of them have actions; the others stay due. Feed every completion that was reaped before
    /// this call.
    pub fn handle_time(&mut self, now: Instant) {
        for _ in 0..limits::MAX_VISITS_PER_TURN {
            if self.action_queue.len() >= limits::VISITS_AT_ONCE {
                break;
            }
            let Some(index) = self.wheel.expire(now) else { break };
            self.visit(index, now);
        }
    }

    /// The next time at which [`Tracker::handle_time`] has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// Returns the next action, until `None`.
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
            let peer_id = PeerId::new(index, peer.generation);
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

    /// Returns the next event, until `None`. Take one only when the sink has room for it: the tracker keeps no copy.
    #[must_use = "an event that is not delivered is lost"]
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(notice) = self.tracker_events.pop() {
            return Some(notice);
        }
        let index = self.event_queue.front()?;
        let Some(peer) = self.peers.get_mut(index as usize) else {
            unreachable!("a place is freed only after its last event was taken");
        };
        let (at, kind) = match self.identities.duplicate(index, peer) {
            Some(Duplicate { of, address, at }) => (at, EventKind::Duplicate { of, address }),
            None => self.take_transition(index),
        };
        let peer = self.at(index);
        let subject = Subject {
            peer: PeerId::new(index, peer.generation),
            address: peer.address(),
            local: peer.local,
            identity: self.identities.of(index),
        };
        let peer = self.at(index);
        if peer.untaken() == 0 && !peer.flags.has(Flags::DUPLICATE) {
            peer.flags.clear(Flags::EVENT_QUEUED);
            self.event_queue.pop();
            self.free_if_done(index);
        }
        Some(Event { at, subject: Some(subject), kind })
    }

    /// The oldest transition of a peer that was not taken, as an event, and its time.
    fn take_transition(&mut self, index: u32) -> (Instant, EventKind) {
        let peer = &mut self.peers[index as usize];
        let Some((transition, before)) = peer.take_transition() else {
            unreachable!("a peer in the queue has an event");
        };
        match EventKind::of(transition, before, peer, &self.config.policy) {
            Some(kind) => (transition.at(), kind),
            None => {
                let death = self.death_log.tell(peer.death());
                (death.at, EventKind::Died(death))
            }
        }
    }

    /// Reports that the driver has closed the descriptor of a dead peer and has no operation on it under way. The slot is
    /// free once the events were taken too.
    ///
    /// # Panics
    ///
    /// When the peer is not dead, or was released before.
    pub fn release(&mut self, id: PeerId) {
        let peer = self.peers.get_mut(id.index() as usize).expect("a peer is released once");
        assert!(peer.generation == id.generation() && peer.state == State::Dead);
        assert!(peer.flags.raise(Flags::RELEASED), "a peer is released once");
        self.free_if_done(id.index());
    }

    /// Whether a peer, living or dead, has its slot still.
    #[must_use]
    pub fn has(&self, id: PeerId) -> bool {
        self.peers.get(id.index() as usize).is_some_and(|peer| peer.generation == id.generation())
    }

    /// The record of a peer, as long as it has a slot.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<PeerView> {
        let peer = self.peers.get(id.index() as usize)?;
        (peer.generation == id.generation()).then(|| PeerView::of(id, peer))
    }

    /// The records of all peers that have a slot.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.peers.iter().map(|(index, peer)| PeerView::of(PeerId::new(index as u32, peer.generation), peer))
    }

    /// The last deaths whose events were taken, as many as [`TrackerConfig::dead_kept`] says, oldest first; then the deaths
    /// whose events wait.
    pub fn dead(&self) -> impl DoubleEndedIterator<Item = &Death> {
        self.death_log.iter()
    }

    /// Adds an event of the driver's own (`Saturated`, `Resumed`) to the stream.
    pub fn notice(&mut self, event: Event) {
        self.tracker_events.push(event);
    }

    fn living(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id.index() as usize)?;
        (peer.generation == id.generation() && peer.state != State::Dead).then_some(peer)
    }

    /// The record in a slot that is known to be in use.
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

    /// Checks every record against the invariants: O(n), for tests.
    pub fn audit(&self) {
        for (index, peer) in &self.peers {
            let index = index as u32;
            let waiting = self.wheel.is_scheduled(index) || peer.flags.has(Flags::VISITING);
            assert!((peer.state != State::Dead) == waiting, "{index}: {peer:?}");
            let has_event = peer.untaken() > 0 || peer.flags.has(Flags::DUPLICATE);
            assert_eq!(has_event, peer.flags.has(Flags::EVENT_QUEUED), "{index}: {peer:?}");
            assert!(peer.pending == 0 || peer.flags.has(Flags::ACTION_QUEUED), "{index}: {peer:?}");
        }
        let of = |state| self.peers.iter().filter(|(_, peer)| peer.state == state).count() as u32;
        assert_eq!(self.counts.suspects, of(State::Suspect));
        assert_eq!(self.counts.half_closed, of(State::HalfClosed));
        assert_eq!(self.counts.living, of(State::Alive) + self.counts.suspects + self.counts.half_closed);
    }
}
