//! Two results: what became better or worse, and what was not the same.

use super::parts::SIDES;
use crate::measure::report::diff::{Change, Judgement, changes, differences};
use crate::measure::report::document::{Block, Cell, Row, Section, Table, Text, Tone};
use crate::measure::report::figures::{Figure, Figures};
use crate::measure::report::show;
use crate::measure::report::unit::Unit;

/// Changes that are shown before the rest is folded.
const SHOWN: usize = 12;

pub(super) fn section(results: &[Figures<'_>]) -> Option<Section> {
    let [first, second] = results else { return None };
    let changes: Vec<Change> = changes(first, second).into_iter().filter(worth_a_row).collect();
    let of = |judgement| changes.iter().filter(move |change| change.judgement == Some(judgement));
    let [worse, better, same] =
        [Judgement::Worse, Judgement::Better, Judgement::WithinNoise].map(|judgement| of(judgement).count());
    let tone = if worse > 0 { Tone::Bad } else { Tone::Good };
    let summary = Text::default().and(tone, format!("{worse} worse"));
    let summary = summary.and(Tone::Plain, format!(", {better} better, {same} within noise (B against A). "));
    let note = "Less is better in all figures. A change counts where it exceeds 5 % and the ranges of both values \
                are apart: over rounds, or what the sample leaves open. The difference between runs is not in \
                these ranges, so repeat both before you believe a change.";
    let mut blocks = vec![Block::Says(summary), Block::Says(note.into())];
    let mut sorted: Vec<&Change> = of(Judgement::Worse).chain(of(Judgement::Better)).collect();
    sorted.sort_by(|one, two| {
        (one.judgement, size(two))
            .partial_cmp(&(two.judgement, size(one)))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    if !sorted.is_empty() {
        blocks.push(table("The largest changes", sorted.into_iter().take(SHOWN)));
    }
    blocks.push(Block::Fold(
        format!("All {} figures of both", changes.len()),
        vec![table("All figures of both", &changes)],
    ));
    blocks.extend(circumstances(first, second));
    Some(Section { title: "Changes", blocks })
}

/// Counts that are 0 in both, numbers of samples, means, the lateness of the injector, and silences (the latency plus a
/// constant) are left out. Of a comparison the ratios stay: the tables of medians have the absolute figures.
fn worth_a_row(change: &Change) -> bool {
    let (kind, rest) = change.name.split_once('.').unwrap_or_default();
    let figure = rest.rsplit('.').next().unwrap_or_default();
    let none = change.unit == Unit::Count && change.first == Some(0.0) && change.second == Some(0.0);
    let absolute = change.unit != Unit::Ratio && Figure::ALL.into_iter().any(|figure| figure.name() == kind);
    let base = change.unit == Unit::Ratio && change.first == Some(1.0) && change.second == Some(1.0);
    !none
        && !absolute
        && !base
        && !["injector", "silence"].contains(&kind)
        && !["count", "mean", "min"].contains(&figure)
}

/// How far a ratio is from 1.
fn size(change: &Change) -> f64 {
    change.ratio.filter(|ratio| *ratio > 0.0).map_or(f64::MAX, |ratio| ratio.ln().abs())
}

fn table<'a>(caption: &str, changes: impl IntoIterator<Item = &'a Change>) -> Block {
    let mut table = Table::new(caption, ["figure", SIDES[0], SIDES[1], "B/A", "B is"]);
    table.rows.extend(changes.into_iter().map(|change| {
        let most = change.name.ends_with(".max");
        let value = |value: Option<f64>, samples: Option<u64>| {
            let note = samples.filter(|_| most).map(|samples| format!("of {}", show::count(samples)));
            Cell { note: note.unwrap_or_default(), ..show::value(value, change.unit).into() }
        };
        let tone = match change.judgement {
            Some(Judgement::Worse) => Tone::Bad,
            Some(Judgement::Better) => Tone::Good,
            _ => Tone::Plain,
        };
        let judged = change.judgement.map_or("not judged", Judgement::as_str);
        Row::from_iter([
            Cell::from(change.name.clone()),
            value(change.first, change.samples[0]),
            value(change.second, change.samples[1]),
            show::value(change.ratio, Unit::Ratio).into(),
            Cell { tone, ..judged.into() },
        ])
    }));
    Block::Table(table)
}

fn circumstances(first: &Figures<'_>, second: &Figures<'_>) -> Vec<Block> {
    let different = differences(first.result, second.result);
    if different.is_empty() {
        return vec![Block::Says("Machine, program and settings were the same.".into())];
    }
    let mut table = Table::new("What was not the same", ["what", SIDES[0], SIDES[1]]);
    let rows = different.into_iter().map(|row| Row::from_iter([row.what, row.first, row.second]));
    table.rows.extend(rows);
    let summary = format!(
        "{} were not the same",
        show::counted(table.rows.len() as u64, "circumstance", "circumstances")
    );
    let note = "Machine, program or settings differ. The changes show these as much as the program.";
    vec![Block::Fold(summary, vec![Block::Says(note.into()), Block::Table(table)])]
}
