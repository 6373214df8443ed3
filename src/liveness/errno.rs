//! What each errno says about a peer: one exhaustive table.
//!
//! # Intuition
//!
//! A negative completion is an accusation, and the first question is whom it accuses. The peer, the
//! path to it, or ourselves: a connection that is cut because *we* ran out of buffers is a mistake
//! that shipped in other products.
//!
//! # Model
//!
//! Every number of Linux (asm-generic, as on x86_64 and aarch64) has one [`Row`]: its name, its
//! [`Meaning`], and the reason for that meaning. A [`Meaning`] knows [`Whose`] affair it is.
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
//! assert_eq!(errno::meaning(105).whose(), Whose::Ours); // ENOBUFS: nobody dies of it
//! assert_eq!(errno::row(-3).name, "E?");
//! ```

/// What an errno tells.
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
    /// Somebody on this machine ended the connection, or this side of it.
    LocalAbort,
    /// Nothing is there now.
    Again,
    /// We ran out of something: replenish first, then ask once more.
    Resources,
    /// We cancelled the request, or gave it a timeout.
    Cancelled,
    /// A request of ours was wrong. It says nothing of the peer; the socket's state has to be looked at.
    Fault,
}

/// Whom an errno is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The peer, or its kernel.
    Peer,
    /// What lies between, including our own interface.
    Path,
    /// Us: no verdict about the peer.
    Ours,
}

impl Meaning {
    /// Whom it is about.
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

/// One errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The number, positive.
    pub errno: i32,
    /// The name in the kernel's spelling.
    pub name: &'static str,
    /// What it tells.
    pub meaning: Meaning,
    /// Why it tells that, in a clause.
    pub reason: &'static str,
}

impl Row {
    /// Whom it is about.
    #[must_use]
    pub const fn whose(&self) -> Whose {
        self.meaning.whose()
    }
}

/// The row of an errno, which is positive; a number without one has the row `E?`.
#[must_use]
pub fn row(errno: i32) -> &'static Row {
    usize::try_from(errno).ok().and_then(|index| TABLE.get(index)).unwrap_or(&TABLE[0])
}

/// What an errno tells.
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
const ROWS: &[Row] = &[
    row_of(1, "EPERM", Meaning::Fault, "a security policy or a restricted ring forbids the request"),
    row_of(2, "ENOENT", Meaning::Fault, "a cancellation found nothing to cancel"),
    row_of(3, "ESRCH", Meaning::Fault, PROCESSES),
    row_of(4, "EINTR", Meaning::Again, "a signal came while the request waited"),
    row_of(5, "EIO", Meaning::Fault, "the device failed, or a kTLS record that is not data waits to be read"),
    row_of(6, "ENXIO", Meaning::Fault, "the ring has no such registered file or buffer"),
    row_of(7, "E2BIG", Meaning::Fault, "the request is longer than the kernel accepts"),
    row_of(8, "ENOEXEC", Meaning::Fault, PROCESSES),
    row_of(9, "EBADF", Meaning::Fault, "the descriptor is not open, or open for something else"),
    row_of(10, "ECHILD", Meaning::Fault, PROCESSES),
    row_of(11, "EAGAIN", Meaning::Again, "nothing is there now"),
    row_of(12, "ENOMEM", Meaning::Resources, "the kernel found no memory for the request"),
    row_of(13, "EACCES", Meaning::HostUnreachable, "an IPv6 router or host refused the packets by policy"),
    row_of(14, "EFAULT", Meaning::Fault, "the request points to memory that is not ours"),
    row_of(15, "ENOTBLK", Meaning::Fault, FILES),
    row_of(16, "EBUSY", Meaning::Resources, "the completion queue is full; reap before asking again"),
    row_of(17, "EEXIST", Meaning::Fault, "the thing exists, or a thread that does not own the ring used it"),
    row_of(18, "EXDEV", Meaning::Fault, FILES),
    row_of(19, "ENODEV", Meaning::Fault, "the device is gone or cannot do this"),
    row_of(20, "ENOTDIR", Meaning::Fault, FILES),
    row_of(21, "EISDIR", Meaning::Fault, FILES),
    row_of(22, "EINVAL", Meaning::Fault, "the kernel does not know a flag or a value of the request"),
    row_of(23, "ENFILE", Meaning::Resources, "the system has no file left"),
    row_of(24, "EMFILE", Meaning::Resources, "the process has no descriptor left"),
    row_of(25, "ENOTTY", Meaning::Fault, "the descriptor does not know this ioctl"),
    row_of(26, "ETXTBSY", Meaning::Fault, FILES),
    row_of(27, "EFBIG", Meaning::Fault, FILES),
    row_of(28, "ENOSPC", Meaning::Resources, "the user may not watch more descriptors"),
    row_of(29, "ESPIPE", Meaning::Fault, "an offset was given for a socket"),
    row_of(30, "EROFS", Meaning::Fault, FILES),
    row_of(31, "EMLINK", Meaning::Fault, FILES),
    row_of(32, "EPIPE", Meaning::Reset, "a RST came after the FIN, or our send came after it; unless we shut the sending side ourselves"),
    row_of(33, "EDOM", Meaning::Fault, "an option's value is out of its range"),
    row_of(34, "ERANGE", Meaning::Fault, "an option's value is out of its range"),
    row_of(35, "EDEADLK", Meaning::Fault, PROCESSES),
    row_of(36, "ENAMETOOLONG", Meaning::Fault, FILES),
    row_of(37, "ENOLCK", Meaning::Fault, FILES),
    row_of(38, "ENOSYS", Meaning::Fault, "the kernel, or its seccomp filter, does not have the call"),
    row_of(39, "ENOTEMPTY", Meaning::Fault, FILES),
    row_of(40, "ELOOP", Meaning::Fault, "pollers watch each other in a circle"),
    row_of(42, "ENOMSG", Meaning::Fault, "of System V messages and semaphores; a socket does not give it"),
    row_of(43, "EIDRM", Meaning::Fault, "of System V messages and semaphores; a socket does not give it"),
    row_of(44, "ECHRNG", Meaning::Fault, HARDWARE),
    row_of(45, "EL2NSYNC", Meaning::Fault, HARDWARE),
    row_of(46, "EL3HLT", Meaning::Fault, HARDWARE),
    row_of(47, "EL3RST", Meaning::Fault, HARDWARE),
    row_of(48, "ELNRNG", Meaning::Fault, HARDWARE),
    row_of(49, "EUNATCH", Meaning::Fault, HARDWARE),
    row_of(50, "ENOCSI", Meaning::Fault, HARDWARE),
    row_of(51, "EL2HLT", Meaning::Fault, HARDWARE),
    row_of(52, "EBADE", Meaning::Fault, HARDWARE),
    row_of(53, "EBADR", Meaning::Fault, "the ring lost completions; every socket has to be looked at"),
    row_of(54, "EXFULL", Meaning::Fault, HARDWARE),
    row_of(55, "ENOANO", Meaning::Fault, HARDWARE),
    row_of(56, "EBADRQC", Meaning::Fault, HARDWARE),
    row_of(57, "EBADSLT", Meaning::Fault, HARDWARE),
    row_of(59, "EBFONT", Meaning::Fault, HARDWARE),
    row_of(60, "ENOSTR", Meaning::Fault, UNUSED),
    row_of(61, "ENODATA", Meaning::Fault, "an attribute that is not there was asked for"),
    row_of(62, "ETIME", Meaning::Cancelled, "a timeout of ours ran out"),
    row_of(63, "ENOSR", Meaning::Fault, UNUSED),
    row_of(64, "ENONET", Meaning::NetUnreachable, "a router says that this host is isolated (ICMP code 8)"),
    row_of(65, "ENOPKG", Meaning::Fault, UNUSED),
    row_of(66, "EREMOTE", Meaning::Fault, UNUSED),
    row_of(67, "ENOLINK", Meaning::Fault, UNUSED),
    row_of(68, "EADV", Meaning::Fault, UNUSED),
    row_of(69, "ESRMNT", Meaning::Fault, UNUSED),
    row_of(70, "ECOMM", Meaning::Fault, UNUSED),
    row_of(71, "EPROTO", Meaning::HostUnreachable, "a router or the host could not make sense of a packet's header (ICMP parameter problem)"),
    row_of(72, "EMULTIHOP", Meaning::Fault, UNUSED),
    row_of(73, "EDOTDOT", Meaning::Fault, UNUSED),
    row_of(74, "EBADMSG", Meaning::Fault, "a kTLS record could not be decrypted"),
    row_of(75, "EOVERFLOW", Meaning::Fault, "a number does not fit its field"),
    row_of(76, "ENOTUNIQ", Meaning::Fault, UNUSED),
    row_of(77, "EBADFD", Meaning::Fault, "the ring is not enabled yet"),
    row_of(78, "EREMCHG", Meaning::Fault, UNUSED),
    row_of(79, "ELIBACC", Meaning::Fault, LIBRARIES),
    row_of(80, "ELIBBAD", Meaning::Fault, LIBRARIES),
    row_of(81, "ELIBSCN", Meaning::Fault, LIBRARIES),
    row_of(82, "ELIBMAX", Meaning::Fault, LIBRARIES),
    row_of(83, "ELIBEXEC", Meaning::Fault, LIBRARIES),
    row_of(84, "EILSEQ", Meaning::Fault, "of text encodings; a socket does not give it"),
    row_of(85, "ERESTART", Meaning::Again, "the kernel asks for the request to be made again"),
    row_of(86, "ESTRPIPE", Meaning::Fault, UNUSED),
    row_of(87, "EUSERS", Meaning::Fault, "a table of users is full; TCP has none"),
    row_of(88, "ENOTSOCK", Meaning::Fault, "the descriptor is no socket"),
    row_of(89, "EDESTADDRREQ", Meaning::Fault, "the socket has no peer; TCP says ENOTCONN instead"),
    row_of(90, "EMSGSIZE", Meaning::Fault, "the request has too many parts; the ICMP of that name goes to path MTU discovery"),
    row_of(91, "EPROTOTYPE", Meaning::Fault, FAMILIES),
    row_of(92, "ENOPROTOOPT", Meaning::HostUnreachable, "the host says that it does not speak TCP (ICMP code 2)"),
    row_of(93, "EPROTONOSUPPORT", Meaning::Fault, FAMILIES),
    row_of(94, "ESOCKTNOSUPPORT", Meaning::Fault, FAMILIES),
    row_of(95, "EOPNOTSUPP", Meaning::NetUnreachable, "a router could not follow a source route (ICMP code 5)"),
    row_of(96, "EPFNOSUPPORT", Meaning::Fault, FAMILIES),
    row_of(97, "EAFNOSUPPORT", Meaning::Fault, FAMILIES),
    row_of(98, "EADDRINUSE", Meaning::Fault, "the local address is taken"),
    row_of(99, "EADDRNOTAVAIL", Meaning::Fault, "the local address is not ours"),
    row_of(100, "ENETDOWN", Meaning::NetUnreachable, "the interface on our side is down"),
    row_of(101, "ENETUNREACH", Meaning::NetUnreachable, "no route, or a router said so (ICMP codes 0, 6, 9, 11)"),
    row_of(102, "ENETRESET", Meaning::Fault, "the keepalive of other systems; TCP on Linux does not give it"),
    row_of(103, "ECONNABORTED", Meaning::LocalAbort, "somebody on this machine destroyed the socket (ss -K, SOCK_DESTROY)"),
    row_of(104, "ECONNRESET", Meaning::Reset, "a RST came"),
    row_of(105, "ENOBUFS", Meaning::Resources, "no buffer was left for what came"),
    row_of(106, "EISCONN", Meaning::Fault, "the socket is connected already"),
    row_of(107, "ENOTCONN", Meaning::LocalAbort, "the socket has no connection: never had one, or it was taken away"),
    row_of(108, "ESHUTDOWN", Meaning::LocalAbort, "this side was shut down"),
    row_of(109, "ETOOMANYREFS", Meaning::Fault, "too many descriptors on their way; TCP carries none"),
    row_of(110, "ETIMEDOUT", Meaning::TimedOut, "keepalive, the user timeout or retransmission gave up"),
    row_of(111, "ECONNREFUSED", Meaning::Reset, "the host says that nobody listens there (ICMP port unreachable); an established recv gives it only so"),
    row_of(112, "EHOSTDOWN", Meaning::HostUnreachable, "a router does not know the host (ICMP code 7)"),
    row_of(113, "EHOSTUNREACH", Meaning::HostUnreachable, "no answer to ARP, or a router said so (ICMP codes 1, 10, 12 to 15, or time exceeded)"),
    row_of(114, "EALREADY", Meaning::Fault, "the request is under way already, and cannot be cancelled any more"),
    row_of(115, "EINPROGRESS", Meaning::Fault, "the connection is still being made"),
    row_of(116, "ESTALE", Meaning::Fault, FILES),
    row_of(117, "EUCLEAN", Meaning::Fault, FILES),
    row_of(118, "ENOTNAM", Meaning::Fault, XENIX),
    row_of(119, "ENAVAIL", Meaning::Fault, XENIX),
    row_of(120, "EISNAM", Meaning::Fault, XENIX),
    row_of(121, "EREMOTEIO", Meaning::Fault, UNUSED),
    row_of(122, "EDQUOT", Meaning::Fault, FILES),
    row_of(123, "ENOMEDIUM", Meaning::Fault, "of removable disks; a socket does not give it"),
    row_of(124, "EMEDIUMTYPE", Meaning::Fault, "of removable disks; a socket does not give it"),
    row_of(125, "ECANCELED", Meaning::Cancelled, "we cancelled the request, or the ring did as it closed"),
    row_of(126, "ENOKEY", Meaning::Fault, KEYS),
    row_of(127, "EKEYEXPIRED", Meaning::Fault, "a kTLS key is used up and waits for its successor"),
    row_of(128, "EKEYREVOKED", Meaning::Fault, KEYS),
    row_of(129, "EKEYREJECTED", Meaning::Fault, KEYS),
    row_of(130, "EOWNERDEAD", Meaning::Fault, "the thread that polls the ring's submissions has died"),
    row_of(131, "ENOTRECOVERABLE", Meaning::Fault, "of robust mutexes; a socket does not give it"),
    row_of(132, "ERFKILL", Meaning::Fault, "a switch turned the radio off; the route, not the socket, notices"),
    row_of(133, "EHWPOISON", Meaning::Fault, "a page of our memory is broken"),
];

/// One more than the greatest errno.
const NUMBERS: usize = 134;

/// The rows by number. Row 0 is that of every number that has none, as 0, 41 and 58 have.
static TABLE: [Row; NUMBERS] = by_number();

const fn row_of(errno: i32, name: &'static str, meaning: Meaning, reason: &'static str) -> Row {
    Row { errno, name, meaning, reason }
}

const fn by_number() -> [Row; NUMBERS] {
    let none = row_of(0, "E?", Meaning::Fault, "no errno of Linux; nothing can be concluded from it");
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
        macro_rules! check {
            ($($name:ident)*) => {
                [$((libc::$name, stringify!($name))),*]
            };
        }
        let all = check!(
            EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES
            EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY
            ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG
            ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG
            EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR
            ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP
            EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX
            ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
            ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT
            EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET
            ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN
            EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO
            EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED
            EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
        );
        assert_eq!(all.len(), ROWS.len());
        for (errno, spelling) in all {
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
