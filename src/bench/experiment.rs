//! The detection experiment: peers die in every way that there is, and the tracker is held to what was done.
//!
//! # Model
//!
//! A tracker, which is `deadpeer run` in a process of its own, and peers in several others: a crowd on loopback, of
//! which some die by a [`schedule`]; a process whose peers all beat until it is stopped by SIGSTOP; and, as
//! root, one at the far end of a [`path`] that is lost. When the last verdict is due, what was told is
//! [held against](verdicts) what was done.
//!
//! # Contract
//!
//! - Every death is caused at an instant that was drawn before, and its latency counts from there.
//! - The tracker is asked nothing: it writes its events into memory, which wakes nobody, and they are read at
//!   the end.
//! - A way that cannot be run here is reported with the reason, never left out.

pub mod path;
pub mod schedule;
mod sizes;
mod tracker;
pub mod verdicts;

use std::io;
use std::time::Duration;

use super::child::Child;
use super::peers::{Caused, Death, Done, PACE_NS, PeersPlan, Phase};
use super::proc::{self, Machine};
use super::{Observer, machine, nanos, now, role_command};
use crate::measure::result::{Experiment, Settings, Way};
use crate::sys::process;
use crate::time::{Instant, sleep_until};
use path::Net;
use sizes::Sizes;
use tracker::{GRACE, Tracker};
use verdicts::{Frame, ReportedEvent};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at the start.
    pub connections: usize,
    /// Beats a second over all connections.
    pub beats_per_second: u64,
    /// Deaths a second over all ways that die one by one.
    pub deaths_per_second: u64,
    /// How long they go on.
    pub duration: Duration,
    /// Which.
    pub ways: Vec<Way>,
    /// What the schedule is drawn from.
    pub seed: u64,
    /// Ring threads of the tracker.
    pub threads: usize,
    /// The tracker's batch window; its own default if none is given.
    pub batch_window: Option<Duration>,
    /// `lazy` or `beat`.
    pub wake: String,
    /// Another tracker than this program, for the tests of the oracle.
    pub tracker: Option<std::path::PathBuf>,
}

/// What an experiment found besides its figures: the material of doubts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// Lateness of the beats at p99, or their greatest.
    pub load_late_ns: u64,
    /// Beats that were given up or refused by living sockets.
    pub beats_lost: u64,
    /// CPU of processes that are not ours.
    pub foreign_ns: u64,
    /// Taken away by the hypervisor.
    pub stolen_ns: u64,
    /// Load and tracker had a core in common.
    pub shared_core: bool,
    /// Threads of the tracker beyond one for each of its cores.
    pub threads_without_core: u64,
}

const BEAT_BYTES: usize = 16;
/// As long as a start or an orderly end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// After the last verdict was due, a second one of the same death would come within this.
const AFTERMATH: Duration = Duration::from_millis(300);

/// Runs it. `observer` is asked between all steps whether to go on.
///
/// # Errors
///
/// When it cannot be set up: too many connections for the limits, no io_uring, a child that fails;
/// [`io::ErrorKind::Interrupted`] when `observer` says so.
pub fn run(options: &Options, observer: &mut Observer<'_>) -> io::Result<(Experiment, Circumstances)> {
    let all_cores = process::usable_cores();
    let found = carry_out(options, observer);
    // Whatever comes next is to have them all again.
    process::move_to_cores(&all_cores)?;
    // A signal from a terminal goes to the children, too: that they end is no failure of theirs.
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
    // We sleep while something is measured, but what we do is done beside the load.
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
    let before = Load::read(&pids, &server_cores, &load_cores)?;
    observer.step("warming up", Duration::from_nanos(timing.from.saturating_sub(now())))?;
    observer.sleep_until(timing.from)?;
    observer.step("peers die", Duration::from_nanos(timing.to - timing.from))?;
    let acts = act(&groups, net.as_ref(), &timing, observer)?;
    observer.sleep_until(timing.to)?;
    observer.step("the last verdicts are awaited", Duration::from_nanos(timing.end - timing.to))?;
    observer.sleep_until(timing.end)?;
    let after = Load::read(&pids, &server_cores, &load_cores)?;

    observer.step("counting", Duration::from_millis(500))?;
    let reported: Vec<ReportedEvent> = tracker.child.lines()?.iter().filter_map(tracker::reported).collect();
    let summary = tracker.end()?;
    let mut circumstances = after.since(&before);
    circumstances.shared_core = server_cores.iter().any(|core| load_cores.contains(core));
    circumstances.threads_without_core = options.threads.saturating_sub(server_cores.len()) as u64;
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
        batch_window_ns: tracker::window(&summary, options),
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
        summary: summary.summary,
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
    /// Some, one by one, in these ways; the number of deaths and the group's own seed.
    OneByOne(usize, Vec<Way>, u64),
    /// All in the same instant, from outside.
    Together(Way),
}

fn start_peers(
    sizes: &Sizes,
    tracker: &Tracker,
    net: Option<&Net>,
    cores: &[usize],
) -> io::Result<Vec<Group>> {
    let plan = |server, source, connections| PeersPlan {
        server,
        source,
        connections,
        beat_bytes: BEAT_BYTES,
        pace_ns: PACE_NS,
        first_bytes: BEAT_BYTES,
    };
    let start = |connections: usize, dies: Dies| -> io::Result<Group> {
        let [near, far] = [tracker.addresses[0], *tracker.addresses.last().unwrap_or(&tracker.addresses[0])];
        let command = match net {
            None => role_command("peers", &plan(near, None, connections))?,
            Some(net) if dies == Dies::Together(Way::PathLoss) => {
                net.far(&role_command("peers", &plan(far, Some(net.source()), connections))?)
            }
            Some(net) => net.near(&role_command("peers", &plan(near, None, connections))?),
        };
        Ok(Group { child: Child::start("peers", command, cores)?, connections, dies })
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
    /// The first beat.
    start: u64,
    /// The first death.
    from: u64,
    /// The last death.
    to: u64,
    /// The last verdict has come.
    end: u64,
    detection: u64,
}

impl Timing {
    fn of(options: &Options, tracker: &Tracker) -> Timing {
        let start = machine::soon();
        // By then everyone has beaten.
        let each = options.connections as f64 / options.beats_per_second.max(1) as f64;
        let from = start + (each * 1e9) as u64 + 200_000_000;
        let to = from + nanos(options.duration);
        let end = to + tracker.detection.max(nanos(GRACE)) + nanos(schedule::FIN_BEFORE_RST + AFTERMATH);
        Timing { start, from, to, end, detection: tracker.detection }
    }

    /// When those die who die together.
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

/// When something was done from outside: just before, and just after.
#[derive(Clone, Copy, Debug)]
struct Act {
    way: Way,
    called: u64,
    returned: u64,
}

/// Does what is done from outside, each at its instant.
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

/// Lets the peers tell what they did, and ends them.
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
                // What the stopped say of their beats is not about the load.
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

/// What else the machine did.
struct Load {
    others: u64,
    machine: Machine,
}

impl Load {
    fn read(pids: &[u32], server_cores: &[usize], load_cores: &[usize]) -> io::Result<Load> {
        let ours: Vec<u32> = pids.iter().copied().chain([std::process::id()]).collect();
        let mut cores: Vec<usize> = server_cores.iter().chain(load_cores).copied().collect();
        cores.sort_unstable();
        cores.dedup();
        Ok(Load { others: proc::others_cpu(&ours)?, machine: Machine::read(&cores)? })
    }

    fn since(&self, before: &Load) -> Circumstances {
        Circumstances {
            foreign_ns: self.others.saturating_sub(before.others),
            stolen_ns: self.machine.since(before.machine).steal_ns(),
            ..Circumstances::default()
        }
    }
}
