//! The first line: what listens, the upstreams, and the rules.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::events::PROGRAM;
use crate::events::human::{Count, HumanEncoder, Span};
use crate::events::json::{JsonEncoder, VERSION, millis};
use crate::time::Instant;

/// The first line: what listens, the upstreams, and the rules.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The addresses listened on, with the ports that the kernel chose.
    pub addresses: Vec<SocketAddr>,
    /// The process's id.
    pub pid: u32,
    /// The addresses of the upstreams.
    pub upstreams: Vec<SocketAddr>,
    /// `io_uring` or `epoll`.
    pub engine: &'static str,
    /// The set-up features that this kernel granted.
    pub features: Vec<&'static str>,
    /// Why the engine is no better one, and what to do about it.
    pub why_not: Option<String>,
    /// The number of threads.
    pub threads: usize,
    /// `http` or `tcp`.
    pub mode: &'static str,
    /// `probe`, `gone`, `wait:D` or `forward`.
    pub half_close: String,
    /// `reset`, `close` or `ignore`.
    pub on_gone: &'static str,
    /// `standard`, `strict` or `custom`.
    pub policy_name: &'static str,
    /// How long silence lasts at least before it ends a connection.
    pub detection_time: Duration,
    /// Connections at once.
    pub capacity: usize,
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
        let fields = ListeningFields {
            version: VERSION,
            program: PROGRAM,
            pid: self.pid,
            address: self.addresses[0],
            addresses: &self.addresses,
            upstreams: &self.upstreams,
            mode: self.mode,
            half_close: &self.half_close,
            on_gone: self.on_gone,
            engine: self.engine,
            features: self.features.join(","),
            why_not: self.why_not.as_deref(),
            threads: self.threads,
            policy: self.policy_name,
            detection_time_ms: millis(self.detection_time),
            capacity: self.capacity,
        };
        json.line("listening", None, self.at, &fields, out);
    }

    /// Appends the first lines for people.
    pub(super) fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (addresses, upstreams) = (list(&self.addresses), list(&self.upstreams));
        human.plain(format_args!("{PROGRAM} listens on {addresses} before {upstreams}"), out);
        human.plain(
            format_args!(
                "mode {}; a FIN: {}; on leaving: {}; policy {}: dead after {} of silence at least",
                self.mode,
                self.half_close,
                self.on_gone,
                self.policy_name,
                Span(self.detection_time),
            ),
            out,
        );
        let features = match self.features.as_slice() {
            [] => String::new(),
            features => format!(" ({})", features.join(", ")),
        };
        human.plain(
            format_args!(
                "{}{features}, {}, room for {}",
                self.engine,
                Count(self.threads as u64, "thread"),
                Count(self.capacity as u64, "client"),
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
    version: u32,
    program: &'static str,
    pid: u32,
    address: SocketAddr,
    addresses: &'a [SocketAddr],
    upstreams: &'a [SocketAddr],
    mode: &'static str,
    half_close: &'a str,
    on_gone: &'static str,
    engine: &'static str,
    features: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'a str>,
    threads: usize,
    policy: &'static str,
    detection_time_ms: u64,
    capacity: usize,
}
