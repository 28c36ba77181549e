//! What is said on the connection of a TCP check, and heard.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::{Failure, Trace, tcp};
use crate::pure::{
    config::model::check::{Exchange, Pattern},
    excerpt::excerpt,
    report::Step,
    state::CheckTask,
};

/// A dialogue that ends with a sending says farewell: whether that arrives is nobody's concern.
pub(super) async fn check(
    trace: &mut Trace,
    task: &CheckTask,
    exchanges: &[Exchange],
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut stream = tcp::connect(trace, task).await?;
    let mut heard = Vec::new();
    let Some((last, exchanges)) = exchanges.split_last() else {
        return Ok(());
    };
    for exchange in exchanges {
        step(trace, &mut stream, &mut heard, exchange).await?;
    }
    match step(trace, &mut stream, &mut heard, last).await {
        Err(_) if matches!(last, Exchange::Send(_)) => return Ok(()),
        result => result?,
    }
    if matches!(last, Exchange::Send(_) | Exchange::Finish) {
        trace.end();
        let left = task.check.timeout.saturating_sub(begin.elapsed());
        part(stream, left / 2).await;
    }
    Ok(())
}

async fn step(
    trace: &mut Trace,
    stream: &mut TcpStream,
    heard: &mut Vec<u8>,
    exchange: &Exchange,
) -> Result<(), Failure> {
    match exchange {
        Exchange::SendIf(pattern, _) if !pattern.is_in(heard) => Ok(()),
        Exchange::Send(bytes) | Exchange::SendIf(_, bytes) => {
            trace.step(Step::Send);
            heard.clear();
            stream.write_all(bytes).await.map_err(|error| tcp::refusal(&error))
        }
        Exchange::Expect(pattern) => {
            trace.step(Step::Reply);
            expect(trace, stream, heard, pattern).await
        }
        Exchange::Finish => stream.shutdown().await.map_err(|error| tcp::refusal(&error)),
    }
}

/// Reads until the pattern matches: `HEARD_MAX` bytes at most, in `PIECES_MAX` pieces, since each piece costs a
/// search in all of them.
async fn expect(
    trace: &mut Trace,
    stream: &mut TcpStream,
    heard: &mut Vec<u8>,
    pattern: &Pattern,
) -> Result<(), Failure> {
    let mut piece = [0; 4_096];
    for _ in 0..PIECES_MAX {
        if pattern.is_in(heard) {
            return Ok(());
        }
        let room = (HEARD_MAX - heard.len()).min(piece.len());
        if room == 0 {
            return Err(unexpected("64 KiB without the expected answer", heard));
        }
        match stream.read(&mut piece[..room]).await {
            Ok(0) if heard.is_empty() => {
                return Err(Failure::Server("connection closed without an answer".to_owned()));
            }
            Ok(0) => return Err(unexpected("unexpected answer", heard)),
            Ok(length) => heard.extend_from_slice(&piece[..length]),
            Err(error) if heard.is_empty() => return Err(tcp::refusal(&error)),
            Err(_) => return Err(unexpected("connection reset after", heard)),
        }
        trace.answer = Some(excerpt(heard));
    }
    Err(unexpected("an answer in more than 1024 pieces", heard))
}

fn unexpected(what: &str, heard: &[u8]) -> Failure {
    Failure::Server(format!("{what}: {}", excerpt(heard)))
}

/// Lets the server be the first to close, so that no TIME_WAIT is left here. One that does not is reset.
async fn part(mut stream: TcpStream, longest: Duration) {
    let mut rest = [0; 512];
    let closed = async {
        for _ in 0..REST_MAX {
            if !stream.read(&mut rest).await.is_ok_and(|length| length > 0) {
                return;
            }
        }
    };
    // Passed either way.
    let _ = time::timeout(PARTING.min(longest), closed).await;
}

const HEARD_MAX: usize = 64 * 1_024;
const PIECES_MAX: usize = 1_024;
const PARTING: Duration = Duration::from_millis(100);
/// Reads of what comes after the farewell.
const REST_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, task::JoinSet};

    use super::{
        super::{run, testing},
        *,
    };
    use crate::pure::{
        config::model::check::CheckKind,
        dialogue,
        report::{Outcome, Report},
    };

    /// One connection to a server that does as it likes, and what came of it.
    async fn against(
        exchanges: Vec<Exchange>,
        timeout: Duration,
        server: impl AsyncFn(TcpStream) + Send + 'static,
    ) -> Report {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let task = testing::task(CheckKind::Tcp(exchanges), listener.local_addr().unwrap(), timeout);
        let serving = async {
            server(listener.accept().await.unwrap().0).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            report = run(&task) => report,
            () = serving => unreachable!("the server goes on"),
        }
    }

    fn expecting(expression: &str) -> Vec<Exchange> {
        vec![Exchange::Expect(Pattern::new(expression).unwrap())]
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(reason.to_owned())
    }

    #[tokio::test]
    async fn a_mail_server_is_greeted_and_left() {
        let report = against(dialogue::smtp("lb1"), LONG, async |mut stream: TcpStream| {
            let mut line = [0; 64];
            stream.write_all(b"220 mail ESMTP\r\n").await.unwrap();
            let length = stream.read(&mut line).await.unwrap();
            assert_eq!(&line[..length], b"HELO lb1\r\n");
            stream.write_all(b"250 hello\r\n").await.unwrap();
            let length = stream.read(&mut line).await.unwrap();
            assert_eq!(&line[..length], b"QUIT\r\n");
            stream.write_all(b"221 bye\r\n").await.unwrap();
        });
        let report = report.await;
        assert_eq!(report.outcome, Outcome::Passed);
        assert_eq!(report.answer.as_deref(), Some(r#""250 hello\r\n""#));
        let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [Step::Connect, Step::Reply, Step::Send, Step::Reply, Step::Send]);
        assert!(report.elapsed() < LONG);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_announced_where_asked() {
        let mut exchanges = expecting("hello");
        exchanges.push(Exchange::Finish);
        let (send, ended) = tokio::sync::oneshot::channel();
        let send = std::sync::Mutex::new(Some(send));
        let report = against(exchanges, LONG, async move |mut stream: TcpStream| {
            stream.write_all(b"hello").await.unwrap();
            let end = stream.read(&mut [0; 8]).await;
            let send = send.lock().unwrap().take().unwrap();
            send.send(end.unwrap()).unwrap();
        });
        assert_eq!(report.await.outcome, Outcome::Passed);
        assert_eq!(ended.await.unwrap(), 0, "no reset");
    }

    #[tokio::test]
    async fn a_server_that_goes_silent_does_not_delay_its_success() {
        let mut exchanges = expecting("hello");
        exchanges.push(Exchange::Send(b"bye".to_vec()));
        let report = against(exchanges, LONG, async |mut stream: TcpStream| {
            stream.write_all(b"hello").await.unwrap();
            std::future::pending::<()>().await;
        });
        let report = report.await;
        assert_eq!((report.outcome, report.steps.len()), (Outcome::Passed, 3));
    }

    #[tokio::test]
    async fn a_server_that_closes_has_said_what_it_said() {
        let report = against(expecting("^220 "), LONG, async |mut stream: TcpStream| {
            stream.write_all(b"554 go away\r\n").await.unwrap();
        });
        assert_eq!(report.await.outcome, failed(r#"unexpected answer: "554 go away\r\n""#));
        let report = against(expecting("^220 "), LONG, async |stream: TcpStream| drop(stream));
        assert_eq!(report.await.outcome, failed("connection closed without an answer"));
        let report = against(expecting("^220 "), LONG, async |stream: TcpStream| {
            stream.set_zero_linger().unwrap();
        });
        assert_eq!(report.await.outcome, failed("connection reset"));
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_left() {
        let report = against(expecting("."), SHORT, async |stream: TcpStream| {
            std::future::pending::<()>().await;
            drop(stream);
        });
        assert_eq!(report.await.outcome, failed("timeout after 200ms"));
        let report = against(expecting("^2"), SHORT, async |mut stream: TcpStream| {
            stream.write_all(b"-LOADING\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let report = report.await;
        assert_eq!(report.outcome, failed(r#"timeout after 200ms, and until then "-LOADING\r\n""#));
        assert_eq!(report.steps.last().unwrap().0, Step::Reply);
    }

    #[tokio::test]
    async fn garbage_without_end_is_left_after_64_kib() {
        let report =
            against(
                expecting("^220 "),
                LONG,
                async |mut stream: TcpStream| {
                    while stream.write_all(&[0xff; 4_096]).await.is_ok() {}
                },
            );
        let Outcome::Failed(reason) = report.await.outcome else { panic!("passed") };
        assert!(reason.starts_with(r#"64 KiB without the expected answer: "\xff\xff"#), "{reason}");
    }

    #[tokio::test]
    async fn one_byte_at_a_time_is_slow_and_no_fault() {
        let report = against(expecting("^220 mail\r\n$"), LONG, async |stream: TcpStream| {
            stream.set_nodelay(true).unwrap();
            dribble(stream, b"220 mail\r\n".iter().copied()).await;
        });
        assert_eq!(report.await.outcome, Outcome::Passed);
    }

    #[tokio::test]
    async fn bytes_one_at_a_time_without_end_are_left() {
        let mut others = JoinSet::new();
        for _ in 0..20 {
            others.spawn(against(expecting("^220 "), LONG, async |stream: TcpStream| {
                stream.set_nodelay(true).unwrap();
                dribble(stream, std::iter::repeat(b'x')).await;
            }));
        }
        for report in others.join_all().await {
            assert!(report.elapsed() < LONG);
            let Outcome::Failed(reason) = report.outcome else { panic!("passed") };
            assert!(reason.contains(r#": "xxx"#), "{reason}");
        }
    }

    async fn dribble(mut stream: TcpStream, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    }

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);
}
