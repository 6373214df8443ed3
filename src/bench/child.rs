//! A process of the measurement: started on its core, read line by line, and always ended.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::now;
use crate::measure::result::{EngineUsed, OutputKind};
use crate::sys::process;
use crate::time::nanos;

/// One JSON line of a child: an event of the daemon, or a report of a role.
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
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> io::Result<T> {
        let mut fields = self.rest.clone();
        fields.insert("peer".into(), self.peer.clone().into());
        fields.insert("bytes".into(), self.bytes.into());
        Ok(serde_json::from_value(serde_json::Value::Object(fields))?)
    }

    pub fn integer(&self, name: &str) -> Option<u64> {
        self.rest.get(name)?.as_u64()
    }

    /// The engine, of a deadpeer's `listening`; `None` when it names none.
    pub fn engine(&self) -> Option<EngineUsed> {
        let name = self.text("host").or(self.text("engine"))?.to_owned();
        let features = self.text("features").unwrap_or_default();
        let features = features.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(EngineUsed { name, features, why_not: self.text("why_not").map(str::to_owned) })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.rest.get(name)?.as_str()
    }
}

/// The interval at which a child's output is read during a wait.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running process; killed and reaped when dropped.
pub struct Child {
    name: String,
    process: std::process::Child,
    commands: Option<ChildStdin>,
    output: File,
    /// Copies a pipe to `output`; ends when the child does.
    copier: Option<JoinHandle<()>>,
    errors: File,
    read: u64,
    unfinished: Vec<u8>,
    lines: Vec<Line>,
}

impl Child {
    /// Starts it on these cores; on all of this process when there are none. The thread that starts it must live as long
    /// as the experiment: the kernel kills the child when that thread ends.
    pub fn start(name: &str, mut command: Command, cores: &[usize], kind: OutputKind) -> io::Result<Child> {
        let errors = process::memory_file(c"errors")?;
        let output = match kind {
            OutputKind::Memory | OutputKind::Pipe => process::memory_file(c"output")?,
            OutputKind::File => disk_file()?,
        };
        let (stdout, copier): (Stdio, _) = match kind {
            OutputKind::Memory | OutputKind::File => (output.try_clone()?.into(), None),
            OutputKind::Pipe => {
                let (mut reader, writer) = io::pipe()?;
                let mut copy = output.try_clone()?;
                // A copy that fails leaves lines out, and the wait for them says so.
                let copier = move || drop(io::copy(&mut reader, &mut copy));
                let copier = std::thread::Builder::new().spawn(copier)?;
                (writer.into(), Some(copier))
            }
        };
        command.stdin(Stdio::piped()).stdout(stdout).stderr(errors.try_clone()?);
        process::bind_child(&mut command, cores);
        let mut process = command
            .spawn()
            .map_err(|error| io::Error::other(format!("cannot start {name} ({command:?}): {error}")))?;
        let commands = process.stdin.take();
        let (read, unfinished, lines) = (0, Vec::new(), Vec::new());
        let name = name.into();
        Ok(Child { name, process, commands, output, copier, errors, read, unfinished, lines })
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
                io::Error::other(format!("{} printed a line that is no event ({error}): {text}", self.name))
            })?;
            self.lines.push(line);
        }
        self.unfinished.drain(..whole);
        Ok(&self.lines)
    }

    pub fn wait_for(&mut self, event: &str, patience: Duration) -> io::Result<&Line> {
        if self.wait_count(event, 1, patience)? == 0 {
            return Err(self.complain(&format!("printed no '{event}' within {patience:?}")));
        }
        let found = self.lines.iter().find(|line| line.event == event);
        Ok(found.expect("it was counted"))
    }

    /// Waits until there are `count` lines of that event, and returns how many there are: fewer when `patience` ran out
    /// or the process ended after the first one.
    pub fn wait_count(&mut self, event: &str, count: usize, patience: Duration) -> io::Result<usize> {
        let end = now() + nanos(patience);
        loop {
            // Before the lines are read: a process that ends in between has printed all of them.
            let status = self.ended()?;
            let have = self.lines()?.iter().filter(|line| line.event == event).count();
            match status {
                Some(status) if have == 0 => {
                    return Err(self.complain(&format!("ended ({status}) without '{event}'")));
                }
                None if have < count && now() <= end => std::thread::sleep(LOOK_EVERY),
                _ => return Ok(have),
            }
        }
    }

    /// The exit status of a process that has ended. All its lines can be read then.
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.process.try_wait()?;
        if status.is_some() {
            self.copier.take().map(JoinHandle::join);
        }
        Ok(status)
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

    /// Closes the child's standard input, at which a role ends, and waits for its end.
    pub fn finish(mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.commands = None;
        self.wait_end(patience)
    }

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
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if now() > end {
                return Err(self.complain(&format!("did not end within {patience:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A file on a disk, without a name: the kernel removes it with its last descriptor.
fn disk_file() -> io::Result<File> {
    const FOLDER: &str = "/var/tmp";
    let opened = File::options().read(true).append(true).custom_flags(libc::O_TMPFILE).open(FOLDER);
    opened.map_err(|error| io::Error::new(error.kind(), format!("cannot make a file in {FOLDER}: {error}")))
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
