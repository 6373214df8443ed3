//! The last line: what became of all exchanges.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::events::human::{Colour, HumanEncoder, Span};
use crate::events::json::{JsonEncoder, millis};
use crate::liveness::Cause;
use crate::proxy::{Counts, Phase};
use crate::time::Instant;

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
}

impl Closing {
    /// Appends the last line for programs.
    pub(super) fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let counts = &self.counts;
        let fields = SummaryFields {
            uptime_ms: millis(self.uptime),
            opened: counts.opened,
            open: counts.open,
            completed: counts.completed,
            interrupted: counts.interrupted(),
            saved: counts.saved,
            by_phase: by_phase(counts),
            half_closed: ProbeFields {
                asked: counts.asked,
                gone: counts.asked_gone,
                here: counts.asked_here,
            },
            upstream_failed: counts.upstream_failed,
            not_followed: counts.not_followed,
            client_bytes: counts.client_bytes,
            upstream_bytes: counts.upstream_bytes,
            stalls: counts.stalls,
            undelivered: self.undelivered,
        };
        json.line("summary", None, self.at, &fields, out);
    }

    /// Appends the last lines for people.
    pub(super) fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let counts = &self.counts;
        let text = format!(
            "completed {}, interrupted {} ({} spared the upstream the rest), half-closed clients asked {} times \
             (gone {}, here {}), upstream failures {}, connections {}, in {}",
            counts.completed,
            counts.interrupted(),
            counts.saved,
            counts.asked,
            counts.asked_gone,
            counts.asked_here,
            counts.upstream_failed,
            counts.opened,
            Span(self.uptime),
        );
        human.line(self.at, "summary", Colour::Cyan, &text, out);
        for (phase, causes) in by_phase(counts) {
            for (cause, count) in causes {
                human.plain(format_args!("              {count:>8}  while {phase}: {cause}"), out);
            }
        }
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

/// Probes of half-closed clients, and their outcomes.
#[derive(Serialize)]
struct ProbeFields {
    asked: u64,
    gone: u64,
    here: u64,
}

#[derive(Serialize)]
struct SummaryFields {
    uptime_ms: u64,
    opened: u64,
    open: u64,
    completed: u64,
    interrupted: u64,
    saved: u64,
    by_phase: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    half_closed: ProbeFields,
    upstream_failed: u64,
    not_followed: u64,
    client_bytes: u64,
    upstream_bytes: u64,
    stalls: u64,
    undelivered: u64,
}
