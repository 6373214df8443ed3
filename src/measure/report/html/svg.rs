//! Text within a page, and pictures as inline SVG: scales, frames, lines, marks.
//!
//! A picture has no size of its own: the page stretches it, and the style sheet gives it colours by its classes. The
//! width of lines does not scale, but text does: where a picture is small, the style sheet makes the text larger and
//! hides what is marked as `minor`.

use std::fmt::{self, Write};

use crate::measure::report::document::Chart;
use crate::measure::report::show;
use crate::measure::report::unit::Unit;
use crate::safe_text::is_unsafe;

/// Escapes what has a meaning in HTML, in content and in quoted attributes. [Unsafe letters](is_unsafe) are shown as
/// U+FFFD.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' | '\t' => out.write_char(' ')?,
                character if is_unsafe(character) => out.write_char('\u{fffd}')?,
                character => out.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// The size of a chart: alone, or among several that are read together.
pub(super) const fn size(chart: &Chart) -> [f64; 2] {
    if chart.wide { [520.0, 320.0] } else { [360.0, 190.0] }
}

/// A value with its unit on the same line.
pub(super) fn value(value: f64, unit: Unit) -> String {
    show::value(Some(value), unit).replace(' ', "\u{a0}")
}

/// The scale of an axis: from values to places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    logarithmic: bool,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// Equal steps for equal ratios, between two ends that were [rounded](decades) or are positive.
    pub(super) fn logarithmic(low: f64, high: f64, start: f64, end: f64) -> Scale {
        Scale { logarithmic: true, low: low.ln(), high: high.ln(), start, end }
    }

    /// Equal steps for equal differences.
    pub(super) fn linear(low: f64, high: f64, start: f64, end: f64) -> Scale {
        Scale { logarithmic: false, low, high, start, end }
    }

    /// The place of a value. A value beyond an end is placed at that end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }
}

/// The steps within a decade at which an axis may begin, end, or have a line.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// The ends of a logarithmic axis about these values: the next 1, 2 or 5 of a decade outwards, and
/// never less than one such step apart.
pub(super) fn decades(least: f64, most: f64) -> (f64, f64) {
    // Values beyond these are drawn at the end of the axis.
    let least = least.clamp(1e-9, 1e40);
    let most = most.clamp(least, 1e40);
    let low = marks(least / 10.0, least).last().copied().unwrap_or(least);
    let high = marks(most, most * 10.0).first().copied().unwrap_or(most);
    if high > low { (low, high) } else { (low, low * 2.0) }
}

/// All 1, 2 and 5 of the decades between two values, both included.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let all = (first..=last).flat_map(|decade| STEPS.map(|step| step * 10_f64.powi(decade)));
    // The tolerance is for powers of ten below 1, which are not exact in binary.
    all.filter(|mark| *mark >= low * (1.0 - 1e-9) && *mark <= high * (1.0 + 1e-9)).collect()
}

/// A line across the picture and, if there is room, its label.
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: Option<String>,
    /// Hidden where the picture is small.
    pub(super) minor: bool,
}

/// The ticks of a logarithmic axis: at most `most` of them have labels.
pub(super) fn log_ticks(low: f64, high: f64, most: usize, label: impl Fn(f64) -> String) -> Vec<Tick> {
    let marks = marks(low, high);
    let tens = |mark: f64| (mark.log10() - mark.log10().round()).abs() < 1e-6;
    let all_fit = marks.len() <= most;
    let decades = marks.iter().filter(|mark| tens(**mark)).count();
    let every = decades.div_ceil(most.max(1)).max(1);
    let shown = marks.into_iter().filter(|mark| all_fit || tens(*mark));
    let ticks = shown.enumerate().map(|(place, value)| Tick {
        value,
        label: (all_fit || place % every == 0).then(|| label(value)),
        minor: place / every % 2 == 1,
    });
    ticks.collect()
}

/// The ticks of a linear axis from 0: about `most` round steps.
pub(super) fn linear_ticks(high: f64, most: usize, label: impl Fn(f64) -> String) -> Vec<Tick> {
    let rough = (high / most.max(1) as f64).max(1e-9);
    let step = marks(rough, rough * 10.0).first().copied().unwrap_or(rough);
    let count = (high / step + 1e-9).floor() as usize;
    let tick = |place: usize| {
        let value = step * place as f64;
        Tick { value, label: Some(label(value)), minor: place % 2 == 1 }
    };
    (0..=count).map(tick).collect()
}

/// A number of the picture, with at most one decimal.
#[derive(Clone, Copy)]
pub(super) struct Px(pub(super) f64);

impl fmt::Display for Px {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0).round();
        if tenths % 10.0 == 0.0 {
            write!(out, "{}", tenths / 10.0)
        } else {
            write!(out, "{:.1}", tenths / 10.0)
        }
    }
}

/// The place of the plot within a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

pub(super) struct Picture {
    text: String,
}

impl Picture {
    /// Opens a picture. The name and the description are for readers that do not see it; `id` is unique on the page.
    pub(super) fn new(id: &str, [width, height]: [f64; 2], name: &str, description: &str) -> Picture {
        let mut picture = Picture { text: String::new() };
        picture.put(format_args!(
            "<svg role=\"img\" viewBox=\"0 0 {} {}\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>\n",
            Px(width),
            Px(height),
            Escaped(name),
            Escaped(description)
        ));
        picture
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    /// Adds markup as it is.
    pub(super) fn put(&mut self, markup: fmt::Arguments<'_>) {
        self.text.write_fmt(markup).expect("a string takes all that is written");
    }

    pub(super) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        self.path(class, [Some(from), Some(to)]);
    }

    /// A line through points. A `None` leaves a gap; a point between two gaps is a dot.
    pub(super) fn path(&mut self, class: &str, points: impl IntoIterator<Item = Option<[f64; 2]>>) {
        self.put(format_args!("<path class=\"{class}\" d=\""));
        let mut down = 0;
        for point in points {
            match point {
                Some([x, y]) => {
                    self.put(format_args!("{}{} {}", if down == 0 { 'M' } else { 'L' }, Px(x), Px(y)));
                    down += 1;
                }
                None => {
                    self.text.push_str(if down == 1 { "h0" } else { "" });
                    down = 0;
                }
            }
        }
        self.text.push_str(if down == 1 { "h0" } else { "" });
        self.text.push_str("\"/>\n");
    }

    /// Text with its anchor: `start`, `middle` or `end`.
    pub(super) fn text(&mut self, class: &str, anchor: &str, [x, y]: [f64; 2], text: &str) {
        let (x, y) = (Px(x), Px(y));
        self.put(format_args!(
            "<text class=\"{class} {anchor}\" x=\"{x}\" y=\"{y}\">{}</text>\n",
            Escaped(text)
        ));
    }

    /// The mark of a series. Shapes differ, so no colour is needed to tell series apart. The name is shown under the
    /// pointer.
    pub(super) fn mark(&mut self, series: usize, [x, y]: [f64; 2], name: &str) {
        let shape = SHAPES[series % SHAPES.len()];
        let (x, y, series) = (Px(x), Px(y), series % SHAPES.len());
        self.put(format_args!(
            "<path class=\"mark c{series}\" d=\"M{x} {y}{shape}\"><title>{}</title></path>\n",
            Escaped(name)
        ));
    }

    /// Small marks of a series, without names.
    pub(super) fn marks(&mut self, series: usize, points: impl IntoIterator<Item = [f64; 2]>) {
        let (shape, series) = (SHAPES[series % SHAPES.len()], series % SHAPES.len());
        self.put(format_args!("<path class=\"mark small c{series}\" d=\""));
        for [x, y] in points {
            self.put(format_args!("M{} {}{shape}", Px(x), Px(y)));
        }
        self.text.push_str("\"/>\n");
    }

    /// Both axes: lines, labels, and the name of the horizontal one.
    pub(super) fn frame(&mut self, area: Area, [x, y]: [&Scale; 2], [across, up]: [&[Tick]; 2], name: &str) {
        for tick in up {
            let place = y.at(tick.value);
            let class = if tick.label.is_some() { "grid" } else { "grid faint" };
            self.line(class, [area.left, place], [area.right, place]);
            if let Some(label) = &tick.label {
                let class = if tick.minor { "tick minor" } else { "tick" };
                self.text(class, "end", [area.left - 6.0, place + 4.0], label);
            }
        }
        for tick in across {
            let place = x.at(tick.value);
            self.line("grid", [place, area.top], [place, area.bottom]);
        }
        self.across(area, *x, across, name);
    }

    /// The horizontal axis alone.
    pub(super) fn across(&mut self, area: Area, x: Scale, ticks: &[Tick], name: &str) {
        for tick in ticks {
            if let Some(label) = &tick.label {
                let class = if tick.minor { "tick minor" } else { "tick" };
                self.text(class, "middle", [x.at(tick.value), area.bottom + 20.0], label);
            }
        }
        self.line("axis", [area.left, area.bottom], [area.right, area.bottom]);
        let middle = f64::midpoint(area.left, area.right);
        self.text("name", "middle", [middle, area.bottom + 38.0], name);
    }
}

/// Circle, square, triangle, diamond, cross, each about its point.
pub(super) const SHAPES: [&str; 5] = [
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "m-3.2 -3.2h6.4v6.4h-6.4z",
    "m0 -4.2l4 7h-8z",
    "m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
    "m-1.2 -4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",
];

/// The mark of a series for a legend in text.
pub(super) fn swatch(series: usize, dashed: bool) -> String {
    let class = if dashed { "late" } else { "line" };
    let series = if dashed { series } else { series % SHAPES.len() };
    let mut text = format!(
        "<svg class=\"swatch\" viewBox=\"0 0 28 12\" aria-hidden=\"true\"><path class=\"{class} c{series}\" \
         d=\"M1 6h26\"/>"
    );
    if !dashed {
        let shape = SHAPES[series];
        write!(text, "<path class=\"mark c{series}\" d=\"M14 6{shape}\"/>").expect("a string takes all");
    }
    text.push_str("</svg>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_a_browser_means_nothing() {
        let hostile = "</td><script>alert(\"1\")</script>&amp;'\u{0}\u{202e}x\ny";
        let expected =
            "&lt;/td&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;&#39;\u{fffd}\u{fffd}x y";
        assert_eq!(Escaped(hostile).to_string(), expected);
    }

    #[test]
    fn a_logarithmic_axis_begins_and_ends_at_round_values_and_holds_all() {
        for (least, most, low, high) in [
            (3.0, 700.0, 2.0, 1_000.0),
            (10.0, 10.0, 10.0, 20.0),
            (0.011, 1.5, 0.01, 2.0),
            (0.0, 5.0, 1e-9, 5.0),
        ] {
            let (from, to) = decades(least, most);
            assert!(
                (from / low - 1.0).abs() < 1e-6 && (to / high - 1.0).abs() < 1e-6,
                "{least} to {most}: {from} {to}"
            );
            let scale = Scale::logarithmic(from, to, 0.0, 100.0);
            assert!((scale.at(from), scale.at(to)) == (0.0, 100.0));
            assert!(scale.at(least) <= scale.at(most));
        }
    }

    #[test]
    fn no_value_leaves_the_picture() {
        let scale = Scale::logarithmic(1.0, 10.0, 0.0, 100.0);
        for value in [0.0, -1.0, 1e300, f64::MAX] {
            assert!((0.0..=100.0).contains(&scale.at(value)), "{value}");
        }
        assert!(decades(f64::MAX, f64::MAX).0 <= f64::MAX);
    }

    #[test]
    fn labels_are_few_however_long_the_axis() {
        for (low, high) in [(1.0, 2.0), (1.0, 100.0), (1.0, 1e9), (1.0, 1e18), (1e-9, 1e19)] {
            let ticks = log_ticks(low, high, 7, |value| value.to_string());
            let labels = ticks.iter().filter(|tick| tick.label.is_some()).count();
            assert!((2..=7).contains(&labels), "{labels} labels from {low} to {high}");
        }
        for high in [0.002, 1.0, 17.0, 3_600.0] {
            let ticks = linear_ticks(high, 5, |value| value.to_string());
            assert!((2..=8).contains(&ticks.len()), "{} ticks to {high}", ticks.len());
            assert!(ticks.iter().all(|tick| tick.value <= high * 1.001));
        }
    }

    #[test]
    fn a_pen_that_is_lifted_leaves_a_gap_and_a_dot_for_what_stands_alone() {
        let mut picture = Picture { text: String::new() };
        let points =
            [Some([0.0, 1.0]), Some([2.0, 3.25]), None, Some([4.0, 5.0]), None, None, Some([6.0, 7.0])];
        picture.path("line", points);
        assert_eq!(picture.text, "<path class=\"line\" d=\"M0 1L2 3.3M4 5h0M6 7h0\"/>\n");
    }
}
