//! The judgement of connections that other code reads and writes.
//!
//! # Intuition
//!
//! A [`Tracker`](super::Tracker) reads the bytes, so it knows what came before an end. Here the bytes and the socket's error
//! belong to the program and stay where they are. What remains is enough: a poll shows that something has ended, and
//! `TCP_INFO` shows what, and how long ago the peer was last heard.
//!
//! # Model
//!
//! [`Watches`] holds one record for each connection and one appointment in a [wheel](crate::wheel), at the first instant
//! at which its silence could have lasted the detection time. [`Watches::look`] gets what the socket showed, when its poll
//! woke or its appointment came, and returns what has changed:
//!
//! | the socket | verdict |
//! |---|---|
//! | established | [`Here`](Verdict::Here), unless it was silent for the detection time |
//! | the peer's FIN has come | [`HalfClosed`](Verdict::HalfClosed) for the policy's grace, then `Gone(Closed)` |
//! | closed | `Gone`, by the [cause](Watches::look) that can be inferred |
//!
//! # Contract
//!
//! - No descriptor, no clock, no lock: `now` is an argument.
//! - A verdict moves from `Here` over `HalfClosed` to `Gone` and never back; `Gone` is returned once.
//! - An expiry is never early; stalls of the watcher put it off.
//!
//! # Example
//!
//! ```
//! use deadpeer::liveness::watch::{Look, Verdict, Watches};
//! use deadpeer::liveness::{Cause, Evidence, Policy, TcpState};
//! use deadpeer::time::Instant;
//!
//! let start = Instant::from_nanos(1);
//! let mut watches = Watches::new(10, start);
//! let healthy = Look { evidence: Evidence::default(), acknowledged_beyond_data: 0, unread: 0 };
//! let id = watches.add(Policy::STRICT, &healthy, start).unwrap();
//!
//! let closed = Evidence { tcp_state: TcpState::CloseWait, ..Evidence::default() };
//! let change = watches.look(id, &Look { evidence: closed, ..healthy }, start).unwrap();
//! assert_eq!(change.verdict, Verdict::Gone(Cause::Closed)); // this policy grants no grace
//! ```

use std::fmt;

use slab::Slab;

use super::event::{Proof, Transport};
use super::fact::{Evidence, PollMask, TcpState};
use super::peer::PeerId;
use super::policy::{Heartbeat, Policy};
use super::silence::{HEAP_BYTES, Silence, cause_of_silence, infer_cause};
use super::stalls::Stalls;
use super::state::{Cause, LocalCause};
use super::tracker::drain_schedule;
use crate::limits;
use crate::time::Instant;
use crate::wheel::Wheel;

/// The verdict about a watched peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The peer is there, as far as its socket shows.
    Here,
    /// The peer's FIN has come: it writes no more, and may still read.
    HalfClosed,
    /// The peer is gone. The verdict is final.
    Gone(Cause),
}

impl Verdict {
    /// Whether the peer is gone.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Verdict::Gone(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Here => f.write_str("here"),
            Verdict::HalfClosed => f.write_str("half-closed"),
            Verdict::Gone(cause) => write!(f, "gone: {cause}"),
        }
    }
}

/// What a socket showed when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// The evidence of a tracker, without `SO_ERROR`, which is left to the program.
    pub evidence: Evidence,
    /// The acknowledged part of the sequence space that is no data: it grows by one when this side's FIN is acknowledged. So
    /// it tells an orderly end from a reset whose error the program has taken.
    pub acknowledged_beyond_data: i64,
    /// The number of bytes that the program has not read. When they are many, this side may keep the peer from speaking.
    pub unread: u32,
}

/// A verdict that has just been reached.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The verdict that was reached.
    pub verdict: Verdict,
    /// What the verdict rests on: the socket as it was then, and the last proof of life.
    pub proof: Proof,
}

struct Record {
    generation: u32,
    policy: Policy,
    verdict: Verdict,
    accepted_at: Instant,
    /// The time at which the peer's FIN was first seen.
    fin: Option<Instant>,
    /// `acknowledged_beyond_data` at a time when nothing was under way.
    beyond: Option<i64>,
    /// ERR was set while the connection stood, for example by a time stamp in its error queue: it is no sign of a reset.
    erring: bool,
    due: Instant,
}

/// The records of one watcher.
pub struct Watches {
    records: Slab<Record>,
    wheel: Wheel,
    stalls: Stalls,
    capacity: usize,
    next_generation: u32,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("len", &self.len()).field("capacity", &self.capacity).finish()
    }
}

impl Watches {
    /// Room for `capacity` connections, 1 to [`limits::MAX_PEERS`]. Memory is allocated as connections are added.
    ///
    /// # Panics
    ///
    /// When the capacity is out of range.
    #[must_use]
    pub fn new(capacity: usize, now: Instant) -> Watches {
        assert!((1..=limits::MAX_PEERS).contains(&capacity), "capacity of {capacity}");
        Watches {
            records: Slab::new(),
            wheel: Wheel::with_capacity(capacity, now),
            stalls: Stalls::default(),
            capacity,
            next_generation: 0,
        }
    }

    /// The number of watched connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no connection is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The greatest number of watched connections.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a connection, with a first look at it, which is not judged: call [`look`](Watches::look) for that. `None` when
    /// there is no room.
    ///
    /// # Panics
    ///
    /// When the policy is one that [`Policy::check`] refuses.
    pub fn add(&mut self, policy: Policy, look: &Look, now: Instant) -> Option<PeerId> {
        assert!(policy.check().is_ok(), "{:?}", policy.check());
        if self.len() >= self.capacity {
            return None;
        }
        let generation = self.next_generation;
        self.next_generation = (generation + 1) & ((1 << limits::GENERATION_BITS) - 1);
        let due = appointment(now + policy.detection_time(), now);
        let record = Record {
            generation,
            policy,
            verdict: Verdict::Here,
            accepted_at: now,
            fin: None,
            beyond: settled(look),
            erring: false,
            due,
        };
        let index = self.records.insert(record) as u32;
        self.wheel.schedule(index, due);
        Some(PeerId::new(index, generation))
    }

    /// Ends a watch. Returns whether there was one; a stale id changes nothing.
    pub fn remove(&mut self, id: PeerId) -> bool {
        let known = self.has(id);
        if known {
            self.records.remove(id.index() as usize);
            self.wheel.cancel(id.index());
        }
        known
    }

    /// Whether the connection is watched.
    #[must_use]
    pub fn has(&self, id: PeerId) -> bool {
        self.records.get(id.index() as usize).is_some_and(|record| record.generation == id.generation())
    }

    /// The next time at which [`expire`](Watches::expire) returns a connection.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// Returns a connection that could be overdue at `now` and has to be looked at. It is not returned again before it was
    /// looked at.
    pub fn expire(&mut self, now: Instant) -> Option<PeerId> {
        loop {
            let index = self.wheel.expire(now)?;
            let record = &self.records[index as usize];
            if record.due <= now {
                return Some(PeerId::new(index, record.generation));
            }
            self.wheel.schedule(index, record.due);
        }
    }

    /// Reports that the watcher was held up from `start` to `end`: deadlines are put off by as much.
    pub fn handle_stall(&mut self, start: Instant, end: Instant) {
        self.stalls.add(start, end);
    }

    /// Judges by what a socket shows, and returns what has changed. A stale id, and a peer that is gone, change nothing.
    ///
    /// The error of a closed socket belongs to the program, so the cause is inferred:
    ///
    /// - `Closed` if no error waits and this side's FIN was acknowledged, also where a reset came behind it and the program
    ///   took its error;
    /// - `KeepaliveExpired` or `UserTimeout` if probes or repetitions were unanswered for about as long as the keepalive or
    ///   the user timeout takes;
    /// - `Aborted` otherwise: a reset.
    ///
    /// So a path that reported EHOSTUNREACH gives `UserTimeout`, and a socket killed by `ss -K` gives `Aborted`.
    pub fn look(&mut self, id: PeerId, look: &Look, now: Instant) -> Option<Change> {
        let evidence = &look.evidence;
        let record = self.standing(id)?;
        let fin = evidence.tcp_state.is_ending();
        if fin {
            record.fin.get_or_insert(now);
        }
        let judged_by = record.judged_by(look);
        let last_life = record.last_life(look, now);
        record.erring |= evidence.mask.has(PollMask::ERR) && evidence.tcp_state != TcpState::Close;
        if evidence.tcp_state == TcpState::Close {
            let cause = record.cause_of_close(look, now);
            return Some(self.gone(id, cause, last_life, evidence, now));
        }
        record.beyond = record.beyond.or(settled(look));
        let (policy, since) = (record.policy, record.fin);
        let graced = since.map(|since| self.stalls.put_off(since, policy.half_closed_grace));
        if graced.is_some_and(|end| now >= end) {
            return Some(self.gone(id, Cause::Closed, last_life, evidence, now));
        }
        let silence = Silence { policy: &policy, stalls: &self.stalls, last_life };
        let mut expired = silence.expires_at();
        if now >= expired {
            if judged_by == Heartbeat::Bytes || silence.is_of_a_dead_kernel(evidence, now) {
                return Some(self.gone(id, cause_of_silence(judged_by), last_life, evidence, now));
            }
            expired = now + policy.interval;
        }
        let due = appointment(graced.map_or(expired, |end| end.min(expired)), now);
        let index = id.index();
        let record = &mut self.records[index as usize];
        record.due = due;
        let news = fin && record.verdict == Verdict::Here;
        if news {
            record.verdict = Verdict::HalfClosed;
        }
        let proof = record.proof(Cause::Closed, evidence, last_life, &self.stalls, now);
        self.wheel.schedule(index, due);
        news.then_some(Change { verdict: Verdict::HalfClosed, proof })
    }

    /// The proof for the present verdict about a peer that is not gone, by what the socket shows.
    #[must_use]
    pub fn proof(&self, id: PeerId, look: &Look, now: Instant) -> Option<Proof> {
        let record = self.records.get(id.index() as usize)?;
        let evidence = &look.evidence;
        // The silence of the program is weighed, as if it were judged by its bytes.
        let spoke = if evidence.received > 0 { evidence.last_data.min(now) } else { record.accepted_at };
        let standing = record.generation == id.generation();
        standing.then(|| {
            record.proof(Cause::HeartbeatExpired, evidence, spoke.max(record.accepted_at), &self.stalls, now)
        })
    }

    /// Judges a connection whose socket is gone: it was closed without ending the watch.
    pub fn lost(&mut self, id: PeerId, now: Instant) -> Option<Change> {
        let accepted_at = self.standing(id)?.accepted_at;
        let nothing = Evidence { tcp_state: TcpState::Close, ..Evidence::default() };
        Some(self.gone(id, Cause::Local(LocalCause::Shutdown), accepted_at, &nothing, now))
    }

    fn standing(&mut self, id: PeerId) -> Option<&mut Record> {
        let record = self.records.get_mut(id.index() as usize)?;
        (record.generation == id.generation() && !record.verdict.is_gone()).then_some(record)
    }

    fn gone(
        &mut self,
        id: PeerId,
        cause: Cause,
        last_life: Instant,
        evidence: &Evidence,
        now: Instant,
    ) -> Change {
        let record = &mut self.records[id.index() as usize];
        record.verdict = Verdict::Gone(cause);
        let proof = record.proof(cause, evidence, last_life, &self.stalls, now);
        self.wheel.cancel(id.index());
        Change { verdict: Verdict::Gone(cause), proof }
    }
}

impl Record {
    /// What counts as its life: its bytes under a policy of bytes, but not after its FIN, when none can come, nor while
    /// so much lies unread that the window may be full; otherwise its kernel's answers.
    fn judged_by(&self, look: &Look) -> Heartbeat {
        let can_speak = self.fin.is_none() && u64::from(look.unread) < HEAP_BYTES;
        if can_speak { self.policy.heartbeat } else { Heartbeat::None }
    }

    /// The last proof of life, by what counts as one. Never before the watch began.
    fn last_life(&self, look: &Look, now: Instant) -> Instant {
        let evidence = &look.evidence;
        let bytes = if evidence.received > 0 { evidence.last_data } else { Instant::ZERO };
        let by_bytes = self.judged_by(look) == Heartbeat::Bytes;
        let heard = if by_bytes { bytes } else { bytes.max(evidence.last_ack) };
        heard.min(now).max(self.accepted_at)
    }

    fn cause_of_close(&self, look: &Look, now: Instant) -> Cause {
        let evidence = &look.evidence;
        let finished = self.beyond.is_some_and(|beyond| look.acknowledged_beyond_data > beyond);
        let no_error = self.erring || !evidence.mask.has(PollMask::ERR);
        infer_cause(evidence, &self.policy, finished && no_error, now)
    }

    fn proof(
        &self,
        cause: Cause,
        evidence: &Evidence,
        last_life: Instant,
        stalls: &Stalls,
        now: Instant,
    ) -> Proof {
        let silence = Silence { policy: &self.policy, stalls, last_life };
        let transport = match self.fin {
            Some(_) if cause == Cause::Closed => Transport::Answering,
            _ => silence.transport(cause, evidence, false, now),
        };
        Proof {
            errno: None,
            frame: None,
            bye: false,
            evidence: *evidence,
            last_life,
            transport,
            outage: false,
        }
    }
}

/// When to look at a connection with this deadline: shortly before it, at a grid point that many share, so that one wake
/// serves them all; and again at the deadline itself.
fn appointment(deadline: Instant, now: Instant) -> Instant {
    let shared = drain_schedule::round_down(deadline);
    if shared > now { shared } else { deadline }
}

/// `acknowledged_beyond_data`, if nothing is under way that would spoil the count and this side has not begun to close.
fn settled(look: &Look) -> Option<i64> {
    let Evidence { tcp_state, unacked, notsent, .. } = look.evidence;
    let open = matches!(tcp_state, TcpState::Established | TcpState::CloseWait);
    (open && unacked == 0 && notsent == 0).then_some(look.acknowledged_beyond_data)
}

#[cfg(test)]
mod tests;
