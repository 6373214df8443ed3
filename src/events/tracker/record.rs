//! The first line, what listens and by which rules it judges, and the last one, what became of all connections.

use std::time::Duration;

use crate::events::PROGRAM;
use crate::events::body::Shown;
use crate::events::encoder::Record;
use crate::events::human::{Count, HumanEncoder, Span, numbers};
use crate::events::json::{JsonEncoder, VERSION, micros, millis};
use crate::events::start::{Start, list, shown};
use crate::liveness::{Cause, Heartbeat, Policy, TrackerCounts};
use crate::measure;
use crate::sys::engine::Counters;
use crate::time::Instant;

/// The first line: what listens, and by which rules it judges.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The process, its engine and its room.
    pub start: Start,
    /// The runtime that waits for it, if that is not a thread of its own.
    pub host: Option<&'static str>,
    /// The times by which peers are judged.
    pub policy: Policy,
    /// `lazy` or `beat`.
    pub wake: &'static str,
    /// Unread bytes that may lie in a socket (`SO_RCVLOWAT`).
    pub unread: u32,
    /// How long a batch of completions may be waited for.
    pub batch_window: Duration,
}

impl Record for Listening {
    fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let (start, policy) = (&self.start, &self.policy);
        let keepalive = policy.keepalive();
        json.line("listening", start.at, out, |body| {
            body.field("address", Shown(&start.addresses[0]))
                .field("addresses", shown(&start.addresses))
                .field("version", VERSION)
                .field("program", PROGRAM)
                .field("pid", start.pid)
                .field("engine", start.engine)
                .maybe("host", self.host)
                .field("features", start.features.join(","))
                .maybe("why_not", start.why_not.as_ref())
                .field("threads", start.threads)
                .field("policy", start.policy_name)
                .field("heartbeat", policy.heartbeat.as_str())
                .field("wake", self.wake)
                .field("detection_time_ms", millis(policy.detection_time()))
                .field("idle_ms", millis(policy.idle))
                .field("interval_ms", millis(policy.interval))
                .field("probes", policy.probes)
                .field("handshake_ms", millis(policy.handshake))
                .field("half_closed_grace_ms", millis(policy.half_closed_grace))
                .object("keepalive", |body| {
                    body.field("idle_s", keepalive.idle)
                        .field("interval_s", keepalive.interval)
                        .field("count", keepalive.count)
                        .maybe("user_timeout_ms", keepalive.user_timeout.map(millis));
                })
                .field("unread", self.unread)
                .field("capacity", start.capacity)
                .field("batch_window_us", micros(self.batch_window));
        });
    }

    fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let (start, policy) = (&self.start, &self.policy);
        let life = match policy.heartbeat {
            Heartbeat::Bytes => "any byte is life",
            Heartbeat::Frames => "heartbeat frames are life",
            Heartbeat::None => "TCP keepalive is life",
        };
        let (name, idle, interval) = (start.policy_name, Span(policy.idle), Span(policy.interval));
        let (dead, probes) = (Span(policy.detection_time()), policy.probes);
        let rules = format_args!(
            "policy {name}: {life}; suspect after {idle}, dead after {dead} ({idle} + {probes} x {interval})"
        );
        let listens = format_args!("{}", list(&start.addresses));
        start.human([listens, rules], (self.host, "connection"), human, out);
    }
}

/// The width of the column of causes: `handshake_expired`.
const CAUSE: usize = 17;

/// The last line: what became of all connections, and how soon it was known.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// When all loops had ended.
    pub at: Instant,
    /// How long the program ran.
    pub uptime: Duration,
    /// The number of connections accepted.
    pub opened: u64,
    /// Connections that were open at the end.
    pub open: u64,
    /// Deaths by [`Cause::code`].
    pub died: [u64; Cause::ALL.len()],
    /// The number of suspicions.
    pub suspected: u64,
    /// The number of suspects that recovered.
    pub recovered: u64,
    /// The number of visits to peers.
    pub visits: u64,
    /// Stalls of a loop of ours.
    pub stalls: u64,
    /// Events that the sink could not take before the end.
    pub undelivered: u64,
    /// The percentiles of what was measured.
    pub measures: measure::Summary,
    /// What the rings did.
    pub ring: Counters,
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

    /// The number of deaths, over all causes.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.died.iter().sum()
    }

    /// Deaths by the words of [`Cause::as_str`], zeros too, in the order of [`Cause::ALL`].
    pub fn deaths_by_word(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let words = || Cause::ALL.into_iter().map(Cause::as_str);
        // Causes of one word need not stand side by side: the code of a new one is the next number.
        let first = move |&(index, word): &(usize, &str)| !words().take(index).any(|before| before == word);
        words().enumerate().filter(first).map(move |(_, word)| {
            let deaths = words().zip(self.died).filter(|&(other, _)| other == word).map(|(_, deaths)| deaths);
            (word, deaths.sum())
        })
    }
}

impl Record for Closing {
    fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let measure::Summary { verdict_us, lateness_us, silence_ms, loop_turn_us, batch, rtt_us, turns } =
            &self.measures;
        let Counters { enters, submitted, completions, overflows } = self.ring;
        json.line("summary", self.at, out, |body| {
            body.field("opened", self.opened)
                .field("open", self.open)
                .field("died", self.deaths())
                .object("deaths", |body| {
                    for (word, deaths) in self.deaths_by_word() {
                        body.field(word, deaths);
                    }
                })
                .field("suspected", self.suspected)
                .field("recovered", self.recovered)
                .field("visits", self.visits)
                .field("stalls", self.stalls)
                .field("undelivered", self.undelivered)
                .field("verdict_us", verdict_us)
                .field("lateness_us", lateness_us)
                .field("silence_ms", silence_ms)
                .field("loop_turn_us", loop_turn_us)
                .field("batch", batch)
                .field("rtt_us", rtt_us)
                .field("turns", turns)
                .object("ring", |body| {
                    body.field("enters", enters)
                        .field("submitted", submitted)
                        .field("completions", completions)
                        .field("overflows", overflows);
                })
                .field("uptime_ms", millis(self.uptime));
        });
    }

    fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let (time, deaths, uptime) = (human.time_of_day(self.at), self.deaths(), Span(self.uptime));
        let Closing { opened, open, suspected, recovered, .. } = self;
        human.plain(format_args!("{time}  {opened} opened, {open} open, {deaths} died in {uptime}"), out);
        for (word, deaths) in self.deaths_by_word().filter(|&(_, deaths)| deaths > 0) {
            human.plain(format_args!("  {word:<CAUSE$} {deaths:>9}"), out);
        }
        let stalls = match self.stalls {
            0 => String::new(),
            stalls => format!(", {} of our own", Count(stalls, "stall")),
        };
        human.plain(format_args!("  {suspected} suspected, {recovered} recovered{stalls}"), out);
        let measures = &self.measures;
        for (what, unit, sample) in [
            ("wake to verdict", "us", &measures.verdict_us),
            ("lateness of expiries", "us", &measures.lateness_us),
            ("silence before a verdict", "ms", &measures.silence_ms),
            ("heartbeat round trip", "us", &measures.rtt_us),
        ] {
            if sample.count > 0 {
                human.plain(format_args!("  {what:<24} {}", numbers(sample, unit)), out);
            }
        }
        if self.undelivered > 0 {
            human.plain(format_args!("  {} not delivered", Count(self.undelivered, "event")), out);
        }
    }
}
