//! The latency log: a thread that writes each ring's intervals as they are closed.
//!
//! A file that takes no more is said once, and tried again with the next interval: a daemon does not end for its own
//! statistics. Each line is whole or not there. What could not be written is in the summary all the same.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;
use std::{fmt, thread};

use crate::driver::Report;
use crate::limits;
use crate::measure::Recorder;
use crate::measure::hlog::HlogWriter;
use crate::measure::intervals::{Basin, Interval, Tap, basin};
use crate::sys::{describe, process};
use crate::time::{Instant, WallClock};

/// Why there is no latency log.
#[derive(Debug)]
pub struct LatencyLogError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for LatencyLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, error) = (self.path.display(), describe(&self.source));
        write!(
            f,
            "cannot write the latency log {path}: {error}; name a file that can be written with --latency-log"
        )
    }
}

impl std::error::Error for LatencyLogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The thread, and what it will leave.
#[derive(Debug)]
pub struct LatencyLog {
    done: Receiver<Writer>,
}

impl LatencyLog {
    /// Opens the file, to append to it, and starts the thread. There is a tap for each ring.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or the thread not started.
    pub fn start(
        path: &Path,
        every: Duration,
        rings: usize,
    ) -> Result<(LatencyLog, Vec<Tap>), LatencyLogError> {
        let failed = |source| LatencyLogError { path: path.to_owned(), source };
        let now = Instant::now();
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        let whole = file.metadata().map_err(failed)?.len();
        let comment =
            concat!("deadpeer ", env!("CARGO_PKG_VERSION"), ", nanoseconds; batch-size in completions");
        let since_epoch = WallClock::read().since_epoch(now);
        let out = HlogWriter::begin(Lines { file, whole }, since_epoch, &[comment]).map_err(failed)?;
        let (basin, taps) = basin(rings, every, now);
        let mut writer =
            Writer { out, path: path.to_owned(), start: now, totals: Recorder::new(), complained: false };
        let (tell, done) = sync_channel(1);
        let run = move || {
            process::schedule_as_batch();
            writer.run(&basin);
            let _ = tell.send(writer); // nobody listens who ran out of patience
        };
        thread::Builder::new().name("latency-log".to_owned()).spawn(run).map_err(failed)?;
        Ok((LatencyLog { done }, taps))
    }

    /// Once the rings have ended: writes what they had not handed over, and returns all that was written before. `None`
    /// when the disk is stuck.
    #[must_use]
    pub fn finish(self, reports: &[Report]) -> Option<Recorder> {
        let mut writer = self.done.recv_timeout(limits::SHUTDOWN_PATIENCE / 3).ok()?;
        let to = Instant::now();
        for report in reports {
            if let Some(from) = report.measured_since {
                writer.write(&report.recorder, from, to);
            }
        }
        Some(writer.totals)
    }
}

/// The thread's own.
#[derive(Debug)]
struct Writer {
    out: HlogWriter<Lines>,
    path: PathBuf,
    start: Instant,
    totals: Recorder,
    complained: bool,
}

impl Writer {
    fn run(&mut self, basin: &Basin) {
        while let Ok(Interval { ring, from, to, recorder }) = basin.next() {
            self.write(&recorder, from, to);
            self.totals.merge(&recorder);
            basin.give_back(ring, recorder);
        }
    }

    fn write(&mut self, recorder: &Recorder, from: Instant, to: Instant) {
        let (start, length) = (from.since(self.start), to.since(from));
        for (tag, histogram) in recorder.histograms() {
            if histogram.is_empty() {
                continue;
            }
            if let Err(source) = self.out.interval(tag, start, length, histogram) {
                if !std::mem::replace(&mut self.complained, true) {
                    let path = self.path.display();
                    let error = describe(&source);
                    let _ = writeln!(
                        io::stderr(),
                        "deadpeer run: the latency log {path} takes no more: {error}; free some space, it is tried again \
                         with every interval"
                    );
                }
                return;
            }
        }
    }
}

/// A file that has whole writes only: half a line would spoil all that follow.
#[derive(Debug)]
struct Lines {
    file: File,
    whole: u64,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.file.write_all(line) {
            // What is no regular file cannot be cut, and needs not be.
            let _ = self.file.set_len(self.whole);
            return Err(error);
        }
        self.whole += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
