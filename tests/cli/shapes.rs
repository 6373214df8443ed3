//! What each event has, and of which kind it is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

/// What a value must be.
#[derive(Clone, Copy)]
pub enum Kind {
    Count,
    CountOrNull,
    Flag,
    Text,
    /// Names with commas between them, or none.
    Names,
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

pub struct Field {
    pub name: &'static str,
    kind: Kind,
    optional: bool,
}

pub const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, optional: false }
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, optional: true }
}

pub const WHEN: &[Field] =
    &[must("seq", Kind::Count), must("mono_ns", Kind::Count), must("time", Kind::Date)];
pub const PEER: &[Field] = &[
    must("id", Kind::Text),
    must("peer", Kind::Address),
    must("local", Kind::Address), // left out beyond 65,535 local addresses only
    may("identity", Kind::Text),
];
pub const THREAD: &[Field] = &[must("thread", Kind::Count)];

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
    must("engine", Kind::Word(&["io_uring", "epoll"])),
    may("host", Kind::Word(&["tokio-uring"])),
    may("why_not", Kind::Text),
    must("features", Kind::Names),
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
    may(
        "detail",
        Kind::Word(&["host", "net", "destroyed", "shutdown", "replaced", "unwatchable", "send_timeout"]),
    ),
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
    must("step", Kind::Word(&["up", "suspected", "doubted", "recovered", "half_closed", "died"])),
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

/// Every event: the peer that it is about, and its other fields.
pub const SHAPES: &[(&str, &[Field], &[Field])] = &[
    ("listening", &[], LISTENING),
    ("up", PEER, &[]),
    ("suspected", PEER, &[must("reason", Kind::Word(&["silence", "path"])), must("silent_ms", Kind::Count)]),
    ("recovered", PEER, &[must("suspected_ms", Kind::Count)]),
    ("half_closed", PEER, &[]),
    ("duplicate", PEER, &[must("of", Kind::Text), must("of_peer", Kind::Address)]),
    ("died", PEER, DIED),
    ("stall", THREAD, &[must("held_ms", Kind::Count)]),
    ("path_outage", THREAD, &[must("suspects", Kind::Count), must("peers", Kind::Count)]),
    (
        "saturated",
        THREAD,
        &[must("limit", Kind::Word(&["max_connections", "descriptors"])), must("effect", Kind::Text)],
    ),
    ("resumed", THREAD, &[]),
    ("summary", &[], SUMMARY),
];

/// What one machine's loopback does not bring about: vanished peers, killed sockets, many silent at
/// once, samples of a day.
pub const BEYOND_LOOPBACK: &[&str] = &[
    "listening.why_not", // only where there is no ring: see `refusals`
    "died.detail",
    "died.proof.so_error",
    "died.proof.outage",
    "summary.*.clipped",
    "path_outage",
];

/// Holds an object against its fields, and notes the optional ones that it has.
pub fn check(path: &str, value: &Value, fields: &[&[Field]], seen: &mut BTreeSet<String>) {
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
        Kind::Names => {
            text.is_some_and(|text| text.is_empty() || text.split(',').all(|name| !name.is_empty()))
        }
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
pub fn optional(path: &str, fields: &[Field], found: &mut BTreeSet<String>) {
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

/// The names of all fields.
pub fn names(fields: &'static [Field], found: &mut BTreeSet<&'static str>) {
    for field in fields {
        found.insert(field.name);
        match field.kind {
            Kind::Object(fields) | Kind::List(&Kind::Object(fields)) => names(fields, found),
            _ => {}
        }
    }
}
