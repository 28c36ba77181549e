//! A FIFO that lines are written to, as Keepalived's `notify_fifo`: made where it is missing, open for reading, too, so
//! that it takes lines though nobody reads yet.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, sys::stat::Mode, unistd::mkfifo};

/// Errors say what to do.
#[derive(Debug, thiserror::Error)]
pub enum FifoError {
    #[error("cannot make the fifo {path}: {source}; make its directory, or change `fifo`")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot open the fifo {path}: {source}; correct its mode, or remove it")]
    Open { path: PathBuf, source: io::Error },
    #[error("{0} is no fifo: remove it, or change `fifo`")]
    Other(PathBuf),
    #[error("the fifo {0} is full: start its reader, or take it out of `fifo`")]
    Full(PathBuf),
    #[error("cannot write to the fifo {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    file: Option<File>,
}

impl Fifo {
    /// Opened when it is first written to.
    pub fn new(path: PathBuf) -> Fifo {
        Fifo { path, file: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of the line or nothing of it, which PIPE_BUF (4096) bytes are promised. Never waits for a reader.
    pub fn write(&mut self, line: &str) -> Result<(), FifoError> {
        let path = self.path.clone();
        match self.opened()?.write(line.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(FifoError::Full(path)),
            Err(source) => Err(FifoError::Write { path, source }),
        }
    }

    /// Anew where somebody removed it, or put another in its place.
    fn opened(&mut self) -> Result<&mut File, FifoError> {
        let current = self.file.take().filter(|file| is_at(file, &self.path));
        let file = match current {
            Some(file) => file,
            None => open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
    file.metadata().map(place).ok() == fs::metadata(path).map(place).ok()
}

fn open(path: &Path) -> Result<File, FifoError> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(FifoError::Make { path: path.to_owned(), source: errno.into() }),
    }
    let fault = |source| FifoError::Open { path: path.to_owned(), source };
    // A device that only opening it would set off is not opened.
    if !fs::metadata(path).map_err(fault)?.file_type().is_fifo() {
        return Err(FifoError::Other(path.to_owned()));
    }
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map_err(fault)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn reader(path: &Path) -> File {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    }

    fn read(file: &mut File) -> String {
        let mut bytes = [0; 4096];
        let length = file.read(&mut bytes).unwrap_or(0);
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn lines_wait_for_their_reader() {
        let folder = tempfile::tempdir().unwrap();
        let mut fifo = Fifo::new(folder.path().join("notify"));
        fifo.write("one\n").unwrap();
        fifo.write("two\n").unwrap();
        assert_eq!(fs::metadata(fifo.path()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&mut reader(fifo.path())), "one\ntwo\n");
    }

    #[test]
    fn a_full_fifo_drops_whole_lines_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut fifo = Fifo::new(folder.path().join("notify"));
        let line = format!("{}\n", "x".repeat(99));
        let error = (0..10_000).find_map(|_| fifo.write(&line).err()).unwrap();
        assert!(matches!(error, FifoError::Full(_)), "{error}");
        let mut reader = reader(fifo.path());
        let pieces = std::iter::repeat_with(|| read(&mut reader));
        let taken: String = pieces.take_while(|piece| !piece.is_empty()).collect();
        assert!(taken.lines().all(|taken| taken.len() == 99), "a line was cut");
        fifo.write(&line).unwrap();
    }

    #[test]
    fn one_that_was_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut fifo = Fifo::new(folder.path().join("notify"));
        fifo.write("lost\n").unwrap();
        fs::remove_file(fifo.path()).unwrap();
        fifo.write("found\n").unwrap();
        assert_eq!(read(&mut reader(fifo.path())), "found\n");
    }

    #[test]
    fn what_cannot_be_written_to_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for (name, expected) in [("file", "is no fifo: remove it"), ("none/fifo", "make its directory")] {
            let error = Fifo::new(folder.path().join(name)).write("x\n").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
