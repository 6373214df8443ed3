//! A process of the measurement: started on its core, read line by line, ended for certain.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{nanos, now};
use crate::sys::process;

/// One JSON line of a child: the daemon's events, or what our own roles report.
#[derive(Debug, Deserialize)]
pub struct Line {
    pub event: String,
    #[serde(default)]
    pub peer: String,
    #[serde(default)]
    pub cause: String,
    #[serde(default)]
    pub mono_ns: u64,
    #[serde(default)]
    pub bytes: u64,
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Line {
    /// The whole line as what it was made from.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> io::Result<T> {
        let mut fields = self.rest.clone();
        fields.insert("peer".into(), self.peer.clone().into());
        fields.insert("bytes".into(), self.bytes.into());
        Ok(serde_json::from_value(serde_json::Value::Object(fields))?)
    }

    pub fn integer(&self, name: &str) -> Option<u64> {
        self.rest.get(name)?.as_u64()
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.rest.get(name)?.as_str()
    }
}

/// How often a child's output is looked at while something is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Killed and reaped when dropped.
pub struct Child {
    name: String,
    process: std::process::Child,
    commands: Option<ChildStdin>,
    output: File,
    errors: File,
    read: u64,
    unfinished: Vec<u8>,
    lines: Vec<Line>,
}

impl Child {
    /// Starts it on these cores; on all of ours when there are none. It must be started by the thread that
    /// lives as long as the experiment: it is killed when that thread ends.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(name: &str, mut command: Command, cores: &[usize]) -> io::Result<Child> {
        let (output, errors) = (process::memory_file(c"output")?, process::memory_file(c"errors")?);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
        process::bind_child(&mut command, cores);
        let mut process = command
            .spawn()
            .map_err(|error| io::Error::other(format!("cannot start {name} ({command:?}): {error}")))?;
        let commands = process.stdin.take();
        let (read, unfinished, lines) = (0, Vec::new(), Vec::new());
        Ok(Child { name: name.into(), process, commands, output, errors, read, unfinished, lines })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends one JSON line to the child's standard input.
    pub fn tell(&mut self, message: &impl Serialize) -> io::Result<()> {
        let pipe = self.commands.as_mut().ok_or_else(|| io::Error::other("standard input is closed"))?;
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        pipe.write_all(&text)
    }

    /// All lines so far.
    pub fn lines(&mut self) -> io::Result<&[Line]> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let taken = self.output.read_at(&mut buffer, self.read)?;
            if taken == 0 {
                break;
            }
            self.read += taken as u64;
            self.unfinished.extend_from_slice(&buffer[..taken]);
        }
        let whole = self.unfinished.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for text in self.unfinished[..whole].split(|&byte| byte == b'\n').filter(|text| !text.is_empty()) {
            let line = serde_json::from_slice(text).map_err(|error| {
                let text = String::from_utf8_lossy(text);
                io::Error::other(format!("{} printed what is no event ({error}): {text}", self.name))
            })?;
            self.lines.push(line);
        }
        self.unfinished.drain(..whole);
        Ok(&self.lines)
    }

    /// Waits for the first line of that event.
    pub fn wait_for(&mut self, event: &str, patience: Duration) -> io::Result<&Line> {
        self.wait_until(&format!("'{event}'"), patience, |lines| {
            lines.iter().any(|line| line.event == event)
        })?;
        let found = self.lines.iter().find(|line| line.event == event);
        Ok(found.expect("the wait ended because it is there"))
    }

    /// Waits until there are `count` lines of that event, and says how many there are in the end:
    /// fewer when patience ran out, which is for the caller to judge.
    pub fn wait_count(&mut self, event: &str, count: usize, patience: Duration) -> io::Result<usize> {
        let counted = |lines: &[Line]| lines.iter().filter(|line| line.event == event).count();
        let end = now() + nanos(patience);
        loop {
            let have = counted(self.lines()?);
            if have >= count || now() > end {
                return Ok(have);
            }
            self.expect_running(event)?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&[Line]) -> bool,
    ) -> io::Result<()> {
        let end = now() + nanos(patience);
        while !holds(self.lines()?) {
            self.expect_running(what)?;
            if now() > end {
                return Err(self.complain(&format!("printed no {what} within {patience:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn expect_running(&mut self, what: &str) -> io::Result<()> {
        match self.process.try_wait()? {
            // It may have printed the line and ended between two looks.
            Some(status) if !self.lines()?.iter().any(|line| what.trim_matches('\'') == line.event) => {
                Err(self.complain(&format!("ended ({status}) without {what}")))
            }
            _ => Ok(()),
        }
    }

    fn complain(&self, what: &str) -> io::Error {
        io::Error::other(format!("{} {what}{}", self.name, self.errors_said()))
    }

    fn errors_said(&self) -> String {
        let mut buffer = vec![0; 4096];
        let taken = self.errors.read_at(&mut buffer, 0).unwrap_or(0);
        match String::from_utf8_lossy(&buffer[..taken]).trim() {
            "" => String::new(),
            text => format!("; it said: {text}"),
        }
    }

    /// Closes the child's standard input, which tells our own roles to end, and waits.
    pub fn finish(mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.commands = None;
        self.wait_end(patience)
    }

    /// Asks the child to end by SIGTERM.
    pub fn ask_to_end(&mut self) -> io::Result<()> {
        if self.process.try_wait()?.is_none() {
            process::signal(self.pid(), libc::SIGTERM);
        }
        Ok(())
    }

    /// Asks the child to end by SIGTERM and returns its last lines.
    pub fn terminate(mut self, patience: Duration) -> io::Result<Vec<Line>> {
        self.ask_to_end()?;
        self.wait_end(patience)?;
        self.lines()?;
        Ok(std::mem::take(&mut self.lines))
    }

    fn wait_end(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        let end = now() + nanos(patience);
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if now() > end {
                return Err(self.complain(&format!("did not end within {patience:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
