//! The yardsticks on the page: pictures of the ratios, who was compared, and the medians.

use std::fmt::{self, Write};

use super::super::document::GROUPS;
use super::super::figures::{Compared, Figure};
use super::super::show;
use super::ratios::{Ratios, Row};
use super::text::Escaped;
use super::{SMALL, Sides, side, tables};

/// Writes it.
pub(super) fn section(out: &mut String, sides: &Sides<'_, Compared<'_>>) -> fmt::Result {
    super::section(out, "yardsticks", "Yardsticks")?;
    // Two results may have been taken against different subjects, each within itself.
    let mut bases: Vec<_> = sides.iter().map(|side| side.base.unwrap_or(show::NOTHING)).collect();
    bases.dedup();
    let base = bases.join(" / ");
    write!(
        out,
        "<p class=\"note\">The same load on every subject, in turn. How many times as much each takes as \
         <b>{}</b>: the \
         median of all rounds, and a bar from the least to the greatest. Less is better.</p>\n\
         <p class=\"legend\"><span><i class=\"key ours\"></i>deadpeer</span><span><i \
         class=\"key\"></i>yardsticks</span>",
        Escaped(&base)
    )?;
    if sides.two {
        write!(out, "<span>{} above, round</span><span>{} below, square</span>", side(0), side(1))?;
    }
    out.write_str("</p>\n<div class=\"small pictures\">\n")?;
    // How long the injector took is nobody's merit.
    let drawn = Figure::ALL.into_iter().filter(|figure| *figure != Figure::StormReset);
    for figure in drawn {
        picture(out, figure, &base, sides)?;
    }
    out.write_str("</div>\n<h3>Medians, and what each gives up</h3>\n")?;
    tables::subjects(out, sides)?;
    let known = |figures: &[Figure]| sides.iter().any(|side| side.has(figures));
    for (title, figures) in GROUPS.into_iter().filter(|(_, figures)| known(figures)) {
        let name = format!("{title}: median, and ratio to {base} (least–greatest)");
        tables::medians(out, &name, figures, sides)?;
    }
    out.write_str("</section>\n")
}

/// A figure of all subjects, if anybody has it.
fn picture(out: &mut String, figure: Figure, base: &str, sides: &Sides<'_, Compared<'_>>) -> fmt::Result {
    let names = tables::names(sides);
    let rows = names.iter().map(|name| Row {
        name,
        ours: sides.iter().find_map(|side| side.find(name)).is_some_and(|row| row.subject.ours),
        ratios: sides.iter().map(|side| side.find(name)?.cell(figure).ratio).collect(),
    });
    let rows: Vec<_> = rows.collect();
    let (id, title) = (format!("ratio-{}", figure.name()), figure.title());
    match (Ratios { id: &id, name: title, base, rows: &rows, width: SMALL[0] }).draw() {
        Some(picture) => write!(out, "<figure><figcaption>{title}</figcaption>\n{picture}</figure>\n"),
        None => Ok(()),
    }
}
