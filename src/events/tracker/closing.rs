//! The last line: what became of all connections, and how soon it was known.

use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::events::human::{Count, HumanEncoder, Numbers, Span};
use crate::events::json::{JsonEncoder, millis};
use crate::liveness::{Cause, TrackerCounts};
use crate::measure;
use crate::time::Instant;

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

    /// The number of deaths, over all causes.
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
    /// The number of operations submitted.
    pub submitted: u64,
    /// The number of completions reaped.
    pub completions: u64,
    /// Times that the completion queue was full.
    pub overflows: u64,
}

impl Closing {
    /// Appends the last line for programs.
    pub(super) fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let fields = SummaryFields {
            opened: self.opened,
            open: self.open,
            died: self.deaths(),
            deaths: Deaths(self),
            suspected: self.suspected,
            recovered: self.recovered,
            visits: self.visits,
            stalls: self.stalls,
            undelivered: self.undelivered,
            measures: &self.measures,
            ring: self.ring,
            uptime_ms: millis(self.uptime),
        };
        json.line("summary", None, self.at, &fields, out);
    }

    /// Appends the last lines for people.
    pub(super) fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
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
        for (what, unit, numbers) in [
            ("wake to verdict", "us", &measures.verdict_us),
            ("lateness of expiries", "us", &measures.lateness_us),
            ("silence before a verdict", "ms", &measures.silence_ms),
            ("heartbeat round trip", "us", &measures.rtt_us),
        ] {
            if numbers.count > 0 {
                human.plain(format_args!("  {what:<24} {}", Numbers { numbers, unit }), out);
            }
        }
        if self.undelivered > 0 {
            human.plain(format_args!("  {} not delivered", Count(self.undelivered, "event")), out);
        }
    }
}

#[derive(Serialize)]
struct SummaryFields<'a> {
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
