//! One run: a server, connections that beat by schedule, and what that cost inside a window.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::load::{Go, LoadPlan};
use crate::outcome::Doubts;
use crate::proc::{self, Machine, Process};
use crate::subject::{Options, PATIENCE, Stage, Subject};
use crate::sys;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shape {
    pub connections: usize,
    /// Beats a second over all connections.
    pub rate: f64,
    pub warm_up: Duration,
    pub window: Duration,
    /// The sender's strokes; see [`PACE_NS`].
    pub stroke_ns: u64,
    /// First beats have random sizes up to this; see `LoadPlan`.
    pub first_bytes: usize,
}

pub const BEAT_BYTES: usize = 16;
/// A beat may wait this long for the sender's next stroke. No even part of the kernel's timer tick
/// (4 ms, or 1 ms), with which the strokes must not keep step.
pub const PACE_NS: u64 = 473_000;
/// Later than a stroke and this at p99, the load did not keep its schedule.
const LATE_US: f64 = 5_000.0;

/// What one window cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    pub beats: u64,
    pub seconds: f64,
    pub process_ns: u64,
    pub load_ns: u64,
    pub machine_ns: u64,
    /// The same as sampled by the kernel's tick, which misses much: for comparison.
    pub machine_sampled_ns: u64,
    /// Processes that are not ours, on any core.
    pub foreign_ns: u64,
    pub steal_ns: u64,
    pub sleeps: u64,
    pub late_p99_us: f64,
}

impl Cost {
    pub fn process_us_per_beat(&self) -> f64 {
        self.process_ns as f64 / 1e3 / self.beats as f64
    }

    pub fn machine_us_per_beat(&self) -> f64 {
        self.machine_ns as f64 / 1e3 / self.beats as f64
    }

    /// What is left of the machine without the peers: what a server pays whose peers are elsewhere, but
    /// for the receive path below the socket, which on loopback runs in the sender's time.
    pub fn own_us_per_beat(&self) -> f64 {
        self.machine_ns.saturating_sub(self.load_ns) as f64 / 1e3 / self.beats as f64
    }

    pub fn load_us_per_beat(&self) -> f64 {
        self.load_ns as f64 / 1e3 / self.beats as f64
    }

    pub fn sampled_us_per_beat(&self) -> f64 {
        self.machine_sampled_ns as f64 / 1e3 / self.beats as f64
    }

    pub fn sleeps_per_second(&self) -> f64 {
        self.sleeps as f64 / self.seconds
    }
}

pub fn measure(
    stage: &Stage,
    subject: Subject,
    options: &Options,
    shape: &Shape,
    doubts: &mut Doubts,
) -> io::Result<Cost> {
    let mut server = stage.start(subject, options)?;
    let mut load = stage.start_role(
        "load",
        &LoadPlan {
            server: server.address,
            connections: shape.connections,
            rate: shape.rate,
            beat_bytes: BEAT_BYTES,
            pace_ns: shape.stroke_ns,
            first_bytes: shape.first_bytes,
            falls_silent: false,
        },
    )?;
    load.wait_for("connected", Duration::from_secs(60))?;
    server.wait_accepted(shape.connections)?;

    let start = sys::now() + 200_000_000;
    let window_from = start + nanos(shape.warm_up);
    let window_to = window_from + nanos(shape.window);
    load.tell(&Go { start, window_from, window_to })?;
    let (server_pid, load_pid) = (server.child.pid(), load.pid());
    sys::sleep_until(window_from);
    let before = Moment::read(stage, server_pid, load_pid)?;
    sys::sleep_until(window_to);
    let after = Moment::read(stage, server_pid, load_pid)?;

    let done = load.wait_for("done", PATIENCE)?;
    let count = |name| done.integer(name).unwrap_or(0);
    let late_p99_us = done.number("late_p99_us").unwrap_or(0.0);
    let (beats, bytes) = (count("beats"), done.bytes);
    let name = subject.name();
    if late_p99_us > shape.stroke_ns as f64 / 1e3 + LATE_US || count("unsent") > 0 {
        doubts.add(format!(
            "{name}: the load fell behind its schedule ({:.1} ms late at p99, {} beats unsent)",
            late_p99_us / 1e3,
            count("unsent")
        ));
    }
    if count("refused") > 0 {
        doubts.add(format!("{name}: {} beats were refused by their sockets", count("refused")));
    }
    if shape.rate > 0.0 && beats == 0 {
        return Err(io::Error::other(format!("{name}: not one beat was counted")));
    }

    if subject.judges() {
        let early = server.deaths()?.count();
        if early > 0 {
            doubts.add(format!("{name}: {early} peers were pronounced dead while all were beating"));
        }
    }
    load.finish(PATIENCE)?;
    if subject.judges() {
        check_deaths(subject, &mut server, shape.connections, bytes, doubts)?;
    }
    server.end()?;

    let cost = after.since(&before, beats, (window_to - window_from) as f64 / 1e9, late_p99_us);
    doubt_the_machine(name, &cost, doubts);
    Ok(cost)
}

/// The load has reset all its connections: all must be known, with all that they sent.
fn check_deaths(
    subject: Subject,
    server: &mut crate::subject::Server,
    connections: usize,
    sent: u64,
    doubts: &mut Doubts,
) -> io::Result<()> {
    let deaths = server.child.wait_count("died", connections, PATIENCE)?;
    let bytes: u64 = server.deaths()?.map(|death| death.bytes).sum();
    let name = subject.name();
    if deaths != connections {
        doubts.add(format!("{name}: {deaths} deaths were reported of {connections} connections"));
    }
    if bytes != sent {
        doubts.add(format!("{name}: it counted {bytes} bytes of the {sent} that were sent"));
    }
    Ok(())
}

pub fn doubt_the_machine(name: &str, cost: &Cost, doubts: &mut Doubts) {
    let wall = cost.seconds * 1e9;
    for (what, part) in
        [("other processes used", cost.foreign_ns), ("the hypervisor took away", cost.steal_ns)]
    {
        if part as f64 > 0.02 * wall {
            let percent = part as f64 / wall * 100.0;
            doubts.add(format!("{name}: {what} {percent:.0} % of a core"));
        }
    }
}

/// Server, load and ourselves, and the machine, at one moment.
pub struct Moment {
    server: Process,
    load: Process,
    others: u64,
    machine: Machine,
}

impl Moment {
    pub fn read(stage: &Stage, server: u32, load: u32) -> io::Result<Moment> {
        Ok(Moment {
            server: Process::read(server)?,
            load: Process::read(load)?,
            others: proc::others_cpu(&[server, load, std::process::id()])?,
            machine: Machine::read(&stage.cores())?,
        })
    }

    pub fn since(&self, before: &Moment, beats: u64, seconds: f64, late_p99_us: f64) -> Cost {
        let machine = self.machine.since(before.machine);
        Cost {
            beats,
            seconds,
            process_ns: self.server.cpu_ns - before.server.cpu_ns,
            load_ns: self.load.cpu_ns - before.load.cpu_ns,
            machine_ns: machine.busy_ns(),
            machine_sampled_ns: machine.sampled_ns(),
            // A process that ended unobserved takes its figure with it.
            foreign_ns: self.others.saturating_sub(before.others),
            steal_ns: machine.steal_ns(),
            sleeps: self.server.sleeps - before.server.sleeps,
            late_p99_us,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a window of less than centuries")
}
