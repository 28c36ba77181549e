//! Sockets of checks without a connection: they know one server, and hear from nobody else.

use std::{io, net::SocketAddr};

use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4RecvErr, Ipv6RecvErr},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::{Failure, tcp, through};
use crate::pure::state::CheckTask;

pub(super) fn udp(task: &CheckTask) -> Result<UdpSocket, Failure> {
    let made = Socket::new(Domain::for_address(task.target), Type::DGRAM.nonblocking(), Some(Protocol::UDP));
    let socket = made.map_err(|error| Failure::Local(tcp::local_fault(&error)))?;
    connect(socket, task, task.target.port())
}

/// Any socket of datagrams, whatever its protocol.
pub(super) fn connect(socket: Socket, task: &CheckTask, port: u16) -> Result<UdpSocket, Failure> {
    let local = |error: io::Error| Failure::Local(tcp::local_fault(&error));
    // Without it, the kernel keeps to itself that a host cannot be reached.
    match task.target {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true),
    }
    .map_err(|errno| local(errno.into()))?;
    if let Some(source) = through::source(task) {
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL | libc::EINVAL | libc::EAFNOSUPPORT) => Failure::Local(format!(
                "its source {source} is no address of this machine, or of another family than {}: change `source`",
                task.target.ip()
            )),
            _ => local(error),
        })?;
    }
    let mut target = task.target;
    target.set_port(port);
    through::steer(&SockRef::from(&socket), task).map_err(local)?;
    socket.connect(&target.into()).map_err(|error| fault(&error))?;
    UdpSocket::from_std(socket.into()).map_err(local)
}

/// What an error of such a socket says, and of whom: most are ICMP messages that came back.
pub(super) fn fault(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure::Server("port unreachable".to_owned()),
        Some(libc::ENOPROTOOPT) => Failure::Server("protocol unreachable".to_owned()),
        _ => tcp::refusal(error),
    }
}
