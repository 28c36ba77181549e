//! Datagrams whose content is compared: series of echoes, long datagrams, and what the network says about one.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use super::{
    Family, Host,
    layout::UDP_HEADER,
    peer::{ECHO, SUM, summary},
    sockopt,
    stream::Stream,
};

/// Echoes of `SOCKETS` client ports, `PER_SOCKET` each, in packets of mixed sizes up to `packet_max` bytes: each
/// must come back once and whole.
pub fn echo_series(client: &Host, target: SocketAddr, packet_max: usize) -> Result<()> {
    let longest = payload_of(target, packet_max);
    client.namespace.enter(|| {
        for number in 0..SOCKETS {
            let socket = open(target)?;
            for first in (0..PER_SOCKET).step_by(WINDOW) {
                let window = first..PER_SOCKET.min(first + WINDOW);
                echo_window(&socket, window, longest)
                    .with_context(|| format!("socket {number}, datagrams from {first} on"))?;
            }
        }
        Ok(())
    })?
}

/// Datagrams in flight together: fewer than a veth's queue holds.
fn echo_window(socket: &UdpSocket, window: std::ops::Range<usize>, longest: usize) -> Result<()> {
    let sent: Vec<_> = window.map(|number| datagram(ECHO, number as u64, size(number, longest))).collect();
    sent.iter().try_for_each(|datagram| socket.send(datagram).map(drop)).context("sending")?;
    let mut left: Vec<_> = sent.iter().collect();
    let mut buffer = vec![0; BUFFER];
    while !left.is_empty() {
        let size = socket.recv(&mut buffer).with_context(|| format!("waiting for {} echoes", left.len()))?;
        let found = left.iter().position(|datagram| datagram[..] == buffer[..size]);
        left.swap_remove(found.with_context(|| format!("an echo of {size} bytes is of no datagram"))?);
    }
    Ok(())
}

/// Every length between the shortest and the longest comes up, in no order that an algorithm could like.
fn size(number: usize, longest: usize) -> usize {
    longest - number * 947 % (longest - SHORTEST + 1)
}

/// One datagram with `length` bytes of content, in fragments if need be, and which server says it got that.
pub fn sum(socket: &UdpSocket, length: usize) -> Result<String> {
    let question = datagram(SUM, 0, length);
    socket.send(&question)?;
    let mut buffer = vec![0; BUFFER];
    let size = socket.recv(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..size]).into_owned();
    let server = answer.split(' ').next().unwrap_or_default().to_owned();
    ensure!(answer == summary(&server, &question), "the server says `{answer}`");
    Ok(server)
}

/// One datagram with `length` bytes of content and its echo, both in fragments if need be.
pub fn echo(socket: &UdpSocket, length: usize) -> Result<()> {
    let question = datagram(ECHO, 1, length);
    socket.send(&question)?;
    let mut buffer = vec![0; BUFFER];
    let size = socket.recv(&mut buffer)?;
    ensure!(buffer[..size] == question, "the echo of {length} bytes came back as {size} bytes");
    Ok(())
}

/// A socket in the client's namespace, connected to `target`.
pub fn connected(client: &Host, target: SocketAddr) -> Result<UdpSocket> {
    Ok(client.namespace.enter(|| open(target))??)
}

/// The error that one datagram meets on its way with this hop limit; none if an answer comes instead.
pub fn error_met(client: &Host, target: SocketAddr, hops: u8) -> Result<Option<io::Error>> {
    client.namespace.enter(|| {
        let socket = open(target)?;
        sockopt::report_errors(&socket, target.ip())?;
        match Family::of(target.ip()) {
            Family::V4 => SockRef::from(&socket).set_ttl_v4(hops.into())?,
            Family::V6 => SockRef::from(&socket).set_unicast_hops_v6(hops.into())?,
        }
        socket.send(b"who\n")?;
        Ok(socket.recv(&mut [0; 64]).err())
    })?
}

/// What the kernel of `host` has learnt about its path to `target`.
pub fn path_mtu(host: &Host, target: SocketAddr) -> Result<u32> {
    host.namespace.enter(|| Ok(sockopt::path_mtu(&open(target)?, target.ip())?))?
}

/// Content that fills a packet of this size.
pub fn payload_of(target: SocketAddr, packet: usize) -> usize {
    packet - Family::of(target.ip()).header() - UDP_HEADER
}

fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(Family::of(target.ip()).unspecified(), 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// A request, a number of its own, and the stream.
fn datagram(request: &[u8], number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Stream::default().fill(&mut bytes);
    bytes[..request.len()].copy_from_slice(request);
    bytes[request.len()..][..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Of one series.
pub const COUNT: usize = SOCKETS * PER_SOCKET;

const SOCKETS: usize = 8;
const PER_SOCKET: usize = 500;
const WINDOW: usize = 32;
/// Room for the request and the number.
const SHORTEST: usize = 12;
const BUFFER: usize = 65_535;
const LIMIT: Duration = Duration::from_secs(3);

const _: () = assert!(SHORTEST >= ECHO.len() + 8 && SHORTEST >= SUM.len() + 8);
