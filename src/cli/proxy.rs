//! `deadpeer proxy`: its arguments, its start and its end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::duration;
use crate::cli::io::Io;
use crate::cli::run::PresetName;
use crate::cli::serving::{
    self, Crew, Refusal, address, cores, fitting, output, watch_reader, watch_signals, worst,
};
use crate::events::proxy::{Closing, JsonLines, Listening, Pen, Sentences};
use crate::events::sink::{Format, Outlet, Output, Sink};
use crate::limits;
use crate::liveness::{Heartbeat, Policy, Preset, TrackerConfig};
use crate::proxy::{Config, Counts, HalfClose, Line, OnGone, Relay, Report, Rules, SendProxy, Upstreams};
use crate::reactor::{EngineChoice, Listener, Shared, probe};
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
    serving::exit("proxy", serve(&args))
}

fn serve(args: &ProxyArgs) -> Result<(), Refusal> {
    let preset = match args.policy {
        PresetName::Standard => Preset::Standard,
        PresetName::Strict => Preset::Strict,
    };
    // Without a user timeout: it would also end a client that only does not read for a while.
    let policy = Policy { heartbeat: Heartbeat::Frames, ..preset.policy() };
    let threads = usize::from(args.threads.unwrap_or_else(cores));
    let wanted = args.max_connections.map(|wanted| wanted as usize);
    let capacity = fitting(wanted, 2, threads * (2 + args.listen.len()))?;
    let (io, half_close, on_gone) = args.words();
    probe(io).map_err(|error| Refusal::of_start(error, args.io != Io::Epoll))?;
    let started = Instant::now();
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
    let listener = TrackerConfig { unread: 1, ..TrackerConfig::new(policy, capacity) };
    let (listeners, addresses) = serving::listen(&args.listen, threads, &listener)?;

    let (format, output) = output(args.events.as_deref());
    let to_stdout = matches!(output, Output::Stdout);
    let output = output.opened().map_err(Refusal::failed)?;
    let (tell, told) = mpsc::channel();
    watch_signals(&tell)?;
    let pen = match format {
        Format::JsonLines => Pen::Json(JsonLines::default()),
        Format::Human { colour, status } => Pen::Human(Sentences::new(colour, status)),
    };
    let (sink, outlets) = Sink::spawn(pen, output, threads).map_err(Refusal::failed)?;
    serving::tell_of_end(&sink, &tell);
    if to_stdout {
        watch_reader(&tell)?;
    }
    let shared = Arc::new(Shared::new(capacity));
    let go = Arc::new(Barrier::new(threads + 1));
    let mut crew = Crew::new(&tell);
    for (listeners, outlet) in listeners.into_iter().zip(outlets) {
        hire(&mut crew, config.clone(), listeners, outlet, &shared, &go)?;
    }
    let obtained = worst(crew.started()?);
    sink.announce(Listening {
        addresses,
        pid: std::process::id(),
        upstreams: args.upstream.clone(),
        engine: obtained.name,
        features: obtained.features,
        why_not: obtained.why_not,
        threads,
        mode: if rules.http { "http" } else { "tcp" },
        half_close,
        on_gone,
        policy_name: preset.as_str(),
        detection_time: policy.detection_time(),
        capacity,
        at: Instant::now(),
    });
    go.wait();
    let outcome = crew.supervise(&shared, &told);
    let now = Instant::now();
    let mut counts = Counts::default();
    let mut untold = 0;
    for Report { counts: one, untold: more, .. } in &outcome.reports {
        counts.add(one);
        untold += more;
    }
    let closing = Closing { at: now, uptime: now.since(started), counts, undelivered: untold };
    serving::ending(sink.finish(closing, limits::SHUTDOWN_PATIENCE / 2), outcome.failure, untold)
}

impl ProxyArgs {
    /// The engine, and how two choices are called in the first line.
    fn words(&self) -> (EngineChoice, String, &'static str) {
        let half_close = match self.half_close {
            HalfClose::Probe => "probe".to_owned(),
            HalfClose::Gone => "gone".to_owned(),
            HalfClose::Wait(time) => format!("wait:{}", duration::format(time)),
            HalfClose::Forward => "forward".to_owned(),
        };
        let on_gone = match self.on_gone {
            Gone::Reset => "reset",
            Gone::Close => "close",
            Gone::Ignore => "ignore",
        };
        (self.io.choice(), half_close, on_gone)
    }
}

/// Starts one thread, which waits for `go` when it is ready.
fn hire(
    crew: &mut Crew<Report>,
    config: Config,
    listeners: Vec<Listener>,
    mut outlet: Outlet<Line>,
    shared: &Arc<Shared>,
    go: &Arc<Barrier>,
) -> Result<(), Refusal> {
    let wakeup = serving::wakeup()?;
    let waker = Arc::clone(&wakeup);
    outlet.set_waker(Arc::new(move || waker.wake()));
    let (shared, go, own) = (Arc::clone(shared), Arc::clone(go), Arc::clone(&wakeup));
    crew.hire(wakeup, move |ready| {
        let relay = match Relay::new(config, listeners, shared, own, outlet) {
            Ok(relay) => relay,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Err(io::Error::other("not started"));
            }
        };
        let _ = ready.send(Ok(relay.obtained().clone()));
        drop(ready);
        go.wait();
        relay.run()
    })
}
