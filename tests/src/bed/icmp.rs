//! One ICMP echo: what `ping` would say.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    process,
    time::{Duration, Instant},
};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Ipv4Slice};
use socket2::{Domain, Protocol, Socket, Type};

/// Round trip time of one echo from the caller's namespace.
pub(super) fn echo(target: Ipv4Addr, limit: Duration) -> io::Result<Duration> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let header = IcmpEchoHeader { id: process::id() as u16, seq: 1 };
    let payload = b"steelyard bed";
    let mut packet =
        Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), payload).to_bytes().to_vec();
    packet.extend_from_slice(payload);
    let start = Instant::now();
    socket.connect(&SocketAddrV4::new(target, 0).into())?;
    socket.send(&packet)?;
    let mut buffer = [0; 1_500];
    loop {
        let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let size = socket.read(&mut buffer)?;
        if is_reply(&buffer[..size], header) {
            return Ok(start.elapsed());
        }
    }
}

fn is_reply(packet: &[u8], sent: IcmpEchoHeader) -> bool {
    Ipv4Slice::from_slice(packet)
        .ok()
        .and_then(|ip| Some(Icmpv4Slice::from_slice(ip.payload().payload).ok()?.icmp_type()))
        == Some(Icmpv4Type::EchoReply(sent))
}
