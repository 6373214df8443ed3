//! Joins the deaths that were caused with the deaths that were reported.

use std::collections::HashMap;

use crate::bench::child::Line;
use crate::bench::experiment::verdicts::causes;
use crate::bench::peers::Caused;
use crate::measure::result::Detection;

#[derive(Default)]
pub(super) struct Joined {
    pub(super) detection: Detection,
    /// The number of verdicts with another cause than that of the way to die.
    pub(super) misnamed: u64,
    pub(super) early: u64,
    /// The instant of the last verdict; 0 for none.
    pub(super) last_verdict: u64,
}

/// Joins both by the peer's address. The first verdict on a death counts.
pub(super) fn join<'a>(caused: &[Caused], told: impl Iterator<Item = &'a Line>) -> Joined {
    let mut open: HashMap<String, (&Caused, bool)> =
        caused.iter().map(|death| (death.peer.to_string(), (death, false))).collect();
    let mut joined = Joined::default();
    joined.detection.injected = caused.len() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::result::Way;

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
}
