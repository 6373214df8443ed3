//! The tracker: `deadpeer run` in a process of its own, and the events that it reported.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::options::{Options, PATIENCE, Sizes};
use super::path::{self, Net};
use super::verdicts::{ReportedEvent, ReportedKind};
use crate::bench::child::{Child, Line};
use crate::measure::result::{EngineUsed, OutputKind};

/// The number of missed beats until a peer is suspected; the verdict comes a quarter of that time later.
const BEATS_MISSED: f64 = 4.0;
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
/// The half-closed grace: longer than the time from a FIN to the RST behind it.
pub const GRACE: Duration = Duration::from_secs(1);

pub struct Tracker {
    pub child: Child,
    pub addresses: Vec<SocketAddr>,
    pub detection: u64,
    pub engine: Option<EngineUsed>,
    pub batch_window: u64,
}

impl Tracker {
    pub fn start(
        options: &Options,
        sizes: &Sizes,
        net: Option<&Net>,
        cores: &[usize],
    ) -> io::Result<Tracker> {
        let program = options.tracker.clone().map_or_else(std::env::current_exe, Ok)?;
        let each = options.beats_per_second as f64 / sizes.total().max(1) as f64;
        let idle = Duration::from_secs_f64(BEATS_MISSED / each.max(1e-6)).max(SHORTEST_IDLE);
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let mut command = Command::new(program);
        command.args(["run", "--listen", "127.0.0.1:0", "--events", "-", "--probes", "1"]);
        command.args(["--threads", &options.threads.to_string()]);
        command.args(["--wake", &options.wake, "--io", &options.io]);
        command.args(["--idle", &millis(idle), "--interval", &millis(idle / 4), "--handshake", "120s"]);
        command.args(["--half-closed-grace", &millis(GRACE)]);
        if let Some(window) = options.batch_window {
            command.args(["--batch-window", &format!("{}ns", window.as_nanos())]);
        }
        if let Some(net) = net {
            command.args(["--listen", &format!("{}:0", path::OURS)]);
            command = net.within(false, &command);
        }
        let mut child = Child::start("the tracker", command, cores, OutputKind::Memory)?;
        let listening = child.wait_for("listening", PATIENCE)?;
        let addresses = listening.rest.get("addresses").cloned().unwrap_or_default();
        let addresses: Vec<SocketAddr> = serde_json::from_value(addresses)?;
        if addresses.len() != 1 + usize::from(net.is_some()) {
            return Err(io::Error::other(format!(
                "the tracker listens on other addresses than it was told to: {addresses:?}"
            )));
        }
        let field = |name: &str| {
            let missing = || io::Error::other(format!("the tracker's `listening` has no {name}"));
            listening.integer(name).ok_or_else(missing)
        };
        let (detection, window) = (field("detection_time_ms")?, field("batch_window_us")?);
        let capacity = field("capacity")?;
        let engine = listening.engine();
        if capacity < sizes.total() as u64 {
            return Err(io::Error::other(format!(
                "{} connections do not fit: the tracker can hold {capacity}; raise the hard limit (`ulimit -Hn`) or take \
                 --connections {capacity}",
                sizes.total()
            )));
        }
        let (detection, batch_window) = (detection.saturating_mul(1_000_000), window.saturating_mul(1_000));
        Ok(Tracker { child, addresses, detection, engine, batch_window })
    }

    /// Waits until it has accepted `total` connections.
    pub fn await_all(&mut self, total: usize) -> io::Result<()> {
        let up = self.child.wait_count("up", total, PATIENCE)?;
        if up == total {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the tracker reported {up} of {total} connections; take fewer --connections, or an idle machine"
        )))
    }

    /// Ends it, and returns its summary.
    pub fn end(mut self) -> io::Result<serde_json::Value> {
        // A tracker that has already ended wrote no summary, and the error quotes its message.
        self.child.ask_to_end()?;
        self.child.wait_for("summary", PATIENCE)?;
        let lines = self.child.terminate(PATIENCE)?;
        let summary = lines.into_iter().rev().find(|line| line.event == "summary");
        let summary = summary.ok_or_else(|| io::Error::other("the tracker ended without a summary"))?;
        Ok(serde_json::Value::Object(summary.rest))
    }
}

/// The line as an event that [`verdicts`](super::verdicts) compares; `None` for every other line.
pub fn reported(line: &Line) -> Option<ReportedEvent> {
    let kind = match line.event.as_str() {
        "suspected" => ReportedKind::Suspected,
        "recovered" => ReportedKind::Recovered,
        "half_closed" => ReportedKind::HalfClosed,
        "died" => ReportedKind::Died,
        _ => return None,
    };
    let peer = line.peer.parse().ok()?;
    Some(ReportedEvent { kind, peer, at: line.mono_ns, cause: line.cause.clone(), bytes: line.bytes })
}
