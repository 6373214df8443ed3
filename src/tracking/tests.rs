//! What only who holds the descriptors can do, and what falls into one turn, on the real kernel: by a ring and by
//! epoll.

#[allow(clippy::duplicate_mod)] // the same tests, twice
mod epoll;
#[allow(clippy::duplicate_mod)]
mod uring;
