//! The first line: what listens, and by which rules it judges.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::events::PROGRAM;
use crate::events::human::{Count, HumanEncoder, Span};
use crate::events::json::{JsonEncoder, VERSION, micros, millis};
use crate::liveness::{Heartbeat, Policy};
use crate::time::Instant;

/// The first line: what listens, and by which rules it judges.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The addresses listened on, with the ports that the kernel chose. At least one.
    pub addresses: Vec<SocketAddr>,
    /// The process's id.
    pub pid: u32,
    /// `io_uring` or `epoll`.
    pub engine: &'static str,
    /// The runtime that waits for it, if that is not a thread of its own.
    pub host: Option<&'static str>,
    /// The set-up features that this kernel granted.
    pub features: Vec<&'static str>,
    /// Why the engine is no better one, and what to do about it.
    pub why_not: Option<String>,
    /// The number of ring threads.
    pub threads: usize,
    /// `standard`, `strict` or `custom`.
    pub policy_name: &'static str,
    /// The times by which peers are judged.
    pub policy: Policy,
    /// `lazy` or `beat`.
    pub wake: &'static str,
    /// Unread bytes that may lie in a socket (`SO_RCVLOWAT`).
    pub unread: u32,
    /// Connections at once, over all threads.
    pub capacity: u64,
    /// How long a batch of completions may be waited for.
    pub batch_window: Duration,
    /// When all loops were ready.
    pub at: Instant,
}

impl Listening {
    /// Appends the first line for programs.
    ///
    /// # Panics
    ///
    /// When there is no address.
    pub(super) fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        let policy = &self.policy;
        let keepalive = policy.keepalive();
        let fields = ListeningFields {
            address: self.addresses[0],
            addresses: &self.addresses,
            version: VERSION,
            program: PROGRAM,
            pid: self.pid,
            engine: self.engine,
            host: self.host,
            why_not: self.why_not.as_deref(),
            features: &self.features.join(","),
            threads: self.threads,
            policy: self.policy_name,
            heartbeat: policy.heartbeat.as_str(),
            wake: self.wake,
            detection_time_ms: millis(policy.detection_time()),
            idle_ms: millis(policy.idle),
            interval_ms: millis(policy.interval),
            probes: policy.probes,
            handshake_ms: millis(policy.handshake),
            half_closed_grace_ms: millis(policy.half_closed_grace),
            keepalive: KeepaliveFields {
                idle_s: keepalive.idle,
                interval_s: keepalive.interval,
                count: keepalive.count,
                user_timeout_ms: keepalive.user_timeout.map(millis),
            },
            unread: self.unread,
            capacity: self.capacity,
            batch_window_us: micros(self.batch_window),
        };
        json.line("listening", None, self.at, &fields, out);
    }

    /// Appends the first lines for people: what listens, and what may be expected of it.
    pub(super) fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let policy = &self.policy;
        let life = match policy.heartbeat {
            Heartbeat::Bytes => "any byte is life",
            Heartbeat::Frames => "heartbeat frames are life",
            Heartbeat::None => "TCP keepalive is life",
        };
        human.plain(format_args!("{PROGRAM} listens on {}", addresses.join(", ")), out);
        human.plain(
            format_args!(
                "policy {}: {life}; suspect after {}, dead after {} ({} + {} x {})",
                self.policy_name,
                Span(policy.idle),
                Span(policy.detection_time()),
                Span(policy.idle),
                policy.probes,
                Span(policy.interval),
            ),
            out,
        );
        human.plain(
            format_args!(
                "{}{}, {}, room for {}",
                self.engine,
                Granted(self),
                Count(self.threads as u64, "thread"),
                Count(self.capacity, "connection"),
            ),
            out,
        );
        if let Some(why_not) = &self.why_not {
            human.plain(format_args!("why not better: {why_not}"), out);
        }
    }
}

#[derive(Serialize)]
struct ListeningFields<'a> {
    address: SocketAddr,
    addresses: &'a [SocketAddr],
    version: u32,
    program: &'static str,
    pid: u32,
    engine: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'static str>,
    features: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'a str>,
    threads: usize,
    policy: &'static str,
    heartbeat: &'static str,
    wake: &'static str,
    detection_time_ms: u64,
    idle_ms: u64,
    interval_ms: u64,
    probes: u32,
    handshake_ms: u64,
    half_closed_grace_ms: u64,
    keepalive: KeepaliveFields,
    unread: u32,
    capacity: u64,
    batch_window_us: u64,
}

#[derive(Serialize)]
struct KeepaliveFields {
    idle_s: u32,
    interval_s: u32,
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_timeout_ms: Option<u64>,
}

/// What the kernel granted the engine, and the runtime that hosts it.
struct Granted<'a>(&'a Listening);

impl Display for Granted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = self.0.host {
            write!(f, " in {host}")?;
        }
        if self.0.features.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.0.features.join(", "))
    }
}
