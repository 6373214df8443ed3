//! `deadpeer bench` as a user starts it: a small experiment on the real kernel, held to what it wrote.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use deadpeer::measure::result::{ResultFile, Way};

#[path = "kernel/skip.rs"]
mod skip;
use skip::skip;

const BINARY: &str = env!("CARGO_BIN_EXE_deadpeer");
/// As small as it goes with every way in it.
const SMALL: [&str; 9] =
    ["bench", "--connections", "200", "--beats", "1600", "--deaths", "100", "--duration", "1s"];

/// A file of this test's own, removed when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("deadpeer-bench-{}-{name}", std::process::id())))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn small(more: &[&str]) -> Output {
    let output = Command::new(BINARY).args(SMALL).args(more).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn read(path: &Scratch) -> ResultFile {
    ResultFile::parse(&std::fs::read_to_string(&path.0).unwrap()).unwrap()
}

/// Namespaces of experiments that this process started.
fn namespaces() -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    listed.split_whitespace().filter(|name| name.starts_with("deadpeer-bench-")).map(str::to_owned).collect()
}

#[test]
fn every_way_to_die_is_caused_and_each_death_is_told_once_and_none_too_early() {
    let path = Scratch::new("all.json");
    let output = small(&["--out", path.text(), "--seed", "5"]);
    let result = read(&path);
    let experiment = result.experiment.expect("an experiment");
    assert_eq!((result.seed, experiment.ways.len()), (5, Way::ALL.len()));
    for way in &experiment.ways {
        if let Some(why) = &way.not_run {
            assert_eq!(way.way, Way::PathLoss, "{why}");
            skip(why);
            continue;
        }
        assert!(way.injected >= 10, "{}: {} deaths", way.way, way.injected);
        let mistakes = [way.missed, way.doubled, way.misnamed, way.early];
        assert_eq!(mistakes, [0; 4], "{}: missed, doubled, misnamed, early", way.way);
        assert_eq!((way.told, way.latency.count()), (way.injected, way.injected), "{}", way.way);
        assert_eq!(way.injector_late.count(), way.injected, "{}", way.way);
    }
    assert_eq!(experiment.quality.false_verdicts, 0);
    assert!(experiment.quality.watched_ns > 0);
    let report = String::from_utf8(output.stdout).unwrap();
    for way in Way::ALL {
        assert!(report.contains(way.as_str()), "the report does not name {way}");
    }
}

#[test]
fn the_same_seed_causes_the_same_deaths() {
    let injected = |name: &str| {
        let path = Scratch::new(name);
        small(&["--out", path.text(), "--ways", "fin,rst,silence", "--seed", "9"]);
        let ways = read(&path).experiment.unwrap().ways;
        ways.iter().map(|way| (way.way, way.injected)).collect::<Vec<_>>()
    };
    let first = injected("first.json");
    assert_eq!(first.len(), 3);
    assert_eq!(first, injected("second.json"));
}

/// A tracker that lies: its events pass through a filter on their way.
fn lying(filter: &str) -> Scratch {
    use std::os::unix::fs::PermissionsExt;
    let path = Scratch::new(&format!("liar-{}", filter.len()));
    // It ends when the filter has written the last line, and passes the word to end on.
    let script = format!(
        "#!/bin/bash\npipe=$(mktemp -u) && mkfifo \"$pipe\"\ntrap 'kill -TERM $tracker' TERM\n\
         {filter} < \"$pipe\" & filter=$!\n'{BINARY}' \"$@\" > \"$pipe\" & tracker=$!\n\
         wait $tracker; wait $tracker; wait $filter\nrm \"$pipe\"\n"
    );
    std::fs::write(&path.0, script).unwrap();
    std::fs::set_permissions(&path.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_tracker_that_hides_doubles_or_misnames_a_death_is_found_out() {
    // Each of them changes the first line that it is about.
    let hide = r#"sed -u '0,/"cause":"aborted"/{/"cause":"aborted"/d}'"#;
    let double = r#"sed -u '0,/"cause":"aborted"/{/"cause":"aborted"/p}'"#;
    let misname = r#"sed -u '0,/"cause":"aborted"/s/"cause":"aborted"/"cause":"local"/'"#;
    let early = r#"sed -u '0,/"cause":"heart/{/"cause":"heart/s/"mono_ns":[0-9]*/"mono_ns":1/}'"#;
    for (filter, expected) in
        [(hide, [1, 0, 0, 0]), (double, [0, 1, 0, 0]), (misname, [0, 0, 1, 0]), (early, [0, 0, 0, 1])]
    {
        let (path, liar) = (Scratch::new(&format!("lies-{}.json", filter.len())), lying(filter));
        small(&["--out", path.text(), "--ways", "rst,silence", "--tracker", liar.text()]);
        let result = read(&path);
        let ways = result.experiment.unwrap().ways;
        let sum =
            |figure: fn(&deadpeer::measure::result::WayResult) -> u64| ways.iter().map(figure).sum::<u64>();
        let found =
            [sum(|way| way.missed), sum(|way| way.doubled), sum(|way| way.misnamed), sum(|way| way.early)];
        assert_eq!(found, expected, "{filter}");
        assert!(result.doubts.iter().any(|doubt| doubt.text.contains("missed")), "{:?}", result.doubts);
    }
}

#[test]
fn an_interrupted_experiment_leaves_nothing_behind_and_says_130() {
    use std::os::unix::process::ExitStatusExt;
    let mut child = Command::new(BINARY)
        .args(["bench", "--connections", "200", "--duration", "60s", "--deaths", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let own = |word: &str| {
        let listed = Command::new("pgrep").args(["-P", &child.id().to_string()]).output().unwrap();
        listed.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count() > 0
            || word.is_empty()
    };
    let patience = Instant::now() + Duration::from_secs(60);
    while !own("children") {
        assert!(Instant::now() < patience, "it started nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id();
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    let mark = format!("deadpeer-bench-{pid}-");
    assert!(!namespaces().iter().any(|name| name.starts_with(&mark)));
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_the_arithmetic() {
    for (arguments, code, said) in [
        (&["--connections", "100", "--deaths", "1000", "--duration", "1s"][..], 1, "only"),
        (&["--connections", "9999999"], 1, "do not fit"),
        (&["--ways", "fin,boredom"], 2, "boredom"),
        (&["--duration", "5 parsecs"], 2, "parsecs"),
        (&["--out", "/nonexistent/result.json"], 1, "--out"),
    ] {
        let output = Command::new(BINARY).arg("bench").args(arguments).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
    }
}
