//! Whatever comes in whatever order: what must hold after every call.
//!
//! The facts are true, as the kernel's are, but they come when they like: old, twice, of the dead, or
//! unasked. The sink takes events when it likes.

use proptest::prelude::*;

use super::*;

/// One life, and all that is true of it.
struct Life {
    peer: PeerId,
    accepted_at: Instant,
    socket: TcpState,
    received: u64,
    last_data: Instant,
    last_ack: Instant,
    last_frame: Option<Instant>,
    doubt: bool,
    /// The transitions that were seen in its record, and how many of them were told.
    path: Vec<Transition>,
    told: usize,
    /// PINGs that were asked for in this suspicion.
    probes: u32,
    /// The life after which a peer was asked: one that spoke since is asked from the first on.
    asked_after: Instant,
    closing: bool,
    released: bool,
}

impl Life {
    fn is_dead(&self) -> bool {
        matches!(self.path.last().map(|line| line.step()), Some(Step::Died(_)))
    }

    fn is_gone(&self) -> bool {
        self.is_dead() && self.told == self.path.len() && self.released
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            tcp_state: self.socket,
            received: self.received,
            last_data: self.last_data,
            last_ack: self.last_ack,
            unacked: u32::from(self.doubt),
            retransmits: if self.doubt { 2 } else { 0 },
            ..Evidence::default()
        }
    }

    /// Its last proof of life, by the policy's measure.
    fn last_sign(&self, heartbeat: Heartbeat) -> Instant {
        match heartbeat {
            Heartbeat::Bytes => self.last_data,
            Heartbeat::Frames => self.last_frame.unwrap_or(self.accepted_at),
            Heartbeat::None => self.last_data.max(self.last_ack),
        }
    }
}

/// The number of a peer is counted from the youngest, round among all that ever lived.
#[derive(Clone, Copy, Debug)]
enum Op {
    Accept,
    /// Bytes or a frame come, and wake us.
    Speak(usize),
    /// Bytes come, and do not wake the loop.
    Arrive(usize),
    Acknowledge(usize),
    Doubt(usize, bool),
    Shut(usize, TcpState),
    /// A fact, whose evidence and identity are filled in.
    Tell(usize, Fact),
    Pass(u64),
    Stall(u64),
    Suspend(u64),
    Visit,
    Perform,
    Take(usize),
    Release(usize),
}

fn fact() -> impl Strategy<Value = Fact> {
    let masks = proptest::sample::select(vec![0x0, 0x1, 0x8, 0x2001, 0x2011, 0x2018, 0x2019]);
    let errnos =
        [libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNABORTED];
    let evidence = Evidence::default();
    prop_oneof![
        24 => masks.prop_map(|mask| Fact::Ready(PollMask(mask))),
        10 => (1..5_000_u32).prop_map(|bytes| Fact::Taken { bytes }),
        20 => Just(Fact::Emptied),
        10 => Just(Fact::End(evidence)),
        3 => proptest::sample::select(errnos.to_vec()).prop_map(move |errno| Fact::Failed { errno, evidence }),
        20 => Just(Fact::Inspected(evidence)),
        10 => Just(PONG),
        5 => Just(Fact::Hello(Identity::new("").expect("it may be empty"))),
        1 => Just(Fact::Garbage(FrameError::BadMagic, evidence)),
        1 => Just(Fact::Bye(evidence)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let number = || prop_oneof![8 => 0..3_usize, 1 => 0..64_usize];
    let ends = vec![TcpState::CloseWait, TcpState::Close, TcpState::Closing];
    prop_oneof![
        10 => Just(Op::Accept),
        24 => number().prop_map(Op::Speak),
        6 => number().prop_map(Op::Arrive),
        4 => number().prop_map(Op::Acknowledge),
        6 => (number(), any::<bool>()).prop_map(|(number, doubt)| Op::Doubt(number, doubt)),
        2 => (number(), proptest::sample::select(ends)).prop_map(|(number, socket)| Op::Shut(number, socket)),
        24 => (number(), fact()).prop_map(|(number, fact)| Op::Tell(number, fact)),
        30 => (0..500_u64).prop_map(Op::Pass),
        1 => (1..3_000_u64).prop_map(Op::Stall),
        1 => (1..3_000_u64).prop_map(Op::Suspend),
        30 => Just(Op::Visit),
        24 => Just(Op::Perform),
        10 => (0..4_usize).prop_map(Op::Take),
        16 => number().prop_map(Op::Release),
    ]
}

fn config() -> impl Strategy<Value = TrackerConfig> {
    let heartbeats = vec![Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None];
    let wakes = vec![Wake::Lazy, Wake::Beat];
    (
        proptest::sample::select(heartbeats),
        proptest::sample::select(wakes),
        proptest::sample::select(vec![100, 300]), // without and with a grid
        proptest::sample::select(vec![0, 700]),
        1..4_usize,
    )
        .prop_map(|(heartbeat, wake, interval, grace, capacity)| {
            let policy = Policy {
                idle: if heartbeat == Heartbeat::None { millis(2_000) } else { millis(800) },
                interval: millis(interval),
                probes: 2,
                handshake: millis(1_000),
                half_closed_grace: millis(grace),
                ..policy(heartbeat)
            };
            TrackerConfig { wake, dead_kept: 2, drain_every: 3, ..TrackerConfig::new(policy, capacity) }
        })
}

struct Story {
    tracker: Tracker,
    policy: Policy,
    now: Instant,
    lives: Vec<Life>,
    /// When we could not listen, in order.
    stalls: Vec<(Instant, Instant)>,
    held: Duration,
    told_held: Duration,
}

impl Story {
    fn new(config: TrackerConfig) -> Story {
        Story {
            tracker: Tracker::new(config, START),
            policy: config.policy,
            now: START,
            lives: Vec::new(),
            stalls: Vec::new(),
            held: Duration::ZERO,
            told_held: Duration::ZERO,
        }
    }

    fn listened(&self, from: Instant) -> Duration {
        listened(&self.stalls, from, self.now)
    }

    /// One call, and all that must hold after it. `target`: the peer that it may change; `None`: any.
    fn call(&mut self, target: Option<usize>, reason: Option<Fact>, act: impl FnOnce(&mut Tracker, Instant)) {
        let views: Vec<_> = self.lives.iter().map(|life| self.tracker.peer(life.peer)).collect();
        act(&mut self.tracker, self.now);
        self.tracker.audit();
        for (number, before) in views.into_iter().enumerate() {
            let after = self.tracker.peer(self.lives[number].peer);
            if target.is_some_and(|target| target != number) {
                assert_eq!(before, after, "changed by what was told of another");
            }
            let (Some(before), Some(after)) = (before, after) else {
                assert!(self.lives[number].is_gone(), "no other place is free");
                continue;
            };
            assert!(!self.lives[number].is_gone(), "a peer that is gone has no place");
            self.follow(number, &before, &after, reason);
        }
        self.count();
    }

    /// From one look at a record to the next.
    fn follow(&mut self, number: usize, before: &PeerView, after: &PeerView, reason: Option<Fact>) {
        let life = &self.lives[number];
        if before.history == after.history {
            assert_eq!(before.state, after.state, "a state changed in silence");
            return;
        }
        let line = *after.history.iter().flatten().last().expect("there is always one");
        assert_eq!(line.at().as_micros(), self.now.as_micros());
        let lawful = Input::ALL.iter().any(|&input| state::next(before.state, input) == after.state);
        assert!(lawful && before.state != after.state, "{:?} to {:?}", before.state, after.state);

        let heartbeat = self.policy.heartbeat;
        let silent = self.listened(life.last_sign(heartbeat));
        let soft = matches!(reason, Some(Fact::Failed { .. }));
        let spoke = match heartbeat {
            Heartbeat::Bytes => life.received > 0,
            Heartbeat::Frames => life.last_frame.is_some(),
            Heartbeat::None => true,
        };
        match line.step() {
            Step::Up => panic!("up twice"),
            Step::Suspected => {
                assert_eq!(after.state, State::Suspect);
                assert!(silent >= self.policy.suspicion_time(), "suspected after {silent:?}");
            }
            Step::Doubted => {
                assert_eq!(after.state, State::Suspect);
                assert!(life.doubt || soft, "nothing casts doubt on its path");
            }
            Step::Recovered => {
                assert_eq!(after.state, State::Alive);
                let newest = self.listened(life.last_sign(heartbeat).max(life.last_data));
                let silent = if heartbeat == Heartbeat::Frames { newest } else { silent };
                assert!(silent < self.policy.idle, "recovered after {silent:?}");
                assert!(!life.doubt || reason.is_some(), "recovered although its path is in doubt");
            }
            Step::HalfClosed => {
                assert_eq!(after.state, State::HalfClosed);
                assert!(!self.policy.half_closed_grace.is_zero());
                assert!(life.socket != TcpState::Established, "half-closed without a FIN");
            }
            Step::Died(cause) => {
                assert_eq!(after.state, State::Dead);
                let death = *self.tracker.dead().next_back().expect("it has just died");
                assert_eq!((death.peer, death.cause, death.at), (life.peer, cause, self.now));
                match (cause, death.deadline) {
                    (Cause::HandshakeExpired, deadline) => {
                        assert!(deadline.is_some() && !spoke, "mute?");
                        assert!(self.listened(life.accepted_at) >= self.policy.handshake, "too early");
                    }
                    (Cause::HeartbeatExpired, None) => panic!("expired without a deadline"),
                    (_, Some(deadline)) => {
                        assert!(deadline <= self.now && cause.is_expiry());
                        assert!(silent >= self.policy.detection_time(), "died after {silent:?}");
                    }
                    (_, None) => {}
                }
                let by_fact = matches!(reason, Some(Fact::End(_) | Fact::Bye(_)));
                if before.state == State::HalfClosed && cause == Cause::Closed && !by_fact {
                    let since = before.history.iter().flatten().last().expect("its half-close").at();
                    assert!(self.listened(since) >= self.policy.half_closed_grace, "grace cut short");
                }
            }
        }
        let life = &mut self.lives[number];
        life.path.push(line);
        if after.state == State::Alive {
            life.probes = 0;
        }
        let kept: Vec<_> = after.history.into_iter().flatten().collect();
        assert!(life.path.ends_with(&kept), "{kept:?} is not the end of {:?}", life.path);
        assert_eq!(kept.len(), life.path.len().min(limits::HISTORY));
    }

    fn count(&self) {
        let steps = |wanted: fn(&Step) -> bool| {
            let all = self.lives.iter().flat_map(|life| &life.path);
            all.filter(|line| wanted(&line.step())).count() as u64
        };
        let counts = self.tracker.counts();
        assert_eq!(counts.opened, self.lives.len() as u64);
        assert_eq!(counts.suspected, steps(|step| matches!(step, Step::Suspected | Step::Doubted)));
        assert_eq!(counts.recovered, steps(|step| *step == Step::Recovered));
        assert_eq!(counts.died.iter().sum::<u64>(), steps(|step| matches!(step, Step::Died(_))));
        let living = self.lives.iter().filter(|life| !life.is_dead()).count();
        assert_eq!(counts.living as usize, living);
        assert_eq!(self.tracker.len(), self.lives.iter().filter(|life| !life.is_gone()).count());
    }

    fn accept(&mut self) {
        let full = self.tracker.len() == self.tracker.config().capacity;
        assert_eq!(self.tracker.is_full(), full);
        let Some(peer) = self.tracker.accept(address(self.lives.len()), 0, self.now) else {
            assert!(full, "turned away although there was room");
            return;
        };
        assert!(!full, "two in one place");
        assert!(self.lives.iter().all(|life| life.peer != peer), "{peer:?} was used before");
        let view = self.tracker.peer(peer).expect("it has just come");
        self.lives.push(Life {
            peer,
            accepted_at: self.now,
            socket: TcpState::Established,
            received: 0,
            last_data: self.now,
            last_ack: self.now,
            last_frame: None,
            doubt: false,
            path: view.history.into_iter().flatten().collect(),
            told: 0,
            probes: 0,
            asked_after: Instant::ZERO,
            closing: false,
            released: false,
        });
    }

    fn tell(&mut self, number: usize, mut fact: Fact) {
        let now = self.now;
        let frames = self.policy.heartbeat == Heartbeat::Frames;
        if matches!(fact, Fact::Ready(mask) if mask.has(PollMask::IN)) && self.lives[number].received == 0 {
            self.arrive(number); // old bytes may wake the loop, none cannot
        }
        let life = &mut self.lives[number];
        if matches!(fact, Fact::Frame { .. } | Fact::Hello(_)) {
            if !frames {
                return; // no frames are parsed
            }
            if !life.is_dead() {
                life.received += 16;
                (life.last_data, life.last_ack, life.last_frame) = (now, now, Some(now));
            }
        }
        match &mut fact {
            Fact::End(evidence)
            | Fact::Inspected(evidence)
            | Fact::Bye(evidence)
            | Fact::Garbage(_, evidence)
            | Fact::Failed { evidence, .. } => *evidence = life.evidence(),
            Fact::Hello(identity) => {
                *identity = Identity::new(&format!("sensor-{number}")).expect("it is a fit name");
            }
            Fact::Ready(_) | Fact::Taken { .. } | Fact::Emptied | Fact::Frame { .. } => {}
        }
        let peer = life.peer;
        let dead = life.is_dead();
        let printed = dead.then(|| print(&self.tracker));
        self.call(Some(number), Some(fact), |tracker, now| tracker.handle(peer, fact, now));
        if let Some(printed) = printed {
            assert_eq!(print(&self.tracker), printed, "the dead are not changed");
        }
    }

    fn arrive(&mut self, number: usize) {
        let life = &mut self.lives[number];
        if life.socket == TcpState::Established {
            life.received += 24;
            (life.last_data, life.last_ack) = (self.now, self.now);
        }
    }

    /// A driver that does at once what it is asked for.
    fn perform(&mut self) {
        for round in 0.. {
            assert!(round < 1_000, "it never ends");
            let Some(action) = self.tracker.poll_action() else { break };
            let (peer, evidence) = (peer_of(&action), Evidence::default());
            let number = self.lives.iter().position(|life| life.peer == peer).expect("it lives");
            let life = &mut self.lives[number];
            assert!(!life.closing, "{action:?} after its close");
            assert_eq!(life.is_dead(), matches!(action, Action::Close { .. }), "{action:?}");
            match action {
                Action::Drain { to_end, .. } => {
                    let unread =
                        life.received.saturating_sub(self.tracker.peer(peer).expect("it lives").taken);
                    let ended = to_end && life.socket != TcpState::Established;
                    self.tell(number, Fact::Taken { bytes: unread as u32 });
                    self.tell(number, if ended { Fact::End(evidence) } else { Fact::Emptied });
                }
                Action::Inspect(_) => self.tell(number, Fact::Inspected(evidence)),
                Action::SetLowWater { .. } => {}
                Action::Probe { sequence, .. } => {
                    assert_eq!(self.policy.heartbeat, Heartbeat::Frames, "only there the server speaks");
                    let known = self.tracker.peer(peer).expect("it lives").last_life;
                    let asked = if known > life.asked_after { 0 } else { life.probes };
                    assert!(sequence > asked && sequence <= self.policy.probes, "{sequence} after {asked}");
                    life.asked_after = known;
                    life.probes = sequence;
                }
                Action::Close { .. } => life.closing = true,
            }
        }
    }

    fn take(&mut self) -> bool {
        let before = self.tracker.len();
        let Some(event) = self.tracker.poll_event() else { return false };
        self.tracker.audit();
        let Some(subject) = event.subject else {
            match event.kind {
                EventKind::Stall { held } => self.told_held += held,
                kind => panic!("{kind:?} of so few"),
            }
            return true;
        };
        let life = self.lives.iter_mut().find(|life| life.peer == subject.peer).expect("it lived");
        let line = *life.path.get(life.told).expect("nothing is told that did not happen");
        let previous = life.told.checked_sub(1).map(|told| life.path[told]);
        life.told += 1;
        assert_eq!(event.at.as_micros(), line.at().as_micros());
        assert_eq!(step(&event.kind), Some(line.step()));
        match event.kind {
            EventKind::Up => assert_eq!(previous, None),
            EventKind::Recovered { suspected_for } => {
                let suspected = previous.expect("up comes first").at();
                assert_eq!(suspected_for, line.at().since(suspected));
            }
            EventKind::Died(death) => {
                assert_eq!((death.peer, death.accepted_at), (life.peer, life.accepted_at));
                assert_eq!(life.told, life.path.len(), "death is the last");
                let kept: Vec<_> = death.history.into_iter().flatten().collect();
                assert!(life.path.ends_with(&kept) && kept.len() == life.path.len().min(4));
            }
            _ => {}
        }
        let freed = usize::from(life.is_gone());
        assert_eq!(self.tracker.len(), before - freed, "a place is free after death was taken and released");
        assert_eq!(self.tracker.has(life.peer), !life.is_gone());
        true
    }

    fn release(&mut self, number: usize) {
        let life = &mut self.lives[number];
        if life.closing && !life.released {
            life.released = true;
            let peer = life.peer;
            self.call(Some(number), None, |tracker, _| tracker.release(peer));
        }
    }

    fn play(&mut self, op: Op) {
        let count = self.lives.len().max(1);
        let round = move |number: usize| count - 1 - number % count;
        match op {
            Op::Accept => self.accept(),
            Op::Pass(time) => {
                self.perform(); // no turn ends before that
                self.now = self.now + millis(time);
            }
            Op::Visit => {
                self.perform();
                self.call(None, None, |tracker, now| tracker.handle_time(now));
            }
            Op::Perform => self.perform(),
            Op::Take(most) => {
                let _ = (0..most).take_while(|_| self.take()).count();
            }
            Op::Stall(time) => {
                self.perform();
                let start = self.now;
                self.now = self.now + millis(time);
                self.stalls.push((start, self.now));
                self.held += millis(time);
                self.call(None, None, |tracker, now| tracker.handle_stall(start, now));
            }
            Op::Suspend(time) => {
                let grace = millis(time).min(self.policy.detection_time());
                self.stalls.push((self.now, self.now + grace));
                self.held += millis(time);
                self.call(None, None, |tracker, now| tracker.handle_suspend(now, millis(time)));
            }
            _ if self.lives.is_empty() => {}
            Op::Speak(number) if self.policy.heartbeat == Heartbeat::Frames => {
                self.tell(round(number), PONG);
            }
            Op::Speak(number) => {
                self.arrive(round(number));
                self.tell(round(number), BYTES);
            }
            Op::Arrive(number) => self.arrive(round(number)),
            Op::Acknowledge(number) => self.lives[round(number)].last_ack = self.now,
            Op::Doubt(number, doubt) => self.lives[round(number)].doubt = doubt,
            Op::Shut(number, socket) => {
                let life = &mut self.lives[round(number)];
                if life.socket != TcpState::Close {
                    life.socket = socket;
                }
            }
            // A peer that is judged by frames is looked at only when that was asked for.
            Op::Tell(_, Fact::Inspected(_)) if self.policy.heartbeat == Heartbeat::Frames => {}
            Op::Tell(number, Fact::End(_)) if self.lives[round(number)].socket == TcpState::Established => {}
            Op::Tell(number, fact @ Fact::Failed { .. }) => {
                self.perform(); // one recv at a time
                self.tell(round(number), fact);
            }
            Op::Tell(number, fact) => self.tell(round(number), fact),
            Op::Release(number) => self.release(round(number)),
        }
    }

    /// Ends every life that is left.
    fn end(mut self) {
        for number in 0..self.lives.len() {
            self.tell(number, Fact::Bye(Evidence::default()));
        }
        self.perform();
        while self.take() {}
        for number in 0..self.lives.len() {
            self.release(number);
        }
        self.count();
        assert!(self.lives.iter().all(Life::is_gone), "a death was not told");
        assert!(self.tracker.is_empty());
        assert_eq!(self.tracker.next_due(), None);
        assert_eq!(self.tracker.poll_action(), None);
        assert_eq!(self.tracker.poll_event(), None);
        assert_eq!(self.told_held, self.held, "every stall is told");
        assert!(self.tracker.dead().count() <= 2, "so many are remembered");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn whatever_happens_each_life_is_one_lawful_path_told_whole_and_never_ended_early(
        config in config(),
        ops in proptest::collection::vec(op(), 1..300),
    ) {
        let mut story = Story::new(config);
        for op in ops {
            story.play(op);
        }
        story.end();
    }
}

/// Found by the test above: the peer's doubt ends while there is no room for its recovery.
#[test]
fn a_peer_whose_recovery_has_to_wait_is_not_asked_the_same_again() {
    let policy = Policy {
        idle: millis(800),
        interval: millis(300),
        probes: 2,
        handshake: millis(1_000),
        half_closed_grace: Duration::ZERO,
        ..policy(Heartbeat::Frames)
    };
    let config = TrackerConfig { dead_kept: 2, drain_every: 3, ..TrackerConfig::new(policy, 3) };
    let woken = || Op::Tell(0, Fact::Ready(PollMask(0)));
    let mut story = Story::new(config);
    for op in [
        Op::Accept,
        Op::Accept,
        Op::Accept,
        woken(),
        Op::Speak(2),
        Op::Pass(612),
        Op::Shut(0, TcpState::CloseWait),
        Op::Pass(488),
        Op::Visit,
        Op::Pass(0),
        Op::Speak(2),
        Op::Doubt(2, true),
        Op::Suspend(1_155),
        woken(),
        Op::Pass(542),
        Op::Take(2),
        Op::Pass(442),
        Op::Visit,
        Op::Visit,
        Op::Doubt(47, false),
        Op::Pass(712),
        Op::Visit,
        Op::Pass(259),
        Op::Visit,
        Op::Visit,
    ] {
        story.play(op);
    }
    story.end();
}
