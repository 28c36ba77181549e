//! Files: what the operator wrote, configuration and secrets, and what the daemon keeps.

mod inputs;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

pub use self::inputs::{ForeignText, Inputs, Texts};

/// A configuration file and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigText {
    pub name: String,
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(
        "cannot read {path}: {source}; name the file with -c, or create it (see examples/steelyard.toml)"
    )]
    Config { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}; correct the path after --keepalived, or the file's mode")]
    Foreign { path: PathBuf, source: io::Error },
    #[error("{0} holds no file that ends in .toml: add one, or name a file with -c")]
    Empty(PathBuf),
    #[error("{path} is not valid utf-8: save it as utf-8 text")]
    NotText { path: PathBuf },
    #[error("{path} is larger than {} MiB: split it, or name another file", SIZE_MAX >> 20)]
    TooLarge { path: PathBuf },
    #[error(
        "cannot read the secret in {path}: {source}; correct its path in the configuration, or the file's mode"
    )]
    Secret { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}; correct its mode, or remove it")]
    Kept { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}; make room, or correct [global] state")]
    Keep { path: PathBuf, source: io::Error },
    #[error("another steelyard keeps its state in {0}: give this one another [global] state")]
    Held(PathBuf),
}

/// The text of a file, or of every `*.toml` in a directory in the order of their names.
fn config(path: &Path) -> Result<Vec<ConfigText>, FileError> {
    let io = |source| FileError::Config { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(io)?;
    if meta.is_file() {
        return Ok(vec![text(path)?]);
    }
    if !meta.is_dir() {
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a directory")));
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(FileError::Empty(path.to_owned()));
    }
    paths.sort();
    paths.iter().map(|path| text(path)).collect()
}

/// The content of a secret's file without its final newline.
pub fn secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let io = |source| FileError::Secret { path: path.to_owned(), source };
    let mut secret = read(path).map_err(io)?.ok_or_else(|| FileError::TooLarge { path: path.to_owned() })?;
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    if secret.is_empty() {
        return Err(io(io::Error::new(io::ErrorKind::InvalidData, "it is empty")));
    }
    Ok(secret)
}

/// What `keep` wrote; None: nothing yet.
pub fn kept(path: &Path) -> Result<Option<String>, FileError> {
    let io = |source| FileError::Kept { path: path.to_owned(), source };
    let regular = fs::metadata(path).map_or(true, |meta| meta.is_file());
    if !regular {
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    match read(path) {
        Ok(Some(bytes)) => {
            String::from_utf8(bytes).map(Some).map_err(|_| FileError::NotText { path: path.to_owned() })
        }
        Ok(None) => Err(FileError::TooLarge { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// Taken for as long as it lives: nobody else keeps anything in this directory.
pub struct Held(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Makes a directory, and takes it for this process.
pub fn hold(directory: &Path) -> Result<Held, FileError> {
    let path = directory.join("lock");
    let io = |source| FileError::Keep { path: path.clone(), source };
    fs::create_dir_all(directory).map_err(io)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Held(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(FileError::Held(directory.to_owned())),
        Err((_, errno)) => Err(io(errno.into())),
    }
}

/// Replaces a file as a whole: a crash, or a full disk, leaves the old one.
pub fn keep(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| {
        // What was written of it only takes room.
        let _ = fs::remove_file(&fresh);
        FileError::Keep { path: path.to_owned(), source }
    })
}

/// Renames a file that is of no use, so that it is neither read again nor lost.
pub fn put_aside(path: &Path) -> Result<PathBuf, FileError> {
    let aside = path.with_extension("damaged");
    match fs::rename(path, &aside) {
        Ok(()) => Ok(aside),
        Err(source) => Err(FileError::Keep { path: aside, source }),
    }
}

fn text(path: &Path) -> Result<ConfigText, FileError> {
    let io = |source| FileError::Config { path: path.to_owned(), source };
    let bytes = read(path).map_err(io)?.ok_or_else(|| FileError::TooLarge { path: path.to_owned() })?;
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.to_owned() })?;
    Ok(ConfigText { name: path.display().to_string(), text })
}

/// None: larger than a configuration may be.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= SIZE_MAX).then_some(bytes))
}

const SIZE_MAX: u64 = 4 << 20;
