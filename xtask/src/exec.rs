//! Child processes. Every command that xtask starts goes through here: shown before it runs, bounded while it
//! runs, and an error that names it when it fails.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) struct Exec {
    command: Command,
    limit: Duration,
}

impl Exec {
    pub(crate) fn new(program: &str) -> Self {
        Self::from(Command::new(program))
    }

    /// The cargo that runs this xtask, so that the toolchain stays the same.
    pub(crate) fn cargo(subcommand: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::from(Command::new(cargo)).args([subcommand])
    }

    pub(crate) fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// How long it may take; then it and all its descendants are killed.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Shows the command, lets it talk to the terminal, and wants success.
    pub(crate) fn run(self) -> Result<()> {
        let shown = show(&self.command);
        let status = self.status().with_context(|| format!("cannot run `{shown}`"))?;
        match (status.success(), status.code()) {
            (true, _) => Ok(()),
            (false, Some(code)) => bail!("`{shown}` failed with exit code {code}"),
            (false, None) => bail!("`{shown}` was killed ({status})"),
        }
    }

    /// As [`Exec::run`], but the caller judges the outcome.
    pub(crate) fn status(mut self) -> io::Result<ExitStatus> {
        announce(&self.command);
        let child = self.command.stdin(Stdio::null()).spawn()?;
        follow(child, self.limit, |_| ())
    }

    /// As [`Exec::status`]; standard output is passed on and handed over line by line.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
        announce(&self.command);
        let shown = show(&self.command);
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let passed_on = |line: &[u8]| {
            // A reader that has gone away must not end the tests that count.
            let mut out = io::stdout().lock();
            let _ = out.write_all(line).and_then(|()| out.write_all(b"\n"));
            each(&String::from_utf8_lossy(line));
        };
        follow(child, self.limit, passed_on).with_context(|| format!("`{shown}`"))
    }

    /// Runs in silence and says whether it succeeded; a program that does not exist did not.
    pub(crate) fn succeeds(self) -> bool {
        self.text().is_ok()
    }

    /// Runs in silence; standard output of a command that succeeded.
    pub(crate) fn text(mut self) -> Result<String> {
        let shown = show(&self.command);
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let mut text = String::new();
        let status = follow(child, PROBE_LIMIT.min(self.limit), |line| {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        })?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(text)
    }
}

impl From<Command> for Exec {
    fn from(command: Command) -> Self {
        Self { command, limit: LIMIT }
    }
}

enum Report {
    Line(Vec<u8>),
    End(io::Result<ExitStatus>),
}

/// Waits for `child` and hands over its piped output; at the limit the whole family is killed.
fn follow(mut child: Child, limit: Duration, mut each: impl FnMut(&[u8])) -> io::Result<ExitStatus> {
    let pid = child.id();
    let deadline = Instant::now() + limit;
    let (reports, inbox) = sync_channel(LINES_AHEAD_MAX);
    let output = child.stdout.take();
    // Not joined after a kill: a process that left the family may keep the pipe open for ever.
    thread::spawn(move || relay(child, output, &reports));
    loop {
        match next(&inbox, deadline) {
            Some(Report::Line(line)) => each(&line),
            Some(Report::End(status)) => return status,
            None => {
                kill_family(pid);
                let message = format!("took more than {} s and was killed", limit.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
    }
}

fn next(inbox: &Receiver<Report>, deadline: Instant) -> Option<Report> {
    inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

fn relay(mut child: Child, output: Option<impl Read>, reports: &SyncSender<Report>) {
    if let Some(output) = output {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if reports.send(Report::Line(line)).is_err() {
                return;
            }
        }
    }
    // Nobody listens any more only after a kill; then the outcome is known.
    let _ = reports.send(Report::End(child.wait()));
}

/// The child stays in xtask's process group, so that Ctrl-C reaches it; hence no group to kill here.
fn kill_family(pid: u32) {
    let mut family = vec![pid];
    let mut seen = 0;
    while seen < family.len() && family.len() < FAMILY_MAX {
        family.extend(children(family[seen]));
        seen += 1;
    }
    for pid in family.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| parent_of(&stat) == Some(parent))
        })
        .collect()
}

/// `PID (NAME) STATE PARENT ...`, where the name may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn announce(command: &Command) {
    eprintln!("+ {}", show(command));
}

/// As one would type it; values too long to read are left out.
fn show(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        let readable = value.len() <= SHOWN_MAX && !value.contains('\x1f') && name != "LD_LIBRARY_PATH";
        readable.then(|| format!("{name}={}", quote(&value)))
    });
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(|word| quote(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// For what has no limit of its own: a first build of everything on a slow machine.
const LIMIT: Duration = Duration::from_secs(3_600);
/// A question about what is installed.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// Lines of output read before somebody takes them; then the child waits.
const LINES_AHEAD_MAX: usize = 256;
const FAMILY_MAX: usize = 1_024;
const SHOWN_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_exit_code() {
        let error = Exec::new("sh").args(["-c", "exit 7"]).run().unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 7'` failed with exit code 7");
    }

    #[test]
    fn output_arrives_line_by_line_even_without_a_last_newline() {
        let mut lines = Vec::new();
        let status =
            Exec::new("printf").args(["a\\n\\nb"]).lines(|line| lines.push(line.to_owned())).unwrap();
        assert!(status.success());
        assert_eq!(lines, ["a", "", "b"]);
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed_with_its_children() {
        let error = Exec::new("sh")
            .args(["-c", "sleep 600 & wait"])
            .within(Duration::from_millis(200))
            .status()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_family_of_a_process_is_found() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent_of("12 (a) b) S 7 1 1"), Some(7));
    }

    #[test]
    fn a_program_that_is_missing_does_not_succeed() {
        assert!(!Exec::new("/no/such/program").succeeds());
        assert!(Exec::new("true").succeeds());
    }
}
