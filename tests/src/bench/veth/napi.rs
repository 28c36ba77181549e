//! The thread that serves a link's receive queue: asked for, found, bound to a processor, and its time read.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::Pid,
};

use crate::{
    bed::{Namespace, poll},
    bench::cpu,
};

pub(super) struct Napi {
    thread: Pid,
}

impl Napi {
    /// Gives `interface`, whose name no other interface of the machine has, a thread for its only queue.
    pub(super) fn threaded(namespace: &Namespace, interface: &str) -> Result<Napi> {
        let setting = format!("class/net/{interface}/threaded");
        namespace.enter(|| with_own_sysfs(|sys| fs::write(sys.join(&setting), "1")))??.with_context(
            || format!("cannot have {interface} served by a thread: is the kernel older than 5.12?"),
        )?;
        let prefix = format!("napi/{interface}-");
        let thread = poll("the thread of the queue", FIND, || find(&prefix))?;
        Ok(Napi { thread })
    }

    pub(super) fn bind(&self, cpu: usize) -> Result<()> {
        cpu::bind(self.thread, cpu)
    }

    /// Time it ran so far, exact while it sleeps.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        let path = format!("/proc/{}/schedstat", self.thread);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let time = text.split(' ').next().and_then(|field| field.parse().ok());
        time.with_context(|| format!("{path} begins with no number: {text}"))
    }
}

/// Where /sys shows the network namespace of the calling thread, which is given mounts of its own for good.
fn with_own_sysfs<T>(work: impl FnOnce(&Path) -> T) -> Result<T> {
    const SYS: &str = "/sys";
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot leave the mounts of others")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot keep mounts private")?;
    mount(Some("sysfs"), SYS, Some("sysfs"), MsFlags::empty(), none).context("cannot mount a sysfs")?;
    Ok(work(Path::new(SYS)))
}

fn find(prefix: &str) -> Option<Pid> {
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        name.starts_with(prefix).then_some(Pid::from_raw(pid))
    })
}

const FIND: Duration = Duration::from_secs(5);
