//! A proxy before any HTTP server. It knows within a millisecond when a client has left.
//!
//! # Intuition
//!
//! A server has no reason to look at its connection while its handler works, and cannot see what lies behind bytes that
//! it does not read. A proxy before it can. It follows each exchange just far enough to know whether the client waits,
//! and makes the server notice when that client leaves.
//!
//! # Model
//!
//! ```text
//!   reactor ──► service, reading ──► Session (what does this mean?) ──► session_io: send, connect, close
//!                                           └──► ProxyEvent ──► Line ──► events
//! ```
//!
//! - `service`: the [service](crate::reactor::Service) of one thread's loop, and what time does. `reading`: wake-ups and
//!   bytes.
//! - `session`: decides what bytes and ends mean; pure. `session_io`: carries out what it decides.
//! - `connection`: both sockets of a client and their buffers. `finishing`: the end of a client's.
//!   `idle`: which client is idle for the longest time.
//! - `queue`: clients that wait for a place at an upstream. `pool`: the upstreams' connections that no client uses.
//! - `upstreams`: which upstream is chosen, and which are left out. `names`: the addresses that they have.
//!   `checks`: asks them whether they work.
//! - `event`, `line`: what is reported; `events` writes it. `counts`: what is counted.
//!   `told`: the events that wait for their output.
//! - `access`: the access log, a line for each exchange.
//! - `proxy_protocol`: the header that tells an upstream the address of its client, or tells it to us.

mod access;
mod checks;
mod connection;
mod counts;
mod event;
mod finishing;
mod idle;
mod line;
mod names;
mod pool;
mod proxy_protocol;
mod queue;
mod reading;
mod service;
mod session;
mod session_io;
mod told;
mod upstreams;

pub use crate::http::Forwarded;
pub use access::{AccessLine, AccessSink, By, Logged, LoggedRequest};
pub use checks::{Checker, Question};
pub use counts::{ANSWERS, Counts};
pub use event::{
    Answered, Asked, Failure, Interrupted, Parties, Phase, ProbeOutcome, ProxyEvent, Refusal, UpstreamAction,
    UpstreamFailed,
};
pub use line::{Line, Shown, Sign};
pub use names::{Resolver, Target};
pub use proxy_protocol::{Named, ProxyFault, ProxyHeader, SendProxy};
pub use service::{Config, Proxy, Relay, Report};
pub use session::{
    Context, Effect, Effects, End, HalfClose, HoldBudget, OnGone, Reuse, Rules, Session, SessionFact,
};
pub use told::EventsStall;
pub use upstreams::Upstreams;
