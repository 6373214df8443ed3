//! Plain numbers that are derived from what a result counted. Every format shows these.
//!
//! # Model
//!
//! [`Figures`] has a [`Spread`] for each way to die, the [`Qualities`] of the detector, and for a comparison a
//! [`Row`] for each subject with a [`Cell`] for each [`Figure`]. A cell's ratio is taken within each round, against
//! the base in the same round, and only then summarized over rounds: what the machine was doing in a round affects
//! both sides and cancels out.
//!
//! # Contract
//!
//! Pure and total: no result makes it panic. What was not measured, or is not carried by its sample, is `None`.

mod comparison;
mod detection;
mod figure;
mod spread;

pub use comparison::{Cell, Compared, Row};
pub use detection::{BareFigures, Detected, Qualities, WayFigures};
pub use figure::Figure;
pub use spread::{Rounds, Spread};

use super::options::ReportError;
use crate::measure::result::ResultFile;

/// The figures of one result.
#[derive(Clone, Debug)]
pub struct Figures<'a> {
    /// The result: machine, command line, doubts.
    pub result: &'a ResultFile,
    /// The detection experiment.
    pub detection: Option<Detected<'a>>,
    /// The figures of the comparison, if there was one.
    pub comparison: Option<Compared<'a>>,
}

impl<'a> Figures<'a> {
    /// Derives the figures. `base` names the subject that ratios are taken against; without it the base is
    /// `epoll`, else the first yardstick, else the first subject.
    ///
    /// # Errors
    ///
    /// When there is a comparison and no subject of that name in it.
    pub fn of(result: &'a ResultFile, base: Option<&str>) -> Result<Figures<'a>, ReportError> {
        let bare_recv = result.machine.bare_recv.as_ref().filter(|bare| bare.latency.count() > 0);
        let detection = result.experiment.as_ref().map(|experiment| Detected::of(experiment, bare_recv));
        let comparison = result.comparison.as_ref();
        let comparison = comparison.map(|comparison| Compared::of(comparison, base)).transpose()?;
        Ok(Figures { result, detection, comparison })
    }
}
