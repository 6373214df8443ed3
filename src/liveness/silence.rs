//! The judge of silence, and the causes that are inferred: the same for the tracker, the watch and the proxy.
//!
//! A silence begins with the last proof of life and is measured against the times of a [`Policy`]. Own stalls
//! are not counted ([`Stalls`]). What ends a socket is read from an errno where there is one
//! ([`cause_of_errno`], [`cause_of_close`]), and inferred from `TCP_INFO` where the program took the error or will
//! take it ([`infer_cause`]).

use std::time::Duration;

use super::errno::{self, Meaning};
use super::event::Transport;
use super::fact::Evidence;
use super::policy::{Heartbeat, Policy};
use super::stalls::Stalls;
use super::state::{Cause, Hop, LocalCause};
use crate::time::Instant;

/// The kernel's keepalive timer is coarse and an answer takes time: a probe counts as unanswered this long after
/// `TCP_KEEPIDLE`.
const KEEPALIVE_LATENESS: Duration = Duration::from_millis(500);

/// Unread bytes, from this number on, are more than heartbeats leave: the receive window may be full, and then it is
/// this side that keeps the peer from speaking.
pub(crate) const HEAP_BYTES: u64 = 4_096;

/// Retransmissions in a row without an answer that put a path in doubt. One may be under way.
const UNANSWERED_RETRANSMITS: u8 = 2;
/// Keepalive probes in a row without an answer. One may be under way.
const UNANSWERED_PROBES: u8 = 2;
/// Probes of a closed window in a row without an answer. They are up to two minutes apart, so one may be lost and
/// another one under way.
const UNANSWERED_WINDOW_PROBES: u8 = 3;

/// A silence that goes on, and the times that it is measured by.
#[derive(Clone, Copy)]
pub(crate) struct Silence<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) stalls: &'a Stalls,
    /// The last proof of life.
    pub(crate) last_life: Instant,
}

impl<'a> Silence<'a> {
    /// The silence of a peer's kernel: it began with the last segment that came.
    #[cfg(any(feature = "proxy", test))]
    pub(crate) fn of_kernel(policy: &'a Policy, stalls: &'a Stalls, evidence: &Evidence) -> Silence<'a> {
        Silence { policy, stalls, last_life: heard(evidence) }
    }

    /// The end of the idle time: from then on the peer is probed.
    pub(crate) fn missed_at(&self) -> Instant {
        self.after(self.policy.idle)
    }

    /// When the peer becomes suspect.
    pub(crate) fn suspect_at(&self) -> Instant {
        self.after(self.policy.suspicion_time())
    }

    /// When probe `number` is due, counted from 0.
    pub(crate) fn probe_at(&self, number: u8) -> Instant {
        self.after(self.policy.idle + self.policy.interval * u32::from(number))
    }

    /// The deadline: the end of the detection time.
    pub(crate) fn expires_at(&self) -> Instant {
        self.after(self.policy.detection_time())
    }

    fn after(&self, time: Duration) -> Instant {
        self.stalls.put_off(self.last_life, time)
    }

    /// Whether the silence has lasted the detection time, and the peer's kernel was asked meanwhile and did not answer.
    pub(crate) fn is_of_a_dead_kernel(&self, evidence: &Evidence, now: Instant) -> bool {
        now >= self.expires_at() && is_unanswered(evidence)
    }

    /// What the peer's kernel did while its program was silent. `pinged`: this side has sent a PING since.
    pub(crate) fn transport(
        &self,
        cause: Cause,
        evidence: &Evidence,
        pinged: bool,
        now: Instant,
    ) -> Transport {
        match cause {
            Cause::Closed | Cause::Aborted | Cause::Protocol => Transport::Answering,
            Cause::KeepaliveExpired | Cause::UserTimeout | Cause::Unreachable(_) => Transport::Silent,
            Cause::HeartbeatExpired | Cause::HandshakeExpired => {
                // Nothing is asked before the idle time has passed; an acknowledgement soon after the last life
                // belongs to what was sent until then.
                let late = self.policy.interval.min(self.policy.idle);
                // A PING behind a closed window has not left and asks nothing, and keepalive rests then.
                let left = evidence.notsent == 0;
                let asked_after = self.policy.keepalive_idle() + KEEPALIVE_LATENESS;
                let kernel_asked = evidence.probes > 0
                    || evidence.retransmits > 0
                    || (left && evidence.unacked == 0 && now.since(heard(evidence)) >= asked_after);
                if evidence.last_ack.since(self.last_life) >= late {
                    Transport::Answering
                } else if kernel_asked || (pinged && left) {
                    Transport::Silent
                } else {
                    Transport::Unasked
                }
            }
            Cause::Local(_) => Transport::Unasked,
        }
    }
}

/// The cause of a deadline that has passed, by what counts as life.
pub(crate) const fn cause_of_silence(heartbeat: Heartbeat) -> Cause {
    match heartbeat {
        Heartbeat::Bytes | Heartbeat::Frames => Cause::HeartbeatExpired,
        Heartbeat::None => Cause::KeepaliveExpired,
    }
}

/// The last segment that came, of whatever kind.
fn heard(evidence: &Evidence) -> Instant {
    evidence.last_ack.max(evidence.last_data)
}

/// Whether what this side sent is repeated without an answer.
///
/// By the count and not by `backoff`, which an ICMP error takes back (RFC 6069): a path that reports itself broken
/// would look whole. What cannot leave this machine at all has no such count.
pub(crate) fn is_in_doubt(evidence: &Evidence) -> bool {
    evidence.unacked > 0 && evidence.retransmits >= UNANSWERED_RETRANSMITS
}

fn is_unanswered(evidence: &Evidence) -> bool {
    let probes = if evidence.notsent > 0 { UNANSWERED_WINDOW_PROBES } else { UNANSWERED_PROBES };
    evidence.probes >= probes || evidence.retransmits >= UNANSWERED_RETRANSMITS
}

/// The cause of a socket that ended with `errno` (positive), as `recv`, `send` or `SO_ERROR` gave it.
pub(crate) fn cause_of_errno(errno: i32, evidence: &Evidence) -> Cause {
    match errno::meaning(errno) {
        Meaning::Reset => Cause::Aborted,
        Meaning::TimedOut => cause_of_timeout(evidence),
        Meaning::HostUnreachable => Cause::Unreachable(Hop::Host),
        Meaning::NetUnreachable => Cause::Unreachable(Hop::Net),
        Meaning::LocalAbort => Cause::Local(LocalCause::Destroyed),
        Meaning::Again | Meaning::Resources | Meaning::Cancelled | Meaning::Fault => {
            Cause::Local(LocalCause::Unwatchable)
        }
    }
}

/// The cause of a socket in CLOSE although `recv` gave no error: by `SO_ERROR` if it is still there, otherwise a reset
/// whose error was taken before.
pub(crate) fn cause_of_close(evidence: &Evidence) -> Cause {
    match evidence.so_error {
        Some(errno) if errno != 0 => cause_of_errno(errno, evidence),
        _ => Cause::Aborted,
    }
}

/// The cause of a socket in CLOSE whose error belongs to the program and is not read. `finished`: this side's own
/// FIN was acknowledged.
pub(crate) fn infer_cause(evidence: &Evidence, policy: &Policy, finished: bool, now: Instant) -> Cause {
    if finished {
        return Cause::Closed;
    }
    let plan = policy.keepalive();
    let limit = policy.user_timeout.map_or(plan.nominal(), |user| user.min(plan.nominal()));
    let asked = evidence.probes > 0 || evidence.retransmits > 0;
    // The kernel's timers may be a little early, and the ages are whole ticks.
    if asked && now.since(heard(evidence)) >= limit.mul_f64(0.9) {
        cause_of_timeout(evidence)
    } else {
        Cause::Aborted
    }
}

/// Keepalive rests while anything of ours is out or waits to go. When the kernel gives up it throws that away, and
/// `unacked` with it, but not the counts: of repetitions where it had left, of bytes where it had not (no route, or a
/// closed window).
fn cause_of_timeout(evidence: &Evidence) -> Cause {
    if evidence.retransmits > 0 || evidence.notsent > 0 {
        Cause::UserTimeout
    } else {
        Cause::KeepaliveExpired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    fn silent(evidence: Evidence, seconds: u64) -> bool {
        let stalls = Stalls::default();
        let evidence = Evidence { last_ack: START, last_data: START, ..evidence };
        let silence = Silence::of_kernel(&Policy::STRICT, &stalls, &evidence);
        silence.is_of_a_dead_kernel(&evidence, START + Duration::from_secs(seconds))
    }

    #[test]
    fn a_kernel_is_dead_when_it_was_asked_and_was_silent_for_the_detection_time() {
        let asked = Evidence { probes: 2, ..Evidence::default() };
        assert!(silent(asked, 7) && !silent(asked, 6));
        let repeated = Evidence { retransmits: 2, unacked: 1, ..Evidence::default() };
        assert!(silent(repeated, 7));
        assert!(!silent(Evidence::default(), 1_000), "nothing was asked");
        assert!(!silent(Evidence { probes: 1, ..Evidence::default() }, 1_000), "the probe is under way");
        let window = |probes| Evidence { probes, notsent: 9, ..Evidence::default() };
        assert!(!silent(window(2), 1_000), "one lost, one under way");
        assert!(silent(window(3), 7));
    }

    #[test]
    fn a_stall_of_the_loop_puts_the_death_of_a_kernel_off() {
        let mut stalls = Stalls::default();
        stalls.add(START + Duration::from_secs(1), START + Duration::from_secs(6));
        let evidence = Evidence { probes: 4, last_ack: START, ..Evidence::default() };
        let silence = Silence::of_kernel(&Policy::STRICT, &stalls, &evidence);
        assert!(!silence.is_of_a_dead_kernel(&evidence, START + Duration::from_secs(11)));
        assert!(silence.is_of_a_dead_kernel(&evidence, START + Duration::from_secs(12)));
    }

    #[test]
    fn a_timeout_is_told_by_what_was_under_way() {
        let idle = Evidence::default();
        assert_eq!(cause_of_errno(libc::ETIMEDOUT, &idle), Cause::KeepaliveExpired);
        let sent = Evidence { retransmits: 5, ..idle };
        assert_eq!(cause_of_errno(libc::ETIMEDOUT, &sent), Cause::UserTimeout);
        let waits = Evidence { notsent: 1, ..idle };
        assert_eq!(cause_of_errno(libc::ETIMEDOUT, &waits), Cause::UserTimeout);
        assert_eq!(cause_of_errno(libc::EPIPE, &sent), Cause::Aborted);
        assert_eq!(cause_of_errno(libc::ECONNABORTED, &idle), Cause::Local(LocalCause::Destroyed));
        assert_eq!(cause_of_close(&Evidence { so_error: Some(0), ..idle }), Cause::Aborted);
        assert_eq!(
            cause_of_close(&Evidence { so_error: Some(libc::EHOSTUNREACH), ..idle }),
            Cause::Unreachable(Hop::Host)
        );
    }
}
