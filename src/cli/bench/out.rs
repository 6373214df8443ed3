//! Writes a result file: whole or not at all, so that a reader never finds half a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::describe;

/// The file of `--out`.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    /// The file that is renamed to the result when it is complete. `None` for a pipe or a device, which must not be
    /// replaced.
    draft: Option<PathBuf>,
}

impl Destination {
    /// Checks that the file can be written, before anything is measured. Leaves no file.
    pub(super) fn new(path: &Path) -> io::Result<Destination> {
        // A link stays a link, and its target is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let kind = fs::metadata(&path).map(|found| found.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            return Err(cannot_write(&path, &io::ErrorKind::IsADirectory.into()));
        }
        if kind.is_ok_and(|kind| !kind.is_file()) {
            return Ok(Destination { path, draft: None });
        }
        let mut draft = path.clone().into_os_string();
        draft.push(format!(".{}.part", std::process::id()));
        let draft = PathBuf::from(draft);
        let tried = File::create(&draft).and_then(|_| fs::remove_file(&draft));
        tried.map_err(|error| cannot_write(&path, &error))?;
        Ok(Destination { path, draft: Some(draft) })
    }

    pub(super) fn write(&self, text: &str) -> io::Result<()> {
        let written = match &self.draft {
            None => File::options()
                .write(true)
                .open(&self.path)
                .and_then(|mut file| file.write_all(text.as_bytes())),
            Some(draft) => replace(&self.path, draft, text),
        };
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn replace(path: &Path, draft: &Path, text: &str) -> io::Result<()> {
    let fill = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let written = File::create(draft).and_then(fill).and_then(|()| fs::rename(draft, path));
    if written.is_err() {
        // It may not exist.
        let _ = fs::remove_file(draft);
    }
    written
}

fn cannot_write(path: &Path, error: &io::Error) -> io::Error {
    let text = format!("cannot write {}: {}; name another file with --out", path.display(), describe(error));
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    /// A folder of one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("deadpeer-out-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nothing_is_there_before_the_result_and_nothing_but_it_after() {
        let folder = Folder::new("whole");
        let destination = Destination::new(&folder.0.join("result.json")).unwrap();
        assert!(folder.names().is_empty(), "{:?}", folder.names());
        destination.write("text").unwrap();
        assert_eq!(folder.names(), ["result.json"]);
        destination.write("other").unwrap();
        assert_eq!(fs::read_to_string(folder.0.join("result.json")).unwrap(), "other");
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = Folder::new("link");
        fs::write(folder.0.join("real"), "old").unwrap();
        symlink("real", folder.0.join("link")).unwrap();
        Destination::new(&folder.0.join("link")).unwrap().write("new").unwrap();
        assert!(fs::symlink_metadata(folder.0.join("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(folder.0.join("real")).unwrap(), "new");
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        // Through a link of ours, so that a fault of this code costs a link and not the machine's device.
        let folder = Folder::new("device");
        symlink("/dev/null", folder.0.join("null")).unwrap();
        let destination = Destination::new(&folder.0.join("null")).unwrap();
        assert!(destination.draft.is_none());
        destination.write("text").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn what_cannot_be_written_is_known_before_anything_is_measured() {
        let folder = Folder::new("refused");
        for path in [folder.0.clone(), folder.0.join("nowhere/result.json")] {
            let error = Destination::new(&path).unwrap_err().to_string();
            assert!(error.contains("--out") && !error.contains("os error"), "{error}");
        }
    }
}
