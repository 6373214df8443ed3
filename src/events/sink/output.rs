//! Where a sink writes.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::error::SinkError;
use super::writer::Out;

/// Where to write.
pub enum Output {
    /// The standard output of the process.
    Stdout,
    /// A file, created if it does not exist, otherwise appended to. Opening a FIFO waits for its reader.
    File(PathBuf),
    /// An open file, pipe or socket.
    Open {
        /// Its name in messages.
        name: String,
        /// The open file.
        file: File,
    },
    /// Anything else that accepts bytes.
    Writer {
        /// Its name in messages.
        name: String,
        /// Accepts the bytes. Called on the sink's thread only; it may block.
        writer: Box<dyn Write + Send>,
    },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Output {
    /// Its name in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Output::Stdout => "standard output".to_owned(),
            Output::File(path) => path.display().to_string(),
            Output::Open { name, .. } | Output::Writer { name, .. } => name.clone(),
        }
    }

    /// Opens the output now; opening a FIFO waits for its reader.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn opened(self) -> Result<Output, SinkError> {
        let name = self.name();
        let opened = match self {
            // Not `io::stdout`: its buffer by lines would cut one write into many.
            Output::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Output::File(path) => OpenOptions::new().append(true).create(true).open(path),
            Output::Open { .. } | Output::Writer { .. } => return Ok(self),
        };
        match opened {
            Ok(file) => Ok(Output::Open { name, file }),
            Err(source) => Err(SinkError::Open { name, source }),
        }
    }

    pub(super) fn open(self) -> Result<Out, SinkError> {
        match self.opened()? {
            Output::Open { file, .. } => Ok(Out::File(file)),
            Output::Writer { writer, .. } => Ok(Out::Other(writer)),
            Output::Stdout | Output::File(_) => unreachable!("what was opened is open"),
        }
    }
}
