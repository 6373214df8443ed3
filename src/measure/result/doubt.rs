//! Doubts: reasons not to trust a figure.

use serde::{Deserialize, Serialize};

/// A reason not to trust a figure, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Doubt {
    /// The kind, for programs.
    pub kind: DoubtKind,
    /// What was observed, with figures, and the way or the subject that it concerns.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// The kinds of doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoubtKind {
    /// The program was built without optimisation.
    DebugBuild,
    /// The injector missed its instants.
    InjectorLate,
    /// The load missed its schedule.
    LoadLate,
    /// There are too few samples for a usual percentile.
    TooFewSamples,
    /// Values lie beyond the range of the histogram.
    Clipped,
    /// Load and tracker took turns on a core.
    SharedCore,
    /// Rounds differ by more than they should.
    NoisyRounds,
    /// Other processes used the machine meanwhile.
    BusyMachine,
    /// The machine takes so long to wake a thread that latencies show the machine.
    SlowMachine,
    /// A part was left out for lack of rights or time.
    NotMeasured,
    /// A window is shorter than what it measures.
    ShortWindow,
    /// Verdicts do not match the deaths.
    Mistakes,
    /// Two results were measured on different engines.
    OtherEngine,
    /// A kind of a later program that this one does not know.
    #[serde(other)]
    Other,
}

impl DoubtKind {
    /// All kinds of doubt, in the order of reports.
    pub const ALL: [DoubtKind; 14] = [
        DoubtKind::DebugBuild,
        DoubtKind::InjectorLate,
        DoubtKind::LoadLate,
        DoubtKind::TooFewSamples,
        DoubtKind::Clipped,
        DoubtKind::SharedCore,
        DoubtKind::NoisyRounds,
        DoubtKind::BusyMachine,
        DoubtKind::SlowMachine,
        DoubtKind::NotMeasured,
        DoubtKind::ShortWindow,
        DoubtKind::Mistakes,
        DoubtKind::OtherEngine,
        DoubtKind::Other,
    ];
}
