//! The processes of one life: a server and its peers, each on its core.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::subjects::Row;
use crate::bench::child::{Child, Line};
use crate::bench::peers::{Caused, Done, PeersPlan, Phase};
use crate::bench::{machine, nanos, now, proc, role_command};
use crate::sys::process;

/// As long as a start or an orderly end may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// As long as thousands of connects may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// From a command to its first instant.
pub(super) const LEAD_NS: u64 = 200_000_000;

/// Where programs run.
pub(super) struct Stage {
    pub(super) server_cores: Vec<usize>,
    pub(super) load_cores: Vec<usize>,
    pub(super) all_cores: Vec<usize>,
}

impl Stage {
    /// One core for the server, the others for everybody else.
    pub(super) fn here() -> Stage {
        let (server_cores, load_cores) = machine::share_out(1);
        Stage { server_cores, load_cores, all_cores: process::usable_cores() }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.server_cores == self.load_cores
    }

    /// A server for connections that will send so many bytes a second each.
    pub(super) fn start(&self, row: &Row, bytes_per_second: f64) -> io::Result<Server> {
        let mut child = Child::start(row.name, row.command(bytes_per_second)?, &self.server_cores)?;
        let listening = child.wait_for("listening", PATIENCE)?;
        let address = listening.text("address").and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("it said no address when it listened"))?;
        let descriptors = proc::descriptors(child.pid())?;
        Ok(Server { child, address, descriptors })
    }

    /// Connects peers to it and waits until it has accepted them all.
    pub(super) fn connect(&self, server: &Server, plan: &PeersPlan) -> io::Result<Load> {
        let mut child = Child::start("peers", role_command("peers", plan)?, &self.load_cores)?;
        child.wait_for("connected", CONNECT_PATIENCE)?;
        server.wait_held(plan.connections, "accepted")?;
        Ok(Load { child, connections: plan.connections as u64, phases: 0 })
    }

    /// A process of ours on the load's core.
    pub(super) fn start_role(&self, role: &str, plan: &impl serde::Serialize) -> io::Result<Child> {
        Child::start(role, role_command(role, plan)?, &self.load_cores)
    }

    /// The cores whose time is the machine's.
    pub(super) fn cores(&self) -> Vec<usize> {
        let mut cores = [&self.server_cores[..], &self.load_cores].concat();
        cores.sort_unstable();
        cores.dedup();
        cores
    }
}

pub(super) struct Server {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
    /// Descriptors that it held before anyone connected.
    descriptors: u64,
}

impl Server {
    pub(super) fn cpu_ns(&self) -> io::Result<u64> {
        process::cpu_nanos(self.child.pid())
    }

    /// Waits until it holds exactly so many connections, whatever it says about them.
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

    /// The deaths told so far.
    pub(super) fn deaths(&mut self) -> io::Result<impl Iterator<Item = &Line>> {
        Ok(self.child.lines()?.iter().filter(|line| line.event == "died"))
    }

    /// Waits until so many deaths were told in all, and says how many there are in the end.
    pub(super) fn wait_deaths(&mut self, count: usize, patience: Duration) -> io::Result<usize> {
        self.child.wait_count("died", count, patience)
    }

    /// Ends it, and says how long its loop's longest turn was, if it is one that says so.
    pub(super) fn end(self) -> io::Result<Option<u64>> {
        let lines = self.child.terminate(PATIENCE)?;
        let summary = lines.iter().rfind(|line| line.event == "summary");
        let longest = summary.and_then(|line| line.rest.get("loop_turn_us")?.get("max")?.as_u64());
        Ok(longest.map(|micros| micros * 1_000))
    }
}

/// A process of peers.
pub(super) struct Load {
    child: Child,
    connections: u64,
    phases: usize,
}

impl Load {
    /// How many it has made.
    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn begin(&mut self, phase: &Phase) -> io::Result<()> {
        self.phases += 1;
        self.child.tell(phase)
    }

    /// Waits for the end of the phase that was begun, and says what was caused in it.
    pub(super) fn finish_phase(&mut self) -> io::Result<(Vec<Caused>, Done)> {
        if self.child.wait_count("done", self.phases, PATIENCE)? < self.phases {
            return Err(io::Error::other("the peers did not come to an end with their phase"));
        }
        let lines = self.child.lines()?;
        let done = lines.iter().rfind(|line| line.event == "done").expect("it was counted");
        let done = done.parse()?;
        // Those of this phase lie between the last `done` and the one before.
        let before = lines[..lines.len() - 1].iter().rposition(|line| line.event == "done");
        let caused = lines[before.map_or(0, |position| position + 1)..].iter();
        let caused =
            caused.filter(|line| line.event == "caused").map(Line::parse).collect::<io::Result<_>>()?;
        Ok((caused, done))
    }

    /// Resets what stands still, and ends.
    pub(super) fn end(self) -> io::Result<()> {
        self.child.finish(PATIENCE).map(drop)
    }
}
