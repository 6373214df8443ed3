//! The latency log: what an operator's tools find in it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::daemon::Daemon;
use crate::outcome::{Outcome, deadpeer, outcome, until};
use crate::refusals::sandboxed;
use crate::skip::skip;

struct Log(PathBuf);

impl Log {
    fn new(name: &str) -> Log {
        let path = format!("{}/{name}-{}.hlog", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let _ = std::fs::remove_file(&path);
        Log(path.into())
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// By tag: when each interval began and ended, in milliseconds, and how many values it has.
    fn intervals(&self) -> BTreeMap<String, Vec<(u128, u128, u64)>> {
        let text = self.text();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
        let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let LogEntry::Interval(interval) = entry.expect("every line can be read") else { continue };
            let bytes = STANDARD.decode(interval.encoded_histogram()).unwrap();
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            let from = interval.start_timestamp().as_millis();
            let to = from + interval.duration().as_millis();
            let tag = interval.tag().expect("a tag").as_str().to_owned();
            found.entry(tag).or_default().push((from, to, histogram.len()));
        }
        found
    }

    /// Values by tag, as Python's `hdrhistogram` reads them; `None` where it is not installed.
    fn read_by_python(&self) -> Option<BTreeMap<String, u64>> {
        const READ: &str = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
counts = {}
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3600000000000, 3))
while interval := reader.get_next_interval_histogram():
    counts[interval.get_tag()] = counts.get(interval.get_tag(), 0) + interval.get_total_count()
for tag, count in counts.items():
    print(tag, count)
";
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/referees/bin/python");
        let installed = Command::new(python).args(["-c", "import hdrh"]).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            skip(
                "no Python reader: python3 -m venv target/referees && target/referees/bin/pip install hdrhistogram",
            );
            return None;
        }
        let output = Command::new(python).args(["-c", READ]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let pair = |line: &str| {
            let (tag, count) = line.split_once(' ').unwrap();
            (tag.to_owned(), count.parse().unwrap())
        };
        Some(text.lines().map(pair).collect())
    }

    fn start(&self) -> Daemon {
        let line = format!(
            "run --listen 127.0.0.1:0 --events - --threads 1 --idle 400ms --interval 100ms --probes 1 \
             --latency-interval 100ms --latency-log {}",
            self.0.display()
        );
        let mut command = deadpeer(&line);
        command.stderr(Stdio::piped());
        Daemon::of(command)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lets three peers close and a fourth fall silent.
fn let_them_die(daemon: &mut Daemon) {
    for number in 1..=3 {
        let mut peer = TcpStream::connect(daemon.address).unwrap();
        peer.write_all(b"beat").unwrap();
        drop(peer);
        daemon.wait_for_many("died", number);
    }
    let mut silent = TcpStream::connect(daemon.address).unwrap();
    silent.write_all(b"beat").unwrap();
    daemon.wait_for_many("died", 4);
}

#[test]
fn after_an_orderly_end_the_intervals_add_up_to_the_summary_and_leave_no_gap() {
    let log = Log::new("orderly");
    let mut daemon = log.start();
    let_them_die(&mut daemon);
    until("three intervals are closed", || log.text().matches("Tag=loop-turn,").count() >= 3);
    daemon.child.signal("-TERM");
    let summary = daemon.wait_for("summary");
    Outcome::after(daemon.child).assert_quiet_success();

    let intervals = log.intervals();
    let sum =
        |tag: &str| intervals.get(tag).map_or(0, |all| all.iter().map(|(.., count)| count).sum::<u64>());
    for (tag, field) in [
        ("loop-turn", "loop_turn_us"),
        ("batch-size", "batch"),
        ("deadline-lateness", "lateness_us"),
        ("wake-to-verdict", "verdict_us"),
        ("silence", "silence_ms"),
        ("heartbeat-rtt", "rtt_us"),
    ] {
        assert_eq!(Some(sum(tag)), summary[field]["count"].as_u64(), "{tag}: {summary:#}");
    }
    assert_eq!((sum("wake-to-verdict"), sum("silence")), (3, 1));
    if let Some(read) = log.read_by_python() {
        let counted = intervals.keys().map(|tag| (tag.clone(), sum(tag))).collect();
        assert_eq!(read, counted, "another reader");
    }
    for pair in intervals["loop-turn"].windows(2) {
        // To the millisecond, rounded down twice.
        assert!(pair[0].1.abs_diff(pair[1].0) <= 2, "{pair:?}");
    }
}

#[test]
fn a_daemon_that_is_killed_leaves_all_its_intervals_but_the_last() {
    let log = Log::new("killed");
    let mut daemon = log.start();
    let_them_die(&mut daemon);
    until("the deaths are written", || log.text().contains("Tag=silence,"));
    daemon.child.signal("-KILL");
    drop(daemon);
    let intervals = log.intervals();
    let deaths: u64 = intervals["wake-to-verdict"].iter().map(|(.., count)| count).sum();
    assert_eq!(deaths, 3);
}

#[test]
fn a_log_that_cannot_be_opened_is_refused_before_the_start() {
    outcome("run --listen 127.0.0.1:0 --latency-log /nowhere/at/all.hlog")
        .assert_refusal(1, &["/nowhere/at/all.hlog", "--latency-log"]);
    outcome("run --listen 127.0.0.1:0 --latency-log /tmp/x --latency-interval 1ms")
        .assert_refusal(2, &["100ms", "1h"]);
    outcome("run --listen 127.0.0.1:0 --latency-interval 1s").assert_refusal(2, &["--latency-log"]);
}

#[test]
fn a_full_disk_at_the_start_is_a_refusal_with_the_cause() {
    let mut command = deadpeer(
        "run --listen 127.0.0.1:0 --events - --threads 1 --latency-interval 100ms --latency-log /dev/full",
    );
    command.stderr(Stdio::piped());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("/dev/full") && errors.contains("No space left"), "{errors}");
}

#[test]
fn a_disk_that_fills_is_said_once_and_leaves_whole_lines_that_go_on_when_there_is_room() {
    // A disk of 64 KB, of which nearly all is taken by something else.
    let line = "run --listen 127.0.0.1:0 --events - --threads 1 --latency-interval 100ms --latency-log /mnt/log.hlog";
    let Some(mut command) = sandboxed(&["--die-with-parent", "--size", "65536", "--tmpfs", "/mnt"], line)
    else {
        return;
    };
    command.stderr(Stdio::piped());
    let mut daemon = Daemon::of(command);
    let pid = daemon.wait_for("listening")["pid"].to_string();
    let disk = PathBuf::from(format!("/proc/{pid}/root/mnt"));
    let text = || std::fs::read_to_string(disk.join("log.hlog")).unwrap();
    let lines = || text().lines().count();
    let before = lines();
    until("an interval is written", || lines() > before);
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 64]).is_ok() {}

    let mut errors = BufReader::new(daemon.child.0.stderr.take().unwrap());
    let mut said = String::new();
    errors.read_line(&mut said).unwrap();
    assert!(said.contains("takes no more") && said.contains("No space left"), "{said}");
    assert!(text().ends_with('\n'), "half a line was left");
    let full = lines();
    drop(filler);
    std::fs::remove_file(disk.join("filler")).unwrap();
    until("it goes on", || lines() > full + 2);
    let whole = text();
    let torn = IntervalLogIterator::new(whole.as_bytes()).filter(Result::is_err).count();
    assert_eq!(torn, 0, "{whole}");

    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    daemon.wait_for("summary");
    let mut more = String::new();
    errors.read_to_string(&mut more).unwrap();
    assert_eq!(more, "", "it was said more than once");
}
