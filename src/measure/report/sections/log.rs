//! A latency log: percentiles by tag, and the intervals over time.

use crate::measure::log::{Log, Tag};
use crate::measure::report::document::{
    Block, Cell, Chart, Course, Curve, Document, Plot, Row, Section, Table,
};
use crate::measure::report::figures::Spread;
use crate::measure::report::options::Options;
use crate::measure::report::show;
use crate::measure::report::unit::Unit;

use super::timeline;

/// The tag whose values are numbers of completions. All other values are nanoseconds.
const BATCH: &str = "batch-size";

pub fn document(log: &Log, options: &Options) -> Document {
    let known: Vec<&Tag> = log.tags.iter().filter(|tag| tag.whole.count() > 0).collect();
    let mut blocks = vec![Block::Says(summary(log).into())];
    if known.is_empty() {
        blocks.push(Block::Says("Nothing was measured: all intervals are empty.".into()));
    } else {
        blocks.push(Block::Table(percentiles(&known)));
        blocks.push(Block::Charts(known.iter().map(|tag| spectrum(tag)).collect()));
    }
    let mut sections = vec![Section { title: "Latencies", blocks }];
    let courses: Vec<Chart> = known.iter().filter_map(|tag| course(tag, log)).collect();
    if !courses.is_empty() {
        let note = "The greatest value of each interval; in a chart the thin line is the median.";
        let blocks = vec![Block::Says(note.into()), Block::Charts(courses)];
        sections.push(Section { title: "Over time", blocks });
    }
    let mut terms = Table::new("Definitions", ["tag", "meaning"]);
    terms.rows.extend(TERMS.map(|(tag, meaning)| Row::from_iter([tag, meaning])));
    let blocks = vec![Block::Fold("What each tag means".to_owned(), vec![Block::Table(terms)])];
    sections.push(Section { title: "Definitions", blocks });
    let name = options.files.first().map_or("latency log", String::as_str);
    Document { title: format!("deadpeer: {name}"), sections }
}

fn summary(log: &Log) -> String {
    let tags = show::counted(log.tags.len() as u64, "tag", "tags");
    let intervals = show::counted(log.intervals, "interval", "intervals");
    let torn = if log.torn { " The last line is torn and left out." } else { "" };
    format!("{tags}, {intervals} over {}.{torn}", show::nanos(Some(log.until_ns)))
}

fn unit(tag: &Tag) -> Unit {
    if tag.name == BATCH { Unit::Count } else { Unit::Nanos }
}

fn percentiles(tags: &[&Tag]) -> Table {
    let heads = ["tag", "p50", "p90", "p99", "p99.9", "p99.99", "max", "of"];
    let mut table = Table::new("Percentiles by tag", heads);
    table.rows.extend(tags.iter().map(|tag| {
        let spread = Spread::of(&tag.whole);
        let times =
            [spread.p50_ns, spread.p90_ns, spread.p99_ns, spread.p999_ns, spread.p9999_ns, spread.max_ns];
        let times = times.map(|time| show::value(time.map(|value| value as f64), unit(tag)));
        let clipped = (spread.clipped > 0).then(|| format!("{} beyond an hour", show::count(spread.clipped)));
        let count = Cell { note: clipped.unwrap_or_default(), ..show::count(spread.count).into() };
        [tag.name.clone()].into_iter().chain(times).map(Cell::from).chain([count]).collect()
    }));
    table
}

fn spectrum(tag: &Tag) -> Chart {
    let curves = vec![Curve { unit: unit(tag), ..Curve::new(tag.name.as_str(), 0, &tag.whole) }];
    let plot = Plot::Spectrum { curves, range: None };
    Chart::new(format!("spectrum-{}", tag.place), format!("{}: percentiles", tag.name), plot)
}

/// The course of a tag. A tag with a single interval has none.
fn course(tag: &Tag, log: &Log) -> Option<Chart> {
    let course = Course { name: tag.name.clone(), look: 0, stretches: tag.stretches.clone() };
    let range = timeline::range([&course]).filter(|_| course.stretches.len() > 1)?;
    let greatest = show::value(tag.whole.max().map(|max| max as f64), unit(tag));
    let plot = Plot::Timeline { courses: vec![course], range, until_ns: log.until_ns, unit: unit(tag) };
    let chart = Chart::new(format!("time-{}", tag.place), tag.name.as_str(), plot);
    Some(Chart { remark: format!("greatest {greatest}"), ..chart })
}

const TERMS: [(&str, &str); 6] = [
    ("loop-turn", "One turn of the loop, without its wait."),
    ("batch-size", "Completions that one turn took from the kernel: a number, no time."),
    ("deadline-lateness", "From the deadline of a silent peer to the verdict."),
    ("heartbeat-rtt", "The round trip of a heartbeat."),
    ("wake-to-verdict", "From the wake of the loop to a verdict on what the network reported."),
    ("silence", "From the last sign of life to the verdict, of silent peers."),
];
