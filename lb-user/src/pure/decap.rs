//! What a server needs before it can take encapsulated packets: facts about it in, findings out.
//!
//! Must not know where facts come from.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

/// What was read from the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub addresses: Vec<Address>,
    /// net.ipv4.conf.all
    pub all: Ipv4Settings,
    /// net.ipv6.conf.lo.disable_ipv6
    pub loopback_without_ipv6: bool,
    /// Those that packets arrive on.
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub interface: String,
    pub loopback: bool,
    pub address: IpAddr,
    pub prefix: u8,
}

/// net.ipv4.conf.INTERFACE
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ipv4Settings {
    pub arp_ignore: u8,
    pub arp_announce: u8,
    pub rp_filter: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mtu: u32,
    pub settings: Ipv4Settings,
    /// net.ipv6.conf.INTERFACE.disable_ipv6
    pub without_ipv6: bool,
}

/// What is asked of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub vips: BTreeSet<IpAddr>,
    /// The clamp of the services on the balancer.
    pub mss: Option<u16>,
}

/// One thing that is as it must be, or is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// An address or an interface.
    pub about: String,
    pub found: String,
    pub ok: bool,
    /// The command that mends it, for a shell of root on this server.
    pub fix: Option<String>,
    /// What would do instead, elsewhere.
    pub instead: Option<String>,
}

impl Finding {
    fn ok(about: impl ToString, found: impl Into<String>) -> Finding {
        Finding { about: about.to_string(), found: found.into(), ok: true, fix: None, instead: None }
    }

    fn missing(about: impl ToString, found: impl Into<String>, fix: String) -> Finding {
        Finding { ok: false, fix: Some(fix), ..Finding::ok(about, found) }
    }
}

/// Addresses first, then interface by interface.
pub fn findings(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    let with = |v4| wanted.vips.iter().any(|vip| vip.is_ipv4() == v4);
    if with(false) {
        findings.push(ipv6("lo", facts.loopback_without_ipv6));
    }
    findings.extend(wanted.vips.iter().map(|&vip| address(facts, vip)));
    for interface in &facts.interfaces {
        if with(true) {
            findings.extend(arp(&facts.all, interface));
            findings.push(rp_filter(&facts.all, interface));
        }
        if with(false) {
            findings.push(ipv6(&interface.name, interface.without_ipv6));
        }
        findings.extend(ENCAPSULATIONS.iter().map(|way| mtu(interface, way, wanted)));
    }
    findings
}

/// On an interface that the network sees, the address would be claimed there; with its network on the
/// loopback, the whole network would be local.
fn address(facts: &Facts, vip: IpAddr) -> Finding {
    let full = if vip.is_ipv4() { 32 } else { 128 };
    let claimed = |at: &Address| {
        !at.loopback && facts.interfaces.iter().any(|interface| interface.name == at.interface)
    };
    let (wrong, right): (Vec<_>, Vec<_>) = facts
        .addresses
        .iter()
        .filter(|at| at.address == vip)
        .partition(|at| claimed(at) || at.loopback && at.prefix != full);
    let list = |places: &[&Address]| {
        let names: Vec<_> = places.iter().map(|at| format!("/{} on {}", at.prefix, at.interface)).collect();
        names.join(", ")
    };
    let about = format!("vip {vip}");
    if wrong.is_empty() && !right.is_empty() {
        return Finding::ok(about, list(&right));
    }
    let delete = |at: &&Address| format!("ip address delete {vip}/{} dev {}", at.prefix, at.interface);
    let mut commands: Vec<_> = wrong.iter().map(delete).collect();
    if right.is_empty() {
        commands.push(format!("ip address add {vip}/{full} dev lo"));
    }
    let found = match &wrong[..] {
        [] => "not an address of this server".to_owned(),
        wrong if wrong.iter().any(|at| claimed(at)) => {
            format!("{}, where the network learns that it is here", list(wrong))
        }
        wrong => format!("{}, which makes its whole network local", list(wrong)),
    };
    Finding::missing(about, found, commands.join(" && "))
}

/// Needed as soon as anybody asks for the address on the link. The kernel takes the greater of two values.
fn arp(all: &Ipv4Settings, interface: &Interface) -> [Finding; 2] {
    let judge = |name: &str, values: [u8; 2], least: u8| {
        let value = values[0].max(values[1]);
        let found = format!("{name} is {value}");
        if value >= least {
            return Finding::ok(&interface.name, found);
        }
        let found = format!("{found}: the server would claim the vip on the link");
        Finding::missing(&interface.name, found, set("ipv4", &interface.name, name, least))
    };
    let own = &interface.settings;
    [
        judge("arp_ignore", [all.arp_ignore, own.arp_ignore], 1),
        judge("arp_announce", [all.arp_announce, own.arp_announce], 2),
    ]
}

/// What arrives is the client's packet: strict filtering drops it unless the route back to the client leaves
/// by the same interface. The kernel takes the greater of two values, and 2 is loose.
fn rp_filter(all: &Ipv4Settings, interface: &Interface) -> Finding {
    let value = all.rp_filter.max(interface.settings.rp_filter);
    let found = format!("rp_filter is {value}");
    if value != 1 {
        return Finding::ok(&interface.name, found);
    }
    let found =
        format!("{found}: packets of clients that are answered through another interface are dropped");
    Finding::missing(&interface.name, found, set("ipv4", &interface.name, "rp_filter", 2))
}

fn ipv6(interface: &str, disabled: bool) -> Finding {
    if disabled {
        let fix = set("ipv6", interface, "disable_ipv6", 0);
        return Finding::missing(interface, "ipv6 is switched off", fix);
    }
    Finding::ok(interface, "ipv6 is on")
}

/// In sysctl's notation a dot within a name is a slash (an interface `eth0.5`).
fn set(family: &str, interface: &str, name: &str, value: u8) -> String {
    format!("sysctl -w net.{family}.conf.{}.{name}={value}", interface.replace('.', "/"))
}

struct Encapsulation {
    name: &'static str,
    overhead: u32,
}

/// Ascending: who follows every command ends with the greatest.
const ENCAPSULATIONS: [Encapsulation; 4] = [
    Encapsulation { name: "ipip over IPv4", overhead: IPV4 },
    Encapsulation { name: "gue over IPv4", overhead: IPV4 + UDP },
    Encapsulation { name: "ipip over IPv6", overhead: IPV6 },
    Encapsulation { name: "gue over IPv6", overhead: IPV6 + UDP },
];

fn mtu(interface: &Interface, way: &Encapsulation, wanted: &Wanted) -> Finding {
    // The greater inner header counts, where both families are served.
    let headers = TCP + if wanted.vips.iter().any(IpAddr::is_ipv6) { IPV6 } else { IPV4 };
    let inner = wanted.mss.map_or(CLIENTS_MTU, |mss| CLIENTS_MTU.min(u32::from(mss) + headers));
    let need = inner + way.overhead;
    let found = format!("mtu {}, {} needs {need}", interface.mtu, way.name);
    if interface.mtu >= need {
        return Finding::ok(&interface.name, found);
    }
    let fix = format!("ip link set dev {} mtu {need}", interface.name);
    let mss = interface.mtu.saturating_sub(way.overhead + headers);
    let instead = (mss > 0)
        .then(|| format!("advmss of {mss} on the routes to clients: `ip route change ROUTE advmss {mss}`"));
    Finding { instead, ..Finding::missing(&interface.name, found, fix) }
}

/// What clients send at most, as nearly every path of the Internet has it.
const CLIENTS_MTU: u32 = 1_500;
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const UDP: u32 = 8;
const TCP: u32 = 20;

#[cfg(test)]
mod tests;
