//! What a router has while it is Active: addresses, routes and rules, as typed.

use super::{Typed, checked, choice, number, required};
use crate::pure::config::{
    address,
    error::{Findings, Span, Spanned, quote},
    model::vrrp::{Address, Route, Rule, Scope},
    network::{Family, Network},
    raw::{Field, Text, vrrp as raw},
    value::{self, Fault, fault},
};

pub(super) struct Estate {
    pub(super) family: Family,
    pub(super) addresses: Vec<Address>,
    pub(super) excluded: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
}

pub(super) fn estate(
    raw: raw::Estate,
    family: Field<Text>,
    cast: &raw::Cast,
    typed: &Typed,
    findings: &mut Findings,
) -> Option<Estate> {
    let family = family.or(None, |typed| choice(&typed, "family", &FAMILIES, &[], findings).map(Some));
    let addresses = addresses(raw.addresses, "addresses", findings);
    let excluded = addresses_of(raw.excluded_addresses, findings);
    let routes = each(raw.routes, "routes", findings, route);
    let rules = each(raw.rules, "rules", findings, rule);
    let (family, addresses, excluded) = (family?, addresses?, excluded?);
    let first = addresses.first().map(|address| address.value.address);
    let family = family.or(first.map(Family::of)).or(spoken(cast)).unwrap_or(Family::V4);
    one_family(&addresses, family, findings);
    fits(&addresses, family, typed, findings);
    let values = |list: Vec<Spanned<Address>>| list.into_iter().map(|address| address.value).collect();
    Some(Estate {
        family,
        addresses: values(addresses),
        excluded: values(excluded),
        routes: routes?,
        rules: rules?,
    })
}

/// Of what adverts come from or go to, where there are no addresses in them.
fn spoken(cast: &raw::Cast) -> Option<Family> {
    let given = |field: &Field<Text>| match field {
        Field::Given(text) => text.value.parse().ok().map(Family::of),
        Field::Absent | Field::Wrong => None,
    };
    let peer = match &cast.unicast_peers {
        Field::Given(peers) => peers.iter().find_map(|peer| given(&peer.value.address)),
        Field::Absent | Field::Wrong => None,
    };
    given(&cast.source).or(peer).or_else(|| given(&cast.multicast_group))
}

fn addresses(
    raw: Field<Vec<Spanned<raw::Address>>>,
    key: &str,
    findings: &mut Findings,
) -> Option<Vec<Spanned<Address>>> {
    raw.or(Vec::new(), |list| {
        if let Some(over) = list.get(LIST_MAX) {
            let message = format!("`{key}` has {} entries", list.len());
            findings.error(over.at, message, format!("keep at most {LIST_MAX}"));
        }
        let read: Vec<_> = list.into_iter().map(|raw| address(raw, findings)).collect();
        read.into_iter().collect()
    })
}

fn addresses_of(
    raw: Field<Vec<Spanned<raw::Address>>>,
    findings: &mut Findings,
) -> Option<Vec<Spanned<Address>>> {
    addresses(raw, "excluded_addresses", findings)
}

fn address(raw: Spanned<raw::Address>, findings: &mut Findings) -> Option<Spanned<Address>> {
    let Spanned { at, value: raw } = raw;
    let typed = required(raw.address, "address", "\"10.0.5.96/20\"", at, findings);
    let address = typed.as_ref().and_then(|typed| checked(typed, findings, address::interface_address));
    let dev = raw.dev.or(None, |typed| checked(&typed, findings, value::interface).map(Some));
    let mut label_at = None;
    let label = raw.label.or(None, |typed| {
        label_at = Some(typed.at);
        checked(&typed, findings, label).map(Some)
    });
    let scope = scope(raw.scope, findings);
    let mut broadcast_at = None;
    let broadcast = raw.broadcast.or(None, |typed| {
        broadcast_at = Some(typed.at);
        checked(&typed, findings, broadcast).map(Some)
    });
    let (ip, prefix) = address?;
    if Family::of(ip) == Family::V6 {
        for (key, at) in [("label", label_at), ("broadcast", broadcast_at)] {
            if let Some(at) = at {
                findings.error(at, format!("an IPv6 address has no {key}"), format!("remove `{key}`"));
            }
        }
    }
    let address =
        Address { address: ip, prefix, dev: dev?, label: label?, scope: scope?, broadcast: broadcast? };
    Some(Spanned::new(typed?.at, address))
}

/// As the kernel's IFA_LABEL: an interface name that may have colons.
fn label(text: &str) -> Result<String, Fault> {
    let is_valid = (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_valid {
        true => Ok(text.into()),
        false => Err(fault(
            format!("{} is not a label", quote(text)),
            format!("write 1 to {LABEL_MAX} visible characters, such as \"eth0:0\""),
        )),
    }
}

fn broadcast(text: &str) -> Result<std::net::Ipv4Addr, Fault> {
    text.parse().map_err(|_| {
        fault(format!("{} is not an IPv4 address", quote(text)), "write the last one of the network")
    })
}

fn scope(raw: Field<Text>, findings: &mut Findings) -> Option<Option<Scope>> {
    raw.or(None, |typed| choice(&typed, "scope", &SCOPES, &[], findings).map(Some))
}

fn one_family(addresses: &[Spanned<Address>], family: Family, findings: &mut Findings) {
    for Spanned { at, value } in addresses.iter().filter(|typed| Family::of(typed.value.address) != family) {
        findings.error(
            *at,
            format!("`{}` is not {}, and adverts carry one family", value.address, family.name()),
            "move it to `excluded_addresses`, which move along, or to a [[vrrp]] of its own",
        );
    }
}

/// An advert is one packet, and counts its addresses in a byte.
fn fits(addresses: &[Spanned<Address>], family: Family, typed: &Typed, findings: &mut Findings) {
    let max = match family {
        Family::V4 => usize::from(u8::MAX),
        Family::V6 => ADVERT_V6_MAX,
    };
    if addresses.len() > max {
        findings.error(
            typed.near("addresses"),
            format!("no advert holds {} addresses", addresses.len()),
            format!("keep {max} here, and move the others to `excluded_addresses`"),
        );
    }
}

/// Every entry is looked at; one wrong entry makes the list wrong.
fn each<R, T>(
    raw: Field<Vec<Spanned<R>>>,
    key: &str,
    findings: &mut Findings,
    read: fn(Spanned<R>, &mut Findings) -> Option<T>,
) -> Option<Vec<T>> {
    raw.or(Vec::new(), |list| {
        if let Some(over) = list.get(LIST_MAX) {
            let message = format!("`{key}` has {} entries", list.len());
            findings.error(over.at, message, format!("keep at most {LIST_MAX}"));
        }
        let read: Vec<_> = list.into_iter().map(|raw| read(raw, findings)).collect();
        read.into_iter().collect()
    })
}

fn route(raw: Spanned<raw::Route>, findings: &mut Findings) -> Option<Route> {
    let Spanned { at, value: raw } = raw;
    let to = required(raw.to, "to", "\"192.0.2.0/24\"", at, findings);
    let to = to.and_then(|typed| checked(&typed, findings, destination));
    let via = raw.via.or(None, |typed| checked(&typed, findings, address::link_address).map(Some));
    let dev = raw.dev.or(None, |typed| checked(&typed, findings, value::interface).map(Some));
    let src = raw.src.or(None, |typed| checked(&typed, findings, address::link_address).map(Some));
    let table = raw.table.or(None, |typed| number(&typed, "table", 1, u32::MAX, findings).map(Some));
    let metric = raw.metric.or(None, |typed| number(&typed, "metric", 0, u32::MAX, findings).map(Some));
    let scope = scope(raw.scope, findings);
    let route =
        Route { to: to?, via: via?, dev: dev?, src: src?, table: table?, metric: metric?, scope: scope? };
    of_one_family(at, route.to, [route.via, route.src].into_iter().flatten().map(Network::host), findings)?;
    Some(route)
}

fn rule(raw: Spanned<raw::Rule>, findings: &mut Findings) -> Option<Rule> {
    let Spanned { at, value: raw } = raw;
    let from = raw.from.or(None, |typed| checked(&typed, findings, address::network).map(Some));
    let to = raw.to.or(None, |typed| checked(&typed, findings, address::network).map(Some));
    let iif = raw.iif.or(None, |typed| checked(&typed, findings, value::interface).map(Some));
    let table = required(raw.table, "table", "100", at, findings);
    let table = table.and_then(|typed| number(&typed, "table", 1, u32::MAX, findings));
    let priority =
        raw.priority.or(None, |typed| number(&typed, "priority", 1, PRIORITY_MAX, findings).map(Some));
    let rule = Rule { from: from?, to: to?, iif: iif?, table: table?, priority: priority? };
    match rule.from.or(rule.to) {
        Some(one) => of_one_family(at, one, rule.to.into_iter(), findings)?,
        None => {
            let remedy = "add `from` or `to`: what is left out holds for every packet of one family";
            findings.error(at, "a rule needs the packets that it is for", remedy);
            return None;
        }
    }
    Some(rule)
}

/// "default", or a network.
fn destination(text: &str) -> Result<Network, Fault> {
    match text {
        "default" => Ok(Network::all(Family::V4)),
        "default6" => Ok(Network::all(Family::V6)),
        _ => address::network(text),
    }
}

fn of_one_family(
    at: Span,
    one: Network,
    others: impl Iterator<Item = Network>,
    findings: &mut Findings,
) -> Option<()> {
    for other in others.filter(|other| other.family() != one.family()) {
        let message = format!("`{one}` and `{other}` are of different families");
        findings.error(at, message, "write one for each family");
        return None;
    }
    Some(())
}

const FAMILIES: [(&str, Family); 2] = [("ipv4", Family::V4), ("ipv6", Family::V6)];
const SCOPES: [(&str, Scope); 4] =
    [("global", Scope::Global), ("site", Scope::Site), ("link", Scope::Link), ("host", Scope::Host)];
/// IFNAMSIZ without its final NUL.
const LABEL_MAX: usize = 15;
/// In a packet of 1 500 bytes: 40 of them IPv6's header, 8 the message's, 28 the trailer of `auth_hmac`.
const ADVERT_V6_MAX: usize = (1_500 - 40 - 8 - 28) / 16;
const LIST_MAX: usize = 1_024;
/// Behind it come main and default.
const PRIORITY_MAX: u32 = 32_765;
