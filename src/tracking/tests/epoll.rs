//! The tracker's tests on the epoll engine.

use crate::sys::engine::EngineChoice;

const IO: EngineChoice = EngineChoice::Epoll;

#[path = "edges.rs"]
mod edges;
#[path = "rig.rs"]
mod rig;
#[path = "turns.rs"]
mod turns;
