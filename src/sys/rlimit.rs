//! The limit on open descriptors, and room for them.

use std::fs::File;
use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open descriptors to the hard one, which needs no privilege, and returns it. Most systems
/// start programs with a soft limit of 1,024 for the sake of `select`, which nothing here uses. Errors: what the
/// kernel says; a sandbox may forbid `setrlimit`.
pub fn raise_nofile() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX)) // None is RLIM_INFINITY
}

/// Makes the kernel's table of this process's descriptors large enough for `count` of them: eight bytes each
/// of kernel memory. To be called before there are threads; one that cannot be had is grown later.
///
/// The table doubles when it is full, and in a process with threads the descriptor that is one too many then
/// waits until every core has passed through the scheduler: turns of 8 to 30 ms at 256, 512, ... 16,384
/// connections were measured.
pub fn reserve_descriptors(count: u64) {
    let (Some(last), Ok(any)) = (count.checked_sub(1), File::open("/dev/null")) else { return };
    let last = i32::try_from(last).unwrap_or(i32::MAX);
    drop(fcntl_dupfd_cloexec(any, last));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_twice_gives_the_same_limit() {
        let limit = raise_nofile().unwrap();
        assert!(limit > 0);
        assert_eq!(raise_nofile().unwrap(), limit);
    }

    #[test]
    fn room_is_made_for_as_many_descriptors_as_are_asked_for_and_none_stays_open() {
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        let wanted = raise_nofile().unwrap().min(5_000);
        reserve_descriptors(wanted);
        assert!(size() >= wanted, "{} of {wanted}", size());
        let last = format!("/proc/self/fd/{}", wanted - 1);
        assert!(!std::path::Path::new(&last).exists());
        reserve_descriptors(0);
        reserve_descriptors(u64::MAX);
    }
}
