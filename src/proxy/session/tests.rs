//! The judgement, told facts by hand and by chance, before a wire that holds it to its contract.

mod conversation;
mod ends;
mod failures;
mod following;
mod halves;
mod hostile;
mod refusals;
mod scripts;
mod world;
