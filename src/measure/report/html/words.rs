//! What the page says in sentences: the verdict, and what every figure means.

use std::fmt::{self, Write};

use super::super::figures::{Compared, Detected, Figure, Figures, Unit, WayFigures};
use super::super::show;
use super::text::{Escaped, counted, listed, time};
use crate::measure::result::{Basis, Way};

/// Yardsticks that the verdict names.
const NAMED: usize = 5;

/// The result in a few sentences.
pub(super) fn verdict(out: &mut String, figures: &Figures<'_>) -> fmt::Result {
    if let Some(detected) = &figures.detection {
        told(out, detected)?;
        slowest(out, detected, Basis::Scheduled)?;
        slowest(out, detected, Basis::Expiry)?;
    }
    if let Some(compared) = &figures.comparison {
        cheap(out, compared)?;
    }
    Ok(())
}

/// How many died, and what became of them.
fn told(out: &mut String, detected: &Detected<'_>) -> fmt::Result {
    let ran: Vec<_> = detected.ways.iter().filter(|way| way.not_run.is_none()).collect();
    let sum =
        |count: fn(&WayFigures<'_>) -> u64| ran.iter().map(|way| count(way)).fold(0, u64::saturating_add);
    let deaths = counted(sum(|way| way.injected), "death", "deaths");
    write!(out, "<b>{deaths}</b> in {}: ", counted(ran.len() as u64, "way", "ways"))?;
    let wrong = [
        (sum(|way| way.missed), "missed"),
        (sum(|way| way.doubled), "doubled"),
        (sum(|way| way.misnamed), "misnamed"),
        (sum(|way| way.early), "early"),
    ];
    let wrong = wrong.iter().filter(|(count, _)| *count > 0);
    let wrong: Vec<_> = wrong.map(|(count, what)| format!("{} {what}", show::count(*count))).collect();
    if wrong.is_empty() {
        out.write_str("each told once, with its cause, and none before its time. ")
    } else {
        let told = show::count(sum(|way| way.told));
        write!(out, "{told} told in time; <b class=\"bad\">{}</b>. ", listed(&wrong))
    }
}

/// The latency of the slowest way of a kind.
fn slowest(out: &mut String, detected: &Detected<'_>, basis: Basis) -> fmt::Result {
    let all = detected.ways.iter().filter(|way| way.basis == basis);
    let Some(way) = all.max_by_key(|way| (way.latency.p99_ns, way.latency.p50_ns)) else { return Ok(()) };
    let Some(p50) = way.latency.p50_ns else { return Ok(()) };
    let (p50, name) = (time(p50), way.way);
    match basis {
        Basis::Scheduled => write!(
            out,
            "Of what the network tells, the slowest way ({name}) was known <b>{p50}</b> after its instant \
             at the median"
        )?,
        Basis::Expiry => {
            let promised = time(detected.settings.detection_time_ns);
            write!(
                out,
                "Of the silent, the slowest way ({name}) was told <b>{p50}</b> after the detection time of \
                 {promised} at the median"
            )?;
        }
    }
    match way.latency.p99_ns {
        Some(p99) => write!(out, " and <b>{}</b> at p99. ", time(p99)),
        None => out.write_str("; too few died for p99. "),
    }?;
    let bare = detected.bare_recv.filter(|_| basis == Basis::Scheduled);
    match bare.map(|bare| (bare.latency.p50_ns, bare.latency.p99_ns)) {
        Some((Some(p50), Some(p99))) => {
            write!(out, "On the machine at rest, a bare recv took {} and {}. ", time(p50), time(p99))
        }
        _ => Ok(()),
    }
}

/// CPU for a beat against every yardstick.
fn cheap(out: &mut String, compared: &Compared<'_>) -> fmt::Result {
    let Some(ours) = compared.rows.iter().find(|row| row.subject.ours) else { return Ok(()) };
    let Some(cpu) = ours.cell(Figure::Cpu).value else { return Ok(()) };
    let cpu = show::value(Some(cpu.median), Unit::Nanos).replace(' ', "\u{a0}");
    write!(out, "{} took <b>{cpu}</b> of CPU for a beat", Escaped(&ours.subject.name))?;
    let others = compared.rows.iter().filter(|row| !row.subject.ours);
    let ratios = others.filter_map(|row| {
        let ratio = compared.ratio(Figure::Cpu, &ours.subject.name, &row.subject.name)?;
        Some(format!("{}\u{a0}× {}", ratio_of(ratio.median), Escaped(&row.subject.name)))
    });
    let ratios: Vec<_> = ratios.take(NAMED).collect();
    if ratios.is_empty() { out.write_str(".") } else { write!(out, ": {}.", ratios.join("; ")) }
}

/// A ratio for people.
pub(super) fn ratio_of(ratio: f64) -> String {
    show::value(Some(ratio), Unit::Ratio)
}

/// From which instant a way's latency counts, in words for a table.
pub(super) fn begins(way: Way) -> &'static str {
    match way {
        Way::Fin => "the instant at which an orderly close (FIN) was scheduled",
        Way::Rst => "the instant at which a reset (RST) was scheduled",
        Way::DataRst => "the instant at which bytes and a reset behind them were scheduled",
        Way::HalfClose => "the instant at which the FIN was scheduled, of a peer that goes on reading",
        Way::HalfCloseRst => "the instant at which the reset was scheduled, some time after a FIN",
        Way::Silence => {
            "last sign of life + detection time; the connection stands, and nothing comes any more"
        }
        Way::Stop => "last sign of life + detection time; the process is stopped, its kernel still answers",
        Way::PathLoss => "last sign of life + detection time; the path loses every packet",
    }
}

/// What a figure of the comparison counts.
pub(super) fn counts(figure: Figure) -> &'static str {
    match figure {
        Figure::Cpu => {
            "User and system time of the server's process in the window, over the beats sent in it."
        }
        Figure::Machine => {
            "Busy time of the cores in use (wall time less idle and stolen time), over the same beats: \
             kernel work for others' interrupts and the load's own share are in it."
        }
        Figure::Accept => {
            "User and system time of the process until all connections were accepted, over their number."
        }
        Figure::Death => {
            "User and system time of the process while quiet connections were reset, over their number."
        }
        Figure::DetectP50 => {
            "From the scheduled FIN or RST to the verdict, while the others beat; the median of a round."
        }
        Figure::DetectP99 => "The same, p99 of a round.",
        Figure::DetectMax => "The same, the greatest of a round.",
        Figure::User => "Resident memory that quiet connections added to the process, over their number.",
        Figure::Kernel => {
            "Slab memory above that of a process that only accepts, over the number of connections. As root \
             only."
        }
        Figure::Storm => {
            "All idle connections are reset in one instant: from that instant to the last verdict."
        }
        Figure::Unread => {
            "Slab memory that had grown since before the first beat when the window closed, over the connections \
             that beat: what lies unread, and what the kernel keeps of a connection that has sent. As root only."
        }
        Figure::StormReset => "From that instant to the last reset: how long the injector took.",
        Figure::StormTurn => "The longest turn of a deadpeer's loop in all of that life, by its own summary.",
        Figure::Rate1 => {
            "User and system time of the process in a second of the window, over peers that beat once a second."
        }
        Figure::Rate10 => "The same, of peers that beat ten times a second.",
        Figure::Rate100 => "The same, of peers that beat a hundred times a second.",
        Figure::StreamTime => {
            "One peer sends all it can: from its first byte to the verdict on its FIN, over the bytes in 10^9."
        }
        Figure::StreamCpu => "User and system time of the process for the same, over the same.",
    }
}

/// What else the page takes for known.
pub(super) const TERMS: [(&str, &str); 9] = [
    (
        "-",
        "Not measured, or the sample does not carry it: at least ten values must lie beyond a percentile, \
         so p99 wants 1,000 deaths and p99.99 wants 100,000. Lines of the spectrum end where their sample \
         does.",
    ),
    (
        "told",
        "Deaths with a verdict in time: those in the percentiles. A missed death has none, however long it \
         was waited for.",
    ),
    ("doubled", "Verdicts beyond the first for the same death."),
    ("misnamed", "Verdicts whose cause was another than the way's."),
    ("early", "Verdicts of silence before the detection time had passed. They are not in the percentiles."),
    (
        "injector late",
        "From the scheduled instant to the system call that kills. It is part of the latency, and drawn \
         dashed.",
    ),
    (
        "bare recv",
        "No tracker: before anything else ran, one thread waited in recv for one FIN, from its scheduled instant \
         to the return of the call. Whoever sleeps until a peer has gone spends about as much on this machine. \
         Drawn dotted.",
    ),
    (
        "mistake",
        "A living peer suspected, or called half-closed or dead. The rate is over connection-time watched; \
         the duration lasts until it was taken back.",
    ),
    (
        "ratio",
        "Taken within each round, against the base in the same round, so that what the machine was doing \
         hits both; then the least, the median and the greatest of all rounds.",
    ),
];
