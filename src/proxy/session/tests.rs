//! The judgement, told facts by hand and by chance, before a wire that holds it to its contract.

mod ends;
mod failures;
mod following;
mod halves;
mod refusals;
mod world;
