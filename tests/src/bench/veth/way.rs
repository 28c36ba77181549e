//! The ways to forward that are compared: what each puts into the balancer's namespace, and what counts its frames.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    counter::Counter,
    entry::{Hop, Mode, Tags},
    limits::FLOWS_DEFAULT,
    net::{Mac, TCP},
};
use lb_user::pure::status::Counters;

use super::lane::{BACK, BACK_MAC, Links, SINK_MAC, shown};
use crate::{
    bed::{Namespace, poll, topology, xdp::Program},
    bench::{
        driver::Live,
        packet::{CLIENT_MAC, OWN_MAC},
        rig::{Rig, SERVER_PORT, SERVERS, Setting, VIP, server_address},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// An XDP program that swaps the MAC addresses and sends the frame back.
    Bounce,
    /// Steelyard; the servers are where the clients are.
    DsrOneArm,
    /// Steelyard; the servers are behind another interface.
    DsrTwoArms,
    /// nftables and the kernel's forwarding; the servers are behind another interface.
    Dnat,
}

impl Way {
    pub(super) const ALL: &'static [Way] = &[Way::Bounce, Way::DsrOneArm, Way::DsrTwoArms, Way::Dnat];

    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Bounce => "xdp bounce",
            Way::DsrOneArm => "steelyard dsr, one arm",
            Way::DsrTwoArms => "steelyard dsr, two arms",
            Way::Dnat => "nftables dnat",
        }
    }
}

/// A way set up.
pub(super) enum Forwarder {
    Bounce,
    Steelyard { rig: Box<Rig>, before: Counters },
    Kernel { _pass: OwnedFd, before: u64 },
}

/// Where frames that were forwarded must have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// With the address of the service.
    AtVip,
    /// With the address of a server.
    AtServer,
}

impl Forwarder {
    pub(super) fn set_up(way: Way, links: &Links, live: &mut Live) -> Result<Forwarder> {
        let balancer = &links.balancer;
        match way {
            Way::Bounce => {
                balancer.enter(|| live.attach_bounce(&links.front))??;
                Ok(Forwarder::Bounce)
            }
            Way::DsrOneArm => steelyard(links, &links.front, CLIENT_MAC, OWN_MAC),
            Way::DsrTwoArms => steelyard(links, BACK, SINK_MAC, BACK_MAC),
            Way::Dnat => dnat(links),
        }
    }

    pub(super) fn arrival(&self) -> Arrival {
        match self {
            Forwarder::Bounce | Forwarder::Steelyard { .. } => Arrival::AtVip,
            Forwarder::Kernel { .. } => Arrival::AtServer,
        }
    }

    /// Frames forwarded since it was set up, by the account of the way itself.
    pub(super) fn forwarded(&self, balancer: &Namespace, live: &Live) -> Result<u64> {
        match self {
            Forwarder::Bounce => Ok(live.seen()?.bounced),
            Forwarder::Steelyard { rig, before } => only_forwarded(before, &rig.counters()?),
            Forwarder::Kernel { before, .. } => Ok(balancer.enter(datagrams_forwarded)?? - before),
        }
    }
}

fn steelyard(links: &Links, egress: &str, mac: [u8; 6], source_mac: [u8; 6]) -> Result<Forwarder> {
    let hop = Hop {
        lives: true,
        resolved: true,
        mac: Mac::from_bytes(mac),
        source_mac: Mac::from_bytes(source_mac),
        interface: topology::interface_index(&links.balancer, egress)?,
        tags: Tags::default(),
        mtu: 1_500,
    };
    let setting = Setting {
        mode: Mode::Dsr,
        protocol: TCP,
        moving: false,
        flows: FLOWS_DEFAULT,
        vip: VIP,
        wildcards: false,
    };
    let rig = links.balancer.enter(|| -> Result<Rig> {
        let mut rig = Rig::new(setting, &hop)?;
        rig.attach(&[&links.front, BACK])?;
        Ok(rig)
    })??;
    Ok(Forwarder::Steelyard { before: rig.counters()?, rig: Box::new(rig) })
}

/// A frame that left by any other way is an error.
fn only_forwarded(before: &Counters, after: &Counters) -> Result<u64> {
    let forwarded = Counter::ForwardDsr.name();
    let grown = |name: &str| {
        let count = |counters: &Counters| counters.get(name).copied().unwrap_or_default();
        count(after) - count(before)
    };
    let others = Counter::ALL.iter().map(|counter| counter.name()).filter(|&name| name != forwarded);
    let stray: Vec<_> = others.filter(|name| grown(name) > 0).collect();
    ensure!(stray.is_empty(), "frames were counted as {stray:?}");
    Ok(grown(forwarded))
}

fn dnat(links: &Links) -> Result<Forwarder> {
    let balancer = &links.balancer;
    balancer.set(&[
        ("ipv4/ip_forward", "1"),
        // A network card has checked the transport's checksum before.
        ("netfilter/nf_conntrack_checksum", "0"),
    ])?;
    let neighbours = (1..=SERVERS).map(|n| {
        format!("neigh add {} lladdr {} dev {BACK} nud permanent\n", server_address(n), shown(SINK_MAC))
    });
    balancer.ip(&format!("addr add {GATEWAY} dev {BACK}\n{}", neighbours.collect::<String>()))?;
    load_rules(links)?;
    // A veth takes live frames only when it has a queue of its own, which comes with an XDP program.
    let pass = topology::attach(balancer, &links.front, Program::Pass)?;
    Ok(Forwarder::Kernel { _pass: pass, before: balancer.enter(datagrams_forwarded)?? })
}

/// A hash of the client picks the server, as in the service of `steelyard`.
fn load_rules(links: &Links) -> Result<()> {
    let servers: Vec<String> =
        (1..=SERVERS).map(|n| format!("{} : {} . {SERVER_PORT}", n - 1, server_address(n))).collect();
    let rules = format!(
        "table ip bench {{\n chain prerouting {{\n  type nat hook prerouting priority dstnat\n  \
         ip daddr {} tcp dport {} dnat ip to jhash ip saddr . tcp sport mod {SERVERS} map {{ {} }}\n }}\n}}\n",
        VIP.ip(),
        VIP.port(),
        servers.join(", "),
    );
    let file = links.files.path().join("rules.nft");
    let said = links.files.path().join("nft.log");
    fs::write(&file, rules)?;
    let mut nft = Command::new("nft");
    nft.arg("-f").arg(&file).stdin(Stdio::null()).stderr(File::create(&said)?);
    let mut child = links.balancer.spawn(&mut nft).context("is nftables installed?")?;
    let code = poll("the end of nft", NFT, || child.try_wait().ok().flatten()).inspect_err(|_| {
        // It is one too many; that it cannot be killed changes nothing about the error.
        let _ = child.kill();
    })?;
    ensure!(code.success(), "nft failed: {}", fs::read_to_string(&said)?.trim());
    Ok(())
}

/// Of the calling thread's network namespace (RFC 4293: ipForwDatagrams).
fn datagrams_forwarded() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read the ip counters")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = lines.next().zip(lines.next()).context("no ip counters in /proc/net/snmp")?;
    let value = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ForwDatagrams");
    Ok(value.context("no ForwDatagrams in /proc/net/snmp")?.1.parse()?)
}

/// The balancer's own address in the servers' network.
const GATEWAY: &str = "10.0.0.254/24";
const NFT: Duration = Duration::from_secs(10);
