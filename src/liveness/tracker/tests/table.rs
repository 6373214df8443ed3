//! Every fact for a peer in every situation that can be reached, against the [rules](super::rules).

use super::rules::{self, Ask, IDLE, Life, Look, Outcome, Seen, Stage, World};
use super::scene::{SITUATIONS, Scene, Situation};
use super::*;

/// Fresh, idle, expired.
const AGES: [u64; 3] = [300, 4_500, 8_000];

/// A socket that nothing is wrong with. Its byte is older than what was looked at before.
const PLAIN: Look =
    Look { socket: TcpState::Established, data: Some(1_500), ack: None, doubt: false, full: false };

fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for heartbeat in [Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None] {
        for wake in [Wake::Lazy, Wake::Beat] {
            worlds.extend([false, true].map(|grace| World { heartbeat, wake, grace }));
        }
    }
    worlds
}

fn facts() -> Vec<Seen> {
    let masks = [0x0, 0x1, 0x8, 0x10, 0x2000, 0x2001, 0x2011, 0x2018, 0x2019];
    let mut facts: Vec<Seen> = masks.into_iter().map(Seen::Ready).collect();
    facts.extend([Seen::Taken(16), Seen::Taken(1 << 20), Seen::Emptied, Seen::Bye]);
    facts.extend([Kind::Ping, Kind::Pong].map(Seen::Frame));
    facts.extend(["", "sensor-7"].map(Seen::Hello));
    facts.extend(FrameError::ALL.map(Seen::Garbage));
    for socket in (1..=12).map(TcpState::from_kernel) {
        for so_error in [None, Some(0), Some(libc::ECONNRESET), Some(libc::ETIMEDOUT)] {
            facts.push(Seen::End(Look { socket, ..PLAIN }, so_error));
        }
        for data in [None].into_iter().chain(AGES.map(Some)) {
            for ack in [None, Some(AGES[0])] {
                for doubt in [false, true] {
                    let look = Look { socket, data, ack, doubt, full: false };
                    facts.push(Seen::Inspected(look));
                    if data.is_some() {
                        facts.push(Seen::Inspected(Look { full: true, ..look }));
                    }
                }
            }
        }
    }
    let errnos = [
        libc::ECONNRESET,
        libc::ETIMEDOUT,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ECONNABORTED,
        libc::EAGAIN,
        libc::ENOBUFS,
        libc::ECANCELED,
        libc::EINVAL,
    ];
    for errno in errnos {
        for socket in [TcpState::Close, TcpState::Established, TcpState::CloseWait] {
            for (repeated, age) in [(false, AGES[0]), (true, AGES[1]), (false, AGES[2])] {
                facts.push(Seen::Failed(errno, repeated, Look { socket, data: Some(age), ..PLAIN }));
            }
        }
    }
    facts
}

fn evidence(scene: &Scene, look: Look) -> Evidence {
    let last_data = look.data.map_or(START, |age| scene.now - millis(age));
    Evidence {
        tcp_state: look.socket,
        received: match look.data {
            None => 0,
            Some(_) if look.full => 1 << 21,
            Some(_) => 16,
        },
        last_data,
        last_ack: look.ack.map_or(last_data, |age| scene.now - millis(age)),
        unacked: if look.doubt { 1 } else { 0 },
        retransmits: if look.doubt { 2 } else { 0 },
        ..Evidence::default()
    }
}

fn fact(scene: &Scene, seen: Seen) -> Fact {
    match seen {
        Seen::Ready(mask) => Fact::Ready(PollMask(mask)),
        Seen::Taken(bytes) => Fact::Taken { bytes },
        Seen::Emptied => Fact::Emptied,
        Seen::End(look, so_error) => Fact::End(Evidence { so_error, ..evidence(scene, look) }),
        Seen::Failed(errno, repeated, look) => {
            let retransmits = u8::from(repeated) * 3;
            Fact::Failed { errno, evidence: Evidence { retransmits, ..evidence(scene, look) } }
        }
        Seen::Inspected(look) => Fact::Inspected(evidence(scene, look)),
        Seen::Frame(kind) => Fact::Frame { kind, sequence: 9 },
        Seen::Hello(identity) => Fact::Hello(Identity::new(identity).expect("it is a fit name")),
        Seen::Garbage(error) => Fact::Garbage(error, evidence(scene, PLAIN)),
        Seen::Bye => Fact::Bye(evidence(scene, PLAIN)),
    }
}

/// A socket whose newest byte is older than the frames that were read from it: no kernel says so.
fn is_contradiction(world: World, situation: Situation, seen: Seen) -> bool {
    world.heartbeat == Heartbeat::Frames
        && situation.0 == "Doubted"
        && matches!(seen, Seen::Inspected(Look { data: None | Some(IDLE..), doubt: false, .. }))
}

fn ask(action: &Action) -> Ask {
    match action {
        Action::SetLowWater { bytes: 1, .. } => Ask::WakeOnByte,
        Action::SetLowWater { .. } => Ask::WakeOnMark,
        Action::Probe { .. } => Ask::Probe,
        Action::Drain { to_end: false, .. } => Ask::Drain,
        Action::Drain { to_end: true, .. } => Ask::DrainToEnd,
        Action::Inspect(_) => Ask::Inspect,
        Action::Close { abort: false, .. } => Ask::Close,
        Action::Close { abort: true, .. } => Ask::Abort,
    }
}

/// What the proof must repeat of the fact.
fn check_proof(death: &Death, fact: &Fact, scene: &Scene) {
    let (errno, frame, bye, evidence) = match *fact {
        Fact::Failed { errno, evidence } => (Some(errno), None, false, evidence),
        Fact::Garbage(error, evidence) => (None, Some(error), false, evidence),
        Fact::Bye(evidence) => (None, None, true, evidence),
        Fact::End(evidence) | Fact::Inspected(evidence) => (None, None, false, evidence),
        Fact::Ready(_) | Fact::Taken { .. } | Fact::Emptied | Fact::Frame { .. } | Fact::Hello(_) => {
            panic!("{fact:?} ends no peer")
        }
    };
    let proof = &death.proof;
    assert_eq!((proof.frame, proof.bye), (frame, bye));
    assert_eq!(proof.evidence, evidence);
    assert_eq!((death.peer, death.local, death.accepted_at, death.at), (scene.peer, 7, START, scene.now));
    assert_eq!(death.address, address(1));
    match (death.deadline, death.cause) {
        (Some(deadline), cause) => {
            assert!(cause.is_expiry() && deadline <= death.at);
            assert_eq!(proof.errno, None, "a deadline of ours has no errno");
        }
        (None, Cause::HeartbeatExpired | Cause::HandshakeExpired) => panic!("expired without a deadline"),
        // A soft error was not what ended it.
        (None, Cause::Closed) => assert_eq!(proof.errno, None),
        (None, _) => assert_eq!(proof.errno, errno),
    }
}

fn check(world: World, situation: Situation, seen: Seen) {
    let mut scene = Scene::reach(world, situation);
    let fact = fact(&scene, seen);
    let expected = rules::outcome(world, scene.before, seen, PLAIN);
    let owed = scene.tracker.peers.get(0).map_or(0, |peer| peer.untaken());
    let view = scene.tracker.peer(scene.peer);
    let (counts, printed) = (*scene.tracker.counts(), print(&scene.tracker));

    scene.tell(fact);

    scene.tracker.audit();
    if scene.before.stage == Stage::Over {
        assert_eq!(print(&scene.tracker), printed, "the dead are not changed");
    }
    let after = scene.tracker.peer(scene.peer);
    let asked: Vec<Action> = actions(&mut scene.tracker);
    let new = events(&mut scene.tracker).split_off(owed);
    assert!(new.len() <= 1, "one fact, one transition: {new:?}");
    let (Some(view), Some(after)) = (view, after) else {
        assert!(asked.is_empty() && new.is_empty(), "of no peer: {asked:?} {new:?}");
        return;
    };
    let life = match after.last_life {
        life if life == view.last_life => Life::Kept,
        life if life == scene.now => Life::Now,
        life => Life::Ago(scene.now.since(life).as_millis() as u64),
    };
    let wanted = match expected.life {
        // The same by other words.
        Life::Ago(age) if scene.now - millis(age) == view.last_life => Life::Kept,
        other => other,
    };
    let outcome = Outcome {
        told: new.first().map(|event| step(&event.kind).expect("a fact leads to steps only")),
        asked: asked.iter().map(ask).collect(),
        life,
    };
    assert_eq!(outcome, Outcome { life: wanted, ..expected });
    assert_eq!(asked.len(), outcome.asked.len(), "asked twice: {asked:?}");

    let state = match outcome.told {
        None => view.state,
        Some(Step::Suspected | Step::Doubted) => State::Suspect,
        Some(Step::Recovered) => State::Alive,
        Some(Step::HalfClosed) => State::HalfClosed,
        Some(Step::Died(_)) => State::Dead,
        Some(Step::Up) => panic!("up by a fact"),
    };
    assert_eq!(after.state, state);
    let bytes = if let (Seen::Taken(bytes), true) = (seen, view.state != State::Dead) { bytes } else { 0 };
    assert_eq!(after.taken, view.taken + u64::from(bytes));

    let mut sums = counts;
    match outcome.told {
        Some(Step::Suspected | Step::Doubted) => sums.suspected += 1,
        Some(Step::Recovered) => sums.recovered += 1,
        Some(Step::Died(cause)) => sums.died[usize::from(cause.code())] += 1,
        Some(Step::Up | Step::HalfClosed) | None => {}
    }
    let TrackerCounts { living, suspects, half_closed, .. } = *scene.tracker.counts();
    assert_eq!(*scene.tracker.counts(), TrackerCounts { living, suspects, half_closed, ..sums });
    if let Some(Event { at, kind: EventKind::Died(death), .. }) = new.first() {
        assert_eq!(*at, death.at);
        check_proof(death, &fact, &scene);
    }
    if let Some(Event { at, subject: Some(subject), .. }) = new.first() {
        assert_eq!((subject.peer, subject.address, subject.local), (scene.peer, address(1), 7));
        assert!(*at <= scene.now && scene.now.since(*at) < Duration::from_micros(1));
    }
}

#[test]
fn every_fact_means_in_every_situation_what_the_rules_say() {
    let facts = facts();
    let mut pairs = 0;
    for world in worlds() {
        for situation in SITUATIONS.into_iter().filter(|situation| situation.exists(world)) {
            for &seen in facts.iter().filter(|seen| !is_contradiction(world, situation, **seen)) {
                let outcome = std::panic::catch_unwind(|| check(world, situation, seen));
                assert!(outcome.is_ok(), "{world:?}, {}, {seen:?}", situation.0);
                pairs += 1;
            }
        }
    }
    assert!(pairs > 150_000, "only {pairs} pairs were looked at");
}

#[test]
fn the_situations_have_the_state_that_their_names_say() {
    for world in worlds() {
        for situation in SITUATIONS.into_iter().filter(|situation| situation.exists(world)) {
            let scene = Scene::reach(world, situation);
            let state = scene.tracker.peer(scene.peer).map(|view| view.state);
            let expected = match scene.before.stage {
                Stage::Mute | Stage::Alive => Some(State::Alive),
                Stage::Silent | Stage::Doubted => Some(State::Suspect),
                Stage::HalfClosed => Some(State::HalfClosed),
                Stage::Over => (!matches!(situation.0, "Gone" | "Replaced")).then_some(State::Dead),
            };
            assert_eq!(state, expected, "{world:?}, {}", situation.0);
        }
    }
}
