//! Two network namespaces joined by a veth pair, for tests: `near` is where the test runs, `far` is a server.
//!
//! ```text
//! near0 10.77.0.1/24, fd77::1/64 ── veth ── far0 10.77.0.2/24, fd77::2/64
//! ```
//!
//! Both belong to a thread of their own and vanish with it.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressHeaderFlags},
    link::LinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage},
    route::{RouteMessage, RouteType},
};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::{net::TcpListener, runtime, task::JoinSet, time};

use crate::pure::hop::Mac;

/// Who is who, in one family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) near: IpAddr,
    pub(crate) far: IpAddr,
    /// On the link, and nobody's.
    pub(crate) nobody: IpAddr,
    /// Not on the link.
    pub(crate) behind: IpAddr,
    /// The network of `behind`, as long as that of the link.
    pub(crate) beyond: IpAddr,
    /// Prefix lengths: of the link, and of one host.
    pub(crate) link: u8,
    pub(crate) host: u8,
}

pub(crate) const V4: Addresses = Addresses {
    near: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    far: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)),
    nobody: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99)),
    behind: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    beyond: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)),
    link: 24,
    host: 32,
};

pub(crate) const V6: Addresses = Addresses {
    near: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
    far: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)),
    nobody: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x99)),
    behind: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    beyond: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)),
    link: 64,
    host: 128,
};

pub(crate) const FAR_PORT: u16 = 8_080;

pub(crate) struct Bed {
    pub(crate) near: Handle,
    pub(crate) far: Handle,
    pub(crate) near_index: u32,
    pub(crate) far_index: u32,
    /// Accepts in the kernel: nobody takes the connections out of the backlog.
    _listener: TcpListener,
    _connections: JoinSet<()>,
}

pub(crate) fn in_either_family(test: impl AsyncFn(Bed, Addresses) + Sync) {
    for who in [V4, V6] {
        println!("with {who:?}");
        in_namespaces(async |bed| test(bed, who).await);
    }
}

pub(crate) fn in_namespaces(test: impl AsyncFnOnce(Bed) + Send) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces and needs root: run `cargo test` as root"
    );
    let body = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { time::timeout(DEADLINE, async { test(Bed::new().await).await }).await };
        runtime.block_on(limited).expect("the test ends before its deadline");
    };
    if let Err(panic) = thread::scope(|scope| scope.spawn(body).join()) {
        std::panic::resume_unwind(panic);
    }
}

impl Bed {
    async fn new() -> Bed {
        let mut connections = JoinSet::new();
        let far = namespace(&mut connections);
        let far_namespace = File::open("/proc/thread-self/ns/net").unwrap();
        // A changed MAC is announced, as after a fail-over.
        set_sysctl("net/ipv4/conf/all/arp_notify", "1");
        set_sysctl("net/ipv6/conf/all/ndisc_notify", "1");
        // Serves both families.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, FAR_PORT)).await.unwrap();

        let near = namespace(&mut connections);
        near.link().add(LinkVeth::new("near0", "far0").build()).execute().await.unwrap();
        let moved = LinkUnspec::new_with_name("far0").setns_by_fd(far_namespace.as_raw_fd()).build();
        near.link().set(moved).execute().await.unwrap();
        let near_index = index(&near, "near0").await;
        let far_index = index(&far, "far0").await;
        for who in [V4, V6] {
            add_address(&near, near_index, who.near, who.link).await;
            add_address(&far, far_index, who.far, who.link).await;
        }
        for (handle, index) in [(&near, 1), (&near, near_index), (&far, far_index)] {
            set(handle, LinkUnspec::new_with_index(index).up()).await;
        }
        Bed { near, far, near_index, far_index, _listener: listener, _connections: connections }
    }

    pub(crate) async fn add_near_address(&self, address: IpAddr, length: u8) {
        add_address(&self.near, self.near_index, address, length).await;
    }

    pub(crate) async fn add_far_address(&self, address: IpAddr, length: u8) {
        add_address(&self.far, self.far_index, address, length).await;
    }

    pub(crate) async fn add_neighbour(&self, address: IpAddr, mac: Mac) {
        let entry = self.near.neighbours().add(self.near_index, address);
        entry.link_layer_address(&mac).replace().execute().await.unwrap();
    }

    pub(crate) async fn forget_neighbour(&self, address: IpAddr) {
        let mut entry = NeighbourMessage::default();
        entry.header.family = family(address);
        entry.header.ifindex = self.near_index;
        entry.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.near.neighbours().del(entry).execute().await.unwrap();
    }

    /// A route from the near side: through `gateway`, unless it leads nowhere.
    pub(crate) fn route(
        &self,
        network: IpAddr,
        length: u8,
        kind: RouteType,
        gateway: IpAddr,
    ) -> RouteMessage {
        let route =
            RouteMessageBuilder::<IpAddr>::new().destination_prefix(network, length).unwrap().kind(kind);
        if kind != RouteType::Unicast {
            return route.build();
        }
        route.gateway(gateway).unwrap().output_interface(self.near_index).build()
    }

    /// Adds it, or replaces the one to the same prefix.
    pub(crate) async fn install(&self, route: RouteMessage) {
        self.near.route().add(route).replace().execute().await.unwrap();
    }
}

pub(crate) async fn add_address(handle: &Handle, index: u32, address: IpAddr, length: u8) {
    let mut request = handle.address().add(index, address, length);
    // Usable at once: nobody waits for a duplicate to object.
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    request.execute().await.unwrap();
}

pub(crate) async fn remove_address(handle: &Handle, address: IpAddr) {
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.unwrap();
    let mut addresses = addresses.into_iter();
    let found = addresses.find(|known| known.attributes.contains(&AddressAttribute::Address(address)));
    handle.address().del(found.unwrap()).execute().await.unwrap();
}

pub(crate) async fn set(handle: &Handle, link: LinkMessageBuilder<LinkUnspec>) {
    handle.link().set(link.build()).execute().await.unwrap();
}

/// Puts the thread into a new namespace; the handle stays in it wherever the thread goes.
fn namespace(connections: &mut JoinSet<()>) -> Handle {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    // IPv6 like IPv4: link-local addresses are usable at once, and a link that goes down keeps its addresses.
    set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    set_sysctl("net/ipv6/conf/all/keep_addr_on_down", "1");
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    connections.spawn(connection);
    handle
}

/// A neighbour on the link that does not answer is found missing in a fraction of a second instead of three.
pub(crate) fn give_up_early() {
    for family in ["ipv4", "ipv6"] {
        set_sysctl(&format!("net/{family}/neigh/near0/retrans_time_ms"), "50");
    }
}

/// In the namespace of the thread.
pub(crate) fn set_sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let links: Vec<LinkMessage> = handle.link().get().match_name(name).execute().try_collect().await.unwrap();
    links[0].header.index
}

const DEADLINE: Duration = Duration::from_secs(30);
