//! A report for a README: tables as GitHub draws them, and `<details>` for what is folded.

use super::document::{Block, Document, Table, Text, Tone, cut, plain};
use super::drawing;

/// The columns of a drawing.
const DRAWN: usize = 90;

pub fn render(document: &Document) -> String {
    let mut text = format!("# {}\n", escaped(&document.title));
    for section in &document.sections {
        text.push_str(&format!("\n## {}\n", escaped(section.title)));
        blocks(&mut text, &section.blocks);
    }
    text
}

fn blocks(text: &mut String, all: &[Block]) {
    for block in all {
        text.push('\n');
        match block {
            Block::Heading(words) => text.push_str(&format!("### {}\n", escaped(words))),
            Block::Says(words) => text.push_str(&format!("{}\n", marked(words))),
            Block::List(items) => {
                items.iter().for_each(|item| text.push_str(&format!("- {}\n", marked(item))));
            }
            Block::Table(rows) => table(text, rows),
            Block::Charts(charts) => {
                // A fence cannot be closed by a name: the names have no backticks.
                let lines = drawing::draw(charts, DRAWN).join("\n").replace('`', "'");
                text.push_str(&format!("```text\n{lines}\n```\n"));
            }
            Block::Fold(summary, inner) => {
                text.push_str(&format!("<details><summary>{}</summary>\n", escaped(summary)));
                blocks(text, inner);
                text.push_str("\n</details>\n");
            }
        }
    }
}

fn table(text: &mut String, table: &Table) {
    let mut row = |cells: &[String]| text.push_str(&format!("| {} |\n", cells.join(" | ")));
    row(&table.head.iter().map(|head| escaped(&cut(head))).collect::<Vec<_>>());
    let rule = |figures: bool| if figures { "---:" } else { "---" }.to_owned();
    row(&table.figures().into_iter().map(rule).collect::<Vec<_>>());
    for cells in &table.rows {
        let lines = cells.cells.iter().map(|cell| {
            let lines = [&cell.text, &cell.note].map(|line| escaped(&cut(line)));
            if cell.note.is_empty() { lines[0].clone() } else { lines.join("<br>") }
        });
        row(&lines.collect::<Vec<_>>());
    }
}

fn marked(words: &Text) -> String {
    let piece = |(tone, words): &(Tone, String)| match tone {
        Tone::Plain => escaped(words),
        Tone::Strong | Tone::Good | Tone::Bad => format!("**{}**", escaped(words)),
    };
    words.0.iter().map(piece).collect()
}

/// Plain words, in which nothing is a mark of Markdown or HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in plain(text).chars() {
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
