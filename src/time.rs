//! Time: an instant of our own, and the only place that reads the operating system's clocks.
//!
//! Everything that judges takes `now` as an argument, so that a simulator can hand it any hour it
//! likes. [`Instant`] counts nanoseconds of `CLOCK_MONOTONIC`; a step of the wall clock cannot
//! reach it. [`WallClock`] turns an instant into a date for people, and for nothing else.
//!
//! ```
//! use deadpeer::time::Instant;
//! use std::time::Duration;
//!
//! let start = Instant::from_nanos(1_000);
//! let later = start + Duration::from_micros(3);
//! assert_eq!(later.as_nanos(), 4_000);
//! assert_eq!(later.since(start), Duration::from_micros(3));
//! assert_eq!(start.since(later), Duration::ZERO); // never negative
//! ```

use std::ops::{Add, Sub};
use std::time::Duration;

use crate::sys::clock;

/// A point on `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock (boot, on Linux).
    pub const ZERO: Instant = Instant(0);
    /// Later than every instant that can be reached: 584 years after boot.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// An instant from a count of nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since [`Instant::ZERO`].
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since [`Instant::ZERO`], rounded down.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Reads `CLOCK_MONOTONIC`, which stands still while the machine is suspended.
    #[must_use]
    pub fn now() -> Instant {
        Instant(clock::monotonic_nanos())
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// The instant `after` later; at most [`Instant::NEVER`].
    fn add(self, after: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(after)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// The instant `before` earlier; at least [`Instant::ZERO`].
    fn sub(self, before: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(before)))
    }
}

/// Sleeps until `at`; returns at once when that has passed.
pub fn sleep_until(at: Instant) {
    clock::sleep_until(at.as_nanos());
}

/// A duration in nanoseconds, saturating after 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The relation between the monotonic clock and the date, read once a batch of events.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    realtime_at_zero: i128,
}

impl WallClock {
    /// Reads `CLOCK_MONOTONIC` and `CLOCK_REALTIME`, one after the other.
    #[must_use]
    pub fn read() -> WallClock {
        let monotonic = i128::from(clock::monotonic_nanos());
        let realtime = i128::from(clock::realtime_nanos());
        WallClock { realtime_at_zero: realtime - monotonic }
    }

    /// A relation for tests: the date, in nanoseconds since 1970, at monotonic zero.
    #[must_use]
    pub const fn fixed(realtime_at_zero: i128) -> WallClock {
        WallClock { realtime_at_zero }
    }

    /// How long after 1970-01-01 00:00 UTC `at` is; zero if it is before.
    #[must_use]
    pub fn since_epoch(self, at: Instant) -> Duration {
        let nanos = self.realtime_at_zero + i128::from(at.as_nanos());
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    /// The date of `at` in RFC 3339, in UTC, to the microsecond.
    #[must_use]
    pub fn rfc3339(self, at: Instant) -> String {
        let nanos = self.realtime_at_zero + i128::from(at.as_nanos());
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let micros = nanos.rem_euclid(1_000_000_000) as i64 / 1_000;
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        // Digit by digit: a format of seven numbers costs a sixth of a death, and there is a date in every line.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let fields = [(5, 7, month), (8, 10, day), (11, 13, hour), (14, 16, minute), (17, 19, second)];
        for (from, to, mut value) in fields.into_iter().chain([(0, 4, year), (20, 26, micros)]) {
            for digit in text[from..to].iter_mut().rev() {
                *digit = b'0' + value.rem_euclid(10) as u8;
                value /= 10;
            }
        }
        let text = String::from_utf8_lossy(&text);
        if (0..10_000).contains(&year) { text.into_owned() } else { format!("{year:04}{}", &text[4..]) }
    }
}

/// Days since 1970-01-01 as a date of the proleptic Gregorian calendar. Counted in eras of 400
/// years (146,097 days) that begin on the 1st of March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let second = 1_000_000_000_i128;
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.000000Z"),
            (253_402_300_800, "10000-01-01T00:00:00.000000Z"),
            (-62_198_755_200, "-001-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(WallClock::fixed(seconds * second).rfc3339(Instant::ZERO), date);
        }
        let part = WallClock::fixed(1_709_251_199 * second).rfc3339(Instant::from_nanos(12_034_999));
        assert_eq!(part, "2024-02-29T23:59:59.012034Z", "whole microseconds");
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
