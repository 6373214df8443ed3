//! The servers that are compared, and how each is started.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::child::{Child, Line};
use crate::epoll::EpollPlan;
use crate::floor::{FloorPlan, Wake};
use crate::proc;
use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// `deadpeer run`, as it comes
    Lazy,
    /// `deadpeer run --wake beat`
    Beat,
    /// the yardstick
    Epoll,
    /// what lazy mode cannot do without
    FloorLazy,
    /// what beat mode cannot do without
    FloorBeat,
    /// accepts and does nothing
    Hold,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Subject::Lazy => "deadpeer lazy",
            Subject::Beat => "deadpeer beat",
            Subject::Epoll => "epoll + recv",
            Subject::FloorLazy => "floor lazy",
            Subject::FloorBeat => "floor beat",
            Subject::Hold => "accept only",
        }
    }

    /// Reports deaths as events.
    pub fn judges(self) -> bool {
        matches!(self, Subject::Lazy | Subject::Beat | Subject::Epoll)
    }
}

/// What a server may be told beyond its kind.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further arguments of `deadpeer run`.
    pub daemon: Vec<String>,
    /// The yardstick's limit.
    pub idle_ms: Option<u64>,
}

impl Options {
    pub fn daemon(arguments: &[&str]) -> Options {
        Options { daemon: arguments.iter().map(|&argument| argument.into()).collect(), idle_ms: None }
    }
}

/// Where programs run and which daemon is measured.
pub struct Stage {
    pub deadpeer: PathBuf,
    pub server_core: usize,
    pub load_core: usize,
}

/// As long as a start or an orderly end may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub child: Child,
    pub address: SocketAddrV4,
    /// As the server itself says it.
    pub detection_ms: f64,
    /// Descriptors it held before anyone connected.
    descriptors: u64,
}

impl Stage {
    pub fn start(&self, subject: Subject, options: &Options) -> io::Result<Server> {
        let command = match subject {
            Subject::Lazy | Subject::Beat => self.daemon(subject, options),
            Subject::Epoll => {
                role_command("epoll", &EpollPlan { idle_ms: options.idle_ms.unwrap_or(30_000) })?
            }
            Subject::FloorLazy => role_command("floor", &floor_plan(Wake::Lazy))?,
            Subject::FloorBeat => role_command("floor", &floor_plan(Wake::Beat))?,
            Subject::Hold => role_command("floor", &floor_plan(Wake::Hold))?,
        };
        let mut child = Child::start(subject.name(), command, self.server_core)?;
        let listening = child.wait_for("listening", PATIENCE)?;
        let address = listening.text("address").and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| {
            io::Error::other(format!("{} said no address with its 'listening' event", subject.name()))
        })?;
        let detection_ms = listening.number("detection_time_ms").unwrap_or(0.0);
        let descriptors = proc::descriptors(child.pid())?;
        Ok(Server { child, address, detection_ms, descriptors })
    }

    fn daemon(&self, subject: Subject, options: &Options) -> Command {
        let mut command = Command::new(&self.deadpeer);
        command.args(["run", "--listen", "127.0.0.1:0", "--events", "-", "--threads", "1"]);
        if subject == Subject::Beat {
            command.args(["--wake", "beat"]);
        }
        command.args(&options.daemon);
        command
    }

    /// Starts one of our own roles on the load's core.
    pub fn start_role(&self, role: &str, plan: &impl Serialize) -> io::Result<Child> {
        Child::start(role, role_command(role, plan)?, self.load_core)
    }

    pub fn cores(&self) -> [usize; 2] {
        [self.server_core, self.load_core]
    }
}

fn floor_plan(wake: Wake) -> FloorPlan {
    FloorPlan {
        wake,
        unread: 1024,
        inspect_ms: 20_000,
        grain_ms: 20,
        drain_every: 8,
        window_us: 500,
        batch: 256,
    }
}

fn role_command(role: &str, plan: &impl Serialize) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--role", role, "--plan", &serde_json::to_string(plan)?]);
    Ok(command)
}

impl Server {
    /// Waits until the server has accepted them all, whatever it says about them.
    pub fn wait_accepted(&self, connections: usize) -> io::Result<()> {
        let end = sys::now() + 30_000_000_000;
        loop {
            let held = proc::descriptors(self.child.pid())?.saturating_sub(self.descriptors);
            if held >= connections as u64 {
                return Ok(());
            }
            if sys::now() > end {
                return Err(io::Error::other(format!(
                    "the server accepted {held} connections although {connections} clients connected"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The deaths so far.
    pub fn deaths(&mut self) -> io::Result<impl Iterator<Item = &Line>> {
        Ok(self.child.lines()?.iter().filter(|line| line.event == "died"))
    }

    /// Ends the server; returns all its lines, the summary last.
    pub fn end(self) -> io::Result<Vec<Line>> {
        self.child.terminate(PATIENCE)
    }
}
