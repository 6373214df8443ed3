//! The yardsticks: how many times as much each takes, on a logarithmic axis about 1.

use super::super::figures::Rounds;
use super::super::show;
use super::svg::{self, Area, Picture, Scale, Tick};
use super::words::ratio_of;

/// Letters of a name that have room beside its figure.
const NAME: usize = 36;
/// The same beside two figures.
const NAME_OF_TWO: usize = 30;
/// Height of a row: its words, and its line below.
const ROW: f64 = 30.0;
/// Height of the words.
const WORDS: f64 = 16.0;
/// What a second result adds to it.
const SECOND: f64 = 9.0;

/// A subject in a picture.
pub(super) struct Row<'a> {
    pub(super) name: &'a str,
    pub(super) ours: bool,
    /// Of each result; `None` where it was not measured.
    pub(super) ratios: Vec<Option<Rounds>>,
}

/// One figure of all subjects.
pub(super) struct Ratios<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// What 1 is.
    pub(super) base: &'a str,
    pub(super) rows: &'a [Row<'a>],
    pub(super) width: f64,
}

impl Ratios<'_> {
    /// The picture, or nothing when nobody was measured.
    pub(super) fn draw(&self) -> Option<String> {
        let known = self.rows.iter().flat_map(|row| row.ratios.iter().flatten());
        let ends = known.flat_map(|known| [known.min, known.median, known.max]).filter(|ratio| *ratio > 0.0);
        let (least, most) = ends.map(|ratio| (ratio, ratio)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        // Without room about 1, a difference of nothing would look like one of much.
        let (low, high) = svg::decades(least.min(0.7), most.max(1.5));
        let results = self.rows.iter().map(|row| row.ratios.len()).max().unwrap_or(1);
        let row = ROW + SECOND * (results.saturating_sub(1)) as f64;
        let bottom = 4.0 + row * self.rows.len() as f64;
        let area = Area { left: 4.0, top: 2.0, right: self.width - 4.0, bottom };
        let x = Scale::logarithmic(low, high, area.left + 14.0, area.right - 14.0);
        let mut picture = Picture::new(self.id, [self.width, bottom + 44.0], self.name, &self.description());
        let name = format!("times {}", shortened(self.base, NAME));
        for tick in ticks(low, high) {
            let class = if tick.value == 1.0 { "base" } else { "grid" };
            // Beside the words, not through them.
            let rows = (0..self.rows.len()).map(|place| area.top + row * place as f64);
            let pieces = rows.flat_map(|top| {
                let ends = [top + WORDS, top + row].map(|y| Some([x.at(tick.value), y]));
                ends.into_iter().chain([None])
            });
            picture.path(class, pieces);
        }
        picture.across(area, x, &ticks(low, high), &name);
        for (place, subject) in self.rows.iter().enumerate() {
            subject.draw(&mut picture, area, x, area.top + row * place as f64);
        }
        Some(picture.finish())
    }

    fn description(&self) -> String {
        format!(
            "For every subject the median, and from the least to the greatest of the rounds, over {}. The \
             table has the figures.",
            self.base
        )
    }
}

impl Row<'_> {
    fn draw(&self, picture: &mut Picture, area: Area, x: Scale, top: f64) {
        let class = if self.ours { "row ours" } else { "row" };
        let room = if self.ratios.len() > 1 { NAME_OF_TWO } else { NAME };
        picture.text(class, "start", [area.left, top + WORDS - 4.0], &shortened(self.name, room));
        let said = self
            .ratios
            .iter()
            .map(|known| known.map_or(show::NOTHING.to_owned(), |known| ratio_of(known.median)));
        let said: Vec<_> = said.collect();
        picture.text(class, "end", [area.right, top + WORDS - 4.0], &said.join(" | "));
        for (result, known) in self.ratios.iter().enumerate() {
            let Some(known) = known else { continue };
            let [least, median, greatest] = [known.min, known.median, known.max].map(|ratio| x.at(ratio));
            let y = top + WORDS + 6.0 + SECOND * result as f64;
            let look = format!("{} r{result}", if self.ours { "ours" } else { "theirs" });
            picture.line(&format!("stem {look}"), [x.at(1.0), y], [median, y]);
            picture.line(&format!("whisker {look}"), [least, y], [greatest.max(least + 0.1), y]);
            picture.line(&format!("dot {look}"), [median, y], [median, y]);
            if !self.ours {
                picture.line(&format!("dot hole r{result}"), [median, y], [median, y]);
            }
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
