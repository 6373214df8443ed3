//! The same part of one result or of two.

use crate::measure::report::figures::Figures;

/// The names of two results.
pub(super) const SIDES: [&str; 2] = ["A", "B"];

/// One part of each result that has it.
pub(super) struct Parts<'a, T> {
    /// The parts with the places of their results.
    pub(super) known: Vec<(usize, &'a T)>,
    /// Whether the report is of two results.
    pub(super) two: bool,
}

pub(super) fn parts<'a, T>(
    results: &'a [Figures<'a>],
    part: fn(&'a Figures<'a>) -> Option<&'a T>,
) -> Parts<'a, T> {
    let known = results.iter().enumerate().filter_map(|(place, figures)| Some((place, part(figures)?)));
    Parts { known: known.collect(), two: results.len() > 1 }
}

impl<'a, T> Parts<'a, T> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a T> + '_ {
        self.known.iter().map(|(_, part)| *part)
    }

    /// What precedes a sentence about one of two results.
    pub(super) fn mark(&self, place: usize) -> String {
        if self.two { format!("{}: ", SIDES[place]) } else { String::new() }
    }

    /// A name with the mark of its result, where there are two.
    pub(super) fn named(&self, name: &str, place: usize) -> String {
        if self.two { format!("{name} {}", SIDES[place]) } else { name.to_owned() }
    }
}
