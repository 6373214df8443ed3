//! What TCP reports and what can be set: `TCP_INFO` and socket options (`tcp(7)`, `socket(7)`).

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send, sockopt::socket_error};
use socket2::{SockAddr, SockRef, TcpKeepalive};

use super::clock;
use crate::time::{Instant, nanos};

/// What the kernel knows of a connection. In `tcpi_bytes_received` and `tcpi_bytes_acked` a FIN counts as one byte (and
/// in the latter this side's SYN, where it called); `tcpi_bytes_sent` has the repetitions in it.
pub use libc::tcp_info as TcpInfo;

/// Turns the ages that `TCP_INFO` gives into instants.
///
/// The kernel stamps an arrival with the number of its timer tick and gives the age in whole ticks, so
/// an age of `n` ticks may be anything up to `n + 1`. And a tick can itself be late, above all where the
/// machine is a guest whose host had other things to do: what arrives meanwhile is stamped with the tick
/// before. So an age is counted back from the beginning of the present tick, and two ticks are added: one
/// for the age, one for the stamp. An instant told twice of the same arrival is the same.
///
/// Measured on Linux 6.18 at HZ=250, two busy virtual cores, 5,000 arrivals: with one tick added 5 were
/// dated before they came, with two none. Not counted from `CLOCK_MONOTONIC_COARSE`, although that is the
/// clock "at the last tick": it steps at a phase of its own, and two thirds were dated too early.
#[derive(Clone, Copy, Debug)]
pub struct TickClock {
    tick: Duration,
    /// What an age in ticks loses when the kernel turns it into whole milliseconds: nothing at HZ=1000,
    /// 250 and 100, less than one at HZ=300.
    rounding: Duration,
}

impl TickClock {
    /// Reads the length of this kernel's tick.
    #[must_use]
    pub fn new() -> TickClock {
        TickClock::with_tick(Duration::from_nanos(clock::tick_nanos()))
    }

    const fn with_tick(tick: Duration) -> TickClock {
        let whole = tick.subsec_nanos().is_multiple_of(1_000_000);
        TickClock { tick, rounding: if whole { Duration::ZERO } else { Duration::from_millis(1) } }
    }

    /// The length of a tick: 4 ms at HZ=250.
    #[must_use]
    pub const fn tick(self) -> Duration {
        self.tick
    }

    /// Reads the clock. Call it *after* the `TCP_INFO` whose ages are counted from it: what passes in
    /// between makes an arrival later, which is safe.
    #[must_use]
    pub fn now(self) -> Instant {
        Instant::from_nanos(clock::monotonic_nanos())
    }

    /// The latest instant at which something of age `millis` can have come, as seen from `present`.
    #[must_use]
    pub fn latest(self, present: Instant, millis: u32) -> Instant {
        let since_tick = Duration::from_nanos(present.as_nanos() % nanos(self.tick));
        present - since_tick - Duration::from_millis(u64::from(millis)) + 2 * self.tick + self.rounding
    }
}

impl Default for TickClock {
    fn default() -> TickClock {
        TickClock::new()
    }
}

/// Reads `TCP_INFO`. About 1.4 us with a socket that is not in the cache. Errors: those of `getsockopt(2)`: the
/// descriptor is no TCP socket.
pub fn info(socket: impl AsFd) -> io::Result<TcpInfo> {
    info_of(socket.as_fd().as_raw_fd())
}

/// Reads `TCP_INFO` of a descriptor whose owner may have closed it meanwhile: `None` when the
/// number does not mean the socket with this [`cookie`] any more.
#[must_use]
pub(crate) fn info_if_still(fd: RawFd, socket: u64) -> Option<TcpInfo> {
    let info = info_of(fd).ok()?;
    // Asked behind it: a socket that was closed does not come back.
    (cookie(fd).ok()? == socket).then_some(info)
}

fn info_of(fd: RawFd) -> io::Result<TcpInfo> {
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: every field of `info` is an integer, for which zeros are a value (an older kernel leaves them at the
    // end). `info` and `length` are ours and outlive the call, which writes at most `length` bytes and keeps nothing.
    let (result, info) = unsafe {
        let mut info: TcpInfo = std::mem::zeroed();
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        (libc::getsockopt(fd, level, name, (&raw mut info).cast(), &mut length), info)
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// Takes the socket's pending error (`SO_ERROR`): 0 or a positive errno. Errors: those of `getsockopt(2)`.
pub fn take_error(socket: BorrowedFd<'_>) -> io::Result<i32> {
    Ok(socket_error(socket)?.map_or_else(|error| error.raw_os_error(), |()| 0))
}

/// The socket's number, which no other socket has until the machine boots again (`SO_COOKIE`, 4.12). Takes a
/// descriptor as a number, because its use is to ask whether that number still means the same socket. Errors: those
/// of `getsockopt(2)`: it is no descriptor, or none of a socket.
pub(crate) fn cookie(fd: RawFd) -> io::Result<u64> {
    let mut cookie: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `length` are ours and outlive the call, which writes at most `length` bytes; any bytes are a
    // number.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, value, &mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Sets the low-water mark: a poll wakes at this many unread bytes (`SO_RCVLOWAT`). Errors: those of `setsockopt(2)`.
pub fn set_low_water_mark(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))
}

/// Turns TCP's own probes on: after `idle` seconds of silence one every `interval` seconds, and ETIMEDOUT when
/// `count` of them are not answered. Errors: those of `setsockopt(2)`: a value is out of the kernel's range.
pub fn set_keepalive(socket: impl AsFd, idle: u32, interval: u32, count: u32) -> io::Result<()> {
    let seconds = |value: u32| Duration::from_secs(value.into());
    let keepalive = TcpKeepalive::new().with_time(seconds(idle)).with_interval(seconds(interval));
    SockRef::from(&socket).set_tcp_keepalive(&keepalive.with_retries(count))
}

/// Sets how long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`). Errors: those of `setsockopt(2)`.
pub fn set_user_timeout(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    // The kernel takes an int of milliseconds.
    let most = Duration::from_millis(i32::MAX as u64);
    SockRef::from(&socket).set_tcp_user_timeout(Some(timeout.min(most)))
}

/// Has ICMP errors told at once, while the connection stands (`IP_RECVERR`). Only tests do: measured on
/// 6.18, what is told at once is not kept for the end, so that a connection of which a router had said
/// EHOSTUNREACH all the time ends with ETIMEDOUT; and an answer to a keepalive probe is dropped either way.
#[cfg(all(test, feature = "tracker"))]
pub(crate) fn report_errors(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
}

/// Sets how many bytes the kernel takes that it has not sent yet (`TCP_NOTSENT_LOWAT`); bytes in flight do not count.
/// Connections inherit it from their listener. Errors: those of `setsockopt(2)`.
pub fn set_unsent_limit(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_notsent_lowat(bytes)
}

/// Acknowledges at once what was received (`TCP_QUICKACK`), and what comes next, until the kernel sees an exchange of
/// requests and responses again. Otherwise an acknowledgement waits up to 40 ms for bytes that carry it, and a sender
/// that has Nagle's algorithm on waits with it (measured). Errors: those of `setsockopt(2)`.
pub fn acknowledge_now(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_quickack(true)
}

/// Makes the next close send a RST and leave nothing behind (`SO_LINGER` with 0 seconds). Errors: those of
/// `setsockopt(2)`.
pub fn abort_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}

/// Sets an option that is an int and that socket2 does not have.
fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` is ours and outlives the call, which reads an int.
    let result = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number of unread bytes in a socket (`SIOCINQ`); a FIN does not count. Errors: those of `ioctl(2)`.
pub fn unread(socket: impl AsFd) -> io::Result<u32> {
    unread_of(socket.as_fd().as_raw_fd())
}

/// As [`unread`], of a descriptor whose owner may have closed it meanwhile. Errors: as [`unread`], or the number is
/// no descriptor.
pub(crate) fn unread_of(fd: RawFd) -> io::Result<u32> {
    queued(fd, libc::FIONREAD)
}

/// The number of bytes that the peer's kernel has not acknowledged (`SIOCOUTQ`); our FIN counts as one, the last. Errors:
/// those of `ioctl(2)`.
pub fn unsent(socket: impl AsFd) -> io::Result<u32> {
    queued(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ)
}

fn queued(fd: RawFd, which: libc::Ioctl) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is ours and outlives the call, which writes an int for both requests.
    let result = unsafe { libc::ioctl(fd, which, &raw mut bytes) };
    if result == 0 { Ok(u32::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Begins to connect, without waiting: the socket is writable when it has come to an end, and [`take_error`] says to
/// which. What is sent goes out at once (`TCP_NODELAY`), and the kernel keeps about `unread` bytes that are not read
/// (`SO_RCVBUF`). Errors: those of `socket(2)` and `connect(2)` that come at once: no descriptor, no port, no route.
pub fn connect(address: SocketAddr, unread: u32) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    // Before the handshake, which tells the peer how far its window may grow.
    socket.set_recv_buffer_size(unread as usize)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Takes up to `length` unread bytes off a TCP socket and throws them away, without waiting (`tcp(7)`, `MSG_TRUNC`).
/// How many, 0 at the end, or a negated errno: what a ring's completion says. Panics when `length` is 0: a recv of
/// nothing gives 0, which reads as a FIN.
#[cfg(feature = "tracker")]
#[must_use]
pub(crate) fn discard(fd: RawFd, length: u32) -> i32 {
    assert!(length > 0, "a recv of nothing looks like a FIN");
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing, and one of another kind answers EFAULT.
    let result = unsafe {
        libc::recv(fd, std::ptr::null_mut(), length as usize, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
    };
    completion(result)
}

/// Receives what fits, without waiting. How many bytes, 0 at the end, or a negated errno. Panics when there is no
/// room at all, as [`discard`].
#[cfg(feature = "tracker")]
#[must_use]
pub(crate) fn receive(fd: RawFd, into: &mut [u8]) -> i32 {
    assert!(!into.is_empty(), "a recv of nothing looks like a FIN");
    // SAFETY: `into` is borrowed exclusively for the call, which writes at most its length.
    completion(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

#[cfg(feature = "tracker")]
fn completion(result: isize) -> i32 {
    i32::try_from(result)
        .ok()
        .filter(|&result| result >= 0)
        .unwrap_or_else(|| -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Whether a connection has neither bytes nor an end to read.
#[must_use]
pub fn is_quiet(socket: BorrowedFd<'_>) -> bool {
    let seen = recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    seen.is_err_and(|error| error == Errno::AGAIN)
}

/// Accepts one connection, close-on-exec and non-blocking, with its address in the same call. Errors: those of
/// `accept(2)`; `WouldBlock` when the backlog is empty.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let (fd, address) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let address = address
        .and_then(|address| SocketAddr::try_from(address).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "accepted a connection that is not IP"))?;
    Ok((fd, address))
}

/// Writes to a socket what it takes at once: never blocks, never raises SIGPIPE.
#[derive(Debug)]
pub struct Now<'a>(pub BorrowedFd<'a>);

impl io::Write for Now<'_> {
    /// `WouldBlock` when the peer does not take our bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The peer's address. Errors: those of `getpeername(2)`: it is not connected.
pub fn peer_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    ip(SockRef::from(&socket).peer_addr()?)
}

/// The local address of a connection. Errors: those of `getsockname(2)`.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    ip(SockRef::from(&socket).local_addr()?)
}

fn ip(address: SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a socket that is not IP"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    /// The kernel stamps an arrival with the number of its last tick, and a tick may be late by any time where a host takes
    /// the core away. So a date is held against the kernel's own clock of ticks and not against the true time. That clock
    /// is less than a tick ahead of the number, since it has a phase of its own; two ticks are added to the number.
    #[test]
    fn an_arrival_is_dated_a_tick_after_the_last_tick_before_it_at_the_earliest() {
        let last_tick = || {
            let tick = clock_gettime(ClockId::MonotonicCoarse);
            Instant::from_nanos(tick.tv_sec as u64 * 1_000_000_000 + tick.tv_nsec as u64)
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let clock = TickClock::new();
        for round in 0..300_u64 {
            let before = last_tick();
            peer.write_all(b"x").unwrap();
            // Looked at after 0 to 9 ms, so that every phase of the tick is met.
            std::thread::sleep(Duration::from_micros(round * 30));
            let info = info(socket.as_fd()).unwrap();
            let present = clock.now();
            let dated = clock.latest(present, info.tcpi_last_data_recv);
            assert!(dated >= before + clock.tick(), "{dated:?} is too early behind {before:?}");
            // How late the date is depends on how busy the machine is; that it is no later than this is arithmetic.
            assert!(dated <= present + 2 * clock.tick() + clock.rounding);
            socket.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn an_age_is_counted_back_from_the_present_tick_and_two_ticks_are_added() {
        let clock = TickClock::with_tick(Duration::from_millis(4));
        let millis = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        for (present, age, dated) in
            [(1_000, 0, 1_008), (1_003, 0, 1_008), (1_003, 8, 1_000), (1_004, 8, 1_004)]
        {
            assert_eq!(clock.latest(millis(present), age), millis(dated), "{present} {age}");
        }
    }

    #[test]
    fn a_tick_that_is_no_whole_millisecond_gets_one_more() {
        let present = Instant::from_nanos(10_000_000_000);
        let at = |nanos| TickClock::with_tick(Duration::from_nanos(nanos)).latest(present, 8);
        assert_eq!(at(4_000_000), present);
        assert_eq!(at(5_000_000), present + Duration::from_millis(2));
        let since_tick = Duration::from_nanos(10_000_000_000 % 3_333_333);
        assert_eq!(at(3_333_333), present - since_tick - Duration::from_nanos(333_334));
    }
}
