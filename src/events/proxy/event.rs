//! The events between the first line and the last one. A new event has its name, its colour, its fields and its
//! sentence here.

use super::record::{Closing, Listening};
use crate::events::body::{Body, Shown};
use crate::events::counters::Totals;
use crate::events::encoder::{DROPPED, Encoder, Kind, Stream};
use crate::events::human::{Colour, Count, Span};
use crate::events::json::{SATURATED, micros, millis};
use crate::events::start::{list, shown};
use crate::liveness::errno;
use crate::proxy::{
    Answered, Asked, Counts, Failure, Interrupted, Line, ProxyEvent, ProxyFault, Refusal, Shown as Seen,
    Sign, UpstreamAction, UpstreamFailed,
};
use crate::safe_text::Safe;

/// Writes the events of the proxy.
pub type ProxyEncoder = Encoder<ProxyStream>;

/// The events of the proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProxyStream;

impl Stream for ProxyStream {
    const NAMES: &'static [&'static str] = &[
        "completed",
        "interrupted",
        "upstream_failed",
        "answered",
        "upstream_down",
        "upstream_up",
        "resolved",
        "not_resolved",
        "not_followed",
        "header_refused",
        "draining",
        "stall",
        "saturated",
        "resumed",
        "events_dropped",
    ];
    type Opening = Listening;
    type Event = Line;
    type Closing = Closing;
    type Counts = Counts;

    /// The name of an event, its colour, and the word that it is counted by if it is routine.
    fn kind(line: &Line) -> Kind {
        let (name, at, colour, routine) = match line {
            Line::Told { at, told, .. } => match told {
                ProxyEvent::Interrupted(_) => ("interrupted", *at, Colour::Yellow, None),
                ProxyEvent::UpstreamFailed(_) => ("upstream_failed", *at, Colour::Red, None),
                ProxyEvent::Answered(_) => ("answered", *at, Colour::Yellow, None),
                ProxyEvent::HeaderRefused(_) => ("header_refused", *at, Colour::Yellow, None),
                ProxyEvent::NotFollowed { .. } => ("not_followed", *at, Colour::Cyan, Some("not_followed")),
                ProxyEvent::Completed => ("completed", *at, Colour::Green, Some("completed")),
            },
            // For people, completed exchanges are in the status line alone.
            Line::Completed { at, .. } => ("completed", *at, Colour::Green, Some("completed")),
            Line::Upstream { at, failure: Some(_), .. } => ("upstream_down", *at, Colour::Red, None),
            Line::Upstream { at, failure: None, .. } => ("upstream_up", *at, Colour::Green, None),
            Line::Draining { at, .. } => ("draining", *at, Colour::Cyan, None),
            Line::Resolved { at, error: None, .. } => ("resolved", *at, Colour::Cyan, None),
            Line::Resolved { at, error: Some(_), .. } => ("not_resolved", *at, Colour::Red, None),
            Line::Stall { at, .. } => ("stall", *at, Colour::Magenta, None),
            Line::Saturated { at, .. } => ("saturated", *at, Colour::Magenta, None),
            Line::Resumed { at } => ("resumed", *at, Colour::Green, None),
            Line::Dropped { at, .. } => (DROPPED, *at, Colour::Magenta, None),
        };
        Kind { name, at, colour, routine }
    }

    fn describe(&mut self, ring: usize, line: &Line, body: &mut Body<'_>) {
        body.field("thread", ring);
        match line {
            Line::Told { parties, shown, told, .. } => {
                let (client, upstream) = (&parties.client, &parties.upstream);
                body.field("client", Shown(client)).maybe("upstream", upstream.as_ref().map(Shown));
                match told {
                    ProxyEvent::Interrupted(event) => {
                        body.text(format_args!("{client}"));
                        interrupted(event, shown, body);
                    }
                    ProxyEvent::UpstreamFailed(event) => {
                        match upstream {
                            Some(upstream) => {
                                body.text(format_args!("{upstream} {}", event.failure.as_str()))
                            }
                            None => body.text(format_args!("no upstream: {}", event.failure.as_str())),
                        };
                        upstream_failed(event, body);
                        match event.answered {
                            Some(status) => body.text(format_args!(": {client} was answered {status}")),
                            None => body.text(format_args!(": {client} was cut off")),
                        };
                    }
                    ProxyEvent::Answered(event) => {
                        body.text(format_args!("{client}"));
                        answered(event, body);
                    }
                    ProxyEvent::HeaderRefused(fault) => {
                        let why = match fault {
                            ProxyFault::Missing => "does not begin with a PROXY header",
                            ProxyFault::Malformed => "begins with a PROXY header that cannot be read",
                            ProxyFault::TooLong => "begins with too long a PROXY header",
                            ProxyFault::Timeout => "did not send its PROXY header in time",
                            ProxyFault::RequestMemory => "found the memory for requests used up",
                        };
                        body.field("reason", fault.as_str()).text(format_args!("{client} {why}: reset"));
                    }
                    ProxyEvent::NotFollowed { reason, refused } => {
                        let what = if *refused { "refused" } else { "relayed as it is" };
                        body.field("reason", reason.as_str())
                            .field("refused", refused)
                            .text(format_args!("{client} ({reason}): {what}"));
                    }
                    ProxyEvent::Completed => {} // counted, and reported once a second
                }
            }
            Line::Completed { completed, completed_total, interrupted_total, .. } => {
                body.field("completed", completed)
                    .field("completed_total", completed_total)
                    .field("interrupted_total", interrupted_total);
            }
            Line::Upstream { upstream, failure, sign, .. } => {
                body.field("upstream", Shown(upstream))
                    .maybe("failure", failure.map(Failure::as_str))
                    .field("reason", sign.as_str());
                match failure {
                    Some(failure) if *sign == Sign::Check => body.text(format_args!(
                        "{upstream} {}: it gets no requests until its checks pass",
                        failure.as_str()
                    )),
                    Some(failure) => body.text(format_args!(
                        "{upstream} {}: it is tried by one connection at a time, after growing pauses",
                        failure.as_str()
                    )),
                    None => body.text(format_args!("{upstream} answers again")),
                };
            }
            Line::Draining { exchanges, tunnels, idle, .. } => {
                let (exchange, tunnel) = (Count(*exchanges, "exchange"), Count(*tunnels, "tunnel"));
                body.field("exchanges", exchanges).field("tunnels", tunnels).field("idle", idle);
                if exchanges + tunnels + idle > 0 {
                    body.text(format_args!("{exchange} and {tunnel} under way, {idle} idle"));
                }
            }
            Line::Resolved { name, addresses, error, .. } => {
                body.field("name", name).field("addresses", shown(addresses)).maybe("error", error.as_ref());
                let list = list(addresses);
                match error {
                    None => body.text(format_args!("{name}: {list}")),
                    Some(error) => body.text(format_args!("{name}: {error}; it stays at {list}")),
                };
            }
            Line::Stall { held, .. } => {
                body.field("held_ms", millis(*held))
                    .text(format_args!("our own loop was held up for {}", Span(*held)));
            }
            Line::Saturated { limit, .. } => {
                body.field("limit", limit)
                    .field("effect", SATURATED)
                    .text(format_args!("{limit}: new connections wait"));
            }
            Line::Resumed { .. } => {
                body.text(format_args!("accepting again"));
            }
            Line::Dropped { dropped, during, .. } => {
                body.field("dropped", dropped)
                    .field("during_ms", millis(*during))
                    .text(format_args!("{dropped} in {}: the output took none", Span(*during)));
            }
        }
    }

    /// Clients, and what became of their exchanges.
    fn totals(counts: &Counts) -> Totals {
        let answered = counts.answered.iter().sum();
        [counts.open, counts.completed, counts.interrupted, counts.upstream_failed, answered]
    }

    fn status(&[open, completed, interrupted, failed, answered]: &Totals, rates: &[f64; 5]) -> String {
        let [_, completing, interrupting, ..] = rates;
        format!(
            "{open} open, {completed} completed (+{completing:.0}/s), {interrupted} interrupted (+{interrupting:.0}/s), \
             {failed} upstream failures, {answered} answered here"
        )
    }
}

fn interrupted(event: &Interrupted, seen: &Seen, body: &mut Body<'_>) {
    let phase = event.phase.as_str();
    request(phase, event.method.as_deref(), event.target.as_deref(), event.status, body);
    body.field("request_bytes", event.request_bytes)
        .field("response_bytes", event.response_bytes)
        .field("elapsed_ms", millis(event.elapsed))
        .maybe("after_ms", event.after.map(millis))
        .field("cause", event.cause.as_str())
        .maybe("detail", event.cause.detail())
        .object("proof", |body| {
            body.field("poll_mask", Shown(format_args!("{:#x}", seen.mask)))
                .maybe("errno", seen.errno.map(errno::name))
                .maybe("asked_us", event.asked.map(|asked| micros(asked.ago)))
                .maybe("acknowledged", event.asked.map(|asked| asked.acknowledged));
        })
        .field("done", event.action.as_str())
        .field("saved", event.saved);
    body.text(format_args!(" while {phase} after {:.1?}", event.elapsed));
    if let Some(after) = event.after {
        body.text(format_args!(", {} bytes and {after:.1?} into the response", event.response_bytes));
    }
    let action = match event.action {
        UpstreamAction::Nothing => "the upstream had not been asked",
        UpstreamAction::Reset => "upstream reset",
        UpstreamAction::Close => "upstream closed",
        UpstreamAction::Ignored => "the upstream works on",
    };
    body.text(format_args!(": {}", event.cause));
    if let Some(Asked { ago, acknowledged }) = event.asked {
        let answer = if acknowledged { " that its kernel had acknowledged" } else { "" };
        body.text(format_args!(", {} us after a question of ours{answer}", micros(ago)));
    }
    body.text(format_args!("; {action}"));
}

fn answered(event: &Answered, body: &mut Body<'_>) {
    request(event.phase.as_str(), event.method.as_deref(), event.target.as_deref(), None, body);
    let status = event.refusal.status();
    let why = match event.refusal {
        Refusal::HeadTimeout => "its head did not come in time",
        Refusal::BodyTimeout => "its body stood still for too long",
        Refusal::HeadTooLarge => "its head has more than 64 KiB or 128 fields",
        Refusal::RequestMemory => "the memory for requests is used up",
        Refusal::AmbiguousRequest => "it could be read in two ways",
        Refusal::AmbiguousResponse => "its response could be read in two ways",
    };
    body.field("request_bytes", event.request_bytes)
        .field("reason", event.refusal.as_str())
        .field("answered", status)
        .text(format_args!(" was answered {status}: {why}"));
}

fn upstream_failed(event: &UpstreamFailed, body: &mut Body<'_>) {
    let phase = event.phase.as_str();
    body.field("failure", event.failure.as_str());
    request(phase, event.method.as_deref(), event.target.as_deref(), event.status, body);
    body.field("response_bytes", event.response_bytes)
        .maybe("answered", event.answered)
        .text(format_args!(" while {phase}"));
}

fn request(
    phase: &str,
    method: Option<&str>,
    target: Option<&str>,
    status: Option<u16>,
    body: &mut Body<'_>,
) {
    body.field("phase", phase).maybe("method", method).maybe("target", target).maybe("status", status);
    if let (Some(method), Some(target)) = (method, target) {
        body.text(format_args!(" {} {}", Safe(method), Safe(target)));
    }
}
