//! The way to a server: its next hop, and the NAT sources it may use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    entry::{self, Hop},
    limits::NAT_SOURCES_MAX,
    net::Mac,
};

use super::{ServerState, State};
use crate::pure::{
    config::{
        model::{Datapath, Forward},
        network::Family,
    },
    hop::{Reach, Tags},
};

impl State {
    /// The layer-2 way to a server: the pinned one until netlink has told of one that works.
    pub(super) fn hop(&self, server: &ServerState) -> Hop {
        let reach = self.reaches.get(&server.address.ip());
        let unasked = match reach {
            None => true,
            Some(Reach::Hop(hop)) => {
                hop.neighbour.is_none()
                    && server.pinned.is_some_and(|pinned| pinned.hop.interface == hop.interface)
            }
            Some(Reach::NoRoute | Reach::Local | Reach::LinkUnusable) => false,
        };
        match (server.pinned, reach) {
            (Some(pinned), _) if unasked => pinned.hop,
            (_, Some(Reach::Hop(hop))) if self.unreachable(server).is_none() => Hop {
                lives: true,
                resolved: true,
                mac: hop.neighbour.map_or(Mac(0), Mac::from_bytes),
                source_mac: Mac::from_bytes(hop.interface_mac),
                interface: hop.interface,
                tags: tags(hop.tags),
                mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
            },
            _ => Hop {
                lives: true,
                resolved: false,
                mac: Mac(0),
                source_mac: Mac(0),
                interface: 0,
                tags: entry::Tags::default(),
                mtu: 0,
            },
        }
    }

    /// Source of the outer header of a server's packets.
    pub(super) fn outer_source(&self, server: &ServerState) -> IpAddr {
        match (self.reaches.get(&server.address.ip()), server.pinned) {
            (Some(Reach::Hop(hop)), _) if Family::of(hop.source) == Family::of(server.address.ip()) => {
                hop.source
            }
            (None, Some(pinned)) => pinned.outer_source,
            _ => match server.address.ip() {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            },
        }
    }

    /// Why packets cannot reach a server, for people.
    pub(in crate::pure) fn unreachable(&self, server: &ServerState) -> Option<&'static str> {
        let reach = self.reaches.get(&server.address.ip());
        let forward = server.index.map(|index| self.config.services[index].forward);
        unreachable(reach).or_else(|| match (forward, reach) {
            (Some(Forward::Nat), _) if self.nat_range(server).1 == 0 => {
                Some("no source address for nat: give its interface an address, or set nat_source")
            }
            (Some(Forward::Ipip | Forward::Gue), Some(_)) if !can_be_source(self.outer_source(server)) => {
                Some("no source address for the tunnel: give its interface a global address")
            }
            (Some(Forward::Dsr), Some(Reach::Hop(hop))) if hop.via != server.address.ip() => {
                Some("it is behind a router, and dsr needs it on the balancer's link: move it, or use nat")
            }
            _ => None,
        })
    }

    /// Configured sources serve every server; otherwise the one its route prefers.
    pub(super) fn nat_range(&self, server: &ServerState) -> (u8, u8) {
        let family = Family::of(server.address.ip());
        let of = |family| configured(&self.config.datapath, family).count() as u8;
        if of(family) > 0 {
            let first = if family == Family::V6 { of(Family::V4) } else { 0 };
            return (first, of(family));
        }
        let range = match (self.reaches.get(&server.address.ip()), server.pinned) {
            (Some(Reach::Hop(hop)), _) => {
                let position = self.nat_sources.iter().position(|source| *source == hop.source);
                position.map(|position| (position as u8, 1))
            }
            (None, Some(pinned)) => Some((pinned.nat_first, pinned.nat_count)),
            _ => None,
        };
        let within =
            |&(first, count): &(u8, u8)| usize::from(first) + usize::from(count) <= self.nat_sources.len();
        range.filter(within).unwrap_or((0, 0))
    }
}

/// Why packets cannot reach a server, for people.
pub(super) fn unreachable(reach: Option<&Reach>) -> Option<&'static str> {
    match reach {
        None => Some("its route is not looked up yet"),
        Some(Reach::NoRoute) => Some("no route leads to it: add one"),
        Some(Reach::Local) => Some("it is an address of this machine, which xdp cannot forward to"),
        Some(Reach::LinkUnusable) => Some("the interface of its route is down or not ethernet"),
        Some(Reach::Hop(hop)) if hop.neighbour.is_none() => Some(match hop.via {
            IpAddr::V4(_) => "its next hop does not answer arp",
            IpAddr::V6(_) => "its next hop does not answer neighbour discovery",
        }),
        Some(Reach::Hop(_)) => None,
    }
}

/// The configured sources first, IPv4 before IPv6. The list never becomes shorter than it was: the plan changes
/// servers after it, and until then they refer to its tail.
pub(super) fn nat_sources(datapath: &Datapath, pinned: &[IpAddr]) -> Vec<IpAddr> {
    let ours = Family::ALL.into_iter().flat_map(|family| configured(datapath, family));
    let tail = pinned.iter().copied().skip(datapath.nat_source.len());
    ours.chain(tail).take(NAT_SOURCES_MAX).collect()
}

pub(super) fn configured(datapath: &Datapath, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
    datapath.nat_source.iter().copied().filter(move |&source| Family::of(source) == family)
}

/// A link-local source would not get past the first router.
fn can_be_source(address: IpAddr) -> bool {
    let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !address.is_unspecified() && !local
}

fn tags(tags: Tags) -> entry::Tags {
    tags.iter().fold(entry::Tags::default(), |tags, tag| tags.with(tag.id))
}
