//! `deadpeer proxy`: its arguments, and the proxy as a service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::duration;
use crate::cli::exit::{ExitError, exit};
use crate::cli::io::Io;
use crate::cli::run::PresetName;
use crate::cli::serve::{Loop, Service, Setup, WorkerParts, address, capacity_within_limits, cores, serve};
use crate::events::proxy::{Closing, JsonLines, Listening, Pen, Sentences};
use crate::events::sink::{Callback, Format, Outlet, Output, Sink, SinkError};
use crate::liveness::{Heartbeat, Policy, Preset, TrackerConfig};
use crate::proxy::{Config, Counts, HalfClose, Line, OnGone, Relay, Report, Rules, SendProxy, Upstreams};
use crate::reactor::{Probed, StartError};
use crate::time::Instant;

/// Arguments of `deadpeer proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Where to listen, as `127.0.0.1:8080` or `[::]:8080`; repeat it for more. Port 0 takes a free one and says
    /// which
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: Vec<SocketAddr>,

    /// The HTTP server behind; repeat it for more, and the one with the fewest connections is taken
    #[arg(long, value_name = "ADDR", required = true, value_parser = address)]
    pub upstream: Vec<SocketAddr>,

    /// Follow HTTP/1 and know whether somebody waits, or relay bytes
    #[arg(long, value_name = "MODE", default_value = "http")]
    pub mode: Mode,

    /// Refuse ambiguous HTTP (two lengths, bad chunks, folded headers, bare CR or LF) instead of relaying it as it is
    #[arg(long)]
    pub strict: bool,

    /// What a FIN means while the upstream works: ask the client (probe), it is gone (gone), gone if the response does
    /// not begin in time (wait:1s), or nothing (forward). Where nobody can be asked (HTTP/1.0, tcp, tunnels) probe is
    /// wait:1s
    #[arg(long, value_name = "HOW", default_value = "probe", value_parser = half_close, help_heading = "Verdict")]
    pub half_close: HalfClose,

    /// What to do with the upstream of a client that is gone: abort its connection with a RST, close it, or let it
    /// work on
    #[arg(long, value_name = "WHAT", default_value = "reset", help_heading = "Verdict")]
    pub on_gone: Gone,

    /// How long silence may last, on both sides, by TCP's own heartbeat: standard (32 to 40 s) or strict (7 to 9 s)
    #[arg(long, value_name = "NAME", default_value = "standard", help_heading = "Verdict")]
    pub policy: PresetName,

    /// How long a head may take to come, and a new client to say anything; then 408
    #[arg(long, value_name = "D", default_value = "20s", value_parser = duration::parse, help_heading = "Patience")]
    pub head_timeout: Duration,

    /// How long a request's body may stand still; then 408
    #[arg(long, value_name = "D", default_value = "60s", value_parser = duration::parse, help_heading = "Patience")]
    pub body_timeout: Duration,

    /// How long a connect to the upstream may take; then the next one is tried, or 504
    #[arg(long, value_name = "D", default_value = "5s", value_parser = duration::parse, help_heading = "Patience")]
    pub connect_timeout: Duration,

    /// How long a client may take nothing of a response that waits for it; then it is cut off
    #[arg(long, value_name = "D", default_value = "60s", value_parser = duration::parse, help_heading = "Patience")]
    pub send_timeout: Duration,

    /// How long the upstream may take to begin its response; then 504 [default: for ever]
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Patience")]
    pub response_timeout: Option<Duration>,

    /// Gather a request up to so many bytes before the upstream sees it, so that a client that leaves in the middle of it
    /// starts no work; longer ones stream
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024, help_heading = "Resources",
          value_parser = clap::value_parser!(u32).range(0..=64 * 1024 * 1024))]
    pub request_buffer: u32,

    /// Bytes of all requests that may be held at once; beyond it bodies stream, and heads are refused with 503
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024 * 1024, help_heading = "Resources",
          value_parser = clap::value_parser!(u64).range(65_536..))]
    pub request_memory: u64,

    /// Tell the upstream whom it serves, by the PROXY protocol
    #[arg(long, value_name = "VERSION", help_heading = "Upstream")]
    pub send_proxy: Option<ProxyVersion>,

    /// What the event loop waits on
    #[arg(long, value_name = "ENGINE", default_value = "auto", help_heading = "Resources",
          value_parser = Io::without_host())]
    pub io: Io,

    /// Threads, each with a ring and a listener of its own [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Clients at once; at the limit new ones wait in the backlog [default: half of what the limit on descriptors
    /// allows, since each has an upstream]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: Option<u32>,

    /// Write events as JSON Lines to this file, or to standard output (-)
    #[arg(long, value_name = "-|PATH", help_heading = "Output")]
    pub events: Option<PathBuf>,
}

/// What is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// HTTP/1.0 and 1.1; anything else is relayed as in tcp
    Http,
    /// Bytes
    Tcp,
}

/// What follows from a client's leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gone {
    /// A RST, which every server notices
    Reset,
    /// A FIN
    Close,
    /// Nothing
    Ignore,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyVersion {
    /// A line of text
    V1,
    /// Binary
    V2,
}

fn half_close(text: &str) -> Result<HalfClose, String> {
    match text.split_once(':') {
        None if text == "probe" => Ok(HalfClose::Probe),
        None if text == "gone" => Ok(HalfClose::Gone),
        None if text == "forward" => Ok(HalfClose::Forward),
        None if text == "wait" => Ok(HalfClose::Wait(Duration::from_secs(1))),
        Some(("wait", time)) => duration::parse(time).map(HalfClose::Wait),
        _ => Err("give probe, gone, wait:D (as wait:1s) or forward".to_owned()),
    }
}

/// Runs `deadpeer proxy` until SIGTERM, SIGINT or a closed output.
#[must_use]
pub fn proxy(args: ProxyArgs) -> ExitCode {
    exit("proxy", relay(&args))
}

fn relay(args: &ProxyArgs) -> Result<(), ExitError> {
    let preset = match args.policy {
        PresetName::Standard => Preset::Standard,
        PresetName::Strict => Preset::Strict,
    };
    // Without a user timeout, which would also end a client that only does not read for a while.
    let policy = Policy { heartbeat: Heartbeat::Frames, ..preset.policy() };
    let threads = usize::from(args.threads.unwrap_or_else(cores));
    let wanted = args.max_connections.map(|wanted| wanted as usize);
    let capacity = capacity_within_limits(wanted, 2, threads * (2 + args.listen.len()))?;
    let io = args.io.choice();
    let rules = Rules {
        http: args.mode == Mode::Http,
        strict: args.strict,
        half_close: args.half_close,
        on_gone: match args.on_gone {
            Gone::Reset => OnGone::Reset,
            Gone::Close => OnGone::Close,
            Gone::Ignore => OnGone::Ignore,
        },
        request_buffer: args.request_buffer as usize,
        head_timeout: args.head_timeout,
        body_timeout: args.body_timeout,
        response_timeout: args.response_timeout,
    };
    let config = Config {
        rules,
        policy,
        upstreams: Arc::new(Upstreams::new(args.upstream.clone())),
        connect_timeout: args.connect_timeout,
        send_timeout: args.send_timeout,
        send_proxy: args.send_proxy.map(|version| match version {
            ProxyVersion::V1 => SendProxy::V1,
            ProxyVersion::V2 => SendProxy::V2,
        }),
        hold: usize::try_from(args.request_memory).unwrap_or(usize::MAX) / threads,
        capacity,
        io,
    };
    let sockets = TrackerConfig { unread: 1, ..TrackerConfig::new(policy, capacity) };
    let setup = Setup {
        listen: &args.listen,
        threads,
        capacity,
        io,
        sockets: &sockets,
        events: args.events.as_deref(),
    };
    serve(&setup, Proxying { config, preset, threads, upstreams: args.upstream.clone() })
}

// --- service -----------------------------------------------------------------------------------

/// The proxy as a service.
struct Proxying {
    config: Config,
    preset: Preset,
    threads: usize,
    upstreams: Vec<SocketAddr>,
}

impl Service for Proxying {
    type Encoder = Pen;
    type Outlet = Outlet<Line>;
    type Report = Report;

    fn sink(&self, format: Format, output: Output) -> Result<(Sink<Pen>, Vec<Outlet<Line>>), SinkError> {
        let pen = match format {
            Format::JsonLines => Pen::Json(JsonLines::default()),
            Format::Human { colour, status } => Pen::Human(Sentences::new(colour, status)),
        };
        Sink::spawn(pen, output, self.threads)
    }

    fn set_waker(outlet: &mut Outlet<Line>, waker: Callback) {
        outlet.set_waker(waker);
    }

    fn worker(
        &mut self,
        parts: WorkerParts<Outlet<Line>>,
    ) -> impl FnOnce() -> Result<Loop<Report>, StartError> + Send + 'static {
        let config = self.config.clone();
        move || {
            let WorkerParts { listeners, outlet, wakeup, shared } = parts;
            let relay = Relay::new(config, listeners, shared, wakeup, outlet)?;
            Ok(Loop { obtained: relay.obtained().clone(), run: Box::new(|| relay.run()) })
        }
    }

    fn opening(&self, addresses: Vec<SocketAddr>, obtained: Probed) -> Listening {
        let Rules { http, half_close, on_gone, .. } = self.config.rules;
        Listening {
            addresses,
            pid: std::process::id(),
            upstreams: self.upstreams.clone(),
            engine: obtained.name,
            features: obtained.features,
            why_not: obtained.why_not,
            threads: self.threads,
            mode: if http { "http" } else { "tcp" },
            half_close: match half_close {
                HalfClose::Probe => "probe".to_owned(),
                HalfClose::Gone => "gone".to_owned(),
                HalfClose::Wait(time) => format!("wait:{}", duration::format(time)),
                HalfClose::Forward => "forward".to_owned(),
            },
            on_gone: match on_gone {
                OnGone::Reset => "reset",
                OnGone::Close => "close",
                OnGone::Ignore => "ignore",
            },
            policy_name: self.preset.as_str(),
            detection_time: self.config.policy.detection_time(),
            capacity: self.config.capacity,
            at: Instant::now(),
        }
    }

    fn closing(self, reports: &[Report], started: Instant) -> (Closing, u64) {
        let now = Instant::now();
        let mut counts = Counts::default();
        let mut kept = 0;
        for report in reports {
            counts.add(&report.counts);
            kept += report.untold;
        }
        (Closing { at: now, uptime: now.since(started), counts, undelivered: kept }, kept)
    }
}
