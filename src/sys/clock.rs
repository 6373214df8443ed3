//! The operating system's clocks, in nanoseconds.

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// `CLOCK_MONOTONIC`: does not jump, stops while the machine is suspended.
pub fn monotonic_nanos() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// `CLOCK_BOOTTIME`: goes on while the machine is suspended.
pub fn boottime_nanos() -> u64 {
    nanos(clock_gettime(ClockId::Boottime))
}

/// `CLOCK_REALTIME`, for dates.
pub fn realtime_nanos() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// The length of the kernel's timer tick: 4 ms at HZ=250.
pub fn tick_nanos() -> u64 {
    nanos(clock_getres(ClockId::MonotonicCoarse))
}

/// Sleeps until `CLOCK_MONOTONIC` shows `at`; returns at once when that has passed.
pub fn sleep_until(at: u64) {
    let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let at = Timespec { tv_sec: part(at / 1_000_000_000), tv_nsec: part(at % 1_000_000_000) };
    while clock_nanosleep_absolute(ClockId::Monotonic, &at) == Err(rustix::io::Errno::INTR) {}
}

fn nanos(spec: Timespec) -> u64 {
    u64::try_from(spec.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(spec.tv_nsec).unwrap_or(0)
}
