//! Keepalived on a node: its VRRP part alone, with files of its own.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Host, Pair, poll};

/// Killed when dropped.
pub struct Keepalived<'a> {
    host: &'a Host,
    folder: PathBuf,
    process: Option<Child>,
}

impl<'a> Keepalived<'a> {
    /// Writes the configuration; starts nothing.
    pub fn new(pair: &'a Pair, node: usize, config: &str) -> Result<Keepalived<'a>> {
        let keepalived = Keepalived { host: &pair.nodes[node], folder: pair.folder(node), process: None };
        keepalived.configure(config)?;
        Ok(keepalived)
    }

    /// As above, and starts it.
    pub fn running(pair: &'a Pair, node: usize, config: &str) -> Result<Keepalived<'a>> {
        let mut keepalived = Keepalived::new(pair, node, config)?;
        keepalived.start()?;
        Ok(keepalived)
    }

    pub fn configure(&self, config: &str) -> Result<()> {
        fs::write(self.file("keepalived.conf"), config).context("writing keepalived.conf")
    }

    /// Returns once its VRRP process runs.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "keepalived runs already");
        let log = File::options().create(true).append(true).open(self.file("keepalived.log"))?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        for (option, file) in [
            ("--use-file", "keepalived.conf"),
            ("--pid", "keepalived.pid"),
            ("--vrrp_pid", VRRP_PID),
            ("--checkers_pid", "checkers.pid"),
        ] {
            command.arg(option).arg(self.file(file));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(self.host.namespace.spawn(&mut command)?);
        poll("the VRRP process of keepalived", LIMIT, || self.vrrp_process())
            .with_context(|| self.log())
            .map(drop)
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> Result<()> {
        kill(self.pid()?, Signal::SIGTERM)?;
        let process = self.process.as_mut().context("no keepalived runs")?;
        poll("the end of keepalived", LIMIT, || process.try_wait().ok().flatten())?;
        self.process = None;
        Ok(())
    }

    /// All of it at once, so that neither process can clean up after the other.
    pub fn kill9(&mut self) -> Result<()> {
        let pid = self.pid()?;
        kill(pid, Signal::SIGSTOP)?;
        if let Some(child) = self.vrrp_process() {
            kill(child, Signal::SIGKILL)?;
        }
        let mut process = self.process.take().context("no keepalived runs")?;
        process.kill()?;
        process.wait()?;
        fs::remove_file(self.file(VRRP_PID)).context("removing the pid of a dead process")
    }

    /// SIGHUP.
    pub fn reload(&self) -> Result<()> {
        Ok(kill(self.pid()?, Signal::SIGHUP)?)
    }

    /// A script of this node, of which keepalived asks the exit code.
    pub fn script(&self, name: &str, body: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.file("keepalived.log")).unwrap_or_default()
    }

    fn pid(&self) -> Result<Pid> {
        let process = self.process.as_ref().context("no keepalived runs")?;
        Ok(Pid::from_raw(i32::try_from(process.id())?))
    }

    fn vrrp_process(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.file(VRRP_PID)).ok()?.trim().parse().ok()?;
        let path = format!("/proc/{pid}/comm");
        fs::read_to_string(path).is_ok_and(|comm| comm.starts_with("keepalived")).then(|| Pid::from_raw(pid))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Keepalived<'_> {
    fn drop(&mut self) {
        if self.process.is_some()
            && let Err(error) = self.kill9()
        {
            eprintln!("cannot end keepalived: {error:#}");
        }
    }
}

const VRRP_PID: &str = "vrrp.pid";
const LIMIT: Duration = Duration::from_secs(10);
