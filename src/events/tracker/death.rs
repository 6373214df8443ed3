//! `died`: the fields, the proof and the sentence of a death. A new cause has its sentence here.

use std::time::Duration;

use crate::events::body::{Body, Shown};
use crate::events::human::{Count, Span};
use crate::events::json::{Errno, micros, millis};
use crate::liveness::{Cause, Death, Evidence, Hop, LocalCause, Transport};

/// Appends the fields of a death.
pub(super) fn fields(death: &Death, body: &mut Body<'_>) {
    let (proof, evidence) = (&death.proof, &death.proof.evidence);
    body.field("cause", death.cause.as_str())
        .maybe("detail", death.cause.detail())
        .field("silent_ms", millis(death.silent_for()))
        .field("lived_ms", millis(death.at.since(death.accepted_at)))
        .field("bytes", death.bytes)
        .maybe("late_us", death.lateness().map(micros))
        .object("proof", |body| {
            body.maybe("errno", proof.errno.map(|errno| Shown(Errno(errno))))
                .field("poll_mask", Shown(format_args!("{:#x}", evidence.mask.0)))
                .maybe("so_error", evidence.so_error.map(|errno| Shown(Errno(errno))))
                .object("tcp", |body| {
                    body.field("state", evidence.tcp_state.as_str())
                        .field("unacked", evidence.unacked)
                        .field("retransmits", evidence.retransmits)
                        .field("backoff", evidence.backoff)
                        .field("probes", evidence.probes)
                        .field("last_ack_recv_ms", evidence.last_ack_ms)
                        .field("last_data_recv_ms", evidence.last_data_ms)
                        .field("notsent_bytes", evidence.notsent)
                        .field("rtt_us", evidence.rtt_us);
                })
                .field("transport", proof.transport.as_str())
                .maybe("frame_error", proof.frame.map(|error| error.as_str()))
                .maybe("bye", proof.bye.then_some(true))
                .maybe("outage", proof.outage.then_some(true))
                .field("last_life_ns", proof.last_life.as_nanos())
                .field("verdict_ns", death.at.as_nanos());
        })
        .list("history", death.history.iter().flatten(), |transition, body| {
            let step = transition.step();
            body.field("at_ns", transition.at().as_nanos())
                .field("step", step.as_str())
                .maybe("cause", step.cause().map(Cause::as_str));
        });
}

/// Why a peer counts as dead, in words of TCP.
pub(super) fn sentence(death: &Death) -> String {
    let (proof, evidence) = (&death.proof, &death.proof.evidence);
    let silent = Span(death.silent_for());
    let errno = proof.errno.or(evidence.so_error.filter(|&errno| errno != 0));
    let errno = errno.map_or_else(String::new, |errno| format!(" ({})", Errno(errno)));
    let mut text = match death.cause {
        Cause::Closed if proof.bye => "said goodbye (BYE)".to_owned(),
        Cause::Closed => "hung up (FIN)".to_owned(),
        Cause::Aborted if errno.is_empty() => "reset the connection (RST)".to_owned(),
        Cause::Aborted => format!("reset the connection{errno}"),
        Cause::HeartbeatExpired => {
            let kernel = match proof.transport {
                Transport::Answering => {
                    let ack = Span(Duration::from_millis(u64::from(evidence.last_ack_ms)));
                    format!("answering (last ack {ack} ago)")
                }
                Transport::Silent => format!("silent too{}", unanswered(evidence)),
                Transport::Unasked => "not asked".to_owned(),
            };
            format!("silent {silent}, program silent, kernel {kernel}")
        }
        Cause::KeepaliveExpired if proof.errno.is_some() => {
            format!("silent {silent}, its kernel answered no keepalive{errno}")
        }
        Cause::KeepaliveExpired => {
            format!("silent {silent}, its kernel does not answer{}", unanswered(evidence))
        }
        Cause::UserTimeout => format!("did not acknowledge what we sent{errno}"),
        Cause::Unreachable(Hop::Host) => format!("its host cannot be reached{errno}"),
        Cause::Unreachable(Hop::Net) => format!("its network cannot be reached{errno}"),
        Cause::HandshakeExpired => {
            let incomplete = if death.bytes > 0 { " (no complete heartbeat)" } else { "" };
            format!("connected and did not speak for {silent}{incomplete}")
        }
        Cause::Protocol => {
            let fault = proof.frame.map_or_else(String::new, |error| format!(": {error}"));
            format!("sent what is no heartbeat{fault}")
        }
        Cause::Local(LocalCause::Destroyed) => format!("killed on this machine, as by ss -K{errno}"),
        Cause::Local(LocalCause::Shutdown) => format!("our own side was shut down{errno}"),
        Cause::Local(LocalCause::Replaced) => "replaced by a newer connection of its identity".to_owned(),
        Cause::Local(LocalCause::SendTimeout) => "took nothing of what was sent for too long".to_owned(),
        Cause::Local(LocalCause::Unwatchable) => {
            format!("could not be watched: our fault, not the peer's{errno}")
        }
    };
    if proof.outage {
        text.push_str("; half of all peers are silent, so rather a path than this peer");
    }
    let (lived, bytes) = (Span(death.at.since(death.accepted_at)), Count(death.bytes, "byte"));
    format!("{text}; lived {lived}, {bytes}")
}

/// ` (3 probes and 2 retransmissions unanswered)`, or nothing.
fn unanswered(evidence: &Evidence) -> String {
    let sent = [(evidence.probes, "probe"), (evidence.retransmits, "retransmission")].into_iter();
    let sent = sent.filter(|&(count, _)| count > 0);
    let sent: Vec<_> = sent.map(|(count, what)| Count(u64::from(count), what).to_string()).collect();
    if sent.is_empty() { String::new() } else { format!(" ({} unanswered)", sent.join(" and ")) }
}
