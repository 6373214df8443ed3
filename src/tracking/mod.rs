//! The loop that joins an engine to a tracker: the only place that sees both.
//!
//! A turn, always in this order: wait; read the clock once; reap a batch of completions; decode them
//! into facts and feed them; let the wheel name who is due; perform the tracker's actions; hand its
//! events over; submit everything with the next wait. Nothing is decided inside the reap.
//!
//! [`Driver`] is one thread's loop on its own ring, or on epoll where there is none. What several of them share is in
//! [`Shared`](crate::reactor::Shared): how many connections there may still be, the table of local addresses, and the word
//! to stop.

mod conn;
mod locals;
mod turn;

pub use locals::LocalAddresses;
pub use turn::{AdoptError, Driver, DriverConfig, Report, default_batch_window};
