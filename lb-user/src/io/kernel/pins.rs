//! The pin directory on bpffs: where state outlives the daemon.
//!
//! ```text
//! PIN/                 locked by the running daemon
//! PIN/v3/maps/NAME     one for each map; beside it, for a moment, maps-new and maps-old: see `migrate`
//! PIN/v3/links/IFNAME  one for each attached interface
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
    fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2},
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
        "{path} holds `{found}`, which this version did not make: what is pinned there goes on forwarding; run the \
         version that made it, take it away with `steelyard detach` (it ends the flows that are recorded), or set \
         [datapath] pin to a directory of its own"
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

    pub(super) fn new_maps(&self) -> PathBuf {
        self.root.join(LAYOUT).join("maps-new")
    }

    pub(super) fn old_maps(&self) -> PathBuf {
        self.root.join(LAYOUT).join("maps-old")
    }

    pub fn links(&self) -> PathBuf {
        self.root.join(LAYOUT).join("links")
    }

    pub(super) fn make(&self, directory: &Path) -> Result<(), PinsError> {
        fs::create_dir(directory).map_err(|source| self.io(directory, source))
    }

    /// Takes a directory of maps away; absent already is as good.
    pub(super) fn discard(&self, directory: &Path) -> Result<(), PinsError> {
        remove_flat(directory).map_err(|source| self.io(directory, source))
    }

    /// Puts the new maps in the place of those in use, which are the old ones from then on. Killed in between, it leaves
    /// a copy of the maps in use as the old ones, which does no harm.
    pub(super) fn exchange(&self) -> Result<(), PinsError> {
        let old = self.old_maps();
        fs::rename(self.new_maps(), &old).map_err(|source| self.io(&old, source))?;
        renameat2(AT_FDCWD, &old, AT_FDCWD, &self.maps(), RenameFlags::RENAME_EXCHANGE)
            .map_err(|errno| self.io(&old, errno.into()))
    }

    fn io(&self, path: &Path, source: io::Error) -> PinsError {
        PinsError::Io { path: path.to_owned(), source }
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

/// Takes away what any version has pinned below `root`. False: there was nothing.
pub fn remove_every(root: &Path) -> Result<bool, PinsError> {
    let io = |source| PinsError::Io { path: root.to_owned(), source };
    if !root.exists() || layouts(root).map_err(io)?.is_empty() {
        return Ok(false);
    }
    require_bpffs(root)?;
    let _lock = lock(root)?;
    remove_tree(root).map_err(io).map(|()| true)
}

/// Makes the directory and locks it. One that was removed between the two is nobody's: another is made.
fn lock(root: &Path) -> Result<Flock<File>, PinsError> {
    let io = |source| PinsError::Io { path: root.to_owned(), source };
    for _ in 0..LOCK_TRIES {
        fs::create_dir_all(root).map_err(io)?;
        let directory = match File::open(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            directory => directory.map_err(io)?,
        };
        let locked = directory.metadata().map_err(io)?.ino();
        let lock =
            Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => PinsError::Locked(root.to_owned()),
                errno => io(errno.into()),
            })?;
        if fs::metadata(root).is_ok_and(|standing| standing.ino() == locked) {
            return Ok(lock);
        }
    }
    Err(PinsError::Locked(root.to_owned()))
}

/// Each failure means that somebody else removed the directory in that moment.
const LOCK_TRIES: u32 = 8;

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

/// What versions have made below `root`.
fn layouts(root: &Path) -> io::Result<Vec<PathBuf>> {
    let is_layout =
        |name: &String| name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    Ok(names(root)?.into_iter().filter(is_layout).map(|name| root.join(name)).collect())
}

fn remove_tree(root: &Path) -> io::Result<()> {
    for layout in layouts(root)? {
        for name in ["links", "maps", "maps-new", "maps-old"] {
            remove_flat(&layout.join(name))?;
        }
        remove_directory(&layout)?;
    }
    remove_directory(root)
}

/// A directory that holds no others.
fn remove_flat(directory: &Path) -> io::Result<()> {
    let found = match names(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for name in found {
        fs::remove_file(directory.join(name))?;
    }
    remove_directory(directory)
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
