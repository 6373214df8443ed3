//! Processes of an experiment: on which cores they run, what they cost, and that none outlives us.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// CPU time of a process to the nanosecond: all its threads, those that ended and io_uring's own
/// workers too. The same sum of runtimes as in `/proc/PID/task/*/schedstat`, but brought up to
/// date by the reading and without the threads' names.
///
/// # Errors
///
/// When there is no such process.
pub fn cpu_nanos(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is ours and outlives the call, which writes it and keeps nothing.
    let error = unsafe { libc::clock_getcpuclockid(signed(pid), &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is ours and outlives the call, which writes it and keeps nothing.
    check(unsafe { libc::clock_gettime(clock, &mut spec) })?;
    Ok(spec.tv_sec.unsigned_abs() * 1_000_000_000 + spec.tv_nsec.unsigned_abs())
}

/// Timers of this thread fire when asked and not up to 50 us later, which is the default.
pub fn tight_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes a plain number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0, 0, 0) };
}

/// From now on this thread is a batch job to the scheduler: waking it does not take the core away from
/// the thread that woke it. Its share of the core stays the same.
pub fn schedule_as_batch() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: `none` is ours and only read; 0 is the calling thread. Where a sandbox forbids it, nothing
    // is lost but time.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &none) };
}

/// A file in memory, for a child's output: writing into it wakes nobody, so the reader costs
/// nothing while something is measured.
///
/// # Errors
///
/// When there are no descriptors left.
pub fn memory_file(name: &CStr) -> io::Result<File> {
    // SAFETY: `name` ends in a nul byte and outlives the call.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The child is killed when the thread that starts it ends, however that happens, and runs on these
/// cores; on all of its parent's when there are none.
pub fn bind_child(command: &mut Command, cores: &[usize]) {
    let set = (!cores.is_empty()).then(|| core_set(cores));
    // SAFETY: the closure runs between fork and exec and makes two system calls; it takes no lock
    // and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
            if let Some(set) = &set {
                check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set))?;
            }
            Ok(())
        });
    }
}

/// Moves this thread to these cores.
///
/// # Errors
///
/// When none of them may be used.
pub fn move_to_cores(cores: &[usize]) -> io::Result<()> {
    let set = core_set(cores);
    // SAFETY: `set` is ours and outlives the call, which only reads it.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })?;
    Ok(())
}

/// The cores that this thread may use, in order.
#[must_use]
pub fn usable_cores() -> Vec<usize> {
    let mut set = core_set(&[]);
    // SAFETY: `set` is ours and outlives the call, which writes it and keeps nothing.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return vec![0];
    }
    let most = usize::try_from(libc::CPU_SETSIZE).expect("1,024");
    // SAFETY: CPU_ISSET reads within the set, as every index is below its size.
    (0..most).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

fn core_set(cores: &[usize]) -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers, for which zero bytes are a value; CPU_SET
    // writes within it and ignores a core beyond its end.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &core in cores {
            libc::CPU_SET(core, &mut set);
        }
        set
    }
}

/// Sends a signal to a child that was not waited for yet, so that its number is still its own.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call on plain numbers.
    unsafe { libc::kill(signed(pid), signal) };
}

/// Whether this process has root's user id.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: a system call without arguments that cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn signed(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).expect("process ids fit 22 bits")
}
