//! What a reader of a report may choose, and why there is no report.

use std::fmt;

/// The formats of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// Tables and bars for a terminal.
    Text,
    /// Tables for a README.
    Markdown,
    /// The derived figures, for programs.
    Json,
    /// The percentile spectrum of one series, for HdrHistogram's plotters.
    Hgrm,
    /// All histograms by interval and tag, for HdrHistogram's log readers.
    Hlog,
    /// One self-contained page.
    Html,
    /// One chart of that page, as a picture of its own.
    Svg,
}

/// The choices of a reader.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The subject that ratios are taken against.
    pub base: Option<String>,
    /// The series of a `.hgrm`, or the id of the chart of an SVG.
    pub series: Option<String>,
    /// The names of the files, in the order of the results. A report without names calls them A and B.
    pub files: Vec<String>,
    /// The thresholds that were asked, and why each failed; `None`: it holds.
    pub thresholds: Vec<(String, Option<String>)>,
    /// The columns of the terminal. `None`: lines have any length.
    pub width: Option<u16>,
    /// Whether the terminal shows bold letters.
    pub bold: bool,
    /// Whether the text format shows what is folded.
    pub full: bool,
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// No subject has the name of the base.
    Base {
        /// The name that was asked for.
        wanted: String,
        /// The names of the subjects.
        names: Vec<String>,
    },
    /// No series has the name.
    Series {
        /// The name that was asked for.
        wanted: String,
        /// The names of the series.
        names: Vec<String>,
    },
    /// The result has no histogram.
    Empty,
    /// The format takes one file only.
    Alone(&'static str),
    /// The format is not made of a latency log.
    Log(&'static str),
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
            ReportError::Alone(what) => write!(out, "a {what} is made of one file: leave the second out"),
            ReportError::Log(format) => {
                write!(out, "a report of a latency log is text, markdown, html or svg, not {format}")
            }
        }
    }
}

impl std::error::Error for ReportError {}
