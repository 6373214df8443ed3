//! Behaviour that takes a story of its own to tell.

use super::*;

#[test]
fn a_suspect_is_asked_once_an_interval_and_a_stall_puts_that_off() {
    let mut probes = Vec::new();
    for stall in [0, 3_000] {
        let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Beat, 1));
        tracker.handle(peers[0], PONG, START);
        let mut done = run(&mut tracker, after(4_500), |_| heard(START));
        if stall > 0 {
            tracker.handle_stall(after(4_500), after(4_500 + stall));
        }
        done.extend(run(&mut tracker, after(20_000), |_| heard(START)));
        let asked = done.into_iter().filter_map(|(at, action)| match action {
            Action::Probe { sequence, .. } => Some((sequence, at.since(START).as_millis() as u64)),
            _ => None,
        });
        probes.push(asked.collect::<Vec<_>>());
        assert_eq!(tracker.counts().died[usize::from(Cause::HeartbeatExpired.code())], 1);
    }
    for (number, (sequence, at)) in probes[0].iter().enumerate() {
        assert_eq!(*sequence as usize, number + 1);
        // The grid of suspicions, and the wheel's millisecond.
        assert!((4_000 + 1_000 * number as u64..=4_064 + 1_000 * number as u64).contains(at), "{at}");
    }
    assert_eq!(probes[0].len(), 3);
    assert_eq!(probes[1][0], probes[0][0]);
    for (late, early) in probes[1].iter().zip(&probes[0]).skip(1) {
        assert_eq!((late.0, late.1), (early.0, early.1 + 3_000));
    }
}

#[test]
fn a_turn_visits_a_bounded_number_and_forgets_no_peer() {
    let capacity = 2 * limits::VISITS_AT_ONCE + 10;
    let (mut tracker, _) = with_peers(config(Heartbeat::Bytes, Wake::Beat, capacity));
    let mut visited = Vec::new();
    let mut now = after(60_000);
    for expected in [limits::VISITS_AT_ONCE, limits::VISITS_AT_ONCE, 10, 0] {
        tracker.handle_time(now);
        let asked = actions(&mut tracker);
        assert_eq!(asked.len(), expected);
        visited.extend(asked.iter().map(|action| match action {
            Action::Inspect(peer) => peer.index(),
            action => panic!("{action:?} at a visit"),
        }));
        now = now + millis(1);
    }
    visited.sort_unstable();
    assert!(visited.into_iter().eq(0..capacity as u32));
}

#[test]
fn no_verdict_is_a_nanosecond_early() {
    let nanosecond = Duration::from_nanos(1);
    for heartbeat in [Heartbeat::Bytes, Heartbeat::None] {
        let (mut tracker, peers) = with_peers(config(heartbeat, Wake::Lazy, 1));
        tracker.handle(peers[0], seen(0), after(4_000) - nanosecond);
        assert_eq!(tracker.poll_event(), None);
        tracker.handle(peers[0], seen(0), after(4_000));
        assert_eq!(kinds(&mut tracker), ["suspected"]);
        tracker.handle(peers[0], seen(0), after(7_000) - nanosecond);
        assert_eq!(tracker.poll_event(), None);
        tracker.handle(peers[0], seen(0), after(7_000));
        assert_eq!(kinds(&mut tracker), ["died"]);
    }
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tracker.handle(peers[0], Fact::Inspected(Evidence::default()), after(5_000) - nanosecond);
    assert_eq!(tracker.poll_event(), None);
    tracker.handle(peers[0], Fact::Inspected(Evidence::default()), after(5_000));
    assert_eq!(death(tracker.poll_event()).cause, Cause::HandshakeExpired);
}

#[test]
fn a_frame_that_came_after_the_drain_began_is_looked_for_before_the_verdict() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Lazy, 1));
    tell(&mut tracker, peers[0], PONG, START);
    // The drain of a visit at 6.9 s ends when the detection time is over.
    tracker.handle_time(after(6_900));
    assert_eq!(actions(&mut tracker), [drain(peers[0])]);
    tracker.handle(peers[0], Fact::Emptied, after(7_100));
    tracker.handle(peers[0], seen(7_050), after(7_100));
    assert_eq!(kinds(&mut tracker), ["suspected"], "its silence is known up to 6.9 s");
    actions(&mut tracker);
    // The next drain finds it.
    tracker.handle_time(after(7_101));
    actions(&mut tracker);
    tracker.handle(peers[0], PONG, after(7_102));
    tracker.handle(peers[0], Fact::Emptied, after(7_102));
    tracker.handle(peers[0], seen(7_050), after(7_102));
    assert_eq!(kinds(&mut tracker), ["recovered"]);
}

#[test]
fn a_partial_frame_puts_no_deadline_off() {
    for wake in [Wake::Lazy, Wake::Beat] {
        let (mut tracker, peers) =
            with_peers(TrackerConfig { dead_kept: 1, ..config(Heartbeat::Frames, wake, 1) });
        tracker.handle(peers[0], PONG, START);
        let done = run(&mut tracker, after(8_000), |_| heard(START + millis(3_000)));
        assert!(done.iter().any(|(_, action)| matches!(action, Action::Drain { .. })));
        assert_eq!(kinds(&mut tracker), ["suspected", "died"]);
        let death = *tracker.dead().next().expect("it died");
        assert_eq!(death.proof.last_life, START);
        assert_eq!(death.deadline, Some(after(7_000)));
    }
}

#[test]
fn evidence_that_is_dated_after_now_counts_as_now() {
    // The kernel's tick may be ahead of the hour that the turn has read.
    for heartbeat in [Heartbeat::Bytes, Heartbeat::None] {
        let (mut tracker, peers) = with_peers(config(heartbeat, Wake::Lazy, 1));
        tracker.handle(peers[0], seen(2_004), after(2_000));
        assert_eq!(tracker.peer(peers[0]).map(|view| view.last_life), Some(after(2_000)));
    }
}

#[test]
fn a_suspend_longer_than_the_detection_time_puts_off_by_no_more() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tracker.handle(peers[0], seen(0), START);
    tracker.handle_suspend(after(1_000), Duration::from_secs(86_400));
    run(&mut tracker, after(13_990), |_| heard(START));
    assert_eq!(kinds(&mut tracker), ["stall", "suspected"]);
    run(&mut tracker, after(14_001), |_| heard(START));
    assert_eq!(kinds(&mut tracker), ["died"]);
}

#[test]
fn a_fin_that_waits_for_the_sink_is_told_soon_after_it_took_something() {
    let policy = Policy { half_closed_grace: millis(2_000), ..policy(Heartbeat::Bytes) };
    let mut tracker = Tracker::new(TrackerConfig::new(policy, 1), START);
    let peer = tracker.accept(address(0), 0, START).expect("there is room");
    tell(&mut tracker, peer, seen(0), after(4_500));
    tell(&mut tracker, peer, seen(5_000), after(5_000));
    let shut = Evidence { tcp_state: TcpState::CloseWait, ..heard(after(5_000)) };
    tell(&mut tracker, peer, Fact::End(shut), after(6_000));
    run(&mut tracker, after(30_000), |_| shut);
    assert_eq!(kinds(&mut tracker), ["up", "suspected", "recovered"]);
    run(&mut tracker, after(30_102), |_| shut);
    assert_eq!(kinds(&mut tracker), ["half_closed"], "and no silence is held against it meanwhile");
    run(&mut tracker, after(32_000), |_| shut);
    assert_eq!(tracker.poll_event(), None, "its grace begins when that is told");
    run(&mut tracker, after(32_200), |_| shut);
    assert_eq!(death(tracker.poll_event()).cause, Cause::Closed);
}

#[test]
fn a_stuck_sink_costs_no_transition_and_each_has_its_own_time() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    for round in 0..5 {
        let base = 10_000 * round;
        tracker.handle(peers[0], seen(base), after(base + 5_000));
        tell(&mut tracker, peers[0], seen(base + 6_000), after(base + 6_000));
    }
    // Three wait; what comes then is held back until there is room, and is still true then.
    let told = events(&mut tracker);
    assert_eq!(told.len(), 3);
    // Newer life has come since: the idle time is what is certain.
    assert_eq!(told[0].kind, EventKind::Suspected { silent_for: millis(4_000), doubt: false });
    let EventKind::Recovered { suspected_for } = told[1].kind else { panic!("{told:?}") };
    assert_eq!(suspected_for, millis(1_000));
    assert_eq!(told[2].at.since(told[1].at), millis(9_000));
    assert_eq!(tracker.peer(peers[0]).expect("it lives").state, State::Suspect);
}

#[test]
fn a_recovery_that_waits_for_the_sink_still_knows_for_how_long_it_was_suspect() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tell(&mut tracker, peers[0], seen(0), after(5_000));
    assert!(matches!(tracker.poll_event(), Some(Event { kind: EventKind::Suspected { .. }, .. })));
    tell(&mut tracker, peers[0], seen(6_000), after(6_000));
    tell(&mut tracker, peers[0], seen(6_000), after(11_000));
    tell(&mut tracker, peers[0], seen(12_000), after(12_000)); // would push the first suspicion out
    tell(&mut tracker, peers[0], Fact::Bye(heard(after(12_000))), after(13_000));
    let told = events(&mut tracker);
    let EventKind::Recovered { suspected_for } = told[0].kind else { panic!("{told:?}") };
    assert_eq!(suspected_for, millis(1_000));
    assert_eq!(told.len(), 3, "recovered, suspected, died: {told:?}");
}

#[test]
fn an_identity_belongs_to_one_connection() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Lazy, 1));
    let name = Identity::new("sensor-7").expect("it is a fit name");
    tracker.handle(peers[0], Fact::Hello(name), START);
    tell(&mut tracker, peers[0], Fact::Bye(heard(START)), START);
    let named = |event: Option<Event>| event?.subject?.identity;
    assert_eq!(named(tracker.poll_event()).as_deref(), Some("sensor-7"));
    tracker.release(peers[0]);
    let next = tracker.accept(address(9), 3, START).expect("the place is free");
    assert_eq!((next.index(), next == peers[0]), (peers[0].index(), false));
    let up = tracker.poll_event();
    assert_eq!(
        up.as_ref().and_then(|up| up.subject.as_ref()).map(|subject| (subject.peer, subject.local)),
        Some((next, 3))
    );
    assert_eq!(named(up), None);
}

#[test]
fn deaths_are_kept_in_order_and_none_is_dropped_before_its_event_was_taken() {
    let few = TrackerConfig { dead_kept: 3, ..config(Heartbeat::Bytes, Wake::Lazy, 10) };
    let (mut tracker, peers) = with_peers(few);
    for peer in &peers {
        tracker.handle(*peer, Fact::Bye(heard(START)), START);
    }
    actions(&mut tracker);
    assert_eq!(tracker.dead().count(), 10);
    for (taken, peer) in peers.iter().enumerate() {
        assert_eq!(death(tracker.poll_event()).peer, *peer);
        let left: Vec<PeerId> = tracker.dead().map(|death| death.peer).collect();
        assert_eq!(left, peers[(taken + 1).saturating_sub(3)..]);
    }
}

#[test]
fn stalls_whose_events_are_not_taken_are_summed_up() {
    let mut tracker = Tracker::new(config(Heartbeat::Bytes, Wake::Lazy, 1), START);
    for round in 0..100 {
        tracker.handle_stall(after(2_000 * round), after(2_000 * round + 700));
    }
    let told = events(&mut tracker);
    assert!(told.len() <= 16, "{} events wait", told.len());
    let held = told.iter().map(|event| match event.kind {
        EventKind::Stall { held } => held,
        ref kind => panic!("{kind:?} of a stall"),
    });
    assert_eq!(held.sum::<Duration>(), millis(70_000));
}

#[test]
#[should_panic(expected = "released once")]
fn a_second_release_is_refused() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tell(&mut tracker, peers[0], Fact::Bye(heard(START)), START);
    tracker.release(peers[0]);
    tracker.release(peers[0]);
}

#[test]
#[should_panic(expected = "State::Dead")]
fn the_living_are_not_released() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tracker.release(peers[0]);
}

#[test]
fn a_silent_peer_is_found_dead_however_often_the_loop_stalls() {
    let (mut tracker, peers) = with_peers(TrackerConfig::new(Policy::STANDARD, 1));
    tracker.handle(peers[0], seen(0), START);
    for round in 0..200 {
        run(&mut tracker, after(4_000 * round + 3_400), |_| heard(START));
        tracker.handle_stall(after(4_000 * round + 3_400), after(4_000 * round + 4_000));
    }
    // 32 s in which we were there, and the stalls of 600 ms in between.
    let died = tracker.dead().next().map(|death| death.at.since(START));
    assert!(died.is_some_and(|died| died >= millis(32_000) && died < millis(40_000)), "{died:?}");
}

#[test]
fn a_peer_that_falls_silent_after_a_thousand_stalls_is_found_dead_in_time() {
    let (mut tracker, peers) = with_peers(TrackerConfig::new(Policy::STANDARD, 1));
    let beat = |round: u64| heard(after(4_000 * round));
    for round in 0..1_000 {
        tracker.handle(peers[0], Fact::Inspected(beat(round)), after(4_000 * round));
        run(&mut tracker, after(4_000 * round + 3_400), |_| beat(round));
        tracker.handle_stall(after(4_000 * round + 3_400), after(4_000 * round + 4_000));
    }
    let silent_since = after(4_000 * 999);
    for round in 1_000..1_020 {
        run(&mut tracker, after(4_000 * round + 3_400), |_| heard(silent_since));
        tracker.handle_stall(after(4_000 * round + 3_400), after(4_000 * round + 4_000));
    }
    let died = tracker.dead().next().map(|death| death.at.since(silent_since));
    assert!(died.is_some_and(|died| died >= millis(32_000) && died < millis(40_000)), "{died:?}");
}

#[test]
fn a_look_that_was_not_requested_recovers_no_peer_that_is_judged_by_frames() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Lazy, 1));
    tracker.handle(peers[0], PONG, START);
    run(&mut tracker, after(5_500), |_| heard(START));
    assert_eq!(kinds(&mut tracker), ["suspected"]);
    tracker.handle(peers[0], seen(0), after(5_600));
    assert_eq!(tracker.poll_event(), None);
}

#[test]
fn a_quiet_peer_that_answers_its_probes_is_no_suspect() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Lazy, 1));
    let mut now = START;
    tracker.handle(peers[0], PONG, now);
    for _ in 0..10 {
        let heard_at = now;
        now = now + millis(4_100);
        let done = run(&mut tracker, now, |_| heard(heard_at));
        let probes = done.iter().filter(|(_, action)| matches!(action, Action::Probe { sequence: 1, .. }));
        assert_eq!(probes.count(), 1, "{done:?}");
        assert!(done.iter().any(|(_, action)| matches!(action, Action::SetLowWater { bytes: 1, .. })));
        tracker.handle(peers[0], BYTES, now);
        let asked = tell(&mut tracker, peers[0], PONG, now);
        assert!(matches!(asked[0], Action::SetLowWater { bytes: 1_024, .. }), "{asked:?}");
        assert_eq!(tracker.peer(peers[0]).unwrap().state, State::Alive);
    }
    assert_eq!(kinds(&mut tracker), [""; 0]);
    assert_eq!((tracker.counts().suspected, tracker.counts().recovered), (0, 0));
    // The first probe that goes unanswered for its interval is a suspicion; the verdict comes when it always did.
    run(&mut tracker, now + millis(4_990), |_| heard(now));
    assert_eq!(tracker.poll_event(), None);
    run(&mut tracker, now + millis(5_100), |_| heard(now));
    let suspected = tracker.poll_event().expect("it is suspected");
    assert!(matches!(suspected.kind, EventKind::Suspected { silent_for, .. } if silent_for >= millis(5_000)));
    run(&mut tracker, now + millis(7_001), |_| heard(now));
    let death = death(tracker.poll_event());
    assert_eq!((death.cause, death.deadline), (Cause::HeartbeatExpired, Some(now + millis(7_000))));
}

#[test]
fn the_silence_of_an_adopted_socket_counts_from_its_adoption() {
    for heartbeat in [Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None] {
        let (mut tracker, peers) = with_peers(config(heartbeat, Wake::Lazy, 1));
        tracker.adopted(peers[0], 16);
        if heartbeat == Heartbeat::Frames {
            tracker.handle(peers[0], PONG, START);
        }
        let long_ago = heard(START - millis(60_000));
        run(&mut tracker, after(6_990), |_| Evidence { last_ack: START, ..long_ago });
        assert!(!kinds(&mut tracker).contains(&"died"), "{heartbeat:?}");
        run(&mut tracker, after(7_100), |_| Evidence { last_ack: START, ..long_ago });
        let death = death(tracker.poll_event());
        assert_eq!((death.deadline, death.proof.last_life), (Some(after(7_000)), START), "{heartbeat:?}");
    }
}

#[test]
fn a_reported_silence_is_no_longer_than_the_peers_life() {
    for heartbeat in [Heartbeat::Bytes, Heartbeat::None] {
        let (mut tracker, _) = with_peers(config(heartbeat, Wake::Lazy, 1));
        // It waited for its accept, and spoke before it.
        run(&mut tracker, after(10_000), |_| heard(START - millis(60_000)));
        let told = events(&mut tracker).pop();
        let death = death(told);
        assert_eq!((death.proof.last_life, death.accepted_at), (START, START));
        assert_eq!(death.silent_for(), death.at.since(death.accepted_at));
    }
}

/// Two peers; the second gives the identity of the first.
fn twins(on_duplicate: OnDuplicate) -> (Tracker, Vec<PeerId>) {
    let mut tracker =
        Tracker::new(TrackerConfig { on_duplicate, ..config(Heartbeat::Frames, Wake::Lazy, 3) }, START);
    let accept = |number| tracker.accept(address(number), 0, START).expect("there is room");
    let peers: Vec<PeerId> = (0..2).map(accept).collect();
    for (peer, time) in peers.iter().zip([1_000, 2_000]) {
        tracker.handle(*peer, Fact::Hello(Identity::new("sensor-7").expect("it is a fit name")), after(time));
    }
    tracker.audit();
    (tracker, peers)
}

#[test]
fn an_identity_that_is_in_use_is_told_with_its_older_peer() {
    let (mut tracker, peers) = twins(OnDuplicate::Keep);
    let told = events(&mut tracker);
    let kinds: Vec<_> = told.iter().map(|event| event.kind.clone()).collect();
    let duplicate = EventKind::Duplicate { of: peers[0], address: address(0) };
    assert_eq!(kinds, [EventKind::Up, EventKind::Up, duplicate]);
    let subject = told[2].subject.as_ref().expect("it is about a peer");
    assert_eq!(
        (subject.peer, subject.identity.as_deref(), told[2].at),
        (peers[1], Some("sensor-7"), after(2_000))
    );
    assert!(!actions(&mut tracker).iter().any(|action| matches!(action, Action::Inspect(_))));
    assert_eq!(tracker.counts().living, 2);
    // The same peer may say it again, and an identity is free when its peer is dead.
    let hello = Fact::Hello(Identity::new("sensor-7").expect("it is a fit name"));
    tracker.handle(peers[1], hello, after(2_100));
    tracker.handle(peers[1], Fact::Bye(heard(after(2_200))), after(2_200));
    tracker.handle(peers[0], Fact::Bye(heard(after(2_200))), after(2_200));
    let third = tracker.accept(address(3), 0, after(2_300)).expect("there is room");
    tracker.handle(third, hello, after(2_300));
    tracker.audit();
    assert!(!events(&mut tracker).iter().any(|event| matches!(event.kind, EventKind::Duplicate { .. })));
}

#[test]
fn an_older_peer_of_the_same_identity_is_replaced_if_that_is_asked_for() {
    let (mut tracker, peers) = twins(OnDuplicate::Replace);
    assert!(actions(&mut tracker).contains(&Action::Inspect(peers[0])), "a death has a proof");
    tracker.handle(peers[0], seen(1_000), after(2_001));
    assert!(actions(&mut tracker).contains(&Action::Close { peer: peers[0], abort: true }));
    let told = events(&mut tracker);
    let EventKind::Died(death) = &told[1].kind else { panic!("{told:?}") };
    assert_eq!((death.peer, death.cause), (peers[0], Cause::Local(LocalCause::Replaced)));
    assert_eq!(death.proof.evidence, heard(after(1_000)));
    tracker.audit();
    assert_eq!(tracker.counts().living, 1);
}

#[test]
fn a_duplicate_is_told_before_its_death_however_late_the_sink_takes_it() {
    let (mut tracker, peers) = twins(OnDuplicate::Keep);
    tracker.handle(peers[1], Fact::Bye(heard(after(2_000))), after(2_000));
    let mine = |event: &Event| event.subject.as_ref().is_some_and(|subject| subject.peer == peers[1]);
    actions(&mut tracker);
    tracker.release(peers[1]);
    let told: Vec<_> = events(&mut tracker).into_iter().filter(mine).map(|event| event.kind).collect();
    assert!(matches!(told[..], [EventKind::Up, EventKind::Duplicate { .. }, EventKind::Died(_)]), "{told:?}");
    tracker.audit();
    assert_eq!(tracker.len(), 1);
}

#[test]
fn a_death_without_evidence_keeps_the_known_life() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::None, Wake::Lazy, 1));
    tracker.handle(peers[0], seen(1_000), after(1_000));
    let gone = Evidence { tcp_state: TcpState::Close, ..Evidence::default() };
    tracker.handle(peers[0], Fact::Failed { errno: libc::EBADF, evidence: gone }, after(2_000));
    assert_eq!(death(tracker.poll_event()).proof.last_life, after(1_000));
}
