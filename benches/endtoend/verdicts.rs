//! Deaths that were caused, joined with deaths that were reported.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::beating::{self, BEAT_BYTES, Moment, PACE_NS};
use crate::child::Line;
use crate::injector::InjectPlan;
use crate::load::Go;
use crate::outcome::Doubts;
use crate::subject::{Options, PATIENCE, Server, Stage, Subject};
use crate::sys;

/// One death as it was caused.
pub struct Caused {
    pub peer: String,
    /// The scheduled instant, from which latency counts.
    pub due: u64,
    /// When it was really done, for an injector.
    pub called: u64,
    /// What the verdict should be.
    pub cause: &'static str,
}

/// A death with its verdict.
pub struct Verdict<'a> {
    pub caused: &'a Caused,
    pub at: u64,
}

/// What does not match up.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Mistakes {
    /// Caused and never reported.
    pub missed: usize,
    /// Reported more than once.
    pub doubled: usize,
    /// Reported of peers that were alive.
    pub invented: usize,
    /// Reported with another cause.
    pub misnamed: usize,
}

impl Mistakes {
    pub fn sum(self) -> usize {
        self.missed + self.doubled + self.invented + self.misnamed
    }

    pub fn add(&mut self, other: Mistakes) {
        self.missed += other.missed;
        self.doubled += other.doubled;
        self.invented += other.invented;
        self.misnamed += other.misnamed;
    }
}

/// Joins both by the peer's address; the first report of a death counts.
pub fn join<'a>(caused: &'a [Caused], reported: &[Line]) -> (Vec<Verdict<'a>>, Mistakes) {
    let mut open: HashMap<&str, (&Caused, Option<u64>)> =
        caused.iter().map(|death| (death.peer.as_str(), (death, None))).collect();
    let (mut verdicts, mut mistakes) = (Vec::new(), Mistakes::default());
    for line in reported.iter().filter(|line| line.event == "died") {
        match open.get_mut(line.peer.as_str()) {
            None => mistakes.invented += 1,
            Some((_, Some(_))) => mistakes.doubled += 1,
            Some((caused, verdict)) => {
                *verdict = Some(line.mono_ns);
                mistakes.misnamed += usize::from(line.cause != caused.cause);
                verdicts.push(Verdict { caused, at: line.mono_ns });
            }
        }
    }
    mistakes.missed = caused.len() - verdicts.len();
    (verdicts, mistakes)
}

/// Connections that beat and are killed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shape {
    pub connections: usize,
    pub rate: f64,
    pub warm_up: Duration,
    pub kills: usize,
    /// Deaths a second; none for all in one instant, when the beats have ended.
    pub kill_rate: Option<f64>,
    pub half_by_fin: bool,
}

pub struct Injected {
    pub caused: Vec<Caused>,
    /// The last kill's system call returned then.
    pub finished: u64,
    pub lines: Vec<Line>,
}

/// How long after the last death its verdict is awaited.
const LAST_VERDICT: Duration = Duration::from_secs(5);
/// An injector later than this at p99 measures itself.
const LATE_US: f64 = PACE_NS as f64 / 1e3 + 5_000.0;

pub fn inject(stage: &Stage, subject: Subject, shape: &Shape, doubts: &mut Doubts) -> io::Result<Injected> {
    let mut server = stage.start(subject, &Options::default())?;
    let plan = InjectPlan {
        server: server.address,
        connections: shape.connections,
        rate: shape.rate,
        beat_bytes: BEAT_BYTES,
        pace_ns: PACE_NS,
        kills: shape.kills,
        kill_rate: shape.kill_rate,
        half_by_fin: shape.half_by_fin,
    };
    let mut injector = stage.start_role("inject", &plan)?;
    injector.wait_for("connected", Duration::from_secs(60))?;
    server.wait_accepted(shape.connections)?;

    let start = sys::now() + 200_000_000;
    let window_from = start + u64::try_from(shape.warm_up.as_nanos()).expect("seconds");
    let lasts = shape.kill_rate.map_or(0.0, |rate| shape.kills as f64 / rate * 1e9);
    let window_to = window_from + lasts as u64;
    injector.tell(&Go { start, window_from, window_to })?;
    let (server_pid, load_pid) = (server.child.pid(), injector.pid());
    sys::sleep_until(window_from);
    let before = Moment::read(stage, server_pid, load_pid)?;
    sys::sleep_until(window_to);
    let after = Moment::read(stage, server_pid, load_pid)?;

    let done = injector.wait_for("done", PATIENCE)?;
    let late_us = done.number("late_p99_us").unwrap_or(0.0);
    if late_us > LATE_US {
        doubts.add(format!("{}: the beats were {:.1} ms late at p99", subject.name(), late_us / 1e3));
    }
    if shape.kill_rate.is_some() {
        let beats = done.integer("beats").unwrap_or(0);
        let cost = after.since(&before, beats, lasts / 1e9, late_us);
        beating::doubt_the_machine(subject.name(), &cost, doubts);
    }
    let (caused, finished) = kills(injector.lines()?)?;
    server.child.wait_count("died", caused.len(), LAST_VERDICT)?;
    // A second report of a death would come late: give it time.
    std::thread::sleep(Duration::from_millis(100));
    let lines = end_before_clients(server)?;
    injector.finish(PATIENCE)?;
    Ok(Injected { caused, finished, lines })
}

/// The survivors must not die while the server still reports.
fn end_before_clients(mut server: Server) -> io::Result<Vec<Line>> {
    let deaths_seen = server.deaths()?.count();
    let mut lines = server.end()?;
    // What the daemon says of its own shutting down is no verdict on a peer.
    let mut deaths = 0;
    lines.retain(|line| {
        deaths += usize::from(line.event == "died");
        line.event != "died" || deaths <= deaths_seen
    });
    Ok(lines)
}

fn kills(lines: &[Line]) -> io::Result<(Vec<Caused>, u64)> {
    let mut finished = 0;
    let mut caused = Vec::new();
    for line in lines.iter().filter(|line| line.event == "killed") {
        let instant =
            |name| line.integer(name).ok_or_else(|| io::Error::other(format!("'killed' without {name}")));
        finished = finished.max(instant("returned_ns")?);
        let cause = if line.text("how") == Some("fin") { "closed" } else { "aborted" };
        let (peer, due, called) = (line.peer.clone(), line.mono_ns, instant("called_ns")?);
        caused.push(Caused { peer, due, called, cause });
    }
    if caused.is_empty() {
        return Err(io::Error::other("not one death was caused"));
    }
    Ok((caused, finished))
}
