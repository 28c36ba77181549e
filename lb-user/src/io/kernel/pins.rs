//! The pin directory on bpffs: where state outlives the daemon.
//!
//! ```text
//! PIN/                 locked by the running daemon
//! PIN/v1/maps/NAME     one for each map
//! PIN/v1/links/IFNAME  one for each attached interface
//! ```

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lb_common::LAYOUT;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    #[error(
        "{0} is not on a bpf file system: mount one with `mount -t bpf bpf /sys/fs/bpf`, \
         or set [datapath] pin to a directory on one"
    )]
    NotBpffs(PathBuf),
    #[error("{0} is the bpf file system itself: set [datapath] pin to a directory below it")]
    MountPoint(PathBuf),
    #[error("another steelyard uses {0}: stop it first, or set another [datapath] pin and admin_socket")]
    Locked(PathBuf),
    #[error(
        "{path} holds `{found}`, which this version did not make: set [datapath] pin to a directory of its own, \
         or run `steelyard detach` of the version that made it"
    )]
    OtherLayout { path: PathBuf, found: String },
    #[error("cannot use the pin directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// An owned, locked pin directory.
pub struct Pins {
    root: PathBuf,
    /// Held as long as the daemon lives; the kernel releases it however the daemon ends.
    _lock: Flock<File>,
}

impl Pins {
    /// Creates and locks the directory.
    pub fn open(root: &Path) -> Result<Self, PinsError> {
        require_bpffs(root)?;
        if is_mount_point(root) {
            return Err(PinsError::MountPoint(root.to_owned()));
        }
        let io = |source| PinsError::Io { path: root.to_owned(), source };
        fs::create_dir_all(root).map_err(io)?;
        let lock = lock(root)?;
        if let Some(found) = other_layout(root).map_err(io)? {
            return Err(PinsError::OtherLayout { path: root.to_owned(), found });
        }
        let pins = Pins { root: root.to_owned(), _lock: lock };
        for directory in [pins.maps(), pins.links()] {
            fs::create_dir_all(directory).map_err(io)?;
        }
        Ok(pins)
    }

    pub fn maps(&self) -> PathBuf {
        self.root.join(LAYOUT).join("maps")
    }

    pub fn links(&self) -> PathBuf {
        self.root.join(LAYOUT).join("links")
    }

    /// Interfaces with a pinned link.
    pub fn linked(&self) -> io::Result<Vec<String>> {
        names(&self.links())
    }

    /// Ends the attachment of one interface.
    pub fn unlink(&self, interface: &str) {
        // Gone already is as good.
        let _ = fs::remove_file(self.links().join(interface));
    }

    /// Takes everything away: a link goes when its pin does, and XDP with it. Links first, so that no
    /// packet meets a program whose tables are half gone.
    pub fn remove(self) -> Result<(), PinsError> {
        remove_tree(&self.root).map_err(|source| PinsError::Io { path: self.root.clone(), source })
    }

    /// Removes what a start that failed has made: maps that no link uses.
    pub fn remove_unused(self) -> Result<(), PinsError> {
        let linked = self.linked().map_err(|source| PinsError::Io { path: self.links(), source })?;
        if linked.is_empty() { self.remove() } else { Ok(()) }
    }
}

/// Whether there is anything to take away below `root`.
pub fn exist(root: &Path) -> bool {
    root.join(LAYOUT).exists()
}

fn lock(root: &Path) -> Result<Flock<File>, PinsError> {
    let directory = File::open(root).map_err(|source| PinsError::Io { path: root.to_owned(), source })?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => PinsError::Locked(root.to_owned()),
        errno => PinsError::Io { path: root.to_owned(), source: errno.into() },
    })
}

/// The nearest existing ancestor must be on bpffs, and so then is everything below it.
fn require_bpffs(root: &Path) -> Result<(), PinsError> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statfs(existing) {
        Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => Err(PinsError::NotBpffs(root.to_owned())),
        Err(errno) => Err(PinsError::Io { path: existing.to_owned(), source: errno.into() }),
    }
}

fn is_mount_point(root: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(root), root.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        _ => false,
    }
}

fn other_layout(root: &Path) -> io::Result<Option<String>> {
    Ok(names(root)?.into_iter().find(|name| name != LAYOUT))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn remove_tree(root: &Path) -> io::Result<()> {
    let layout = root.join(LAYOUT);
    for directory in [layout.join("links"), layout.join("maps")] {
        let found = match names(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        for name in found {
            fs::remove_file(directory.join(name))?;
        }
        fs::remove_dir(&directory)?;
    }
    for directory in [layout.as_path(), root] {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
