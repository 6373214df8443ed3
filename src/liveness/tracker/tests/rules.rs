//! A second, plain reading of `docs/LIVENESS.md`: what each fact must lead to, for a peer of which only
//! what an onlooker could say is known. Nothing here calls the tracker.

use std::collections::BTreeSet;

use super::*;

/// Milliseconds of the policy that the table is about.
pub const IDLE: u64 = 4_000;
pub const INTERVAL: u64 = 1_000;
pub const PROBES: u64 = 3;
pub const DETECTION: u64 = IDLE + PROBES * INTERVAL;
pub const HANDSHAKE: u64 = 5_000;
pub const GRACE: u64 = 2_000;

#[derive(Clone, Copy, Debug)]
pub struct World {
    pub heartbeat: Heartbeat,
    pub wake: Wake,
    /// Whether a FIN is granted a grace.
    pub grace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Alive, and never spoke although that is awaited.
    Mute,
    Alive,
    /// Suspect, for its silence.
    Silent,
    /// Suspect, for its path.
    Doubted,
    HalfClosed,
    /// Dead, or gone, or another by now.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    No,
    /// Its evidence was asked for.
    Begun,
    /// A complete frame came since then.
    Framed,
}

/// What an onlooker would say of a peer. Lengths of time are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    pub stage: Stage,
    /// Since the accept.
    pub lived: u64,
    /// Since the last life that was looked at.
    pub silent: u64,
    /// PINGs sent since the last life.
    pub probes: u64,
    /// Its FIN was seen.
    pub fin: bool,
    /// Every byte wakes its poll.
    pub on_byte: bool,
    /// The sink has room for what is no death.
    pub room: bool,
    pub visit: Visit,
    /// Its grace is over.
    pub over: bool,
}

/// How a socket looked.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub socket: TcpState,
    /// The age of the newest byte; `None` where none ever came.
    pub data: Option<u64>,
    /// The age of the last acknowledgement, where that is not the newest byte's.
    pub ack: Option<u64>,
    /// What we sent is not acknowledged although it was repeated.
    pub doubt: bool,
    /// So much lies unread that the window may be full.
    pub full: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Ready(u16),
    Taken(u32),
    Emptied,
    End(Look, Option<i32>),
    /// The errno, and whether something of ours was repeated meanwhile.
    Failed(i32, bool, Look),
    Inspected(Look),
    Frame(Kind),
    Hello(&'static str),
    Garbage(FrameError),
    Bye,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    WakeOnByte,
    WakeOnMark,
    Probe,
    Drain,
    DrainToEnd,
    Inspect,
    Close,
    Abort,
}

/// What the last proof of life is held to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Kept,
    Now,
    /// So many milliseconds ago.
    Ago(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub told: Option<Step>,
    pub asked: BTreeSet<Ask>,
    pub life: Life,
}

fn nothing() -> Outcome {
    Outcome { told: None, asked: BTreeSet::new(), life: Life::Kept }
}

fn asks<const N: usize>(asked: [Ask; N]) -> Outcome {
    Outcome { asked: BTreeSet::from(asked), ..nothing() }
}

/// An end that came by itself. A peer that is there answers a FIN, every other one gets a RST. What the
/// socket tells of its last life is believed.
fn died(world: World, before: Before, cause: Cause, look: Look) -> Outcome {
    let close = match cause {
        Cause::Closed | Cause::Aborted => Ask::Close,
        Cause::HeartbeatExpired
        | Cause::KeepaliveExpired
        | Cause::UserTimeout
        | Cause::Unreachable(_)
        | Cause::HandshakeExpired
        | Cause::Protocol
        | Cause::Local(_) => Ask::Abort,
    };
    let life = match (world.heartbeat, look.data) {
        (Heartbeat::Bytes, Some(age)) => Life::Ago(age.min(before.lived)),
        (Heartbeat::None, _) => Life::Ago(last_sign(before, look).min(before.lived)),
        (Heartbeat::Bytes, None) | (Heartbeat::Frames, _) => Life::Kept,
    };
    Outcome { told: Some(Step::Died(cause)), asked: BTreeSet::from([close]), life }
}

/// The younger of byte and acknowledgement. The handshake of TCP was one.
fn last_sign(before: Before, look: Look) -> u64 {
    let data = look.data.unwrap_or(before.lived);
    look.ack.map_or(data, |ack| ack.min(data))
}

pub fn outcome(world: World, before: Before, seen: Seen, plain: Look) -> Outcome {
    match (before.stage, seen) {
        (Stage::Over, _) => nothing(),
        (_, Seen::Ready(mask)) => ready(world, before, mask),
        (_, Seen::Taken(_)) => nothing(),
        (_, Seen::Emptied) => match (world.heartbeat, before.visit) {
            (Heartbeat::Frames, Visit::Begun | Visit::Framed) => asks([Ask::Inspect]),
            (Heartbeat::Frames, Visit::No) | (Heartbeat::Bytes | Heartbeat::None, _) => nothing(),
        },
        (_, Seen::End(look, so_error)) => end(world, before, look, so_error),
        (_, Seen::Failed(errno, repeated, look)) => failed(world, before, errno, repeated, look),
        (_, Seen::Inspected(look)) => inspected(world, before, look),
        (_, Seen::Frame(_) | Seen::Hello(_)) => framed(world, before),
        (_, Seen::Garbage(_)) => died(world, before, Cause::Protocol, plain),
        (_, Seen::Bye) => died(world, before, Cause::Closed, plain),
    }
}

fn ready(world: World, before: Before, mask: u16) -> Outcome {
    const END: u16 = 0x2000 | 0x10 | 0x8;
    match (before.stage, mask & END != 0, mask & 1 != 0) {
        // Its recv gives 0 for ever, only TCP_INFO tells a reset now.
        (Stage::HalfClosed, true, _) => asks([Ask::Inspect]),
        (Stage::HalfClosed, false, _) => nothing(),
        // First what it said, then the verdict.
        (_, true, _) => asks([Ask::DrainToEnd]),
        (_, false, false) => nothing(),
        (_, false, true) => match (world.heartbeat, before.stage) {
            // Bytes are no life here, frames are, and these may be either.
            (Heartbeat::Frames, _) => asks([Ask::Drain]),
            // A lower mark wakes for old bytes too.
            (_, Stage::Silent | Stage::Doubted) => asks([Ask::Drain, Ask::Inspect]),
            (_, _) => Outcome { life: Life::Now, ..asks([Ask::Drain]) },
        },
    }
}

fn end(world: World, before: Before, look: Look, so_error: Option<i32>) -> Outcome {
    let cause = match look.socket {
        TcpState::CloseWait if world.grace => return half_closed(before),
        TcpState::Close => match so_error {
            Some(errno) if errno != 0 => errno_cause(errno, false),
            Some(_) | None => Cause::Aborted, // another reader took the error
        },
        TcpState::Established => Cause::Local(LocalCause::Shutdown), // no FIN came
        TcpState::CloseWait
        | TcpState::SynSent
        | TcpState::SynReceived
        | TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::TimeWait
        | TcpState::LastAck
        | TcpState::Listen
        | TcpState::Closing
        | TcpState::NewSynReceived => Cause::Closed,
    };
    died(world, before, cause, look)
}

/// A FIN under a grace: told once, and as soon as there is room.
fn half_closed(before: Before) -> Outcome {
    let known = before.fin || before.stage == Stage::HalfClosed;
    let told = (!known && before.room).then_some(Step::HalfClosed);
    Outcome { told, ..nothing() }
}

/// The words of `docs/EVENTS.md`, for one errno of each meaning.
fn errno_cause(errno: i32, repeated: bool) -> Cause {
    match errno {
        libc::ECONNRESET => Cause::Aborted,
        libc::ETIMEDOUT if repeated => Cause::UserTimeout,
        libc::ETIMEDOUT => Cause::KeepaliveExpired,
        libc::EHOSTUNREACH => Cause::Unreachable(Hop::Host),
        libc::ENETUNREACH => Cause::Unreachable(Hop::Net),
        libc::ECONNABORTED => Cause::Local(LocalCause::Destroyed),
        libc::EAGAIN | libc::ENOBUFS | libc::ECANCELED | libc::EINVAL => {
            Cause::Local(LocalCause::Unwatchable)
        }
        _ => panic!("no rule for errno {errno}"),
    }
}

fn failed(world: World, before: Before, errno: i32, repeated: bool, look: Look) -> Outcome {
    let theirs = matches!(errno, libc::ECONNRESET | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH);
    if theirs && look.socket != TcpState::Close {
        // A soft error is not an end: the peer is suspected and watched on.
        return inspected(world, before, Look { doubt: true, ..look });
    }
    died(world, before, errno_cause(errno, repeated), look)
}

fn inspected(world: World, before: Before, look: Look) -> Outcome {
    match (before.stage, look.socket) {
        (Stage::HalfClosed, TcpState::Close) => return died(world, before, Cause::Aborted, look),
        (Stage::HalfClosed, _) if before.over => return died(world, before, Cause::Closed, look),
        (Stage::HalfClosed, _) => return nothing(),
        (_, TcpState::Close) if before.fin => return died(world, before, Cause::Aborted, look),
        // No silence is held against a peer that said it will be silent.
        (_, _) if before.fin => {
            return Outcome { told: before.room.then_some(Step::HalfClosed), ..nothing() };
        }
        (_, TcpState::Close | TcpState::CloseWait | TcpState::LastAck | TcpState::Closing) => {
            return asks([Ask::DrainToEnd]);
        }
        (_, _) => {}
    }
    let (spoke, life) = match world.heartbeat {
        Heartbeat::Bytes => (look.data.is_some(), look.data.map_or(Life::Kept, Life::Ago)),
        Heartbeat::None => (true, Life::Ago(last_sign(before, look))),
        // No frame is newer than the newest byte. One that was found at this visit is as old as that.
        Heartbeat::Frames => match (before.visit, look.data.unwrap_or(before.lived)) {
            (Visit::Framed, age) => (true, Life::Ago(age)),
            (Visit::Begun | Visit::No, _) if before.stage == Stage::Mute => (false, Life::Kept),
            (Visit::Begun | Visit::No, age) => (true, Life::Ago(age.max(before.silent))),
        },
    };
    let silent = match life {
        Life::Ago(age) => age,
        Life::Now | Life::Kept => before.silent,
    };
    // Which frames lie in the socket is known only to the one that drained it.
    let known = world.heartbeat != Heartbeat::Frames || before.visit != Visit::No;
    let judged = if before.stage == Stage::Mute && !spoke {
        // A peer that never spoke has a deadline of its own, and no other.
        let expired = known && before.lived >= HANDSHAKE;
        if expired { expiry(Cause::HandshakeExpired) } else { nothing() }
    } else {
        let silent = known.then_some(silent);
        let lazy = world.wake == Wake::Lazy;
        let full = look.full && world.heartbeat != Heartbeat::Frames;
        // A kernel answers with a full window too.
        let excused = full && world.heartbeat == Heartbeat::Bytes;
        let mut judged = if excused && silent.is_some_and(|silent| silent >= IDLE) {
            nothing() // this side may keep it silent
        } else {
            weighed(world, before, silent, look.doubt)
        };
        // Whose bytes were never taken off is drained, so that its pace is counted from then on.
        let first = matches!(before.stage, Stage::Mute | Stage::Alive)
            && look.data.is_some()
            && lazy
            && world.heartbeat != Heartbeat::Frames;
        if (full || first) && !matches!(judged.told, Some(Step::Died(_))) {
            judged.asked.insert(Ask::Drain);
        }
        judged
    };
    let life = match (judged.told, life) {
        (Some(Step::Died(_)), Life::Ago(age)) => Life::Ago(age.min(before.lived)),
        (_, life) => life,
    };
    Outcome { life, ..judged }
}

fn expiry(cause: Cause) -> Outcome {
    Outcome { told: Some(Step::Died(cause)), ..asks([Ask::Abort]) }
}

/// What a silence amounts to; `None`: no newer one is known than the record's.
fn weighed(world: World, before: Before, silent: Option<u64>, doubt: bool) -> Outcome {
    let lazy = world.wake == Wake::Lazy;
    let speaks = world.heartbeat == Heartbeat::Frames;
    let suspect = matches!(before.stage, Stage::Silent | Stage::Doubted);
    // What was asked before it spoke is answered.
    let probes = if before.visit == Visit::Framed { 0 } else { before.probes };
    match silent {
        Some(DETECTION..) => expiry(match world.heartbeat {
            Heartbeat::Bytes | Heartbeat::Frames => Cause::HeartbeatExpired,
            Heartbeat::None => Cause::KeepaliveExpired,
        }),
        // A quiet peer has the time of one probe to answer.
        Some(silent @ IDLE..) if speaks && !suspect && !doubt && silent < IDLE + INTERVAL => {
            let mut asked = BTreeSet::new();
            if probes == 0 {
                asked.insert(Ask::Probe);
                if lazy && !before.on_byte {
                    asked.insert(Ask::WakeOnByte);
                }
            }
            Outcome { asked, ..nothing() }
        }
        Some(silent @ IDLE..) if !suspect && (!speaks || silent >= IDLE + INTERVAL) => {
            let due = PROBES.min(1 + (silent - IDLE) / INTERVAL);
            suspected(Step::Suspected, before, lazy, speaks && due > probes)
        }
        Some(silent @ IDLE..) if suspect => {
            let due = PROBES.min(1 + (silent - IDLE) / INTERVAL);
            if speaks && due > probes { asks([Ask::Probe]) } else { nothing() }
        }
        Some(_) | None if doubt && !suspect => suspected(Step::Doubted, before, lazy, speaks && probes == 0),
        Some(_) | None if doubt && speaks && probes == 0 => asks([Ask::Probe]),
        Some(_) | None if doubt => nothing(),
        // A sound socket is no frame: a peer that was silent still is.
        None if before.stage == Stage::Silent => nothing(),
        Some(_) | None if suspect => recovered(before, lazy),
        None if before.probes > 0 => nothing(),
        Some(_) | None if lazy && speaks && before.on_byte => asks([Ask::WakeOnMark]),
        Some(_) | None => nothing(),
    }
}

fn suspected(told: Step, before: Before, lazy: bool, asked: bool) -> Outcome {
    if !before.room {
        return nothing();
    }
    let mut outcome = Outcome { told: Some(told), ..nothing() };
    if lazy && !before.on_byte {
        outcome.asked.insert(Ask::WakeOnByte);
    }
    if asked {
        outcome.asked.insert(Ask::Probe);
    }
    outcome
}

fn recovered(before: Before, lazy: bool) -> Outcome {
    match (before.room, lazy) {
        (false, _) => nothing(),
        (true, true) => Outcome { told: Some(Step::Recovered), ..asks([Ask::WakeOnMark]) },
        (true, false) => Outcome { told: Some(Step::Recovered), ..nothing() },
    }
}

/// A complete frame.
fn framed(world: World, before: Before) -> Outcome {
    let lazy = world.wake == Wake::Lazy;
    let after = match (before.visit, before.stage) {
        // It may have waited for us: the evidence that was asked for tells its age.
        (Visit::Begun | Visit::Framed, _) => return nothing(),
        // It speaks; whether it hears, the socket knows.
        (Visit::No, Stage::Doubted) => asks([Ask::Inspect]),
        (Visit::No, Stage::Silent) => recovered(before, lazy),
        (Visit::No, Stage::Mute | Stage::Alive)
            if lazy && world.heartbeat == Heartbeat::Frames && before.on_byte =>
        {
            asks([Ask::WakeOnMark])
        }
        (Visit::No, Stage::Mute | Stage::Alive | Stage::HalfClosed | Stage::Over) => nothing(),
    };
    Outcome { life: Life::Now, ..after }
}
