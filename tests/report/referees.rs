//! Other people's readers, as referees of what we write for them: Debian's `libhdrhistogram-java` and Python's
//! `hdrhistogram`, which .ci/run installs (the latter below target/referees).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deadpeer::measure::recorded::Recorded;
use deadpeer::measure::report::{Format, Options, derive, render, series};

use crate::sample;
use crate::skip::skip;

const JAR: &str = "/usr/share/java/hdrhistogram.jar";

/// A folder of this test's own, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("deadpeer-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a command prints; it must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Within one bucket of a histogram of three digits.
fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected / 1_000.0 + 1.0
}

/// The tags of a log of the whole sample, and what the intervals of each hold together.
fn tagged() -> (String, BTreeMap<String, Recorded>) {
    let result = sample::whole(1);
    let log = render(std::slice::from_ref(&result), Format::Hlog, &Options::default()).unwrap();
    let figures = derive(std::slice::from_ref(&result), None).unwrap();
    let detections = series::all(&figures[0]).into_iter().filter(|series| series.name.starts_with("detect."));
    let tags = detections.map(|series| {
        let tag = deadpeer::measure::hlog::tag(&series.name);
        (tag, series.recorded.into_owned())
    });
    (log, tags.collect())
}

#[test]
fn a_log_has_a_line_for_every_interval_of_every_way_and_every_round_of_every_subject() {
    let (log, tags) = tagged();
    assert!(log.starts_with("#[Histogram log format version 1.3]\n"));
    for words in ["#[StartTime: 1795592400.000", "#[BaseTime: 1795592400.000"] {
        assert!(log.contains(words), "{words}");
    }
    assert_eq!(tags.len(), 7 + 12);
    for tag in tags.keys() {
        let lines = log.lines().filter(|line| line.starts_with(&format!("Tag={tag},"))).count();
        let subject = tag != "detect-half-close" && (lines == 5);
        assert!(subject || lines == 30, "{tag} has {lines} lines");
    }
}

#[test]
fn java_reads_a_log_and_finds_the_same_percentiles() {
    if !Path::new(JAR).exists() || Command::new("java").arg("-version").output().is_err() {
        return skip("no Java reader: install libhdrhistogram-java and default-jre-headless");
    }
    let (log, tags) = tagged();
    let folder = Folder::new("java");
    let path = folder.write("a.hlog", &log);
    for (tag, recorded) in tags {
        let mut java = Command::new("java");
        java.args(["-cp", JAR, "org.HdrHistogram.HistogramLogProcessor", "-i", &path, "-tag", &tag]);
        java.args(["-outputValueUnitRatio", "1"]);
        let text = output(&mut java);
        let spectrum = spectrum(&text);
        assert!(spectrum.len() > 10, "{tag}: {text}");
        for (value, quantile, _) in &spectrum {
            let ours = recorded.histogram().value_at_quantile(*quantile) as f64;
            assert!(near(*value, ours), "{tag} at {quantile}: {value}, and ours is {ours}");
        }
        let (_, _, total) = spectrum.last().unwrap();
        assert_eq!(*total, recorded.count(), "{tag}");
    }
}

/// The rows of a percentile spectrum: value, quantile, count so far.
fn spectrum(text: &str) -> Vec<(f64, f64, u64)> {
    let (_, rows) = text.split_once("TotalCount").expect("a spectrum has a head");
    let rows = rows.lines().skip(1).filter(|row| !row.starts_with('#'));
    let rows = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split_whitespace().collect();
        Some((cells.first()?.parse().unwrap(), cells[1].parse().unwrap(), cells[2].parse().unwrap()))
    });
    rows.collect()
}

/// The readers round the rank of a percentile each in its own way: theirs must be the value of our rank, or of one
/// beside it.
fn beside(theirs: f64, quantile: f64, ours: &Recorded, tag: &str) {
    let rank = quantile * ours.count() as f64;
    let at =
        |rank: f64| ours.histogram().value_at_quantile((rank / ours.count() as f64).clamp(0.0, 1.0)) as f64;
    let (low, high) = (at(rank - 1.0), at(rank + 1.0));
    let within = (low..=high).contains(&theirs) || near(theirs, low) || near(theirs, high);
    assert!(within, "{tag} at {quantile}: {theirs}, and ours is from {low} to {high}");
}

fn python() -> Option<Command> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/referees/bin/python");
    let known = Command::new(&python).args(["-c", "import hdrh"]).output();
    if known.is_ok_and(|output| output.status.success()) {
        return Some(Command::new(python));
    }
    skip("no Python reader: python3 -m venv target/referees && target/referees/bin/pip install hdrhistogram");
    None
}

/// Prints tag, samples, p50, p99, p99.9 and the greatest of all intervals of each tag.
const READ_LOG: &str = r"
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
whole = {}
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3600000000000, 3))
while True:
    interval = reader.get_next_interval_histogram()
    if not interval:
        break
    into = whole.setdefault(interval.get_tag(), HdrHistogram(1, 3600000000000, 3))
    into.add(interval)
for tag, histogram in whole.items():
    values = [histogram.get_value_at_percentile(p) for p in (50, 99, 99.9, 100)]
    print(tag, histogram.get_total_count(), *values)
";

#[test]
fn python_reads_a_log_and_finds_the_same_percentiles() {
    let Some(mut python) = python() else { return };
    let (log, tags) = tagged();
    let folder = Folder::new("python");
    let text = output(python.args(["-c", READ_LOG, &folder.write("a.hlog", &log)]));
    let read: BTreeMap<&str, Vec<f64>> = text
        .lines()
        .map(|line| {
            let (tag, numbers) = line.split_once(' ').unwrap();
            (tag, numbers.split(' ').map(|number| number.parse().unwrap()).collect())
        })
        .collect();
    assert_eq!(read.len(), tags.len(), "{text}");
    for (tag, recorded) in tags {
        let theirs = &read[tag.as_str()];
        assert_eq!(theirs[0] as u64, recorded.count(), "{tag}");
        for (value, percentile) in theirs[1..].iter().zip([50.0, 99.0, 99.9, 100.0]) {
            beside(*value, percentile / 100.0, &recorded, &tag);
        }
    }
}

/// Prints the spectrum of the first interval with a tag, in microseconds.
const SPECTRUM: &str = r"
import sys
from hdrh.histogram import HdrHistogram
histogram = HdrHistogram(1, 3600000000000, 3)
for line in open(sys.argv[1]):
    histogram.record_value(int(line))
histogram.output_percentile_distribution(sys.stdout.buffer, 1000.0)
";

#[test]
fn the_spectrum_is_the_one_that_python_draws() {
    let Some(mut python) = python() else { return };
    let mut result = sample::few(1);
    let mut rng = fastrand::Rng::with_seed(7);
    let values: Vec<u64> = (0..3_000).map(|_| 10_000 + rng.u64(0..1_000) * rng.u64(0..5_000)).collect();
    let mut latency = Recorded::new();
    values.iter().for_each(|value| latency.record(*value));
    result.experiment.as_mut().unwrap().ways[1].latency = latency.clone();
    let options = Options { series: Some("detect.rst".to_owned()), ..Options::default() };
    let ours = render(&[result], Format::Hgrm, &options).unwrap();

    let folder = Folder::new("spectrum");
    let lines: Vec<String> = values.iter().map(u64::to_string).collect();
    let theirs = output(python.args(["-c", SPECTRUM, &folder.write("values", &lines.join("\n"))]));
    // Each draws as many rows as it likes; what they say is the same.
    let (ours, theirs) = (spectrum(&ours), spectrum(&theirs));
    assert!(ours.len() > 40 && theirs.len() > 40, "{} and {}", ours.len(), theirs.len());
    for (value, quantile, count) in ours.iter().chain(&theirs) {
        beside(value * 1_000.0, *quantile, &latency, "detect.rst");
        let within = latency.histogram().count_between(0, (value * 1_000.0) as u64);
        assert!(within.abs_diff(*count) <= 1, "{count} values up to {value} us, and there are {within}");
    }
}

#[test]
fn a_spectrum_rises_to_the_greatest_and_says_its_unit() {
    let options = Options::default();
    let text = render(&[sample::whole(1)], Format::Hgrm, &options).unwrap();
    let rows = spectrum(&text);
    assert!(
        rows.windows(2)
            .all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1 && pair[0].2 <= pair[1].2)
    );
    let result = sample::whole(1);
    let fin = &result.experiment.as_ref().unwrap().ways[0].latency;
    let last = rows.last().unwrap();
    assert_eq!((last.0, last.1, last.2), (fin.max().unwrap() as f64 / 1_000.0, 1.0, fin.count()));
    for words in ["#[Mean ", "#[Max ", "#[Buckets = ", "Unit = us", "Series  = detect.fin"] {
        assert!(text.contains(words), "{words}");
    }
}
