//! Writing only as much as goes without waiting, whatever the descriptor's own mode is.
//!
//! `O_NONBLOCK` belongs to the open file, and standard output is often shared with a shell and other programs, whom it
//! would surprise. `RWF_NOWAIT` belongs to the one call.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// How a file is written without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the call's own flag: pipes, sockets, a few file systems.
    Flag,
    /// As ever: it lies in memory (`tmpfs(5)`, `memfd_create(2)`), and no disk is waited for.
    Plainly,
}

impl How {
    /// What suits this file, as far as can be seen beforehand: whether the flag is understood, a write tells.
    #[must_use]
    pub fn of(file: &File) -> How {
        // SAFETY: all of it are numbers, for which zeros are fine.
        let mut system: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes no more than this structure, which is ours and outlives the call.
        let failed = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut system) } != 0;
        // A device or a FIFO is elsewhere than its name.
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if regular && !failed && system.f_type == libc::TMPFS_MAGIC { How::Plainly } else { How::Flag }
    }

    /// Writes what the kernel takes at once, where the file's own position is, and returns how many bytes that were.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when it takes none now. Anything else: this file is not to be written
    /// in this way (`EOPNOTSUPP` of a terminal, a FIFO, most disks' file systems), or not at all (`EPIPE`); a plain write
    /// tells which.
    pub fn write(self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        if self == How::Plainly {
            return file.write(bytes);
        }
        let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: one vector, of bytes that are borrowed for the call, and that a write only reads.
        let written = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{PipeReader, Read, Seek};
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (PipeReader, File) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn a_pipe_takes_what_it_has_room_for_and_then_nothing() {
        let (mut reader, writer) = pipe();
        let how = How::of(&writer);
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
        // A write that is longer than the room takes the room.
        let mut half = vec![0; written / 2];
        reader.read_exact(&mut half).unwrap();
        let long = vec![7; written];
        assert!((1..long.len()).contains(&how.write(&writer, &long).unwrap()));
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error() {
        let (reader, writer) = pipe();
        drop(reader);
        let error = How::of(&writer).write(&writer, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_lies_in_memory_is_written_as_ever() {
        let mut file = crate::sys::process::memory_file(c"written").unwrap();
        assert_eq!(How::of(&file), How::Plainly);
        assert_eq!(How::Plainly.write(&file, b"line\n").unwrap(), 5);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\n");
    }

    #[test]
    fn devices_and_fifos_whose_names_lie_in_memory_are_not_taken_for_files_there() {
        // Opened for both, a FIFO waits for nobody.
        let path = format!("/dev/shm/deadpeer-nowait-{}", std::process::id());
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        for path in ["/dev/ptmx", &path] {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let how = How::of(&file);
            assert_eq!(how, How::Flag, "{path}");
            // Neither says that it would have to wait.
            assert_eq!(how.write(&file, b"x").unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP), "{path}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
