//! What is probably not meant of virtual routers, seen from outside the configuration: by this host's interfaces, and
//! by the routers that live.
//!
//! Must not know how either is looked at. Each finding is a sentence with the next step.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    config::{
        model::{
            Cluster,
            vrrp::{Effect, Router, Track, Tracked, Version, Vrrp},
        },
        network::{Family, Network},
    },
    status::{PeerRouterStatus, RouterStatus, SenderStatus, VrrpStatus},
};

/// An interface of this host, with its addresses and the lengths of their prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    pub name: String,
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What this host has not, or has where it should not.
pub fn host(vrrp: &Vrrp, cluster: &Cluster, interfaces: &[HostInterface]) -> Vec<String> {
    let vips: BTreeSet<IpAddr> = vrrp.routers.iter().flat_map(held).map(|(_, address)| address).collect();
    let of_host = |address: &&(IpAddr, u8)| !vips.contains(&address.0);
    let own: BTreeSet<IpAddr> = interfaces
        .iter()
        .flat_map(|interface| interface.addresses.iter().filter(of_host))
        .map(|&(address, _)| address)
        .collect();
    let mut found = Vec::new();
    for peer in cluster.peers.iter().filter(|peer| own.contains(*peer)) {
        found.push(format!("[cluster] peers: {peer} is this node's own address: list the other nodes only"));
    }
    for router in &vrrp.routers {
        let label = format!("[[vrrp]] {}", router.name);
        let mut tell = |text: String| found.push(format!("{label}: {text}"));
        for peer in router.unicast_peers.iter().filter(|peer| own.contains(&peer.address)) {
            tell(format!(
                "the unicast peer {} is this node's own address: list the other routers only",
                peer.address
            ));
        }
        let named = |name: &str| interfaces.iter().find(|interface| interface.name == name);
        let Some(interface) = named(&router.interface) else {
            tell(format!("there is no interface {} here: the router waits for it", router.interface));
            continue;
        };
        let addresses: Vec<_> = interface.addresses.iter().filter(of_host).collect();
        speaks(router, &addresses, &mut tell);
        for (dev, address) in held(router) {
            let Some(interface) = named(dev) else {
                tell(format!("there is no interface {dev} here for {address}: correct `dev`"));
                continue;
            };
            outside(interface, address, of_host, &mut tell);
        }
    }
    found
}

/// Each address of a router with the interface that it goes to.
fn held(router: &Router) -> impl Iterator<Item = (&str, IpAddr)> {
    let all = router.addresses.iter().chain(&router.excluded);
    all.map(|address| (address.dev.as_deref().unwrap_or(&router.interface), address.address))
}

/// Adverts come from an address of their family.
fn speaks(router: &Router, addresses: &[&(IpAddr, u8)], tell: &mut impl FnMut(String)) {
    let (interface, family) = (&router.interface, router.family.name());
    match router.source {
        Some(source) if !addresses.iter().any(|(address, _)| *address == source) => {
            tell(format!("`source` {source} is no address of {interface}: the router waits for it"));
        }
        None if !addresses.iter().any(|(address, _)| Family::of(*address) == router.family) => {
            tell(format!("{interface} has no {family} address that adverts could come from: add one"));
        }
        Some(_) | None => {}
    }
}

/// Hosts ask their own network only for an address that they take to be in it.
fn outside(
    interface: &HostInterface,
    address: IpAddr,
    of_host: impl Fn(&&(IpAddr, u8)) -> bool,
    tell: &mut impl FnMut(String),
) {
    let family = Family::of(address);
    let is_link = |address: IpAddr| matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let networks: Vec<Network> = interface
        .addresses
        .iter()
        .filter(of_host)
        .filter(|(address, _)| Family::of(*address) == family && !is_link(*address))
        .filter_map(|&(address, prefix)| Network::around(address, prefix))
        .collect();
    let inside = networks.iter().any(|network| network.contains(address));
    if !inside && !is_link(address) && !networks.is_empty() {
        let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
        tell(format!(
            "{address} is in no network of {} ({}): hosts there reach it only by a route to this node",
            interface.name,
            networks.join(", ")
        ));
    }
}

/// How a configuration differs from the routers that a running daemon hears.
pub fn live(vrrp: &Vrrp, status: &VrrpStatus) -> Vec<String> {
    let mut found = Vec::new();
    for router in &vrrp.routers {
        let same = |live: &&RouterStatus| {
            live.vrid == router.vrid
                && live.interface == router.interface
                && live.family == router.family.name()
        };
        let Some(live) = status.routers.iter().find(same) else { continue };
        for sender in &live.senders {
            let differs = differences(router, sender);
            found.extend(differs.map(|text| format!("[[vrrp]] {}: {} {text}", router.name, sender.address)));
        }
        let told = told(router, vrrp, status);
        for (peer, there) in &told {
            let differs = differences_of_nodes(router, there);
            found.extend(differs.map(|text| format!("[[vrrp]] {}: node {peer} {text}", router.name)));
        }
        found.extend(stuck(router, live, &told).map(|text| format!("[[vrrp]] {}: {text}", router.name)));
    }
    found
}

/// Whether its adverts decide: other addresses alone are told of, and taken.
fn counts(sender: &SenderStatus) -> bool {
    matches!(sender.refused.as_deref(), None | Some("addresses"))
}

/// What is said of the sender, in the words that follow its address.
fn differences(router: &Router, sender: &SenderStatus) -> impl Iterator<Item = String> {
    let version = (sender.version != 0 && sender.version != router.version.number()).then(|| {
        format!(
            "speaks version {}, and this is version {}: neither hears the other, set `version = {}`",
            sender.version,
            router.version.number(),
            sender.version
        )
    });
    let is_v2 = version.is_none() && router.version == Version::V2;
    let interval = (is_v2 && u128::from(sender.interval_ms) != router.interval.as_millis()).then(|| {
        format!(
            "sends every {} ms, and version 2 refuses any other `advert_interval` than its own, {:?}",
            sender.interval_ms, router.interval
        )
    });
    let ours: BTreeSet<String> = router.addresses.iter().map(|address| address.address.to_string()).collect();
    let theirs: BTreeSet<String> = sender.addresses.iter().cloned().collect();
    let addresses = (ours != theirs && (counts(sender) || !theirs.is_empty())).then(|| {
        let list = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
            let names: Vec<_> = one.difference(other).take(NAMES_SHOWN).cloned().collect();
            if names.is_empty() { "none".to_owned() } else { names.join(" ") }
        };
        format!(
            "has other addresses: only there {}, only here {}: make the lists equal",
            list(&theirs, &ours),
            list(&ours, &theirs)
        )
    });
    let tie = (counts(sender) && sender.priority == router.priority).then(|| {
        format!("has priority {}, too: the higher address wins; give them different ones", sender.priority)
    });
    let refused =
        sender.refused.as_ref().filter(|_| !counts(sender) && version.is_none() && interval.is_none());
    let refused = refused.map(|refused| {
        let detail = sender.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("is refused by the daemon that runs ({refused}){detail}")
    });
    [version, interval, addresses, tie, refused].into_iter().flatten()
}

/// What living nodes of the cluster say of this router, with their addresses. Nothing where several of ours may be meant.
fn told<'a>(router: &Router, vrrp: &Vrrp, status: &'a VrrpStatus) -> Vec<(&'a str, &'a PeerRouterStatus)> {
    let same = |other: &&Router| (other.vrid, other.family) == (router.vrid, router.family);
    if vrrp.routers.iter().filter(same).count() > 1 {
        return Vec::new();
    }
    let of_router =
        |told: &&PeerRouterStatus| told.vrid == router.vrid && told.family == router.family.name();
    let alive = status.peers.iter().filter(|peer| peer.state == "alive");
    alive
        .flat_map(|peer| peer.routers.iter().filter(of_router).map(|told| (peer.address.as_str(), told)))
        .collect()
}

/// What is said of the node, in the words that follow its address.
fn differences_of_nodes(router: &Router, there: &PeerRouterStatus) -> impl Iterator<Item = String> {
    let (theirs, ours) = (there.version, router.version.number());
    let version = (theirs != ours).then(|| {
        format!("has this router in version {theirs}, and this is version {ours}: use one for both")
    });
    let tie = (there.priority == router.priority).then(|| {
        format!("has priority {}, too: the higher address wins; give them different ones", there.priority)
    });
    [version, tie].into_iter().flatten()
}

/// Weights that cannot move the addresses to the best rival that is known.
fn stuck(
    router: &Router,
    live: &RouterStatus,
    told: &[(&str, &PeerRouterStatus)],
) -> impl Iterator<Item = String> {
    let heard = live.senders.iter().filter(|sender| counts(sender) && sender.priority > 0);
    let heard = heard.map(|sender| (sender.address.as_str(), sender.priority));
    let able = told.iter().filter(|(_, there)| ["backup", "active"].contains(&there.state.as_str()));
    let all = heard.chain(able.map(|(peer, there)| (*peer, there.priority)));
    let rival = all.max_by_key(|(_, priority)| *priority).filter(|_| !router.is_owner());
    let best = router.track.iter().filter_map(change).map(|change| change.max(0)).sum::<i32>();
    let best = (i32::from(router.priority) + best).min(254);
    let fails = |track: &Track| {
        let ((rival, theirs), change) = (rival?, change(track)?);
        let after = (best - change.abs()).max(1);
        let remedy = match change < 0 {
            true => format!("use a weight of at least {}", best - i32::from(theirs) + 1),
            false => format!("use a `priority` that is lower by {}", after - i32::from(theirs) + 1),
        };
        (best > theirs.into() && after > theirs.into()).then(|| {
            format!(
                "when {} fails, the priority falls from {best} to {after}, and {rival} has {theirs}: the addresses stay here; {remedy}",
                thing(&track.what)
            )
        })
    };
    router.track.iter().filter_map(fails).collect::<Vec<_>>().into_iter()
}

/// What it adds to the priority at one of its two ends; at the other, nothing. A file's number is unknown.
fn change(track: &Track) -> Option<i32> {
    match track.effect {
        Effect::Weight { weight, reverse: false } => Some(weight.into()),
        Effect::Weight { weight, reverse: true } => Some(-i32::from(weight)),
        Effect::Fault { .. } | Effect::Scaled { .. } => None,
    }
}

fn thing(what: &Tracked) -> String {
    match what {
        Tracked::Interface(name) => format!("interface {name}"),
        Tracked::Script(name) => format!("script {name}"),
        Tracked::Process(name) => format!("process {name}"),
        Tracked::File(name) => format!("file {name}"),
        Tracked::Service(name) => format!("service {name}"),
        Tracked::Datapath => "the datapath".to_owned(),
    }
}

/// What an operator should look at now.
pub fn troubles(status: &VrrpStatus) -> Vec<String> {
    let mut found = Vec::new();
    for router in &status.routers {
        for sender in router.senders.iter().filter(|sender| sender.age_ms <= RECENT_MS) {
            if let Some(refused) = &sender.refused {
                let detail = sender.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                found.push(format!(
                    "{}: {} does not agree ({refused}){detail}; both nodes may hold the addresses",
                    router.name, sender.address
                ));
            }
        }
    }
    for peer in status.peers.iter().filter(|peer| ["silent", "refused"].contains(&peer.state.as_str())) {
        found.push(format!(
            "node {} of the cluster is {}: see `steelyard vrrp list`",
            peer.address, peer.state
        ));
    }
    found
}

const NAMES_SHOWN: usize = 5;
/// Longer than the slowest adverts that are in use; those of 255 s are not.
const RECENT_MS: u64 = 60_000;

#[cfg(test)]
mod tests;
