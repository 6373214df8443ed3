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
//!   engine ──► relay ──► Session (what does this mean?) ──► relay: send, connect, close
//!                          └──► ProxyEvent ──► Line ──► events
//! ```
//!
//! - `session`: decides what bytes and ends mean; pure.
//! - `upstreams`: which upstream is chosen, and which are left out.
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
