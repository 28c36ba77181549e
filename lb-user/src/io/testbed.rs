//! Two network namespaces joined by a veth pair, for tests: `near` is where the test runs, `far` is a server.
//!
//! ```text
//! near0 10.77.0.1/24 ── veth ── far0 10.77.0.2/24
//! ```
//!
//! Both belong to a thread of their own and vanish with it.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    link::LinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage},
    route::{RouteMessage, RouteType},
};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::{net::TcpListener, runtime, task::JoinSet, time};

use crate::pure::hop::Mac;

pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
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

pub(crate) fn in_namespaces(test: impl AsyncFnOnce(Bed) + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces and needs root: run `cargo test` as root"
    );
    let body = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { time::timeout(DEADLINE, async { test(Bed::new().await).await }).await };
        runtime.block_on(limited).expect("the test ends before its deadline");
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

impl Bed {
    async fn new() -> Bed {
        let mut connections = JoinSet::new();
        let far = namespace(&mut connections);
        let far_namespace = File::open("/proc/thread-self/ns/net").unwrap();
        // A changed MAC is announced, as after a fail-over.
        fs::write("/proc/sys/net/ipv4/conf/all/arp_notify", "1").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, FAR_PORT)).await.unwrap();

        let near = namespace(&mut connections);
        near.link().add(LinkVeth::new("near0", "far0").build()).execute().await.unwrap();
        let moved = LinkUnspec::new_with_name("far0").setns_by_fd(far_namespace.as_raw_fd()).build();
        near.link().set(moved).execute().await.unwrap();
        let near_index = index(&near, "near0").await;
        let far_index = index(&far, "far0").await;
        near.address().add(near_index, NEAR.into(), 24).execute().await.unwrap();
        far.address().add(far_index, FAR.into(), 24).execute().await.unwrap();
        for (handle, index) in [(&near, 1), (&near, near_index), (&far, far_index)] {
            set(handle, LinkUnspec::new_with_index(index).up()).await;
        }
        Bed { near, far, near_index, far_index, _listener: listener, _connections: connections }
    }

    pub(crate) async fn add_neighbour(&self, address: Ipv4Addr, mac: Mac) {
        let entry = self.near.neighbours().add(self.near_index, address.into());
        entry.link_layer_address(&mac).replace().execute().await.unwrap();
    }

    pub(crate) async fn forget_neighbour(&self, address: Ipv4Addr) {
        let mut entry = NeighbourMessage::default();
        entry.header.family = netlink_packet_route::AddressFamily::Inet;
        entry.header.ifindex = self.near_index;
        entry.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.near.neighbours().del(entry).execute().await.unwrap();
    }

    pub(crate) async fn add_route(&self, network: Ipv4Addr, length: u8, kind: RouteType) -> RouteMessage {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network, length).kind(kind);
        let route = if kind == RouteType::Unicast { route.gateway(FAR) } else { route }.build();
        self.near.route().add(route.clone()).execute().await.unwrap();
        route
    }
}

pub(crate) async fn set(handle: &Handle, link: LinkMessageBuilder<LinkUnspec>) {
    handle.link().set(link.build()).execute().await.unwrap();
}

/// Puts the thread into a new namespace; the handle stays in it wherever the thread goes.
fn namespace(connections: &mut JoinSet<()>) -> Handle {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    connections.spawn(connection);
    handle
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let links: Vec<LinkMessage> = handle.link().get().match_name(name).execute().try_collect().await.unwrap();
    links[0].header.index
}

const DEADLINE: Duration = Duration::from_secs(30);
