//! Where, when and how a result was measured.

use super::parts::SIDES;
use crate::measure::report::document::{Block, Table};
use crate::measure::report::figures::Figures;
use crate::measure::report::show::{self, counted, shell};
use crate::measure::report::unit::Unit;

/// A name and its value. `None`: unknown.
type Fact = (&'static str, Option<String>);

pub(super) fn block(results: &[Figures<'_>]) -> Block {
    let heads = if results.len() > 1 { SIDES.to_vec() } else { vec!["value"] };
    let mut table = Table::new("Circumstances", ["what"].into_iter().chain(heads));
    let facts = results.iter().map(|figures| [run(figures), machine(figures)].concat());
    let facts: Vec<Vec<Fact>> = facts.collect();
    for row in 0..facts.first().map_or(0, Vec::len) {
        if facts.iter().any(|facts| facts[row].1.is_some()) {
            let values = facts.iter().map(|facts| facts[row].1.as_deref().unwrap_or(show::NOTHING));
            table.rows.push([facts[0][row].0].into_iter().chain(values).collect());
        }
    }
    Block::Fold("Where and how it was measured, and how to repeat it".to_owned(), vec![Block::Table(table)])
}

fn run(figures: &Figures<'_>) -> Vec<Fact> {
    let (result, program) = (figures.result, &figures.result.program);
    let engine = program.engine.as_ref().map(|engine| {
        let features = match &engine.features[..] {
            [] => String::new(),
            features => format!(" with {}", features.join(", ")),
        };
        let why = engine.why_not.as_ref().map(|why| format!("; no io_uring: {why}")).unwrap_or_default();
        format!("{}{features}{why}", engine.name)
    });
    let experiment = figures.detection.as_ref().map(|detected| {
        let settings = detected.settings;
        format!(
            "{} connections in {}, beats of {} bytes, half-closed grace {}",
            show::count(settings.connections),
            counted(settings.load_processes, "load process", "load processes"),
            settings.beat_bytes,
            show::nanos(Some(settings.half_closed_grace_ns))
        )
    });
    let comparison = figures.comparison.as_ref().map(|compared| {
        let settings = compared.settings;
        format!(
            "{} rounds, {} of warm-up, {} deaths at {}/s",
            settings.rounds,
            show::nanos(Some(settings.warm_up_ns)),
            show::count(settings.deaths),
            show::count(settings.deaths_per_second)
        )
    });
    vec![
        ("measured", Some(format!("{}, took {}", result.started, show::nanos(Some(result.took_ns))))),
        ("program", Some(format!("deadpeer {}, {} build", program.version, program.build))),
        ("commit", program.commit.clone()),
        ("engine", engine),
        ("experiment", experiment),
        ("comparison", comparison),
        ("command", Some(shell(&result.command))),
        ("seed", Some(format!("seed {}: the same seed draws the same deaths", result.seed))),
        ("file", Some(format!("{}, version {}", result.format, result.version))),
    ]
}

fn machine(figures: &Figures<'_>) -> Vec<Fact> {
    let machine = &figures.result.machine;
    let pinned = |cores: &[u32]| match cores {
        [] => "not pinned".to_owned(),
        cores => cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    };
    let (server, load) = (pinned(&machine.server_cores), pinned(&machine.load_cores));
    let bytes = |bytes: u64| show::value(Some(bytes as f64), Unit::Bytes);
    let memlock = machine.memlock_bytes.map_or_else(|| "unlimited".to_owned(), bytes);
    let bare = machine.bare_recv.as_ref().map(|bare| {
        let at = |percentile| show::nanos(bare.latency.percentile(percentile));
        format!("p50 {}, p99 {} of {}", at(50.0), at(99.0), show::count(bare.latency.count()))
    });
    let facts = [
        ("CPU", machine.cpu.clone()),
        ("cores", format!("{} cores; server on {server}; load on {load}", machine.cores)),
        ("memory", bytes(machine.memory_bytes)),
        ("virtual machine", if machine.virtual_machine { "yes" } else { "no" }.to_owned()),
        ("kernel", format!("{}, tick {}", machine.kernel, show::nanos(Some(machine.tick_ns)))),
        ("limits", format!("{} descriptors, locked memory {memlock}", show::count(machine.descriptors))),
        ("user", if machine.root { "root" } else { "not root" }.to_owned()),
        ("load before", format!("load average {:.2}", machine.load_thousandths as f64 / 1_000.0)),
        ("bare recv", bare.unwrap_or_else(|| "not measured".to_owned())),
    ];
    facts.map(|(name, value)| (name, Some(value))).into()
}
