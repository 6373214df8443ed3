//! `deadpeer run`: the daemon's arguments, its start and its end.
//!
//! Everything that can be refused is refused before the first connection is taken, with a message
//! that names the cause and the cure. Exit codes: 0 after an orderly end, 1 when something failed, 2
//! for wrong arguments, 71 where there is no io_uring, 77 where it is forbidden, 78 for a configuration that this machine
//! cannot carry.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::duration;
use crate::daemon::jsonl::{Closing, Listening, RingTotals};
use crate::daemon::latency_log::LatencyLog;
use crate::daemon::voice::{self, EventVoice, RingOutlet};
use crate::driver::{
    Driver, DriverConfig, EngineChoice, Listener, Locals, Probed, Report, Shared, StartError, bind,
    default_batch_window, probe,
};
use crate::hosted::drive;
use crate::limits;
use crate::liveness::{Heartbeat, Policy, Preset, TrackerConfig, Wake};
use crate::measure::Recorder;
use crate::measure::intervals::Tap;
use crate::sink::{Finish, Format, Output, Sink};
use crate::sys::hangup::wait_for_hangup;
use crate::sys::wakeup::Wakeup;
use crate::sys::{describe, rlimit};
use crate::time::Instant;

/// Arguments of `deadpeer run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where to listen, as `127.0.0.1:7400` or `[::]:7400`; repeat it for more. Port 0 takes a free
    /// one and says which
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", value_parser = address)]
    pub listen: Vec<SocketAddr>,

    /// How long silence may last: standard (a verdict after 32 s) or strict (7 s) [default: standard]
    #[arg(long, value_name = "NAME", help_heading = "Policy")]
    pub policy: Option<PresetName>,

    /// Silence after which a peer is suspected
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub idle: Option<Duration>,

    /// Time between two probes of a suspect
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub interval: Option<Duration>,

    /// Probes that may go unanswered; the verdict comes after idle + probes x interval
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub probes: Option<u32>,

    /// How long a connection may take to speak for the first time
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub handshake: Option<Duration>,

    /// How long a peer that sent its FIN may go on reading; 0: its FIN is its end [default: 0]
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub half_closed_grace: Option<Duration>,

    /// Let the kernel end a connection whose peer does not acknowledge our frames for this long. It
    /// also ends healthy peers that do not read
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub user_timeout: Option<Duration>,

    /// What counts as life: any byte, a complete frame, or only the peer's kernel
    #[arg(long, value_name = "KIND", default_value = "bytes", help_heading = "Heartbeats")]
    pub heartbeat: HeartbeatName,

    /// Let the kernel keep the time (lazy), or notice each beat as it comes (beat)
    #[arg(long, value_name = "MODE", default_value = "lazy", help_heading = "Heartbeats")]
    pub wake: WakeName,

    /// Unread bytes that may lie in a socket before it wakes anyone (lazy). More is cheaper in CPU
    /// and costs kernel memory: about 2 KB a connection at 1024
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, help_heading = "Heartbeats",
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub unread: u32,

    /// Beats that are noticed before their bytes are taken off (beat)
    #[arg(long, value_name = "K", default_value_t = 8, help_heading = "Heartbeats",
          value_parser = clap::value_parser!(u8).range(1..=200))]
    pub drain_every: u8,

    /// On what to wait: the best that there is, a ring, epoll, or a ring within the tokio-uring runtime
    #[arg(long, value_name = "ENGINE", default_value = "auto", help_heading = "Resources")]
    pub io: IoName,

    /// Rings, each with a thread and a listener of its own [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Once there is a completion, how long to wait for others, at most 100ms [default: 0 lazy,
    /// 500us beat]
    #[arg(long, value_name = "D", value_parser = batch_window, help_heading = "Resources")]
    pub batch_window: Option<Duration>,

    /// Connections at once; at the limit new ones wait in the backlog [default: what the limit on
    /// descriptors allows]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: Option<u32>,

    /// Write events as JSON Lines to this file, or to standard output (-)
    #[arg(long, value_name = "-|PATH", help_heading = "Output")]
    pub events: Option<PathBuf>,

    /// Append histograms of each interval to this file, as HdrHistogram's log (.hlog): loop turns, batch sizes,
    /// lateness of deadlines, round trips, time from wake to verdict. A crash loses one interval at most
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub latency_log: Option<PathBuf>,

    /// The length of its intervals, 100ms to 1h
    #[arg(long, value_name = "D", default_value = "10s", requires = "latency_log", help_heading = "Output",
          value_parser = latency_interval)]
    pub latency_interval: Duration,
}

/// The policies with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetName {
    /// A verdict after 32 s of silence
    Standard,
    /// A verdict after 7 s of silence
    Strict,
}

/// What counts as life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HeartbeatName {
    /// Any byte
    Bytes,
    /// A complete heartbeat frame; a suspect is sent a PING
    Frames,
    /// An answer of the peer's kernel: its program may stay quiet
    None,
}

/// How a beat is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WakeName {
    /// The kernel keeps the time, and is asked when a peer could be overdue
    Lazy,
    /// Each beat wakes the tracker
    Beat,
}

/// On what to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IoName {
    /// A ring with all that the kernel has; with less; or epoll, and says why
    Auto,
    /// A ring, or no start
    Uring,
    /// Epoll: the same verdicts, at a higher cost
    Epoll,
    /// A ring that the tokio-uring runtime waits for
    TokioUring,
}

impl IoName {
    const fn choice(self) -> EngineChoice {
        match self {
            IoName::Auto => EngineChoice::Auto,
            IoName::Uring | IoName::TokioUring => EngineChoice::Uring,
            IoName::Epoll => EngineChoice::Epoll,
        }
    }
}

/// Why there is no daemon, with the exit code that says so to scripts.
struct Refusal {
    code: u8,
    message: String,
}

impl Refusal {
    const FAILED: u8 = 1;
    const USAGE: u8 = 2;
    const NO_URING: u8 = 71;
    const FORBIDDEN: u8 = 77;
    const CONFIGURATION: u8 = 78;

    fn new(code: u8, message: impl ToString) -> Refusal {
        Refusal { code, message: message.to_string() }
    }
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Refusal {
        let code = match () {
            () if error.is_forbidden() => Refusal::FORBIDDEN,
            () if error.is_missing() => Refusal::NO_URING,
            () => Refusal::FAILED,
        };
        Refusal::new(code, error)
    }
}

/// Runs `deadpeer run` until SIGTERM, SIGINT or a closed output.
#[must_use]
pub fn run(args: RunArgs) -> ExitCode {
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let _ = writeln!(io::stderr(), "deadpeer run: {}", refusal.message);
            ExitCode::from(refusal.code)
        }
    }
}

fn serve(args: &RunArgs) -> Result<(), Refusal> {
    let (policy, policy_name) = policy(args).map_err(|message| Refusal::new(Refusal::USAGE, message))?;
    let threads = usize::from(args.threads.unwrap_or_else(cores));
    let capacity = capacity(args, threads)?;
    let wake = match args.wake {
        WakeName::Lazy => Wake::Lazy,
        WakeName::Beat => Wake::Beat,
    };
    let tracker = TrackerConfig {
        wake,
        unread: args.unread,
        drain_every: args.drain_every,
        ..TrackerConfig::new(policy, capacity)
    };
    let batch_window = args.batch_window.unwrap_or_else(|| default_batch_window(wake));
    let started = Instant::now();
    probe(args.io.choice()).map_err(|error| {
        let Refusal { code, message } = error.into();
        let meanwhile = args.io != IoName::Epoll && matches!(code, Refusal::NO_URING | Refusal::FORBIDDEN);
        let meanwhile = if meanwhile { "; until then it runs with --io epoll" } else { "" };
        Refusal { code, message: message + meanwhile }
    })?;
    let config = DriverConfig { tracker, batch_window, io: args.io.choice() };
    let shared = Arc::new(Shared::new(capacity));
    let locals = Arc::new(Locals::default());
    let mut listeners: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (number, &address) in args.listen.iter().enumerate() {
        if address.port() != 0 && args.listen[..number].contains(&address) {
            let message = format!("--listen names {address} twice: once is enough");
            return Err(Refusal::new(Refusal::USAGE, message));
        }
        let bound = bind(address, threads, &tracker).map_err(|error| Refusal::new(Refusal::FAILED, error))?;
        addresses.push(bound[0].address());
        for (ring, listener) in listeners.iter_mut().zip(bound) {
            ring.push(listener);
        }
    }

    let (format, output) = output(args);
    let to_stdout = matches!(output, Output::Stdout);
    // Before signals are watched: one that comes while a FIFO waits for its reader ends the program.
    let output = output.opened().map_err(|error| Refusal::new(Refusal::FAILED, error))?;
    let log = args.latency_log.as_ref().map(|path| LatencyLog::start(path, args.latency_interval, threads));
    let (log, taps) = match log.transpose().map_err(|error| Refusal::new(Refusal::FAILED, error))? {
        Some((log, taps)) => (Some(log), taps),
        None => (None, Vec::new()),
    };
    let (tell, told) = mpsc::channel();
    watch_signals(&tell)?;
    let (sink, outlets) = voice::spawn(format, output, threads, Arc::clone(&locals))
        .map_err(|error| Refusal::new(Refusal::FAILED, error))?;
    tell_of_end(&sink, &tell);
    if to_stdout {
        watch_reader(&tell)?;
    }
    let go = Arc::new(Barrier::new(threads + 1));
    let taps = taps.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let outlets = outlets.into_iter().zip(taps).collect();
    let hosted = args.io == IoName::TokioUring;
    let (rings, obtained) = start(&config, hosted, listeners, outlets, &shared, &locals, &tell, &go)?;
    // The first line promises that all is ready, and nothing is told before it.
    sink.announce(listening(&config, policy_name, &addresses, threads, worst(obtained), hosted));
    go.wait();
    let outcome = supervise(rings, &shared, &told);
    finish(sink, log, outcome, started)
}

// --- arguments ---------------------------------------------------------------------------------

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| {
        format!("{}; give an address and a port, as 127.0.0.1:7400 or [::1]:7400", describe(&error))
    })?;
    found.next().ok_or_else(|| format!("`{text}` has no address"))
}

fn batch_window(text: &str) -> Result<Duration, String> {
    let window = duration::parse(text)?;
    let most = limits::MAX_BATCH_WINDOW;
    if window > most {
        return Err(format!("every verdict would wait for it: take at most {}", duration::format(most)));
    }
    Ok(window)
}

fn latency_interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    let allowed = limits::MIN_LATENCY_INTERVAL..=limits::MAX_LATENCY_INTERVAL;
    if !allowed.contains(&interval) {
        let [least, most] = [allowed.start(), allowed.end()].map(|&end| duration::format(end));
        return Err(format!("an interval lasts from {least} to {most}"));
    }
    Ok(interval)
}

fn cores() -> u16 {
    thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(256).min(256))
}

/// The policy that the arguments ask for, and what it is called.
fn policy(args: &RunArgs) -> Result<(Policy, &'static str), String> {
    let preset = args.policy.map(|name| match name {
        PresetName::Standard => Preset::Standard,
        PresetName::Strict => Preset::Strict,
    });
    let custom = args.idle.is_some() || args.interval.is_some() || args.probes.is_some();
    let base = preset.unwrap_or(Preset::Standard).policy();
    let mut policy = Policy {
        heartbeat: match args.heartbeat {
            HeartbeatName::Bytes => Heartbeat::Bytes,
            HeartbeatName::Frames => Heartbeat::Frames,
            HeartbeatName::None => Heartbeat::None,
        },
        idle: args.idle.unwrap_or(base.idle),
        interval: args.interval.unwrap_or(base.interval),
        probes: args.probes.unwrap_or(base.probes),
        handshake: args.handshake.unwrap_or(base.handshake),
        half_closed_grace: args.half_closed_grace.unwrap_or(base.half_closed_grace),
        user_timeout: args.user_timeout,
    };
    if custom && args.handshake.is_none() && preset.is_none() {
        // Whoever sets the pace of the beats has set how long to wait for the first one; no refusal
        // may name a time that nobody gave.
        policy.handshake = policy.detection_time().min(Policy::LONGEST);
    }
    policy.check().map_err(|error| error.to_string())?;
    if let Some(preset) = preset {
        preset.check(&policy).map_err(|error| error.to_string())?;
    }
    let name = if custom { "custom" } else { preset.unwrap_or(Preset::Standard).as_str() };
    Ok((policy, name))
}

/// How many connections there may be: what is asked for, if the limit on descriptors allows it.
fn capacity(args: &RunArgs, threads: usize) -> Result<usize, Refusal> {
    let descriptors = rlimit::raise_nofile().map_err(|error| {
        let error = describe(&error);
        Refusal::new(
            Refusal::FAILED,
            format!(
                "cannot raise the limit on descriptors: {error}; raise it before the start (`ulimit -n`)"
            ),
        )
    })?;
    let own = limits::RESERVED_FDS + (threads * (2 + args.listen.len())) as u64;
    let most = usize::try_from(descriptors.saturating_sub(own)).unwrap_or(usize::MAX).min(limits::MAX_PEERS);
    let wanted = args.max_connections.map(|wanted| wanted as usize);
    if most == 0 {
        return Err(Refusal::new(
            Refusal::CONFIGURATION,
            format!(
                "no connection fits: the hard limit on descriptors is {descriptors}, and {own} are needed for our \
                 own; raise it (`ulimit -Hn`, LimitNOFILE= in a systemd unit) or take fewer --threads"
            ),
        ));
    }
    if let Some(wanted) = wanted.filter(|&wanted| wanted > most) {
        return Err(Refusal::new(
            Refusal::CONFIGURATION,
            format!(
                "{wanted} connections do not fit: the hard limit on descriptors is {descriptors}, less {own} of our \
                 own leaves {most}; raise it (`ulimit -Hn`, LimitNOFILE= in a systemd unit) or take \
                 --max-connections {most}"
            ),
        ));
    }
    let capacity = wanted.unwrap_or(most);
    rlimit::reserve_descriptors((capacity as u64 + own).min(limits::MAX_RESERVED_TABLE));
    Ok(capacity)
}

// --- start -------------------------------------------------------------------------------------

/// What the main thread is told.
enum Told {
    Signal,
    OutputClosed,
    RingEnded,
}

fn watch_signals(tell: &Sender<Told>) -> Result<(), Refusal> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| {
        let error = describe(&error);
        Refusal::new(Refusal::FAILED, format!("cannot watch for signals: {error}; raise `ulimit -n`"))
    })?;
    let tell = tell.clone();
    let watch = move || {
        let mut first = true;
        for signal in signals.forever() {
            if !std::mem::take(&mut first) {
                std::process::exit(128 + signal);
            }
            let _ = tell.send(Told::Signal);
        }
    };
    spawn("signals", watch).map(drop)
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Refusal> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
        Refusal::new(
            Refusal::FAILED,
            format!("cannot start a thread: {}; raise `ulimit -u` (TasksMax=)", describe(&error)),
        )
    })
}

fn listening(
    config: &DriverConfig,
    policy_name: &'static str,
    addresses: &[SocketAddr],
    threads: usize,
    probed: Probed,
    hosted: bool,
) -> Listening {
    let TrackerConfig { policy, capacity, wake, unread, .. } = config.tracker;
    Listening {
        addresses: addresses.to_vec(),
        pid: std::process::id(),
        engine: probed.name,
        host: hosted.then_some("tokio-uring"),
        features: probed.features,
        why_not: probed.why_not,
        threads,
        policy_name,
        policy,
        wake: wake.as_str(),
        unread,
        capacity: capacity as u64,
        batch_window: config.batch_window,
        at: Instant::now(),
    }
}

fn output(args: &RunArgs) -> (Format, Output) {
    match &args.events {
        None => (Format::human_on_stdout(), Output::Stdout),
        Some(path) if path.as_os_str() == "-" => (Format::JsonLines, Output::Stdout),
        Some(path) => (Format::JsonLines, Output::File(path.clone())),
    }
}

fn tell_of_end(sink: &Sink<EventVoice>, tell: &Sender<Told>) {
    let tell = tell.clone();
    sink.on_closed(Arc::new(move || {
        let _ = tell.send(Told::OutputClosed);
    }));
}

/// A reader of standard output that leaves while nothing happens is not met by any write.
fn watch_reader(tell: &Sender<Told>) -> Result<(), Refusal> {
    let tell = tell.clone();
    let watch = move || {
        // After an error the next write will tell.
        if wait_for_hangup(io::stdout().as_fd()).is_ok() {
            let _ = tell.send(Told::OutputClosed);
        }
    };
    spawn("reader", watch).map(drop)
}

/// A ring's thread and how to wake it.
struct RingThread {
    wakeup: Arc<Wakeup>,
    thread: JoinHandle<io::Result<Report>>,
}

/// Makes the rings, each on its thread, where they wait for `go`.
#[allow(clippy::too_many_arguments)]
fn start(
    config: &DriverConfig,
    hosted: bool,
    listeners: Vec<Vec<Listener>>,
    outlets: Vec<(RingOutlet, Option<Tap>)>,
    shared: &Arc<Shared>,
    locals: &Arc<Locals>,
    tell: &Sender<Told>,
    go: &Arc<Barrier>,
) -> Result<(Vec<RingThread>, Vec<Probed>), Refusal> {
    let mut rings = Vec::with_capacity(listeners.len());
    let (ready, started) = mpsc::channel();
    for (number, (listeners, (mut outlet, tap))) in listeners.into_iter().zip(outlets).enumerate() {
        let wakeup = Wakeup::new().map_err(|error| {
            let error = describe(&error);
            Refusal::new(Refusal::FAILED, format!("cannot make an eventfd: {error}; raise `ulimit -n`"))
        })?;
        let wakeup = Arc::new(wakeup);
        let waker = Arc::clone(&wakeup);
        outlet.set_waker(Arc::new(move || waker.wake()));
        let (config, shared, locals) = (*config, Arc::clone(shared), Arc::clone(locals));
        let (ring_wakeup, ready, tell) = (Arc::clone(&wakeup), ready.clone(), tell.clone());
        let go = Arc::clone(go);
        let body = move || {
            let ended = Ended(tell);
            // Before the first line promises anything.
            let runtime = hosted.then(|| tokio_uring::Runtime::new(&tokio_uring::builder())).transpose();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(source) => {
                    let _ = ready.send(Err(StartError::Io { attempted: "start tokio-uring", source }));
                    return Err(io::Error::other("not started"));
                }
            };
            let driver = match Driver::new(config, listeners, shared, locals, ring_wakeup, outlet) {
                Ok(mut driver) => {
                    if let Some(tap) = tap {
                        driver.log_latency(tap);
                    }
                    let _ = ready.send(Ok(driver.obtained().clone()));
                    driver
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return Err(io::Error::other("not started"));
                }
            };
            go.wait();
            let report = match runtime {
                Some(runtime) => runtime.block_on(drive(driver)),
                None => driver.run(),
            };
            drop(ended);
            report
        };
        rings.push(RingThread { wakeup, thread: spawn(&format!("ring-{number}"), body)? });
    }
    drop(ready);
    let mut obtained = Vec::with_capacity(rings.len());
    for _ in 0..rings.len() {
        match started.recv() {
            Ok(Ok(one)) => obtained.push(one),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Refusal::new(Refusal::FAILED, "a ring's thread ended while it started")),
        }
    }
    Ok((rings, obtained))
}

/// What is told of all threads: the worst that one got. Locked memory may run out between two of them.
fn worst(mut obtained: Vec<Probed>) -> Probed {
    let threads = obtained.len();
    let lesser = obtained.iter().filter(|one| one.choice == EngineChoice::Epoll).count();
    let place = obtained.iter().position(|one| one.choice == EngineChoice::Epoll).unwrap_or(0);
    let mut told = obtained.swap_remove(place);
    if (1..threads).contains(&lesser)
        && let Some(why_not) = &mut told.why_not
    {
        *why_not = format!("{lesser} of {threads} threads have no ring: {why_not}");
    }
    told
}

/// Tells the main thread that a ring's thread is over, also when it panicked.
struct Ended(Sender<Told>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(Told::RingEnded);
    }
}

// --- end ---------------------------------------------------------------------------------------

/// What all rings did together.
struct Outcome {
    reports: Vec<Report>,
    failure: Option<String>,
}

/// Waits for the word to end, gives it to all rings, and collects what they did.
fn supervise(rings: Vec<RingThread>, shared: &Shared, told: &Receiver<Told>) -> Outcome {
    let _ = told.recv();
    shared.stop();
    for ring in &rings {
        ring.wakeup.wake();
    }
    let mut outcome = Outcome { reports: Vec::with_capacity(rings.len()), failure: None };
    for ring in rings {
        match ring.thread.join() {
            Ok(Ok(report)) => outcome.reports.push(report),
            Ok(Err(error)) => {
                outcome.failure = Some(format!("a ring failed: {}", describe(&error)));
            }
            Err(_) => outcome.failure = Some("a ring's thread panicked; this is a bug of ours".to_owned()),
        }
    }
    outcome
}

/// What helps against an output that takes nothing.
const TOO_SLOW: &str = "let its reader read faster, or write to a file with --events PATH";

fn finish(
    sink: Sink<EventVoice>,
    log: Option<LatencyLog>,
    outcome: Outcome,
    started: Instant,
) -> Result<(), Refusal> {
    let now = Instant::now();
    let mut recorder = Recorder::new();
    if let Some(log) = log {
        let (logged, stuck) = log.finish(&outcome.reports);
        recorder.merge(&logged);
        if stuck {
            let _ = writeln!(
                io::stderr(),
                "deadpeer run: the latency log's disk is stuck: its last intervals are only in the summary"
            );
        }
    }
    let mut closing = Closing { at: now, uptime: now.since(started), ..Closing::default() };
    for report in &outcome.reports {
        recorder.merge(&report.recorder);
        closing.add(&report.counts);
        closing.stalls += report.stalls;
        closing.undelivered += report.undelivered;
        let RingTotals { enters, submitted, completions, overflows } = &mut closing.ring;
        *enters += report.ring.enters;
        *submitted += report.ring.submitted;
        *completions += report.ring.completions;
        *overflows += report.ring.overflows;
    }
    closing.measures = recorder.summary();
    let kept = closing.undelivered;
    let finish = sink.finish(closing, limits::SHUTDOWN_PATIENCE / 2);
    if let Some(failure) = outcome.failure {
        return Err(Refusal::new(Refusal::FAILED, failure));
    }
    match finish {
        Finish::Closed => Ok(()),
        Finish::Delivered if kept == 0 => Ok(()),
        Finish::Delivered => Err(Refusal::new(
            Refusal::FAILED,
            format!("{kept} events were not taken by the output before the end; {TOO_SLOW}"),
        )),
        Finish::Stuck { undelivered } => Err(Refusal::new(
            Refusal::FAILED,
            format!("the output is stuck: {} events were not delivered; {TOO_SLOW}", undelivered + kept),
        )),
        Finish::Failed { error, .. } => Err(Refusal::new(Refusal::FAILED, error)),
    }
}
