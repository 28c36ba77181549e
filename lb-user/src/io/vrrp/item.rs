//! One thing that a router has in the kernel: how it is asked for, taken away, and found in a list.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{MARK, netlink::Request};
use crate::pure::config::{
    model::vrrp::{Address, Route, Rule, Scope},
    network::{Family, Network},
};

/// Devices are resolved: the same name may be another device later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Address {
        index: u32,
        dev: String,
        address: Address,
    },
    Route {
        /// None: as the gateway is reached.
        index: Option<u32>,
        route: Route,
    },
    Rule {
        family: Family,
        rule: Rule,
    },
}

impl Item {
    /// Whether the kernel has room for one of them only.
    pub(super) fn clashes(&self, other: &Item) -> bool {
        match (self, other) {
            (
                Item::Address { index, address, .. },
                Item::Address { index: other_index, address: other, .. },
            ) => index == other_index && address.address == other.address && address.prefix == other.prefix,
            (Item::Route { route, .. }, Item::Route { route: other, .. }) => {
                (route.to, route.table, route.metric) == (other.to, other.table, other.metric)
            }
            (Item::Rule { .. }, Item::Rule { .. }) => self == other,
            _ => false,
        }
    }

    pub(super) fn is_on(&self, interface: u32) -> bool {
        match self {
            Item::Address { index, .. } => *index == interface,
            Item::Route { index, .. } => *index == Some(interface),
            Item::Rule { .. } => false,
        }
    }

    /// Asks for it, unless it is there.
    pub(super) fn add(&self) -> Request {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let message = match self {
            Item::Address { index, address, .. } => {
                RouteNetlinkMessage::NewAddress(address_message(*index, address))
            }
            Item::Route { index, route } => RouteNetlinkMessage::NewRoute(route_message(*index, route)),
            Item::Rule { family, rule } => RouteNetlinkMessage::NewRule(rule_message(*family, rule)),
        };
        Request { message, flags }
    }

    /// Takes it away. A route or rule only if it carries our mark: the kernel compares it.
    pub(super) fn remove(&self) -> Request {
        let message = match self {
            Item::Address { index, address, .. } => {
                RouteNetlinkMessage::DelAddress(address_key(*index, address.address, address.prefix))
            }
            Item::Route { index, route } => RouteNetlinkMessage::DelRoute(route_message(*index, route)),
            Item::Rule { family, rule } => RouteNetlinkMessage::DelRule(rule_message(*family, rule)),
        };
        Request { message, flags: 0 }
    }

    /// Whether this is it, in a list of the kernel's.
    pub(super) fn is(&self, listed: &RouteNetlinkMessage) -> bool {
        match (self, listed) {
            (Item::Address { index, address, .. }, RouteNetlinkMessage::NewAddress(listed)) => {
                (*index, address.address, address.prefix) == address_of(listed)
            }
            (Item::Route { index, route }, RouteNetlinkMessage::NewRoute(listed)) => {
                is_route(*index, route, listed)
            }
            (Item::Rule { family, rule }, RouteNetlinkMessage::NewRule(listed)) => {
                is_rule(*family, rule, listed)
            }
            _ => false,
        }
    }

    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        match self {
            Item::Address { dev, address, .. } => {
                format!("address {}/{} on {dev}", address.address, address.prefix)
            }
            Item::Route { route, .. } => format!("route to {}", route.to),
            Item::Rule { rule, .. } => format!("rule to table {}", rule.table),
        }
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The interface, the address itself rather than a peer's, and the length of its prefix.
pub(super) fn address_of(message: &AddressMessage) -> (u32, IpAddr, u8) {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = local.or(any).unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    (message.header.index, address, message.header.prefix_len)
}

pub(super) fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(MARK)))
}

/// What a deletion needs to know.
pub(super) fn address_key(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

fn address_message(index: u32, address: &Address) -> AddressMessage {
    let mut message = address_key(index, address.address, address.prefix);
    message.header.scope = match address.scope.unwrap_or(Scope::Global) {
        Scope::Global => AddressScope::Universe,
        Scope::Site => AddressScope::Site,
        Scope::Link => AddressScope::Link,
        Scope::Host => AddressScope::Host,
    };
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(MARK)));
    message.attributes.extend(address.broadcast.map(AddressAttribute::Broadcast));
    message.attributes.extend(address.label.clone().map(AddressAttribute::Label));
    if address.address.is_ipv6() {
        // Nobody waits for a duplicate to object: the election has decided.
        message.header.flags |= AddressHeaderFlags::Nodad;
        if address.prefix == Family::V6.bits() {
            // Deprecated from the start, so that nothing of the host itself leaves with it as its source.
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
    }
    message
}

fn route_message(index: Option<u32>, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (to, length) = (route.to.address(), route.to.length());
    message.header.address_family = family(to);
    message.header.destination_prefix_length = length;
    message.header.protocol = RouteProtocol::Other(MARK);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (route.scope, route.via) {
        (Some(Scope::Global), _) | (None, Some(_)) => RouteScope::Universe,
        (Some(Scope::Site), _) => RouteScope::Site,
        (Some(Scope::Link), _) => RouteScope::Link,
        (Some(Scope::Host), _) => RouteScope::Host,
        (None, None) if to.is_ipv4() => RouteScope::Link,
        (None, None) => RouteScope::Universe,
    };
    message.attributes.push(RouteAttribute::Table(route.table.unwrap_or(MAIN)));
    if length > 0 {
        message.attributes.push(RouteAttribute::Destination(route_address(to)));
    }
    message.attributes.extend(route.via.map(|via| gateway(to, via)));
    message.attributes.extend(index.map(RouteAttribute::Oif));
    message.attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(route_address(src))));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// IPv4 by a neighbour of IPv6 has an attribute of its own.
fn gateway(to: IpAddr, via: IpAddr) -> RouteAttribute {
    match via {
        IpAddr::V6(via) if to.is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(via)),
        _ => RouteAttribute::Gateway(route_address(via)),
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn is_route(index: Option<u32>, route: &Route, listed: &RouteMessage) -> bool {
    let wanted = route_message(index, route);
    let table = wanted.attributes.iter().find(|attribute| matches!(attribute, RouteAttribute::Table(_)));
    let rest = wanted.attributes.iter().filter(|attribute| !matches!(attribute, RouteAttribute::Table(_)));
    listed.header.address_family == wanted.header.address_family
        && listed.header.destination_prefix_length == wanted.header.destination_prefix_length
        && listed.header.protocol == wanted.header.protocol
        && table.is_none_or(|table| listed.attributes.contains(table))
        && rest.into_iter().all(|attribute| listed.attributes.contains(attribute))
}

fn rule_message(family: Family, rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    let prefix = |network: Option<Network>| network.filter(|network| network.length() > 0);
    if let Some(from) = prefix(rule.from) {
        message.header.src_len = from.length();
        message.attributes.push(RuleAttribute::Source(from.address()));
    }
    if let Some(to) = prefix(rule.to) {
        message.header.dst_len = to.length();
        message.attributes.push(RuleAttribute::Destination(to.address()));
    }
    message.attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    message.attributes.extend(rule.priority.map(RuleAttribute::Priority));
    message.attributes.push(RuleAttribute::Table(rule.table));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(MARK)));
    message
}

fn is_rule(family: Family, rule: &Rule, listed: &RuleMessage) -> bool {
    let wanted = rule_message(family, rule);
    let lengths = |message: &RuleMessage| (message.header.src_len, message.header.dst_len);
    listed.header.family == wanted.header.family
        && lengths(listed) == lengths(&wanted)
        && wanted.attributes.iter().all(|attribute| listed.attributes.contains(attribute))
}

/// RT_TABLE_MAIN.
const MAIN: u32 = 254;
