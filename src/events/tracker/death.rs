//! `died`: the fields, the proof and the sentence of a death. A new cause has its sentence here.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::events::body::{Body, Shown};
use crate::events::human::{Count, Span};
use crate::events::json::{Errno, micros, millis};
use crate::liveness::{Cause, Death, Hop, LocalCause, Transport};

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
pub(super) struct Sentence<'a>(pub(super) &'a Death);

impl Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sentence(death) = *self;
        let (proof, evidence) = (&death.proof, &death.proof.evidence);
        let silent = Span(death.silent_for());
        let errno = MaybeErrno(proof.errno.or(evidence.so_error.filter(|&errno| errno != 0)));
        match death.cause {
            Cause::Closed if proof.bye => write!(f, "said goodbye (BYE)")?,
            Cause::Closed => write!(f, "hung up (FIN)")?,
            Cause::Aborted => match errno {
                MaybeErrno(None) => write!(f, "reset the connection (RST)")?,
                errno => write!(f, "reset the connection{errno}")?,
            },
            Cause::HeartbeatExpired => {
                write!(f, "silent {silent}, program silent, ")?;
                match proof.transport {
                    Transport::Answering => {
                        let ack = Span(Duration::from_millis(u64::from(evidence.last_ack_ms)));
                        write!(f, "kernel answering (last ack {ack} ago)")?;
                    }
                    Transport::Silent => write!(f, "kernel silent too{}", Unanswered(death))?,
                    Transport::Unasked => write!(f, "kernel not asked")?,
                }
            }
            Cause::KeepaliveExpired if proof.errno.is_some() => {
                write!(f, "silent {silent}, its kernel answered no keepalive{errno}")?;
            }
            Cause::KeepaliveExpired => {
                write!(f, "silent {silent}, its kernel does not answer{}", Unanswered(death))?;
            }
            Cause::UserTimeout => {
                write!(f, "did not acknowledge what we sent{errno}")?;
            }
            Cause::Unreachable(Hop::Host) => write!(f, "its host cannot be reached{errno}")?,
            Cause::Unreachable(Hop::Net) => write!(f, "its network cannot be reached{errno}")?,
            Cause::HandshakeExpired => {
                write!(f, "connected and did not speak for {silent}")?;
                if death.bytes > 0 {
                    write!(f, " (no complete heartbeat)")?;
                }
            }
            Cause::Protocol => match proof.frame {
                Some(error) => write!(f, "sent what is no heartbeat: {error}")?,
                None => write!(f, "sent what is no heartbeat")?,
            },
            Cause::Local(LocalCause::Destroyed) => write!(f, "killed on this machine, as by ss -K{errno}")?,
            Cause::Local(LocalCause::Shutdown) => write!(f, "our own side was shut down{errno}")?,
            Cause::Local(LocalCause::Replaced) => {
                write!(f, "replaced by a newer connection of its identity")?
            }
            Cause::Local(LocalCause::Unwatchable) => {
                write!(f, "could not be watched: our fault, not the peer's{errno}")?;
            }
        }
        if proof.outage {
            write!(f, "; half of all peers are silent, so rather a path than this peer")?;
        }
        write!(f, "; lived {}, {}", Span(death.at.since(death.accepted_at)), Count(death.bytes, "byte"))
    }
}

/// ` (ECONNRESET)`, or nothing.
struct MaybeErrno(Option<i32>);

impl Display for MaybeErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(errno) => write!(f, " ({})", Errno(errno)),
            None => Ok(()),
        }
    }
}

/// ` (3 probes and 2 retransmissions unanswered)`, or nothing.
struct Unanswered<'a>(&'a Death);

impl Display for Unanswered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evidence = &self.0.proof.evidence;
        match (u64::from(evidence.probes), u64::from(evidence.retransmits)) {
            (0, 0) => Ok(()),
            (probes, 0) => write!(f, " ({} unanswered)", Count(probes, "probe")),
            (0, retransmits) => write!(f, " ({} unanswered)", Count(retransmits, "retransmission")),
            (probes, retransmits) => write!(
                f,
                " ({} and {} unanswered)",
                Count(probes, "probe"),
                Count(retransmits, "retransmission")
            ),
        }
    }
}
