//! Nodes that share addresses: two or more on one bridge, with a client and servers beside them.
//!
//! ```text
//!     client ──┐
//!     web1.. ──┤ front ├── a      the nodes: what runs on them is the caller's
//!              │       ├── b
//!              └───────┴── c
//! ```
//!
//! Owns the cabling, and how a node is cut off. Must not know who may have an address.

use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use tempfile::TempDir;

use super::{
    Arms, Family, Forward, Host, Layout, Namespace, Server, Steelyard, client::ping, janitor, layout::FRONT,
    poll, switch::Switch,
};

pub struct Pair {
    pub nodes: Vec<Host>,
    pub client: Host,
    /// `web1`, `web2`, ... which answer for the VIPs of `dsr`, too.
    pub servers: Vec<Server>,
    /// Where the bridge is.
    pub switch: Namespace,
    _passes: Vec<OwnedFd>,
    tag: String,
    files: TempDir,
}

impl Pair {
    /// Builds everything and starts the servers; nodes run nothing yet.
    pub fn new(nodes: usize, servers: u8) -> Result<Pair> {
        ensure!((1..=NODES.len()).contains(&nodes), "a pair has 1 to {} nodes", NODES.len());
        let tag = janitor::fresh_tag()?;
        let files = janitor::files(&tag)?;
        let layout = Layout { servers, ..Layout::new(Arms::One, Forward::Dsr) };
        let switch = Switch::create(&tag)?;
        let mut hosts = Vec::new();
        let mut passes = Vec::new();
        for (name, last) in &NODES[..nodes] {
            let host = switch.host(name, FRONT, *last)?;
            switch.plug(&host.namespace, INTERFACE, FRONT, *last)?;
            passes.push(switch.pass_to(FRONT, *last)?);
            fs::create_dir(files.path().join(name))?;
            hosts.push(host);
        }
        let client = switch.client(layout)?;
        let servers =
            (1..=servers).map(|number| switch.server(layout, number, files.path())).collect::<Result<_>>()?;
        let pair =
            Pair { nodes: hosts, client, servers, switch: switch.namespace, _passes: passes, tag, files };
        pair.settle()?;
        Ok(pair)
    }

    /// "a", "b", ...
    pub fn name(node: usize) -> &'static str {
        NODES[node].0
    }

    /// An address of the segment that several may have: `number` below 100; of number 0 the servers have it on `lo`.
    pub fn vip(family: Family, number: u8) -> IpAddr {
        FRONT.host(family, 100 + number)
    }

    /// As above, beside no other.
    pub fn prefix(family: Family) -> u8 {
        match family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// For the files of a node.
    pub fn folder(&self, node: usize) -> PathBuf {
        self.files().join(Pair::name(node))
    }

    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Where the program on a node has its maps pinned.
    pub fn pin(&self, node: usize) -> PathBuf {
        janitor::pin_directory(&format!("{}-{}", self.tag, Pair::name(node)))
    }

    /// The program under test on a node; nothing is configured or started.
    pub fn steelyard(&self, node: usize) -> Result<Steelyard<'_>> {
        Steelyard::on(&self.nodes[node], &self.folder(node), self.pin(node))
    }

    /// Whether `address` is on any interface of the node.
    pub fn holds(&self, node: usize, address: IpAddr) -> Result<bool> {
        Ok(self.addresses(node)?.contains(&address))
    }

    /// The nodes that have it, by number.
    pub fn holders(&self, address: IpAddr) -> Result<Vec<usize>> {
        let mut holders = Vec::new();
        for node in 0..self.nodes.len() {
            if self.holds(node, address)? {
                holders.push(node);
            }
        }
        Ok(holders)
    }

    pub fn addresses(&self, node: usize) -> Result<Vec<IpAddr>> {
        self.nodes[node].namespace.enter(addresses_here)?
    }

    /// Returns once exactly these nodes have it.
    pub fn wait_for_holders(&self, address: IpAddr, nodes: &[usize], limit: Duration) -> Result<()> {
        let mut last = Vec::new();
        poll(&format!("{address} on {nodes:?} alone"), limit, || {
            last = self.holders(address).ok()?;
            (last == nodes).then_some(())
        })
        .with_context(|| format!("it was on {last:?}"))
    }

    /// Nothing gets from or to the node any more, and nobody is told: its link stays up.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set {} nomaster\n", self.port(node)))
    }

    /// Undoes `cut`.
    pub fn mend(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set {} master {}\n", self.port(node), FRONT.bridge))
    }

    /// The node's link has no carrier any more.
    pub fn unplug(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set {} down\n", self.port(node)))
    }

    /// Undoes `unplug`.
    pub fn plug_in(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set {} up\n", self.port(node)))
    }

    /// The bridge, which sees what is sent to everybody.
    pub fn bridge() -> &'static str {
        FRONT.bridge
    }

    pub(super) fn port(&self, node: usize) -> String {
        FRONT.port(NODES[node].1)
    }

    /// Bridge ports forward a moment after they are up.
    fn settle(&self) -> Result<()> {
        for node in &self.nodes {
            for family in Family::BOTH {
                let address = node.address(family);
                poll(&format!("an echo from {address}"), SETTLED, || {
                    ping(&self.client, address, Duration::from_millis(100)).ok()
                })?;
            }
        }
        Ok(())
    }
}

/// Those of the calling thread's namespace.
pub(super) fn addresses_here() -> Result<Vec<IpAddr>> {
    let all = getifaddrs().context("listing addresses")?;
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
    };
    Ok(all.filter_map(|interface| interface.address).filter_map(ip).collect())
}

/// Of every node.
pub const INTERFACE: &str = "eth0";
/// Names, and hosts of the segment.
const NODES: [(&str, u8); 4] = [("a", 1), ("b", 3), ("c", 4), ("d", 5)];
const SETTLED: Duration = Duration::from_secs(10);
