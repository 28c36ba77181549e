//! The program under test: its daemon in the balancer's namespace, and its command line.

use std::{
    env,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lb_user::pure::status::{Counters, Explanation, Flows, ServerStatus, ServiceStatus, Status};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;

use super::{Bed, Config, Host, exec, janitor, poll};

pub use exec::Finished;

/// One configuration, one admin socket, one pin directory; a daemon that comes and goes.
pub struct Steelyard<'a> {
    program: PathBuf,
    host: &'a Host,
    folder: PathBuf,
    pin: PathBuf,
    daemon: Option<Child>,
    /// Of `steelyard run`, beside the configuration.
    pub flags: Vec<String>,
    /// Whether the daemon's log is printed at the end: a test harness shows it when the test failed.
    pub show_log: bool,
}

impl<'a> Steelyard<'a> {
    /// Writes the configuration; starts nothing.
    pub fn new(bed: &'a Bed, config: &Config) -> Result<Steelyard<'a>> {
        let steelyard = Steelyard::on(&bed.balancer, bed.files(), bed.pin_directory())?;
        steelyard.configure(config)?;
        Ok(steelyard)
    }

    /// On any host, with its files in `folder`; without a configuration yet.
    pub(super) fn on(host: &'a Host, folder: &Path, pin: PathBuf) -> Result<Steelyard<'a>> {
        Ok(Steelyard {
            program: program()?,
            host,
            folder: folder.to_path_buf(),
            pin,
            daemon: None,
            flags: Vec::new(),
            show_log: true,
        })
    }

    /// A running daemon whose every server is up and resolved.
    pub fn running(bed: &'a Bed, config: &Config) -> Result<Steelyard<'a>> {
        let mut steelyard = Steelyard::new(bed, config)?;
        steelyard.start()?;
        steelyard.wait("every server to be up", all_up)?;
        Ok(steelyard)
    }

    /// Replaces the configuration, for the next start or reload.
    pub fn configure(&self, config: &Config) -> Result<()> {
        self.write_config(&config.to_toml(&self.socket(), &self.state(), &self.pin))
    }

    /// Replaces the configuration file by any text.
    pub fn write_config(&self, text: &str) -> Result<()> {
        fs::write(self.config_file(), text).context("writing the configuration")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.join("steelyard.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Where it keeps what was changed at runtime.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The command line, while the caller reads what it writes.
    pub fn background(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.host.namespace.spawn(&mut command)
    }

    /// The command line, which must end well.
    pub fn done(&self, args: &[&str]) -> Result<String> {
        let done = self.cli(args)?;
        ensure!(done.code == Some(0), "steelyard {args:?} ended with {:?}: {}", done.code, done.stderr);
        Ok(done.stdout)
    }

    /// Replaces the configuration, and has the daemon take it.
    pub fn reload(&self, config: &Config) -> Result<()> {
        self.configure(config)?;
        self.done(&["reload"]).map(drop)
    }

    /// Where its maps and links are pinned.
    pub fn pin(&self) -> &Path {
        &self.pin
    }

    /// `steelyard run`, until its admin socket answers.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = self.command(&["run"]);
        command.args(&self.flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut daemon = self.host.namespace.spawn(&mut command)?;
        let answer = poll("an answer of the daemon", START, || match daemon.try_wait() {
            Ok(None) => self.status().is_ok().then_some(Ok(())),
            Ok(Some(code)) => Some(Err(code)),
            Err(_) => None,
        });
        self.daemon = Some(daemon);
        match answer? {
            Ok(()) => Ok(()),
            Err(code) => bail!("the daemon ended at once with {code}: {}", self.log()),
        }
    }

    /// Several `steelyard run` at once; one of them stays the daemon. Returns what the others had to say.
    pub fn race(&mut self, starts: usize) -> Result<Vec<String>> {
        ensure!(self.daemon.is_none(), "the daemon runs already");
        let mut runners: Vec<(Child, PathBuf)> = Vec::new();
        for number in 0..starts {
            let log = self.folder.join(format!("race{number}.log"));
            let mut command = self.command(&["run"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
            runners.push((self.host.namespace.spawn(&mut command)?, log));
        }
        let mut lost = Vec::new();
        let settled = poll("one daemon to be left", START, || {
            let ended = |(child, _): &mut (Child, PathBuf)| !matches!(child.try_wait(), Ok(None));
            let losers = runners.extract_if(.., ended);
            lost.extend(losers.map(|(_, log)| fs::read_to_string(log).unwrap_or_default()));
            (runners.len() <= 1).then_some(())
        });
        // The first that is left is the daemon; more are ended here, so that none outlives the bed.
        for (mut child, _) in runners.drain(1.min(runners.len())..) {
            child.kill()?;
            child.wait()?;
        }
        self.daemon = runners.pop().map(|(child, _)| child);
        settled?;
        ensure!(self.daemon.is_some(), "no daemon is left: {lost:?}");
        poll("an answer of the daemon that is left", START, || self.status().ok())?;
        Ok(lost)
    }

    pub fn pid(&self) -> Result<Pid> {
        let daemon = self.daemon.as_ref().context("no daemon runs")?;
        Ok(Pid::from_raw(i32::try_from(daemon.id())?))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let daemon = self.daemon.as_mut().context("no daemon runs")?;
        let code = poll("the end of the daemon", START, || daemon.try_wait().ok().flatten())?;
        self.daemon = None;
        Ok(code)
    }

    pub fn kill9(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// The command line, to its end: `args` after the socket and the configuration.
    pub fn cli(&self, args: &[&str]) -> Result<Finished> {
        self.finish(&mut self.command(args))
    }

    /// As above, as the user nobody, from a copy that this user can reach.
    pub fn cli_as_nobody(&self, args: &[&str]) -> Result<Finished> {
        let copy = self.folder.join("steelyard");
        fs::copy(&self.program, &copy).context("copying the program")?;
        let mut command = self.command_of(&copy, args);
        self.finish(command.uid(NOBODY).gid(NOBODY).current_dir("/"))
    }

    pub fn status(&self) -> Result<Status> {
        self.json(&["status", "--json"])
    }

    pub fn counters(&self) -> Result<Counters> {
        self.json(&["counters", "--json"])
    }

    /// One counter; absent ones are an error, so that a renamed counter is not taken for zero.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.counters()?;
        counters.get(name).copied().with_context(|| format!("no counter {name} in {counters:?}"))
    }

    pub fn explain(&self, client: SocketAddr, vip: SocketAddr, protocol: &str) -> Result<Explanation> {
        self.json(&["explain", &client.to_string(), &format!("{vip}/{protocol}"), "--json"])
    }

    /// `steelyard flows` with these options.
    pub fn flows(&self, options: &[&str]) -> Result<Flows> {
        self.json(&[&["flows", "--json"], options].concat())
    }

    /// The status, as soon as it is as wanted.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let mut last = String::new();
        poll(what, START, || match self.status() {
            Ok(status) if wanted(&status) => Some(status),
            Ok(status) => {
                last = format!("{status:?}");
                None
            }
            Err(error) => {
                last = format!("{error:?}");
                None
            }
        })
        .with_context(|| format!("the last status was {last}"))
    }

    /// What the daemon wrote to standard error, all starts together.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Whether any program is attached to an interface of the balancer.
    pub fn attached(&self, interface: &str) -> Result<bool> {
        self.host.namespace.has_program(interface)
    }

    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let stdout = self.done(args)?;
        serde_json::from_str(&stdout).with_context(|| format!("reading steelyard {args:?}: {stdout}"))
    }

    fn finish(&self, command: &mut Command) -> Result<Finished> {
        self.host.namespace.enter(|| exec::finish(command, "", START))?
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.program, args)
    }

    fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--socket").arg(self.socket()).arg("-c").arg(self.config_file()).args(args);
        command.env("NO_COLOR", "1");
        command
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("steelyard.log")
    }
}

impl Drop for Steelyard<'_> {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended on its own; waiting for it is what matters.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if self.pin.exists() {
            // What it does not take away, the removal of the pins does: the links go with them.
            let _ = self.cli(&["detach"]);
        }
        janitor::remove_directory(&self.pin);
        if self.show_log {
            eprintln!("log of steelyard:\n{}", self.log());
        }
    }
}

pub fn server<'s>(status: &'s Status, service: &str, server: &str) -> Option<&'s ServerStatus> {
    service_of(status, service)?.servers.iter().find(|found| found.name == server)
}

pub fn service_of<'s>(status: &'s Status, service: &str) -> Option<&'s ServiceStatus> {
    status.services.iter().find(|found| found.name == service)
}

/// Checked, resolved and in the ring.
pub fn all_up(status: &Status) -> bool {
    let ready = |server: &ServerStatus| {
        ["up", "no-check"].contains(&server.health.as_str())
            && server.neighbour.is_some()
            && (server.slots > 0 || server.weight == 0)
    };
    status.services.iter().all(|service| service.servers.iter().all(ready))
}

/// Out of the ring because its check failed.
pub fn is_down(status: &Status, service: &str, name: &str) -> bool {
    server(status, service, name).is_some_and(|server| server.health == "down" && server.slots == 0)
}

pub(super) fn program() -> Result<PathBuf> {
    match env::var_os("STEELYARD_BIN") {
        Some(path) => Ok(path.into()),
        None => exec::workspace_program("steelyard", "cargo build -p lb-user"),
    }
}

const START: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;
