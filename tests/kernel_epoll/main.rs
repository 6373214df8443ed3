//! The ways to die on a real kernel, as `tests/kernel` has them. The same on epoll, row by row.

use deadpeer::reactor::EngineChoice;

#[path = "../kernel/daemon.rs"]
mod daemon;
#[path = "../kernel/endings.rs"]
mod endings;
#[path = "../kernel/frames.rs"]
mod frames;
#[path = "../kernel/limits.rs"]
mod limits;
#[path = "../kernel/listeners.rs"]
mod listeners;
#[path = "../kernel/path.rs"]
mod path;
#[path = "../kernel/processes.rs"]
mod processes;
#[path = "../kernel/silence.rs"]
mod silence;
#[path = "../kernel/skip.rs"]
mod skip;
#[path = "../kernel/storms.rs"]
mod storms;
#[path = "../kernel/watch.rs"]
mod watch;

const IO: EngineChoice = EngineChoice::Epoll;
const IO_NAME: &str = "epoll";
const HOSTED: bool = false;
