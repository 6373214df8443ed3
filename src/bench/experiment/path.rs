//! A path that can be lost: two network namespaces, joined by a veth pair.
//!
//! The tracker and the peers on loopback run in one, the peers whose path is lost in the other, so the machine's own
//! network is not touched. The names of the namespaces contain the process id. They are removed on drop; those of a
//! process that was killed are removed by the next one.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};

use crate::sys::{describe, process};

/// The tracker's address, and that of the peers at the far end: RFC 2544 reserves them for benchmarks.
pub const OURS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const THEIRS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const PREFIX: &str = "deadpeer-bench-";
const LINK: &str = "dp0";

/// The names of the two namespaces.
#[derive(Debug)]
pub struct Net {
    near: String,
    far: String,
}

impl Net {
    pub fn new() -> Result<Net, String> {
        if !process::is_root() {
            return Err("only root can make network namespaces: run it as root".into());
        }
        remove_leftovers();
        let name = |side: &str| format!("{PREFIX}{}-{side}", std::process::id());
        let net = Net { near: name("near"), far: name("far") };
        let (near, far) = (net.near.as_str(), net.far.as_str());
        ip(&["netns", "add", near])?;
        ip(&["netns", "add", far])?;
        ip(&["-n", near, "link", "add", LINK, "type", "veth", "peer", LINK, "netns", far])?;
        for (namespace, address) in [(near, OURS), (far, THEIRS)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/30"), "dev", LINK])?;
            ip(&["-n", namespace, "link", "set", LINK, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    /// The same program in the tracker's namespace, or at the far end of the path.
    pub fn within(&self, far: bool, command: &Command) -> Command {
        let namespace = if far { &self.far } else { &self.near };
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Cuts the path: every packet is lost, without an error for either end.
    pub fn cut(&self) -> io::Result<()> {
        ip(&["-n", &self.far, "link", "set", LINK, "down"]).map(drop).map_err(io::Error::other)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            // If it fails, the next process removes it.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Removes the namespaces of processes that have ended.
fn remove_leftovers() {
    let Ok(listed) = ip(&["netns", "list"]) else { return };
    for name in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new("ip").args(arguments).output();
    let output =
        output.map_err(|error| format!("cannot run `ip` ({}): install iproute2", describe(&error)))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`ip {}` failed: {}", arguments.join(" "), said.trim()))
}
