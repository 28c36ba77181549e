//! The kernel's announcements: which part of the network state may have changed.
//!
//! Reads its socket directly, one datagram at a time, so that the kernel's bounded buffer is the only queue:
//! what does not fit becomes an overrun, and an overrun means that everything may have changed.

use std::{io, net::Ipv4Addr};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::NetError;

pub(super) struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Everything,
    /// The routes to these addresses, both included.
    Routes {
        first: Ipv4Addr,
        last: Ipv4Addr,
    },
    Neighbour {
        interface: u32,
        address: Ipv4Addr,
    },
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
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some(Change::Neighbour { interface: entry.header.ifindex, address: *address })
        }
        _ => None,
    })
}

fn route_change(route: &RouteMessage) -> Option<Change> {
    if route.header.address_family != AddressFamily::Inet {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let network = u32::from(destination.unwrap_or(Ipv4Addr::UNSPECIFIED));
    let host_bits = u32::MAX.checked_shr(route.header.destination_prefix_length.into()).unwrap_or(0);
    Some(Change::Routes {
        first: Ipv4Addr::from(network & !host_bits),
        last: Ipv4Addr::from(network | host_bits),
    })
}

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Nexthop,
];

/// The kernel builds announcements of a page, and larger ones only for links with many virtual functions.
const DATAGRAM_MAX: usize = 64 * 1_024;
const NLMSG_ALIGN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testbed::{Bed, FAR, in_namespaces};

    #[test]
    fn unknown_datagrams_mean_everything() {
        assert_eq!(changes_in(&[0xff; 24]), [Change::Everything]);
        assert_eq!(changes_in(&[]), []);
    }

    #[test]
    fn a_route_concerns_the_addresses_of_its_prefix() {
        let cases = [
            (None, 0, [0, 0, 0, 0], [255, 255, 255, 255]),
            (Some([10, 1, 2, 0]), 24, [10, 1, 2, 0], [10, 1, 2, 255]),
            (Some([10, 1, 2, 3]), 32, [10, 1, 2, 3], [10, 1, 2, 3]),
        ];
        for (destination, length, first, last) in cases {
            let mut route = RouteMessage::default();
            route.header.address_family = AddressFamily::Inet;
            route.header.destination_prefix_length = length;
            let destination = destination.map(|bytes| RouteAddress::Inet(Ipv4Addr::from(bytes)));
            route.attributes.extend(destination.map(RouteAttribute::Destination));
            let expected = Change::Routes { first: first.into(), last: last.into() };
            assert_eq!(route_change(&route), Some(expected));
        }
    }

    #[test]
    fn an_overrun_means_everything() {
        in_namespaces(async |bed: Bed| {
            let mut monitor = Monitor::new().unwrap();
            monitor.socket.socket_ref().set_rx_buf_sz(1_i32).unwrap();
            for host in 1..=100 {
                bed.add_neighbour(Ipv4Addr::new(10, 77, 0, 100 + host), [2, 0, 0, 0, 0, host]).await;
            }
            bed.add_neighbour(FAR, [2, 0, 0, 0, 0, 0]).await;
            let mut seen = Vec::new();
            while !seen.contains(&Change::Everything) {
                seen.extend(monitor.changes().await.unwrap());
            }
            assert!(seen.len() < 100, "events were lost: {}", seen.len());
        });
    }
}
