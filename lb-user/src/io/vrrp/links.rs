//! The interfaces that routers stand on or track, and when something that is held may have gone.
//!
//! An announcement only says where to look: what counts is what the kernel answers then, so lost, doubled and
//! overtaken announcements do no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::RouteProtocol,
    rule::RuleAttribute,
};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    MulticastGroup,
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use super::{
    MARK,
    addresses::{Addresses, address_in, address_question},
    item::{address_of, is_marked},
    netlink::{Client, DATAGRAM_MAX, NetlinkError, messages_in},
};
use crate::pure::vrrp::node::Link;

pub struct Links {
    monitor: Socket,
    client: Client,
    /// By name; None: it is not there.
    known: BTreeMap<String, Option<Link>>,
    watches_routes: bool,
    buffer: Vec<u8>,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub changes: Vec<Change>,
    /// Something that is held may have gone.
    pub suspicious: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Link(Link),
    /// With its index, where it had one.
    Gone {
        name: String,
        index: Option<u32>,
    },
}

impl Links {
    /// In the network namespace of the calling thread.
    pub fn new() -> Result<Links, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            for group in GROUPS {
                socket.add_membership(group as u32)?;
            }
            socket.set_non_blocking(true)?;
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            Ok(socket)
        };
        Ok(Links {
            monitor: open().map_err(NetlinkError::Open)?,
            client: Client::new()?,
            known: BTreeMap::new(),
            watches_routes: false,
            buffer: Vec::with_capacity(DATAGRAM_MAX),
        })
    }

    /// Watches these and no others; says what is known of all of them.
    pub fn follow(&mut self, names: BTreeSet<String>) -> Result<Vec<Change>, NetlinkError> {
        self.known.retain(|name, _| names.contains(name));
        let mut changes = Vec::new();
        for name in names {
            let link = self.look(&name)?;
            changes.push(change(&name, link.as_ref(), None));
            self.known.insert(name, link);
        }
        Ok(changes)
    }

    /// Announcements of routes can be many: they are heard only while routes are held.
    pub fn watch_routes(&mut self, wanted: bool) -> io::Result<()> {
        if wanted != self.watches_routes {
            for group in ROUTE_GROUPS {
                match wanted {
                    true => self.monitor.add_membership(group as u32)?,
                    false => self.monitor.drop_membership(group as u32)?,
                }
            }
            self.watches_routes = wanted;
        }
        Ok(())
    }

    /// What was announced, some of it: never waits, and leaves the rest for the next time.
    pub fn read(&mut self, addresses: &Addresses) -> Result<News, NetlinkError> {
        let (mut touched, mut suspicious) = (BTreeSet::new(), false);
        for _ in 0..DATAGRAMS_PER_READ {
            self.buffer.clear();
            match self.monitor.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    for message in messages_in(&self.buffer) {
                        if let NetlinkPayload::InnerMessage(message) = message.payload {
                            self.touch(&message, &mut touched);
                            suspicious |= is_suspicious(&message, addresses);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some were lost: everything may have changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    touched.extend(self.known.keys().cloned());
                    suspicious = true;
                }
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
        }
        let mut changes = Vec::new();
        for name in touched {
            let link = self.look(&name)?;
            let before = self.known.insert(name.clone(), link.clone()).flatten();
            if before == link {
                continue;
            }
            // IPv4 loses its routes without a word when a link goes down.
            suspicious |= addresses.needs_routes();
            let index = before.as_ref().map(|link| link.index);
            if let (Some(old), Some(new)) = (&before, &link)
                && old.index != new.index
            {
                changes.push(Change::Gone { name: name.clone(), index });
            }
            changes.push(change(&name, link.as_ref(), index));
        }
        Ok(News { changes, suspicious })
    }

    /// Which of the known interfaces an announcement is about.
    fn touch(&self, message: &RouteNetlinkMessage, touched: &mut BTreeSet<String>) {
        let index = match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                let name = name(link);
                if let Some((name, _)) = name.and_then(|name| self.known.get_key_value(name)) {
                    touched.insert(name.clone());
                }
                link.header.index
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address)
                if !is_marked(address) =>
            {
                address.header.index
            }
            _ => return,
        };
        let is_it = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.index == index);
        let known = self.known.iter().find(|(_, link)| is_it(link));
        touched.extend(known.map(|(name, _)| name.clone()));
    }

    fn look(&mut self, wanted: &str) -> Result<Option<Link>, NetlinkError> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(wanted.to_owned()));
        let answer = self.client.ask(RouteNetlinkMessage::GetLink(question))?;
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else { return Ok(None) };
        // An alternative name leads to an interface, too, but sockets and sysctls do not know it.
        if name(&link) != Some(wanted) {
            return Ok(None);
        }
        let index = link.header.index;
        let listed = self.client.dump("addresses", &address_question(index))?;
        let listed = listed.iter().filter_map(address_in);
        let own = listed.filter(|listed| listed.header.index == index && is_own(listed));
        let mac = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        });
        Ok(Some(Link {
            name: wanted.to_owned(),
            index,
            is_up: link.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
            mac: mac.unwrap_or_default(),
            addresses: own
                .map(address_of)
                .map(|(_, address, prefix)| (address, prefix))
                .collect::<Vec<(IpAddr, u8)>>(),
        }))
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

fn change(name: &str, link: Option<&Link>, index: Option<u32>) -> Change {
    match link {
        Some(link) => Change::Link(link.clone()),
        None => Change::Gone { name: name.to_owned(), index },
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Usable as a source, and not a virtual router's.
fn is_own(listed: &AddressMessage) -> bool {
    let in_header =
        listed.header.flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
    let in_full = listed.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Flags(flags) => flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        _ => false,
    });
    !in_header && !in_full && !is_marked(listed)
}

/// Whether something that is held may have gone.
fn is_suspicious(message: &RouteNetlinkMessage, addresses: &Addresses) -> bool {
    let mark = RouteProtocol::Other(MARK);
    match message {
        RouteNetlinkMessage::DelAddress(address) => addresses.holds(address),
        RouteNetlinkMessage::DelRoute(route) => route.header.protocol == mark,
        RouteNetlinkMessage::DelRule(rule) => rule.attributes.contains(&RuleAttribute::Protocol(mark)),
        _ => false,
    }
}

const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
const ROUTE_GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// What is beyond waits for the next wake-up.
const DATAGRAMS_PER_READ: usize = 64;
const RECEIVE_BUFFER: usize = 1 << 20;
