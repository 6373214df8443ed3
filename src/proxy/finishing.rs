//! The end of a client's connection behind everything that was passed on to it.

use std::time::Duration;

use super::session::End;
use crate::limits::{DELIVERY_CHECK, FLUSH_PATIENCE, LINGER, MAX_LINGER};
use crate::time::Instant;

/// A client's connection that comes to its end.
///
/// `Close`: the client gets a FIN behind its bytes, and its own FIN is awaited. A close before it would be a RST if the
/// client still sends. `Abort`: the client gets a RST when its kernel has acknowledged everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finishing {
    how: End,
    /// The client has been sent everything, and its own FIN is awaited.
    lingers: bool,
    /// When it is looked at again.
    at: Instant,
    /// The bytes that the client had not acknowledged at the last look.
    left: usize,
    /// The end of the wait, whatever the client sends; for an abort, whatever it leaves.
    until: Instant,
}

impl Finishing {
    /// Begins the end of a client that has not acknowledged `left` bytes.
    pub(super) fn begin(how: End, now: Instant, left: usize) -> Finishing {
        let until = now + FLUSH_PATIENCE;
        let at = if how == End::Close { until } else { now };
        Finishing { how, lingers: false, at, left, until }
    }

    /// Whether the client is ended in this way.
    pub(super) fn is(&self, how: End) -> bool {
        self.how == how
    }

    /// When it is to be [looked at](Finishing::look).
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// The kernel has everything, the FIN too: the client has a while for its own.
    pub(super) fn linger(&mut self, now: Instant, left: usize) {
        if !self.lingers {
            *self =
                Finishing { how: End::Close, lingers: true, at: now + LINGER, left, until: now + MAX_LINGER };
        }
    }

    /// The client goes on sending.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.lingers && now < self.until {
            self.at = now + LINGER;
        }
    }

    /// Looks whether the wait is over, with `left` bytes that the client has not acknowledged. If it is not, another
    /// look follows.
    pub(super) fn look(&mut self, now: Instant, left: usize) -> bool {
        let takes = left < std::mem::replace(&mut self.left, left);
        if left == 0 {
            return true;
        }
        match self.how {
            End::Abort => {
                if takes {
                    self.until = now + FLUSH_PATIENCE;
                }
                self.at = now + DELIVERY_CHECK;
                self.until <= now
            }
            // The client is slow, but takes it. A close would take the rest away from it.
            End::Close => {
                self.at = now + if self.lingers { LINGER } else { FLUSH_PATIENCE };
                !takes
            }
        }
    }

    /// Puts the deadlines off by the time for which this process was absent.
    pub(super) fn put_off(&mut self, by: Duration) {
        self.at = self.at + by;
        self.until = self.until + by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    /// Looks whenever a look is due. `left`: what the client has not acknowledged then; the last repeats. Returns how many
    /// looks there were, and the time from the beginning to the last.
    fn looks(finishing: &mut Finishing, begin: Instant, left: &[usize]) -> (usize, Duration) {
        let mut looks = 0;
        loop {
            let at = finishing.at();
            let over = finishing.look(at, left[looks.min(left.len() - 1)]);
            looks += 1;
            if over {
                return (looks, at.since(begin));
            }
            assert!(finishing.at() > at, "another look follows");
        }
    }

    #[test]
    fn a_client_that_has_everything_lingers_once_and_one_that_takes_the_rest_as_long_as_it_does() {
        let begin = Instant::from_nanos(1 << 40);
        for (unacknowledged, left, expected) in [
            (0, &[0][..], 1),
            // The acknowledgement of the last bytes was under way.
            (500, &[0], 1),
            (500, &[500], 1),
            (500, &[400, 300, 0], 3),
            (500, &[400, 400], 2),
        ] {
            let mut finishing = Finishing::begin(End::Close, begin, 10_000);
            finishing.linger(begin, unacknowledged);
            finishing.linger(begin + MOMENT, unacknowledged);
            let waited = LINGER * expected as u32;
            assert_eq!(looks(&mut finishing, begin, left), (expected, waited), "{unacknowledged} {left:?}");
        }
    }

    #[test]
    fn a_client_that_goes_on_sending_lingers_to_a_limit() {
        let begin = Instant::from_nanos(1 << 40);
        let mut finishing = Finishing::begin(End::Close, begin, 0);
        finishing.heard(begin + MOMENT);
        assert_eq!(finishing.at(), begin + FLUSH_PATIENCE, "it has not been sent everything");
        finishing.linger(begin, 0);
        let mut now = begin;
        while now < finishing.at() {
            now = now + MOMENT;
            finishing.heard(now);
        }
        assert!(finishing.look(now, 0));
        assert_eq!(now.since(begin), MAX_LINGER - MOMENT + LINGER);
    }

    #[test]
    fn an_abort_waits_for_every_byte_of_a_client_that_takes_some() {
        let begin = Instant::from_nanos(1 << 40);
        let mut finishing = Finishing::begin(End::Abort, begin, 500);
        let taking: Vec<_> = (0..=499).rev().collect();
        assert_eq!(looks(&mut finishing, begin, &taking), (500, DELIVERY_CHECK * 499));
        let mut finishing = Finishing::begin(End::Abort, begin, 500);
        assert_eq!(looks(&mut finishing, begin, &[500]).1, FLUSH_PATIENCE, "it takes nothing");
    }
}
