//! Unix stream sockets (`unix(7)`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::SocketFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Connects without waiting: it is done, or fails at once. Errors: those of `connect(2)`; EAGAIN where the listener's backlog
/// is full.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// The file of a listening socket. It is removed when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.device_and_inode) {
            let _ = fs::remove_file(&self.path); // at worst the next start finds it stale
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens at a path, whose permissions become `mode`. A socket that no process listens at is replaced. Errors: those of
/// `bind(2)`; `AddrInUse` where a process listens there, or the path is another kind of file.
pub fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(OwnedFd, SocketFile)> {
    let address = SockAddr::unix(path)?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        let stale = metadata.file_type().is_socket()
            && connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        fs::remove_file(path)?;
    }
    let socket = socket()?;
    socket.bind(&address)?;
    let file = SocketFile { path: path.to_owned(), device_and_inode: identity(path)? };
    // Nobody can connect before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Accepts one connection, close-on-exec and non-blocking. Errors: those of `accept(2)`; `WouldBlock` when none waits.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // An urgent byte would be missing, as from a TCP socket.
    SockRef::from(&fd).set_out_of_band_inline(true)?;
    Ok(fd)
}

/// The ids of the process that has connected (0 if it is in another PID namespace) and of its user (`SO_PEERCRED`). Errors:
/// those of `getsockopt(2)`.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` and `length` are ours and outlive the call, which writes at most `length` bytes; any bytes are numbers.
    let result = unsafe {
        let value = (&raw mut peer).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, value, &mut length)
    };
    if result == 0 { Ok((peer.pid.cast_unsigned(), peer.uid)) } else { Err(io::Error::last_os_error()) }
}
