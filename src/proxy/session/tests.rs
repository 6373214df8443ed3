//! The session is fed with facts by hand and at random, and sockets that hold it to its contract carry out its effects.

mod conversation;
mod draining;
mod ends;
mod failures;
mod following;
mod forwarding;
mod halves;
mod hostile;
mod naming;
mod pooled;
mod refusals;
mod scripts;
mod world;
