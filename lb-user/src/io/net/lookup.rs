//! How an address is reached: its route, the devices that frames pass on their way out, the neighbour.
//!
//! Owns the meaning of the kernel's answers. Must not know what is watched, nor when to look again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_route::{
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{Carrier, Interface, LinkAddress, Net, NetError, ip, mac};
use crate::pure::hop::{Mac, NextHop, Reach, Tags};

/// One pass over any number of addresses: what they share is asked for once.
pub(super) struct Lookup<'a> {
    net: &'a Net,
    interfaces: BTreeMap<u32, Option<Interface>>,
    neighbours: BTreeMap<LinkAddress, Neighbour>,
}

pub(super) struct Found {
    pub(super) reach: Reach,
    /// For a hop: where the kernel resolves it, which for VLANs is not where frames leave, and what it knows.
    pub(super) neighbour: Option<(LinkAddress, Neighbour)>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(net: &'a Net) -> Lookup<'a> {
        Lookup { net, interfaces: BTreeMap::new(), neighbours: BTreeMap::new() }
    }

    pub(super) async fn find(&mut self, address: IpAddr) -> Result<Found, NetError> {
        let nowhere = |reach| Ok(Found { reach, neighbour: None });
        let link = match self.net.route(address).await? {
            Route::None => return nowhere(Reach::NoRoute),
            Route::Local => return nowhere(Reach::Local),
            Route::Link(link) => link,
        };
        let Some(egress) = self.egress(link.interface).await? else {
            return nowhere(Reach::LinkUnusable);
        };
        let at = LinkAddress { interface: link.interface, address: link.via };
        let neighbour = self.neighbour(at).await?;
        let hop = NextHop {
            interface: egress.interface,
            interface_mac: egress.mac,
            source: link.source,
            via: link.via,
            neighbour: neighbour.mac(),
            mtu: link.mtu.map_or(egress.mtu, |mtu| mtu.min(egress.mtu)),
            tags: egress.tags,
        };
        Ok(Found { reach: Reach::Hop(hop), neighbour: Some((at, neighbour)) })
    }

    async fn neighbour(&mut self, at: LinkAddress) -> Result<Neighbour, NetError> {
        if let Some(known) = self.neighbours.get(&at) {
            return Ok(*known);
        }
        let found = self.net.neighbour(at).await?;
        self.neighbours.insert(at, found);
        Ok(found)
    }

    /// None: one of the devices is not usable, or gone since the route was read.
    async fn egress(&mut self, device: u32) -> Result<Option<Egress>, NetError> {
        let mut egress = self.interface(device).await?.and_then(Egress::of);
        while let Some(lower) = egress.and_then(|egress| egress.lower) {
            let device = self.interface(lower).await?;
            egress = egress.zip(device).and_then(|(egress, device)| egress.enter(device));
        }
        Ok(egress)
    }

    async fn interface(&mut self, index: u32) -> Result<Option<&Interface>, NetError> {
        if !self.interfaces.contains_key(&index) {
            let found = match self.net.interface_by_index(index).await {
                Ok(interface) => Some(interface),
                Err(NetError::NoIndex(_)) => None,
                Err(error) => return Err(error),
            };
            self.interfaces.insert(index, found);
        }
        Ok(self.interfaces.get(&index).and_then(Option::as_ref))
    }
}

/// How frames of a device leave the machine, as far down as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Egress {
    interface: u32,
    mac: Mac,
    mtu: u32,
    tags: Tags,
    /// The device below `interface`, which the frames enter next.
    lower: Option<u32>,
}

impl Egress {
    fn of(device: &Interface) -> Option<Egress> {
        let (interface, mtu) = (device.index, device.mtu);
        Egress { interface, mac: device.mac?, mtu, tags: Tags::NONE, lower: None }.enter(device)
    }

    /// None: `device` is down, is not Ethernet, or would add a tag too many. So a way down is never longer
    /// than its tags.
    fn enter(self, device: &Interface) -> Option<Egress> {
        if !device.up || device.mac.is_none() {
            return None;
        }
        let (tags, lower) = match device.carrier {
            Carrier::Itself => (self.tags, None),
            Carrier::Vlan { lower, tag } => (self.tags.within(tag)?, Some(lower)),
            Carrier::Elsewhere => return None,
        };
        Some(Egress { interface: device.index, tags, lower, ..self })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// None that packets could be forwarded on unchanged.
    None,
    Local,
    Link(LinkRoute),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkRoute {
    interface: u32,
    via: IpAddr,
    source: IpAddr,
    /// The route's own limit, beside the interface's.
    mtu: Option<u32>,
}

impl Route {
    pub(super) fn from_message(route: &RouteMessage, address: IpAddr) -> Route {
        match route.header.kind {
            RouteType::Local => return Route::Local,
            RouteType::Unicast => {}
            _ => return Route::None,
        }
        let (mut interface, mut via, mut source, mut mtu) = (None, address, unspecified(address), None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(gateway) => via = ip(gateway).unwrap_or(via),
                RouteAttribute::Via(RouteVia::Inet(gateway)) => via = IpAddr::V4(*gateway),
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => via = IpAddr::V6(*gateway),
                RouteAttribute::PrefSource(preferred) => source = ip(preferred).unwrap_or(source),
                RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(mtu_metric),
                // A tunnel, or a gateway that is no IP address: the plain frame would be wrong.
                RouteAttribute::Via(_) | RouteAttribute::EncapType(_) => return Route::None,
                _ => {}
            }
        }
        match interface {
            Some(interface) => Route::Link(LinkRoute { interface, via, source, mtu }),
            None => Route::None,
        }
    }
}

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Neighbour {
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
    pub(super) fn from_message(entry: &NeighbourMessage) -> Neighbour {
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

    pub(super) fn is_valid(self) -> bool {
        self.mac().is_some()
    }

    fn mac(self) -> Option<Mac> {
        match self {
            Neighbour::Absent | Neighbour::Incomplete | Neighbour::Failed => None,
            Neighbour::Stale(mac) | Neighbour::Valid(mac) => Some(mac),
        }
    }
}

fn mtu_metric(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        VlanProtocol,
    };

    use super::*;
    use crate::pure::hop::VlanTag;

    const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::Running);
    const CUSTOMER: VlanTag = VlanTag { protocol: 0x8100, id: 7 };
    const PROVIDER: VlanTag = VlanTag { protocol: 0x88a8, id: 4_094 };

    #[test]
    fn frames_of_a_vlan_device_leave_through_what_is_below_with_its_tag() {
        let chain = [vlan(5, 2, VlanProtocol::Ieee8021Q, 7), ethernet(2)];
        let egress = down(&chain).unwrap();
        assert_eq!((egress.interface, egress.mac, egress.mtu), (2, [2, 0, 0, 0, 0, 5], 1_005));
        assert_eq!(egress.tags, Tags::NONE.within(CUSTOMER).unwrap());
    }

    #[test]
    fn the_lowest_of_stacked_vlan_devices_has_the_outermost_tag() {
        let chain = [
            vlan(6, 5, VlanProtocol::Ieee8021Q, 7),
            vlan(5, 2, VlanProtocol::Ieee8021Ad, 4_094),
            ethernet(2),
        ];
        let egress = down(&chain).unwrap();
        assert_eq!((egress.interface, egress.mac), (2, [2, 0, 0, 0, 0, 6]));
        assert_eq!(egress.tags.iter().collect::<Vec<_>>(), [PROVIDER, CUSTOMER]);
    }

    #[test]
    fn frames_of_other_devices_leave_as_they_are() {
        // A veth names its peer as the device below.
        let mut veth = ethernet(3);
        veth.attributes.push(LinkAttribute::Link(9));
        veth.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
        let egress = down(&[veth]).unwrap();
        assert_eq!((egress.interface, egress.lower, egress.tags), (3, None, Tags::NONE));
    }

    #[test]
    fn unusable_ways_down_are_refused() {
        let tagged = |index, lower| vlan(index, lower, VlanProtocol::Ieee8021Q, 7);
        let with_down = |mut link: LinkMessage| {
            link.header.flags = LinkFlags::Up;
            link
        };
        let mut tunnel = ethernet(2);
        tunnel.header.link_layer_type = LinkLayerType::Tunnel;
        let mut elsewhere = tagged(5, 2);
        elsewhere.attributes.push(LinkAttribute::LinkNetNsId(0));
        let mut unnamed = tagged(5, 2);
        unnamed.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::Link(_)));
        let cases = [
            ("down", vec![with_down(ethernet(2))]),
            ("vlan down", vec![with_down(tagged(5, 2)), ethernet(2)]),
            ("lower down", vec![tagged(5, 2), with_down(ethernet(2))]),
            ("lower not ethernet", vec![tagged(5, 2), tunnel]),
            ("lower in another namespace", vec![elsewhere, ethernet(2)]),
            ("lower not told", vec![unnamed, ethernet(2)]),
            ("three tags", vec![tagged(7, 6), tagged(6, 5), tagged(5, 2), ethernet(2)]),
        ];
        for (name, chain) in cases {
            assert_eq!(down(&chain), None, "{name}");
        }
    }

    #[test]
    fn routes_that_take_more_than_a_frame_are_no_routes() {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let read = |attribute: RouteAttribute| {
            let mut route = RouteMessage::default();
            route.header.kind = RouteType::Unicast;
            route.attributes.extend([RouteAttribute::Oif(2), attribute]);
            Route::from_message(&route, address)
        };
        let tunnel = netlink_packet_route::route::RouteLwEnCapType::Ip6;
        assert_eq!(read(RouteAttribute::EncapType(tunnel)), Route::None);
        assert_eq!(read(RouteAttribute::Via(RouteVia::Packet(vec![2; 6]))), Route::None);
        let plain = LinkRoute { interface: 2, via: address, source: unspecified(address), mtu: None };
        let limit = RouteAttribute::Metrics(vec![RouteMetric::Advmss(1_000), RouteMetric::Mtu(1_300)]);
        assert_eq!(read(limit), Route::Link(LinkRoute { mtu: Some(1_300), ..plain }));
        assert_eq!(read(RouteAttribute::Priority(1)), Route::Link(plain));
    }

    fn down(chain: &[LinkMessage]) -> Option<Egress> {
        let devices: Vec<_> = chain.iter().map(Interface::from_link).collect();
        let egress = devices[1..].iter().try_fold(Egress::of(&devices[0])?, |egress, device| {
            assert_eq!(egress.lower, Some(device.index));
            egress.enter(device)
        })?;
        assert_eq!(egress.lower, None);
        Some(egress)
    }

    fn ethernet(index: u8) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index.into();
        link.header.flags = UP;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, index]));
        link.attributes.push(LinkAttribute::Mtu(1_000 + u32::from(index)));
        link
    }

    fn vlan(index: u8, lower: u32, protocol: VlanProtocol, id: u16) -> LinkMessage {
        let mut link = ethernet(index);
        let details = vec![InfoVlan::Protocol(protocol), InfoVlan::Id(id)];
        let data = LinkInfo::Data(InfoData::Vlan(details));
        link.attributes.push(LinkAttribute::Link(lower));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), data]));
        link
    }
}
