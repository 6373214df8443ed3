//! Every figure of a result by a name, for thresholds and for programs.
//!
//! | name | what |
//! |---|---|
//! | `detect.WAY.FIGURE` | detection of a way to die: `p50`, `p90`, `p99`, `p999`, `p9999`, `min`, `mean`, `max`, `count`, `missed`, `doubled`, `misnamed`, `early` |
//! | `silence.WAY.FIGURE` | the whole silence until the verdict |
//! | `injector.WAY.FIGURE` | how late the injector was |
//! | `detect.SUBJECT.FIGURE` | detection of a compared subject, all rounds together; with `missed` and `false_verdicts` |
//! | `quality.FIGURE` | `mistakes`, `false_verdicts`, `mistake_rate`, `detection_time.p99`, `mistake_duration.max`, ... |
//! | `cpu.SUBJECT` | the median over rounds; so with every [`Figure`] |
//! | `cpu.SUBJECT/OTHER` | the median of the ratios within each round |
//! | `cpu.SUBJECT/OTHER.max` | the greatest of them; `.min` the least |

use super::figures::{Compared, Detected, Figure, Figures, Rounds, Row, Spread};
use super::unit::Unit;
use crate::measure::result::Way;

/// The figure of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The value, or the reason why there is none.
    pub value: Result<f64, String>,
    /// The unit of the value.
    pub unit: Unit,
    /// The range in which noise may have moved the value: over rounds, or within the sample at 95 %.
    pub range: Option<(f64, f64)>,
    /// The number of samples behind the value: deaths or rounds.
    pub samples: Option<u64>,
}

impl Named {
    fn new(unit: Unit, value: Result<f64, String>) -> Named {
        Named { value, unit, range: None, samples: None }
    }

    fn count(count: u64) -> Named {
        Named::new(Unit::Count, Ok(count as f64))
    }
}

/// The figures of a [`Spread`].
const SPREAD: [&str; 9] = ["p50", "p90", "p99", "p999", "p9999", "max", "mean", "min", "count"];
/// The counts of a way.
const COUNTS: [&str; 4] = ["missed", "doubled", "misnamed", "early"];
/// The counts of a subject.
const VERDICTS: [&str; 2] = ["missed", "false_verdicts"];
/// The qualities that are numbers.
const QUALITIES: [&str; 3] = ["mistakes", "false_verdicts", "mistake_rate"];
/// The qualities that are distributions.
const QUALITY_SPREADS: [&str; 2] = ["detection_time", "mistake_duration"];

/// Finds the figure of a name. `None`: no figure has such a name.
#[must_use]
pub fn find(figures: &Figures, name: &str) -> Option<Named> {
    let (kind, rest) = name.split_once('.')?;
    if let Some(figure) = Figure::ALL.into_iter().find(|figure| figure.name() == kind) {
        return compared(figures.comparison.as_ref(), figure, rest);
    }
    match kind {
        "quality" => quality(figures.detection.as_ref(), rest),
        "detect" | "silence" | "injector" => {
            let (series, figure) = rest.rsplit_once('.')?;
            match Way::ALL.into_iter().find(|way| way.as_str() == series) {
                Some(way) => of_way(figures.detection.as_ref(), kind, way, figure),
                None if kind == "detect" => of_subject(figures.comparison.as_ref()?.find(series)?, figure),
                None => None,
            }
        }
        _ => None,
    }
}

fn of_way(detection: Option<&Detected>, kind: &str, way: Way, figure: &str) -> Option<Named> {
    let counted = COUNTS.contains(&figure) && kind == "detect";
    let unit = if counted || figure == "count" { Unit::Count } else { Unit::Nanos };
    if !counted && !SPREAD.contains(&figure) {
        return None;
    }
    let missing = |why: String| Some(Named::new(unit, Err(why)));
    let Some(detection) = detection else { return missing("the result has no experiment".to_owned()) };
    let Some(found) = detection.find(way) else {
        return missing(format!("{way} was not asked for"));
    };
    if let Some(reason) = found.not_run {
        return missing(format!("{way} was not run: {reason}"));
    }
    match kind {
        "detect" if counted => {
            found.faults().into_iter().find(|(kind, _)| *kind == figure).map(|(_, count)| Named::count(count))
        }
        "detect" => of_spread(&found.latency, figure),
        "injector" => of_spread(&found.injector_late, figure),
        _ => match &found.silence {
            Some(silence) => of_spread(silence, figure),
            None => missing(format!("{way} is no silent way")),
        },
    }
}

fn of_spread(spread: &Spread, figure: &str) -> Option<Named> {
    if figure == "count" {
        return Some(Named::count(spread.count));
    }
    let (_, value) = spread.times().into_iter().find(|(name, _)| *name == figure)?;
    let why = || match spread.count {
        0 => "nothing was measured".to_owned(),
        count => format!("a sample of {count} does not carry it"),
    };
    let range = spread.range(figure).map(|(low, high)| (low as f64, high as f64));
    let value = value.map(|nanos| nanos as f64).ok_or_else(why);
    Some(Named { value, unit: Unit::Nanos, range, samples: Some(spread.count) })
}

fn of_subject(row: &Row, figure: &str) -> Option<Named> {
    match figure {
        "missed" => Some(Named::count(row.missed)),
        "false_verdicts" => Some(Named::count(row.false_verdicts)),
        figure => of_spread(&row.detection, figure),
    }
}

fn quality(detection: Option<&Detected>, name: &str) -> Option<Named> {
    let (spread, figure) = name.split_once('.').unwrap_or((name, ""));
    let unit = match figure {
        "" if name == "mistake_rate" => Unit::Ratio,
        "" | "count" => Unit::Count,
        _ => Unit::Nanos,
    };
    let known = QUALITIES.contains(&name) || QUALITY_SPREADS.contains(&spread) && SPREAD.contains(&figure);
    let Some(qualities) = detection.map(|detection| &detection.qualities).filter(|_| known) else {
        return known.then(|| Named::new(unit, Err("the result has no experiment".to_owned())));
    };
    match spread {
        "mistakes" => Some(Named::count(qualities.mistakes)),
        "false_verdicts" => Some(Named::count(qualities.false_verdicts)),
        "mistake_rate" => {
            let rate = qualities.mistakes_per_hour.ok_or_else(|| "nothing was watched".to_owned());
            Some(Named::new(unit, rate))
        }
        "detection_time" => of_spread(&qualities.detection_time, figure),
        _ => of_spread(&qualities.mistake_duration, figure),
    }
}

/// Chooses one of several rounds.
type Pick = fn(Rounds) -> f64;

fn compared(comparison: Option<&Compared>, figure: Figure, rest: &str) -> Option<Named> {
    let unit = if rest.contains('/') { Unit::Ratio } else { figure.unit() };
    let Some(comparison) = comparison else {
        return Some(Named::new(unit, Err("the result has no comparison".to_owned())));
    };
    // The name of a subject may hold dots and slashes, so whole names are tried first.
    let median: Pick = |rounds| rounds.median;
    let picks: [(&str, Pick); 4] =
        [("", median), (".min", |rounds| rounds.min), (".median", median), (".max", |rounds| rounds.max)];
    picks.into_iter().find_map(|(suffix, pick)| {
        let named = rest.strip_suffix(suffix)?;
        comparison.find(named).map(|row| of_figure(row, figure, pick)).or_else(|| {
            let pairs = named.match_indices('/').map(|(at, _)| (&named[..at], &named[at + 1..]));
            let mut pairs = pairs.filter_map(|(a, b)| Some((comparison.find(a)?, comparison.find(b)?)));
            pairs.next().map(|(row, base)| of_ratio(comparison, row, base, figure, pick))
        })
    })
}

/// The reason why a row lacks a figure in some rounds. A figure of some rounds only is no figure: the rounds that
/// failed may have been the worst.
fn lacking(row: &Row, figure: Figure) -> Option<String> {
    let (name, rounds) = (&row.subject.name, row.cell(figure).rounds);
    match rounds {
        0 => Some(format!("{name} has no {} in any round", figure.name())),
        rounds if rounds < row.rounds => {
            Some(format!("{name} has {} in {rounds} of {} rounds only", figure.name(), row.rounds))
        }
        _ => None,
    }
}

fn of_figure(row: &Row, figure: Figure, pick: Pick) -> Named {
    let cell = row.cell(figure);
    let value = cell.value.map(pick);
    let value = lacking(row, figure).map_or_else(|| value.ok_or_else(String::new), Err);
    let range = cell.value.map(|rounds| (rounds.min, rounds.max));
    Named { value, unit: figure.unit(), range, samples: Some(cell.rounds) }
}

fn of_ratio(comparison: &Compared, row: &Row, base: &Row, figure: Figure, pick: Pick) -> Named {
    let ratio = match comparison.base == Some(&base.subject.name) {
        true => row.cell(figure).ratio,
        false => comparison.ratio(figure, &row.subject.name, &base.subject.name),
    };
    let value = || {
        let none = || "no round has both, and more than nothing to divide by".to_owned();
        ratio.map(pick).ok_or_else(none)
    };
    let lacking = lacking(row, figure).or_else(|| lacking(base, figure));
    let range = ratio.map(|rounds| (rounds.min, rounds.max));
    let samples = Some(row.cell(figure).rounds.min(base.cell(figure).rounds));
    Named { value: lacking.map_or_else(value, Err), unit: Unit::Ratio, range, samples }
}

/// All names of a result, except ratios to subjects other than the base.
#[must_use]
pub fn all(figures: &Figures) -> Vec<String> {
    let mut names = Vec::new();
    for way in figures.detection.iter().flat_map(|detection| &detection.ways) {
        names.extend(SPREAD.iter().chain(&COUNTS).map(|figure| format!("detect.{}.{figure}", way.way)));
        names.extend(SPREAD.map(|figure| format!("injector.{}.{figure}", way.way)));
        if way.silence.is_some() {
            names.extend(SPREAD.map(|figure| format!("silence.{}.{figure}", way.way)));
        }
    }
    if figures.detection.is_some() {
        names.extend(QUALITIES.map(|figure| format!("quality.{figure}")));
        let of = |spread| SPREAD.map(|figure| format!("quality.{spread}.{figure}"));
        names.extend(QUALITY_SPREADS.into_iter().flat_map(of));
    }
    let Some(comparison) = &figures.comparison else { return names };
    for row in &comparison.rows {
        let name = &row.subject.name;
        names.extend(SPREAD.iter().chain(&VERDICTS).map(|figure| format!("detect.{name}.{figure}")));
        for figure in Figure::ALL {
            names.push(format!("{}.{name}", figure.name()));
            names.extend(comparison.base.map(|base| format!("{}.{name}/{base}", figure.name())));
        }
    }
    names
}

/// The names of a result as one line for people.
#[must_use]
pub fn outline(figures: &Figures) -> String {
    let mut parts = Vec::new();
    let times = SPREAD.join("|");
    if let Some(detection) = &figures.detection {
        let ways: Vec<&str> = detection.ways.iter().map(|way| way.way.as_str()).collect();
        let ways = ways.join("|");
        parts.push(format!("detect.{{{ways}}}.{{{times}|{}}}", COUNTS.join("|")));
        parts.push(format!("{{silence|injector}}.{{{ways}}}.{{{times}}}"));
        parts.push(format!(
            "quality.{{{}}}, quality.{{{}}}.{{{times}}}",
            QUALITIES.join("|"),
            QUALITY_SPREADS.join("|")
        ));
    }
    if let Some(comparison) = &figures.comparison {
        let names: Vec<&str> = comparison.rows.iter().map(|row| row.subject.name.as_str()).collect();
        let names = names.join("|");
        parts.push(format!("detect.{{{names}}}.{{{times}|{}}}", VERDICTS.join("|")));
        let figures = Figure::ALL.map(Figure::name).join("|");
        parts.push(format!("{{{figures}}}.SUBJECT, /SUBJECT and .min or .max behind it"));
    }
    parts.join(", ")
}
