//! One self-contained page: sentences, tables, and pictures as inline SVG.
//!
//! # Intuition
//!
//! A report is attached to a mail, printed, opened on a telephone years later. So the page fetches
//! nothing, runs nothing, and says in its tables what its pictures show.
//!
//! # Contract
//!
//! - No request and no script: the page's own policy forbids both. Series are switched by the style
//!   sheet alone.
//! - Whatever a string of the file holds, it stays text.
//! - Of two results both are in every picture and table; further ones are left out.

mod circumstances;
mod comparison;
mod detection;
mod ratios;
mod spectrum;
mod svg;
mod tables;
mod text;
mod timeline;
mod words;

use std::fmt::{self, Write};

use super::figures::{self, Figure, Figures};
use crate::measure::result::Way;
use text::Escaped;

const STYLE: &str = include_str!("html/style.css");
/// Forbids every request and every script. The style sheet stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// What two results are called on the page.
const SIDES: [&str; 2] = ["A", "B"];
/// The size of a picture of its own.
const WIDE: [f64; 2] = [520.0, 320.0];
/// The size of one of several that are read together.
const SMALL: [f64; 2] = [360.0, 190.0];

/// Writes the page of one result, or of two side by side.
#[must_use]
pub fn render(results: &[Figures<'_>]) -> String {
    let mut out = String::new();
    let results = &results[..results.len().min(SIDES.len())];
    page(&mut out, results).expect("a string takes all that is written");
    out
}

/// The mark of a result, where there are two.
fn side(place: usize) -> String {
    format!("<b class=\"side c{place}\">{}</b>", SIDES[place])
}

/// The same before what is said of a result; nothing where there is one.
fn label(results: &[Figures<'_>], place: usize) -> String {
    if results.len() > 1 { format!("{} ", side(place)) } else { String::new() }
}

fn page(out: &mut String, results: &[Figures<'_>]) -> fmt::Result {
    head(out, results)?;
    for (place, figures) in results.iter().enumerate() {
        write!(out, "<p class=\"verdict\">{}", label(results, place))?;
        words::verdict(out, figures)?;
        out.write_str("</p>\n")?;
    }
    tables::facts(out, "quiet", "What was measured", &circumstances::settings(results))?;
    out.write_str("</header>\n<main>\n")?;
    doubts(out, results)?;
    let detected: Vec<_> = results.iter().map(|figures| figures.detection.as_ref()).collect();
    if let Some(detected) = whoever(&detected) {
        detection::section(out, &detected)?;
    }
    let compared: Vec<_> = results.iter().map(|figures| figures.comparison.as_ref()).collect();
    if let Some(compared) = whoever(&compared) {
        comparison::section(out, &compared)?;
    }
    section(out, "machine", "Where, and how to see it again")?;
    tables::facts(out, "", "How to see it again", &circumstances::again(results))?;
    tables::facts(out, "", "The machine and its limits", &circumstances::machine(results))?;
    out.write_str("</section>\n")?;
    definitions(out, results)?;
    let version = env!("CARGO_PKG_VERSION");
    write!(
        out,
        "</main>\n<footer><p>Written by deadpeer {version} from the result file alone.</p></footer>\n"
    )?;
    out.write_str("</body>\n</html>\n")
}

/// One part of all results, each with its place; nothing when no result has it.
fn whoever<'a, T>(parts: &[Option<&'a T>]) -> Option<Sides<'a, T>> {
    let known: Vec<_> =
        parts.iter().enumerate().filter_map(|(place, part)| Some((place, (*part)?))).collect();
    (!known.is_empty()).then_some(Sides { known, two: parts.len() > 1 })
}

/// A part of one or two results.
struct Sides<'a, T> {
    /// Those that have it, with their places.
    known: Vec<(usize, &'a T)>,
    /// Whether the page is of two results.
    two: bool,
}

impl<'a, T> Sides<'a, T> {
    fn iter(&self) -> impl Iterator<Item = &'a T> + '_ {
        self.known.iter().map(|(_, part)| *part)
    }

    /// The mark of a result behind a name; nothing where there is one.
    fn mark(&self, place: usize) -> String {
        if self.two { format!(" {}", side(place)) } else { String::new() }
    }
}

/// All before the verdict.
fn head(out: &mut String, results: &[Figures<'_>]) -> fmt::Result {
    let mut versions: Vec<_> = results.iter().map(|f| f.result.program.version.as_str()).collect();
    versions.dedup();
    let mut parts = Vec::new();
    if results.iter().any(|figures| figures.detection.is_some()) {
        parts.push("detection latency");
    }
    if results.iter().any(|figures| figures.comparison.is_some()) {
        parts.push("yardsticks");
    }
    let twice = if results.len() > 1 { ", two results" } else { "" };
    let title = format!("deadpeer {}: {}{twice}", text::listed(&versions), text::listed(&parts));
    let title = Escaped(&title);
    let class = if results.len() > 1 { " class=\"two\"" } else { "" };
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body{class}>\n<header>\n<h1>{title}</h1>\n"
    )
}

fn section(out: &mut String, id: &str, title: &str) -> fmt::Result {
    writeln!(out, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>")
}

/// Reasons not to trust a figure; of two results also what was not the same.
fn doubts(out: &mut String, results: &[Figures<'_>]) -> fmt::Result {
    section(out, "doubts", "Doubts")?;
    let mut items = Vec::new();
    for (place, figures) in results.iter().enumerate() {
        for doubt in &figures.result.doubts {
            let (label, said, remedy) = (label(results, place), Escaped(&doubt.text), Escaped(&doubt.remedy));
            items.push(format!("{label}{said}. <span class=\"remedy\">Remedy: {remedy}.</span>"));
        }
    }
    if let [first, second] = results {
        let different = figures::differences(first.result, second.result);
        let names: Vec<_> = different.iter().map(|(name, ..)| name.replace('_', " ")).collect();
        if !names.is_empty() {
            let names = text::listed(&names);
            items.push(format!(
                "The two were not measured alike: they differ in {}. \
                 <span class=\"remedy\">Remedy: measure both on one machine with the same settings.</span>",
                Escaped(&names)
            ));
        }
    }
    if items.is_empty() {
        out.write_str("<p>None: nothing was noticed that speaks against these figures.</p>\n")?;
    } else {
        writeln!(out, "<ul class=\"doubts\">\n<li>{}</li>\n</ul>", items.join("</li>\n<li>"))?;
    }
    out.write_str("</section>\n")
}

/// From which instant to which everything on the page counts.
fn definitions(out: &mut String, results: &[Figures<'_>]) -> fmt::Result {
    section(out, "definitions", "From which instant to which")?;
    out.write_str("<dl>\n")?;
    if results.iter().any(|figures| figures.detection.is_some()) {
        for way in Way::ALL {
            writeln!(out, "<dt>{way}</dt><dd>From {}, to the verdict.</dd>", words::begins(way))?;
        }
    }
    if results.iter().any(|figures| figures.comparison.is_some()) {
        for figure in Figure::ALL {
            writeln!(out, "<dt>{}</dt><dd>{}</dd>", figure.title(), words::counts(figure))?;
        }
    }
    for (term, meaning) in words::TERMS {
        writeln!(out, "<dt>{term}</dt><dd>{meaning}</dd>")?;
    }
    out.write_str("</dl>\n</section>\n")
}
