//! Where a sink writes, and how that ends.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use crate::sys::describe;

/// Where to write, and its name in messages.
pub struct Output {
    pub(super) name: String,
    pub(super) out: Out,
    /// Whether lines that a full disk does not take are dropped and counted, and an `events_dropped` is written when there is
    /// room again. Otherwise the sink closes.
    pub drops: bool,
}

/// Where the bytes go.
pub(super) enum Out {
    File(File),
    Other(Box<dyn Write + Send>),
}

impl Out {
    pub(super) fn writer(&mut self) -> &mut dyn Write {
        match self {
            Out::File(file) => file,
            Out::Other(other) => other,
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Output {
    /// The standard output of the process.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be duplicated.
    pub fn stdout() -> Result<Output, SinkError> {
        // Not `io::stdout`: its buffer by lines would cut one write into many.
        let file = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        Output::opened("standard output".to_owned(), file)
    }

    /// The standard error of the process.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be duplicated.
    pub fn stderr() -> Result<Output, SinkError> {
        let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        Output::opened("standard error".to_owned(), file)
    }

    /// A file, created if it does not exist, otherwise appended to. Opening a FIFO waits for its reader.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn file(path: &Path) -> Result<Output, SinkError> {
        Output::opened(path.display().to_string(), OpenOptions::new().append(true).create(true).open(path))
    }

    fn opened(name: String, file: io::Result<File>) -> Result<Output, SinkError> {
        match file {
            Ok(file) => Ok(Output::open(name, file)),
            Err(source) => Err(SinkError::Open { name, source }),
        }
    }

    /// An open file, pipe or socket.
    pub fn open(name: impl Into<String>, file: File) -> Output {
        Output { name: name.into(), out: Out::File(file), drops: false }
    }

    /// Anything else that accepts bytes. It is called on the sink's thread only, and may block.
    pub fn writer(name: impl Into<String>, writer: impl Write + Send + 'static) -> Output {
        Output { name: name.into(), out: Out::Other(Box::new(writer)), drops: false }
    }
}

/// Why a sink could not start, or stopped.
#[derive(Debug)]
pub enum SinkError {
    /// The output could not be opened.
    Open {
        /// The output's name.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A write to the output failed.
    Write {
        /// The output's name.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The thread could not be started.
    Thread(io::Error),
    /// The thread panicked: a bug.
    Panicked,
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SinkError::Open { source, .. } | SinkError::Write { source, .. } => Some(source),
            SinkError::Thread(source) => Some(source),
            SinkError::Panicked => None,
        }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Open { name, source } => {
                write!(f, "cannot open {name} for events: {}; {}", describe(source), cure(source.kind()))
            }
            SinkError::Write { name, source } => {
                write!(f, "cannot write events to {name}: {}; {}", describe(source), cure(source.kind()))
            }
            SinkError::Thread(source) => write!(
                f,
                "cannot start the thread that writes events: {}; raise the limit on threads (ulimit -u, \
                 TasksMax= in a unit) or free memory",
                describe(source)
            ),
            SinkError::Panicked => {
                f.write_str("the thread that writes events panicked; this is a bug: please report it")
            }
        }
    }
}

fn cure(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind;
    match kind {
        ErrorKind::NotFound => "create its directory first, or name another path with --events",
        ErrorKind::PermissionDenied => {
            "allow this user to write there, or name another path with --events (--events - is standard output)"
        }
        ErrorKind::IsADirectory => "name a file in it with --events",
        ErrorKind::ReadOnlyFilesystem => "name a path on a writable file system with --events",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space there, or name a path on another disk with --events"
        }
        ErrorKind::FileTooLarge => "rotate the file, or raise the limit on file sizes (ulimit -f)",
        _ => "name another path with --events (--events - is standard output)",
    }
}

/// How a sink ended.
#[derive(Debug)]
pub enum Finish {
    /// All events and the last line are written.
    Delivered,
    /// The reader of the output had gone.
    Closed,
    /// The output accepts nothing. The sink's thread is left behind, and ends with the program.
    Stuck {
        /// Events that were accepted and not written.
        undelivered: u64,
    },
    /// The output had failed.
    Failed {
        /// The error, with its cure.
        error: SinkError,
        /// Events that were accepted and not written.
        undelivered: u64,
    },
}
