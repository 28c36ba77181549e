//! The DNS check: a question over UDP, and over TCP where the answer does not fit.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failure, Trace, datagram, random, tcp};
use crate::pure::{
    config::model::check::Dns,
    dns::{Question, Verdict},
    report::Step,
    state::CheckTask,
};

/// What does not answer the question is passed over, since anybody may have sent it; but not without end.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask, dns: &Dns) -> Result<(), Failure> {
    let [low, high, ..] = random().to_ne_bytes();
    let question = Question::new(dns, u16::from_ne_bytes([low, high]))
        .map_err(|error| Failure::Local(error.to_string()))?;
    trace.step(Step::Send);
    let socket = datagram::udp(task)?;
    socket.send(question.bytes()).await.map_err(|error| datagram::fault(&error))?;
    trace.step(Step::Reply);
    let mut answer = [0; DATAGRAM_MAX];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut answer).await.map_err(|error| datagram::fault(&error))?;
        match question.judge(&answer[..length]) {
            Verdict::Passed(answer) => {
                trace.answer = Some(answer);
                return Ok(());
            }
            Verdict::Failed(reason) => return Err(Failure::Server(reason)),
            Verdict::Truncated => return over_tcp(trace, task, &question).await,
            Verdict::Stray(what) => trace.warning = Some(format!("{what} came, too")),
        }
    }
    Err(Failure::Server(format!("{STRAYS_MAX} answers, and none to the question")))
}

/// Each message follows its length (RFC 1035, 4.2.2).
async fn over_tcp(trace: &mut Trace, task: &CheckTask, question: &Question) -> Result<(), Failure> {
    let refusal = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::Server("connection closed without an answer".to_owned()),
        _ => tcp::refusal(&error),
    };
    let mut stream = tcp::connect(trace, task).await?;
    trace.step(Step::Send);
    let length = u16::try_from(question.bytes().len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), question.bytes()].concat()).await.map_err(refusal)?;
    trace.step(Step::Reply);
    let mut answer = vec![0; usize::from(stream.read_u16().await.map_err(refusal)?)];
    stream.read_exact(&mut answer).await.map_err(refusal)?;
    match question.judge(&answer) {
        Verdict::Passed(answer) => {
            trace.answer = Some(format!("{answer}, over tcp"));
            Ok(())
        }
        Verdict::Failed(reason) => Err(Failure::Server(reason)),
        Verdict::Truncated => Err(Failure::Server("an answer that is cut over tcp, too".to_owned())),
        Verdict::Stray(what) => Err(Failure::Server(format!("{what}, over tcp"))),
    }
}

/// What a server sends to somebody who did not ask for more is at most 512 bytes long.
const DATAGRAM_MAX: usize = 4_096;
const STRAYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use hickory_proto::{
        op::{Message, MessageType, ResponseCode},
        rr::{RData, Record, rdata::A},
    };
    use tokio::net::{TcpListener, UdpSocket};

    use super::{
        super::{run, testing},
        *,
    };
    use crate::pure::{
        config::model::check::CheckKind,
        report::{Outcome, Report},
    };

    fn answer(question: &[u8]) -> Message {
        let mut message = Message::from_vec(question).unwrap();
        message.metadata.message_type = MessageType::Response;
        let name = message.queries[0].name().clone();
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
        message
    }

    fn changed(question: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = answer(question);
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn kind() -> CheckKind {
        let expect = Some("192.0.2.1".parse().unwrap());
        CheckKind::Dns(Dns { query: "www.example.com".to_owned(), record: 1, expect })
    }

    async fn against(answers: impl Fn(&[u8]) -> Vec<Vec<u8>>, timeout: Duration) -> Report {
        against_both(answers, |question| framed(&changed(question, |_| ())), timeout).await
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    /// A server on both protocols that sends what it makes of the question; over TCP byte by byte, and no more.
    async fn against_both(
        answers: impl Fn(&[u8]) -> Vec<Vec<u8>>,
        bytes: impl Fn(&[u8]) -> Vec<u8>,
        timeout: Duration,
    ) -> Report {
        let stream = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = stream.local_addr().unwrap();
        let datagrams = UdpSocket::bind(address).await.unwrap();
        let over_udp = async {
            let mut question = [0; 512];
            let (length, who) = datagrams.recv_from(&mut question).await.unwrap();
            for answer in answers(&question[..length]) {
                datagrams.send_to(&answer, who).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let over_tcp = async {
            let mut stream = stream.accept().await.unwrap().0;
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for byte in bytes(&question) {
                stream.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(stream);
            std::future::pending::<()>().await;
        };
        let task = testing::task(kind(), address, timeout);
        tokio::select! {
            report = run(&task) => report,
            () = over_udp => unreachable!("the server goes on"),
            () = over_tcp => unreachable!("the server goes on"),
        }
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(reason.to_owned())
    }

    #[tokio::test]
    async fn an_answer_passes() {
        let report = against(|question| vec![changed(question, |_| ())], LONG).await;
        assert_eq!(report.outcome, Outcome::Passed);
        assert_eq!(report.answer.as_deref(), Some("192.0.2.1 among 1 records"));
        assert_eq!(report.warning, None);
    }

    #[tokio::test]
    async fn an_error_fails_with_its_name() {
        for (code, reason) in [
            (ResponseCode::ServFail, "response code 2: Server Failure"),
            (ResponseCode::NXDomain, "response code 3: Non-Existent Domain"),
            (ResponseCode::Refused, "response code 5: Query Refused"),
        ] {
            let refuse =
                |question: &[u8]| vec![changed(question, |message| message.metadata.response_code = code)];
            assert_eq!(against(refuse, LONG).await.outcome, failed(reason));
        }
    }

    #[tokio::test]
    async fn strangers_are_passed_over_for_the_answer() {
        let forged = |question: &[u8]| changed(question, |message| message.metadata.id ^= 0x5555);
        let report = against(|question| vec![forged(question), changed(question, |_| ())], LONG).await;
        assert_eq!(report.outcome, Outcome::Passed);
        assert_eq!(report.warning.as_deref(), Some("an answer with another id came, too"));

        let report = against(|question| vec![b"garbage".to_vec(), forged(question)], SHORT).await;
        assert_eq!(report.outcome, failed("timeout after 200ms"));
        assert_eq!(report.warning.as_deref(), Some("an answer with another id came, too"));

        let report = against(|question| vec![forged(question); STRAYS_MAX], LONG).await;
        assert_eq!(report.outcome, failed("64 answers, and none to the question"));
    }

    #[tokio::test]
    async fn an_answer_from_another_address_is_not_heard() {
        let (asked, other) = (UdpSocket::bind(("127.0.0.1", 0)).await.unwrap(), "127.0.0.2:0");
        let other = UdpSocket::bind(other.parse::<SocketAddr>().unwrap()).await.unwrap();
        let task = testing::task(kind(), asked.local_addr().unwrap(), SHORT);
        let serving = async {
            let mut question = [0; 512];
            let (length, who) = asked.recv_from(&mut question).await.unwrap();
            other.send_to(&changed(&question[..length], |_| ()), who).await.unwrap();
            std::future::pending::<()>().await;
        };
        let report = tokio::select! {
            report = run(&task) => report,
            () = serving => unreachable!("the server goes on"),
        };
        assert_eq!((report.outcome, report.warning), (failed("timeout after 200ms"), None));
    }

    #[tokio::test]
    async fn a_cut_answer_is_fetched_over_tcp() {
        let cut = |question: &[u8]| vec![changed(question, |message| message.metadata.truncation = true)];
        let report = against(cut, LONG).await;
        assert_eq!(report.outcome, Outcome::Passed);
        assert_eq!(report.answer.as_deref(), Some("192.0.2.1 among 1 records, over tcp"));
        let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [Step::Send, Step::Reply, Step::Connect, Step::Send, Step::Reply]);
    }

    #[tokio::test]
    async fn what_comes_over_tcp_is_no_more_trusted() {
        let cut = |question: &[u8]| changed(question, |message| message.metadata.truncation = true);
        let cases: [(Stream, &str); 5] = [
            (&|_| Vec::new(), "connection closed without an answer"),
            (&|question| framed(question)[..20].to_vec(), "connection closed without an answer"),
            (&|_| framed(b"garbage"), "bytes that are no DNS message, over tcp"),
            (&|question| framed(question), "an answer with another id, over tcp"),
            (&|question| framed(&cut(question)), "an answer that is cut over tcp, too"),
        ];
        for (bytes, reason) in cases {
            assert_eq!(
                against_both(|question| vec![cut(question)], bytes, LONG).await.outcome,
                failed(reason)
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let gone = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let report = run(&testing::task(kind(), gone, LONG)).await;
        assert_eq!(report.outcome, failed("port unreachable"));
        let silent = against(|_| Vec::new(), SHORT).await;
        assert_eq!(silent.outcome, failed("timeout after 200ms"));
    }

    /// What a server sends in answer to a question.
    type Stream<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(10);
}
