//! What the machine takes for a death without any tracker: the bare recv.
//!
//! # Intuition
//!
//! A detection of 55 us at p50 and 250 us at p99 says nothing until one knows what this machine needs to wake a
//! thread at all. The least that can be done is one thread that waits in `recv` for one FIN. Whoever sleeps
//! until a peer has gone, by whatever interface, spends about as much (less where a load keeps the cores from
//! falling asleep, more where it touches much memory). So a tracker's figures are shown beside it.
//!
//! # Model
//!
//! Connections on loopback, closed one after the other, each at a scheduled instant, by a thread on the load's cores. A
//! thread on the server's cores knows their order and waits for one at a time. Latency counts from the scheduled
//! instant until `recv` has returned 0, as that of the experiment does. Nothing else runs: no beats, no other connections.
//!
//! # Contract
//!
//! Threads and sockets of its own, all gone when it returns, none in TIME_WAIT; the caller's cores are as before. It lasts
//! [`LASTS`] and a little, and every wait is bounded. How late the closing thread itself was is recorded apart.

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

/// Rounds, so that few descriptors are held at a time.
const ROUNDS: u32 = 4;
/// Ends in a round: in all rounds as many as carry a p99.
const ENDS: u32 = 250;
/// From one to the next: about a thousand a second, and no even part of the kernel's tick.
const EVERY_NS: u64 = 973_000;
/// How long it takes, about.
pub const LASTS: Duration = Duration::from_millis(1_100);
/// Between the last connect of a round and its first end: threads start, and the rush of connects is over.
const REST_NS: u64 = 10_000_000;
/// A recv that has not returned so long after its end was due never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures it.
///
/// # Errors
///
/// When the connections cannot be made (descriptors, a firewall on loopback), or an end never came.
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
                    return Err(io::Error::other("bytes that nobody sent"));
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
    // That goes for accept, too.
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    let address = listener.local_addr()?;
    let (mut dying, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..ENDS {
        let near = TcpStream::connect_timeout(&address, PATIENCE)?;
        let (far, from) = listener.accept()?;
        if from != near.local_addr()? {
            return Err(io::Error::other("somebody else connected to the bare recv"));
        }
        far.set_read_timeout(Some(PATIENCE))?;
        // Its own close, after the measured one, takes both ends away.
        SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
        dying.push(near);
        waiting.push(far);
    }
    Ok((dying, waiting))
}

/// Sleeps until shortly before the instant and then watches the clock, as the injector does.
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
        // No recv returns before its end; the latter's lateness is a part of the former's.
        assert!(latency.min() >= injector_late.min() && latency.max() >= injector_late.max());
        assert!(latency.min() > Some(0));
        assert_eq!(process::usable_cores(), all, "the caller may go where it could");
    }
}
