//! The TCP check, and the connection under every check of a stream.
//!
//! A connection ends by a reset instead of a close, because a check every second would leave a TIME_WAIT socket
//! every second.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use proxy_header::{ProxiedAddress, ProxyHeader};
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::{Failure, Trace, through};
use crate::pure::{config::model::check, report::Step, state::CheckTask};

/// Passes once the connection stands.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask) -> Result<(), Failure> {
    connect(trace, task).await.map(drop)
}

/// Connects from an ephemeral port, and sends the PROXY header if there is to be one. Dropping the stream resets
/// the connection.
pub(super) async fn connect(trace: &mut Trace, task: &CheckTask) -> Result<TcpStream, Failure> {
    trace.step(Step::Connect);
    let address = task.target;
    let socket = socket(address).map_err(|error| Failure::Local(local_fault(&error)))?;
    if let Some(source) = through::source(task) {
        bind(&socket, source, address)?;
    }
    through::steer(&SockRef::from(&socket), task).map_err(|error| Failure::Local(local_fault(&error)))?;
    let mut stream = socket.connect(address).await.map_err(|error| refusal(&error))?;
    if is_own_echo(&stream, address) {
        return Err(Failure::Server("connection refused".to_owned()));
    }
    if let Some(version) = task.check.proxy_header {
        let header = proxy_header(&stream, version).map_err(|error| refusal(&error))?;
        stream.write_all(&header).await.map_err(|error| refusal(&error))?;
    }
    Ok(stream)
}

fn socket(towards: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if towards.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_zero_linger()?;
    // What a check says in parts must not wait for the server's delayed acknowledgement.
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn bind(socket: &TcpSocket, source: IpAddr, towards: SocketAddr) -> Result<(), Failure> {
    if source.is_ipv4() != towards.is_ipv4() {
        return Err(Failure::Local(format!(
            "its source {source} is of another family than {}: give the check a source of that family",
            towards.ip()
        )));
    }
    // The port is chosen with the connection: one port then serves many servers.
    let bound = setsockopt(socket, IpBindAddressNoPort, &true)
        .map_err(io::Error::from)
        .and_then(|()| socket.bind(SocketAddr::new(source, 0)));
    bound.map_err(|error| {
        Failure::Local(match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => {
                format!("its source {source} is no address of this machine: add it, or change `source`")
            }
            _ => local_fault(&error),
        })
    })
}

/// As HAProxy's `check-send-proxy`: the connection is the balancer's own, and the header says so. Version 1 has
/// no word for that which every server takes, and names the connection's ends.
fn proxy_header(stream: &TcpStream, version: check::ProxyHeader) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let written = match version {
        check::ProxyHeader::V1 => {
            let ends = ProxiedAddress::stream(stream.local_addr()?, stream.peer_addr()?);
            ProxyHeader::with_address(ends).encode_v1(&mut bytes)
        }
        check::ProxyHeader::V2 => ProxyHeader::with_local().encode_v2(&mut bytes),
    };
    written.map_err(io::Error::other)?;
    Ok(bytes)
}

/// TCP's simultaneous open lets a socket connect to itself when the kernel picks the checked port as the
/// local one, which only happens where nobody listens.
fn is_own_echo(stream: &TcpStream, address: SocketAddr) -> bool {
    // Not the whole addresses: IPv6 ones carry a scope, which only one of the two may name.
    stream.local_addr().is_ok_and(|local| (local.ip(), local.port()) == (address.ip(), address.port()))
}

/// What a connection's error says, and of whom.
pub(super) fn refusal(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure::Server("connection refused".to_owned()),
        Some(libc::ECONNRESET | libc::EPIPE) => Failure::Server("connection reset".to_owned()),
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

pub(super) fn local_fault(error: &io::Error) -> String {
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
        net::{Ipv4Addr, Ipv6Addr},
        sync::Arc,
        time::Duration,
    };

    use tokio::io::AsyncReadExt;

    use super::{
        super::{run, testing},
        *,
    };
    use crate::io::testbed::{FAR_PORT, V4, V6, in_either_family, in_namespaces, set_sysctl};
    use crate::pure::{
        config::model::check::{Check, CheckKind, ProxyHeader},
        report::{Outcome, Report},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

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
            for address in LOOPBACKS {
                let result = check(SocketAddr::new(address, 40_000), SECOND).await;
                assert_eq!(result.outcome, Outcome::Failed("connection refused".to_owned()));
            }
        });
    }

    /// What a server sees: its peer, itself, and what is said first.
    async fn seen(address: IpAddr, change: impl FnOnce(&mut Check)) -> (SocketAddr, SocketAddr, Vec<u8>) {
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let mut task = testing::task(CheckKind::Tcp(Vec::new()), target, SECOND);
        change(Arc::make_mut(&mut task.check));
        let stream = connect(&mut Trace::default(), &task).await.unwrap();
        let (mut server, peer) = listener.accept().await.unwrap();
        let mut said = vec![0; 128];
        let length =
            if task.check.proxy_header.is_some() { server.read(&mut said).await.unwrap() } else { 0 };
        said.truncate(length);
        drop(stream);
        (peer, target, said)
    }

    #[test]
    fn a_check_comes_from_its_source() {
        in_namespaces(async |_| {
            let other = Ipv4Addr::new(127, 0, 0, 9);
            for (address, source) in
                [(LOOPBACKS[0], LOOPBACKS[0]), (LOOPBACKS[0], other.into()), (LOOPBACKS[1], LOOPBACKS[1])]
            {
                let (peer, _, _) = seen(address, |check| check.source = Some(source)).await;
                assert_eq!(peer.ip(), source);
            }
        });
    }

    #[test]
    fn one_source_port_serves_many_servers() {
        in_namespaces(async |_| {
            set_sysctl("net/ipv4/ip_local_port_range", "40000 40000");
            let here = LOOPBACKS[0];
            let listeners = [1, 2, 3].map(|port| std::net::TcpListener::bind((here, port)).unwrap());
            let mut held = Vec::new();
            for listener in &listeners {
                let target = listener.local_addr().unwrap();
                let mut task = testing::task(CheckKind::Tcp(Vec::new()), target, SECOND);
                Arc::make_mut(&mut task.check).source = Some(here);
                held.push(connect(&mut Trace::default(), &task).await.unwrap());
            }
        });
    }

    #[test]
    fn a_source_that_cannot_be_used_is_this_machines_fault() {
        in_either_family(async |_, who| {
            let other = if who.near.is_ipv4() { V6 } else { V4 };
            for (source, reason) in [
                (who.nobody, "is no address of this machine: add it, or change `source`"),
                (other.near, "give the check a source of that family"),
            ] {
                let target = SocketAddr::new(who.far, FAR_PORT);
                let mut task = testing::task(CheckKind::Tcp(Vec::new()), target, SECOND);
                Arc::make_mut(&mut task.check).source = Some(source);
                match run(&task).await.outcome {
                    Outcome::NotRun(told) => assert!(told.ends_with(reason), "{told}"),
                    other => panic!("{other:?}"),
                }
            }
        });
    }

    #[test]
    fn a_proxy_header_says_whose_connection_it_is() {
        in_namespaces(async |_| {
            for (address, family) in LOOPBACKS.into_iter().zip(["TCP4", "TCP6"]) {
                let (peer, target, said) =
                    seen(address, |check| check.proxy_header = Some(ProxyHeader::V1)).await;
                let ports = format!("{} {}", peer.port(), target.port());
                assert_eq!(said, format!("PROXY {family} {address} {address} {ports}\r\n").as_bytes());

                let (_, _, said) = seen(address, |check| check.proxy_header = Some(ProxyHeader::V2)).await;
                assert_eq!(said, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
            }
        });
    }
}
