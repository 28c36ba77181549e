//! Programs of the operator's: run to their end, or killed with all they started.
//!
//! Shared by the adapters that run some. Must not know why a program runs, nor what its exit code means.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    process::{Child, Command},
    select,
    time::timeout,
};

/// How a program ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub status: ExitStatus,
    /// What it wrote to standard output and standard error, in its order.
    pub output: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot wait for {program}: {source}")]
    Wait { program: String, source: io::Error },
    #[error("{program} did not end within {limit:?} and was killed")]
    Timeout { program: String, limit: Duration },
    #[error("{program} wrote more than {} KiB and was killed: let it write less", OUTPUT_MAX >> 10)]
    Flood { program: String },
}

/// Runs a program without input. It gets a process group of its own, and nothing of the group outlives it: not its end,
/// nor the time limit, nor this future. What leaves the group (`setsid`) is on its own.
pub async fn run(mut command: Command, limit: Duration) -> Result<Ended, ProcessError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let start = |source| ProcessError::Start { program: program.clone(), source };
    let (reader, writer) = io::pipe().map_err(start)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(start)?).stderr(writer);
    let child = command.process_group(0).kill_on_drop(true).spawn().map_err(start)?;
    // It holds the pipe's other end.
    drop(command);
    let pipe = Receiver::from_owned_fd(reader.into()).map_err(start)?;
    let mut running = Running { group: Group::of(&child), child, pipe, output: Vec::new() };
    match timeout(limit, running.end()).await {
        Ok(Ok(Some(status))) => {
            let output = String::from_utf8_lossy(&running.output).into_owned();
            Ok(Ended { status, output })
        }
        Ok(Ok(None)) => Err(ProcessError::Flood { program }),
        Ok(Err(source)) => Err(ProcessError::Wait { program, source }),
        Err(_) => Err(ProcessError::Timeout { program, limit }),
    }
}

struct Running {
    group: Group,
    child: Child,
    pipe: Receiver,
    output: Vec<u8>,
}

impl Running {
    /// None: it wrote too much.
    async fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        let mut open = true;
        let status = loop {
            // Cancel safe: what `read_buf` has read is in the output.
            select! {
                status = self.child.wait() => break status?,
                read = self.pipe.read_buf(&mut self.output), if open => open = read? > 0,
            }
            if self.output.len() > OUTPUT_MAX {
                return Ok(None);
            }
        };
        self.group.kill();
        // All who could write are dead, save what left the group.
        let rest = async {
            while open && self.output.len() <= OUTPUT_MAX {
                open = self.pipe.read_buf(&mut self.output).await? > 0;
            }
            io::Result::Ok(())
        };
        // What was read until then is enough.
        let _ = timeout(REST, rest).await;
        self.output.truncate(OUTPUT_MAX);
        Ok(Some(status))
    }
}

/// A process group; dropping it kills its members.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// Process ids are given out in turn: that of a leader who was waited for a moment ago is nobody else's.
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // Nobody may be left in it.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

const OUTPUT_MAX: usize = 64 << 10;
/// For what is still in the pipe when a program has ended.
const REST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Instant};

    use super::*;

    async fn shell(script: &str, limit: Duration) -> Result<Ended, ProcessError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, limit).await
    }

    fn is_gone(pid: &str) -> bool {
        let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
        // A zombie only waits for its parent to look.
        stat.is_empty() || stat.contains(") Z ")
    }

    async fn all_gone(file: &Path) {
        let end = Instant::now() + PATIENCE;
        loop {
            let pids = fs::read_to_string(file).unwrap_or_default();
            if pids.lines().count() >= 2 && pids.lines().all(is_gone) {
                return;
            }
            assert!(Instant::now() < end, "of {pids:?} some are alive");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn output_and_exit_code_are_collected() {
        let ended = shell("echo one; echo two >&2; exit 3", PATIENCE).await.unwrap();
        assert_eq!((ended.status.code(), ended.output.as_str()), (Some(3), "one\ntwo\n"));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("(echo $$; sh -c 'echo $$; sleep 600') > {} & wait", pids.display());
        let limit = Duration::from_millis(300);
        let error = shell(&script, limit).await.unwrap_err();
        assert!(matches!(error, ProcessError::Timeout { .. }), "{error}");
        all_gone(&pids).await;
    }

    #[tokio::test]
    async fn children_do_not_outlive_a_program_that_ended() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sh -c 'echo $$ >> {0}; sleep 600' & echo $! >> {0}; exit 0", pids.display());
        let begun = Instant::now();
        let ended = shell(&script, PATIENCE).await.unwrap();
        assert!(ended.status.success() && begun.elapsed() < PATIENCE, "{ended:?}");
        let end = Instant::now() + PATIENCE;
        while !fs::read_to_string(&pids).unwrap_or_default().lines().all(is_gone) {
            assert!(Instant::now() < end, "a child is alive");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_flood_ends_the_program() {
        let error = shell("yes", PATIENCE).await.unwrap_err();
        assert!(matches!(error, ProcessError::Flood { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_dropped_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("echo $$ > {0}; sh -c 'echo $$ >> {0}; sleep 600'", pids.display());
        let running = tokio::spawn(async move { shell(&script, PATIENCE).await });
        let end = Instant::now() + PATIENCE;
        while fs::read_to_string(&pids).unwrap_or_default().lines().count() < 2 {
            assert!(Instant::now() < end, "it did not start");
            tokio::task::yield_now().await;
        }
        running.abort();
        all_gone(&pids).await;
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_named() {
        let error = run(Command::new("/nowhere/notify"), PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/notify"), "{error}");
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}
