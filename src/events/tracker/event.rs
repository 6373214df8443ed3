//! The events between the first line and the last one. A new event has its name, its colour, its fields and its
//! sentence here.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;

use super::death;
use super::record::{Closing, Listening};
use crate::events::body::{Body, Shown};
use crate::events::counters::Totals;
use crate::events::encoder::{Encoder, Kind, Stream};
use crate::events::human::{Colour, Span};
use crate::events::json::{SATURATED, millis};
use crate::liveness::{Cause, Event, EventKind, PeerId, Subject, TrackerCounts};
use crate::safe_text::Safe;
use crate::tracking::LocalAddresses;

/// The longest cause: `handshake_expired`.
const CAUSE: usize = 17;

/// The longest IPv4 address with its port; a longer one widens the column for what follows.
const ADDRESS: usize = 21;

/// Writes the events of trackers.
pub type TrackerEncoder = Encoder<TrackerStream>;

/// The events of trackers.
#[derive(Debug)]
pub struct TrackerStream {
    locals: Arc<LocalAddresses>,
    /// A copy of the local addresses seen so far, so that a line takes no lock.
    known: Vec<SocketAddr>,
    address_width: usize,
}

impl TrackerStream {
    /// The events of trackers that share a table of local addresses.
    #[must_use]
    pub fn new(locals: Arc<LocalAddresses>) -> TrackerStream {
        TrackerStream { locals, known: Vec::new(), address_width: ADDRESS }
    }

    /// The local address of a peer, if it has a number.
    fn local(&mut self, subject: &Subject) -> Option<SocketAddr> {
        if usize::from(subject.local) >= self.known.len() {
            self.locals.copy_to(&mut self.known);
        }
        self.known.get(usize::from(subject.local)).copied()
    }
}

impl Stream for TrackerStream {
    const NAMES: &'static [&'static str] = &[
        "up",
        "suspected",
        "recovered",
        "half_closed",
        "duplicate",
        "died",
        "stall",
        "path_outage",
        "saturated",
        "resumed",
    ];
    type Opening = Listening;
    type Event = Event;
    type Closing = Closing;
    type Counts = TrackerCounts;

    /// The name of an event, its colour, and the word that it is counted by if it is routine.
    fn kind(event: &Event) -> Kind {
        let (name, colour, routine) = match &event.kind {
            EventKind::Up => ("up", Colour::Green, Some("up")),
            EventKind::Suspected { .. } => ("suspected", Colour::Yellow, Some("suspected")),
            EventKind::Recovered { .. } => ("recovered", Colour::Green, Some("recovered")),
            EventKind::HalfClosed => ("half_closed", Colour::Cyan, Some("half_closed")),
            EventKind::Duplicate { .. } => ("duplicate", Colour::Yellow, None),
            EventKind::Died(death) if death.cause == Cause::Closed => ("died", Colour::Cyan, Some("closed")),
            EventKind::Died(_) => ("died", Colour::Red, None),
            EventKind::Stall { .. } => ("stall", Colour::Magenta, None),
            EventKind::PathOutage { .. } => ("path_outage", Colour::Magenta, None),
            EventKind::Saturated { .. } => ("saturated", Colour::Magenta, None),
            EventKind::Resumed => ("resumed", Colour::Green, None),
        };
        Kind { name, at: event.at, colour, routine }
    }

    fn describe(&mut self, ring: usize, event: &Event, body: &mut Body<'_>) {
        let local = event.subject.as_ref().and_then(|subject| self.local(subject));
        let identity = event.subject.as_ref().and_then(|subject| subject.identity.as_deref());
        match &event.subject {
            Some(subject) => {
                let address = subject.address.to_string();
                self.address_width = self.address_width.max(address.len());
                body.field("id", Shown(Id(ring, subject.peer)))
                    .field("peer", &address)
                    .maybe("local", local)
                    .maybe("identity", identity)
                    .text(format_args!("{address:<width$}  ", width = self.address_width));
            }
            None => {
                body.field("thread", ring);
            }
        }
        match &event.kind {
            EventKind::Up => {
                if let Some(local) = local {
                    body.text(format_args!("on {local}"));
                }
            }
            EventKind::Suspected { silent_for, doubt } => {
                body.field("reason", if *doubt { "path" } else { "silence" })
                    .field("silent_ms", millis(*silent_for));
                match doubt {
                    true => body.text(format_args!("its path does not deliver, being asked")),
                    false => body.text(format_args!("silent {}, being asked", Span(*silent_for))),
                };
            }
            EventKind::Recovered { suspected_for } => {
                body.field("suspected_ms", millis(*suspected_for))
                    .text(format_args!("spoke again after {} of doubt", Span(*suspected_for)));
            }
            EventKind::HalfClosed => {
                body.text(format_args!("writes no more (FIN), may still read"));
            }
            EventKind::Duplicate { of, address } => {
                body.field("of", Shown(Id(ring, *of)))
                    .field("of_peer", address)
                    .text(format_args!("has the identity of {address}, which is still connected"));
            }
            EventKind::Died(death) => {
                death::fields(death, body);
                body.text(format_args!("{:<CAUSE$}  {}", death.cause.as_str(), death::sentence(death)));
            }
            EventKind::Stall { held } => {
                body.field("held_ms", millis(*held)).text(format_args!(
                    "our own loop was held up for {}; every deadline is put off by as much (thread {ring})",
                    Span(*held)
                ));
            }
            EventKind::PathOutage { suspects, peers } => {
                body.field("suspects", suspects).field("peers", peers).text(format_args!(
                    "{suspects} of {peers} peers are silent and their kernels too: a path is down (thread {ring})"
                ));
            }
            EventKind::Saturated { limit } => {
                body.field("limit", limit).field("effect", SATURATED).text(format_args!(
                    "at the limit ({limit}): new connections wait in the backlog (thread {ring})"
                ));
            }
            EventKind::Resumed => {
                body.text(format_args!("accepting again (thread {ring})"));
            }
        }
        if let Some(identity) = identity {
            body.text(format_args!("  [{}]", Safe(identity)));
        }
    }

    /// Opened, alive, suspect, half-closed, died.
    fn totals(counts: &TrackerCounts) -> Totals {
        let doubtful = counts.suspects + counts.half_closed;
        [
            counts.opened,
            u64::from(counts.living.saturating_sub(doubtful)),
            u64::from(counts.suspects),
            u64::from(counts.half_closed),
            counts.died.iter().sum(),
        ]
    }

    fn status(&[_, alive, suspects, half_closed, died]: &Totals, rates: &[f64; 5]) -> String {
        let [opening, .., dying] = rates;
        format!(
            "{alive} alive, {suspects} suspect, {half_closed} half-closed, {died} died  \
             (+{opening:.0}/s -{dying:.0}/s)"
        )
    }
}

/// A peer's name, unique in a process: thread, place in its slab, which life in that place.
struct Id(usize, PeerId);

impl Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.0, self.1.index(), self.1.generation())
    }
}

#[cfg(test)]
pub(super) use tests::samples;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::tracker::tests::samples;
    use crate::liveness::{PeerId, Subject};

    /// One event of each kind, in a possible order. docs/EVENTS.md shows each as it is written.
    pub(in crate::events::tracker) fn samples() -> Vec<(usize, Event)> {
        let [up, suspected, expired] = samples::expired();
        let six = Subject {
            peer: PeerId::new(3, 9),
            address: "[2001:db8::7]:50000".parse().unwrap(),
            local: 1,
            identity: None,
        };
        let of_six =
            |millis, kind| Event { at: samples::at_millis(millis), subject: Some(six.clone()), kind };
        let whole = |millis, kind| Event { at: samples::at_millis(millis), subject: None, kind };
        let suspected_for = Duration::from_micros(812_900);
        vec![
            (0, up),
            (1, of_six(5_500, EventKind::Recovered { suspected_for })),
            (1, of_six(5_900, EventKind::HalfClosed)),
            (0, suspected),
            (0, samples::reset()),
            (0, expired),
            (1, whole(9_600, EventKind::Stall { held: Duration::from_millis(2_512) })),
            (1, whole(9_700, EventKind::PathOutage { suspects: 512, peers: 600 })),
            (0, whole(9_800, EventKind::Saturated { limit: "max_connections" })),
            (0, whole(9_900, EventKind::Resumed)),
            (
                1,
                of_six(
                    9_950,
                    EventKind::Duplicate {
                        of: PeerId::new(1, 4),
                        address: "[2001:db8::7]:49000".parse().unwrap(),
                    },
                ),
            ),
        ]
    }
}
