//! `deadpeer run`: its arguments, and the tracker as a service.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use clap::Args;

use crate::cli::address;
use crate::cli::bytes;
use crate::cli::duration;
use crate::cli::exit::{ExitError, exit};
use crate::cli::io::Io;
use crate::cli::latency_log::LatencyLog;
use crate::cli::serve::{
    Life, Loop, OutputArgs, Service, Setup, WorkerParts, capacity_within_limits, cores, serve,
};
use crate::cli::values::{DUPLICATES, HEARTBEATS, POLICIES, WAKES, one_of};
use crate::events::start::Start;
use crate::events::tracker::{Closing, Listening, TrackerStream};
use crate::hosted::drive;
use crate::limits;
use crate::liveness::{Heartbeat, OnDuplicate, Policy, Preset, TrackerConfig, Wake};
use crate::measure::Recorder;
use crate::measure::intervals::IntervalSender;
use crate::reactor::{Address, StartError};
use crate::time::Instant;
use crate::tracking::{Driver, DriverConfig, LocalAddresses, Report, default_batch_window};

/// Arguments of `deadpeer run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Address to listen on, as 127.0.0.1:7400, `[::]:7400`, or :7400 for every address of this machine; repeat it for
    /// more. With port 0 the kernel chooses a free port, which the first line names. A
    /// socket that the service manager passes for it (LISTEN_FDS) is taken instead
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", value_parser = address::to_listen_by_tcp)]
    pub listen: Vec<Address>,

    /// How long a peer may be silent: standard (a verdict after 32 s) or strict (after 7 s) [default: standard]
    #[arg(long, value_name = "NAME", value_parser = one_of(&POLICIES), help_heading = "Policy")]
    pub policy: Option<Preset>,

    /// Silence after which a peer is suspected and probed
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub idle: Option<Duration>,

    /// Time between two probes of a suspect
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub interval: Option<Duration>,

    /// Number of unanswered probes before the verdict, which comes after idle + probes x interval of silence
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub probes: Option<u32>,

    /// Time that a new connection has to send its first bytes
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub handshake: Option<Duration>,

    /// Time that a peer may go on reading after its FIN; with 0 its FIN ends the connection [default: 0]
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub half_closed_grace: Option<Duration>,

    /// Let the kernel end a connection whose peer has not acknowledged our frames for this long
    /// (TCP_USER_TIMEOUT). It also ends healthy peers that do not read
    #[arg(long, value_name = "D", value_parser = duration::parse, help_heading = "Policy")]
    pub user_timeout: Option<Duration>,

    /// What counts as a sign of life
    #[arg(long, value_name = "KIND", default_value = "bytes", value_parser = one_of(&HEARTBEATS),
          help_heading = "Heartbeats")]
    pub heartbeat: Heartbeat,

    /// What happens to a living peer when a newer connection of the same thread gives its identity (frames). Both ways a
    /// `duplicate` event names the two
    #[arg(long, value_name = "WAY", default_value = "keep", value_parser = one_of(&DUPLICATES),
          help_heading = "Heartbeats")]
    pub on_duplicate: OnDuplicate,

    /// When a beat is noticed
    #[arg(long, value_name = "MODE", default_value = "lazy", value_parser = one_of(&WAKES),
          help_heading = "Heartbeats")]
    pub wake: Wake,

    /// Number of unread bytes in a socket that wake its thread (lazy). More bytes cost less CPU and more kernel memory:
    /// about 2 KB a connection at 1024
    #[arg(long, value_name = "BYTES", default_value = "1024", help_heading = "Heartbeats",
          value_parser = bytes::within(1_u32, 1_048_576))]
    pub unread: u32,

    /// Number of beats that are noticed before their bytes are read (beat)
    #[arg(long, value_name = "K", default_value_t = 8, help_heading = "Heartbeats",
          value_parser = clap::value_parser!(u8).range(1..=200))]
    pub drain_every: u8,

    /// What the event loop waits on
    #[arg(long, value_name = "ENGINE", default_value = "auto", help_heading = "Resources")]
    pub io: Io,

    /// Number of threads, each with its own ring and listener [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Time to wait for more completions after the first one, at most 100ms [default: 0 lazy, 500us beat]
    #[arg(long, value_name = "D", value_parser = batch_window, help_heading = "Resources")]
    pub batch_window: Option<Duration>,

    /// Number of connections at once; at the limit new ones wait in the backlog [default: as many as the limit on
    /// descriptors allows]
    #[arg(long, value_name = "N", help_heading = "Resources",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: Option<u32>,

    #[command(flatten)]
    /// What is written, and where.
    pub output: OutputArgs,

    /// Append histograms of each interval to this file, in the format of HdrHistogram's log (.hlog): loop turns, batch
    /// sizes, lateness of deadlines, round trips, time from wake to verdict. A crash loses at most one interval
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub latency_log: Option<PathBuf>,

    /// Length of an interval of the latency log, from 100ms to 1h
    #[arg(long, value_name = "D", default_value = "10s", requires = "latency_log", help_heading = "Output",
          value_parser = latency_interval)]
    pub latency_interval: Duration,
}

/// Runs `deadpeer run` until SIGTERM, SIGINT or a closed output.
#[must_use]
pub fn run(args: RunArgs) -> ExitCode {
    exit("run", track(&args))
}

fn track(args: &RunArgs) -> Result<(), ExitError> {
    let (policy, policy_name) = policy(args).map_err(ExitError::usage)?;
    let threads = usize::from(args.threads.unwrap_or_else(cores));
    let capacity = capacity_within_limits(args.max_connections, 1, threads * (2 + args.listen.len()))?;
    let sockets = TrackerConfig {
        wake: args.wake,
        unread: args.unread,
        drain_every: args.drain_every,
        on_duplicate: args.on_duplicate,
        ..TrackerConfig::new(policy, capacity)
    };
    let batch_window = args.batch_window.unwrap_or_else(|| default_batch_window(args.wake));
    let io = args.io.choice();
    let setup = Setup {
        listen: &args.listen,
        unix_mode: 0,
        threads,
        capacity,
        policy_name,
        io,
        sockets: &sockets,
        output: &args.output,
        other_files: args.latency_log.as_deref(),
        drain: Duration::ZERO,
        drops: false,
        stdout_taken: false,
    };
    serve(&setup, |supervisor| {
        let mut tracking = Tracking {
            config: DriverConfig { tracker: sockets, batch_window, io },
            hosted: args.io == Io::TokioUring,
            locals: Arc::default(),
            log: None,
            taps: Vec::new().into_iter(),
        };
        if let Some(path) = &args.latency_log {
            let guard = supervisor.panic_guard("latency-log");
            let (log, taps) = LatencyLog::start(path, args.latency_interval, threads, guard)?;
            (tracking.log, tracking.taps) = (Some(log), taps.into_iter());
        }
        Ok(tracking)
    })
}

// --- arguments ---------------------------------------------------------------------------------

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

/// The policy that the arguments ask for, and what it is called.
fn policy(args: &RunArgs) -> Result<(Policy, &'static str), String> {
    let preset = args.policy;
    let custom = args.idle.is_some() || args.interval.is_some() || args.probes.is_some();
    let base = preset.unwrap_or(Preset::Standard).policy();
    let mut policy = Policy {
        heartbeat: args.heartbeat,
        idle: args.idle.unwrap_or(base.idle),
        interval: args.interval.unwrap_or(base.interval),
        probes: args.probes.unwrap_or(base.probes),
        handshake: args.handshake.unwrap_or(base.handshake),
        half_closed_grace: args.half_closed_grace.unwrap_or(base.half_closed_grace),
        user_timeout: args.user_timeout,
    };
    if custom && args.handshake.is_none() && preset.is_none() {
        // The time of the beats is also the time of the first one; a refusal must not name a time that the user did
        // not give.
        policy.handshake = policy.detection_time().min(Policy::LONGEST);
    }
    policy.check().map_err(|error| error.to_string())?;
    if let Some(preset) = preset {
        preset.check(&policy).map_err(|error| error.to_string())?;
    }
    let name = if custom { "custom" } else { preset.unwrap_or(Preset::Standard).as_str() };
    Ok((policy, name))
}

// --- service -----------------------------------------------------------------------------------

/// The tracker as a service.
struct Tracking {
    config: DriverConfig,
    /// Whether the tokio-uring runtime waits for the ring.
    hosted: bool,
    locals: Arc<LocalAddresses>,
    log: Option<LatencyLog>,
    /// One for each worker, if there is a latency log.
    taps: IntoIter<IntervalSender>,
}

impl Service for Tracking {
    type Stream = TrackerStream;
    type Report = Report;

    fn stream(&self) -> TrackerStream {
        TrackerStream::new(Arc::clone(&self.locals))
    }

    fn worker(
        &mut self,
        parts: WorkerParts<TrackerStream>,
    ) -> impl FnOnce() -> Result<Loop<Report>, StartError> + Send + 'static {
        let (config, hosted, tap) = (self.config, self.hosted, self.taps.next());
        let locals = Arc::clone(&self.locals);
        move || {
            let runtime = hosted.then(|| tokio_uring::Runtime::new(&tokio_uring::builder())).transpose();
            let runtime =
                runtime.map_err(|source| StartError::Io { attempted: "start tokio-uring", source })?;
            let WorkerParts { listeners, outlet, wakeup, shared } = parts;
            let mut driver = Driver::new(config, listeners, shared, locals, wakeup, outlet)?;
            if let Some(tap) = tap {
                driver.log_latency(tap);
            }
            Ok(Loop {
                obtained: driver.obtained().clone(),
                run: Box::new(move || match runtime {
                    Some(runtime) => runtime.block_on(drive(driver)),
                    None => driver.run(),
                }),
            })
        }
    }

    fn opening(&self, start: Start) -> Listening {
        let TrackerConfig { policy, wake, unread, .. } = self.config.tracker;
        Listening {
            start,
            host: self.hosted.then_some("tokio-uring"),
            policy,
            wake: wake.as_str(),
            unread,
            batch_window: self.config.batch_window,
        }
    }

    fn closing(self, reports: &[Report], life: Life) -> (Closing, u64, Option<String>) {
        let now = Instant::now();
        let mut recorder = Recorder::new();
        if let Some(log) = self.log {
            let (logged, stuck) = log.finish(reports);
            recorder.merge(&logged);
            if stuck {
                let _ = writeln!(
                    io::stderr(),
                    "deadpeer run: the latency log's disk is stuck: its last intervals are only in the summary"
                );
            }
        }
        let mut closing = Closing { at: now, uptime: now.since(life.started), ..Closing::default() };
        for report in reports {
            recorder.merge(&report.recorder);
            closing.add(&report.counts);
            closing.stalls += report.stalls;
            closing.undelivered += report.undelivered;
            closing.ring.enters += report.ring.enters;
            closing.ring.submitted += report.ring.submitted;
            closing.ring.completions += report.ring.completions;
            closing.ring.overflows += report.ring.overflows;
        }
        closing.measures = recorder.summary();
        let kept = closing.undelivered;
        (closing, kept, None)
    }
}
