//! The comparison: ratios, costs of each subject, and what each subject is.

use super::parts::Parts;
use crate::measure::report::document::{Bar, Block, Cell, Chart, Plot, Row, Section, Table};
use crate::measure::report::figures::{self, Compared, Figure, Spread};
use crate::measure::report::show;
use crate::measure::report::unit::Unit;

/// Subjects that are shown before the rest is folded.
const SHOWN: usize = 4;
/// The figures with a chart that is not folded.
const KEY: [Figure; 6] =
    [Figure::Cpu, Figure::Death, Figure::DetectP50, Figure::DetectP99, Figure::User, Figure::Storm];
/// The figures in tables that fit a terminal.
const GROUPS: [(&str, &[Figure]); 6] = [
    ("CPU", &[Figure::Cpu, Figure::Machine, Figure::Accept, Figure::Death]),
    ("Detection among beats", &[Figure::DetectP50, Figure::DetectP99, Figure::DetectMax]),
    ("Memory", &[Figure::User, Figure::Kernel, Figure::Unread]),
    ("A storm", &[Figure::Storm, Figure::StormReset, Figure::StormTurn]),
    ("How often a peer beats", &[Figure::Rate1, Figure::Rate10, Figure::Rate100]),
    ("A peer that streams", &[Figure::StreamTime, Figure::StreamCpu]),
];

type All<'a> = Parts<'a, Compared<'a>>;

pub(super) fn section(all: &All<'_>) -> Option<Section> {
    if all.known.is_empty() {
        return None;
    }
    let (shown, rest) = subjects(all);
    let base = base(all);
    let mut blocks: Vec<Block> =
        all.known.iter().map(|(place, compared)| Block::Says(load(all, compared, *place).into())).collect();
    let note = format!(
        "Charts: how many times as much each subject takes as {base}, the median over rounds, and a line from the \
         least to the greatest round. Less is better."
    );
    blocks.push(Block::Says(note.into()));
    blocks.extend(Block::charts(charts(all, &base, KEY, &shown, "")));
    let note = format!(
        "Tables: the ratio to {base} in the same round, median (least-greatest over rounds); beneath it the absolute \
         median."
    );
    blocks.push(Block::Says(note.into()));
    blocks.extend(medians(all, &shown));
    blocks.extend(lost(all));
    let others = Figure::ALL.into_iter().filter(|figure| !KEY.contains(figure));
    let more = charts(all, &base, others, &shown, "");
    if !more.is_empty() {
        let summary = show::counted(more.len() as u64, "more chart", "more charts");
        blocks.push(Block::Fold(summary, vec![Block::Charts(more)]));
    }
    if !rest.is_empty() {
        let subjects = show::counted(rest.len() as u64, "more subject", "more subjects");
        let summary = format!("{subjects}: {}", rest.join(", "));
        let charts = Block::charts(charts(all, &base, Figure::ALL, &rest, "-more"));
        blocks.push(Block::Fold(summary, charts.into_iter().chain(medians(all, &rest)).collect()));
    }
    let every = [shown, rest].concat();
    blocks.push(Block::Fold("Detection, all rounds together".to_owned(), vec![pooled(all, &every)]));
    blocks.push(Block::Fold("What each subject is, and gives up".to_owned(), vec![what(all, &every)]));
    Some(Section { title: "Comparison", blocks })
}

/// The subjects of all results, each once: those that are shown, and the rest. Shown are a deadpeer, the base, and
/// the first yardsticks.
fn subjects<'a>(all: &All<'a>) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut names: Vec<(&str, bool)> = Vec::new();
    for row in all.iter().flat_map(|compared| &compared.rows) {
        if !names.iter().any(|(name, _)| *name == row.subject.name) {
            names.push((&row.subject.name, row.subject.ours));
        }
    }
    let base = all.iter().find_map(|compared| compared.base);
    let first = names.iter().find(|(_, ours)| *ours).map(|(name, _)| *name);
    let mut chosen: Vec<&str> = first.into_iter().chain(base.filter(|base| Some(*base) != first)).collect();
    // Yardsticks before further deadpeers.
    for wanted in [false, true] {
        for (name, _) in names.iter().filter(|(_, ours)| *ours == wanted) {
            if chosen.len() < SHOWN && !chosen.contains(name) {
                chosen.push(name);
            }
        }
    }
    names.into_iter().map(|(name, _)| name).partition(|name| chosen.contains(name))
}

/// The base of the ratios. Each result has its own.
fn base(all: &All<'_>) -> String {
    let mut bases: Vec<&str> = all.iter().map(|compared| compared.base.unwrap_or(show::NOTHING)).collect();
    bases.dedup();
    bases.join(" / ")
}

fn load(all: &All<'_>, compared: &Compared<'_>, place: usize) -> String {
    let settings = compared.settings;
    let name = all.mark(place);
    format!(
        "{name}{} rounds with each subject once: {} connections, {} beats a second of {} bytes counted for {}; {} deaths \
         among them; {} quiet connections for memory, deaths and the storm.",
        settings.rounds,
        show::count(settings.connections),
        show::count(settings.beats_per_second),
        settings.beat_bytes,
        show::nanos(Some(settings.window_ns)),
        show::count(settings.deaths),
        show::count(settings.idle_connections),
    )
}

/// A chart for each figure that at least two subjects have.
fn charts(
    all: &All<'_>,
    base: &str,
    of: impl IntoIterator<Item = Figure>,
    names: &[&str],
    suffix: &str,
) -> Vec<Chart> {
    let chart = |figure: Figure| {
        let ratio = |name: &str| -> Vec<_> {
            all.iter().map(|compared| compared.find(name)?.cell(figure).ratio).collect()
        };
        let every = all.iter().flat_map(|compared| &compared.rows).filter_map(|row| row.cell(figure).ratio);
        let ends = every.flat_map(|ratio| [ratio.min, ratio.median, ratio.max]).filter(|ratio| *ratio > 0.0);
        let range = ends.map(|end| (end, end)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let ours = |name: &str| {
            all.iter().find_map(|compared| compared.find(name)).is_some_and(|row| row.subject.ours)
        };
        let bars =
            names.iter().map(|name| Bar { name: (*name).to_owned(), ours: ours(name), ratios: ratio(name) });
        let bars: Vec<Bar> = bars.filter(|bar| bar.ratios.iter().any(Option::is_some)).collect();
        let enough = bars.len() > 1 || !suffix.is_empty() && !bars.is_empty();
        let plot = Plot::Ratios { base: base.to_owned(), bars, range };
        enough.then(|| Chart::new(format!("ratio-{}{suffix}", figure.name()), figure.title(), plot))
    };
    of.into_iter().filter_map(chart).collect()
}

/// The tables of the medians of some subjects.
fn medians(all: &All<'_>, names: &[&str]) -> Vec<Block> {
    let known = |figures: &[Figure]| all.iter().any(|compared| compared.has(figures));
    let groups = GROUPS.into_iter().filter(|(_, figures)| known(figures));
    let blocks = groups.flat_map(|(title, figures)| {
        let heads = ["subject"].into_iter().chain(figures.iter().map(|figure| figure.title()));
        let mut table = Table::new(title, heads);
        table.rows = rows(all, names, |row| figures.iter().map(|figure| cell(row, *figure)).collect());
        [Block::Heading(title.to_owned()), Block::Table(table)]
    });
    blocks.collect()
}

/// A row for each subject and result, with its name.
fn rows(all: &All<'_>, names: &[&str], cells: impl Fn(&figures::Row<'_>) -> Vec<Cell>) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in names {
        for (place, compared) in &all.known {
            let Some(row) = compared.find(name) else { continue };
            let name = Cell::from(all.named(name, *place));
            let cells: Row = [name].into_iter().chain(cells(row)).collect();
            rows.push(Row { ours: row.subject.ours, ..cells });
        }
    }
    rows
}

/// `0.0112 (0.0108-0.0115)`, and beneath it `48 ns`. A figure that some rounds lack says so.
fn cell(row: &figures::Row<'_>, figure: Figure) -> Cell {
    let cell = row.cell(figure);
    let Some(value) = cell.value else { return show::NOTHING.into() };
    let ratio = cell.ratio.map_or(show::NOTHING.to_owned(), |ratio| {
        format!("{} ({})", show::value(Some(ratio.median), Unit::Ratio), show::range(ratio, Unit::Ratio))
    });
    let mut note = show::value(Some(value.median), figure.unit());
    if cell.rounds < row.rounds {
        note += &format!(", {} of {} rounds", cell.rounds, row.rounds);
    }
    Cell { note, ..ratio.into() }
}

/// The subjects that missed deaths or called living peers dead.
fn lost(all: &All<'_>) -> Option<Block> {
    let rows =
        all.known.iter().flat_map(|(place, compared)| compared.rows.iter().map(move |row| (*place, row)));
    let wrong = rows.filter(|(_, row)| row.missed > 0 || row.false_verdicts > 0);
    let said = wrong.map(|(place, row)| {
        let [missed, wrong] = [row.missed, row.false_verdicts].map(show::count);
        format!("{}: {missed} deaths missed, {wrong} false verdicts.", all.named(&row.subject.name, place))
    });
    Block::list(said)
}

fn pooled(all: &All<'_>, names: &[&str]) -> Block {
    let heads =
        ["subject", "missed", "false", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut table = Table::new("Detection, all rounds together", heads);
    let times = |spread: &Spread| spread.times().map(|(_, time)| show::nanos(time));
    table.rows = rows(all, names, |row| {
        let counts = [row.missed, row.false_verdicts, row.detection.count].map(show::count);
        counts.into_iter().chain(times(&row.detection)).map(Cell::from).collect()
    });
    Block::Table(table)
}

fn what(all: &All<'_>, names: &[&str]) -> Block {
    let mut table =
        Table::new("What each subject is, and gives up", ["subject", "what it is", "what it gives up"]);
    let found = names.iter().filter_map(|name| all.iter().find_map(|compared| compared.find(name)));
    table.rows.extend(found.map(|figures::Row { subject, .. }| {
        let cells: Row = [&subject.name, &subject.what, &subject.gives_up].into_iter().cloned().collect();
        Row { ours: subject.ours, ..cells }
    }));
    Block::Table(table)
}
