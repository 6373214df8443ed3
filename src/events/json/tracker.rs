//! Events for programs: JSON Lines, one object a line.
//!
//! # Intuition
//!
//! A program that reads events wants to know three things of the stream itself: that it misses
//! nothing (`seq` has no gaps), when a thing was so rather than when it was printed (`mono_ns`), and
//! that tomorrow's line has the fields of today's. So every line is a struct here, its fields in the
//! order of the declaration, and `docs/EVENTS.md` shows one of each; a test holds the two together.
//!
//! # Model
//!
//! An [`Encoder`] appends lines to a buffer of the caller's: [`Listening`] first, then any number of
//! [`Event`]s, [`Closing`] last. It borrows what it writes.
//!
//! # Contract
//!
//! - Every line is one valid JSON object and ends in a newline, whatever a peer calls itself.
//! - `seq` counts lines from 0, over all ring threads.
//! - Times are integers in the unit of the field's name, rounded down.
//! - A field that has nothing to say is left out. Only percentiles are `null`: asked, and not
//!   answered by so small a sample.
//!
//! # Example
//!
//! ```
//! use deadpeer::events::json::tracker::Encoder;
//! use deadpeer::tracking::LocalAddresses;
//! use deadpeer::liveness::{Event, EventKind};
//! use deadpeer::time::{Instant, WallClock};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! let mut encoder = Encoder::new(Arc::new(LocalAddresses::new()));
//! encoder.set_clock(WallClock::fixed(0)); // the daemon reads the clock once a batch
//! let held = Duration::from_millis(1_234);
//! let stall = Event { at: Instant::from_nanos(5_000), subject: None, kind: EventKind::Stall { held } };
//! let mut lines = Vec::new();
//! encoder.event(0, &stall, &mut lines);
//! assert_eq!(
//!     String::from_utf8(lines).unwrap(),
//!     concat!(
//!         r#"{"event":"stall","seq":0,"thread":0,"held_ms":1234,"mono_ns":5000,"#,
//!         r#""time":"1970-01-01T00:00:00.000005Z"}"#,
//!         "\n",
//!     )
//! );
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::limits::HISTORY;
use crate::liveness::{
    Cause, Death, Event, EventKind, PeerId, Policy, Proof, Step, Subject, TrackerCounts, Transition, errno,
};
use crate::measure;
use crate::time::{Instant, WallClock};
use crate::tracking::LocalAddresses;

/// The version of the format. Fields may be added within a version; none changes its meaning and
/// none goes.
pub const VERSION: u32 = 1;

/// Who writes.
pub const PROGRAM: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// What happens at every limit.
const SATURATED: &str = "new connections wait in the backlog until there is room";

/// The start of a stream: what listens, and by which rules it judges.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The addresses listened on, with the ports that the kernel chose. At least one.
    pub addresses: Vec<SocketAddr>,
    /// The process.
    pub pid: u32,
    /// `io_uring` or `epoll`.
    pub engine: &'static str,
    /// The runtime that waits for it, if that is not a thread of its own.
    pub host: Option<&'static str>,
    /// The set-up features that this kernel granted.
    pub features: Vec<&'static str>,
    /// Why the engine is no better one, and what to do about it.
    pub why_not: Option<String>,
    /// Ring threads.
    pub threads: usize,
    /// `standard`, `strict` or `custom`.
    pub policy_name: &'static str,
    /// The times by which peers are judged.
    pub policy: Policy,
    /// `lazy` or `beat`.
    pub wake: &'static str,
    /// Unread bytes that may lie in a socket (`SO_RCVLOWAT`).
    pub unread: u32,
    /// Connections at once, over all threads.
    pub capacity: u64,
    /// How long a batch of completions may be waited for.
    pub batch_window: Duration,
    /// When.
    pub at: Instant,
}

/// The end of a stream: what became of everybody, and how well this was done.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// When.
    pub at: Instant,
    /// How long the program ran.
    pub uptime: Duration,
    /// Connections accepted.
    pub opened: u64,
    /// Connections that were open at the end.
    pub open: u64,
    /// Deaths by [`Cause::code`].
    pub died: [u64; Cause::ALL.len()],
    /// Suspicions.
    pub suspected: u64,
    /// Recoveries.
    pub recovered: u64,
    /// Visits.
    pub visits: u64,
    /// Stalls of a loop of ours.
    pub stalls: u64,
    /// Events that the sink could not take before the end.
    pub undelivered: u64,
    /// Percentiles.
    pub measures: measure::Summary,
    /// What the rings did.
    pub ring: RingTotals,
}

impl Closing {
    /// Adds what the tracker of one thread counted.
    pub fn add(&mut self, counts: &TrackerCounts) {
        self.opened += counts.opened;
        self.open += u64::from(counts.living);
        self.suspected += counts.suspected;
        self.recovered += counts.recovered;
        self.visits += counts.visits;
        for (total, died) in self.died.iter_mut().zip(counts.died) {
            *total += died;
        }
    }

    /// All deaths.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.died.iter().sum()
    }

    /// Deaths by the nine words of [`Cause::as_str`], zeros too, in the order of [`Cause::ALL`].
    pub fn deaths_by_word(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let mut causes = Cause::ALL.into_iter().zip(self.died).peekable();
        std::iter::from_fn(move || {
            let (cause, mut deaths) = causes.next()?;
            // Causes of one word stand side by side.
            while let Some((_, more)) = causes.next_if(|(next, _)| next.as_str() == cause.as_str()) {
                deaths += more;
            }
            Some((cause.as_str(), deaths))
        })
    }
}

/// What the rings did, over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RingTotals {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Times that the completion queue was full.
    pub overflows: u64,
}

/// Turns events into lines, and counts them.
#[derive(Debug)]
pub struct Encoder {
    wall: WallClock,
    seq: u64,
    locals: Arc<LocalAddresses>,
    /// A copy of the addresses seen so far, so that a line takes no lock.
    known: Vec<SocketAddr>,
}

impl Encoder {
    /// An encoder at `seq` 0. It reads the clock.
    #[must_use]
    pub fn new(locals: Arc<LocalAddresses>) -> Encoder {
        Encoder { wall: WallClock::read(), seq: 0, locals, known: Vec::new() }
    }

    /// Sets the relation between clock and date; to be read anew for every batch, so that the dates
    /// follow a wall clock that is being set right.
    pub fn set_clock(&mut self, wall: WallClock) {
        self.wall = wall;
    }

    /// Appends the first line.
    ///
    /// # Panics
    ///
    /// When `listening` has no address.
    pub fn listening(&mut self, listening: &Listening, out: &mut Vec<u8>) {
        let policy = &listening.policy;
        let keepalive = policy.keepalive();
        let line = ListeningLine {
            event: "listening",
            seq: self.next_seq(),
            address: listening.addresses[0],
            addresses: &listening.addresses,
            version: VERSION,
            program: PROGRAM,
            pid: listening.pid,
            engine: listening.engine,
            host: listening.host,
            why_not: listening.why_not.as_deref(),
            features: &listening.features.join(","),
            threads: listening.threads,
            policy: listening.policy_name,
            heartbeat: policy.heartbeat.as_str(),
            wake: listening.wake,
            detection_time_ms: millis(policy.detection_time()),
            idle_ms: millis(policy.idle),
            interval_ms: millis(policy.interval),
            probes: policy.probes,
            handshake_ms: millis(policy.handshake),
            half_closed_grace_ms: millis(policy.half_closed_grace),
            keepalive: KeepaliveLine {
                idle_s: keepalive.idle,
                interval_s: keepalive.interval,
                count: keepalive.count,
                user_timeout_ms: keepalive.user_timeout.map(millis),
            },
            unread: listening.unread,
            capacity: listening.capacity,
            batch_window_us: micros(listening.batch_window),
            mono_ns: listening.at.as_nanos(),
            time: &self.wall.rfc3339(listening.at),
        };
        write(&line, out);
    }

    /// Appends the line of an event of the ring thread `thread`.
    pub fn event(&mut self, thread: usize, event: &Event, out: &mut Vec<u8>) {
        match &event.kind {
            EventKind::Up => self.peer("up", thread, event, Nothing {}, out),
            EventKind::Suspected { silent_for, doubt } => {
                let reason = if *doubt { "path" } else { "silence" };
                let more = SuspectedPart { reason, silent_ms: millis(*silent_for) };
                self.peer("suspected", thread, event, more, out);
            }
            EventKind::Recovered { suspected_for } => {
                let more = RecoveredPart { suspected_ms: millis(*suspected_for) };
                self.peer("recovered", thread, event, more, out);
            }
            EventKind::HalfClosed => self.peer("half_closed", thread, event, Nothing {}, out),
            EventKind::Died(death) => self.peer("died", thread, event, DiedPart::of(death), out),
            EventKind::Stall { held } => {
                self.whole("stall", thread, event.at, StallPart { held_ms: millis(*held) }, out);
            }
            EventKind::PathOutage { suspects, peers } => {
                let more = OutagePart { suspects: *suspects, peers: *peers };
                self.whole("path_outage", thread, event.at, more, out);
            }
            EventKind::Saturated { limit } => {
                let more = SaturatedPart { limit, effect: SATURATED };
                self.whole("saturated", thread, event.at, more, out);
            }
            EventKind::Resumed => self.whole("resumed", thread, event.at, Nothing {}, out),
        }
    }

    /// Appends the last line.
    pub fn summary(&mut self, closing: &Closing, out: &mut Vec<u8>) {
        let line = SummaryLine {
            event: "summary",
            seq: self.next_seq(),
            opened: closing.opened,
            open: closing.open,
            died: closing.deaths(),
            deaths: Deaths(closing),
            suspected: closing.suspected,
            recovered: closing.recovered,
            visits: closing.visits,
            stalls: closing.stalls,
            undelivered: closing.undelivered,
            measures: &closing.measures,
            ring: closing.ring,
            uptime_ms: millis(closing.uptime),
            mono_ns: closing.at.as_nanos(),
            time: &self.wall.rfc3339(closing.at),
        };
        write(&line, out);
    }

    fn peer(
        &mut self,
        word: &'static str,
        thread: usize,
        event: &Event,
        more: impl Serialize,
        out: &mut Vec<u8>,
    ) {
        let seq = self.next_seq();
        let subject = event.subject.as_ref().map(|subject| SubjectPart {
            id: Id { thread, peer: subject.peer },
            peer: subject.address,
            local: self.local(subject),
            identity: subject.identity.as_deref(),
        });
        let time = &self.wall.rfc3339(event.at);
        let line = PeerLine { event: word, seq, subject, mono_ns: event.at.as_nanos(), time, more };
        write(&line, out);
    }

    fn whole(
        &mut self,
        word: &'static str,
        thread: usize,
        at: Instant,
        more: impl Serialize,
        out: &mut Vec<u8>,
    ) {
        let seq = self.next_seq();
        let time = &self.wall.rfc3339(at);
        write(&WholeLine { event: word, seq, thread, more, mono_ns: at.as_nanos(), time }, out);
    }

    fn next_seq(&mut self) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        seq
    }

    fn local(&mut self, subject: &Subject) -> Option<SocketAddr> {
        if usize::from(subject.local) >= self.known.len() {
            self.locals.copy_to(&mut self.known);
        }
        self.known.get(usize::from(subject.local)).copied()
    }
}

fn write(line: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, line).expect("a Vec takes every byte, and every key is a string");
    out.push(b'\n');
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A peer's name, unique in a process: ring thread, place in its slab, which life in that place.
pub(in crate::events) struct Id {
    thread: usize,
    peer: PeerId,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.thread, self.peer.index(), self.peer.generation())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An errno by its name, or by its number where it has none.
pub(in crate::events) struct Errno(pub(in crate::events) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno::name(self.0) {
            "E?" => write!(f, "{}", self.0),
            name => f.write_str(name),
        }
    }
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A poll mask in the kernel's bits.
struct Mask(u16);

impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

#[derive(Serialize)]
struct ListeningLine<'a> {
    event: &'static str,
    seq: u64,
    address: SocketAddr,
    addresses: &'a [SocketAddr],
    version: u32,
    program: &'static str,
    pid: u32,
    engine: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'static str>,
    features: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'a str>,
    threads: usize,
    policy: &'static str,
    heartbeat: &'static str,
    wake: &'static str,
    detection_time_ms: u64,
    idle_ms: u64,
    interval_ms: u64,
    probes: u32,
    handshake_ms: u64,
    half_closed_grace_ms: u64,
    keepalive: KeepaliveLine,
    unread: u32,
    capacity: u64,
    batch_window_us: u64,
    mono_ns: u64,
    time: &'a str,
}

#[derive(Serialize)]
struct KeepaliveLine {
    idle_s: u32,
    interval_s: u32,
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct PeerLine<'a, More> {
    event: &'static str,
    seq: u64,
    #[serde(flatten)]
    subject: Option<SubjectPart<'a>>,
    mono_ns: u64,
    time: &'a str,
    #[serde(flatten)]
    more: More,
}

#[derive(Serialize)]
struct SubjectPart<'a> {
    id: Id,
    peer: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
}

#[derive(Serialize)]
struct WholeLine<'a, More> {
    event: &'static str,
    seq: u64,
    thread: usize,
    #[serde(flatten)]
    more: More,
    mono_ns: u64,
    time: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct SuspectedPart {
    reason: &'static str,
    silent_ms: u64,
}

#[derive(Serialize)]
struct RecoveredPart {
    suspected_ms: u64,
}

#[derive(Serialize)]
struct StallPart {
    held_ms: u64,
}

#[derive(Serialize)]
struct OutagePart {
    suspects: u32,
    peers: u32,
}

#[derive(Serialize)]
struct SaturatedPart {
    limit: &'static str,
    effect: &'static str,
}

#[derive(Serialize)]
struct DiedPart<'a> {
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    silent_ms: u64,
    lived_ms: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_us: Option<u64>,
    proof: ProofPart,
    history: HistoryPart<'a>,
}

impl DiedPart<'_> {
    fn of(death: &Death) -> DiedPart<'_> {
        DiedPart {
            cause: death.cause.as_str(),
            detail: death.cause.detail(),
            silent_ms: millis(death.silent_for()),
            lived_ms: millis(death.at.since(death.accepted_at)),
            bytes: death.bytes,
            late_us: death.lateness().map(micros),
            proof: ProofPart::of(&death.proof, death.at),
            history: HistoryPart(&death.history),
        }
    }
}

#[derive(Serialize)]
struct ProofPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<Errno>,
    poll_mask: Mask,
    #[serde(skip_serializing_if = "Option::is_none")]
    so_error: Option<Errno>,
    tcp: TcpPart,
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_error: Option<&'static str>,
    #[serde(skip_serializing_if = "is_false")]
    bye: bool,
    #[serde(skip_serializing_if = "is_false")]
    outage: bool,
    last_life_ns: u64,
    verdict_ns: u64,
}

impl ProofPart {
    fn of(proof: &Proof, verdict: Instant) -> ProofPart {
        let evidence = &proof.evidence;
        ProofPart {
            errno: proof.errno.map(Errno),
            poll_mask: Mask(evidence.mask.0),
            so_error: evidence.so_error.map(Errno),
            tcp: TcpPart {
                state: evidence.tcp_state.as_str(),
                unacked: evidence.unacked,
                retransmits: evidence.retransmits,
                backoff: evidence.backoff,
                probes: evidence.probes,
                last_ack_recv_ms: evidence.last_ack_ms,
                last_data_recv_ms: evidence.last_data_ms,
                notsent_bytes: evidence.notsent,
                rtt_us: evidence.rtt_us,
            },
            transport: proof.transport.as_str(),
            frame_error: proof.frame.map(|error| error.as_str()),
            bye: proof.bye,
            outage: proof.outage,
            last_life_ns: proof.last_life.as_nanos(),
            verdict_ns: verdict.as_nanos(),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Serialize)]
struct TcpPart {
    state: &'static str,
    unacked: u32,
    retransmits: u8,
    backoff: u8,
    probes: u8,
    last_ack_recv_ms: u32,
    last_data_recv_ms: u32,
    notsent_bytes: u32,
    rtt_us: u32,
}

struct HistoryPart<'a>(&'a [Option<Transition>; HISTORY]);

impl Serialize for HistoryPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flatten().map(|transition| {
            let step = transition.step();
            TransitionPart {
                at_ns: transition.at().as_nanos(),
                step: step.as_str(),
                cause: match step {
                    Step::Died(cause) => Some(cause.as_str()),
                    Step::Up | Step::Suspected | Step::Doubted | Step::Recovered | Step::HalfClosed => None,
                },
            }
        }))
    }
}

#[derive(Serialize)]
struct TransitionPart {
    at_ns: u64,
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    event: &'static str,
    seq: u64,
    opened: u64,
    open: u64,
    died: u64,
    deaths: Deaths<'a>,
    suspected: u64,
    recovered: u64,
    visits: u64,
    stalls: u64,
    undelivered: u64,
    #[serde(flatten)]
    measures: &'a measure::Summary,
    ring: RingTotals,
    uptime_ms: u64,
    mono_ns: u64,
    time: &'a str,
}

struct Deaths<'a>(&'a Closing);

impl Serialize for Deaths<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (word, deaths) in self.0.deaths_by_word() {
            map.serialize_entry(word, &deaths)?;
        }
        map.end()
    }
}

#[cfg(test)]
pub(in crate::events) mod tests;
