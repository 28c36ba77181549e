//! One ICMP echo: what `ping` would say.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    process,
    time::{Duration, Instant},
};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, Ipv4Slice};
use socket2::{Domain, Protocol, Socket, Type};

use super::Family;

/// Round trip time of one echo from the caller's namespace.
pub(super) fn echo(target: IpAddr, limit: Duration) -> io::Result<Duration> {
    let address = SocketAddr::new(target, 0);
    let family = Family::of(target);
    let protocol = match family {
        Family::V4 => Protocol::ICMPV4,
        Family::V6 => Protocol::ICMPV6,
    };
    let mut socket = Socket::new(Domain::for_address(address), Type::RAW, Some(protocol))?;
    let sent = IcmpEchoHeader { id: process::id() as u16, seq: 1 };
    let start = Instant::now();
    socket.connect(&address.into())?;
    socket.send(&request(family, sent))?;
    let mut buffer = [0; 1_500];
    loop {
        let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let size = socket.read(&mut buffer)?;
        if is_reply(family, &buffer[..size], sent) {
            return Ok(start.elapsed());
        }
    }
}

/// Over IPv6 the kernel adds the checksum, since it alone knows the source.
fn request(family: Family, header: IcmpEchoHeader) -> Vec<u8> {
    let mut packet = match family {
        Family::V4 => {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), PAYLOAD).to_bytes().to_vec()
        }
        Family::V6 => etherparse::Icmpv6Header::new(Icmpv6Type::EchoRequest(header)).to_bytes().to_vec(),
    };
    packet.extend_from_slice(PAYLOAD);
    packet
}

/// A raw socket shows the IPv4 header, and of IPv6 only what follows it.
fn is_reply(family: Family, packet: &[u8], sent: IcmpEchoHeader) -> bool {
    match family {
        Family::V4 => Ipv4Slice::from_slice(packet)
            .ok()
            .and_then(|ip| Some(Icmpv4Slice::from_slice(ip.payload().payload).ok()?.icmp_type()))
            .is_some_and(|kind| kind == Icmpv4Type::EchoReply(sent)),
        Family::V6 => {
            Icmpv6Slice::from_slice(packet).is_ok_and(|icmp| icmp.icmp_type() == Icmpv6Type::EchoReply(sent))
        }
    }
}

const PAYLOAD: &[u8] = b"steelyard bed";
