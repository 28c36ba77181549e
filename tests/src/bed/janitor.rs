//! Names of everything a bed leaves on the machine, and the removal of what a killed run left behind.
//!
//! A name is `sy-<pid>-<n>`; a bed whose process is gone belongs to nobody.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use super::namespace;

/// A name no other bed has, after the leftovers of dead ones are gone and bpffs is there.
pub fn fresh_tag() -> Result<String> {
    static SWEPT: Once = Once::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    SWEPT.call_once(|| sweep(|owner| !Path::new("/proc").join(owner.to_string()).exists()));
    mount_bpffs()?;
    Ok(format!("{PREFIX}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Removes every bed of this process: the end of a program that is interrupted.
pub fn sweep_own() {
    sweep(|owner| owner == process::id());
}

/// For the files of the bed `tag`; removed when dropped.
pub fn files(tag: &str) -> Result<TempDir> {
    let files = tempfile::Builder::new().prefix(&format!("{tag}-")).tempdir()?;
    // Others must be able to read: one scenario runs the program as a user without privileges.
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
    Ok(files)
}

/// Where the bed `tag` has its maps pinned.
pub fn pin_directory(tag: &str) -> PathBuf {
    Path::new(BPFFS).join(tag)
}

fn sweep(of: impl Fn(u32) -> bool) {
    for name in ours(namespace::directory(), &of) {
        namespace::remove(&name);
    }
    for parent in [PathBuf::from(BPFFS), env::temp_dir()] {
        for name in ours(&parent, &of) {
            remove_directory(&parent.join(name));
        }
    }
}

/// Gone already is what is wanted; other failures are only told, because this runs while unwinding.
pub(super) fn remove_directory(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => eprintln!("cannot remove {}: {error}", directory.display()),
    }
}

fn ours(directory: &Path, of: &impl Fn(u32) -> bool) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(of))
        .collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let mounted = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    };
    if mounts.lines().any(mounted) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .context("mounting bpffs; the test bed needs root and a kernel with BPF")
}

const PREFIX: &str = "sy-";
const BPFFS: &str = "/sys/fs/bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_an_owner() {
        for (name, expected) in [
            ("sy-17-0-client", Some(17)),
            ("sy-17-3", Some(17)),
            ("sy-x-0", None),
            ("steelyard", None),
            ("blue", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }
}
