//! The situations of the [table](super::table), and how a peer gets there: by facts and time alone.

use super::rules::{self, Before, Stage, Visit, World};
use super::*;

/// One step on the way into a situation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    /// So many milliseconds pass.
    Wait(u64),
    /// The sink takes nothing, from the beginning on.
    Stuck,
    /// The sink takes one event.
    TakeOne,
    /// The sink takes all events, from now on.
    Take,
    /// The peer gives a proof of life.
    Speak,
    /// The wheel names the peer, and its evidence is asked for.
    Visit,
    /// A frame is found during the visit.
    Frame,
    /// A visit finds nothing new, and sends a probe where the server speaks.
    Ask,
    /// From alive to suspect: by a visit, and with frames by another one, when the first probe was not answered.
    FallSilent,
    /// From suspect to alive.
    ComeBack,
    /// What this side sent is repeated without an answer.
    Doubt,
    Fin,
    /// The grace is put off while the visit is on its way.
    Stall,
    /// The grace is over.
    Over,
    Die,
    Release,
    /// Another peer gets the place.
    Replace,
}

use Go::*;

/// What a situation needs of the world to exist.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Frames,
    Grace,
}

use Needs::*;

/// A situation: its name, what it needs, the situation that comes before it, and the steps from there.
#[derive(Clone, Copy)]
pub struct Situation(pub &'static str, Needs, &'static str, &'static [Go]);

pub const SITUATIONS: [Situation; 35] = [
    Situation("Mute", Nothing, "", &[Wait(2_000)]),
    Situation("MuteOverdue", Nothing, "", &[Wait(12_000)]),
    Situation("MuteVisited", Nothing, "", &[Wait(4_200), Visit]),
    Situation("MuteVisitedLate", Nothing, "", &[Wait(12_000), Visit]),
    Situation("MuteFramed", Frames, "MuteVisited", &[Frame]),
    Situation("Alive", Nothing, "", &[Wait(20_000), Speak, Wait(1_000)]),
    Situation("AliveIdle", Nothing, "Alive", &[Wait(3_500)]),
    Situation("AliveExpired", Nothing, "Alive", &[Wait(7_000)]),
    Situation("AliveVisited", Nothing, "AliveIdle", &[Visit]),
    Situation("AliveVisitedLate", Nothing, "AliveExpired", &[Visit]),
    Situation("AliveFramed", Frames, "AliveVisited", &[Frame]),
    // Its first probe is out, and then its answer is overdue.
    Situation("Asked", Frames, "AliveIdle", &[Ask, Wait(100)]),
    Situation("AskedVisited", Frames, "Asked", &[Wait(500), Visit]),
    // Its next probe is due at the visit.
    Situation("Silent", Nothing, "AliveIdle", &[FallSilent, Wait(100)]),
    Situation("SilentVisited", Nothing, "Silent", &[Wait(500), Visit]),
    Situation("SilentVisitedLate", Nothing, "Silent", &[Wait(4_000), Visit]),
    Situation("SilentFramed", Frames, "SilentVisited", &[Frame]),
    Situation("Doubted", Nothing, "Alive", &[Doubt, Wait(100)]),
    Situation("DoubtedVisited", Nothing, "Doubted", &[Wait(1_000), Visit]),
    // The sink took nothing for long: up, suspected, recovered; or suspected, recovered, suspected.
    Situation(
        "FullAlive",
        Nothing,
        "",
        &[Stuck, Wait(20_000), Speak, Wait(4_500), FallSilent, Wait(500), ComeBack, Wait(100)],
    ),
    Situation("FullSuspect", Nothing, "FullAlive", &[TakeOne, Wait(4_400), FallSilent, Wait(100)]),
    Situation("FinAlive", Grace, "FullAlive", &[Fin]),
    Situation("FinSuspect", Grace, "FullSuspect", &[Fin]),
    Situation("FinAliveWithRoom", Grace, "FinAlive", &[Take]),
    Situation("FinSuspectWithRoom", Grace, "FinSuspect", &[Take]),
    Situation("HalfClosed", Grace, "Alive", &[Fin, Wait(500)]),
    Situation("HalfClosedFromSuspect", Grace, "Silent", &[Fin, Wait(500)]),
    Situation("HalfClosedVisited", Grace, "HalfClosed", &[Wait(rules::GRACE - 500 + 1), Visit, Stall]),
    Situation("HalfClosedOver", Grace, "HalfClosed", &[Wait(rules::GRACE), Over]),
    Situation("HalfClosedVisitedOver", Grace, "HalfClosedOver", &[Visit]),
    Situation("Dead", Nothing, "Alive", &[Die]),
    Situation("DeadAndTaken", Nothing, "Dead", &[Take]),
    Situation("DeadAndReleased", Nothing, "Dead", &[Release]),
    Situation("Gone", Nothing, "DeadAndTaken", &[Release]),
    Situation("Replaced", Nothing, "Gone", &[Replace]),
];

impl Situation {
    pub fn exists(self, world: World) -> bool {
        match self.1 {
            Nothing => true,
            Frames => world.heartbeat == Heartbeat::Frames,
            Grace => world.grace,
        }
    }

    /// All steps from the accept on.
    fn way(self) -> Vec<Go> {
        let before = SITUATIONS.iter().find(|situation| situation.0 == self.2);
        let mut way = before.map_or(Vec::new(), |before| before.way());
        way.extend(self.3);
        way
    }
}

/// A peer on its way into a situation, by facts and time alone.
pub struct Scene {
    world: World,
    pub tracker: Tracker,
    pub peer: PeerId,
    pub now: Instant,
    life: Instant,
    /// The sink takes nothing.
    stuck: bool,
    pub before: Before,
}

impl Scene {
    fn new(world: World) -> Scene {
        let policy = Policy {
            idle: millis(rules::IDLE),
            interval: millis(rules::INTERVAL),
            probes: rules::PROBES as u32,
            handshake: millis(rules::HANDSHAKE),
            half_closed_grace: if world.grace { millis(rules::GRACE) } else { Duration::ZERO },
            ..policy(world.heartbeat)
        };
        let config = TrackerConfig { wake: world.wake, dead_kept: 2, ..TrackerConfig::new(policy, 2) };
        let mut tracker = Tracker::new(config, START);
        let peer = tracker.accept(address(1), 7, START).expect("there is room");
        let before = Before {
            stage: if world.heartbeat == Heartbeat::None { Stage::Alive } else { Stage::Mute },
            lived: 0,
            silent: 0,
            probes: 0,
            fin: false,
            on_byte: world.heartbeat == Heartbeat::Frames,
            room: true,
            visit: Visit::No,
            over: false,
        };
        Scene { world, tracker, peer, now: START, life: START, stuck: false, before }
    }

    pub fn reach(world: World, situation: Situation) -> Scene {
        let mut scene = Scene::new(world);
        let way = situation.way();
        scene.stuck = way.contains(&Stuck);
        scene.settle();
        way.into_iter().for_each(|step| scene.go(step));
        scene.before.lived = scene.now.since(START).as_millis() as u64;
        scene.before.silent = scene.now.since(scene.life).as_millis() as u64;
        actions(&mut scene.tracker);
        scene.tracker.audit();
        scene
    }

    fn go(&mut self, step: Go) {
        let evidence = self.evidence(millis(0));
        match step {
            Wait(time) => self.now = self.now + millis(time),
            Stuck => {}
            TakeOne => drop(self.tracker.poll_event().expect("the sink takes one")),
            Take => {
                self.stuck = false;
                self.before.room = true;
                self.settle();
            }
            Speak => {
                match self.world.heartbeat {
                    Heartbeat::Frames => self.tell(Fact::Frame { kind: Kind::Pong, sequence: 1 }),
                    Heartbeat::Bytes | Heartbeat::None => self.tell(Fact::Ready(PollMask(0x1))),
                }
                self.live();
            }
            Visit => {
                self.tracker.handle_time(self.now);
                let asked = actions(&mut self.tracker);
                assert_eq!(asked.len(), 1, "a visit asks for one thing: {asked:?}");
                self.before.visit = Visit::Begun;
            }
            Frame => {
                self.tell(Fact::Frame { kind: Kind::Pong, sequence: 1 });
                self.before.visit = Visit::Framed;
            }
            Ask => {
                self.go(Visit);
                self.tell(Fact::Emptied);
                actions(&mut self.tracker);
                self.tell(Fact::Inspected(self.evidence(self.now.since(self.life))));
                self.settle();
                self.before =
                    Before { visit: Visit::No, probes: self.before.probes + 1, on_byte: true, ..self.before };
            }
            FallSilent => {
                self.go(Ask);
                if self.world.heartbeat == Heartbeat::Frames {
                    self.go(Wait(rules::INTERVAL));
                    self.go(Ask);
                }
                self.before.stage = Stage::Silent;
            }
            ComeBack => {
                match self.world.heartbeat {
                    Heartbeat::Frames => self.tell(Fact::Frame { kind: Kind::Pong, sequence: 2 }),
                    Heartbeat::Bytes | Heartbeat::None => self.tell(Fact::Inspected(evidence)),
                }
                self.live();
                self.before.room = false;
            }
            Doubt => {
                let evidence = self.evidence(self.now.since(self.life));
                self.tell(Fact::Inspected(Evidence { unacked: 3, retransmits: 2, ..evidence }));
                self.before = Before { stage: Stage::Doubted, probes: 1, on_byte: true, ..self.before };
                self.settle();
            }
            Fin => {
                self.tell(Fact::End(Evidence { tcp_state: TcpState::CloseWait, ..evidence }));
                self.before.fin = true;
                if !self.stuck {
                    self.before.stage = Stage::HalfClosed;
                }
                self.settle();
            }
            Stall => {
                self.tracker.handle_stall(self.now - millis(500), self.now);
                assert!(events(&mut self.tracker).len() == 1);
            }
            Over => self.before.over = true,
            Die => {
                self.tell(Fact::Bye(evidence));
                actions(&mut self.tracker);
                self.before.stage = Stage::Over;
            }
            Release => self.tracker.release(self.peer),
            Replace => {
                let next = self.tracker.accept(address(2), 7, self.now).expect("there is room");
                assert_eq!(next.index(), self.peer.index(), "the place is used again");
            }
        }
    }

    /// The peer has just given a proof of life.
    fn live(&mut self) {
        self.life = self.now;
        self.before = Before { stage: Stage::Alive, probes: 0, on_byte: false, ..self.before };
        actions(&mut self.tracker);
    }

    pub fn tell(&mut self, fact: Fact) {
        self.tracker.handle(self.peer, fact, self.now);
    }

    /// What was asked for is done, and what is owed is taken.
    fn settle(&mut self) {
        actions(&mut self.tracker);
        if !self.stuck {
            events(&mut self.tracker);
        }
    }

    fn evidence(&self, age: Duration) -> Evidence {
        let at = self.now - age;
        Evidence { received: 16, last_data: at, last_ack: at, ..Evidence::default() }
    }
}
