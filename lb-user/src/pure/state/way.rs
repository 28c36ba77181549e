//! The way to a server: its next hop, and the NAT sources it may use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    entry::{self, Hop},
    limits::NAT_SOURCES_MAX,
    net::Mac,
    slot::ServerId,
};

use super::{ServerState, State};
use crate::pure::{
    config::{
        model::{Datapath, Forward, check::Through},
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

    /// Why nobody can have answered a server's check: the kernel asks for its next hop, and hears nothing.
    pub(super) fn silent_neighbour(&self, id: ServerId) -> Option<&'static str> {
        let server = self.servers.get(&id)?;
        let check = &self.config.services[server.index?].check;
        let elsewhere = check.address.is_some() && check.through == Through::Direct;
        match self.reaches.get(&server.address.ip()) {
            Some(reach @ Reach::Hop(hop)) if hop.neighbour.is_none() && !elsewhere => {
                unreachable(Some(reach))
            }
            _ => None,
        }
    }

    /// Configured sources serve every server; otherwise the one its route prefers.
    pub(super) fn nat_range(&self, server: &ServerState) -> (u8, u8) {
        let family = Family::of(server.address.ip());
        let ours: Vec<_> = configured(&self.config.datapath, family).collect();
        if !ours.is_empty() {
            let first = stretch(&self.nat_sources, &ours).unwrap_or(0);
            return (first as u8, ours.len() as u8);
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

/// Those that were pinned, in their places, since recorded flows refer to them by position; then those of each family
/// that are configured, side by side. None: there is no room left for them.
pub(super) fn nat_sources(datapath: &Datapath, pinned: &[IpAddr]) -> Option<Vec<IpAddr>> {
    let mut sources = pinned.to_vec();
    for family in Family::ALL {
        let ours: Vec<_> = configured(datapath, family).collect();
        if stretch(&sources, &ours).is_none() {
            sources.extend(ours);
        }
    }
    (sources.len() <= NAT_SOURCES_MAX).then_some(sources)
}

/// Where `wanted` stands within `sources`.
fn stretch(sources: &[IpAddr], wanted: &[IpAddr]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    sources.windows(wanted.len()).position(|window| window == wanted)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::config::parse;

    #[test]
    fn a_source_keeps_its_place() {
        let address = |text: &str| -> IpAddr { text.parse().expect("valid") };
        let check = |name: &str, configured: &str, pinned: &[&str], expected: &[&str]| {
            let text = format!("[datapath]\ninterfaces = [\"eth0\"]\nnat_source = [{configured}]\n");
            let datapath = parse("test.toml", &text).expect("valid").config.datapath;
            let pinned: Vec<_> = pinned.iter().map(|text| address(text)).collect();
            let expected: Vec<_> = expected.iter().map(|text| address(text)).collect();
            assert_eq!(nat_sources(&datapath, &pinned), Some(expected), "{name}");
        };
        check(
            "new",
            "\"10.0.0.1\", \"2001:db8::1\", \"10.0.0.2\"",
            &[],
            &["10.0.0.1", "10.0.0.2", "2001:db8::1"],
        );
        check("the same", "\"10.0.0.1\"", &["10.0.0.1"], &["10.0.0.1"]);
        check("gone", "", &["10.0.0.1"], &["10.0.0.1"]);
        check("one of two", "\"10.0.0.2\"", &["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]);
        check(
            "turned round",
            "\"10.0.0.2\", \"10.0.0.1\"",
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.1"],
        );
    }

    #[test]
    fn too_many_sources_are_refused() {
        let datapath =
            parse("test.toml", "[datapath]\ninterfaces = [\"eth0\"]\nnat_source = [\"10.9.9.9\"]\n");
        let datapath = datapath.expect("valid").config.datapath;
        let pinned: Vec<IpAddr> = (0..NAT_SOURCES_MAX as u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert_eq!(nat_sources(&datapath, &pinned), None);
    }
}
