//! Reasons not to trust a figure, found in what was measured. Pure.

use std::io;

use crate::bench::experiment::Circumstances;
use crate::measure::result::{BareRecv, Basis, Doubt, DoubtKind, EngineUsed, Experiment, WayResult};

/// The lateness of the injector at p99 from which on it is doubted: 100 us.
pub(super) const INJECTOR_LATE_NS: u64 = 100_000;
/// The bare recv at p99 from which on the machine is doubted: 100 us.
const WAKE_NS: u64 = 100_000;
/// The lateness of the beats at p99 from which on the load is doubted: 10 ms.
const LOAD_LATE_NS: u64 = 10_000_000;
/// The share of a core that other processes may use.
pub(super) const FOREIGN_SHARE: f64 = 0.02;
/// The number of samples that a p99 needs.
const CARRIES_P99: u64 = 1_000;

pub fn doubt(kind: DoubtKind, text: impl Into<String>, remedy: &str) -> Doubt {
    Doubt { kind, text: text.into(), remedy: remedy.into() }
}

/// The doubts about every measurement of this build.
pub fn of_the_build() -> Option<Doubt> {
    let text = "this is a debug build: deadpeer's own code is several times slower";
    cfg!(debug_assertions).then(|| doubt(DoubtKind::DebugBuild, text, "build with `cargo build --release`"))
}

/// The doubt about the machine, from its [bare recv](super::baseline).
pub fn of_the_machine(bare_recv: &io::Result<BareRecv>) -> Option<Doubt> {
    match bare_recv.as_ref().map(|bare| bare.latency.percentile(99.0)) {
        Ok(None | Some(..=WAKE_NS)) => None,
        Ok(Some(p99)) => Some(doubt(
            DoubtKind::SlowMachine,
            format!(
                "a thread that waits for one FIN and nothing else took {:.0} us at p99: latencies are about this machine \
                 as much as about the tracker",
                p99 as f64 / 1e3
            ),
            "compare p99 with the bare recv's; take a machine without a hypervisor, whose cores do not sleep",
        )),
        Err(error) => Some(doubt(
            DoubtKind::NotMeasured,
            format!("the bare recv was not measured: {error}"),
            "allow connections on loopback, and raise `ulimit -n` to at least 1,000",
        )),
    }
}

/// The doubt about an engine that is not the wanted one.
pub fn of_the_engine(engine: Option<&EngineUsed>) -> Option<Doubt> {
    let EngineUsed { name, why_not, .. } = engine?;
    Some(doubt(
        DoubtKind::NotMeasured,
        format!("deadpeer ran on {name}, and on nothing better: {}", why_not.as_ref()?),
        "remove the reason; `--io` names an engine, and a bench does not start where there is none",
    ))
}

/// The doubt about a comparison that ended before its first round did.
pub fn no_round() -> Doubt {
    let text = "the comparison was interrupted before its first round was finished";
    doubt(DoubtKind::NotMeasured, text, "let it run to its end")
}

pub fn of_an_experiment(experiment: &Experiment, seen: &Circumstances) -> Vec<Doubt> {
    let mut doubts: Vec<Doubt> =
        of_the_build().into_iter().chain(of_the_engine(seen.engine.as_ref())).collect();
    of_the_ways(&experiment.ways, &mut doubts);
    let mut add = |kind, text: String, remedy| doubts.push(doubt(kind, text, remedy));
    if experiment.quality.mistakes > 0 {
        let text = format!(
            "{} living peers were suspected or called dead, {} of them without a recovery",
            experiment.quality.mistakes, experiment.quality.false_verdicts
        );
        let remedy = "if the load was not late, this is a bug of the tracker: please report it with the seed";
        add(DoubtKind::Mistakes, text, remedy);
    }
    if seen.load_late_ns > LOAD_LATE_NS || seen.beats_lost > 0 {
        let text = format!(
            "the beats were {:.1} ms late at p99, and {} were dropped or refused",
            seen.load_late_ns as f64 / 1e6,
            seen.beats_lost
        );
        add(DoubtKind::LoadLate, text, "take fewer --beats, or an idle machine");
    }
    let more_cores = "take fewer --threads, or a machine with more cores";
    if seen.shared_core {
        let text = "load and tracker shared a core and waited for each other".to_owned();
        add(DoubtKind::SharedCore, text, more_cores);
    }
    if seen.threads_without_core > 0 {
        let more = seen.threads_without_core;
        let text = format!("the tracker had {more} more threads than cores, and they waited for each other");
        add(DoubtKind::SharedCore, text, more_cores);
    }
    let allowed = experiment.lasted_ns as f64 * FOREIGN_SHARE;
    for (what, nanos) in [("other processes used", seen.foreign_ns), ("the hypervisor took", seen.stolen_ns)]
    {
        if nanos as f64 > allowed {
            let percent = nanos as f64 / experiment.lasted_ns.max(1) as f64 * 100.0;
            let remedy = "measure on an idle machine; trust only ratios within one run";
            add(DoubtKind::BusyMachine, format!("{what} {percent:.0} % of a core"), remedy);
        }
    }
    doubts
}

/// The doubts about the ways to die. A doubt about several ways is one sentence.
fn of_the_ways(ways: &[WayResult], doubts: &mut Vec<Doubt>) {
    let run = || ways.iter().filter(|result| result.not_run.is_none());
    let mut add = |kind, text: String, remedy| doubts.push(doubt(kind, text, remedy));
    let names = |which: &dyn Fn(&WayResult) -> bool| {
        run().filter(|result| which(result)).map(|result| result.way.as_str()).collect::<Vec<_>>().join(", ")
    };
    for result in ways {
        if let Some(why) = &result.not_run {
            let remedy = "remove the reason, or leave the way out of --ways";
            add(DoubtKind::NotMeasured, format!("{} was not run: {why}", result.way), remedy);
        }
        let wrong = result.missed + result.doubled + result.misnamed + result.early;
        if wrong > 0 {
            let text = format!(
                "{}: {} missed, {} reported twice, {} with another cause, {} early",
                result.way, result.missed, result.doubled, result.misnamed, result.early
            );
            add(DoubtKind::Mistakes, text, "a bug, or a load that was late: please report it with the seed");
        }
    }
    let late = |result: &WayResult| {
        let late = &result.injector_late;
        let scheduled = result.basis == Basis::Scheduled;
        late.percentile(99.0).or(late.max()).filter(|&late| scheduled && late > INJECTOR_LATE_NS)
    };
    if let Some(most) = run().filter_map(late).max() {
        // Of a sample too small for a p99 it is the maximum.
        let carried = run()
            .filter(|result| late(result).is_some())
            .all(|result| result.injector_late.percentile(99.0).is_some());
        let text = format!(
            "{}: the injector was up to {:.0} us late{}, which is part of the latency",
            names(&|result| late(result).is_some()),
            most as f64 / 1e3,
            if carried { " at p99" } else { "" }
        );
        let remedy = "give the load an idle core; the latency still includes the lateness";
        add(DoubtKind::InjectorLate, text, remedy);
    }
    let few = names(&|result| result.told < CARRIES_P99);
    if !few.is_empty() {
        let text = format!("{few}: a p99 needs {CARRIES_P99} verdicts, and each has fewer");
        add(DoubtKind::TooFewSamples, text, "take more --deaths and --connections, or a longer --duration");
    }
    let clipped: u64 = run().map(|result| result.latency.clipped() + result.injector_late.clipped()).sum();
    if clipped > 0 {
        let text = format!("{clipped} values were longer than an hour");
        add(DoubtKind::Clipped, text, "find what stopped for so long");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::experiment::verdicts::{Frame, judge, not_run};
    use crate::measure::result::{Settings, Way};

    const SECOND: u64 = 1_000_000_000;
    const FRAME: Frame = Frame { start: 0, end: 10 * SECOND, detection: SECOND, connections: 10 };

    /// An experiment without any doubt.
    fn sound() -> Experiment {
        let (mut ways, quality) = judge(&[Way::Fin, Way::Silence], &[], &[], FRAME);
        for result in &mut ways {
            for _ in 0..CARRIES_P99 {
                result.latency.record(50_000);
                result.injector_late.record(1_000);
            }
            (result.injected, result.told) = (CARRIES_P99, CARRIES_P99);
        }
        let (settings, summary) = (Settings::default(), serde_json::Value::Null);
        Experiment { settings, start_ns: 0, lasted_ns: 10 * SECOND, ways, quality, summary }
    }

    /// The kinds of the doubts, without the one about a debug build.
    fn kinds(experiment: &Experiment, seen: &Circumstances) -> BTreeSet<DoubtKind> {
        let doubts = of_an_experiment(experiment, seen);
        assert!(doubts.iter().all(|doubt| !doubt.text.is_empty() && !doubt.remedy.is_empty()));
        doubts.into_iter().map(|doubt| doubt.kind).filter(|&kind| kind != DoubtKind::DebugBuild).collect()
    }

    #[test]
    fn a_sound_experiment_is_not_doubted() {
        assert_eq!(kinds(&sound(), &Circumstances::default()), [].into());
    }

    #[test]
    fn every_circumstance_that_spoils_a_figure_is_doubted_and_nothing_else() {
        let none = Circumstances::default;
        let share = 10 * SECOND / 50;
        for (seen, kind) in [
            (Circumstances { load_late_ns: LOAD_LATE_NS + 1, ..none() }, DoubtKind::LoadLate),
            (Circumstances { beats_lost: 1, ..none() }, DoubtKind::LoadLate),
            (Circumstances { shared_core: true, ..none() }, DoubtKind::SharedCore),
            (Circumstances { threads_without_core: 1, ..none() }, DoubtKind::SharedCore),
            (Circumstances { foreign_ns: share + 1, ..none() }, DoubtKind::BusyMachine),
            (Circumstances { stolen_ns: share + 1, ..none() }, DoubtKind::BusyMachine),
        ] {
            assert_eq!(kinds(&sound(), &seen), [kind].into(), "{seen:?}");
        }
        let bearable =
            Circumstances { load_late_ns: LOAD_LATE_NS, foreign_ns: share, stolen_ns: share, ..none() };
        assert_eq!(kinds(&sound(), &bearable), [].into());
    }

    #[test]
    fn every_fault_of_a_result_is_doubted_and_nothing_else() {
        type Spoil = fn(&mut Experiment);
        let spoil: [(Spoil, DoubtKind); 9] = [
            (|found| found.ways[0].missed = 1, DoubtKind::Mistakes),
            (|found| found.ways[0].doubled = 1, DoubtKind::Mistakes),
            (|found| found.ways[0].misnamed = 1, DoubtKind::Mistakes),
            (|found| found.ways[1].early = 1, DoubtKind::Mistakes),
            (|found| found.quality.mistakes = 1, DoubtKind::Mistakes),
            (|found| found.ways[0].told = CARRIES_P99 - 1, DoubtKind::TooFewSamples),
            (|found| found.ways[0].latency.record(4_000 * SECOND), DoubtKind::Clipped),
            (|found| found.ways.push(not_run(Way::Stop, "no".into(), FRAME)), DoubtKind::NotMeasured),
            (
                |found| (0..20).for_each(|_| found.ways[0].injector_late.record(2 * INJECTOR_LATE_NS)),
                DoubtKind::InjectorLate,
            ),
        ];
        for (turn, (spoil, kind)) in spoil.into_iter().enumerate() {
            let mut experiment = sound();
            spoil(&mut experiment);
            assert_eq!(kinds(&experiment, &Circumstances::default()), [kind].into(), "{turn}");
        }
    }

    #[test]
    fn an_engine_is_doubted_that_is_not_the_wanted_one() {
        let engine = |why_not: Option<&str>| EngineUsed {
            name: "epoll".into(),
            features: Vec::new(),
            why_not: why_not.map(str::to_owned),
        };
        assert_eq!(of_the_engine(None), None);
        assert_eq!(of_the_engine(Some(&engine(None))), None);
        let doubted = of_the_engine(Some(&engine(Some("forbidden by seccomp")))).unwrap();
        assert_eq!(doubted.kind, DoubtKind::NotMeasured);
        assert!(doubted.text.contains("epoll") && doubted.text.contains("seccomp"), "{}", doubted.text);
    }

    #[test]
    fn a_slow_or_unmeasured_machine_is_doubted() {
        let of = |nanos| {
            let mut bare = BareRecv::default();
            (0..CARRIES_P99).for_each(|_| bare.latency.record(nanos));
            of_the_machine(&Ok(bare)).map(|doubt| doubt.kind)
        };
        assert_eq!(of(WAKE_NS / 2), None);
        assert_eq!(of(WAKE_NS * 2), Some(DoubtKind::SlowMachine));
        let refused = of_the_machine(&Err(io::Error::other("no loopback"))).unwrap();
        assert_eq!(refused.kind, DoubtKind::NotMeasured);
        assert!(refused.text.contains("no loopback"), "{}", refused.text);
        assert_eq!(of_the_machine(&Ok(BareRecv::default())), None);
    }

    #[test]
    fn a_late_injector_does_not_matter_where_latency_counts_from_the_last_beat() {
        let mut experiment = sound();
        (0..20).for_each(|_| experiment.ways[1].injector_late.record(2 * INJECTOR_LATE_NS));
        assert_eq!(kinds(&experiment, &Circumstances::default()), [].into());
    }

    #[test]
    fn a_sample_too_small_for_a_percentile_names_none() {
        let mut experiment = sound();
        let text = |experiment: &Experiment| {
            let doubts = of_an_experiment(experiment, &Circumstances::default());
            doubts.into_iter().find(|doubt| doubt.kind == DoubtKind::InjectorLate).unwrap().text
        };
        (0..20).for_each(|_| experiment.ways[0].injector_late.record(2 * INJECTOR_LATE_NS));
        assert!(text(&experiment).contains("at p99"), "{}", text(&experiment));
        experiment.ways[0].injector_late = Default::default();
        experiment.ways[0].injector_late.record(2 * INJECTOR_LATE_NS);
        assert!(!text(&experiment).contains("p99"), "{}", text(&experiment));
    }
}
