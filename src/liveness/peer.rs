//! The record of one peer in the slab, and the names of peers.
//!
//! A record has at most 96 bytes, so a million peers are 96 MB. What only deaths and events need (proof, identity) is
//! stored elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::policy::{Heartbeat, Policy};
use super::state::{self, Cause, Input, State};
use crate::limits::{GENERATION_BITS, HISTORY};
use crate::time::Instant;

/// The id of one connection: a slot of the slab, and the generation of its use.
///
/// A slot is used again; the generation tells the connections apart. It has 24 bits and is counted over all slots, so an
/// id comes back after 16 million connections at the earliest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    index: u32,
    generation: u32,
}

impl PeerId {
    /// The id of the connection with this `generation` in the slot `index`.
    ///
    /// # Panics
    ///
    /// When `generation` does not fit in 24 bits.
    #[must_use]
    pub fn new(index: u32, generation: u32) -> PeerId {
        assert!(generation < 1 << GENERATION_BITS);
        PeerId { index, generation }
    }

    /// The slot in the slab: 0 to the capacity minus 1. No two living peers have the same.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The generation, 0 to 2^24 - 1: it tells the connections apart that have used the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Both in one number: the generation in the upper 32 bits, the slot in the lower.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// What happened in a transition of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Its connection was accepted.
    Up,
    /// It became suspect because of its silence.
    Suspected,
    /// It became suspect because its path does not deliver, although it may have spoken lately.
    Doubted,
    /// It gave a proof of life while it was suspect.
    Recovered,
    /// Its FIN was seen, and the policy grants a grace.
    HalfClosed,
    /// It died of this cause.
    Died(Cause),
}

impl Step {
    /// The word used in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Up => "up",
            Step::Suspected => "suspected",
            Step::Doubted => "doubted",
            Step::Recovered => "recovered",
            Step::HalfClosed => "half_closed",
            Step::Died(_) => "died",
        }
    }

    /// The cause of a death.
    #[must_use]
    pub const fn cause(self) -> Option<Cause> {
        if let Step::Died(cause) = self { Some(cause) } else { None }
    }
}

/// One line of a peer's history in eight bytes: what happened, and when. 48 bits of microseconds last nine years of
/// uptime.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Transition(u64);

impl Transition {
    const DIED: u64 = 0x80;
    /// The steps that are no death, by their code.
    const STEPS: [Step; 5] = [Step::Up, Step::Suspected, Step::Recovered, Step::HalfClosed, Step::Doubted];

    pub(super) fn new(at: Instant, step: Step) -> Transition {
        let code = match step {
            Step::Died(cause) => Transition::DIED | u64::from(cause.code()),
            other => Transition::STEPS.iter().position(|&step| step == other).expect("one of five") as u64,
        };
        Transition(at.as_micros() << 16 | code)
    }

    /// The time of the transition, rounded down to a microsecond.
    #[must_use]
    pub const fn at(self) -> Instant {
        Instant::from_nanos((self.0 >> 16) * 1_000)
    }

    /// The kind of the step.
    #[must_use]
    pub fn step(self) -> Step {
        let code = self.0 & 0xff;
        let cause =
            || Cause::from_code((code & !Transition::DIED) as u8).expect("only new() makes the codes");
        Transition::STEPS.get(code as usize).copied().unwrap_or_else(|| Step::Died(cause()))
    }
}

impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}us", self.step(), self.at().as_micros())
    }
}

/// Properties of one peer, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// It gave a proof of life at least once.
    pub(super) const SPOKE: u16 = 1;
    /// It stands in the queue of actions.
    pub(super) const ACTION_QUEUED: u16 = 1 << 1;
    /// It stands in the queue of events.
    pub(super) const EVENT_QUEUED: u16 = 1 << 2;
    /// The driver has closed its descriptor and has no operation on it.
    pub(super) const RELEASED: u16 = 1 << 3;
    /// A visit is under way: evidence was asked for.
    pub(super) const VISITING: u16 = 1 << 4;
    /// A complete frame was read since the drain of this visit began.
    pub(super) const FRAMED: u16 = 1 << 5;
    /// Its FIN was seen.
    pub(super) const FIN: u16 = 1 << 6;
    /// Its path does not deliver: a soft error, or what this side sent is not acknowledged.
    pub(super) const DOUBT: u16 = 1 << 7;
    /// Every byte wakes its poll.
    pub(super) const WAKE_ON_BYTE: u16 = 1 << 8;
    /// Beat mode: its bytes are read at every wake, until it proves calm.
    pub(super) const EAGER: u16 = 1 << 9;
    /// A drain to the end was asked for.
    pub(super) const ENDING: u16 = 1 << 10;
    /// It gave the identity of another living peer, and that event was not taken.
    pub(super) const DUPLICATE: u16 = 1 << 11;
    /// Its next visit is for reading bytes, not for judging.
    pub(super) const DRAIN_DUE: u16 = 1 << 12;
    /// Lazy mode: its bytes were read once, and its pace is counted from then.
    pub(super) const DRAINED: u16 = 1 << 13;
    /// It was adopted: its silence counts from then, not from before.
    pub(super) const ADOPTED: u16 = 1 << 14;
    /// A newer connection has its identity and takes its place.
    pub(super) const REPLACED: u16 = 1 << 15;

    pub(super) const fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    pub(super) fn set(&mut self, bit: u16) {
        self.0 |= bit;
    }

    pub(super) fn clear(&mut self, bit: u16) {
        self.0 &= !bit;
    }

    /// Sets `bit` and says whether it was clear before.
    pub(super) fn raise(&mut self, bit: u16) -> bool {
        let clear = !self.has(bit);
        self.set(bit);
        clear
    }
}

/// Actions that wait to be taken for one peer, one bit each, in this order.
pub(super) struct PendingActions;

impl PendingActions {
    pub(super) const WAKE_ON_BYTE: u8 = 1;
    pub(super) const WAKE_ON_MARK: u8 = 1 << 1;
    pub(super) const PROBE: u8 = 1 << 2;
    pub(super) const DRAIN: u8 = 1 << 3;
    pub(super) const DRAIN_TO_END: u8 = 1 << 4;
    pub(super) const INSPECT: u8 = 1 << 5;
    pub(super) const CLOSE: u8 = 1 << 6;
    pub(super) const ABORT: u8 = 1 << 7;
}

/// The record of a peer: first what a beat touches, within half a cache line; last what only events need. A test holds
/// the size at 96 bytes.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Peer {
    /// The last proof of life, or the accept.
    pub(super) last_life: Instant,
    pub(super) generation: u32,
    pub(super) flags: Flags,
    /// Lazy mode: the grid point of the last drain. Beat mode: wakes since the last drain, or small drains in a row of an
    /// eager peer.
    pub(super) pace: u16,
    pub(super) state: State,
    pub(super) pending: u8,
    /// The low half: lines of history in use. The high half: how many of the newest of them the sink has not taken.
    lines: u8,
    /// Probes that were due since the last life; with frames, PINGs sent.
    pub(super) probes: u8,
    port: u16,
    pub(super) local: u16,
    /// The number of bytes read so far.
    pub(super) taken: u64,
    /// While it lives, the time of its next visit. Once dead, the place of its death in the log.
    due_or_death: u64,
    /// The time of the accept.
    pub(super) accepted_at: Instant,
    /// The last transitions, oldest first; `lines` says how many.
    history: [Transition; HISTORY],
    address: [u8; 16],
}

impl Peer {
    pub(super) fn new(address: SocketAddr, local: u16, generation: u32, now: Instant) -> Peer {
        let up = Transition::new(now, Step::Up);
        Peer {
            history: [up; HISTORY],
            last_life: now,
            accepted_at: now,
            taken: 0,
            due_or_death: now.as_nanos(),
            address: pack(address),
            generation,
            port: address.port(),
            local,
            flags: Flags::default(),
            state: State::Alive,
            pending: 0,
            lines: 0x11,
            probes: 0,
            pace: 0,
        }
    }

    pub(super) fn due(&self) -> Instant {
        debug_assert!(self.state != State::Dead);
        Instant::from_nanos(self.due_or_death)
    }

    pub(super) fn set_due(&mut self, due: Instant) {
        debug_assert!(self.state != State::Dead);
        self.due_or_death = due.as_nanos();
    }

    /// Moves along the transition table and writes the step into the history. Returns the state before.
    ///
    /// # Panics
    ///
    /// When the table has no such step.
    pub(super) fn step(&mut self, input: Input, step: Step, at: Instant) -> State {
        let from = self.state;
        let to = state::next(from, input);
        let died = matches!(step, Step::Died(_));
        assert!(to != from && (to == State::Dead) == died, "{step:?} by {input:?} from {from:?}");
        self.record(at, step);
        self.state = to;
        from
    }

    /// The place of its death in the log.
    pub(super) fn death(&self) -> usize {
        assert!(self.state == State::Dead, "only the dead have a death");
        usize::try_from(self.due_or_death).expect("a place")
    }

    pub(super) fn set_death(&mut self, place: usize) {
        assert!(self.state == State::Dead, "only the dead have a death");
        self.due_or_death = place as u64;
    }

    pub(super) fn address(&self) -> SocketAddr {
        unpack(self.address, self.port)
    }

    fn history_len(&self) -> usize {
        usize::from(self.lines & 0xf)
    }

    /// Transitions that the sink has not taken.
    pub(super) fn untaken(&self) -> usize {
        usize::from(self.lines >> 4)
    }

    fn set_lines(&mut self, history_len: usize, untaken: usize) {
        assert!(untaken <= history_len && history_len <= HISTORY);
        self.lines = (untaken << 4 | history_len) as u8;
    }

    /// Whether one more transition that is no death may wait for the sink. The last place is reserved for the death. A
    /// recovery that waits keeps the suspicion before it, which tells how long it lasted.
    pub(super) fn has_room(&self) -> bool {
        let (length, untaken) = (self.history_len(), self.untaken());
        let recovery_waits = untaken > 0 && self.history[length - untaken].step() == Step::Recovered;
        untaken + usize::from(recovery_waits) < HISTORY - 1
    }

    /// Appends a line to the history; the oldest is dropped.
    fn record(&mut self, at: Instant, step: Step) {
        assert!(self.untaken() < HISTORY, "room is asked for first, and the death's is kept");
        let mut length = self.history_len();
        if length == HISTORY {
            self.history.rotate_left(1);
            length -= 1;
        }
        self.history[length] = Transition::new(at, step);
        self.set_lines(length + 1, self.untaken() + 1);
    }

    /// The oldest transition that the sink has not taken.
    pub(super) fn next_transition(&self) -> Option<Transition> {
        let length = self.history_len();
        self.history[..length].get(length - self.untaken()).copied()
    }

    /// The oldest transition that the sink has not taken, now taken, and the one before it.
    pub(super) fn take_transition(&mut self) -> Option<(Transition, Option<Transition>)> {
        let (length, untaken) = (self.history_len(), self.untaken());
        let position = length - untaken;
        let transition = *self.history[..length].get(position)?;
        self.set_lines(length, untaken - 1);
        Some((transition, position.checked_sub(1).map(|before| self.history[before])))
    }

    pub(super) fn last_transition(&self) -> Transition {
        self.history[self.history_len() - 1] // there is always that of the accept
    }

    pub(super) fn history(&self) -> [Option<Transition>; HISTORY] {
        std::array::from_fn(|i| (i < self.history_len()).then(|| self.history[i]))
    }

    /// Whether its first proof of life is still awaited, under a policy that awaits one.
    pub(super) fn is_mute(&self, policy: &Policy) -> bool {
        !self.flags.has(Flags::SPOKE) && policy.heartbeat != Heartbeat::None
    }
}

/// Sixteen bytes for both families. A link-local address has 54 zero bits after its prefix; the
/// scope goes into 32 of them, as BSD kernels do.
fn pack(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(v6) => {
            let mut octets = v6.ip().octets();
            if v6.ip().is_unicast_link_local() {
                octets[4..8].copy_from_slice(&v6.scope_id().to_be_bytes());
            }
            octets
        }
    }
}

fn unpack(octets: [u8; 16], port: u16) -> SocketAddr {
    let mut ip = Ipv6Addr::from(octets);
    let mut scope = 0;
    if ip.is_unicast_link_local() {
        let mut plain = octets;
        scope = u32::from_be_bytes([octets[4], octets[5], octets[6], octets[7]]);
        plain[4..8].fill(0);
        ip = Ipv6Addr::from(plain);
    }
    match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(IpAddr::V4(v4), port),
        None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)),
    }
}

/// The record of a peer as it is shown outside.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PeerView {
    /// The id by which the tracker's methods name the peer.
    pub peer: PeerId,
    /// The address and port of the peer's end of the connection.
    pub address: SocketAddr,
    /// The state of the peer in the transition table.
    pub state: State,
    /// The last proof of life that was seen; it may be older than the last byte, which a visit reads.
    pub last_life: Instant,
    /// The time of the accept.
    pub accepted_at: Instant,
    /// The number of bytes read so far.
    pub taken: u64,
    /// The last transitions, oldest first.
    pub history: [Option<Transition>; HISTORY],
}

impl PeerView {
    pub(super) fn of(peer: PeerId, record: &Peer) -> PeerView {
        PeerView {
            peer,
            address: record.address(),
            state: record.state,
            last_life: record.last_life,
            accepted_at: record.accepted_at,
            taken: record.taken,
            history: record.history(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_at_most_96_bytes() {
        assert!(size_of::<Peer>() <= 96, "{}", size_of::<Peer>());
        assert_eq!(size_of::<Option<Peer>>(), size_of::<Peer>(), "the slab's own tag needs no more room");
    }

    #[test]
    fn addresses_of_both_families_come_back_as_they_went_in() {
        for text in ["127.0.0.1:7400", "[::1]:1", "[2001:db8::7]:65535", "255.255.255.255:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(unpack(pack(address), address.port()), address);
        }
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 0, 3));
        assert_eq!(unpack(pack(scoped), 9), scoped);
    }

    #[test]
    fn a_transition_keeps_its_step_and_its_microsecond() {
        let at = Instant::from_nanos(1_234_567_890_123_456);
        for step in [Step::Up, Step::Suspected, Step::Doubted, Step::Recovered, Step::HalfClosed] {
            assert_eq!(Transition::new(at, step).step(), step);
        }
        for cause in Cause::ALL {
            let transition = Transition::new(at, Step::Died(cause));
            assert_eq!(transition.step(), Step::Died(cause));
            assert_eq!(transition.at().as_micros(), at.as_micros());
        }
    }

    #[test]
    fn the_history_keeps_the_last_four_and_hands_each_out_once_in_order() {
        let mut peer = Peer::new("127.0.0.1:1".parse().unwrap(), 0, 0, Instant::from_nanos(1_000));
        let mut taken = Vec::new();
        for round in 2..8_u64 {
            assert!(peer.has_room());
            peer.record(Instant::from_nanos(round * 1_000), Step::Suspected);
            while let Some((transition, _)) = peer.take_transition() {
                taken.push(transition.at().as_micros());
            }
        }
        assert_eq!(taken, [1, 2, 3, 4, 5, 6, 7]);
        let kept: Vec<_> = peer.history().iter().flatten().map(|line| line.at().as_micros()).collect();
        assert_eq!(kept, [4, 5, 6, 7]);
    }
}
