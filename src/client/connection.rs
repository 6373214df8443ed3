//! One connection of a client.

use std::io;

use mio::net::TcpStream;

use crate::frame::Decoder;
use crate::partial_frame::PartialFrame;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In `Client::queue`, or with a timer that puts it there.
    Waiting,
    /// The connect is not answered yet.
    Connecting,
    /// Connected: it sends heartbeats.
    Up,
    /// BYE and FIN are sent; the server's FIN is awaited.
    Leaving,
    /// Closed for good.
    Gone,
}

pub(super) struct Connection {
    pub(super) phase: Phase,
    /// `Some` in `Connecting`, `Up` and `Leaving` only.
    pub(super) stream: Option<TcpStream>,
    pub(super) decoder: Decoder,
    pub(super) partial: PartialFrame,
    /// The sequence number of the next heartbeat.
    pub(super) sequence: u32,
    /// The place of the next heartbeat on the grid of [`Rhythm`](super::rhythm::Rhythm).
    pub(super) place: u64,
    /// When its timer fires; the same as its entry in `Client::timers`.
    pub(super) timer: Option<Instant>,
    /// Failed attempts since the last heartbeat that was sent.
    pub(super) attempts: u32,
    /// Whether its index is in `Client::unread`.
    pub(super) unread: bool,
}

impl Connection {
    pub(super) fn new() -> Connection {
        Connection {
            phase: Phase::Waiting,
            stream: None,
            decoder: Decoder::new(),
            partial: PartialFrame::new(),
            sequence: 0,
            place: 0,
            timer: None,
            attempts: 0,
            unread: false,
        }
    }
}

/// How a connection ended.
pub(super) enum Loss {
    Closed,
    Failed(io::Error),
    Protocol,
}
