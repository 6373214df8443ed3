//! The percentile spectrum: latency over 1/(1-p), both logarithmic, so that each decade of rarity has
//! as much room as the one before it.

use super::svg::{self, Area, Picture, Scale, Tick};
use super::text::time;
use crate::measure::recorded::Recorded;

/// Points of a line in a decade of rarity.
const POINTS: u32 = 48;

/// A line of the picture.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) latency: &'a Recorded,
    /// Its colour and mark.
    pub(super) look: usize,
}

/// A picture of one or several series, and what of each was the injector's lateness.
pub(super) struct Spectrum<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) series: &'a [Series<'a>],
    /// Drawn dashed.
    pub(super) late: &'a [Series<'a>],
    pub(super) size: [f64; 2],
    /// Nanoseconds that the picture must hold besides its own, for pictures that are read together.
    pub(super) range: Option<(u64, u64)>,
}

/// The last 1/(1-p) that a sample [carries](crate::measure::recorded::carries).
fn rarest(latency: &Recorded) -> f64 {
    (latency.count() as f64 / 10.0).max(2.0)
}

/// The least and the greatest value that lines of these samples pass through.
pub(super) fn range<'a>(all: impl IntoIterator<Item = &'a Recorded>) -> Option<(u64, u64)> {
    let ends = all.into_iter().filter_map(|latency| Some((latency.min()?, last(latency)?)));
    ends.reduce(|(low, high), (min, max)| (low.min(min), high.max(max)))
}

/// The value at the end of a line.
fn last(latency: &Recorded) -> Option<u64> {
    latency.percentile(percent(rarest(latency)))
}

fn percent(rarity: f64) -> f64 {
    100.0 - 100.0 / rarity
}

impl Spectrum<'_> {
    /// The picture, or nothing when there is no sample.
    pub(super) fn draw(&self) -> Option<String> {
        let all = || self.series.iter().chain(self.late);
        let own = range(all().map(|series| series.latency));
        let (low, high) = match (own?, self.range) {
            ((low, high), Some((lower, higher))) => (low.min(lower), high.max(higher)),
            (own, None) => own,
        };
        let rarest = self.series.iter().map(|series| rarest(series.latency)).fold(10.0, f64::max) * 1.12;
        let (low, high) = svg::decades(low as f64, high as f64);
        let [width, height] = self.size;
        let area = Area { left: 70.0, top: 8.0, right: width - 24.0, bottom: height - 44.0 };
        let x = Scale::logarithmic(1.0, rarest, area.left, area.right);
        let y = Scale::logarithmic(low, high, area.bottom, area.top);
        let mut picture = Picture::new(self.id, self.size, self.name, &self.description());
        let up = svg::log_ticks(low, high, (height / 34.0) as usize, |nanos| time(nanos as u64));
        picture.frame(area, [&x, &y], [&rarities(rarest), &up], "percentile");
        for series in self.late {
            picture.path(&format!("late c{}", series.look), points(series.latency, rarest, [x, y]));
        }
        for series in self.series {
            picture.put(format_args!("<g class=\"s{}\">\n", series.look));
            picture.path(&format!("line c{}", series.look), points(series.latency, rarest, [x, y]));
            for (rarity, percentile) in MARKED {
                if let Some(value) = series.latency.percentile(percentile) {
                    let name = format!("{} p{percentile}: {}", series.name, time(value));
                    picture.mark(series.look, [x.at(rarity), y.at(value as f64)], &name);
                }
            }
            picture.put(format_args!("</g>\n"));
        }
        Some(picture.finish())
    }

    fn description(&self) -> String {
        let names: Vec<_> = self.series.iter().map(|series| series.name).collect();
        format!(
            "Lines of {}: the time that so many per cent of the deaths did not exceed. The table has the \
             figures.",
            names.join(", ")
        )
    }
}

/// Where a line has marks: 1/(1-p) and p.
const MARKED: [(f64, f64); 6] =
    [(2.0, 50.0), (10.0, 90.0), (100.0, 99.0), (1e3, 99.9), (1e4, 99.99), (1e5, 99.999)];

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

/// The line of a sample, as far as it carries; a value that goes on is not drawn again.
fn points(latency: &Recorded, most: f64, [x, y]: [Scale; 2]) -> Vec<Option<[f64; 2]>> {
    let end = rarest(latency).min(most);
    let steps = (end.log10() * f64::from(POINTS)).ceil() as u32;
    let at = |step: u32| (10_f64.powf(f64::from(step) / f64::from(POINTS))).min(end);
    let all = (0..=steps).map(at).filter_map(|rarity| {
        let value = if rarity <= 1.0 { latency.min() } else { latency.percentile(percent(rarity)) };
        Some([x.at(rarity), y.at(value? as f64)])
    });
    let all: Vec<_> = all.collect();
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

    #[test]
    fn a_line_ends_where_its_sample_does() {
        let x = Scale::logarithmic(1.0, 1e6, 0.0, 600.0);
        let y = Scale::logarithmic(1.0, 1e6, 600.0, 0.0);
        for (count, end) in [(1_u64, 30.1), (40, 60.2), (1_000, 200.0), (100_000, 400.0)] {
            let mut latency = Recorded::new();
            (1..=count).for_each(|nanos| latency.record(nanos));
            let points = points(&latency, 1e6, [x, y]);
            let last = points.last().unwrap().unwrap()[0];
            assert!((last - end).abs() < 0.2, "{count}: {last}");
            assert!(points.len() < 300, "{} points", points.len());
        }
        assert!(points(&Recorded::new(), 1e6, [x, y]).is_empty());
    }

    #[test]
    fn there_is_a_tick_for_every_nine() {
        let labels = |rarest| rarities(rarest).into_iter().filter_map(|tick| tick.label).collect::<Vec<_>>();
        assert_eq!(labels(10.0), ["50 %", "90 %"]);
        assert_eq!(labels(2e4), ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }
}
