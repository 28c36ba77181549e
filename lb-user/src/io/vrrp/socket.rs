//! Raw sockets of adverts, shared by all routers that speak from one place.
//!
//! ```text
//! (interface, group)  hears multicast                 ─┐
//! (interface, source) sends, and hears what is unicast ─┴─ Gate ─► take(Seen, message)
//! ```
//!
//! Both kinds are open for a router whatever it is configured to, so that one whose peer does the other hears of it.
//! Must not know what an advert means. Nothing here blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fmt, io,
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    net::if_::if_indextoname,
    sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt,
        sockopt::{Ipv6RecvHopLimit, Ipv6RecvPacketInfo, RcvBufForce, RxqOvfl},
    },
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::filter;
use crate::pure::{
    config::network::Family,
    vrrp::{
        advert::Seen,
        codec::PROTOCOL,
        flood::Gate,
        node::{RouterId, Sockets},
    },
};

/// All sockets of adverts.
#[derive(Default)]
pub struct Adverts {
    routers: BTreeMap<RouterId, Sockets>,
    open: BTreeMap<Place, Shared>,
    last_id: u32,
    buffer: Buffer,
    /// Of sockets that are closed.
    flooded: u64,
}

/// A socket as its poller names it; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// What is left after some was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// As much as one turn takes was received: there may be more.
    Maybe,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the socket of adverts {place}: {step}: {error}")]
pub struct OpenError {
    place: Place,
    step: &'static str,
    error: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("no socket of adverts is open for this router")]
    Closed,
    #[error("cannot send an advert to {destination}: {error}")]
    Send { destination: IpAddr, error: io::Error },
}

#[derive(Debug, thiserror::Error)]
#[error("cannot receive adverts {place}: {error}")]
pub struct ReceiveError {
    place: Place,
    error: io::Error,
}

impl Adverts {
    pub fn new() -> Adverts {
        Adverts::default()
    }

    /// Opens what a router needs, and closes what only it needed before. After an error it has none.
    pub fn open(&mut self, router: RouterId, sockets: Sockets) -> Result<(), OpenError> {
        self.routers.insert(router, sockets.clone());
        let [group, source] = Place::of(&sockets);
        let listened = match self.ensure(group) {
            // An interface without multicast has unicast routers all the same.
            Err(_) if sockets.group.is_none() => Ok(()),
            opened => opened,
        };
        if let Err(error) = listened.and_then(|()| self.ensure(source)) {
            self.close(router);
            return Err(error);
        }
        self.tidy();
        Ok(())
    }

    pub fn close(&mut self, router: RouterId) {
        self.routers.remove(&router);
        self.tidy();
    }

    /// A message without its IP header.
    pub fn send(&self, router: RouterId, destination: IpAddr, bytes: &[u8]) -> Result<(), SendError> {
        let sockets = self.routers.get(&router).ok_or(SendError::Closed)?;
        let place = Place { interface: sockets.interface, at: sockets.source };
        let shared = self.open.get(&place).ok_or(SendError::Closed)?;
        let to = place.socket_address(destination).into();
        shared.socket.send_to(bytes, &to).map(drop).map_err(|error| SendError::Send { destination, error })
    }

    /// What to poll for input. It changes with `open` and `close` only.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketId, BorrowedFd<'_>)> {
        self.open.values().map(|shared| (shared.id, shared.socket.as_fd()))
    }

    /// Hands over what waits on a socket, at most `TURN` messages.
    pub fn receive(
        &mut self,
        id: SocketId,
        now: Instant,
        mut take: impl FnMut(&Seen, &[u8]),
    ) -> Result<Rest, ReceiveError> {
        let Some((place, shared)) = self.open.iter_mut().find(|(_, shared)| shared.id == id) else {
            return Ok(Rest::Nothing);
        };
        for _ in 0..TURN {
            match shared.receive(*place, now, &mut self.buffer, &mut take) {
                Ok(()) => {}
                Err(Errno::EAGAIN) => return Ok(Rest::Nothing),
                Err(errno) => return Err(ReceiveError { place: *place, error: errno.into() }),
            }
        }
        Ok(Rest::Maybe)
    }

    /// How many messages were not looked at since the start, since more came at once than that.
    pub fn flooded(&self) -> u64 {
        self.flooded + self.open.values().map(|shared| shared.flooded).sum::<u64>()
    }

    fn ensure(&mut self, place: Place) -> Result<(), OpenError> {
        let vrids = self.vrids(place);
        let failed = |(step, error)| OpenError { place, step, error };
        if let Some(shared) = self.open.get_mut(&place) {
            return shared.hear(place, vrids).map_err(|error| failed(("set its filter", error)));
        }
        let socket = place.open(&vrids).map_err(failed)?;
        self.last_id += 1;
        let id = SocketId(self.last_id);
        self.open
            .insert(place, Shared { id, socket, vrids, gate: Gate::default(), flooded: 0, overflowed: 0 });
        Ok(())
    }

    fn tidy(&mut self) {
        let wanted: BTreeSet<Place> = self.routers.values().flat_map(Place::of).collect();
        let unwanted = self.open.extract_if(.., |place, _| !wanted.contains(place));
        self.flooded += unwanted.map(|(_, shared)| shared.flooded).sum::<u64>();
        for place in wanted {
            let vrids = self.vrids(place);
            if let Some(shared) = self.open.get_mut(&place) {
                // What a filter lets through beyond what is wanted is refused later.
                let _ = shared.hear(place, vrids);
            }
        }
    }

    fn vrids(&self, place: Place) -> BTreeSet<u8> {
        let here = self.routers.values().filter(|sockets| Place::of(sockets).contains(&place));
        here.map(|sockets| sockets.vrid).collect()
    }
}

/// A socket, and what it is told of by.
struct Shared {
    id: SocketId,
    socket: Socket,
    /// Those in its filter.
    vrids: BTreeSet<u8>,
    gate: Gate,
    flooded: u64,
    /// As the kernel counts what found no room; it wraps.
    overflowed: u32,
}

impl Shared {
    fn hear(&mut self, place: Place, vrids: BTreeSet<u8>) -> io::Result<()> {
        if self.vrids != vrids {
            self.socket.attach_filter(&filter::adverts(place.family(), &vrids))?;
            self.vrids = vrids;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        place: Place,
        now: Instant,
        buffer: &mut Buffer,
        take: &mut impl FnMut(&Seen, &[u8]),
    ) -> Result<(), Errno> {
        let Buffer { packet, control } = buffer;
        let mut slices = [IoSliceMut::new(packet)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(control), MsgFlags::MSG_DONTWAIT)?;
        let sender = message.address.as_ref().and_then(SockaddrStorage::as_sockaddr_in6).map(SockaddrIn6::ip);
        let (mut destination, mut hop_limit) = (None, 0);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => destination = Some(info.ipi6_addr.s6_addr),
                ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).unwrap_or(0),
                ControlMessageOwned::RxqOvfl(count) => {
                    self.flooded += u64::from(count.wrapping_sub(self.overflowed));
                    self.overflowed = count;
                }
                _ => {}
            }
        }
        let length = message.bytes;
        let packet = &packet[..length];
        let interface = place.interface;
        let received = match place.family() {
            Family::V4 => split_ipv4(interface, packet),
            Family::V6 => sender.zip(destination).map(|(source, destination)| {
                let destination = Ipv6Addr::from(destination).into();
                (Seen { interface, source: source.into(), destination, ttl: hop_limit }, packet)
            }),
        };
        if let Some((seen, bytes)) = received {
            if self.gate.admits(now, seen.source, bytes) {
                take(&seen, bytes);
            } else {
                self.flooded += 1;
            }
        }
        Ok(())
    }
}

/// What the IPv4 header says, and what is behind it, options left out and no longer than it says.
fn split_ipv4(interface: u32, packet: &[u8]) -> Option<(Seen, &[u8])> {
    let (header, _) = packet.split_first_chunk::<IPV4>()?;
    let start = usize::from(header[0] & 0xf) * 4;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]])).min(packet.len());
    let bytes = packet.get(start.max(IPV4)..end)?;
    let source = Ipv4Addr::from(*header[12..].first_chunk::<4>()?).into();
    let destination = Ipv4Addr::from(*header[16..].first_chunk::<4>()?).into();
    Some((Seen { interface, source, destination, ttl: header[8] }, bytes))
}

/// A group that is heard, or an address that is spoken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    interface: u32,
    at: IpAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of(self.interface) {
            Ok(name) => write!(f, "of {} on {}", self.at, name.to_string_lossy()),
            Err(_) => write!(f, "of {} on interface {}, which is gone", self.at, self.interface),
        }
    }
}

impl Place {
    fn of(sockets: &Sockets) -> [Place; 2] {
        let usual: IpAddr = match Family::of(sockets.source) {
            Family::V4 => Ipv4Addr::new(224, 0, 0, 18).into(),
            Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).into(),
        };
        let at = |at| Place { interface: sockets.interface, at };
        [at(sockets.group.unwrap_or(usual)), at(sockets.source)]
    }

    fn family(self) -> Family {
        Family::of(self.at)
    }

    fn socket_address(self, address: IpAddr) -> SocketAddr {
        match address {
            IpAddr::V4(address) => SocketAddr::new(address.into(), 0),
            IpAddr::V6(address) => {
                let is_of_link = address.is_unicast_link_local() || address.is_multicast();
                let scope = if is_of_link { self.interface } else { 0 };
                SocketAddrV6::new(address, 0, 0, scope).into()
            }
        }
    }

    fn open(self, vrids: &BTreeSet<u8>) -> Result<Socket, (&'static str, io::Error)> {
        let step = |step| move |error: io::Error| (step, error);
        let domain = match self.family() {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let protocol = Some(Protocol::from(i32::from(PROTOCOL)));
        let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), protocol)
            .map_err(step("open a raw socket, which needs CAP_NET_RAW"))?;
        // Nothing is queued before it is known from where.
        socket.attach_filter(&filter::nothing()).map_err(step("set its filter"))?;
        let name = name_of(self.interface).map_err(step("find its interface"))?;
        socket.bind_device(Some(name.as_bytes())).map_err(step("bind it to its interface"))?;
        socket.bind(&self.socket_address(self.at).into()).map_err(step("bind it to its address"))?;
        self.configure(&socket).map_err(step("set its options"))?;
        if self.at.is_multicast() {
            self.join(&socket).map_err(step("join the group"))?;
        }
        socket.attach_filter(&filter::adverts(self.family(), vrids)).map_err(step("set its filter"))?;
        Ok(socket)
    }

    fn configure(self, socket: &Socket) -> io::Result<()> {
        // Beyond net.core.rmem_max where the daemon may; the default serves, too.
        if setsockopt(socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        setsockopt(socket, RxqOvfl, &1)?;
        match self.family() {
            Family::V4 => {
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(TTL)?;
                socket.set_ttl_v4(TTL)?;
                socket.set_tos_v4(INTERNETWORK_CONTROL)
            }
            Family::V6 => {
                setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
                setsockopt(socket, Ipv6RecvHopLimit, &true)?;
                socket.set_multicast_all_v6(false)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(TTL)?;
                socket.set_unicast_hops_v6(TTL)?;
                socket.set_tclass_v6(INTERNETWORK_CONTROL)
            }
        }
    }

    fn join(self, socket: &Socket) -> io::Result<()> {
        match self.at {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(self.interface))
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, self.interface),
        }
    }
}

/// Never empty, which as a device to be bound to means any.
fn name_of(interface: u32) -> io::Result<CString> {
    let name = if_indextoname(interface)?;
    if name.is_empty() { Err(Errno::ENXIO.into()) } else { Ok(name) }
}

struct Buffer {
    packet: Vec<u8>,
    control: Vec<u8>,
}

impl Default for Buffer {
    fn default() -> Buffer {
        let control = nix::cmsg_space!(libc::in6_pktinfo, i32, u32);
        Buffer { packet: vec![0; PACKET_MAX], control }
    }
}

/// Messages that one turn takes from a socket: then timers have theirs.
pub const TURN: usize = 256;

const IPV4: usize = 20;
/// An IPv4 header with options, and more than any message with a trailer has.
const PACKET_MAX: usize = 60 + 8 + 255 * 16 + 28 + 256;
/// Some 50 ms of 100,000 adverts a second.
const RECEIVE_BUFFER: usize = 4 << 20;
const TTL: u32 = 255;
/// CS6, which network control has (RFC 4594).
const INTERNETWORK_CONTROL: u32 = 0xc0;

#[cfg(test)]
mod tests;
