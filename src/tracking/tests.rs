//! Ends that only the owner of the descriptors can cause, and what falls into one turn, on the real kernel: on a ring and
//! on epoll.

#[allow(clippy::duplicate_mod)] // the same tests, twice
mod epoll;
#[allow(clippy::duplicate_mod)]
mod uring;
