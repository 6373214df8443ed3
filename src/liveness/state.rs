//! States, causes, and the one table of transitions.
//!
//! A peer is `Alive`, `Suspect` (a beat is missing and a probe is out), `HalfClosed` (its FIN was
//! seen, it may still read) or `Dead`. Only `Dead` is terminal. What can happen to it is an
//! [`Input`]; [`next`] answers every pair. The diagram in `docs/LIVENESS.md` is generated from this
//! table and a test holds the two together.

use std::fmt;

/// What a peer is held to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Heard from within its idle time.
    Alive,
    /// Silent for its idle time, or its path is in doubt; it is being probed.
    Suspect,
    /// Its FIN was seen: it writes no more, and may still read.
    HalfClosed,
    /// Gone, for one [`Cause`], for ever.
    Dead,
}

impl State {
    /// Every state, in the order of the table.
    pub const ALL: [State; 4] = [State::Alive, State::Suspect, State::HalfClosed, State::Dead];

    /// The word used in events and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::HalfClosed => "half_closed",
            State::Dead => "dead",
        }
    }
}

/// What facts and time amount to, once the policy has weighed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A proof of life newer than the last one.
    Life,
    /// No life for the idle time, or a path that does not deliver.
    Missed,
    /// No life for the detection time (or none ever, for the handshake time).
    Expired,
    /// The peer's FIN, under a policy that grants it a grace.
    Fin,
    /// The peer's FIN under a policy without grace, its BYE, or the end of the grace.
    Ended,
    /// A reset, a time-out of the kernel's, an unreachable path, garbage, or our own doing.
    Cut,
}

impl Input {
    /// Every input, in the order of the table.
    pub const ALL: [Input; 6] =
        [Input::Life, Input::Missed, Input::Expired, Input::Fin, Input::Ended, Input::Cut];

    /// The word used in the diagram.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Input::Life => "life",
            Input::Missed => "missed",
            Input::Expired => "expired",
            Input::Fin => "fin",
            Input::Ended => "ended",
            Input::Cut => "cut",
        }
    }
}

/// The transition table: the state after `input`, for every pair. The same state means that nothing
/// is reported.
#[must_use]
pub const fn next(state: State, input: Input) -> State {
    match (state, input) {
        (State::Alive, Input::Life) => State::Alive,
        (State::Alive, Input::Missed) => State::Suspect,
        // A visit that comes late finds the whole detection time gone: the kernel kept the time, so
        // there is nothing left to wait for.
        (State::Alive, Input::Expired) => State::Dead,
        (State::Alive, Input::Fin) => State::HalfClosed,
        (State::Alive, Input::Ended) => State::Dead,
        (State::Alive, Input::Cut) => State::Dead,

        (State::Suspect, Input::Life) => State::Alive,
        (State::Suspect, Input::Missed) => State::Suspect,
        (State::Suspect, Input::Expired) => State::Dead,
        // A FIN is an answer: the path works and the program acted.
        (State::Suspect, Input::Fin) => State::HalfClosed,
        (State::Suspect, Input::Ended) => State::Dead,
        (State::Suspect, Input::Cut) => State::Dead,

        // After its FIN a peer cannot beat; only the end of its grace or a cut says more.
        (State::HalfClosed, Input::Life) => State::HalfClosed,
        (State::HalfClosed, Input::Missed) => State::HalfClosed,
        (State::HalfClosed, Input::Expired) => State::HalfClosed,
        (State::HalfClosed, Input::Fin) => State::HalfClosed,
        (State::HalfClosed, Input::Ended) => State::Dead,
        (State::HalfClosed, Input::Cut) => State::Dead,

        (State::Dead, Input::Life) => State::Dead,
        (State::Dead, Input::Missed) => State::Dead,
        (State::Dead, Input::Expired) => State::Dead,
        (State::Dead, Input::Fin) => State::Dead,
        (State::Dead, Input::Ended) => State::Dead,
        (State::Dead, Input::Cut) => State::Dead,
    }
}

/// Why a peer is dead. A closed set: the field's word is *diagnostic* (RFC 5880, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// An orderly end: FIN or BYE.
    Closed,
    /// A RST: the program died, gave up, or never knew us.
    Aborted,
    /// No beat for the detection time.
    HeartbeatExpired,
    /// Its kernel did not answer for the detection time, or the kernel's own keepalive gave up.
    KeepaliveExpired,
    /// Something that we sent was not acknowledged for the user timeout or for all retransmissions.
    UserTimeout,
    /// The path said that nobody is there.
    Unreachable(Hop),
    /// Connected, and never spoke.
    HandshakeExpired,
    /// Sent what is no heartbeat frame.
    Protocol,
    /// Not the peer's doing.
    Local(LocalCause),
}

/// Where the path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// The host does not answer (EHOSTUNREACH).
    Host,
    /// There is no route to its network (ENETUNREACH).
    Net,
}

/// What of ours ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalCause {
    /// An administrator killed the socket (`ss -K`, SOCK_DESTROY).
    Destroyed,
    /// This program shut its reading side down.
    Shutdown,
    /// The socket could not be watched: out of memory, or a request the kernel refused.
    Unwatchable,
}

impl Cause {
    /// Every cause; the position is its code in a peer's history.
    pub const ALL: [Cause; 12] = [
        Cause::Closed,
        Cause::Aborted,
        Cause::HeartbeatExpired,
        Cause::KeepaliveExpired,
        Cause::UserTimeout,
        Cause::Unreachable(Hop::Host),
        Cause::Unreachable(Hop::Net),
        Cause::HandshakeExpired,
        Cause::Protocol,
        Cause::Local(LocalCause::Destroyed),
        Cause::Local(LocalCause::Shutdown),
        Cause::Local(LocalCause::Unwatchable),
    ];

    /// The word used in events: one of nine, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Closed => "closed",
            Cause::Aborted => "aborted",
            Cause::HeartbeatExpired => "heartbeat_expired",
            Cause::KeepaliveExpired => "keepalive_expired",
            Cause::UserTimeout => "user_timeout",
            Cause::Unreachable(_) => "unreachable",
            Cause::HandshakeExpired => "handshake_expired",
            Cause::Protocol => "protocol",
            Cause::Local(_) => "local",
        }
    }

    /// What the word leaves open, where it leaves something open.
    #[must_use]
    pub const fn detail(self) -> Option<&'static str> {
        match self {
            Cause::Unreachable(Hop::Host) => Some("host"),
            Cause::Unreachable(Hop::Net) => Some("net"),
            Cause::Local(LocalCause::Destroyed) => Some("destroyed"),
            Cause::Local(LocalCause::Shutdown) => Some("shutdown"),
            Cause::Local(LocalCause::Unwatchable) => Some("unwatchable"),
            Cause::Closed
            | Cause::Aborted
            | Cause::HeartbeatExpired
            | Cause::KeepaliveExpired
            | Cause::UserTimeout
            | Cause::HandshakeExpired
            | Cause::Protocol => None,
        }
    }

    /// Whether the verdict came from a deadline of ours rather than from the network.
    #[must_use]
    pub const fn is_expiry(self) -> bool {
        matches!(self, Cause::HeartbeatExpired | Cause::KeepaliveExpired | Cause::HandshakeExpired)
    }

    /// The position in [`Cause::ALL`].
    #[must_use]
    pub fn code(self) -> u8 {
        let position = Cause::ALL.iter().position(|&cause| cause == self);
        position.map_or(u8::MAX, |position| position as u8)
    }

    pub(crate) fn from_code(code: u8) -> Option<Cause> {
        Cause::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{} ({detail})", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// The table as the text of `docs/LIVENESS.md`: one row a state, one column an input.
#[must_use]
pub fn table_markdown() -> String {
    let mut text = String::from("| |");
    for input in Input::ALL {
        text += &format!(" {} |", input.as_str());
    }
    text += "\n|---|";
    text += &"---|".repeat(Input::ALL.len());
    for state in State::ALL {
        text += &format!("\n| **{}** |", state.as_str());
        for input in Input::ALL {
            let to = next(state, input);
            text += &if to == state { " · |".to_owned() } else { format!(" {} |", to.as_str()) };
        }
    }
    text
}

/// The diagram as the text of `docs/LIVENESS.md`, in Mermaid's notation.
#[must_use]
pub fn diagram_mermaid() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> alive");
    for from in State::ALL {
        for to in State::ALL {
            let inputs: Vec<_> = Input::ALL.into_iter().filter(|&input| next(from, input) == to).collect();
            if from != to && !inputs.is_empty() {
                let words: Vec<_> = inputs.iter().map(|input| input.as_str()).collect();
                text += &format!("\n    {} --> {}: {}", from.as_str(), to.as_str(), words.join(", "));
            }
        }
    }
    text + "\n    dead --> [*]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_is_terminal_and_dead_is_for_ever() {
        for input in Input::ALL {
            assert_eq!(next(State::Dead, input), State::Dead);
        }
        for state in [State::Alive, State::Suspect, State::HalfClosed] {
            assert_eq!(next(state, Input::Cut), State::Dead);
            assert_eq!(next(state, Input::Ended), State::Dead);
        }
    }

    #[test]
    fn nobody_comes_back_from_a_half_close() {
        for input in Input::ALL {
            let to = next(State::HalfClosed, input);
            assert!(matches!(to, State::HalfClosed | State::Dead));
        }
    }

    #[test]
    fn every_cause_has_a_code_that_leads_back_to_it() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_code(cause.code()), Some(cause));
        }
    }

    #[test]
    fn the_document_shows_this_table_and_this_diagram() {
        let document = include_str!("../../docs/LIVENESS.md");
        for generated in [table_markdown(), diagram_mermaid()] {
            assert!(document.contains(&generated), "docs/LIVENESS.md must contain:\n\n{generated}\n");
        }
    }
}
