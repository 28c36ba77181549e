//! Reads what the operator wrote: configuration files and secrets.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

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
    #[error("{0} holds no file that ends in .toml: add one, or name a file with -c")]
    Empty(PathBuf),
    #[error("{path} is not valid utf-8: save it as utf-8 text")]
    NotText { path: PathBuf },
    #[error("{path} is larger than {} MiB: split it, or name another file", SIZE_MAX >> 20)]
    TooLarge { path: PathBuf },
    #[error("cannot read the secret in {path}: {source}; correct [cluster] secret_file or the file's mode")]
    Secret { path: PathBuf, source: io::Error },
}

/// The text of a file, or of every `*.toml` in a directory in the order of their names.
pub fn config(path: &Path) -> Result<Vec<ConfigText>, FileError> {
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
