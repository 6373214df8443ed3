//! What the commands that serve have in common: threads, signals, limits, and an orderly end.
//!
//! Exit codes: 0 after an orderly end, 1 when something failed, 2 for wrong arguments, 71 where there is no io_uring, 77
//! where it is forbidden, 78 for a configuration that this machine cannot carry.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::events::sink::{Finish, Format, Output, Sink, Voice};
use crate::limits;
use crate::liveness::TrackerConfig;
use crate::reactor::{EngineChoice, Listener, Probed, Shared, StartError, bind};
use crate::sys::hangup::wait_for_hangup;
use crate::sys::wakeup::Wakeup;
use crate::sys::{describe, rlimit};

/// Why nothing is served, with the exit code that says so to scripts.
pub(super) struct Refusal {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Refusal {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NO_URING: u8 = 71;
    pub(super) const FORBIDDEN: u8 = 77;
    pub(super) const CONFIGURATION: u8 = 78;

    pub(super) fn new(code: u8, message: impl ToString) -> Refusal {
        Refusal { code, message: message.to_string() }
    }

    pub(super) fn failed(error: impl ToString) -> Refusal {
        Refusal::new(Refusal::FAILED, error)
    }

    /// Why there is no engine; with what runs meanwhile, where that is something.
    pub(super) fn of_start(error: StartError, epoll_would: bool) -> Refusal {
        let Refusal { code, message } = error.into();
        let meanwhile = epoll_would && matches!(code, Refusal::NO_URING | Refusal::FORBIDDEN);
        Refusal {
            code,
            message: message + if meanwhile { "; until then it runs with --io epoll" } else { "" },
        }
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

/// Says on standard error why `deadpeer COMMAND` failed, if it did.
pub(super) fn exit(command: &str, outcome: Result<(), Refusal>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let _ = writeln!(io::stderr(), "deadpeer {command}: {}", refusal.message);
            ExitCode::from(refusal.code)
        }
    }
}

// --- arguments ---------------------------------------------------------------------------------

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| {
        format!("{}; give an address and a port, as 127.0.0.1:7400 or [::1]:7400", describe(&error))
    })?;
    found.next().ok_or_else(|| format!("`{text}` has no address"))
}

pub(super) fn cores() -> u16 {
    thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(256).min(256))
}

/// How many connections there may be, each with so many descriptors: what is asked for, if the limit on descriptors
/// allows it beside those of our `own`.
pub(super) fn fitting(wanted: Option<usize>, each: u64, own: usize) -> Result<usize, Refusal> {
    let descriptors = rlimit::raise_nofile().map_err(|error| {
        let error = describe(&error);
        Refusal::failed(format!(
            "cannot raise the limit on descriptors: {error}; raise it before the start (`ulimit -n`)"
        ))
    })?;
    let own = limits::RESERVED_FDS + own as u64;
    let most = descriptors.saturating_sub(own) / each;
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(limits::MAX_PEERS);
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
                "{wanted} connections do not fit: the hard limit on descriptors is {descriptors}, less {own} \
                 of our own leaves {most}; raise it (`ulimit -Hn`, LimitNOFILE= in a systemd unit) or take \
                 --max-connections {most}"
            ),
        ));
    }
    let capacity = wanted.unwrap_or(most);
    rlimit::reserve_descriptors((capacity as u64 * each + own).min(limits::MAX_RESERVED_TABLE));
    Ok(capacity)
}

/// Where to write: for people on standard output, or for programs where `--events` says.
pub(super) fn output(events: Option<&Path>) -> (Format, Output) {
    match events {
        None => (Format::human_on_stdout(), Output::Stdout),
        Some(path) if path.as_os_str() == "-" => (Format::JsonLines, Output::Stdout),
        Some(path) => (Format::JsonLines, Output::File(path.to_owned())),
    }
}

/// Listens on each address once for each thread: the listeners by thread, and the addresses with their ports.
pub(super) fn listen(
    addresses: &[SocketAddr],
    threads: usize,
    config: &TrackerConfig,
) -> Result<(Vec<Vec<Listener>>, Vec<SocketAddr>), Refusal> {
    let mut listeners: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    let mut given = Vec::new();
    for (number, &address) in addresses.iter().enumerate() {
        if address.port() != 0 && addresses[..number].contains(&address) {
            let message = format!("--listen names {address} twice: once is enough");
            return Err(Refusal::new(Refusal::USAGE, message));
        }
        let bound = bind(address, threads, config).map_err(Refusal::failed)?;
        given.push(bound[0].address());
        for (thread, listener) in listeners.iter_mut().zip(bound) {
            thread.push(listener);
        }
    }
    Ok((listeners, given))
}

// --- start -------------------------------------------------------------------------------------

/// What the main thread is told.
pub(super) enum Told {
    Signal,
    OutputClosed,
    ThreadEnded,
}

pub(super) fn watch_signals(tell: &Sender<Told>) -> Result<(), Refusal> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| {
        let error = describe(&error);
        Refusal::failed(format!("cannot watch for signals: {error}; raise `ulimit -n`"))
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

/// A reader of standard output that leaves while nothing happens is not met by any write.
pub(super) fn watch_reader(tell: &Sender<Told>) -> Result<(), Refusal> {
    let tell = tell.clone();
    let watch = move || {
        // After an error the next write will tell.
        if wait_for_hangup(io::stdout().as_fd()).is_ok() {
            let _ = tell.send(Told::OutputClosed);
        }
    };
    spawn("reader", watch).map(drop)
}

pub(super) fn tell_of_end<V: Voice>(sink: &Sink<V>, tell: &Sender<Told>) {
    let tell = tell.clone();
    sink.on_closed(Arc::new(move || {
        let _ = tell.send(Told::OutputClosed);
    }));
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Refusal> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
        Refusal::failed(format!("cannot start a thread: {}; raise `ulimit -u` (TasksMax=)", describe(&error)))
    })
}

pub(super) fn wakeup() -> Result<Arc<Wakeup>, Refusal> {
    Wakeup::new().map(Arc::new).map_err(|error| {
        Refusal::failed(format!("cannot make an eventfd: {}; raise `ulimit -n`", describe(&error)))
    })
}

/// What a thread says once, when it is ready or will never be.
pub(super) type Ready = Sender<Result<Probed, StartError>>;

/// The threads that serve.
pub(super) struct Crew<R> {
    threads: Vec<(Arc<Wakeup>, JoinHandle<io::Result<R>>)>,
    ready: Option<Ready>,
    started: Receiver<Result<Probed, StartError>>,
    tell: Sender<Told>,
}

impl<R: Send + 'static> Crew<R> {
    /// Nobody yet; whoever ends is told of.
    pub(super) fn new(tell: &Sender<Told>) -> Crew<R> {
        let (ready, started) = mpsc::channel();
        Crew { threads: Vec::new(), ready: Some(ready), started, tell: tell.clone() }
    }

    /// Starts one more, which `wakeup` wakes.
    pub(super) fn hire(
        &mut self,
        wakeup: Arc<Wakeup>,
        body: impl FnOnce(Ready) -> io::Result<R> + Send + 'static,
    ) -> Result<(), Refusal> {
        let ended = Ended(self.tell.clone());
        let Some(ready) = self.ready.clone() else { unreachable!() };
        let name = format!("ring-{}", self.threads.len());
        let thread = spawn(&name, move || {
            let _ended = ended;
            body(ready)
        })?;
        self.threads.push((wakeup, thread));
        Ok(())
    }

    /// Waits until all are ready; what they wait on.
    pub(super) fn started(&mut self) -> Result<Vec<Probed>, Refusal> {
        self.ready = None;
        let mut obtained = Vec::with_capacity(self.threads.len());
        for _ in 0..self.threads.len() {
            match self.started.recv() {
                Ok(Ok(one)) => obtained.push(one),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Refusal::failed("a ring's thread ended while it started")),
            }
        }
        Ok(obtained)
    }

    /// Waits for the word to end, gives it to all threads, and collects what they did.
    pub(super) fn supervise(self, shared: &Shared, told: &Receiver<Told>) -> Outcome<R> {
        let _ = told.recv();
        shared.stop();
        for (wakeup, _) in &self.threads {
            wakeup.wake();
        }
        let mut outcome = Outcome { reports: Vec::with_capacity(self.threads.len()), failure: None };
        for (_, thread) in self.threads {
            match thread.join() {
                Ok(Ok(report)) => outcome.reports.push(report),
                Ok(Err(error)) => outcome.failure = Some(format!("a ring failed: {}", describe(&error))),
                Err(_) => {
                    outcome.failure = Some("a ring's thread panicked; this is a bug of ours".to_owned())
                }
            }
        }
        outcome
    }
}

/// Tells the main thread that a ring's thread is over, also when it panicked.
struct Ended(Sender<Told>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(Told::ThreadEnded);
    }
}

/// What is told of all threads: the worst that one got. Locked memory may run out between two of them.
pub(super) fn worst(mut obtained: Vec<Probed>) -> Probed {
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

// --- end ---------------------------------------------------------------------------------------

/// What all threads did together.
pub(super) struct Outcome<R> {
    pub(super) reports: Vec<R>,
    pub(super) failure: Option<String>,
}

/// What helps against an output that takes nothing.
const TOO_SLOW: &str = "let its reader read faster, or write to a file with --events PATH";

/// How it ended; `kept`: events that the sink never took.
pub(super) fn ending(finish: Finish, failure: Option<String>, kept: u64) -> Result<(), Refusal> {
    if let Some(failure) = failure {
        return Err(Refusal::failed(failure));
    }
    match finish {
        Finish::Closed => Ok(()),
        Finish::Delivered if kept == 0 => Ok(()),
        Finish::Delivered => Err(Refusal::failed(format!(
            "{kept} events were not taken by the output before the end; {TOO_SLOW}"
        ))),
        Finish::Stuck { undelivered } => Err(Refusal::failed(format!(
            "the output is stuck: {} events were not delivered; {TOO_SLOW}",
            undelivered + kept
        ))),
        Finish::Failed { error, .. } => Err(Refusal::failed(error)),
    }
}
