//! Reports: what a result says, in formats for people and for programs.
//!
//! # Intuition
//!
//! Measuring is slow and reading is fast. A report is made from the result file alone, so it can be made again in
//! another format or with another question.
//!
//! # Model
//!
//! [`figures`] derives plain numbers from a [`ResultFile`]. `sections` makes one `document` of them, and `text`,
//! `markdown` and `html` render it. `json` holds the figures for programs; `.hgrm` and `.hlog` hold the
//! histograms for other readers. A [threshold] asks for one figure by its [name](names). A latency log of `run` makes
//! a document of its own.
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

mod diff;
pub(super) mod document;
mod drawing;
pub mod figures;
mod hgrm;
mod hlog;
mod html;
mod json;
mod markdown;
pub mod names;
mod options;
mod sections;
pub mod series;
pub mod show;
mod text;
pub mod threshold;
pub mod unit;

pub use document::Stretch;
pub use options::{Format, Options, ReportError};

use super::log::Log;
use super::result::ResultFile;
use document::Document;
use figures::Figures;

/// Derives the figures of every result. `base` is as in [`Options`].
///
/// # Errors
///
/// When a comparison has no subject of the name of the base.
pub fn derive<'a>(results: &'a [ResultFile], base: Option<&str>) -> Result<Vec<Figures<'a>>, ReportError> {
    results.iter().map(|result| Figures::of(result, base)).collect()
}

/// Renders the report of one result, or of two side by side.
///
/// # Errors
///
/// When an option names what the results do not have, or the format takes one result only.
pub fn render(results: &[ResultFile], format: Format, options: &Options) -> Result<String, ReportError> {
    let figures = derive(results, options.base.as_deref())?;
    match format {
        Format::Json => Ok(json::render(&figures)),
        Format::Hlog => Ok(hlog::render(alone(&figures, ".hlog")?)),
        Format::Hgrm => {
            let series = series::find(alone(&figures, ".hgrm")?, options.series.as_deref())?;
            Ok(hgrm::render(&series))
        }
        Format::Text | Format::Markdown | Format::Html | Format::Svg => {
            rendered(&sections::document(&figures, options), format, options)
        }
    }
}

/// Renders the report of a latency log that `deadpeer run --latency-log` wrote.
///
/// # Errors
///
/// When the format is not text, Markdown or HTML.
pub fn render_log(log: &Log, format: Format, options: &Options) -> Result<String, ReportError> {
    rendered(&sections::log(log, options), format, options)
}

fn rendered(document: &Document, format: Format, options: &Options) -> Result<String, ReportError> {
    match format {
        Format::Text => Ok(text::render(document, options)),
        Format::Markdown => Ok(markdown::render(document)),
        Format::Html => Ok(html::render(document)),
        Format::Svg => html::picture(document, options.series.as_deref()),
        Format::Json => Err(ReportError::Log("json")),
        Format::Hgrm => Err(ReportError::Log("hgrm")),
        Format::Hlog => Err(ReportError::Log("hlog")),
    }
}

/// The only result, for formats that take one.
fn alone<'a, 'b>(figures: &'b [Figures<'a>], format: &'static str) -> Result<&'b Figures<'a>, ReportError> {
    match figures {
        [figures] => Ok(figures),
        _ => Err(ReportError::Alone(format)),
    }
}
