//! One start, supervision and end for the commands that serve: `run` and `proxy`.
//!
//! # Model
//!
//! ```text
//!   probe, listen, open the output ─► signals, sink, one worker a thread ─► announce ─► wait for a StopReason
//!                                                                                          │
//!   exit code ◄─ summary, drain the sink ◄─ join the workers ◄─ Shared::stop, wake them ◄──┘
//! ```
//!
//! # Contract
//!
//! - A start that fails is refused before the first connection is accepted.
//! - The first line of the stream is written when all workers are ready, and no event is written before it.
//! - The end of any thread ends the process. An end that was not asked for ends it with a message and exit code 1.
//! - With a [drain](Setup::drain) the first signal lets the workers come to their end, and the next one stops them.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Args;

use super::exit::{ExitError, spawn_thread, thread_ended, watch_signals};
use super::passed::Passed;
use crate::events::encoder::{Encoder, Filter, Format, Stream};
use crate::events::human::Screen;
use crate::events::sink::{Callback, Finish, Outlet, Output, Sink, SinkError};
use crate::events::start::Start;
use crate::limits;
use crate::liveness::TrackerConfig;
use crate::reactor::{
    Address, EngineChoice, Listener, Probed, Shared, StartError, adopt, bind_among, bind_unix, probe,
};
use crate::safe_text::Safe;
use crate::sys::hangup::wait_for_hangup;
use crate::sys::wakeup::Wakeup;
use crate::sys::{describe, rlimit};
use crate::time::Instant;

/// What a command that serves adds to the common start and end.
pub(super) trait Service: Sized {
    type Stream: Stream;
    type Report: Send + 'static;

    /// The events, as an encoder writes them.
    fn stream(&self) -> Self::Stream;

    /// Returns a function that makes a worker's loop. It is called on the worker's thread.
    fn worker(
        &mut self,
        parts: WorkerParts<Self::Stream>,
    ) -> impl FnOnce() -> Result<Loop<Self::Report>, StartError> + Send + 'static;

    /// The first line of the stream.
    fn opening(&self, start: Start) -> <Self::Stream as Stream>::Opening;

    /// The last line of the stream, the number of events that the sink never took, and why an output of the service's own
    /// has failed.
    fn closing(
        self,
        reports: &[Self::Report],
        life: Life,
    ) -> (<Self::Stream as Stream>::Closing, u64, Option<String>);
}

/// The time that a service has run.
pub(super) struct Life {
    /// When the program was started.
    pub(super) started: Instant,
    /// How long its workers drained.
    pub(super) drained: Duration,
    /// Lines that a full disk did not take.
    pub(super) dropped: u64,
}

/// What a worker's loop is made from.
pub(super) struct WorkerParts<S: Stream> {
    pub(super) listeners: Vec<Listener>,
    pub(super) outlet: Outlet<S>,
    pub(super) wakeup: Arc<Wakeup>,
    pub(super) shared: Arc<Shared>,
}

/// A loop that is ready: its engine, and the call that runs it until [`Shared::stop`].
pub(super) struct Loop<R> {
    pub(super) obtained: Probed,
    pub(super) run: Box<dyn FnOnce() -> io::Result<R>>,
}

/// The arguments that `run` and `proxy` share.
pub(super) struct Setup<'a> {
    pub(super) listen: &'a [Address],
    /// The permissions of the Unix sockets among them.
    pub(super) unix_mode: u32,
    pub(super) threads: usize,
    /// Connections over all threads.
    pub(super) capacity: usize,
    pub(super) policy_name: &'static str,
    pub(super) io: EngineChoice,
    /// The options of accepted sockets.
    pub(super) sockets: &'a TrackerConfig,
    pub(super) output: &'a OutputArgs,
    /// Files that are written beside the events, for the message on a terminal.
    pub(super) other_files: Option<&'a Path>,
    /// How long the workers may drain after a signal. Zero: they stop at once.
    pub(super) drain: Duration,
    /// Events that a full disk does not take are dropped and counted. Otherwise they end the program.
    pub(super) drops: bool,
    /// Another stream has standard output, so sentences go to standard error.
    pub(super) stdout_taken: bool,
}

/// Starts a service, supervises it, and ends it in order. `make` starts threads and opens files of the command's own.
pub(super) fn serve<S: Service>(
    setup: &Setup<'_>,
    make: impl FnOnce(&Supervisor) -> Result<S, ExitError>,
) -> Result<(), ExitError> {
    let started = Instant::now();
    let passed = Passed::take()?;
    probe(setup.io).map_err(|error| ExitError::of_start(error, setup.io != EngineChoice::Epoll))?;
    let (listeners, addresses) = listen(setup, passed)?;
    // Before signals are watched: a signal that comes while a FIFO waits for its reader ends the program.
    let (format, to_stdout, output) = setup.output.destination(setup.stdout_taken);
    let mut output = output.map_err(ExitError::failed)?;
    output.drops = setup.drops;
    let supervisor = Supervisor::new();
    let mut service = make(&supervisor)?;
    supervisor.watch_signals(if setup.drain.is_zero() { 1 } else { 2 })?;
    let filter = setup.output.filter::<S::Stream>()?;
    let (sink, outlets) =
        Sink::spawn(service.stream(), format, filter, output, setup.threads).map_err(ExitError::failed)?;
    sink.on_closed(supervisor.sends(StopReason::OutputClosed));
    if to_stdout {
        supervisor.watch_reader()?;
    }
    let shared = Arc::new(Shared::new(setup.capacity));
    let mut workers = Workers::new(setup.threads);
    for (listeners, mut outlet) in listeners.into_iter().zip(outlets) {
        let wakeup = new_wakeup()?;
        let waker = Arc::clone(&wakeup);
        outlet.set_waker(Arc::new(move || waker.wake()));
        let (own, shared) = (Arc::clone(&wakeup), Arc::clone(&shared));
        let make = service.worker(WorkerParts { listeners, outlet, wakeup: own, shared });
        workers.spawn(&supervisor, wakeup, make)?;
    }
    let obtained = least_capable(workers.wait_until_ready()?);
    let opening = service.opening(Start {
        addresses,
        pid: std::process::id(),
        engine: obtained.name,
        features: obtained.features,
        why_not: obtained.why_not,
        threads: setup.threads,
        policy_name: setup.policy_name,
        capacity: setup.capacity,
        at: Instant::now(),
    });
    let mut console = setup.output.console(to_stdout).then(|| {
        let mut console = Encoder::console(service.stream(), sink.counters());
        show(|lines| begin_console(&mut console, &opening, setup, lines));
        console
    });
    sink.announce(opening);
    workers.go();
    let mut reason = supervisor.wait(&mut console, Instant::NEVER);
    let signalled = Instant::now();
    if reason == Some(StopReason::Signal) && !setup.drain.is_zero() {
        workers.drain(&shared);
        reason = supervisor.wait_for_workers(&mut console, setup.threads, signalled + setup.drain);
    }
    let ending = Instant::now();
    let (reports, failure) = workers.stop(&shared);
    let life = Life { started, drained: ending.since(signalled), dropped: sink.dropped() };
    let failure = failure.or_else(|| reason.and_then(|reason| reason.failure()));
    let (closing, kept, own) = service.closing(&reports, life);
    let failure = failure.or(own);
    let patience = limits::SHUTDOWN_PATIENCE.saturating_sub(Instant::now().since(ending));
    end(sink.finish(closing, patience.max(limits::SHUTDOWN_PATIENCE / 6)), failure, kept)
}

// --- arguments ---------------------------------------------------------------------------------

pub(super) fn cores() -> u16 {
    thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(256).min(256))
}

/// The number of connections at once: `wanted`, or as many as the limit on descriptors allows. A connection takes
/// `each` descriptors, and the program `own` for itself.
pub(super) fn capacity_within_limits(wanted: Option<u32>, each: u64, own: usize) -> Result<usize, ExitError> {
    let descriptors = rlimit::raise_nofile().map_err(|error| {
        let error = describe(&error);
        ExitError::failed(format!(
            "cannot raise the limit on descriptors: {error}; raise it before the start (`ulimit -n`)"
        ))
    })?;
    let own = limits::RESERVED_FDS + own as u64;
    let most = descriptors.saturating_sub(own) / each;
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(limits::MAX_PEERS);
    if most == 0 {
        return Err(ExitError::configuration(format!(
            "no connection fits: the hard limit on descriptors is {descriptors}, and {own} are needed for our \
             own; raise it (`ulimit -Hn`, LimitNOFILE= in a systemd unit) or take fewer --threads"
        )));
    }
    let wanted = wanted.map(|wanted| wanted as usize);
    if let Some(wanted) = wanted.filter(|&wanted| wanted > most) {
        return Err(ExitError::configuration(format!(
            "{wanted} connections do not fit: the hard limit on descriptors is {descriptors}, less {own} \
             of our own leaves {most}; raise it (`ulimit -Hn`, LimitNOFILE= in a systemd unit) or take \
             --max-connections {most}"
        )));
    }
    let capacity = wanted.unwrap_or(most);
    rlimit::reserve_descriptors((capacity as u64 * each + own).min(limits::MAX_RESERVED_TABLE));
    Ok(capacity)
}

/// The arguments that say what is written, and where.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Write events as JSON Lines to this file, or to standard output (-)
    #[arg(long, value_name = "-|PATH", help_heading = "Output")]
    pub events: Option<PathBuf>,

    /// Write only the events of these names, as in stall,saturated; repeat it for more. The first line of JSON Lines and the
    /// summary are always written
    #[arg(long, value_name = "EVENT", value_delimiter = ',', help_heading = "Output")]
    pub only: Vec<String>,

    /// Write only problems and the summary: deaths of another cause than closed, twins, interrupted exchanges, failed upstreams, stalls, limits
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

impl OutputArgs {
    /// Without `--events`, sentences for people on standard output; with it, JSON Lines where it says.
    /// Also whether that is standard output.
    fn destination(&self, stdout_taken: bool) -> (Format, bool, Result<Output, SinkError>) {
        match &self.events {
            None if stdout_taken => (Format::human_on(Screen::Stderr), false, Output::stderr()),
            None => (Format::human_on(Screen::Stdout), true, Output::stdout()),
            Some(path) if path.as_os_str() == "-" => (Format::JsonLines, true, Output::stdout()),
            Some(path) => (Format::JsonLines, false, Output::file(path)),
        }
    }

    /// The filter, if every name is one of the service's events.
    fn filter<S: Stream>(&self) -> Result<Filter, ExitError> {
        if let Some(name) = self.only.iter().find(|name| !S::NAMES.contains(&name.as_str())) {
            let names = S::NAMES.join(", ");
            return Err(ExitError::usage(format!("--only names no event `{name}`; the events are {names}")));
        }
        Ok(Filter { only: self.only.clone(), quiet: self.quiet })
    }

    /// Whether a terminal on standard error shows what happens, because the events go to a file.
    fn console(&self, to_stdout: bool) -> bool {
        !to_stdout && self.events.is_some() && !self.quiet && io::stderr().is_terminal()
    }
}

/// The time between two status lines.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// Appends what a terminal on standard error shows first while the events go to a file: where the service listens, and what
/// is written where.
fn begin_console<S: Stream>(
    console: &mut Encoder<S>,
    opening: &S::Opening,
    setup: &Setup<'_>,
    lines: &mut Vec<u8>,
) {
    console.opening(opening, lines);
    let files = [("events go to", setup.output.events.as_deref()), ("histograms go to", setup.other_files)];
    for (what, path) in files {
        if let Some(path) = path {
            lines.extend(format!("{what} {}\n", Safe(&path.to_string_lossy())).bytes());
        }
    }
}

/// Shows what `append` appends. A terminal that is gone is no reason to end: the events go elsewhere.
fn show(append: impl FnOnce(&mut Vec<u8>)) {
    let mut lines = Vec::new();
    append(&mut lines);
    let _ = io::stderr().write_all(&lines);
}

/// Listens on each address once for each thread, or on the socket that was passed for it. Returns the listeners by thread, and the addresses with their ports.
fn listen(setup: &Setup<'_>, mut passed: Passed) -> Result<(Vec<Vec<Listener>>, Vec<Address>), ExitError> {
    let (addresses, threads) = (setup.listen, setup.threads);
    let of_tcp: Vec<_> = addresses.iter().filter_map(Address::ip).collect();
    let mut listeners: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    let mut given = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        if address.ip().is_none_or(|ip| ip.port() != 0) && addresses[..number].contains(address) {
            return Err(ExitError::usage(format!("--listen names {address} twice: once is enough")));
        }
        let bound = match (passed.at(address), address) {
            (Some(socket), _) => adopt(socket, threads, setup.sockets),
            (None, Address::Ip(address)) => bind_among(*address, &of_tcp, threads, setup.sockets),
            (None, Address::Unix(path)) => bind_unix(path, setup.unix_mode, threads),
            (None, Address::Process { .. }) => unreachable!(),
        };
        let bound = bound.map_err(ExitError::failed)?;
        given.push(bound[0].address().clone());
        for (thread, listener) in listeners.iter_mut().zip(bound) {
            thread.push(listener);
        }
    }
    passed.finish()?;
    Ok((listeners, given))
}

// --- supervision -------------------------------------------------------------------------------

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// The reader of the events has gone, or the output failed: the sink knows which.
    OutputClosed,
    /// A worker ended: its result says why.
    WorkerEnded,
    /// A thread ended that runs for as long as the process.
    ThreadEnded(String),
}

impl StopReason {
    /// The message, where the reason itself is a failure.
    fn failure(&self) -> Option<String> {
        match self {
            StopReason::ThreadEnded(name) => Some(thread_ended(name)),
            StopReason::Signal | StopReason::OutputClosed | StopReason::WorkerEnded => None,
        }
    }
}

/// Waits for the first reason to end, and starts threads whose end is such a reason.
pub(super) struct Supervisor {
    send: Sender<StopReason>,
    reasons: Receiver<StopReason>,
}

impl Supervisor {
    fn new() -> Supervisor {
        let (send, reasons) = mpsc::channel();
        Supervisor { send, reasons }
    }

    /// Returns a function that reports `reason`.
    pub(super) fn sends(&self, reason: StopReason) -> Callback {
        let send = self.send.clone();
        Arc::new(move || {
            let _ = send.send(reason.clone());
        })
    }

    /// Waits for the next reason to end, until this time. Meanwhile it keeps the status line of a console.
    fn wait<S: Stream>(&self, console: &mut Option<Encoder<S>>, until: Instant) -> Option<StopReason> {
        loop {
            let left = until.since(Instant::now());
            if let Some(console) = console {
                show(|line| console.status_now(line));
            }
            let pause = if console.is_some() { STATUS_EVERY } else { Duration::MAX };
            // The supervisor holds a sender, so this is either a reason or the time.
            let reason = self.reasons.recv_timeout(left.min(pause)).ok();
            if reason.is_some() || left.is_zero() {
                if let Some(console) = console {
                    show(|line| console.clear_status(line));
                }
                return reason;
            }
        }
    }

    /// Waits until all workers have ended, for another reason, or until this time.
    fn wait_for_workers<S: Stream>(
        &self,
        console: &mut Option<Encoder<S>>,
        workers: usize,
        until: Instant,
    ) -> Option<StopReason> {
        let mut ended = 0;
        loop {
            match self.wait(console, until) {
                Some(StopReason::WorkerEnded) if ended + 1 < workers => ended += 1,
                reason => return reason,
            }
        }
    }

    /// Returns a value that reports, when it is dropped by a thread that panics, that the thread `name` ended.
    pub(super) fn panic_guard(&self, name: &str) -> impl Send + use<> {
        let reason = StopReason::ThreadEnded(name.to_owned());
        Guard { send: self.send.clone(), reason, panics_only: true }
    }

    /// Starts a thread whose end is reported as `reason`.
    fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        reason: StopReason,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, ExitError> {
        let guard = Guard { send: self.send.clone(), reason, panics_only: false };
        let body = move || {
            let _guard = guard;
            body()
        };
        spawn_thread(name, body)
    }

    /// Starts a thread that runs for as long as the process.
    pub(super) fn spawn_lasting(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), ExitError> {
        self.spawn(name, StopReason::ThreadEnded(name.to_owned()), body).map(drop)
    }

    /// Each of the first `orderly` SIGTERM or SIGINT is a reason to end; the next one exits at once.
    fn watch_signals(&self, orderly: usize) -> Result<(), ExitError> {
        let send = self.send.clone();
        let watch = watch_signals(orderly, move || {
            let _ = send.send(StopReason::Signal);
        })?;
        self.spawn_lasting("signals", watch)
    }

    /// Watches for a reader of standard output that goes away while nothing is written.
    pub(super) fn watch_reader(&self) -> Result<(), ExitError> {
        let send = self.send.clone();
        self.spawn_lasting("reader", move || {
            if wait_for_hangup(io::stdout().as_fd()).is_ok() {
                let _ = send.send(StopReason::OutputClosed);
            }
        })
    }
}

/// Reports the end of a thread, also when the thread panicked.
struct Guard {
    send: Sender<StopReason>,
    reason: StopReason,
    panics_only: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.panics_only || thread::panicking() {
            let _ = self.send.send(self.reason.clone());
        }
    }
}

// --- workers -----------------------------------------------------------------------------------

/// The threads that serve.
struct Workers<R> {
    threads: Vec<(Arc<Wakeup>, JoinHandle<io::Result<R>>)>,
    ready: Option<Sender<Result<Probed, StartError>>>,
    started: Receiver<Result<Probed, StartError>>,
    go: Arc<Barrier>,
}

impl<R: Send + 'static> Workers<R> {
    fn new(threads: usize) -> Workers<R> {
        let (ready, started) = mpsc::channel();
        Workers { threads: Vec::new(), ready: Some(ready), started, go: Arc::new(Barrier::new(threads + 1)) }
    }

    /// Starts one worker, which makes its loop and waits for [`Workers::go`]. `wakeup` wakes it.
    fn spawn(
        &mut self,
        supervisor: &Supervisor,
        wakeup: Arc<Wakeup>,
        make: impl FnOnce() -> Result<Loop<R>, StartError> + Send + 'static,
    ) -> Result<(), ExitError> {
        let (ready, go) = (self.ready.clone(), Arc::clone(&self.go));
        let body = move || {
            let (outcome, run) = match make() {
                Ok(Loop { obtained, run }) => (Ok(obtained), Ok(run)),
                Err(error) => (Err(error), Err(io::Error::other("not started"))),
            };
            if let Some(ready) = ready {
                let _ = ready.send(outcome);
            }
            let run = run?;
            go.wait();
            run()
        };
        let name = format!("ring-{}", self.threads.len());
        let thread = supervisor.spawn(&name, StopReason::WorkerEnded, body)?;
        self.threads.push((wakeup, thread));
        Ok(())
    }

    /// Waits until all workers are ready. Returns their engines.
    fn wait_until_ready(&mut self) -> Result<Vec<Probed>, ExitError> {
        self.ready = None;
        let mut obtained = Vec::with_capacity(self.threads.len());
        for _ in 0..self.threads.len() {
            match self.started.recv() {
                Ok(Ok(one)) => obtained.push(one),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(ExitError::failed("a ring's thread ended while it started")),
            }
        }
        Ok(obtained)
    }

    /// Lets the workers run.
    fn go(&self) {
        self.go.wait();
    }

    /// Lets the workers come to their end.
    fn drain(&self, shared: &Shared) {
        shared.drain();
        for (wakeup, _) in &self.threads {
            wakeup.wake();
        }
    }

    /// Stops all workers. Returns their reports, and the failure of the last one that failed.
    fn stop(self, shared: &Shared) -> (Vec<R>, Option<String>) {
        shared.stop();
        for (wakeup, _) in &self.threads {
            wakeup.wake();
        }
        let mut reports = Vec::with_capacity(self.threads.len());
        let mut failure = None;
        for (_, thread) in self.threads {
            match thread.join() {
                Ok(Ok(report)) => reports.push(report),
                Ok(Err(error)) => failure = Some(format!("a ring failed: {}", describe(&error))),
                Err(_) => failure = Some("a ring's thread panicked; this is a bug of ours".to_owned()),
            }
        }
        (reports, failure)
    }
}

fn new_wakeup() -> Result<Arc<Wakeup>, ExitError> {
    Wakeup::new().map(Arc::new).map_err(|error| {
        ExitError::failed(format!("cannot make an eventfd: {}; raise `ulimit -n`", describe(&error)))
    })
}

/// The engine that the first line names: the least capable one that a worker has. Locked memory may run out between
/// two workers.
fn least_capable(mut obtained: Vec<Probed>) -> Probed {
    let threads = obtained.len();
    let without_ring = obtained.iter().filter(|one| one.choice == EngineChoice::Epoll).count();
    let place = obtained.iter().position(|one| one.choice == EngineChoice::Epoll).unwrap_or(0);
    let mut least = obtained.swap_remove(place);
    if (1..threads).contains(&without_ring)
        && let Some(why_not) = &mut least.why_not
    {
        *why_not = format!("{without_ring} of {threads} threads have no ring: {why_not}");
    }
    least
}

// --- end ---------------------------------------------------------------------------------------

/// What helps against an output that accepts no more.
const TOO_SLOW: &str = "let its reader read faster, or write to a file with --events PATH";

/// The result of the whole command. `kept` counts events that the sink never took.
fn end(finish: Finish, failure: Option<String>, kept: u64) -> Result<(), ExitError> {
    if let Some(failure) = failure {
        return Err(ExitError::failed(failure));
    }
    match finish {
        Finish::Closed => Ok(()),
        Finish::Delivered if kept == 0 => Ok(()),
        Finish::Delivered => Err(ExitError::failed(format!(
            "{kept} events were not taken by the output before the end; {TOO_SLOW}"
        ))),
        Finish::Stuck { undelivered } => Err(ExitError::failed(format!(
            "the output is stuck: {} events were not delivered; {TOO_SLOW}",
            undelivered + kept
        ))),
        Finish::Failed { error, .. } => Err(ExitError::failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::proxy::ProxyStream;

    #[test]
    fn a_thread_that_panics_or_returns_is_a_reason_to_end() {
        for body in [(|| panic!("for the test")) as fn(), || {}] {
            let supervisor = Supervisor::new();
            supervisor.spawn_lasting("signals", body).unwrap();
            let reason = supervisor.wait::<ProxyStream>(&mut None, Instant::NEVER).unwrap();
            assert_eq!(reason, StopReason::ThreadEnded("signals".to_owned()));
            assert!(reason.failure().unwrap().contains("`signals` ended"));
        }
    }

    #[test]
    fn a_guarded_thread_may_return_but_not_panic() {
        let supervisor = Supervisor::new();
        let (returns, panics) = (supervisor.panic_guard("returns"), supervisor.panic_guard("panics"));
        thread::spawn(move || drop(returns)).join().unwrap();
        let panicking = thread::spawn(move || {
            let _guard = panics;
            panic!("for the test");
        });
        panicking.join().unwrap_err();
        let reason = supervisor.wait::<ProxyStream>(&mut None, Instant::NEVER);
        assert_eq!(reason, Some(StopReason::ThreadEnded("panics".to_owned())));
    }
}
