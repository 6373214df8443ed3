//! The limit on open descriptors.

use std::io;

/// Raises the soft limit on open descriptors to the hard one, which needs no privilege, and
/// returns it. Most systems start programs with a soft limit of 1,024 for the sake of `select`,
/// which nothing here uses.
///
/// # Errors
///
/// What the kernel says; a sandbox may forbid `setrlimit`.
pub fn raise_nofile() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours and outlives the call, which writes it and keeps nothing.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is ours and outlives the call, which reads it and keeps nothing.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
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
}
