//! The kernel's network state, read and followed through netlink in the current network namespace.
//!
//! Owns the netlink sockets. Must not know services, tables or XDP programs. Changes nothing but the state of
//! neighbour entries, and those only by asking the kernel to probe.
//!
//! Requests and events have a socket each: the kernel gives an event the sequence number of the request that
//! caused it, so on one socket the answers would swallow the events.

pub mod follow;
mod local;
mod lookup;
mod monitor;
#[cfg(test)]
mod tests;

use std::{fmt, io, net::IpAddr, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        LinkXdp, VlanProtocol,
    },
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::Handle;
use tokio::{task::JoinSet, time};

use self::lookup::{Lookup, Neighbour, Route};
use crate::pure::hop::{Mac, Reach, VlanTag};

/// Asks; see `follow` for being told.
pub struct Net {
    handle: Handle,
    /// Moves the requests; aborted when `Net` is dropped.
    _connection: JoinSet<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// None unless it is Ethernet.
    pub mac: Option<Mac>,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// Switched on, and with a carrier.
    pub up: bool,
    pub carrier: Carrier,
    pub xdp: Option<AttachedXdp>,
}

/// What sends an interface's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Itself,
    /// A VLAN device: `lower` sends them, with one more tag.
    Vlan {
        lower: u32,
        tag: VlanTag,
    },
    /// A VLAN device whose lower device is in another network namespace.
    Elsewhere,
}

/// The XDP program of an interface; the native one where it has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    pub program_id: u32,
    pub mode: AttachedMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachedMode {
    Native,
    Generic,
    /// Runs on the network card.
    Hardware,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("no interface `{name}`; this machine has {}: correct [datapath] interfaces", existing.join(", "))]
    NoInterface { name: String, existing: Vec<String> },
    #[error("no interface with index {0}; it was removed")]
    NoIndex(u32),
    #[error("{request}: {source}{}", remedy(source))]
    Refused { request: Request, source: io::Error },
    #[error("{request}: no answer from the kernel within {ANSWER_WAIT:?}")]
    NoAnswer { request: Request },
    #[error("{request}: unexpected answer from the kernel: {answer}")]
    Unexpected { request: Request, answer: rtnetlink::Error },
    #[error("{request}: the netlink connection is closed")]
    Closed { request: Request },
    #[error("cannot read netlink events: {0}")]
    Events(#[source] io::Error),
}

/// What was asked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Interfaces,
    Addresses,
    InterfaceName(String),
    InterfaceIndex(u32),
    Route(IpAddr),
    Neighbour(LinkAddress),
    Probe(LinkAddress),
}

/// An address on the link of an interface: what an entry of the kernel's neighbour table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress {
    pub interface: u32,
    pub address: IpAddr,
}

impl Net {
    /// Binds to the network namespace of the calling thread. Needs a tokio runtime.
    pub fn new() -> Result<Net, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Open)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Net { handle, _connection: tasks })
    }

    pub async fn interface(&self, name: &str) -> Result<Interface, NetError> {
        match self.find_interface(name).await? {
            Some(interface) => Ok(interface),
            None => Err(NetError::NoInterface { name: name.to_owned(), existing: self.names().await? }),
        }
    }

    pub async fn interface_by_index(&self, index: u32) -> Result<Interface, NetError> {
        let answers = self.handle.link().get().match_index(index).execute();
        match ask(Request::InterfaceIndex(index), answers).await {
            Ok(link) => Ok(Interface::from_link(&link)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Err(NetError::NoIndex(index)),
            Err(error) => Err(error),
        }
    }

    /// How packets for `address` leave this machine. A neighbour that the kernel has not resolved is None:
    /// nothing here makes the kernel resolve it.
    pub async fn resolve(&self, address: IpAddr) -> Result<Reach, NetError> {
        Ok(Lookup::new(self).find(address).await?.reach)
    }

    async fn find_interface(&self, name: &str) -> Result<Option<Interface>, NetError> {
        let answers = self.handle.link().get().match_name(name).execute();
        match ask(Request::InterfaceName(name.to_owned()), answers).await {
            Ok(link) => Ok(Some(Interface::from_link(&link))),
            // ERANGE and EINVAL: longer than, or otherwise not, a name the kernel could have given.
            Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::ERANGE | libc::EINVAL)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn names(&self) -> Result<Vec<String>, NetError> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>();
        let links = ask(Request::Interfaces, stream::once(links)).await?;
        Ok(links.iter().map(|link| Interface::from_link(link).name).collect())
    }

    async fn route(&self, address: IpAddr) -> Result<Route, NetError> {
        let (family, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address)),
        };
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        question.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(destination));
        let answers = self.handle.route().get(question).execute();
        match ask(Request::Route(address), answers).await {
            Ok(route) => Ok(Route::from_message(&route, address)),
            Err(error) if error.errno().is_some_and(means_no_route) => Ok(Route::None),
            Err(error) => Err(error),
        }
    }

    async fn neighbour(&self, at: LinkAddress) -> Result<Neighbour, NetError> {
        let mut question = NeighbourMessage::default();
        question.header.family = match at.address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        question.header.ifindex = at.interface;
        question.attributes.push(NeighbourAttribute::Destination(at.address.into()));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
        message.header.flags = NLM_F_REQUEST;

        let request = Request::Neighbour(at);
        let Ok(answers) = self.handle.clone().request(message) else {
            return Err(NetError::Closed { request });
        };
        match ask(request, answers.map(neighbour_answer)).await {
            Ok(entry) => Ok(Neighbour::from_message(&entry)),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Neighbour::Absent),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve the address, or confirm what it holds, as if it had a packet to send.
    /// Must not be asked for a permanent entry: it would cease to be permanent.
    async fn probe(&self, at: LinkAddress) -> Result<(), NetError> {
        let question = self
            .handle
            .neighbours()
            .add(at.interface, at.address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        ask(Request::Probe(at), stream::once(question.execute())).await
    }
}

impl Interface {
    fn from_link(link: &LinkMessage) -> Interface {
        let mut interface = Interface {
            index: link.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
            carrier: Carrier::from_attributes(&link.attributes),
            xdp: None,
        };
        let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Address(bytes) if ethernet => interface.mac = mac(bytes),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Xdp(xdp) => interface.xdp = AttachedXdp::from_attributes(xdp),
                _ => {}
            }
        }
        interface
    }
}

impl Carrier {
    fn from_attributes(attributes: &[LinkAttribute]) -> Carrier {
        let (mut lower, mut elsewhere) = (None, false);
        let (mut is_vlan, mut id, mut protocol) = (false, None, VlanProtocol::default());
        for attribute in attributes {
            match attribute {
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    is_vlan = infos.contains(&LinkInfo::Kind(InfoKind::Vlan));
                    for detail in infos.iter().flat_map(vlan_details) {
                        match detail {
                            InfoVlan::Id(value) => id = Some(*value),
                            InfoVlan::Protocol(value) => protocol = *value,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        match (lower, id) {
            _ if !is_vlan => Carrier::Itself,
            (Some(lower), Some(id)) if !elsewhere => {
                Carrier::Vlan { lower, tag: VlanTag { protocol: protocol.into(), id } }
            }
            _ => Carrier::Elsewhere,
        }
    }
}

impl AttachedXdp {
    fn from_attributes(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
        let attached = |attribute: &LinkXdp| match *attribute {
            LinkXdp::DrvProgId(id) => Some((0, AttachedMode::Native, id)),
            LinkXdp::SkbProgId(id) => Some((1, AttachedMode::Generic, id)),
            LinkXdp::HwProgId(id) => Some((2, AttachedMode::Hardware, id)),
            _ => None,
        };
        let (_, mode, program_id) = attributes.iter().filter_map(attached).min_by_key(|(rank, ..)| *rank)?;
        Some(AttachedXdp { program_id, mode })
    }
}

impl NetError {
    fn errno(&self) -> Option<i32> {
        match self {
            NetError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Interfaces => f.write_str("cannot list the interfaces"),
            Request::Addresses => f.write_str("cannot list this machine's addresses"),
            Request::InterfaceName(name) => write!(f, "cannot look up interface `{name}`"),
            Request::InterfaceIndex(index) => write!(f, "cannot look up interface {index}"),
            Request::Route(address) => write!(f, "cannot look up the route to {address}"),
            Request::Neighbour(LinkAddress { interface, address }) => {
                write!(f, "cannot look up neighbour {address} on interface {interface}")
            }
            Request::Probe(LinkAddress { interface, address }) => {
                write!(f, "cannot probe neighbour {address} on interface {interface}")
            }
        }
    }
}

/// The first answer, within `ANSWER_WAIT`: an answer that cannot be decoded never arrives.
async fn ask<T>(
    request: Request,
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<T, NetError> {
    let mut answers = pin!(answers);
    match time::timeout(ANSWER_WAIT, answers.next()).await {
        Ok(Some(Ok(answer))) => Ok(answer),
        Ok(Some(Err(rtnetlink::Error::NetlinkError(message)))) => {
            Err(NetError::Refused { request, source: message.to_io() })
        }
        Ok(Some(Err(rtnetlink::Error::RequestFailed)) | None) => Err(NetError::Closed { request }),
        Ok(Some(Err(answer))) => Err(NetError::Unexpected { request, answer }),
        Err(_) => Err(NetError::NoAnswer { request }),
    }
}

fn neighbour_answer(
    message: NetlinkMessage<RouteNetlinkMessage>,
) -> Result<NeighbourMessage, rtnetlink::Error> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => Ok(entry),
        NetlinkPayload::Error(error) => Err(rtnetlink::Error::NetlinkError(error)),
        payload => Err(rtnetlink::Error::UnexpectedMessage(NetlinkMessage::new(message.header, payload))),
    }
}

fn means_no_route(errno: i32) -> bool {
    match errno {
        // In this order: no route or `throw`, `unreachable`, `blackhole`, `prohibit`.
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES => true,
        // The kernel runs without this address family.
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => true,
        _ => false,
    }
}

fn vlan_details(info: &LinkInfo) -> &[InfoVlan] {
    match info {
        LinkInfo::Data(InfoData::Vlan(details)) => details,
        _ => &[],
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; run as root or with CAP_NET_ADMIN",
        Some(libc::ENOBUFS) => {
            "; the neighbour table is full: raise gc_thresh3 in net.ipv4.neigh.default and net.ipv6.neigh.default"
        }
        _ => "",
    }
}

/// The kernel answers in microseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
