//! When bytes are taken off, and which mark a socket has.

use super::*;

#[test]
fn in_beat_mode_a_calm_peer_is_drained_every_so_many_beats_and_a_stream_at_once() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Beat, 1));
    let mut now = START;
    let mut beat = |gap: u64, bytes: u32| {
        now = now + millis(gap);
        tracker.handle(peers[0], BYTES, now);
        let drained = matches!(actions(&mut tracker)[..], [Action::Drain { to_end: false, .. }]);
        if drained {
            tracker.handle(peers[0], Fact::Taken { bytes }, now);
            tracker.handle(peers[0], Fact::Emptied, now);
        }
        drained
    };
    // A newcomer is drained at every wake until four small drains came in a row.
    let newcomer: Vec<bool> = (0..4).map(|_| beat(100, 16)).collect();
    assert_eq!(newcomer, [true; 4]);
    for _ in 0..3 {
        let calm: Vec<bool> = (0..8).map(|_| beat(100, 128)).collect();
        assert_eq!(calm, [false, false, false, false, false, false, false, true]);
    }
    assert!(!beat(20, 16));
    assert!(beat(19, 16), "two wakes so close are a stream");
    // A large drain makes it a newcomer again.
    let mut wakes = 0;
    while !beat(100, 1 << 20) {
        wakes += 1;
    }
    assert_eq!(wakes, 7);
    assert_eq!((0..4).map(|_| beat(100, 16)).collect::<Vec<_>>(), [true; 4]);
    assert!(!beat(100, 16));
}

#[test]
fn in_lazy_mode_a_steady_peer_is_drained_shortly_before_it_would_wake_the_loop() {
    // 16 bytes every 100 ms: the mark of 1,024 bytes would be reached after 6.4 s. A peer that is drained more often than
    // it could be missed is looked at once, to learn its pace.
    for (policy, every, most_looks) in
        [(Policy::STRICT, 100, 16), (Policy::STANDARD, 100, 1), (Policy::STANDARD, 150, 1)]
    {
        let (mut tracker, peers) = with_peers(TrackerConfig::new(policy, 1));
        let (mut taken, mut drains, mut looks) = (0, Vec::new(), 0);
        while let Some(now) = tracker.next_due().filter(|&due| due <= after(60_000)) {
            let beats = now.since(START).as_millis() as u64 / every;
            let (received, last) = (beats * 16, after(beats * every));
            assert!(received - taken < 1_024, "it woke us at {} ms", now.since(START).as_millis());
            tracker.handle_time(now);
            while let Some(action) = tracker.poll_action() {
                match action {
                    Action::Drain { .. } => {
                        let bytes = received - taken;
                        taken = received;
                        drains.push(bytes);
                        tracker.handle(peers[0], Fact::Taken { bytes: bytes as u32 }, now);
                        tracker.handle(peers[0], Fact::Emptied, now);
                    }
                    Action::Inspect(_) => {
                        looks += 1;
                        tracker.handle(peers[0], Fact::Inspected(Evidence { received, ..heard(last) }), now);
                    }
                    action => panic!("{action:?} of a peer that beats"),
                }
            }
        }
        let [first, second, steady @ ..] = &drains[..] else { panic!("{drains:?}") };
        assert!(*first >= 100 && *second >= 100 && steady.iter().all(|bytes| *bytes >= 512), "{drains:?}");
        let least = usize::try_from(60_000 / every * 16 / 1_024).unwrap();
        assert!((least..=18).contains(&drains.len()), "{} drains", drains.len());
        assert!(looks <= most_looks, "{looks} looks in 60 s");
    }
}

#[test]
fn after_its_first_second_no_steady_peer_wakes_the_loop_whatever_it_began_with() {
    // Its first bytes are as many as you like and say nothing of its pace, and it begins at once or late.
    for (every, first, late) in (0..2_000).map(|n| (20 + 37 * n % 3_000, 16 + 97 * n % 5_000, 71 * n % 900)) {
        let (mut tracker, peers) = with_peers(TrackerConfig::new(Policy::STANDARD, 1));
        let (mut received, mut taken, mut drained, mut drains) = (0, 0, 0, 0);
        let (mut beat, mut last) = (late, START);
        loop {
            let due = tracker.next_due().unwrap();
            let now = due.min(after(beat));
            if now > after(60_000) {
                break;
            }
            if now < due {
                received += if beat == late { first } else { 16 };
                (beat, last) = (beat + every, now);
                if received - taken < 1_024 {
                    continue;
                }
                assert!(
                    now < after(1_063),
                    "{every} {first} {late}: it woke us after {:?}",
                    now.since(START)
                );
                tracker.handle(peers[0], BYTES, now);
            } else {
                tracker.handle_time(now);
            }
            while let Some(action) = tracker.poll_action() {
                match action {
                    Action::Drain { .. } => {
                        let bytes = received - taken;
                        (taken, drained, drains) = (received, drained + bytes, drains + 1);
                        if bytes > 0 {
                            tracker.handle(peers[0], Fact::Taken { bytes: bytes as u32 }, now);
                        }
                        tracker.handle(peers[0], Fact::Emptied, now);
                    }
                    Action::Inspect(_) => {
                        let evidence = Evidence { received, ..heard(last) };
                        tracker.handle(peers[0], Fact::Inspected(evidence), now);
                    }
                    action => panic!("{action:?} of a peer that beats"),
                }
            }
        }
        // Some to learn its pace; at a look, whose bytes are half a mark, and else three quarters.
        assert!(drains <= 6 + drained / 512, "{drains} drains for {drained} bytes, one in {every} ms");
    }
}

#[test]
fn a_peer_that_was_drained_at_its_mark_needs_no_first_look() {
    let (mut tracker, peers) = with_peers(TrackerConfig::new(Policy::STANDARD, 1));
    assert_eq!(tell(&mut tracker, peers[0], BYTES, after(900)), [drain(peers[0])]);
    tracker.handle(peers[0], Fact::Taken { bytes: 1_024 }, after(900));
    let due = tracker.next_due().unwrap();
    tracker.handle_time(due);
    assert_eq!(actions(&mut tracker), [drain(peers[0])], "as was foreseen");
}

#[test]
fn a_peer_without_bytes_is_looked_at_again_when_it_is_four_times_as_old() {
    let (mut tracker, peers) = with_peers(TrackerConfig::new(Policy::STANDARD, 1));
    let mut looks = Vec::new();
    while let Some(now) = tracker.next_due().filter(|&due| due < after(9_000)) {
        tracker.handle_time(now);
        for action in actions(&mut tracker) {
            assert_eq!(action, Action::Inspect(peers[0]));
            looks.push(now.since(START).as_millis());
            tracker.handle(peers[0], Fact::Inspected(Evidence::default()), now);
        }
    }
    assert_eq!(looks.len(), 2, "{looks:?}"); // its handshake is over after 10 s
    assert!((1_000..1_063).contains(&looks[0]) && (4_000..4_300).contains(&looks[1]), "{looks:?}");
}

#[test]
fn a_full_window_is_taken_off_and_then_the_peer_is_judged_after_all() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Beat, 1));
    let full = Evidence { received: 1 << 20, ..heard(START) };
    assert_eq!(tell(&mut tracker, peers[0], Fact::Inspected(full), after(7_000)), [drain(peers[0])]);
    tracker.handle(peers[0], Fact::Taken { bytes: 1 << 20 }, after(7_000));
    tracker.handle(peers[0], Fact::Emptied, after(7_000));
    assert_eq!(tracker.poll_event(), None);
    let done = run(&mut tracker, after(7_102), |_| full);
    assert_eq!(done.len(), 2, "a look and a close: {done:?}");
    assert_eq!(death(tracker.poll_event()).cause, Cause::HeartbeatExpired);
}

#[test]
fn a_peer_that_filled_its_window_while_the_loop_was_late_gets_the_time_to_go_on() {
    // 300 ms of silence where 100 are granted; no stall says so, it was too short for one.
    let policy = Policy { idle: millis(100), interval: millis(50), probes: 1, ..Policy::STRICT };
    let (mut tracker, peers) = with_peers(TrackerConfig::new(policy, 1));
    tracker.handle(peers[0], BYTES, after(50));
    tell(&mut tracker, peers[0], Fact::Taken { bytes: 1_024 }, after(50));
    let full = Evidence { received: 1 << 20, ..heard(after(60)) };
    assert_eq!(tell(&mut tracker, peers[0], Fact::Inspected(full), after(360)), [drain(peers[0])]);
    tracker.handle(peers[0], Fact::Taken { bytes: 1 << 19 }, after(361));
    tracker.handle(peers[0], Fact::Emptied, after(361));
    assert!(tracker.next_due().unwrap() >= after(460), "{:?}", tracker.next_due());
}

#[test]
fn in_beat_mode_bytes_that_lie_there_at_two_looks_are_taken_off() {
    for recovered in [false, true] {
        let config = TrackerConfig { wake: Wake::Beat, ..TrackerConfig::new(Policy::STANDARD, 1) };
        let (mut tracker, peers) = with_peers(config);
        for beat in 0..4 {
            tell(&mut tracker, peers[0], BYTES, after(100 * beat));
            tell(&mut tracker, peers[0], Fact::Taken { bytes: 16 }, after(100 * beat));
        }
        if recovered {
            tell(&mut tracker, peers[0], seen(300), after(21_000));
            tell(&mut tracker, peers[0], seen(21_000), after(21_000));
        }
        // It is calm. A window that fills in one stroke wakes once and never again.
        let full = if recovered { 22_000 } else { 1_000 };
        assert_eq!(tell(&mut tracker, peers[0], BYTES, after(full)), []);
        let patience = 2 * (limits::MAX_UNDRAINED + millis(63)); // on the grid
        let done = run(&mut tracker, after(full) + patience, |_| heard(after(full)));
        assert!(matches!(done[..], [(_, Action::Drain { to_end: false, .. })]), "{done:?}");
    }
}

#[test]
fn an_end_in_sight_is_drained_again_at_each_visit_until_it_comes() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    let shut = Evidence { tcp_state: TcpState::CloseWait, ..heard(START) };
    let to_end = [Action::Drain { peer: peers[0], to_end: true }];
    assert_eq!(tell(&mut tracker, peers[0], Fact::Ready(PollMask(0x2001)), after(100)), to_end);
    // That drain is under way: a look meanwhile begins no second.
    assert_eq!(tell(&mut tracker, peers[0], Fact::Inspected(shut), after(100)), []);
    for visit in 1..=3 {
        tracker.handle_time(after(100 + 101 * visit));
        assert_eq!(actions(&mut tracker), [Action::Inspect(peers[0])]);
        assert_eq!(tell(&mut tracker, peers[0], Fact::Inspected(shut), after(100 + 101 * visit)), to_end);
    }
    tracker.handle(peers[0], Fact::End(shut), after(500));
    assert_eq!(death(tracker.poll_event()).cause, Cause::Closed);
}

#[test]
fn a_low_water_mark_is_set_once_and_to_the_last_value_that_was_requested() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tracker.handle(peers[0], seen(0), after(4_500));
    tracker.handle(peers[0], seen(4_500), after(4_500));
    assert_eq!(kinds(&mut tracker), ["suspected", "recovered"]);
    let asked = actions(&mut tracker);
    assert_eq!(asked.iter().filter(|action| matches!(action, Action::SetLowWater { .. })).count(), 1);
    assert_eq!(asked[0], Action::SetLowWater { peer: peers[0], bytes: tracker.config().unread });
}

#[test]
fn the_end_is_drained_instead_of_the_rest() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
    tracker.handle(peers[0], BYTES, after(1));
    assert_eq!(
        tell(&mut tracker, peers[0], Fact::Ready(PollMask(0x2001)), after(1)),
        [Action::Drain { peer: peers[0], to_end: true }]
    );
}
