//! Events for people: one sentence a line.
//!
//! # Intuition
//!
//! Somebody looks at a terminal because a peer is gone, and asks why. A line answers in words that
//! need no manual: when, what, who, and then the proof as a sentence. Programs have
//! [`jsonl`](crate::events::json::tracker); nothing here is for them, and the words may change.
//!
//! # Model
//!
//! ```text
//! 12:00:01.234Z  died         127.0.0.1:40312        heartbeat_expired  silent 7.003 s, program silent, …
//! ```
//!
//! A [`Printer`] appends lines to a buffer of the caller's. On a terminal it also keeps a status
//! line at the bottom, which is cleared before lines are written and written anew after them.
//!
//! # Contract
//!
//! - A line is a line: no byte that a peer chose reaches the terminal as a control character.
//! - Without colour and status, no escape sequence is written.
//! - Times of day are UTC, marked by a `Z`.
//!
//! # Example
//!
//! ```
//! use deadpeer::events::human::tracker::Printer;
//! use deadpeer::tracking::LocalAddresses;
//! use deadpeer::liveness::{Event, EventKind};
//! use deadpeer::time::{Instant, WallClock};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! let mut printer = Printer::new(Arc::new(LocalAddresses::new()), false, false);
//! printer.set_clock(WallClock::fixed(0));
//! let held = Duration::from_millis(1_234);
//! let stall = Event { at: Instant::from_nanos(5_000_000), subject: None, kind: EventKind::Stall { held } };
//! let mut lines = Vec::new();
//! printer.event(0, &stall, &mut lines);
//! let line = String::from_utf8(lines).unwrap();
//! assert!(line.starts_with("00:00:00.005Z  stall        our own loop was held up for 1.234 s"), "{line}");
//! ```

use std::fmt::{self, Display};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::events::counters::Totals;
use crate::events::json::tracker::{Closing, Errno, Listening, PROGRAM};
use crate::liveness::{Cause, Death, Event, EventKind, Heartbeat, Hop, LocalCause, Transport};
use crate::measure::Percentiles;
use crate::time::{Instant, WallClock};
use crate::tracking::LocalAddresses;

/// The longest word of the first column: `half_closed`, `path_outage`.
const WORD: usize = 11;
/// The longest IPv4 address with its port; a longer one widens the column for what follows.
const ADDRESS: usize = 21;
/// The longest cause: `handshake_expired`.
const CAUSE: usize = 17;

/// Back to the first column, and everything behind it away (ECMA-48: CR, EL).
const CLEAR_LINE: &str = "\r\x1b[K";

/// A colour of the terminal's own palette (ECMA-48: SGR), so that it suits its background.
#[derive(Clone, Copy)]
enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Magenta = 35,
    Cyan = 36,
}

/// Turns events into lines.
#[derive(Debug)]
pub struct Printer {
    wall: WallClock,
    locals: Arc<LocalAddresses>,
    colour: bool,
    status: bool,
    address_width: usize,
    /// When the rates were last counted, from what, and what they were.
    counted: Option<(Instant, Totals)>,
    rates: (f64, f64),
}

impl Printer {
    /// A printer. It reads the clock.
    #[must_use]
    pub fn new(locals: Arc<LocalAddresses>, colour: bool, status: bool) -> Printer {
        Printer {
            wall: WallClock::read(),
            locals,
            colour,
            status,
            address_width: ADDRESS,
            counted: None,
            rates: (0.0, 0.0),
        }
    }

    /// Sets the relation between clock and date; to be read anew for every batch.
    pub fn set_clock(&mut self, wall: WallClock) {
        self.wall = wall;
    }

    /// Appends the first line: what listens, and what may be expected of it.
    pub fn listening(&mut self, listening: &Listening, out: &mut Vec<u8>) {
        let addresses: Vec<_> = listening.addresses.iter().map(ToString::to_string).collect();
        let policy = &listening.policy;
        let life = match policy.heartbeat {
            Heartbeat::Bytes => "any byte is life",
            Heartbeat::Frames => "heartbeat frames are life",
            Heartbeat::None => "TCP keepalive is life",
        };
        append(out, format_args!("{PROGRAM} listens on {}\n", addresses.join(", ")));
        append(
            out,
            format_args!(
                "policy {}: {life}; suspect after {}, dead after {} ({} + {} x {})\n",
                listening.policy_name,
                Span(policy.idle),
                Span(policy.detection_time()),
                Span(policy.idle),
                policy.probes,
                Span(policy.interval),
            ),
        );
        append(
            out,
            format_args!(
                "{}{}, {}, room for {}\n",
                listening.engine,
                Granted(listening),
                Count(listening.threads as u64, "thread"),
                Count(listening.capacity, "connection"),
            ),
        );
        if let Some(why_not) = &listening.why_not {
            append(out, format_args!("why not better: {why_not}\n"));
        }
    }

    /// Appends the line of an event of the ring thread `thread`.
    pub fn event(&mut self, thread: usize, event: &Event, out: &mut Vec<u8>) {
        let (word, colour) = match &event.kind {
            EventKind::Up => ("up", Colour::Green),
            EventKind::Suspected { .. } => ("suspected", Colour::Yellow),
            EventKind::Recovered { .. } => ("recovered", Colour::Green),
            EventKind::HalfClosed => ("half_closed", Colour::Cyan),
            EventKind::Died(_) => ("died", Colour::Red),
            EventKind::Stall { .. } => ("stall", Colour::Magenta),
            EventKind::PathOutage { .. } => ("path_outage", Colour::Magenta),
            EventKind::Saturated { .. } => ("saturated", Colour::Magenta),
            EventKind::Resumed => ("resumed", Colour::Green),
        };
        let start = out.len();
        append(out, format_args!("{}  ", self.time_of_day(event.at)));
        if self.colour {
            append(out, format_args!("\x1b[{}m{word:<WORD$}\x1b[0m  ", colour as u8));
        } else {
            append(out, format_args!("{word:<WORD$}  "));
        }
        if let Some(subject) = &event.subject {
            let address = subject.address.to_string();
            self.address_width = self.address_width.max(address.len());
            append(out, format_args!("{address:<width$}  ", width = self.address_width));
        }
        match &event.kind {
            EventKind::Up => {
                if let Some(local) = event.subject.as_ref().and_then(|s| self.locals.get(s.local)) {
                    append(out, format_args!("on {local}"));
                }
            }
            EventKind::Suspected { silent_for, doubt: false } => {
                append(out, format_args!("silent {}, being asked", Span(*silent_for)));
            }
            EventKind::Suspected { doubt: true, .. } => {
                append(out, format_args!("its path does not deliver, being asked"));
            }
            EventKind::Recovered { suspected_for } => {
                append(out, format_args!("spoke again after {} of doubt", Span(*suspected_for)));
            }
            EventKind::HalfClosed => append(out, format_args!("writes no more (FIN), may still read")),
            EventKind::Died(death) => {
                append(out, format_args!("{:<CAUSE$}  {}", death.cause.as_str(), Sentence(death)));
            }
            EventKind::Stall { held } => append(
                out,
                format_args!(
                    "our own loop was held up for {}; every deadline is put off by as much (thread {thread})",
                    Span(*held)
                ),
            ),
            EventKind::PathOutage { suspects, peers } => append(
                out,
                format_args!(
                    "{suspects} of {peers} peers are silent and their kernels too: a path is down (thread {thread})"
                ),
            ),
            EventKind::Saturated { limit } => append(
                out,
                format_args!(
                    "at the limit ({}): new connections wait in the backlog (thread {thread})",
                    Plain(limit)
                ),
            ),
            EventKind::Resumed => append(out, format_args!("accepting again (thread {thread})")),
        }
        if let Some(identity) = event.subject.as_ref().and_then(|subject| subject.identity.as_deref()) {
            append(out, format_args!("  [{}]", Plain(identity)));
        }
        while out.len() > start && out.last() == Some(&b' ') {
            out.pop();
        }
        out.push(b'\n');
    }

    /// Appends the last lines: what became of everybody, and how soon it was known.
    pub fn summary(&mut self, closing: &Closing, out: &mut Vec<u8>) {
        append(
            out,
            format_args!(
                "{}  {} opened, {} open, {} died in {}\n",
                self.time_of_day(closing.at),
                closing.opened,
                closing.open,
                closing.deaths(),
                Span(closing.uptime)
            ),
        );
        for (word, deaths) in closing.deaths_by_word().filter(|&(_, deaths)| deaths > 0) {
            append(out, format_args!("  {word:<CAUSE$} {deaths:>9}\n"));
        }
        append(out, format_args!("  {} suspected, {} recovered", closing.suspected, closing.recovered));
        if closing.stalls > 0 {
            append(out, format_args!(", {} of our own", Count(closing.stalls, "stall")));
        }
        out.push(b'\n');
        let measures = &closing.measures;
        for (what, unit, numbers) in [
            ("wake to verdict", "us", &measures.verdict_us),
            ("lateness of expiries", "us", &measures.lateness_us),
            ("silence before a verdict", "ms", &measures.silence_ms),
            ("heartbeat round trip", "us", &measures.rtt_us),
        ] {
            if numbers.count > 0 {
                append(out, format_args!("  {what:<24} {}\n", Numbers { numbers, unit }));
            }
        }
        if closing.undelivered > 0 {
            append(out, format_args!("  {} not delivered\n", Count(closing.undelivered, "event")));
        }
    }

    /// Whether it keeps a status line.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.status
    }

    /// Clears the status line, so that lines can take its place. Nothing without a status line.
    pub fn clear_status(&mut self, out: &mut Vec<u8>) {
        if self.status {
            out.extend_from_slice(CLEAR_LINE.as_bytes());
        }
    }

    /// Writes the status line, without an end of line. Nothing without a status line.
    pub fn status(&mut self, totals: Totals, now: Instant, out: &mut Vec<u8>) {
        if !self.status {
            return;
        }
        // Rates over at least a second: over less they flicker.
        match self.counted {
            None => self.counted = Some((now, totals)),
            Some((then, before)) if now.since(then) >= Duration::from_secs(1) => {
                let seconds = now.since(then).as_secs_f64();
                let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
                self.rates = (rate(totals.opened, before.opened), rate(totals.died, before.died));
                self.counted = Some((now, totals));
            }
            Some(_) => {}
        }
        let Totals { alive, suspects, half_closed, died, .. } = totals;
        let (opening, dying) = self.rates;
        append(
            out,
            format_args!(
                "{CLEAR_LINE}{alive} alive, {suspects} suspect, {half_closed} half-closed, {died} died  \
                 (+{opening:.0}/s -{dying:.0}/s)"
            ),
        );
    }

    /// `12:00:01.234Z`.
    fn time_of_day(&self, at: Instant) -> String {
        let date = self.wall.rfc3339(at);
        let time = date.split_once('T').map_or("", |(_, time)| time);
        format!("{}Z", time.get(..12).unwrap_or(time))
    }
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every byte");
}

/// Why a peer is held to be dead, for somebody who knows TCP by name.
struct Sentence<'a>(&'a Death);

impl Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sentence(death) = *self;
        let (proof, evidence) = (&death.proof, &death.proof.evidence);
        let silent = Span(death.silent_for());
        let errno = MaybeErrno(proof.errno.or(evidence.so_error.filter(|&errno| errno != 0)));
        match death.cause {
            Cause::Closed if proof.bye => write!(f, "said goodbye (BYE)")?,
            Cause::Closed => write!(f, "hung up (FIN)")?,
            Cause::Aborted => match errno {
                MaybeErrno(None) => write!(f, "reset the connection (RST)")?,
                errno => write!(f, "reset the connection{errno}")?,
            },
            Cause::HeartbeatExpired => {
                write!(f, "silent {silent}, program silent, ")?;
                match proof.transport {
                    Transport::Answering => {
                        let ack = Span(Duration::from_millis(u64::from(evidence.last_ack_ms)));
                        write!(f, "kernel answering (last ack {ack} ago)")?;
                    }
                    Transport::Silent => write!(f, "kernel silent too{}", Unanswered(death))?,
                    Transport::Unasked => write!(f, "kernel not asked")?,
                }
            }
            Cause::KeepaliveExpired if proof.errno.is_some() => {
                write!(f, "silent {silent}, its kernel answered no keepalive{errno}")?;
            }
            Cause::KeepaliveExpired => {
                write!(f, "silent {silent}, its kernel does not answer{}", Unanswered(death))?;
            }
            Cause::UserTimeout => {
                write!(f, "did not acknowledge what we sent{errno}")?;
            }
            Cause::Unreachable(Hop::Host) => write!(f, "its host cannot be reached{errno}")?,
            Cause::Unreachable(Hop::Net) => write!(f, "its network cannot be reached{errno}")?,
            Cause::HandshakeExpired => {
                write!(f, "connected and did not speak for {silent}")?;
                if death.bytes > 0 {
                    write!(f, " (no complete heartbeat)")?;
                }
            }
            Cause::Protocol => match proof.frame {
                Some(error) => write!(f, "sent what is no heartbeat: {error}")?,
                None => write!(f, "sent what is no heartbeat")?,
            },
            Cause::Local(LocalCause::Destroyed) => write!(f, "killed on this machine, as by ss -K{errno}")?,
            Cause::Local(LocalCause::Shutdown) => write!(f, "our own side was shut down{errno}")?,
            Cause::Local(LocalCause::Unwatchable) => {
                write!(f, "could not be watched: our fault, not the peer's{errno}")?;
            }
        }
        if proof.outage {
            write!(f, "; half of all peers are silent, so rather a path than this peer")?;
        }
        write!(f, "; lived {}, {}", Span(death.at.since(death.accepted_at)), Count(death.bytes, "byte"))
    }
}

/// ` (ECONNRESET)`, or nothing.
struct MaybeErrno(Option<i32>);

impl Display for MaybeErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(errno) => write!(f, " ({})", Errno(errno)),
            None => Ok(()),
        }
    }
}

/// ` (3 probes and 2 retransmissions unanswered)`, or nothing.
struct Unanswered<'a>(&'a Death);

impl Display for Unanswered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evidence = &self.0.proof.evidence;
        match (u64::from(evidence.probes), u64::from(evidence.retransmits)) {
            (0, 0) => Ok(()),
            (probes, 0) => write!(f, " ({} unanswered)", Count(probes, "probe")),
            (0, retransmits) => write!(f, " ({} unanswered)", Count(retransmits, "retransmission")),
            (probes, retransmits) => write!(
                f,
                " ({} and {} unanswered)",
                Count(probes, "probe"),
                Count(retransmits, "retransmission")
            ),
        }
    }
}

struct Count(u64, &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A length of time in the two units that matter.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match seconds {
            0..60 if millis == 0 => write!(f, "{seconds} s"),
            0..60 => write!(f, "{seconds}.{millis:03} s"),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} min", seconds / 3_600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
        }
    }
}

/// Percentiles in a line, those that the sample carries.
struct Numbers<'a> {
    numbers: &'a Percentiles,
    unit: &'static str,
}

impl Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles { count, min, p50, p90, p99, p999, max, clipped: _ } = *self.numbers;
        let named = [("min", min), ("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max)];
        for (name, value) in named {
            if let Some(value) = value {
                write!(f, "{name} {value} {}, ", self.unit)?;
            }
        }
        write!(f, "of {count}")
    }
}

/// Text of a stranger's: what would move a terminal's cursor, or turn the direction of what
/// follows, is spelled out.
struct Plain<'a>(&'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // Besides control characters: line and paragraph separators, invisible marks, and the
            // embeddings and overrides of Unicode's bidirectional algorithm (UAX 9).
            let hidden = c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if hidden {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

/// What the kernel granted the engine, and who hosts it.
struct Granted<'a>(&'a Listening);

impl fmt::Display for Granted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = self.0.host {
            write!(f, " in {host}")?;
        }
        if self.0.features.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.0.features.join(", "))
    }
}
