//! What tables and services mean for each other: one owner per name and address, and room for all of them.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use lb_common::limits;

use super::service::{Draft, unique};
use crate::pure::config::{
    error::{Findings, Span, Spanned, quote},
    model::{Cluster, Datapath, Protocol, Secret},
};

pub(super) fn services(drafts: &[Draft], findings: &mut Findings) {
    let names = drafts.iter().filter_map(|draft| draft.name.as_ref());
    unique(names, findings, |name| format!("the service name {}", quote(name)));
    unique_keys(drafts, findings);
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

/// A packet's address, port and protocol select one service.
fn unique_keys(drafts: &[Draft], findings: &mut Findings) {
    let mut owners: HashMap<(SocketAddrV4, Protocol), (&Draft, Span)> = HashMap::new();
    for draft in drafts {
        let Some(port) = draft.port else { continue };
        for address in &draft.addresses {
            let vip = SocketAddrV4::new(address.value, port);
            for protocol in &draft.protocols {
                let Some((owner, at)) = owners.insert((vip, *protocol), (draft, address.at)) else {
                    continue;
                };
                let message = format!(
                    "service {} takes {vip}/{} from service {} ({})",
                    draft.label(),
                    protocol.name(),
                    owner.label(),
                    findings.place(at),
                );
                findings.error(address.at, message, "change the address, port or protocol of one of the two");
            }
        }
    }
}

/// A service's address is the balancer's own: a packet sent there would come back.
fn no_loops(drafts: &[Draft], findings: &mut Findings) {
    let mut vips: HashMap<Ipv4Addr, (&Draft, Span)> = HashMap::new();
    for draft in drafts {
        for address in &draft.addresses {
            vips.entry(address.value).or_insert((draft, address.at));
        }
    }
    let servers = drafts.iter().flat_map(|draft| &draft.servers).filter_map(|server| server.address.as_ref());
    for Spanned { at, value: (address, _) } in servers {
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
    for draft in drafts {
        let needs: [u64; LIMITS.len()] = [
            1,
            (draft.addresses.len() * draft.protocols.len()) as u64,
            draft.servers.len() as u64,
            draft.slots.unwrap_or_default().into(),
        ];
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

/// Sums over all services: the most, what, and how to need fewer.
const LIMITS: [(u64, &str, &str); 4] = [
    (limits::SERVICES_MAX as u64, "entries", "remove services"),
    (
        limits::SERVICE_KEYS_MAX as u64,
        "addresses (each protocol of an address counts)",
        "remove addresses, or name one protocol instead of \"both\"",
    ),
    // Id 0 means "no server".
    (limits::SERVERS_MAX as u64 - 1, "servers", "remove servers"),
    (
        limits::RING_SLOTS_MAX as u64,
        "slots",
        "set smaller `slots`; 100 per server are enough for even shares",
    ),
];
