//! The document model: what a report says, as data, before it has a format.
//!
//! [`sections`](super::sections) makes a document of figures; [`text`](super::text), [`markdown`](super::markdown)
//! and [`html`](super::html) render it. A section exists once, so all three formats say the same.
//!
//! Strings are as the result file has them. Each renderer makes them harmless in its own format.

use super::figures::{Rounds, Spread};
use super::unit::Unit;
use crate::measure::recorded::Recorded;
use crate::safe_text::is_unsafe;

#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub title: String,
    /// The verdict comes first.
    pub sections: Vec<Section>,
}

impl Document {
    /// All charts in reading order, those in folds included.
    pub fn charts(&self) -> Vec<&Chart> {
        fn collect<'a>(blocks: &'a [Block], found: &mut Vec<&'a Chart>) {
            for block in blocks {
                match block {
                    Block::Charts(charts) => found.extend(charts),
                    Block::Fold(_, inner) => collect(inner, found),
                    Block::Heading(_) | Block::Says(_) | Block::List(_) | Block::Table(_) => {}
                }
            }
        }
        let mut found = Vec::new();
        self.sections.iter().for_each(|section| collect(&section.blocks, &mut found));
        found
    }
}

/// A part of a report with its own heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub title: &'static str,
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    Heading(String),
    Says(Text),
    List(Vec<Text>),
    Table(Table),
    /// Charts of one kind that are read together.
    Charts(Vec<Chart>),
    /// Blocks that are hidden until the reader opens them. The text format shows them with `--full`.
    Fold(String, Vec<Block>),
}

impl Block {
    /// A list of sentences; `None` without any.
    pub fn list(sentences: impl Iterator<Item = String>) -> Option<Block> {
        let sentences: Vec<Text> = sentences.map(Text::from).collect();
        (!sentences.is_empty()).then_some(Block::List(sentences))
    }

    /// `None` without any chart.
    pub fn charts(charts: Vec<Chart>) -> Option<Block> {
        (!charts.is_empty()).then_some(Block::Charts(charts))
    }
}

/// Words with emphasis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text(pub Vec<(Tone, String)>);

impl Text {
    pub fn and(mut self, tone: Tone, words: impl Into<String>) -> Text {
        self.0.push((tone, words.into()));
        self
    }
}

impl<S: Into<String>> From<S> for Text {
    fn from(words: S) -> Text {
        Text::default().and(Tone::Plain, words)
    }
}

/// How words are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As they are.
    #[default]
    Plain,
    Strong,
    /// Passed, or better than before.
    Good,
    /// Failed, wrong, or worse than before.
    Bad,
}

/// A table. The first column names the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What it holds, for readers that do not see the page.
    pub caption: String,
    pub head: Vec<String>,
    /// The rows, each with as many cells as there are heads.
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new<S: Into<String>>(caption: impl Into<String>, head: impl IntoIterator<Item = S>) -> Table {
        let head = head.into_iter().map(Into::into).collect();
        Table { caption: caption.into(), head, rows: Vec::new() }
    }

    /// Whether each column holds figures, which are aligned right.
    pub fn figures(&self) -> Vec<bool> {
        let word = |cell: &Cell| !cell.text.starts_with(|first: char| first.is_ascii_digit() || first == '-');
        let words = |column: usize| self.rows.iter().filter_map(|row| row.cells.get(column)).any(word);
        (0..self.head.len()).map(|column| column > 0 && !words(column)).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Whether it is about a deadpeer among yardsticks.
    pub ours: bool,
    pub cells: Vec<Cell>,
}

impl<C: Into<Cell>> FromIterator<C> for Row {
    fn from_iter<I: IntoIterator<Item = C>>(cells: I) -> Row {
        Row { ours: false, cells: cells.into_iter().map(Into::into).collect() }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    /// A second line, or nothing.
    pub note: String,
    pub tone: Tone,
}

impl<S: Into<String>> From<S> for Cell {
    fn from(text: S) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }
}

/// A chart with its title and its plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// A name that no other chart of the document has: lower-case letters, digits and dashes.
    pub id: String,
    pub title: String,
    /// A remark behind the caption, or nothing.
    pub remark: String,
    /// Whether it stands alone. Charts that are read together are smaller.
    pub wide: bool,
    pub plot: Plot,
}

impl Chart {
    /// A chart without a remark that is read together with others.
    pub fn new(id: impl Into<String>, title: impl Into<String>, plot: Plot) -> Chart {
        Chart { id: id.into(), title: title.into(), remark: String::new(), wide: false, plot }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Percentile spectra: latency over rarity, both logarithmic.
    Spectrum {
        curves: Vec<Curve>,
        /// The least and the greatest nanoseconds of all charts that are read together.
        range: Option<(u64, u64)>,
    },
    /// Latency over time.
    Timeline {
        courses: Vec<Course>,
        /// The least and the greatest value of all charts that are read together.
        range: (u64, u64),
        /// The end of the axis of time.
        until_ns: u64,
        unit: Unit,
    },
    /// Ratios of subjects to a base.
    Ratios {
        /// The name of the subject whose ratio is 1.
        base: String,
        bars: Vec<Bar>,
        /// The least and the greatest ratio of all charts with the same axis.
        range: (f64, f64),
    },
}

/// A line of a spectrum.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub name: String,
    /// Colour and mark.
    pub look: usize,
    /// Whether it is dotted: a yardstick.
    pub dotted: bool,
    pub unit: Unit,
    /// Points of 1/(1-p) and the value there. The line ends where its sample does.
    pub points: Vec<(f64, u64)>,
    /// Percentiles with a mark: 1/(1-p), p in per cent, value.
    pub marks: Vec<(f64, f64, u64)>,
    /// The same in a few numbers.
    pub spread: Spread,
}

/// Points of a curve in a decade of rarity.
const POINTS: u32 = 32;
/// The percentiles that have a mark, in per cent.
const MARKED: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

impl Curve {
    /// The curve of a distribution.
    pub fn new(name: impl Into<String>, look: usize, recorded: &Recorded) -> Curve {
        let count = recorded.count() as f64;
        let last = (count / 10.0).max(2.0);
        let steps = (last.log10() * f64::from(POINTS)).ceil() as u32;
        let mut values = recorded.histogram().iter_recorded();
        let (mut seen, mut value) = (0, recorded.min().unwrap_or(0));
        let point = |step: u32| {
            let at = 10_f64.powf(f64::from(step) / f64::from(POINTS)).min(last);
            let needed = (count * (1.0 - 1.0 / at)).ceil() as u64;
            while seen < needed {
                let next = values.next()?;
                seen += next.count_since_last_iteration();
                value = next.value_iterated_to().min(recorded.max()?);
            }
            (count > 0.0).then_some((at, value))
        };
        let mark = |percentile: f64| {
            Some((100.0 / (100.0 - percentile), percentile, recorded.percentile(percentile)?))
        };
        Curve {
            name: name.into(),
            look,
            dotted: false,
            unit: Unit::Nanos,
            points: (0..=steps).map_while(point).collect(),
            marks: MARKED.into_iter().filter_map(mark).collect(),
            spread: Spread::of(recorded),
        }
    }
}

/// A line of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    pub name: String,
    /// Colour and mark.
    pub look: usize,
    pub stretches: Vec<Stretch>,
}

/// What was recorded in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The begin of the stretch, in nanoseconds since the start.
    pub from_ns: u64,
    /// The end of the stretch, in nanoseconds since the start.
    pub to_ns: u64,
    /// The median of the stretch, in the unit of the plot.
    pub p50: u64,
    /// The greatest value.
    pub max: u64,
}

/// A subject of a chart of ratios.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub name: String,
    pub ours: bool,
    /// The ratio in each result. `None`: not measured.
    pub ratios: Vec<Option<Rounds>>,
}

/// A file's words, with a space for each [unsafe letter](is_unsafe).
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if is_unsafe(letter) { ' ' } else { letter }).collect()
}

/// [Plain](plain) words of a length that has room in a table.
pub fn cut(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = plain(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
