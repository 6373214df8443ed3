//! The oracle's own test: everything that a tracker can get wrong is planted, and must be found.

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const DETECTION: u64 = 1_250 * MS;
const FRAME: Frame = Frame { start: SECOND, end: 31 * SECOND, detection: DETECTION, connections: 10 };

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], 40_000 + number))
}

/// Peer `number` dies at 10 s; it last beat 100 ms before.
fn caused(number: u16, way: Way) -> Caused {
    let at = 10 * SECOND;
    Caused {
        peer: peer(number),
        way,
        at,
        fin_at: if way == Way::HalfCloseRst { at - 200 * MS } else { at },
        called: at + 1_000,
        returned: at + 11_000,
        last_beat: at - 100 * MS,
        sent: vec![(at - 600 * MS, 16), (at - 100 * MS, 32), (at + MS, 48)],
    }
}

fn reported(number: u16, kind: ReportedKind, at: u64, cause: &str) -> ReportedEvent {
    ReportedEvent { kind, peer: peer(number), at, cause: cause.into(), bytes: 32 }
}

/// What a tracker without fault tells of that death.
fn truth(number: u16, way: Way) -> Vec<ReportedEvent> {
    let at = 10 * SECOND;
    let expiry = at - 100 * MS + DETECTION + 3 * MS;
    let grace = at + SECOND;
    match way {
        Way::Fin | Way::HalfClose => {
            vec![
                reported(number, ReportedKind::HalfClosed, at + 50_000, ""),
                reported(number, ReportedKind::Died, grace, "closed"),
            ]
        }
        Way::Rst | Way::DataRst => vec![reported(number, ReportedKind::Died, at + 50_000, "aborted")],
        Way::HalfCloseRst => vec![
            reported(number, ReportedKind::HalfClosed, at - 200 * MS + 50_000, ""),
            reported(number, ReportedKind::Died, at + 50_000, "aborted"),
        ],
        Way::Silence | Way::Stop | Way::PathLoss => vec![
            reported(number, ReportedKind::Suspected, expiry - 250 * MS, ""),
            reported(number, ReportedKind::Died, expiry, "heartbeat_expired"),
        ],
    }
}

fn one(way: Way, events: &[ReportedEvent]) -> (WayResult, Quality) {
    let (mut results, quality) = judge(&[way], &[caused(1, way)], events, FRAME);
    (results.remove(0), quality)
}

fn mistakes(result: &WayResult) -> [u64; 4] {
    [result.missed, result.doubled, result.misnamed, result.early]
}

#[test]
fn a_true_account_has_no_mistakes_and_its_latency_counts_from_the_basis() {
    for way in Way::ALL {
        let (result, quality) = one(way, &truth(1, way));
        assert_eq!(mistakes(&result), [0; 4], "{way}");
        assert_eq!((result.injected, result.told), (1, 1), "{way}");
        let expected = if way.basis() == Basis::Scheduled { 50_000 } else { 3 * MS };
        assert_eq!(result.latency.max(), Some(expected), "{way}");
        assert_eq!(result.injector_late.max(), Some(1_000), "{way}");
        let silence = result.silence.as_ref().and_then(Recorded::max);
        let whole = (way.basis() == Basis::Expiry).then_some(DETECTION + 3 * MS);
        assert_eq!(silence, whole, "{way}");
        assert_eq!((quality.mistakes, quality.false_verdicts), (0, 0), "{way}");
        let in_intervals: u64 = result.intervals.iter().map(|interval| interval.latency.count()).sum();
        assert_eq!(in_intervals, 1, "{way}");
    }
}

#[test]
fn a_death_that_is_not_told_is_missed() {
    for way in Way::ALL {
        let mut events = truth(1, way);
        events.retain(|event| !matches!(event.kind, ReportedKind::Died | ReportedKind::HalfClosed));
        assert_eq!(mistakes(&one(way, &events).0), [1, 0, 0, 0], "{way}");
    }
}

#[test]
fn a_death_that_is_told_twice_is_doubled() {
    for way in Way::ALL {
        let mut events = truth(1, way);
        events.extend(events.last().cloned());
        assert_eq!(mistakes(&one(way, &events).0), [0, 1, 0, 0], "{way}");
    }
}

#[test]
fn a_death_with_another_cause_is_misnamed() {
    for way in Way::ALL {
        let mut events = truth(1, way);
        events.last_mut().unwrap().cause = "local".into();
        assert_eq!(mistakes(&one(way, &events).0), [0, 0, 1, 0], "{way}");
    }
}

#[test]
fn a_reset_after_a_fin_that_was_not_noticed_is_misnamed() {
    let mut events = truth(1, Way::HalfCloseRst);
    events.remove(0);
    assert_eq!(mistakes(&one(Way::HalfCloseRst, &events).0), [0, 0, 1, 0]);
}

#[test]
fn a_half_close_that_no_death_follows_is_misnamed() {
    for way in [Way::Fin, Way::HalfClose] {
        let mut events = truth(1, way);
        events.retain(|event| event.kind == ReportedKind::HalfClosed);
        let (result, _) = one(way, &events);
        assert_eq!((mistakes(&result), result.told), ([0, 0, 1, 0], 1), "{way}");
    }
}

#[test]
fn a_fin_may_be_told_as_a_death_at_once() {
    for way in [Way::Fin, Way::HalfClose] {
        let at = 10 * SECOND + 50_000;
        let (result, _) = one(way, &[reported(1, ReportedKind::Died, at, "closed")]);
        assert_eq!((mistakes(&result), result.latency.max()), ([0; 4], Some(50_000)), "{way}");
    }
}

#[test]
fn a_half_close_of_a_peer_that_sent_no_fin_is_misnamed() {
    for way in [Way::Rst, Way::DataRst, Way::Silence, Way::Stop, Way::PathLoss] {
        let mut events = truth(1, way);
        let at = events.last().unwrap().at - 1;
        events.insert(0, reported(1, ReportedKind::HalfClosed, at, ""));
        assert_eq!(mistakes(&one(way, &events).0), [0, 0, 1, 0], "{way}");
    }
}

#[test]
fn silence_that_is_judged_before_the_detection_time_is_early_and_in_no_percentile() {
    for way in [Way::Silence, Way::Stop, Way::PathLoss] {
        let mut events = truth(1, way);
        events.last_mut().unwrap().at -= 4 * MS;
        let (result, _) = one(way, &events);
        assert_eq!(mistakes(&result), [0, 0, 0, 1], "{way}");
        assert_eq!((result.told, result.latency.count()), (0, 0), "{way}");
    }
}

#[test]
fn a_verdict_before_the_call_that_caused_the_death_is_one_on_the_living() {
    for way in [Way::Fin, Way::Rst, Way::DataRst, Way::HalfClose] {
        let at = 10 * SECOND + 999;
        let (result, quality) = one(way, &[reported(1, ReportedKind::Died, at, "aborted")]);
        assert_eq!((result.early, result.told), (1, 0), "{way}");
        assert_eq!((quality.mistakes, quality.false_verdicts), (1, 1), "{way}");
    }
}

#[test]
fn which_beat_arrived_before_the_path_was_lost_is_told_by_the_bytes() {
    let expiry = |last: u64| last + DETECTION + 3 * MS;
    for (bytes, last) in [(16, 9_400 * MS), (31, 9_400 * MS), (32, 9_900 * MS), (48, 10_001 * MS)] {
        let mut death = reported(1, ReportedKind::Died, expiry(last), "heartbeat_expired");
        death.bytes = bytes;
        let (result, _) = one(Way::PathLoss, &[death]);
        assert_eq!(result.latency.max(), Some(3 * MS), "{bytes} bytes");
    }
}

#[test]
fn a_living_peer_that_is_called_dead_is_a_false_verdict_without_end() {
    let (_, quality) = one(Way::Rst, &[reported(2, ReportedKind::Died, 5 * SECOND, "heartbeat_expired")]);
    assert_eq!((quality.mistakes, quality.false_verdicts, quality.mistake_duration.count()), (1, 1, 0));
}

#[test]
fn a_suspicion_that_is_taken_back_is_a_mistake_with_a_duration() {
    let events = [
        reported(2, ReportedKind::Suspected, 5 * SECOND, ""),
        reported(2, ReportedKind::Recovered, 5 * SECOND + 70 * MS, ""),
    ];
    let (_, quality) = one(Way::Rst, &events);
    assert_eq!((quality.mistakes, quality.false_verdicts), (1, 0));
    assert_eq!(quality.mistake_duration.max(), Some(70 * MS));
}

#[test]
fn a_suspicion_that_the_peers_death_overtakes_ends_with_it() {
    let mut events = vec![reported(1, ReportedKind::Suspected, 9 * SECOND, "")];
    events.extend(truth(1, Way::Rst));
    let (result, quality) = one(Way::Rst, &events);
    assert_eq!(mistakes(&result), [0; 4]);
    assert_eq!(quality.mistakes, 1);
    assert_eq!(quality.mistake_duration.max(), Some(SECOND + 1_000));
}

#[test]
fn suspicion_of_a_peer_that_has_fallen_silent_is_none_of_the_mistakes() {
    let (_, quality) = one(Way::Silence, &truth(1, Way::Silence));
    assert_eq!(quality.mistakes, 0);
}

#[test]
fn the_living_are_watched_to_the_end_and_the_dead_until_they_died() {
    let (_, quality) = one(Way::Rst, &truth(1, Way::Rst));
    assert_eq!(quality.watched_ns, 9 * 30 * SECOND + 9 * SECOND);
}
