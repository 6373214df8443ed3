//! The tables of the page.

use std::fmt::{self, Write};

use super::super::document::BARE;
use super::super::figures::{
    BareFigures, Compared, Detected, Figure, Qualities, Row, Spread, Unit, WayFigures,
};
use super::super::show;
use super::circumstances::Fact;
use super::text::{Escaped, time};
use super::words::ratio_of;
use super::{Sides, side};
use crate::measure::result::{Basis, Way};

/// Opens a table that scrolls by itself where the page is narrow. `name` says what it holds.
fn open(out: &mut String, class: &str, name: &str, heads: &[&str]) -> fmt::Result {
    begin(out, class, name)?;
    for head in heads {
        write!(out, "<th scope=\"col\">{}</th>", Escaped(head))?;
    }
    out.write_str("</tr></thead>\n")
}

/// The same, as far as the first head.
fn begin(out: &mut String, class: &str, name: &str) -> fmt::Result {
    let name = Escaped(name);
    write!(out, "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{name}\">")?;
    write!(out, "<table class=\"{class}\"><caption>{name}</caption><thead><tr>")
}

fn close(out: &mut String) -> fmt::Result {
    out.write_str("</table></div>\n")
}

/// The columns of [`times`].
const TIMES: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

fn times(spread: &Spread) -> [Option<u64>; 6] {
    [spread.p50_ns, spread.p90_ns, spread.p99_ns, spread.p999_ns, spread.p9999_ns, spread.max_ns]
}

/// The ways to die: counts and percentiles; of two results also how many times as much.
pub(super) fn ways(out: &mut String, sides: &Sides<'_, Detected<'_>>) -> fmt::Result {
    let heads = ["way", "deaths", "missed", "doubled", "misnamed", "early"];
    let heads: Vec<_> = heads.into_iter().chain(TIMES).chain(["injector late p99"]).collect();
    open(out, "figures quiet", "Ways to die", &heads)?;
    for (basis, title) in [
        (Basis::Scheduled, "Told by the network: from the scheduled instant to the verdict"),
        (Basis::Expiry, "Silent: from the last sign of life + detection time to the verdict"),
    ] {
        let known = |way: &Way| way.basis() == basis && sides.iter().any(|side| find(side, *way).is_some());
        let ways: Vec<_> = Way::ALL.into_iter().filter(known).collect();
        if ways.is_empty() {
            continue;
        }
        let columns = heads.len();
        write!(out, "<tbody><tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{columns}\">")?;
        writeln!(out, "<span>{title}</span></th></tr>")?;
        for way in ways {
            for (place, detected) in &sides.known {
                let Some(figures) = find(detected, way) else { continue };
                way_row(out, &format!("{way}{}", sides.mark(*place)), figures)?;
            }
            if let [(_, first), (_, second)] = sides.known[..]
                && let (Some(first), Some(second)) = (find(first, way), find(second, way))
                && first.not_run.or(second.not_run).is_none()
            {
                ratio_row(out, first, second)?;
            }
        }
        if basis == Basis::Scheduled {
            for (place, bare) in sides.known.iter().filter_map(|(place, side)| Some((place, side.bare_recv?)))
            {
                bare_row(out, &format!("{BARE}{}", sides.mark(*place)), &bare)?;
            }
        }
        out.write_str("</tbody>\n")?;
    }
    close(out)
}

fn find<'a>(detected: &'a Detected<'_>, way: Way) -> Option<&'a WayFigures<'a>> {
    detected.ways.iter().find(|other| other.way == way)
}

fn way_row(out: &mut String, name: &str, way: &WayFigures<'_>) -> fmt::Result {
    write!(out, "<tr><th scope=\"row\">{name}</th>")?;
    if let Some(reason) = way.not_run {
        let reason = Escaped(reason);
        return writeln!(out, "<td class=\"said\" colspan=\"12\">not run: {reason}</td></tr>");
    }
    write!(out, "<td>{}</td>", show::count(way.injected))?;
    for wrong in [way.missed, way.doubled, way.misnamed, way.early] {
        let class = if wrong > 0 { " class=\"bad\"" } else { "" };
        write!(out, "<td{class}>{}</td>", show::count(wrong))?;
    }
    for value in times(&way.latency) {
        write!(out, "<td>{}</td>", show::nanos(value))?;
    }
    writeln!(out, "<td>{}</td></tr>", show::nanos(way.injector_late.p99_ns))
}

/// The yardstick of the ways that the network tells.
fn bare_row(out: &mut String, name: &str, bare: &BareFigures<'_>) -> fmt::Result {
    write!(out, "<tr><th scope=\"row\">{name}</th><td colspan=\"5\"></td>")?;
    for value in times(&bare.latency) {
        write!(out, "<td>{}</td>", show::nanos(value))?;
    }
    writeln!(out, "<td>{}</td></tr>", show::nanos(bare.injector_late.p99_ns))
}

/// The second over the first, where both are.
fn ratio_row(out: &mut String, first: &WayFigures<'_>, second: &WayFigures<'_>) -> fmt::Result {
    write!(out, "<tr class=\"ratio\"><th scope=\"row\">{}/{}</th><td colspan=\"5\"></td>", side(1), side(0))?;
    let float = |nanos: Option<u64>| nanos.map(|nanos| nanos as f64);
    for (below, above) in times(&first.latency).into_iter().zip(times(&second.latency)) {
        write!(out, "<td>{}</td>", over(float(above), float(below)))?;
    }
    out.write_str("<td></td></tr>\n")
}

/// How many times as much, or `-`.
fn over(above: Option<f64>, below: Option<f64>) -> String {
    match (above, below) {
        (Some(above), Some(below)) if below > 0.0 => ratio_of(above / below),
        _ => show::NOTHING.to_owned(),
    }
}

/// The detector's qualities by their names.
pub(super) fn qualities(out: &mut String, sides: &Sides<'_, Detected<'_>>) -> fmt::Result {
    let rows = |said: &Qualities| {
        let rate = show::value(said.mistakes_per_hour, Unit::Ratio);
        let (mistakes, watched) = (show::count(said.mistakes), hours(said.watched_ns));
        let promised = time(said.promised_ns);
        [
            ("detection time", format!("{}; promised {promised}", spread_said(&said.detection_time))),
            ("mistake rate", format!("{rate} in an hour of one connection: {mistakes} in {watched}")),
            ("mistake duration", spread_said(&said.mistake_duration)),
            (
                "false verdicts",
                format!("{}: mistakes that were never taken back", show::count(said.false_verdicts)),
            ),
        ]
    };
    let all: Vec<_> = sides.iter().map(|side| rows(&side.qualities)).collect();
    let fact = |row: usize| (all[0][row].0, all.iter().map(|side| side[row].1.clone()).collect());
    let facts: Vec<Fact> = (0..all[0].len()).map(fact).collect();
    facts_of(out, "quiet", "The detector's qualities", sides.known.iter().map(|(place, _)| *place), &facts)
}

fn spread_said(spread: &Spread) -> String {
    if spread.count == 0 {
        return show::NOTHING.to_owned();
    }
    let [p50, p99, max] = [spread.p50_ns, spread.p99_ns, spread.max_ns].map(show::nanos);
    format!("p50 {p50}, p99 {p99}, max {max} (of {})", show::count(spread.count))
}

fn hours(nanos: u64) -> String {
    let hours = nanos as f64 / 3.6e12;
    if hours < 1.0 { format!("{:.0} s", nanos as f64 / 1e9) } else { format!("{hours:.1} h") }
}

/// Who was compared, and what each gives up.
pub(super) fn subjects(out: &mut String, sides: &Sides<'_, Compared<'_>>) -> fmt::Result {
    let heads = ["subject", "what it is", "what it gives up", "rounds", "missed", "false"];
    open(out, "words", "Who was compared", &heads)?;
    out.write_str("<tbody>\n")?;
    for name in names(sides) {
        let rows: Vec<_> = sides.iter().map(|side| side.find(name)).collect();
        let Some(first) = rows.iter().copied().flatten().next() else { continue };
        write!(out, "<tr{}><th scope=\"row\">{}</th>", ours(first), Escaped(name))?;
        write!(out, "<td>{}</td>", Escaped(&first.subject.what))?;
        write!(out, "<td>{}</td>", Escaped(&first.subject.gives_up))?;
        let counts =
            |count: fn(&Row<'_>) -> u64| -> Vec<_> { rows.iter().map(|row| row.map(count)).collect() };
        count_cell(out, "", &counts(|row| row.rounds))?;
        for wrong in [counts(|row| row.missed), counts(|row| row.false_verdicts)] {
            let bad = wrong.iter().flatten().any(|count| *count > 0);
            count_cell(out, if bad { " class=\"bad\"" } else { "" }, &wrong)?;
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody>")?;
    close(out)
}

/// What each result counted: `5`, or `5 | 5`.
fn count_cell(out: &mut String, class: &str, counts: &[Option<u64>]) -> fmt::Result {
    let said = counts.iter().map(|count| count.map_or(show::NOTHING.to_owned(), show::count));
    write!(out, "<td{class}>{}</td>", said.collect::<Vec<_>>().join(" | "))
}

/// The medians of some figures, with their ratios; of two results also how many times as much.
pub(super) fn medians(
    out: &mut String,
    name: &str,
    figures: &[Figure],
    sides: &Sides<'_, Compared<'_>>,
) -> fmt::Result {
    begin(out, "figures pairs", name)?;
    out.write_str("<th scope=\"col\">subject</th>")?;
    for figure in figures {
        write!(out, "<th scope=\"colgroup\" colspan=\"2\">{}</th>", figure.title())?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    for name in names(sides) {
        let rows: Vec<_> = sides.iter().map(|side| side.find(name)).collect();
        for ((place, _), row) in sides.known.iter().zip(&rows) {
            let Some(row) = row else { continue };
            write!(out, "<tr{}><th scope=\"row\">{}{}</th>", ours(row), Escaped(name), sides.mark(*place))?;
            figures.iter().try_for_each(|figure| cell(out, row, *figure))?;
            out.write_str("</tr>\n")?;
        }
        if let [Some(first), Some(second)] = rows[..] {
            write!(out, "<tr class=\"ratio\"><th scope=\"row\">{}/{}</th>", side(1), side(0))?;
            for figure in figures {
                let [above, below] =
                    [second, first].map(|row| row.cell(*figure).value.map(|value| value.median));
                write!(out, "<td>{}</td><td></td>", over(above, below))?;
            }
            out.write_str("</tr>\n")?;
        }
    }
    out.write_str("</tbody>")?;
    close(out)
}

/// A median, and beside it the ratio with its least and greatest. Rounds that lack it are told.
fn cell(out: &mut String, row: &Row<'_>, figure: Figure) -> fmt::Result {
    let cell = row.cell(figure);
    write!(out, "<td>{}</td><td>", show::value(cell.value.map(|value| value.median), figure.unit()))?;
    if let Some(ratio) = cell.ratio {
        let range = format!("{}–{}", ratio_of(ratio.min), ratio_of(ratio.max));
        write!(out, "{} <small>({range})</small>", ratio_of(ratio.median))?;
    }
    if cell.rounds > 0 && cell.rounds < row.rounds {
        write!(out, " <small>{} of {} rounds</small>", cell.rounds, row.rounds)?;
    }
    out.write_str("</td>")
}

fn ours(row: &Row<'_>) -> &'static str {
    if row.subject.ours { " class=\"ours\"" } else { "" }
}

/// All subjects of one or two comparisons, each once.
pub(super) fn names<'a>(sides: &Sides<'a, Compared<'a>>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for row in sides.iter().flat_map(|side| &side.rows) {
        if !names.contains(&row.subject.name.as_str()) {
            names.push(&row.subject.name);
        }
    }
    names
}

/// Plain facts of all results: a name, and what each says. What differs is marked.
pub(super) fn facts(out: &mut String, class: &str, name: &str, facts: &[Fact]) -> fmt::Result {
    let results = facts.first().map_or(0, |(_, values)| values.len());
    facts_of(out, class, name, 0..results, facts)
}

fn facts_of(
    out: &mut String,
    class: &str,
    name: &str,
    places: impl ExactSizeIterator<Item = usize>,
    facts: &[Fact],
) -> fmt::Result {
    let one = if places.len() > 1 { "" } else { " one" };
    begin(out, &format!("facts {class}{one}"), name)?;
    out.write_str("<th scope=\"col\">what</th>")?;
    for place in places {
        write!(
            out,
            "<th scope=\"col\">{}</th>",
            if one.is_empty() { side(place) } else { "value".to_owned() }
        )?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    for (name, values) in facts {
        let differ = if values.windows(2).any(|pair| pair[0] != pair[1]) { " class=\"differ\"" } else { "" };
        write!(out, "<tr{differ}><th scope=\"row\">{name}</th>")?;
        for value in values {
            write!(out, "<td>{}</td>", Escaped(value))?;
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody>")?;
    close(out)
}
