//! Routers, groups and trackers against each other.

use std::{collections::HashMap, net::IpAddr};

use super::{
    Around, Draft, DraftGroup,
    tracker::{Tracker, Trackers},
    unique,
};
use crate::pure::config::{
    error::{Findings, Spanned, nearest, quote},
    model::vrrp::Tracked,
};

pub(super) fn routers(drafts: &[Draft], findings: &mut Findings) {
    let names = drafts.iter().filter_map(|draft| draft.name.as_ref());
    unique(names, findings, |name| format!("the router name {}", quote(name)));
    let identity = |draft: &Draft| {
        let router = draft.router.as_ref()?;
        let value = (router.interface.clone(), router.vrid, router.family);
        Some(Spanned::new(draft.typed.near("vrid"), value))
    };
    let identities: Vec<_> = drafts.iter().filter_map(identity).collect();
    unique(identities.iter(), findings, |(interface, vrid, family)| {
        format!("the VRID {vrid} of {} on `{interface}`", family.name())
    });
    let macs: Vec<_> = drafts.iter().filter_map(mac_name).collect();
    unique(macs.iter(), findings, |name| format!("the interface name `{name}`"));
    addresses(drafts, findings);
    if let Some(over) = drafts.get(ROUTERS_MAX) {
        let message = format!("there are {} [[vrrp]]", drafts.len());
        findings.error(over.at, message, format!("keep at most {ROUTERS_MAX}"));
    }
}

/// Of the interface that a router has of its own.
fn mac_name(draft: &Draft) -> Option<Spanned<String>> {
    let router = draft.router.as_ref()?;
    let name = router.virtual_mac.as_ref()?.name.clone()?;
    Some(Spanned::new(draft.typed.near("virtual_mac"), name))
}

/// What one router takes away when it steps back, another must not hold.
fn addresses(drafts: &[Draft], findings: &mut Findings) {
    let mut holders: HashMap<(&str, IpAddr), &Draft> = HashMap::new();
    for draft in drafts {
        let Some(router) = &draft.router else { continue };
        for (key, list) in [("addresses", &router.addresses), ("excluded_addresses", &router.excluded)] {
            for address in list {
                // A link-local address may be on every link.
                let is_link = matches!(address.address, IpAddr::V6(ip) if ip.is_unicast_link_local());
                let dev = address.dev.as_ref().unwrap_or(&router.interface);
                let place = (if is_link { dev.as_str() } else { "" }, address.address);
                if let Some(first) = holders.insert(place, draft) {
                    let message =
                        format!("`{}` is an address of [[vrrp]] {}, too", address.address, first.label());
                    findings.error(draft.typed.near(key), message, "keep it in one place");
                }
            }
        }
    }
}

pub(super) fn groups(groups: &[DraftGroup], drafts: &[Draft], findings: &mut Findings) {
    let names = groups.iter().filter_map(|group| group.name.as_ref());
    unique(names, findings, |name| format!("the group name {}", quote(name)));
    let routers: Vec<&str> =
        drafts.iter().filter_map(|draft| draft.name.as_ref()).map(|name| name.value.as_str()).collect();
    for member in groups.iter().flat_map(|group| &group.members) {
        if !routers.contains(&member.value.as_str()) {
            let message = format!("no [[vrrp]] is named {}", quote(&member.value));
            findings.error(member.at, message, known(&member.value, &routers, "[[vrrp]]"));
        }
    }
    let members = groups.iter().flat_map(|group| &group.members);
    unique(members, findings, |name| format!("the router {}", quote(name)));
}

pub(super) fn tracked(
    drafts: &[Draft],
    groups: &[DraftGroup],
    trackers: &Trackers,
    around: &Around,
    findings: &mut Findings,
) {
    unique_trackers(&trackers.scripts, "script", findings);
    unique_trackers(&trackers.processes, "process", findings);
    unique_trackers(&trackers.files, "file", findings);
    let services: Vec<&str> = around.services.iter().map(String::as_str).collect();
    let all =
        drafts.iter().flat_map(|draft| &draft.tracks).chain(groups.iter().flat_map(|group| &group.tracks));
    for track in all {
        let (name, candidates, table) = match &track.value.what {
            Tracked::Interface(_) => continue,
            Tracked::Datapath if around.forwards => continue,
            Tracked::Datapath => {
                let message = "the datapath is tracked, and attached nowhere";
                findings.error(track.at, message, "add `interfaces` to [datapath], or remove this");
                continue;
            }
            Tracked::Script(name) => (name, names(&trackers.scripts), "[[track_script]]"),
            Tracked::Process(name) => (name, names(&trackers.processes), "[[track_process]]"),
            Tracked::File(name) => (name, names(&trackers.files), "[[track_file]]"),
            Tracked::Service(name) => (name, services.clone(), "[[service]]"),
        };
        if !candidates.contains(&name.as_str()) {
            let message = format!("no {table} is named {}", quote(name));
            findings.error(track.at, message, known(name, &candidates, table));
        }
    }
}

fn names<T>(trackers: &[Tracker<T>]) -> Vec<&str> {
    trackers.iter().filter_map(|tracker| tracker.name.as_ref()).map(|name| name.value.as_str()).collect()
}

fn unique_trackers<T>(trackers: &[Tracker<T>], noun: &str, findings: &mut Findings) {
    let names = trackers.iter().filter_map(|tracker| tracker.name.as_ref());
    unique(names, findings, |name| format!("the {noun} name {}", quote(name)));
}

/// What to do about a name that there is not.
fn known(typed: &str, names: &[&str], table: &str) -> String {
    match nearest(typed, names.iter().copied()) {
        Some(name) => format!("did you mean {}?", quote(name)),
        None if names.is_empty() => format!("add a {table} with this name, or remove it here"),
        None => format!("add a {table} with this name; there are {}", names.join(", ")),
    }
}

/// The adverts of each of them are sent by one thread.
const ROUTERS_MAX: usize = 1_024;
