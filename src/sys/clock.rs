//! The operating system's clocks, in nanoseconds.

/// `CLOCK_MONOTONIC`: does not jump, stops while the machine is suspended.
pub fn monotonic_nanos() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_BOOTTIME`: goes on while the machine is suspended.
pub fn boottime_nanos() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// `CLOCK_REALTIME`, for dates.
pub fn realtime_nanos() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// The length of the kernel's timer tick: 4 ms at HZ=250.
pub fn tick_nanos() -> u64 {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is ours and outlives the call, which writes it and keeps nothing.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut spec) };
    assert!(result == 0, "CLOCK_MONOTONIC_COARSE exists since Linux 2.6.32");
    nanos(spec)
}

/// Sleeps until `CLOCK_MONOTONIC` shows `at`; returns at once when that has passed.
pub fn sleep_until(at: u64) {
    let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let spec = libc::timespec { tv_sec: part(at / 1_000_000_000), tv_nsec: part(at % 1_000_000_000) };
    // SAFETY: `spec` is ours and outlives the call; no remainder is asked for with TIMER_ABSTIME.
    while unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &spec, std::ptr::null_mut())
    } == libc::EINTR
    {}
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is ours and outlives the call, which writes it and keeps nothing.
    let result = unsafe { libc::clock_gettime(clock, &mut spec) };
    assert!(result == 0, "the three clocks named above exist since Linux 2.6.39");
    nanos(spec)
}

fn nanos(spec: libc::timespec) -> u64 {
    u64::try_from(spec.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(spec.tv_nsec).unwrap_or(0)
}
