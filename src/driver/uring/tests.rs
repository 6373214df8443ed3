//! What only who holds the descriptors can do, and what falls into one turn, on the real kernel.

mod edges;
mod turns;
