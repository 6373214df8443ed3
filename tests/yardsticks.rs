//! The yardsticks are correct servers: each detects the end of each connection; and a comparison has every figure of every
//! subject.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use deadpeer::measure::result::{DoubtKind, ResultFile};
use serde_json::{Value, json};
use socket2::SockRef;

/// The bound of every wait: far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The silence until a verdict: longer than a beat of this test is ever late.
const IDLE_MS: u64 = 4_000;
const BEAT: &[u8] = b"0123456789abcdef";
const PEERS: usize = 50;

/// A role in its own process, killed at the end of the test.
struct Role {
    process: Child,
    lines: Receiver<Value>,
    address: SocketAddr,
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Role {
    fn start(name: &str, plan: &Value) -> Role {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
        command.args(["bench-role", name, &plan.to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = to.send(serde_json::from_str(&line).unwrap());
            }
        });
        let listening: Value = lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(listening["event"], "listening");
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        Role { process, lines, address }
    }

    fn connect(&self) -> Vec<TcpStream> {
        let connect = |_| {
            let peer = TcpStream::connect(self.address).unwrap();
            peer.set_nodelay(true).unwrap();
            peer
        };
        (0..PEERS).map(connect).collect()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// How many descriptors it holds when that number has not changed for a while.
    fn descriptors_at_rest(&self) -> usize {
        let (mut last, mut same) = (self.descriptors(), 0);
        while same < 40 {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.descriptors();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Waits until it holds so many descriptors.
    fn wait_descriptors(&self, count: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.descriptors() != count {
            assert!(std::time::Instant::now() < end, "{} descriptors, not {count}", self.descriptors());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

/// Ten peers end by FIN, ten by RST, ten fall silent, and twenty go on beating.
fn knows_every_end(name: &str, plan: Value) {
    let role = Role::start(name, &plan);
    let mut peers = role.connect();
    let names: Vec<String> = peers.iter().map(|peer| peer.local_addr().unwrap().to_string()).collect();
    for _ in 0..3 {
        peers.iter_mut().for_each(|peer| peer.write_all(BEAT).unwrap());
    }
    let mut expected = BTreeMap::new();
    for (cause, from) in [("closed", 0), ("aborted", 10), ("heartbeat_expired", 20)] {
        expected.extend(names[from..from + 10].iter().map(|name| (name.clone(), cause.to_owned())));
    }
    let mut living = peers.split_off(30);
    let silent = peers.split_off(20);
    peers.split_off(10).into_iter().for_each(reset);
    drop(peers);

    let mut told = BTreeMap::new();
    let end = std::time::Instant::now() + PATIENCE;
    while told.len() < expected.len() && std::time::Instant::now() < end {
        living.iter_mut().for_each(|peer| peer.write_all(BEAT).unwrap());
        while let Ok(line) = role.lines.recv_timeout(Duration::from_millis(50)) {
            if line["event"] == "died" {
                let peer = line["peer"].as_str().unwrap().to_owned();
                assert_eq!(line["bytes"], 3 * BEAT.len(), "{line}");
                let before = told.insert(peer, line["cause"].as_str().unwrap().to_owned());
                assert_eq!(before, None, "{name} reported this death twice: {line}");
            }
        }
    }
    assert_eq!(told, expected, "{name}");
    // The server closes peers that were judged by time, too.
    let held = role.descriptors();
    drop(silent);
    living.into_iter().for_each(reset);
    role.wait_descriptors(held - 20);
}

#[test]
fn the_epoll_loop_knows_every_end() {
    knows_every_end("epoll", json!({"idle_ms": IDLE_MS, "unread": null}));
}

#[test]
fn the_epoll_loop_with_a_low_water_mark_knows_every_end() {
    knows_every_end("epoll", json!({"idle_ms": IDLE_MS, "unread": 1024}));
}

#[test]
fn the_epoll_loop_that_writes_proofs_knows_every_end() {
    knows_every_end("epoll", json!({"idle_ms": IDLE_MS, "unread": null, "proofs": true}));
}

#[test]
fn the_tasks_on_tokio_know_every_end() {
    knows_every_end("tokio", json!({"idle_ms": IDLE_MS, "unread": null}));
}

#[test]
fn the_tasks_on_tokio_uring_know_every_end() {
    knows_every_end("tokio-uring", json!({"idle_ms": IDLE_MS, "unread": null}));
}

/// The floor reports nothing, so its descriptors are counted.
fn lets_go_of_the_dead(wake: Value) {
    let role = Role::start("floor", &json!({"wake": wake}));
    // Behind the line with its address it closes what it wrote the line with.
    let before = role.descriptors_at_rest();
    let mut peers = role.connect();
    role.wait_descriptors(before + PEERS);
    for _ in 0..100 {
        peers.iter_mut().for_each(|peer| peer.write_all(BEAT).unwrap());
    }
    let living = peers.split_off(30);
    peers.split_off(10).into_iter().for_each(reset);
    drop(peers);
    role.wait_descriptors(before + living.len());
}

#[test]
fn the_lazy_floor_lets_go_of_the_dead() {
    lets_go_of_the_dead(json!({"lazy": {"unread": 1024, "drain_ms": 200, "inspect_ms": 300}}));
}

#[test]
fn the_floor_that_wakes_for_beats_lets_go_of_the_dead() {
    lets_go_of_the_dead(json!({"beat": {"drain_every": 8, "window_us": 500}}));
}

#[test]
fn hold_keeps_all_connections_dead_or_alive() {
    let role = Role::start("hold", &json!({"idle_ms": 1, "unread": null}));
    let before = role.descriptors();
    let mut peers = role.connect();
    role.wait_descriptors(before + PEERS);
    drop(peers.split_off(10));
    // When the next one is accepted, all earlier events were handled.
    let last = TcpStream::connect(role.address).unwrap();
    role.wait_descriptors(before + PEERS + 1);
    drop(last);
}

/// Runs a small comparison of all subjects, and returns its result.
fn compare(arguments: &[&str]) -> ResultFile {
    let out = std::env::temp_dir().join(format!(
        "deadpeer-compare-{}-{}.json",
        std::process::id(),
        arguments.len()
    ));
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
    command.args([
        "bench",
        "--against",
        "tokio,tokio-uring,epoll,floor",
        "--rounds",
        "1",
        "--connections",
        "100",
    ]);
    command.args(["--beats", "4000", "--deaths", "500", "--duration", "100ms", "--window", "200ms"]);
    let output = command.args(arguments).arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    ResultFile::parse(&text).unwrap()
}

/// Whether beats wake it only rarely.
fn is_lazy(name: &str) -> bool {
    name == "epoll with low-water mark"
        || ["deadpeer", "floor"].iter().any(|start| name.starts_with(start)) && !name.contains("--wake beat")
}

#[test]
fn a_comparison_yields_every_figure_of_every_subject() {
    let result = compare(&[]);
    assert_eq!(result.experiment, None);
    let comparison = result.comparison.unwrap();
    let named: Vec<_> = comparison.subjects.iter().map(|subject| subject.name.as_str()).collect();
    assert_eq!(
        named,
        [
            "deadpeer",
            "deadpeer --wake beat",
            "deadpeer --batch-window 100us",
            "deadpeer --batch-window 1ms",
            "deadpeer --unread 256",
            "deadpeer --unread 4096",
            "deadpeer --io epoll",
            "deadpeer --io tokio-uring",
            "epoll",
            "epoll with low-water mark",
            "tokio",
            "tokio-uring",
            "floor",
            "floor --wake beat",
            "floor with proofs",
            "epoll with proofs",
        ]
    );
    assert!(comparison.subjects.iter().all(|subject| subject.ours == subject.name.starts_with("deadpeer")));
    let run: Vec<_> = comparison.runs.iter().map(|run| run.subject.as_str()).collect();
    assert_eq!(run, named);
    for run in &comparison.runs {
        let name = &run.subject;
        assert_eq!(run.accept.unwrap().count, 100, "{name}");
        assert_eq!(run.death.unwrap().count, 50, "{name}");
        assert_eq!(run.idle.unwrap().connections, 300, "{name}");
        let beats = run.beats.unwrap();
        assert!(beats.count >= 700, "{name}: {} beats of 800", beats.count);
        assert!(beats.load_ns > 0 && beats.machine_ns > 0, "{name}");
        // A lazy server may have no work in so short a window.
        assert!(is_lazy(name) || beats.process_ns > 0, "{name}");
        if name.starts_with("floor") && name != "floor with proofs" {
            assert!(run.detection.is_none() && run.storm.is_none(), "{name} judges nothing");
            continue;
        }
        let detection = run.detection.as_ref().unwrap();
        let counted = (detection.injected, detection.missed, detection.false_verdicts);
        assert_eq!(counted, (50, 0, 0), "{name}");
        assert_eq!((detection.latency.count(), detection.injector_late.count()), (50, 50), "{name}");
        let storm = run.storm.unwrap();
        assert_eq!((storm.connections, storm.missed), (250, 0), "{name}");
        assert!(storm.last_verdict_ns.is_some_and(|last| last > 0), "{name}");
    }
    let mistakes: Vec<_> = result.doubts.iter().filter(|doubt| doubt.kind == DoubtKind::Mistakes).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn the_lines_of_servers_come_through_a_pipe_and_a_file_as_they_do_from_memory() {
    for output in ["pipe", "file"] {
        let result =
            compare(&["--measure", "death", "--output", output, "--subjects", "deadpeer,epoll with proofs"]);
        let comparison = result.comparison.unwrap();
        assert_eq!(format!("{:?}", comparison.settings.output).to_lowercase(), output);
        assert!(comparison.runs.iter().all(|run| run.death.unwrap().count == 50));
        let mistakes: Vec<_> =
            result.doubts.iter().filter(|doubt| doubt.kind == DoubtKind::Mistakes).collect();
        assert!(mistakes.is_empty(), "{output}: {mistakes:#?}");
    }
}

#[test]
fn what_is_measured_on_request_is_measured_of_the_named_subjects_only() {
    let result = compare(&["--measure", "rates,stream", "--subjects", "deadpeer,epoll"]);
    let runs = result.comparison.unwrap().runs;
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert!(run.accept.is_none() && run.beats.is_none() && run.idle.is_none(), "{}", run.subject);
        let names: Vec<_> = run.further.keys().map(String::as_str).collect();
        let rates = [1, 10, 100].map(|rate| format!("rate_{rate}_process_ns_per_peer_second"));
        let [first, second, third] = &rates;
        let stream = ["stream_bytes_per_second", "stream_process_ns_per_gigabyte"];
        let mut expected = vec![first.as_str(), second, third, stream[0], stream[1]];
        expected.sort_unstable();
        assert_eq!(names, expected, "{}", run.subject);
        assert!(run.further["stream_bytes_per_second"] > 0, "{}", run.subject);
    }
}

#[test]
fn a_subject_that_is_none_is_refused_with_the_names_of_those_that_are() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadpeer"));
    let output = command.args(["bench", "--against", "epoll", "--subjects", "nginx"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("no subject is called `nginx`") && error.contains("epoll with low-water mark"),
        "{error}"
    );
}
