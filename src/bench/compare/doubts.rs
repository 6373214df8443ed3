//! Reasons not to trust a figure of a comparison, each once and with its remedy.

use std::collections::BTreeMap;

use super::subjects::{Row, VISITS_NS};
use super::verdicts::Joined;
use super::{Measure, Options};
use crate::bench::doubts::{FOREIGN_SHARE, INJECTOR_LATE_NS, doubt, of_the_build};
use crate::bench::peers::Done;
use crate::measure::recorded::carries;
use crate::measure::report::figures::Figure;
use crate::measure::result::{Beats, Detection, Doubt, DoubtKind, Run};

/// The lateness of the load at p99, beyond a stroke, from which on it is doubted: 5 ms.
const LOAD_LATE_NS: u64 = 5_000_000;
/// The largest ratio of a subject's dearest round to its cheapest that is not doubted.
const NOISE: f64 = 1.3;
/// The figures that this ratio is checked for.
const NOISY: [(Figure, &str); 5] = [
    (Figure::Cpu, "CPU per beat differed between the cheapest and the dearest round"),
    (Figure::Accept, "CPU per accept differed between the cheapest and the dearest round"),
    (Figure::Death, "CPU per death differed between the cheapest and the dearest round"),
    (Figure::DetectP50, "the median of detection differed between the quickest and the slowest round"),
    (Figure::DetectP99, "the p99 of detection differed between the quickest and the slowest round"),
];
/// The number of rounds that show their spread.
const ENOUGH_ROUNDS: u64 = 5;
/// The number of beats of a connection in the window that shows its steady state.
const WINDOW_BEATS: u64 = 40;

#[derive(Debug, Default)]
pub(super) struct Doubts {
    pub(super) all: Vec<Doubt>,
    /// Doubts about several subjects and rounds, by the start of their sentence.
    worst: BTreeMap<&'static str, Worst>,
}

/// The worst case of each subject, for one sentence about all of them.
#[derive(Debug)]
struct Worst {
    kind: DoubtKind,
    remedy: &'static str,
    /// By subject: the size, and its text.
    subjects: BTreeMap<String, (f64, String)>,
}

impl Doubts {
    pub(super) fn into_sorted(self) -> Vec<Doubt> {
        let mut doubts = self.all;
        doubts.extend(of_the_build());
        doubts.extend(self.worst.into_iter().map(|(about, worst)| {
            let each = worst.subjects.iter().map(|(name, (_, amount))| format!("{name} {amount}"));
            let each: Vec<String> = each.collect();
            doubt(worst.kind, format!("{about}: {}", each.join(", ")), worst.remedy)
        }));
        doubts.sort();
        doubts.dedup();
        doubts
    }

    fn add(&mut self, kind: DoubtKind, text: impl Into<String>, remedy: &str) {
        self.all.push(doubt(kind, text, remedy));
    }

    /// Keeps a case, unless a worse one of the same subject is known.
    fn add_worst(
        &mut self,
        (kind, about, remedy): (DoubtKind, &'static str, &'static str),
        name: &str,
        size: f64,
        amount: String,
    ) {
        let worst = self.worst.entry(about).or_insert(Worst { kind, remedy, subjects: BTreeMap::new() });
        let known = worst.subjects.get(name).map_or(0.0, |&(size, _)| size);
        if size > known {
            worst.subjects.insert(name.to_owned(), (size, amount));
        }
    }

    pub(super) fn mistake(&mut self, name: &str, what: &str) {
        let remedy = "run it again; a fault that comes again is a bug of that server";
        self.add(DoubtKind::Mistakes, format!("{name}: {what}"), remedy);
    }

    /// The doubts that are known before anything runs.
    pub(super) fn of_plan(&mut self, options: &Options, rows: &[Row], shared_core: bool) {
        let settings = &options.settings;
        if shared_core {
            let text = "there is only one core: server and load take turns on it";
            self.add(DoubtKind::SharedCore, text, "run on two cores or more");
        }
        let seconds = settings.window_ns as f64 / 1e9;
        if options.measures(Measure::Beats) && settings.window_ns < VISITS_NS {
            let late = rows.iter().filter(|row| row.visits_late()).count();
            if late > 0 {
                self.add(
                    DoubtKind::ShortWindow,
                    format!(
                        "the window of {seconds} s is shorter than the 30 s between two visits of a peer in lazy \
                         mode: visits may be missing in the CPU per beat of {late} subjects"
                    ),
                    "take --window 30s or longer",
                );
            }
        }
        let beats = settings.beats_per_second as f64 * seconds / settings.connections as f64;
        if options.measures(Measure::Beats) && beats < WINDOW_BEATS as f64 {
            let text =
                format!("each connection beats {beats:.0} times in the window, fewer than {WINDOW_BEATS}");
            self.add(DoubtKind::ShortWindow, text, "take a longer --window");
        }
        if options.measures(Measure::Detection) && !carries(settings.deaths, 99.0) {
            let text = format!("{} deaths in a round carry no p99", settings.deaths);
            self.add(DoubtKind::TooFewSamples, text, "let at least 1,000 connections die in a round");
        }
    }

    pub(super) fn too_few_descriptors(&mut self, wanted: u64, most: u64) {
        let text = format!("{wanted} connections were wanted and {most} measured: the limit on descriptors");
        self.add(DoubtKind::NotMeasured, text, "raise the hard limit (`ulimit -Hn`)");
    }

    pub(super) fn no_slabs(&mut self) {
        let text = "no figures of kernel memory: only root may read /proc/slabinfo";
        self.add(DoubtKind::NotMeasured, text, "run as root");
    }

    pub(super) fn load(&mut self, name: &str, done: &Done, stroke_ns: u64) {
        let late = done.late.histogram().value_at_quantile(0.99);
        if (done.late.count() > 0 && late > stroke_ns + LOAD_LATE_NS) || done.unsent > 0 {
            let mut amount = format!("{:.1} ms", late as f64 / 1e6);
            if done.unsent > 0 {
                amount += &format!(" and {} beats unsent", done.unsent);
            }
            let what = "the load fell behind its schedule, at p99 by";
            let remedy = "run on a quieter or faster machine, or with fewer beats a second";
            self.add_worst((DoubtKind::LoadLate, what, remedy), name, late as f64, amount);
        }
        if done.refused > 0 {
            let text = format!("{name}: {} beats were refused by their sockets", done.refused);
            let remedy = "the server does not read what was sent: take fewer beats a second";
            self.add(DoubtKind::LoadLate, text, remedy);
        }
    }

    pub(super) fn machine(&mut self, name: &str, beats: &Beats) {
        for (what, part) in [
            ("other processes used of a core", beats.foreign_ns),
            ("the hypervisor took of a core", beats.stolen_ns),
        ] {
            let share = part as f64 / beats.window_ns as f64;
            if share > FOREIGN_SHARE {
                let about = (DoubtKind::BusyMachine, what, "run again when the machine is quiet");
                self.add_worst(about, name, share, format!("{:.0} %", share * 100.0));
            }
        }
    }

    pub(super) fn injector(&mut self, name: &str, detection: &Detection) {
        let Some(late) = detection.injector_late.percentile(99.0) else { return };
        if late > INJECTOR_LATE_NS {
            let what = "the injector itself was late, which is part of the latency, at p99 by";
            let remedy = "run on a quieter machine, or with fewer beats a second";
            let amount = format!("{:.0} us", late as f64 / 1e3);
            self.add_worst((DoubtKind::InjectorLate, what, remedy), name, late as f64, amount);
        }
    }

    pub(super) fn verdicts(&mut self, name: &str, joined: &Joined) {
        let Detection { missed, false_verdicts, .. } = joined.detection;
        for (count, what) in [
            (missed, "deaths had no verdict"),
            (false_verdicts, "verdicts were second ones, or on living peers"),
            (joined.misnamed, "verdicts named another cause"),
            (joined.early, "verdicts are dated before the death they are about"),
        ] {
            if count > 0 {
                self.mistake(name, &format!("{count} {what}"));
            }
        }
    }

    pub(super) fn bytes_uncounted(&mut self, name: &str, sent: u64, counted: u64) {
        if sent != counted {
            self.mistake(name, &format!("it counted {counted} bytes of the {sent} that were sent"));
        }
    }

    /// The comparison was ended early.
    pub(super) fn interrupted(&mut self, finished: u64, wanted: u64) {
        let text = format!("interrupted: {finished} of {wanted} rounds are finished, and these are here");
        self.add(DoubtKind::NotMeasured, text, "let it run to its end");
    }

    /// The doubts that are known after the last round.
    pub(super) fn of_rounds(&mut self, rounds: u64, runs: &[Run]) {
        if rounds < ENOUGH_ROUNDS {
            let text = format!(
                "{rounds} rounds are fewer than {ENOUGH_ROUNDS}: their minimum and maximum say little"
            );
            self.add(DoubtKind::TooFewSamples, text, "take --rounds 5 or more");
        }
        for (figure, about) in NOISY {
            let mut rounds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for (run, value) in runs.iter().filter_map(|run| Some((run, figure.of(run)?))) {
                rounds.entry(&run.subject).or_default().push(value);
            }
            for (name, values) in rounds {
                let least = values.iter().copied().fold(f64::INFINITY, f64::min);
                let most = values.iter().copied().fold(0.0, f64::max);
                if most > NOISE * least {
                    let remedy = "run again when the machine is quiet, or with more --rounds";
                    let amount = format!("{:.2} to {:.2} us", least / 1e3, most / 1e3);
                    self.add_worst((DoubtKind::NoisyRounds, about, remedy), name, most / least, amount);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(count: u64, process_ns: u64, foreign_ns: u64) -> Beats {
        Beats { count, window_ns: 1_000_000_000, process_ns, foreign_ns, ..Beats::default() }
    }

    fn run(subject: &str, beats: Beats) -> Run {
        Run { subject: subject.into(), beats: Some(beats), ..Run::default() }
    }

    /// The doubts, without the one about a debug build.
    fn found(doubts: Doubts) -> Vec<String> {
        let found = doubts.into_sorted().into_iter().filter(|doubt| doubt.kind != DoubtKind::DebugBuild);
        found.map(|doubt| doubt.text).collect()
    }

    #[test]
    fn what_is_seen_of_several_subjects_is_one_sentence() {
        let mut doubts = Doubts::default();
        doubts.machine("epoll", &beats(1, 1, 30_000_000));
        doubts.machine("tokio", &beats(1, 1, 90_000_000));
        assert_eq!(found(doubts), ["other processes used of a core: epoll 3 %, tokio 9 %"]);
    }

    #[test]
    fn what_is_seen_in_every_round_is_said_once_at_its_worst() {
        let mut doubts = Doubts::default();
        for foreign in [30_000_000, 250_000_000, 40_000_000] {
            doubts.machine("epoll", &beats(1, 1, foreign));
        }
        doubts.machine("tokio", &beats(1, 1, 19_000_000));
        assert_eq!(found(doubts), ["other processes used of a core: epoll 25 %"]);
    }

    #[test]
    fn rounds_that_differ_by_a_third_are_noisy_and_those_of_another_subject_are_not_mixed_in() {
        let mut doubts = Doubts::default();
        let costs = [("a", 1_000), ("b", 5_000), ("a", 1_290), ("b", 6_600)];
        doubts.of_rounds(ENOUGH_ROUNDS, &costs.map(|(name, cost)| run(name, beats(1, cost, 0))));
        let doubts = found(doubts);
        assert_eq!(doubts.len(), 1);
        assert!(doubts[0].ends_with(" round: b 5.00 to 6.60 us"), "{doubts:?}");
    }
}
