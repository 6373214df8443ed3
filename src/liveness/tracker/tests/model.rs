//! A model of the tracker for a simple world, slow and plain: peers that speak, fall silent and hang
//! up, a kernel whose evidence is true, a sink that takes everything, and a driver that does at once
//! what it is asked for. No wheel, no slab, no pace: a sorted set of deadlines.
//!
//! The model's time stands still while we could not listen, so it knows nothing of putting off.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::wheel::TICK;

/// Something that must be told, not before `from` and not after `until`.
#[derive(Clone, Copy, Debug)]
struct Expected {
    what: Step,
    from: Instant,
    until: Instant,
    /// It was over before it had to be noticed.
    optional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Mute,
    Alive,
    Suspect,
    HalfClosed,
    Dead,
}

struct Shadow {
    stage: Stage,
    life: Instant,
    deadline: Instant,
    expected: Vec<Expected>,
}

struct Model {
    policy: Policy,
    /// How late a silence may be noticed, and how late a sign that wakes no loop.
    suspicion: Duration,
    recovery: Duration,
    shadows: Vec<Shadow>,
    deadlines: BTreeSet<(Instant, usize)>,
}

impl Model {
    fn new(policy: Policy) -> Model {
        let grid =
            if policy.interval >= millis(250) { Duration::from_micros(62_500) } else { Duration::ZERO };
        Model {
            policy,
            suspicion: grid + TICK,
            recovery: policy.interval + TICK,
            shadows: Vec::new(),
            deadlines: BTreeSet::new(),
        }
    }

    fn expect(&mut self, peer: usize, what: Step, from: Instant, within: Duration) {
        let until = from + within;
        self.shadows[peer].expected.push(Expected { what, from, until, optional: false });
    }

    fn appoint(&mut self, peer: usize, deadline: Instant) {
        let shadow = &mut self.shadows[peer];
        self.deadlines.remove(&(shadow.deadline, peer));
        shadow.deadline = deadline;
        self.deadlines.insert((deadline, peer));
    }

    /// What came up to `now` is heard before a peer is judged at `now`.
    fn advance(&mut self, now: Instant) {
        while let Some(&(at, peer)) = self.deadlines.first()
            && at < now
        {
            self.pass_deadline(peer, at);
        }
    }

    fn pass_deadline(&mut self, peer: usize, at: Instant) {
        self.deadlines.remove(&(at, peer));
        match self.shadows[peer].stage {
            Stage::Mute => self.die(peer, Cause::HandshakeExpired, at, TICK),
            Stage::Alive => {
                assert!(self.policy.suspicion_time() < self.policy.detection_time(), "several probes");
                self.shadows[peer].stage = Stage::Suspect;
                self.expect(peer, Step::Suspected, at, self.suspicion);
                self.appoint(peer, self.shadows[peer].life + self.policy.detection_time());
            }
            Stage::Suspect if self.policy.heartbeat == Heartbeat::None => {
                self.die(peer, Cause::KeepaliveExpired, at, TICK);
            }
            Stage::Suspect => self.die(peer, Cause::HeartbeatExpired, at, TICK),
            Stage::HalfClosed => self.die(peer, Cause::Closed, at, TICK + Duration::from_micros(1)),
            Stage::Dead => unreachable!("the dead have no deadline"),
        }
    }

    fn die(&mut self, peer: usize, cause: Cause, at: Instant, within: Duration) {
        let shadow = &mut self.shadows[peer];
        self.deadlines.remove(&(shadow.deadline, peer));
        shadow.stage = Stage::Dead;
        self.expect(peer, Step::Died(cause), at, within);
    }

    fn accept(&mut self, now: Instant) {
        let awaited = self.policy.heartbeat != Heartbeat::None;
        let (stage, time) =
            if awaited { (Stage::Mute, self.policy.handshake) } else { (Stage::Alive, self.policy.idle) };
        self.shadows.push(Shadow { stage, life: now, deadline: now, expected: Vec::new() });
        let peer = self.shadows.len() - 1;
        self.expect(peer, Step::Up, now, Duration::ZERO);
        self.appoint(peer, now + time);
    }

    /// What was still unnoticed may stay so; whether it may.
    fn overtake(&mut self, peer: usize, now: Instant) -> bool {
        let last = self.shadows[peer].expected.last_mut().expect("up comes first");
        last.optional |= last.until >= now && matches!(last.what, Step::Suspected | Step::Recovered);
        last.optional
    }

    fn sign(&mut self, peer: usize, now: Instant, wakes: bool) {
        let stage = self.shadows[peer].stage;
        if matches!(stage, Stage::Dead | Stage::HalfClosed) {
            return;
        }
        if stage == Stage::Suspect {
            let unnoticed = self.overtake(peer, now);
            let within = if wakes { Duration::ZERO } else { self.recovery };
            self.expect(peer, Step::Recovered, now, within);
            self.shadows[peer].expected.last_mut().expect("it was pushed").optional = unnoticed;
        }
        self.shadows[peer].stage = Stage::Alive;
        self.shadows[peer].life = now;
        self.appoint(peer, now + self.policy.suspicion_time());
    }

    fn fin(&mut self, peer: usize, now: Instant) {
        if matches!(self.shadows[peer].stage, Stage::Dead | Stage::HalfClosed) {
            return;
        }
        self.overtake(peer, now);
        if self.policy.half_closed_grace.is_zero() {
            self.die(peer, Cause::Closed, now, Duration::ZERO);
        } else {
            self.shadows[peer].stage = Stage::HalfClosed;
            self.expect(peer, Step::HalfClosed, now, Duration::ZERO);
            self.appoint(peer, now + self.policy.half_closed_grace);
        }
    }

    fn reset(&mut self, peer: usize, now: Instant) {
        if self.shadows[peer].stage != Stage::Dead {
            self.overtake(peer, now);
            self.die(peer, Cause::Aborted, now, Duration::ZERO);
        }
    }
}

/// A socket, as its kernel has it.
struct Socket {
    id: PeerId,
    received: u64,
    unread: u32,
    last_data: Instant,
    last_ack: Instant,
    mark: u32,
    state: TcpState,
    /// After its FIN a reset shows in no recv.
    shut: bool,
    told: Vec<(Step, Event)>,
}

/// The tracker with its kernel and driver.
struct Server {
    tracker: Tracker,
    policy: Policy,
    now: Instant,
    sockets: Vec<Socket>,
    stalls: Vec<(Instant, Instant)>,
}

impl Server {
    /// The time up to `at` during which this process was there, as an instant.
    fn listened(&self, at: Instant) -> Instant {
        Instant::ZERO + listened(&self.stalls, Instant::ZERO, at)
    }

    fn evidence(&self, peer: usize) -> Evidence {
        let socket = &self.sockets[peer];
        Evidence {
            tcp_state: socket.state,
            received: socket.received,
            last_data: socket.last_data,
            last_ack: socket.last_ack,
            ..Evidence::default()
        }
    }

    fn tell(&mut self, peer: usize, fact: Fact) {
        let id = self.sockets[peer].id;
        self.tracker.handle(id, fact, self.now);
    }

    fn wake(&mut self, peer: usize, mask: u16) {
        self.tell(peer, Fact::Ready(PollMask(mask)));
        self.settle();
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it never ends");
            let Some(action) = self.tracker.poll_action() else { break };
            let id = peer_of(&action);
            let peer = self.sockets.iter().rposition(|socket| socket.id == id).expect("it lives");
            match action {
                Action::Drain { .. } => self.drain(peer),
                Action::Inspect(_) => self.tell(peer, Fact::Inspected(self.evidence(peer))),
                Action::SetLowWater { bytes, .. } => {
                    self.sockets[peer].mark = bytes;
                    if bytes == 1 && self.sockets[peer].unread > 0 {
                        self.tell(peer, Fact::Ready(PollMask(0x1)));
                    }
                }
                Action::Probe { .. } => {}
                Action::Close { .. } => self.tracker.release(id),
            }
        }
        while let Some(event) = self.tracker.poll_event() {
            if matches!(event.kind, EventKind::Stall { .. } | EventKind::PathOutage { .. }) {
                continue;
            }
            let what = step(&event.kind).expect("all others are steps of peers");
            let id = event.subject.as_ref().expect("it is about a peer").peer;
            let peer = self.sockets.iter().rposition(|socket| socket.id == id).expect("it lives");
            self.sockets[peer].told.push((what, event));
        }
        self.tracker.audit();
    }

    fn drain(&mut self, peer: usize) {
        let bytes = std::mem::take(&mut self.sockets[peer].unread);
        if bytes > 0 {
            self.tell(peer, Fact::Taken { bytes });
        }
        if self.policy.heartbeat == Heartbeat::Frames {
            for sequence in 0..bytes / 16 {
                self.tell(peer, Fact::Frame { kind: Kind::Pong, sequence });
            }
        }
        let evidence = self.evidence(peer);
        let fact = match evidence.tcp_state {
            TcpState::Established => Fact::Emptied,
            TcpState::Close if !self.sockets[peer].shut => Fact::Failed { errno: libc::ECONNRESET, evidence },
            _ => Fact::End(evidence),
        };
        self.tell(peer, fact);
    }

    fn accept(&mut self) {
        let id = self.tracker.accept(address(self.sockets.len()), 0, self.now).expect("there is room");
        self.sockets.push(Socket {
            id,
            received: 0,
            unread: 0,
            last_data: self.now,
            last_ack: self.now,
            mark: self.tracker.config().first_low_water(),
            state: TcpState::Established,
            shut: false,
            told: Vec::new(),
        });
        self.settle();
    }

    /// Sixteen bytes come at `at`; whether they wake us.
    fn arrive(&mut self, peer: usize, at: Instant) -> bool {
        let socket = &mut self.sockets[peer];
        socket.received += 16;
        socket.unread += 16;
        (socket.last_data, socket.last_ack) = (at, at);
        socket.unread >= socket.mark
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for round in 0.. {
            assert!(round < 1_000_000, "it never ends");
            let Some(due) = self.tracker.next_due() else { break };
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.tracker.handle_time(self.now);
            self.settle();
        }
        self.now = end;
    }
}

/// What happens. A peer is named by a number of any size. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Op {
    Accept,
    Of(usize, Deed),
    Pass(u64),
    /// Up to so long before the next deadline of all.
    Edge(u64),
    /// For so long; and one peer speaks meanwhile.
    Stall(u64, usize),
    Suspend(u64),
}

/// What a peer does, or its kernel, or the tracker with its socket.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Speak,
    Acknowledge,
    Fin,
    Reset,
    /// A look that was not asked for.
    Look,
}

fn op(idle: u64) -> impl Strategy<Value = Op> {
    let peer = || 0..64_usize;
    let deed = prop_oneof![
        12 => Just(Deed::Speak),
        3 => Just(Deed::Acknowledge),
        1 => Just(Deed::Fin),
        1 => Just(Deed::Reset),
        4 => Just(Deed::Look),
    ];
    prop_oneof![
        3 => Just(Op::Accept),
        21 => (peer(), deed).prop_map(|(peer, deed)| Op::Of(peer, deed)),
        8 => (0..=idle / 2).prop_map(Op::Pass),
        6 => (0..3_u64).prop_map(Op::Edge),
        1 => (1..2 * idle, peer()).prop_map(|(time, peer)| Op::Stall(time, peer)),
        1 => (1..2 * idle).prop_map(Op::Suspend),
    ]
}

fn config() -> impl Strategy<Value = TrackerConfig> {
    let heartbeats = vec![Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None];
    (
        proptest::sample::select(heartbeats),
        proptest::sample::select(vec![Wake::Lazy, Wake::Beat]),
        proptest::sample::select(vec![(2_000, 100, 3), (2_000, 400, 2), (4_000, 1_000, 3)]),
        proptest::sample::select(vec![0, 1_500]),
        proptest::sample::select(vec![16, 64, 1_024]),
    )
        .prop_map(|(heartbeat, wake, (idle, interval, probes), grace, unread)| {
            let policy = Policy {
                idle: millis(idle),
                interval: millis(interval),
                probes,
                handshake: millis(idle + 700),
                half_closed_grace: millis(grace),
                ..policy(heartbeat)
            };
            TrackerConfig { wake, unread, dead_kept: 0, ..TrackerConfig::new(policy, 64) }
        })
}

fn run(config: TrackerConfig, fraction: u64, ops: &[Op]) {
    // Everything happens within its millisecond at the same time, and no visit of the wheel does.
    let now = Instant::from_nanos(START.as_nanos() / 1_000_000 * 1_000_000 + fraction);
    let mut server = Server {
        tracker: Tracker::new(config, now),
        policy: config.policy,
        now,
        sockets: Vec::new(),
        stalls: Vec::new(),
    };
    let mut model = Model::new(config.policy);
    for &op in ops {
        let count = server.sockets.len().max(1);
        if matches!(op, Op::Stall(..) | Op::Suspend(_)) {
            // On the very edge, time that stands still would leave open what came first. A suspicion makes the next one.
            model.advance(server.listened(server.now));
            while model.deadlines.iter().any(|(at, _)| *at == server.listened(server.now)) {
                server.pass(millis(1));
                model.advance(server.listened(server.now));
            }
        }
        let time = server.listened(server.now);
        model.advance(time);
        match op {
            Op::Accept if server.tracker.is_full() => {}
            Op::Accept => {
                model.accept(time);
                server.accept();
            }
            Op::Pass(time) => server.pass(millis(time)),
            Op::Edge(before) => {
                let next = model.deadlines.first().map_or(time, |(at, _)| *at - millis(before));
                server.pass(next.since(time));
            }
            Op::Stall(..) | Op::Suspend(_) if server.stalls.len() == limits::MAX_STALLS => {}
            Op::Suspend(held) => {
                let grace = millis(held).min(config.policy.detection_time());
                server.stalls.push((server.now, server.now + grace));
                server.tracker.handle_suspend(server.now, millis(held));
                server.settle();
            }
            Op::Stall(held, peer) => {
                let (start, middle) = (server.now, server.now + millis(held / 2));
                server.now = server.now + millis(held);
                server.stalls.push((start, server.now));
                server.tracker.handle_stall(start, server.now);
                let peer = peer % count;
                if server.sockets.get(peer).is_some_and(|socket| socket.state == TcpState::Established) {
                    let time = server.listened(middle);
                    model.advance(time);
                    let woken = server.arrive(peer, middle);
                    model.sign(peer, time, true);
                    if woken {
                        server.wake(peer, 0x1);
                    }
                }
                server.pass(Duration::ZERO);
            }
            Op::Of(..) if server.sockets.is_empty() => {}
            Op::Of(peer, deed) => {
                let peer = peer % count;
                match (deed, server.sockets[peer].state) {
                    (Deed::Acknowledge, _) => {
                        server.sockets[peer].last_ack = server.now;
                        if config.policy.heartbeat == Heartbeat::None {
                            model.sign(peer, time, false);
                        }
                    }
                    (Deed::Reset, TcpState::Established | TcpState::CloseWait) => {
                        server.sockets[peer].state = TcpState::Close;
                        model.reset(peer, time);
                        server.wake(peer, 0x2019);
                    }
                    (Deed::Speak, TcpState::Established) => {
                        model.sign(peer, time, true);
                        if server.arrive(peer, server.now) {
                            server.wake(peer, 0x1);
                        }
                    }
                    // A peer that is judged by frames is looked at only after a drain.
                    (Deed::Look, TcpState::Established) if config.policy.heartbeat != Heartbeat::Frames => {
                        // A peer that is looked at on the very edge is judged there.
                        if model.deadlines.contains(&(time, peer)) {
                            model.pass_deadline(peer, time);
                        }
                        server.tell(peer, Fact::Inspected(server.evidence(peer)));
                        server.settle();
                    }
                    (Deed::Fin, TcpState::Established) => {
                        (server.sockets[peer].state, server.sockets[peer].shut) = (TcpState::CloseWait, true);
                        model.fin(peer, time);
                        server.wake(peer, 0x2001);
                    }
                    _ => {}
                }
            }
        }
    }
    // Long enough for all to die of silence.
    for _ in 0..4 {
        server.pass(config.policy.detection_time() + config.policy.handshake);
    }
    model.advance(server.listened(server.now));
    assert!(server.tracker.is_empty(), "a peer lives for ever");
    for (peer, shadow) in model.shadows.iter().enumerate() {
        compare(&server, peer, &shadow.expected);
    }
}

/// What was told of one peer, beside what had to be.
fn compare(server: &Server, peer: usize, expected: &[Expected]) {
    let mut told: VecDeque<_> = server.sockets[peer].told.iter().collect();
    let all = || format!("{expected:#?}\n{:#?}", server.sockets[peer].told);
    for wanted in expected {
        let Some((what, event)) = told.front() else {
            assert!(wanted.optional, "{wanted:?} was not told of {peer}: {}", all());
            continue;
        };
        let at = server.listened(event.at);
        // Transitions are kept to the microsecond, rounded down.
        let timely = at + Duration::from_micros(1) > wanted.from && at <= wanted.until;
        if *what != wanted.what || !timely {
            assert!(wanted.optional, "{wanted:?}, but told of {peer} {what:?} at {at:?}: {}", all());
            continue;
        }
        if let EventKind::Died(death) = &event.kind {
            assert!(at >= wanted.from, "early");
            if let Some(deadline) = death.deadline {
                assert_eq!(server.listened(deadline), wanted.from);
            }
        }
        told.pop_front();
    }
    assert!(told.is_empty(), "{told:?} of {peer} was not expected: {}", all());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn the_tracker_says_what_a_sorted_set_of_deadlines_would(
        config in config(),
        fraction in 1_000..999_000_u64,
        ops in proptest::collection::vec(op(2_000), 1..150),
    ) {
        run(config, fraction, &ops);
    }
}

/// Found by the one above in some 60,000 runs: a stall that begins at the very instant of a verdict whose suspicion no operation
/// had asked for yet.
#[test]
fn a_stall_that_begins_at_the_instant_of_a_verdict() {
    let policy = Policy {
        idle: millis(2_000),
        interval: millis(100),
        probes: 3,
        handshake: millis(2_700),
        half_closed_grace: Duration::ZERO,
        ..policy(Heartbeat::Bytes)
    };
    let config =
        TrackerConfig { wake: Wake::Lazy, unread: 16, dead_kept: 0, ..TrackerConfig::new(policy, 64) };
    let come = [Op::Accept; 4];
    let meet = [Op::Of(2, Deed::Speak), Op::Suspend(2_246), Op::Edge(1), Op::Edge(0), Op::Pass(547)];
    let stall = [Op::Stall(1, 3), Op::Of(2, Deed::Speak)];
    run(config, 1_000, &[&come[..], &meet, &stall].concat());
}
