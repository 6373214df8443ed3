//! The few system calls that neither std nor the crates offer, as safe functions.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `mono_ns` in the daemon's events.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists since Linux 2.6")
}

/// CPU time of a process to the nanosecond: all its threads, those that ended and io_uring's own
/// workers too. The same sum of runtimes as in `/proc/PID/task/*/schedstat`, but brought up to
/// date by the reading and without the threads' names; with CONFIG_TICK_CPU_ACCOUNTING utime +
/// stime in `/proc/PID/stat` are this figure cut into ticks of 10 ms.
pub fn process_cpu(pid: u32) -> io::Result<u64> {
    let mut id: libc::clockid_t = 0;
    // SAFETY: `id` is ours and outlives the call, which writes it and keeps nothing.
    let error = unsafe { libc::clock_getcpuclockid(signed(pid), &mut id) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    clock(id)
}

fn clock(id: libc::clockid_t) -> io::Result<u64> {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is ours and outlives the call, which writes it and keeps nothing.
    check(unsafe { libc::clock_gettime(id, &mut spec) })?;
    Ok(spec.tv_sec.unsigned_abs() * 1_000_000_000 + spec.tv_nsec.unsigned_abs())
}

/// Sleeps until `CLOCK_MONOTONIC` shows `at`; returns at once when that has passed.
pub fn sleep_until(at: u64) {
    let spec = timespec(at);
    // SAFETY: `spec` is ours and outlives the call; no remainder is asked for with TIMER_ABSTIME.
    while unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &spec, std::ptr::null_mut())
    } == libc::EINTR
    {}
}

fn timespec(nanos: u64) -> libc::timespec {
    let part = |value: u64| i64::try_from(value).expect("an instant within 292 years of boot");
    libc::timespec { tv_sec: part(nanos / 1_000_000_000), tv_nsec: part(nanos % 1_000_000_000) }
}

/// Timers of this thread fire when asked and not up to 50 us later, which is the default.
pub fn tight_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes a plain number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0, 0, 0) };
}

/// Raises the soft limit of descriptors to the hard one, and says what it is now.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours and outlives both calls, which keep nothing of it.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// A file in memory, for a child's output: writing into it wakes nobody, so the reader costs
/// nothing while something is measured.
pub fn memory_file(name: &CStr) -> io::Result<File> {
    // SAFETY: `name` ends in a nul byte and outlives the call.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The child is killed when its parent ends, however that happens, and runs on one core.
pub fn bind_child(command: &mut Command, core: usize) {
    let cores = core_set(core);
    // SAFETY: the closure runs between fork and exec and makes two system calls; it takes no lock
    // and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
            check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cores))?;
            Ok(())
        });
    }
}

/// Moves this thread to one core.
pub fn move_to_core(core: usize) -> io::Result<()> {
    let cores = core_set(core);
    // SAFETY: `cores` is ours and outlives the call, which only reads it.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cores) })?;
    Ok(())
}

fn core_set(core: usize) -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers, for which zero bytes are a value; CPU_SET
    // writes within it and ignores a core beyond its end.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        cores
    }
}

/// Sends SIGTERM to a child that was not waited for yet.
pub fn terminate(pid: u32) {
    // SAFETY: a plain system call; the caller holds the child, so the id is not reused.
    unsafe { libc::kill(signed(pid), libc::SIGTERM) };
}

/// Sends without waiting and without SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], wait: bool) -> io::Result<usize> {
    let flags = if wait { libc::MSG_NOSIGNAL } else { libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT };
    // SAFETY: `bytes` is a live slice of the given length, which the call only reads.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives what is there, without waiting.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is a live, exclusive slice of the given length, written only in this call.
    let taken = unsafe {
        libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// Accepts a waiting connection, non-blocking, with its peer's address (IPv4).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, std::net::SocketAddrV4)> {
    let mut address = libc::sockaddr_in {
        sin_family: 0,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    let mut length = libc::socklen_t::try_from(size_of_val(&address)).expect("16 bytes");
    // SAFETY: `address` and `length` are ours, agree on the size, and outlive the call.
    let fd = check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            (&raw mut address).cast(),
            &mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let ip = std::net::Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    Ok((socket, std::net::SocketAddrV4::new(ip, u16::from_be(address.sin_port))))
}

/// Sets an integer option.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("4 bytes");
    // SAFETY: `value` is ours, of the length given, and only read.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) })?;
    Ok(())
}

/// Reads TCP_INFO and returns one field of it, so that the reading cannot be optimised away.
pub fn last_data_received(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: tcp_info is a record of integers, for which zero bytes are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("some 250 bytes");
    // SAFETY: `info` and `length` are ours, agree on the size, and outlive the call.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    })?;
    Ok(info.tcpi_last_data_recv)
}

pub fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn signed(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).expect("process ids fit 22 bits")
}
