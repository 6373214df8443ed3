//! The stream of events of a real daemon, held against docs/EVENTS.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpeer::frame::{Frame, encode_hello};
use serde_json::Value;

use crate::daemon::{Daemon, PATIENCE, QUICK, beat};
use crate::outcome::{Outcome, deadpeer};
use crate::skip::skip;

// --- the shapes --------------------------------------------------------------------------------

/// What a value must be.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    CountOrNull,
    Flag,
    Text,
    Word(&'static [&'static str]),
    Address,
    /// RFC 3339, UTC, microseconds.
    Date,
    Hexadecimal,
    List(&'static Kind),
    Object(&'static [Field]),
    /// An object with a count for each of these words.
    CountOfEach(&'static [&'static str]),
}

struct Field {
    name: &'static str,
    kind: Kind,
    optional: bool,
}

const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, optional: false }
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, optional: true }
}

const WHEN: &[Field] = &[must("seq", Kind::Count), must("mono_ns", Kind::Count), must("time", Kind::Date)];
const PEER: &[Field] = &[
    must("id", Kind::Text),
    must("peer", Kind::Address),
    must("local", Kind::Address), // left out beyond 65,535 local addresses only
    may("identity", Kind::Text),
];
const THREAD: &[Field] = &[must("thread", Kind::Count)];

const CAUSES: &[&str] = &[
    "closed",
    "aborted",
    "heartbeat_expired",
    "keepalive_expired",
    "user_timeout",
    "unreachable",
    "handshake_expired",
    "protocol",
    "local",
];

const LISTENING: &[Field] = &[
    must("address", Kind::Address),
    must("addresses", Kind::List(&Kind::Address)),
    must("version", Kind::Count),
    must("program", Kind::Text),
    must("pid", Kind::Count),
    must("engine", Kind::Word(&["io_uring"])),
    must("features", Kind::Text),
    must("threads", Kind::Count),
    must("policy", Kind::Word(&["standard", "strict", "custom"])),
    must("heartbeat", Kind::Word(&["bytes", "frames", "none"])),
    must("wake", Kind::Word(&["lazy", "beat"])),
    must("detection_time_ms", Kind::Count),
    must("idle_ms", Kind::Count),
    must("interval_ms", Kind::Count),
    must("probes", Kind::Count),
    must("handshake_ms", Kind::Count),
    must("half_closed_grace_ms", Kind::Count),
    must(
        "keepalive",
        Kind::Object(&[
            must("idle_s", Kind::Count),
            must("interval_s", Kind::Count),
            must("count", Kind::Count),
            may("user_timeout_ms", Kind::Count),
        ]),
    ),
    must("unread", Kind::Count),
    must("capacity", Kind::Count),
    must("batch_window_us", Kind::Count),
];

const DIED: &[Field] = &[
    must("cause", Kind::Word(CAUSES)),
    may("detail", Kind::Word(&["host", "net", "destroyed", "shutdown", "unwatchable"])),
    must("silent_ms", Kind::Count),
    must("lived_ms", Kind::Count),
    must("bytes", Kind::Count),
    may("late_us", Kind::Count),
    must("proof", Kind::Object(PROOF)),
    must("history", Kind::List(&Kind::Object(TRANSITION))),
];

const PROOF: &[Field] = &[
    may("errno", Kind::Text),
    must("poll_mask", Kind::Hexadecimal),
    may("so_error", Kind::Text),
    must("tcp", Kind::Object(TCP)),
    must("transport", Kind::Word(&["answering", "silent", "unasked"])),
    may("frame_error", Kind::Text),
    may("bye", Kind::Flag),
    may("outage", Kind::Flag),
    must("last_life_ns", Kind::Count),
    must("verdict_ns", Kind::Count),
];

const TCP: &[Field] = &[
    must("state", Kind::Text),
    must("unacked", Kind::Count),
    must("retransmits", Kind::Count),
    must("backoff", Kind::Count),
    must("probes", Kind::Count),
    must("last_ack_recv_ms", Kind::Count),
    must("last_data_recv_ms", Kind::Count),
    must("notsent_bytes", Kind::Count),
    must("rtt_us", Kind::Count),
];

const TRANSITION: &[Field] = &[
    must("at_ns", Kind::Count),
    must("step", Kind::Word(&["up", "suspected", "recovered", "half_closed", "died"])),
    may("cause", Kind::Word(CAUSES)),
];

const DISTRIBUTION: Kind = Kind::Object(&[
    must("count", Kind::Count),
    must("min", Kind::CountOrNull),
    must("p50", Kind::CountOrNull),
    must("p90", Kind::CountOrNull),
    must("p99", Kind::CountOrNull),
    must("p999", Kind::CountOrNull),
    must("max", Kind::CountOrNull),
    may("clipped", Kind::Count),
]);

const SUMMARY: &[Field] = &[
    must("opened", Kind::Count),
    must("open", Kind::Count),
    must("died", Kind::Count),
    must("deaths", Kind::CountOfEach(CAUSES)),
    must("suspected", Kind::Count),
    must("recovered", Kind::Count),
    must("visits", Kind::Count),
    must("stalls", Kind::Count),
    must("undelivered", Kind::Count),
    must("verdict_us", DISTRIBUTION),
    must("lateness_us", DISTRIBUTION),
    must("silence_ms", DISTRIBUTION),
    must("loop_turn_us", DISTRIBUTION),
    must("batch", DISTRIBUTION),
    must("rtt_us", DISTRIBUTION),
    must("turns", Kind::Count),
    must(
        "ring",
        Kind::Object(&[
            must("enters", Kind::Count),
            must("submitted", Kind::Count),
            must("completions", Kind::Count),
            must("overflows", Kind::Count),
        ]),
    ),
    must("uptime_ms", Kind::Count),
];

/// Every event: whom it is about, and what it has besides.
const SHAPES: &[(&str, &[Field], &[Field])] = &[
    ("listening", &[], LISTENING),
    ("up", PEER, &[]),
    ("suspected", PEER, &[must("silent_ms", Kind::Count)]),
    ("recovered", PEER, &[must("suspected_ms", Kind::Count)]),
    ("half_closed", PEER, &[]),
    ("died", PEER, DIED),
    ("stall", THREAD, &[must("held_ms", Kind::Count)]),
    ("path_outage", THREAD, &[must("suspects", Kind::Count), must("peers", Kind::Count)]),
    ("saturated", THREAD, &[must("limit", Kind::Word(&["max_connections"])), must("effect", Kind::Text)]),
    ("resumed", THREAD, &[]),
    ("summary", &[], SUMMARY),
];

/// What one machine's loopback does not bring about: vanished peers, killed sockets, many silent at
/// once, samples of a day.
const BEYOND_LOOPBACK: &[&str] =
    &["died.detail", "died.proof.so_error", "died.proof.outage", "summary.*.clipped", "path_outage"];

/// Holds an object against its fields, and notes the optional ones that it has.
fn check(path: &str, value: &Value, fields: &[&[Field]], seen: &mut BTreeSet<String>) {
    let object = value.as_object().unwrap_or_else(|| panic!("{path} is no object: {value}"));
    let known: BTreeSet<&str> = fields.iter().copied().flatten().map(|field| field.name).collect();
    let unknown: Vec<_> = object.keys().filter(|key| !known.contains(key.as_str())).collect();
    assert!(unknown.is_empty(), "{path} has {unknown:?}, which are not known: {value:#}");
    for field in fields.iter().copied().flatten() {
        let path = format!("{path}.{}", field.name);
        match object.get(field.name) {
            Some(value) => {
                check_kind(&path, value, field.kind, seen);
                if field.optional {
                    seen.insert(path);
                }
            }
            None => assert!(field.optional, "{path} is missing: {value:#}"),
        }
    }
}

fn check_kind(path: &str, value: &Value, kind: Kind, seen: &mut BTreeSet<String>) {
    let text = value.as_str();
    let fits = match kind {
        Kind::Count => value.is_u64(),
        Kind::CountOrNull => value.is_u64() || value.is_null(),
        Kind::Flag => value == true, // a flag that is not set is left out
        Kind::Text => text.is_some_and(|text| !text.is_empty()),
        Kind::Word(words) => text.is_some_and(|text| words.contains(&text)),
        Kind::Address => text.is_some_and(|text| text.parse::<SocketAddr>().is_ok()),
        Kind::Date => text.is_some_and(is_date),
        Kind::Hexadecimal => text
            .and_then(|text| text.strip_prefix("0x"))
            .is_some_and(|hex| u32::from_str_radix(hex, 16).is_ok()),
        Kind::List(each) => {
            let list = value.as_array().map_or(&[][..], Vec::as_slice);
            list.iter().for_each(|value| check_kind(path, value, *each, seen));
            value.is_array()
        }
        Kind::Object(fields) => {
            check(path, value, &[fields], seen);
            true
        }
        Kind::CountOfEach(words) => value.as_object().is_some_and(|object| {
            object.len() == words.len()
                && words.iter().all(|word| object.get(*word).is_some_and(Value::is_u64))
        }),
    };
    assert!(fits, "{path} is not what it should be: {value}");
}

fn is_date(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000000Z"
}

/// The paths of all optional fields, as [`check`] notes them; distributions together.
fn optional(path: &str, fields: &[Field], found: &mut BTreeSet<String>) {
    for field in fields {
        let path = format!("{path}.{}", field.name);
        if field.optional {
            found.insert(path.clone());
        }
        match field.kind {
            Kind::Object(fields) | Kind::List(&Kind::Object(fields)) => optional(&path, fields, found),
            _ => {}
        }
    }
}

/// Holds a whole stream, from `listening` to `summary`, against what a reader can rely on.
fn check_stream(events: &[Value], seen: &mut BTreeSet<String>) {
    let mut last = BTreeMap::new();
    let mut lives = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        let word = event["event"].as_str().unwrap();
        let (_, whose, more) = SHAPES.iter().find(|(name, ..)| *name == word).unwrap();
        let name = [must("event", Kind::Text)];
        check(word, event, &[&name, WHEN, whose, more], seen);
        seen.insert(word.to_owned());
        assert_eq!(event["seq"], number, "{event:#}");
        assert_eq!(word == "listening", number == 0, "{event:#}");
        assert_eq!(word == "summary", number == events.len() - 1, "{event:#}");

        let id = event["id"].as_str();
        if let Some(thread) = id.map(|id| id.split_once('-').unwrap().0) {
            // Transitions are kept to the microsecond; what is about the thread comes first in a turn.
            let at = event["mono_ns"].as_u64().unwrap() / 1_000;
            let before = last.insert(thread, at);
            let events = &events[number.saturating_sub(4)..=number];
            assert!(before.is_none_or(|before| before <= at), "back in time: {events:#?}");
        }
        if let Some(id) = id {
            let life: &mut Vec<&str> = lives.entry(id.to_owned()).or_default();
            assert_eq!(life.is_empty(), word == "up", "{event:#}");
            assert_ne!(life.last(), Some(&"died"), "{event:#}");
            life.push(word);
        }
    }
    let summary = events.last().unwrap();
    let count = |word: &str| lives.values().flatten().filter(|event| **event == word).count();
    for (total, word) in
        [("opened", "up"), ("died", "died"), ("suspected", "suspected"), ("recovered", "recovered")]
    {
        assert_eq!(summary[total], count(word), "{total}: {summary:#}");
    }
    let deaths: u64 = summary["deaths"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(summary["died"], deaths);
    assert_eq!(summary["open"], count("up") - count("died"));
}

// --- sessions ----------------------------------------------------------------------------------

fn daemon(line: &str) -> Daemon {
    let mut command = deadpeer(line);
    command.stderr(Stdio::piped());
    Daemon::of(command)
}

/// Ends a daemon in order, and returns all that it told.
fn end(mut daemon: Daemon) -> Vec<Value> {
    daemon.child.signal("-TERM");
    daemon.wait_for("summary");
    daemon.listen_for(PATIENCE); // to the end of its output
    Outcome::after(daemon.child).assert_quiet_success();
    daemon.seen
}

struct Peer {
    stream: TcpStream,
    address: String,
}

impl Peer {
    /// A peer that says who it is and beats once.
    fn speaking(daemon: &Daemon, name: &str) -> Peer {
        let mut peer = Peer::silent(daemon.address);
        peer.stream.write_all(&encode_hello(name, 1).unwrap()).unwrap();
        peer.stream.write_all(&Frame::beat(0).encode()).unwrap();
        peer
    }

    fn silent(to: SocketAddr) -> Peer {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = stream.local_addr().unwrap().to_string();
        Peer { stream, address }
    }

    fn wait(&self, daemon: &mut Daemon, word: &str) -> Value {
        daemon.wait(|event| event["event"] == word && event["peer"] == *self.address)
    }

    #[track_caller]
    fn assert_death(&self, daemon: &mut Daemon, cause: &str) -> Value {
        let died = self.wait(daemon, "died");
        assert_eq!(died["cause"], cause, "{died:#}");
        died
    }

    /// Answers a PING: with the same frame, but for its kind.
    fn answer(&mut self) {
        let mut frame = [0; 16];
        self.stream.read_exact(&mut frame).unwrap();
        frame[3] = Frame::beat(0).encode()[3];
        self.stream.write_all(&frame).unwrap();
    }

    fn reset(self) -> String {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
        self.address
    }
}

/// Everything that can happen to peers on loopback, one after the other.
fn a_session_of_frames() -> Vec<Value> {
    let mut daemon = daemon(
        "run --threads 1 --listen 127.0.0.1:0 --events - --heartbeat frames --idle 300ms --interval 150ms \
         --probes 3 --handshake 400ms --half-closed-grace 200ms --max-connections 3",
    );
    let mut peer = Peer::speaking(&daemon, "sensor-7");
    peer.answer();
    assert_eq!(peer.wait(&mut daemon, "recovered")["identity"], "sensor-7");
    let died = peer.assert_death(&mut daemon, "heartbeat_expired");
    let steps: Vec<_> = died["history"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["suspected", "recovered", "suspected", "died"], "{died:#}");
    assert!(died["silent_ms"].as_u64() >= Some(750), "{died:#}");

    Peer::silent(daemon.address).assert_death(&mut daemon, "handshake_expired");

    let mut peer = Peer::silent(daemon.address);
    peer.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let died = peer.assert_death(&mut daemon, "protocol");
    assert_eq!(died["proof"]["frame_error"], "bad_magic", "{died:#}");

    let mut peer = Peer::speaking(&daemon, "polite");
    peer.stream.write_all(&Frame::bye(1).encode()).unwrap();
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let died = peer.assert_death(&mut daemon, "closed");
    assert_eq!(died["proof"]["bye"], true, "{died:#}");

    let peer = Peer::speaking(&daemon, "half");
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    peer.wait(&mut daemon, "half_closed");
    peer.assert_death(&mut daemon, "closed");

    let peer = Peer::speaking(&daemon, "rude");
    peer.wait(&mut daemon, "up");
    let address = peer.reset();
    let died = daemon.wait(|event| event["event"] == "died" && event["peer"] == *address);
    assert_eq!(
        (&died["cause"], &died["proof"]["errno"]),
        (&"aborted".into(), &"ECONNRESET".into()),
        "{died:#}"
    );

    let crowd: Vec<Peer> = (0..4).map(|_| Peer::silent(daemon.address)).collect();
    daemon.wait_for("saturated");
    daemon.wait_for("resumed");
    drop(crowd);

    daemon.child.signal("-STOP");
    std::thread::park_timeout(Duration::from_secs(2)); // what the loop asked for, and the threshold
    daemon.child.signal("-CONT");
    let stall = daemon.wait_for("stall");
    assert!(stall["held_ms"].as_u64() >= Some(500), "{stall:#}");
    end(daemon)
}

#[test]
fn every_line_has_the_fields_that_are_documented_in_their_types_and_no_others() {
    let mut seen = BTreeSet::new();
    check_stream(&a_session_of_frames(), &mut seen);
    // Only a server that never sends sets a user timeout by itself.
    check_stream(&end(daemon("run --listen 127.0.0.1:0 --events -")), &mut seen);

    let mut expected: BTreeSet<String> = SHAPES.iter().map(|(word, ..)| (*word).to_owned()).collect();
    for (word, whose, more) in SHAPES {
        optional(word, whose, &mut expected);
        optional(word, more, &mut expected);
    }
    let unseen: BTreeSet<String> = expected
        .difference(&seen)
        .map(|path| if path.ends_with(".clipped") { "summary.*.clipped".to_owned() } else { path.clone() })
        .filter(|path| !path.starts_with("path_outage."))
        .filter(|path| !["up.identity", "half_closed.identity"].contains(&path.as_str())) // of a fast HELLO
        .collect();
    let beyond: BTreeSet<String> = BEYOND_LOOPBACK.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(unseen, beyond, "not seen, and seen against all expectation");
}

#[test]
fn several_listeners_and_threads_make_one_stream() {
    let mut line = "run --threads 3 --listen 127.0.0.1:0 --listen 127.0.0.1:0 --events -".to_owned();
    let ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if ipv6 {
        line += " --listen [::1]:0";
    } else {
        skip("no IPv6 on loopback");
    }
    let mut daemon = daemon(&line);
    let listening = daemon.wait_for("listening");
    let addresses: Vec<SocketAddr> = listening["addresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|address| address.as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(addresses.len(), if ipv6 { 3 } else { 2 });
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len());
    assert!(addresses.iter().all(|address| address.port() != 0), "{listening:#}");
    assert_eq!(listening["address"], addresses[0].to_string());
    for &address in &addresses {
        let peer = Peer::silent(address);
        let up = peer.wait(&mut daemon, "up");
        assert_eq!(up["local"], address.to_string(), "{up:#}");
        drop(peer);
        daemon.wait(|event| event["event"] == "died" && event["id"] == up["id"]);
    }
    let herd: Vec<_> =
        addresses.iter().map(|&to| beat(None, to, &["--count", "30", "--every", "20ms"])).collect();
    daemon.wait_for_many("up", 31 * addresses.len());
    assert_eq!(daemon.count("died"), addresses.len(), "beating peers died");
    drop(herd);
    daemon.wait_for_many("died", 31 * addresses.len());
    let events = end(daemon);
    check_stream(&events, &mut BTreeSet::new());
    let threads: BTreeSet<_> =
        events.iter().filter_map(|event| Some(event["id"].as_str()?.split_once('-')?.0.to_owned())).collect();
    assert!(threads.len() > 1, "all connections on one thread of three: {threads:?}");
}

#[test]
fn the_first_line_says_what_was_asked_for() {
    let options = "--wake beat --unread 77 --max-connections 55 --half-closed-grace 2s --batch-window 3ms";
    let line = format!("run --threads 2 --listen 127.0.0.1:0 --events - {options} {}", QUICK.join(" "));
    let before = seconds(SystemTime::now());
    let daemon = daemon(&line);
    let pid = daemon.child.0.id();
    let events = end(daemon);
    let after = seconds(SystemTime::now());
    let listening = &events[0];
    for (field, value) in [
        ("version", 1_u64),
        ("pid", pid.into()),
        ("threads", 2),
        ("detection_time_ms", 700),
        ("idle_ms", 400),
        ("interval_ms", 100),
        ("probes", 3),
        ("handshake_ms", 5_000),
        ("half_closed_grace_ms", 2_000),
        ("unread", 77),
        ("capacity", 55),
        ("batch_window_us", 3_000),
    ] {
        assert_eq!(listening[field], value, "{field}: {listening:#}");
    }
    let program = concat!("deadpeer ", env!("CARGO_PKG_VERSION"));
    for (field, value) in
        [("program", program), ("policy", "custom"), ("heartbeat", "bytes"), ("wake", "beat")]
    {
        assert_eq!(listening[field], value, "{field}: {listening:#}");
    }
    // Read by another program, each date lies in the time of this test.
    for event in &events {
        let date =
            Command::new("date").args(["-u", "+%s", "-d", event["time"].as_str().unwrap()]).output().unwrap();
        let at: u64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
        assert!((before..=after).contains(&at), "{event:#}");
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

// --- the document ------------------------------------------------------------------------------

const DOCUMENT: &str = include_str!("../../docs/EVENTS.md");

/// The words in backticks.
fn words(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The names in the first column of tables of fields.
fn table_fields(section: &str) -> BTreeSet<&str> {
    let mut fields = BTreeSet::new();
    let mut in_fields = false;
    for line in section.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            in_fields &= line.starts_with('|');
            continue;
        };
        let first = row.split('|').next().unwrap();
        in_fields |= first.starts_with("field");
        if in_fields && !first.starts_with("field") {
            fields.extend(words(first));
        }
    }
    fields
}

fn names(fields: &'static [Field], found: &mut BTreeSet<&'static str>) {
    for field in fields {
        found.insert(field.name);
        match field.kind {
            Kind::Object(fields) | Kind::List(&Kind::Object(fields)) => names(fields, found),
            _ => {}
        }
    }
}

#[test]
fn the_document_names_every_field_of_every_event_and_no_other() {
    // Examples are held against the encoder elsewhere; here it is about what is said of the fields.
    let prose: String = DOCUMENT.split("```").step_by(2).collect();
    let (mut common, mut events) = ("", BTreeMap::new());
    for section in prose.split("\n## ") {
        let (title, text) = section.split_once('\n').unwrap();
        match title.strip_prefix('`') {
            Some(word) => drop(events.insert(word.trim_end_matches('`'), text)),
            None if title == "Fields that many lines have" => common = text,
            None => {}
        }
    }
    let known: BTreeSet<&str> = SHAPES.iter().map(|(word, ..)| *word).collect();
    assert_eq!(events.keys().copied().collect::<BTreeSet<_>>(), known);

    let mut shared = BTreeSet::from(["event"]);
    for fields in [WHEN, PEER, THREAD] {
        names(fields, &mut shared);
    }
    assert_eq!(table_fields(common), shared);
    for (word, _, more) in SHAPES {
        let mut own = BTreeSet::new();
        names(more, &mut own);
        let said = words(events[word]);
        let unsaid: Vec<_> = own.iter().filter(|name| !said.contains(**name)).collect();
        assert!(unsaid.is_empty(), "docs/EVENTS.md does not say of `{word}`: {unsaid:?}");
        let unknown: Vec<_> =
            table_fields(events[word]).into_iter().filter(|name| !own.contains(name)).collect();
        assert!(unknown.is_empty(), "docs/EVENTS.md says of `{word}` what it has not: {unknown:?}");
    }
}
