//! Child processes that run to their end: input given, output collected, time bounded.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

#[derive(Debug)]
pub struct Finished {
    /// None: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `ip` and returns its standard output; an exit code other than 0 is an error with its message.
pub(super) fn ip(args: &[&str], input: &str) -> Result<String> {
    let name = format!("ip {}", args.join(" "));
    let done = finish(Command::new("ip").args(args), input, LIMIT).context(name.clone())?;
    if done.code != Some(0) {
        bail!("`{name}` failed: {}\n{input}", done.stderr.trim());
    }
    Ok(done.stdout)
}

/// Starts `command` in the caller's namespace and collects what it writes until it ends; kills it after `limit`.
pub(super) fn finish(command: &mut Command, input: &str, limit: Duration) -> Result<Finished> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    let end = Instant::now() + limit;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut pipe) = child.stdin.take() {
        // A child that ends without reading its input is judged by its exit code.
        let _ = pipe.write_all(input.as_bytes());
    }
    let stdout = wait_for(&mut child, &stdout, end)?;
    let stderr = wait_for(&mut child, &stderr, end)?;
    Ok(Finished { code: child.wait()?.code(), stdout, stderr })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(pipe) = pipe {
            // A read error ends the text early; the exit code still tells.
            let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut text);
        }
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

fn wait_for(child: &mut Child, output: &Receiver<String>, end: Instant) -> Result<String> {
    match output.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(text) => Ok(text),
        Err(_) => {
            child.kill()?;
            child.wait()?;
            bail!("the command did not end in time and was killed")
        }
    }
}

/// A program of this workspace, beside the caller or, for a test in `deps`, one folder up; else in the folder
/// of the other profile.
pub(super) fn workspace_program(name: &str, build: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program's own path")?;
    let folders: Vec<&Path> = own.ancestors().skip(1).take(2).collect();
    let profiles = folders
        .iter()
        .filter_map(|folder| folder.parent())
        .flat_map(|target| ["release", "debug"].map(|profile| target.join(profile)));
    let beside = folders.iter().map(|folder| folder.to_path_buf());
    let found = beside.chain(profiles).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no program `{name}`: run `{build}` first"))
}

const LIMIT: Duration = Duration::from_secs(10);
const OUTPUT_MAX: u64 = 16 << 20;
