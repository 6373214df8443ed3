//! The latency log: a thread that writes the histograms of each loop, interval by interval.
//!
//! A write that fails is reported once and tried again with the next interval: the program does not end for its own
//! statistics. The file holds whole lines only: the rest of a line that a full disk or a crash left is cut off. A file
//! that was emptied from outside (`copytruncate`) begins with a header again. An interval is added to the totals before
//! it is written, so the summary has it in any case.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cli::exit::ExitError;
use crate::limits;
use crate::measure::Recorder;
use crate::measure::hlog::{HlogWriter, complete_lines};
use crate::measure::intervals::{Interval, IntervalReceiver, IntervalSender, channel};
use crate::sys::{describe, process};
use crate::time::{Instant, WallClock};
use crate::tracking::Report;

/// The end of a line is looked for in this many bytes. A line has some hundreds, and at most 10 KB.
const TAIL: u64 = 64 * 1024;

/// The latency log's thread, and the totals of what it wrote.
#[derive(Debug)]
pub struct LatencyLog {
    books: Arc<Mutex<Books>>,
    done: Receiver<Writer>,
}

/// The intervals that wait, and the sum of all others. Locked while the thread waits for an interval, never while it
/// writes.
#[derive(Debug)]
struct Books {
    basin: IntervalReceiver,
    totals: Recorder,
}

impl Books {
    /// The next interval, which is added to the totals; `None` when all loops have ended.
    fn next(&mut self) -> Option<Interval> {
        let interval = self.basin.next().ok()?;
        self.totals.merge(&interval.recorder);
        Some(interval)
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    // After a panic of the other thread, at most one interval is added in part.
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LatencyLog {
    /// Opens the file for appending and starts the thread. Returns a tap for each loop. The thread drops `guard` at its
    /// end.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or holds something else, or when the thread cannot be started.
    pub(super) fn start(
        path: &Path,
        every: Duration,
        rings: usize,
        guard: impl Send + 'static,
    ) -> Result<(LatencyLog, Vec<IntervalSender>), ExitError> {
        let failed = |error| {
            let (path, error) = (path.display(), describe(&error));
            ExitError::failed(format!(
                "cannot write the latency log {path}: {error}; name a file that can be written with --latency-log"
            ))
        };
        let now = Instant::now();
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        mend(path, &file).map_err(failed)?;
        let comment =
            concat!("deadpeer ", env!("CARGO_PKG_VERSION"), ", nanoseconds; ", "batch-size: completions");
        let since_epoch = WallClock::read().since_epoch(now);
        let out =
            HlogWriter::begin(Lines { file, header: Vec::new() }, since_epoch, &[comment]).map_err(failed)?;
        let (basin, taps) = channel(rings, every, now);
        let books = Arc::new(Mutex::new(Books { basin, totals: Recorder::new() }));
        let mut writer = Writer { out, path: path.to_owned(), start: now, complained: false };
        let (tell, done) = sync_channel(1);
        let shared = Arc::clone(&books);
        let run = move || {
            let _guard = guard;
            process::schedule_as_batch();
            writer.run(&shared);
            let _ = tell.send(writer); // `finish` may have given up
        };
        thread::Builder::new().name("latency-log".to_owned()).spawn(run).map_err(failed)?;
        Ok((LatencyLog { books, done }, taps))
    }

    /// Writes what the loops had not handed over when they ended, and returns the totals. The second value is whether
    /// the disk is stuck: then the log lacks a part of the totals.
    #[must_use]
    pub fn finish(self, reports: &[Report]) -> (Recorder, bool) {
        let writer = self.done.recv_timeout(limits::SHUTDOWN_PATIENCE / 6);
        let stuck = writer.is_err();
        if let Ok(mut writer) = writer {
            let to = Instant::now();
            for report in reports {
                if let Some(from) = report.measured_since {
                    writer.write(&report.recorder, from, to);
                }
            }
        }
        // All loops have ended, so this does not wait.
        let mut books = lock(&self.books);
        while books.next().is_some() {}
        (std::mem::take(&mut books.totals), stuck)
    }
}

/// What the thread alone uses.
#[derive(Debug)]
struct Writer {
    out: HlogWriter<Lines>,
    path: PathBuf,
    start: Instant,
    complained: bool,
}

impl Writer {
    fn run(&mut self, books: &Mutex<Books>) {
        loop {
            let next = lock(books).next();
            let Some(Interval { ring, from, to, recorder }) = next else { return };
            self.write(&recorder, from, to);
            lock(books).basin.give_back(ring, recorder);
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
                    let (path, error) = (self.path.display(), describe(&source));
                    let cure = match source.kind() {
                        io::ErrorKind::FileTooLarge => {
                            "raise the limit on file sizes (ulimit -f), it is tried again with every interval"
                        }
                        _ => "free some space, it is tried again with every interval",
                    };
                    let _ = writeln!(
                        io::stderr(),
                        "deadpeer run: the latency log {path} takes no more: {error}; {cure}"
                    );
                }
                return;
            }
        }
    }
}

/// Cuts the rest of a line off an older log: with it, the next line would be invalid too. A file that is no log stays
/// as it is.
fn mend(path: &Path, file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(()); // a new file, or not a regular one
    }
    // Opened for reading only now: a FIFO that this program opens has its reader.
    let old = File::open(path)?;
    let (mut first, mut tail) = ([0], vec![0; length.min(TAIL) as usize]);
    let start = length - tail.len() as u64;
    old.read_exact_at(&mut first, 0)?;
    old.read_exact_at(&mut tail, start)?;
    let kept = complete_lines(first[0], &tail)
        .ok_or_else(|| io::Error::other("it holds something else than a latency log"))?;
    file.set_len(start + kept as u64)
}

/// A file of whole lines, of which the first is a header.
#[derive(Debug)]
struct Lines {
    file: File,
    header: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let metadata = self.file.metadata()?;
        let whole = metadata.len();
        let header = if metadata.is_file() && whole == 0 { &self.header[..] } else { &[] };
        let written = self.file.write_all(header).and_then(|()| self.file.write_all(line));
        if let Err(error) = written {
            // Only a regular file can be cut, and only it has to be.
            let _ = self.file.set_len(whole);
            return Err(error);
        }
        if self.header.is_empty() {
            self.header = line.to_vec();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A file that is removed after the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, content: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("deadpeer-{name}-{}.hlog", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Scratch(path)
        }

        fn text(&self) -> String {
            std::fs::read_to_string(&self.0).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Hands over an interval with `turns` turns, as a loop does.
    fn close(tap: &mut IntervalSender, turns: u64) {
        let mut recorder = Recorder::new();
        (0..turns).for_each(|_| recorder.turn(SECOND));
        tap.close(&mut recorder, Instant::NEVER);
        assert_eq!(recorder.turns(), 0, "it was not taken");
    }

    #[test]
    fn half_a_line_that_a_crash_left_is_cut_off_before_the_next_header() {
        let scratch = Scratch::new("torn", "#[Histogram log]\nTag=a,0.000,1.000,0.001,HISTFAAA\nTag=a,1.0");
        let (log, taps) = LatencyLog::start(&scratch.0, SECOND, 1, ()).unwrap();
        drop(taps);
        assert!(!log.finish(&[]).1);
        let text = scratch.text();
        let expected =
            "#[Histogram log]\nTag=a,0.000,1.000,0.001,HISTFAAA\n#[Histogram log format version 1.3]\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_file_that_is_no_log_is_refused_and_left_as_it_was() {
        for content in ["notes\nhalf a line", "# a line without an end"] {
            let scratch = Scratch::new("notes", content);
            let error = LatencyLog::start(&scratch.0, SECOND, 1, ()).unwrap_err().message;
            assert!(error.contains("something else than a latency log"), "{error}");
            assert_eq!(scratch.text(), content);
        }
    }

    #[test]
    fn a_log_that_was_emptied_begins_with_its_header_again() {
        let scratch = Scratch::new("emptied", "");
        let (log, mut taps) = LatencyLog::start(&scratch.0, SECOND, 1, ()).unwrap();
        let header = scratch.text();
        std::fs::write(&scratch.0, "").unwrap();
        close(&mut taps[0], 3);
        drop(taps);
        let (totals, stuck) = log.finish(&[]);
        assert_eq!((totals.turns(), stuck), (3, false));
        let text = scratch.text();
        assert!(text.starts_with(&format!("{header}Tag=loop-turn,0.000,")), "{text}");
    }

    #[test]
    fn a_stuck_disk_keeps_nothing_from_the_totals() {
        // A full FIFO: a write to it blocks.
        let scratch = Scratch::new("stuck", "");
        std::fs::remove_file(&scratch.0).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&scratch.0).status().unwrap().success());
        let mut options = OpenOptions::new();
        let reader = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&scratch.0).unwrap();
        let (log, mut taps) = LatencyLog::start(&scratch.0, SECOND, 3, ()).unwrap();
        while (&reader).write(b"#").is_ok() {}
        for (number, tap) in taps.iter_mut().enumerate() {
            close(tap, 2 * number as u64 + 1);
        }
        drop(taps);
        let (totals, stuck) = log.finish(&[]);
        assert_eq!((totals.turns(), stuck), (1 + 3 + 5, true));
    }
}
