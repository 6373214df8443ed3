//! `deadpeer proxy`: its arguments, and the proxy as a service.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::vec::IntoIter;

use clap::Args;

use crate::cli::address;
use crate::cli::bytes;
use crate::cli::duration;
use crate::cli::exit::{ExitError, exit};
use crate::cli::io::Io;
use crate::cli::serve::{
    Life, Loop, OutputArgs, Service, Setup, StopReason, Supervisor, WorkerParts, capacity_within_limits,
    cores, serve,
};
use crate::cli::values::{
    ACCESS_FORMATS, FORWARDED, LOG_QUERY, MODES, ON_GONE, ON_STALL, PROXY_POLICIES, VERSIONS, one_of,
};
use crate::events::encoder::{Filter, Format};
use crate::events::proxy::{AccessStream, Closing, Listening, NoRecord, ProxyStream};
use crate::events::sink::{Finish, Outlet, Output, Sink, SinkError};
use crate::events::start::Start;
use crate::limits;
use crate::liveness::{Heartbeat, Policy, Preset, TrackerConfig};
use crate::proxy::{
    AccessSink, Checker, Config, Counts, EventsStall, Forwarded, HalfClose, OnGone, Question, Relay, Report,
    Resolver, Rules, SendProxy, Target,
};
use crate::reactor::{Address, StartError};
use crate::sys::{describe, rlimit};
use crate::time::{Instant, sleep_until};

/// Arguments of `deadpeer proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Address to listen on, as 127.0.0.1:8080, `[::]:8080`, :8080 for every address of this machine, or
    /// unix:/run/deadpeer.sock; repeat it for more. With port 0 the kernel chooses a free port, which the first line names. A
    /// socket that the service manager passes for it (LISTEN_FDS) is taken instead
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = address::to_listen)]
    pub listen: Vec<Address>,

    /// Address of the HTTP server behind the proxy, as 127.0.0.1:9000, app:9000, `http://app:9000` or unix:/run/app.sock;
    /// repeat it for more. Each address of a name is a server. A request goes to the one with the fewest requests
    #[arg(long, value_name = "ADDR", required = true, value_parser = address::to_connect)]
    pub upstream: Vec<Target>,

    /// Permissions of the Unix sockets that are listened on, in octal
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = permissions)]
    pub unix_mode: u32,

    /// Whether the proxy follows HTTP/1, and so knows which clients wait for a response
    #[arg(long, value_name = "MODE", default_value = "http", value_parser = one_of(&MODES))]
    pub mode: &'static str,

    /// Refuse ambiguous HTTP (two lengths, bad chunks, folded headers, bare CR or LF) instead of relaying it unchanged
    #[arg(long)]
    pub strict: bool,

    /// What a client's FIN means while the upstream works. probe: send the client bytes without a meaning, to which the
    /// kernel of a client that is gone answers with a RST; where the response allows no such bytes (as in HTTP/1.0), act as
    /// wait:1s, and in tcp and in tunnels as forward. gone: the client is gone. wait:1s: it is gone if nothing of its
    /// response is passed on in this time. forward: nothing: the FIN is passed on to the upstream
    #[arg(long, value_name = "HOW", default_value = "probe", value_parser = half_close, help_heading = "Verdict")]
    pub half_close: HalfClose,

    /// What happens to the upstream's connection when its client is gone
    #[arg(long, value_name = "WHAT", default_value = "reset", value_parser = one_of(&ON_GONE), help_heading = "Verdict")]
    pub on_gone: OnGone,

    /// How long a client or an upstream may be silent while TCP keepalive probes it
    #[arg(long, value_name = "NAME", default_value = "standard", value_parser = one_of(&PROXY_POLICIES),
          help_heading = "Verdict")]
    pub policy: Preset,

    /// Time in which a request's head has to arrive, and the first byte of a new client; then it gets a 408
    #[arg(long, value_name = "D", default_value = "20s", value_parser = duration::positive, help_heading = "Patience")]
    pub head_timeout: Duration,

    /// Time in which more of a request's body has to arrive; then the client gets a 408
    #[arg(long, value_name = "D", default_value = "60s", value_parser = duration::positive, help_heading = "Patience")]
    pub body_timeout: Duration,

    /// Time in which a client has to send the next request after a response; then its connection is closed
    #[arg(long, value_name = "D", default_value = "75s", value_parser = duration::parse, help_heading = "Patience")]
    pub keepalive_timeout: Duration,

    /// Time that a connect to an upstream may take; then the next upstream is tried, or the client gets a 504
    #[arg(long, value_name = "D", default_value = "5s", value_parser = duration::positive, help_heading = "Patience")]
    pub connect_timeout: Duration,

    /// How often all upstreams are tried again, after growing pauses (0.2 s, 0.4 s, 0.8 s), when none could be connected
    /// to. A request of which something was sent to a new connection is never repeated
    #[arg(long, value_name = "N", default_value = "3", help_heading = "Upstream",
          value_parser = clap::value_parser!(u8).range(0..=8))]
    pub retries: u8,

    /// Number of requests and tunnels that each upstream may have at once; others wait [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Upstream",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub upstream_limit: Option<u32>,

    /// Time that a request may wait for a place at an upstream; then its client gets a 503
    #[arg(long, value_name = "D", default_value = "5s", value_parser = duration::parse, help_heading = "Patience")]
    pub queue_timeout: Duration,

    /// How often the names of upstreams are resolved again. 0s: never
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration::parse, help_heading = "Upstream")]
    pub resolve_every: Duration,

    /// Check every upstream, as GET:/healthz:2s or connect:2s: by a request, which needs a status below 400, or by a
    /// connection. The time is the pause between two checks, and the most that one may take. One whose last 3 have failed
    /// gets no requests until 2 have passed [default: no checks]
    #[arg(long, value_name = "HOW", value_parser = check, help_heading = "Upstream")]
    pub check: Option<(Question, Duration)>,

    /// Number of idle connections to upstreams that are kept; each request takes one of them, or a new one. 0: a client keeps
    /// its connection to the upstream. Also with --send-proxy, and once an upstream asks for a login by NTLM or Negotiate,
    /// a client keeps its own [default: 1024, at most an eighth of the descriptors]
    #[arg(long, value_name = "N", help_heading = "Upstream",
          value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub pool: Option<u32>,

    /// Time in which a client has to read more of a response that waits for it; then its connection is ended
    #[arg(long, value_name = "D", default_value = "60s", value_parser = duration::positive, help_heading = "Patience")]
    pub send_timeout: Duration,

    /// Time in which an upstream has to begin its response; then the client gets a 504 [default: no limit]
    #[arg(long, value_name = "D", value_parser = duration::positive, help_heading = "Patience")]
    pub response_timeout: Option<Duration>,

    /// Time that exchanges have to come to their end after SIGTERM or SIGINT, while the port is free for the next process;
    /// then they are cut off. A second signal ends it earlier
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration::parse, help_heading = "Patience")]
    pub drain: Duration,

    /// Collect a request of up to this many bytes before it is sent to the upstream, so that a client that leaves in the
    /// middle of it starts no work; a longer request streams
    #[arg(long, value_name = "BYTES", default_value = "256KiB", help_heading = "Resources",
          value_parser = bytes::within(0_u32, 64 * 1024 * 1024))]
    pub request_buffer: u32,

    /// Number of bytes of all collected requests; beyond it bodies stream, and new requests get a 503
    #[arg(long, value_name = "BYTES", default_value = "256MiB", help_heading = "Resources",
          value_parser = bytes::within(65_536, u64::MAX))]
    pub request_memory: u64,

    /// Send the client's address to the upstream, by the PROXY protocol
    #[arg(long, value_name = "VERSION", value_parser = one_of(&VERSIONS), help_heading = "Upstream")]
    pub send_proxy: Option<SendProxy>,

    /// Take the address of each client from the PROXY protocol (version 1 or 2), with which each connection has to begin:
    /// only behind a load balancer that sends it. Any other program that can connect could name any client
    #[arg(long)]
    pub accept_proxy: bool,

    /// What becomes of the fields X-Forwarded-For, X-Forwarded-Proto and Forwarded of requests, which name their client
    #[arg(long, value_name = "HOW", default_value = "off", value_parser = one_of(&FORWARDED), help_heading = "Upstream")]
    pub forwarded: Forwarded,

    /// What the event loop waits on
    #[arg(long, value_name = "ENGINE", default_value = "auto", help_heading = "Resources",
          value_parser = Io::without_host())]
    pub io: Io,

    /// Number of threads, each with its own ring and listener [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Number of clients at once; at the limit new ones wait in the backlog [default: half of what the limit on
    /// descriptors allows, since each client has an upstream]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: Option<u32>,

    /// What the proxy does while its events cannot be written, because their reader is stuck or their disk is full
    #[arg(long, value_name = "WHAT", default_value = "drop", value_parser = one_of(&ON_STALL), help_heading = "Output")]
    pub when_events_stall: EventsStall,

    /// Write a line for each exchange to this file, or to standard output (-); the sentences for people then go to standard
    /// error
    #[arg(long, value_name = "-|PATH", help_heading = "Output")]
    pub access_log: Option<PathBuf>,

    /// The format of the access log
    #[arg(long, value_name = "FORMAT", default_value = "combined", value_parser = one_of(&ACCESS_FORMATS),
          help_heading = "Output")]
    pub access_format: Format,

    /// Whether the queries of targets are written
    #[arg(long, value_name = "YES|NO", default_value = "yes", value_parser = one_of(&LOG_QUERY),
          action = clap::ArgAction::Set, help_heading = "Output")]
    pub log_query: bool,

    #[command(flatten)]
    /// What is written, and where.
    pub output: OutputArgs,
}

fn check(text: &str) -> Result<(Question, Duration), String> {
    let refusal = || "give METHOD:/PATH:D or connect:D, as GET:/healthz:2s or connect:2s".to_owned();
    let (what, every) = text.rsplit_once(':').ok_or_else(refusal)?;
    let every = duration::parse(every)?;
    if every < limits::MIN_CHECK_PAUSE {
        return Err(format!("checks need at least {} in between", duration::format(limits::MIN_CHECK_PAUSE)));
    }
    let question = match what.split_once(':') {
        None if what == "connect" => Question::Connect,
        Some((method, target))
            if !method.is_empty()
                && method.bytes().all(|byte| byte.is_ascii_uppercase())
                && target.starts_with('/')
                && target.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Question::Http { method: method.into(), target: target.into() }
        }
        _ => return Err(refusal()),
    };
    Ok((question, every))
}

fn permissions(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o777);
    mode.ok_or_else(|| "give permissions in octal, as 660 or 666".to_owned())
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
    // Without a user timeout, which would also end a client that only does not read for a while.
    let policy = Policy { heartbeat: Heartbeat::Frames, ..args.policy.policy() };
    let threads = usize::from(args.threads.unwrap_or_else(cores));
    // Without HTTP there are no exchanges, and the address of a client holds for a whole connection.
    let pool = if args.mode == "http" && args.send_proxy.is_none() { pool_size(args.pool) } else { 0 };
    let own = threads * (2 + args.listen.len()) + pool;
    let capacity = capacity_within_limits(args.max_connections, 2, own)?;
    let io = args.io.choice();
    let mut resolver = Resolver::start(&args.upstream).map_err(|(target, error)| {
        ExitError::failed(format!(
            "cannot resolve the upstream {target}: {}; is it written right, and does this machine reach its name server?",
            describe(&error)
        ))
    })?;
    let listens = args.listen.clone();
    let is_own = move |upstream: &Address| listens.iter().any(|listen| is_same(listen, upstream));
    if let Some(own) = resolver.addresses().find(|upstream| is_own(upstream)) {
        return Err(ExitError::new(
            ExitError::USAGE,
            format!(
                "the upstream {own} is the address that the proxy itself listens on, so it would connect to itself for \
             ever; give another --listen or --upstream"
            ),
        ));
    }
    if args.forwarded != Forwarded::Off && args.mode != "http" {
        return Err(ExitError::usage(
            "--forwarded writes fields of HTTP, which --mode tcp does not read: leave one of both out, or take --send-proxy",
        ));
    }
    if args.strict && args.mode != "http" {
        return Err(ExitError::usage(
            "--strict refuses ambiguous HTTP, which --mode tcp does not read: leave one of both out",
        ));
    }
    let rules = Rules {
        http: args.mode == "http",
        accept_proxy: args.accept_proxy,
        strict: args.strict,
        half_close: args.half_close,
        pool: pool > 0,
        on_gone: args.on_gone,
        request_buffer: args.request_buffer as usize,
        head_timeout: args.head_timeout,
        body_timeout: args.body_timeout,
        keepalive_timeout: args.keepalive_timeout,
        response_timeout: args.response_timeout,
        forwarded: args.forwarded,
        log: args.access_log.is_some(),
        log_query: args.log_query,
    };
    let config = Config {
        rules,
        policy,
        upstreams: Arc::clone(resolver.upstreams()),
        connect_timeout: args.connect_timeout,
        upstream_limit: args.upstream_limit.map_or(usize::MAX, |limit| limit as usize),
        queue_timeout: args.queue_timeout,
        pool: pool.div_ceil(threads),
        retries: args.retries,
        send_timeout: args.send_timeout,
        send_proxy: args.send_proxy,
        on_stall: args.when_events_stall,
        hold: usize::try_from(args.request_memory).unwrap_or(usize::MAX) / threads,
        capacity,
        io,
    };
    let sockets = TrackerConfig { unread: 1, ..TrackerConfig::new(policy, capacity) };
    let setup = Setup {
        listen: &args.listen,
        unix_mode: args.unix_mode,
        threads,
        capacity,
        policy_name: args.policy.as_str(),
        io,
        sockets: &sockets,
        output: &args.output,
        other_files: None,
        drain: args.drain,
        drops: args.when_events_stall == EventsStall::Drop,
        stdout_taken: args.access_log.as_deref() == Some(Path::new("-")),
    };
    let every = args.resolve_every;
    let upstreams = Arc::clone(resolver.upstreams());
    serve(&setup, |supervisor| {
        if resolver.has_names() && !every.is_zero() {
            supervisor.spawn_lasting("names", move || {
                loop {
                    thread::sleep(every);
                    resolver.resolve_again(&is_own);
                }
            })?;
        }
        if let Some((question, every)) = args.check.clone() {
            let checker = Checker { upstreams, question, patience: every, send_proxy: args.send_proxy };
            supervisor.spawn_lasting("checks", move || {
                loop {
                    let next = Instant::now() + every;
                    checker.check_all();
                    sleep_until(next);
                }
            })?;
        }
        let mut proxying = Proxying {
            config,
            upstreams: args.upstream.iter().map(ToString::to_string).collect(),
            access: None,
            outlets: Vec::new().into_iter(),
        };
        if let Some(path) = &args.access_log {
            let (sink, outlets) = access_log(args, path, &setup, supervisor)?;
            (proxying.access, proxying.outlets) = (Some(sink), outlets.into_iter());
        }
        Ok(proxying)
    })
}

/// Opens the access log, with an outlet for each thread.
fn access_log(
    args: &ProxyArgs,
    path: &Path,
    setup: &Setup<'_>,
    supervisor: &Supervisor,
) -> Result<(Sink<AccessStream>, Vec<Outlet<AccessStream>>), ExitError> {
    if args.output.events.as_deref() == Some(path) {
        return Err(ExitError::usage(
            "--access-log and --events name the same output: give each a file of its own, or standard output (-) to one",
        ));
    }
    let mut output =
        if setup.stdout_taken { Output::stdout() } else { Output::file(path) }.map_err(access_failed)?;
    output.drops = setup.drops;
    let (sink, outlets) =
        Sink::spawn(AccessStream, args.access_format, Filter::default(), output, setup.threads)
            .map_err(access_failed)?;
    sink.on_closed(supervisor.sends(StopReason::OutputClosed));
    if setup.stdout_taken {
        supervisor.watch_reader()?;
    }
    sink.announce(NoRecord);
    Ok((sink, outlets))
}

/// The failure of the access log, in words that name its option.
fn access_failed(error: SinkError) -> ExitError {
    match &error {
        SinkError::Open { name, source } | SinkError::Write { name, source } => ExitError::failed(format!(
            "cannot write the access log {name}: {}; name a file that can be written with --access-log",
            describe(source)
        )),
        SinkError::Thread(_) | SinkError::Panicked => ExitError::failed(error),
    }
}

/// How many idle connections to upstreams may be kept.
fn pool_size(wanted: Option<u32>) -> usize {
    let most = || rlimit::raise_nofile().map_or(0, |descriptors| descriptors / 8);
    wanted.map_or_else(|| most().min(limits::POOL) as usize, |wanted| wanted as usize)
}

/// Whether a listener takes what is sent to this upstream.
fn is_same(listen: &Address, upstream: &Address) -> bool {
    let Some((listen, upstream)) = listen.ip().zip(upstream.ip()) else { return listen == upstream };
    // Only an address of this machine can be bound to.
    let own = || UdpSocket::bind((upstream.ip(), 0)).is_ok();
    let takes =
        |ip: IpAddr| ip.is_unspecified() && (ip.is_ipv4() == upstream.is_ipv4() || address::takes_ipv4());
    listen.port() == upstream.port() && (listen.ip() == upstream.ip() || (takes(listen.ip()) && own()))
}

// --- service -----------------------------------------------------------------------------------

/// The proxy as a service.
struct Proxying {
    config: Config,
    upstreams: Vec<String>,
    access: Option<Sink<AccessStream>>,
    /// One for each worker, if there is an access log.
    outlets: IntoIter<Outlet<AccessStream>>,
}

impl Service for Proxying {
    type Stream = ProxyStream;
    type Report = Report;

    fn stream(&self) -> ProxyStream {
        ProxyStream
    }

    fn worker(
        &mut self,
        parts: WorkerParts<ProxyStream>,
    ) -> impl FnOnce() -> Result<Loop<Report>, StartError> + Send + 'static {
        let config = self.config.clone();
        let access = self.outlets.next();
        move || {
            let WorkerParts { listeners, outlet, wakeup, shared } = parts;
            let access = access.map(|mut outlet| {
                let waker = Arc::clone(&wakeup);
                outlet.set_waker(Arc::new(move || waker.wake()));
                Box::new(outlet) as AccessSink
            });
            let relay = Relay::new(config, listeners, shared, wakeup, outlet, access)?;
            Ok(Loop { obtained: relay.obtained().clone(), run: Box::new(|| relay.run()) })
        }
    }

    fn opening(&self, start: Start) -> Listening {
        let Rules { http, half_close, on_gone, .. } = self.config.rules;
        Listening {
            start,
            upstreams: self.upstreams.clone(),
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
            detection_time: self.config.policy.detection_time(),
        }
    }

    fn closing(self, reports: &[Report], life: Life) -> (Closing, u64, Option<String>) {
        let now = Instant::now();
        let mut counts = Counts::default();
        let mut kept = 0;
        for report in reports {
            counts.add(&report.counts);
            kept += report.untold;
        }
        let Life { started, drained, dropped } = life;
        counts.dropped += dropped;
        let mut failure = None;
        if let Some(access) = self.access {
            let dropped = access.count_dropped();
            match access.finish(NoRecord, limits::SHUTDOWN_PATIENCE / 3) {
                Finish::Delivered | Finish::Closed => {}
                Finish::Stuck { undelivered } => {
                    counts.log_dropped += undelivered;
                    failure = Some(format!(
                        "the access log is stuck: {undelivered} lines were not written; let its reader read faster, or \
                         name a file with --access-log"
                    ));
                }
                Finish::Failed { error, .. } => failure = Some(access_failed(error).message),
            }
            counts.log_dropped += dropped();
        }
        (Closing { at: now, uptime: now.since(started), counts, undelivered: kept, drained }, kept, failure)
    }
}
