//! The kernel's network state, read and followed through netlink in the current network namespace.
//!
//! Owns the netlink sockets. Must not know services, tables or XDP programs. Changes nothing but the state of
//! neighbour entries, and those only by asking the kernel to probe.
//!
//! Requests and events have a socket each: the kernel gives an event the sequence number of the request that
//! caused it, so on one socket the answers would swallow the events.

pub mod follow;
mod monitor;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, io, net::Ipv4Addr, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp},
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::Handle;
use tokio::{task::JoinSet, time};

use crate::pure::hop::{Mac, NextHop, Reach};

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
    pub xdp: Option<AttachedXdp>,
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
    InterfaceName(String),
    InterfaceIndex(u32),
    Route(Ipv4Addr),
    Neighbour { interface: u32, address: Ipv4Addr },
    Probe { interface: u32, address: Ipv4Addr },
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
    pub async fn resolve(&self, address: Ipv4Addr) -> Result<Reach, NetError> {
        Lookup::new(self).reach(address).await
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

    async fn route(&self, address: Ipv4Addr) -> Result<Route, NetError> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        question.header.destination_prefix_length = 32;
        question.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
        let answers = self.handle.route().get(question).execute();
        match ask(Request::Route(address), answers).await {
            Ok(route) => Ok(Route::from_message(&route, address)),
            // In this order: no route or `throw`, `unreachable`, `blackhole`, `prohibit`.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
                ) =>
            {
                Ok(Route::None)
            }
            Err(error) => Err(error),
        }
    }

    async fn neighbour(&self, interface: u32, address: Ipv4Addr) -> Result<Neighbour, NetError> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Inet;
        question.header.ifindex = interface;
        question.attributes.push(NeighbourAttribute::Destination(address.into()));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
        message.header.flags = NLM_F_REQUEST;

        let request = Request::Neighbour { interface, address };
        let Ok(answers) = self.handle.clone().request(message) else {
            return Err(NetError::Closed { request });
        };
        match ask(request, answers.map(neighbour_answer)).await {
            Ok(entry) => Ok(Neighbour::from_message(&entry)),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Neighbour::Absent),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve `address`, or confirm what it holds, as if it had a packet to send.
    /// Must not be asked for a permanent entry: it would cease to be permanent.
    async fn probe(&self, interface: u32, address: Ipv4Addr) -> Result<(), NetError> {
        let question = self
            .handle
            .neighbours()
            .add(interface, address.into())
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        ask(Request::Probe { interface, address }, stream::once(question.execute())).await
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
            Request::InterfaceName(name) => write!(f, "cannot look up interface `{name}`"),
            Request::InterfaceIndex(index) => write!(f, "cannot look up interface {index}"),
            Request::Route(address) => write!(f, "cannot look up the route to {address}"),
            Request::Neighbour { interface, address } => {
                write!(f, "cannot look up neighbour {address} on interface {interface}")
            }
            Request::Probe { interface, address } => {
                write!(f, "cannot probe neighbour {address} on interface {interface}")
            }
        }
    }
}

/// One pass over any number of addresses: what they share is asked for once.
struct Lookup<'a> {
    net: &'a Net,
    interfaces: BTreeMap<u32, Option<Interface>>,
    neighbours: BTreeMap<(u32, Ipv4Addr), Neighbour>,
}

impl<'a> Lookup<'a> {
    fn new(net: &'a Net) -> Lookup<'a> {
        Lookup { net, interfaces: BTreeMap::new(), neighbours: BTreeMap::new() }
    }

    async fn reach(&mut self, address: Ipv4Addr) -> Result<Reach, NetError> {
        let (interface, via, source) = match self.net.route(address).await? {
            Route::None => return Ok(Reach::NoRoute),
            Route::Local => return Ok(Reach::Local),
            Route::Link { interface, via, source } => (interface, via, source),
        };
        let Some(interface_mac) = self.usable_mac(interface).await? else {
            return Ok(Reach::LinkUnusable);
        };
        let neighbour = self.neighbour(interface, via).await?.mac();
        Ok(Reach::Hop(NextHop { interface, interface_mac, source, via, neighbour }))
    }

    async fn neighbour(&mut self, interface: u32, via: Ipv4Addr) -> Result<Neighbour, NetError> {
        if let Some(known) = self.neighbours.get(&(interface, via)) {
            return Ok(*known);
        }
        let found = self.net.neighbour(interface, via).await?;
        self.neighbours.insert((interface, via), found);
        Ok(found)
    }

    /// None: the interface is down, not Ethernet, or gone since the route was read.
    async fn usable_mac(&mut self, index: u32) -> Result<Option<Mac>, NetError> {
        if !self.interfaces.contains_key(&index) {
            let found = match self.net.interface_by_index(index).await {
                Ok(interface) => Some(interface),
                Err(NetError::NoIndex(_)) => None,
                Err(error) => return Err(error),
            };
            self.interfaces.insert(index, found);
        }
        let interface = self.interfaces.get(&index).and_then(Option::as_ref);
        Ok(interface.filter(|interface| interface.up).and_then(|interface| interface.mac))
    }
}

enum Route {
    /// None that packets could be forwarded on unchanged.
    None,
    Local,
    Link {
        interface: u32,
        via: Ipv4Addr,
        source: Ipv4Addr,
    },
}

impl Route {
    fn from_message(route: &RouteMessage, address: Ipv4Addr) -> Route {
        match route.header.kind {
            RouteType::Local => return Route::Local,
            RouteType::Unicast => {}
            _ => return Route::None,
        }
        let (mut interface, mut via, mut source) = (None, address, Ipv4Addr::UNSPECIFIED);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = *gateway,
                RouteAttribute::PrefSource(RouteAddress::Inet(preferred)) => source = *preferred,
                // A gateway of another family, or a tunnel: the plain frame would be wrong.
                RouteAttribute::Via(_) | RouteAttribute::EncapType(_) => return Route::None,
                _ => {}
            }
        }
        interface.map_or(Route::None, |interface| Route::Link { interface, via, source })
    }
}

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Absent,
    /// The kernel is asking and has no answer yet.
    Incomplete,
    /// Nobody answered.
    Failed,
    /// Valid, and not confirmed for a while.
    Stale(Mac),
    Valid(Mac),
}

impl Neighbour {
    fn from_message(entry: &NeighbourMessage) -> Neighbour {
        let address = entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
            _ => None,
        });
        match (&entry.header.state, address) {
            (NeighbourState::Stale, Some(mac)) => Neighbour::Stale(mac),
            (
                NeighbourState::Reachable
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
                | NeighbourState::Noarp,
                Some(mac),
            ) => Neighbour::Valid(mac),
            (NeighbourState::Failed, _) => Neighbour::Failed,
            (NeighbourState::Incomplete, _) => Neighbour::Incomplete,
            _ => Neighbour::Absent,
        }
    }

    fn mac(self) -> Option<Mac> {
        match self {
            Neighbour::Absent | Neighbour::Incomplete | Neighbour::Failed => None,
            Neighbour::Stale(mac) | Neighbour::Valid(mac) => Some(mac),
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

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; run as root or with CAP_NET_ADMIN",
        Some(libc::ENOBUFS) => "; the neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3",
        _ => "",
    }
}

/// The kernel answers in microseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
