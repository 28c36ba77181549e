//! The heartbeat port: UDP with the nodes of the cluster, in the families that they have.
//!
//! Must not know what datagrams mean. The kernel drops those of everybody but the peers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Does not block.
pub struct PulseSocket {
    port: u16,
    sockets: Vec<(Domain, UdpSocket)>,
    buffer: Box<[u8; DATAGRAM_MAX]>,
}

#[derive(Debug, thiserror::Error)]
pub enum PulseError {
    #[error("cannot open the heartbeat port {port}: {error}; is another daemon running?")]
    Open { port: u16, error: io::Error },
    #[error("cannot read from the heartbeat port: {0}")]
    Receive(io::Error),
    #[error("cannot send a heartbeat to {peer}: {error}")]
    Send { peer: IpAddr, error: io::Error },
}

impl PulseSocket {
    /// Without peers it opens nothing.
    pub fn open(port: u16, peers: &[IpAddr]) -> Result<PulseSocket, PulseError> {
        let mut sockets = Vec::new();
        for (domain, any) in [
            (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ] {
            let of_domain: Vec<_> = peers.iter().filter(|peer| peer.is_ipv4() == any.is_ipv4()).collect();
            if !of_domain.is_empty() {
                let socket = bound(domain, SocketAddr::new(any, port), &filter(&of_domain))
                    .map_err(|error| PulseError::Open { port, error })?;
                sockets.push((domain, socket));
            }
        }
        Ok(PulseSocket { port, sockets, buffer: Box::new([0; DATAGRAM_MAX]) })
    }

    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|(_, socket)| socket.as_fd())
    }

    /// The next datagram that waits, and whose it is.
    pub fn receive(&mut self) -> Result<Option<(IpAddr, &[u8])>, PulseError> {
        for (_, socket) in &self.sockets {
            match socket.recv_from(&mut self.buffer[..]) {
                Ok((length, source)) => return Ok(Some((source.ip(), &self.buffer[..length]))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(PulseError::Receive(error)),
            }
        }
        Ok(None)
    }

    /// A full queue is an error, too: what comes next is worth more than what waited.
    pub fn send(&self, peer: IpAddr, bytes: &[u8]) -> Result<(), PulseError> {
        let domain = Domain::for_address(SocketAddr::new(peer, self.port));
        let socket = self.sockets.iter().find(|(other, _)| *other == domain);
        let sent = match socket {
            Some((_, socket)) => socket.send_to(bytes, (peer, self.port)).map(drop),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        sent.map_err(|error| PulseError::Send { peer, error })
    }
}

fn bound(domain: Domain, address: SocketAddr, filter: &[SockFilter]) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
    } else {
        socket.set_tos_v4(NETWORK_CONTROL)?;
    }
    socket.set_nonblocking(true)?;
    // Before it is bound: nothing of anybody else ever waits in it.
    socket.attach_filter(filter)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A program that returns how much of a packet is kept: all of it, if one of these sent it.
fn filter(peers: &[&IpAddr]) -> Vec<SockFilter> {
    let load = |offset: u32| SockFilter::new(LOAD, 0, 0, NETWORK_HEADER.wrapping_add(offset));
    let keep = |length: u32| SockFilter::new(RETURN, 0, 0, length);
    let mut program = Vec::new();
    for peer in peers {
        let (at, words) = match peer {
            IpAddr::V4(peer) => (SOURCE_V4, vec![peer.to_bits()]),
            IpAddr::V6(peer) => {
                let bits = peer.to_bits();
                (SOURCE_V6, [96, 64, 32, 0].map(|shift| (bits >> shift) as u32).to_vec())
            }
        };
        let count = words.len();
        for (i, word) in words.into_iter().enumerate() {
            // Whoever is another one goes past the words that follow and the return behind them.
            let past = 2 * (count - 1 - i) + 1;
            program.push(load(at + 4 * i as u32));
            program.push(SockFilter::new(JUMP_IF_EQUAL, 0, past as u8, word));
        }
        program.push(keep(u32::MAX));
    }
    program.push(keep(0));
    program
}

/// CS6 (RFC 2474): where switches have queues, as adverts.
const NETWORK_CONTROL: u32 = 0xc0;
/// Of the source address in the header (RFC 791, RFC 8200).
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;
/// No datagram of ours is longer.
const DATAGRAM_MAX: usize = 2_048;
// Values are constants of <linux/filter.h>.
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Offsets from here on are those in the network header; a UDP socket's filter begins at the UDP header.
const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// Reads until something comes.
    fn next(socket: &mut PulseSocket) -> Option<(IpAddr, Vec<u8>)> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some((source, bytes)) = socket.receive().expect("no error on loopback") {
                return Some((source, bytes.to_vec()));
            }
            let mut fds: Vec<_> = socket.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::from(100_u8)).expect("poll");
        }
        None
    }

    #[test]
    fn peers_alone_are_heard_in_both_families() {
        let v4 = |last| IpAddr::from([127, 0, 0, last]);
        let peers = [v4(9), v4(1), "::9".parse().expect("an address"), Ipv6Addr::LOCALHOST.into()];
        let stranger = UdpSocket::bind((v4(2), 0)).expect("loopback");
        let mut socket = PulseSocket::open(free_port(), &peers).expect("a free port");
        for peer in [peers[1], peers[3]] {
            stranger.send_to(b"stranger", (v4(1), socket.port)).expect("loopback");
            socket.send(peer, b"beat").expect("loopback");
            assert_eq!(next(&mut socket), Some((peer, b"beat".to_vec())));
        }
        assert!(socket.receive().expect("no error on loopback").is_none());
    }

    #[test]
    fn without_peers_nothing_is_open() {
        let mut socket = PulseSocket::open(1, &[]).expect("nothing to open");
        assert_eq!(socket.fds().count(), 0);
        assert!(socket.receive().expect("nothing to read").is_none());
        assert!(socket.send(Ipv4Addr::LOCALHOST.into(), b"x").is_err());
    }

    fn free_port() -> u16 {
        let free = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port");
        free.local_addr().expect("it is bound").port()
    }
}
