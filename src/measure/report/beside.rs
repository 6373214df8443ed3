//! Two results side by side: the first, the second, and the ratio of the second to the first.

use super::document::{Block, GROUPS, circumstances, cut, doubts, plain, qualities, table};
use super::figures::{Compared, Detected, Figure, Figures, Unit, WayFigures, differences};
use super::show;

pub(super) fn document(first: &Figures, second: &Figures) -> Vec<Block> {
    let mut blocks = vec![Block::Heading(1, "Two results of deadpeer, side by side".to_owned())];
    for (name, figures) in [("First", first), ("Second", second)] {
        blocks.push(Block::Heading(2, format!("{name}: measured {}", plain(&figures.result.started))));
        blocks.push(Block::List(circumstances(figures)));
        blocks.push(doubts(&figures.result.doubts));
    }
    blocks.push(Block::Heading(2, "What was not the same".to_owned()));
    let different = differences(first.result, second.result);
    if different.is_empty() {
        blocks.push(Block::Says("Machine, version and settings were the same.".to_owned()));
    } else {
        blocks.push(Block::Says(
            "Machine or settings differ, so the ratios are about these as much as about the program."
                .to_owned(),
        ));
        let rows = different.iter().map(|(name, first, second)| vec![cut(name), cut(first), cut(second)]);
        blocks.push(table(&["what", "first", "second"], rows));
    }
    if let (Some(first), Some(second)) = (&first.detection, &second.detection) {
        detected(first, second, &mut blocks);
    }
    if let (Some(first), Some(second)) = (&first.comparison, &second.comparison) {
        compared(first, second, &mut blocks);
    }
    blocks
}

fn detected(first: &Detected, second: &Detected, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "Detection".to_owned()));
    blocks
        .push(Block::Says("First → second, and beneath it the ratio of the second to the first.".to_owned()));
    let ways = first.ways.iter().map(|way| way.way);
    let ways = ways.chain(second.ways.iter().map(|way| way.way).filter(|way| !has(first, *way)));
    let (mut counts, mut times) = (Vec::new(), Vec::new());
    for way in ways {
        let sides = [first, second].map(|side| side.ways.iter().find(|found| found.way == way));
        let count = |of: fn(&WayFigures) -> u64| {
            let [first, second] = sides.map(|side| {
                side.filter(|way| way.not_run.is_none())
                    .map_or_else(|| show::NOTHING.to_owned(), |way| show::count(of(way)))
            });
            format!("{first} → {second}")
        };
        counts.push(vec![
            way.to_string(),
            count(|way| way.injected),
            count(|way| way.missed),
            count(|way| way.doubled),
            count(|way| way.misnamed),
            count(|way| way.early),
        ]);
        let [first, second] = sides.map(|side| side.map(|way| way.latency).unwrap_or_default());
        let pairs = first.times().into_iter().zip(second.times());
        // From the median on: min and mean say little of a latency.
        let pairs = pairs.skip(2).map(|((_, first), (_, second))| {
            change(first.map(|nanos| nanos as f64), second.map(|nanos| nanos as f64), Unit::Nanos)
        });
        times.push([way.to_string()].into_iter().chain(pairs).collect());
    }
    blocks.push(table(&["way", "p50", "p90", "p99", "p99.9", "p99.99", "max"], times));
    blocks.push(table(&["way", "injected", "missed", "doubled", "misnamed", "early"], counts));
    blocks.push(Block::Heading(3, "Qualities of the detector".to_owned()));
    let pairs = qualities(first).into_iter().zip(qualities(second));
    let rows = pairs.map(|(mut first, mut second)| {
        first.append(&mut second.split_off(1));
        first
    });
    blocks.push(table(&["quality", "first", "second"], rows));
}

fn has(side: &Detected, way: crate::measure::result::Way) -> bool {
    side.ways.iter().any(|found| found.way == way)
}

fn compared(first: &Compared, second: &Compared, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "Comparison".to_owned()));
    let bases = match (first.base, second.base) {
        (Some(first), Some(second)) if first == second => format!("to {}", plain(first)),
        (first, second) => {
            let [first, second] = [first, second].map(|base| plain(base.unwrap_or(show::NOTHING)));
            format!("to {first} in the first and {second} in the second")
        }
    };
    blocks.push(Block::Says(format!(
        "First → second of the median over rounds, with the ratio of the second to the first; beneath it both ratios {bases}.",
    )));
    let only_second = second.rows.iter().filter(|row| first.find(&row.subject.name).is_none());
    let names: Vec<&str> =
        first.rows.iter().chain(only_second).map(|row| row.subject.name.as_str()).collect();
    let known = |figures: &[Figure]| first.has(figures) || second.has(figures);
    for (title, figures) in GROUPS.into_iter().filter(|(_, figures)| known(figures)) {
        blocks.push(Block::Heading(3, title.to_owned()));
        let head: Vec<&str> =
            ["subject"].into_iter().chain(figures.iter().map(|figure| figure.title())).collect();
        let row = |name: &&str| {
            let cells = figures.iter().map(|figure| cell(first, second, name, *figure));
            [cut(name)].into_iter().chain(cells).collect()
        };
        blocks.push(table(&head, names.iter().map(row)));
    }
}

fn cell(first: &Compared, second: &Compared, name: &str, figure: Figure) -> String {
    let [first, second] = [first, second].map(|side| side.find(name).map(|row| *row.cell(figure)));
    let value = |cell: Option<super::figures::Cell>| Some(cell?.value?.median);
    let ratio = |cell: Option<super::figures::Cell>| {
        show::value(cell.and_then(|cell| Some(cell.ratio?.median)), Unit::Ratio)
    };
    if value(first).is_none() && value(second).is_none() {
        return show::NOTHING.to_owned();
    }
    let change = change(value(first), value(second), figure.unit()).replacen('\n', ": ", 1);
    format!("{change}\n{} → {}", ratio(first), ratio(second))
}

/// `31.2 us → 33.4 us`, and beneath it `1.07`.
fn change(first: Option<f64>, second: Option<f64>, unit: Unit) -> String {
    let (before, after) = (show::value(first, unit), show::value(second, unit));
    let ratio = first.zip(second).filter(|(first, _)| *first > 0.0).map(|(first, second)| second / first);
    match (first, second) {
        (None, None) => show::NOTHING.to_owned(),
        _ => format!("{before} → {after}\n{}", show::value(ratio, Unit::Ratio)),
    }
}
