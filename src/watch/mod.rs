//! Reports when the peer of a socket is gone, while the program itself reads and writes the socket.
//!
//! # Intuition
//!
//! A server reads its sockets on a runtime of its own. It does not see that a client has left while a handler works and
//! does not read, nor that a client is silent because it has vanished. A [`Watcher`] sees both, and wakes or calls the
//! handler. It takes no byte, no error, and no part in the program's I/O.
//!
//! # Model
//!
//! ```text
//!   your code ── watch(stream) ──► record, epoll ADD         one thread of the watcher's
//!       │                              ▲                     ┌───────────────────────────┐
//!       │     FIN, RST, errors: at once│                     │ look: TCP_INFO            │
//!       │     silence: when it could   └──────── epoll ─────►│ judge: liveness::watch    │
//!       ▼     be too long                        wheel ─────►│ tell: wakers, callbacks   │
//!   gone().await ◄───────────────────────────────────────────└───────────────────────────┘
//! ```
//!
//! The thread waits on epoll and not on a ring. A poll in a ring holds the file: a socket that the program closes would
//! send its FIN only after the ring's own thread has cancelled that poll, so every drop would wait for another thread. An
//! epoll entry holds nothing, the dropping thread removes it, and it wakes as soon. It also works where io_uring is
//! blocked.
//!
//! The kernel keeps the time: keepalive is set by the plan of the [policy](Policy), so a quiet peer's kernel is asked, and
//! its answers are read from `TCP_INFO` once a detection time. A byte costs nothing.
//!
//! # Contract
//!
//! - It never reads, peeks, or takes `SO_ERROR`: the program's own next read sees what it would have seen. So
//!   the *cause* of a closed socket is inferred; [`Watches::look`](crate::liveness::watch::Watches::look) says how.
//! - It sets `SO_KEEPALIVE` and its times, and `TCP_USER_TIMEOUT` if the policy names one; nothing else.
//! - Dropping a [`Watched`] ends the watch first and then drops the stream, so the FIN goes out at once. A
//!   socket that is closed in another way ends its watch at its next appointment, as `Gone(local)`.
//! - A verdict moves from `Here` over `HalfClosed` to `Gone` and never back. With a
//!   [`half_closed_grace`](Policy::half_closed_grace) of zero, which the presets have, a FIN is the end.
//! - Every watch whose peer is gone by its end has one verdict: its tokens return it, and its callbacks are called once.
//! - Callbacks run on the watcher's thread and must not block; one that panics ends nothing but itself.
//! - An expiry is never early; a stall of the watcher puts it off.
//!
//! # Example
//!
//! ```
//! use deadpeer::liveness::{Cause, Policy};
//! use deadpeer::watch::{Verdict, Watcher, WatcherConfig};
//! use std::net::{TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let client = TcpStream::connect(listener.local_addr()?)?;
//! let (stream, _) = listener.accept()?;
//!
//! let watcher = Watcher::start(WatcherConfig::default())?;
//! let stream = watcher.watch(stream, Policy::STANDARD.transport_only())?;
//! assert_eq!(stream.state(), Verdict::Here);
//! drop(client);
//! assert_eq!(stream.wait_gone(), Verdict::Gone(Cause::Closed)); // or `stream.gone().await`
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod slot;
mod thread;
#[cfg(feature = "tokio")]
mod tokio_io;
mod watched;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use crate::limits;
pub use crate::liveness::watch::Verdict;
use crate::liveness::{Heartbeat, Policy, PolicyError, TcpState};
use crate::sys::tcp;
pub use slot::{Gone, Token};
use thread::{Handle, Ticket};
pub use watched::{Watch, Watched};

/// The configuration of a watcher.
#[derive(Clone, Copy, Debug)]
pub struct WatcherConfig {
    /// The greatest number of sockets at once: 1 to [`limits::MAX_PEERS`], by default 1,048,576. It costs 8 bytes of address
    /// space each.
    pub capacity: usize,
}

impl Default for WatcherConfig {
    fn default() -> WatcherConfig {
        WatcherConfig { capacity: limits::MAX_WATCHED }
    }
}

/// Why a watcher could not be started. The message names the cause and the cure.
#[derive(Debug)]
pub struct StartError {
    attempted: &'static str,
    source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cure = match self.source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "out of descriptors: raise `ulimit -n` (LimitNOFILE=)",
            Some(libc::EINVAL) => "take a capacity from 1 to 16777216",
            _ => "free memory, or raise the limit on threads (ulimit -u)",
        };
        write!(f, "cannot {}: {}; {cure}", self.attempted, crate::sys::describe(&self.source))
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why a socket could not be watched.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchError {
    /// It is no TCP socket but, for example, UDP, a Unix socket or a file.
    NotTcp(io::Error),
    /// It is listening, or not connected (any more).
    NotConnected(TcpState),
    /// This descriptor is watched already.
    Twice,
    /// The policy contradicts itself: [`Policy::check`] refuses it.
    Policy(PolicyError),
    /// The policy wants heartbeat frames; a watcher reads no bytes.
    Frames,
    /// As many sockets are watched as the watcher has room for.
    Full {
        /// The capacity of the watcher.
        capacity: usize,
    },
    /// The watcher was stopped, or this is a child that was forked without its thread.
    Stopped,
    /// A system call failed for another reason.
    Io {
        /// What was attempted, as the end of "cannot ...".
        attempted: &'static str,
        /// The error of the call.
        source: io::Error,
    },
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WatchError::NotTcp(source) => {
                write!(
                    f,
                    "this is no TCP socket ({}): only TCP shows whether a peer is there",
                    crate::sys::describe(source)
                )
            }
            WatchError::NotConnected(TcpState::Listen) => {
                f.write_str("this socket is listening: watch the connections that it accepts")
            }
            WatchError::NotConnected(state) => {
                write!(f, "this socket is not connected (its state is {}): connect it first", state.as_str())
            }
            WatchError::Twice => {
                f.write_str("this socket is watched already: keep the first watch, and clone its token")
            }
            WatchError::Policy(error) => error.fmt(f),
            WatchError::Frames => f.write_str(
                "heartbeat frames are bytes, and a watcher reads none: take a policy of bytes, or \
                 Policy::transport_only",
            ),
            WatchError::Full { capacity } => write!(
                f,
                "{capacity} sockets are watched, as many as this watcher was made for: raise \
                 WatcherConfig::capacity, or drop some"
            ),
            WatchError::Stopped => f.write_str("this watcher was stopped: start another one"),
            WatchError::Io { attempted, source } => {
                write!(f, "cannot {attempted}: {}", crate::sys::describe(source))
            }
        }
    }
}

impl std::error::Error for WatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WatchError::NotTcp(source) | WatchError::Io { source, .. } => Some(source),
            WatchError::Policy(error) => Some(error),
            WatchError::NotConnected(_)
            | WatchError::Twice
            | WatchError::Frames
            | WatchError::Full { .. }
            | WatchError::Stopped => None,
        }
    }
}

/// Watches sockets that the program reads and writes itself. All clones are one watcher, whose thread ends when they and all
/// their watches are dropped, or by [`Watcher::stop`].
#[derive(Clone, Debug)]
pub struct Watcher {
    handle: Arc<Handle>,
}

impl Watcher {
    /// Starts a watcher and its thread.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the capacity is out of range, or when the system has no descriptor, memory or thread left.
    pub fn start(config: WatcherConfig) -> Result<Watcher, StartError> {
        if !(1..=limits::MAX_PEERS).contains(&config.capacity) {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(StartError { attempted: "start a watcher of that capacity", source });
        }
        let handle =
            Handle::start(config.capacity).map_err(|(attempted, source)| StartError { attempted, source })?;
        Ok(Watcher { handle: Arc::new(handle) })
    }

    /// Watches a stream of std, tokio, socket2, or anything else that is [`AsFd`] (one of tokio-uring in
    /// `hosted::UringStream`). Returns the stream together with its watch; dropping it ends the watch and then closes the
    /// stream.
    ///
    /// # Errors
    ///
    /// [`WatchError`]. The stream is dropped then: to keep it, [`observe`](Watcher::observe) it.
    pub fn watch<S: AsFd>(&self, stream: S, policy: Policy) -> Result<Watched<S>, WatchError> {
        let watch = self.observe(&stream, policy)?;
        Ok(Watched::new(watch, stream))
    }

    /// Watches a socket without taking it, for streams that a framework owns. Drop the [`Watch`] when the socket is closed, or
    /// before.
    ///
    /// # Errors
    ///
    /// [`WatchError`].
    pub fn observe(&self, socket: &impl AsFd, policy: Policy) -> Result<Watch, WatchError> {
        policy.check().map_err(WatchError::Policy)?;
        if policy.heartbeat == Heartbeat::Frames {
            return Err(WatchError::Frames);
        }
        let socket = socket.as_fd();
        let info = tcp::info(socket).map_err(WatchError::NotTcp)?;
        let state = TcpState::from_kernel(info.tcpi_state);
        if matches!(state, TcpState::Listen | TcpState::SynSent | TcpState::Close) {
            return Err(WatchError::NotConnected(state));
        }
        let io = |attempted| move |source| WatchError::Io { attempted, source };
        let cookie = tcp::cookie(socket.as_raw_fd()).map_err(io("ask for the socket's cookie"))?;
        let plan = policy.keepalive();
        // Entered first: one that is refused keeps the options that it has.
        let ticket: Ticket = self.handle.enter(socket.as_raw_fd(), cookie, policy, &info)?;
        let watch = Watch::new(self.handle.clone(), ticket);
        tcp::set_keepalive(socket, plan.idle, plan.interval, plan.count).map_err(io("set its keepalive"))?;
        // Not the plan's own: this program sends, and one that does must not kill a peer whose window is shut.
        if let Some(timeout) = policy.user_timeout {
            tcp::set_user_timeout(socket, timeout).map_err(io("set its user timeout"))?;
        }
        Ok(watch)
    }

    /// The number of sockets that are watched now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handle.len()
    }

    /// Whether no socket is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the thread, and joins it unless called on it. Waiters get the last known verdict; no socket can be watched
    /// afterwards.
    pub fn stop(&self) {
        self.handle.stop();
    }
}
