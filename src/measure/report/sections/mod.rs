//! The sections of a report: what is said, and in which order.
//!
//! A section is added here and in its own file. The renderers need no change.

mod circumstances;
mod comparison;
mod definitions;
mod detection;
mod diff;
mod log;
mod parts;
mod timeline;
mod verdict;

pub use log::document as log;
use parts::{SIDES, parts};

use super::document::{Document, Section};
use super::figures::Figures;
use super::options::Options;

/// The report of one result, or of two side by side. Further results are left out.
pub fn document(results: &[Figures<'_>], options: &Options) -> Document {
    let results = &results[..results.len().min(SIDES.len())];
    let mut sections = vec![verdict::section(results, options)];
    sections.extend(diff::section(results));
    sections.extend(detection::sections(&parts(results, |figures| figures.detection.as_ref())));
    sections.extend(comparison::section(&parts(results, |figures| figures.comparison.as_ref())));
    sections.push(Section {
        title: "Circumstances and definitions",
        blocks: vec![circumstances::block(results), definitions::block(results)],
    });
    Document { title: title(results, options), sections }
}

fn title(results: &[Figures<'_>], options: &Options) -> String {
    let name = |place: usize| options.files.get(place).cloned();
    match results {
        [] => "deadpeer: no result".to_owned(),
        [one] => {
            let measured = || format!("measured {}", one.result.started);
            format!("deadpeer {}: {}", one.result.program.version, name(0).unwrap_or_else(measured))
        }
        more => {
            let named = more.iter().enumerate().map(|(place, figures)| {
                let file = name(place).unwrap_or_else(|| format!("measured {}", figures.result.started));
                format!("{} is {file}", SIDES[place])
            });
            format!("deadpeer, two results: {}", named.collect::<Vec<_>>().join(", "))
        }
    }
}
