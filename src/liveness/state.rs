//! States, causes, and the one table of transitions.
//!
//! A peer is `Alive`, `Suspect` (a beat is missing and a probe is out), `HalfClosed` (its FIN was seen, it may still read)
//! or `Dead`. Only `Dead` is terminal. An [`Input`] is what can happen to it; [`next`] returns the state that follows, for
//! every pair. The diagram in `docs/LIVENESS.md` is generated from this table, and a test compares the two.

use std::fmt;

/// The state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// It was heard from within its idle time, or its first probe is out.
    Alive,
    /// Silent for its idle time, or its path is in doubt; it is being probed.
    Suspect,
    /// Its FIN was seen: it writes no more, and may still read.
    HalfClosed,
    /// It is gone, for one [`Cause`]. The state is final.
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

/// What facts and time mean under the policy: the input of the transition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A proof of life newer than the last one.
    Life,
    /// No life for the suspicion time, or a path that does not deliver.
    Missed,
    /// No life for the detection time (or none ever, for the handshake time).
    Expired,
    /// The peer's FIN, under a policy that grants it a grace.
    Fin,
    /// The peer's FIN under a policy without grace, its BYE, or the end of the grace.
    Ended,
    /// A reset, a timeout of the kernel, an unreachable path, bytes that are no frames, or an act of this side.
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
        // A visit that comes late finds the whole detection time gone. The kernel kept the time, so there is nothing left
        // to wait for.
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

/// Why a peer is dead. The field's word is *diagnostic* (RFC 5880, section 4.1).
///
/// ```
/// use deadpeer::{Cause, Hop};
///
/// assert_eq!(Cause::HeartbeatExpired.as_str(), "heartbeat_expired");
/// assert_eq!(Cause::Unreachable(Hop::Host).to_string(), "unreachable (host)");
/// assert!(Cause::KeepaliveExpired.is_expiry());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// An orderly end: FIN or BYE.
    Closed,
    /// A RST: the program died, gave up, or does not know this connection.
    Aborted,
    /// No beat for the detection time.
    HeartbeatExpired,
    /// Its kernel did not answer for the detection time, or the kernel's own keepalive gave up.
    KeepaliveExpired,
    /// Something that this side sent was not acknowledged for the user timeout, or for all retransmissions.
    UserTimeout,
    /// The path reported that the peer's host or network cannot be reached, and the kernel gave up.
    Unreachable(Hop),
    /// It connected and gave no proof of life within the handshake time.
    HandshakeExpired,
    /// It sent bytes that are no heartbeat frame.
    Protocol,
    /// Not an act of the peer.
    Local(LocalCause),
}

/// The place at which a path ended: what the error says cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// The host does not answer (EHOSTUNREACH).
    Host,
    /// There is no route to its network (ENETUNREACH).
    Net,
}

/// The act of this side that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalCause {
    /// An administrator killed the socket (`ss -K`, SOCK_DESTROY).
    Destroyed,
    /// This program shut its reading side down.
    Shutdown,
    /// The socket could not be watched: out of memory, or a request the kernel refused.
    Unwatchable,
    /// A newer connection has the same identity, and [`OnDuplicate::Replace`](super::OnDuplicate) is set.
    Replaced,
    /// It took nothing of what a proxy had for it for too long.
    SendTimeout,
}

/// Declares every cause once: its code, its place in the enum, its word and its detail. The `match`es are total, so a
/// cause without a row does not compile.
macro_rules! causes {
    ($($code:literal: $name:ident $(($inner:path))? => $word:literal $($detail:literal)?, $input:ident;)*) => {
        impl Cause {
            /// Every cause; its position is its [code](Cause::code).
            pub const ALL: [Cause; [$($code),*].len()] = [$(Cause::$name $(($inner))?),*];

            /// The word used in events. It is stable.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Cause::$name $(($inner))? => $word,)*
                }
            }

            /// What the word leaves open, as a second word; `None` where it leaves nothing open.
            #[must_use]
            pub const fn detail(self) -> Option<&'static str> {
                match self {
                    $(Cause::$name $(($inner))? => causes!(@detail $($detail)?),)*
                }
            }

            /// The position in [`Cause::ALL`]: the number in a peer's history.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self {
                    $(Cause::$name $(($inner))? => $code,)*
                }
            }

            /// The input of the transition table by which it ends a peer. A cause that is
            /// [`Cut`](Input::Cut) here is [`Expired`](Input::Expired) where a deadline gave it.
            pub(super) const fn input(self) -> Input {
                match self {
                    $(Cause::$name $(($inner))? => Input::$input,)*
                }
            }
        }
    };
    (@detail) => { None };
    (@detail $detail:literal) => { Some($detail) };
}

causes! {
    0: Closed => "closed", Ended;
    1: Aborted => "aborted", Cut;
    2: HeartbeatExpired => "heartbeat_expired", Expired;
    3: KeepaliveExpired => "keepalive_expired", Cut;
    4: UserTimeout => "user_timeout", Cut;
    5: Unreachable(Hop::Host) => "unreachable" "host", Cut;
    6: Unreachable(Hop::Net) => "unreachable" "net", Cut;
    7: HandshakeExpired => "handshake_expired", Expired;
    8: Protocol => "protocol", Cut;
    9: Local(LocalCause::Destroyed) => "local" "destroyed", Cut;
    10: Local(LocalCause::Shutdown) => "local" "shutdown", Cut;
    11: Local(LocalCause::Unwatchable) => "local" "unwatchable", Cut;
    12: Local(LocalCause::Replaced) => "local" "replaced", Cut;
    13: Local(LocalCause::SendTimeout) => "local" "send_timeout", Cut;
}

const _: () = {
    let mut code = 0;
    while code < Cause::ALL.len() {
        assert!(Cause::ALL[code].code() as usize == code, "the codes count from 0 in order");
        code += 1;
    }
};

impl Cause {
    /// Whether the verdict came from a deadline of the policy rather than from the network.
    #[must_use]
    pub const fn is_expiry(self) -> bool {
        matches!(self, Cause::HeartbeatExpired | Cause::KeepaliveExpired | Cause::HandshakeExpired)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the text of `docs/LIVENESS.md`: one row a state, one column an input.
    fn table_markdown() -> String {
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
    fn diagram_mermaid() -> String {
        let mut text = String::from("stateDiagram-v2\n    [*] --> alive");
        for from in State::ALL {
            for to in State::ALL {
                let inputs: Vec<_> =
                    Input::ALL.into_iter().filter(|&input| next(from, input) == to).collect();
                if from != to && !inputs.is_empty() {
                    let words: Vec<_> = inputs.iter().map(|input| input.as_str()).collect();
                    text += &format!("\n    {} --> {}: {}", from.as_str(), to.as_str(), words.join(", "));
                }
            }
        }
        text + "\n    dead --> [*]"
    }

    #[test]
    fn only_dead_is_terminal() {
        for input in Input::ALL {
            assert_eq!(next(State::Dead, input), State::Dead);
        }
        for state in [State::Alive, State::Suspect, State::HalfClosed] {
            assert_eq!(next(state, Input::Cut), State::Dead);
            assert_eq!(next(state, Input::Ended), State::Dead);
        }
    }

    #[test]
    fn no_peer_comes_back_from_a_half_close() {
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
    fn the_document_explains_every_cause() {
        let document = include_str!("../../docs/EVENTS.md");
        let (_, section) = document.split_once("\n### Causes\n").unwrap();
        let section = section.split("\n### ").next().unwrap();
        for cause in Cause::ALL {
            assert!(section.contains(&format!("\n| `{}` |", cause.as_str())), "{cause}");
            assert!(cause.detail().is_none_or(|detail| section.contains(&format!("`{detail}`"))), "{cause}");
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
