//! A bed as a whole: everybody who stands in it, and its names, files and end.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use tempfile::TempDir;

use super::{
    Arms, Family, Layout, Namespace, Server,
    client::ping,
    janitor,
    layout::{BACK, BEYOND, FRONT, SERVICE_PORT},
    poll,
    switch::{BALANCER, ROUTER, Switch},
    xdp::{self, Program},
};

/// A namespace and its addresses on the first of its interfaces (`eth0`, `eth1`).
pub struct Host {
    pub namespace: Namespace,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
}

impl Host {
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

pub struct Bed {
    pub layout: Layout,
    /// Servers are `web1`, `web2`, ...
    pub servers: Vec<Server>,
    pub client: Host,
    pub balancer: Host,
    /// Between the two segments, beside the balancer; with two arms only.
    pub router: Option<Host>,
    _switch: Namespace,
    _passes: Vec<OwnedFd>,
    tag: String,
    files: TempDir,
}

impl Bed {
    /// Builds everything and starts the servers; the balancer runs nothing yet.
    pub fn new(layout: Layout) -> Result<Bed> {
        let tag = janitor::fresh_tag()?;
        let files = janitor::files(&tag)?;
        let switch = Switch::create(&tag)?;
        let balancer = switch.balancer(layout)?;
        let passes = switch.pass_to_balancer(layout)?;
        let client = switch.client(layout)?;
        let router = match layout.arms {
            Arms::One => None,
            Arms::Two => Some(switch.router()?),
        };
        let servers = (1..=layout.servers)
            .map(|number| switch.server(layout, number, files.path()))
            .collect::<Result<_>>()?;
        let namespace = switch.namespace;
        let bed = Bed {
            layout,
            servers,
            client,
            balancer,
            router,
            _switch: namespace,
            _passes: passes,
            files,
            tag,
        };
        bed.settle()?;
        Ok(bed)
    }

    /// The service's address in the layout's family.
    pub fn vip(&self) -> IpAddr {
        self.vip_of(self.layout.family)
    }

    /// The balancer has one in each family, configured or not.
    pub fn vip_of(&self, family: Family) -> IpAddr {
        self.layout.vip(family)
    }

    /// Address and port of the service that clients ask.
    pub fn service(&self) -> SocketAddr {
        self.vip_port(SERVICE_PORT)
    }

    /// Another port of the VIP.
    pub fn vip_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(), port)
    }

    /// `ip` commands that take the VIPs of both families from a server, and give them back.
    pub fn vips_of_server(&self) -> [String; 2] {
        let vips = Family::BOTH.map(|family| self.vip_of(family));
        let all = |command: &str| {
            let line = |vip: IpAddr| {
                let bits = Family::of(vip).bits();
                format!(
                    "addr {command} {vip}/{bits} dev lo{}\n",
                    if command == "add" { nodad(vip) } else { "" }
                )
            };
            vips.map(line).concat()
        };
        ["del", "add"].map(all)
    }

    /// A port of the client, in the family it asks in.
    pub fn client_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.client.address(self.layout.family), port)
    }

    /// For files of this bed; readable by everyone, deleted with it.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// An address of the servers' network that nobody has.
    pub fn nobody(&self) -> IpAddr {
        self.layout.server_segment().host(self.layout.server_family, 250)
    }

    /// One more address of the client in the layout's family: hosts 30 to 99 of its segment are free.
    pub fn add_client_address(&self, last: u8) -> Result<IpAddr> {
        let address = FRONT.host(self.layout.family, last);
        add_address(&self.client.namespace, address, "eth0")?;
        Ok(address)
    }

    /// The balancer's address on the servers' segment: what it sends to them from, unless it is told.
    pub fn balancer_to_servers(&self) -> IpAddr {
        self.layout.server_segment().host(self.layout.server_family, BALANCER)
    }

    /// An address of the servers' segment that nobody has: hosts 30 to 99 are free.
    pub fn free_to_servers(&self, last: u8) -> IpAddr {
        self.layout.server_segment().host(self.layout.server_family, last)
    }

    /// One more address of the balancer on the servers' segment, on the last of its interfaces.
    pub fn add_nat_source(&self, last: u8) -> Result<IpAddr> {
        let address = self.free_to_servers(last);
        let interface = self.layout.interfaces().last().context("a bed has interfaces")?;
        add_address(&self.balancer.namespace, address, interface)?;
        Ok(address)
    }

    /// An address that nobody has, which the balancer finds behind the router; with two arms only.
    pub fn beyond_router(&self) -> Result<IpAddr> {
        let family = self.layout.server_family;
        let address = BEYOND.host(family, 1);
        let router = &self.router.as_ref().context("a bed with one arm has no router")?.namespace;
        router.ip(&format!("route add {address} dev eth0\n"))?;
        let via = BACK.host(family, ROUTER);
        self.balancer.namespace.ip(&format!("route add {address} via {via}\n"))?;
        Ok(address)
    }

    /// Sends what the client has for `network` to the balancer.
    pub fn route_to_balancer(&self, network: &str) -> Result<()> {
        let family = if network.contains(':') { Family::V6 } else { Family::V4 };
        let via = self.balancer.address(family);
        self.client.namespace.ip(&format!("route add {network} via {via}\n"))
    }

    pub(super) fn pin_directory(&self) -> PathBuf {
        janitor::pin_directory(&self.tag)
    }

    /// Bridge ports forward a moment after they are up; a bed is ready when everybody is heard.
    fn settle(&self) -> Result<()> {
        for family in Family::BOTH {
            let hosts = self.servers.iter().map(|server| &server.host).chain([&self.client]);
            for address in hosts.map(|host| host.address(family)) {
                heard(&self.balancer, address)?;
            }
            heard(&self.client, self.vip_of(family))?;
        }
        Ok(())
    }
}

fn heard(from: &Host, address: IpAddr) -> Result<()> {
    poll(&format!("an echo from {address}"), Duration::from_secs(10), || {
        ping(from, address, Duration::from_millis(100)).ok()
    })?;
    Ok(())
}

fn add_address(host: &Namespace, address: IpAddr, interface: &str) -> Result<()> {
    let bits = Family::of(address).bits();
    host.ip(&format!("addr add {address}/{bits} dev {interface}{}\n", nodad(address)))
}

/// What an address needs beside itself, so that it is usable at once.
pub(super) fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// Attaches one of the bed's own programs to an interface of a namespace.
pub fn attach(namespace: &Namespace, interface: &str, program: Program) -> Result<OwnedFd> {
    namespace
        .enter(|| xdp::attach(program, if_nametoindex(interface)?))?
        .with_context(|| format!("attaching {program:?} to {interface}"))
}

/// Index of an interface of a namespace.
pub fn interface_index(namespace: &Namespace, interface: &str) -> Result<u32> {
    namespace.enter(|| if_nametoindex(interface))?.with_context(|| format!("no interface {interface}"))
}
