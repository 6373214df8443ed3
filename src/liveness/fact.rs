//! The input of the tracker (facts and evidence) and its output for the driver (actions).
//!
//! A [`Fact`] states what was seen, not what it means. An [`Action`] states what to do with one peer's socket, not with
//! which system call.

use std::fmt;

use super::peer::PeerId;
use crate::frame::{FrameError, Identity, Kind};
use crate::time::Instant;

/// The events of one poll completion, in the kernel's bits (`poll(2)`).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PollMask(pub u16);

impl PollMask {
    /// Bytes to read, or a FIN, or an error.
    pub const IN: u16 = 0x1;
    /// Room to write, or a connect that has come to its end.
    pub const OUT: u16 = 0x4;
    /// An error waits in the socket.
    pub const ERR: u16 = 0x8;
    /// Both directions are shut: after a RST, or our own full shutdown.
    pub const HUP: u16 = 0x10;
    /// The peer's FIN was seen.
    pub const RDHUP: u16 = 0x2000;

    /// Whether any of `bits` is set.
    #[must_use]
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Whether a FIN, a RST or an error was seen. Everything that came before it is still to be read.
    #[must_use]
    pub const fn is_end(self) -> bool {
        self.has(PollMask::RDHUP | PollMask::HUP | PollMask::ERR)
    }
}

impl fmt::Debug for PollMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The state of a TCP socket as `TCP_INFO` gives it (`net/tcp_states.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // RFC 9293, section 3.3.2, says what each one is
pub enum TcpState {
    #[default]
    Established = 1,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynReceived,
}

impl TcpState {
    /// The states by the kernel's number, which counts from 1, with the names that `ss` prints.
    const BY_NUMBER: [(TcpState, &'static str); 12] = [
        (TcpState::Established, "established"),
        (TcpState::SynSent, "syn_sent"),
        (TcpState::SynReceived, "syn_received"),
        (TcpState::FinWait1, "fin_wait_1"),
        (TcpState::FinWait2, "fin_wait_2"),
        (TcpState::TimeWait, "time_wait"),
        (TcpState::Close, "close"),
        (TcpState::CloseWait, "close_wait"),
        (TcpState::LastAck, "last_ack"),
        (TcpState::Listen, "listen"),
        (TcpState::Closing, "closing"),
        (TcpState::NewSynReceived, "new_syn_received"),
    ];

    /// The state with the kernel's number, or `Close` for one that is not known.
    #[must_use]
    pub const fn from_kernel(number: u8) -> TcpState {
        let known = number >= 1 && number as usize <= TcpState::BY_NUMBER.len();
        if known { TcpState::BY_NUMBER[number as usize - 1].0 } else { TcpState::Close }
    }

    /// Whether no more bytes will come: the peer's FIN or a reset was seen.
    #[must_use]
    pub const fn is_ending(self) -> bool {
        matches!(self, TcpState::Close | TcpState::CloseWait | TcpState::LastAck | TcpState::Closing)
    }

    /// The name as `ss` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        TcpState::BY_NUMBER[self as usize - 1].1
    }
}

/// The state of a socket when it was looked at (`TCP_INFO`, `tcp(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The last poll mask that was seen.
    pub mask: PollMask,
    /// `SO_ERROR`; `None` where it was not read because `recv` gave the error.
    pub so_error: Option<i32>,
    /// `tcpi_state`: the state of the connection.
    pub tcp_state: TcpState,
    /// `tcpi_retransmits`: retransmissions in a row without an answer.
    pub retransmits: u8,
    /// `tcpi_probes`: keepalive or window probes in a row without an answer.
    pub probes: u8,
    /// `tcpi_backoff`: doublings of the retransmission timer.
    pub backoff: u8,
    /// `tcpi_unacked`: segments sent by this side that are not acknowledged.
    pub unacked: u32,
    /// `tcpi_notsent_bytes`: bytes of this side that have not left.
    pub notsent: u32,
    /// `tcpi_rtt`: the smoothed round trip, in microseconds.
    pub rtt_us: u32,
    /// `tcpi_last_data_recv`: age of the last data, in ms, counted from the kernel's last tick.
    pub last_data_ms: u32,
    /// `tcpi_last_ack_recv`: age of the last acknowledgement, in ms.
    pub last_ack_ms: u32,
    /// Bytes that the peer sent in order: `tcpi_bytes_received`, its FIN taken off. In CLOSE a FIN may
    /// still be counted.
    pub received: u64,
    /// The latest instant at which the last data can have come: a verdict counted from it is never
    /// early, and at most two kernel ticks late.
    pub last_data: Instant,
    /// The latest instant at which the last acknowledgement can have come.
    pub last_ack: Instant,
}

/// An observation about one peer: the input of [`Tracker::handle`](super::Tracker::handle).
///
/// ```
/// use deadpeer::{Evidence, Fact, Policy, PollMask, Tracker, TrackerConfig, Instant};
///
/// let now = Instant::from_nanos(1);
/// let mut tracker = Tracker::new(TrackerConfig::new(Policy::STRICT, 1), now);
/// let peer = tracker.accept("192.0.2.7:50000".parse().unwrap(), 0, now).unwrap();
/// tracker.handle(peer, Fact::Ready(PollMask(PollMask::IN)), now); // its poll has completed
/// tracker.handle(peer, Fact::Taken { bytes: 16 }, now); // a recv has returned 16 bytes
/// tracker.handle(peer, Fact::Emptied, now); // and the next one EAGAIN
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fact {
    /// A poll completed with these events.
    Ready(PollMask),
    /// A `recv` returned bytes, which may be complete frames, parts of them, or no frames.
    Taken {
        /// The number of bytes that were taken off the socket.
        bytes: u32,
    },
    /// Nothing more is there to read at the moment: the end of what [`Action::Drain`] began.
    Emptied,
    /// A `recv` returned 0; the socket as it was right after.
    End(Evidence),
    /// A `recv` returned an error of the peer or the path, or the socket cannot be watched.
    Failed {
        /// The errno of the `recv`, positive.
        errno: i32,
        /// The socket as it was right after.
        evidence: Evidence,
    },
    /// The answer to [`Action::Inspect`]: the socket as it is now.
    Inspected(Evidence),
    /// A complete heartbeat frame was read.
    Frame {
        /// The kind of the frame; HELLO and BYE have facts of their own.
        kind: Kind,
        /// The sequence number in the frame.
        sequence: u32,
    },
    /// A complete HELLO was read, with this identity (which may be empty).
    Hello(Identity),
    /// The peer sent bytes that are no frame; the socket as it was then.
    Garbage(FrameError, Evidence),
    /// A complete BYE was read; the socket as it was then.
    Bye(Evidence),
}

/// An operation that the driver performs on one peer's socket: the output of
/// [`Tracker::poll_action`](super::Tracker::poll_action).
///
/// A later version may have more of them. A driver that meets one that it does not know leaves it: no verdict waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Read what is unread. The driver answers with [`Fact::Emptied`], [`Fact::End`] or [`Fact::Failed`].
    Drain {
        /// The peer whose bytes they are.
        peer: PeerId,
        /// Whether to read on until 0 or an error: a FIN, a RST or an error is known to follow.
        to_end: bool,
    },
    /// Read `TCP_INFO` and hand it back as [`Fact::Inspected`].
    Inspect(PeerId),
    /// Set `SO_RCVLOWAT`: the socket wakes its poll once so many bytes are unread.
    SetLowWater {
        /// The peer whose socket it is.
        peer: PeerId,
        /// 1 (every byte wakes), or [`TrackerConfig::unread`](super::TrackerConfig::unread).
        bytes: u32,
    },
    /// Send a PING frame. It needs no answer to the tracker: the peer's PONG is a [`Fact::Frame`].
    Probe {
        /// The peer that is asked.
        peer: PeerId,
        /// The PING's sequence number, from 1.
        sequence: u32,
    },
    /// Close the socket and then [`release`](super::Tracker::release) the peer.
    Close {
        /// The peer whose socket it is.
        peer: PeerId,
        /// With a RST instead of a FIN, so that the kernel keeps no orphan that waits for an answer.
        abort: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_stand_at_the_numbers_of_the_kernel() {
        for (number, (state, name)) in (1..).zip(TcpState::BY_NUMBER) {
            assert_eq!((state as u8, state.as_str()), (number, name));
            assert_eq!(TcpState::from_kernel(number), state);
        }
        assert_eq!([0, 13, 255].map(TcpState::from_kernel), [TcpState::Close; 3]);
    }
}
