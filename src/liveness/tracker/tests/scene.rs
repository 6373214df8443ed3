//! The situations of the [table](super::table), and how a peer gets there: by facts and time alone.

use super::rules::{self, Before, Stage, Visit, World};
use super::*;

/// How a peer got where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    Mute,
    MuteOverdue,
    MuteVisited,
    MuteVisitedLate,
    MuteFramed,
    Alive,
    AliveIdle,
    AliveExpired,
    AliveVisited,
    AliveVisitedLate,
    AliveFramed,
    /// Its first probe is out.
    Asked,
    AskedVisited,
    Silent,
    SilentVisited,
    SilentVisitedLate,
    SilentFramed,
    Doubted,
    DoubtedVisited,
    /// The sink took nothing for long.
    FullAlive,
    FullSuspect,
    /// The same, and then a FIN came.
    FinAlive,
    FinSuspect,
    /// The same, and then the sink took all.
    FinAliveWithRoom,
    FinSuspectWithRoom,
    HalfClosed,
    HalfClosedFromSuspect,
    HalfClosedVisited,
    HalfClosedOver,
    HalfClosedVisitedOver,
    Dead,
    DeadAndTaken,
    DeadAndReleased,
    Gone,
    Replaced,
}

use Situation::*;

pub const SITUATIONS: [Situation; 35] = [
    Mute,
    MuteOverdue,
    MuteVisited,
    MuteVisitedLate,
    MuteFramed,
    Alive,
    AliveIdle,
    AliveExpired,
    AliveVisited,
    AliveVisitedLate,
    AliveFramed,
    Asked,
    AskedVisited,
    Silent,
    SilentVisited,
    SilentVisitedLate,
    SilentFramed,
    Doubted,
    DoubtedVisited,
    FullAlive,
    FullSuspect,
    FinAlive,
    FinSuspect,
    FinAliveWithRoom,
    FinSuspectWithRoom,
    HalfClosed,
    HalfClosedFromSuspect,
    HalfClosedVisited,
    HalfClosedOver,
    HalfClosedVisitedOver,
    Dead,
    DeadAndTaken,
    DeadAndReleased,
    Gone,
    Replaced,
];

impl Situation {
    /// Whether there is such a thing in that world.
    pub fn exists(self, world: World) -> bool {
        match self {
            MuteFramed | AliveFramed | SilentFramed | Asked | AskedVisited => {
                world.heartbeat == Heartbeat::Frames
            }
            FinAlive | FinSuspect | FinAliveWithRoom | FinSuspectWithRoom => world.grace,
            HalfClosed
            | HalfClosedFromSuspect
            | HalfClosedVisited
            | HalfClosedOver
            | HalfClosedVisitedOver => world.grace,
            _ => true,
        }
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
            heartbeat: world.heartbeat,
            idle: millis(rules::IDLE),
            interval: millis(rules::INTERVAL),
            probes: rules::PROBES as u32,
            handshake: millis(rules::HANDSHAKE),
            half_closed_grace: if world.grace { millis(rules::GRACE) } else { Duration::ZERO },
            user_timeout: None,
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
        scene.stuck = matches!(
            situation,
            FullAlive | FullSuspect | FinAlive | FinSuspect | FinAliveWithRoom | FinSuspectWithRoom
        );
        scene.settle();
        scene.play(situation);
        scene.before.lived = scene.now.since(START).as_millis() as u64;
        scene.before.silent = scene.now.since(scene.life).as_millis() as u64;
        actions(&mut scene.tracker);
        scene.tracker.audit();
        scene
    }

    fn play(&mut self, situation: Situation) {
        match situation {
            Mute => self.wait(2_000),
            MuteOverdue => self.wait(12_000),
            MuteVisited => {
                self.wait(4_200);
                self.visit();
            }
            MuteVisitedLate => {
                self.wait(12_000);
                self.visit();
            }
            MuteFramed => {
                self.play(MuteVisited);
                self.frame();
            }
            Alive => {
                self.wait(20_000);
                self.speak();
                self.wait(1_000);
            }
            AliveIdle => {
                self.play(Alive);
                self.wait(3_500);
            }
            AliveExpired => {
                self.play(Alive);
                self.wait(7_000);
            }
            AliveVisited => {
                self.play(AliveIdle);
                self.visit();
            }
            AliveVisitedLate => {
                self.play(AliveExpired);
                self.visit();
            }
            AliveFramed => {
                self.play(AliveVisited);
                self.frame();
            }
            Asked => {
                self.play(Alive);
                self.wait(3_500);
                self.look();
                self.before.probes = 1;
                self.before.on_byte = true;
                self.wait(100);
            }
            AskedVisited => {
                self.play(Asked);
                self.wait(500); // its answer is overdue
                self.visit();
            }
            Silent => {
                self.play(Alive);
                self.wait(3_500);
                self.fall_silent();
                self.wait(100);
            }
            SilentVisited => {
                self.play(Silent);
                self.wait(500); // its next probe is due
                self.visit();
            }
            SilentVisitedLate => {
                self.play(Silent);
                self.wait(4_000);
                self.visit();
            }
            SilentFramed => {
                self.play(SilentVisited);
                self.frame();
            }
            Doubted => {
                self.play(Alive);
                let age = self.now.since(self.life);
                let evidence = Evidence { unacked: 3, retransmits: 2, ..self.evidence(age) };
                self.tell(Fact::Inspected(evidence));
                self.before.stage = Stage::Doubted;
                self.before.probes = 1;
                self.before.on_byte = true;
                self.settle();
                self.wait(100);
            }
            DoubtedVisited => {
                self.play(Doubted);
                self.wait(1_000);
                self.visit();
            }
            FullAlive => {
                self.play(Alive);
                self.wait(3_500);
                self.fall_silent();
                self.wait(500);
                self.come_back(); // it owes up, suspected, recovered
                self.before.room = false;
                self.wait(100);
            }
            FullSuspect => {
                self.play(FullAlive);
                self.tracker.poll_event().expect("the sink takes one");
                self.wait(4_400);
                self.fall_silent(); // suspected, recovered, suspected
                self.wait(100);
            }
            FinAlive | FinAliveWithRoom => {
                self.play(FullAlive);
                self.fin(situation == FinAliveWithRoom);
            }
            FinSuspect | FinSuspectWithRoom => {
                self.play(FullSuspect);
                self.fin(situation == FinSuspectWithRoom);
            }
            HalfClosed | HalfClosedFromSuspect => {
                self.play(if situation == HalfClosed { Alive } else { Silent });
                self.fin(true);
                self.before.stage = Stage::HalfClosed;
                self.wait(500);
            }
            HalfClosedVisited => {
                self.play(HalfClosed);
                // The time of a grace is put off while the visit is on its way.
                self.wait(rules::GRACE - 500 + 1);
                self.visit();
                self.tracker.handle_stall(self.now - millis(500), self.now);
                assert!(events(&mut self.tracker).len() == 1);
            }
            HalfClosedOver => {
                self.play(HalfClosed);
                self.wait(rules::GRACE);
                self.before.over = true;
            }
            HalfClosedVisitedOver => {
                self.play(HalfClosedOver);
                self.visit();
            }
            Dead | DeadAndTaken | DeadAndReleased | Gone | Replaced => {
                self.play(Alive);
                let evidence = self.evidence(millis(0));
                self.tell(Fact::Bye(evidence));
                actions(&mut self.tracker);
                self.before.stage = Stage::Over;
                if matches!(situation, DeadAndTaken | Gone | Replaced) {
                    self.settle();
                }
                if matches!(situation, DeadAndReleased | Gone | Replaced) {
                    self.tracker.release(self.peer);
                }
                if situation == Replaced {
                    let next = self.tracker.accept(address(2), 7, self.now).expect("there is room");
                    assert_eq!(next.index(), self.peer.index(), "the place is used again");
                }
            }
        }
    }

    fn wait(&mut self, time: u64) {
        self.now = self.now + millis(time);
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

    fn visit(&mut self) {
        self.tracker.handle_time(self.now);
        let asked = actions(&mut self.tracker);
        assert_eq!(asked.len(), 1, "a visit asks for one thing: {asked:?}");
        self.before.visit = Visit::Begun;
    }

    fn frame(&mut self) {
        self.tell(Fact::Frame { kind: Kind::Pong, sequence: 1 });
        self.before.visit = Visit::Framed;
    }

    fn speak(&mut self) {
        match self.world.heartbeat {
            Heartbeat::Frames => self.tell(Fact::Frame { kind: Kind::Pong, sequence: 1 }),
            Heartbeat::Bytes | Heartbeat::None => self.tell(Fact::Ready(PollMask(0x1))),
        }
        self.life = self.now;
        self.before.stage = Stage::Alive;
        self.before.on_byte = false;
        actions(&mut self.tracker);
    }

    /// A visit that finds nothing new.
    fn look(&mut self) {
        self.visit();
        self.tell(Fact::Emptied);
        actions(&mut self.tracker);
        let evidence = self.evidence(self.now.since(self.life));
        self.tell(Fact::Inspected(evidence));
        self.before.visit = Visit::No;
        self.settle();
    }

    /// From alive to suspect: by a visit, and with frames by another one, when the first probe was not answered.
    fn fall_silent(&mut self) {
        self.look();
        self.before.probes = 1;
        if self.world.heartbeat == Heartbeat::Frames {
            self.wait(rules::INTERVAL);
            self.look();
            self.before.probes = 2;
        }
        self.before.stage = Stage::Silent;
        self.before.on_byte = true;
    }

    fn come_back(&mut self) {
        let evidence = self.evidence(millis(0));
        match self.world.heartbeat {
            Heartbeat::Frames => self.tell(Fact::Frame { kind: Kind::Pong, sequence: 2 }),
            Heartbeat::Bytes | Heartbeat::None => self.tell(Fact::Inspected(evidence)),
        }
        self.life = self.now;
        self.before.stage = Stage::Alive;
        self.before.probes = 0;
        self.before.on_byte = false;
        actions(&mut self.tracker);
    }

    fn fin(&mut self, taken: bool) {
        let evidence = Evidence { tcp_state: TcpState::CloseWait, ..self.evidence(millis(0)) };
        self.tell(Fact::End(evidence));
        self.before.fin = true;
        if taken {
            self.stuck = false;
            self.before.room = true;
        }
        self.settle();
    }
}
