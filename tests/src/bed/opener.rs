//! `steelyard decap` on a server: started, awaited, stopped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Namespace, poll, steelyard};

/// Killed when dropped; its program goes with it.
pub struct Opener {
    process: Child,
    log: PathBuf,
}

impl Opener {
    /// On `eth0` of a server, for these VIPs; returns once the program is attached.
    pub fn start(server: &Namespace, vips: &[String], log: &Path) -> Result<Opener> {
        let mut command = Command::new(steelyard::program()?);
        command.args(["decap", "--interface", "eth0", "--mode", "native"]);
        command.args(vips.iter().flat_map(|vip| ["--vip", vip.as_str()])).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
        let mut opener = Opener { process: server.spawn(&mut command)?, log: log.to_owned() };
        let end = poll("the attachment of steelyard decap", LIMIT, || match opener.process.try_wait() {
            Ok(None) => server.has_program("eth0").ok().filter(|attached| *attached).map(|_| None),
            Ok(Some(end)) => Some(Some(end)),
            Err(_) => None,
        });
        match end.with_context(|| opener.log())? {
            None => Ok(opener),
            Some(end) => bail!("steelyard decap ended at once with {end}: {}", opener.log()),
        }
    }

    /// SIGTERM, and its end in order.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), Signal::SIGTERM)?;
        let end = poll("the end of steelyard decap", LIMIT, || self.process.try_wait().ok().flatten())?;
        ensure!(end.success(), "steelyard decap ended with {end}: {}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        // It may have ended on its own; waiting for it is what matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const LIMIT: Duration = Duration::from_secs(20);
