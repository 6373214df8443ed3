//! The detection experiment: peers die in every way, and the tracker's verdicts are compared with the deaths.
//!
//! # Model
//!
//! The tracker is `deadpeer run` in its own process. The peers are in several others: processes on loopback, where
//! some peers die by a schedule; a process whose peers all beat until SIGSTOP stops it; and, as
//! root, one at the far end of a path that is lost. When the last verdict is due, the reported events are
//! compared with the deaths that were caused.
//!
//! # Contract
//!
//! - Each death is caused at an instant that was drawn before the start, and its latency counts from that instant.
//! - The tracker writes its events into memory, which wakes no other process; they are read at the end.
//! - A way that cannot be run here is reported with the reason, never left out.

mod options;
mod path;
pub(super) mod schedule;
mod tracker;
pub(super) mod verdicts;

use std::io;
use std::time::Duration;

use super::child::Child;
use super::peers::{Caused, Death, Done, PeersPlan, Phase};
use super::proc::Surroundings;
use super::{Observer, machine, now, role_command};
use crate::measure::result::{EngineUsed, Experiment, OutputKind, Settings, Way};
use crate::sys::process;
use crate::time::{Instant, nanos, sleep_until};
pub use options::Options;
use options::{PATIENCE, Sizes};
use path::Net;
use tracker::{GRACE, Tracker};
use verdicts::{Frame, ReportedEvent};

/// The circumstances of an experiment, from which doubts are drawn.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The tracker's engine, from its event `listening`.
    pub engine: Option<EngineUsed>,
    /// The lateness of the beats at p99; of a sample too small for that, their maximum.
    pub load_late_ns: u64,
    /// The number of beats that were dropped, or refused by sockets of living peers.
    pub beats_lost: u64,
    /// CPU of other processes, in nanoseconds.
    pub foreign_ns: u64,
    /// CPU that the hypervisor took, in nanoseconds.
    pub stolen_ns: u64,
    /// Load and tracker shared a core.
    pub shared_core: bool,
    /// The number of the tracker's threads beyond its cores.
    pub threads_without_core: u64,
}

const BEAT_BYTES: usize = 16;
/// The time after the last verdict in which a second one of the same death would come.
const AFTERMATH: Duration = Duration::from_millis(300);

/// Runs the experiment. Between its steps `observer` may end it.
///
/// # Errors
///
/// When it cannot be set up: too many connections for the limits, no such engine, a child that fails;
/// [`io::ErrorKind::Interrupted`] when `observer` ends it.
pub fn run(options: &Options, observer: &mut Observer<'_>) -> io::Result<(Experiment, Circumstances)> {
    let all_cores = process::usable_cores();
    let found = carry_out(options, observer);
    // The next measurement chooses from all cores.
    process::move_to_cores(&all_cores)?;
    // A signal from a terminal goes to the children, too: the failure of one of them is then no error.
    found.or_else(|error| observer.check().and(Err(error)))
}

fn carry_out(options: &Options, observer: &mut Observer<'_>) -> io::Result<(Experiment, Circumstances)> {
    let mut ways = options.ways.clone();
    ways.sort_unstable();
    ways.dedup();
    let (net, no_path) = match ways.contains(&Way::PathLoss).then(Net::new) {
        None => (None, None),
        Some(Ok(net)) => (Some(net), None),
        Some(Err(why)) => (None, Some(why)),
    };
    let sizes = Sizes::of(options, &ways, net.is_some())?;
    let (server_cores, load_cores) = machine::share_out(options.threads);
    // This process sleeps or works on the load's cores while the tracker is measured.
    process::move_to_cores(&load_cores)?;

    observer.step("starting the tracker", Duration::from_secs(1))?;
    let mut tracker = Tracker::start(options, &sizes, net.as_ref(), &server_cores)?;
    observer.step("connecting the peers", Duration::from_secs_f64(sizes.total() as f64 / 8_000.0))?;
    let mut groups = start_peers(&sizes, &tracker, net.as_ref(), &load_cores)?;
    for group in &mut groups {
        group.child.wait_for("connected", PATIENCE * 2)?;
    }
    tracker.await_all(sizes.total())?;

    let timing = Timing::of(options, &tracker);
    let total = sizes.total() as f64;
    for group in &mut groups {
        let phase = group.phase(options, &timing, total);
        group.child.tell(&phase)?;
    }
    let pids: Vec<u32> = groups.iter().map(|group| group.child.pid()).chain([tracker.child.pid()]).collect();
    let cores = [&server_cores[..], &load_cores].concat();
    let before = Surroundings::read(&pids, &cores)?;
    observer.step("warming up", Duration::from_nanos(timing.from.saturating_sub(now())))?;
    observer.sleep_until(timing.from)?;
    observer.step("peers die", Duration::from_nanos(timing.to - timing.from))?;
    let acts = act(&groups, net.as_ref(), &timing, observer)?;
    observer.sleep_until(timing.to)?;
    observer.step("awaiting the last verdicts", Duration::from_nanos(timing.end - timing.to))?;
    observer.sleep_until(timing.end)?;
    let after = Surroundings::read(&pids, &cores)?;

    observer.step("counting", Duration::from_millis(500))?;
    let reported: Vec<ReportedEvent> = tracker.child.lines()?.iter().filter_map(tracker::reported).collect();
    let (engine, batch_window) = (tracker.engine.take(), tracker.batch_window);
    let summary = tracker.end()?;
    let mut circumstances = Circumstances {
        engine,
        foreign_ns: after.others.saturating_sub(before.others),
        stolen_ns: after.machine.since(before.machine).steal,
        shared_core: server_cores.iter().any(|core| load_cores.contains(core)),
        threads_without_core: options.threads.saturating_sub(server_cores.len()) as u64,
        ..Circumstances::default()
    };
    let caused = collect(groups, &acts, &mut circumstances)?;

    let frame = Frame {
        start: timing.start,
        end: timing.to,
        detection: timing.detection,
        connections: sizes.total() as u64,
    };
    let run: Vec<Way> = ways.iter().copied().filter(|&way| way != Way::PathLoss || net.is_some()).collect();
    let (mut results, quality) = verdicts::judge(&run, &caused, &reported, frame);
    results.extend(no_path.map(|why| verdicts::not_run(Way::PathLoss, why, frame)));
    let settings = Settings {
        connections: sizes.total() as u64,
        beats_per_second: options.beats_per_second,
        beat_bytes: BEAT_BYTES as u64,
        deaths_per_second: options.deaths_per_second,
        duration_ns: nanos(options.duration),
        threads: options.threads as u64,
        wake: options.wake.clone(),
        batch_window_ns: options.batch_window.map_or(batch_window, nanos),
        detection_time_ns: timing.detection,
        half_closed_grace_ns: nanos(GRACE),
        load_processes: pids.len() as u64 - 1,
    };
    let experiment = Experiment {
        settings,
        start_ns: timing.start,
        lasted_ns: timing.end - timing.start,
        ways: results,
        quality,
        summary,
    };
    Ok((experiment, circumstances))
}

/// One process of peers.
struct Group {
    child: Child,
    connections: usize,
    dies: Dies,
}

/// How the peers of a group die.
#[derive(Clone, Debug, PartialEq)]
enum Dies {
    /// Some, one by one: the number of deaths, their ways, and the group's own seed.
    OneByOne(usize, Vec<Way>, u64),
    /// All in the same instant, by an act from outside.
    Together(Way),
}

fn start_peers(
    sizes: &Sizes,
    tracker: &Tracker,
    net: Option<&Net>,
    cores: &[usize],
) -> io::Result<Vec<Group>> {
    let start = |connections: usize, dies: Dies| -> io::Result<Group> {
        let [near, far] = [tracker.addresses[0], *tracker.addresses.last().unwrap_or(&tracker.addresses[0])];
        let beyond = dies == Dies::Together(Way::PathLoss);
        let plan = PeersPlan::new(if beyond { far } else { near }, connections, BEAT_BYTES);
        let source = beyond.then_some(path::THEIRS.into());
        let command = role_command("peers", &PeersPlan { source, ..plan })?;
        let command = net.map(|net| net.within(beyond, &command)).unwrap_or(command);
        Ok(Group { child: Child::start("peers", command, cores, OutputKind::Memory)?, connections, dies })
    };
    let mut groups = Vec::new();
    let crowd: usize = sizes.crowds.iter().sum();
    let (mut given, mut held) = (0, 0);
    for (number, &connections) in sizes.crowds.iter().enumerate() {
        held += connections;
        let deaths = (sizes.deaths * held).checked_div(crowd).unwrap_or(0) - given;
        given += deaths;
        groups.push(start(connections, Dies::OneByOne(deaths, sizes.ways.clone(), number as u64))?);
    }
    if sizes.stop > 0 {
        groups.push(start(sizes.stop, Dies::Together(Way::Stop))?);
    }
    if sizes.path > 0 {
        groups.push(start(sizes.path, Dies::Together(Way::PathLoss))?);
    }
    Ok(groups)
}

/// The instants of an experiment.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// The instant of the first beat.
    start: u64,
    /// The instant of the first death.
    from: u64,
    /// The instant of the last death.
    to: u64,
    /// The instant by which the last verdict is due.
    end: u64,
    detection: u64,
}

impl Timing {
    fn of(options: &Options, tracker: &Tracker) -> Timing {
        let start = machine::soon();
        // By then each peer has beaten.
        let each = options.connections as f64 / options.beats_per_second.max(1) as f64;
        let from = start + (each * 1e9) as u64 + 200_000_000;
        let to = from + nanos(options.duration);
        let end = to + tracker.detection.max(nanos(GRACE)) + nanos(schedule::FIN_BEFORE_RST + AFTERMATH);
        Timing { start, from, to, end, detection: tracker.detection }
    }

    /// The instant at which the peers of a group die together.
    fn together(&self, way: Way) -> u64 {
        let part = if way == Way::Stop { 3 } else { 5 };
        self.from + (self.to - self.from) * part / 10
    }
}

impl Group {
    fn phase(&self, options: &Options, timing: &Timing, total: f64) -> Phase {
        let deaths = match &self.dies {
            Dies::OneByOne(deaths, ways, own) => schedule::draw(
                self.connections,
                *deaths,
                ways,
                timing.from,
                timing.to,
                options.seed.wrapping_add(own.wrapping_mul(0x9e37_79b9)),
            ),
            Dies::Together(way) => {
                let at = timing.together(*way);
                (0..self.connections).map(|victim| Death { at, victim, way: *way, fin_at: at }).collect()
            }
        };
        let rate = options.beats_per_second as f64 * self.connections as f64 / total;
        Phase { start: timing.start, count_from: timing.start, end: timing.end, rate, deaths }
    }
}

/// An act from outside, with the instants before and after it.
#[derive(Clone, Copy, Debug)]
struct Act {
    way: Way,
    called: u64,
    returned: u64,
}

/// Does the acts from outside, each at its instant.
fn act(
    groups: &[Group],
    net: Option<&Net>,
    timing: &Timing,
    observer: &mut Observer<'_>,
) -> io::Result<Vec<Act>> {
    let mut acts = Vec::new();
    for way in [Way::Stop, Way::PathLoss] {
        let Some(group) = groups.iter().find(|group| group.dies == Dies::Together(way)) else { continue };
        let at = timing.together(way);
        observer.sleep_until(at.saturating_sub(20_000_000))?;
        sleep_until(Instant::from_nanos(at));
        let called = now();
        match (way, net) {
            (Way::PathLoss, Some(net)) => net.cut()?,
            _ => process::signal(group.child.pid(), libc::SIGSTOP),
        }
        acts.push(Act { way, called, returned: now() });
    }
    Ok(acts)
}

/// Reads the reports of the peers, and ends them.
fn collect(groups: Vec<Group>, acts: &[Act], circumstances: &mut Circumstances) -> io::Result<Vec<Caused>> {
    let mut all = Vec::new();
    for mut group in groups {
        if group.dies == Dies::Together(Way::Stop) {
            process::signal(group.child.pid(), libc::SIGCONT);
        }
        group.child.wait_for("done", PATIENCE)?;
        for line in group.child.lines()? {
            match line.event.as_str() {
                "caused" => {
                    let mut caused: Caused = line.parse()?;
                    if let Some(act) = acts.iter().find(|act| act.way == caused.way) {
                        (caused.called, caused.returned) = (act.called, act.returned);
                    }
                    all.push(caused);
                }
                // The lateness of stopped peers is not that of the load.
                "done" if !matches!(group.dies, Dies::Together(_)) => {
                    let done: Done = line.parse()?;
                    let late = done.late.percentile(99.0).or(done.late.max()).unwrap_or(0);
                    circumstances.load_late_ns = circumstances.load_late_ns.max(late);
                    circumstances.beats_lost += done.unsent + done.refused;
                }
                _ => {}
            }
        }
        group.child.finish(PATIENCE)?;
    }
    Ok(all)
}
