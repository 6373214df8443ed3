//! `deadpeer report`: what a result of `deadpeer bench` says, in the format that is wanted.
//!
//! The report on standard output or in a file; failed thresholds on standard error, a line each. Exit code 0, 1
//! when a file cannot be read or written, 2 for wrong arguments, 3 when a threshold failed.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::duration;
use crate::cli::exit::{ExitError, exit};
use crate::limits::MAX_RESULT_BYTES;
use crate::measure::report::threshold::{Threshold, ThresholdError};
use crate::measure::report::{Format, Options, ReportError, derive, render};
use crate::measure::result::ResultFile;
use crate::sys::describe;

/// Arguments of `deadpeer report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// The file that `deadpeer bench --out` wrote
    #[arg(value_name = "RESULT")]
    pub first: PathBuf,

    /// A second one, to be held against the first
    #[arg(value_name = "RESULT2")]
    pub second: Option<PathBuf>,

    /// What the report looks like
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Shape::Text)]
    pub format: Shape,

    /// Write the report to this file instead of standard output
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,

    /// The compared subject that ratios are taken against [default: epoll, or the first yardstick]
    #[arg(long, value_name = "NAME")]
    pub base: Option<String>,

    /// The series of a .hgrm, as detect.fin [default: the first; a wrong name lists them]
    #[arg(long, value_name = "NAME")]
    pub series: Option<String>,

    /// Exit with code 3 if this is true, or if there is no such figure; may be given several times
    ///
    /// NAME OP VALUE, as 'detect.fin.p99>2ms'. OP is one of > >= < <=. VALUE is a duration (2ms), bytes
    /// (300, 1KiB) or a number, as NAME wants it. Names:
    ///
    ///   detect.WAY.{p50,p90,p99,p999,p9999,max,mean,min,count,missed,doubled,early,misnamed},
    ///   detect.SUBJECT.{p50,...,max,mean,min,count,missed,false_verdicts},
    ///   injector.WAY.p99, silence.WAY.p99, quality.{mistakes,false_verdicts,mistake_rate},
    ///   quality.{detection_time,mistake_duration}.p99,
    ///   {cpu,machine,accept,death,detect-p50,detect-p99,detect-max,user,kernel,storm}.SUBJECT for the median
    ///   over rounds, SUBJECT/OTHER for the ratio (cpu.deadpeer/epoll>0.03), and .min or .max behind it for
    ///   the least or greatest round, change.NAME for the ratio of the second result to the first.
    #[arg(long = "fail-if", value_name = "CONDITION", value_parser = threshold, verbatim_doc_comment)]
    pub fail_if: Vec<Threshold>,
}

/// The formats, as arguments have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Tables and bars for a terminal
    Text,
    /// Tables for a README
    Markdown,
    /// The derived figures, for programs
    Json,
    /// The percentile spectrum of one series, for HdrHistogram's plotters
    Hgrm,
    /// All histograms by interval and tag, for HdrHistogram's log readers
    Hlog,
    /// One self-contained page
    Html,
}

impl From<Shape> for Format {
    fn from(shape: Shape) -> Format {
        match shape {
            Shape::Text => Format::Text,
            Shape::Markdown => Format::Markdown,
            Shape::Json => Format::Json,
            Shape::Hgrm => Format::Hgrm,
            Shape::Hlog => Format::Hlog,
            Shape::Html => Format::Html,
        }
    }
}

fn threshold(text: &str) -> Result<Threshold, ThresholdError> {
    Threshold::parse(text, duration::parse)
}

impl From<ReportError> for ExitError {
    fn from(error: ReportError) -> ExitError {
        ExitError::usage(error)
    }
}

impl From<ThresholdError> for ExitError {
    fn from(error: ThresholdError) -> ExitError {
        ExitError::usage(error)
    }
}

/// Runs `deadpeer report`.
#[must_use]
pub fn report(args: ReportArgs) -> ExitCode {
    let failed = match make(&args) {
        Ok(failed) => failed,
        Err(error) => return exit("report", Err(error)),
    };
    for line in &failed {
        let _ = writeln!(io::stderr(), "deadpeer report: failed: {line}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

/// Writes the report and gives the thresholds that failed.
fn make(args: &ReportArgs) -> Result<Vec<String>, ExitError> {
    let paths = [Some(&args.first), args.second.as_ref()].into_iter().flatten();
    let results: Vec<ResultFile> = paths.map(|path| read(path)).collect::<Result<_, _>>()?;
    // Thresholds first: a name that is wrong is said before anything is written.
    let mut failed = Vec::new();
    if !args.fail_if.is_empty() {
        let figures = derive(&results, args.base.as_deref())?;
        for threshold in &args.fail_if {
            failed.extend(threshold.failure(&figures)?);
        }
    }
    let text = render(&results, args.format.into(), &options(args))?;
    match &args.out {
        Some(path) => {
            fs::write(path, text).map_err(|error| unwritable(&path.display().to_string(), &error))?
        }
        None => print(&text)?,
    }
    Ok(failed)
}

fn read(path: &Path) -> Result<ResultFile, ExitError> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let error = describe(&error);
        ExitError::failed(format!("cannot read the result {shown}: {error}; give a file that bench wrote"))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_RESULT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_RESULT_BYTES {
        let most = MAX_RESULT_BYTES;
        return Err(ExitError::failed(format!(
            "{shown} is larger than any result of bench: more than {most} bytes"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| ExitError::failed(format!("{shown} is not text, as every result of bench is")))?;
    ResultFile::parse(&text).map_err(|error| ExitError::failed(format!("{shown} is {error}")))
}

fn options(args: &ReportArgs) -> Options {
    let own = if args.out.is_none() { for_standard_output() } else { Options::default() };
    Options { base: args.base.clone(), series: args.series.clone(), ..own }
}

/// How standard output wants it: a terminal has a width, and bold letters unless NO_COLOR or TERM says otherwise.
pub(super) fn for_standard_output() -> Options {
    let terminal = io::stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let width = terminal.then(terminal_size::terminal_size).flatten().map(|(width, _)| width.0);
    Options { width, bold: terminal && !plain, ..Options::default() }
}

fn print(text: &str) -> Result<(), ExitError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed our output has seen enough; that is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable("standard output", &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn unwritable(place: &str, error: &io::Error) -> ExitError {
    let error = describe(error);
    ExitError::failed(format!("cannot write the report to {place}: {error}; name another place with --out"))
}
