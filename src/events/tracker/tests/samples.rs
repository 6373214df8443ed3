//! The stream that the tests and the document are held against: every event, and every cause of a death.

use std::sync::Arc;
use std::time::Duration;

use crate::events::start::Start;
use crate::events::tracker::{Closing, Listening};
use crate::frame::{FrameError, Identity};
use crate::limits::HISTORY;
use crate::liveness::{
    Action, Cause, Death, Event, EventKind, Evidence, Fact, Heartbeat, Hop, LocalCause, PeerId, Policy,
    PollMask, Proof, Subject, TcpState, Tracker, TrackerConfig, TrackerCounts, Transport,
};
use crate::measure;
use crate::reactor::Address;
use crate::sys::engine::Counters;
use crate::time::{Instant, WallClock};
use crate::tracking::LocalAddresses;

/// 2026-11-23T12:00:00Z at monotonic zero.
pub(in crate::events::tracker) const WALL: WallClock = WallClock::fixed(1_795_435_200_000_000_000);

pub(in crate::events::tracker) fn at_millis(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

pub(in crate::events::tracker) fn locals() -> Arc<LocalAddresses> {
    let locals = LocalAddresses::new();
    locals.intern("127.0.0.1:7400".parse().unwrap());
    locals.intern("[2001:db8::1]:7400".parse().unwrap());
    Arc::new(locals)
}

pub(in crate::events::tracker) fn listening() -> Listening {
    Listening {
        start: Start {
            addresses: ["127.0.0.1:7400", "[2001:db8::1]:7400"]
                .map(|text| Address::Ip(text.parse().unwrap()))
                .to_vec(),
            capacity: 1_048_512,
            at: at_millis(1_000),
            ..crate::events::start::sample()
        },
        host: None,
        policy: Policy::STANDARD,
        wake: "lazy",
        unread: 1_024,
        batch_window: Duration::ZERO,
    }
}

/// A peer that says HELLO, is suspected, and dies of its silence, as a tracker tells it.
pub(in crate::events::tracker) fn expired() -> [Event; 3] {
    let start = at_millis(2_000);
    let policy = Policy { heartbeat: Heartbeat::Frames, ..Policy::STRICT };
    let mut tracker = Tracker::new(TrackerConfig::new(policy, 4), start);
    let peer = tracker.accept("192.0.2.7:40312".parse().unwrap(), 0, start).unwrap();
    tracker.handle(peer, Fact::Hello(Identity::new("sensor-7").unwrap()), start);
    let mut events = Vec::new();
    while events.len() < 3 {
        let now = tracker.next_due().unwrap() + Duration::from_micros(1_250);
        tracker.handle_time(now);
        while let Some(action) = tracker.poll_action() {
            let age = now.since(start).as_millis() as u32;
            let evidence = Evidence {
                received: 24,
                last_data: start,
                last_ack: now - Duration::from_millis(900),
                last_data_ms: age,
                last_ack_ms: 900,
                rtt_us: 431,
                ..Evidence::default()
            };
            match action {
                Action::Inspect(peer) => tracker.handle(peer, Fact::Inspected(evidence), now),
                Action::Drain { peer, .. } => tracker.handle(peer, Fact::Emptied, now),
                Action::SetLowWater { .. } | Action::Probe { .. } | Action::Close { .. } => {}
            }
        }
        events.extend(std::iter::from_fn(|| tracker.poll_event()));
    }
    events.try_into().expect("up, suspected, died")
}

/// A death of `cause` after some seconds of good life, the rest of its proof left empty.
pub(in crate::events::tracker) fn death(cause: Cause) -> Death {
    Death {
        peer: PeerId::new(17, 42),
        address: "127.0.0.1:40312".parse().unwrap(),
        local: 0,
        cause,
        proof: Proof {
            errno: None,
            frame: None,
            bye: false,
            evidence: Evidence { tcp_state: TcpState::Close, rtt_us: 28, ..Evidence::default() },
            last_life: at_millis(5_000),
            transport: Transport::Unasked,
            outage: false,
        },
        accepted_at: at_millis(2_000),
        at: Instant::from_nanos(6_234_567_891),
        deadline: None,
        bytes: 480,
        history: [None; HISTORY],
    }
}

pub(in crate::events::tracker) fn died(death: Death) -> Event {
    let subject = Subject { peer: death.peer, address: death.address, local: death.local, identity: None };
    Event { at: death.at, subject: Some(subject), kind: EventKind::Died(death) }
}

pub(in crate::events::tracker) fn reset() -> Event {
    let mut death = death(Cause::Aborted);
    death.proof.errno = Some(libc::ECONNRESET);
    death.proof.evidence.mask = PollMask(0x2019);
    died(death)
}

/// Deaths of every cause, with what makes their proofs special.
pub(in crate::events::tracker) fn deaths() -> Vec<Event> {
    let mut deaths: Vec<_> = Cause::ALL.into_iter().map(death).collect();
    for death in &mut deaths {
        let proof = &mut death.proof;
        match death.cause {
            Cause::Closed => {
                proof.bye = true;
                proof.evidence.mask = PollMask(0x2001);
                proof.evidence.tcp_state = TcpState::CloseWait;
            }
            Cause::Aborted => proof.evidence.so_error = Some(libc::EPIPE),
            Cause::HeartbeatExpired | Cause::HandshakeExpired => {
                proof.transport = Transport::Silent;
                proof.outage = true;
                proof.evidence.probes = 3;
                death.deadline = Some(at_millis(6_233));
            }
            Cause::KeepaliveExpired => proof.errno = Some(libc::ETIMEDOUT),
            Cause::UserTimeout => {
                proof.errno = Some(libc::ETIMEDOUT);
                proof.evidence.retransmits = 5;
                proof.evidence.backoff = 5;
                proof.evidence.unacked = 2;
                proof.evidence.notsent = 48;
            }
            Cause::Unreachable(Hop::Host) => proof.errno = Some(libc::EHOSTUNREACH),
            Cause::Unreachable(Hop::Net) => proof.errno = Some(libc::ENETUNREACH),
            Cause::Protocol => proof.frame = Some(FrameError::BadMagic),
            Cause::Local(LocalCause::Destroyed) => proof.errno = Some(libc::ECONNABORTED),
            Cause::Local(LocalCause::Shutdown | LocalCause::Replaced | LocalCause::SendTimeout) => {}
            Cause::Local(LocalCause::Unwatchable) => proof.errno = Some(133_133),
        }
    }
    deaths.into_iter().map(died).collect()
}

pub(in crate::events::tracker) fn closing() -> Closing {
    let mut recorder = measure::Recorder::new();
    for micros in 1..=150 {
        recorder.verdict(Duration::from_micros(micros));
        recorder.turn(Duration::from_micros(micros / 2));
        recorder.batch(3);
    }
    recorder.lateness(Duration::from_micros(1_250));
    recorder.silence(Duration::from_millis(7_001));
    let mut closing = Closing {
        at: at_millis(10_000),
        uptime: Duration::from_millis(9_000),
        stalls: 1,
        measures: recorder.summary(),
        ring: Counters { enters: 400, submitted: 1_200, completions: 1_300, overflows: 0 },
        ..Closing::default()
    };
    let mut counts = TrackerCounts {
        opened: 160,
        suspected: 3,
        recovered: 2,
        visits: 40,
        living: 9,
        ..Default::default()
    };
    counts.died[usize::from(Cause::Aborted.code())] = 149;
    counts.died[usize::from(Cause::HeartbeatExpired.code())] = 1;
    counts.died[usize::from(Cause::Unreachable(Hop::Net).code())] = 1;
    closing.add(&counts);
    closing
}
