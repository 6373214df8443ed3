//! `deadpeer proxy` as a child, and what it holds.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use deadpeer::reactor::{EngineChoice, probe};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::outcome::{Outcome, deadpeer};
use crate::skip::skip;

/// On what to wait: what holds on one holds on the other.
pub fn engines() -> Vec<&'static str> {
    match probe(EngineChoice::Uring) {
        Ok(_) => vec!["uring", "epoll"],
        Err(error) => {
            skip(&format!("no ring: {error}"));
            vec!["epoll"]
        }
    }
}

/// Runs what mostly waits on all engines at once.
pub fn on_each(test: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        for io in engines() {
            let test = &test;
            scope.spawn(move || test(io));
        }
    });
}

/// A running proxy of one thread, if it is not told otherwise.
pub struct Proxy {
    pub daemon: Daemon,
    pub address: SocketAddr,
    io: &'static str,
}

impl Proxy {
    /// Before one upstream, with the words of a line as further arguments.
    pub fn start(io: &'static str, upstream: SocketAddr, options: &str) -> Proxy {
        Proxy::at(io, "127.0.0.1", &[upstream], options)
    }

    pub fn at(io: &'static str, listen: &str, upstreams: &[SocketAddr], options: &str) -> Proxy {
        let mut command = deadpeer(&format!("proxy --io {io} --listen {listen}:0 --events - {options}"));
        // What the tests still hold when they end is no reason to wait.
        if !options.contains("--drain") {
            command.args(["--drain", "0s"]);
        }
        if !options.contains("--threads") {
            command.args(["--threads", "1"]);
        }
        for upstream in upstreams {
            command.args(["--upstream", &upstream.to_string()]);
        }
        Proxy::of(io, command)
    }

    /// From a command of its own.
    pub fn of(io: &'static str, mut command: Command) -> Proxy {
        command.stderr(Stdio::piped());
        let daemon = Daemon::of(command);
        Proxy { address: daemon.address, daemon, io }
    }

    /// What is told of the interruption of this client's exchange.
    pub fn interruption(&mut self, client: SocketAddr) -> Value {
        self.told("interrupted", client)
    }

    /// The first event of this name about this client.
    pub fn told(&mut self, event: &str, client: SocketAddr) -> Value {
        let client = client.to_string();
        self.daemon.wait(|value| value["event"] == event && value["client"] == client.as_str())
    }

    /// Ends it in order; its summary.
    #[track_caller]
    pub fn finish(mut self) -> Value {
        self.daemon.child.signal("-TERM");
        let summary = self.daemon.wait_for("summary");
        assert_eq!(summary["undelivered"], 0, "{summary:#}");
        Outcome::after(self.daemon.child).assert_quiet_success();
        summary
    }

    /// Ends the proxy in order, after this many whole exchanges and no interruption. Returns its summary.
    #[track_caller]
    pub fn finish_undisturbed(self, completed: u64) -> Value {
        let io = self.io;
        let summary = self.finish();
        assert_eq!(
            (&summary["completed"], &summary["interrupted"], &summary["upstream_failed"]),
            (&completed.into(), &0.into(), &0.into()),
            "{io}: {summary:#}"
        );
        summary
    }

    /// A line of `/proc/PID/status` in KiB: `VmHWM`, the most that it ever held, or `VmRSS`.
    pub fn memory(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.daemon.child.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.daemon.child.0.id())).unwrap().count()
    }

    /// Nothing is to be done: then nothing is done.
    #[track_caller]
    pub fn assert_rests(&self) {
        assert_rests(self.daemon.child.0.id());
    }
}

/// A loop that spins takes all of a second; one that waits, nothing of it worth speaking of.
#[track_caller]
pub fn assert_rests(pid: u32) {
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // proc_pid_stat(5): fields 14 and 15, the second of which may hold anything, but ends with the last ")".
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
    };
    let before = ticks();
    thread::park_timeout(Duration::from_secs(1));
    let taken = ticks() - before;
    assert!(taken < 30, "{taken} ticks of a hundred");
}

/// Holds an event against what it must say; what is `null` must not be said.
#[track_caller]
pub fn assert_told(event: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(event.get(name).unwrap_or(&Value::Null), value, "{name} of {event:#}");
    }
}
