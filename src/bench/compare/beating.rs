//! A server's run among beats: the CPU of accepts and beats, and the time from an end to its verdict.

use std::io;
use std::time::Duration;

use super::life::{LEAD_NS, Load, PATIENCE, Server, Stage};
use super::subjects::Row;
use super::{Bench, Measure, Options, verdicts};
use crate::bench::experiment::schedule::spread;
use crate::bench::now;
use crate::bench::peers::{PeersPlan, Phase};
use crate::bench::proc::{Process, Surroundings, slabs};
use crate::measure::result::{Beats, Cost, Run, Way};
use crate::time::nanos;

/// The measurements of this run.
pub(super) const MEASURES: [Measure; 3] = [Measure::Accept, Measure::Beats, Measure::Detection];

/// The time that a server has after its last accept, to arm and report.
const ACCEPT_SETTLES: Duration = Duration::from_millis(100);
/// The time of beats before the first death, in nanoseconds.
const BEFORE_DEATHS_NS: u64 = 500_000_000;
/// The longest wait for the verdict on the last death.
pub(super) const LAST_VERDICT: Duration = Duration::from_secs(5);
/// The time in which a second verdict on a death would come.
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
            match server.deaths()?.count() {
                0 => {}
                count => bench
                    .doubts
                    .mistake(row.name, &format!("{count} peers were called dead while all were beating")),
            }
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
    // Random first sizes make connections reach their marks at different times, as on a real server, so that most
    // drains are wake-ups of their own. Marks that are reached together come in batches of hundreds, which made the
    // bare loop two to four times cheaper.
    let mark = usize::try_from(row.mark()).expect("a mark fits memory");
    let connections = usize::try_from(settings.connections).expect("fewer than descriptors");
    let first_bytes = if options.in_phase { beat_bytes } else { mark.max(beat_bytes) };
    let plan = PeersPlan::new(server.address, connections, beat_bytes);
    PeersPlan { pace_ns: nanos(options.stroke), first_bytes, ..plan }
}

/// After the load has reset its connections: the server must have reported all of them, with all their bytes.
fn all_are_told(bench: &mut Bench<'_, '_>, row: &Row, server: &mut Server, sent: u64) -> io::Result<()> {
    let connections = usize::try_from(bench.options.settings.connections).expect("fewer than descriptors");
    let told = server.wait_deaths(connections, PATIENCE)?;
    let counted = server.deaths()?.map(|death| death.bytes).sum();
    if told != connections {
        bench.doubts.mistake(row.name, &format!("{told} deaths were reported of {connections} connections"));
    }
    bench.doubts.bytes_uncounted(row.name, sent, counted);
    Ok(())
}

/// Causes deaths by FIN and RST in turn while the others beat. Returns the bytes that were sent since the start.
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
    let ways = [Way::Fin, Way::Rst].into_iter().cycle().take(deaths);
    let deaths = spread(connections, ways, count_from, options.death_spacing_ns(), options.seed);
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

/// A period of beats, whose part after the warm-up is measured.
pub(super) struct Window {
    pub(super) rate: f64,
    pub(super) warm_up_ns: u64,
    pub(super) window_ns: u64,
}

impl Window {
    /// Measures it. Also returns the bytes that were sent since the start.
    pub(super) fn measure(
        &self,
        bench: &mut Bench<'_, '_>,
        row: &Row,
        server: &Server,
        load: &mut Load,
    ) -> io::Result<(Beats, u64)> {
        let slabs_before = slabs();
        let start = now() + LEAD_NS;
        let (from, to) = (start + self.warm_up_ns, start + self.warm_up_ns + self.window_ns);
        let rate = self.rate;
        load.begin(&Phase { start, count_from: from, end: to, rate, deaths: Vec::new() })?;
        bench.observer.sleep_until(from)?;
        let before = Moment::read(&bench.stage, server, load)?;
        bench.observer.sleep_until(to)?;
        let after = Moment::read(&bench.stage, server, load)?;
        let unread = slabs_before.zip(slabs()).map(|(before, after)| after - before);
        if unread.is_none() {
            bench.doubts.no_slabs();
        }
        let (_, done) = load.finish_phase()?;
        if done.beats == 0 {
            return Err(io::Error::other("no beat was counted"));
        }
        bench.doubts.load(row.name, &done, nanos(bench.options.stroke));
        let machine = after.around.machine.since(before.around.machine);
        let beats = Beats {
            connections: load.connections,
            count: done.beats,
            window_ns: self.window_ns,
            process_ns: after.server.cpu_ns - before.server.cpu_ns,
            load_ns: after.load.cpu_ns - before.load.cpu_ns,
            machine_ns: machine.busy(),
            machine_sampled_ns: machine.sampled,
            // A process that ended unobserved takes its figure with it.
            foreign_ns: after.around.others.saturating_sub(before.around.others),
            stolen_ns: machine.steal,
            sleeps: after.server.sleeps - before.server.sleeps,
            load_late_p99_ns: done.late.histogram().value_at_quantile(0.99),
            unread_kernel_bytes: unread,
        };
        bench.doubts.machine(row.name, &beats);
        Ok((beats, done.bytes))
    }
}

/// The counters of the server, the load, other processes and the machine, at one moment.
struct Moment {
    server: Process,
    load: Process,
    around: Surroundings,
}

impl Moment {
    fn read(stage: &Stage, server: &Server, load: &Load) -> io::Result<Moment> {
        let pids = [server.child.pid(), load.child.pid()];
        let [server, load] = pids.map(Process::read);
        Ok(Moment { server: server?, load: load?, around: Surroundings::read(&pids, &stage.cores())? })
    }
}
