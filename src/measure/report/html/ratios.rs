//! Ratios of subjects to a base, on a logarithmic axis about 1.

use super::svg::{self, Area, Picture, Scale, Tick};
use crate::measure::report::document::{Bar, Chart};
use crate::measure::report::show;
use crate::measure::report::unit::Unit;

/// Letters of a name that have room beside one figure.
const NAME: usize = 36;
/// Letters of a name that have room beside two figures.
const NAME_OF_TWO: usize = 30;
/// The height of a row: its words, and its line below.
const ROW: f64 = 34.0;
/// The height of the words of a row.
const WORDS: f64 = 17.0;
/// The height that a second result adds to a row.
const SECOND: f64 = 9.0;

/// Draws ratios. `None`: there is nothing to draw.
pub(super) fn draw(chart: &Chart, base: &str, bars: &[Bar], (least, most): (f64, f64)) -> Option<String> {
    // Without room about 1, a small difference would look like a large one.
    let (low, high) = svg::decades(least.min(0.7), most.max(1.5));
    let results = bars.iter().map(|bar| bar.ratios.len()).max()?;
    let row = ROW + SECOND * (results.saturating_sub(1)) as f64;
    let bottom = 4.0 + row * bars.len() as f64;
    let [width, _] = svg::size(chart);
    let area = Area { left: 4.0, top: 2.0, right: width - 4.0, bottom };
    let x = Scale::logarithmic(low, high, area.left + 14.0, area.right - 14.0);
    let description = format!(
        "For every subject the median, and from the least to the greatest round, over {base}. The table has the \
         figures."
    );
    let mut picture = Picture::new(&chart.id, [width, bottom + 44.0], &chart.title, &description);
    let tops: Vec<f64> = (0..bars.len()).map(|place| area.top + row * place as f64).collect();
    for tick in ticks(low, high) {
        let class = if tick.value == 1.0 { "base" } else { "grid" };
        // The line stands beside the words, not behind them.
        let pieces = tops.iter().flat_map(|top| {
            let ends = [top + WORDS, top + row - 5.0].map(|y| Some([x.at(tick.value), y]));
            ends.into_iter().chain([None])
        });
        picture.path(class, pieces);
    }
    picture.across(area, x, &ticks(low, high), &format!("times {}", shortened(base, NAME)));
    for (bar, top) in bars.iter().zip(tops) {
        draw_bar(bar, &mut picture, area, x, top);
    }
    Some(picture.finish())
}

fn draw_bar(bar: &Bar, picture: &mut Picture, area: Area, x: Scale, top: f64) {
    let class = if bar.ours { "row ours" } else { "row" };
    let room = if bar.ratios.len() > 1 { NAME_OF_TWO } else { NAME };
    picture.text(class, "start", [area.left, top + WORDS - 4.0], &shortened(&bar.name, room));
    let said = bar.ratios.iter().map(|ratio| show::value(ratio.map(|ratio| ratio.median), Unit::Ratio));
    picture.text(class, "end", [area.right, top + WORDS - 4.0], &said.collect::<Vec<_>>().join(" | "));
    for (result, known) in bar.ratios.iter().enumerate() {
        let Some(known) = known else { continue };
        let [least, median, greatest] = [known.min, known.median, known.max].map(|ratio| x.at(ratio));
        let y = top + WORDS + 6.0 + SECOND * result as f64;
        let two = if bar.ratios.len() > 1 { " two" } else { "" };
        let look = format!("{} r{result}{two}", if bar.ours { "ours" } else { "theirs" });
        picture.line(&format!("stem {look}"), [x.at(1.0), y], [median, y]);
        picture.line(&format!("whisker {look}"), [least, y], [greatest.max(least + 0.1), y]);
        picture.line(&format!("dot {look}"), [median, y], [median, y]);
        if !bar.ours {
            picture.line(&format!("dot hole r{result}"), [median, y], [median, y]);
        }
    }
}

/// At most seven labels. They are round, so that their digits end by themselves.
fn ticks(low: f64, high: f64) -> Vec<Tick> {
    svg::log_ticks(low, high, 7, |ratio| format!("{}", (ratio * 1e9).round() / 1e9))
}

/// The beginning of a name, when there is no room for all of it. Letters beyond ASCII may be twice as wide.
fn shortened(name: &str, room: usize) -> String {
    let width = |letter: char| if letter.is_ascii() { 1 } else { 2 };
    if name.chars().map(width).sum::<usize>() <= room {
        return name.to_owned();
    }
    let mut used = 1;
    let fits = |letter: &char| {
        used += width(*letter);
        used <= room
    };
    name.chars().take_while(fits).chain(['…']).collect()
}
