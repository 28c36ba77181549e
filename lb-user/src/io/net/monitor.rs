//! The kernel's announcements: which part of the network state may have changed.
//!
//! Reads its socket directly, one datagram at a time, so that the kernel's bounded buffer is the only queue:
//! what does not fit becomes an overrun, and an overrun means that everything may have changed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAttribute, RouteMessage},
};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::{LinkAddress, NetError, ip};

pub(super) struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Everything,
    /// The routes to these addresses, both included.
    Routes {
        first: IpAddr,
        last: IpAddr,
    },
    Neighbour(LinkAddress),
}

impl Monitor {
    pub(super) fn new() -> Result<Monitor, NetError> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            for group in GROUPS {
                socket.socket_mut().add_membership(group as u32)?;
            }
            Ok(socket)
        };
        Ok(Monitor { socket: open().map_err(NetError::Open)?, buffer: Vec::with_capacity(DATAGRAM_MAX) })
    }

    /// Waits for the next announcement. Cancel-safe: nothing is read unless it is returned.
    pub(super) async fn changes(&mut self) -> Result<Vec<Change>, NetError> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(()) => Ok(changes_in(&self.buffer)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Change::Everything]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(NetError::Events(error)),
        }
    }
}

/// What cannot be decoded may mean anything.
fn changes_in(datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            return vec![Change::Everything];
        };
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        rest = rest.get(length.next_multiple_of(NLMSG_ALIGN)..).unwrap_or_default();
        changes.extend(change(&message.payload));
    }
    changes
}

fn change(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry),
        ) => neighbour_change(entry),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => route_change(route),
        _ => Some(Change::Everything),
    }
}

fn neighbour_change(entry: &NeighbourMessage) -> Option<Change> {
    let interface = entry.header.ifindex;
    entry.attributes.iter().find_map(|attribute| {
        let address = match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => IpAddr::V4(*address),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => IpAddr::V6(*address),
            _ => return None,
        };
        Some(Change::Neighbour(LinkAddress { interface, address }))
    })
}

fn route_change(route: &RouteMessage) -> Option<Change> {
    let unspecified = match route.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let length = route.header.destination_prefix_length.into();
    let (first, last) = match destination.unwrap_or(unspecified) {
        IpAddr::V4(network) => {
            let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
            let network = network.to_bits();
            (
                Ipv4Addr::from_bits(network & !host_bits).into(),
                Ipv4Addr::from_bits(network | host_bits).into(),
            )
        }
        IpAddr::V6(network) => {
            let host_bits = u128::MAX.checked_shr(length).unwrap_or(0);
            let network = network.to_bits();
            (
                Ipv6Addr::from_bits(network & !host_bits).into(),
                Ipv6Addr::from_bits(network | host_bits).into(),
            )
        }
    };
    Some(Change::Routes { first, last })
}

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// The kernel builds announcements of a page, and larger ones only for links with many virtual functions.
const DATAGRAM_MAX: usize = 64 * 1_024;
const NLMSG_ALIGN: usize = 4;

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteAddress;

    use super::*;
    use crate::io::testbed::{Bed, V4, in_namespaces};

    #[test]
    fn unknown_datagrams_mean_everything() {
        assert_eq!(changes_in(&[0xff; 24]), [Change::Everything]);
        assert_eq!(changes_in(&[]), []);
    }

    #[test]
    fn a_route_concerns_the_addresses_of_its_prefix() {
        let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
        let cases = [
            (v4, None, 0, "0.0.0.0", "255.255.255.255"),
            (v4, Some("10.1.2.0"), 24, "10.1.2.0", "10.1.2.255"),
            (v4, Some("10.1.2.3"), 32, "10.1.2.3", "10.1.2.3"),
            (v6, None, 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            (v6, Some("2001:db8::"), 64, "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
            (v6, Some("2001:db8::1"), 128, "2001:db8::1", "2001:db8::1"),
        ];
        for (family, destination, length, first, last) in cases {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            route.header.destination_prefix_length = length;
            let destination = destination.map(|text| RouteAddress::from(text.parse::<IpAddr>().unwrap()));
            route.attributes.extend(destination.map(RouteAttribute::Destination));
            let expected = Change::Routes { first: first.parse().unwrap(), last: last.parse().unwrap() };
            assert_eq!(route_change(&route), Some(expected));
        }
    }

    #[test]
    fn an_overrun_means_everything() {
        in_namespaces(async |bed: Bed| {
            let mut monitor = Monitor::new().unwrap();
            monitor.socket.socket_ref().set_rx_buf_sz(1_i32).unwrap();
            for host in 1..=100 {
                bed.add_neighbour(Ipv4Addr::new(10, 77, 0, 100 + host).into(), [2, 0, 0, 0, 0, host]).await;
            }
            bed.add_neighbour(V4.far, [2, 0, 0, 0, 0, 0]).await;
            let mut seen = Vec::new();
            while !seen.contains(&Change::Everything) {
                seen.extend(monitor.changes().await.unwrap());
            }
            assert!(seen.len() < 100, "events were lost: {}", seen.len());
        });
    }
}
