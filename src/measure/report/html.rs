//! One self-contained page: sentences, tables, and charts as inline SVG.
//!
//! # Contract
//!
//! - No request and no script: the page's own policy forbids both. The reader switches lines and opens what is folded
//!   without scripts.
//! - Whatever a string of the file holds stays text.

mod ratios;
mod spectrum;
mod svg;
mod timeline;

use std::fmt::{self, Write};

use super::document::{Block, Cell, Chart, Document, Plot, Table, Text, Tone};
use super::options::ReportError;
use super::series::named;
use svg::Escaped;

const STYLE: &str = include_str!("html/style.css");
/// The colours, and the look of pictures.
const PICTURE: &str = include_str!("html/picture.css");
/// Forbids every request and every script. The style sheet stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

pub fn render(document: &Document) -> String {
    let mut out = String::new();
    page(&mut out, document).expect("a string takes all that is written");
    out
}

fn page(out: &mut String, document: &Document) -> fmt::Result {
    let title = Escaped(&document.title);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{PICTURE}{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n</header>\n<main>\n"
    )?;
    for (place, section) in document.sections.iter().enumerate() {
        let class = if place == 0 { " class=\"verdict\"" } else { "" };
        writeln!(
            out,
            "<section{class} aria-labelledby=\"s{place}\">\n<h2 id=\"s{place}\">{}</h2>",
            Escaped(section.title)
        )?;
        blocks(out, &section.blocks)?;
        out.write_str("</section>\n")?;
    }
    let version = env!("CARGO_PKG_VERSION");
    write!(
        out,
        "</main>\n<footer><p>Written by deadpeer {version} from the file alone.</p></footer>\n</body>\n</html>\n"
    )
}

fn blocks(out: &mut String, all: &[Block]) -> fmt::Result {
    for block in all {
        match block {
            Block::Heading(words) => writeln!(out, "<h3>{}</h3>", Escaped(words))?,
            Block::Says(words) => writeln!(out, "<p>{}</p>", marked(words))?,
            Block::List(items) => {
                out.write_str("<ul>\n")?;
                items.iter().try_for_each(|item| writeln!(out, "<li>{}</li>", marked(item)))?;
                out.write_str("</ul>\n")?;
            }
            Block::Table(rows) => table(out, rows)?,
            Block::Charts(all) => charts(out, all)?,
            Block::Fold(summary, inner) => {
                writeln!(out, "<details><summary>{}</summary>", Escaped(summary))?;
                blocks(out, inner)?;
                out.write_str("</details>\n")?;
            }
        }
    }
    Ok(())
}

/// Words with their emphasis. The unit stays on the line of its number.
fn marked(words: &Text) -> String {
    let piece = |(tone, words): &(Tone, String)| match class(*tone) {
        "" => Escaped(words).to_string(),
        class => format!("<b class=\"{class}\">{}</b>", Escaped(words)),
    };
    words.0.iter().map(piece).collect()
}

const fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Strong => "strong",
        Tone::Good => "good",
        Tone::Bad => "bad",
    }
}

/// A table that scrolls by itself where the page is narrow.
fn table(out: &mut String, table: &Table) -> fmt::Result {
    let name = Escaped(&table.caption);
    let figures = table.figures();
    let words = if figures.iter().skip(1).any(|figures| *figures) { "figures" } else { "words" };
    write!(out, "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{name}\">")?;
    write!(out, "<table class=\"{words}\"><caption>{name}</caption><thead><tr>")?;
    for (head, figures) in table.head.iter().zip(&figures) {
        let class = if *figures { "" } else { " class=\"said\"" };
        write!(out, "<th scope=\"col\"{class}>{}</th>", Escaped(head))?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    for row in &table.rows {
        out.write_str(if row.ours { "<tr class=\"ours\">" } else { "<tr>" })?;
        for (place, (cell, figures)) in row.cells.iter().zip(&figures).enumerate() {
            write_cell(out, cell, place == 0, *figures)?;
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody></table></div>\n")
}

fn write_cell(out: &mut String, cell: &Cell, first: bool, figures: bool) -> fmt::Result {
    let (tag, scope) = if first { ("th", " scope=\"row\"") } else { ("td", "") };
    let classes = [class(cell.tone), if figures || first { "" } else { "said" }];
    let classes = classes.into_iter().filter(|class| !class.is_empty()).collect::<Vec<_>>().join(" ");
    let class = if classes.is_empty() { String::new() } else { format!(" class=\"{classes}\"") };
    write!(out, "<{tag}{scope}{class}>{}", Escaped(&cell.text))?;
    if !cell.note.is_empty() {
        write!(out, "<small>{}</small>", Escaped(&cell.note))?;
    }
    write!(out, "</{tag}>")
}

fn charts(out: &mut String, charts: &[Chart]) -> fmt::Result {
    let small = if charts.iter().any(|chart| chart.wide) { "" } else { "small " };
    writeln!(out, "<div class=\"{small}pictures\">")?;
    for chart in charts {
        let Some(picture) = draw(chart) else { continue };
        let wide = if chart.wide { " class=\"wide\"" } else { "" };
        let (title, remark) = (Escaped(&chart.title), Escaped(&chart.remark));
        writeln!(out, "<figure{wide}><figcaption>{title} <span>{remark}</span></figcaption>\n{picture}")?;
        legend(out, &chart.plot)?;
        out.write_str("</figure>\n")?;
    }
    out.write_str("</div>\n")
}

fn draw(chart: &Chart) -> Option<String> {
    match &chart.plot {
        Plot::Spectrum { curves, range } => spectrum::draw(chart, curves, *range),
        Plot::Timeline { courses, range, until_ns, unit } => {
            Some(timeline::draw(chart, courses, *range, (*until_ns, *unit)))
        }
        Plot::Ratios { base, bars, range } => ratios::draw(chart, base, bars, *range),
    }
}

/// Renders one chart of a document as a picture of its own, an SVG with its colours in it: the first chart, or the one
/// of this id.
pub fn picture(document: &Document, id: Option<&str>) -> Result<String, ReportError> {
    let drawn = document.charts().into_iter().filter_map(|chart| Some((chart, draw(chart)?)));
    let (chart, picture) = named(drawn.collect(), id, |(chart, _)| &chart.id)?;
    let [width, _] = svg::size(chart);
    let open =
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" font-family=\"sans-serif\"");
    let body = picture.replacen("<svg", &open, 1);
    Ok(body.replacen("<title", &format!("<style>\n{PICTURE}</style><title"), 1))
}

/// The names of the lines. In a spectrum of several lines the reader can switch them off.
fn legend(out: &mut String, plot: &Plot) -> fmt::Result {
    let lines: Vec<(&str, usize, bool)> = match plot {
        Plot::Spectrum { curves, .. } => {
            curves.iter().map(|curve| (curve.name.as_str(), curve.look, curve.dotted)).collect()
        }
        Plot::Timeline { courses, .. } => {
            courses.iter().map(|course| (course.name.as_str(), course.look, false)).collect()
        }
        Plot::Ratios { .. } => Vec::new(),
    };
    if lines.len() < 2 {
        return Ok(());
    }
    out.write_str("<div class=\"legend\">")?;
    for (name, look, dotted) in lines {
        let (swatch, name) = (svg::swatch(look, dotted), Escaped(name));
        if dotted || matches!(plot, Plot::Timeline { .. }) {
            write!(out, "<span>{swatch}{name}</span>")?;
        } else {
            write!(out, "<label><input type=\"checkbox\" class=\"t{look}\" checked>{swatch}{name}</label>")?;
        }
    }
    out.write_str("</div>\n")
}
