//! The script check: a program of the operator's, whose exit code 0 says that the server is well.
//!
//! It starts in `/` and without a shell, though execvp(3) gives one to a text that names no interpreter. Its
//! environment is what `Launch` lists, its streams are the null device and a pipe. It ends with the check, and so does
//! everything that it started (`leash`).

mod leash;
#[cfg(test)]
mod tests;

use std::{
    ffi::CString,
    io,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
};

use nix::unistd::{User, geteuid, getgrouplist};
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, unix::pipe},
    process::Child,
    task, try_join,
};

use self::leash::Identity;
use super::{Failure, Trace};
use crate::pure::{config::model::check::Script, excerpt::excerpt, report::Step, state::CheckTask};

/// What a script can find its programs in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Dropping the future ends the script as the time limit does.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask, script: &Script) -> Result<(), Failure> {
    trace.step(Step::Run);
    let launch = Launch::new(task, script);
    // A fork, and a look into a directory of users that may be far away: no other check waits for it. If this one is
    // dropped meanwhile, so is what was started.
    let started = task::spawn_blocking(move || launch.start()).await;
    let running = started.map_err(|_| Failure::Local("the daemon stops".to_owned()))?;
    let status = running.map_err(Failure::Local)?.wait(trace).await?;
    match (status.code(), &trace.answer) {
        (Some(0), _) => {
            trace.answer.get_or_insert_with(|| "exit code 0".to_owned());
            Ok(())
        }
        (Some(code), None) => Err(Failure::Server(format!("exit code {code}"))),
        (Some(code), Some(line)) => Err(Failure::Server(format!("exit code {code}: {line}"))),
        (None, _) => Err(Failure::Server(format!("killed by signal {}", status.signal().unwrap_or(0)))),
    }
}

struct Launch {
    command: Vec<String>,
    user: Option<String>,
    environment: [(&'static str, String); 5],
}

/// A script and what holds it; dropped, it ends.
struct Running {
    keeper: Child,
    leash: UnixStream,
    output: pipe::Receiver,
}

impl Launch {
    fn new(task: &CheckTask, script: &Script) -> Self {
        Launch {
            command: script.command.clone(),
            user: script.user.clone(),
            environment: [
                ("STEELYARD_SERVICE", task.service_name.clone()),
                ("STEELYARD_SERVER", task.server_name.clone()),
                ("STEELYARD_ADDRESS", task.target.ip().to_string()),
                ("STEELYARD_PORT", task.target.port().to_string()),
                ("PATH", PATH.to_owned()),
            ],
        }
    }

    /// Errors say what to do. Blocks until the program runs or cannot be run.
    fn start(self) -> Result<Running, String> {
        let identity = self.user.as_deref().map(identity).transpose()?.flatten();
        let (program, arguments) =
            self.command.split_first().ok_or("its command is empty: name a program")?;
        let other = |error: io::Error| format!("cannot start `{program}`: {error}");
        let (output, input) = io::pipe().map_err(other)?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(input.try_clone().map_err(other)?).stderr(input);
        let leash = leash::tie(&mut command, identity).map_err(other)?;
        let keeper = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| fault(&error, program, self.user.as_deref()))?;
        let output = pipe::Receiver::from_owned_fd(output.into()).map_err(other)?;
        leash.set_nonblocking(true).map_err(other)?;
        let leash = UnixStream::from_std(leash).map_err(other)?;
        Ok(Running { keeper, leash, output })
    }
}

impl Running {
    async fn wait(self, trace: &mut Trace) -> Result<ExitStatus, Failure> {
        let Running { mut keeper, mut leash, output } = self;
        // No process is left that could hold the pipe open once the status is there.
        let (status, ()) = try_join!(status(&mut leash), listen(trace, output))?;
        keeper
            .wait()
            .await
            .map_err(|error| Failure::Local(format!("cannot wait for the script: {error}")))?;
        Ok(status)
    }
}

async fn status(leash: &mut UnixStream) -> Result<ExitStatus, Failure> {
    let mut status = [0; size_of::<i32>()];
    match leash.read_exact(&mut status).await {
        Ok(_) => Ok(ExitStatus::from_raw(i32::from_ne_bytes(status))),
        Err(_) => {
            Err(Failure::Local("somebody killed the script's keeper, a process of the daemon's".to_owned()))
        }
    }
}

/// Keeps the first line and lets the rest go, up to what a program may reasonably say.
async fn listen(trace: &mut Trace, mut output: pipe::Receiver) -> Result<(), Failure> {
    let (mut piece, mut line, mut all) = ([0; 4_096], Vec::new(), 0);
    let mut ended = false;
    while all <= OUTPUT_MAX {
        let read = output.read(&mut piece).await;
        let length =
            read.map_err(|error| Failure::Local(format!("cannot read the script's output: {error}")))?;
        if length == 0 {
            return Ok(());
        }
        all += length;
        if !ended {
            let end = piece[..length].iter().position(|byte| *byte == b'\n');
            line.extend_from_slice(&piece[..end.unwrap_or(length)]);
            ended = end.is_some() || line.len() >= LINE_MAX;
            if !line.is_empty() {
                trace.answer = Some(excerpt(&line));
            }
        }
    }
    Err(Failure::Server("its output has no end: more than 1 MiB came".to_owned()))
}

/// None: the daemon's own.
fn identity(name: &str) -> Result<Option<Identity>, String> {
    let found =
        User::from_name(name).map_err(|error| format!("cannot look up the user `{name}`: {error}"))?;
    let user =
        found.ok_or_else(|| format!("the user `{name}` does not exist: create it, or change `user`"))?;
    if user.uid == geteuid() {
        return Ok(None);
    }
    let groups = CString::new(name)
        .map_err(io::Error::from)
        .and_then(|name| getgrouplist(&name, user.gid).map_err(io::Error::from))
        .map_err(|error| format!("cannot look up the groups of `{name}`: {error}"))?;
    Ok(Some(Identity { user: user.uid, group: user.gid, groups }))
}

fn fault(error: &io::Error, program: &str, user: Option<&str>) -> String {
    let whom = user.map(|user| format!(" as `{user}`")).unwrap_or_default();
    match error.raw_os_error() {
        Some(libc::ENOENT) => {
            format!(
                "`{program}` does not exist, or what its first line names: install it, or change `command`"
            )
        }
        Some(libc::EACCES) => format!("`{program}` may not be run{whom}: make it executable"),
        Some(libc::EPERM) => {
            format!("the daemon may not run `{program}`{whom}: give it CAP_SETUID and CAP_SETGID")
        }
        Some(libc::EAGAIN) => format!("too many processes to run `{program}`: raise TasksMax"),
        Some(libc::EMFILE) => "too many open files in the daemon: raise LimitNOFILE".to_owned(),
        _ => format!("cannot start `{program}`: {error}"),
    }
}

/// As much of a line as anybody reads.
const LINE_MAX: usize = 1_024;
const OUTPUT_MAX: usize = 1_024 * 1_024;
