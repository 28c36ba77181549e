//! Who stands where: namespaces, bridges, links, addresses and routes of one bed.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use lb_user::pure::config::model::Forward;
use nix::net::if_::if_nametoindex;
use tempfile::TempDir;

use super::{
    Namespace, Server,
    client::ping,
    janitor, offload, poll,
    xdp::{self, Program},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    One,
    Two,
}

#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub arms: Arms,
    pub forward: Forward,
    pub servers: u8,
}

/// A namespace and its address on the first of its interfaces (`eth0`, `eth1`).
pub struct Host {
    pub namespace: Namespace,
    pub address: Ipv4Addr,
}

pub struct Bed {
    pub layout: Layout,
    /// Servers are `web1`, `web2`, ...
    pub servers: Vec<Server>,
    pub client: Host,
    pub balancer: Host,
    pub vip: Ipv4Addr,
    _router: Option<Host>,
    _switch: Namespace,
    _passes: Vec<OwnedFd>,
    tag: String,
    files: TempDir,
}

impl Layout {
    pub fn new(arms: Arms, forward: Forward) -> Layout {
        Layout { arms, forward, servers: 3 }
    }

    /// The balancer's interfaces, the clients' side first.
    pub fn interfaces(self) -> &'static [&'static str] {
        match self.arms {
            Arms::One => &["eth0"],
            Arms::Two => &["eth0", "eth1"],
        }
    }

    /// The service listens on 80; with `nat` the servers' port differs, so that ports are rewritten too.
    pub fn server_port(self) -> u16 {
        match self.forward {
            Forward::Nat => 8_080,
            Forward::Dsr => SERVICE_PORT,
        }
    }

    fn vip(self) -> Ipv4Addr {
        match self.arms {
            Arms::One => FRONT.host(100),
            Arms::Two => Ipv4Addr::new(192, 0, 2, 10),
        }
    }

    fn server_segment(self) -> Segment {
        match self.arms {
            Arms::One => FRONT,
            Arms::Two => BACK,
        }
    }
}

impl Bed {
    /// Builds everything and starts the servers; the balancer runs nothing yet.
    pub fn new(layout: Layout) -> Result<Bed> {
        let tag = janitor::fresh_tag()?;
        let switch = Switch::create(&tag)?;
        let balancer = switch.balancer(layout)?;
        let passes = switch.pass_to_balancer(layout)?;
        let client = switch.client(layout)?;
        let router = match layout.arms {
            Arms::One => None,
            Arms::Two => Some(switch.router()?),
        };
        let servers = (1..=layout.servers).map(|n| switch.server(layout, n)).collect::<Result<_>>()?;
        let bed = Bed {
            layout,
            servers,
            client,
            balancer,
            vip: layout.vip(),
            _router: router,
            _switch: switch.namespace,
            _passes: passes,
            files: janitor::files(&tag)?,
            tag,
        };
        bed.settle()?;
        Ok(bed)
    }

    /// Address and port of the service that clients ask.
    pub fn service(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.vip, SERVICE_PORT)
    }

    /// Another port of the VIP.
    pub fn vip_port(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.vip, port)
    }

    /// For files of this bed; readable by everyone, deleted with it.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// An address of the servers' network that nobody has.
    pub fn nobody(&self) -> Ipv4Addr {
        self.layout.server_segment().host(250)
    }

    pub(super) fn pin_directory(&self) -> PathBuf {
        janitor::pin_directory(&self.tag)
    }

    /// Bridge ports forward a moment after they are up; a bed is ready when everybody is heard.
    fn settle(&self) -> Result<()> {
        let others = self.servers.iter().map(Server::address).chain([self.client.address]);
        for address in others {
            poll(&format!("an echo from {address}"), Duration::from_secs(10), || {
                ping(&self.balancer, address, Duration::from_millis(100)).ok()
            })?;
        }
        poll("an echo from the VIP", Duration::from_secs(10), || {
            ping(&self.client, self.vip, Duration::from_millis(100)).ok()
        })?;
        Ok(())
    }
}

/// One bridge and the /24 on it.
#[derive(Clone, Copy)]
struct Segment {
    bridge: &'static str,
    third: u8,
}

impl Segment {
    fn host(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.third, last)
    }

    /// Follows the address: every host has one MAC a segment.
    fn mac(self, last: u8) -> String {
        format!("02:00:0a:4d:{:02x}:{last:02x}", self.third)
    }
}

/// The namespace with the bridges; everybody else hangs on one of its ports.
struct Switch<'a> {
    tag: &'a str,
    namespace: Namespace,
}

impl<'a> Switch<'a> {
    fn create(tag: &'a str) -> Result<Switch<'a>> {
        let namespace = Namespace::create(&format!("{tag}-switch"))?;
        for Segment { bridge, .. } in [FRONT, BACK] {
            namespace.ip(&format!(
                "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set {bridge} up\n"
            ))?;
        }
        Ok(Switch { tag, namespace })
    }

    fn balancer(&self, layout: Layout) -> Result<Host> {
        let namespace = self.host("balancer")?;
        for (interface, segment) in layout.interfaces().iter().zip([FRONT, BACK]) {
            self.plug(&namespace, interface, segment, BALANCER)?;
        }
        namespace.ip(&format!("addr add {}/32 dev eth0\n", layout.vip()))?;
        Ok(Host { namespace, address: FRONT.host(BALANCER) })
    }

    fn client(&self, layout: Layout) -> Result<Host> {
        let namespace = self.host("client")?;
        self.plug(&namespace, "eth0", FRONT, CLIENT)?;
        namespace.set(&[("ipv4/ip_local_port_range", "1024 65535")])?;
        if layout.arms == Arms::Two {
            namespace.ip(&format!("route add {}/32 via {}\n", layout.vip(), FRONT.host(BALANCER)))?;
        }
        Ok(Host { namespace, address: FRONT.host(CLIENT) })
    }

    fn router(&self) -> Result<Host> {
        let namespace = self.host("router")?;
        self.plug(&namespace, "eth0", FRONT, ROUTER)?;
        self.plug(&namespace, "eth1", BACK, ROUTER)?;
        namespace.set(&[("ipv4/ip_forward", "1")])?;
        Ok(Host { namespace, address: FRONT.host(ROUTER) })
    }

    fn server(&self, layout: Layout, number: u8) -> Result<Server> {
        let name = format!("web{number}");
        let segment = layout.server_segment();
        let namespace = self.host(&name)?;
        let last = SERVER + number;
        self.plug(&namespace, "eth0", segment, last)?;
        if layout.arms == Arms::Two {
            namespace.ip(&format!("route add default via {}\n", BACK.host(ROUTER)))?;
        }
        let address = segment.host(last);
        let mut listens = vec![SocketAddrV4::new(address, layout.server_port())];
        if layout.forward == Forward::Dsr {
            // The VIP is the server's too, and nobody on the segment may learn that by ARP.
            namespace.set(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")])?;
            namespace.ip(&format!("addr add {}/32 dev lo\n", layout.vip()))?;
            listens.push(SocketAddrV4::new(layout.vip(), SERVICE_PORT));
        }
        Server::start_on(Host { namespace, address }, &name, listens)
    }

    fn host(&self, role: &str) -> Result<Namespace> {
        Namespace::create(&format!("{}-{role}", self.tag))
    }

    /// A cable from `interface` of a host to a port of the segment's bridge. The host computes its checksums
    /// itself: what XDP forwards has no later place to get one.
    fn plug(&self, host: &Namespace, interface: &str, segment: Segment, last: u8) -> Result<()> {
        let port = port(segment, last);
        self.namespace.ip(&format!(
            "link add {port} type veth peer name {interface} address {} netns {}\n\
             link set {port} master {} up\n",
            segment.mac(last),
            host.name(),
            segment.bridge,
        ))?;
        host.enter(|| offload::disable_tx_checksum(interface))?
            .with_context(|| format!("turning off transmit checksums of {interface}"))?;
        host.ip(&format!("link set {interface} up\naddr add {}/24 dev {interface}\n", segment.host(last)))
    }

    fn pass_to_balancer(&self, layout: Layout) -> Result<Vec<OwnedFd>> {
        let ports = layout.interfaces().iter().zip([FRONT, BACK]).map(|(_, segment)| port(segment, BALANCER));
        ports.map(|port| attach(&self.namespace, &port, Program::Pass)).collect()
    }
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

fn port(segment: Segment, last: u8) -> String {
    format!("{}-{last}", segment.bridge)
}

pub const SERVICE_PORT: u16 = 80;

const FRONT: Segment = Segment { bridge: "front", third: 1 };
const BACK: Segment = Segment { bridge: "back", third: 2 };
const BALANCER: u8 = 1;
const CLIENT: u8 = 2;
const SERVER: u8 = 10;
const ROUTER: u8 = 254;
