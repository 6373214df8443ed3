//! On a ring.

use crate::sys::engine::EngineChoice;

const IO: EngineChoice = EngineChoice::Uring;

#[path = "edges.rs"]
mod edges;
#[path = "rig.rs"]
mod rig;
#[path = "turns.rs"]
mod turns;
