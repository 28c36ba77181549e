//! One look at a tracked file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Errors say what to do.
#[derive(Debug, thiserror::Error)]
pub enum TrackFileError {
    #[error("cannot read {path}: {source}; correct its mode")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is no regular file: name one")]
    Other(PathBuf),
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Absent,
    /// As much of it as a number can have.
    Present(Vec<u8>),
    /// It is empty since a moment ago: whoever writes it may not be done.
    Emptied,
}

/// Blocks for as long as its file system does.
pub fn read(path: &Path) -> Result<Content, TrackFileError> {
    let fault = |source| TrackFileError::Read { path: path.to_owned(), source };
    // Opening a FIFO would wait for whoever writes to it.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) => return Err(fault(error)),
    };
    if !file.metadata().map_err(fault)?.is_file() {
        return Err(TrackFileError::Other(path.to_owned()));
    }
    let is_fresh = is_fresh(&file);
    let mut content = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut content).map_err(fault)?;
    match content.is_empty() && is_fresh {
        true => Ok(Content::Emptied),
        false => Ok(Content::Present(content)),
    }
}

/// Where the time of a change is unknown or in the future, it was long ago.
fn is_fresh(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    modified.ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age < WRITING)
}

/// From emptying a file to what is written to it.
pub const WRITING: Duration = Duration::from_millis(50);

const SIZE_MAX: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_it_matters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        assert_eq!(read(&path).unwrap(), Content::Absent);
        fs::write(&path, "5\n").unwrap();
        assert_eq!(read(&path).unwrap(), Content::Present(b"5\n".to_vec()));
        fs::write(&path, "x".repeat(1 << 20)).unwrap();
        assert!(matches!(read(&path).unwrap(), Content::Present(content) if content.len() == 4_096));
    }

    #[test]
    fn one_that_was_just_emptied_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let file = File::create(&path).unwrap();
        let ahead = SystemTime::now() - Duration::from_millis(1);
        file.set_modified(ahead).unwrap();
        // A machine that was busy in between sees it as old.
        assert!(matches!(read(&path).unwrap(), Content::Emptied | Content::Present(_)));
        file.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
        assert_eq!(read(&path).unwrap(), Content::Present(Vec::new()));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        for path in [fifo.as_path(), folder.path()] {
            assert!(read(path).unwrap_err().to_string().contains("is no regular file"));
        }
    }
}
