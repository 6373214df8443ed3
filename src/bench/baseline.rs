//! The bare recv: how long the machine takes to report a death without a tracker.
//!
//! # Intuition
//!
//! A detection of 55 us at p50 and 250 us at p99 has a meaning only beside the time that this machine needs to wake a
//! thread. The least work is one thread that waits in `recv` for one FIN. Every program that sleeps until a peer is gone
//! needs about as long: less where a load keeps the cores awake, more where it touches much memory.
//!
//! # Model
//!
//! A thread on the load's cores closes connections on loopback one after the other, each at a scheduled instant. A
//! thread on the server's cores knows their order and waits for one at a time. Latency counts from the scheduled
//! instant until `recv` has returned 0, as in the experiment. No beats and no other connections run meanwhile.
//!
//! # Contract
//!
//! All threads and sockets are gone when it returns, none in TIME_WAIT; the caller's cores are as before. It takes
//! about [`LASTS`], and every wait is bounded. The lateness of the closing thread is recorded separately.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::now;
use super::peers::WATCH_NS;
use crate::measure::result::BareRecv;
use crate::sys::process;
use crate::time::{Instant, sleep_until};

/// Several, so that few descriptors are open at a time.
const ROUNDS: u32 = 4;
/// Ends in a round: all rounds together have enough for a p99.
const ENDS: u32 = 250;
/// The time between two ends: about a thousand a second, and no even part of the kernel's tick.
const EVERY_NS: u64 = 973_000;
/// About how long it takes.
pub const LASTS: Duration = Duration::from_millis(1_100);
/// The time from the last connect of a round to its first end, in which the threads start.
const REST_NS: u64 = 10_000_000;
/// The longest wait for a recv or an accept.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn recv(server_cores: &[usize], load_cores: &[usize]) -> io::Result<BareRecv> {
    let mut found = BareRecv::default();
    for _ in 0..ROUNDS {
        round(server_cores, load_cores, &mut found)?;
    }
    Ok(found)
}

fn round(server_cores: &[usize], load_cores: &[usize], found: &mut BareRecv) -> io::Result<()> {
    let BareRecv { latency, injector_late } = found;
    let (dying, waiting) = pairs()?;
    let start = now() + REST_NS;
    let due = |end: usize| start + end as u64 * EVERY_NS;
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            process::move_to_cores(load_cores)?;
            process::tight_timers();
            for (end, socket) in dying.into_iter().enumerate() {
                wait(due(end));
                injector_late.record(now().saturating_sub(due(end)));
                drop(socket);
            }
            io::Result::Ok(())
        });
        let server = scope.spawn(|| {
            process::move_to_cores(server_cores)?;
            for (end, mut socket) in waiting.into_iter().enumerate() {
                if socket.read(&mut [0])? != 0 {
                    return Err(io::Error::other("a recv returned bytes that were not sent"));
                }
                latency.record(now().saturating_sub(due(end)));
            }
            io::Result::Ok(())
        });
        let server = server.join().unwrap_or_else(|_| Err(io::Error::other("the bare recv panicked")));
        load.join().unwrap_or_else(|_| Err(io::Error::other("its load panicked")))?;
        server
    })
}

/// Both sides of every connection, in the same order.
fn pairs() -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // It also bounds accept.
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    let address = listener.local_addr()?;
    let (mut dying, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..ENDS {
        let near = TcpStream::connect_timeout(&address, PATIENCE)?;
        let (far, from) = listener.accept()?;
        if from != near.local_addr()? {
            return Err(io::Error::other("another program connected to the listener of the bare recv"));
        }
        far.set_read_timeout(Some(PATIENCE))?;
        // Its close, after the measured one, resets the connection, so that none stays in TIME_WAIT.
        SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
        dying.push(near);
        waiting.push(far);
    }
    Ok((dying, waiting))
}

/// Sleeps until shortly before the instant and then polls the clock, as the injector does.
fn wait(at: u64) {
    sleep_until(Instant::from_nanos(at.saturating_sub(WATCH_NS)));
    while now() < at {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_seen_by_its_own_recv() {
        let all = process::usable_cores();
        let (server, load) = (&all[..1], &all[all.len() - 1..]);
        let BareRecv { latency, injector_late } = recv(server, load).unwrap();
        let ends = u64::from(ROUNDS * ENDS);
        assert_eq!((latency.count(), injector_late.count()), (ends, ends));
        // The injector's lateness is a part of the latency.
        assert!(latency.min() >= injector_late.min() && latency.max() >= injector_late.max());
        assert!(latency.min() > Some(0));
        assert_eq!(process::usable_cores(), all, "the caller has its cores again");
    }
}
