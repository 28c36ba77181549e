//! Programs of the operator's, such as a check's script: run to their end, or ended with all that they started.
//!
//! Shared by the adapters that run some. Must not know why a program runs, nor what its exit code or output mean.
//!
//! A program starts in `/` and without a shell, though execvp(3) gives one to a text that names no interpreter. Its
//! environment is what `Program` lists and PATH, its streams are the null device and a pipe. `leash` holds it, and
//! whatever it starts.

mod leash;
#[cfg(test)]
mod tests;

use std::{
    ffi::CString,
    io,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::unistd::{User, geteuid, getgrouplist};
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, unix::pipe},
    process::Child,
    task,
    time::timeout,
    try_join,
};

use self::leash::Identity;

#[derive(Debug, Clone, Default)]
pub struct Program {
    /// What is run, and its arguments.
    pub command: Vec<String>,
    /// What it finds beside PATH.
    pub environment: Vec<(&'static str, String)>,
    /// Who runs it; None: the daemon's user.
    pub user: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    /// In bytes: whoever writes more is ended.
    pub output: usize,
}

/// Hears standard output and standard error, in their order and piece by piece: what came before a program was ended
/// may tell why. All pieces together exceed the limit by less than one.
pub type Hear<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// Errors say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("its command is empty: name a program")]
    Empty,
    #[error("the user `{0}` does not exist: create it, or change `user`")]
    NoUser(String),
    #[error("cannot look up the user `{user}` and its groups: {source}")]
    User { user: String, source: io::Error },
    #[error("{}", fault(.source, .program, .user.as_deref()))]
    Start { program: String, user: Option<String>, source: io::Error },
    #[error("the daemon stops")]
    Stopping,
    #[error("cannot follow `{program}`: {source}")]
    Follow { program: String, source: io::Error },
    #[error("somebody killed the keeper of `{program}`, a process of the daemon's")]
    Keeper { program: String },
    #[error("`{program}` did not end within {limit:?} and was killed")]
    Timeout { program: String, limit: Duration },
    #[error("`{program}` wrote more than {} KiB and was killed: let it write less", .max >> 10)]
    Flood { program: String, max: usize },
}

/// The first line of what a program says; the rest is let go.
#[derive(Debug, Default)]
pub struct Line {
    text: Vec<u8>,
    whole: bool,
}

impl Line {
    pub fn hear(&mut self, piece: &[u8]) {
        if !self.whole {
            let end = piece.iter().position(|byte| *byte == b'\n');
            self.text.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            self.whole = end.is_some() || self.text.len() >= LINE_MAX;
        }
    }

    /// Without its end.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// Nothing of the program outlives this: not its own end, nor a limit, nor the future.
pub async fn run(program: &Program, limits: Limits, hear: Hear<'_>) -> Result<ExitStatus, ProcessError> {
    let (name, arguments) = program.command.split_first().ok_or(ProcessError::Empty)?;
    let mut command = Command::new(name);
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    command.env_clear().env("PATH", PATH).envs(program.environment.iter().cloned());
    let launch = Launch { program: name.clone(), user: program.user.clone(), command };
    let ended = async {
        // A fork, and a look into a directory of users that may be far away: nobody else waits for it. If this future
        // is dropped meanwhile, so is what was started.
        let started = task::spawn_blocking(move || launch.start()).await;
        started.map_err(|_| ProcessError::Stopping)??.end(limits.output, hear).await
    };
    match timeout(limits.time, ended).await {
        Ok(ended) => ended,
        Err(_) => Err(ProcessError::Timeout { program: name.clone(), limit: limits.time }),
    }
}

struct Launch {
    program: String,
    user: Option<String>,
    command: Command,
}

impl Launch {
    /// Blocks until the program runs or cannot be run.
    fn start(self) -> Result<Running, ProcessError> {
        let identity = self.user.as_deref().map(identity).transpose()?.flatten();
        let Launch { program, user, command } = self;
        match tied(command, identity) {
            Ok((keeper, leash, output)) => Ok(Running { program, keeper, leash, output }),
            Err(source) => Err(ProcessError::Start { program, user, source }),
        }
    }
}

fn tied(mut command: Command, identity: Option<Identity>) -> io::Result<(Child, UnixStream, pipe::Receiver)> {
    let (output, input) = io::pipe()?;
    command.stdout(input.try_clone()?).stderr(input);
    let leash = leash::tie(&mut command, identity)?;
    let keeper = tokio::process::Command::from(command).spawn()?;
    leash.set_nonblocking(true)?;
    Ok((keeper, UnixStream::from_std(leash)?, pipe::Receiver::from_owned_fd(output.into())?))
}

/// A program and what holds it; dropped, it ends.
struct Running {
    program: String,
    keeper: Child,
    leash: UnixStream,
    output: pipe::Receiver,
}

impl Running {
    async fn end(self, output_max: usize, hear: Hear<'_>) -> Result<ExitStatus, ProcessError> {
        let Running { program, mut keeper, mut leash, output } = self;
        let follow = |source| ProcessError::Follow { program: program.clone(), source };
        let status = async {
            let mut status = [0; size_of::<i32>()];
            match leash.read_exact(&mut status).await {
                Ok(_) => Ok(ExitStatus::from_raw(i32::from_ne_bytes(status))),
                Err(_) => Err(ProcessError::Keeper { program: program.clone() }),
            }
        };
        let listen = async {
            match listen(output, output_max, hear).await.map_err(follow)? {
                Heard::All => Ok(()),
                Heard::TooMuch => Err(ProcessError::Flood { program: program.clone(), max: output_max }),
            }
        };
        // No process is left that could hold the pipe open once the status is there.
        let (status, ()) = try_join!(status, listen)?;
        keeper.wait().await.map_err(follow)?;
        Ok(status)
    }
}

enum Heard {
    All,
    TooMuch,
}

async fn listen(mut output: pipe::Receiver, max: usize, hear: Hear<'_>) -> io::Result<Heard> {
    let (mut piece, mut all) = ([0; 4_096], 0);
    while all <= max {
        let length = output.read(&mut piece).await?;
        if length == 0 {
            return Ok(Heard::All);
        }
        all += length;
        hear(&piece[..length]);
    }
    Ok(Heard::TooMuch)
}

/// None: the daemon's own.
fn identity(name: &str) -> Result<Option<Identity>, ProcessError> {
    let unknown = |source: io::Error| ProcessError::User { user: name.to_owned(), source };
    let found = User::from_name(name).map_err(|error| unknown(error.into()))?;
    let user = found.ok_or_else(|| ProcessError::NoUser(name.to_owned()))?;
    if user.uid == geteuid() {
        return Ok(None);
    }
    let groups = CString::new(name)
        .map_err(io::Error::from)
        .and_then(|name| getgrouplist(&name, user.gid).map_err(io::Error::from))
        .map_err(unknown)?;
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

/// What a program finds others in, whatever the daemon was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
