//! The other side: peers that follow scripts, and a kernel that keeps their sockets.
//!
//! Everything that happens is known here, to the nanosecond. The driver sees of it what system calls
//! would show; the oracle sees all.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use deadpeer::frame::{Frame, FrameError, encode_hello};
use deadpeer::liveness::{
    Cause, Evidence, Heartbeat, Hop, KeepalivePlan, LocalCause, PollMask, TcpState, TrackerConfig,
};
use deadpeer::time::Instant;
use fastrand::Rng;

use crate::faults::{Faults, MS};

pub const SECOND: u64 = 1_000 * MS;
/// The kernel's tick at HZ=250.
pub const TICK: u64 = 4 * MS;
/// A receive window: so much may lie unread.
const WINDOW: u64 = 65_536;
/// Far more than a heartbeat's: a peer that left so much unread is given the time to go on, after it was taken
/// off, before its silence is judged.
const HEAP: u64 = 4_096;
/// To the peer's kernel and back.
const RTT: u64 = MS / 5;

const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;
const ENOBUFS: i32 = 105;
const ETIMEDOUT: i32 = 110;
const EHOSTUNREACH: i32 = 113;
const EAGAIN: i32 = 11;
const EINTR: i32 = 4;
const ECANCELED: i32 = 125;
const EPIPE: i32 = 32;

/// What a peer, its kernel or another program does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sends so many bytes of its stream: in frame mode of an endless stream of beats.
    Send(u32),
    /// Sends bytes that are no frame.
    Babble,
    /// Sends BYE.
    Bye,
    /// Shuts its writing side.
    Fin,
    /// Closes altogether: what we send from now on is answered with a RST.
    Close,
    /// Closes while we do: recv gives 0 in the state CLOSING.
    CrossingClose,
    /// Resets.
    Reset,
    /// Resets, and another reader takes the error.
    ResetTaken,
    /// Nothing of it is heard any more, not even its kernel.
    Vanish,
    /// Its program stops; its kernel answers.
    Freeze,
    /// What we send does not get through; what it sends does.
    Deafen,
    /// Our application sends it a byte.
    Write,
    /// A router's message, while the connection stands.
    SoftError,
    /// The kernel gives up because of a router's messages.
    Unreachable(Hop),
    /// An administrator kills our socket.
    Destroy,
    /// Our own program shuts its reading side.
    ShutReading,
}

/// How the kernel's side of a connection ended, with the errno that is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub at: u64,
    pub cause: Cause,
}

/// What was true of one life, noticed or not.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// When the connection was made.
    pub connected: u64,
    /// The last life by the mode: byte, end of a complete frame, acknowledgement.
    pub life: Option<u64>,
    /// The life before the last, and the last that came after a silence worth suspecting: its time and
    /// that of the life before it.
    pub returns: VecDeque<(u64, u64)>,
    /// Bytes of a frame that is not complete came after the last life.
    pub trailing: Option<u64>,
    pub fin: Option<u64>,
    /// RST, errno, or our own doing.
    pub cut: Option<Cut>,
    /// BYE or garbage.
    pub said: Option<(u64, Cause, Option<FrameError>)>,
    /// The last time something was asked that its kernel should have answered.
    pub asked: Option<u64>,
    /// A reason to doubt the path, and when there last was one.
    pub doubt: Option<u64>,
    /// Since when it could not send because its window was full.
    pub blocked: Option<u64>,
    /// So much lay unread when it last spoke that its window may have been full.
    pub heaped: bool,
}

/// One connection: the kernel's socket on our side, and the peer behind it.
pub struct Socket {
    pub truth: Truth,
    script: VecDeque<(u64, Act)>,
    // The peer.
    vanished: bool,
    frozen: bool,
    deaf: bool,
    closed: bool,
    answers_pings: bool,
    outgoing: Vec<u8>,
    frames: u32,
    hello: bool,
    // The socket.
    queue: VecDeque<u8>,
    pub unread: u64,
    pub received: u64,
    lowat: u32,
    last_data: u64,
    last_ack: u64,
    tcp_state: TcpState,
    fin: bool,
    reading_shut: bool,
    error: Option<i32>,
    so_error: Option<i32>,
    unacked: Option<u64>,
    retransmits: u8,
    watch: Option<u64>,
    /// A wake whose completion was not made yet.
    pending_wake: bool,
    pub open: bool,
    last_delivery: u64,
}

/// What a completion is about.
#[derive(Clone, Debug)]
pub enum Done {
    /// A poll: the mask if it was taken at the wake, or `None`: at the delivery; whether more follow.
    Poll { mask: Option<u16>, more: bool },
    /// A cancelled poll's last completion.
    PollEnd,
    /// A recv.
    Recv { result: i32, bytes: Vec<u8> },
}

#[derive(Clone, Debug)]
pub struct Completion {
    pub life: usize,
    pub token: u64,
    pub done: Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Connect(usize),
    Step(usize),
    Keepalive(usize),
    GiveUp(usize, u64),
    PingAcked(usize),
    Answer(usize),
    Delivery(usize),
}

/// All sockets, and the time.
pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub faults: Faults,
    config: TrackerConfig,
    plan: KeepalivePlan,
    heap: BinaryHeap<Reverse<(u64, u64, What)>>,
    number: u64,
    pub sockets: Vec<Socket>,
    pub backlog: VecDeque<usize>,
    /// Made completions, by the number of their delivery.
    made: Vec<Option<Completion>>,
    free: Vec<usize>,
    pub queue: VecDeque<Completion>,
    pub trace: Option<Vec<(u64, usize, String)>>,
    pub waiting_to_connect: usize,
    /// What peers did, and the completions that told of it.
    pub events: u64,
}

impl World {
    pub fn new(rng: Rng, faults: Faults, config: TrackerConfig, now: u64) -> World {
        World {
            now,
            rng,
            faults,
            config,
            plan: config.policy.keepalive(),
            heap: BinaryHeap::new(),
            number: 0,
            sockets: Vec::new(),
            backlog: VecDeque::new(),
            made: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            trace: None,
            waiting_to_connect: 0,
            events: 0,
        }
    }

    /// Notes something about every life.
    pub fn note_all(&mut self, text: impl FnOnce() -> String) {
        self.note(usize::MAX, text);
    }

    pub fn note(&mut self, life: usize, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push((self.now, life, text()));
        }
    }

    fn schedule(&mut self, at: u64, what: What) {
        self.number += 1;
        self.heap.push(Reverse((at, self.number, what)));
    }

    /// A peer that connects at `at` and then follows its script: waits, and acts.
    pub fn add_peer(&mut self, at: u64, script: VecDeque<(u64, Act)>, answers_pings: bool) {
        let life = self.sockets.len();
        let hello = self.rng.bool();
        self.sockets.push(Socket {
            truth: Truth::default(),
            script,
            vanished: false,
            frozen: false,
            deaf: false,
            closed: false,
            answers_pings,
            outgoing: Vec::new(),
            frames: 0,
            hello,
            queue: VecDeque::new(),
            unread: 0,
            received: 0,
            lowat: 1,
            last_data: 0,
            last_ack: 0,
            tcp_state: TcpState::Established,
            fin: false,
            reading_shut: false,
            error: None,
            so_error: None,
            unacked: None,
            retransmits: 0,
            watch: None,
            pending_wake: false,
            open: true,
            last_delivery: 0,
        });
        self.waiting_to_connect += 1;
        self.schedule(at, What::Connect(life));
    }

    /// Lets happen what happens up to `until`, but no further than the first completion that is
    /// delivered; says whether there was one.
    pub fn advance(&mut self, until: u64, stop_at_completion: bool) -> bool {
        while let Some(&Reverse((at, _, what))) = self.heap.peek() {
            if at > until {
                break;
            }
            self.heap.pop();
            self.now = self.now.max(at);
            if self.happen(what) && stop_at_completion {
                return true;
            }
        }
        self.now = self.now.max(until);
        false
    }

    fn happen(&mut self, what: What) -> bool {
        match what {
            What::Connect(life) => {
                let now = self.now;
                let socket = &mut self.sockets[life];
                socket.truth.connected = now;
                self.events += 1;
                (socket.last_data, socket.last_ack) = (now, now);
                if self.config.policy.heartbeat == Heartbeat::None {
                    socket.truth.life = Some(now);
                }
                self.waiting_to_connect -= 1;
                self.backlog.push_back(life);
                self.note(life, || "connects".into());
                self.plan_next(life);
                self.schedule(now + u64::from(self.plan.idle) * SECOND, What::Keepalive(life));
                return true; // the listener's poll
            }
            What::Step(life) => {
                let Some((_, act)) = self.sockets[life].script.pop_front() else { return false };
                self.act(life, act);
                self.plan_next(life);
            }
            What::Keepalive(life) => self.keepalive(life),
            What::GiveUp(life, seen) => {
                let socket = &self.sockets[life];
                if socket.last_data.max(socket.last_ack) == seen && socket.tcp_state != TcpState::Close {
                    let sent = self.retransmissions(life) > 0;
                    let cause = if sent { Cause::UserTimeout } else { Cause::KeepaliveExpired };
                    self.cut(life, ETIMEDOUT, cause);
                }
            }
            What::PingAcked(life) => {
                if self.reaches_us(life) {
                    self.acknowledge(life);
                }
            }
            What::Answer(life) => self.act(life, Act::Send(16)),
            What::Delivery(slot) => {
                let mut completion = self.made[slot].take().expect("delivered once");
                self.free.push(slot);
                if let Done::Poll { mask, .. } = &mut completion.done {
                    let level = self.level(completion.life);
                    let socket = &mut self.sockets[completion.life];
                    socket.pending_wake = false;
                    let seen = *mask.get_or_insert(level);
                    if socket.watch != Some(completion.token) || seen == 0 {
                        return false;
                    }
                    let disarmed = self.rng.u32(..1_000) < self.faults.disarmed;
                    if disarmed {
                        socket.watch = None;
                    }
                    completion.done = Done::Poll { mask: Some(seen), more: !disarmed };
                }
                self.events += 1;
                self.queue.push_back(completion);
                return true;
            }
        }
        false
    }

    fn plan_next(&mut self, life: usize) {
        if let Some(&(wait, _)) = self.sockets[life].script.front() {
            self.schedule(self.now + wait, What::Step(life));
        }
    }

    /// Puts the next act of every peer off by up to `most`: their machines cannot reach ours.
    pub fn interrupt_all(&mut self, most: u64) {
        let mut delayed = Vec::new();
        for Reverse((at, number, what)) in std::mem::take(&mut self.heap) {
            let at = match what {
                What::Step(_) => at + self.rng.u64(..=most),
                _ => at,
            };
            delayed.push(Reverse((at, number, what)));
        }
        self.heap = delayed.into();
    }

    // --- the peer ------------------------------------------------------------------------------

    /// Whether what the peer's kernel sends comes here and finds a connection.
    fn reaches_us(&self, life: usize) -> bool {
        let socket = &self.sockets[life];
        !socket.vanished && socket.tcp_state != TcpState::Close
    }

    fn act(&mut self, life: usize, act: Act) {
        self.note(life, || format!("{act:?}"));
        self.events += 1;
        let now = self.now;
        let socket = &mut self.sockets[life];
        match act {
            Act::Vanish => {
                socket.vanished = true;
                socket.truth.blocked = None;
            }
            Act::Freeze => {
                socket.frozen = true;
                socket.truth.blocked = None;
            }
            Act::Deafen => socket.deaf = true,
            Act::Write => {
                self.we_send(life);
            }
            Act::SoftError if socket.tcp_state != TcpState::Close && !socket.reading_shut => {
                socket.error = Some(EHOSTUNREACH);
                socket.truth.doubt = Some(now);
                self.wake(life);
            }
            Act::SoftError => {}
            Act::Unreachable(hop) => {
                let errno = if hop == Hop::Host { EHOSTUNREACH } else { 101 };
                self.cut(life, errno, Cause::Unreachable(hop));
            }
            Act::Destroy => self.cut(life, ECONNABORTED, Cause::Local(LocalCause::Destroyed)),
            Act::ShutReading if socket.tcp_state == TcpState::Established => {
                socket.reading_shut = true;
                socket.error = None;
                let cause = Cause::Local(LocalCause::Shutdown);
                socket.truth.cut.get_or_insert(Cut { at: now, cause });
                self.wake(life);
            }
            Act::ShutReading => {}
            Act::Send(_) | Act::Babble | Act::Bye => {
                if self.reaches_us(life) && !self.sockets[life].frozen && !self.sockets[life].fin {
                    self.speak(life, act);
                }
            }
            Act::Fin | Act::Close | Act::CrossingClose => {
                let reaches = self.reaches_us(life);
                let socket = &mut self.sockets[life];
                if reaches && !socket.fin && !socket.reading_shut {
                    socket.fin = true;
                    socket.closed = act == Act::Close;
                    socket.tcp_state =
                        if act == Act::CrossingClose { TcpState::Closing } else { TcpState::CloseWait };
                    socket.truth.fin = Some(now);
                    self.acknowledge(life);
                    self.wake(life);
                }
            }
            Act::Reset => {
                if self.reaches_us(life) {
                    self.cut(life, ECONNRESET, Cause::Aborted);
                }
            }
            Act::ResetTaken => {
                if self.reaches_us(life) {
                    self.cut(life, ECONNRESET, Cause::Aborted);
                    self.sockets[life].error = None;
                    self.sockets[life].so_error = None;
                }
            }
        }
    }

    fn speak(&mut self, life: usize, act: Act) {
        let now = self.now;
        let frames = self.config.policy.heartbeat == Heartbeat::Frames;
        let socket = &mut self.sockets[life];
        if socket.reading_shut {
            return;
        }
        let room = WINDOW.saturating_sub(socket.unread);
        if room > 0 {
            socket.truth.blocked = None;
        } else {
            socket.truth.blocked.get_or_insert(now);
            // Its kernel asks for room, and so acknowledges.
            self.acknowledge(life);
            return;
        }
        let mut complete = false;
        let count = match act {
            Act::Send(count) => u64::from(count).min(room),
            Act::Babble => 16,
            _ => 16,
        };
        let mut sent = count;
        if frames {
            if act != Act::Babble {
                let mut left = count as usize;
                if act == Act::Bye {
                    // It ends what it had begun before.
                    left += socket.outgoing.len();
                }
                sent = left as u64;
                while left > 0 {
                    if socket.outgoing.is_empty() {
                        socket.frames += 1;
                        socket.outgoing = match (act, socket.frames) {
                            (Act::Bye, _) => Frame::bye(socket.frames).encode().to_vec(),
                            (_, 1) if socket.hello => encode_hello("somebody", 7).unwrap(),
                            _ => Frame::beat(socket.frames).encode().to_vec(),
                        };
                        socket.outgoing.reverse();
                    }
                    let taken = left.min(socket.outgoing.len());
                    let from = socket.outgoing.len() - taken;
                    socket.queue.extend(socket.outgoing.drain(from..).rev());
                    left -= taken;
                    complete |= socket.outgoing.is_empty();
                }
                socket.truth.trailing = (!socket.outgoing.is_empty()).then_some(now);
                if act == Act::Bye {
                    socket.truth.said.get_or_insert((now, Cause::Closed, None));
                }
            } else {
                // In the middle of a beat they go unnoticed: only its head is looked at.
                sent += socket.outgoing.len() as u64;
                socket.outgoing.reverse();
                let rest = std::mem::take(&mut socket.outgoing);
                let whole = !rest.is_empty();
                socket.queue.extend(rest);
                complete = whole;
                socket.queue.extend(std::iter::repeat_n(b'?', 16));
                socket.truth.said.get_or_insert((now, Cause::Protocol, Some(FrameError::BadMagic)));
            }
        }
        if complete && frames && socket.truth.said.is_some_and(|(at, ..)| at < now) {
            complete = false;
        }
        socket.unread += sent;
        socket.received += sent;
        socket.truth.heaped = socket.unread >= HEAP;
        socket.last_data = now;
        let at_mark = socket.unread >= u64::from(socket.lowat);
        if !frames && self.config.policy.heartbeat == Heartbeat::Bytes || complete {
            self.live(life);
        }
        self.acknowledge(life);
        // A window that is nearly full wakes whatever the mark says.
        if at_mark || self.sockets[life].unread >= WINDOW / 2 {
            self.wake(life);
        }
    }

    fn live(&mut self, life: usize) {
        let now = self.now;
        let idle = self.config.policy.idle.min(self.config.policy.handshake).as_nanos() as u64;
        let truth = &mut self.sockets[life].truth;
        let before = truth.life.unwrap_or(truth.connected);
        if now - before >= idle {
            truth.returns.push_back((before, now));
            if truth.returns.len() > 64 {
                truth.returns.pop_front();
            }
        }
        truth.life = Some(now);
    }

    fn acknowledge(&mut self, life: usize) {
        self.sockets[life].last_ack = self.now;
        if !self.sockets[life].deaf {
            let socket = &mut self.sockets[life];
            if socket.unacked.take().is_some() {
                socket.retransmits = 0;
            }
        }
        if self.config.policy.heartbeat == Heartbeat::None {
            self.live(life);
        }
    }

    // --- the kernel ----------------------------------------------------------------------------

    fn cut(&mut self, life: usize, errno: i32, cause: Cause) {
        let now = self.now;
        self.note(life, || format!("cut by {errno}: {cause}"));
        let socket = &mut self.sockets[life];
        if socket.tcp_state == TcpState::Close {
            return;
        }
        socket.tcp_state = TcpState::Close;
        if socket.fin && errno == ECONNRESET {
            socket.error = None;
            socket.so_error = Some(EPIPE);
        } else {
            socket.error = Some(errno);
            socket.so_error = Some(errno);
        }
        socket.truth.cut = Some(Cut { at: now, cause });
        self.wake(life);
    }

    fn keepalive(&mut self, life: usize) {
        let (now, idle) = (self.now, u64::from(self.plan.idle) * SECOND);
        let nominal = self.plan.nominal().as_nanos() as u64;
        let socket = &mut self.sockets[life];
        if !socket.open || socket.tcp_state == TcpState::Close || socket.unacked.is_some() {
            if socket.open && socket.tcp_state != TcpState::Close {
                self.schedule(now + idle, What::Keepalive(life));
            }
            return;
        }
        let heard = socket.last_data.max(socket.last_ack);
        if now < heard + idle {
            self.schedule(heard + idle, What::Keepalive(life));
            return;
        }
        socket.truth.asked = Some(now);
        self.note(life, || "keepalive asks".into());
        if self.reaches_us(life) && !self.sockets[life].deaf {
            self.acknowledge(life);
            self.schedule(now + idle, What::Keepalive(life));
        } else {
            let late = self.rng.u64(0..nominal / 8);
            self.schedule(heard + nominal + late, What::GiveUp(life, heard));
            // A peer that only cannot hear us still sends, and the kernel asks again later.
            self.schedule(now + idle, What::Keepalive(life));
        }
    }

    /// Something of ours leaves for the peer.
    pub fn we_send(&mut self, life: usize) -> bool {
        let now = self.now;
        let socket = &mut self.sockets[life];
        if socket.tcp_state == TcpState::Close || !socket.open {
            return false;
        }
        socket.truth.asked = Some(now);
        if self.reaches_us(life) && !self.sockets[life].deaf {
            if self.sockets[life].closed {
                self.cut(life, ECONNRESET, Cause::Aborted);
            } else {
                self.schedule(now + RTT, What::PingAcked(life));
            }
            return true;
        }
        let socket = &mut self.sockets[life];
        if socket.unacked.is_none() {
            socket.unacked = Some(now);
            socket.truth.doubt = Some(now);
            if let Some(timeout) = self.plan.user_timeout {
                let late = self.rng.u64(..MS * 500);
                let heard = self.sockets[life].last_data.max(self.sockets[life].last_ack);
                self.schedule(now + timeout.as_nanos() as u64 + late, What::GiveUp(life, heard));
            }
        }
        true
    }

    /// A PING of ours leaves; a program that runs answers it.
    pub fn ping(&mut self, life: usize) {
        self.note(life, || "PING".into());
        if !self.we_send(life) || self.rng.u32(..1_000) < self.faults.unsent {
            return;
        }
        let socket = &self.sockets[life];
        if socket.answers_pings && !socket.deaf && !socket.frozen && !socket.fin && !socket.vanished {
            self.schedule(self.now + 2 * RTT, What::Answer(life));
        }
    }

    fn retransmissions(&mut self, life: usize) -> u8 {
        let now = self.now;
        let socket = &mut self.sockets[life];
        if let Some(since) = socket.unacked {
            socket.truth.doubt = Some(now);
            let rounds = (now - since) / (200 * MS);
            socket.retransmits = (u64::BITS - (rounds + 1).leading_zeros() - 1) as u8;
        }
        socket.retransmits
    }

    /// The poll mask as it is now.
    fn level(&self, life: usize) -> u16 {
        let socket = &self.sockets[life];
        let mut mask = 0;
        let shut = socket.fin || socket.reading_shut || socket.tcp_state == TcpState::Close;
        if shut {
            mask |= PollMask::IN | PollMask::RDHUP;
        }
        if socket.tcp_state == TcpState::Close {
            mask |= PollMask::HUP;
        }
        if socket.error.is_some() || (socket.tcp_state == TcpState::Close && socket.so_error.is_some()) {
            mask |= PollMask::ERR;
        }
        if socket.unread >= u64::from(socket.lowat) || socket.unread >= WINDOW / 2 {
            mask |= PollMask::IN;
        }
        mask
    }

    fn wake(&mut self, life: usize) {
        let level = self.level(life);
        let socket = &mut self.sockets[life];
        let Some(token) = socket.watch else { return };
        if level == 0 || socket.pending_wake {
            return; // wakes that were not looked at yet are one
        }
        // Either the mask is taken now and the completion is late, or the other way round.
        let early = self.rng.bool();
        if !early {
            self.sockets[life].pending_wake = true;
        }
        let done = Done::Poll { mask: early.then_some(level), more: true };
        self.complete(life, token, done);
    }

    fn complete(&mut self, life: usize, token: u64, done: Done) {
        let at = self.now + self.rng.u64(..=self.faults.late);
        let socket = &mut self.sockets[life];
        // Late and merged, in any order between peers, in order within one.
        let at = at.max(socket.last_delivery);
        socket.last_delivery = at;
        let completion = Completion { life, token, done };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.made.push(None);
            self.made.len() - 1
        });
        self.made[slot] = Some(completion);
        self.schedule(at, What::Delivery(slot));
    }

    // --- system calls --------------------------------------------------------------------------

    pub fn set_low_water_mark(&mut self, life: usize, mark: u32) {
        self.note(life, || format!("mark of {mark}"));
        let socket = &mut self.sockets[life];
        let before = socket.unread >= u64::from(socket.lowat);
        socket.lowat = mark;
        if !before && socket.unread >= u64::from(mark) {
            self.wake(life);
        }
    }

    pub fn low_water_mark(&self, life: usize) -> u32 {
        self.sockets[life].lowat
    }

    pub fn watch(&mut self, life: usize, token: u64) {
        self.sockets[life].watch = Some(token);
        self.sockets[life].pending_wake = false;
        self.wake(life);
    }

    pub fn unwatch(&mut self, life: usize) {
        if let Some(token) = self.sockets[life].watch.take() {
            self.complete(life, token, Done::PollEnd);
        }
    }

    pub fn close(&mut self, life: usize) {
        self.note(life, || "closed by us".into());
        assert!(self.sockets[life].watch.is_none(), "closed with its watch armed");
        self.sockets[life].open = false;
        self.sockets[life].script.clear();
        self.sockets[life].queue = VecDeque::new();
    }

    /// A recv of at most `most` bytes; its result comes as a completion.
    pub fn receive(&mut self, life: usize, token: u64, most: u32) {
        let frames = self.config.policy.heartbeat == Heartbeat::Frames;
        let roll = self.rng.u32(..1_000);
        let socket = &mut self.sockets[life];
        let mut bytes = Vec::new();
        let result = if roll < self.faults.starved {
            -ENOBUFS
        } else if roll < self.faults.starved + self.faults.spurious && !frames && !socket.reading_shut {
            // Where bytes must be read to be judged no kernel hides them.
            [-EAGAIN, -EINTR, -ECANCELED][self.rng.usize(..3)]
        } else if socket.unread > 0 {
            let taken = socket.unread.min(u64::from(most));
            if frames {
                bytes.extend(socket.queue.drain(..taken as usize));
            }
            socket.unread -= taken;
            // Whoever waited for room goes on.
            if socket.truth.blocked.take().is_some() {
                self.schedule(self.now + RTT, What::Answer(life));
            }
            taken as i32
        } else if socket.fin {
            0 // whatever else there is to tell
        } else if let Some(errno) = socket.error.take() {
            if socket.tcp_state == TcpState::Close {
                socket.so_error = None;
            }
            -errno
        } else if socket.reading_shut || socket.tcp_state == TcpState::Close {
            0
        } else {
            -EAGAIN
        };
        self.note(life, || format!("recv gives {result}"));
        self.complete(life, token, Done::Recv { result, bytes });
    }

    /// `TCP_INFO`, in the kernel's ticks, as `sys::tcp` reads it.
    pub fn inspect(&mut self, life: usize, mask: PollMask, takes_error: bool) -> Evidence {
        let retransmits = self.retransmissions(life);
        let socket = &mut self.sockets[life];
        let present = self.now - self.now % TICK;
        // One tick in sixteen comes so late that what arrives in it has the stamp of the one before.
        let stamp = |at: u64| at - at % TICK - if (at / TICK).is_multiple_of(16) { TICK } else { 0 };
        let age = |at: u64| ((present - stamp(at)) / MS) as u32;
        let latest = |millis: u32| Instant::from_nanos(present - u64::from(millis) * MS + 2 * TICK);
        let so_error = if takes_error && socket.tcp_state == TcpState::Close {
            socket.error = None;
            socket.so_error.take()
        } else {
            None
        };
        let (last_data_ms, last_ack_ms) = (age(socket.last_data), age(socket.last_ack));
        Evidence {
            mask,
            so_error,
            tcp_state: socket.tcp_state,
            retransmits,
            probes: 0,
            backoff: retransmits,
            unacked: u32::from(socket.unacked.is_some()),
            notsent: 0,
            rtt_us: 200,
            last_data_ms,
            last_ack_ms,
            received: socket.received,
            last_data: latest(last_data_ms),
            last_ack: latest(last_ack_ms),
        }
    }

    /// The last sign of life of a peer's kernel.
    pub fn last_ack(&self, life: usize) -> u64 {
        self.sockets[life].last_ack
    }
}

/// Writes the script of one life: how it beats, where it pauses, how it ends.
pub fn script(rng: &mut Rng, config: &TrackerConfig) -> VecDeque<(u64, Act)> {
    let nanos = |duration: Duration| duration.as_nanos() as u64;
    let policy = &config.policy;
    let (idle, detection) = (nanos(policy.idle), nanos(policy.detection_time()));
    let frames = policy.heartbeat == Heartbeat::Frames;
    let mut script = VecDeque::new();

    if rng.u8(..12) == 0 {
        // Never speaks; sometimes its first beat is only nearly too late.
        let first = nanos(policy.handshake.min(policy.detection_time())) * rng.u64(80..=130) / 100;
        match rng.u8(..4) {
            0 => script.push_back((first, Act::Send(16))),
            1 => script.push_back((rng.u64(..first), ending(rng, frames))),
            2 => script.push_back((rng.u64(..first), Act::Vanish)),
            _ => {}
        }
    } else {
        let beats = rng.usize(1..=24);
        let period = idle * rng.u64(5..=95) / 100;
        let manner = rng.u8(..10);
        let mut first = rng.u64(..=idle.min(nanos(policy.handshake)) * 9 / 10);
        for _ in 0..beats {
            let jittered = period * rng.u64(75..=100) / 100;
            let wait = if rng.u8(..30) == 0 {
                idle / 2 + rng.u64(..detection * 9 / 8) // a pause: sometimes shorter than the deadline
            } else if rng.u8(..60) == 0 {
                detection * rng.u64(96..=101) / 100 // a pause that is nearly the deadline
            } else {
                match manner {
                    0..3 => period,
                    _ => jittered,
                }
            };
            let wait = if first > 0 { std::mem::take(&mut first) } else { wait };
            match manner {
                4 => {
                    // A burst, after a stall of its own.
                    script.push_back((wait, Act::Send(16)));
                    for _ in 0..rng.u8(1..6) {
                        script.push_back((rng.u64(..MS), Act::Send(16)));
                    }
                }
                5 => {
                    // A beat in pieces.
                    let cut = rng.u32(1..16);
                    script.push_back((wait, Act::Send(cut)));
                    script.push_back((rng.u64(..idle / 20), Act::Send(16 - cut)));
                }
                6 => {
                    // A stream.
                    script.push_back((wait / 4, Act::Send(rng.u32(1..200_000))));
                    for _ in 0..rng.u8(1..12) {
                        script.push_back((rng.u64(..3 * MS), Act::Send(rng.u32(1..60_000))));
                    }
                }
                7 => script.push_back((wait, Act::Send(16 * rng.u32(1..100)))),
                _ => script.push_back((wait, Act::Send(16))),
            }
            if rng.u8(..100) == 0 {
                script.push_back((rng.u64(..idle), Act::SoftError));
            }
            if rng.u8(..60) == 0 {
                script.push_back((rng.u64(..period), Act::Write));
            }
            if rng.u8(..200) == 0 {
                script.push_back((rng.u64(..period), Act::Deafen));
            }
        }
        if manner == 8 {
            // It trickles for longer than any deadline.
            for _ in 0..rng.u8(1..15) {
                script.push_back((rng.u64(..idle), Act::Send(1)));
            }
        }
    }
    let wait = rng.u64(..=idle);
    match rng.u8(..20) {
        0..4 => script.push_back((wait, Act::Vanish)),
        4..6 => script.push_back((wait, Act::Freeze)),
        6 => {
            script.push_back((wait, Act::Vanish));
            script.push_back((rng.u64(..idle), Act::Write));
        }
        7 => {
            // It sends and is gone before the driver looked.
            script.push_back((wait, Act::Send(16 * rng.u32(1..200))));
            script.push_back((rng.u64(..MS / 5), ending(rng, frames)));
        }
        8..10 => {
            // Half-closed, and then what follows.
            script.push_back((wait, Act::Fin));
            let grace = nanos(policy.half_closed_grace) + 20 * MS;
            let then = if rng.bool() { rng.u64(..grace * 3 / 2) } else { rng.u64(..MS) };
            match rng.u8(..4) {
                0 => {}
                1 => script.push_back((then, Act::Write)),
                2 => script.push_back((then, Act::SoftError)),
                _ => script.push_back((then, Act::Reset)),
            }
        }
        10 => {
            script.push_back((wait, Act::Close));
            script.push_back((rng.u64(..idle), Act::Write));
        }
        11 => {
            // Something was said by a router, and then an orderly end.
            script.push_back((wait, Act::SoftError));
            script.push_back((rng.u64(..2 * MS), Act::Fin));
        }
        _ => script.push_back((wait, ending(rng, frames))),
    }
    // In the end every peer goes, also those whose kernel would answer for ever.
    script.push_back((2 * detection + rng.u64(..idle), Act::Vanish));
    script
}

fn ending(rng: &mut Rng, frames: bool) -> Act {
    match rng.u8(..16) {
        0..4 => Act::Fin,
        4..7 => Act::Reset,
        7 => Act::ResetTaken,
        8 => Act::CrossingClose,
        9 => Act::Unreachable(if rng.bool() { Hop::Host } else { Hop::Net }),
        10 => Act::Destroy,
        11 => Act::ShutReading,
        12 if frames => Act::Babble,
        13 if frames => Act::Bye,
        14 => Act::Close,
        _ => Act::Vanish,
    }
}
