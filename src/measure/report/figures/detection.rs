//! The figures of a detection experiment.

use serde::Serialize;

use super::spread::Spread;
use crate::measure::recorded::Recorded;
use crate::measure::result::{BareRecv, Basis, Experiment, Settings, Way, WayResult};

/// The figures of an experiment.
#[derive(Clone, Debug, Serialize)]
pub struct Detected<'a> {
    /// The settings of the experiment.
    pub settings: &'a Settings,
    /// The ways to die, in the order of the file.
    pub ways: Vec<WayFigures<'a>>,
    /// The time that the machine takes for a death without any tracker.
    pub bare_recv: Option<BareFigures<'a>>,
    /// The qualities of the detector.
    pub qualities: Qualities,
}

/// The figures of one way to die.
#[derive(Clone, Debug, Serialize)]
pub struct WayFigures<'a> {
    /// The way to die.
    pub way: Way,
    /// The instant from which `latency` counts.
    pub basis: Basis,
    /// The reason why it was not run.
    pub not_run: Option<&'a str>,
    /// Deaths that were caused.
    pub injected: u64,
    /// Deaths with a verdict in time.
    pub told: u64,
    /// Deaths without a verdict.
    pub missed: u64,
    /// Verdicts beyond the first for the same death.
    pub doubled: u64,
    /// Verdicts with another cause than expected.
    pub misnamed: u64,
    /// Verdicts before the basis.
    pub early: u64,
    /// From the basis to the verdict.
    pub latency: Spread,
    /// From the last sign of life to the verdict, where the basis is the expiry.
    pub silence: Option<Spread>,
    /// From the scheduled instant to the injector's system call.
    pub injector_late: Spread,
    /// The record in the result, for charts.
    #[serde(skip)]
    pub source: &'a WayResult,
}

/// The figures of the bare `recv`, a yardstick for the ways to die.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BareFigures<'a> {
    /// From the scheduled instant to the return of the `recv`.
    pub latency: Spread,
    /// From the scheduled instant to the system call that ended the connection.
    pub injector_late: Spread,
    /// The record in the result, for charts.
    #[serde(skip)]
    pub source: &'a Recorded,
}

/// The qualities of a failure detector, after Chen, Toueg and Aguilera.
#[derive(Clone, Debug, Serialize)]
pub struct Qualities {
    /// The detection time that the policy promises.
    pub promised_ns: u64,
    /// The detection time that was measured: from the last sign of life to the verdict, over all silent ways.
    pub detection_time: Spread,
    /// Connection-time watched.
    pub watched_ns: u64,
    /// Living peers that were suspected or called dead.
    pub mistakes: u64,
    /// Living peers that were called dead.
    pub false_verdicts: u64,
    /// Mistake rate: mistakes in an hour of one connection.
    pub mistakes_per_hour: Option<f64>,
    /// From a mistake until it was taken back.
    pub mistake_duration: Spread,
}

impl<'a> Detected<'a> {
    /// Derives the figures of an experiment.
    pub(super) fn of(experiment: &'a Experiment, bare_recv: Option<&'a BareRecv>) -> Detected<'a> {
        let mut silences = Recorded::new();
        experiment
            .ways
            .iter()
            .filter_map(|way| way.silence.as_ref())
            .for_each(|silence| silences.merge(silence));
        let quality = &experiment.quality;
        let hours = quality.watched_ns as f64 / 3.6e12;
        Detected {
            settings: &experiment.settings,
            ways: experiment.ways.iter().map(way_figures).collect(),
            bare_recv: bare_recv.map(|bare| BareFigures {
                latency: Spread::of(&bare.latency),
                injector_late: Spread::of(&bare.injector_late),
                source: &bare.latency,
            }),
            qualities: Qualities {
                promised_ns: experiment.settings.detection_time_ns,
                detection_time: Spread::of(&silences),
                watched_ns: quality.watched_ns,
                mistakes: quality.mistakes,
                false_verdicts: quality.false_verdicts,
                mistakes_per_hour: (hours > 0.0).then(|| quality.mistakes as f64 / hours),
                mistake_duration: Spread::of(&quality.mistake_duration),
            },
        }
    }

    /// The figures of a way. `None`: the way was not asked for.
    #[must_use]
    pub fn find(&self, way: Way) -> Option<&WayFigures<'a>> {
        self.ways.iter().find(|found| found.way == way)
    }
}

impl WayFigures<'_> {
    /// The kinds of faults with their counts.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, u64); 4] {
        [
            ("missed", self.missed),
            ("doubled", self.doubled),
            ("misnamed", self.misnamed),
            ("early", self.early),
        ]
    }
}

fn way_figures(way: &WayResult) -> WayFigures<'_> {
    WayFigures {
        way: way.way,
        basis: way.basis,
        not_run: way.not_run.as_deref(),
        injected: way.injected,
        told: way.told,
        missed: way.missed,
        doubled: way.doubled,
        misnamed: way.misnamed,
        early: way.early,
        latency: Spread::of(&way.latency),
        silence: way.silence.as_ref().map(Spread::of),
        injector_late: Spread::of(&way.injector_late),
        source: way,
    }
}
