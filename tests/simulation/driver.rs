//! A driver on virtual time: reaps, decodes, feeds, lets the time be judged, performs.
//!
//! It is written after the contract in `liveness`, and has the bugs that a driver could have, each to
//! be switched on by itself.

use deadpeer::frame::{Decoded, Decoder};
use deadpeer::limits;
use deadpeer::liveness::decode::{self, Received};
use deadpeer::liveness::{
    Action, Event, Evidence, Fact, Heartbeat, PeerId, PollMask, State, TcpState, Tracker, TrackerConfig, Wake,
};
use deadpeer::time::Instant;
use fastrand::Rng;

use crate::faults::{Faults, MS};
use crate::oracle::Oracle;
use crate::world::{Completion, Done, SECOND, TICK, World};

/// A bug to be planted in the driver. The oracle has to find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A drain is called done when it is asked for, so that its peer is judged before its bytes.
    JudgeBeforeDrain,
    /// A completion for a former life is taken for the place's new life.
    IgnoredGeneration,
    /// Ages are counted to the beginning of a kernel tick.
    EarlyEvidence,
    /// A completion goes missing.
    LostCompletion,
    /// A recv that gives 0 is taken for one that found nothing.
    IgnoredFin,
    /// One recv is all that is made at the end, so that what stands behind the last bytes is not seen.
    ReadOnceAtTheEnd,
    /// A place is given back twice.
    DoubleRelease,
    /// A place is not given back.
    LeakedPlace,
    /// An event is dropped when the sink is stuck.
    DroppedEvent,
    /// An event is given to the sink twice.
    RepeatedEvent,
    /// No buffer for a recv is called the peer's end.
    DeathByStarvation,
    /// A stall of the loop is not told.
    UntoldStall,
    /// The low-water mark of a suspect stays wide.
    IgnoredMark,
    /// A watch that ended is not armed again.
    ForgottenWatch,
    /// The loop sleeps longer than the tracker asked for.
    Oversleeping,
    /// Judges while the completion queue is overflown, on evidence from before.
    JudgeInOverflow,
}

impl Bug {
    pub const ALL: [Bug; 16] = [
        Bug::JudgeBeforeDrain,
        Bug::IgnoredGeneration,
        Bug::EarlyEvidence,
        Bug::LostCompletion,
        Bug::IgnoredFin,
        Bug::ReadOnceAtTheEnd,
        Bug::DoubleRelease,
        Bug::LeakedPlace,
        Bug::DroppedEvent,
        Bug::RepeatedEvent,
        Bug::DeathByStarvation,
        Bug::UntoldStall,
        Bug::IgnoredMark,
        Bug::ForgottenWatch,
        Bug::Oversleeping,
        Bug::JudgeInOverflow,
    ];
}

struct Conn {
    peer: PeerId,
    life: usize,
    mask: PollMask,
    watched: bool,
    receiving: bool,
    again: bool,
    to_end: bool,
    /// Recv gave 0: from then on it tells no error.
    ended: bool,
    closing: bool,
    decoder: Decoder,
    /// What the socket looked like the last time, for a bug.
    seen: Option<Evidence>,
}

pub struct Driver {
    pub tracker: Tracker,
    config: TrackerConfig,
    faults: Faults,
    rng: Rng,
    bug: Option<Bug>,
    conns: Vec<Option<Conn>>,
    former: Vec<PeerId>,
    starved: Vec<PeerId>,
    starved_until: u64,
    overflown_until: u64,
    stuck_until: u64,
    pub turns: u64,
    draining: bool,
}

impl Driver {
    pub fn new(config: TrackerConfig, faults: Faults, rng: Rng, bug: Option<Bug>, now: u64) -> Driver {
        Driver {
            tracker: Tracker::new(config, Instant::from_nanos(now)),
            config,
            faults,
            rng,
            bug,
            conns: Vec::new(),
            former: Vec::new(),
            starved: Vec::new(),
            starved_until: 0,
            overflown_until: 0,
            stuck_until: 0,
            turns: 0,
            draining: false,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// One turn: waits, and works off what came.
    pub fn turn(&mut self, world: &mut World, oracle: &mut Oracle) {
        self.turns += 1;
        self.wait(world, oracle);
        let now = Instant::from_nanos(world.now);
        if world.now >= self.overflown_until && self.rng.u32(..10_000) < self.faults.overflow.0 {
            self.overflown_until = world.now + self.rng.u64(1..=self.faults.overflow.1);
            let until = self.overflown_until;
            world.note_all(|| format!("-- overflown until {until}"));
        }
        let overflown = world.now < self.overflown_until;
        if !overflown {
            while let Some(completion) = world.queue.pop_front() {
                self.complete(completion, world, now);
                if self.rng.u8(..8) == 0 {
                    self.perform(world, oracle, now);
                }
            }
            self.perform(world, oracle, now);
        }
        if !overflown || self.has(Bug::JudgeInOverflow) {
            self.tracker.handle_time(now);
            self.perform(world, oracle, now);
        }
        self.retry(world);
        self.accept(world, oracle, now);
        if self.rng.u32(..1_000) < self.faults.stale {
            self.disturb(now);
            self.perform(world, oracle, now);
        }
        self.hand_over(world, oracle);
        if self.turns.is_multiple_of(16) {
            self.tracker.audit();
            self.check_appointments(world, oracle);
        }
        // What a turn costs.
        let busy = self.rng.u64(..MS / 20);
        world.advance(world.now + busy, false);
    }

    // --- waiting -------------------------------------------------------------------------------

    fn wake_at(&self, world: &World) -> u64 {
        let mut until = world.now + SECOND;
        if let Some(due) = self.tracker.next_due() {
            until = until.min(due.as_nanos());
        }
        if !self.starved.is_empty() {
            until = until.min(self.starved_until);
        }
        if world.now < self.overflown_until {
            // Its completions wake no loop; the flush does.
            until = self.overflown_until;
        }
        if world.now < self.stuck_until {
            until = until.min(self.stuck_until);
        }
        until.max(world.now)
    }

    fn wait(&mut self, world: &mut World, oracle: &mut Oracle) {
        let mut until = self.wake_at(world);
        if self.has(Bug::Oversleeping) {
            until += 30 * MS;
        }
        let woken = !world.queue.is_empty() && world.now >= self.overflown_until;
        if !woken {
            world.advance(until, world.now >= self.overflown_until);
        }
        let hiccup = self.rng.u64(..=self.faults.hiccup);
        world.advance(world.now + hiccup, false);
        if self.rng.u32(..10_000) < self.faults.stall.0 && oracle.stalls() < limits::MAX_STALLS {
            let start = world.now;
            let held = self.rng.u64(500 * MS..=self.faults.stall.1.max(501 * MS));
            world.advance(start + held, false);
            oracle.on_stall(start, world.now);
            world.note_all(|| format!("-- held up since {start}"));
            if !self.has(Bug::UntoldStall) {
                self.tracker.handle_stall(Instant::from_nanos(start), Instant::from_nanos(world.now));
            }
        }
        if self.rng.u32(..10_000) < self.faults.suspend && oracle.stalls() < limits::MAX_STALLS {
            let held = self.rng.u64(SECOND..60 * SECOND);
            let grace = held.min(self.config.policy.detection_time().as_nanos() as u64);
            // They retransmit what they sent meanwhile, the most patient nearly as late again.
            world.interrupt_all(grace * 9 / 10);
            oracle.on_stall(world.now, world.now + grace);
            let held = std::time::Duration::from_nanos(held);
            world.note_all(|| format!("-- suspended for {held:?}, grace {grace}"));
            self.tracker.handle_suspend(Instant::from_nanos(world.now), held);
        }
    }

    // --- completions ---------------------------------------------------------------------------

    fn feed(&mut self, peer: PeerId, fact: Fact, now: Instant) {
        self.tracker.handle(peer, fact, now);
    }

    fn complete(&mut self, completion: Completion, world: &mut World, now: Instant) {
        let lose = self.has(Bug::LostCompletion) && self.rng.u8(..50) == 0;
        let Completion { token, done, .. } = completion;
        let index = (token & 0xffff_ffff) as usize;
        let generation = (token >> 32) as u32;
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        if conn.peer.generation() != generation {
            return;
        }
        match done {
            Done::Poll { mask, more } => {
                let mask = PollMask(mask.expect("taken at the latest at the delivery"));
                if !more {
                    conn.watched = false;
                }
                if conn.closing {
                    return self.close_if_quiet(index, world);
                }
                conn.mask = mask;
                let (peer, life) = (conn.peer, conn.life);
                if !more && !self.has(Bug::ForgottenWatch) {
                    self.watch(index, world);
                }
                world.note(life, || format!("poll gives {mask:?}, more: {more}"));
                if !(lose && mask.is_end()) {
                    self.feed(peer, Fact::Ready(mask), now);
                }
            }
            Done::PollEnd => {
                conn.watched = false;
                self.close_if_quiet(index, world);
            }
            Done::Recv { result, bytes } => self.on_recv(index, result, &bytes, world, now),
        }
    }

    fn on_recv(&mut self, index: usize, result: i32, bytes: &[u8], world: &mut World, now: Instant) {
        let full = self.most();
        let conn = self.conns[index].as_mut().expect("checked");
        let (peer, life) = (conn.peer, conn.life);
        conn.receiving = false;
        if conn.closing {
            return self.close_if_quiet(index, world);
        }
        let again = std::mem::take(&mut conn.again);
        let to_end = conn.to_end && self.bug != Some(Bug::ReadOnceAtTheEnd);
        match decode::received(result) {
            Received::Bytes(count) => {
                self.feed(peer, Fact::Taken { bytes: count }, now);
                if self.config.policy.heartbeat == Heartbeat::Frames {
                    self.parse(index, bytes, world, now);
                }
                if again || to_end || count >= full {
                    self.receive(index, world);
                } else {
                    self.emptied(peer, now);
                }
            }
            Received::Nothing | Received::Cancelled => {
                if again {
                    self.receive(index, world);
                } else {
                    conn.to_end = false;
                    self.emptied(peer, now);
                }
            }
            Received::End if self.bug == Some(Bug::IgnoredFin) => self.emptied(peer, now),
            Received::End => {
                conn.ended = true;
                let evidence = self.evidence(index, world);
                self.feed(peer, Fact::End(evidence), now);
            }
            Received::Starved if self.bug == Some(Bug::DeathByStarvation) => {
                let evidence = self.evidence(index, world);
                self.feed(peer, Fact::Failed { errno: -result, evidence }, now);
            }
            Received::Starved => {
                conn.again = true;
                if self.starved.is_empty() {
                    self.starved_until = now.as_nanos() + MS;
                }
                self.starved.push(peer);
            }
            Received::Failed(errno) => {
                let evidence = self.evidence(index, world);
                world.note(life, || format!("{errno} with {evidence:?}"));
                self.conns[index].as_mut().expect("checked").to_end &= again;
                self.feed(peer, Fact::Failed { errno, evidence }, now);
                if again {
                    self.receive(index, world);
                }
            }
        }
    }

    fn emptied(&mut self, peer: PeerId, now: Instant) {
        if !self.has(Bug::JudgeBeforeDrain) {
            self.feed(peer, Fact::Emptied, now);
        }
    }

    fn parse(&mut self, index: usize, mut bytes: &[u8], world: &mut World, now: Instant) {
        loop {
            let conn = self.conns[index].as_mut().expect("checked");
            let peer = conn.peer;
            match conn.decoder.next(&mut bytes) {
                Ok(Some(Decoded::Frame(frame))) if frame.kind == deadpeer::frame::Kind::Bye => {
                    let evidence = self.evidence(index, world);
                    return self.feed(peer, Fact::Bye(evidence), now);
                }
                Ok(Some(Decoded::Frame(frame))) => {
                    self.feed(peer, Fact::Frame { kind: frame.kind, sequence: frame.sequence }, now);
                }
                Ok(Some(Decoded::Hello { identity, .. })) => {
                    self.feed(peer, Fact::Hello(identity), now);
                }
                Ok(None) => return,
                Err(error) => {
                    let evidence = self.evidence(index, world);
                    return self.feed(peer, Fact::Garbage(error, evidence), now);
                }
            }
        }
    }

    fn evidence(&mut self, index: usize, world: &mut World) -> Evidence {
        let conn = self.conns[index].as_mut().expect("checked");
        let takes_error = conn.ended;
        let mut evidence = world.inspect(conn.life, conn.mask, takes_error);
        if self.bug == Some(Bug::EarlyEvidence) {
            evidence.last_data = Instant::from_nanos(evidence.last_data.as_nanos() - TICK);
            evidence.last_ack = Instant::from_nanos(evidence.last_ack.as_nanos() - TICK);
        }
        if self.bug == Some(Bug::JudgeInOverflow) && world.now < self.overflown_until {
            return conn.seen.unwrap_or(evidence);
        }
        conn.seen = Some(evidence);
        evidence
    }

    fn retry(&mut self, world: &mut World) {
        if world.now < self.starved_until {
            return;
        }
        for peer in std::mem::take(&mut self.starved) {
            let index = peer.index() as usize;
            let Some(Some(conn)) = self.conns.get_mut(index) else { continue };
            if conn.peer == peer && !conn.closing && !conn.receiving && std::mem::take(&mut conn.again) {
                self.receive(index, world);
            }
        }
    }

    /// Facts about lives that are over, of every kind.
    fn disturb(&mut self, now: Instant) {
        if self.former.is_empty() {
            return;
        }
        let mut peer = self.former[self.rng.usize(..self.former.len())];
        if self.has(Bug::IgnoredGeneration) {
            let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return };
            peer = conn.peer;
        }
        let evidence = Evidence { tcp_state: TcpState::Close, ..Evidence::default() };
        let fact = match self.rng.u8(..8) {
            0 => Fact::Ready(PollMask(0x2019)),
            1 => Fact::Taken { bytes: 16 },
            2 => Fact::Emptied,
            3 => Fact::End(Evidence { tcp_state: TcpState::CloseWait, ..evidence }),
            4 => Fact::Failed { errno: 104, evidence },
            5 => Fact::Inspected(evidence),
            6 => Fact::Frame { kind: deadpeer::frame::Kind::Pong, sequence: 1 },
            _ => Fact::Bye(evidence),
        };
        self.feed(peer, fact, now);
    }

    // --- actions -------------------------------------------------------------------------------

    fn perform(&mut self, world: &mut World, oracle: &mut Oracle, now: Instant) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Drain { peer, to_end } => {
                    let index = peer.index() as usize;
                    let conn = self.conns[index].as_mut().expect("a peer that wants something is here");
                    assert_eq!(conn.peer, peer);
                    let life = conn.life;
                    conn.to_end |= to_end;
                    world.note(life, || format!("Drain, to_end: {to_end}"));
                    let conn = self.conns[index].as_mut().expect("checked");
                    if conn.receiving {
                        conn.again = true;
                    } else {
                        self.receive(index, world);
                    }
                    if self.has(Bug::JudgeBeforeDrain) {
                        self.feed(peer, Fact::Emptied, now);
                    }
                }
                Action::Inspect(peer) => {
                    let index = peer.index() as usize;
                    assert_eq!(self.conns[index].as_ref().expect("here").peer, peer);
                    let evidence = self.evidence(index, world);
                    let life = self.conns[index].as_ref().expect("here").life;
                    world.note(life, || {
                        format!(
                            "Inspect: {:?}, data {} ms, ack {} ms, {} received, backoff {}",
                            evidence.tcp_state,
                            evidence.last_data_ms,
                            evidence.last_ack_ms,
                            evidence.received,
                            evidence.backoff
                        )
                    });
                    self.feed(peer, Fact::Inspected(evidence), now);
                }
                Action::SetLowWater { peer, bytes } => {
                    let life = self.conns[peer.index() as usize].as_ref().expect("here").life;
                    if !self.has(Bug::IgnoredMark) {
                        world.set_low_water_mark(life, bytes);
                    }
                }
                Action::Probe { peer, .. } => {
                    let life = self.conns[peer.index() as usize].as_ref().expect("here").life;
                    world.ping(life);
                }
                Action::Close { peer, .. } => {
                    let index = peer.index() as usize;
                    let conn = self.conns[index].as_mut().expect("here");
                    assert!(conn.peer == peer && !conn.closing, "{peer:?} is closed once");
                    conn.closing = true;
                    let (life, watched) = (conn.life, conn.watched);
                    oracle.on_close(life, world);
                    if watched {
                        world.unwatch(life);
                    }
                    self.close_if_quiet(index, world);
                }
                other => panic!("{other:?} is not known to the simulation"),
            }
        }
    }

    fn most(&self) -> u32 {
        match self.config.policy.heartbeat {
            Heartbeat::Frames => limits::FRAME_BUFFER_BYTES,
            Heartbeat::Bytes | Heartbeat::None => limits::MAX_DISCARD,
        }
    }

    fn token(peer: PeerId) -> u64 {
        peer.as_u64()
    }

    fn receive(&mut self, index: usize, world: &mut World) {
        let most = self.most();
        let conn = self.conns[index].as_mut().expect("checked");
        if conn.closing {
            return;
        }
        assert!(!conn.receiving, "one recv at a time");
        conn.receiving = true;
        world.receive(conn.life, Driver::token(conn.peer), most);
    }

    fn watch(&mut self, index: usize, world: &mut World) {
        let conn = self.conns[index].as_mut().expect("checked");
        conn.watched = true;
        world.watch(conn.life, Driver::token(conn.peer));
    }

    fn close_if_quiet(&mut self, index: usize, world: &mut World) {
        let conn = self.conns[index].as_ref().expect("checked");
        if conn.watched || conn.receiving {
            return;
        }
        let (peer, life) = (conn.peer, conn.life);
        world.close(life);
        self.conns[index] = None;
        self.former.push(peer);
        if self.former.len() > 64 {
            self.former.remove(0);
        }
        if self.has(Bug::LeakedPlace) && self.rng.u8(..20) == 0 {
            return;
        }
        self.tracker.release(peer);
        if self.has(Bug::DoubleRelease) && self.rng.u8(..20) == 0 {
            self.tracker.release(peer);
        }
    }

    // --- connections and events ----------------------------------------------------------------

    fn accept(&mut self, world: &mut World, oracle: &mut Oracle, now: Instant) {
        while let Some(&life) = world.backlog.front() {
            let address = ([10, 0, (life >> 8) as u8, life as u8], 7_400).into();
            let Some(peer) = self.tracker.accept(address, 0, now) else {
                assert!(self.tracker.is_full(), "refused with room");
                return;
            };
            world.backlog.pop_front();
            world.note(life, || format!("is {peer:?}"));
            oracle.on_accept(peer, life, world);
            let index = peer.index() as usize;
            if self.conns.len() <= index {
                self.conns.resize_with(index + 1, || None);
            }
            assert!(self.conns[index].is_none(), "a place that is in use");
            self.conns[index] = Some(Conn {
                peer,
                life,
                mask: PollMask(0),
                watched: false,
                receiving: false,
                again: false,
                to_end: false,
                ended: false,
                closing: false,
                decoder: Decoder::new(),
                seen: None,
            });
            world.set_low_water_mark(life, self.config.first_low_water());
            self.watch(index, world);
        }
    }

    fn hand_over(&mut self, world: &mut World, oracle: &mut Oracle) {
        if self.rng.u32(..1_000) < self.faults.stuck.0 && world.now >= self.stuck_until && !self.draining {
            self.stuck_until = world.now + self.rng.u64(..=self.faults.stuck.1);
            oracle.on_stuck(world.now, self.stuck_until);
            let until = self.stuck_until;
            world.note_all(|| format!("-- the sink is stuck until {until}"));
        }
        if world.now < self.stuck_until {
            if self.has(Bug::DroppedEvent) {
                let _lost: Option<Event> = self.tracker.poll_event();
            }
            return;
        }
        // Sometimes the sink has room for some only.
        let mut room = if self.faults.stuck.0 > 0 { self.rng.usize(1..64) } else { usize::MAX };
        while room > 0 {
            let Some(event) = self.tracker.poll_event() else { break };
            if self.has(Bug::RepeatedEvent) && self.rng.u8(..20) == 0 {
                oracle.on_event(&event, world);
            }
            oracle.on_event(&event, world);
            room -= 1;
        }
        if room == 0 {
            oracle.on_stuck(world.now, world.now + MS);
        }
    }

    /// A living peer that nothing is under way for has an appointment before it could be overdue, and
    /// one that spoke and is well does not wake us at every beat.
    fn check_appointments(&mut self, world: &World, oracle: &mut Oracle) {
        let due = self.tracker.next_due();
        for view in self.tracker.peers() {
            let Some(Some(conn)) = self.conns.get(view.peer.index() as usize) else { continue };
            if view.state == State::Dead || conn.receiving || conn.again || conn.ended {
                continue;
            }
            let latest =
                view.last_life + self.config.policy.detection_time().max(self.config.policy.handshake);
            let latest =
                latest.max(Instant::from_nanos(world.now)) + oracle.stalled() + deadpeer::wheel::TICK;
            if matches!(view.state, State::Alive | State::Suspect) && due.is_none_or(|due| due > latest) {
                oracle.report(Some(conn.life), format!("next due at {due:?}, which is after {latest:?}"));
            }
            // A quiet peer is asked before it is suspected, and its answer should wake.
            let asked = self.config.policy.heartbeat == Heartbeat::Frames
                && view.last_life + self.config.policy.idle <= Instant::from_nanos(world.now);
            let lazy = self.config.wake == Wake::Lazy && view.state == State::Alive && !asked;
            if lazy
                && view.last_life > view.accepted_at
                && world.low_water_mark(conn.life) < self.config.unread
            {
                oracle.report(Some(conn.life), "alive and well, but wakes us by every byte".into());
            }
        }
    }

    /// Waits until all is over and taken.
    pub fn finish(&mut self, world: &mut World, oracle: &mut Oracle) {
        self.draining = true;
        self.faults.stuck.0 = 0;
        let end = world.now + 3_600 * SECOND;
        while world.now < end && !(self.tracker.is_empty() && world.backlog.is_empty()) {
            self.turn(world, oracle);
            if oracle.violation().is_some() {
                return;
            }
        }
        self.hand_over(world, oracle);
    }
}
