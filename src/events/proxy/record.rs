//! The first line, what listens and by which rules, and the last one, what became of all exchanges.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::events::PROGRAM;
use crate::events::body::Shown;
use crate::events::encoder::Record;
use crate::events::human::{Colour, Count, HumanEncoder, Span};
use crate::events::json::{JsonEncoder, VERSION, millis};
use crate::events::start::{Start, list, shown};
use crate::liveness::Cause;
use crate::proxy::{ANSWERS, Counts, Phase};
use crate::time::Instant;

/// The first line: what listens, the upstreams, and the rules.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The process, its engine and its room.
    pub start: Start,
    /// The addresses or names of the upstreams.
    pub upstreams: Vec<String>,
    /// `http` or `tcp`.
    pub mode: &'static str,
    /// `probe`, `gone`, `wait:D` or `forward`.
    pub half_close: String,
    /// `reset`, `close` or `ignore`.
    pub on_gone: &'static str,
    /// How long silence lasts at least before it ends a connection.
    pub detection_time: Duration,
}

impl Record for Listening {
    fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let start = &self.start;
        json.line("listening", start.at, out, |body| {
            body.field("version", VERSION)
                .field("program", PROGRAM)
                .field("pid", start.pid)
                .field("address", Shown(&start.addresses[0]))
                .field("addresses", shown(&start.addresses))
                .field("upstreams", &self.upstreams)
                .field("mode", self.mode)
                .field("half_close", &self.half_close)
                .field("on_gone", self.on_gone)
                .field("engine", start.engine)
                .field("features", start.features.join(","))
                .maybe("why_not", start.why_not.as_ref())
                .field("threads", start.threads)
                .field("policy", start.policy_name)
                .field("detection_time_ms", millis(self.detection_time))
                .field("capacity", start.capacity);
        });
    }

    fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let Listening { start, mode, half_close, on_gone, .. } = self;
        let (policy, time) = (start.policy_name, Span(self.detection_time));
        let listens = format_args!("{} before {}", list(&start.addresses), self.upstreams.join(", "));
        let rules = format_args!(
            "mode {mode}; half-close: {half_close}; on gone: {on_gone}; policy {policy}: dead after at least {time} \
             of silence"
        );
        start.human([listens, rules], (None, "client"), human, out);
    }
}

/// The width of the column of labels: `while receiving: handshake_expired`.
const LABEL: usize = 34;

/// The last line.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// When all loops had ended.
    pub at: Instant,
    /// How long the program ran.
    pub uptime: Duration,
    /// The counts of all threads.
    pub counts: Counts,
    /// Lines that the sink did not take.
    pub undelivered: u64,
    /// How long exchanges had to come to their end.
    pub drained: Duration,
}

impl Record for Closing {
    fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let counts = &self.counts;
        json.line("summary", self.at, out, |body| {
            body.field("uptime_ms", millis(self.uptime))
                .field("opened", counts.opened)
                .field("open", counts.open)
                .field("completed", counts.completed)
                .field("interrupted", counts.interrupted)
                .field("saved", counts.saved)
                .field("by_phase", by_phase(counts))
                .object("half_closed", |body| {
                    body.field("asked", counts.asked)
                        .field("gone", counts.asked_gone)
                        .field("here", counts.asked_here);
                })
                .field("upstream_failed", counts.upstream_failed)
                .field("upstream_down", counts.upstream_down)
                .object("upstream_connections", |body| {
                    body.field("opened", counts.connects)
                        .field("reused", counts.reused)
                        .field("repeated", counts.repeated)
                        .field("waited", counts.waited);
                })
                .field("answered", answered(counts))
                .field("gave_way", counts.gave_way)
                .field("header_refused", counts.header_refused)
                .field("not_followed", counts.not_followed)
                .field("client_bytes", counts.client_bytes)
                .field("upstream_bytes", counts.upstream_bytes)
                .field("stalls", counts.stalls)
                .field("drained_ms", millis(self.drained))
                .field("cut", counts.cut.iter().sum::<u64>())
                .field("cut_by_phase", cut(counts))
                .field("dropped", counts.dropped)
                .field("log_dropped", counts.log_dropped)
                .field("undelivered", self.undelivered);
        });
    }

    fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let counts = &self.counts;
        let text = format!(
            "{} completed, {} interrupted in {}",
            Count(counts.completed, "exchange"),
            counts.interrupted,
            Span(self.uptime),
        );
        human.line(self.at, "summary", Colour::Cyan, &text, out);
        let mut row = |what: &str, count: u64| {
            if count > 0 {
                human.plain(format_args!("  {what:<LABEL$} {count:>9}"), out);
            }
        };
        for (phase, causes) in by_phase(counts) {
            for (cause, count) in causes {
                row(&format!("while {phase}: {cause}"), count);
            }
        }
        row("upstreams stopped early", counts.saved);
        row("half-closed clients: asked", counts.asked);
        row("half-closed clients: gone", counts.asked_gone);
        row("half-closed clients: here", counts.asked_here);
        row("upstream failures", counts.upstream_failed);
        row("upstreams left out", counts.upstream_down);
        for (status, count) in answered(counts) {
            row(&format!("answered here: {status}"), count);
        }
        row("idle clients that gave way", counts.gave_way);
        row("connections without a PROXY header", counts.header_refused);
        row("connections to upstreams", counts.connects);
        row("requests that took an idle one", counts.reused);
        row("requests that were sent again", counts.repeated);
        row("requests that waited for a place", counts.waited);
        row("connections not followed", counts.not_followed);
        row("clients", counts.opened);
        for (phase, count) in cut(counts) {
            row(&format!("cut off at the end: {phase}"), count);
        }
        row("events dropped", counts.dropped);
        row("lines of the access log dropped", counts.log_dropped);
        row("events not delivered", self.undelivered);
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

/// Answers of the proxy's own by their statuses, those that were.
fn answered(counts: &Counts) -> BTreeMap<u16, u64> {
    ANSWERS.into_iter().zip(counts.answered).filter(|&(_, count)| count > 0).collect()
}

/// What the end has cut off by the names of phases, those that were.
fn cut(counts: &Counts) -> BTreeMap<&'static str, u64> {
    Phase::ALL.map(Phase::as_str).into_iter().zip(counts.cut).filter(|&(_, count)| count > 0).collect()
}
