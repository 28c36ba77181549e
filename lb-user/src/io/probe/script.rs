//! The script check: a program of the operator's, whose exit code 0 says that the server is well.

use std::os::unix::process::ExitStatusExt;

use super::{Failure, Trace};
use crate::{
    io::process::{self, Limits, Line, ProcessError, Program},
    pure::{config::model::check::Script, excerpt::excerpt, report::Step, state::CheckTask},
};

pub(super) async fn check(trace: &mut Trace, task: &CheckTask, script: &Script) -> Result<(), Failure> {
    trace.step(Step::Run);
    let limits = Limits { time: task.check.timeout, output: OUTPUT_MAX };
    let mut line = Line::default();
    let mut hear = |piece: &[u8]| {
        line.hear(piece);
        if !line.text().is_empty() {
            trace.answer = Some(excerpt(line.text()));
        }
    };
    let status = match process::run(&program(task, script), limits, &mut hear).await {
        Ok(status) => status,
        Err(ProcessError::Timeout { limit, .. }) => return Err(Failure::Server(trace.timeout(limit))),
        Err(ProcessError::Flood { .. }) => {
            return Err(Failure::Server("its output has no end: more than 1 MiB came".to_owned()));
        }
        Err(error) => return Err(Failure::Local(error.to_string())),
    };
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

fn program(task: &CheckTask, script: &Script) -> Program {
    Program {
        command: script.command.clone(),
        environment: vec![
            ("STEELYARD_SERVICE", task.service_name.clone()),
            ("STEELYARD_SERVER", task.server_name.clone()),
            ("STEELYARD_ADDRESS", task.target.ip().to_string()),
            ("STEELYARD_PORT", task.target.port().to_string()),
        ],
        user: script.user.clone(),
    }
}

/// Up to what a program may reasonably say.
const OUTPUT_MAX: usize = 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{run, testing},
        *,
    };
    use crate::pure::{
        config::model::check::CheckKind,
        report::{Outcome, Report},
    };

    async fn shell_as(user: Option<&str>, text: &str, timeout: Duration) -> Report {
        let command = ["/bin/sh", "-c", text].map(str::to_owned).into();
        let script = Script { command, user: user.map(str::to_owned) };
        run(&testing::task(CheckKind::Script(script), "[2001:db8::7]:8080".parse().unwrap(), timeout)).await
    }

    async fn shell(text: &str) -> Report {
        shell_as(None, text, LONG).await
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(reason.to_owned())
    }

    #[tokio::test]
    async fn the_exit_code_decides_and_the_first_line_tells() {
        let passed = shell("echo all is well; echo and more").await;
        assert_eq!((passed.outcome, passed.answer.as_deref()), (Outcome::Passed, Some("\"all is well\"")));
        assert_eq!(passed.steps.len(), 1);
        let silent = shell("exit 0").await;
        assert_eq!((silent.outcome, silent.answer.as_deref()), (Outcome::Passed, Some("exit code 0")));
        for (text, reason) in [
            ("exit 3", "exit code 3"),
            ("echo disk full >&2; exit 1", "exit code 1: \"disk full\""),
            ("printf 'a\\033[2J\\377'; exit 1", "exit code 1: \"a\\x1b[2J\\xff\""),
            ("kill -9 $$", "killed by signal 9"),
            ("kill -TERM $$", "killed by signal 15"),
            ("exec >&- 2>&-; exit 4", "exit code 4"),
            ("echo first; head -c 500000 /dev/zero; exit 2", "exit code 2: \"first\""),
        ] {
            assert_eq!(shell(text).await.outcome, failed(reason), "{text}");
        }
    }

    #[tokio::test]
    async fn a_script_finds_what_it_is_to_check() {
        let variables = "$STEELYARD_SERVICE $STEELYARD_SERVER $STEELYARD_ADDRESS $STEELYARD_PORT $(env | grep -c ^STEELYARD_)";
        let report = shell(&format!("echo {variables}")).await;
        assert_eq!(report.answer.as_deref(), Some("\"web web1 2001:db8::7 8080 4\""));
    }

    #[tokio::test]
    async fn a_script_runs_as_its_user_or_not_at_all() {
        let report = shell_as(Some("nobody"), "id -un", LONG).await;
        assert_eq!((report.outcome, report.answer.as_deref()), (Outcome::Passed, Some("\"nobody\"")));
        for (user, text, expected) in
            [(Some("no-such-user"), "exit 0", "`no-such-user`"), (None, "kill -9 $PPID; sleep 0.2", "keeper")]
        {
            let outcome = shell_as(user, text, LONG).await.outcome;
            assert!(matches!(&outcome, Outcome::NotRun(why) if why.contains(expected)), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_script_that_hangs_is_told_with_what_it_said() {
        let report = shell_as(None, "echo working; sleep 1000", Duration::from_secs(1)).await;
        assert_eq!(report.outcome, failed("timeout after 1s, and until then \"working\""));
    }

    #[tokio::test]
    async fn output_without_end_is_a_failure() {
        for (text, line) in [("exec yes", "\"y\""), ("exec tr '\\0' x < /dev/zero", "\"xxx")] {
            let report = shell(text).await;
            assert_eq!(report.outcome, failed("its output has no end: more than 1 MiB came"));
            let answer = report.answer.unwrap();
            assert!(answer.starts_with(line) && answer.len() < 200, "{answer}");
        }
    }

    const LONG: Duration = Duration::from_secs(20);
}
