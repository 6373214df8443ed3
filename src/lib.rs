//! Knows which of a server's TCP connections are still alive: at once when a peer closes or resets, and after a time
//! that you choose when it falls silent, with the cause and the proof.
//!
//! # The model
//!
//! **The end of a connection comes by itself; silence is looked for.** The kernel reports a FIN, a RST or an error at
//! once, if the socket is watched: by epoll, or by a poll in an io_uring. Nothing reports silence, so each connection
//! has one appointment, at the first instant at which its peer *could* be overdue. Then its `TCP_INFO` is read: when its
//! last byte and its last acknowledgement came, and what is unanswered. The connection is put off to its real deadline,
//! suspected, or judged. A connection whose peer speaks in time costs one look for each detection time, and nothing for
//! each byte.
//!
//! Everything is judged by a [`Policy`]: whether a program's bytes or only its kernel's answers count as life, and how
//! long silence may last. A verdict names its [`Cause`] and carries its [`Proof`].
//!
//! The judgement is pure. [`Fact`]s go into a [`Tracker`], [`Action`]s and [`Event`]s come out, and the time is an
//! argument. The loops around it differ:
//!
//! | take | when |
//! |---|---|
//! | [`Watcher`] | your program reads and writes the sockets itself: it is told when a peer is gone |
//! | [`hosted`] | peers only send heartbeats, and your program has a runtime on one thread |
//! | the program `deadpeer run` | peers only send heartbeats, and events as JSON Lines suit you |
//! | [`Tracker`] | you have a loop of your own, or a simulation |
//!
//! # A socket that is watched
//!
//! ```
//! use deadpeer::{Cause, Policy, Verdict, Watcher, WatcherConfig};
//! use std::net::{TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let client = TcpStream::connect(listener.local_addr()?)?;
//! let (stream, _) = listener.accept()?;
//!
//! let watcher = Watcher::start(WatcherConfig::default())?; // one for the whole program
//! let stream = watcher.watch(stream, Policy::STANDARD.transport_only())?; // is the stream, as before
//! assert_eq!(stream.state(), Verdict::Here);
//! drop(client);
//! assert_eq!(stream.wait_gone(), Verdict::Gone(Cause::Closed)); // or `stream.gone().await`
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A judgement without a kernel
//!
//! ```
//! use deadpeer::{Action, EventKind, Evidence, Fact, Instant, Policy, Tracker, TrackerConfig};
//!
//! let mut now = Instant::from_nanos(1);
//! let mut tracker = Tracker::new(TrackerConfig::new(Policy::STRICT, 100), now);
//! let peer = tracker.accept("192.0.2.7:50000".parse().unwrap(), 0, now).unwrap();
//! let death = loop {
//!     match tracker.poll_action() {
//!         // The peer never spoke. A loop reads `TCP_INFO` here.
//!         Some(Action::Inspect(peer)) => {
//!             tracker.handle(peer, Fact::Inspected(Evidence::default()), now);
//!         }
//!         Some(_) => {}
//!         None => match tracker.poll_event().map(|event| event.kind) {
//!             Some(EventKind::Died(death)) => break death,
//!             Some(_) => {}
//!             None => {
//!                 now = tracker.next_due().unwrap();
//!                 tracker.handle_time(now);
//!             }
//!         },
//!     }
//! };
//! assert_eq!((death.peer, death.cause.as_str()), (peer, "handshake_expired"));
//! ```
//!
//! # Modules
//!
//! - [`watch`]: sockets that the program reads and writes itself;
//! - [`liveness`]: the judgement, its facts, causes and events;
//! - [`frame`]: the heartbeat frame, for peers of your own;
//! - [`time`], [`limits`]: the instant that everything counts in, and every maximum with its reason;
//! - [`hosted`] (feature `hosted`): the tracker in a runtime of yours;
//! - [`client`] (feature `client`): a client that holds connections and beats;
//! - [`proxy`] (feature `proxy`): the relay before an HTTP server.
//!
//! `examples/` has a program for each use.
//!
//! # Features
//!
//! A library takes `default-features = false`; the core and [`watch`] then need seven crates.
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` | a [`Watched`] stream is `AsyncRead` and `AsyncWrite` |
//! | `client` | the heartbeat client |
//! | `tracker` | the loop that owns sockets, on io_uring or epoll, and its histograms |
//! | `hosted` | that loop inside tokio or tokio-uring |
//! | `proxy` | the relay before an HTTP server |
//! | `report` | result files of experiments, and their reports |
//! | `serde` | summaries of a tracker implement `Serialize` |
//! | `bench` (default) | experiments, and the yardsticks that they are compared with |
//! | `cli` (default) | the program `deadpeer` |
//!
//! Linux only: 6.1 or newer for io_uring. Where a ring is missing or forbidden, the loop runs on epoll; the watcher always
//! does.

#[macro_use]
mod words;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod doctor;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod events;
mod evidence;
pub mod frame;
#[cfg(feature = "hosted")]
pub mod hosted;
#[cfg(feature = "proxy")]
#[doc(hidden)]
pub mod http;
pub mod limits;
pub mod liveness;
#[cfg(feature = "tracker")]
#[doc(hidden)]
pub mod measure;
#[cfg(any(feature = "client", feature = "tracker"))]
mod partial_frame;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "tracker")]
#[doc(hidden)]
pub mod reactor;
#[cfg(feature = "report")]
#[doc(hidden)]
pub mod safe_text;
#[doc(hidden)]
pub mod sys;
pub mod time;
#[cfg(feature = "tracker")]
#[doc(hidden)]
pub mod tracking;
pub mod watch;
#[doc(hidden)]
pub mod wheel;

pub use liveness::{
    Action, Cause, Death, Event, EventKind, Evidence, Fact, Heartbeat, Hop, LocalCause, PeerId, Policy,
    PolicyError, PollMask, Proof, State, TcpState, Tracker, TrackerConfig, TrackerCounts, Transport, Wake,
};
pub use time::Instant;
pub use watch::{Gone, StartError, Token, Verdict, Watch, WatchError, Watched, Watcher, WatcherConfig};

/// The programs of the document are compiled as they stand there.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../docs/EMBEDDING.md")]
struct Embedding;
