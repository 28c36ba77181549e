//! One named network namespace: made, entered, and deleted with the processes in it.

use std::{
    fs::{self, File},
    panic,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::exec;

pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `name`, where IPv6 neither doubts its addresses nor looks for routers, and without
    /// reverse path filters (an answer for a VIP may come from any side).
    pub fn create(name: &str) -> Result<Namespace> {
        exec::ip(&["netns", "add", name], "")?;
        let namespace = Namespace { name: name.to_owned() };
        namespace.set(&[
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ])?;
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. Sockets it returns stay in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = thread::scope(|scope| scope.spawn(|| join(&self.name).map(|()| work())).join());
        entered.unwrap_or_else(|fault| panic::resume_unwind(fault))
    }

    /// As `enter`, without waiting for the end.
    pub fn background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let name = self.name.clone();
        thread::spawn(move || join(&name).map(|()| work()))
    }

    /// Starts a process inside the namespace. It keeps the caller's mounts, so it sees bpffs, which
    /// `ip netns exec` would hide behind its own /sys.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_owned();
        self.enter(|| command.spawn())?.with_context(|| format!("starting {}", program.display()))
    }

    /// One `ip` command a line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        exec::ip(&["-n", &self.name, "-batch", "-"], batch).map(drop)
    }

    /// What `ip -json` says.
    pub fn ip_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["-n", self.name.as_str(), "-json", "-details"];
        all.extend_from_slice(args);
        let text = exec::ip(&all, "")?;
        serde_json::from_str(&text).with_context(|| format!("reading the output of ip {args:?}"))
    }

    /// Whether any XDP program is attached to an interface.
    pub fn has_program(&self, interface: &str) -> Result<bool> {
        let links = self.ip_json(&["link", "show", "dev", interface])?;
        Ok(links.get(0).context("ip shows no link")?.get("xdp").is_some())
    }

    /// Kernel settings below /proc/sys/net.
    pub fn set(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|(name, value)| {
                let path = Path::new("/proc/sys/net").join(name);
                fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
            })
        })?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Ends what runs in a namespace of ours and deletes it. Called while unwinding, so failures are only told;
/// that somebody else has deleted it meanwhile is none.
pub(super) fn remove(name: &str) {
    if let Err(error) = end_processes(name).and_then(|()| exec::ip(&["netns", "delete", name], ""))
        && directory().join(name).exists()
    {
        eprintln!("cannot remove the namespace {name}: {error:#}");
    }
}

fn end_processes(name: &str) -> Result<()> {
    let pids = exec::ip(&["netns", "pids", name], "")?;
    for pid in pids.lines().filter_map(|pid| pid.trim().parse().ok()) {
        // Gone already is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}

pub(super) fn directory() -> &'static Path {
    Path::new("/run/netns")
}

/// Moves the calling thread for good: only for threads made for it.
fn join(name: &str) -> Result<()> {
    let path: PathBuf = directory().join(name);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("entering {name}; the test bed needs root"))
}
