//! The TCP check: a connection that is opened and reset at once.
//!
//! A reset instead of a close, because a check every second would leave a TIME_WAIT socket every second.

use std::{io, net::SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::{Failure, Trace, through};
use crate::pure::{report::Step, state::CheckTask};

/// Connects from an ephemeral port.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask) -> Result<(), Failure> {
    connect(trace, task).await.map(drop)
}

/// Dropping the stream resets the connection.
pub(super) async fn connect(trace: &mut Trace, task: &CheckTask) -> Result<TcpStream, Failure> {
    trace.step(Step::Connect);
    let address = task.target;
    let socket = socket(address).map_err(|error| Failure::Local(local_fault(&error)))?;
    through::steer(&SockRef::from(&socket), task).map_err(|error| Failure::Local(local_fault(&error)))?;
    let stream = socket.connect(address).await.map_err(|error| refusal(&error))?;
    if is_own_echo(&stream, address) {
        return Err(Failure::Server("connection refused".to_owned()));
    }
    Ok(stream)
}

fn socket(towards: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if towards.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_zero_linger()?;
    Ok(socket)
}

/// TCP's simultaneous open lets a socket connect to itself when the kernel picks the checked port as the
/// local one, which only happens where nobody listens.
fn is_own_echo(stream: &TcpStream, address: SocketAddr) -> bool {
    // Not the whole addresses: IPv6 ones carry a scope, which only one of the two may name.
    stream.local_addr().is_ok_and(|local| (local.ip(), local.port()) == (address.ip(), address.port()))
}

fn refusal(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure::Server("connection refused".to_owned()),
        Some(libc::ECONNRESET) => Failure::Server("connection reset".to_owned()),
        Some(libc::ETIMEDOUT) => Failure::Server("timeout of the kernel's connection attempts".to_owned()),
        Some(libc::EHOSTUNREACH) => {
            Failure::Server("no route to host, or its next hop does not answer".to_owned())
        }
        Some(libc::ENETUNREACH) => Failure::Server("no route to its network".to_owned()),
        Some(
            libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::EAGAIN
            | libc::EPERM
            | libc::EACCES
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::ENETDOWN,
        ) => Failure::Local(local_fault(error)),
        _ => Failure::Server(error.to_string()),
    }
}

fn local_fault(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "too many open files in the daemon: raise LimitNOFILE".to_owned(),
        Some(libc::ENFILE) => "too many open files on this machine: raise fs.file-max".to_owned(),
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN) => {
            "no free local port: widen net.ipv4.ip_local_port_range".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "this machine forbids the connection: look at its firewall and its prohibit routes".to_owned()
        }
        Some(libc::EAFNOSUPPORT) => "this kernel runs without the address's family".to_owned(),
        Some(libc::ENETDOWN) => "the interface towards the server is down".to_owned(),
        Some(libc::ENOBUFS | libc::ENOMEM) => "this machine is out of memory for sockets".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
        time::Duration,
    };

    use super::{
        super::{run, testing},
        *,
    };
    use crate::io::testbed::{FAR_PORT, in_either_family, in_namespaces, set_sysctl};
    use crate::pure::{
        config::model::check::CheckKind,
        report::{Outcome, Report},
    };

    const SECOND: Duration = Duration::from_secs(1);

    async fn check(target: SocketAddr, timeout: Duration) -> Report {
        run(&testing::task(CheckKind::Tcp(Vec::new()), target, timeout)).await
    }

    #[test]
    fn errors_name_whose_fault_it_is() {
        let cases = [
            (libc::ECONNREFUSED, true),
            (libc::EHOSTUNREACH, true),
            (libc::ENETUNREACH, true),
            (libc::EADDRNOTAVAIL, false),
            (libc::EPERM, false),
            (libc::ENOBUFS, false),
            (libc::ENETDOWN, false),
        ];
        for (code, server) in cases {
            let outcome = refusal(&io::Error::from_raw_os_error(code));
            assert_eq!(matches!(outcome, Failure::Server(_)), server, "{code}: {outcome:?}");
        }
        assert!(local_fault(&io::Error::from_raw_os_error(libc::EMFILE)).contains("LimitNOFILE"));
    }

    #[test]
    fn a_listening_server_passes_and_leaves_no_socket_behind() {
        in_either_family(async |_, who| {
            let address = SocketAddr::new(who.far, FAR_PORT);
            let result = check(address, 5 * SECOND).await;
            assert_eq!(result.outcome, Outcome::Passed);
            assert!(result.elapsed() < 5 * SECOND);
            for table in ["tcp", "tcp6"] {
                let sockets = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
                assert_eq!(sockets.lines().count(), 1, "only the heading: {sockets}");
            }
        });
    }

    #[test]
    fn failures_say_what_happened() {
        in_either_family(async |_, who| {
            let cases = [
                (who.far, 1, 5 * SECOND, "connection refused"),
                (who.nobody, 80, SECOND / 5, "timeout after 200ms"),
                (who.nobody, 80, 20 * SECOND, "no route to host, or its next hop does not answer"),
                (who.behind, 80, SECOND, "no route to its network"),
            ];
            for (address, port, timeout, reason) in cases {
                let result = check(SocketAddr::new(address, port), timeout).await;
                assert_eq!(result.outcome, Outcome::Failed(reason.to_owned()));
                assert!(result.elapsed() < timeout + SECOND);
            }
        });
    }

    #[test]
    fn a_listener_on_the_loopback_address_passes() {
        in_namespaces(async |_| {
            let listener = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
            let result = check(listener.local_addr().unwrap(), SECOND).await;
            assert_eq!(result.outcome, Outcome::Passed);
        });
    }

    #[test]
    fn a_connection_to_oneself_is_no_server() {
        in_namespaces(async |_| {
            set_sysctl("net/ipv4/ip_local_port_range", "40000 40000");
            for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                let result = check(SocketAddr::new(address, 40_000), SECOND).await;
                assert_eq!(result.outcome, Outcome::Failed("connection refused".to_owned()));
            }
        });
    }
}
