//! The tracker as a [service](crate::reactor::Service) of the loop: completions become facts, actions become submissions.
//!
//! Each connection has one poll, always. It reports the end (FIN, RST, errors) at once, and bytes when there are enough of
//! them. Bytes are taken off by recvs that are submitted together with everything else of the turn. In lazy mode a wake-up
//! is rare and nearly always the end, so the poll ends with it and is armed again after the drain; in beat mode it is
//! multishot. A peer's place is given back after its descriptor was closed.
//!
//! - `service`: the order of things within a turn, and what is due when.
//! - `completions`: what a completion says, as facts.
//! - `actions`: what the tracker wants done to a socket.
//! - `frames`: heartbeat frames, in and out.
//! - `adopt`: new connections, accepted here or elsewhere.
//! - `locals`: the table of local addresses.

mod actions;
mod adopt;
mod completions;
mod frames;
mod locals;
mod service;
#[cfg(test)]
mod tests;

pub use adopt::AdoptError;
pub use locals::LocalAddresses;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::limits;
use crate::liveness::{Heartbeat, PeerId, Tracker, TrackerConfig, TrackerCounts, Wake};
use crate::measure::Recorder;
use crate::measure::intervals::IntervalSender;
use crate::partial_frame::PartialFrame;
use crate::reactor::{
    Descriptor, EngineChoice, EventSink, Listener, Reactor, Setup, Shared, StartError, kind,
};
use crate::sys::engine::Counters;
use crate::sys::tcp::TickClock;
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;
use frames::Frames;

/// The poll of a connection.
const POLL: u8 = kind::SERVICE;
/// A recv of a connection.
const RECV: u8 = kind::SERVICE + 1;

/// What is noted of a connection beside what is in flight: the owner's flags of its [`Descriptor`].
mod mark {
    use crate::reactor::Descriptor;

    /// Another drain was asked for during the present one.
    pub(super) const AGAIN: u16 = Descriptor::OWNER;
    /// The drain goes on until a recv returns 0 or an error.
    pub(super) const TO_END: u16 = Descriptor::OWNER << 1;
    /// A recv returned 0. Nothing else will come.
    pub(super) const ENDED: u16 = Descriptor::OWNER << 2;
    /// The peer streams: reads go on until nothing is there, and no batch is waited for meanwhile.
    pub(super) const STREAMING: u16 = Descriptor::OWNER << 3;
    /// A drain has begun, and its first result is to come.
    pub(super) const FRESH: u16 = Descriptor::OWNER << 4;
    /// No recv has followed the last completion of the poll.
    pub(super) const UNREAD: u16 = Descriptor::OWNER << 5;
}

/// What a [`Driver`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// The tracker's part.
    pub tracker: TrackerConfig,
    /// How long to wait for others once there is a completion; zero wakes at once.
    pub batch_window: Duration,
    /// On what to wait.
    pub io: EngineChoice,
}

/// What a driver did, returned when it ends.
#[derive(Debug)]
pub struct Report {
    /// How many, of what.
    pub counts: TrackerCounts,
    /// Its measurements, without those that were handed over interval by interval.
    pub recorder: Recorder,
    /// When the last interval began, if there are intervals.
    pub measured_since: Option<Instant>,
    /// What its engine did.
    pub ring: Counters,
    /// Own stalls that were noticed.
    pub stalls: u64,
    /// Polls that the kernel ended by itself and that were armed again.
    pub rearms: u64,
    /// Events that the sink did not take before the end.
    pub undelivered: u64,
}

/// The tracker and the sockets of its peers.
pub struct Tracking {
    config: TrackerConfig,
    pub(crate) tracker: Tracker,
    /// By the index of the peer.
    conns: Vec<Option<Descriptor>>,
    /// By the index of the peer, if beats are frames.
    frames: Vec<Frames>,
    /// By the index of the peer: the rest of a frame that did not fit the socket. Only stuck peers have one.
    partial_frames: HashMap<u32, PartialFrame>,
    locals: Arc<LocalAddresses>,
    /// By listener: the number of the local address that its connections have, if they all have the same.
    local_of: Vec<Option<u16>>,
    /// By listener: its address.
    addresses: Vec<std::net::SocketAddr>,
    recorder: Recorder,
    tap: Option<IntervalSender>,
    ticks: TickClock,
    /// Connections whose recv or poll is tried again from `starved_until` on.
    starved: VecDeque<PeerId>,
    starved_until: Instant,
    /// Connections whose poll ended with a wake-up, and is armed again when they are drained.
    unwatched: Vec<PeerId>,
    /// Ends that may still be read in this turn without the engine.
    ends_at_once: u32,
}

/// The tracker's loop: one engine, one tracker, one thread.
pub type Driver<K> = Reactor<Tracking, K>;

impl<K: EventSink> Driver<K> {
    /// Sets up an engine, tests the kernel on it, and arms the listeners. To be called on the thread that will
    /// [run](Reactor::run) it.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose message names the cause and the cure.
    pub fn new(
        config: DriverConfig,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        locals: Arc<LocalAddresses>,
        wakeup: Arc<Wakeup>,
        sink: K,
    ) -> Result<Driver<K>, StartError> {
        let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.address().ip()).collect();
        let buffers = config.tracker.policy.heartbeat == Heartbeat::Frames;
        let setup = Setup { io: config.io, batch_window: config.batch_window, buffers };
        Reactor::open(setup, listeners, shared, wakeup, sink, || {
            Tracking::new(config.tracker, locals, addresses)
        })
    }

    /// Hands the measurements over interval by interval from now on.
    pub fn log_latency(&mut self, tap: IntervalSender) {
        self.service.tap = Some(tap);
    }

    /// The tracker, to be looked at.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.service.tracker
    }
}

impl Tracking {
    fn new(
        config: TrackerConfig,
        locals: Arc<LocalAddresses>,
        addresses: Vec<std::net::SocketAddr>,
    ) -> Tracking {
        let frames = config.policy.heartbeat == Heartbeat::Frames;
        Tracking {
            config,
            tracker: Tracker::new(config, Instant::now()),
            conns: Vec::with_capacity(config.capacity),
            frames: Vec::with_capacity(if frames { config.capacity } else { 0 }),
            partial_frames: HashMap::new(),
            local_of: addresses
                .iter()
                .map(|address| (!address.ip().is_unspecified()).then(|| locals.intern(*address)))
                .collect(),
            addresses,
            locals,
            recorder: Recorder::new(),
            tap: None,
            ticks: TickClock::new(),
            starved: VecDeque::new(),
            starved_until: Instant::ZERO,
            unwatched: Vec::with_capacity(limits::MAX_COMPLETIONS_PER_TURN),
            ends_at_once: 0,
        }
    }

    /// Whether heartbeats are frames, and read.
    fn reads_frames(&self) -> bool {
        self.config.policy.heartbeat == Heartbeat::Frames
    }
}

/// The default of [`DriverConfig::batch_window`]: in beat mode a batch is waited for, since every beat completes
/// something; in lazy mode completions are rare, and none waits for another.
#[must_use]
pub const fn default_batch_window(wake: Wake) -> Duration {
    match wake {
        Wake::Lazy => Duration::ZERO,
        Wake::Beat => Duration::from_micros(500),
    }
}
