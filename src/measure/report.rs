//! Reports: what a result says, in the formats that people and programs read.
//!
//! # Intuition
//!
//! Measuring is dear and reading is cheap. So a report is made from the result file alone, as often as
//! anybody likes, in any format, with any question, and always comes out the same.
//!
//! # Model
//!
//! [`figures`] derives plain numbers from a [`ResultFile`]; every format writes those down:
//! for a terminal, for a README, for programs, for a browser. `.hgrm` and `.hlog` are the histograms
//! themselves, as other people's readers want them. A [threshold] asks for one number by its
//! name.
//!
//! # Contract
//!
//! - Pure: no clock, no descriptor, no environment.
//! - What was not measured, or is not carried by its sample, is `-` or null.
//!
//! # Example
//!
//! ```no_run
//! use deadpeer::measure::report::{Format, Options, render};
//! use deadpeer::measure::result::ResultFile;
//!
//! let result = ResultFile::parse(&std::fs::read_to_string("result.json")?)?;
//! let report = render(&[result], Format::Markdown, &Options::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bars;
mod beside;
pub mod document;
pub mod figures;
pub mod hgrm;
pub mod hlog;
pub mod html;
pub mod json;
pub mod markdown;
pub mod names;
pub mod series;
pub mod show;
pub mod text;
pub mod threshold;

use std::fmt;

use super::result::ResultFile;
use figures::Figures;
use series::Series;

/// What a report may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables and bars for a terminal.
    Text,
    /// Tables for a README.
    Markdown,
    /// The derived figures, for programs.
    Json,
    /// The percentile spectrum of one series.
    Hgrm,
    /// All histograms, by interval and tag.
    Hlog,
    /// One self-contained page.
    Html,
}

/// What a reader may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The subject that ratios are taken against.
    pub base: Option<String>,
    /// The series of a `.hgrm`.
    pub series: Option<String>,
    /// Columns of the terminal; without them text is as wide as it is.
    pub width: Option<u16>,
    /// Whether the terminal shows bold.
    pub bold: bool,
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// There is no subject of that name to take ratios against.
    Base {
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// There is no series of that name.
    Series {
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// Nothing was measured that has a histogram.
    Empty,
    /// The format has no place for a second result.
    Alone(&'static str),
}

impl fmt::Display for ReportError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReportError::Base { wanted, names } => {
                let names = names.join(", ");
                write!(out, "no subject is called `{wanted}`; ratios can be taken against: {names}")
            }
            ReportError::Series { wanted, names } => {
                let names = names.join(", ");
                write!(out, "no series is called `{wanted}`; there are: {names}")
            }
            ReportError::Empty => write!(out, "the result has no latency at all: nothing was measured"),
            ReportError::Alone(format) => {
                write!(out, "a {format} is made of one result: leave the second out")
            }
        }
    }
}

impl std::error::Error for ReportError {}

/// Derives the figures of every result. `base` is as in [`Options`].
///
/// # Errors
///
/// When there is a comparison without such a base.
pub fn derive<'a>(results: &'a [ResultFile], base: Option<&str>) -> Result<Vec<Figures<'a>>, ReportError> {
    results.iter().map(|result| Figures::of(result, base)).collect()
}

/// Writes the report of one result, or of two side by side.
///
/// # Errors
///
/// When an option names what the results do not have.
pub fn render(results: &[ResultFile], format: Format, options: &Options) -> Result<String, ReportError> {
    let figures = derive(results, options.base.as_deref())?;
    Ok(match format {
        Format::Html => html::render(&figures),
        Format::Text => text::render(&document::document(&figures), options),
        Format::Markdown => markdown::render(&document::document(&figures)),
        Format::Json => json::render(&figures),
        Format::Hlog => hlog::render(alone(&figures, ".hlog")?),
        Format::Hgrm => hgrm::render(&chosen(alone(&figures, ".hgrm")?, options.series.as_deref())?),
    })
}

/// The one result of a format that has no place for two.
fn alone<'a, 'b>(figures: &'b [Figures<'a>], format: &'static str) -> Result<&'b Figures<'a>, ReportError> {
    match figures {
        [figures] => Ok(figures),
        _ => Err(ReportError::Alone(format)),
    }
}

fn chosen<'a>(figures: &Figures<'a>, wanted: Option<&str>) -> Result<Series<'a>, ReportError> {
    let mut all = series::all(figures);
    let found = match wanted {
        Some(wanted) => all.iter().position(|series| series.name == wanted),
        None => (!all.is_empty()).then_some(0),
    };
    let names = || all.iter().map(|series| series.name.clone()).collect();
    match (found, wanted) {
        (Some(found), _) => Ok(all.swap_remove(found)),
        (None, Some(wanted)) => Err(ReportError::Series { wanted: wanted.to_owned(), names: names() }),
        (None, None) => Err(ReportError::Empty),
    }
}
