//! A report for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

use super::Options;
use super::document::{Block, right};

/// Bold and back (ECMA-48: SGR).
const BOLD: [&str; 2] = ["\x1b[1m", "\x1b[0m"];

/// Draws it.
#[must_use]
pub fn render(blocks: &[Block], options: &Options) -> String {
    let mut text = String::new();
    for block in blocks {
        if !text.is_empty() {
            text.push('\n');
        }
        match block {
            Block::Heading(level, words) => heading(&mut text, *level, words, options.bold),
            Block::Says(words) => line(&mut text, &wrapped(words, options.width, "")),
            Block::List(items) => {
                items
                    .iter()
                    .for_each(|item| line(&mut text, &format!("- {}", wrapped(item, options.width, "  "))));
            }
            Block::Table { head, rows } => line(&mut text, &table(head, rows, options.width)),
            Block::Drawing(lines) => lines.iter().for_each(|drawn| line(&mut text, drawn)),
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn heading(text: &mut String, level: u8, words: &str, bold: bool) {
    let [on, off] = if bold { BOLD } else { ["", ""] };
    line(text, &format!("{on}{words}{off}"));
    // Without bold letters a rule says that this is a heading.
    let rule = match level {
        1 => "=",
        2 => "-",
        _ => return,
    };
    line(text, &rule.repeat(words.chars().count()));
}

/// Lines no longer than the terminal, if it is one.
fn wrapped(words: &str, width: Option<u16>, indent: &str) -> String {
    let Some(width) = width.map(|width| usize::from(width.max(20))) else { return words.to_owned() };
    let (mut text, mut column) = (String::new(), indent.len());
    for word in words.split(' ') {
        let length = word.chars().count();
        if column + length > width && column > indent.len() {
            text.push('\n');
            text.push_str(indent);
            column = indent.len();
        } else if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
        column += length + 1;
    }
    text
}

fn table(head: &[String], rows: &[Vec<String>], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(head);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.add_rows(rows);
    for (column, right) in table.column_iter_mut().zip(right(rows, head.len())) {
        if right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // A rule between rows only helps where a row has several lines.
    if !rows.iter().flatten().any(|cell| cell.contains('\n')) {
        table.remove_style(TableComponent::HorizontalLines);
        table.remove_style(TableComponent::MiddleIntersections);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
