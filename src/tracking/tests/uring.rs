//! On a ring.

use crate::sys::engine::EngineChoice;

const IO: EngineChoice = EngineChoice::Uring;

#[path = "edges.rs"]
mod edges;
#[path = "turns.rs"]
mod turns;
