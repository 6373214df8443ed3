//! How what happened is written: JSON Lines for programs, sentences for people.
//!
//! Both are a [`Voice`] of the [sink](crate::events::sink), on whose thread all encoding is done. `docs/HTTP.md` shows one of
//! each line.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::events::sink::Voice;
use crate::liveness::{Cause, errno};
use crate::proxy::{Counts, Line, Parties, Phase, ProxyEvent, Shown, UpstreamAction};
use crate::time::{Instant, WallClock};

/// The version of the format. Fields may be added within a version; none changes its meaning and none goes.
const VERSION: u32 = 1;

/// Who writes.
const PROGRAM: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// The start of a stream: what listens, before whom, and by which rules.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The addresses listened on, with the ports that the kernel chose.
    pub addresses: Vec<SocketAddr>,
    /// The process.
    pub pid: u32,
    /// Who works.
    pub upstreams: Vec<SocketAddr>,
    /// `io_uring` or `epoll`.
    pub engine: &'static str,
    /// The set-up features that this kernel granted.
    pub features: Vec<&'static str>,
    /// Why the engine is no better one, and what to do about it.
    pub why_not: Option<String>,
    /// Threads.
    pub threads: usize,
    /// `http` or `tcp`.
    pub mode: &'static str,
    /// `probe`, `gone`, `wait:D` or `forward`.
    pub half_close: String,
    /// `reset`, `close` or `ignore`.
    pub on_gone: &'static str,
    /// `standard`, `strict` or `custom`.
    pub policy_name: &'static str,
    /// How long silence lasts at least before it ends a connection.
    pub detection_time: Duration,
    /// Connections at once.
    pub capacity: usize,
    /// When.
    pub at: Instant,
}

/// The end of a stream.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// When.
    pub at: Instant,
    /// How long the program ran.
    pub uptime: Duration,
    /// Of all threads.
    pub counts: Counts,
    /// Lines that the sink did not take.
    pub undelivered: u64,
}

/// For whom to write.
#[derive(Debug)]
pub enum Pen {
    /// For programs.
    Json(JsonLines),
    /// For people.
    Human(Sentences),
}

impl Voice for Pen {
    type Opening = Listening;
    type Event = Line;
    type Closing = Closing;

    fn set_clock(&mut self, wall: WallClock) {
        match self {
            Pen::Json(json) => json.wall = wall,
            Pen::Human(human) => human.wall = wall,
        }
    }

    fn opening(&mut self, opening: &Listening, into: &mut Vec<u8>) {
        match self {
            Pen::Json(json) => json.opening(opening, into),
            Pen::Human(human) => human.opening(opening, into),
        }
    }

    fn event(&mut self, thread: usize, line: &Line, into: &mut Vec<u8>) {
        match self {
            Pen::Json(json) => json.line(thread, line, into),
            Pen::Human(human) => human.line(thread, line, into),
        }
    }

    fn closing(&mut self, closing: &Closing, into: &mut Vec<u8>) {
        match self {
            Pen::Json(json) => json.closing(closing, into),
            Pen::Human(human) => human.closing(closing, into),
        }
    }

    fn has_status(&self) -> bool {
        matches!(self, Pen::Human(human) if human.status)
    }

    fn clear_status(&mut self, into: &mut Vec<u8>) {
        if self.has_status() {
            into.extend_from_slice(b"\r\x1b[K");
        }
    }

    fn status(&mut self, _now: Instant, into: &mut Vec<u8>) {
        if let Pen::Human(human) = self {
            human.status(into);
        }
    }
}

/// Writes JSON Lines.
#[derive(Debug)]
pub struct JsonLines {
    wall: WallClock,
    seq: u64,
}

impl Default for JsonLines {
    fn default() -> JsonLines {
        JsonLines { wall: WallClock::fixed(0), seq: 0 }
    }
}

/// A line: its name and number first, when it was so last.
#[derive(Serialize)]
struct Framed<'a, More> {
    event: &'static str,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<usize>,
    #[serde(flatten)]
    more: More,
    mono_ns: u64,
    time: &'a str,
}

#[derive(Serialize)]
struct Begin<'a> {
    version: u32,
    program: &'static str,
    pid: u32,
    address: SocketAddr,
    addresses: &'a [SocketAddr],
    upstreams: &'a [SocketAddr],
    mode: &'static str,
    half_close: &'a str,
    on_gone: &'static str,
    engine: &'static str,
    features: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'a str>,
    threads: usize,
    policy: &'static str,
    detection_time_ms: u64,
    capacity: usize,
}

#[derive(Serialize)]
struct Party {
    client: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<SocketAddr>,
}

#[derive(Serialize)]
struct Of<'a> {
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

#[derive(Serialize)]
struct InterruptedPart<'a> {
    #[serde(flatten)]
    party: Party,
    #[serde(flatten)]
    of: Of<'a>,
    request_bytes: u64,
    response_bytes: u64,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    proof: ProofPart,
    done: &'static str,
    saved: bool,
}

#[derive(Serialize)]
struct ProofPart {
    /// The client's poll, in hexadecimal as strace has it.
    mask: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    /// How long the answer to a question took.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_us: Option<u64>,
}

#[derive(Serialize)]
struct FailedPart<'a> {
    #[serde(flatten)]
    party: Party,
    failure: &'static str,
    #[serde(flatten)]
    of: Of<'a>,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<u16>,
}

#[derive(Serialize)]
struct NotFollowedPart {
    #[serde(flatten)]
    party: Party,
    reason: &'static str,
    refused: bool,
}

#[derive(Serialize)]
struct CompletedPart {
    completed: u64,
    completed_total: u64,
    interrupted_total: u64,
}

/// Questions to half-closed clients, and how many were answered in which way.
#[derive(Serialize)]
struct QuestionsPart {
    asked: u64,
    gone: u64,
    here: u64,
}

#[derive(Serialize)]
struct End {
    uptime_ms: u64,
    opened: u64,
    open: u64,
    completed: u64,
    interrupted: u64,
    saved: u64,
    by_phase: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    half_closed: QuestionsPart,
    upstream_failed: u64,
    not_followed: u64,
    client_bytes: u64,
    upstream_bytes: u64,
    stalls: u64,
    undelivered: u64,
}

impl JsonLines {
    fn write(
        &mut self,
        event: &'static str,
        thread: Option<usize>,
        at: Instant,
        more: impl Serialize,
        into: &mut Vec<u8>,
    ) {
        let line = Framed {
            event,
            seq: self.seq,
            thread,
            more,
            mono_ns: at.as_nanos(),
            time: &self.wall.rfc3339(at),
        };
        self.seq += 1;
        serde_json::to_writer(&mut *into, &line)
            .expect("a line has only strings for keys, and a Vec takes all");
        into.push(b'\n');
    }

    fn opening(&mut self, opening: &Listening, into: &mut Vec<u8>) {
        let begin = Begin {
            version: VERSION,
            program: PROGRAM,
            pid: opening.pid,
            address: opening.addresses[0],
            addresses: &opening.addresses,
            upstreams: &opening.upstreams,
            mode: opening.mode,
            half_close: &opening.half_close,
            on_gone: opening.on_gone,
            engine: opening.engine,
            features: opening.features.join(","),
            why_not: opening.why_not.as_deref(),
            threads: opening.threads,
            policy: opening.policy_name,
            detection_time_ms: millis(opening.detection_time),
            capacity: opening.capacity,
        };
        self.write("listening", None, opening.at, begin, into);
    }

    fn line(&mut self, thread: usize, line: &Line, into: &mut Vec<u8>) {
        let thread = Some(thread);
        match line {
            Line::Told { at, parties, shown, told } => self.told(thread, *at, *parties, *shown, told, into),
            &Line::Completed { at, completed, completed_total, interrupted_total } => {
                let part = CompletedPart { completed, completed_total, interrupted_total };
                self.write("completed", thread, at, part, into);
            }
            Line::Stall { at, held } => {
                let part = serde_json::json!({ "held_ms": millis(*held) });
                self.write("stall", thread, *at, part, into);
            }
            Line::Saturated { at, limit } => {
                let effect = "new connections wait in the backlog until there is room";
                let part = serde_json::json!({ "limit": limit, "effect": effect });
                self.write("saturated", thread, *at, part, into);
            }
            Line::Resumed { at } => self.write("resumed", thread, *at, serde_json::json!({}), into),
        }
    }

    fn told(
        &mut self,
        thread: Option<usize>,
        at: Instant,
        parties: Parties,
        shown: Shown,
        told: &ProxyEvent,
        into: &mut Vec<u8>,
    ) {
        let party = Party { client: parties.client, upstream: parties.upstream };
        match told {
            ProxyEvent::Interrupted(told) => {
                let of = Of {
                    phase: told.phase.as_str(),
                    method: told.method.as_deref(),
                    target: told.target.as_deref(),
                    status: told.status,
                };
                let proof = ProofPart {
                    mask: format!("{:#x}", shown.mask),
                    errno: shown.errno.map(errno::name),
                    asked_us: told.asked.map(micros),
                };
                let part = InterruptedPart {
                    party,
                    of,
                    request_bytes: told.request_bytes,
                    response_bytes: told.response_bytes,
                    elapsed_ms: millis(told.elapsed),
                    after_ms: told.after.map(millis),
                    cause: told.cause.as_str(),
                    detail: told.cause.detail(),
                    proof,
                    done: told.action.as_str(),
                    saved: told.saved,
                };
                self.write("interrupted", thread, at, part, into);
            }
            ProxyEvent::UpstreamFailed(told) => {
                let of = Of {
                    phase: told.phase.as_str(),
                    method: told.method.as_deref(),
                    target: told.target.as_deref(),
                    status: told.status,
                };
                let part = FailedPart {
                    party,
                    failure: told.failure.as_str(),
                    of,
                    response_bytes: told.response_bytes,
                    answered: told.answered,
                };
                self.write("upstream_failed", thread, at, part, into);
            }
            &ProxyEvent::NotFollowed { reason, refused } => {
                let part = NotFollowedPart { party, reason: reason.as_str(), refused };
                self.write("not_followed", thread, at, part, into);
            }
            ProxyEvent::Completed => {}
        }
    }

    fn closing(&mut self, closing: &Closing, into: &mut Vec<u8>) {
        let counts = &closing.counts;
        let end = End {
            uptime_ms: millis(closing.uptime),
            opened: counts.opened,
            open: counts.open,
            completed: counts.completed,
            interrupted: counts.interrupted(),
            saved: counts.saved,
            by_phase: by_phase(counts),
            half_closed: QuestionsPart {
                asked: counts.asked,
                gone: counts.asked_gone,
                here: counts.asked_here,
            },
            upstream_failed: counts.upstream_failed,
            not_followed: counts.not_followed,
            client_bytes: counts.client_bytes,
            upstream_bytes: counts.upstream_bytes,
            stalls: counts.stalls,
            undelivered: closing.undelivered,
        };
        self.write("summary", None, closing.at, end, into);
    }
}

/// Interruptions by the names of phases and causes, those that were.
fn by_phase(counts: &Counts) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let mut found: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (phase, causes) in Phase::ALL.into_iter().zip(&counts.by_phase) {
        for (cause, &count) in Cause::ALL.into_iter().zip(causes) {
            if count > 0 {
                *found.entry(phase.as_str()).or_default().entry(cause.as_str()).or_insert(0) += count;
            }
        }
    }
    found
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Writes sentences.
#[derive(Debug)]
pub struct Sentences {
    wall: WallClock,
    colour: bool,
    status: bool,
    /// Completed and interrupted exchanges, by thread.
    totals: Vec<(u64, u64)>,
}

impl Sentences {
    /// In colour or not; with a status line or not.
    #[must_use]
    pub fn new(colour: bool, status: bool) -> Sentences {
        Sentences { wall: WallClock::fixed(0), colour, status, totals: Vec::new() }
    }

    fn say(&self, at: Instant, colour: u8, word: &str, rest: std::fmt::Arguments<'_>, into: &mut Vec<u8>) {
        let date = self.wall.rfc3339(at);
        let time = date.get(11..23).unwrap_or_default();
        // A Vec takes everything.
        let _ = match self.colour {
            true => writeln!(into, "{time}Z  \x1b[{colour}m{word:<12}\x1b[0m {rest}"),
            false => writeln!(into, "{time}Z  {word:<12} {rest}"),
        };
    }

    fn opening(&mut self, opening: &Listening, into: &mut Vec<u8>) {
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let threads = opening.threads;
        let features = match opening.features.as_slice() {
            [] => String::new(),
            features => format!(" with {}", features.join(", ")),
        };
        let rest = format!(
            "on {} before {} ({}, {} thread{}, room for {}; {}{features}; a FIN: {}; on leaving: {}; policy {}: dead after {:?} of silence at least)",
            list(&opening.addresses),
            list(&opening.upstreams),
            opening.mode,
            threads,
            if threads == 1 { "" } else { "s" },
            opening.capacity,
            opening.engine,
            opening.half_close,
            opening.on_gone,
            opening.policy_name,
            opening.detection_time,
        );
        self.say(opening.at, 1, "listening", format_args!("{rest}"), into);
        if let Some(why_not) = &opening.why_not {
            self.say(opening.at, 33, "note", format_args!("{why_not}"), into);
        }
    }

    fn line(&mut self, thread: usize, line: &Line, into: &mut Vec<u8>) {
        match line {
            Line::Told { at, parties, told, .. } => self.told(*at, *parties, told, into),
            &Line::Completed { completed_total, interrupted_total, .. } => {
                self.totals.resize(self.totals.len().max(thread + 1), (0, 0));
                self.totals[thread] = (completed_total, interrupted_total);
            }
            Line::Stall { at, held } => {
                self.say(*at, 33, "stall", format_args!("our own loop was held up for {held:.1?}"), into);
            }
            Line::Saturated { at, limit } => {
                self.say(*at, 33, "saturated", format_args!("{limit}: new connections wait"), into);
            }
            Line::Resumed { at } => self.say(*at, 32, "resumed", format_args!("connections are taken"), into),
        }
    }

    fn told(&mut self, at: Instant, parties: Parties, told: &ProxyEvent, into: &mut Vec<u8>) {
        let client = parties.client;
        let asked = |method: &Option<Box<str>>, target: &Option<Box<str>>| match (method, target) {
            (Some(method), Some(target)) => format!(" {method} {}", target.escape_debug()),
            _ => String::new(),
        };
        match told {
            ProxyEvent::Interrupted(told) => {
                let of = asked(&told.method, &told.target);
                let sent = match told.after {
                    Some(after) => {
                        format!(", {} bytes and {after:.1?} into the response", told.response_bytes)
                    }
                    None => String::new(),
                };
                let done = match told.action {
                    UpstreamAction::Nothing => "the upstream had not been asked",
                    UpstreamAction::Reset => "upstream reset",
                    UpstreamAction::Close => "upstream closed",
                    UpstreamAction::Ignored => "the upstream works on",
                };
                let (phase, cause, elapsed) = (told.phase.as_str(), told.cause, told.elapsed);
                let rest = format!("{client}{of} while {phase} after {elapsed:.1?}{sent}: {cause}; {done}");
                self.say(at, 31, "interrupted", format_args!("{rest}"), into);
            }
            ProxyEvent::UpstreamFailed(told) => {
                let of = asked(&told.method, &told.target);
                let upstream =
                    parties.upstream.map_or_else(|| "?".to_owned(), |upstream| upstream.to_string());
                let answer = match told.answered {
                    Some(status) => format!("{client} was answered {status}"),
                    None => format!("{client} was cut off"),
                };
                let (failure, phase) = (told.failure.as_str(), told.phase.as_str());
                let rest = format!("{upstream} {failure}{of} while {phase}: {answer}");
                self.say(at, 35, "failed", format_args!("{rest}"), into);
            }
            ProxyEvent::NotFollowed { reason, refused } => {
                let what = if *refused { "refused" } else { "relayed as it is" };
                self.say(at, 33, "not followed", format_args!("{client} ({reason}): {what}"), into);
            }
            ProxyEvent::Completed => {}
        }
    }

    fn status(&self, into: &mut Vec<u8>) {
        let (completed, interrupted) =
            self.totals.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let _ = write!(into, "completed {completed}, interrupted {interrupted}");
    }

    fn closing(&mut self, closing: &Closing, into: &mut Vec<u8>) {
        let counts = &closing.counts;
        let rest = format!(
            "completed {}, interrupted {} ({} spared the upstream the rest), half-closed clients asked {} times \
             (gone {}, here {}), upstream failures {}, connections {}; {:.1?}",
            counts.completed,
            counts.interrupted(),
            counts.saved,
            counts.asked,
            counts.asked_gone,
            counts.asked_here,
            counts.upstream_failed,
            counts.opened,
            closing.uptime,
        );
        self.say(closing.at, 1, "summary", format_args!("{rest}"), into);
        for (phase, causes) in by_phase(counts) {
            for (cause, count) in causes {
                let _ = writeln!(into, "              {count:>8}  while {phase}: {cause}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
