//! What knows the truth, and holds every event against it.
//!
//! It computes nothing the way the tracker does: a silence is measured in the time in which the loop
//! was there to listen, and compared with what the policy allows.

use std::collections::HashMap;
use std::time::Duration;

use deadpeer::liveness::{
    Cause, Death, Event, EventKind, Heartbeat, Hop, LocalCause, PeerId, Policy, Step, Tracker, TrackerConfig,
    Transport,
};
use deadpeer::time::{Instant, nanos};

use crate::faults::{Faults, MS};
use crate::world::{Cut, TICK, Truth, World};

/// Transitions are kept to the microsecond, rounded down.
const MICRO: u64 = 1_000;
/// Suspicions come on a grid, where the policy is coarse enough.
const GRID: u64 = 62_500 * MICRO;

/// What a peer gets to go on after its heap was taken off.
const GOING_ON: u64 = 100 * MS;

#[derive(Clone, Debug)]
pub struct Violation {
    pub life: Option<usize>,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
    Suspected,
    HalfClosed,
    Died,
}

/// What was true at the verdict.
struct Snapshot {
    at: u64,
    truth: Truth,
    received: u64,
    last_ack: u64,
}

struct Record {
    peer: PeerId,
    accepted_at: u64,
    told: Told,
    last: u64,
    suspected: Option<u64>,
    verdict: Option<Snapshot>,
}

pub struct Oracle {
    policy: Policy,
    faults: Faults,
    dead_kept: usize,
    records: HashMap<usize, Record>,
    names: HashMap<PeerId, usize>,
    stalls: Vec<(u64, u64)>,
    stuck: Vec<(u64, u64)>,
    told_held: Duration,
    told: [u64; 5],
    died: u64,
    violation: Option<Violation>,
}

impl Oracle {
    pub fn new(config: &TrackerConfig, faults: &Faults) -> Oracle {
        Oracle {
            policy: config.policy,
            faults: faults.clone(),
            dead_kept: config.dead_kept,
            records: HashMap::new(),
            names: HashMap::new(),
            stalls: Vec::new(),
            stuck: Vec::new(),
            told_held: Duration::ZERO,
            told: [0; 5],
            died: 0,
            violation: None,
        }
    }

    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The first violation is the one to look at.
    pub fn report(&mut self, life: Option<usize>, what: String) {
        self.violation.get_or_insert(Violation { life, what });
    }

    // --- what it is told -----------------------------------------------------------------------

    pub fn on_accept(&mut self, peer: PeerId, life: usize, world: &World) {
        let now = world.now;
        let record =
            Record { peer, accepted_at: now, told: Told::Nothing, last: 0, suspected: None, verdict: None };
        self.records.insert(life, record);
        if self.names.insert(peer, life).is_some() {
            self.report(Some(life), format!("{peer:?} was used before"));
        }
    }

    pub fn on_stall(&mut self, start: u64, end: u64) {
        let start = self.stalls.last().map_or(start, |&(_, last)| start.max(last));
        if end > start {
            self.stalls.push((start, end));
        }
    }

    /// The stalls so far.
    pub fn stalls(&self) -> usize {
        self.stalls.len()
    }

    /// How long they were together.
    pub fn stalled(&self) -> Duration {
        Duration::from_nanos(self.stalls.iter().map(|(start, end)| end - start).sum())
    }

    pub fn on_stuck(&mut self, start: u64, end: u64) {
        match self.stuck.last_mut() {
            Some((_, last)) if *last >= start => *last = end.max(*last),
            _ => self.stuck.push((start, end)),
        }
    }

    /// The verdict was given in this turn.
    pub fn on_close(&mut self, life: usize, world: &World) {
        let socket = &world.sockets[life];
        let snapshot = Snapshot {
            at: world.now,
            truth: socket.truth.clone(),
            received: socket.received,
            last_ack: world.last_ack(life),
        };
        match self.records.get_mut(&life) {
            Some(record) if record.verdict.is_none() => record.verdict = Some(snapshot),
            _ => self.report(Some(life), "closed twice, or never accepted".into()),
        }
    }

    pub fn on_event(&mut self, event: &Event, world: &World) {
        let Some(subject) = &event.subject else {
            match event.kind {
                EventKind::Stall { held } => self.told_held += held,
                EventKind::PathOutage { suspects, peers } if suspects * 2 < peers => {
                    self.report(None, format!("an outage of {suspects} among {peers}"));
                }
                _ => {}
            }
            return;
        };
        let Some(&life) = self.names.get(&subject.peer) else {
            return self.report(None, format!("an event of {:?}, which never was", subject.peer));
        };
        let record = &self.records[&life];
        let (told, last) = (record.told, record.last);
        let at = event.at.as_nanos();
        let mut wrong = |what: String| {
            self.violation.get_or_insert(Violation { life: Some(life), what });
        };
        if at + MICRO < last {
            wrong(format!("{:?} at {at}, after an event at {last}", event.kind));
        }
        if at > world.now {
            wrong(format!("{:?} at {at}, which is still to come", event.kind));
        }
        if let EventKind::Duplicate { of, .. } = &event.kind {
            let older = self.names.get(of).filter(|&&older| older != life);
            let lives = matches!(told, Told::Up | Told::Suspected | Told::HalfClosed);
            if !lives || older.is_none() {
                wrong(format!("{:?} after {told:?}", event.kind));
            }
            self.records.get_mut(&life).expect("checked").last = at;
            return;
        }
        let next = match (told, &event.kind) {
            (Told::Nothing, EventKind::Up) => Told::Up,
            (Told::Up, EventKind::Suspected { .. }) => Told::Suspected,
            (Told::Suspected, EventKind::Recovered { .. }) => Told::Up,
            (Told::Up | Told::Suspected, EventKind::HalfClosed) => Told::HalfClosed,
            (Told::Up | Told::Suspected | Told::HalfClosed, EventKind::Died(_)) => Told::Died,
            (told, kind) => {
                wrong(format!("{kind:?} after {told:?}"));
                return;
            }
        };
        let verdict = match &event.kind {
            EventKind::Up => self.check_up(life, at),
            EventKind::Suspected { silent_for, .. } => self.check_suspected(life, at, *silent_for, world),
            EventKind::Recovered { suspected_for } => self.check_recovered(life, at, *suspected_for, world),
            EventKind::HalfClosed => self.check_half_closed(life, at, world),
            EventKind::Died(death) => self.check_death(life, death),
            kind => Err(format!("{kind:?} of a peer")),
        };
        if let Err(what) = verdict {
            self.report(Some(life), what);
        }
        let kind = match &event.kind {
            EventKind::Up => 0,
            EventKind::Suspected { .. } => 1,
            EventKind::Recovered { .. } => 2,
            EventKind::HalfClosed => 3,
            _ => 4,
        };
        self.told[kind] += 1;
        let record = self.records.get_mut(&life).expect("checked");
        record.told = next;
        record.last = at;
        if next == Told::Suspected {
            record.suspected = Some(at);
        }
        if next == Told::Died {
            self.died += 1;
        }
    }

    /// After the last event.
    pub fn on_end(&mut self, tracker: &Tracker, world: &World) {
        if self.violation.is_some() {
            return;
        }
        for (&life, record) in &self.records {
            if record.told != Told::Died {
                let what = format!("{:?} was {:?} at the end", record.peer, record.told);
                self.violation.get_or_insert(Violation { life: Some(life), what });
            }
        }
        let counts = tracker.counts();
        let died: u64 = counts.died.iter().sum();
        let counted = [counts.opened, counts.suspected, counts.recovered, self.told[3], died];
        if counted != self.told {
            self.report(None, format!("{counted:?} were counted, {:?} told", self.told));
        }
        if !tracker.is_empty() || !world.backlog.is_empty() {
            self.report(None, format!("{} places are not free at the end", tracker.len()));
        }
        if (counts.living, counts.suspects, counts.half_closed) != (0, 0, 0) {
            self.report(None, format!("no peer lives, but {counts:?}"));
        }
        if tracker.dead().count() != self.dead_kept.min(died as usize) {
            self.report(None, format!("{} of {died} dead are remembered", tracker.dead().count()));
        }
        if !self.stalls.is_empty() && self.told_held == Duration::ZERO {
            self.report(None, "stalls were not told".into());
        }
    }

    // --- time ----------------------------------------------------------------------------------

    /// The time from `from` to `to` in which the loop was there.
    fn awake(&self, from: u64, to: u64) -> u64 {
        let held = |&(start, end): &(u64, u64)| end.min(to).saturating_sub(start.max(from));
        to.saturating_sub(from) - self.stalls.iter().map(held).sum::<u64>()
    }

    /// The first instant by which the loop has been there for `long` since `from`.
    fn reached(&self, from: u64, long: u64) -> u64 {
        let mut at = from + long;
        for &(start, end) in &self.stalls {
            if end > from && start <= at {
                at += end - start.max(from);
            }
        }
        at
    }

    fn was_stalled(&self, from: u64, to: u64) -> bool {
        self.stalls.iter().any(|&(start, end)| start <= to && end >= from)
    }

    fn was_stuck(&self, from: u64, to: u64) -> bool {
        self.stuck.iter().any(|&(start, end)| start <= to && end + 200 * MS >= from)
    }

    /// How late an end may be noticed. A drain that found nothing although there was something leaves
    /// it to the next visit.
    fn lateness(&self) -> u64 {
        self.portions() + self.faults.lateness()
    }

    /// A receive window of frames is read in portions.
    fn portions(&self) -> u64 {
        if self.policy.heartbeat == Heartbeat::Frames { 16 * self.faults.turn() } else { 0 }
    }

    fn prompt(&self) -> u64 {
        let again = if self.faults.spurious > 0 { nanos(self.policy.detection_time()) + 300 * MS } else { 0 };
        self.faults.prompt() + self.portions() + again
    }

    /// Whether at `at` there had been no life for `long`: since the last, or before one that came back
    /// too late to be looked at.
    fn was_silent(&self, truth: &Truth, accepted_at: u64, at: u64, long: u64) -> bool {
        let last = (truth.life.unwrap_or(accepted_at), u64::MAX);
        let mut gaps = truth.returns.iter().copied().chain([last]);
        gaps.any(|(before, after)| {
            before <= at
                && (after == u64::MAX || at <= self.reached(after, self.lateness()))
                && self.awake(before, after.min(at + MICRO)) >= long
        })
    }

    /// Whether this side kept it silent, for so long that a visit had to see it.
    fn was_blocked(&self, truth: &Truth, at: u64) -> bool {
        truth.blocked.is_some_and(|blocked| self.awake(blocked, at) > self.prompt())
    }

    // --- verdicts ------------------------------------------------------------------------------

    fn check_up(&self, life: usize, at: u64) -> Result<(), String> {
        let accepted_at = self.records[&life].accepted_at;
        if at + MICRO <= accepted_at || at > accepted_at {
            return Err(format!("up at {at}, was accepted at {accepted_at}"));
        }
        Ok(())
    }

    fn check_suspected(
        &self,
        life: usize,
        at: u64,
        silent_for: Duration,
        world: &World,
    ) -> Result<(), String> {
        let record = &self.records[&life];
        let truth = record.verdict.as_ref().map_or(&world.sockets[life].truth, |verdict| &verdict.truth);
        let idle = nanos(self.policy.idle);
        // A recv that found nothing although there was something leaves an error where it is.
        let doubted = truth.doubt.is_some_and(|doubt| {
            self.faults.spurious > 0
                || self.awake(doubt.max(record.accepted_at), at)
                    <= nanos(self.policy.interval) + idle + 2 * self.prompt()
        });
        let silence = self.policy.suspicion_time();
        if !self.was_silent(truth, record.accepted_at, at, nanos(silence)) && !doubted {
            return Err(format!("suspected at {at} without a reason; its last life was at {:?}", truth.life));
        }
        if !doubted && silent_for + Duration::from_micros(1) < silence {
            return Err(format!("suspected after {silent_for:?}"));
        }
        if truth.fin.is_some_and(|fin| self.awake(fin, at) > self.prompt() && !self.was_stuck(fin, at)) {
            return Err(format!("suspected at {at} although its FIN came at {:?}", truth.fin));
        }
        if self.was_blocked(truth, at) && !doubted && record.verdict.is_none() && at + MICRO > world.now {
            return Err("suspected while its window was full of what we had not taken".into());
        }
        Ok(())
    }

    fn check_recovered(
        &self,
        life: usize,
        at: u64,
        suspected_for: Duration,
        world: &World,
    ) -> Result<(), String> {
        let record = &self.records[&life];
        let suspected = record.suspected.expect("the order was checked");
        if at - suspected.min(at) != nanos(suspected_for) {
            return Err(format!(
                "recovered at {at} after {suspected_for:?}, but was suspected at {suspected}"
            ));
        }
        let truth = &world.sockets[life].truth;
        let fresh = record.verdict.is_none() && at + MICRO > world.now;
        let last = truth.life.unwrap_or(record.accepted_at).max(record.accepted_at);
        if fresh && truth.doubt.is_none() && self.awake(last, at) > nanos(self.policy.idle) + self.lateness()
        {
            return Err(format!("recovered at {at}; its last life was at {last}"));
        }
        self.check_return(record, truth, suspected, at)
    }

    /// No peer that came back stays a suspect for longer than it takes to see it; unless that takes so
    /// long that it is silent for its idle time again.
    fn check_return(&self, record: &Record, truth: &Truth, suspected: u64, at: u64) -> Result<(), String> {
        let back = truth.returns.iter().find(|&&(before, after)| before <= suspected && after > suspected);
        if let Some(&(_, back)) = back
            && self.policy.heartbeat != Heartbeat::None
            && self.prompt() < nanos(self.policy.idle)
            && truth.doubt.is_none()
            && !self.was_stalled(suspected, at)
            && !self.was_stuck(suspected, at)
            && self.awake(back, at) > self.prompt() + TICK
        {
            return Err(format!(
                "{:?} was suspected at {suspected}, spoke at {back}, and was a suspect until {at}",
                record.peer
            ));
        }
        Ok(())
    }

    fn check_half_closed(&self, life: usize, at: u64, world: &World) -> Result<(), String> {
        let Some(fin) = world.sockets[life].truth.fin.filter(|&fin| fin <= at) else {
            return Err("half-closed without a FIN".into());
        };
        if self.policy.half_closed_grace.is_zero() {
            return Err("half-closed without a grace".into());
        }
        let seen = fin.max(self.records[&life].accepted_at);
        if self.awake(seen, at) > self.prompt() && !self.was_stuck(seen, at) {
            return Err(format!("half-closed at {at}; its FIN came at {fin}"));
        }
        Ok(())
    }

    fn check_death(&self, life: usize, death: &Death) -> Result<(), String> {
        let record = &self.records[&life];
        let Some(verdict) = &record.verdict else {
            return Err("a death without a close".into());
        };
        let (truth, at) = (&verdict.truth, death.at.as_nanos());
        if at != verdict.at {
            return Err(format!("died at {at}, was closed at {}", verdict.at));
        }
        if death.bytes != verdict.received {
            return Err(format!("{} bytes are told, {} came", death.bytes, verdict.received));
        }
        let line = death.history.iter().flatten().last().map(|line| line.step());
        if line != Some(Step::Died(death.cause)) {
            return Err(format!("its history ends with {line:?}"));
        }
        self.check_too_late(record, verdict, at)?;
        if let Some(suspected) = record.suspected.filter(|_| record.told == Told::Suspected) {
            self.check_return(record, truth, suspected, at)?;
        }
        if death.deadline.is_some() {
            self.check_expiry(record, verdict, death)
        } else {
            self.check_end(record, truth, death)
        }
    }

    /// Whoever is silent and not half-closed is dead by its deadline, whatever comes later.
    fn check_too_late(&self, record: &Record, verdict: &Snapshot, at: u64) -> Result<(), String> {
        let truth = &verdict.truth;
        let detection = nanos(self.policy.detection_time());
        // Who waited for the accept for long may be overdue by then, and gets one idle time.
        let first = self.reached(record.accepted_at, nanos(self.policy.idle) + GRID + self.prompt());
        let deadline = match truth.life {
            // How long frames waited for the accept cannot be told.
            Some(_)
                if self.policy.heartbeat == Heartbeat::Frames && truth.life < Some(record.accepted_at) =>
            {
                self.reached(record.accepted_at, detection + self.lateness())
            }
            // How much of a beat came after the last one cannot be told from the times.
            Some(life) => self.reached(life.max(truth.trailing.unwrap_or(0)), detection).max(first),
            None => self.reached(record.accepted_at, nanos(self.policy.handshake)),
        };
        let latest = self.reached(deadline, self.lateness());
        let ended = truth.fin.into_iter().chain(truth.cut.map(|cut| cut.at));
        let ended = ended.chain(truth.said.map(|(at, ..)| at)).min();
        if at > latest && ended.is_none_or(|ended| ended > latest) {
            return Err(format!("died at {at}; its deadline was {deadline}"));
        }
        Ok(())
    }

    fn check_expiry(&self, record: &Record, verdict: &Snapshot, death: &Death) -> Result<(), String> {
        let (truth, at) = (&verdict.truth, death.at.as_nanos());
        let deadline = death.deadline.expect("checked");
        if death.at < deadline {
            return Err(format!("died at {at}, before its deadline {deadline:?}"));
        }
        let (long, fits) = match (death.cause, self.policy.heartbeat) {
            (Cause::HandshakeExpired, Heartbeat::Bytes | Heartbeat::Frames) => (self.policy.handshake, true),
            (Cause::HeartbeatExpired, Heartbeat::Bytes | Heartbeat::Frames)
            | (Cause::KeepaliveExpired, Heartbeat::None) => (self.policy.detection_time(), true),
            _ => (Duration::ZERO, false),
        };
        let mute = truth.life.is_none() || truth.returns.iter().any(|&(before, _)| before == truth.connected);
        if !fits || (death.cause == Cause::HandshakeExpired && !mute) {
            return Err(format!("{} of one that last lived at {:?}", death.cause, truth.life));
        }
        let silent = if death.cause == Cause::HandshakeExpired && truth.life.is_none() {
            self.awake(record.accepted_at, at) >= nanos(long)
        } else {
            self.was_silent(truth, record.accepted_at, at, nanos(long))
        };
        if !silent {
            return Err(format!(
                "{} at {at} is early: its last life was at {:?}, accepted at {}",
                death.cause, truth.life, record.accepted_at
            ));
        }
        let ended = truth.fin.into_iter().chain(truth.cut.map(|cut| cut.at)).min();
        if let Some(ended) = ended.map(|ended| ended.max(record.accepted_at))
            && self.awake(ended, at) > self.prompt()
        {
            return Err(format!("{} at {at}, but it ended at {ended}", death.cause));
        }
        if self.was_blocked(truth, at) {
            return Err("killed while its window was full of what we had not taken".into());
        }
        self.check_suspicion(record, truth, death)?;
        self.check_transport(record, verdict, death)
    }

    /// A silence is told before it is a death, unless the loop or the sink had other troubles.
    fn check_suspicion(&self, record: &Record, truth: &Truth, death: &Death) -> Result<(), String> {
        let at = death.at.as_nanos();
        let (idle, interval) = (nanos(self.policy.idle), nanos(self.policy.interval));
        let Some(life) = truth.life.filter(|&life| life > record.accepted_at) else { return Ok(()) };
        let silence = self.policy.suspicion_time();
        if death.cause == Cause::HandshakeExpired
            || silence >= self.policy.detection_time() // the only probe is the last
            || life > death.proof.last_life.as_nanos() + TICK
        {
            return Ok(());
        }
        let late = self.lateness() + if truth.trailing.is_some() { idle } else { 0 };
        let late = late + if truth.heaped { GOING_ON + self.prompt() } else { 0 };
        if self.was_stalled(life, at) || self.was_stuck(life, at) || late >= interval {
            return Ok(());
        }
        let early = truth.doubt.is_some();
        match record.suspected {
            Some(suspected) if record.told == Told::Suspected => {
                if suspected > life + nanos(silence) + late + GRID || (suspected < life && !early) {
                    return Err(format!("its last life was at {life}, it was suspected at {suspected}"));
                }
                Ok(())
            }
            _ => Err(format!("{} without a suspicion", death.cause)),
        }
    }

    fn check_transport(&self, record: &Record, verdict: &Snapshot, death: &Death) -> Result<(), String> {
        let trailing = verdict.truth.trailing.unwrap_or(0);
        let base = verdict.truth.life.unwrap_or(record.accepted_at).max(record.accepted_at).max(trailing);
        if base > death.proof.last_life.as_nanos() + TICK {
            return Ok(()); // what it said last came too late to be looked at
        }
        let (idle, interval) = (nanos(self.policy.idle), nanos(self.policy.interval));
        let told = death.proof.transport;
        let says = |right: bool, truth: &str| {
            if right {
                return Ok(());
            }
            Err(format!("its transport is called {told:?}, but {truth}: {death:?}"))
        };
        if death.cause == Cause::KeepaliveExpired {
            return says(told == Transport::Silent, "nothing came");
        }
        let answered = verdict.last_ack.saturating_sub(base);
        let asked = verdict.truth.asked.filter(|&asked| asked > verdict.last_ack);
        if answered > idle.min(interval) + self.lateness() + TICK {
            says(told == Transport::Answering, "its kernel answered")
        } else if answered > TICK
            || verdict.truth.trailing.is_some()
            || verdict.truth.doubt.is_some()
            || self.faults.unsent > 0
        {
            Ok(())
        } else if asked.is_some_and(|asked| asked + 600 * MS < verdict.at) {
            says(told == Transport::Silent, "its kernel was asked and did not answer")
        } else if asked.is_none() {
            says(told == Transport::Unasked, "its kernel was not asked")
        } else {
            says(told != Transport::Answering, "its kernel did not answer")
        }
    }

    fn check_end(&self, record: &Record, truth: &Truth, death: &Death) -> Result<(), String> {
        let at = death.at.as_nanos();
        let grace = nanos(self.policy.half_closed_grace);
        let timeout = |cause| matches!(cause, Cause::KeepaliveExpired | Cause::UserTimeout);
        let since = match (death.cause, truth.fin, truth.cut, truth.said) {
            (cause, _, _, Some((said, right, error))) if cause == right => {
                let closed = cause == Cause::Closed;
                if death.proof.bye != closed && truth.fin.is_none() || death.proof.frame != error {
                    return Err(format!("the proof of {cause} is {:?}", death.proof));
                }
                // It may lie below the mark until the next visit.
                Some(self.reached(said, nanos(self.policy.idle)) + GRID)
            }
            (Cause::Closed, Some(fin), cut, _) => {
                if record.told == Told::HalfClosed {
                    if self.awake(fin, at) < grace {
                        return Err(format!("closed at {at}, within the grace; its FIN came at {fin}"));
                    }
                    if let Some(Cut { at: cut, .. }) = cut
                        && self.awake(cut, at) > self.prompt()
                    {
                        return Err(format!("closed at {at}, but a RST came at {cut}"));
                    }
                    let told = record.last.max(fin);
                    Some(self.reached(told, grace) + TICK)
                } else {
                    Some(fin)
                }
            }
            (Cause::Aborted, Some(_), Some(cut), _) => Some(cut.at),
            (cause, _, Some(cut), _) if cause == cut.cause => Some(cut.at),
            // The cut came between a soft error and the look at the socket.
            (Cause::Unreachable(Hop::Host), _, Some(cut), _) if truth.doubt.is_some() => Some(cut.at),
            (cause, _, Some(cut), _) if timeout(cause) && timeout(cut.cause) => Some(cut.at),
            (Cause::Local(LocalCause::Unwatchable), ..) => None,
            _ => None,
        };
        let Some(since) = since else {
            return Err(format!(
                "{} at {at}, but the truth is: FIN {:?}, cut {:?}, said {:?}, last life {:?}; {:?}",
                death.cause, truth.fin, truth.cut, truth.said, truth.life, death.proof
            ));
        };
        if since > at + TICK && record.told != Told::HalfClosed && truth.said.is_none() {
            return Err(format!("{} at {at}, which was so only at {since}", death.cause));
        }
        let since = since.max(record.accepted_at);
        if self.awake(since, at) > self.prompt() && !self.was_stuck(since.saturating_sub(grace), at) {
            return Err(format!("{} at {at}, which was so at {since} already", death.cause));
        }
        let early = Instant::from_nanos(truth.life.unwrap_or(0).min(at));
        if matches!(self.policy.heartbeat, Heartbeat::Bytes) && death.proof.last_life < early {
            return Err(format!("last life at {:?}, it was at {early:?}", death.proof.last_life));
        }
        Ok(())
    }
}
