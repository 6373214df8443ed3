//! Writes only what the kernel takes at once, in whatever mode the descriptor is.
//!
//! `O_NONBLOCK` belongs to the open file, and standard output is often shared with a shell and other
//! programs, which do not expect it. `RWF_NOWAIT` belongs to the one call. Not for pipes: a reader holds the pipe's mutex while it copies
//! or splices to wherever it likes, and a writer waits for the mutex whatever its flags say (`pipe_write`).

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileTypeExt;

use rustix::fs::fstatfs;
use rustix::io::{ReadWriteFlags, pwritev2};

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
/// The offset of a `pwritev2` that writes at the position of the file.
const AT_POSITION: u64 = u64::MAX;

/// How a file is written without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the call's own flag: sockets, a few file systems.
    Flag,
    /// By a plain write: the file lies in memory (`tmpfs(5)`, `memfd_create(2)`), and waits for a disk only where memory itself does,
    /// when it was swapped out.
    Plainly,
}

impl How {
    /// The way that suits this file, or `None` for a pipe. Whether the flag is understood shows at the first write.
    #[must_use]
    pub fn of(file: &File) -> Option<How> {
        let kind = file.metadata().ok()?.file_type();
        if kind.is_fifo() {
            return None;
        }
        // A device is elsewhere than its name.
        let in_memory = kind.is_file() && fstatfs(file).is_ok_and(|system| system.f_type == TMPFS_MAGIC);
        Some(if in_memory { How::Plainly } else { How::Flag })
    }

    /// Writes what the kernel takes at once at the file's position, and returns the number of bytes. Errors:
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when it takes none now. Anything else: this file is not to be
    /// written in this way (`EOPNOTSUPP` of a terminal and of most disks' file systems), or not at all (`EPIPE`); a
    /// plain write tells which.
    pub fn write(self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        if self == How::Plainly {
            return file.write(bytes);
        }
        Ok(pwritev2(file, &[IoSlice::new(bytes)], AT_POSITION, ReadWriteFlags::NOWAIT)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{Read, Seek};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn socket() -> (UnixStream, File) {
        let (reader, writer) = UnixStream::pair().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn a_socket_takes_what_it_has_room_for_and_then_nothing() {
        let (mut reader, writer) = socket();
        let how = How::of(&writer).unwrap();
        assert_eq!(how, How::Flag);
        let page = [7; 4096];
        let mut written = 0;
        let full = loop {
            match how.write(&writer, &page) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(written >= page.len());
        reader.read_exact(&mut vec![0; written]).unwrap();
        assert_eq!(how.write(&writer, &page).unwrap(), page.len());
    }

    #[test]
    fn a_socket_without_a_reader_is_an_error() {
        let (reader, writer) = socket();
        drop(reader);
        let error = How::of(&writer).unwrap().write(&writer, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_in_memory_is_written_plainly() {
        let mut file = crate::sys::process::memory_file(c"written").unwrap();
        assert_eq!(How::of(&file), Some(How::Plainly));
        assert_eq!(How::Plainly.write(&file, b"line\n").unwrap(), 5);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\n");
    }

    #[test]
    fn pipes_are_not_written_in_this_way_wherever_their_names_are() {
        let (_reader, writer) = io::pipe().unwrap();
        assert_eq!(How::of(&File::from(OwnedFd::from(writer))), None);
        let path = format!("/dev/shm/deadpeer-nowait-{}", std::process::id());
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        // Opened for reading and writing, it does not wait for a reader.
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(How::of(&file), None);
    }

    #[test]
    fn a_device_whose_name_lies_in_memory_is_not_taken_for_a_file_there() {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap();
        let how = How::of(&terminal).unwrap();
        assert_eq!(how, How::Flag);
        assert_eq!(how.write(&terminal, b"x").unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
