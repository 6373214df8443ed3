//! A life among beats: how dear accepts and beats are, and how soon an end is a verdict.

use std::io;
use std::time::Duration;

use super::life::{LEAD_NS, Load, PATIENCE, Server, Stage};
use super::subjects::Row;
use super::{Bench, Measure, Options, verdicts};
use crate::bench::peers::{PeersPlan, Phase};
use crate::bench::proc::{self, Machine, Process, Slabs};
use crate::bench::{nanos, now};
use crate::measure::result::{Beats, Cost, Run, Way};

/// What this life is for.
pub(super) const MEASURES: [Measure; 3] = [Measure::Accept, Measure::Beats, Measure::Detection];

/// After its last accept a server has arming and telling to do.
const ACCEPT_SETTLES: Duration = Duration::from_millis(100);
/// Beats before the first death: the rhythm must stand.
const BEFORE_DEATHS_NS: u64 = 500_000_000;
/// How long after the last death its verdict is awaited.
pub(super) const LAST_VERDICT: Duration = Duration::from_secs(5);
/// A second verdict on a death would come late: it is given time.
pub(super) const SECOND_VERDICT: Duration = Duration::from_millis(100);

pub(super) fn live(bench: &mut Bench<'_, '_>, row: &Row, run: &mut Run) -> io::Result<()> {
    let options = bench.options;
    let settings = &options.settings;
    let bytes_per_second = settings.beats_per_second * settings.beat_bytes;
    let mut server = bench.stage.start(row, bytes_per_second as f64 / settings.connections as f64)?;
    let before = server.cpu_ns()?;
    let mut load = bench.stage.connect(&server, &peers(options, row, &server))?;
    std::thread::sleep(ACCEPT_SETTLES);
    if options.measures(Measure::Accept) {
        let process_ns = server.cpu_ns()? - before;
        run.accept = Some(Cost { count: settings.connections, process_ns });
    }
    let mut sent = 0;
    if options.measures(Measure::Beats) {
        let shape = Window {
            rate: settings.beats_per_second as f64,
            warm_up_ns: settings.warm_up_ns,
            window_ns: settings.window_ns,
        };
        let (beats, bytes) = shape.measure(bench, row, &server, &mut load)?;
        run.beats = Some(beats);
        sent = bytes;
        if row.judges() {
            bench.doubts.deaths_of_the_living(row.name, server.deaths()?.count());
        }
    }
    if options.measures(Measure::Detection) && row.judges() {
        sent = detect(bench, row, &mut server, &mut load, run)?;
    }
    load.end()?;
    if row.judges() {
        all_are_told(bench, row, &mut server, sent)?;
    }
    server.end().map(drop)
}

fn peers(options: &Options, row: &Row, server: &Server) -> PeersPlan {
    let settings = &options.settings;
    let beat_bytes = usize::try_from(settings.beat_bytes).expect("a beat fits memory");
    // Connections that were accepted at any time reach their marks at any time, and then most drains are a
    // wake-up of their own. When all began together they come in batches of hundreds, which made the bare
    // loop two to four times cheaper.
    let mark = usize::try_from(row.mark()).expect("a mark fits memory");
    PeersPlan {
        server: server.address,
        source: None,
        connections: usize::try_from(settings.connections).expect("fewer than descriptors"),
        beat_bytes,
        pace_ns: nanos(options.stroke),
        first_bytes: if options.in_phase { beat_bytes } else { mark.max(beat_bytes) },
    }
}

/// The load has reset all its connections: all must be known, with all that they sent.
fn all_are_told(bench: &mut Bench<'_, '_>, row: &Row, server: &mut Server, sent: u64) -> io::Result<()> {
    let connections = usize::try_from(bench.options.settings.connections).expect("fewer than descriptors");
    let told = server.wait_deaths(connections, PATIENCE)?;
    let counted = server.deaths()?.map(|death| death.bytes).sum();
    bench.doubts.deaths_untold(row.name, connections, told);
    bench.doubts.bytes_uncounted(row.name, sent, counted);
    Ok(())
}

/// Deaths by FIN and RST in turn, while all others beat. Returns the bytes that were sent since the start.
fn detect(
    bench: &mut Bench<'_, '_>,
    row: &Row,
    server: &mut Server,
    load: &mut Load,
    run: &mut Run,
) -> io::Result<u64> {
    let options = bench.options;
    let settings = &options.settings;
    let told_before = server.deaths()?.count();
    let start = now() + LEAD_NS;
    let count_from = start + BEFORE_DEATHS_NS;
    let [connections, deaths] =
        [settings.connections, settings.deaths].map(|count| usize::try_from(count).expect("a small number"));
    let way = |turn: usize| if turn.is_multiple_of(2) { Way::Fin } else { Way::Rst };
    let deaths =
        verdicts::schedule(connections, deaths, settings.deaths_per_second, count_from, options.seed, way);
    let end = deaths.last().map_or(count_from, |death| death.at);
    load.begin(&Phase { start, count_from, end, rate: settings.beats_per_second as f64, deaths })?;
    bench.observer.sleep_until(end)?;
    let (caused, done) = load.finish_phase()?;
    bench.doubts.load(row.name, &done, nanos(options.stroke));
    server.wait_deaths(told_before + caused.len(), LAST_VERDICT)?;
    std::thread::sleep(SECOND_VERDICT);
    let joined = verdicts::join(&caused, server.deaths()?.skip(told_before));
    bench.doubts.verdicts(row.name, &joined);
    bench.doubts.injector(row.name, &joined.detection);
    run.detection = Some(joined.detection);
    Ok(done.bytes)
}

/// Beats for a while, of which the later part is measured.
pub(super) struct Window {
    pub(super) rate: f64,
    pub(super) warm_up_ns: u64,
    pub(super) window_ns: u64,
}

impl Window {
    /// Also says how many bytes were sent since the start.
    pub(super) fn measure(
        &self,
        bench: &mut Bench<'_, '_>,
        row: &Row,
        server: &Server,
        load: &mut Load,
    ) -> io::Result<(Beats, u64)> {
        let slabs = Slabs::read().ok();
        let start = now() + LEAD_NS;
        let (from, to) = (start + self.warm_up_ns, start + self.warm_up_ns + self.window_ns);
        let rate = self.rate;
        load.begin(&Phase { start, count_from: from, end: to, rate, deaths: Vec::new() })?;
        bench.observer.sleep_until(from)?;
        let before = Moment::read(&bench.stage, server, load)?;
        bench.observer.sleep_until(to)?;
        let after = Moment::read(&bench.stage, server, load)?;
        let unread = slabs.zip(Slabs::read().ok()).map(|(before, after)| after.since(&before).values().sum());
        if unread.is_none() {
            bench.doubts.no_slabs();
        }
        let (_, done) = load.finish_phase()?;
        if done.beats == 0 {
            return Err(io::Error::other("not one beat was counted"));
        }
        bench.doubts.load(row.name, &done, nanos(bench.options.stroke));
        let machine = after.machine.since(before.machine);
        let beats = Beats {
            connections: load.connections(),
            count: done.beats,
            window_ns: self.window_ns,
            process_ns: after.server.cpu_ns - before.server.cpu_ns,
            load_ns: after.load.cpu_ns - before.load.cpu_ns,
            machine_ns: machine.busy_ns(),
            machine_sampled_ns: machine.sampled_ns(),
            // A process that ended unobserved takes its figure with it.
            foreign_ns: after.others.saturating_sub(before.others),
            stolen_ns: machine.steal_ns(),
            sleeps: after.server.sleeps - before.server.sleeps,
            load_late_p99_ns: done.late.histogram().value_at_quantile(0.99),
            unread_kernel_bytes: unread,
        };
        bench.doubts.machine(row.name, &beats);
        Ok((beats, done.bytes))
    }
}

/// Server, load, the others and the machine, at one moment.
struct Moment {
    server: Process,
    load: Process,
    others: u64,
    machine: Machine,
}

impl Moment {
    fn read(stage: &Stage, server: &Server, load: &Load) -> io::Result<Moment> {
        let ours = [server.child.pid(), load.pid(), std::process::id()];
        Ok(Moment {
            server: Process::read(server.child.pid())?,
            load: Process::read(load.pid())?,
            others: proc::others_cpu(&ours)?,
            machine: Machine::read(&stage.cores())?,
        })
    }
}
