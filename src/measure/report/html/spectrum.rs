//! The percentile spectrum: latency over 1/(1-p), both logarithmic, so that each decade of rarity takes the same
//! room.

use super::svg::{self, Area, Picture, Scale, Tick};
use crate::measure::report::document::{Chart, Curve};
use crate::measure::report::show;
use crate::measure::report::unit::Unit;

/// Draws a spectrum. `None`: a line of at least two points is needed.
pub(super) fn draw(chart: &Chart, curves: &[Curve], range: Option<(u64, u64)>) -> Option<String> {
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value);
    if !curves.iter().any(|curve| curve.points.len() > 1) {
        return None;
    }
    let (low, high) = range.or_else(|| Some((values().min()?, values().max()?)))?;
    let rarest =
        curves.iter().filter_map(|curve| curve.points.last()).map(|(rarity, _)| *rarity).fold(10.0, f64::max)
            * 1.12;
    let (low, high) = svg::decades(low as f64, high as f64);
    let unit = curves.first().map_or(Unit::Nanos, |curve| curve.unit);
    let size @ [width, height] = svg::size(chart);
    let area = Area { left: 70.0, top: 8.0, right: width - 24.0, bottom: height - 44.0 };
    let x = Scale::logarithmic(1.0, rarest, area.left, area.right);
    let y = Scale::logarithmic(low, high, area.bottom, area.top);
    let names: Vec<_> = curves.iter().map(|curve| curve.name.as_str()).collect();
    let description = format!(
        "Lines of {}: the value that so many per cent of the samples did not exceed. The table has the figures.",
        names.join(", ")
    );
    let mut picture = Picture::new(&chart.id, size, &chart.title, &description);
    let up = svg::log_ticks(low, high, (height / 34.0) as usize, |value| svg::value(value, unit));
    picture.frame(area, [&x, &y], [&rarities(rarest), &up], "percentile");
    for curve in curves {
        let points = points(curve, [x, y]);
        if curve.dotted {
            picture.path(&format!("late c{}", curve.look), points);
            continue;
        }
        picture.put(format_args!("<g class=\"s{}\">\n", curve.look));
        picture.path(&format!("line c{}", curve.look), points);
        for (rarity, percentile, value) in &curve.marks {
            let name = format!("{} p{percentile}: {}", curve.name, show::value(Some(*value as f64), unit));
            picture.mark(curve.look, [x.at(*rarity), y.at(*value as f64)], &name);
        }
        picture.put(format_args!("</g>\n"));
    }
    Some(picture.finish())
}

/// The ticks of the horizontal axis: 50 %, and one nine more for every decade.
fn rarities(rarest: f64) -> Vec<Tick> {
    let decades = rarest.log10().floor().max(1.0) as usize;
    let dense = decades > 4;
    let nines = |decade: usize| match decade {
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    };
    let half = Tick { value: 2.0, label: Some("50 %".to_owned()), minor: dense };
    let more = (1..=decades).map(|decade| Tick {
        value: 10_f64.powi(decade as i32),
        label: Some(nines(decade)),
        minor: dense && decade % 2 == 1,
    });
    std::iter::once(half).chain(more).collect()
}

/// The points of a curve. A value that goes on is not drawn again.
fn points(curve: &Curve, [x, y]: [Scale; 2]) -> Vec<Option<[f64; 2]>> {
    let all: Vec<_> =
        curve.points.iter().map(|(rarity, value)| [x.at(*rarity), y.at(*value as f64)]).collect();
    let level = |place: usize, other: usize| (all[place][1] - all[other][1]).abs() < 0.05;
    let bends = |place: &usize| {
        let inner = *place > 0 && place + 1 < all.len();
        !(inner && level(*place, place - 1) && level(*place, place + 1))
    };
    (0..all.len()).filter(bends).map(|place| Some(all[place])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::recorded::Recorded;

    #[test]
    fn a_line_ends_where_its_sample_does() {
        let x = Scale::logarithmic(1.0, 1e6, 0.0, 600.0);
        let y = Scale::logarithmic(1.0, 1e6, 600.0, 0.0);
        for (count, end) in [(1_u64, 30.1), (40, 60.2), (1_000, 200.0), (100_000, 400.0)] {
            let mut latency = Recorded::new();
            (1..=count).for_each(|nanos| latency.record(nanos));
            let points = points(&Curve::new("x", 0, &latency), [x, y]);
            let last = points.last().unwrap().unwrap()[0];
            assert!((last - end).abs() < 0.2, "{count}: {last}");
            assert!(points.len() < 300, "{} points", points.len());
        }
        assert!(points(&Curve::new("x", 0, &Recorded::new()), [x, y]).is_empty());
    }

    #[test]
    fn there_is_a_tick_for_every_nine() {
        let labels = |rarest| rarities(rarest).into_iter().filter_map(|tick| tick.label).collect::<Vec<_>>();
        assert_eq!(labels(10.0), ["50 %", "90 %"]);
        assert_eq!(labels(2e4), ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }
}
