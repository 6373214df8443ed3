//! How a command ends: its exit code, and the message on standard error.
//!
//! Exit codes: 0 after an orderly end, 1 when something failed, 2 for wrong arguments, 71 without io_uring, 77 where
//! io_uring is forbidden, 78 for a configuration that exceeds the machine's limits.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::reactor::StartError;
use crate::sys::describe;

/// The reason why a command failed, and its exit code.
#[derive(Debug)]
pub(super) struct ExitError {
    pub(super) code: u8,
    pub(super) message: String,
}

impl ExitError {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NO_URING: u8 = 71;
    pub(super) const FORBIDDEN: u8 = 77;
    pub(super) const CONFIGURATION: u8 = 78;

    pub(super) fn new(code: u8, message: impl ToString) -> ExitError {
        ExitError { code, message: message.to_string() }
    }

    pub(super) fn failed(error: impl ToString) -> ExitError {
        ExitError::new(ExitError::FAILED, error)
    }

    pub(super) fn usage(error: impl ToString) -> ExitError {
        ExitError::new(ExitError::USAGE, error)
    }

    pub(super) fn configuration(error: impl ToString) -> ExitError {
        ExitError::new(ExitError::CONFIGURATION, error)
    }

    /// An engine that could not start. `fallback` says that `--io epoll` is another choice.
    pub(super) fn of_start(error: StartError, fallback: bool) -> ExitError {
        let mut exit = ExitError::from(error);
        if fallback && matches!(exit.code, ExitError::NO_URING | ExitError::FORBIDDEN) {
            exit.message.push_str("; until then it runs with --io epoll");
        }
        exit
    }
}

impl From<StartError> for ExitError {
    fn from(error: StartError) -> ExitError {
        let code = match () {
            () if error.is_forbidden() => ExitError::FORBIDDEN,
            () if error.is_missing() => ExitError::NO_URING,
            () => ExitError::FAILED,
        };
        ExitError::new(code, error)
    }
}

/// Lets a write beyond the limit on file sizes (`ulimit -f`, `LimitFSIZE=`) fail with EFBIG, which is reported. By default
/// SIGXFSZ kills the process without a message.
///
/// # Errors
///
/// When no signal handler can be set.
pub fn survive_file_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Returns the body of a thread that waits for SIGTERM and SIGINT: at each of the first `orderly` ones it calls `stop`, at
/// the next one it ends the process at once.
pub(super) fn watch_signals(
    orderly: usize,
    mut stop: impl FnMut() + Send + 'static,
) -> Result<impl FnOnce() + Send + 'static, ExitError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| {
        let error = describe(&error);
        ExitError::failed(format!("cannot watch for signals: {error}; raise `ulimit -n`"))
    })?;
    Ok(move || {
        let mut signals = signals.forever();
        (&mut signals).take(orderly).for_each(|_| stop());
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal);
        }
    })
}

/// Starts a thread.
pub(super) fn spawn_thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ExitError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
        let error = describe(&error);
        ExitError::failed(format!("cannot start a thread: {error}; raise `ulimit -u` (TasksMax=)"))
    })
}

/// Writes to standard output. A reader that has left wants no more, which is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The message for a thread that ended too early.
pub(super) fn thread_ended(name: &str) -> String {
    format!(
        "the thread `{name}` ended before the program did; a seccomp profile may forbid one of its system calls, \
         otherwise this is a bug: please report it"
    )
}

/// The exit code of `deadpeer COMMAND`. Writes the message of an error to standard error.
pub(super) fn exit(command: &str, outcome: Result<(), ExitError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "deadpeer {command}: {}", error.message);
            ExitCode::from(error.code)
        }
    }
}
