use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

use netlink_packet_route::route::RouteType;
use rtnetlink::LinkUnspec;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};

use super::{
    follow::{HopEvent, LinkEvent, LinkState, NetEvent, follow},
    *,
};
use crate::io::testbed::{Bed, FAR, NEAR, in_namespaces, set};

const BEHIND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);

#[test]
fn interfaces_are_described() {
    in_namespaces(async |bed| {
        let net = Net::new().unwrap();
        let near = until_up(&net, "near0").await;
        assert_eq!((near.index, near.mtu, near.xdp), (bed.near_index, 1_500, None));
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
    in_namespaces(async |bed| {
        let net = Net::new().unwrap();
        until_up(&net, "near0").await;
        bed.add_route(BEHIND, 32, RouteType::Unicast).await;
        let refused = [
            (Ipv4Addr::new(203, 0, 113, 1), RouteType::BlackHole),
            (Ipv4Addr::new(203, 0, 113, 2), RouteType::Unreachable),
            (Ipv4Addr::new(203, 0, 113, 3), RouteType::Prohibit),
        ];
        for (address, kind) in refused {
            bed.add_route(address, 32, kind).await;
            assert_eq!(net.resolve(address).await.unwrap(), Reach::NoRoute, "{kind:?}");
        }
        assert_eq!(net.resolve(NEAR).await.unwrap(), Reach::Local);
        assert_eq!(net.resolve(Ipv4Addr::LOCALHOST).await.unwrap(), Reach::Local);
        assert_eq!(net.resolve(Ipv4Addr::new(192, 0, 2, 1)).await.unwrap(), Reach::NoRoute);
        assert_eq!(net.resolve(Ipv4Addr::new(10, 77, 0, 255)).await.unwrap(), Reach::NoRoute);

        let on_link = NextHop {
            interface: bed.near_index,
            interface_mac: net.interface("near0").await.unwrap().mac.unwrap(),
            source: NEAR,
            via: FAR,
            neighbour: None,
        };
        assert_eq!(net.resolve(FAR).await.unwrap(), Reach::Hop(on_link));
        assert_eq!(net.resolve(BEHIND).await.unwrap(), Reach::Hop(on_link));
        bed.add_neighbour(FAR, [2, 0, 0, 0, 0, 9]).await;
        let resolved = NextHop { neighbour: Some([2, 0, 0, 0, 0, 9]), ..on_link };
        assert_eq!(net.resolve(BEHIND).await.unwrap(), Reach::Hop(resolved));
    });
}

#[test]
fn an_unresolved_neighbour_is_solved_by_probing() {
    in_namespaces(async |bed| {
        let far_mac = far_mac(&bed).await;
        let mut followed = Followed::start([FAR, NEAR], []);
        followed.until_hop(FAR, |reach| neighbour(reach) == Some(far_mac)).await;
        followed.stop().await;
    });
}

#[test]
fn a_neighbour_that_comes_late_is_found() {
    in_namespaces(async |bed| {
        let mut followed = Followed::start([NOBODY], []);
        followed
            .until_hop(NOBODY, |reach| matches!(reach, Reach::Hop(_)) && neighbour(reach).is_none())
            .await;
        bed.far.address().add(bed.far_index, NOBODY.into(), 24).execute().await.unwrap();
        let far_mac = far_mac(&bed).await;
        followed.until_hop(NOBODY, |reach| neighbour(reach) == Some(far_mac)).await;
        followed.stop().await;
    });
}

#[test]
fn a_neighbour_that_leaves_is_reported() {
    in_namespaces(async |bed| {
        let mut followed = Followed::start([FAR], []);
        followed.until_hop(FAR, |reach| neighbour(reach).is_some()).await;
        bed.far.address().del(address_of(&bed).await).execute().await.unwrap();
        bed.forget_neighbour(FAR).await;
        followed.until_hop(FAR, |reach| matches!(reach, Reach::Hop(_)) && neighbour(reach).is_none()).await;
        followed.stop().await;
    });
}

#[test]
fn a_changed_mac_is_followed() {
    in_namespaces(async |bed| {
        let mut followed = Followed::start([FAR, BEHIND], []);
        bed.add_route(BEHIND, 32, RouteType::Unicast).await;
        let far_mac = far_mac(&bed).await;
        followed.until_hop(FAR, |reach| neighbour(reach) == Some(far_mac)).await;
        let new_mac = [2, 0, 0, 0, 0, 7];
        set(&bed.far, LinkUnspec::new_with_index(bed.far_index).address(new_mac.to_vec())).await;
        followed.until_hop(FAR, |reach| neighbour(reach) == Some(new_mac)).await;
        followed.until_hop(BEHIND, |reach| neighbour(reach) == Some(new_mac)).await;
        followed.stop().await;
    });
}

#[test]
fn a_stale_neighbour_is_confirmed_or_replaced() {
    in_namespaces(async |bed| {
        for (name, value) in [("delay_first_probe_time", "1"), ("ucast_solicit", "1")] {
            fs::write(format!("/proc/sys/net/ipv4/neigh/near0/{name}"), value).unwrap();
        }
        let old_mac = [2, 0, 0, 0, 0, 8];
        let entry = bed.near.neighbours().add(bed.near_index, FAR.into()).state(NeighbourState::Stale);
        entry.link_layer_address(&old_mac).execute().await.unwrap();
        let far_mac = far_mac(&bed).await;
        let mut followed = Followed::start([FAR], []);
        followed.until_hop(FAR, |reach| neighbour(reach) == Some(old_mac)).await;
        followed.until_hop(FAR, |reach| neighbour(reach) == Some(far_mac)).await;
        followed.stop().await;
    });
}

#[test]
fn a_forgotten_neighbour_keeps_its_mac_while_the_kernel_asks_again() {
    in_namespaces(async |bed| {
        let net = Net::new().unwrap();
        let mut followed = Followed::start([FAR], []);
        let resolved = followed.until_hop(FAR, |reach| neighbour(reach).is_some()).await;
        bed.forget_neighbour(FAR).await;
        until(async || net.resolve(FAR).await.unwrap() == resolved).await;
        followed.addresses.send_modify(|addresses| {
            addresses.insert(NEAR);
        });
        assert_eq!(followed.next().await, NetEvent::Hop(HopEvent { address: NEAR, reach: Reach::Local }));
        followed.stop().await;
    });
}

#[test]
fn routes_are_followed() {
    in_namespaces(async |bed| {
        let mut followed = Followed::start([BEHIND], []);
        followed.until_hop(BEHIND, |reach| reach == Reach::NoRoute).await;
        let route = bed.add_route(Ipv4Addr::new(198, 51, 100, 0), 24, RouteType::Unicast).await;
        let reach = followed.until_hop(BEHIND, |reach| neighbour(reach).is_some()).await;
        assert!(matches!(reach, Reach::Hop(NextHop { via: FAR, source: NEAR, .. })));
        bed.near.route().del(route).execute().await.unwrap();
        followed.until_hop(BEHIND, |reach| reach == Reach::NoRoute).await;
        followed.stop().await;
    });
}

#[test]
fn links_are_followed() {
    in_namespaces(async |bed| {
        let index = bed.near_index;
        let mut followed = Followed::start([FAR], ["near0", "eht0"]);
        followed.until_link("near0", LinkState::Up { index }).await;
        followed.until_link("eht0", LinkState::Absent).await;
        followed.until_hop(FAR, |reach| neighbour(reach).is_some()).await;

        set(&bed.far, LinkUnspec::new_with_index(bed.far_index).down()).await;
        followed.until_hop(FAR, |reach| reach == Reach::LinkUnusable).await;
        set(&bed.far, LinkUnspec::new_with_index(bed.far_index).up()).await;
        followed.until_hop(FAR, |reach| neighbour(reach).is_some()).await;

        set(&bed.near, LinkUnspec::new_with_index(index).down()).await;
        followed.until_link("near0", LinkState::Down { index }).await;
        bed.near.link().del(index).execute().await.unwrap();
        followed.until_link("near0", LinkState::Absent).await;
        assert_eq!(Net::new().unwrap().resolve(FAR).await.unwrap(), Reach::NoRoute);
        followed.stop().await;
    });
}

#[test]
fn an_address_that_leaves_and_returns_is_told_again() {
    in_namespaces(async |_| {
        let mut followed = Followed::start([NEAR], []);
        followed.until_hop(NEAR, |reach| reach == Reach::Local).await;
        followed.addresses.send_replace(BTreeSet::from([Ipv4Addr::LOCALHOST]));
        followed.until_hop(Ipv4Addr::LOCALHOST, |reach| reach == Reach::Local).await;
        followed.reaches.clear();
        followed.addresses.send_replace(BTreeSet::from([NEAR]));
        followed.until_hop(NEAR, |reach| reach == Reach::Local).await;
        followed.stop().await;
    });
}

/// A follower, and what it told last.
struct Followed {
    addresses: watch::Sender<BTreeSet<Ipv4Addr>>,
    events: mpsc::Receiver<NetEvent>,
    task: JoinHandle<()>,
    reaches: BTreeMap<Ipv4Addr, Reach>,
    links: BTreeMap<String, LinkState>,
}

impl Followed {
    fn start<const A: usize, const I: usize>(addresses: [Ipv4Addr; A], interfaces: [&str; I]) -> Followed {
        let (addresses, watched) = watch::channel(BTreeSet::from(addresses));
        // One place: the follower must cope with a slow reader.
        let (sender, events) = mpsc::channel(1);
        let interfaces = interfaces.into_iter().map(str::to_owned).collect();
        let task = tokio::spawn(follow(watched, interfaces, sender));
        Followed { addresses, events, task, reaches: BTreeMap::new(), links: BTreeMap::new() }
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

    async fn until_hop(&mut self, address: Ipv4Addr, is: impl Fn(Reach) -> bool) -> Reach {
        loop {
            if let Some(reach) = self.reaches.get(&address).copied().filter(|reach| is(*reach)) {
                return reach;
            }
            self.next().await;
        }
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

fn neighbour(reach: Reach) -> Option<Mac> {
    match reach {
        Reach::Hop(hop) => hop.neighbour,
        Reach::NoRoute | Reach::Local | Reach::LinkUnusable => None,
    }
}

async fn far_mac(bed: &Bed) -> Mac {
    let mut links = pin!(bed.far.link().get().match_index(bed.far_index).execute());
    Interface::from_link(&links.next().await.unwrap().unwrap()).mac.unwrap()
}

async fn address_of(bed: &Bed) -> netlink_packet_route::address::AddressMessage {
    let addresses = bed.far.address().get().set_link_index_filter(bed.far_index).execute();
    let addresses: Vec<_> = addresses.try_collect().await.unwrap();
    addresses.into_iter().find(|address| address.header.family == AddressFamily::Inet).unwrap()
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
