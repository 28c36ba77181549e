use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use netlink_packet_route::route::{RouteMetric, RouteType};
use rtnetlink::LinkUnspec;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};

use super::{
    follow::{HopEvent, LinkEvent, LinkState, NetEvent, Watched, follow},
    *,
};
use crate::{
    io::testbed::{Bed, V4, V6, in_either_family, in_namespaces, remove_address, set, set_sysctl},
    pure::hop::{NextHop, Tags},
};

#[test]
fn interfaces_are_described() {
    in_namespaces(async |bed| {
        let net = Net::new().unwrap();
        let near = until_up(&net, "near0").await;
        assert_eq!((near.index, near.mtu, near.xdp), (bed.near_index, 1_500, None));
        assert_eq!(near.carrier, Carrier::Itself);
        assert_ne!(near.mac.unwrap(), [0; 6]);
        assert_eq!(net.interface_by_index(bed.near_index).await.unwrap(), near);
        assert_eq!(net.interface("lo").await.unwrap().mac, None);
    });
}

#[test]
fn an_unknown_interface_is_named_beside_those_that_exist() {
    in_namespaces(async |_| {
        let net = Net::new().unwrap();
        let message = net.interface("eht0").await.unwrap_err().to_string();
        assert_eq!(message, "no interface `eht0`; this machine has lo, near0: correct [datapath] interfaces");
        let message = net.interface("a-name-longer-than-fifteen").await.unwrap_err().to_string();
        assert!(message.starts_with("no interface `a-name-longer-than-fifteen`; this machine has lo"));
        assert!(matches!(net.interface_by_index(999).await, Err(NetError::NoIndex(999))));
    });
}

#[test]
fn addresses_resolve_as_the_kernel_routes_them() {
    in_either_family(async |bed, who| {
        let net = Net::new().unwrap();
        until_up(&net, "near0").await;
        // The kernel enters an IPv6 address into its routes a moment after the link came up.
        until(async || net.resolve(who.near).await.unwrap() == Reach::Local).await;
        let kinds = [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit, RouteType::Throw];
        for kind in kinds {
            bed.install(bed.route(who.behind, who.host, kind, who.far)).await;
            assert_eq!(net.resolve(who.behind).await.unwrap(), Reach::NoRoute, "{kind:?}");
            bed.near.route().del(bed.route(who.behind, who.host, kind, who.far)).execute().await.unwrap();
        }
        assert_eq!(net.resolve(who.behind).await.unwrap(), Reach::NoRoute);
        let on_link = NextHop {
            interface: bed.near_index,
            interface_mac: net.interface("near0").await.unwrap().mac.unwrap(),
            source: who.near,
            via: who.far,
            neighbour: None,
            mtu: 1_500,
            tags: Tags::NONE,
        };
        bed.install(bed.route(who.behind, who.host, RouteType::Unicast, who.far)).await;
        assert_eq!(net.resolve(who.far).await.unwrap(), Reach::Hop(on_link));
        assert_eq!(net.resolve(who.behind).await.unwrap(), Reach::Hop(on_link));
        bed.add_neighbour(who.far, [2, 0, 0, 0, 0, 9]).await;
        let resolved = NextHop { neighbour: Some([2, 0, 0, 0, 0, 9]), ..on_link };
        assert_eq!(net.resolve(who.behind).await.unwrap(), Reach::Hop(resolved));
    });
}

#[test]
fn addresses_that_no_server_can_have_are_not_reached() {
    in_namespaces(async |_| {
        let net = Net::new().unwrap();
        until_up(&net, "near0").await;
        let cases = [
            ("127.0.0.1", Reach::Local),
            ("10.77.0.255", Reach::NoRoute),
            ("224.0.0.1", Reach::NoRoute),
            ("::1", Reach::Local),
            ("ff02::1", Reach::NoRoute),
        ];
        for (address, reach) in cases {
            assert_eq!(net.resolve(address.parse().unwrap()).await.unwrap(), reach, "{address}");
        }
    });
}

#[test]
fn an_unresolved_neighbour_is_solved_by_probing() {
    in_either_family(async |bed, who| {
        let far_mac = far_mac(&bed).await;
        let mut followed = Followed::start([who.far, who.near], []);
        followed.until_neighbour(who.far, far_mac).await;
        followed.stop().await;
    });
}

#[test]
fn a_neighbour_that_comes_late_is_found() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.nobody], []);
        followed.until_hop(who.nobody, |hop| hop.neighbour.is_none()).await;
        bed.add_far_address(who.nobody, who.link).await;
        followed.until_neighbour(who.nobody, far_mac(&bed).await).await;
        followed.stop().await;
    });
}

#[test]
fn a_neighbour_that_leaves_is_reported() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.far], []);
        followed.until_hop(who.far, |hop| hop.neighbour.is_some()).await;
        remove_address(&bed.far, who.far).await;
        bed.forget_neighbour(who.far).await;
        followed.until_hop(who.far, |hop| hop.neighbour.is_none()).await;
        followed.stop().await;
    });
}

#[test]
fn a_changed_mac_is_followed() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.far, who.behind], []);
        bed.install(bed.route(who.behind, who.host, RouteType::Unicast, who.far)).await;
        followed.until_neighbour(who.far, far_mac(&bed).await).await;
        let new_mac = [2, 0, 0, 0, 0, 7];
        set(&bed.far, LinkUnspec::new_with_index(bed.far_index).address(new_mac.to_vec())).await;
        followed.until_neighbour(who.far, new_mac).await;
        followed.until_neighbour(who.behind, new_mac).await;
        followed.stop().await;
    });
}

#[test]
fn a_stale_neighbour_is_confirmed_or_replaced() {
    in_either_family(async |bed, who| {
        let family = if who.far.is_ipv4() { "ipv4" } else { "ipv6" };
        for (name, value) in [("delay_first_probe_time", "1"), ("ucast_solicit", "1")] {
            set_sysctl(&format!("net/{family}/neigh/near0/{name}"), value);
        }
        let old_mac = [2, 0, 0, 0, 0, 8];
        let entry = bed.near.neighbours().add(bed.near_index, who.far).state(NeighbourState::Stale);
        entry.link_layer_address(&old_mac).replace().execute().await.unwrap();
        let mut followed = Followed::start([who.far], []);
        followed.until_neighbour(who.far, old_mac).await;
        followed.until_neighbour(who.far, far_mac(&bed).await).await;
        followed.stop().await;
    });
}

#[test]
fn a_forgotten_neighbour_keeps_its_mac_while_the_kernel_asks_again() {
    in_either_family(async |bed, who| {
        let net = Net::new().unwrap();
        let mut followed = Followed::start([who.far], []);
        let resolved = followed.until_hop(who.far, |hop| hop.neighbour.is_some()).await;
        bed.forget_neighbour(who.far).await;
        until(async || net.resolve(who.far).await.unwrap() == Reach::Hop(resolved)).await;
        followed.wanted.send_modify(|Watched { addresses, .. }| {
            addresses.insert(who.near);
        });
        let next = NetEvent::Hop(HopEvent { address: who.near, reach: Reach::Local });
        assert_eq!(followed.next().await, next);
        followed.stop().await;
    });
}

#[test]
fn routes_are_followed() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.behind], []);
        followed.until(who.behind, |reach| reach == Reach::NoRoute).await;
        bed.install(bed.route(who.beyond, who.link, RouteType::Unicast, who.far)).await;
        let hop = followed.until_hop(who.behind, |hop| hop.neighbour.is_some()).await;
        assert_eq!((hop.via, hop.source), (who.far, who.near));

        bed.add_far_address(who.nobody, who.link).await;
        let other = bed.route(who.beyond, who.link, RouteType::Unicast, who.nobody);
        bed.install(other.clone()).await;
        let hop = followed.until_hop(who.behind, |hop| hop.via != who.far && hop.neighbour.is_some()).await;
        assert_eq!(hop.via, who.nobody);

        bed.near.route().del(other).execute().await.unwrap();
        followed.until(who.behind, |reach| reach == Reach::NoRoute).await;
        followed.stop().await;
    });
}

#[test]
fn a_route_says_the_source_address() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.behind], []);
        bed.install(bed.route(who.behind, who.host, RouteType::Unicast, who.far)).await;
        followed.until_hop(who.behind, |hop| hop.source == who.near).await;
        bed.add_near_address(who.nobody, who.host).await;
        let mut route = bed.route(who.behind, who.host, RouteType::Unicast, who.far);
        route.attributes.push(RouteAttribute::PrefSource(who.nobody.into()));
        bed.install(route).await;
        followed.until_hop(who.behind, |hop| hop.source == who.nobody).await;
        followed.stop().await;
    });
}

#[test]
fn a_removed_address_takes_its_routes_along() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.near, who.far], []);
        followed.until(who.near, |reach| reach == Reach::Local).await;
        followed.until_hop(who.far, |hop| hop.source == who.near).await;
        remove_address(&bed.near, who.near).await;
        followed.until(who.near, |reach| reach == Reach::NoRoute).await;
        followed.until(who.far, |reach| reach == Reach::NoRoute).await;
        followed.stop().await;
    });
}

#[test]
fn the_smaller_mtu_of_interface_and_route_counts() {
    in_either_family(async |bed, who| {
        let mut followed = Followed::start([who.far, who.behind], []);
        let mut route = bed.route(who.behind, who.host, RouteType::Unicast, who.far);
        route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1_400)]));
        bed.install(route).await;
        followed.until_hop(who.far, |hop| hop.mtu == 1_500).await;
        followed.until_hop(who.behind, |hop| hop.mtu == 1_400).await;
        set(&bed.near, LinkUnspec::new_with_index(bed.near_index).mtu(1_300)).await;
        followed.until_hop(who.far, |hop| hop.mtu == 1_300).await;
        followed.until_hop(who.behind, |hop| hop.mtu == 1_300).await;
        followed.stop().await;
    });
}

#[test]
fn a_link_local_router_is_a_gateway() {
    in_namespaces(async |bed| {
        let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2).into();
        bed.add_far_address(router, 64).await;
        let mut followed = Followed::start([V6.behind], []);
        let everything = Ipv6Addr::UNSPECIFIED.into();
        bed.install(bed.route(everything, 0, RouteType::Unicast, router)).await;
        let hop = followed.until_neighbour(V6.behind, far_mac(&bed).await).await;
        assert_eq!((hop.interface, hop.via, hop.source), (bed.near_index, router, V6.near));
        followed.stop().await;
    });
}

#[test]
fn an_ipv6_router_is_a_gateway_for_ipv4() {
    in_namespaces(async |bed| {
        let mut followed = Followed::start([V4.behind], []);
        bed.install(bed.route(V4.behind, 32, RouteType::Unicast, V6.far)).await;
        let hop = followed.until_neighbour(V4.behind, far_mac(&bed).await).await;
        assert_eq!((hop.via, hop.source), (V6.far, V4.near));
        followed.stop().await;
    });
}

#[test]
fn links_are_followed() {
    in_either_family(async |bed, who| {
        let index = bed.near_index;
        let mut followed = Followed::start([who.far], ["near0", "eht0"]);
        followed.until_link("near0", LinkState::Up { index }).await;
        followed.until_link("eht0", LinkState::Absent).await;
        followed.until_hop(who.far, |hop| hop.neighbour.is_some()).await;

        set(&bed.far, LinkUnspec::new_with_index(bed.far_index).down()).await;
        followed.until(who.far, |reach| reach == Reach::LinkUnusable).await;
        set(&bed.far, LinkUnspec::new_with_index(bed.far_index).up()).await;
        followed.until_hop(who.far, |hop| hop.neighbour.is_some()).await;

        set(&bed.near, LinkUnspec::new_with_index(index).down()).await;
        followed.until_link("near0", LinkState::Down { index }).await;
        set(&bed.near, LinkUnspec::new_with_index(index).up()).await;
        followed.until_link("near0", LinkState::Up { index }).await;
        followed.until_hop(who.far, |hop| hop.neighbour.is_some()).await;

        bed.near.link().del(index).execute().await.unwrap();
        followed.until_link("near0", LinkState::Absent).await;
        assert_eq!(Net::new().unwrap().resolve(who.far).await.unwrap(), Reach::NoRoute);
        followed.stop().await;
    });
}

#[test]
fn an_address_that_leaves_and_returns_is_told_again() {
    in_namespaces(async |_| {
        let (first, second) = (V4.near, Ipv4Addr::LOCALHOST.into());
        let mut followed = Followed::start([first], []);
        followed.until(first, |reach| reach == Reach::Local).await;
        followed.wanted.send_modify(|wanted| wanted.addresses = [second].into());
        followed.until(second, |reach| reach == Reach::Local).await;
        followed.reaches.clear();
        followed.wanted.send_modify(|wanted| wanted.addresses = [first].into());
        followed.until(first, |reach| reach == Reach::Local).await;
        followed.stop().await;
    });
}

/// A follower, and what it told last.
struct Followed {
    wanted: watch::Sender<Watched>,
    events: mpsc::Receiver<NetEvent>,
    task: JoinHandle<()>,
    reaches: BTreeMap<IpAddr, Reach>,
    links: BTreeMap<String, LinkState>,
}

impl Followed {
    fn start<const A: usize, const I: usize>(addresses: [IpAddr; A], interfaces: [&str; I]) -> Followed {
        let interfaces = interfaces.into_iter().map(str::to_owned).collect();
        let (wanted, watched) = watch::channel(Watched { addresses: addresses.into(), interfaces });
        // One place: the follower must cope with a slow reader.
        let (sender, events) = mpsc::channel(1);
        let task = tokio::spawn(follow(watched, sender));
        Followed { wanted, events, task, reaches: BTreeMap::new(), links: BTreeMap::new() }
    }

    async fn next(&mut self) -> NetEvent {
        let event = self.events.recv().await.expect("the follower runs");
        match &event {
            NetEvent::Hop(HopEvent { address, reach }) => {
                self.reaches.insert(*address, *reach);
            }
            NetEvent::Link(LinkEvent { name, state }) => {
                self.links.insert(name.clone(), *state);
            }
        }
        event
    }

    async fn until(&mut self, address: IpAddr, is: impl Fn(Reach) -> bool) {
        while !self.reaches.get(&address).copied().is_some_and(&is) {
            self.next().await;
        }
    }

    async fn until_hop(&mut self, address: IpAddr, is: impl Fn(NextHop) -> bool) -> NextHop {
        loop {
            match self.reaches.get(&address) {
                Some(Reach::Hop(hop)) if is(*hop) => return *hop,
                _ => self.next().await,
            };
        }
    }

    async fn until_neighbour(&mut self, address: IpAddr, mac: Mac) -> NextHop {
        self.until_hop(address, |hop| hop.neighbour == Some(mac)).await
    }

    async fn until_link(&mut self, name: &str, state: LinkState) {
        while self.links.get(name) != Some(&state) {
            self.next().await;
        }
    }

    /// The follower ends when nobody listens any more.
    async fn stop(self) {
        drop(self.events);
        self.task.await.unwrap();
    }
}

async fn far_mac(bed: &Bed) -> Mac {
    let mut links = pin!(bed.far.link().get().match_index(bed.far_index).execute());
    Interface::from_link(&links.next().await.unwrap().unwrap()).mac.unwrap()
}

async fn until_up(net: &Net, name: &str) -> Interface {
    until(async || net.interface(name).await.unwrap().up).await;
    net.interface(name).await.unwrap()
}

/// Polls; the test bed's deadline ends it.
async fn until(is: impl AsyncFn() -> bool) {
    let mut poll = time::interval(Duration::from_millis(2));
    while !is().await {
        poll.tick().await;
    }
}
