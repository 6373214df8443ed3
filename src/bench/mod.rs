//! Experiments: servers, peers that live and die by a plan, and what the servers reported of them.
//!
//! # Intuition
//!
//! A server that measures itself cannot see its own faults. So the server under test, the peers, and the program that
//! compares the planned deaths with the reported ones are processes of their own.
//!
//! # Model
//!
//! - `peers`: a role of this program. It holds connections, beats open-loop, and ends some of them, each at
//!   its planned instant and in its planned [way](crate::measure::result::Way).
//! - `stream`: a role: one peer that sends as fast as it can.
//! - [`experiment`]: all ways to die at once, and the tracker's verdicts on them.
//! - `compare`: deadpeer and the `yardsticks`, one after the other under the same load.
//! - `child`: a process of the experiment. `proc`: figures from /proc of a process and of the machine.
//! - `baseline`: how long the machine takes to report a death without a tracker.
//! - `connections`: many client connections, and the schedule of their beats.
//!
//! # Contract
//!
//! - All instants are CLOCK_MONOTONIC. Latency counts from the *planned* instant; how late the peers
//!   themselves were is recorded separately.
//! - A plan is drawn from a seed: the same seed gives the same deaths of the same connections.
//! - Every wait is bounded, and children end with their parent.

// Hidden modules are for the program alone. They are public because the feature `bench` does not bring the program.
#[doc(hidden)]
pub mod baseline;
mod child;
#[doc(hidden)]
pub mod compare;
mod connections;
#[doc(hidden)]
pub mod doubts;
pub mod experiment;
#[doc(hidden)]
pub mod machine;
mod observer;
mod peers;
mod proc;
mod stream;
mod yardsticks;

use std::io;

pub use observer::{Observer, ROLE_COMMAND, role_command};
use observer::{is_interruption, now};

/// Runs the role `name` with its plan in JSON: commands come on standard input, reports go to standard output.
///
/// # Errors
///
/// When there is no such role, the plan is not one of that role, or a system call fails.
pub fn play(name: &str, plan: &str) -> io::Result<()> {
    match name {
        "peers" => peers::run(&serde_json::from_str(plan)?),
        "stream" => stream::run(&serde_json::from_str(plan)?),
        "epoll" => yardsticks::epoll::run(&serde_json::from_str(plan)?),
        "tokio" => yardsticks::tokio::run(&serde_json::from_str(plan)?),
        "tokio-uring" => yardsticks::tokio::run_on_uring(&serde_json::from_str(plan)?),
        "floor" => yardsticks::floor::run(&serde_json::from_str(plan)?),
        "hold" => yardsticks::epoll::hold(),
        _ => Err(io::Error::other(format!("there is no role `{name}`"))),
    }
}
