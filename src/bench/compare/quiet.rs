//! A life of many connections that say nothing: what each holds, what its death costs, and what happens when
//! all die in one instant.

use std::io;
use std::time::Duration;

use super::beating::{LAST_VERDICT, SECOND_VERDICT};
use super::life::{LEAD_NS, Load, PATIENCE, Server};
use super::subjects::Row;
use super::{Bench, Measure, Options, verdicts};
use crate::bench::peers::{Caused, Death, PeersPlan, Phase};
use crate::bench::proc::{Memory, Slabs};
use crate::bench::{nanos, now};
use crate::measure::result::{ComparisonSettings, Cost, Idle, Run, Storm, Way};

/// What this life is for.
pub(super) const MEASURES: [Measure; 3] = [Measure::Idle, Measure::Death, Measure::Storm];

/// Freed sockets and requests of the life before go back to their slabs after an RCU grace period.
const SETTLE: Duration = Duration::from_secs(1);
/// A deadpeer looks at each new connection that says nothing after one second and after four, to learn its
/// pace. That belongs to its coming; within the deaths it was six looks a death.
pub(super) const FIRST_LOOKS: Duration = Duration::from_secs(6);
/// Below so many connections a page more or less is the figure, and nothing is gained by waiting.
const WORTH_SETTLING: u64 = 1_000;

/// Of the quiet ones a sixth dies one after the other, and the rest in the storm.
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
    let (slabs_before, memory_before) = (Slabs::read().ok(), Memory::read(pid)?);
    let plan = PeersPlan {
        server: server.address,
        source: None,
        connections,
        beat_bytes: 0,
        pace_ns: 1_000_000,
        first_bytes: 0,
    };
    let mut load = bench.stage.connect(&server, &plan)?;
    std::thread::sleep(settle);
    if options.measures(Measure::Idle) {
        let (slabs, memory) = (Slabs::read().ok(), Memory::read(pid)?);
        let grown = |(before, after): (Slabs, Slabs)| after.since(&before).values().sum();
        run.idle = Some(Idle {
            connections: settings.idle_connections,
            user_bytes: memory.rss.cast_signed() - memory_before.rss.cast_signed(),
            kernel_bytes: slabs_before.zip(slabs).map(grown),
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

/// The order of dying: those who die first, and the others.
fn victims(options: &Options, paced: usize, from: u64) -> Vec<Death> {
    let settings = &options.settings;
    let connections = usize::try_from(settings.idle_connections).expect("fewer than descriptors");
    verdicts::schedule(connections, paced, settings.deaths_per_second, from, options.seed, |_| Way::Rst)
}

/// Resets one after the other.
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
    // All that belongs to a death is done when its descriptor is closed and its line is there.
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

/// Resets all that stand in one instant.
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
        longest_turn_ns: None, // told at the end of its life
        process_ns,
    })
}
