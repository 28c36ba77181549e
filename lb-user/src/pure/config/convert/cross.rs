//! What tables and services mean for each other: one owner per name and address, and room for all of them.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use lb_common::limits;

use super::{
    precedence::{self, is_wildcard},
    server::Target,
    service::Draft,
    unique,
};
use crate::pure::config::{
    error::{Findings, Span, Spanned, quote},
    model::{Cluster, Datapath, Forward, Secret},
    network::{Family, Network},
};

pub(super) fn services(drafts: &[Draft], findings: &mut Findings) {
    let names = drafts.iter().filter_map(|draft| draft.name.as_ref());
    unique(names, findings, |name| format!("the service name {}", quote(name)));
    precedence::check(drafts, findings);
    no_loops(drafts, findings);
    room(drafts, findings);
}

pub(super) fn interfaces(datapath: &Datapath, at: Span, findings: &mut Findings) {
    if datapath.interfaces.is_empty() {
        findings.missing(
            at,
            "interfaces",
            "there are services, but no interface to receive their packets",
            "add `interfaces = [\"eth0\"]` to [datapath]",
        );
    }
}

pub(super) fn secret(cluster: &Cluster, at: Span, findings: &mut Findings) {
    if cluster.secret == Secret::Unset {
        findings.warning(
            at,
            "no cluster secret: without one, clients can work out which server they reach",
            "add `secret = \"..\"` or `secret_file = \"/..\"` to [cluster], the same on all nodes",
        );
    }
}

/// A service's address is the balancer's own: a packet sent there would come back.
fn no_loops(drafts: &[Draft], findings: &mut Findings) {
    let mut vips: HashMap<IpAddr, (&Draft, Span)> = HashMap::new();
    for draft in drafts {
        for typed in draft.addresses.iter().filter(|typed| typed.value.is_host()) {
            vips.entry(typed.value.address()).or_insert((draft, typed.at));
        }
    }
    let servers = drafts.iter().flat_map(|draft| &draft.servers).filter_map(|server| server.address.as_ref());
    for Spanned { at, value: Target { address, .. } } in servers {
        if let Some((owner, vip_at)) = vips.get(address) {
            let place = findings.place(*vip_at);
            findings.error(
                *at,
                format!(
                    "the server address `{address}` is the address of service {} ({place})",
                    owner.label()
                ),
                "write the server's own address",
            );
        }
    }
}

/// Each limit is reported once, at the service that exceeds it.
fn room(drafts: &[Draft], findings: &mut Findings) {
    let mut used = [0; LIMITS.len()];
    let mut networks = HashSet::new();
    for draft in drafts {
        let needs = needs(draft, &mut networks);
        for ((used, need), (max, noun, remedy)) in used.iter_mut().zip(needs).zip(LIMITS) {
            let before = *used;
            *used += need;
            if before <= max && *used > max {
                let message =
                    format!("from service {} on, the services have more than {max} {noun}", draft.label());
                findings.error(draft.at, message, remedy);
            }
        }
    }
}

/// In the order of `LIMITS`. `networks`: those of the services before.
fn needs(draft: &Draft, networks: &mut HashSet<Network>) -> [u64; LIMITS.len()] {
    let wildcard = |network: &Network| draft.ports.is_some_and(|ports| is_wildcard(*network, ports));
    let (wide, exact): (Vec<Network>, Vec<Network>) =
        draft.addresses.iter().map(|typed| typed.value).partition(wildcard);
    let new = wide.into_iter().filter(|network| networks.insert(*network)).count();
    let access = draft.access.as_ref().map_or(0, |access| access.allow.len() + access.deny.len());
    let own_family = draft.forward.is_some_and(Forward::keeps_family);
    let rings =
        if own_family && Family::ALL.iter().all(|&family| draft.first_of(family).is_some()) { 2 } else { 1 };
    [
        1,
        (exact.len() * draft.protocols.len()) as u64,
        new as u64,
        access as u64,
        draft.servers.len() as u64,
        u64::from(draft.slots.unwrap_or_default()) * rings,
    ]
}

/// Sums over all services: the most, what, and how to need fewer.
const LIMITS: [(u64, &str, &str); 6] = [
    (limits::SERVICES_MAX as u64, "entries", "remove services"),
    (
        limits::SERVICE_KEYS_MAX as u64,
        "addresses (each protocol of an address counts)",
        "remove addresses, or name one protocol instead of \"both\"",
    ),
    (
        limits::WILDCARD_NETWORKS_MAX as u64,
        "networks, or addresses with more than one port",
        "remove some, or write shorter prefixes that hold several",
    ),
    (
        limits::ACCESS_NETWORKS_MAX as u64,
        "networks in `allow` and `deny`",
        "write shorter prefixes that hold several",
    ),
    // Id 0 means "no server".
    (limits::SERVERS_MAX as u64 - 1, "servers", "remove servers"),
    (
        limits::RING_SLOTS_MAX as u64,
        "slots",
        "set smaller `slots`; 100 per server are enough for even shares",
    ),
];
