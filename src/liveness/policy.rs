//! How long silence may last: policies, their arithmetic, and what the kernel is asked to do.
//!
//! A policy has these parts: after `idle` without life a peer is probed, and has `probes` times `interval` to answer. The [detection time](Policy::detection_time) follows from these and is never
//! configured apart from them. [`Policy::keepalive`] plans TCP's own keepalive so that the kernel
//! backs the policy up without ever being faster than it.
//!
//! ```
//! use deadpeer::liveness::Policy;
//! use std::time::Duration;
//!
//! assert_eq!(Policy::STANDARD.detection_time(), Duration::from_secs(32)); // 20 s + 3 x 4 s
//! assert_eq!(Policy::STRICT.detection_time(), Duration::from_secs(7)); // 4 s + 3 x 1 s
//!
//! let hasty = Policy { idle: Duration::from_millis(1), ..Policy::STRICT };
//! assert!(hasty.check().unwrap_err().to_string().contains("at least 100ms"));
//! ```

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What counts as a proof of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heartbeat {
    /// Any byte is a sign of life.
    Bytes,
    /// A complete heartbeat frame (`docs/PROTOCOL.md`).
    Frames,
    /// An acknowledgement of the peer's kernel: its program may stay quiet without limit.
    None,
}

impl Heartbeat {
    /// The word of the command line and of events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Heartbeat::Bytes => "bytes",
            Heartbeat::Frames => "frames",
            Heartbeat::None => "none",
        }
    }
}

/// The times that a peer is judged by, and what counts as life. Build one from a preset: fields may be added.
///
/// ```
/// use deadpeer::Policy;
/// use std::time::Duration;
///
/// let policy = Policy { idle: Duration::from_secs(10), probes: 2, ..Policy::STANDARD };
/// assert_eq!(policy.check(), Ok(()));
/// assert_eq!(policy.detection_time(), Duration::from_secs(18)); // 10 s + 2 x 4 s
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What counts as a proof of life.
    pub heartbeat: Heartbeat,
    /// Silence after which a peer is suspected: 100 ms to 32,767 s (`TCP_KEEPIDLE`'s greatest).
    pub idle: Duration,
    /// Time between probes of a suspect: 50 ms to 32,767 s.
    pub interval: Duration,
    /// Probes that may go unanswered: 1 to 100.
    pub probes: u32,
    /// The time from the accept to the first proof of life: 100 ms to 32,767 s. Not used without heartbeats.
    pub handshake: Duration,
    /// How long a peer may stay half-closed: 0 to 32,767 s. With 0 its FIN is its end.
    pub half_closed_grace: Duration,
    /// `TCP_USER_TIMEOUT`: makes a peer that does not take this side's bytes die, healthy ones with a closed window
    /// included. At least the time that keepalive needs ([`Policy::check`] names it), at most 2,147,483 s. `None` in the
    /// presets.
    pub user_timeout: Option<Duration>,
}

/// A policy with a name, which promises a range for its verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// Ordinary use: a verdict after 30 to 40 s of silence.
    Standard,
    /// Demanding use: a verdict after 6 to 9 s of silence.
    Strict,
}

impl Preset {
    /// The word of the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Preset::Standard => "standard",
            Preset::Strict => "strict",
        }
    }

    /// The policy of that name.
    #[must_use]
    pub const fn policy(self) -> Policy {
        match self {
            Preset::Standard => Policy::STANDARD,
            Preset::Strict => Policy::STRICT,
        }
    }

    /// The range of silence within which it promises a verdict.
    #[must_use]
    pub const fn promise(self) -> RangeInclusive<Duration> {
        match self {
            Preset::Standard => Duration::from_secs(30)..=Duration::from_secs(40),
            Preset::Strict => Duration::from_secs(6)..=Duration::from_secs(9),
        }
    }

    /// Checks that a policy keeps the promise of this name.
    ///
    /// # Errors
    ///
    /// [`PolicyError::BreaksPromise`] when the detection time is out of the range.
    pub fn check(self, policy: &Policy) -> Result<(), PolicyError> {
        if self.promise().contains(&policy.detection_time()) {
            Ok(())
        } else {
            Err(PolicyError::BreaksPromise { preset: self, policy: *policy })
        }
    }
}

/// What the kernel is asked to do by itself, as options of `tcp(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepalivePlan {
    /// `TCP_KEEPIDLE`: the silence before the first probe, 1 to 32,767 s.
    pub idle: u32,
    /// `TCP_KEEPINTVL`: the time between two probes, 1 to 32,767 s.
    pub interval: u32,
    /// `TCP_KEEPCNT`: the number of unanswered probes that end the connection, 1 to 127.
    pub count: u32,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged; `None` leaves the kernel's own limit.
    pub user_timeout: Option<Duration>,
}

impl KeepalivePlan {
    /// The silence after which the kernel gives up. Its timers are coarse: measured from 50 ms early to 12.5 % late.
    #[must_use]
    pub fn nominal(&self) -> Duration {
        Duration::from_secs(u64::from(self.idle) + u64::from(self.interval) * u64::from(self.count))
    }
}

const MIN_IDLE: Duration = Duration::from_millis(100);
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// The greatest value of `TCP_KEEPIDLE` and `TCP_KEEPINTVL` (`MAX_TCP_KEEPIDLE`).
const MAX_SECONDS: Duration = Duration::from_secs(32_767);
/// `MAX_TCP_KEEPCNT` is 127; the plan needs some more probes than the policy.
const MAX_PROBES: u32 = 100;
const MAX_KEEPALIVE_COUNT: u32 = 127;
/// The kernel takes milliseconds in an `int`.
const MAX_USER_TIMEOUT: Duration = Duration::from_secs(2_147_483);
/// Keepalive counts in whole seconds, and must probe a quiet peer before it would be suspected.
const MIN_IDLE_FOR_KEEPALIVE: Duration = Duration::from_secs(2);

impl Policy {
    /// The greatest value of each time: 32,767 s.
    pub const LONGEST: Duration = MAX_SECONDS;

    /// A verdict after 32 s of silence. The kernel's own timers fire up to 12.5 % late, so its
    /// backup is planned at 36 s, for a promise of 40 s.
    pub const STANDARD: Policy = Policy {
        heartbeat: Heartbeat::Bytes,
        idle: Duration::from_secs(20),
        interval: Duration::from_secs(4),
        probes: 3,
        handshake: Duration::from_secs(10),
        half_closed_grace: Duration::ZERO,
        user_timeout: None,
    };

    /// A verdict after 7 s of silence, the kernel's backup at 8 s.
    pub const STRICT: Policy = Policy {
        idle: Duration::from_secs(4),
        interval: Duration::from_secs(1),
        handshake: Duration::from_secs(5),
        ..Policy::STANDARD
    };

    /// The same times with [`Heartbeat::None`]: only the peer's kernel is judged. Its program may stay quiet, as an HTTP
    /// client does while it waits for a response.
    #[must_use]
    pub const fn transport_only(self) -> Policy {
        Policy { heartbeat: Heartbeat::None, ..self }
    }

    /// Silence to suspicion. With frames the first probe has `interval` to be answered in: a quiet peer that answers
    /// is no suspect. Nothing but a beat answers the other heartbeats, so there it is `idle`.
    #[must_use]
    pub fn suspicion_time(&self) -> Duration {
        match self.heartbeat {
            Heartbeat::Bytes | Heartbeat::None => self.idle,
            Heartbeat::Frames => self.idle.saturating_add(self.interval),
        }
    }

    /// Silence to verdict: `idle + probes x interval`.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.idle.saturating_add(self.interval.saturating_mul(self.probes))
    }

    /// Checks that the parts do not contradict each other.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], whose message shows the arithmetic.
    pub fn check(&self) -> Result<(), PolicyError> {
        within("idle", self.idle, MIN_IDLE, MAX_SECONDS)?;
        within("interval", self.interval, MIN_INTERVAL, MAX_SECONDS)?;
        if self.probes == 0 || self.probes > MAX_PROBES {
            return Err(PolicyError::Probes { probes: self.probes });
        }
        within("handshake", self.handshake, MIN_IDLE, MAX_SECONDS)?;
        within("half-closed grace", self.half_closed_grace, Duration::ZERO, MAX_SECONDS)?;
        if self.heartbeat == Heartbeat::None && self.idle < MIN_IDLE_FOR_KEEPALIVE {
            return Err(PolicyError::TooFineForKeepalive { idle: self.idle });
        }
        let plan = self.keepalive();
        if plan.count > MAX_KEEPALIVE_COUNT {
            return Err(PolicyError::TooManyKeepalives { policy: *self, plan });
        }
        // tcp(7): with a user timeout set, keepalive ends a connection at the first unanswered probe
        // after it, whatever the count says. So every probe but the last must fit before it.
        if let Some(user_timeout) = self.user_timeout {
            let needed = plan.nominal() - Duration::from_secs(u64::from(plan.interval));
            if user_timeout < needed {
                return Err(PolicyError::UserTimeoutTooShort { user_timeout, needed, plan });
            }
            within("user timeout", user_timeout, needed, MAX_USER_TIMEOUT)?;
        }
        Ok(())
    }

    /// Plans the kernel's keepalive as the policy's backup.
    ///
    /// With heartbeats the first probe goes out when the peer becomes suspect, so that its answer
    /// tells a silent program from a silent machine. Without heartbeats the answers *are* the life,
    /// so a quiet peer is probed at half its idle time. Either way the kernel gives up at least a
    /// second after our own verdict: it backs the policy up and never overtakes it.
    ///
    /// A user timeout is set by itself only where the server never sends (`bytes` and `none`): there
    /// it cannot kill a healthy peer with a closed window, it is not below the keepalive's own
    /// end, so one lost probe is not fatal, and it bounds how long the kernel holds our last FIN.
    #[must_use]
    pub fn keepalive(&self) -> KeepalivePlan {
        let idle = self.keepalive_seconds();
        let interval = seconds_up(self.interval);
        let verdict = self.detection_time() + Duration::from_secs(1);
        let rest = verdict.saturating_sub(Duration::from_secs(u64::from(idle)));
        let count = seconds_up(rest).div_ceil(interval).max(1);
        let mut plan = KeepalivePlan { idle, interval, count, user_timeout: self.user_timeout };
        let silent_server = matches!(self.heartbeat, Heartbeat::Bytes | Heartbeat::None);
        if silent_server && plan.user_timeout.is_none() {
            plan.user_timeout = Some(plan.nominal());
        }
        plan
    }

    fn keepalive_seconds(&self) -> u32 {
        match self.heartbeat {
            Heartbeat::Bytes | Heartbeat::Frames => seconds_up(self.idle),
            Heartbeat::None => (self.idle.as_secs() / 2).max(1) as u32,
        }
    }

    /// `TCP_KEEPIDLE` of the [plan](Policy::keepalive): the silence after which the kernel sends its first probe.
    pub(crate) fn keepalive_idle(&self) -> Duration {
        Duration::from_secs(self.keepalive_seconds().into())
    }
}

fn within(what: &'static str, value: Duration, min: Duration, max: Duration) -> Result<(), PolicyError> {
    if value < min || value > max {
        return Err(PolicyError::OutOfRange { what, value, min, max });
    }
    Ok(())
}

/// Whole seconds, rounded up, at least one. Policies are checked to fit 32 bits.
fn seconds_up(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

/// Why a policy is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// A time is out of its range.
    OutOfRange {
        /// The name of the time.
        what: &'static str,
        /// The value that was asked for.
        value: Duration,
        /// The least value that is accepted.
        min: Duration,
        /// The greatest value that is accepted.
        max: Duration,
    },
    /// The number of probes is 0, or more than the kernel can be asked for.
    Probes {
        /// The value that was asked for.
        probes: u32,
    },
    /// The idle time is finer than keepalive, which counts whole seconds.
    TooFineForKeepalive {
        /// The value that was asked for.
        idle: Duration,
    },
    /// The kernel's count would exceed 127.
    TooManyKeepalives {
        /// The policy that was refused.
        policy: Policy,
        /// The keepalive that it needs.
        plan: KeepalivePlan,
    },
    /// One lost keepalive probe would be fatal.
    UserTimeoutTooShort {
        /// The value that was asked for.
        user_timeout: Duration,
        /// The least value that is safe.
        needed: Duration,
        /// The keepalive that it would cut short.
        plan: KeepalivePlan,
    },
    /// The parts do not add up to what the name promises.
    BreaksPromise {
        /// The name of the policy.
        preset: Preset,
        /// The policy under that name.
        policy: Policy,
    },
}

impl std::error::Error for PolicyError {}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PolicyError::OutOfRange { what, value, min, max } => {
                write!(f, "{what} of {value:?} cannot be kept: at least {min:?}, at most {max:?}")
            }
            PolicyError::Probes { probes } => {
                write!(f, "{probes} probes cannot be kept: at least 1, at most {MAX_PROBES}")
            }
            PolicyError::TooFineForKeepalive { idle } => write!(
                f,
                "idle of {idle:?} is too fine for TCP keepalive, which counts whole seconds and must ask a \
                 quiet peer before it is suspected: at least {MIN_IDLE_FOR_KEEPALIVE:?}, or take heartbeats"
            ),
            PolicyError::TooManyKeepalives { policy, plan } => write!(
                f,
                "idle {:?} + {} probes x {:?} needs {} keepalive probes of {} s, and the kernel sends at most \
                 {MAX_KEEPALIVE_COUNT}: take fewer probes or a longer interval",
                policy.idle, policy.probes, policy.interval, plan.count, plan.interval
            ),
            PolicyError::UserTimeoutTooShort { user_timeout, needed, plan } => write!(
                f,
                "user timeout of {user_timeout:?} is shorter than keepalive's {} s + {} x {} s = {needed:?}: \
                 one lost probe would kill a healthy peer; take at least {needed:?}",
                plan.idle,
                plan.count.saturating_sub(1),
                plan.interval
            ),
            PolicyError::BreaksPromise { preset, policy } => write!(
                f,
                "idle {:?} + {} probes x {:?} = {:?}, but {} promises a verdict within {:?} to {:?}: change \
                 the parts, or leave the name out",
                policy.idle,
                policy.probes,
                policy.interval,
                policy.detection_time(),
                preset.as_str(),
                preset.promise().start(),
                preset.promise().end()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_presets_keep_their_promises_also_by_the_kernels_backup() {
        for preset in [Preset::Standard, Preset::Strict] {
            for heartbeat in [Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None] {
                let policy = Policy { heartbeat, ..preset.policy() };
                assert_eq!(policy.check(), Ok(()));
                assert_eq!(preset.check(&policy), Ok(()));
                let late = policy.keepalive().nominal().mul_f64(1.125);
                assert!(late <= preset.promise().end().mul_f64(1.0125), "{preset:?} {late:?}");
            }
        }
    }

    #[test]
    fn contradictions_are_refused_with_the_arithmetic() {
        let slow = Policy { idle: Duration::from_secs(30), ..Policy::STRICT };
        let message = Preset::Strict.check(&slow).unwrap_err().to_string();
        assert!(message.contains("idle 30s + 3 probes x 1s = 33s"), "{message}");

        let fatal = Policy { user_timeout: Some(Duration::from_secs(6)), ..Policy::STRICT };
        let message = fatal.check().unwrap_err().to_string();
        assert!(message.contains("4 s + 3 x 1 s = 7s"), "{message}");

        let fine = Policy { heartbeat: Heartbeat::None, idle: Duration::from_secs(1), ..Policy::STRICT };
        assert!(matches!(fine.check(), Err(PolicyError::TooFineForKeepalive { .. })));
        assert!(Policy { probes: 0, ..Policy::STRICT }.check().is_err());
        assert!(Policy { idle: Duration::MAX, ..Policy::STRICT }.check().is_err());
        // The kernel would take it for its greatest value, and `listening` would tell another.
        let endless = Policy { user_timeout: Some(Duration::from_secs(3_000_000)), ..Policy::STRICT };
        let refused = endless.check();
        assert!(matches!(refused, Err(PolicyError::OutOfRange { what: "user timeout", .. })), "{refused:?}");
    }

    #[test]
    fn a_server_that_sends_sets_no_user_timeout_by_itself() {
        let frames = Policy { heartbeat: Heartbeat::Frames, ..Policy::STRICT };
        assert_eq!(frames.keepalive().user_timeout, None);
        assert_eq!(Policy::STRICT.keepalive().user_timeout, Some(Policy::STRICT.keepalive().nominal()));
    }

    proptest! {
        #[test]
        fn the_kernel_never_overtakes_a_policy_that_was_accepted(
            idle in 50u64..40_000_000, interval in 20u64..40_000_000, probes in 0u32..130, none: bool,
        ) {
            let heartbeat = if none { Heartbeat::None } else { Heartbeat::Bytes };
            let policy = Policy {
                heartbeat, probes,
                idle: Duration::from_millis(idle), interval: Duration::from_millis(interval),
                ..Policy::STANDARD
            };
            if policy.check().is_ok() {
                let plan = policy.keepalive();
                prop_assert!(plan.nominal() >= policy.detection_time() + Duration::from_secs(1));
                prop_assert!(plan.count <= 127 && plan.idle <= 32_767 && plan.interval <= 32_767);
                prop_assert!(plan.user_timeout.unwrap() >= plan.nominal());
                if none {
                    prop_assert!(Duration::from_secs(u64::from(plan.idle)) < policy.idle);
                }
            }
        }
    }
}
