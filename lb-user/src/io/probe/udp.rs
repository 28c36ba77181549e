//! The UDP check: a datagram, and the answer to it or at least no complaint.

use std::time::Duration;

use tokio::time;

use super::{Failure, Trace, datagram};
use crate::pure::{config::model::check::Udp, excerpt::excerpt, report::Step, state::CheckTask};

/// The first answer decides. Where none is expected, silence passes, too, as with Keepalived's `UDP_CHECK`.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask, udp: &Udp) -> Result<(), Failure> {
    trace.step(Step::Send);
    let socket = datagram::udp(task)?;
    socket.send(&udp.send).await.map_err(|error| datagram::fault(&error))?;
    trace.step(Step::Reply);
    let mut answer = [0; ANSWER_MAX];
    let answered = match &udp.expect {
        Some(_) => Some(socket.recv(&mut answer).await),
        None => time::timeout(silence(task.check.timeout), socket.recv(&mut answer)).await.ok(),
    };
    let Some(length) = answered.transpose().map_err(|error| datagram::fault(&error))? else {
        trace.answer = Some("no answer and no error".to_owned());
        return Ok(());
    };
    let answer = &answer[..length];
    match &udp.expect {
        Some(pattern) if !pattern.is_in(answer) => {
            Err(Failure::Server(format!("unexpected answer: {}", excerpt(answer))))
        }
        _ => {
            trace.answer = Some(excerpt(answer));
            Ok(())
        }
    }
}

/// How long nobody need answer: ends before the whole check does.
fn silence(timeout: Duration) -> Duration {
    timeout * 9 / 10
}

/// What is looked at of an answer.
const ANSWER_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, SocketAddr},
        sync::Arc,
    };

    use tokio::net::UdpSocket;

    use super::{
        super::{run, testing},
        *,
    };
    use crate::io::testbed::{give_up_early, in_either_family, in_namespaces};
    use crate::pure::{
        config::model::check::{Check, CheckKind, Pattern},
        report::{Outcome, Report},
    };

    fn kind(expect: Option<&str>) -> CheckKind {
        let expect = expect.map(|expression| Pattern::new(expression).unwrap());
        CheckKind::Udp(Udp { send: b"are you there?".to_vec(), expect })
    }

    /// A server that answers with this, if at all.
    async fn against(answer: Option<&[u8]>, expect: Option<&str>, timeout: Duration) -> Report {
        let server = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let task = testing::task(kind(expect), server.local_addr().unwrap(), timeout);
        let serving = async {
            let mut asked = [0; 64];
            let (length, who) = server.recv_from(&mut asked).await.unwrap();
            assert_eq!(&asked[..length], b"are you there?");
            if let Some(answer) = answer {
                server.send_to(answer, who).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            report = run(&task) => report,
            () = serving => unreachable!("the server goes on"),
        }
    }

    #[tokio::test]
    async fn the_first_answer_decides() {
        let yes = against(Some(b"yes"), Some("^yes$"), LONG).await;
        assert_eq!((yes.outcome, yes.answer.as_deref()), (Outcome::Passed, Some("\"yes\"")));
        let no = against(Some(b"\xffno"), Some("^yes$"), LONG).await;
        assert_eq!(no.outcome, Outcome::Failed("unexpected answer: \"\\xffno\"".to_owned()));
        let empty = against(Some(b""), Some("."), LONG).await;
        assert_eq!(empty.outcome, Outcome::Failed("unexpected answer: \"\"".to_owned()));
        let any = against(Some(b"whatever"), None, LONG).await;
        assert_eq!(any.outcome, Outcome::Passed);
        assert!(any.elapsed() < LONG / 2, "at once");
    }

    #[tokio::test]
    async fn silence_passes_only_where_nothing_is_expected() {
        let silent = against(None, None, SHORT).await;
        assert_eq!(
            (silent.outcome, silent.answer.as_deref()),
            (Outcome::Passed, Some("no answer and no error"))
        );
        let silent = against(None, Some("."), SHORT).await;
        assert_eq!(silent.outcome, Outcome::Failed("timeout after 200ms".to_owned()));
    }

    #[test]
    fn a_closed_port_and_a_missing_host_are_noticed() {
        in_either_family(async |_, who| {
            give_up_early();
            for (address, reason) in [
                (who.far, "port unreachable"),
                (who.nobody, "no route to host, or its next hop does not answer"),
                (who.behind, "no route to its network"),
            ] {
                for expect in [None, Some(".")] {
                    let task = testing::task(kind(expect), SocketAddr::new(address, 9), LONG);
                    assert_eq!(run(&task).await.outcome, Outcome::Failed(reason.to_owned()), "{address}");
                }
            }
        });
    }

    #[test]
    fn the_source_is_as_configured() {
        in_namespaces(async |bed| {
            let second: IpAddr = "10.77.0.50".parse().unwrap();
            bed.add_near_address(second, 24).await;
            let server = UdpSocket::bind(("10.77.0.1", 0)).await.unwrap();
            let mut task = testing::task(kind(Some("^yes$")), server.local_addr().unwrap(), LONG);
            let check = Check { source: Some(second), ..Check::clone(&task.check) };
            task.check = Arc::new(check);
            let serving = async {
                let (_, who) = server.recv_from(&mut [0; 64]).await.unwrap();
                assert_eq!(who.ip(), second);
                server.send_to(b"yes", who).await.unwrap();
                std::future::pending::<()>().await;
            };
            let report = tokio::select! {
                report = run(&task) => report,
                () = serving => unreachable!("the server goes on"),
            };
            assert_eq!(report.outcome, Outcome::Passed);

            for source in ["10.77.0.51", "fd77::1"] {
                let source = Some(source.parse().unwrap());
                task.check = Arc::new(Check { source, ..Check::clone(&task.check) });
                let Outcome::NotRun(reason) = run(&task).await.outcome else { panic!("run") };
                assert!(reason.contains("change `source`"), "{reason}");
            }
        });
    }

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(10);
}
