use proptest::prelude::*;

use std::time::Duration;

use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// A peer that is there and was heard at `at`.
fn heard(at: Instant) -> Look {
    let evidence = Evidence { received: 5, last_data: at, last_ack: at, ..Evidence::default() };
    Look { evidence, acknowledged_beyond_data: 1, unread: 0 }
}

fn with(look: Look, change: impl FnOnce(&mut Evidence)) -> Look {
    let mut look = look;
    change(&mut look.evidence);
    look
}

fn ended(state: TcpState) -> Look {
    with(heard(START), |evidence| evidence.tcp_state = state)
}

fn watch(policy: Policy) -> (Watches, PeerId) {
    let mut watches = Watches::new(8, START);
    let id = watches.add(policy, &heard(START), START).unwrap();
    (watches, id)
}

fn verdict(policy: Policy, look: &Look, after: Duration) -> Option<Verdict> {
    let (mut watches, id) = watch(policy);
    watches.look(id, look, START + after).map(|change| change.verdict)
}

#[test]
fn a_fin_is_the_end_only_where_no_grace_is_granted() {
    let fin = ended(TcpState::CloseWait);
    assert_eq!(verdict(Policy::STRICT, &fin, SECOND), Some(Verdict::Gone(Cause::Closed)));

    let graceful = Policy { half_closed_grace: 3 * SECOND, ..Policy::STRICT };
    let (mut watches, id) = watch(graceful);
    let change = watches.look(id, &fin, START + SECOND).unwrap();
    assert_eq!(change.verdict, Verdict::HalfClosed);
    assert_eq!(change.proof.transport, Transport::Answering);
    assert_eq!(watches.look(id, &fin, START + 2 * SECOND), None, "said once");
    assert!(watches.next_due().unwrap() > START + 3 * SECOND);
    let due = watches.expire(START + 4 * SECOND + Duration::from_millis(1)).unwrap();
    let change = watches.look(due, &fin, START + 4 * SECOND).unwrap();
    assert_eq!(change.verdict, Verdict::Gone(Cause::Closed));
}

#[test]
fn a_reset_behind_a_fin_ends_the_grace() {
    let (mut watches, id) = watch(Policy { half_closed_grace: 30 * SECOND, ..Policy::STRICT });
    watches.look(id, &ended(TcpState::CloseWait), START).unwrap();
    let reset = with(ended(TcpState::Close), |evidence| evidence.mask = PollMask(0x2018));
    assert_eq!(watches.look(id, &reset, START + SECOND).unwrap().verdict, Verdict::Gone(Cause::Aborted));
    assert_eq!(watches.look(id, &reset, START + SECOND), None, "gone is said once");
    assert_eq!(watches.next_due(), None);
}

#[test]
fn an_acknowledged_end_of_this_side_is_told_from_a_reset_whose_error_was_taken() {
    let closed = ended(TcpState::Close);
    let finished = Look { acknowledged_beyond_data: closed.acknowledged_beyond_data + 1, ..closed };
    assert_eq!(verdict(Policy::STRICT, &finished, SECOND), Some(Verdict::Gone(Cause::Closed)));
    assert_eq!(verdict(Policy::STRICT, &closed, SECOND), Some(Verdict::Gone(Cause::Aborted)));
    let erring = with(finished, |evidence| evidence.mask = PollMask(PollMask::ERR | PollMask::HUP));
    assert_eq!(verdict(Policy::STRICT, &erring, SECOND), Some(Verdict::Gone(Cause::Aborted)));
}

#[test]
fn bytes_under_way_at_the_first_look_spoil_no_later_count() {
    let mut watches = Watches::new(8, START);
    let busy = with(Look { acknowledged_beyond_data: -500, ..heard(START) }, |evidence| evidence.unacked = 1);
    let id = watches.add(Policy::STRICT, &busy, START).unwrap();
    let closed = ended(TcpState::Close);
    assert_eq!(watches.look(id, &closed, START).unwrap().verdict, Verdict::Gone(Cause::Aborted));

    let id = watches.add(Policy::STRICT, &busy, START).unwrap();
    assert_eq!(watches.look(id, &heard(START), START), None);
    let finished = Look { acknowledged_beyond_data: 2, ..closed };
    assert_eq!(watches.look(id, &finished, START).unwrap().verdict, Verdict::Gone(Cause::Closed));
}

#[test]
fn a_closed_socket_that_had_asked_in_vain_for_long_has_timed_out() {
    let asked = with(ended(TcpState::Close), |evidence| evidence.probes = 4);
    let gone = |cause| Some(Verdict::Gone(cause));
    assert_eq!(verdict(Policy::STRICT, &asked, 8 * SECOND), gone(Cause::KeepaliveExpired));
    assert_eq!(verdict(Policy::STRICT, &asked, 2 * SECOND), gone(Cause::Aborted), "a reset meanwhile");
    let sent = with(ended(TcpState::Close), |evidence| evidence.retransmits = 4);
    assert_eq!(verdict(Policy::STRICT, &sent, 8 * SECOND), gone(Cause::UserTimeout));
    let short = Policy { user_timeout: Some(7 * SECOND), ..Policy::STRICT };
    assert_eq!(verdict(short, &sent, Duration::from_millis(6_500)), gone(Cause::UserTimeout));
}

#[test]
fn silence_is_held_against_the_program_or_its_kernel_as_the_policy_says() {
    let later = START + 20 * SECOND;
    // Its kernel answered all the time, its program said nothing.
    let mute = with(heard(START), |evidence| evidence.last_ack = later);
    let (mut watches, id) = watch(Policy::STRICT);
    let change = watches.look(id, &mute, later).unwrap();
    assert_eq!(change.verdict, Verdict::Gone(Cause::HeartbeatExpired));
    assert_eq!(change.proof.transport, Transport::Answering);
    assert_eq!(change.proof.last_life, START);
    assert_eq!(verdict(Policy::STRICT.transport_only(), &mute, 20 * SECOND), None);
    let silent = with(heard(START), |evidence| evidence.probes = 3);
    let gone = Some(Verdict::Gone(Cause::KeepaliveExpired));
    assert_eq!(verdict(Policy::STRICT.transport_only(), &silent, 20 * SECOND), gone);
    // A peer that was not asked, or has a probe under way as behind a closed window, is looked at again.
    for probes in [0, 1] {
        let (mut watches, id) = watch(Policy::STRICT.transport_only());
        let unasked = with(heard(START), |evidence| evidence.probes = probes);
        assert_eq!(watches.look(id, &unasked, later), None);
        assert!(watches.next_due().unwrap() <= later + SECOND + Duration::from_millis(2));
    }
    // Nor is a peer held silent that cannot speak because we do not read.
    let full = Look { unread: 100_000, ..mute };
    assert_eq!(verdict(Policy::STRICT, &full, 20 * SECOND), None);
}

#[test]
fn after_its_fin_a_peer_is_judged_by_its_kernel() {
    let (mut watches, id) = watch(Policy { half_closed_grace: 100 * SECOND, ..Policy::STRICT });
    let later = START + 20 * SECOND;
    let fin = with(ended(TcpState::CloseWait), |evidence| evidence.last_ack = later);
    assert_eq!(watches.look(id, &fin, later).unwrap().verdict, Verdict::HalfClosed);
    let fin = with(fin, |evidence| evidence.retransmits = 4);
    let change = watches.look(id, &fin, later + 20 * SECOND).unwrap();
    assert_eq!(change.verdict, Verdict::Gone(Cause::KeepaliveExpired));
}

#[test]
fn a_stall_of_the_watcher_is_held_against_no_peer() {
    let (mut watches, id) = watch(Policy::STRICT);
    watches.handle_stall(START + SECOND, START + 9 * SECOND);
    assert_eq!(watches.look(id, &heard(START), START + 9 * SECOND), None);
    assert_eq!(watches.look(id, &heard(START), START + 15 * SECOND - Duration::from_nanos(1)), None);
    let change = watches.look(id, &heard(START), START + 15 * SECOND).unwrap();
    assert_eq!(change.verdict, Verdict::Gone(Cause::HeartbeatExpired));
}

#[test]
fn a_socket_that_does_not_exist_any_more_was_closed_by_this_side() {
    let (mut watches, id) = watch(Policy::STRICT);
    let change = watches.lost(id, START + SECOND).unwrap();
    assert_eq!(change.verdict, Verdict::Gone(Cause::Local(LocalCause::Shutdown)));
    assert_eq!(watches.lost(id, START + SECOND), None);
}

#[test]
fn a_stale_id_changes_nothing_and_room_is_bounded() {
    let mut watches = Watches::new(1, START);
    let first = watches.add(Policy::STRICT, &heard(START), START).unwrap();
    assert_eq!(watches.add(Policy::STRICT, &heard(START), START), None);
    assert!(watches.remove(first));
    assert!(!watches.remove(first));
    let second = watches.add(Policy::STRICT, &heard(START), START).unwrap();
    assert_eq!(first.index(), second.index());
    assert_eq!(watches.look(first, &ended(TcpState::Close), START), None);
    assert!(watches.has(second) && !watches.has(first) && watches.len() == 1);
}

#[test]
fn while_a_peer_is_here_its_proof_weighs_the_silence_of_its_program() {
    let (watches, id) = watch(Policy::STRICT.transport_only());
    let later = START + 20 * SECOND;
    let answering = with(heard(START), |evidence| evidence.last_ack = later);
    assert_eq!(watches.proof(id, &answering, later).unwrap().transport, Transport::Answering);
    assert_eq!(watches.proof(id, &heard(START), later).unwrap().transport, Transport::Silent);
    assert_eq!(watches.proof(id, &heard(START), START).unwrap().transport, Transport::Unasked);
}

#[test]
fn many_are_looked_at_in_one_wake_and_the_silent_again_at_their_own_deadlines() {
    let mut watches = Watches::new(1_000, START);
    for number in 0..1_000 {
        let now = START + Duration::from_millis(number);
        watches.add(Policy::STANDARD, &heard(now), now).unwrap();
    }
    let (mut wakes, mut now) = (0, START + SECOND);
    while let Some(due) = watches.next_due().filter(|&due| due < START + 60 * SECOND) {
        now = now.max(due);
        wakes += 1;
        while let Some(id) = watches.expire(now) {
            assert_eq!(watches.look(id, &heard(now), now), None);
        }
    }
    // 17 points of the grid; the wheel, whose round is 16.4 s, names a key beyond its reach once more.
    assert!(wakes <= 60, "{wakes} wakes for a thousand peers");
}

proptest! {
    /// Peers that speak at known times, are looked at when the wheel names them, and fall silent: the verdict
    /// comes within a tick of the wheel after the detection time, and never before it.
    #[test]
    fn a_peer_that_falls_silent_is_named_and_judged_in_time(
        gaps in prop::collection::vec(0_u64..7_000, 0..40),
        by_kernel: bool,
    ) {
        let policy = if by_kernel { Policy::STRICT.transport_only() } else { Policy::STRICT };
        let (mut watches, id) = watch(policy);
        let mut spoke = vec![START];
        for gap in gaps {
            spoke.push(*spoke.last().unwrap() + Duration::from_millis(gap));
        }
        let last = *spoke.last().unwrap();
        let (mut now, mut looks) = (START, 0);
        let told = loop {
            let due = watches.next_due().expect("a peer that is not gone has an appointment");
            now = now.max(due);
            while let Some(named) = watches.expire(now) {
                prop_assert_eq!(named, id);
                looks += 1;
                let heard_at = *spoke.iter().rfind(|&&at| at <= now).unwrap();
                let seen = with(heard(heard_at), |evidence| evidence.probes = 3);
                if let Some(change) = watches.look(id, &seen, now) {
                    prop_assert!(change.verdict.is_gone());
                    prop_assert_eq!(change.proof.last_life, heard_at);
                    break;
                }
            }
            if watches.next_due().is_none() {
                break now;
            }
            prop_assert!(looks < 1_000, "it is looked at once a detection time");
        };
        let silent = told.since(last);
        prop_assert!(silent >= policy.detection_time(), "{silent:?} is early");
        prop_assert!(silent <= policy.detection_time() + Duration::from_millis(2), "{silent:?} is late");
    }
}
