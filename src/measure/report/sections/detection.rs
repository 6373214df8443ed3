//! The experiment: the ways to die, their spectra, their course over time, and the detector's qualities.

use super::parts::{Parts, SIDES};
use super::timeline;
use crate::measure::recorded::Recorded;
use crate::measure::report::document::{Block, Cell, Chart, Course, Curve, Plot, Row, Section, Table, Tone};
use crate::measure::report::figures::{Detected, Qualities, Spread, WayFigures};
use crate::measure::report::show;
use crate::measure::report::unit::Unit;
use crate::measure::result::{Basis, Way};

/// The kinds of ways. Each has its own tables and charts, because their times are of other sizes.
const KINDS: [(Basis, &str, &str); 2] = [
    (Basis::Scheduled, "network", "Closed or reset: from the scheduled instant to the verdict"),
    (Basis::Expiry, "silent", "Silent: from last life + detection time to the verdict"),
];
/// The name of the yardstick for the ways to die.
const BARE: &str = "bare recv";
/// Colours and marks that a chart tells apart.
const LOOKS: usize = 5;
/// The look of the bare recv.
const BARE_LOOK: usize = 10;
/// The columns of all times.
const SPREAD: [&str; 9] = ["count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

type All<'a> = Parts<'a, Detected<'a>>;

pub(super) fn sections(all: &All<'_>) -> Vec<Section> {
    if all.known.is_empty() {
        return Vec::new();
    }
    let mut sections = vec![ways(all)];
    let charts = over_time(all);
    if !charts.is_empty() {
        let note = "The greatest latency of each interval; in a chart the thin line is the median.";
        let blocks = [vec![Block::Says(note.into())], charts].concat();
        sections.push(Section { title: "Over time", blocks });
    }
    let qualities = qualities(all);
    sections.push(Section { title: "Qualities of the detector", blocks: vec![Block::Table(qualities)] });
    sections
}

fn ways(all: &All<'_>) -> Section {
    let mut blocks = Vec::new();
    for (place, detected) in &all.known {
        blocks.push(Block::Says(format!("{}{}", all.mark(*place), load(detected)).into()));
    }
    for (basis, id, title) in KINDS {
        let table = latency(all, basis, title);
        if table.rows.is_empty() {
            continue;
        }
        blocks.push(Block::Heading(title.to_owned()));
        blocks.push(Block::Table(table));
        blocks.extend(not_run(all, basis));
        blocks.extend(spectra(all, basis, id));
    }
    blocks.extend(injector(all));
    let all_times = times(all);
    blocks.push(Block::Fold("All percentiles".to_owned(), vec![Block::Table(all_times)]));
    blocks.push(Block::Fold("All counts, and the injector".to_owned(), vec![Block::Table(counts(all))]));
    Section { title: "Ways to die", blocks }
}

fn load(detected: &Detected<'_>) -> String {
    let settings = detected.settings;
    format!(
        "{} connections, {} beats a second, {} deaths a second for {}; detection time {}, wake {}, batch window {}, \
         threads {}.",
        show::count(settings.connections),
        show::count(settings.beats_per_second),
        show::count(settings.deaths_per_second),
        show::nanos(Some(settings.duration_ns)),
        show::nanos(Some(settings.detection_time_ns)),
        settings.wake,
        show::nanos(Some(settings.batch_window_ns)),
        settings.threads,
    )
}

/// The ways of a kind that any result has, each with its figures in each result.
fn of_kind<'a>(all: &All<'a>, basis: Basis) -> Vec<(Way, Vec<(usize, &'a WayFigures<'a>)>)> {
    let found = Way::ALL.into_iter().filter(|way| way.basis() == basis).map(|way| {
        let sides = all.known.iter().filter_map(|(place, detected)| Some((*place, detected.find(way)?)));
        (way, sides.collect::<Vec<_>>())
    });
    found.filter(|(_, sides)| !sides.is_empty()).collect()
}

/// The ways of a kind by their names in tables, each in each result.
fn named<'a>(all: &All<'a>, basis: Basis) -> impl Iterator<Item = (String, &'a WayFigures<'a>)> {
    let ways = of_kind(all, basis).into_iter();
    ways.flat_map(|(way, sides)| sides.into_iter().map(move |(place, figures)| (way, place, figures)))
        .map(|(way, place, figures)| (all.named(way.as_str(), place), figures))
}

/// The bare recv of each result that has one, by its name in tables.
fn bare<'a>(all: &All<'a>) -> impl Iterator<Item = (String, Spread)> {
    let known = all.known.iter();
    known.filter_map(|(place, detected)| Some((all.named(BARE, *place), detected.bare_recv?.latency)))
}

/// Percentiles first, then how many deaths they are of, then faults in one cell.
fn latency(all: &All<'_>, basis: Basis, title: &str) -> Table {
    let heads = ["way", "p50", "p90", "p99", "p99.9", "max", "of deaths", "faults"];
    let mut table = Table::new(title, heads);
    let mut add = |name: String, spread: Spread, rest: [Cell; 2]| {
        let times = [spread.p50_ns, spread.p90_ns, spread.p99_ns, spread.p999_ns, spread.max_ns];
        let cells = [name].into_iter().chain(times.map(show::nanos)).map(Cell::from);
        table.rows.push(cells.chain(rest).collect());
    };
    for (name, figures) in named(all, basis) {
        let counts = || [show::count(figures.injected).into(), faults(figures)];
        let rest = figures.not_run.map_or_else(counts, |_| [show::NOTHING.into(), show::NOTHING.into()]);
        add(name, figures.latency, rest);
    }
    if basis == Basis::Scheduled && named(all, basis).next().is_some() {
        bare(all)
            .for_each(|(name, bare)| add(name, bare, [show::count(bare.count).into(), show::NOTHING.into()]));
    }
    table
}

fn faults(way: &WayFigures<'_>) -> Cell {
    let wrong = way.faults().into_iter().filter(|(_, count)| *count > 0);
    let wrong: Vec<_> = wrong.map(|(kind, count)| format!("{} {kind}", show::count(count))).collect();
    if wrong.is_empty() { "0".into() } else { Cell { tone: Tone::Bad, ..wrong.join(", ").into() } }
}

fn not_run(all: &All<'_>, basis: Basis) -> Option<Block> {
    let said = |(name, figures): (String, &WayFigures<'_>)| {
        Some(format!("{name} was not run: {}.", figures.not_run?))
    };
    Block::list(named(all, basis).filter_map(said))
}

/// The least and the greatest value of curves.
fn range<'a>(curves: impl IntoIterator<Item = &'a Curve>) -> Option<(u64, u64)> {
    let ends = curves.into_iter().flat_map(|curve| &curve.points).map(|(_, value)| (*value, *value));
    ends.reduce(|(low, high), (least, most)| (low.min(least), high.max(most)))
}

/// Of one result all ways of a kind in one chart; of two results a chart for each way, both results in it.
fn spectra(all: &All<'_>, basis: Basis, id: &str) -> Option<Block> {
    let known = of_kind(all, basis).into_iter().map(|(way, mut sides)| {
        sides.retain(|(_, figures)| figures.latency.count > 0);
        (way, sides)
    });
    let known: Vec<_> = known.filter(|(_, sides)| !sides.is_empty()).collect();
    if known.is_empty() {
        return None;
    }
    if all.two {
        let curves = known.iter().map(|(way, sides)| {
            let curve = |(place, way): &(usize, &WayFigures<'_>)| {
                Curve::new(SIDES[*place], *place, &way.source.latency)
            };
            (*way, sides.iter().map(curve).collect::<Vec<_>>())
        });
        let curves: Vec<_> = curves.collect();
        let range = range(curves.iter().flat_map(|(_, curves)| curves));
        let charts = curves.into_iter().map(|(way, curves)| {
            let only =
                curves.first().filter(|_| curves.len() == 1).map(|curve| format!("{} only", curve.name));
            let plot = Plot::Spectrum { curves, range };
            let chart = Chart::new(format!("spectrum-{way}"), format!("{way}: percentiles"), plot);
            Chart { remark: only.unwrap_or_default(), ..chart }
        });
        return Some(Block::Charts(charts.collect()));
    }
    let curves = known.iter().enumerate().flat_map(|(look, (way, sides))| {
        sides.iter().map(move |(_, figures)| Curve::new(way.as_str(), look % LOOKS, &figures.source.latency))
    });
    let mut curves: Vec<_> = curves.collect();
    if let Some(bare) =
        all.iter().find_map(|detected| detected.bare_recv).filter(|_| basis == Basis::Scheduled)
    {
        curves.push(Curve { dotted: true, ..Curve::new(BARE, BARE_LOOK, bare.source) });
    }
    let plot = Plot::Spectrum { curves, range: None };
    let chart = Chart { wide: true, ..Chart::new(format!("spectrum-{id}"), "Percentiles", plot) };
    Some(Block::Charts(vec![chart]))
}

/// How late the injector was, of all ways that it times together.
fn injector(all: &All<'_>) -> Vec<Block> {
    let curves = all.known.iter().filter_map(|(place, detected)| {
        let mut late = Recorded::new();
        let ways = detected.ways.iter().filter(|way| way.basis == Basis::Scheduled);
        ways.for_each(|way| late.merge(&way.source.injector_late));
        let name = if all.two { SIDES[*place] } else { "injector" };
        (late.count() > 0).then(|| Curve::new(name, *place, &late))
    });
    let curves: Vec<_> = curves.collect();
    if curves.is_empty() {
        return Vec::new();
    }
    let note = "From the scheduled instant of a death to the system call that causes it. The latency of closed and \
                reset peers includes this time.";
    let plot = Plot::Spectrum { curves, range: None };
    let chart = Chart { wide: true, ..Chart::new("injector", "How late the injector was", plot) };
    vec![Block::Heading("The injector".to_owned()), Block::Says(note.into()), Block::Charts(vec![chart])]
}

fn times(all: &All<'_>) -> Table {
    let mut table = Table::new("All percentiles", ["way", "basis"].into_iter().chain(SPREAD));
    let scheduled = named(all, Basis::Scheduled).map(|(name, way)| (name, "scheduled", way.latency));
    let expiry = named(all, Basis::Expiry).map(|(name, way)| (name, "expiry", way.latency));
    let bare = bare(all).map(|(name, latency)| (name, "scheduled", latency));
    table.rows.extend(scheduled.chain(expiry).chain(bare).map(|(name, basis, spread)| {
        let times = spread.times().into_iter().map(|(_, time)| show::nanos(time));
        [name, basis.to_owned(), show::count(spread.count)].into_iter().chain(times).collect()
    }));
    table
}

fn counts(all: &All<'_>) -> Table {
    let heads = [
        "way",
        "injected",
        "told",
        "missed",
        "doubled",
        "misnamed",
        "early",
        "injector late p50",
        "p99",
        "max",
    ];
    let mut table = Table::new("All counts", heads);
    let ways = KINDS.into_iter().flat_map(|(basis, ..)| named(all, basis));
    table.rows.extend(ways.map(|(name, figures)| {
        let faults = figures.faults().map(|(_, count)| count);
        let counts = [figures.injected, figures.told].into_iter().chain(faults);
        let shown =
            |count| if figures.not_run.is_some() { show::NOTHING.to_owned() } else { show::count(count) };
        let late = &figures.injector_late;
        let late = [late.p50_ns, late.p99_ns, late.max_ns].map(show::nanos);
        [name].into_iter().chain(counts.map(shown)).chain(late).collect()
    }));
    table
}

/// A chart for each way, all results in it. A way with a single interval has no course.
fn over_time(all: &All<'_>) -> Vec<Block> {
    let end = all.iter().flat_map(|detected| &detected.ways).flat_map(|way| &way.source.intervals);
    let until_ns = end.map(|interval| interval.from_ns.saturating_add(interval.length_ns)).max().unwrap_or(0);
    let kinds = KINDS.into_iter().filter_map(|(basis, ..)| {
        let ways = of_kind(all, basis).into_iter().filter_map(|(way, sides)| {
            let course = |(place, figures): (usize, &WayFigures<'_>)| {
                let name = all.named(way.as_str(), place);
                timeline::course(name, place, &figures.source.intervals)
            };
            let courses: Vec<Course> = sides.into_iter().map(course).collect();
            courses.iter().any(|course| course.stretches.len() > 1).then_some((way, courses))
        });
        let ways: Vec<_> = ways.collect();
        let range = timeline::range(ways.iter().flat_map(|(_, courses)| courses))?;
        let charts = ways.into_iter().map(|(way, courses)| {
            let max = courses.iter().flat_map(|course| &course.stretches).map(|stretch| stretch.max).max();
            let plot = Plot::Timeline { courses, range, until_ns, unit: Unit::Nanos };
            let remark = format!("greatest {}", show::nanos(max));
            Chart { remark, ..Chart::new(format!("time-{way}"), way.as_str(), plot) }
        });
        Some(Block::Charts(charts.collect()))
    });
    kinds.collect()
}

fn qualities(all: &All<'_>) -> Table {
    let said = |spread: &Spread| {
        let [p50, p99, max] = [spread.p50_ns, spread.p99_ns, spread.max_ns].map(show::nanos);
        format!("p50 {p50}, p99 {p99}, max {max} of {}", show::count(spread.count))
    };
    let rows = |quality: &Qualities| {
        let rate = show::value(quality.mistakes_per_hour, Unit::Ratio);
        let promised = show::nanos(Some(quality.promised_ns));
        [
            (
                "detection time of silent peers",
                format!("promised {promised}; {}", said(&quality.detection_time)),
            ),
            ("mistakes", format!("{}: {rate} in an hour of a connection", show::count(quality.mistakes))),
            ("mistake duration", said(&quality.mistake_duration)),
            (
                "false verdicts",
                format!("{} (mistakes never taken back)", show::count(quality.false_verdicts)),
            ),
        ]
    };
    let heads =
        if all.two { all.known.iter().map(|(place, _)| SIDES[*place]).collect() } else { vec!["value"] };
    let mut table = Table::new("Qualities of the detector", ["quality"].into_iter().chain(heads));
    let sides: Vec<_> = all.iter().map(|detected| rows(&detected.qualities)).collect();
    let names = sides[0].iter().map(|(name, _)| (*name).to_owned());
    table.rows.extend(names.enumerate().map(|(row, name)| {
        let values = sides.iter().map(|side| side[row].1.clone());
        Row::from_iter([name].into_iter().chain(values))
    }));
    table
}
