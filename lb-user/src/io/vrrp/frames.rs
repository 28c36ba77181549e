//! A packet socket: sends frames of ARP or neighbour discovery, and hears who claims our addresses.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::{filter, socket::Rest};
use crate::pure::{
    config::network::Family,
    vrrp::frame::{Claim, claim},
};

/// Of one interface and one family.
pub struct Frames {
    interface: u32,
    family: Family,
    socket: Socket,
    addresses: BTreeSet<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the packet socket of interface {interface}: {step}: {error}")]
pub struct OpenError {
    interface: u32,
    step: &'static str,
    error: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("cannot send a frame on interface {interface}: {error}")]
    Send { interface: u32, error: io::Error },
    #[error("cannot receive frames on interface {interface}: {error}")]
    Receive { interface: u32, error: io::Error },
    #[error("cannot set the filter of the packet socket of interface {interface}: {error}")]
    Filter { interface: u32, error: io::Error },
}

impl Frames {
    /// Hears nothing yet.
    pub fn open(interface: u32, family: Family) -> Result<Frames, OpenError> {
        let step = |step| move |error| OpenError { interface, step, error };
        // Without a protocol it hears nothing until it is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))
            .map_err(step("open it, which needs CAP_NET_RAW"))?;
        socket.attach_filter(&filter::nothing()).map_err(step("set its filter"))?;
        socket.bind(&address(interface, family)).map_err(step("bind it to its interface"))?;
        Ok(Frames { interface, family, socket, addresses: BTreeSet::new() })
    }

    /// Claims of these addresses are heard from now on, of those that are of the family.
    pub fn hear(&mut self, addresses: BTreeSet<IpAddr>) -> Result<(), FrameError> {
        if self.addresses == addresses {
            return Ok(());
        }
        let interface = self.interface;
        self.socket
            .attach_filter(&filter::claims(self.family, &addresses))
            .map_err(|error| FrameError::Filter { interface, error })?;
        self.addresses = addresses;
        Ok(())
    }

    /// A frame with its Ethernet header.
    pub fn send(&self, frame: &[u8]) -> Result<(), FrameError> {
        let interface = self.interface;
        self.socket.send(frame).map(drop).map_err(|error| FrameError::Send { interface, error })
    }

    /// Hands over what waits, at most `TURN` frames. A claim may be of this node: its MAC tells.
    pub fn receive(&mut self, mut take: impl FnMut(Claim)) -> Result<Rest, FrameError> {
        let mut buffer = [0; FRAME_MAX];
        for _ in 0..TURN {
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    let heard = claim(&buffer[..length]);
                    heard
                        .filter(|claim| self.addresses.contains(&claim.address))
                        .into_iter()
                        .for_each(&mut take);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::Nothing),
                Err(error) => return Err(FrameError::Receive { interface: self.interface, error }),
            }
        }
        Ok(Rest::Maybe)
    }
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Of a family's frames on an interface.
#[expect(unsafe_code, reason = "the standard library has no address of packet sockets")]
fn address(interface: u32, family: Family) -> SockAddr {
    let protocol = match family {
        Family::V4 => libc::ETH_P_ARP,
        Family::V6 => libc::ETH_P_IPV6,
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the addresses that a storage has room for, and any bytes are one.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (protocol as u16).to_be();
    link.sll_ifindex = interface.cast_signed();
    // SAFETY: the storage begins with a whole sockaddr_ll, and says so in its family.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Frames that one turn takes.
const TURN: usize = 64;
/// Neighbour discovery with its options; ARP is shorter.
const FRAME_MAX: usize = 1_514;

#[cfg(test)]
mod tests;
