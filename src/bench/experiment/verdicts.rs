//! Compares the deaths that were caused with the events that the tracker reported. Pure.
//!
//! # The rules
//!
//! - `fin`, `half-close`: the first of `half_closed` and `died` is the verdict: a FIN is all that the tracker can see.
//!   The `died` after the grace is not measured, but it must come.
//! - `rst`, `data-rst`: `died` is the verdict.
//! - `half-close-rst`: `died` is the verdict, and its latency counts from the reset; `half_closed` must come before.
//! - `silence`, `stop`, `path-loss`: `died` is the verdict, and its latency counts from the last sign of life plus the
//!   detection time. Which beats still arrived while a path was being lost is known from the tracker's count of bytes.
//! - An event before the peer's death began is about a living peer: a mistake. `recovered` or the peer's death
//!   ends a mistake.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::bench::peers::Caused;
use crate::measure::recorded::Recorded;
use crate::measure::result::{Basis, Interval, Quality, Way, WayResult};

/// The kinds of events that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedKind {
    Suspected,
    Recovered,
    HalfClosed,
    Died,
}

#[derive(Clone, Debug)]
pub struct ReportedEvent {
    pub kind: ReportedKind,
    pub peer: SocketAddr,
    /// Its instant, CLOCK_MONOTONIC.
    pub at: u64,
    /// The cause of a death; else empty.
    pub cause: String,
    /// Of a death: the number of bytes that the tracker received.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The instant of the first beat.
    pub start: u64,
    /// The instant of the last death. The time from `start` until here is cut into intervals.
    pub end: u64,
    /// The detection time: from the last sign of life to the verdict, in nanoseconds.
    pub detection: u64,
    /// The number of all peers, dead ones included.
    pub connections: u64,
}

const INTERVALS: u64 = 30;

/// The causes that a death of this way may have.
pub(in crate::bench) const fn causes(way: Way) -> &'static [&'static str] {
    match way {
        Way::Fin | Way::HalfClose => &["closed"],
        Way::Rst | Way::DataRst | Way::HalfCloseRst => &["aborted"],
        Way::Silence | Way::Stop => &["heartbeat_expired"],
        // The kernel may notice the loss before the tracker.
        Way::PathLoss => &["heartbeat_expired", "unreachable"],
    }
}

/// The events of one peer so far.
struct Story<'a> {
    caused: &'a Caused,
    verdict: Option<u64>,
    half_closed: bool,
    deaths: u64,
}

impl Story<'_> {
    /// Whether one of the two events of a FIN and of the death behind it is missing.
    fn is_half(&self) -> bool {
        match self.caused.way {
            Way::Fin | Way::HalfClose => self.deaths == 0,
            Way::HalfCloseRst => !self.half_closed,
            Way::Rst | Way::DataRst | Way::Silence | Way::Stop | Way::PathLoss => false,
        }
    }
}

/// Compares all deaths and events. The results are in the order of [`Way::ALL`].
pub fn judge(
    ways: &[Way],
    caused: &[Caused],
    reported: &[ReportedEvent],
    frame: Frame,
) -> (Vec<WayResult>, Quality) {
    let mut results: BTreeMap<Way, WayResult> = ways.iter().map(|&way| (way, blank(way, frame))).collect();
    let mut stories: HashMap<SocketAddr, Story<'_>> = HashMap::with_capacity(caused.len());
    for death in caused {
        stories.insert(death.peer, Story { caused: death, verdict: None, half_closed: false, deaths: 0 });
        if let Some(result) = results.get_mut(&death.way) {
            result.injected += 1;
            result.injector_late.record(death.called.saturating_sub(death.at));
        }
    }
    let mut quality = Quality::default();
    let mut open: HashMap<SocketAddr, u64> = HashMap::new();
    for event in reported {
        let story = stories.get_mut(&event.peer);
        let begun = story.as_ref().map_or(u64::MAX, |story| begun(story.caused));
        if event.kind == ReportedKind::Recovered {
            if let Some(since) = open.remove(&event.peer) {
                quality.mistake_duration.record(event.at.saturating_sub(since));
            }
            continue;
        }
        if event.at < begun {
            if open.insert(event.peer, event.at).is_none() {
                quality.mistakes += 1;
            }
            if event.kind == ReportedKind::Died {
                quality.false_verdicts += 1;
                if let Some(story) = story {
                    story.deaths += 1;
                    // A wrong verdict is one, too: no second one is due.
                    story.verdict = Some(event.at);
                    if let Some(result) = results.get_mut(&story.caused.way) {
                        result.early += 1;
                    }
                }
            }
            continue;
        }
        if let (Some(since), Some(_)) = (open.remove(&event.peer), &story) {
            quality.mistake_duration.record(begun.saturating_sub(since));
        }
        if let Some(story) = story
            && let Some(result) = results.get_mut(&story.caused.way)
        {
            add(story, event, result, frame);
        }
    }
    for story in stories.values() {
        if let Some(result) = results.get_mut(&story.caused.way) {
            result.missed += u64::from(story.verdict.is_none());
            result.misnamed += u64::from(story.verdict.is_some() && story.is_half());
        }
        quality.watched_ns += story.caused.at.saturating_sub(frame.start);
    }
    let living = frame.connections.saturating_sub(stories.len() as u64);
    quality.watched_ns += living * frame.end.saturating_sub(frame.start);
    (results.into_values().collect(), quality)
}

/// The instant at which the peer's death began: an event before it is a mistake.
fn begun(caused: &Caused) -> u64 {
    match caused.way {
        // Its FIN is not sent before this instant.
        Way::HalfCloseRst => caused.fin_at,
        Way::Silence | Way::Stop | Way::PathLoss => caused.last_beat.min(caused.at),
        Way::Fin | Way::Rst | Way::DataRst | Way::HalfClose => caused.called,
    }
}

/// Adds an event of a peer whose death had begun.
fn add(story: &mut Story<'_>, event: &ReportedEvent, result: &mut WayResult, frame: Frame) {
    let way = story.caused.way;
    match event.kind {
        ReportedKind::Suspected | ReportedKind::Recovered => {}
        ReportedKind::HalfClosed => {
            story.half_closed = true;
            match way {
                Way::Fin | Way::HalfClose if story.verdict.is_none() => measure(story, event, result, frame),
                // A second one, or one after `died`.
                Way::Fin | Way::HalfClose => result.doubled += 1,
                Way::HalfCloseRst => {}
                Way::Rst | Way::DataRst | Way::Silence | Way::Stop | Way::PathLoss => result.misnamed += 1,
            }
        }
        ReportedKind::Died => {
            story.deaths += 1;
            if story.deaths > 1 {
                result.doubled += 1;
                return;
            }
            result.misnamed += u64::from(!causes(way).contains(&event.cause.as_str()));
            if story.verdict.is_none() {
                measure(story, event, result, frame);
            }
        }
    }
}

fn measure(story: &mut Story<'_>, event: &ReportedEvent, result: &mut WayResult, frame: Frame) {
    story.verdict = Some(event.at);
    let caused = story.caused;
    let life = match caused.way {
        Way::PathLoss => arrived(caused, event.bytes),
        _ => caused.last_beat,
    };
    let basis = match caused.way.basis() {
        Basis::Scheduled => caused.at,
        Basis::Expiry => life + frame.detection,
    };
    if event.at < basis {
        result.early += 1;
        return;
    }
    let latency = event.at - basis;
    result.told += 1;
    result.latency.record(latency);
    if let Some(silence) = &mut result.silence {
        silence.record(event.at - life);
    }
    let position = caused.at.saturating_sub(frame.start) / result.intervals[0].length_ns;
    let last = result.intervals.len() - 1;
    let position = usize::try_from(position).unwrap_or(last).min(last);
    result.intervals[position].latency.record(latency);
}

/// The instant of the last beat that the tracker received, by its count of bytes.
fn arrived(caused: &Caused, bytes: u64) -> u64 {
    let received = caused.sent.iter().rev().find(|(_, sent)| *sent <= bytes);
    received.map_or(caused.last_beat.min(caused.at), |(at, _)| *at)
}

fn blank(way: Way, frame: Frame) -> WayResult {
    let length_ns = (frame.end.saturating_sub(frame.start) / INTERVALS).max(1);
    let interval = |number| Interval { from_ns: number * length_ns, length_ns, latency: Recorded::new() };
    WayResult {
        way,
        basis: way.basis(),
        not_run: None,
        injected: 0,
        told: 0,
        missed: 0,
        doubled: 0,
        misnamed: 0,
        early: 0,
        latency: Recorded::new(),
        silence: (way.basis() == Basis::Expiry).then(Recorded::new),
        injector_late: Recorded::new(),
        intervals: (0..INTERVALS).map(interval).collect(),
    }
}

/// The result of a way that was not run, with the reason.
pub fn not_run(way: Way, why: String, frame: Frame) -> WayResult {
    WayResult { not_run: Some(why), ..blank(way, frame) }
}

#[cfg(test)]
mod tests;
