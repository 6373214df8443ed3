//! One connection of a client.

use std::io;

use mio::net::TcpStream;

use crate::frame::Decoder;
use crate::partial_frame::PartialFrame;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the queue, or with a timer that puts it there.
    Waiting,
    Connecting,
    Up,
    /// BYE and FIN are sent; its FIN is awaited.
    Leaving,
    /// Will not come back.
    Gone,
}

pub(super) struct Connection {
    pub(super) phase: Phase,
    /// There in `Connecting`, `Up` and `Leaving`, and only there.
    pub(super) stream: Option<TcpStream>,
    pub(super) decoder: Decoder,
    pub(super) partial: PartialFrame,
    /// Of the next heartbeat.
    pub(super) sequence: u32,
    /// The next beat's place on the grid.
    pub(super) place: u64,
    /// The only entry in `Client::timers`.
    pub(super) timer: Option<Instant>,
    /// Attempts since the last heartbeat that was sent.
    pub(super) attempts: u32,
    /// Whether it is in `Client::unread`.
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
