//! `deadpeer report`: the report of a result of `deadpeer bench`, or of a latency log of `deadpeer run`.
//!
//! The report goes to standard output or to a file, failed thresholds go to standard error, a line each. Exit code 0;
//! 1 when a file cannot be read or written, 2 for wrong arguments, 3 when a threshold failed.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::cli::duration;
use crate::cli::exit::{ExitError, exit};
use crate::limits::{MAX_LOG_BYTES, MAX_RESULT_BYTES};
use crate::measure::log::Log;
use crate::measure::report::threshold::{Threshold, ThresholdError};
use crate::measure::report::{Format, Options, ReportError, derive, render, render_log};
use crate::measure::result::ResultFile;
use crate::sys::describe;

/// Arguments of `deadpeer report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// A file that `deadpeer bench --out` or `deadpeer run --latency-log` wrote
    #[arg(value_name = "RESULT")]
    pub first: PathBuf,

    /// A second result: the report shows what became better or worse
    #[arg(value_name = "RESULT2")]
    pub second: Option<PathBuf>,

    /// The format of the report
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Write the report to this file instead of standard output
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,

    /// Show what the text format folds: doubts, all percentiles, all subjects, circumstances, definitions
    #[arg(long)]
    pub full: bool,

    /// The compared subject that ratios are taken against [default: epoll, or the first yardstick]
    #[arg(long, value_name = "NAME")]
    pub base: Option<String>,

    /// The series of a .hgrm, as detect.fin, or the chart of an .svg, as ratio-cpu [default: the first; a wrong name lists them]
    #[arg(long, value_name = "NAME")]
    pub series: Option<String>,

    /// Exit with code 3 if this is true, or if there is no such figure; may be given several times
    ///
    /// NAME OP VALUE, as 'detect.fin.p99>2ms'. OP is one of > >= < <=.
    /// VALUE is a duration (2ms), bytes (300, 1KiB) or a number, as NAME
    /// wants it. A name is one of:
    ///
    ///   detect.WAY.FIGURE       FIGURE: p50, p90, p99, p999, p9999, max,
    ///                           mean, min, count, missed, doubled, early,
    ///                           misnamed
    ///   detect.SUBJECT.FIGURE   FIGURE: the same up to count; missed,
    ///                           false_verdicts
    ///   silence.WAY.FIGURE      the silence until the verdict
    ///   injector.WAY.FIGURE     the lateness of the injector
    ///   quality.FIGURE          mistakes, false_verdicts, mistake_rate,
    ///                           detection_time.p99, mistake_duration.p99
    ///   COST.SUBJECT            the median over rounds. COST: cpu, machine,
    ///                           accept, death, detect-p50, detect-p99,
    ///                           detect-max, user, kernel, unread, storm,
    ///                           storm-reset, storm-turn, rate-1, rate-10,
    ///                           rate-100, stream-time, stream-cpu
    ///   COST.SUBJECT/OTHER      the median ratio (cpu.deadpeer/epoll>0.03)
    ///   COST.SUBJECT.min, .max  the least, the greatest round
    ///   change.NAME             the second result to the first
    #[arg(long = "fail-if", value_name = "CONDITION", value_parser = threshold, verbatim_doc_comment)]
    pub fail_if: Vec<Threshold>,
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

/// Writes the report and returns the thresholds that failed.
fn make(args: &ReportArgs) -> Result<Vec<String>, ExitError> {
    let paths = [Some(&args.first), args.second.as_ref()].into_iter().flatten();
    let files: Vec<Contents> = paths.map(|path| read(path)).collect::<Result<_, _>>()?;
    let mut options = options(args);
    let mut results = Vec::new();
    for file in files {
        match file {
            Contents::Result(result) => results.push(*result),
            Contents::Log(_) if args.second.is_some() => {
                return Err(ReportError::Alone("report of a latency log").into());
            }
            Contents::Log(_) if !args.fail_if.is_empty() => {
                return Err(ExitError::usage(
                    "a latency log has no figures for --fail-if: give a result of bench",
                ));
            }
            Contents::Log(log) => {
                let text = render_log(&log, args.format, &options)?;
                return write(args, &text).map(|()| Vec::new());
            }
        }
    }
    // Thresholds come first: a wrong name is an error before anything is written.
    if !args.fail_if.is_empty() {
        let figures = derive(&results, args.base.as_deref())?;
        for threshold in &args.fail_if {
            options.thresholds.push((threshold.to_string(), threshold.failure(&figures)?));
        }
    }
    write(args, &render(&results, args.format, &options)?)?;
    Ok(options.thresholds.into_iter().filter_map(|(_, failure)| failure).collect())
}

fn write(args: &ReportArgs, text: &str) -> Result<(), ExitError> {
    let written = args.out.as_ref().map_or_else(|| print(text), |path| fs::write(path, text));
    written.map_err(|error| {
        let place = args.out.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
        let error = describe(&error);
        ExitError::failed(format!(
            "cannot write the report to {place}: {error}; name another place with --out"
        ))
    })
}

/// What a file holds.
enum Contents {
    Result(Box<ResultFile>),
    Log(Log),
}

fn read(path: &Path) -> Result<Contents, ExitError> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let error = describe(&error);
        ExitError::failed(format!("cannot read the result {shown}: {error}; give a file that bench wrote"))
    };
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(unreadable)?.take(MAX_LOG_BYTES + 1);
    // Only a log may be larger than a result, so its begin is read first.
    file.by_ref().take(MAX_RESULT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let log = Log::is_log(&String::from_utf8_lossy(&bytes[..bytes.len().min(16)]));
    if log {
        file.read_to_end(&mut bytes).map_err(unreadable)?;
    }
    let most = if log { MAX_LOG_BYTES } else { MAX_RESULT_BYTES };
    if bytes.len() as u64 > most {
        return Err(ExitError::failed(format!(
            "{shown} is larger than a report reads: more than {most} bytes"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| ExitError::failed(format!("{shown} is not text, as every result of bench is")))?;
    let refused = |error: &dyn std::fmt::Display| ExitError::failed(format!("{shown} is {error}"));
    if log {
        return Log::parse(&text).map(Contents::Log).map_err(|error| refused(&error));
    }
    let result = ResultFile::parse(&text).map_err(|error| refused(&error))?;
    Ok(Contents::Result(Box::new(result)))
}

fn options(args: &ReportArgs) -> Options {
    let own = if args.out.is_none() { for_standard_output() } else { Options::default() };
    let paths = [Some(&args.first), args.second.as_ref()].into_iter().flatten();
    let files = paths.map(|path| path.display().to_string()).collect();
    Options { base: args.base.clone(), series: args.series.clone(), full: args.full, files, ..own }
}

/// The options for standard output: a terminal has a width, and bold letters unless NO_COLOR or TERM forbids them.
/// COLUMNS sets the width.
pub(super) fn for_standard_output() -> Options {
    let terminal = io::stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let columns =
        std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let width =
        columns.or_else(|| terminal.then(terminal_size::terminal_size).flatten().map(|(width, _)| width.0));
    Options { width, bold: terminal && !plain, ..Options::default() }
}

/// Writes a report to standard output.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that closed our output has seen enough. That is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
