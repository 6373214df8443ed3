//! The state of a comparison while it runs.

use super::doubts::Doubts;
use super::life::Stage;
use super::options::Options;
use crate::bench::Observer;
use crate::measure::result::Run;

/// The state that all parts of a comparison share.
pub(super) struct Bench<'a, 'w> {
    pub(super) options: &'a Options,
    pub(super) stage: Stage,
    pub(super) doubts: Doubts,
    pub(super) observer: &'a mut Observer<'w>,
    pub(super) runs: Vec<Run>,
}
