//! The agent check: a server that says of itself how it is.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Failure, Trace, tcp};
use crate::pure::{
    agent,
    excerpt::excerpt,
    report::{Advice, Step},
    state::CheckTask,
};

pub(super) async fn check(trace: &mut Trace, task: &CheckTask, send: &[u8]) -> Result<Advice, Failure> {
    let mut stream = tcp::connect(trace, task).await?;
    if !send.is_empty() {
        trace.step(Step::Send);
        stream.write_all(send).await.map_err(|error| tcp::refusal(&error))?;
    }
    trace.step(Step::Reply);
    let mut line = [0; LINE_MAX];
    let length = read_line(&mut stream, &mut line).await?;
    let answer = agent::parse(&line[..length]).map_err(|error| Failure::Server(error.to_string()))?;
    trace.answer = Some(format!("the agent says {}", excerpt(line[..length].trim_ascii())));
    trace.warning = answer.note;
    Ok(answer.advice)
}

/// Until the end of the line, or of the connection.
async fn read_line(stream: &mut TcpStream, line: &mut [u8; LINE_MAX]) -> Result<usize, Failure> {
    let mut length = 0;
    while length < LINE_MAX {
        let read = stream.read(&mut line[length..]).await.map_err(|error| tcp::refusal(&error))?;
        if read == 0 {
            return Ok(length);
        }
        let end = line[length..length + read].iter().position(|byte| b"\r\n".contains(byte));
        if let Some(end) = end {
            return Ok(length + end);
        }
        length += read;
    }
    Err(Failure::Server(format!("the agent's line has no end within 1 KiB: {}", excerpt(line))))
}

const LINE_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::{
        super::{run, testing},
        *,
    };
    use crate::pure::{
        config::model::check::CheckKind,
        report::{AgentAdmin, Outcome, Report},
    };

    /// An agent that reads what it is sent, and answers in these pieces.
    async fn agent(send: &[u8], pieces: &[&[u8]], closes: bool, timeout: Duration) -> Report {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let kind = CheckKind::Agent { send: send.to_vec() };
        let task = testing::task(kind, listener.local_addr().unwrap(), timeout);
        let serving = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.set_nodelay(true).unwrap();
            let mut asked = vec![0; send.len()];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, send);
            for piece in pieces {
                // It may have heard enough.
                let _ = stream.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            if closes {
                drop(stream);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            report = run(&task) => report,
            () = serving => unreachable!("the agent goes on"),
        }
    }

    #[tokio::test]
    async fn an_agents_line_is_its_advice() {
        let report = agent(b"web1\n", &[b"drain", b" 7", b"5", b"%\ndown\n"], false, LONG).await;
        let advice = Advice { weight: Some(75), admin: Some(AgentAdmin::Drain), up: None };
        assert_eq!(report.outcome, Outcome::Advised(advice));
        assert_eq!(report.answer.as_deref(), Some("the agent says \"drain 75%\""));
        let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [Step::Connect, Step::Send, Step::Reply]);
    }

    #[tokio::test]
    async fn an_agent_may_close_instead_of_ending_its_line() {
        let report = agent(b"", &[b"up maxconn:5"], true, LONG).await;
        assert_eq!(report.outcome, Outcome::Advised(Advice { up: Some(true), ..Advice::default() }));
        assert_eq!(report.warning.as_deref(), Some("its maxconn counts for layer 7 only"));
    }

    #[tokio::test]
    async fn an_agent_without_advice_has_failed() {
        let endless = [b'x'; 700];
        let cases: [(&[&[u8]], bool, &str); 4] = [
            (&[], true, "the agent says nothing"),
            (&[b"\n"], false, "the agent says nothing"),
            (&[b"SSH-2.0-OpenSSH\r\n"], false, "the agent says \"SSH-2.0-OpenSSH\""),
            (&[&endless, &endless], false, "the agent's line has no end within 1 KiB: \"xxx"),
        ];
        for (pieces, closes, reason) in cases {
            let Outcome::Failed(failed) = agent(b"", pieces, closes, LONG).await.outcome else {
                panic!("passed")
            };
            assert!(failed.starts_with(reason), "{failed}");
        }
        let silent = agent(b"", &[b"up"], false, Duration::from_millis(200)).await;
        assert_eq!(silent.outcome, Outcome::Failed("timeout after 200ms".to_owned()));
    }

    const LONG: Duration = Duration::from_secs(20);
}
