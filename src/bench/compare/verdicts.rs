//! Deaths that were caused, joined with deaths that were told.

use std::collections::HashMap;

use crate::bench::child::Line;
use crate::bench::connections::shuffled;
use crate::bench::experiment::verdicts::causes;
use crate::bench::peers::{Caused, Death};
use crate::measure::recorded::Recorded;
use crate::measure::result::{Detection, Way};

/// What came of some deaths.
pub(super) struct Joined {
    pub(super) detection: Detection,
    /// Told with another cause than that of the way in which they died.
    pub(super) misnamed: u64,
    /// Told before they were done.
    pub(super) early: u64,
    /// The latest verdict; 0 for none.
    pub(super) last_verdict: u64,
}

/// Joins both by the peer's address. The first verdict on a death counts.
pub(super) fn join<'a>(caused: &[Caused], told: impl Iterator<Item = &'a Line>) -> Joined {
    let mut open: HashMap<String, (&Caused, bool)> =
        caused.iter().map(|death| (death.peer.to_string(), (death, false))).collect();
    let detection = Detection {
        injected: caused.len() as u64,
        missed: 0,
        false_verdicts: 0,
        latency: Recorded::new(),
        injector_late: Recorded::new(),
    };
    let mut joined = Joined { detection, misnamed: 0, early: 0, last_verdict: 0 };
    for line in told {
        let Some((death, known)) = open.get_mut(&line.peer).filter(|(_, known)| !known) else {
            joined.detection.false_verdicts += 1;
            continue;
        };
        *known = true;
        joined.misnamed += u64::from(!causes(death.way).contains(&line.cause.as_str()));
        joined.early += u64::from(line.mono_ns < death.called);
        joined.last_verdict = joined.last_verdict.max(line.mono_ns);
        joined.detection.latency.record(line.mono_ns.saturating_sub(death.at));
    }
    for death in caused {
        joined.detection.injector_late.record(death.called.saturating_sub(death.at));
    }
    joined.detection.missed = joined.detection.injected - joined.detection.latency.count();
    joined
}

/// Deaths one after the other from `from` on, each at a random instant of its stretch: even ones would
/// keep step with the kernel's tick. Victims are drawn of `connections`, by the seed.
pub(super) fn schedule(
    connections: usize,
    deaths: usize,
    per_second: u64,
    from: u64,
    seed: u64,
    way: impl Fn(usize) -> Way,
) -> Vec<Death> {
    let spacing = 1e9 / per_second as f64;
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(5));
    shuffled(connections, seed.wrapping_add(4))
        .into_iter()
        .take(deaths)
        .enumerate()
        .map(|(turn, victim)| {
            let at = from + ((turn as f64 + random.f64()) * spacing) as u64;
            Death { at, victim, way: way(turn), fin_at: at }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caused(port: u16, way: Way) -> Caused {
        let peer = ([127, 0, 0, 2], port).into();
        Caused {
            peer,
            way,
            at: 1_000,
            fin_at: 1_000,
            called: 1_500,
            returned: 1_600,
            last_beat: 0,
            sent: Vec::new(),
        }
    }

    fn told(port: u16, cause: &str, mono_ns: u64) -> Line {
        let text =
            format!(r#"{{"event":"died","peer":"127.0.0.2:{port}","cause":"{cause}","mono_ns":{mono_ns}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_death_has_one_verdict_and_all_others_are_false() {
        let deaths = [caused(1, Way::Fin), caused(2, Way::Rst), caused(3, Way::Rst), caused(4, Way::Fin)];
        let lines = [
            told(1, "closed", 3_000),
            told(2, "closed", 9_000),
            told(3, "aborted", 1_400),
            told(1, "closed", 4_000),
            told(5, "aborted", 5_000),
        ];
        let Joined { detection, misnamed, early, last_verdict } = join(&deaths, lines.iter());
        assert_eq!((detection.injected, detection.missed, detection.false_verdicts), (4, 1, 2));
        assert_eq!((misnamed, early, last_verdict), (1, 1, 9_000));
        assert_eq!((detection.latency.min(), detection.latency.max()), (Some(400), Some(8_000)));
        assert_eq!(detection.injector_late.max(), Some(500));
    }

    #[test]
    fn a_schedule_is_the_same_for_the_same_seed_and_takes_nobody_twice() {
        let draw = |seed| schedule(50, 20, 1_000, 7_000, seed, |_| Way::Rst);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let deaths = draw(1);
        let victims: std::collections::BTreeSet<_> = deaths.iter().map(|death| death.victim).collect();
        assert_eq!(victims.len(), 20);
        assert!(deaths.is_sorted_by_key(|death| death.at));
        assert!(deaths.iter().all(|death| (7_000..20_007_000).contains(&death.at)));
    }
}
