//! `deadpeer bench` as a user starts it: small experiments on the real kernel, and checks of their results.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use deadpeer::bench::{Observer, experiment};
use deadpeer::measure::result::{DoubtKind, ResultFile, Way};
use deadpeer::sys::process::{self, is_root};

#[path = "kernel/skip.rs"]
mod skip;
use skip::skip;

const BINARY: &str = env!("CARGO_BIN_EXE_deadpeer");
/// The smallest load that has every way to die.
const SMALL_LOAD: [&str; 5] = ["bench", "--connections", "200", "--beats", "1600"];

/// Makes the experiments run one at a time: side by side they would disturb each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A lock that another test's failure has poisoned is as good.
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A file of one test, removed at its end.
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

/// Runs a small experiment to its end.
fn run(more: &[&str]) -> Output {
    run_with_deaths("100", more)
}

fn run_with_deaths(deaths: &str, more: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(SMALL_LOAD).args(["--deaths", deaths, "--duration", "1s"]).args(more);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn read(path: &Scratch) -> ResultFile {
    ResultFile::parse(&std::fs::read_to_string(&path.0).unwrap()).unwrap()
}

/// The network namespaces of the bench with this process id.
fn namespaces(pid: u32) -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mark = format!("deadpeer-bench-{pid}-");
    listed.split_whitespace().filter(|name| name.starts_with(&mark)).map(str::to_owned).collect()
}

#[test]
fn every_way_to_die_is_caused_and_each_death_is_told_once_and_none_too_early() {
    let _alone = alone();
    let path = Scratch::new("all.json");
    let output = run(&["--out", path.text(), "--seed", "5"]);
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
        let [latest, injector] = [way.latency.max(), way.injector_late.max()];
        assert_eq!(
            mistakes, [0; 4],
            "{}: missed, doubled, misnamed, early; told until {latest:?} ns, injector late by {injector:?} ns; {:?}",
            way.way, result.doubts
        );
        assert_eq!((way.told, way.latency.count()), (way.injected, way.injected), "{}", way.way);
        assert_eq!(way.injector_late.count(), way.injected, "{}", way.way);
    }
    assert_eq!(experiment.quality.false_verdicts, 0);
    assert!(experiment.quality.watched_ns > 0);
    let bare = result.machine.bare_recv.expect("loopback is allowed");
    assert_eq!((bare.latency.count(), bare.injector_late.count()), (1_000, 1_000));
    let report = String::from_utf8(output.stdout).unwrap();
    for way in Way::ALL {
        assert!(report.contains(way.as_str()), "the report does not name {way}");
    }
}

#[test]
fn the_same_seed_causes_the_same_deaths_and_another_one_others() {
    let _alone = alone();
    // The number of deaths of each way, by interval.
    let deaths = |seed: &str| {
        let path = Scratch::new("seed.json");
        run(&["--out", path.text(), "--ways", "fin,rst,half-close", "--seed", seed]);
        let ways = read(&path).experiment.unwrap().ways;
        let counts = ways.iter().map(|way| way.intervals.iter().map(|interval| interval.latency.count()));
        counts.map(Iterator::collect).collect::<Vec<Vec<u64>>>()
    };
    let first = deaths("9");
    assert_eq!((first.len(), first.iter().flatten().sum::<u64>()), (3, 100));
    assert_eq!(first, deaths("9"));
    assert_ne!(first, deaths("10"));
}

/// Writes a program in bash.
fn script(name: &str, text: &str) -> Scratch {
    use std::os::unix::fs::PermissionsExt;
    let path = Scratch::new(name);
    std::fs::write(&path.0, format!("#!/bin/bash\n{text}")).unwrap();
    std::fs::set_permissions(&path.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A tracker whose events pass through a filter.
fn lying(filter: &str) -> Scratch {
    // It passes SIGTERM on, and ends when the filter has written the last line.
    let text = format!(
        "pipe=$(mktemp -u) && mkfifo \"$pipe\"\ntrap 'kill -TERM $tracker' TERM\n\
         {filter} < \"$pipe\" & filter=$!\n'{BINARY}' \"$@\" > \"$pipe\" & tracker=$!\n\
         wait $tracker; wait $tracker; wait $filter\nrm \"$pipe\"\n"
    );
    script("liar", &text)
}

#[test]
fn a_hidden_doubled_or_misnamed_death_is_found() {
    let _alone = alone();
    // Each filter changes the first line that matches.
    let hide = r#"sed -u '0,/"cause":"aborted"/{/"cause":"aborted"/d}'"#;
    let double = r#"sed -u '0,/"cause":"aborted"/{/"cause":"aborted"/p}'"#;
    let misname = r#"sed -u '0,/"cause":"aborted"/s/"cause":"aborted"/"cause":"local"/'"#;
    let half = r#"sed -u '0,/"cause":"closed"/{/"cause":"closed"/d}'"#;
    let early = r#"sed -u '0,/"cause":"heart/{/"cause":"heart/s/"mono_ns":[0-9]*/"mono_ns":1/}'"#;
    for (filter, expected) in [
        (hide, [1, 0, 0, 0]),
        (double, [0, 1, 0, 0]),
        (misname, [0, 0, 1, 0]),
        (half, [0, 0, 1, 0]),
        (early, [0, 0, 0, 1]),
    ] {
        let (path, liar) = (Scratch::new("lies.json"), lying(filter));
        run(&["--out", path.text(), "--ways", "fin,rst,silence", "--tracker", liar.text()]);
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
fn wrong_verdicts_on_living_peers_are_found() {
    let _alone = alone();
    // The fourth peer is suspected and cleared, and the fifth called dead. The first line is `listening`.
    let cleared = r#"5{p;h;s/"event":"up"/"event":"suspected"/;p;x;s/"event":"up"/"event":"recovered"/}"#;
    let called_dead = r#"6{p;s/"event":"up"/"event":"died"/}"#;
    let (path, liar) = (Scratch::new("living.json"), lying(&format!("sed -u '{cleared};{called_dead}'")));
    // One process connects all peers, in order, and the only one that dies is neither of the two.
    run_with_deaths("1", &["--out", path.text(), "--ways", "rst", "--tracker", liar.text()]);
    let result = read(&path);
    let quality = result.experiment.unwrap().quality;
    let durations = quality.mistake_duration.count();
    assert_eq!((quality.mistakes, quality.false_verdicts, durations), (2, 1, 1));
    assert!(result.doubts.iter().any(|doubt| doubt.kind == DoubtKind::Mistakes), "{:?}", result.doubts);
}

/// A bench that is killed when its test ends.
struct Running(Child);

impl Running {
    /// Starts a long experiment of all ways in its own process group, as a shell does.
    fn start(more: &[&str]) -> Running {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(BINARY);
        command.args(["bench", "--connections", "200", "--duration", "60s", "--deaths", "1"]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.process_group(0).spawn().unwrap())
    }

    fn list_children(&self) -> Vec<String> {
        let listed = Command::new("pgrep").args(["-P", &self.0.id().to_string()]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits until peers and tracker run, and returns their process ids.
    fn children(&self) -> Vec<String> {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let children = self.list_children();
            // The tracker, the peers that die one by one, and those that are stopped.
            if children.len() >= 3 {
                return children;
            }
            assert!(Instant::now() < patience, "it started {children:?} only");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn namespaces(&self) -> Vec<String> {
        namespaces(self.0.id())
    }

    fn end(&mut self, signal: &str, target: &str) -> ExitStatus {
        assert!(Command::new("kill").args([signal, "--", target]).status().unwrap().success());
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until none of the processes runs. One that was killed may take a moment to end.
fn expect_gone(processes: &[String]) {
    let patience = Instant::now() + Duration::from_secs(10);
    let runs = |process: &&String| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    while let Some(process) = processes.iter().find(runs) {
        assert!(Instant::now() < patience, "process {process} outlives its experiment");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_experiment_leaves_nothing_behind_and_says_130() {
    let _alone = alone();
    // To the process alone, and to its group, as a terminal does.
    for group in [false, true] {
        let path = Scratch::new("interrupted.json");
        let mut running = Running::start(&["--out", path.text()]);
        let children = running.children();
        assert_eq!(running.namespaces().len(), if is_root() { 2 } else { 0 });
        let pid = running.0.id();
        let status = running.end("-INT", &if group { format!("-{pid}") } else { pid.to_string() });
        assert_eq!((status.code(), status.signal()), (Some(130), None), "group: {group}");
        expect_gone(&children);
        assert_eq!(running.namespaces(), [""; 0]);
        assert!(!path.0.exists(), "there is a result of an experiment that was not finished");
    }
}

#[test]
fn an_interrupted_comparison_keeps_its_finished_rounds_and_says_130() {
    use std::collections::BTreeSet;
    use std::os::unix::process::CommandExt;
    let _alone = alone();
    let path = Scratch::new("rounds.json");
    let mut command = Command::new(BINARY);
    command.args(["bench", "--against", "epoll", "--subjects", "deadpeer,epoll", "--measure", "accept"]);
    command.args(["--connections", "20", "--rounds", "100", "--io", "epoll", "--out", path.text()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.process_group(0).spawn().unwrap());
    // Two processes for each subject: the fifth belongs to the second round.
    let mut seen = BTreeSet::new();
    let patience = Instant::now() + Duration::from_secs(60);
    while seen.len() < 5 {
        assert!(Instant::now() < patience, "it started {seen:?} only");
        seen.extend(running.list_children());
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = running.0.id();
    assert_eq!(running.end("-INT", &format!("-{pid}")).code(), Some(130));
    expect_gone(&seen.into_iter().collect::<Vec<_>>());
    let [mut report, mut errors] = [String::new(), String::new()];
    running.0.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    running.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(errors.contains("interrupted") && errors.contains("finished"), "{errors}");
    assert!(report.contains("epoll"), "{report}");
    let result = read(&path);
    let comparison = result.comparison.unwrap();
    let rounds = comparison.settings.rounds;
    assert!((1..100).contains(&rounds), "{rounds} rounds");
    assert_eq!(comparison.runs.len() as u64, rounds * 2);
    assert!(comparison.runs.iter().all(|run| run.round < rounds && run.accept.is_some()));
    let interrupted = format!("interrupted: {rounds} of 100 rounds");
    assert!(result.doubts.iter().any(|doubt| doubt.text.contains(&interrupted)), "{:?}", result.doubts);
    assert_eq!(result.program.engine.unwrap().name, "epoll");
}

#[test]
fn the_result_names_the_engine_that_was_asked_for() {
    let _alone = alone();
    for (io, hosted) in [("epoll", false), ("tokio-uring", true)] {
        if hosted && !uring_is_here() {
            skip("there is no io_uring");
            continue;
        }
        let path = Scratch::new("engine.json");
        run(&["--out", path.text(), "--ways", "rst", "--io", io]);
        let program = read(&path).program;
        let engine = program.engine.expect("the tracker names its engine");
        assert_eq!((engine.name.as_str(), engine.why_not), (io, None));
        assert_eq!(engine.features.is_empty(), !hosted, "{:?}", engine.features);
        // A debug build has none, so that a commit does not make it compile again.
        assert_eq!(
            program.commit.is_some(),
            !cfg!(debug_assertions) && std::path::Path::new(".git").exists()
        );
    }
}

/// Whether a tracker starts on a ring here.
fn uring_is_here() -> bool {
    deadpeer::reactor::probe(deadpeer::reactor::EngineChoice::Uring).is_ok()
}

#[test]
fn that_children_end_with_an_interruption_is_no_failure_of_theirs() {
    let _alone = alone();
    let tracker = script("kill-parent", "kill -INT $PPID\n");
    let arguments = ["bench", "--connections", "20", "--ways", "rst", "--tracker", tracker.text()];
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = "deadpeer bench: interrupted before anything was finished; there is no result\n";
    assert_eq!((output.status.code(), said.as_ref()), (Some(130), expected));
}

#[test]
fn the_namespaces_of_an_experiment_that_was_killed_are_removed_by_the_next() {
    if !is_root() {
        return skip("only root can make network namespaces");
    }
    let _alone = alone();
    let mut running = Running::start(&[]);
    let children = running.children();
    let pid = running.0.id();
    assert_eq!(running.end("-KILL", &pid.to_string()).signal(), Some(9));
    expect_gone(&children);
    assert_eq!(running.namespaces().len(), 2, "there is nothing to remove");
    run(&["--ways", "path-loss"]);
    assert_eq!(running.namespaces(), [""; 0]);
}

#[test]
fn after_an_experiment_the_process_has_all_its_cores_again() {
    let _alone = alone();
    let before = process::usable_cores();
    let options = experiment::Options {
        connections: 20,
        beats_per_second: 20,
        deaths_per_second: 1,
        duration: Duration::from_secs(1),
        ways: vec![Way::Rst],
        seed: 1,
        threads: 1,
        batch_window: None,
        wake: "lazy".into(),
        io: "auto".into(),
        tracker: Some("/bin/false".into()),
    };
    let mut observer = Observer { interrupted: &AtomicBool::new(false), progress: &mut |_, _| {} };
    let error = experiment::run(&options, &mut observer).unwrap_err().to_string();
    assert!(error.contains("the tracker ended"), "{error}");
    assert_eq!(process::usable_cores(), before);
}

#[test]
fn a_tracker_that_ends_before_its_time_is_quoted() {
    let _alone = alone();
    // It writes `listening`, accepts all 200, and then is killed.
    let tracker = script(
        "falls",
        &format!(
            "exec 3< <(exec '{BINARY}' \"$@\") && tracker=$!\n\
             for line in {{1..201}}; do IFS= read -r line <&3; echo \"$line\"; done\necho 'out of luck' >&2\n\
             kill -KILL $tracker\n"
        ),
    );
    let arguments = ["--ways", "rst", "--duration", "1s", "--deaths", "20", "--tracker", tracker.text()];
    let output = Command::new(BINARY).args(SMALL_LOAD).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the tracker ended") && said.contains("out of luck"), "{said}");
}

#[test]
fn a_number_of_connections_alone_is_enough() {
    let _alone = alone();
    let path = Scratch::new("few.json");
    let arguments = ["bench", "--quick", "--connections", "60", "--ways", "rst", "--out", path.text()];
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "a bar where there is no terminal");
    let settings = read(&path).experiment.unwrap().settings;
    // Three quarters of the peers die, in two seconds.
    assert_eq!((settings.connections, settings.deaths_per_second), (60, 22));
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
