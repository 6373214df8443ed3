//! A report for a terminal.

use super::document::{Block, Cell, Document, Table, Text, Tone, cut, plain};
use super::drawing;
use super::options::Options;

/// Bold and back (ECMA-48: SGR).
const BOLD: [&str; 2] = ["\x1b[1m", "\x1b[0m"];
/// The columns that a table or a paragraph takes at least, however narrow the terminal says it is.
const NARROWEST: usize = 20;
/// The columns between two columns of a table.
const GAP: usize = 2;
/// The columns of a drawing where the width of the terminal is not known.
const DRAWN: usize = 80;

pub fn render(document: &Document, options: &Options) -> String {
    let width = options.width.map(|width| usize::from(width).max(NARROWEST));
    let mut out = Out { text: String::new(), width, bold: options.bold, full: options.full };
    out.heading(&plain(&document.title), Some('='));
    for section in &document.sections {
        out.text.push('\n');
        out.heading(section.title, Some('-'));
        out.blocks(&section.blocks);
    }
    out.text
}

struct Out {
    text: String,
    width: Option<usize>,
    bold: bool,
    full: bool,
}

impl Out {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn strong(&self, words: &str) -> String {
        let [on, off] = if self.bold { BOLD } else { ["", ""] };
        format!("{on}{words}{off}")
    }

    fn heading(&mut self, words: &str, rule: Option<char>) {
        for line in wrapped(words, self.width) {
            let strong = self.strong(&line);
            self.line(&strong);
        }
        // Without bold letters a rule shows that this is a heading.
        if let Some(rule) = rule {
            let length = words.chars().count().min(self.width.unwrap_or(usize::MAX));
            self.line(&rule.to_string().repeat(length));
        }
    }

    fn blocks(&mut self, blocks: &[Block]) {
        for block in blocks {
            match block {
                Block::Heading(words) => {
                    self.text.push('\n');
                    self.heading(&plain(words), None);
                }
                Block::Says(words) => self.item(words, ""),
                Block::List(items) => items.iter().for_each(|item| self.item(item, "- ")),
                Block::Table(table) => self.table(table),
                Block::Charts(charts) => {
                    self.text.push('\n');
                    let lines = drawing::draw(charts, self.width.unwrap_or(DRAWN));
                    lines.iter().for_each(|line| self.line(line));
                }
                Block::Fold(summary, blocks) if self.full => {
                    self.text.push('\n');
                    self.heading(&plain(summary), None);
                    self.blocks(blocks);
                }
                Block::Fold(summary, _) => {
                    self.item(&format!("+ {summary} (report --full shows this)").into(), "")
                }
            }
        }
    }

    /// A paragraph behind a mark; further lines are indented as far.
    fn item(&mut self, words: &Text, mark: &str) {
        let all: String = words.0.iter().map(|(_, words)| plain(words)).collect();
        let indent = mark.chars().count();
        let lines = wrapped(&all, self.width.map(|width| width - indent));
        // Only the first words of a line are ever strong: the verdict.
        let first = words.0.first().filter(|(tone, _)| *tone != Tone::Plain).map(|(_, words)| plain(words));
        for (number, line) in lines.iter().enumerate() {
            let bold = first.as_deref().filter(|first| number == 0 && !first.is_empty());
            let line = match bold.and_then(|first| Some((first, line.strip_prefix(first)?))) {
                Some((first, rest)) => self.strong(first) + rest,
                None => line.clone(),
            };
            self.line(&format!("{}{line}", if number == 0 { mark.to_owned() } else { " ".repeat(indent) }));
        }
    }

    /// Columns that do not fit follow below, each time with the names of the rows before them.
    fn table(&mut self, table: &Table) {
        let figures = table.figures();
        let head = table.head.iter().map(|head| vec![cut(head)]).collect();
        let rows = table.rows.iter().map(|row| {
            let lines = |cell: &Cell| {
                let lines = [&cell.text, &cell.note].into_iter().filter(|line| !line.is_empty());
                lines.map(|line| cut(line)).collect()
            };
            row.cells.iter().map(lines).collect()
        });
        let rows: Vec<Vec<Vec<String>>> = std::iter::once(head).chain(rows).collect();
        // A figure and its unit stay on one line. Words and heads are broken between words.
        let longest = |column: usize, broken: bool| {
            let lengths = rows.iter().enumerate().filter_map(|(number, row)| {
                let words = broken && (number == 0 || column == 0 || !figures[column]);
                let length = |line: &String| match words {
                    true => line.split(' ').map(|word| word.chars().count()).max(),
                    false => Some(line.chars().count()),
                };
                row.get(column)?.iter().filter_map(length).max()
            });
            lengths.max().unwrap_or(0)
        };
        let width = self.width.unwrap_or(usize::MAX);
        let mut next = 1;
        loop {
            let mut columns = vec![(0, longest(0, true))];
            let mut used = columns[0].1;
            while next < figures.len() && (columns.len() == 1 || used + GAP + longest(next, true) <= width) {
                // A figure that does not fit even alone is broken too.
                let wide = longest(next, true).min(width.saturating_sub(used + GAP).max(1));
                columns.push((next, wide));
                used += GAP + wide;
                next += 1;
            }
            // What is left goes to columns whose lines are longer.
            let mut left = width.saturating_sub(used);
            for (column, wide) in &mut columns {
                let more = (longest(*column, false) - *wide).min(left);
                // A word that is wider than the terminal is cut.
                *wide = (*wide + more).min(width);
                left -= more;
            }
            self.columns(&rows, &columns, &figures);
            if next >= figures.len() {
                return;
            }
        }
    }

    /// Some columns of a table, each with its width.
    fn columns(&mut self, rows: &[Vec<Vec<String>>], columns: &[(usize, usize)], figures: &[bool]) {
        self.text.push('\n');
        let mut spaced = false;
        for (number, row) in rows.iter().enumerate() {
            let cells = columns.iter().map(|(column, width)| {
                let lines = row.get(*column).into_iter().flatten();
                lines.flat_map(|line| wrapped(line, Some(*width))).collect::<Vec<_>>()
            });
            let cells: Vec<Vec<String>> = cells.collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            // Where rows have several lines, an empty line is between them.
            if number > 1 && (spaced || height > 1) {
                self.text.push('\n');
            }
            spaced = number > 0 && height > 1;
            for at in 0..height {
                let line = cells.iter().zip(columns).map(|(lines, (column, width))| {
                    let cell = lines.get(at).map_or("", String::as_str);
                    if figures[*column] { format!("{cell:>width$}") } else { format!("{cell:width$}") }
                });
                let line = line.collect::<Vec<_>>().join("  ");
                self.line(&line);
            }
            if number == 0 {
                let all = columns.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
                self.line(&"─".repeat(all));
            }
        }
    }
}

/// Lines of at most so many columns, broken at spaces. Only a word that is longer than a line is cut.
fn wrapped(words: &str, width: Option<usize>) -> Vec<String> {
    let width = width.unwrap_or(usize::MAX).max(1);
    let (mut lines, mut line, mut column) = (Vec::new(), String::new(), 0);
    for word in words.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            lines.push(std::mem::take(&mut line));
            column = 0;
        } else if column > 0 {
            line.push(' ');
            column += 1;
        }
        for letter in word.chars() {
            if column == width {
                lines.push(std::mem::take(&mut line));
                column = 0;
            }
            line.push(letter);
            column += 1;
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::report::document::{Row, Section};

    fn shown(width: u16) -> String {
        let mut table = Table::new("t", ["subject", "CPU per beat", "what it is"]);
        table.rows.push(Row::from_iter([
            "deadpeer --wake beat",
            "0.0224 (0.0207-0.0226)",
            "every beat wakes it",
        ]));
        let section = Section { title: "S", blocks: vec![Block::Table(table)] };
        let document = Document { title: "T".to_owned(), sections: vec![section] };
        render(&document, &Options { width: Some(width), ..Options::default() })
    }

    #[test]
    fn a_table_breaks_between_words_and_moves_columns_that_do_not_fit_below() {
        for width in [30, 60, 80] {
            let text = shown(width);
            assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{text}");
            for word in
                ["deadpeer", "--wake", "beat", "0.0224", "(0.0207-0.0226)", "subject", "every", "wakes"]
            {
                assert!(text.contains(word), "{width}: {word}: {text}");
            }
        }
        assert_eq!(shown(30).matches("subject").count(), 2);
        assert_eq!(shown(80).matches("subject").count(), 1);
    }
}
