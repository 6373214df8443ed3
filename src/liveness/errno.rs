//! What each errno says about a peer: one exhaustive table.
//!
//! # Intuition
//!
//! An errno is the fault of the peer, of the path to it, or of this side. To cut a connection because *this side* ran out
//! of buffers is a mistake that shipped in other products.
//!
//! # Model
//!
//! Every number of Linux (asm-generic, as on x86_64 and aarch64) has one [`Row`]: its name, its
//! [`Meaning`], and the reason for that meaning. A [`Meaning`] tells [`Whose`] fault it is.
//!
//! The rows are about what `recv`, `send` and `poll` complete with on a TCP connection, and about
//! what `SO_ERROR` says of it. A setup call (`setsockopt`, `connect`, a ring's registration) can give
//! the same number another sense, and is not judged here.
//!
//! ICMP errors reach a connection in two ways. Without `IP_RECVERR` the kernel keeps the latest of
//! them, and gives it in place of ETIMEDOUT when it gives up: then the connection is gone. With
//! `IP_RECVERR` it gives each at once, and the connection lives on. So a meaning of the path is a
//! suspicion until the socket's state has been looked at.
//!
//! # Contract
//!
//! The table is total: a number that Linux does not have is a [`Meaning::Fault`] named `E?`. No peer
//! dies of a number that this table does not know.
//!
//! # Example
//!
//! ```
//! use deadpeer::liveness::errno::{self, Meaning, Whose};
//!
//! assert_eq!(errno::name(104), "ECONNRESET");
//! assert_eq!(errno::meaning(104), Meaning::Reset);
//! assert_eq!(errno::meaning(105).whose(), Whose::Ours); // ENOBUFS: no peer dies of it
//! assert_eq!(errno::row(-3).name, "E?");
//! ```

/// The meaning of an errno for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// The peer's kernel cut the connection.
    Reset,
    /// The kernel gave up waiting for the peer's kernel: keepalive, user timeout or retransmission.
    TimedOut,
    /// The peer's host cannot be reached, or says that it will not talk to us.
    HostUnreachable,
    /// The peer's network cannot be reached.
    NetUnreachable,
    /// A program on this machine ended the connection, or this side of it.
    LocalAbort,
    /// Nothing is there now: wait for the next wake-up, or ask again.
    Again,
    /// This side ran out of something: replenish first, then ask again.
    Resources,
    /// This side cancelled the request, or gave it a timeout.
    Cancelled,
    /// A request of this side was wrong. It says nothing about the peer; the socket's state has to be looked at.
    Fault,
}

/// Whose fault an errno is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The peer, or its kernel.
    Peer,
    /// What lies between, including our own interface.
    Path,
    /// This side: no verdict about the peer.
    Ours,
}

impl Meaning {
    /// Returns whose fault an errno of this meaning is.
    #[must_use]
    pub const fn whose(self) -> Whose {
        match self {
            Meaning::Reset | Meaning::TimedOut => Whose::Peer,
            Meaning::HostUnreachable | Meaning::NetUnreachable => Whose::Path,
            Meaning::LocalAbort
            | Meaning::Again
            | Meaning::Resources
            | Meaning::Cancelled
            | Meaning::Fault => Whose::Ours,
        }
    }
}

/// The row of one errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The number of the errno, 1 to 133; 0 in the row of all numbers that Linux does not have.
    pub errno: i32,
    /// The name in the kernel's spelling.
    pub name: &'static str,
    /// The meaning for the connection.
    pub meaning: Meaning,
    /// The reason for that meaning, a clause.
    pub reason: &'static str,
}

impl Row {
    /// Returns whose fault this errno is.
    #[must_use]
    pub const fn whose(&self) -> Whose {
        self.meaning.whose()
    }
}

/// The row of an errno (positive). A number that Linux does not have gets the row `E?`.
#[must_use]
pub fn row(errno: i32) -> &'static Row {
    usize::try_from(errno).ok().and_then(|index| TABLE.get(index)).unwrap_or(&TABLE[0])
}

/// The meaning of an errno for a connection.
#[must_use]
pub fn meaning(errno: i32) -> Meaning {
    row(errno).meaning
}

/// The kernel's name of an errno, or `E?`.
#[must_use]
pub fn name(errno: i32) -> &'static str {
    row(errno).name
}

/// Declares the rows by meaning: the meaning, its reason, and the names that share both, as libc has them.
macro_rules! rows {
    ($($meaning:ident $reason:literal: $($name:ident)*;)*) => {
        static ROWS: &[Row] =
            &[$($(Row { errno: libc::$name, name: stringify!($name), meaning: Meaning::$meaning, reason: $reason }),*),*];
    };
}

rows! {
    Reset "a RST came after the FIN, or our send came after it; unless we shut the sending side ourselves": EPIPE;
    Reset "a RST came": ECONNRESET;
    Reset "the host says that no program listens there (ICMP port unreachable); an established recv gives it only so": ECONNREFUSED;
    TimedOut "keepalive, the user timeout or retransmission gave up": ETIMEDOUT;
    HostUnreachable "an IPv6 router or host refused the packets by policy": EACCES;
    HostUnreachable "a router or the host could not make sense of a packet's header (ICMP parameter problem)": EPROTO;
    HostUnreachable "the host says that it does not speak TCP (ICMP code 2)": ENOPROTOOPT;
    HostUnreachable "a router does not know the host (ICMP code 7)": EHOSTDOWN;
    HostUnreachable "no answer to ARP, or a router said so (ICMP codes 1, 10, 12 to 15, or time exceeded)": EHOSTUNREACH;
    NetUnreachable "a router says that this host is isolated (ICMP code 8)": ENONET;
    NetUnreachable "a router could not follow a source route (ICMP code 5)": EOPNOTSUPP;
    NetUnreachable "the interface on our side is down": ENETDOWN;
    NetUnreachable "no route, or a router said so (ICMP codes 0, 6, 9, 11)": ENETUNREACH;
    LocalAbort "a program on this machine destroyed the socket (ss -K, SOCK_DESTROY)": ECONNABORTED;
    LocalAbort "the socket has no connection: never had one, or it was taken away": ENOTCONN;
    LocalAbort "this side was shut down": ESHUTDOWN;
    Again "a signal came while the request waited": EINTR;
    Again "nothing is there now": EAGAIN;
    Again "the kernel asks for the request to be made again": ERESTART;
    Resources "the kernel found no memory for the request": ENOMEM;
    Resources "the completion queue is full; reap before asking again": EBUSY;
    Resources "the system has no file left": ENFILE;
    Resources "the process has no descriptor left": EMFILE;
    Resources "the user may not watch more descriptors": ENOSPC;
    Resources "no buffer was left for what came": ENOBUFS;
    Cancelled "a timeout of ours ran out": ETIME;
    Cancelled "we cancelled the request, or the ring did as it closed": ECANCELED;
    Fault "a security policy or a restricted ring forbids the request": EPERM;
    Fault "a cancellation found nothing to cancel": ENOENT;
    Fault "of processes and threads; a socket does not give it": ESRCH ENOEXEC ECHILD EDEADLK;
    Fault "the device failed, or a kTLS record that is not data waits to be read": EIO;
    Fault "the ring has no such registered file or buffer": ENXIO;
    Fault "the request is longer than the kernel accepts": E2BIG;
    Fault "the descriptor is not open, or open for something else": EBADF;
    Fault "the request points to memory that is not ours": EFAULT;
    Fault "of file systems; a socket does not give it":
        ENOTBLK EXDEV ENOTDIR EISDIR ETXTBSY EFBIG EROFS EMLINK ENAMETOOLONG ENOLCK ENOTEMPTY ESTALE EUCLEAN
        EDQUOT;
    Fault "the thing exists, or a thread that does not own the ring used it": EEXIST;
    Fault "the device is gone or cannot do this": ENODEV;
    Fault "the kernel does not know a flag or a value of the request": EINVAL;
    Fault "the descriptor does not know this ioctl": ENOTTY;
    Fault "an offset was given for a socket": ESPIPE;
    Fault "an option's value is out of its range": EDOM ERANGE;
    Fault "the kernel, or its seccomp filter, does not have the call": ENOSYS;
    Fault "pollers watch each other in a circle": ELOOP;
    Fault "of System V messages and semaphores; a socket does not give it": ENOMSG EIDRM;
    Fault "of old or special hardware; a socket does not give it":
        ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EXFULL ENOANO EBADRQC EBADSLT EBFONT;
    Fault "the ring lost completions; every socket has to be looked at": EBADR;
    Fault "of STREAMS and remote file sharing; TCP on Linux does not give it":
        ENOSTR ENOSR ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EMULTIHOP EDOTDOT ENOTUNIQ EREMCHG ESTRPIPE
        EREMOTEIO;
    Fault "an attribute that is not there was asked for": ENODATA;
    Fault "a kTLS record could not be decrypted": EBADMSG;
    Fault "a number does not fit its field": EOVERFLOW;
    Fault "the ring is not enabled yet": EBADFD;
    Fault "of shared libraries; a socket does not give it": ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC;
    Fault "of text encodings; a socket does not give it": EILSEQ;
    Fault "a table of users is full; TCP has none": EUSERS;
    Fault "the descriptor is no socket": ENOTSOCK;
    Fault "the socket has no peer; TCP says ENOTCONN instead": EDESTADDRREQ;
    Fault "the request has too many parts; the ICMP of that name goes to path MTU discovery": EMSGSIZE;
    Fault "a socket of this kind cannot be made; an existing one does not give it":
        EPROTOTYPE EPROTONOSUPPORT ESOCKTNOSUPPORT EPFNOSUPPORT EAFNOSUPPORT;
    Fault "the local address is taken": EADDRINUSE;
    Fault "the local address is not ours": EADDRNOTAVAIL;
    Fault "the keepalive of other systems; TCP on Linux does not give it": ENETRESET;
    Fault "the socket is connected already": EISCONN;
    Fault "too many descriptors on their way; TCP carries none": ETOOMANYREFS;
    Fault "the request is under way already, and cannot be cancelled any more": EALREADY;
    Fault "the connection is still being made": EINPROGRESS;
    Fault "of XENIX; a socket does not give it": ENOTNAM ENAVAIL EISNAM;
    Fault "of removable disks; a socket does not give it": ENOMEDIUM EMEDIUMTYPE;
    Fault "of the kernel's key rings; a socket does not give it": ENOKEY EKEYREVOKED EKEYREJECTED;
    Fault "a kTLS key is used up and waits for its successor": EKEYEXPIRED;
    Fault "the thread that polls the ring's submissions has died": EOWNERDEAD;
    Fault "of robust mutexes; a socket does not give it": ENOTRECOVERABLE;
    Fault "a switch turned the radio off; the route, not the socket, notices": ERFKILL;
    Fault "a page of our memory is broken": EHWPOISON;
}

/// One more than the greatest errno.
const NUMBERS: usize = 134;

/// The rows by number. Row 0 is that of every number that has none, as 0, 41 and 58 have.
static TABLE: [Row; NUMBERS] = by_number();

const fn by_number() -> [Row; NUMBERS] {
    let reason = "no errno of Linux; nothing can be concluded from it";
    let none = Row { errno: 0, name: "E?", meaning: Meaning::Fault, reason };
    let mut table = [none; NUMBERS];
    let mut index = 0;
    while index < ROWS.len() {
        let row = ROWS[index];
        assert!(table[row.errno as usize].errno == 0, "each errno has one row");
        table[row.errno as usize] = row;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_linux_has_one_row_at_its_number() {
        for errno in 1..NUMBERS as i32 {
            let rows = ROWS.iter().filter(|row| row.errno == errno).count();
            let exists = errno != 41 && errno != 58;
            assert_eq!(rows, usize::from(exists), "errno {errno}");
            assert_eq!(row(errno).errno, if exists { errno } else { 0 });
        }
        assert_eq!(ROWS.len(), 131);
    }

    #[test]
    fn names_are_unique_and_reasons_are_given() {
        for row in ROWS {
            assert!(row.name.starts_with('E') && row.name.len() > 2, "{row:?}");
            assert!(ROWS.iter().all(|other| other.errno == row.errno || other.name != row.name), "{row:?}");
            assert!(row.reason.len() > 8 && !row.reason.ends_with('.'), "{row:?}");
        }
    }

    #[test]
    fn a_number_without_a_row_is_a_fault_of_this_side() {
        for errno in [i32::MIN, -104, -1, 0, 41, 58, 134, 512, 4_095, i32::MAX] {
            assert_eq!(name(errno), "E?");
            assert_eq!(meaning(errno), Meaning::Fault);
            assert_eq!(row(errno).whose(), Whose::Ours);
        }
    }

    #[test]
    fn names_are_those_of_libc() {
        for (errno, spelling) in [(1, "EPERM"), (11, "EAGAIN"), (104, "ECONNRESET"), (133, "EHWPOISON")] {
            assert_eq!(name(errno), spelling);
        }
        assert_eq!(name(libc::EWOULDBLOCK), "EAGAIN");
    }

    #[test]
    fn errnos_that_end_a_connection_are_told_from_faults_of_this_side() {
        for (errno, meaning) in [
            (libc::ECONNRESET, Meaning::Reset),
            (libc::EPIPE, Meaning::Reset),
            (libc::ECONNREFUSED, Meaning::Reset),
            (libc::ETIMEDOUT, Meaning::TimedOut),
            (libc::EHOSTUNREACH, Meaning::HostUnreachable),
            (libc::EHOSTDOWN, Meaning::HostUnreachable),
            (libc::ENETUNREACH, Meaning::NetUnreachable),
            (libc::ENETDOWN, Meaning::NetUnreachable),
            (libc::ECONNABORTED, Meaning::LocalAbort),
            (libc::ENOTCONN, Meaning::LocalAbort),
            (libc::EAGAIN, Meaning::Again),
            (libc::EINTR, Meaning::Again),
            (libc::ENOBUFS, Meaning::Resources),
            (libc::ENOMEM, Meaning::Resources),
            (libc::ECANCELED, Meaning::Cancelled),
            (libc::ETIME, Meaning::Cancelled),
            (libc::EBADF, Meaning::Fault),
            (libc::EINVAL, Meaning::Fault),
        ] {
            assert_eq!(row(errno).meaning, meaning, "{}", name(errno));
        }
        let accused: Vec<&str> =
            TABLE.iter().filter(|row| row.whose() == Whose::Peer).map(|row| row.name).collect();
        assert_eq!(accused, ["EPIPE", "ECONNRESET", "ETIMEDOUT", "ECONNREFUSED"]);
    }

    #[test]
    fn every_icmp_error_that_tcp_passes_on_is_of_the_path_or_the_peer() {
        // The numbers that the kernel makes of ICMP and ICMPv6 errors. EMSGSIZE is not among them:
        // for TCP it only lowers the path MTU.
        for errno in [
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::ENOPROTOOPT,
            libc::ECONNREFUSED,
            libc::EOPNOTSUPP,
            libc::EHOSTDOWN,
            libc::ENONET,
            libc::EACCES,
            libc::EPROTO,
        ] {
            assert_ne!(row(errno).whose(), Whose::Ours, "{}", name(errno));
        }
    }
}
