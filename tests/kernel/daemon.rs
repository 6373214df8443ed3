//! The daemon as a child, and the peers of it that must be processes of their own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Bounds every wait: far beyond what anything here takes, so that only what never comes meets it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The options of a policy that judges within 700 ms.
pub const QUICK: &[&str] = &["--idle", "400ms", "--interval", "100ms", "--probes", "3", "--handshake", "5s"];

/// A child that is killed when the test is over, however it ends.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

/// A running `deadpeer run`, perhaps in a network namespace.
pub struct Daemon {
    pub child: Killed,
    pub address: SocketAddr,
    events: Receiver<Value>,
    pub seen: Vec<Value>,
}

impl Daemon {
    pub fn start(namespace: Option<&str>, listen: &str, options: &[&str]) -> Daemon {
        let mut command = program(namespace);
        command.args(["run", "--threads", "1", "--listen", listen, "--events", "-"]).args(options);
        command.args(["--io", crate::IO_NAME]);
        Daemon::of(command)
    }

    /// A daemon from a command of its own, which must write its events to its standard output.
    pub fn of(mut command: Command) -> Daemon {
        let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let output = child.0.stdout.take().unwrap();
        let (to, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let value: Value = serde_json::from_str(&line).unwrap();
                // A key that stands twice would be lost in the value.
                assert_eq!(value.to_string().len(), line.len(), "{line}");
                let _ = to.send(value);
            }
        });
        let mut daemon = Daemon { child, address: "0.0.0.0:0".parse().unwrap(), events, seen: Vec::new() };
        let listening = daemon.wait(|event| event["event"] == "listening");
        daemon.address = listening["address"].as_str().unwrap().parse().unwrap();
        daemon
    }

    /// The first event so far, or from now on, that fits.
    pub fn wait(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(event) = self.seen.iter().find(|event| fits(event)) {
            return event.clone();
        }
        loop {
            let event =
                self.events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {:#?}", self.seen));
            self.seen.push(event.clone());
            if fits(&event) {
                return event;
            }
        }
    }

    pub fn wait_for(&mut self, event: &str) -> Value {
        self.wait(|value| value["event"] == event)
    }

    /// Waits until so many events of a kind came.
    pub fn wait_for_many(&mut self, event: &str, count: usize) {
        while self.seen.iter().filter(|value| value["event"] == event).count() < count {
            let next = self.events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {:#?}", self.seen));
            self.seen.push(next);
        }
    }

    /// Reads on for as long, and returns all events so far.
    pub fn listen_for(&mut self, span: Duration) -> &[Value] {
        let end = std::time::Instant::now() + span;
        while let Ok(event) =
            self.events.recv_timeout(end.saturating_duration_since(std::time::Instant::now()))
        {
            self.seen.push(event);
        }
        &self.seen
    }

    pub fn count(&self, event: &str) -> usize {
        self.seen.iter().filter(|value| value["event"] == event).count()
    }
}

/// `deadpeer`, perhaps in a network namespace. `ip netns exec` becomes the program itself, so that
/// signals reach it.
pub fn program(namespace: Option<&str>) -> Command {
    let binary = env!("CARGO_BIN_EXE_deadpeer");
    match namespace {
        None => Command::new(binary),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, binary]);
            command
        }
    }
}

/// `deadpeer beat` as a peer, or many peers, in a process of its own.
pub fn beat(namespace: Option<&str>, to: SocketAddr, options: &[&str]) -> Killed {
    let mut command = program(namespace);
    command.args(["beat", "--quiet", &to.to_string()]).args(options).stdout(Stdio::null());
    Killed(command.spawn().unwrap())
}
