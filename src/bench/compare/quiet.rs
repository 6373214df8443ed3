//! A server's run with many quiet connections: the memory of each, the CPU of a death, and the time until all deaths of
//! one instant are known.

use std::io;
use std::time::Duration;

use super::beating::{LAST_VERDICT, SECOND_VERDICT};
use super::life::{LEAD_NS, Load, PATIENCE, Server};
use super::subjects::Row;
use super::{Bench, Measure, Options, verdicts};
use crate::bench::experiment::schedule::spread;
use crate::bench::now;
use crate::bench::peers::{Caused, Death, PeersPlan, Phase};
use crate::bench::proc::{resident, slabs};
use crate::measure::result::{ComparisonSettings, Cost, Idle, Run, Storm, Way};
use crate::time::nanos;

/// The measurements of this run.
pub(super) const MEASURES: [Measure; 3] = [Measure::Idle, Measure::Death, Measure::Storm];

/// The time after which freed sockets and requests of the run before are back in their slabs: an RCU grace period.
const SETTLE: Duration = Duration::from_secs(1);
/// The time until a deadpeer has made its first two looks at a quiet connection, after one second and after four, to
/// learn its pace. They are a cost of new connections; among the deaths they were six looks a death.
pub(super) const FIRST_LOOKS: Duration = Duration::from_secs(6);
/// The number of connections from which on waiting makes the figures better; below, single pages dominate them.
const WORTH_SETTLING: u64 = 1_000;

/// The number of quiet connections that die one after the other: a sixth. The others die in the storm.
pub(super) fn paced_deaths(settings: &ComparisonSettings) -> u64 {
    settings.idle_connections / 6
}

pub(super) fn live(bench: &mut Bench<'_, '_>, row: &Row, run: &mut Run) -> io::Result<()> {
    let options = bench.options;
    let settings = &options.settings;
    let connections = usize::try_from(settings.idle_connections).expect("fewer than descriptors");
    let settle = if settings.idle_connections < WORTH_SETTLING { Duration::ZERO } else { SETTLE };
    std::thread::sleep(settle);
    let mut server = bench.stage.start(row, 0.0)?;
    let pid = server.child.pid();
    let (slabs_before, memory_before) = (slabs(), resident(pid)?);
    let mut load = bench.stage.connect(&server, &PeersPlan::new(server.address, connections, 0))?;
    std::thread::sleep(settle);
    if options.measures(Measure::Idle) {
        run.idle = Some(Idle {
            connections: settings.idle_connections,
            user_bytes: resident(pid)? - memory_before,
            kernel_bytes: slabs_before.zip(slabs()).map(|(before, after)| after - before),
        });
    }
    if row.buries() {
        let paced = if options.measures(Measure::Death) { paced_deaths(settings) } else { 0 };
        if paced > 0 {
            if !settle.is_zero() {
                bench.observer.sleep_until(now() + nanos(FIRST_LOOKS))?;
            }
            let paced = usize::try_from(paced).expect("a part of the connections");
            run.death = Some(deaths(bench, row, &mut server, &mut load, paced)?);
        }
        if options.measures(Measure::Storm) && row.judges() {
            run.storm = Some(storm(bench, row, &mut server, &mut load)?);
        }
    }
    load.end()?;
    let longest_turn_ns = server.end()?;
    if let Some(storm) = &mut run.storm {
        storm.longest_turn_ns = longest_turn_ns;
    }
    Ok(())
}

/// The order in which connections die: `paced` at their instants, the others later.
fn victims(options: &Options, paced: usize, from: u64) -> Vec<Death> {
    let settings = &options.settings;
    let connections = usize::try_from(settings.idle_connections).expect("fewer than descriptors");
    spread(connections, std::iter::repeat_n(Way::Rst, paced), from, options.death_spacing_ns(), options.seed)
}

/// Resets connections one after the other, and counts the server's CPU.
fn deaths(
    bench: &mut Bench<'_, '_>,
    row: &Row,
    server: &mut Server,
    load: &mut Load,
    paced: usize,
) -> io::Result<Cost> {
    let start = now() + LEAD_NS;
    let deaths = victims(bench.options, paced, start);
    let end = deaths.last().map_or(start, |death| death.at);
    let held =
        usize::try_from(bench.options.settings.idle_connections).expect("fewer than descriptors") - paced;
    let before = server.cpu_ns()?;
    load.begin(&Phase { start, count_from: start, end, rate: 0.0, deaths })?;
    bench.observer.sleep_until(end)?;
    let (caused, _) = load.finish_phase()?;
    // A death is complete when its descriptor is closed and its line is written.
    server.wait_held(held, "left")?;
    if row.judges() {
        server.wait_deaths(caused.len(), LAST_VERDICT)?;
    }
    let cost = Cost { count: caused.len() as u64, process_ns: server.cpu_ns()? - before };
    if row.judges() {
        bench.doubts.verdicts(row.name, &verdicts::join(&caused, server.deaths()?));
    }
    Ok(cost)
}

/// Resets all connections that are left, in one instant.
fn storm(bench: &mut Bench<'_, '_>, row: &Row, server: &mut Server, load: &mut Load) -> io::Result<Storm> {
    let told_before = server.deaths()?.count();
    let at = now() + LEAD_NS;
    let deaths = victims(bench.options, usize::MAX, at).into_iter().skip(told_before);
    let deaths = deaths.map(|death| Death { at, fin_at: at, ..death }).collect();
    let before = server.cpu_ns()?;
    load.begin(&Phase { start: at, count_from: at, end: at, rate: 0.0, deaths })?;
    bench.observer.sleep_until(at)?;
    let (caused, _) = load.finish_phase()?;
    server.wait_deaths(told_before + caused.len(), PATIENCE)?;
    std::thread::sleep(SECOND_VERDICT);
    let process_ns = server.cpu_ns()? - before;
    let joined = verdicts::join(&caused, server.deaths()?.skip(told_before));
    bench.doubts.verdicts(row.name, &joined);
    let missed = joined.detection.missed;
    let last_reset = caused.iter().map(|death: &Caused| death.returned).max().unwrap_or(at);
    Ok(Storm {
        connections: caused.len() as u64,
        last_verdict_ns: (missed == 0 && !caused.is_empty()).then(|| joined.last_verdict.saturating_sub(at)),
        last_reset_ns: last_reset.saturating_sub(at),
        missed,
        longest_turn_ns: None, // the server reports it when it ends
        process_ns,
    })
}
