//! The verdict: pass or fail, the figures that matter, and the doubts.

use super::parts::SIDES;
use crate::measure::report::diff::other_engine;
use crate::measure::report::document::{Block, Section, Text, Tone};
use crate::measure::report::figures::{Compared, Detected, Figure, Figures, WayFigures};
use crate::measure::report::options::Options;
use crate::measure::report::show::{self, counted, listed};
use crate::measure::report::unit::Unit;
use crate::measure::result::{Basis, Doubt, ResultFile};

/// Yardsticks that the verdict names.
const NAMED: usize = 5;

pub(super) fn section(results: &[Figures<'_>], options: &Options) -> Section {
    let mut blocks = Vec::new();
    let two = results.len() > 1;
    for (place, figures) in results.iter().enumerate() {
        let last = place + 1 == results.len();
        let thresholds = if last { &options.thresholds[..] } else { &[] };
        let name = if two { format!("{}: ", SIDES[place]) } else { String::new() };
        blocks.push(Block::Says(outcome(figures, thresholds, &name)));
        blocks.push(Block::List(facts(figures, two)));
    }
    blocks.push(doubts(results));
    Section { title: "Verdict", blocks }
}

fn outcome(figures: &Figures<'_>, thresholds: &[(String, Option<String>)], name: &str) -> Text {
    let mut wrong: Vec<String> = thresholds.iter().filter_map(|(_, failure)| failure.clone()).collect();
    let failed = wrong.len();
    wrong.extend(faults(figures));
    let (tone, word) = if wrong.is_empty() { (Tone::Good, "PASS") } else { (Tone::Bad, "FAIL") };
    let asked = match (thresholds.len(), failed) {
        (0, _) => "no threshold asked".to_owned(),
        (asked, 0) => format!("{} of {asked} thresholds hold", asked - failed),
        (asked, failed) => format!("{failed} of {} failed", counted(asked as u64, "threshold", "thresholds")),
    };
    let text = Text::default().and(tone, format!("{name}{word}"));
    if wrong.is_empty() {
        return text.and(Tone::Plain, format!(": 0 faults, {asked}."));
    }
    text.and(Tone::Plain, format!(": {}; {asked}.", wrong.join("; ")))
}

/// What a tracker did wrong. Faults of yardsticks do not count.
fn faults(figures: &Figures<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(detected) = &figures.detection {
        for kind in 0..4 {
            let of = |way: &WayFigures<'_>| way.faults()[kind].1;
            let ways: Vec<_> = detected.ways.iter().filter(|way| of(way) > 0).collect();
            let sum = ways.iter().map(|way| of(way)).fold(0, u64::saturating_add);
            if let Some(first) = ways.first() {
                let names: Vec<_> = ways.iter().map(|way| way.way.as_str()).collect();
                faults.push(format!("{} {} ({})", show::count(sum), first.faults()[kind].0, listed(&names)));
            }
        }
        if detected.qualities.false_verdicts > 0 {
            faults.push(counted(detected.qualities.false_verdicts, "false verdict", "false verdicts"));
        }
    }
    let rows = figures.comparison.iter().flat_map(|compared| &compared.rows).filter(|row| row.subject.ours);
    for row in rows.filter(|row| row.missed > 0 || row.false_verdicts > 0) {
        let [missed, wrong] = [row.missed, row.false_verdicts].map(show::count);
        faults.push(format!("{}: {missed} missed, {wrong} false", row.subject.name));
    }
    faults
}

/// The figures that matter. Of two results only what was run: the section of changes has the figures.
fn facts(figures: &Figures<'_>, two: bool) -> Vec<Text> {
    let mut facts = Vec::new();
    if let Some(detected) = &figures.detection {
        facts.push(deaths(detected));
        if !two {
            facts.extend(slowest(detected, Basis::Scheduled));
            facts.extend(slowest(detected, Basis::Expiry));
        }
    }
    if let Some(compared) = figures.comparison.as_ref().filter(|_| !two) {
        facts.extend(cpu(compared));
    }
    facts.push(run(figures.result));
    facts
}

fn deaths(detected: &Detected<'_>) -> Text {
    let ran = || detected.ways.iter().filter(|way| way.not_run.is_none());
    let sum = |of: fn(&WayFigures<'_>) -> u64| ran().map(of).fold(0, u64::saturating_add);
    let (injected, told) = (sum(|way| way.injected), sum(|way| way.told));
    let deaths = counted(injected, "death", "deaths");
    let ways = counted(ran().count() as u64, "way", "ways");
    Text::from(format!("{deaths} in {ways}, {} detected in time.", show::count(told)))
}

/// The latency of the slowest way of a kind.
fn slowest(detected: &Detected<'_>, basis: Basis) -> Option<Text> {
    let all = detected.ways.iter().filter(|way| way.basis == basis);
    let way = all.max_by_key(|way| (way.latency.p99_ns, way.latency.p50_ns))?;
    let p50 = show::nanos(Some(way.latency.p50_ns?));
    let (what, since) = match basis {
        Basis::Scheduled => ("Closed or reset peers", "after its instant".to_owned()),
        Basis::Expiry => {
            let promised = show::nanos(Some(detected.settings.detection_time_ns));
            ("Silent peers", format!("after the detection time of {promised}"))
        }
    };
    let p99 = way.latency.p99_ns.map_or_else(
        || "too few samples for p99".to_owned(),
        |p99| format!("p99 {}", show::nanos(Some(p99))),
    );
    let text = Text::from(format!("{what}: the slowest way ({}) is detected ", way.way));
    let text = text.and(Tone::Strong, format!("p50 {p50}, {p99}")).and(Tone::Plain, format!(" {since}."));
    let bare = detected.bare_recv.filter(|_| basis == Basis::Scheduled).map(|bare| bare.latency);
    Some(match bare.map(|bare| (bare.p50_ns, bare.p99_ns)) {
        Some((Some(p50), Some(p99))) => {
            let [p50, p99] = [p50, p99].map(|nanos| show::nanos(Some(nanos)));
            text.and(Tone::Plain, format!(" A bare recv takes {p50} and {p99}."))
        }
        _ => text,
    })
}

/// CPU per beat against the yardsticks.
fn cpu(compared: &Compared<'_>) -> Option<Text> {
    let ours = compared.rows.iter().find(|row| row.subject.ours)?;
    let cpu = show::value(Some(ours.cell(Figure::Cpu).value?.median), Unit::Nanos);
    let ratios = compared.rows.iter().filter(|row| !row.subject.ours).filter_map(|row| {
        let ratio = compared.ratio(Figure::Cpu, &ours.subject.name, &row.subject.name)?;
        let said = |ratio: f64| show::value(Some(ratio), Unit::Ratio);
        let name = &row.subject.name;
        // A small ratio is read more easily the other way around.
        Some(match ratio.median {
            small if small > 0.0 && small < 0.5 => format!("{} times less than {name}", said(1.0 / small)),
            other => format!("{} times {name}", said(other)),
        })
    });
    let ratios: Vec<_> = ratios.take(NAMED).collect();
    let text = Text::from(format!("{} takes ", ours.subject.name)).and(Tone::Strong, format!("{cpu} of CPU"));
    let rest = if ratios.is_empty() { ".".to_owned() } else { format!(": {}.", ratios.join(", ")) };
    Some(text.and(Tone::Plain, format!(" per beat{rest}")))
}

/// What was run, where and when.
fn run(result: &ResultFile) -> Text {
    let program = &result.program;
    // A result of an older program has neither commit nor engine.
    let commit = program.commit.iter().map(|commit| format!("commit {commit}, "));
    let engine = program.engine.iter().map(|engine| {
        let why = engine.why_not.as_ref().map(|why| format!(" (no io_uring: {why})")).unwrap_or_default();
        format!("engine {}{why}, ", engine.name)
    });
    let measured_on: String = commit.chain(engine).collect();
    let (version, build, kernel) = (&program.version, &program.build, &result.machine.kernel);
    format!("deadpeer {version} ({build}), {measured_on}Linux {kernel}, {}.", result.started).into()
}

/// Reasons not to trust a figure, in one line that opens.
fn doubts(results: &[Figures<'_>]) -> Block {
    let mut all: Vec<(String, Doubt)> = Vec::new();
    if let [first, second] = results {
        all.extend(other_engine(first.result, second.result).map(|doubt| (String::new(), doubt)));
    }
    for (place, figures) in results.iter().enumerate() {
        let name = if results.len() > 1 { format!("{}: ", SIDES[place]) } else { String::new() };
        all.extend(figures.result.doubts.iter().map(|doubt| (name.clone(), doubt.clone())));
    }
    if all.is_empty() {
        return Block::Says("0 doubts about these figures.".into());
    }
    let mut kinds: Vec<String> = all.iter().map(|(_, doubt)| kind(doubt)).collect();
    kinds.sort();
    kinds.dedup();
    let summary = format!("{}: {}", counted(all.len() as u64, "doubt", "doubts"), kinds.join(", "));
    let item = |(name, doubt): &(String, Doubt)| {
        let text = Text::from(format!("{name}{}: {}. ", kind(doubt), doubt.text));
        text.and(Tone::Plain, format!("Remedy: {}.", doubt.remedy))
    };
    Block::Fold(summary, vec![Block::List(all.iter().map(item).collect())])
}

/// The kind of a doubt, spelled as in the file.
fn kind(doubt: &Doubt) -> String {
    let word = serde_json::to_value(doubt.kind).expect("a word can be written");
    word.as_str().unwrap_or_default().to_owned()
}
