//! What a quiet connection costs in memory: the daemon's own, and the kernel's for watching it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::load::LoadPlan;
use crate::outcome::{Bench, Doubts, Outcome, of};
use crate::proc::{Memory, Slabs};
use crate::subject::{Options, PATIENCE, Subject};
use crate::table::{Goal, Spread, Table, short};

const USER_BYTES: f64 = 128.0;
const ARMING_BYTES: f64 = 256.0 + 32.0;
/// Slab caches named in the table: those that differ most from the accept-only process.
const NAMED: usize = 12;
/// Freed sockets and requests of the run before go back to their slabs after an RCU grace period.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_SMOKE: Duration = Duration::from_millis(50);

/// One round of one subject, or the medians of all.
#[derive(Debug, Serialize)]
struct Run {
    rss: f64,
    private: f64,
    /// Bytes per connection, both ends together. Empty when /proc/slabinfo may not be read.
    slabs: BTreeMap<String, f64>,
}

impl Run {
    fn slab_sum(&self) -> f64 {
        if self.slabs.is_empty() { f64::NAN } else { self.slabs.values().sum() }
    }

    /// The medians, cache by cache: what others do to the slabs in one round falls out.
    fn median(runs: &[&Run]) -> Option<Run> {
        let median = |figure: &dyn Fn(&Run) -> f64| {
            Spread::of(runs.iter().map(|run| figure(run))).map(|spread| spread.median)
        };
        let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.slabs.keys()).collect();
        let of_cache = |name: &String| median(&|run| run.slabs.get(name).copied().unwrap_or(0.0));
        Some(Run {
            rss: median(&|run| run.rss)?,
            private: median(&|run| run.private)?,
            slabs: names.into_iter().filter_map(|name| Some((name.clone(), of_cache(name)?))).collect(),
        })
    }
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let connections = bench.by_scale(15_000, 15_000, 200);
    let all = [Subject::Hold, Subject::Lazy, Subject::Epoll, Subject::FloorLazy];
    let mut doubts = Doubts::default();
    let subjects = bench.subjects(&all);
    let rounds = bench
        .alternate(&subjects, bench.rounds(), |subject| one(bench, subject, connections, &mut doubts))?;
    let medians: Vec<(Subject, Run)> = subjects
        .iter()
        .filter_map(|&subject| {
            let runs: Vec<&Run> = rounds.iter().filter_map(|round| of(round, subject)).collect();
            Some((subject, Run::median(&runs)?))
        })
        .collect();
    let held = of(&medians, Subject::Hold);
    let kernel = |run: &Run| held.map_or(f64::NAN, |held| run.slab_sum() - held.slab_sum());

    let title = format!(
        "{connections} idle connections: bytes for each, median of {} rounds; slabs hold both ends",
        rounds.len()
    );
    let mut table = Table::new(title, &["bytes", "RSS", "private", "slabs", "slabs above accept only"]);
    let mut goals = Vec::new();
    for (subject, run) in &medians {
        let name = subject.name();
        let arming = kernel(run);
        let slabs = run.slab_sum();
        table.row(vec![name.into(), short(run.rss), short(run.private), short(slabs), short(arming)]);
        if *subject == Subject::Lazy {
            goals.push(Goal::at_most(format!("{name}: user bytes (RSS)"), run.rss, USER_BYTES));
            goals.push(Goal::at_most(format!("{name}: kernel arming, bytes"), arming, ARMING_BYTES));
        }
    }
    if held.is_none() {
        doubts.add("arming is counted against accept only, which was not run".into());
    }
    if connections < 1_000 {
        doubts.add(format!("{connections} connections are too few for slab figures"));
    }
    let mut tables = vec![table];
    if let Some(held) = held {
        let others = medians.iter().filter(|(subject, _)| *subject != Subject::Hold);
        tables.extend(others.map(|(subject, run)| by_cache(*subject, run, held)));
    }
    let figures = serde_json::json!({"connections": connections, "rounds": rounds, "medians": medians});
    Ok(Outcome { experiment: "idle", tables, goals, doubts, figures })
}

fn by_cache(subject: Subject, run: &Run, held: &Run) -> Table {
    let title = format!("slab caches, bytes per connection: {}", subject.name());
    let mut table = Table::new(title, &["cache", "here", "accept only", "difference"]);
    let mut names: Vec<&String> = run.slabs.keys().chain(held.slabs.keys()).collect();
    names.sort();
    names.dedup();
    let both = |name: &String| [&run.slabs, &held.slabs].map(|slabs| slabs.get(name).copied().unwrap_or(0.0));
    let difference = |name: &String| {
        let [here, there] = both(name);
        here - there
    };
    names.sort_by(|a, b| difference(b).abs().total_cmp(&difference(a).abs()));
    for name in names.into_iter().take(NAMED).filter(|name| difference(name).abs() >= 1.0) {
        let [here, there] = both(name);
        table.row(vec![name.clone(), short(here), short(there), short(here - there)]);
    }
    table
}

fn one(bench: &Bench, subject: Subject, connections: usize, doubts: &mut Doubts) -> io::Result<Run> {
    let settle = bench.by_scale(SETTLE, SETTLE, SETTLE_SMOKE);
    std::thread::sleep(settle);
    let server = bench.stage.start(subject, &Options::default())?;
    let pid = server.child.pid();
    let (slabs_before, memory_before) = (Slabs::read(), Memory::read(pid)?);
    let mut load = bench.stage.start_role(
        "load",
        &LoadPlan {
            server: server.address,
            connections,
            rate: 0.0,
            beat_bytes: 0,
            pace_ns: 1_000_000,
            first_bytes: 0,
            falls_silent: false,
        },
    )?;
    load.wait_for("connected", Duration::from_secs(60))?;
    server.wait_accepted(connections)?;
    std::thread::sleep(settle);
    let (slabs, memory) = (Slabs::read(), Memory::read(pid)?);
    load.finish(PATIENCE)?;
    server.end()?;
    let each = |bytes: f64| bytes / connections as f64;
    let grown = |after: u64, before: u64| each(after as f64 - before as f64);
    let slabs = match (slabs_before, slabs) {
        (Ok(before), Ok(after)) => after.since(&before),
        (Err(error), _) | (_, Err(error)) => {
            doubts.add(format!("no kernel figures, /proc/slabinfo is for root only: {error}"));
            BTreeMap::new()
        }
    };
    Ok(Run {
        rss: grown(memory.rss, memory_before.rss),
        private: grown(memory.private, memory_before.private),
        slabs: slabs.into_iter().map(|(name, bytes)| (name, each(bytes as f64))).collect(),
    })
}
