//! Knows which of a server's TCP connections are still alive.

#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cli")]
pub mod doctor;
#[cfg(feature = "cli")]
pub mod events;
mod evidence;
pub mod frame;
#[cfg(feature = "hosted")]
pub mod hosted;
#[cfg(feature = "proxy")]
pub mod http;
pub mod limits;
pub mod liveness;
#[cfg(feature = "tracker")]
pub mod measure;
#[cfg(any(feature = "client", feature = "tracker"))]
mod partial_frame;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "tracker")]
pub mod reactor;
pub mod sys;
pub mod time;
#[cfg(feature = "tracker")]
pub mod tracking;
pub mod watch;
pub mod wheel;

/// The short programs of the document are compiled; the long ones are run by `tests/embedding`.
#[cfg(all(doctest, feature = "hosted"))]
#[doc = include_str!("../docs/EMBEDDING.md")]
struct Embedding;
