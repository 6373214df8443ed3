//! A report for a README: tables as GitHub draws them.

use super::document::{Block, right};

/// Writes it.
#[must_use]
pub fn render(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        if !text.is_empty() {
            text.push('\n');
        }
        match block {
            Block::Heading(level, words) => {
                text.push_str(&format!("{} {}\n", "#".repeat(usize::from(*level)), escaped(words)));
            }
            Block::Says(words) => text.push_str(&format!("{}\n", escaped(words))),
            Block::List(items) => {
                items.iter().for_each(|item| text.push_str(&format!("- {}\n", escaped(item))));
            }
            Block::Table { head, rows } => table(&mut text, head, rows),
            Block::Drawing(lines) => {
                // A fence longer than any run of backticks within cannot be closed by a name.
                text.push_str(&format!("```text\n{}\n```\n", lines.join("\n").replace('`', "'")));
            }
        }
    }
    text
}

fn table(text: &mut String, head: &[String], rows: &[Vec<String>]) {
    let mut row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell).replace('\n', "<br>")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    };
    row(head);
    let right = right(rows, head.len());
    let rule: Vec<String> =
        right.iter().map(|right| if *right { "---:" } else { "---" }.to_owned()).collect();
    row(&rule);
    rows.iter().for_each(|cells| row(cells));
}

/// What Markdown and HTML would take for marks.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' => {
                out.push('\\');
                out.push(letter);
            }
            letter => out.push(letter),
        }
    }
    out
}
