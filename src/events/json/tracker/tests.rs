//! The exact lines, and the document that promises them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::frame::{FrameError, Identity};
use crate::liveness::{
    Action, Evidence, Fact, Hop, LocalCause, PollMask, TcpState, Tracker, TrackerConfig, Transport,
};

/// The stream that the tests, the document and the other format are held against: every event, and
/// every cause of a death.
pub(in crate::events) mod samples {
    use super::*;

    /// 2026-11-23T12:00:00Z at monotonic zero.
    pub(in crate::events) const WALL: WallClock = WallClock::fixed(1_795_435_200_000_000_000);

    pub(in crate::events) fn at_millis(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    pub(in crate::events) fn locals() -> Arc<LocalAddresses> {
        let locals = LocalAddresses::new();
        locals.intern("127.0.0.1:7400".parse().unwrap());
        locals.intern("[2001:db8::1]:7400".parse().unwrap());
        Arc::new(locals)
    }

    pub(in crate::events) fn listening() -> Listening {
        Listening {
            addresses: vec!["127.0.0.1:7400".parse().unwrap(), "[2001:db8::1]:7400".parse().unwrap()],
            pid: 4_711,
            engine: "io_uring",
            host: None,
            why_not: None,
            features: vec!["defer_taskrun", "no_sqarray", "min_wait", "no_iowait", "restricted"],
            threads: 2,
            policy_name: "standard",
            policy: Policy::STANDARD,
            wake: "lazy",
            unread: 1_024,
            capacity: 1_048_512,
            batch_window: Duration::ZERO,
            at: at_millis(1_000),
        }
    }

    /// A peer that says HELLO, is suspected, and dies of its silence, as a tracker tells it.
    pub(in crate::events) fn expired() -> [Event; 3] {
        let start = at_millis(2_000);
        let policy = Policy { heartbeat: crate::liveness::Heartbeat::Frames, ..Policy::STRICT };
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
    pub(in crate::events) fn death(cause: Cause) -> Death {
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

    pub(in crate::events) fn died(death: Death) -> Event {
        let subject =
            Subject { peer: death.peer, address: death.address, local: death.local, identity: None };
        Event { at: death.at, subject: Some(subject), kind: EventKind::Died(death) }
    }

    pub(in crate::events) fn reset() -> Event {
        let mut death = death(Cause::Aborted);
        death.proof.errno = Some(libc::ECONNRESET);
        death.proof.evidence.mask = PollMask(0x2019);
        died(death)
    }

    /// Deaths of every cause, with what makes their proofs special.
    pub(in crate::events) fn deaths() -> Vec<Event> {
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
                Cause::Local(LocalCause::Shutdown) => {}
                Cause::Local(LocalCause::Unwatchable) => proof.errno = Some(133_133),
            }
        }
        deaths.into_iter().map(died).collect()
    }

    /// One event of each kind, in an order that could be.
    pub(in crate::events) fn events() -> Vec<(usize, Event)> {
        let [up, suspected, expired] = expired();
        let six = Subject {
            peer: PeerId::new(3, 9),
            address: "[2001:db8::7]:50000".parse().unwrap(),
            local: 1,
            identity: None,
        };
        let of_six = |millis, kind| Event { at: at_millis(millis), subject: Some(six.clone()), kind };
        let whole = |millis, kind| Event { at: at_millis(millis), subject: None, kind };
        let suspected_for = Duration::from_micros(812_900);
        vec![
            (0, up),
            (1, of_six(5_500, EventKind::Recovered { suspected_for })),
            (1, of_six(5_900, EventKind::HalfClosed)),
            (0, suspected),
            (0, reset()),
            (0, expired),
            (1, whole(9_600, EventKind::Stall { held: Duration::from_millis(2_512) })),
            (1, whole(9_700, EventKind::PathOutage { suspects: 512, peers: 600 })),
            (0, whole(9_800, EventKind::Saturated { limit: "max_connections" })),
            (0, whole(9_900, EventKind::Resumed)),
        ]
    }

    pub(in crate::events) fn closing() -> Closing {
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
            ring: RingTotals { enters: 400, submitted: 1_200, completions: 1_300, overflows: 0 },
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

    /// The whole stream of JSON Lines.
    pub(in crate::events) fn stream() -> String {
        let mut encoder = Encoder::new(locals());
        encoder.set_clock(WALL);
        let mut out = Vec::new();
        encoder.listening(&listening(), &mut out);
        for (thread, event) in events() {
            encoder.event(thread, &event, &mut out);
        }
        encoder.summary(&closing(), &mut out);
        String::from_utf8(out).unwrap()
    }
}

use samples::WALL;

fn line(thread: usize, event: &Event) -> String {
    let mut encoder = Encoder::new(samples::locals());
    encoder.set_clock(WALL);
    let mut out = Vec::new();
    encoder.event(thread, event, &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8(out).unwrap()
}

/// Every line that the samples give, with the version that the document and the golden file have.
fn all_lines() -> Vec<String> {
    let stream = samples::stream().replace(env!("CARGO_PKG_VERSION"), "0.1.0");
    let deaths = samples::deaths().iter().map(|event| line(0, event)).collect::<Vec<_>>();
    stream.lines().map(str::to_owned).chain(deaths).collect()
}

#[test]
fn the_lines_are_exactly_those_of_the_golden_file() {
    let golden = include_str!("golden.jsonl");
    let lines = all_lines();
    for (line, golden) in lines.iter().zip(golden.lines()) {
        assert_eq!(line, golden);
    }
    assert_eq!(
        lines.len(),
        golden.lines().count(),
        "src/events/json/tracker/golden.jsonl must be:\n{}",
        lines.join("\n")
    );
}

#[test]
fn every_line_is_one_object_and_seq_has_no_gap() {
    let stream = samples::stream();
    assert!(stream.ends_with('\n'));
    for (number, line) in stream.lines().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["seq"], number);
        assert!(value["event"].is_string() && value["mono_ns"].is_u64() && value["time"].is_string());
    }
}

#[test]
fn every_cause_has_its_word_and_the_summary_has_all_nine() {
    let summary: Value = serde_json::from_str(samples::stream().lines().last().unwrap()).unwrap();
    let deaths = summary["deaths"].as_object().unwrap();
    assert_eq!(deaths.len(), 9);
    assert_eq!(deaths.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 151);
    for event in samples::deaths() {
        let died: Value = serde_json::from_str(&line(0, &event)).unwrap();
        assert!(deaths.contains_key(died["cause"].as_str().unwrap()), "{died}");
    }
}

#[test]
fn an_errno_without_a_name_is_its_number() {
    assert_eq!(Errno(libc::ETIMEDOUT).to_string(), "ETIMEDOUT");
    assert_eq!(Errno(4_000).to_string(), "4000");
}

#[test]
fn a_local_address_that_had_no_number_is_left_out() {
    let mut event = samples::reset();
    event.subject.as_mut().unwrap().local = LocalAddresses::UNKNOWN;
    assert!(!line(0, &event).contains("local"));
}

#[test]
fn an_address_that_was_interned_later_is_found() {
    let locals = samples::locals();
    let mut encoder = Encoder::new(locals.clone());
    let mut out = Vec::new();
    encoder.event(0, &samples::reset(), &mut out);
    let mut event = samples::reset();
    event.subject.as_mut().unwrap().local = locals.intern("127.0.0.9:7400".parse().unwrap());
    out.clear();
    encoder.event(0, &event, &mut out);
    assert!(String::from_utf8(out).unwrap().contains(r#""local":"127.0.0.9:7400""#));
}

proptest! {
    #[test]
    fn an_identity_comes_back_as_it_went_in(identity in "(?s)\\PC{0,20}.{0,20}[\"\\\\\n\r\u{0}\u{7f}\u{2028}\u{10ffff}]?") {
        let mut event = samples::reset();
        event.subject.as_mut().unwrap().identity = Some(identity.as_str().into());
        let line = line(0, &event);
        prop_assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&value["identity"], &Value::from(identity));
    }
}

const DOCUMENT: &str = include_str!("../../../../docs/EVENTS.md");

fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                into.insert(name.clone());
                names(value, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_document_names_every_field_and_every_word() {
    let mut wanted = BTreeSet::new();
    for line in all_lines() {
        let value: Value = serde_json::from_str(&line).unwrap();
        wanted.insert(value["event"].as_str().unwrap().to_owned());
        names(&value, &mut wanted);
    }
    wanted.insert("clipped".to_owned());
    wanted.extend(Cause::ALL.into_iter().map(|cause| cause.as_str().to_owned()));
    wanted.extend(Cause::ALL.into_iter().filter_map(|cause| cause.detail().map(str::to_owned)));
    wanted.extend(FrameError::ALL.into_iter().map(|error| error.as_str().to_owned()));
    let missing: Vec<_> = wanted.iter().filter(|name| !DOCUMENT.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/EVENTS.md does not say what these are: {missing:?}");
}

#[test]
fn the_examples_of_the_document_are_lines_of_ours() {
    let lines: Vec<Value> = all_lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut shown = BTreeSet::new();
    for block in DOCUMENT.split("```json\n").skip(1) {
        let block = block.split_once("```").expect("a block that begins also ends").0;
        for value in serde_json::Deserializer::from_str(block).into_iter::<Value>() {
            let value = value.unwrap();
            assert!(lines.contains(&value), "no line of ours: {value}");
            shown.insert(value["event"].as_str().unwrap().to_owned());
        }
    }
    let all: BTreeSet<_> = lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, all, "one example of each event");
}

/// Writes the golden file: `cargo test --lib write_the_golden_file -- --ignored`.
#[test]
#[ignore = "writes into the source"]
fn write_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/events/json/tracker/golden.jsonl");
    std::fs::write(path, all_lines().join("\n") + "\n").unwrap();
}
