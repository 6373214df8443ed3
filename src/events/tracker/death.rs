//! `died`: the fields, the proof and the sentence of a death. A new cause has its sentence here.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::events::human::{Count, Span};
use crate::events::json::{Errno, Mask, is_false, micros, millis};
use crate::limits::HISTORY;
use crate::liveness::{Cause, Death, Hop, LocalCause, Proof, Step, Transition, Transport};
use crate::time::Instant;

#[derive(Serialize)]
pub(super) struct DiedFields<'a> {
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    silent_ms: u64,
    lived_ms: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_us: Option<u64>,
    proof: ProofFields,
    history: HistoryFields<'a>,
}

impl DiedFields<'_> {
    pub(super) fn of(death: &Death) -> DiedFields<'_> {
        DiedFields {
            cause: death.cause.as_str(),
            detail: death.cause.detail(),
            silent_ms: millis(death.silent_for()),
            lived_ms: millis(death.at.since(death.accepted_at)),
            bytes: death.bytes,
            late_us: death.lateness().map(micros),
            proof: ProofFields::of(&death.proof, death.at),
            history: HistoryFields(&death.history),
        }
    }
}

#[derive(Serialize)]
struct ProofFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<Errno>,
    poll_mask: Mask,
    #[serde(skip_serializing_if = "Option::is_none")]
    so_error: Option<Errno>,
    tcp: TcpFields,
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_error: Option<&'static str>,
    #[serde(skip_serializing_if = "is_false")]
    bye: bool,
    #[serde(skip_serializing_if = "is_false")]
    outage: bool,
    last_life_ns: u64,
    verdict_ns: u64,
}

impl ProofFields {
    fn of(proof: &Proof, verdict: Instant) -> ProofFields {
        let evidence = &proof.evidence;
        ProofFields {
            errno: proof.errno.map(Errno),
            poll_mask: Mask(evidence.mask.0),
            so_error: evidence.so_error.map(Errno),
            tcp: TcpFields {
                state: evidence.tcp_state.as_str(),
                unacked: evidence.unacked,
                retransmits: evidence.retransmits,
                backoff: evidence.backoff,
                probes: evidence.probes,
                last_ack_recv_ms: evidence.last_ack_ms,
                last_data_recv_ms: evidence.last_data_ms,
                notsent_bytes: evidence.notsent,
                rtt_us: evidence.rtt_us,
            },
            transport: proof.transport.as_str(),
            frame_error: proof.frame.map(|error| error.as_str()),
            bye: proof.bye,
            outage: proof.outage,
            last_life_ns: proof.last_life.as_nanos(),
            verdict_ns: verdict.as_nanos(),
        }
    }
}

#[derive(Serialize)]
struct TcpFields {
    state: &'static str,
    unacked: u32,
    retransmits: u8,
    backoff: u8,
    probes: u8,
    last_ack_recv_ms: u32,
    last_data_recv_ms: u32,
    notsent_bytes: u32,
    rtt_us: u32,
}

struct HistoryFields<'a>(&'a [Option<Transition>; HISTORY]);

impl Serialize for HistoryFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flatten().map(|transition| {
            let step = transition.step();
            TransitionFields {
                at_ns: transition.at().as_nanos(),
                step: step.as_str(),
                cause: match step {
                    Step::Died(cause) => Some(cause.as_str()),
                    Step::Up | Step::Suspected | Step::Doubted | Step::Recovered | Step::HalfClosed => None,
                },
            }
        }))
    }
}

#[derive(Serialize)]
struct TransitionFields {
    at_ns: u64,
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
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
