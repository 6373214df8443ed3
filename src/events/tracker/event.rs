//! The events between the first line and the last one. A new event has its name, its colour, its fields and its
//! sentence here.

use std::net::SocketAddr;

use serde::Serialize;

use super::death::{DiedFields, Sentence};
use super::peers::{Id, Peers};
use crate::events::encoder::Kind;
use crate::events::human::{Colour, Span, add};
use crate::events::json::{JsonEncoder, NoFields, SATURATED, millis};
use crate::liveness::{Cause, Event, EventKind};
use crate::safe_text::Safe;

/// The longest cause: `handshake_expired`.
const CAUSE: usize = 17;

/// The names of all events.
pub(super) const NAMES: &[&str] = &[
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

/// The name of an event, its colour, and the word that it is counted by if it is routine.
pub(super) fn kind(event: &Event) -> Kind {
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

/// An event of one peer.
#[derive(Serialize)]
struct PeerFields<'a, More> {
    #[serde(flatten)]
    subject: Option<SubjectFields<'a>>,
    #[serde(flatten)]
    more: More,
}

#[derive(Serialize)]
struct SubjectFields<'a> {
    id: Id,
    peer: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
}

#[derive(Serialize)]
struct SuspectedFields {
    reason: &'static str,
    silent_ms: u64,
}

#[derive(Serialize)]
struct RecoveredFields {
    suspected_ms: u64,
}

#[derive(Serialize)]
struct DuplicateFields {
    of: Id,
    of_peer: SocketAddr,
}

#[derive(Serialize)]
struct StallFields {
    held_ms: u64,
}

#[derive(Serialize)]
struct OutageFields {
    suspects: u32,
    peers: u32,
}

#[derive(Serialize)]
struct SaturatedFields {
    limit: &'static str,
    effect: &'static str,
}

/// Appends an event of the loop `ring` for programs.
pub(super) fn json(peers: &mut Peers, ring: usize, event: &Event, json: &mut JsonEncoder, out: &mut Vec<u8>) {
    let (name, at) = (kind(event).name, event.at);
    match &event.kind {
        EventKind::Up | EventKind::HalfClosed => peer_json(peers, ring, event, NoFields {}, json, out),
        EventKind::Suspected { silent_for, doubt } => {
            let reason = if *doubt { "path" } else { "silence" };
            let more = SuspectedFields { reason, silent_ms: millis(*silent_for) };
            peer_json(peers, ring, event, more, json, out);
        }
        EventKind::Recovered { suspected_for } => {
            let more = RecoveredFields { suspected_ms: millis(*suspected_for) };
            peer_json(peers, ring, event, more, json, out);
        }
        EventKind::Duplicate { of, address } => {
            let more = DuplicateFields { of: Id { thread: ring, peer: *of }, of_peer: *address };
            peer_json(peers, ring, event, more, json, out);
        }
        EventKind::Died(death) => peer_json(peers, ring, event, DiedFields::of(death), json, out),
        EventKind::Stall { held } => {
            json.line(name, Some(ring), at, &StallFields { held_ms: millis(*held) }, out);
        }
        EventKind::PathOutage { suspects, peers: of } => {
            let fields = OutageFields { suspects: *suspects, peers: *of };
            json.line(name, Some(ring), at, &fields, out);
        }
        EventKind::Saturated { limit } => {
            json.line(name, Some(ring), at, &SaturatedFields { limit, effect: SATURATED }, out);
        }
        EventKind::Resumed => json.line(name, Some(ring), at, &NoFields {}, out),
    }
}

fn peer_json(
    peers: &mut Peers,
    ring: usize,
    event: &Event,
    more: impl Serialize,
    json: &mut JsonEncoder,
    out: &mut Vec<u8>,
) {
    let subject = event.subject.as_ref().map(|subject| SubjectFields {
        id: Id { thread: ring, peer: subject.peer },
        peer: subject.address,
        local: peers.local(subject),
        identity: subject.identity.as_deref(),
    });
    json.line(kind(event).name, None, event.at, &PeerFields { subject, more }, out);
}

/// Appends the sentence of an event of the loop `ring`.
pub(super) fn sentence(peers: &mut Peers, ring: usize, event: &Event, text: &mut String) {
    if let Some(subject) = &event.subject {
        add(text, format_args!("{}  ", peers.column(subject.address)));
    }
    match &event.kind {
        EventKind::Up => {
            if let Some(local) = event.subject.as_ref().and_then(|subject| peers.local(subject)) {
                add(text, format_args!("on {local}"));
            }
        }
        EventKind::Suspected { silent_for, doubt: false } => {
            add(text, format_args!("silent {}, being asked", Span(*silent_for)));
        }
        EventKind::Suspected { doubt: true, .. } => {
            add(text, format_args!("its path does not deliver, being asked"));
        }
        EventKind::Recovered { suspected_for } => {
            add(text, format_args!("spoke again after {} of doubt", Span(*suspected_for)));
        }
        EventKind::HalfClosed => add(text, format_args!("writes no more (FIN), may still read")),
        EventKind::Duplicate { address, .. } => {
            add(text, format_args!("has the identity of {address}, which is still connected"));
        }
        EventKind::Died(death) => {
            add(text, format_args!("{:<CAUSE$}  {}", death.cause.as_str(), Sentence(death)));
        }
        EventKind::Stall { held } => {
            let held = Span(*held);
            add(
                text,
                format_args!(
                    "our own loop was held up for {held}; every deadline is put off by as much (thread {ring})"
                ),
            );
        }
        EventKind::PathOutage { suspects, peers: of } => add(
            text,
            format_args!(
                "{suspects} of {of} peers are silent and their kernels too: a path is down (thread {ring})"
            ),
        ),
        EventKind::Saturated { limit } => add(
            text,
            format_args!("at the limit ({limit}): new connections wait in the backlog (thread {ring})"),
        ),
        EventKind::Resumed => add(text, format_args!("accepting again (thread {ring})")),
    }
    if let Some(identity) = event.subject.as_ref().and_then(|subject| subject.identity.as_deref()) {
        add(text, format_args!("  [{}]", Safe(identity)));
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
