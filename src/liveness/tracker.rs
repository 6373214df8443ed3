//! Slab, wheel and table joined: facts in, actions and events out.
//!
//! See the [module's page](super) for the contract. In the order of a turn:
//!
//! 1. [`Tracker::handle`] each fact of the batch. A fact changes the record, may ask for actions, and
//!    may end the peer.
//! 2. [`Tracker::handle_time`]: the wheel names the peers that could be overdue. A visit asks for
//!    evidence; the answer comes back as [`Fact::Inspected`] and is *judged*.
//! 3. [`Tracker::poll_action`], [`Tracker::poll_event`].
//!
//! A living peer always has an appointment in the wheel, or a visit under way. A peer that owes the
//! sink three events does nothing more that would be reported, short of dying: it is looked at again
//! a little later. So the record's four lines of history are also the queue, and a sink that is stuck
//! costs no memory.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::errno::{self, Meaning};
use super::event::{Death, Event, EventKind, Proof, Subject, Transport};
use super::fact::{Action, Evidence, Fact, PollMask, TcpState};
use super::peer::{Flags, Peer, PeerId, PeerView, Step, Want};
use super::policy::{Heartbeat, Policy};
use super::state::{self, Cause, Hop, Input, LocalCause, State};
use crate::frame::{FrameError, Kind};
use crate::limits;
use crate::time::Instant;
use crate::wheel::Wheel;

mod pace;
mod queue;
mod stalls;
#[cfg(test)]
mod tests;

use queue::Queue;
use stalls::Stalls;

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

    /// Whether a new connection wakes by its first byte: where every beat does, and where a first
    /// frame (who are you, and are you one of us at all?) should not lie unread.
    #[must_use]
    pub const fn starts_narrow(&self) -> bool {
        matches!(self.wake, Wake::Beat) || matches!(self.policy.heartbeat, Heartbeat::Frames)
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
/// Its timer is coarse, and the answer takes its time.
const KEEPALIVE_LATENESS: Duration = Duration::from_millis(500);
/// Doublings of the retransmission timer after which a path is in doubt.
const DOUBTFUL_BACKOFF: u8 = 2;
/// Suspects below this number are no outage, whatever their share.
const MIN_OUTAGE: u32 = 16;
/// Beat mode: drains of at most this many bytes a beat are a heartbeat's.
const CALM_BYTES: u32 = 256;
/// Beat mode: so many calm drains in a row make a peer calm.
const CALM_DRAINS: u16 = 4;

/// The judgement over all peers of one ring.
pub struct Tracker {
    config: TrackerConfig,
    /// Silence after which the kernel's keepalive has asked.
    asked_after: Duration,
    peers: Slab<Peer>,
    wheel: Wheel,
    stalls: Stalls,
    acting: Queue,
    owing: Queue,
    notices: VecDeque<Event>,
    identities: HashMap<u32, Arc<str>>,
    /// Deaths by number: first those that were handed over, last those that were not.
    deaths: VecDeque<(Death, bool)>,
    first_death: u64,
    next_generation: u32,
    outage: bool,
    counts: TrackerCounts,
}

impl Tracker {
    /// A tracker without peers. All memory that it ever needs is reserved here (and touched only as
    /// it is used).
    ///
    /// # Panics
    ///
    /// When the policy is one that [`Policy::check`] refuses, or the capacity is out of range.
    #[must_use]
    pub fn new(config: TrackerConfig, now: Instant) -> Tracker {
        assert!(config.policy.check().is_ok(), "{:?}", config.policy.check());
        assert!((1..=limits::MAX_PEERS).contains(&config.capacity), "capacity of {}", config.capacity);
        assert!(config.drain_every > 0, "a drain every 0 beats");
        let keepalive_idle = Duration::from_secs(u64::from(config.policy.keepalive().idle));
        Tracker {
            config,
            asked_after: keepalive_idle + KEEPALIVE_LATENESS,
            peers: Slab::with_capacity(config.capacity),
            wheel: Wheel::with_capacity(config.capacity, now),
            stalls: Stalls::default(),
            acting: Queue::with_capacity(config.capacity),
            owing: Queue::with_capacity(config.capacity),
            notices: VecDeque::with_capacity(Tracker::MAX_NOTICES),
            identities: HashMap::new(),
            deaths: VecDeque::with_capacity(config.remembered + config.capacity),
            first_death: 0,
            next_generation: 0,
            outage: false,
            counts: TrackerCounts::default(),
        }
    }

    /// Events of the tracker itself that may wait: stalls are merged beyond it.
    const MAX_NOTICES: usize = 16;

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
        if self.config.starts_narrow() {
            peer.flags.set(Flags::NARROW);
        }
        match self.config.wake {
            Wake::Beat => peer.flags.set(Flags::EAGER),
            Wake::Lazy => peer.pace = pace::stamp(now),
        }
        peer.flags.set(Flags::OWING);
        let policy = &self.config.policy;
        let quiet = if peer.is_mute(policy) { policy.idle.min(policy.handshake) } else { policy.idle };
        // A first look early on tells its pace, so that already its first bytes need wake nobody.
        let foreseen = self.config.wake == Wake::Lazy && policy.heartbeat != Heartbeat::Frames;
        let due = if foreseen { self.quiet_until(now + quiet / 4) } else { now + quiet };
        peer.set_due(due);
        let index = self.peers.insert(peer) as u32;
        self.wheel.schedule(index, due);
        self.owing.push(index);
        self.counts.opened += 1;
        self.counts.living += 1;
        Some(PeerId::new(index, generation))
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
                    self.want(index, Want::INSPECT);
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
        let crowded = self.notices.len() >= Tracker::MAX_NOTICES;
        if let Some(Event { kind: EventKind::Stall { held: sum }, .. }) = self.notices.back_mut()
            && crowded
        {
            *sum += held;
            return;
        }
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

    /// Lets the wheel name who could be overdue at `now`, at most
    /// [`limits::MAX_VISITS_PER_TURN`] of them; the others stay due. Feed every completion that has
    /// been reaped before this.
    pub fn handle_time(&mut self, now: Instant) {
        for _ in 0..limits::MAX_VISITS_PER_TURN {
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
            let index = self.acting.front()?;
            let Some(peer) = self.peers.get_mut(index as usize) else {
                unreachable!("a peer is released only after its actions were taken");
            };
            if peer.wants == 0 {
                peer.flags.clear(Flags::ACTING);
                self.acting.pop();
                continue;
            }
            let want = peer.wants & peer.wants.wrapping_neg();
            peer.wants &= !want;
            let peer_id = PeerId::new(index, peer.generation());
            return Some(match want {
                Want::NARROW => Action::WakeOn { peer: peer_id, narrow: true },
                Want::WIDE => Action::WakeOn { peer: peer_id, narrow: false },
                Want::PROBE => Action::Probe { peer: peer_id, sequence: u32::from(peer.probes) },
                Want::DRAIN => Action::Drain { peer: peer_id, to_end: false },
                Want::DRAIN_TO_END => Action::Drain { peer: peer_id, to_end: true },
                Want::INSPECT => Action::Inspect(peer_id),
                Want::CLOSE => Action::Close { peer: peer_id, abort: false },
                _ => Action::Close { peer: peer_id, abort: true },
            });
        }
    }

    /// The next event, until `None`. Take one only when the sink has room for it: what was taken is
    /// the caller's.
    #[must_use = "an event that is not delivered is lost"]
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        let index = self.owing.front()?;
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
                let silent = transition.at().since(peer.life);
                let doubt = step == Step::Doubted;
                let at_least = if doubt { Duration::ZERO } else { self.config.policy.idle };
                EventKind::Suspected { silent_for: silent.max(at_least), doubt }
            }
            Step::Recovered => {
                let suspected_at = before.map_or(peer.born, |before| before.at());
                EventKind::Recovered { suspected_for: transition.at().since(suspected_at) }
            }
            Step::HalfClosed => EventKind::HalfClosed,
            Step::Died(_) => {
                let (death, handed) = &mut self.deaths[(peer.death() - self.first_death) as usize];
                *handed = true;
                EventKind::Died(*death)
            }
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
            peer.flags.clear(Flags::OWING);
            self.owing.pop();
            self.free_if_done(index);
        }
        self.forget_old_deaths();
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

    /// The remembered dead, oldest first.
    pub fn dead(&self) -> impl DoubleEndedIterator<Item = &Death> {
        self.deaths.iter().map(|(death, _)| death)
    }

    /// Adds an event of the driver's own (`Saturated`, `Resumed`) to the stream.
    pub fn notice(&mut self, event: Event) {
        // Only stalls can outnumber the places, and those are merged.
        if self.notices.len() < 4 * Tracker::MAX_NOTICES {
            self.notices.push_back(event);
        }
    }

    fn living(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id.index() as usize)?;
        (peer.generation() == id.generation() && peer.state != State::Dead).then_some(peer)
    }

    /// The record in a place that is known to be taken.
    fn at(&mut self, index: u32) -> &mut Peer {
        &mut self.peers[index as usize]
    }

    fn want(&mut self, index: u32, what: u8) {
        let peer = self.at(index);
        match what {
            Want::NARROW => peer.wants &= !Want::WIDE,
            Want::WIDE => peer.wants &= !Want::NARROW,
            Want::DRAIN_TO_END => peer.wants &= !Want::DRAIN,
            Want::CLOSE | Want::ABORT => peer.wants = 0,
            _ => {}
        }
        peer.wants |= what;
        if peer.flags.raise(Flags::ACTING) {
            self.acting.push(index);
        }
    }

    fn appoint(&mut self, index: u32, due: Instant) {
        self.at(index).set_due(due);
        self.wheel.schedule(index, due);
    }

    // --- facts ---------------------------------------------------------------------------------

    fn on_ready(&mut self, index: u32, mask: PollMask, now: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let drain_every = self.config.drain_every;
        let wake = self.config.wake;
        let peer = self.at(index);
        if mask.is_end() {
            if peer.state == State::HalfClosed {
                // Its recv gives 0 for ever; only the socket's state tells a reset now.
                self.want(index, Want::INSPECT);
            } else {
                peer.flags.set(Flags::ENDING);
                self.want(index, Want::DRAIN_TO_END);
            }
            return;
        }
        if !mask.has(PollMask::IN) || peer.state == State::HalfClosed {
            return;
        }
        match (peer.state, heartbeat, wake) {
            // Old bytes below the mark wake too when the mark is lowered, so the age of the newest
            // is asked for.
            (State::Suspect, Heartbeat::Bytes | Heartbeat::None, _) => {
                self.want(index, Want::DRAIN);
                self.want(index, Want::INSPECT);
            }
            (_, Heartbeat::Frames, _) => self.want(index, Want::DRAIN),
            (_, Heartbeat::Bytes | Heartbeat::None, Wake::Lazy) => {
                peer.flags.set(Flags::SPOKE);
                peer.life = peer.life.max(now);
                self.want(index, Want::DRAIN);
            }
            (_, Heartbeat::Bytes | Heartbeat::None, Wake::Beat) => {
                let gap = now.since(peer.life);
                let first = !peer.flags.has(Flags::SPOKE);
                peer.flags.set(Flags::SPOKE);
                peer.life = peer.life.max(now);
                if peer.flags.has(Flags::EAGER) {
                    self.want(index, Want::DRAIN);
                    return;
                }
                peer.pace = peer.pace.saturating_add(1);
                let streams = !first && gap < limits::STREAM_GAP;
                if peer.pace >= u16::from(drain_every) || streams {
                    peer.pace = 0;
                    peer.flags.clear(Flags::DRAIN_DUE);
                    self.want(index, Want::DRAIN);
                }
            }
        }
    }

    fn on_taken(&mut self, index: u32, bytes: u32, now: Instant) {
        let (wake, drain_every) = (self.config.wake, u32::from(self.config.drain_every));
        let unread = self.config.unread;
        let peer = self.at(index);
        peer.taken += u64::from(bytes);
        if wake == Wake::Lazy {
            let steps = pace::steps_since(peer.pace, now);
            peer.pace = pace::stamp(now);
            // As many bytes in as much time again; nothing of them is there yet.
            if let Some(rest) = pace::steps_to_full(u64::from(bytes), steps, unread) {
                self.foresee(index, pace::point(now, rest));
            }
            return;
        }
        if bytes > CALM_BYTES * drain_every {
            peer.flags.set(Flags::EAGER);
            peer.pace = 0;
        } else if peer.flags.has(Flags::EAGER) {
            peer.pace = if bytes <= CALM_BYTES { peer.pace + 1 } else { 0 };
            if peer.pace >= CALM_DRAINS {
                peer.flags.clear(Flags::EAGER);
                peer.pace = 0;
                let due = peer.due().min(pace::round_up(now + limits::MAX_UNDRAINED));
                if peer.state == State::Alive && !peer.flags.has(Flags::VISITING) {
                    self.appoint(index, due);
                }
            }
        }
    }

    /// A complete frame. While a visit's drain is under way it may have waited in the socket: its
    /// age is judged by the evidence that follows. Otherwise it has just woken us.
    fn on_frame(&mut self, index: u32, now: Instant) {
        let peer = self.at(index);
        peer.flags.set(Flags::FRAMED);
        let first = peer.flags.raise(Flags::SPOKE);
        let visiting = peer.flags.has(Flags::VISITING);
        if visiting {
            return;
        }
        peer.life = peer.life.max(now);
        match peer.state {
            // What it says comes through; whether what we say does, the socket knows.
            State::Suspect if peer.flags.has(Flags::DOUBT) => self.want(index, Want::INSPECT),
            State::Suspect => self.recover(index, now),
            State::Alive if first => self.widen(index),
            State::Alive | State::HalfClosed | State::Dead => {}
        }
    }

    /// The socket was looked at; `soft`: because it told an error that it survives.
    fn on_inspected(&mut self, index: u32, evidence: &Evidence, soft: bool, now: Instant) {
        let Policy { heartbeat, .. } = self.config.policy;
        let (wake, unread_mark) = (self.config.wake, self.config.unread);
        let peer = self.at(index);
        let visited = peer.flags.has(Flags::VISITING);
        peer.flags.clear(Flags::VISITING);

        if peer.state == State::HalfClosed {
            // Its last transition was the half-close; its microsecond was rounded down.
            let since = peer.last_transition().at() + Duration::from_micros(1);
            let end = self.stalls.put_off(since, self.config.policy.half_closed_grace);
            if evidence.tcp_state == TcpState::Close {
                self.die(index, Ending::of(cut_cause(evidence)), evidence, now);
            } else if now >= end {
                self.die(index, Ending::of(Cause::Closed), evidence, now);
            } else {
                self.appoint(index, end);
            }
            return;
        }
        if peer.flags.has(Flags::FIN) {
            // The sink had no room for its half-close. No silence of it is held against it.
            if evidence.tcp_state == TcpState::Close {
                self.die(index, Ending::of(cut_cause(evidence)), evidence, now);
            } else {
                self.half_close(index, now);
            }
            return;
        }
        if matches!(
            evidence.tcp_state,
            TcpState::Close | TcpState::CloseWait | TcpState::LastAck | TcpState::Closing
        ) {
            // Its end is there and its completion on the way: first what it said before.
            if peer.flags.raise(Flags::ENDING) || visited {
                self.want(index, Want::DRAIN_TO_END);
            }
            self.appoint(index, now + AGAIN);
            return;
        }

        let heard = evidence.received > 0;
        match heartbeat {
            Heartbeat::Bytes if heard => {
                peer.flags.set(Flags::SPOKE);
                peer.life = evidence.last_data.min(now);
            }
            Heartbeat::None => peer.life = evidence.last_data.max(evidence.last_ack).min(now),
            Heartbeat::Frames if peer.flags.has(Flags::SPOKE) => {
                if peer.flags.has(Flags::FRAMED) && visited {
                    peer.life = peer.life.max(evidence.last_data.min(now));
                }
                // No frame is newer than the newest byte: those that waited for a late wake, or were
                // found when something else woke us, were taken for new until here.
                peer.life = peer.life.min(evidence.last_data);
            }
            Heartbeat::Bytes | Heartbeat::Frames => {}
        }
        peer.flags.clear(Flags::FRAMED);
        if soft || evidence.unacked > 0 && evidence.backoff >= DOUBTFUL_BACKOFF {
            peer.flags.set(Flags::DOUBT);
        } else {
            peer.flags.clear(Flags::DOUBT);
        }

        // Frames that came after the drain began lie there unseen: a deadline that has passed since then
        // is judged by another drain.
        let looked = match heartbeat {
            Heartbeat::Bytes | Heartbeat::None => now,
            Heartbeat::Frames if visited => peer.due(),
            Heartbeat::Frames => peer.life,
        };

        // In lazy mode who is past half of the mark is drained while we are here anyway; in beat mode a
        // window may have filled in one stroke.
        let unread = evidence.received.saturating_sub(peer.taken);
        let bound = match wake {
            Wake::Lazy => u64::from(unread_mark / 2),
            Wake::Beat => u64::from(CALM_BYTES * 16),
        };
        let steps = pace::steps_since(peer.pace, now);
        let drain = heartbeat != Heartbeat::Frames && unread >= bound.max(1);
        // Far more than a heartbeat's lies there, so the window may be full, and then it is we who keep
        // the peer silent. Its bytes are taken off first, and it gets the time to go on. Its kernel
        // answers with a full window too.
        let crowded = drain
            && heartbeat == Heartbeat::Bytes
            && unread >= u64::from(unread_mark.saturating_mul(2).max(CALM_BYTES * 16));
        let life = peer.life;
        if drain {
            self.want(index, Want::DRAIN);
        }
        if crowded && now >= self.stalls.put_off(life, self.config.policy.idle) {
            self.appoint(index, now + AGAIN);
            return;
        }
        self.judge(index, evidence, looked, now);
        if wake == Wake::Lazy
            && !drain
            && let Some(full) = pace::steps_to_full(unread, steps, unread_mark)
            && let Some(rest) = full.checked_sub(u64::from(steps))
        {
            self.foresee(index, pace::point(now, rest));
        }
    }

    /// Makes an appointment for taking bytes off at `point`, unless it is visited before that anyway.
    /// Frames are read when they are judged.
    fn foresee(&mut self, index: u32, point: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        if peer.state == State::Alive
            && heartbeat != Heartbeat::Frames
            && !peer.flags.has(Flags::VISITING)
            && point < peer.due()
        {
            peer.flags.set(Flags::DRAIN_DUE);
            self.appoint(index, point);
        }
    }

    /// When a living peer whose idle time ends at `missed` is visited. On the grid where that is fine
    /// enough, so that one wake serves many: a suspicion may come a little late, a verdict does not.
    fn quiet_until(&self, missed: Instant) -> Instant {
        if self.config.policy.interval >= 4 * pace::GRID { pace::round_up(missed) } else { missed }
    }

    fn on_end(&mut self, index: u32, evidence: &Evidence, now: Instant) {
        let grace = self.config.policy.half_closed_grace;
        // By the state alone: the mask may still show the soft error of an hour ago.
        if evidence.tcp_state == TcpState::Close {
            self.die(index, Ending::of(cut_cause(evidence)), evidence, now);
        } else if evidence.tcp_state == TcpState::Established {
            // No FIN came: our own reading side was shut.
            self.die(index, Ending::of(Cause::Local(LocalCause::Shutdown)), evidence, now);
        } else if grace.is_zero() || evidence.tcp_state != TcpState::CloseWait {
            self.die(index, Ending::of(Cause::Closed), evidence, now);
        } else {
            let peer = self.at(index);
            if peer.flags.raise(Flags::FIN) {
                peer.flags.clear(Flags::VISITING);
                self.half_close(index, now);
            }
        }
    }

    fn on_failed(&mut self, index: u32, errno: i32, evidence: &Evidence, now: Instant) {
        let gone = evidence.tcp_state == TcpState::Close;
        let cause = match errno::meaning(errno) {
            Meaning::Reset | Meaning::TimedOut | Meaning::HostUnreachable | Meaning::NetUnreachable
                if !gone =>
            {
                // A soft error, of an ICMP message say: the connection stands and may recover. A real
                // reset leaves the socket closed.
                self.on_inspected(index, evidence, true, now);
                return;
            }
            _ => cause_of(errno, evidence),
        };
        self.die(index, Ending { errno: Some(errno), ..Ending::of(cause) }, evidence, now);
    }

    // --- time ----------------------------------------------------------------------------------

    fn visit(&mut self, index: u32, now: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        if peer.due() > now {
            let due = peer.due();
            self.wheel.schedule(index, due);
            return;
        }
        if peer.state == State::Alive && self.look_after(index, now) {
            return;
        }
        self.counts.visits += 1;
        let peer = self.at(index);
        if peer.flags.has(Flags::FIN) && peer.state != State::HalfClosed {
            self.half_close(index, now);
            return;
        }
        peer.flags.set(Flags::VISITING);
        // Bytes first where they must be read to be judged; Emptied then asks for the evidence. What
        // comes after the drain has begun is not seen by it, so its beginning is kept.
        if heartbeat == Heartbeat::Frames && peer.state != State::HalfClosed {
            peer.flags.clear(Flags::FRAMED);
            peer.set_due(now);
            self.want(index, Want::DRAIN);
        } else {
            self.want(index, Want::INSPECT);
        }
    }

    /// An appointment with a living peer that is not for judging, but for its bytes. In lazy mode one
    /// that was foreseen; in beat mode one at which bytes are found that lay there at the last one too,
    /// since a window that filled in one stroke gives no second wake. `false` when it is judging's.
    fn look_after(&mut self, index: u32, now: Instant) -> bool {
        let (policy, wake) = (self.config.policy, self.config.wake);
        let peer = self.at(index);
        let foreseen = peer.flags.has(Flags::DRAIN_DUE);
        peer.flags.clear(Flags::DRAIN_DUE);
        if policy.heartbeat == Heartbeat::Frames || peer.is_mute(&policy) || peer.flags.has(Flags::FIN) {
            return false;
        }
        let life = peer.life;
        let missed = self.stalls.put_off(life, policy.idle);
        if now >= missed || (wake == Wake::Lazy && !foreseen) {
            return false;
        }
        let mut due = self.quiet_until(missed);
        let peer = self.at(index);
        match wake {
            Wake::Lazy => self.want(index, Want::DRAIN),
            Wake::Beat => {
                if peer.pace > 0 && !peer.flags.has(Flags::EAGER) {
                    if foreseen {
                        peer.pace = 0;
                        self.want(index, Want::DRAIN);
                    } else {
                        peer.flags.set(Flags::DRAIN_DUE);
                    }
                }
                due = due.min(pace::round_up(now + limits::MAX_UNDRAINED));
            }
        }
        self.appoint(index, due);
        true
    }

    /// Weighs the silence of a peer that is alive or suspect, and makes its next appointment. `looked`
    /// is the instant up to which its life is known: not after `now`.
    fn judge(&mut self, index: u32, evidence: &Evidence, looked: Instant, now: Instant) {
        let policy = self.config.policy;
        let peer = self.at(index);
        debug_assert!(matches!(peer.state, State::Alive | State::Suspect));
        let (life, born, doubt) = (peer.life, peer.born, peer.flags.has(Flags::DOUBT));
        let (state, mute) = (peer.state, peer.is_mute(&policy));
        if mute {
            let deadline = self.stalls.put_off(born, policy.handshake);
            if looked >= deadline {
                let ending = Ending { deadline: Some(deadline), ..Ending::of(Cause::HandshakeExpired) };
                self.die(index, ending, evidence, now);
            } else {
                self.appoint(index, deadline.min(now + policy.idle));
            }
            return;
        }
        let missed = self.stalls.put_off(life, policy.idle);
        let expired = self.stalls.put_off(life, policy.detection_time());
        if looked >= expired {
            let cause = match policy.heartbeat {
                Heartbeat::Bytes | Heartbeat::Frames => Cause::HeartbeatExpired,
                Heartbeat::None => Cause::KeepaliveExpired,
            };
            let ending = Ending { deadline: Some(expired), ..Ending::of(cause) };
            self.die(index, ending, evidence, now);
        } else if looked >= missed || doubt {
            let step = if looked >= missed { Step::Suspected } else { Step::Doubted };
            if state == State::Alive && !self.suspect(index, step, now) {
                self.appoint(index, (now + AGAIN).min(expired));
                return;
            }
            let next = self.probe(index, looked, now);
            self.appoint(index, next.min(expired));
        } else {
            self.rest(index, now);
            if state == State::Suspect {
                self.recover(index, now);
            } else {
                self.widen(index);
            }
        }
    }

    /// Counts the probes that are due by `looked`, sends one where the server speaks, and says when the
    /// next is due. A stall puts probes off like everything else.
    fn probe(&mut self, index: u32, looked: Instant, now: Instant) -> Instant {
        let policy = self.config.policy;
        let (life, sent) = (self.at(index).life, self.at(index).probes);
        let due = |number: u8| self.stalls.put_off(life, policy.idle + policy.interval * u32::from(number));
        let silent = looked >= due(0);
        let mut asked = sent.max(1); // a path in doubt is asked at once
        while silent && u32::from(asked) < policy.probes && looked >= due(asked) {
            asked += 1;
        }
        let next = if silent { due(asked) } else { now + policy.interval };
        self.at(index).probes = asked;
        if asked > sent && policy.heartbeat == Heartbeat::Frames {
            self.want(index, Want::PROBE);
        }
        next
    }

    // --- transitions ---------------------------------------------------------------------------

    /// Alive to Suspect; `false` when the sink has to take something first.
    fn suspect(&mut self, index: u32, step: Step, now: Instant) -> bool {
        let lazy = self.config.wake == Wake::Lazy;
        if !self.step(index, Input::Missed, step, now) {
            return false;
        }
        self.counts.suspected += 1;
        self.counts.suspects += 1;
        let peer = self.at(index);
        peer.probes = 0;
        if lazy && peer.flags.raise(Flags::NARROW) {
            self.want(index, Want::NARROW);
        }
        true
    }

    /// Suspect to Alive, as soon as the sink has room for it.
    fn recover(&mut self, index: u32, now: Instant) {
        if !self.step(index, Input::Life, Step::Recovered, now) {
            self.appoint(index, now + AGAIN);
            return;
        }
        self.counts.recovered += 1;
        self.at(index).probes = 0;
        self.left_suspicion();
        // Whoever dies of the outage leaves it too, and does not end it for the others.
        if self.counts.suspects * 4 < self.counts.living {
            self.outage = false;
        }
        self.widen(index);
        self.rest(index, now);
    }

    /// Leaves a peer that was heard from alone until it could be missed; in beat mode until its bytes
    /// have to be looked after.
    fn rest(&mut self, index: u32, now: Instant) {
        let life = self.at(index).life;
        let missed = self.stalls.put_off(life, self.config.policy.idle);
        let quiet = self.quiet_until(missed);
        let due = match self.config.wake {
            Wake::Lazy => quiet,
            Wake::Beat => quiet.min(pace::round_up(now + limits::MAX_UNDRAINED)),
        };
        self.appoint(index, due);
    }

    /// Lets a peer that is heard from wake by its low-water mark again, where there is one.
    fn widen(&mut self, index: u32) {
        let lazy = self.config.wake == Wake::Lazy;
        let peer = self.at(index);
        if lazy && peer.flags.has(Flags::NARROW) {
            peer.flags.clear(Flags::NARROW);
            self.want(index, Want::WIDE);
        }
    }

    fn half_close(&mut self, index: u32, now: Instant) {
        let was_suspect = self.at(index).state == State::Suspect;
        if self.step(index, Input::Fin, Step::HalfClosed, now) {
            self.counts.half_closed += 1;
            if was_suspect {
                self.left_suspicion();
            }
            let grace = self.config.policy.half_closed_grace;
            self.appoint(index, now + grace);
        } else {
            self.appoint(index, now + AGAIN);
        }
    }

    /// Moves a peer along the table and notes it for the sink; `false` when there is no room.
    fn step(&mut self, index: u32, input: Input, step: Step, now: Instant) -> bool {
        let peer = self.at(index);
        let to = state::next(peer.state, input);
        assert!(to != peer.state && to != State::Dead, "{:?} at {:?}", step, peer.state);
        if !peer.has_room() {
            return false;
        }
        peer.state = to;
        peer.record(now, step);
        self.owe(index);
        true
    }

    fn owe(&mut self, index: u32) {
        if self.at(index).flags.raise(Flags::OWING) {
            self.owing.push(index);
        }
    }

    fn die(&mut self, index: u32, ending: Ending, evidence: &Evidence, now: Instant) {
        let outage = self.outage(ending.cause, evidence, index, now);
        let transport = self.transport(ending.cause, evidence, index, now);
        let heartbeat = self.config.policy.heartbeat;
        let number = self.first_death + self.deaths.len() as u64;
        let peer = self.at(index);
        let was = peer.state;
        assert!(was != State::Dead, "a peer dies once");
        debug_assert_eq!(state::next(was, ending.input()), State::Dead);
        let id = PeerId::new(index, peer.generation());
        // An expiry was judged by the life in the record; any other end may find newer bytes or
        // acknowledgements that nobody was woken for.
        if ending.deadline.is_none() {
            match heartbeat {
                Heartbeat::Bytes if evidence.received > 0 => peer.life = evidence.last_data.min(now),
                Heartbeat::None => peer.life = evidence.last_data.max(evidence.last_ack).min(now),
                Heartbeat::Bytes | Heartbeat::Frames => {}
            }
            peer.life = peer.life.max(peer.born);
        }
        peer.flags.clear(Flags::VISITING);
        peer.die(now, ending.cause, number);
        let death = Death {
            peer: id,
            address: peer.address(),
            local: peer.local,
            cause: ending.cause,
            proof: Proof {
                errno: ending.errno,
                frame: ending.frame,
                bye: ending.bye,
                evidence: *evidence,
                last_life: peer.life,
                transport,
                outage,
            },
            born: peer.born,
            at: now,
            deadline: ending.deadline,
            bytes: evidence.received.max(peer.taken),
            history: peer.history(),
        };
        self.deaths.push_back((death, false));
        self.wheel.cancel(index);
        self.counts.died[usize::from(ending.cause.code())] += 1;
        self.counts.living -= 1;
        match was {
            State::Suspect => self.left_suspicion(),
            State::HalfClosed => self.counts.half_closed -= 1,
            State::Alive | State::Dead => {}
        }
        // Whoever is there answers a FIN; the silent and the babbling get a RST.
        let orderly = matches!(ending.cause, Cause::Closed | Cause::Aborted);
        self.want(index, if orderly { Want::CLOSE } else { Want::ABORT });
        self.owe(index);
    }

    fn left_suspicion(&mut self) {
        self.counts.suspects -= 1;
        if self.counts.suspects == 0 {
            self.outage = false;
        }
    }

    /// What the peer's kernel did while its program was silent.
    fn transport(&mut self, cause: Cause, evidence: &Evidence, index: u32, now: Instant) -> Transport {
        let policy = self.config.policy;
        let asked_after = self.asked_after;
        let frames = policy.heartbeat == Heartbeat::Frames;
        let peer = self.at(index);
        match cause {
            Cause::Closed | Cause::Aborted | Cause::Protocol => Transport::Answering,
            Cause::KeepaliveExpired | Cause::UserTimeout | Cause::Unreachable(_) => Transport::Silent,
            Cause::HeartbeatExpired | Cause::HandshakeExpired => {
                // Nobody asks before the idle time has passed; an acknowledgement soon after the last
                // life belongs to what was sent until then.
                let late = policy.interval.min(policy.idle);
                // Keepalive counts from the last segment, whatever it was.
                let heard = evidence.last_ack.max(evidence.last_data);
                let kernel_asked = evidence.probes > 0
                    || evidence.retransmits > 0
                    || (evidence.unacked == 0 && now.since(heard) >= asked_after);
                if evidence.last_ack.since(peer.life) >= late {
                    Transport::Answering
                } else if kernel_asked || (frames && peer.probes > 0) {
                    Transport::Silent
                } else {
                    Transport::Unasked
                }
            }
            Cause::Local(_) => Transport::Unasked,
        }
    }

    /// Whether this silence is shared by at least half of all peers, and says so once.
    fn outage(&mut self, cause: Cause, evidence: &Evidence, index: u32, now: Instant) -> bool {
        if !matches!(cause, Cause::HeartbeatExpired | Cause::KeepaliveExpired)
            || self.transport(cause, evidence, index, now) != Transport::Silent
        {
            return false;
        }
        let TrackerCounts { suspects, living, .. } = self.counts;
        if !self.outage && suspects >= MIN_OUTAGE && suspects * 2 >= living {
            self.outage = true;
            let kind = EventKind::PathOutage { suspects, peers: living };
            self.notice(Event { at: now, subject: None, kind });
        }
        self.outage
    }

    fn free_if_done(&mut self, index: u32) {
        let peer = &self.peers[index as usize];
        if peer.state == State::Dead && peer.flags.has(Flags::RELEASED) && !peer.flags.has(Flags::OWING) {
            assert!(peer.wants == 0, "released with actions outstanding");
            if peer.flags.has(Flags::ACTING) {
                self.acting.remove(index);
            }
            self.peers.remove(index as usize);
            self.identities.remove(&index);
        }
    }

    fn forget_old_deaths(&mut self) {
        while self.deaths.len() > self.config.remembered {
            match self.deaths.front() {
                Some((_, true)) => {
                    self.deaths.pop_front();
                    self.first_death += 1;
                }
                Some((_, false)) | None => break,
            }
        }
    }

    /// Holds every record against the invariants. O(n), for tests.
    pub fn audit(&self) {
        for (index, peer) in &self.peers {
            let index = index as u32;
            let waiting = self.wheel.is_scheduled(index) || peer.flags.has(Flags::VISITING);
            assert!((peer.state != State::Dead) == waiting, "{index}: {peer:?}");
            assert_eq!(peer.untaken() > 0, peer.flags.has(Flags::OWING), "{index}: {peer:?}");
            assert!(peer.wants == 0 || peer.flags.has(Flags::ACTING), "{index}: {peer:?}");
        }
        let of = |state| self.peers.iter().filter(|(_, peer)| peer.state == state).count() as u32;
        assert_eq!(self.counts.suspects, of(State::Suspect));
        assert_eq!(self.counts.half_closed, of(State::HalfClosed));
        assert_eq!(self.counts.living, of(State::Alive) + self.counts.suspects + self.counts.half_closed);
    }
}

/// How a peer ends: the parts of a death that only the one who judged knows.
struct Ending {
    cause: Cause,
    errno: Option<i32>,
    frame: Option<FrameError>,
    bye: bool,
    deadline: Option<Instant>,
}

impl Ending {
    const fn of(cause: Cause) -> Ending {
        Ending { cause, errno: None, frame: None, bye: false, deadline: None }
    }

    const fn input(&self) -> Input {
        match self.cause {
            Cause::Closed => Input::Ended,
            Cause::HeartbeatExpired | Cause::HandshakeExpired => Input::Expired,
            Cause::KeepaliveExpired if self.deadline.is_some() => Input::Expired,
            Cause::Aborted
            | Cause::KeepaliveExpired
            | Cause::UserTimeout
            | Cause::Unreachable(_)
            | Cause::Protocol
            | Cause::Local(_) => Input::Cut,
        }
    }
}

/// The cause of a socket that is closed although `recv` gave no error: by `SO_ERROR` where that was
/// still there, otherwise a reset whose error somebody else took.
fn cut_cause(evidence: &Evidence) -> Cause {
    match evidence.so_error {
        Some(errno) if errno != 0 => cause_of(errno, evidence),
        _ => Cause::Aborted,
    }
}

fn cause_of(errno: i32, evidence: &Evidence) -> Cause {
    match errno::meaning(errno) {
        Meaning::Reset => Cause::Aborted,
        // Retransmissions mean that something of ours was out: keepalive rests meanwhile.
        Meaning::TimedOut if evidence.retransmits > 0 => Cause::UserTimeout,
        Meaning::TimedOut => Cause::KeepaliveExpired,
        Meaning::HostUnreachable => Cause::Unreachable(Hop::Host),
        Meaning::NetUnreachable => Cause::Unreachable(Hop::Net),
        Meaning::LocalAbort => Cause::Local(LocalCause::Destroyed),
        Meaning::Again | Meaning::Resources | Meaning::Cancelled | Meaning::Fault => {
            Cause::Local(LocalCause::Unwatchable)
        }
    }
}
