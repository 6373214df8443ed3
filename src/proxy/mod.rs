//! A proxy before any HTTP server that knows within a millisecond when a client has left.
//!
//! # Intuition
//!
//! A server whose handler works has no reason to look at its connection, and cannot see what lies behind bytes that
//! it does not read. Whoever stands before it can: it has nothing else to do. It follows each exchange just far
//! enough to know whether somebody waits, and when that one leaves, it makes the server notice.
//!
//! # Model
//!
//! ```text
//!   engine ──► relay ──► Session (what does this mean?) ──► relay: send, connect, close
//!                          └──► ProxyEvent ──► Line ──► events
//! ```
//!
//! - `session`: the judgement, pure.
//! - `upstreams`: who works, and who is left out.
//! - `relay`: one thread's loop: sockets, buffers, time.
//! - `event`, `line`: what is told; `events` writes it.

mod event;
mod line;
mod relay;
mod session;
mod upstreams;

pub use event::{
    Failure, Interrupted, Parties, Phase, ProbeOutcome, ProxyEvent, UpstreamAction, UpstreamFailed,
};
pub use line::{Line, Shown};
pub use relay::{Config, Counts, Relay, Report, SendProxy};
pub use session::{
    Context, Effect, Effects, End, HalfClose, HoldBudget, OnGone, Rules, Session, SessionFact,
};
pub use upstreams::Upstreams;
