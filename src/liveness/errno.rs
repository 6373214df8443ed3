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
    /// Nothing is there now.
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
    /// Whose fault it is.
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
pub struct Row {
    /// The number, positive.
    pub errno: i32,
    /// The name in the kernel's spelling.
    pub name: &'static str,
    /// The meaning for the connection.
    pub meaning: Meaning,
    /// The reason for that meaning, a clause.
    pub reason: &'static str,
}

impl Row {
    /// Whose fault it is.
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

const FAMILIES: &str = "a socket of this kind cannot be made; an existing one does not give it";
const FILES: &str = "of file systems; a socket does not give it";
const HARDWARE: &str = "of old or special hardware; a socket does not give it";
const KEYS: &str = "of the kernel's key rings; a socket does not give it";
const LIBRARIES: &str = "of shared libraries; a socket does not give it";
const PROCESSES: &str = "of processes and threads; a socket does not give it";
const UNUSED: &str = "of STREAMS and remote file sharing; TCP on Linux does not give it";
const XENIX: &str = "of XENIX; a socket does not give it";

/// The rows in order, as they are written down.
#[rustfmt::skip]
/// Declares the rows: the name as libc has it, which gives the number too, the meaning, and the reason.
macro_rules! rows {
    ($($name:ident $meaning:ident: $reason:expr;)*) => {
        static ROWS: &[Row] =
            &[$(Row { errno: libc::$name, name: stringify!($name), meaning: Meaning::$meaning, reason: $reason }),*];
    };
}

rows! {
    EPERM Fault: "a security policy or a restricted ring forbids the request";
    ENOENT Fault: "a cancellation found nothing to cancel";
    ESRCH Fault: PROCESSES;
    EINTR Again: "a signal came while the request waited";
    EIO Fault: "the device failed, or a kTLS record that is not data waits to be read";
    ENXIO Fault: "the ring has no such registered file or buffer";
    E2BIG Fault: "the request is longer than the kernel accepts";
    ENOEXEC Fault: PROCESSES;
    EBADF Fault: "the descriptor is not open, or open for something else";
    ECHILD Fault: PROCESSES;
    EAGAIN Again: "nothing is there now";
    ENOMEM Resources: "the kernel found no memory for the request";
    EACCES HostUnreachable: "an IPv6 router or host refused the packets by policy";
    EFAULT Fault: "the request points to memory that is not ours";
    ENOTBLK Fault: FILES;
    EBUSY Resources: "the completion queue is full; reap before asking again";
    EEXIST Fault: "the thing exists, or a thread that does not own the ring used it";
    EXDEV Fault: FILES;
    ENODEV Fault: "the device is gone or cannot do this";
    ENOTDIR Fault: FILES;
    EISDIR Fault: FILES;
    EINVAL Fault: "the kernel does not know a flag or a value of the request";
    ENFILE Resources: "the system has no file left";
    EMFILE Resources: "the process has no descriptor left";
    ENOTTY Fault: "the descriptor does not know this ioctl";
    ETXTBSY Fault: FILES;
    EFBIG Fault: FILES;
    ENOSPC Resources: "the user may not watch more descriptors";
    ESPIPE Fault: "an offset was given for a socket";
    EROFS Fault: FILES;
    EMLINK Fault: FILES;
    EPIPE Reset: "a RST came after the FIN, or our send came after it; unless we shut the sending side ourselves";
    EDOM Fault: "an option's value is out of its range";
    ERANGE Fault: "an option's value is out of its range";
    EDEADLK Fault: PROCESSES;
    ENAMETOOLONG Fault: FILES;
    ENOLCK Fault: FILES;
    ENOSYS Fault: "the kernel, or its seccomp filter, does not have the call";
    ENOTEMPTY Fault: FILES;
    ELOOP Fault: "pollers watch each other in a circle";
    ENOMSG Fault: "of System V messages and semaphores; a socket does not give it";
    EIDRM Fault: "of System V messages and semaphores; a socket does not give it";
    ECHRNG Fault: HARDWARE;
    EL2NSYNC Fault: HARDWARE;
    EL3HLT Fault: HARDWARE;
    EL3RST Fault: HARDWARE;
    ELNRNG Fault: HARDWARE;
    EUNATCH Fault: HARDWARE;
    ENOCSI Fault: HARDWARE;
    EL2HLT Fault: HARDWARE;
    EBADE Fault: HARDWARE;
    EBADR Fault: "the ring lost completions; every socket has to be looked at";
    EXFULL Fault: HARDWARE;
    ENOANO Fault: HARDWARE;
    EBADRQC Fault: HARDWARE;
    EBADSLT Fault: HARDWARE;
    EBFONT Fault: HARDWARE;
    ENOSTR Fault: UNUSED;
    ENODATA Fault: "an attribute that is not there was asked for";
    ETIME Cancelled: "a timeout of ours ran out";
    ENOSR Fault: UNUSED;
    ENONET NetUnreachable: "a router says that this host is isolated (ICMP code 8)";
    ENOPKG Fault: UNUSED;
    EREMOTE Fault: UNUSED;
    ENOLINK Fault: UNUSED;
    EADV Fault: UNUSED;
    ESRMNT Fault: UNUSED;
    ECOMM Fault: UNUSED;
    EPROTO HostUnreachable: "a router or the host could not make sense of a packet's header (ICMP parameter problem)";
    EMULTIHOP Fault: UNUSED;
    EDOTDOT Fault: UNUSED;
    EBADMSG Fault: "a kTLS record could not be decrypted";
    EOVERFLOW Fault: "a number does not fit its field";
    ENOTUNIQ Fault: UNUSED;
    EBADFD Fault: "the ring is not enabled yet";
    EREMCHG Fault: UNUSED;
    ELIBACC Fault: LIBRARIES;
    ELIBBAD Fault: LIBRARIES;
    ELIBSCN Fault: LIBRARIES;
    ELIBMAX Fault: LIBRARIES;
    ELIBEXEC Fault: LIBRARIES;
    EILSEQ Fault: "of text encodings; a socket does not give it";
    ERESTART Again: "the kernel asks for the request to be made again";
    ESTRPIPE Fault: UNUSED;
    EUSERS Fault: "a table of users is full; TCP has none";
    ENOTSOCK Fault: "the descriptor is no socket";
    EDESTADDRREQ Fault: "the socket has no peer; TCP says ENOTCONN instead";
    EMSGSIZE Fault: "the request has too many parts; the ICMP of that name goes to path MTU discovery";
    EPROTOTYPE Fault: FAMILIES;
    ENOPROTOOPT HostUnreachable: "the host says that it does not speak TCP (ICMP code 2)";
    EPROTONOSUPPORT Fault: FAMILIES;
    ESOCKTNOSUPPORT Fault: FAMILIES;
    EOPNOTSUPP NetUnreachable: "a router could not follow a source route (ICMP code 5)";
    EPFNOSUPPORT Fault: FAMILIES;
    EAFNOSUPPORT Fault: FAMILIES;
    EADDRINUSE Fault: "the local address is taken";
    EADDRNOTAVAIL Fault: "the local address is not ours";
    ENETDOWN NetUnreachable: "the interface on our side is down";
    ENETUNREACH NetUnreachable: "no route, or a router said so (ICMP codes 0, 6, 9, 11)";
    ENETRESET Fault: "the keepalive of other systems; TCP on Linux does not give it";
    ECONNABORTED LocalAbort: "a program on this machine destroyed the socket (ss -K, SOCK_DESTROY)";
    ECONNRESET Reset: "a RST came";
    ENOBUFS Resources: "no buffer was left for what came";
    EISCONN Fault: "the socket is connected already";
    ENOTCONN LocalAbort: "the socket has no connection: never had one, or it was taken away";
    ESHUTDOWN LocalAbort: "this side was shut down";
    ETOOMANYREFS Fault: "too many descriptors on their way; TCP carries none";
    ETIMEDOUT TimedOut: "keepalive, the user timeout or retransmission gave up";
    ECONNREFUSED Reset: "the host says that no program listens there (ICMP port unreachable); an established recv gives it only so";
    EHOSTDOWN HostUnreachable: "a router does not know the host (ICMP code 7)";
    EHOSTUNREACH HostUnreachable: "no answer to ARP, or a router said so (ICMP codes 1, 10, 12 to 15, or time exceeded)";
    EALREADY Fault: "the request is under way already, and cannot be cancelled any more";
    EINPROGRESS Fault: "the connection is still being made";
    ESTALE Fault: FILES;
    EUCLEAN Fault: FILES;
    ENOTNAM Fault: XENIX;
    ENAVAIL Fault: XENIX;
    EISNAM Fault: XENIX;
    EREMOTEIO Fault: UNUSED;
    EDQUOT Fault: FILES;
    ENOMEDIUM Fault: "of removable disks; a socket does not give it";
    EMEDIUMTYPE Fault: "of removable disks; a socket does not give it";
    ECANCELED Cancelled: "we cancelled the request, or the ring did as it closed";
    ENOKEY Fault: KEYS;
    EKEYEXPIRED Fault: "a kTLS key is used up and waits for its successor";
    EKEYREVOKED Fault: KEYS;
    EKEYREJECTED Fault: KEYS;
    EOWNERDEAD Fault: "the thread that polls the ring's submissions has died";
    ENOTRECOVERABLE Fault: "of robust mutexes; a socket does not give it";
    ERFKILL Fault: "a switch turned the radio off; the route, not the socket, notices";
    EHWPOISON Fault: "a page of our memory is broken";
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
        assert!(index == 0 || ROWS[index - 1].errno < row.errno, "the rows are in order, once each");
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
    fn a_number_without_a_row_is_a_fault_of_ours() {
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
    fn what_a_connection_can_die_of_is_told_apart_from_what_is_ours() {
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
            ROWS.iter().filter(|row| row.whose() == Whose::Peer).map(|row| row.name).collect();
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
