//! What each figure means.

use crate::measure::report::document::{Block, Row, Table};
use crate::measure::report::figures::{Figure, Figures};
use crate::measure::result::Way;

pub(super) fn block(results: &[Figures<'_>]) -> Block {
    let mut table = Table::new("Definitions", ["term", "meaning"]);
    let mut add = |term: &str, meaning: String| table.rows.push(Row::from_iter([term.to_owned(), meaning]));
    if results.iter().any(|figures| figures.detection.is_some()) {
        Way::ALL
            .into_iter()
            .for_each(|way| add(way.as_str(), format!("From {}, to the verdict.", begins(way))));
    }
    if results.iter().any(|figures| figures.comparison.is_some()) {
        Figure::ALL.into_iter().for_each(|figure| add(figure.title(), figure.meaning().to_owned()));
    }
    TERMS.into_iter().for_each(|(term, meaning)| add(term, meaning.to_owned()));
    Block::Fold("What each figure means".to_owned(), vec![Block::Table(table)])
}

/// The instant from which the latency of a way counts.
fn begins(way: Way) -> &'static str {
    match way {
        Way::Fin => "the instant at which an orderly close (FIN) was scheduled",
        Way::Rst => "the instant at which a reset (RST) was scheduled",
        Way::DataRst => "the instant at which bytes, and a reset behind them, were scheduled",
        Way::HalfClose => "the instant at which the FIN was scheduled, of a peer that goes on reading",
        Way::HalfCloseRst => "the instant at which the reset was scheduled, some time after a FIN",
        Way::Silence => {
            "last sign of life + detection time; the connection stands and the peer sends nothing"
        }
        Way::Stop => "last sign of life + detection time; the process is stopped, its kernel still answers",
        Way::PathLoss => "last sign of life + detection time; the path loses every packet",
    }
}

const TERMS: [(&str, &str); 9] = [
    (
        "-",
        "Not measured, or not carried by the sample: at least ten values must lie beyond a percentile, so p99 needs \
         1,000 deaths and p99.99 needs 100,000.",
    ),
    (
        "told",
        "Deaths with a verdict in time: the samples of the percentiles. A missed death is not among them.",
    ),
    ("doubled", "Verdicts beyond the first for the same death."),
    ("misnamed", "Verdicts with another cause than that of the way."),
    ("early", "Verdicts of silence before the detection time had passed. They are not in the percentiles."),
    (
        "injector late",
        "From the scheduled instant to the system call that causes the death. It is part of the latency.",
    ),
    (
        "bare recv",
        "A yardstick, no tracker: before anything else ran, one thread waited in recv for one FIN. From the scheduled \
         instant to the return of the call.",
    ),
    (
        "mistake",
        "A living peer that was suspected, or called half-closed or dead. The duration lasts until the mistake was \
         taken back.",
    ),
    (
        "ratio",
        "Taken within each round, against the base in the same round, so that the state of the machine affects both; \
         then the least, the median and the greatest over rounds.",
    ),
];
