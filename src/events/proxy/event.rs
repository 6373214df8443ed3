//! The events between the first line and the last one. A new event has its name, its colour, its fields and its
//! sentence here.

use std::net::SocketAddr;

use serde::Serialize;

use crate::events::encoder::Kind;
use crate::events::human::{Colour, Span, add};
use crate::events::json::{JsonEncoder, Mask, NoFields, SATURATED, micros, millis};
use crate::liveness::errno;
use crate::proxy::{Interrupted, Line, Parties, ProxyEvent, Shown, UpstreamAction, UpstreamFailed};
use crate::safe_text::Safe;

/// The names of all events.
pub(super) const NAMES: &[&str] =
    &["completed", "interrupted", "upstream_failed", "not_followed", "stall", "saturated", "resumed"];

/// The name of an event, its colour, and the word that it is counted by if it is routine.
pub(super) fn kind(line: &Line) -> Kind {
    let (name, at, colour, routine) = match line {
        Line::Told { at, told, .. } => match told {
            ProxyEvent::Interrupted(_) => ("interrupted", *at, Colour::Yellow, Some("interrupted")),
            ProxyEvent::UpstreamFailed(_) => ("upstream_failed", *at, Colour::Red, None),
            ProxyEvent::NotFollowed { .. } => ("not_followed", *at, Colour::Cyan, Some("not_followed")),
            ProxyEvent::Completed => ("completed", *at, Colour::Green, Some("completed")),
        },
        // For people, completed exchanges are in the status line alone.
        Line::Completed { at, .. } => ("completed", *at, Colour::Green, Some("completed")),
        Line::Stall { at, .. } => ("stall", *at, Colour::Magenta, None),
        Line::Saturated { at, .. } => ("saturated", *at, Colour::Magenta, None),
        Line::Resumed { at } => ("resumed", *at, Colour::Green, None),
    };
    Kind { name, at, colour, routine }
}

/// Appends an event of the loop `ring` for programs.
pub(super) fn json(ring: usize, line: &Line, json: &mut JsonEncoder, out: &mut Vec<u8>) {
    let Kind { name, at, .. } = kind(line);
    let ring = Some(ring);
    match line {
        Line::Told { parties, shown, told, .. } => {
            let party = Party { client: parties.client, upstream: parties.upstream };
            match told {
                ProxyEvent::Interrupted(event) => {
                    json.line(name, ring, at, &InterruptedFields::of(party, shown, event), out);
                }
                ProxyEvent::UpstreamFailed(event) => {
                    json.line(name, ring, at, &FailedFields::of(party, event), out);
                }
                &ProxyEvent::NotFollowed { reason, refused } => {
                    let fields = NotFollowedFields { party, reason: reason.as_str(), refused };
                    json.line(name, ring, at, &fields, out);
                }
                ProxyEvent::Completed => {} // counted, and reported once a second
            }
        }
        &Line::Completed { completed, completed_total, interrupted_total, .. } => {
            let fields = CompletedFields { completed, completed_total, interrupted_total };
            json.line(name, ring, at, &fields, out);
        }
        Line::Stall { held, .. } => {
            json.line(name, ring, at, &serde_json::json!({ "held_ms": millis(*held) }), out);
        }
        Line::Saturated { limit, .. } => {
            json.line(name, ring, at, &SaturatedFields { limit, effect: SATURATED }, out);
        }
        Line::Resumed { .. } => json.line(name, ring, at, &NoFields {}, out),
    }
}

/// Appends the sentence of an event; nothing for completed exchanges.
pub(super) fn sentence(line: &Line, text: &mut String) {
    match line {
        Line::Told { parties, told, .. } => match told {
            ProxyEvent::Interrupted(event) => interrupted(parties, event, text),
            ProxyEvent::UpstreamFailed(event) => upstream_failed(parties, event, text),
            ProxyEvent::NotFollowed { reason, refused } => {
                let what = if *refused { "refused" } else { "relayed as it is" };
                add(text, format_args!("{} ({reason}): {what}", parties.client));
            }
            ProxyEvent::Completed => {}
        },
        Line::Completed { .. } => {}
        Line::Stall { held, .. } => add(text, format_args!("our own loop was held up for {}", Span(*held))),
        Line::Saturated { limit, .. } => add(text, format_args!("{limit}: new connections wait")),
        Line::Resumed { .. } => add(text, format_args!("accepting again")),
    }
}

fn interrupted(parties: &Parties, event: &Interrupted, text: &mut String) {
    add(text, format_args!("{}", parties.client));
    request(event.method.as_deref(), event.target.as_deref(), text);
    add(text, format_args!(" while {} after {:.1?}", event.phase.as_str(), event.elapsed));
    if let Some(after) = event.after {
        add(text, format_args!(", {} bytes and {after:.1?} into the response", event.response_bytes));
    }
    let action = match event.action {
        UpstreamAction::Nothing => "the upstream had not been asked",
        UpstreamAction::Reset => "upstream reset",
        UpstreamAction::Close => "upstream closed",
        UpstreamAction::Ignored => "the upstream works on",
    };
    add(text, format_args!(": {}; {action}", event.cause));
}

fn upstream_failed(parties: &Parties, event: &UpstreamFailed, text: &mut String) {
    match parties.upstream {
        Some(upstream) => add(text, format_args!("{upstream} {}", event.failure.as_str())),
        None => add(text, format_args!("no upstream: {}", event.failure.as_str())),
    }
    request(event.method.as_deref(), event.target.as_deref(), text);
    let (phase, client) = (event.phase.as_str(), parties.client);
    match event.answered {
        Some(status) => add(text, format_args!(" while {phase}: {client} was answered {status}")),
        None => add(text, format_args!(" while {phase}: {client} was cut off")),
    }
}

fn request(method: Option<&str>, target: Option<&str>, text: &mut String) {
    if let (Some(method), Some(target)) = (method, target) {
        add(text, format_args!(" {} {}", Safe(method), Safe(target)));
    }
}

#[derive(Serialize)]
struct Party {
    client: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<SocketAddr>,
}

#[derive(Serialize)]
struct Of<'a> {
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

#[derive(Serialize)]
struct InterruptedFields<'a> {
    #[serde(flatten)]
    party: Party,
    #[serde(flatten)]
    of: Of<'a>,
    request_bytes: u64,
    response_bytes: u64,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    proof: ProofFields,
    done: &'static str,
    saved: bool,
}

#[derive(Serialize)]
struct ProofFields {
    poll_mask: Mask,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    /// How long the answer to a question took.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_us: Option<u64>,
}

#[derive(Serialize)]
struct FailedFields<'a> {
    #[serde(flatten)]
    party: Party,
    failure: &'static str,
    #[serde(flatten)]
    of: Of<'a>,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<u16>,
}

#[derive(Serialize)]
struct NotFollowedFields {
    #[serde(flatten)]
    party: Party,
    reason: &'static str,
    refused: bool,
}

#[derive(Serialize)]
struct CompletedFields {
    completed: u64,
    completed_total: u64,
    interrupted_total: u64,
}

#[derive(Serialize)]
struct SaturatedFields {
    limit: &'static str,
    effect: &'static str,
}

impl<'a> InterruptedFields<'a> {
    fn of(party: Party, shown: &Shown, event: &'a Interrupted) -> InterruptedFields<'a> {
        InterruptedFields {
            party,
            of: Of {
                phase: event.phase.as_str(),
                method: event.method.as_deref(),
                target: event.target.as_deref(),
                status: event.status,
            },
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            elapsed_ms: millis(event.elapsed),
            after_ms: event.after.map(millis),
            cause: event.cause.as_str(),
            detail: event.cause.detail(),
            proof: ProofFields {
                poll_mask: Mask(shown.mask),
                errno: shown.errno.map(errno::name),
                asked_us: event.asked.map(micros),
            },
            done: event.action.as_str(),
            saved: event.saved,
        }
    }
}

impl<'a> FailedFields<'a> {
    fn of(party: Party, event: &'a UpstreamFailed) -> FailedFields<'a> {
        FailedFields {
            party,
            failure: event.failure.as_str(),
            of: Of {
                phase: event.phase.as_str(),
                method: event.method.as_deref(),
                target: event.target.as_deref(),
                status: event.status,
            },
            response_bytes: event.response_bytes,
            answered: event.answered,
        }
    }
}
