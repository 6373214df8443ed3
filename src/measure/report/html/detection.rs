//! The experiment on the page: the ways to die, their spectra, their course over time, and the
//! detector's qualities.

use std::fmt::{self, Write};

use super::super::document;
use super::super::figures::{Detected, WayFigures};
use super::spectrum::{self, Series, Spectrum};
use super::text::time;
use super::timeline::{self, Timeline};
use super::{SIDES, SMALL, Sides, WIDE, svg, tables};
use crate::measure::recorded::Recorded;
use crate::measure::result::{Basis, Interval, Way};

/// The kinds of ways. They have pictures of their own: their times are of other sizes.
const KINDS: [(Basis, &str, &str); 2] = [
    (Basis::Scheduled, "network", "Told by the network: from the scheduled instant"),
    (Basis::Expiry, "silent", "Silent: beyond the detection time"),
];
/// Marks and colours of one picture.
const LOOKS: usize = svg::SHAPES.len();
/// The looks of what is no way to die.
const NEUTRAL: usize = 9;
const BARE: usize = 10;

/// Writes it.
pub(super) fn section(out: &mut String, sides: &Sides<'_, Detected<'_>>) -> fmt::Result {
    super::section(out, "ways", "Ways to die")?;
    tables::ways(out, sides)?;
    out.write_str(
        "<h3>Percentile spectrum</h3>\n<p class=\"note\">The time that so many per cent of the deaths did \
         not exceed. \
         Every step to the right is ten times as rare; a line ends where its sample does. Dashed: how late the \
         injector itself was, which is part of what the network's ways took.</p>\n",
    )?;
    match (sides.two, &sides.known[..]) {
        (false, [(_, detected), ..]) => overlaid(out, detected)?,
        _ => beside(out, sides)?,
    }
    out.write_str("</section>\n")?;
    over_time(out, sides)?;
    super::section(out, "qualities", "Qualities of the detector")?;
    tables::qualities(out, sides)?;
    out.write_str("</section>\n")
}

/// The ways of a kind that have samples.
fn of_kind<'a>(detected: &'a Detected<'_>, basis: Basis) -> impl Iterator<Item = &'a WayFigures<'a>> {
    detected.ways.iter().filter(move |way| way.basis == basis && way.latency.count > 0)
}

/// A way to die of every result that has samples of it, with the result's place.
fn of_way<'a>(sides: &Sides<'a, Detected<'_>>, way: Way) -> Vec<(usize, &'a WayFigures<'a>)> {
    let found = |detected: &'a Detected<'_>| {
        detected.ways.iter().find(|other| other.way == way && other.latency.count > 0)
    };
    sides.known.iter().filter_map(|(place, detected)| Some((*place, found(detected)?))).collect()
}

/// One picture for each kind, all its ways in it.
fn overlaid(out: &mut String, detected: &Detected<'_>) -> fmt::Result {
    out.write_str("<div class=\"pictures\">\n")?;
    for (basis, id, title) in KINDS {
        let ways: Vec<_> = of_kind(detected, basis).collect();
        let series = ways.iter().enumerate().map(|(place, way)| Series {
            name: way.way.as_str(),
            latency: &way.source.latency,
            look: place % LOOKS,
        });
        let series: Vec<_> = series.collect();
        // The silent are measured from their last sign of life: no lateness is in that.
        let mut late = Recorded::new();
        if basis == Basis::Scheduled {
            ways.iter().for_each(|way| late.merge(&way.source.injector_late));
        }
        let injector = Series { name: "injector late", latency: &late, look: NEUTRAL };
        let injector = (late.count() > 0).then_some(injector);
        // Where no way of the kind has samples there is nothing to stand beside.
        let bare = detected.bare_recv.filter(|_| basis == Basis::Scheduled && !series.is_empty());
        let bare = bare.map(|bare| Series { name: document::BARE, latency: bare.source, look: BARE });
        let dashed: Vec<_> = [injector, bare].into_iter().flatten().collect();
        let id = format!("spectrum-{id}");
        let spectrum =
            Spectrum { id: &id, name: title, series: &series, late: &dashed, size: WIDE, range: None };
        let Some(picture) = spectrum.draw() else { continue };
        writeln!(
            out,
            "<figure class=\"wide\"><figcaption>{title}</figcaption>\n{picture}<div class=\"legend\">"
        )?;
        for Series { name, look, .. } in &series {
            let swatch = svg::swatch(*look, false);
            write!(out, "<label><input type=\"checkbox\" class=\"t{look}\" checked>{swatch}{name}</label>")?;
        }
        for Series { name, look, .. } in &dashed {
            write!(out, "<span>{}{name}</span>", svg::swatch(*look, true))?;
        }
        out.write_str("</div></figure>\n")?;
    }
    out.write_str("</div>\n")
}

/// One small picture for each way, both results in it, all of a kind on the same scale.
fn beside(out: &mut String, sides: &Sides<'_, Detected<'_>>) -> fmt::Result {
    legend(out)?;
    for (basis, _, title) in KINDS {
        let late = basis == Basis::Scheduled;
        let all = sides.iter().flat_map(|side| of_kind(side, basis));
        let drawn = all.flat_map(|way| {
            [Some(&way.source.latency), late.then_some(&way.source.injector_late)].into_iter().flatten()
        });
        let range = spectrum::range(drawn);
        let pictures = Way::ALL.into_iter().filter(|way| way.basis() == basis).filter_map(|way| {
            let found = of_way(sides, way);
            let series = |of: for<'a> fn(&'a WayFigures<'a>) -> &'a Recorded| -> Vec<_> {
                found
                    .iter()
                    .map(|(place, way)| Series { name: SIDES[*place], latency: of(way), look: *place })
                    .collect()
            };
            let (told, late) = (series(|way| &way.source.latency), series(|way| &way.source.injector_late));
            let late = if basis == Basis::Scheduled { &late[..] } else { &[] };
            let (id, name) = (format!("spectrum-{way}"), format!("Percentile spectrum of {way}"));
            let spectrum = Spectrum { id: &id, name: &name, series: &told, late, size: SMALL, range };
            Some((way.to_string(), spectrum.draw()?))
        });
        row(out, "h4", title, pictures)?;
    }
    Ok(())
}

/// Which mark is which result.
fn legend(out: &mut String) -> fmt::Result {
    let [a, b] = [svg::swatch(0, false), svg::swatch(1, false)];
    writeln!(out, "<p class=\"legend\"><span>{a}A</span><span>{b}B</span></p>")
}

/// Small pictures of a kind under its title; nothing when there is none.
fn row(
    out: &mut String,
    level: &str,
    title: &str,
    pictures: impl Iterator<Item = (String, String)>,
) -> fmt::Result {
    let mut pictures = pictures.peekable();
    if pictures.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "<{level} class=\"kind\">{title}</{level}>\n<div class=\"small pictures\">")?;
    for (caption, picture) in pictures {
        write!(out, "<figure><figcaption>{caption}</figcaption>\n{picture}</figure>\n")?;
    }
    out.write_str("</div>\n")
}

/// One small picture for each way, all results in it.
fn over_time(out: &mut String, sides: &Sides<'_, Detected<'_>>) -> fmt::Result {
    let all = || sides.iter().flat_map(|side| &side.ways).map(|way| &way.source.intervals[..]);
    let until_ns = timeline::until(all());
    if until_ns == 0 {
        return Ok(());
    }
    super::section(out, "time", "Over time")?;
    out.write_str(
        "<p class=\"note\">Marks: the greatest latency of the deaths in every interval. Thin line: their \
         median.</p>\n",
    )?;
    if sides.two {
        legend(out)?;
    }
    for (basis, _, title) in KINDS {
        let of_kind = sides.iter().flat_map(|side| of_kind(side, basis)).map(|way| &way.source.intervals[..]);
        let Some(range) = timeline::range(of_kind) else { continue };
        let pictures = Way::ALL.into_iter().filter(|way| way.basis() == basis).filter_map(|way| {
            let found = of_way(sides, way).into_iter();
            let series: Vec<(&[Interval], usize)> =
                found.map(|(place, way)| (&way.source.intervals[..], place)).collect();
            let intervals = series.iter().flat_map(|(intervals, _)| *intervals);
            let max = intervals.filter_map(|interval| interval.latency.max()).max()?;
            let (id, name) = (format!("time-{way}"), format!("{way} over time"));
            let timeline = Timeline { id: &id, name: &name, series: &series, size: SMALL, range, until_ns };
            Some((format!("{way} <span>greatest {}</span>", time(max)), timeline.draw()))
        });
        row(out, "h3", title, pictures)?;
    }
    out.write_str("</section>\n")
}
