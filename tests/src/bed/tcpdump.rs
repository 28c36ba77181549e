//! tcpdump on the bridge: somebody else's reading of what nodes send.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Pair, poll};

/// Killed when dropped.
pub struct Tcpdump {
    process: Child,
    output: PathBuf,
}

impl Tcpdump {
    /// Returns once it listens for packets that pass `filter`.
    pub fn start(pair: &Pair, filter: &str) -> Result<Tcpdump> {
        let output = pair.files().join("tcpdump.out");
        let errors = pair.files().join("tcpdump.err");
        let mut command = Command::new("tcpdump");
        command.args(["-l", "-n", "-vv", "-i", Pair::bridge(), filter]);
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let process = pair.switch.spawn(&mut command)?;
        let tcpdump = Tcpdump { process, output };
        poll("tcpdump to listen", LIMIT, || {
            fs::read_to_string(&errors).is_ok_and(|text| text.contains("listening on")).then_some(())
        })
        .with_context(|| fs::read_to_string(&errors).unwrap_or_default())?;
        Ok(tcpdump)
    }

    /// What it wrote until now.
    pub fn text(&self) -> Result<String> {
        fs::read_to_string(&self.output).context("reading tcpdump's output")
    }

    /// SIGINT, and all that it wrote.
    pub fn stop(mut self) -> Result<String> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), Signal::SIGINT)?;
        poll("the end of tcpdump", LIMIT, || self.process.try_wait().ok().flatten())?;
        self.text()
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // It may have ended on its own; waiting for it is what matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const LIMIT: Duration = Duration::from_secs(10);
