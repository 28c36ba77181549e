//! Runs the operator's program for one event, or a hook of a virtual router.

use std::{process::ExitStatus, time::Duration};

use tracing::debug;

use crate::{
    io::process::{self, Limits, ProcessError, Program},
    pure::notice::Event,
};

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{program} failed with {status}: {said}")]
    Failed { program: String, status: ExitStatus, said: String },
}

/// `command` is a program and its arguments; the event is in its environment.
pub async fn run(command: &[String], event: &Event, limit: Duration) -> Result<(), CommandError> {
    if command.is_empty() {
        return Ok(());
    }
    let environment = event.environment().into();
    run_program(&Program { command: command.to_vec(), environment, user: None }, limit).await
}

pub async fn run_program(program: &Program, limit: Duration) -> Result<(), CommandError> {
    let mut output = Vec::new();
    let limits = Limits { time: limit, output: OUTPUT_MAX };
    let status = process::run(program, limits, &mut |piece| output.extend_from_slice(piece)).await?;
    let output = String::from_utf8_lossy(&output);
    let said = output.trim_end();
    debug!("notify command {:?}: {status}: {said}", program.command);
    if status.success() {
        return Ok(());
    }
    let said = match said.lines().last() {
        Some(line) => line.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect(),
        None => "it said nothing".to_owned(),
    };
    let program = program.command.first().cloned().unwrap_or_default();
    Err(CommandError::Failed { program, status, said })
}

const SAID_MAX: usize = 200;
const OUTPUT_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pure::notice::{Notice, ServerName};

    fn event() -> Event {
        let server = ServerName {
            service: Some("web".to_owned()),
            server: "web1".to_owned(),
            address: "10.0.5.91:8888".to_owned(),
        };
        let notice = Notice::Down { server, detail: "$(touch /nowhere); refused".to_owned() };
        notice.event("2026-11-20T12:00:00Z".parse().unwrap(), &"lb1".into())
    }

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).into()
    }

    async fn refused(script: &str, limit: Duration) -> String {
        run(&shell(script), &event(), limit).await.expect_err("it must fail").to_string()
    }

    #[tokio::test]
    async fn the_event_is_in_the_environment_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen");
        let script = format!("env > {}", file.display());
        run(&shell(&script), &event(), PATIENCE).await.unwrap();
        let seen = fs::read_to_string(&file).unwrap();
        for line in ["STEELYARD_EVENT=server-down", "STEELYARD_DETAIL=$(touch /nowhere); refused"] {
            assert!(seen.lines().any(|seen| seen == line), "{seen}");
        }
        // What the shell itself adds.
        let own = ["STEELYARD_", "PATH=", "PWD=/", "OLDPWD=", "SHLVL=", "_="];
        assert!(seen.lines().all(|line| own.iter().any(|name| line.starts_with(name))), "{seen}");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let error = refused("echo first; echo no such pager >&2; exit 7", PATIENCE).await;
        assert_eq!(error, "/bin/sh failed with exit status: 7: no such pager");
        assert!(refused("exit 1", PATIENCE).await.ends_with("it said nothing"));
        assert!(refused("kill -9 $$", PATIENCE).await.contains("signal: 9"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_forks_or_floods_is_ended() {
        let short = Duration::from_millis(200);
        assert!(refused("sleep 600", short).await.contains("did not end within 200ms"));
        assert!(refused("sleep 600 & sleep 600 & wait", short).await.contains("did not end"));
        assert!(refused("yes", PATIENCE).await.contains("wrote more than 64 KiB"));
        // One that leaves children behind has ended all the same.
        run(&shell("sleep 600 & exit 0"), &event(), PATIENCE).await.unwrap();
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}
