//! The ICMP check: an echo request to the server's address.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Failure, Trace, datagram, random, tcp};
use crate::pure::{
    echo::{Echo, Family},
    report::Step,
    state::CheckTask,
};

/// Whatever else comes from the server's address is passed over; but not without end.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask) -> Result<(), Failure> {
    trace.step(Step::Send);
    let (socket, kind) = open(task)?;
    let echo = echo(task.target, &socket, kind);
    socket.send(&echo.request()).await.map_err(|error| datagram::fault(&error))?;
    trace.step(Step::Reply);
    let mut packet = [0; PACKET_MAX];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut packet).await.map_err(|error| datagram::fault(&error))?;
        let packet = &packet[..length];
        let icmp = if kind == Kind::Raw && task.target.is_ipv4() { without_header(packet) } else { packet };
        if echo.is_answered_by(icmp) {
            trace.answer = Some("echo reply".to_owned());
            return Ok(());
        }
    }
    Err(Failure::Server(format!("{STRAYS_MAX} icmp messages, and no reply among them")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The kernel owns the id and sorts the replies; `net.ipv4.ping_group_range` says who may have one.
    Ping,
    /// Hears all ICMP of the server's address; needs CAP_NET_RAW.
    Raw,
}

fn open(task: &CheckTask) -> Result<(UdpSocket, Kind), Failure> {
    let domain = Domain::for_address(task.target);
    let protocol = if task.target.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let open = |kind: Type| Socket::new(domain, kind.nonblocking(), Some(protocol));
    let (socket, kind) = match open(Type::DGRAM) {
        Ok(socket) => (socket, Kind::Ping),
        Err(_) => (open(Type::RAW).map_err(|error| Failure::Local(not_allowed(&error)))?, Kind::Raw),
    };
    // The port of a raw IPv6 socket's peer would have to be its protocol or nothing.
    Ok((datagram::connect(socket, task, 0)?, kind))
}

fn not_allowed(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "no icmp socket is allowed: give the daemon CAP_NET_RAW, or widen net.ipv4.ping_group_range"
                .to_owned()
        }
        _ => tcp::local_fault(error),
    }
}

fn echo(target: SocketAddr, socket: &UdpSocket, kind: Kind) -> Echo {
    let [first, second] = [random().to_ne_bytes(), random().to_ne_bytes()];
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&first);
    payload[8..].copy_from_slice(&second);
    let id = match kind {
        // A ping socket's id is its port, which it has from the moment it was connected or bound.
        Kind::Ping => socket.local_addr().map_or(0, |local| local.port()),
        Kind::Raw => u16::from_ne_bytes([first[0], first[1]]),
    };
    let family = if target.is_ipv4() { Family::V4 } else { Family::V6 };
    Echo { family, id, sequence: 1, payload }
}

/// A raw IPv4 socket shows whole packets.
fn without_header(packet: &[u8]) -> &[u8] {
    let words = packet.first().map_or(0, |first| usize::from(first & 0xf));
    packet.get(words * 4..).unwrap_or_default()
}

const PACKET_MAX: usize = 1_500;
const STRAYS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::{
        super::{run, testing},
        *,
    };
    use crate::io::testbed::{give_up_early, in_either_family, set_sysctl};
    use crate::pure::{config::model::check::CheckKind, report::Outcome};

    /// In a namespace of its own nobody may have a ping socket, until told otherwise.
    #[test]
    fn a_server_that_answers_passes_with_either_kind_of_socket() {
        in_either_family(async |_, who| {
            for (range, expected) in [("1 0", Kind::Raw), ("0 0", Kind::Ping)] {
                set_sysctl("net/ipv4/ping_group_range", range);
                for address in [who.far, who.near] {
                    let task = testing::task(CheckKind::Icmp, SocketAddr::new(address, 80), LONG);
                    assert_eq!(open(&task).unwrap().1, expected);
                    let report = run(&task).await;
                    assert_eq!(report.outcome, Outcome::Passed, "{address} {expected:?}");
                    assert_eq!(report.answer.as_deref(), Some("echo reply"));
                    let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
                    assert_eq!(steps, [Step::Send, Step::Reply]);
                }
            }
        });
    }

    #[test]
    fn checks_at_once_do_not_take_each_others_replies() {
        in_either_family(async |_, who| {
            let task = testing::task(CheckKind::Icmp, SocketAddr::new(who.far, 80), LONG);
            let mut checks = JoinSet::new();
            for _ in 0..100 {
                let task = task.clone();
                checks.spawn(async move { run(&task).await });
            }
            let reports = checks.join_all().await;
            assert!(reports.iter().all(|report| report.outcome == Outcome::Passed));
        });
    }

    #[test]
    fn failures_say_what_happened() {
        in_either_family(async |_, who| {
            give_up_early();
            for name in ["net/ipv4/icmp_echo_ignore_all", "net/ipv6/icmp/echo_ignore_all"] {
                set_sysctl(name, "1");
            }
            for range in ["1 0", "0 0"] {
                set_sysctl("net/ipv4/ping_group_range", range);
                for (address, timeout, reason) in [
                    (who.nobody, LONG, "no route to host, or its next hop does not answer"),
                    // Its own address is not usable at once.
                    (who.near, Duration::from_millis(200), "timeout after 200ms"),
                    (who.behind, LONG, "no route to its network"),
                ] {
                    let task = testing::task(CheckKind::Icmp, SocketAddr::new(address, 0), timeout);
                    let report = run(&task).await;
                    assert_eq!(report.outcome, Outcome::Failed(reason.to_owned()), "{address} with {range}");
                }
            }
        });
    }

    #[test]
    fn the_header_is_taken_off_whatever_its_length_says() {
        assert_eq!(without_header(&[0x45; 22]), [0x45; 2]);
        assert!(without_header(&[0x4f; 22]).is_empty());
        assert!(without_header(&[]).is_empty());
    }

    const LONG: Duration = Duration::from_secs(10);
}
