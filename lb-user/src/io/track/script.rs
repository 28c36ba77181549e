//! One run of a tracked script: exit code 0 is success, and everything else a failure.

use std::os::unix::process::ExitStatusExt;

use crate::{
    io::process::{self, Limits, Line, ProcessError, Program},
    pure::{config::model::vrrp::Script, excerpt::excerpt},
};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub passed: bool,
    /// "exit code 1: "no process found""
    pub words: String,
    /// What an operator has to put right: it hangs, or cannot be run.
    pub fault: Option<String>,
}

/// At most as long as the script's timeout, after which nothing of it is left.
pub async fn run(script: &Script) -> Ran {
    let program = Program {
        command: script.command.clone(),
        environment: vec![("STEELYARD_SCRIPT", script.name.clone())],
        user: script.user.clone(),
    };
    let limits = Limits { time: script.timeout, output: OUTPUT_MAX };
    let mut line = Line::default();
    let ended = process::run(&program, limits, &mut |piece| line.hear(piece)).await;
    let said = match line.text() {
        [] => String::new(),
        text => format!(": {}", excerpt(text)),
    };
    match ended {
        Ok(status) => {
            let words = match status.code() {
                Some(code) => format!("exit code {code}"),
                None => format!("killed by signal {}", status.signal().unwrap_or(0)),
            };
            Ran { passed: status.success(), words: words + &said, fault: None }
        }
        Err(ProcessError::Timeout { limit, .. }) => {
            let words = format!("timeout after {limit:?}{said}");
            let fault =
                format!("did not end within {limit:?} and was killed{said}; mend it, or raise `timeout`");
            Ran { passed: false, words, fault: Some(fault) }
        }
        Err(error) => {
            let words = error.to_string();
            Ran { passed: false, fault: Some(words.clone()), words }
        }
    }
}

/// Up to what a program may reasonably say.
const OUTPUT_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn shell(text: &str, timeout: Duration) -> Ran {
        command(&["/bin/sh", "-c", text], timeout).await
    }

    async fn command(words: &[&str], timeout: Duration) -> Ran {
        let script = Script {
            name: "chk".to_owned(),
            command: words.iter().map(ToString::to_string).collect(),
            interval: timeout,
            timeout,
            rise: 1,
            fall: 1,
            user: None,
            init_fail: false,
        };
        run(&script).await
    }

    #[tokio::test]
    async fn exit_code_0_is_success_and_nothing_else_is() {
        for (text, passed, words) in [
            ("exit 0", true, "exit code 0"),
            ("echo all is well", true, "exit code 0: \"all is well\""),
            ("exit 7", false, "exit code 7"),
            ("echo no process found >&2; echo more; exit 1", false, "exit code 1: \"no process found\""),
            ("kill -9 $$", false, "killed by signal 9"),
            ("[ $STEELYARD_SCRIPT = chk ]", true, "exit code 0"),
        ] {
            assert_eq!(shell(text, LONG).await, Ran { passed, words: words.to_owned(), fault: None });
        }
    }

    #[tokio::test]
    async fn one_that_hangs_or_cannot_be_run_has_failed_and_is_told() {
        let short = Duration::from_millis(200);
        for text in ["echo so far; sleep 600", "echo so far; sleep 600 & sleep 600 & wait"] {
            let hung = shell(text, short).await;
            assert_eq!((hung.passed, hung.words.as_str()), (false, "timeout after 200ms: \"so far\""));
            assert!(hung.fault.is_some_and(|fault| fault.contains("raise `timeout`")));
        }
        let missing = command(&["/no/such/script"], LONG).await;
        assert!(!missing.passed);
        assert!(missing.fault.is_some_and(|fault| fault.contains("`/no/such/script` does not exist")));
        // What it leaves behind is no reason to wait.
        assert!(shell("sleep 600 & exit 0", LONG).await.passed);
    }

    const LONG: Duration = Duration::from_secs(20);
}
