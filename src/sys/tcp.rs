//! What TCP tells and what it can be told: `TCP_INFO` and socket options (`tcp(7)`, `socket(7)`).

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::clock;
use crate::time::{Instant, nanos};

/// The fields of `struct tcp_info` that a judgement needs.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    /// `tcpi_state`, the kernel's number.
    pub state: u8,
    /// `tcpi_retransmits`.
    pub retransmits: u8,
    /// `tcpi_probes`.
    pub probes: u8,
    /// `tcpi_backoff`.
    pub backoff: u8,
    /// `tcpi_unacked`.
    pub unacked: u32,
    /// `tcpi_last_data_recv`, in ms.
    pub last_data_recv: u32,
    /// `tcpi_last_ack_recv`, in ms.
    pub last_ack_recv: u32,
    /// `tcpi_rtt`, in microseconds.
    pub rtt: u32,
    /// `tcpi_notsent_bytes`.
    pub notsent_bytes: u32,
    /// `tcpi_bytes_received`; counts a FIN as one.
    pub bytes_received: u64,
    /// `tcpi_bytes_acked`: of the sequence space; counts our FIN as one (and our SYN, where we called).
    pub bytes_acked: u64,
    /// `tcpi_bytes_sent`: data only, repetitions included.
    pub bytes_sent: u64,
    /// `tcpi_bytes_retrans`: the repetitions among them.
    pub bytes_retrans: u64,
}

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

    /// The present. Read it *after* the `TCP_INFO` whose ages are counted from it: what passes in
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

/// Reads `TCP_INFO`. About 1.4 us with a socket that is not in the cache.
///
/// # Errors
///
/// Those of `getsockopt(2)`: the descriptor is no TCP socket.
pub fn info(socket: impl AsRawFd) -> io::Result<TcpInfo> {
    info_of(socket.as_raw_fd())
}

/// Reads `TCP_INFO` of a descriptor that somebody else owns and may have closed meanwhile: `None` when the
/// number does not mean the socket with this [`cookie`] any more.
#[must_use]
pub fn info_if_still(fd: RawFd, socket: u64) -> Option<TcpInfo> {
    let info = info_of(fd).ok()?;
    // Asked behind it: a socket that was closed does not come back.
    (cookie(fd).ok()? == socket).then_some(info)
}

fn info_of(fd: RawFd) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` and `length` are ours and outlive the call; the kernel writes at most `length`
    // bytes and keeps nothing.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every field is an integer, so zeros (which an older kernel leaves at the end) are valid.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo {
        state: info.tcpi_state,
        retransmits: info.tcpi_retransmits,
        probes: info.tcpi_probes,
        backoff: info.tcpi_backoff,
        unacked: info.tcpi_unacked,
        last_data_recv: info.tcpi_last_data_recv,
        last_ack_recv: info.tcpi_last_ack_recv,
        rtt: info.tcpi_rtt,
        notsent_bytes: info.tcpi_notsent_bytes,
        bytes_received: info.tcpi_bytes_received,
        bytes_acked: info.tcpi_bytes_acked,
        bytes_sent: info.tcpi_bytes_sent,
        bytes_retrans: info.tcpi_bytes_retrans,
    })
}

/// Takes the socket's pending error (`SO_ERROR`): 0 or a positive errno.
///
/// # Errors
///
/// Those of `getsockopt(2)`.
pub fn take_error(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut error: libc::c_int = 0;
    get(socket.as_raw_fd(), libc::SO_ERROR, &mut error)?;
    Ok(error)
}

/// A number that no other socket had or will have until the machine is booted anew (`SO_COOKIE`, 4.12). A
/// descriptor that was closed and given out again shows another one. Takes a plain number, since that is
/// what it is good for: to ask whether a number still means the same socket.
///
/// # Errors
///
/// Those of `getsockopt(2)`: it is no descriptor, or none of a socket.
pub fn cookie(fd: RawFd) -> io::Result<u64> {
    let mut cookie: u64 = 0;
    get(fd, libc::SO_COOKIE, &mut cookie)?;
    Ok(cookie)
}

/// Reads an option of the socket level that is a plain number.
fn get<T: Copy + Into<i128>>(fd: RawFd, name: i32, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `length` outlive the call, which writes at most `length` bytes; any bytes are
    // a valid number.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut *value).cast(), &mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the low-water mark: so many unread bytes wake a poll (`SO_RCVLOWAT`).
///
/// # Errors
///
/// Those of `setsockopt(2)`.
pub fn set_low_water_mark(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, clamp(bytes))
}

/// Asks for TCP's own heartbeat: after `idle` seconds of silence a probe every `interval` seconds,
/// and ETIMEDOUT when `count` of them were not answered.
///
/// # Errors
///
/// Those of `setsockopt(2)`: a value is out of the kernel's range.
pub fn set_keepalive(socket: impl AsRawFd, idle: u32, interval: u32, count: u32) -> io::Result<()> {
    let socket = socket.as_raw_fd();
    set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, clamp(idle))?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, clamp(interval))?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, clamp(count))
}

/// How long something sent may stay unacknowledged (`TCP_USER_TIMEOUT`).
///
/// # Errors
///
/// Those of `setsockopt(2)`.
pub fn set_user_timeout(socket: impl AsRawFd, timeout: Duration) -> io::Result<()> {
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, clamp(millis))
}

/// Has ICMP errors told at once, while the connection stands (`IP_RECVERR`). Only tests do: measured on
/// 6.18, what is told at once is not kept for the end, so that a connection of which a router had said
/// EHOSTUNREACH all the time ends with ETIMEDOUT; and an answer to a keepalive probe is dropped either way.
#[cfg(test)]
pub(crate) fn report_errors(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
}

/// Lets no more than so many bytes wait in the kernel that it has not sent yet (`TCP_NOTSENT_LOWAT`); what is in flight
/// is not counted. A listener's is inherited.
///
/// # Errors
///
/// Those of `setsockopt(2)`.
pub fn set_unsent_limit(socket: impl AsRawFd, bytes: u32) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, clamp(bytes))
}

/// Makes the next close send a RST and leave nothing behind (`SO_LINGER` with 0 seconds).
///
/// # Errors
///
/// Those of `setsockopt(2)`.
pub fn abort_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 })
}

fn clamp(value: u32) -> libc::c_int {
    libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX)
}

fn set<T>(socket: impl AsRawFd, level: i32, name: i32, value: T) -> io::Result<()> {
    // SAFETY: `value` is ours and outlives the call, which reads `size_of::<T>()` bytes of it. The
    // types used above are those of the man pages.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that lie unread in a socket (`SIOCINQ`); its FIN is none.
///
/// # Errors
///
/// Those of `ioctl(2)`.
pub fn unread(socket: impl AsRawFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is ours and outlives the call, which writes an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { Ok(u32::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that were sent and that the peer's kernel has not acknowledged (`SIOCOUTQ`); a FIN is none.
///
/// # Errors
///
/// Those of `ioctl(2)`.
pub fn unsent(socket: impl AsRawFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is ours and outlives the call, which writes an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(u32::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Begins to connect, without waiting: the socket is writable when it has come to an end, and
/// [`take_error`] says to which. What is sent goes out at once (`TCP_NODELAY`), and the kernel keeps about `unread` bytes that
/// are not read (`SO_RCVBUF`).
///
/// # Errors
///
/// Those of `socket(2)` and `connect(2)` that come at once: no descriptor, no port, no route.
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

/// Another descriptor of the same socket, close-on-exec.
///
/// # Errors
///
/// When there is none left, or this is none.
pub fn duplicate(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number and keeps nothing; a non-negative result is a descriptor that nobody else
    // owns.
    unsafe {
        let fd = libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Takes up to `length` unread bytes off a TCP socket and throws them away, without waiting (`tcp(7)`,
/// `MSG_TRUNC`). How many, 0 at the end, or a negated errno: what a ring's completion says.
///
/// # Panics
///
/// When `length` is 0: a recv of nothing gives 0, which is a FIN to everybody who reads it.
#[must_use]
pub fn discard(fd: RawFd, length: u32) -> i32 {
    assert!(length > 0, "a recv of nothing looks like a FIN");
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing, and one of another kind answers EFAULT.
    let result = unsafe {
        libc::recv(fd, std::ptr::null_mut(), length as usize, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
    };
    completion(result)
}

/// Receives what fits, without waiting. How many bytes, 0 at the end, or a negated errno.
///
/// # Panics
///
/// When there is no room at all, as [`discard`].
#[must_use]
pub fn receive(fd: RawFd, into: &mut [u8]) -> i32 {
    assert!(!into.is_empty(), "a recv of nothing looks like a FIN");
    // SAFETY: `into` is borrowed exclusively for the call, which writes at most its length.
    completion(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

fn completion(result: isize) -> i32 {
    i32::try_from(result)
        .ok()
        .filter(|&result| result >= 0)
        .unwrap_or_else(|| -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Accepts one connection, close-on-exec and non-blocking, with its address in the same call.
///
/// # Errors
///
/// Those of `accept(2)`; `WouldBlock` when the backlog is empty.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    // SAFETY: socket2 calls the closure with zeroed storage of its own and the length of it; accept4
    // writes within that length. A non-negative result is a descriptor that nobody else owns.
    let (fd, address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let fd = libc::accept4(
                listener.as_raw_fd(),
                storage.cast(),
                length,
                libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            );
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
        })?
    };
    let address = address
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "accepted a connection that is not IP"))?;
    Ok((fd, address))
}

/// Writes to a socket what it takes at once: never blocks, never raises SIGPIPE.
#[derive(Debug)]
pub struct Now<'a>(pub BorrowedFd<'a>);

impl io::Write for Now<'_> {
    /// `WouldBlock` when the peer does not take our bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: `bytes` is borrowed for the call, which reads it and keeps nothing.
        let sent = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The peer's address.
///
/// # Errors
///
/// Those of `getpeername(2)`: it is not connected.
pub fn peer_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    socket2::SockRef::from(&socket)
        .peer_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a socket that is not IP"))
}

/// The local address of a connection.
///
/// # Errors
///
/// Those of `getsockname(2)`.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    socket2::SockRef::from(&socket)
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a socket that is not IP"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn arrivals_are_not_dated_before_they_came_and_few_more_than_two_ticks_after() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let clock = TickClock::new();
        let (mut early, mut late) = (0, 0);
        for round in 0..300_u64 {
            let before = Instant::now();
            peer.write_all(b"x").unwrap();
            let after = Instant::now();
            // Looked at after 0 to 9 ms, so that every phase of the tick is met.
            while Instant::now().since(after) < Duration::from_micros(round * 30) {
                std::hint::spin_loop();
            }
            let asked = Instant::now();
            let info = info(socket.as_fd()).unwrap();
            let present = clock.now();
            let dated = clock.latest(present, info.last_data_recv);
            early += u32::from(dated < before);
            // What the machine took between the readings is no lateness of the date.
            let slack = after.since(before) + present.since(asked);
            late += u32::from(dated.since(after) > 2 * clock.tick() + clock.rounding + slack);
            socket.read_exact(&mut [0]).unwrap();
        }
        // A tick may be later than by a tick, where a machine is a guest.
        assert!(early <= 3 && late <= 30, "{early} early, {late} late of 300");
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
