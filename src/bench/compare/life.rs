//! The state of a comparison while it runs, and the processes of one run: a server and its peers, each on its cores.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::doubts::Doubts;
use super::options::Options;
use super::subjects::Row;
use crate::bench::Observer;
use crate::bench::child::{Child, Line};
use crate::bench::peers::{Caused, Done, PeersPlan, Phase};
use crate::bench::{machine, now, proc, role_command};
use crate::measure::result::{EngineUsed, OutputKind, Run};
use crate::sys::process;
use crate::time::nanos;

/// The longest time of a start or an orderly end on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The longest time of thousands of connects.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// The time from a command to its first instant.
pub(super) const LEAD_NS: u64 = 200_000_000;

/// The state that all parts of a comparison share.
pub(super) struct Bench<'a, 'w> {
    pub(super) options: &'a Options,
    pub(super) stage: Stage,
    pub(super) doubts: Doubts,
    pub(super) observer: &'a mut Observer<'w>,
    pub(super) runs: Vec<Run>,
}

/// The cores, output and engine that subjects run with.
pub(super) struct Stage {
    pub(super) server_cores: Vec<usize>,
    pub(super) load_cores: Vec<usize>,
    pub(super) all_cores: Vec<usize>,
    output: OutputKind,
    /// The engine that is asked for.
    io: String,
    /// The engine that the first deadpeer with `io` said it runs on.
    pub(super) engine: RefCell<Option<EngineUsed>>,
}

impl Stage {
    /// One core for the server, the others for the load and this process.
    pub(super) fn here(options: &Options) -> Stage {
        let (server_cores, load_cores) = machine::share_out(1);
        Stage {
            server_cores,
            load_cores,
            all_cores: process::usable_cores(),
            output: options.settings.output,
            io: options.io.clone(),
            engine: RefCell::new(None),
        }
    }

    /// Starts a server for connections that will send `bytes_per_second` each.
    pub(super) fn start(&self, row: &Row, bytes_per_second: f64) -> io::Result<Server> {
        let command = row.command(bytes_per_second, &self.io)?;
        let mut child = Child::start(row.name, command, &self.server_cores, self.output)?;
        let listening = child.wait_for("listening", PATIENCE)?;
        if row.takes_io() {
            self.engine.replace(listening.engine());
        }
        let address = listening.text("address").and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("its `listening` has no address"))?;
        let descriptors = proc::descriptors(child.pid())?;
        Ok(Server { child, address, descriptors })
    }

    /// Connects peers to a server and waits until it has accepted all of them.
    pub(super) fn connect(&self, server: &Server, plan: &PeersPlan) -> io::Result<Load> {
        let mut child = self.start_role("peers", plan)?;
        child.wait_for("connected", CONNECT_PATIENCE)?;
        server.wait_held(plan.connections, "accepted")?;
        Ok(Load { child, connections: plan.connections as u64, phases: 0 })
    }

    pub(super) fn start_role(&self, role: &str, plan: &impl serde::Serialize) -> io::Result<Child> {
        Child::start(role, role_command(role, plan)?, &self.load_cores, OutputKind::Memory)
    }

    /// The cores that count as the machine.
    pub(super) fn cores(&self) -> Vec<usize> {
        [&self.server_cores[..], &self.load_cores].concat()
    }
}

pub(super) struct Server {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
    /// The number of its descriptors before the first connection.
    descriptors: u64,
}

impl Server {
    pub(super) fn cpu_ns(&self) -> io::Result<u64> {
        process::cpu_nanos(self.child.pid())
    }

    /// Waits until it holds exactly so many connections, by its descriptors.
    pub(super) fn wait_held(&self, connections: usize, what: &str) -> io::Result<()> {
        let end = now() + nanos(PATIENCE);
        loop {
            let held = proc::descriptors(self.child.pid())?.saturating_sub(self.descriptors);
            if held == connections as u64 {
                return Ok(());
            }
            if now() > end {
                return Err(io::Error::other(format!(
                    "it holds {held} connections where {connections} should be {what}"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn deaths(&mut self) -> io::Result<impl Iterator<Item = &Line>> {
        Ok(self.child.lines()?.iter().filter(|line| line.event == "died"))
    }

    /// Waits until it has reported `count` deaths in all, and returns how many there are.
    pub(super) fn wait_deaths(&mut self, count: usize, patience: Duration) -> io::Result<usize> {
        self.child.wait_count("died", count, patience)
    }

    /// Ends it, and returns the longest turn of its loop in nanoseconds; `None` where it does not report that.
    pub(super) fn end(self) -> io::Result<Option<u64>> {
        let lines = self.child.terminate(PATIENCE)?;
        let summary = lines.iter().rfind(|line| line.event == "summary");
        let longest = summary.and_then(|line| line.rest.get("loop_turn_us")?.get("max")?.as_u64());
        Ok(longest.map(|micros| micros * 1_000))
    }
}

pub(super) struct Load {
    pub(super) child: Child,
    pub(super) connections: u64,
    phases: usize,
}

impl Load {
    pub(super) fn begin(&mut self, phase: &Phase) -> io::Result<()> {
        self.phases += 1;
        self.child.tell(phase)
    }

    /// Waits for the end of the current phase, and returns the deaths that were caused in it.
    pub(super) fn finish_phase(&mut self) -> io::Result<(Vec<Caused>, Done)> {
        if self.child.wait_count("done", self.phases, PATIENCE)? < self.phases {
            return Err(io::Error::other("the peers did not finish their phase in time"));
        }
        let lines = self.child.lines()?;
        let done = lines.iter().rfind(|line| line.event == "done").expect("it was counted");
        let done = done.parse()?;
        // The lines of this phase are those between the last `done` and the one before.
        let before = lines[..lines.len() - 1].iter().rposition(|line| line.event == "done");
        let caused = lines[before.map_or(0, |position| position + 1)..].iter();
        let caused =
            caused.filter(|line| line.event == "caused").map(Line::parse).collect::<io::Result<_>>()?;
        Ok((caused, done))
    }

    /// Resets the connections that are left, and ends the process.
    pub(super) fn end(self) -> io::Result<()> {
        self.child.finish(PATIENCE).map(drop)
    }
}
