//! Where, when and how it was measured, as rows of names and values.

use super::super::figures::{Figures, Unit};
use super::super::show;
use super::text::{counted, shell, time};
use crate::measure::result::Machine;

/// A name, and what each result says.
pub(super) type Fact = (&'static str, Vec<String>);

/// A row of every result; none when no result knows.
fn row(
    results: &[Figures<'_>],
    name: &'static str,
    said: impl Fn(&Figures<'_>) -> Option<String>,
) -> Option<Fact> {
    let values: Vec<_> = results.iter().map(&said).collect();
    let known = values.iter().any(Option::is_some);
    let said = |value: Option<String>| value.unwrap_or_else(|| show::NOTHING.to_owned());
    known.then(|| (name, values.into_iter().map(said).collect()))
}

/// When, by which version, with which settings.
pub(super) fn settings(results: &[Figures<'_>]) -> Vec<Fact> {
    let row = |name, said: fn(&Figures<'_>) -> Option<String>| row(results, name, said);
    let rows = [
        row("measured", |f| Some(format!("{}, took {}", f.result.started, time(f.result.took_ns)))),
        row("program", |f| {
            Some(format!("deadpeer {} ({})", f.result.program.version, f.result.program.build))
        }),
        row("detection", |f| {
            let s = f.detection.as_ref()?.settings;
            let (connections, beats) = (show::count(s.connections), show::count(s.beats_per_second));
            Some(format!(
                "{connections} connections in {}, {beats} beats/s of {} B, {} deaths/s for {}",
                counted(s.load_processes, "load process", "load processes"),
                s.beat_bytes,
                show::count(s.deaths_per_second),
                time(s.duration_ns)
            ))
        }),
        row("tracker", |f| {
            let s = f.detection.as_ref()?.settings;
            Some(format!(
                "{}, wake {}, batch window {}, detection time {}, half-closed grace {}",
                counted(s.threads, "ring thread", "ring threads"),
                s.wake,
                time(s.batch_window_ns),
                time(s.detection_time_ns),
                time(s.half_closed_grace_ns)
            ))
        }),
        row("comparison", |f| {
            let s = f.comparison.as_ref()?.settings;
            let (connections, beats) = (show::count(s.connections), show::count(s.beats_per_second));
            Some(format!(
                "{} rounds; {connections} connections, {beats} beats/s of {} B, {} warm-up and {} counted; \
                 {} deaths at {}/s; {} idle connections",
                s.rounds,
                s.beat_bytes,
                time(s.warm_up_ns),
                time(s.window_ns),
                show::count(s.deaths),
                show::count(s.deaths_per_second),
                show::count(s.idle_connections)
            ))
        }),
    ];
    rows.into_iter().flatten().collect()
}

/// The machine and its limits.
pub(super) fn machine(results: &[Figures<'_>]) -> Vec<Fact> {
    let row = |name, said: fn(&Machine) -> String| row(results, name, |f| Some(said(&f.result.machine)));
    let rows = [
        row("processor", |m| m.cpu.clone()),
        row("cores", |m| {
            let pinned = |cores: &[u32]| match cores {
                [] => "not pinned".to_owned(),
                cores => cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
            };
            format!("{}; server on {}; load on {}", m.cores, pinned(&m.server_cores), pinned(&m.load_cores))
        }),
        row("memory", |m| show::value(Some(m.memory_bytes as f64), Unit::Bytes)),
        row("virtual machine", |m| if m.virtual_machine { "yes" } else { "no" }.to_owned()),
        row("kernel", |m| format!("{}, tick {}", m.kernel, time(m.tick_ns))),
        row("descriptors", |m| format!("{} (RLIMIT_NOFILE)", show::count(m.descriptors))),
        row("locked memory", |m| match m.memlock_bytes {
            Some(bytes) => format!("{} (RLIMIT_MEMLOCK)", show::value(Some(bytes as f64), Unit::Bytes)),
            None => "unlimited (RLIMIT_MEMLOCK)".to_owned(),
        }),
        row("user", |m| if m.root { "root" } else { "not root" }.to_owned()),
        row("load before", |m| {
            format!(
                "{}.{:03} runnable tasks in the last minute",
                m.load_thousandths / 1000,
                m.load_thousandths % 1000
            )
        }),
        row("bare recv", |m| match &m.bare_recv {
            Some(bare) => {
                let at = |percentile| show::nanos(bare.latency.percentile(percentile));
                format!("p50 {}, p99 {} of {}", at(50.0), at(99.0), show::count(bare.latency.count()))
            }
            None => "not measured".to_owned(),
        }),
    ];
    rows.into_iter().flatten().collect()
}

/// How to see it again.
pub(super) fn again(results: &[Figures<'_>]) -> Vec<Fact> {
    let rows = [
        row(results, "command", |f| Some(shell(&f.result.command))),
        row(results, "seed", |f| Some(f.result.seed.to_string())),
        row(results, "to repeat", |f| {
            let seed = f.result.seed;
            Some(format!("the same command; with --seed {seed} it draws the same instants and ways of death"))
        }),
        row(results, "result file", |f| Some(format!("{}, version {}", f.result.format, f.result.version))),
    ];
    rows.into_iter().flatten().collect()
}
