//! Processes of an experiment: their cores, their CPU time, and their end with this process.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, geteuid, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};

/// CPU time of a process to the nanosecond: all its threads, those that ended and io_uring's own workers too. The
/// same sum of runtimes as in `/proc/PID/task/*/schedstat`, but brought up to date by the reading and without the
/// threads' names. Errors: when there is no such process.
pub fn cpu_nanos(pid: u32) -> io::Result<u64> {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` and `spec` are ours and outlive the calls, which write them and keep nothing.
    unsafe {
        match libc::clock_getcpuclockid(signed(pid), &mut clock) {
            0 if libc::clock_gettime(clock, &mut spec) == 0 => {}
            0 => return Err(io::Error::last_os_error()),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Ok(spec.tv_sec.unsigned_abs() * 1_000_000_000 + spec.tv_nsec.unsigned_abs())
}

/// Timers of this thread fire when asked and not up to 50 us later, which is the default.
pub fn tight_timers() {
    let _ = set_current_timer_slack(NonZeroU64::new(1)); // in nanoseconds; at worst timers stay coarse
}

/// From now on this thread is a batch job to the scheduler: waking it does not take the core away from
/// the thread that woke it. Its share of the core stays the same.
pub fn schedule_as_batch() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: `none` is ours and only read; 0 is the calling thread. Where a sandbox forbids it, nothing
    // is lost but time.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &none) };
}

/// A file in memory, for a child's output: writing into it wakes no thread, so the reader costs nothing while
/// something is measured. Errors: when there are no descriptors left.
pub fn memory_file(name: &CStr) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// The child is killed when the thread that starts it ends, however that happens, and runs on these
/// cores; on all of its parent's when there are none.
pub fn bind_child(command: &mut Command, cores: &[usize]) {
    let set = (!cores.is_empty()).then(|| core_set(cores));
    // SAFETY: the closure runs between fork and exec and makes two system calls; it takes no lock
    // and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if let Some(set) = &set {
                sched_setaffinity(None, set)?;
            }
            Ok(())
        });
    }
}

/// Moves this thread to these cores. Errors: when none of them may be used.
pub fn move_to_cores(cores: &[usize]) -> io::Result<()> {
    Ok(sched_setaffinity(None, &core_set(cores))?)
}

/// The cores that this thread may use, in order.
#[must_use]
pub fn usable_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

fn core_set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &core in cores.iter().filter(|&&core| core < CpuSet::MAX_CPU) {
        set.set(core);
    }
    set
}

/// Sends a signal to a child that was not waited for yet, so that its number is still its own.
pub fn signal(pid: u32, signal: i32) {
    if let (Some(pid), Some(signal)) = (Pid::from_raw(signed(pid)), Signal::from_named_raw(signal)) {
        let _ = kill_process(pid, signal); // it has ended already, at worst
    }
}

/// Whether this process has root's user id.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

fn signed(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).expect("process ids fit 22 bits")
}
