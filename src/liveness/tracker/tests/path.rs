//! What the socket tells of the path and of the peer's kernel, and when many fall silent at once.

use super::*;

#[test]
fn half_of_all_silent_at_once_are_one_outage_told_before_their_deaths() {
    let silent = |_| Evidence { probes: 2, ..heard(START) };
    for (dying, peers_in_all, told) in [(16, 32, true), (15, 20, false), (16, 34, false)] {
        let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Beat, peers_in_all));
        let mut now = START;
        run(&mut tracker, after(10), silent);
        while now < after(20_000) {
            now = now + millis(10);
            run(
                &mut tracker,
                now,
                |peer| {
                    if (peer.index() as usize) < dying { silent(peer) } else { heard(now) }
                },
            );
        }
        let mut before = 0;
        let (mut outages, mut marked) = (Vec::new(), 0);
        for event in events(&mut tracker) {
            match event.kind {
                EventKind::PathOutage { suspects, peers } => outages.push((suspects, peers, before)),
                EventKind::Died(death) => {
                    before += 1;
                    marked += usize::from(death.proof.outage);
                    assert_eq!(death.proof.transport, Transport::Silent);
                }
                _ => {}
            }
        }
        assert_eq!(before, dying, "{peers:?}");
        if told {
            assert_eq!(outages, [(16, 32, 0)]);
            assert_eq!(marked, 16, "a peer that dies of the outage does not end it for the others");
        } else {
            assert_eq!((outages.len(), marked), (0, 0));
        }
    }
}

#[test]
fn peers_whose_kernels_answer_are_no_outage() {
    let (mut tracker, _) = with_peers(config(Heartbeat::Bytes, Wake::Beat, 20));
    let mut now = START;
    while now < after(20_000) {
        now = now + millis(10);
        run(&mut tracker, now, |_| Evidence { last_ack: now, ..heard(START) });
    }
    let told = kinds(&mut tracker);
    assert_eq!(told.iter().filter(|kind| **kind == "died").count(), 20);
    assert!(!told.contains(&"path_outage"));
}

#[test]
fn the_proof_says_what_the_peers_kernel_did_meanwhile() {
    let life = START;
    let cases = [
        (Evidence { last_ack: after(4_010), ..heard(life) }, Transport::Answering),
        (Evidence { last_ack: after(500), ..heard(life) }, Transport::Silent), // that was still its data's
        (Evidence { probes: 1, ..heard(life) }, Transport::Silent),
        (Evidence { unacked: 1, retransmits: 4, ..heard(life) }, Transport::Silent),
        (Evidence { unacked: 1, ..heard(life) }, Transport::Unasked), // keepalive rests meanwhile
    ];
    for (evidence, transport) in cases {
        let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Beat, 1));
        tracker.handle(peers[0], Fact::Inspected(evidence), after(7_000));
        let death = death(tracker.poll_event());
        assert_eq!(
            (death.cause, death.proof.transport),
            (Cause::HeartbeatExpired, transport),
            "{evidence:?}"
        );
        assert_eq!((death.silent_for(), death.lateness()), (millis(7_000), Some(Duration::ZERO)));
    }
}

#[test]
fn a_policy_that_is_faster_than_keepalive_leaves_the_kernel_unasked() {
    let fast = Policy { idle: millis(400), interval: millis(100), ..policy(Heartbeat::Bytes) };
    let (mut tracker, peers) = with_peers(TrackerConfig::new(fast, 1));
    tracker.handle(peers[0], seen(0), after(700));
    assert_eq!(death(tracker.poll_event()).proof.transport, Transport::Unasked);
}

#[test]
fn one_repetition_is_no_doubt_and_a_second_is() {
    for (unacked, retransmits, doubted) in [(1, 1, false), (0, 5, false), (1, 2, true)] {
        let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Lazy, 1));
        let evidence = Evidence { unacked, retransmits, ..heard(after(900)) };
        tracker.handle(peers[0], Fact::Inspected(evidence), after(1_000));
        assert_eq!(tracker.counts().suspects, u32::from(doubted), "{unacked} {retransmits}");
    }
}

#[test]
fn a_ping_without_an_answer_makes_the_kernel_silent() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Lazy, 1));
    tracker.handle(peers[0], PONG, START);
    // Something of ours is out, so keepalive rests.
    run(&mut tracker, after(8_000), |_| Evidence { unacked: 1, ..heard(START) });
    let death = tracker.dead().next().expect("it died");
    assert_eq!((death.cause, death.proof.transport), (Cause::HeartbeatExpired, Transport::Silent));
}

#[test]
fn an_outage_ends_when_most_came_back_and_the_next_is_told_again() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Bytes, Wake::Beat, 40));
    let silent = Evidence { probes: 2, ..heard(START) };
    let mut outages = 0;
    for round in 0..2 {
        let now = after(10_000 * round);
        for peer in &peers[..39] {
            tracker.handle(*peer, Fact::Inspected(heard(now)), now);
        }
        for peer in &peers[..38] {
            let silent = Evidence { probes: 2, ..heard(now) };
            tracker.handle(*peer, Fact::Inspected(silent), now + millis(4_500));
        }
        // Somebody is suspect all the time.
        let doubtful = Evidence { unacked: 1, retransmits: 3, ..heard(now + millis(7_000)) };
        tracker.handle(peers[39], Fact::Inspected(doubtful), now + millis(7_000));
        // One of them dies of it, and the others come back.
        let victim = peers[round as usize];
        tracker.handle(
            victim,
            Fact::Inspected(Evidence { last_data: now, last_ack: now, ..silent }),
            now + millis(7_000),
        );
        outages += kinds(&mut tracker).iter().filter(|kind| **kind == "path_outage").count();
        for peer in &peers[..38] {
            tracker.handle(*peer, Fact::Inspected(heard(now + millis(7_500))), now + millis(7_500));
        }
        kinds(&mut tracker);
        assert_eq!(tracker.counts().suspects, 1);
    }
    assert_eq!(outages, 2);
    assert!(tracker.dead().all(|death| death.proof.outage));
}

#[test]
fn a_ping_that_was_answered_does_not_count_in_a_later_silence() {
    let (mut tracker, peers) = with_peers(config(Heartbeat::Frames, Wake::Lazy, 1));
    tracker.handle(peers[0], PONG, START);
    let done = run(&mut tracker, after(4_500), |_| heard(START));
    assert!(done.iter().any(|(_, action)| matches!(action, Action::Probe { .. })));
    tell(&mut tracker, peers[0], PONG, after(5_000));
    assert_eq!(kinds(&mut tracker), [""; 0]);
    // Nobody looks until its detection time is over. Something of ours is out, so keepalive rests.
    tracker.handle_time(after(13_000));
    tell(&mut tracker, peers[0], Fact::Emptied, after(13_000));
    let evidence = Evidence { unacked: 1, ..heard(after(5_000)) };
    tracker.handle(peers[0], Fact::Inspected(evidence), after(13_000));
    assert_eq!(death(tracker.poll_event()).proof.transport, Transport::Unasked);
}
