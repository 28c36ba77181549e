//! The cabling: bridges, links, addresses and routes, one host after the other.
//!
//! Owns every `ip` command that makes a bed. Must not know what runs in it.

use std::{net::SocketAddr, os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result};

use super::{
    Arms, Family, Forward, Host, Layout, Namespace, Server,
    layout::{BACK, FRONT, SERVICE_PORT, Segment},
    offload,
    opener::Opener,
    topology::{attach, nodad},
    xdp::Program,
};

/// The namespace with the bridges; everybody else hangs on one of its ports.
pub(super) struct Switch<'a> {
    tag: &'a str,
    pub(super) namespace: Namespace,
}

impl<'a> Switch<'a> {
    pub(super) fn create(tag: &'a str) -> Result<Switch<'a>> {
        let namespace = Namespace::create(&format!("{tag}-switch"))?;
        // A bridge has nothing to say itself.
        namespace.set(&[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")])?;
        for Segment { bridge, .. } in [FRONT, BACK] {
            namespace.ip(&format!(
                "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set {bridge} up\n"
            ))?;
        }
        Ok(Switch { tag, namespace })
    }

    pub(super) fn balancer(&self, layout: Layout) -> Result<Host> {
        let host = self.host("balancer", FRONT, BALANCER)?;
        for (interface, segment) in layout.interfaces().iter().zip([FRONT, BACK]) {
            self.plug(&host.namespace, interface, segment, BALANCER)?;
        }
        add_vips(&host.namespace, layout, "eth0")?;
        Ok(host)
    }

    pub(super) fn client(&self, layout: Layout) -> Result<Host> {
        let host = self.host("client", FRONT, CLIENT)?;
        self.plug(&host.namespace, "eth0", FRONT, CLIENT)?;
        host.namespace.set(&[("ipv4/ip_local_port_range", "1024 65535")])?;
        if layout.arms == Arms::Two {
            for family in Family::BOTH {
                let (vip, via) = (layout.vip(family), FRONT.host(family, BALANCER));
                host.namespace.ip(&format!("route add {vip} via {via}\n"))?;
            }
        }
        Ok(host)
    }

    pub(super) fn router(&self) -> Result<Host> {
        let host = self.host("router", FRONT, ROUTER)?;
        self.plug(&host.namespace, "eth0", FRONT, ROUTER)?;
        self.plug(&host.namespace, "eth1", BACK, ROUTER)?;
        host.namespace.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        Ok(host)
    }

    pub(super) fn server(&self, layout: Layout, number: u8, files: &Path) -> Result<Server> {
        let name = format!("web{number}");
        let segment = layout.server_segment();
        let last = SERVER + number;
        let host = self.host(&name, segment, last)?;
        self.plug(&host.namespace, "eth0", segment, last)?;
        route_answers(&host.namespace, layout)?;
        let mut families = Family::BOTH;
        families.sort_by_key(|family| *family != layout.server_family);
        let mut listens: Vec<_> =
            families.map(|family| SocketAddr::new(host.address(family), layout.server_port())).into();
        if layout.forward.keeps_vip() {
            // The VIP is the server's too, and nobody on the segment may learn that by ARP. Over IPv6 nobody
            // is told of an address of another interface.
            host.namespace.set(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")])?;
            add_vips(&host.namespace, layout, "lo")?;
            listens.extend(Family::BOTH.map(|family| SocketAddr::new(layout.vip(family), SERVICE_PORT)));
        }
        let opener = match layout.forward.encapsulates() {
            true => Some(Opener::start(
                &host.namespace,
                &Family::BOTH.map(|family| layout.vip(family).to_string()),
                &files.join(format!("decap-{name}.log")),
            )?),
            false => None,
        };
        Server::start_on(host, &name, listens, opener)
    }

    pub(super) fn host(&self, role: &str, segment: Segment, last: u8) -> Result<Host> {
        let namespace = Namespace::create(&format!("{}-{role}", self.tag))?;
        Ok(Host { namespace, v4: segment.host(Family::V4, last), v6: segment.host(Family::V6, last) })
    }

    /// A cable from `interface` of a host to a port of the segment's bridge. The host computes its checksums
    /// itself: what XDP forwards has no later place to get one.
    pub(super) fn plug(&self, host: &Namespace, interface: &str, segment: Segment, last: u8) -> Result<()> {
        let port = segment.port(last);
        self.namespace.ip(&format!(
            "link add {port} type veth peer name {interface} address {} netns {}\n\
             link set {port} master {} up\n",
            segment.mac(last),
            host.name(),
            segment.bridge,
        ))?;
        host.enter(|| offload::disable_tx_checksum(interface))?
            .with_context(|| format!("turning off transmit checksums of {interface}"))?;
        host.ip(&format!("link set {interface} up\n"))?;
        Family::BOTH.into_iter().try_for_each(|family| {
            let address = segment.host(family, last);
            let bits = Segment::bits(family);
            host.ip(&format!("addr add {address}/{bits} dev {interface}{}\n", nodad(address)))
        })
    }

    pub(super) fn pass_to_balancer(&self, layout: Layout) -> Result<Vec<OwnedFd>> {
        let segments = layout.interfaces().iter().zip([FRONT, BACK]).map(|(_, segment)| segment);
        segments.map(|segment| self.pass_to(segment, BALANCER)).collect()
    }

    /// What a host sends by XDP is taken by its port only while that runs a program, too.
    pub(super) fn pass_to(&self, segment: Segment, last: u8) -> Result<OwnedFd> {
        attach(&self.namespace, &segment.port(last), Program::Pass)
    }
}

/// How a server's answers leave: with `gateway` all of them through the balancer, even to its own segment;
/// else directly or, from a segment of its own, through the router.
fn route_answers(server: &Namespace, layout: Layout) -> Result<()> {
    let segment = layout.server_segment();
    for family in Family::BOTH {
        let default = match family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        };
        let (balancer, router) = (segment.host(family, BALANCER), segment.host(family, ROUTER));
        match (layout.forward, layout.arms) {
            (Forward::Gateway, Arms::One) => server.ip(&format!(
                "route del {}/{bits} dev eth0\n\
                 route add {balancer} dev eth0\n\
                 route add {default} via {balancer}\n",
                segment.host(family, 0),
                bits = Segment::bits(family),
            ))?,
            (Forward::Gateway, Arms::Two) => server.ip(&format!("route add {default} via {balancer}\n"))?,
            (_, Arms::One) => {}
            (_, Arms::Two) => server.ip(&format!("route add {default} via {router}\n"))?,
        }
    }
    Ok(())
}

/// Deprecated from the start over IPv6, so that nothing of the host itself leaves with the VIP as its source:
/// the longest common prefix would make it the first choice.
fn add_vips(host: &Namespace, layout: Layout, interface: &str) -> Result<()> {
    host.ip(&format!(
        "addr add {}/32 dev {interface}\naddr add {}/128 dev {interface} nodad preferred_lft 0\n",
        layout.vip(Family::V4),
        layout.vip(Family::V6),
    ))
}

pub(super) const BALANCER: u8 = 1;
const CLIENT: u8 = 2;
const SERVER: u8 = 10;
pub(super) const ROUTER: u8 = 254;
