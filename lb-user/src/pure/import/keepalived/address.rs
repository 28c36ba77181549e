//! Addresses, routes and rules that move with a virtual router.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    parser::{Statement, Word},
    value::{interface, prefixed},
};
use crate::pure::config::{
    address::link_address,
    error::{Findings, Spanned, quote},
    model::vrrp::{Address, Route, Rule, Scope},
    network::{Family, Network},
    value::Fault,
};

/// An entry of `virtual_ipaddress`.
pub(super) fn virtual_address(statement: &Statement, findings: &mut Findings) -> Option<Spanned<Address>> {
    let mut words = statement.words.iter();
    let first = words.next()?;
    let (address, prefix) = prefixed(first, findings)?;
    if let Err(Fault { message, remedy }) = link_address(&address.to_string()) {
        findings.warning(first.at, format!("{message}: it is left out"), remedy);
        return None;
    }
    let prefix = if prefix == 0 { Family::of(address).bits() } else { prefix };
    let mut read = Address { address, prefix, dev: None, label: None, scope: None, broadcast: None };
    while let Some(option) = words.next() {
        match option.text.as_str() {
            "dev" => read.dev = interface(value(option, &mut words, findings)?, findings),
            "label" => label(&mut read, value(option, &mut words, findings)?, findings),
            "brd" | "broadcast" => broadcast(&mut read, value(option, &mut words, findings)?, findings),
            "scope" => {
                let word = value(option, &mut words, findings)?;
                read.scope = scope(word, findings).filter(|_| is_v4(&read, option, findings));
            }
            // They are all added so.
            "-nodad" | "nodad" => {}
            "preferred_lft" | "peer" | "track_group" => {
                words.next();
                left_out(option, "the address", findings);
            }
            "home" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "use_vmac" => {
                left_out(option, "the address", findings);
            }
            "no_track" => {
                let message = "`no_track` is left out: an address that somebody removes comes back at once, and the router stays Active";
                findings.warning(option.at, message, "remove the word");
            }
            _ => {
                let message = format!(
                    "{} is no option of an address: it is ignored, as in Keepalived",
                    quote(&option.text)
                );
                let remedy = match option.text.starts_with("//") {
                    true => "`//` begins no comment: write `#` or `!`",
                    false => "remove it; each address stands on a line of its own",
                };
                findings.warning(option.at, message, remedy);
                break;
            }
        }
    }
    Some(Spanned::new(first.at, read))
}

fn value<'s>(
    option: &Word,
    words: &mut impl Iterator<Item = &'s Word>,
    findings: &mut Findings,
) -> Option<&'s Word> {
    let word = words.next();
    if word.is_none() {
        let message = format!("{} has no value: its line is ignored", quote(&option.text));
        findings.warning(option.at, message, "write the value behind it, on the same line");
    }
    word
}

fn left_out(option: &Word, what: &str, findings: &mut Findings) {
    let message = format!("{} is left out: {what} is set without it", quote(&option.text));
    findings.warning(option.at, message, "remove it, when nothing depends on it");
}

fn is_v4(read: &Address, option: &Word, findings: &mut Findings) -> bool {
    let is_v4 = read.address.is_ipv4();
    if !is_v4 {
        let message = format!("{} is for IPv4 only: it is ignored, as in Keepalived", quote(&option.text));
        findings.warning(option.at, message, "remove it");
    }
    is_v4
}

fn label(read: &mut Address, word: &Word, findings: &mut Findings) {
    if !is_v4(read, word, findings) {
        return;
    }
    let is_right =
        (1..=LABEL_MAX).contains(&word.text.len()) && word.text.chars().all(|c| c.is_ascii_graphic());
    if is_right {
        read.label = Some(word.text.clone());
    } else {
        let message = format!("{} is no label of an address: it is left out", quote(&word.text));
        findings.warning(word.at, message, format!("use 1 to {LABEL_MAX} characters, such as eth0:0"));
    }
}

fn broadcast(read: &mut Address, word: &Word, findings: &mut Findings) {
    let IpAddr::V4(address) = read.address else {
        is_v4(read, word, findings);
        return;
    };
    let host = u32::MAX.checked_shr(read.prefix.into()).unwrap_or(0);
    read.broadcast = match word.text.as_str() {
        "+" => Some(Ipv4Addr::from_bits(address.to_bits() | host)),
        "-" => Some(Ipv4Addr::from_bits(address.to_bits() & !host)),
        text => text.parse().ok(),
    };
    if read.broadcast.is_none() {
        let message =
            format!("{} is no broadcast address: the address is set without one", quote(&word.text));
        findings.warning(word.at, message, "write an IPv4 address, or `+` for the last one of the network");
    }
}

fn scope(word: &Word, findings: &mut Findings) -> Option<Scope> {
    match word.text.as_str() {
        "global" | "0" => Some(Scope::Global),
        "site" | "200" => Some(Scope::Site),
        "link" | "253" => Some(Scope::Link),
        "host" | "254" => Some(Scope::Host),
        _ => {
            let message = format!("the scope {} is left out", quote(&word.text));
            findings.warning(word.at, message, "write global, site, link or host");
            None
        }
    }
}

/// An entry of `virtual_routes`. What it cannot hold whole is left out: half a route leads elsewhere.
pub(super) fn route(statement: &Statement, findings: &mut Findings) -> Option<Route> {
    let mut words = statement.words.iter();
    let mut is_v6 = false;
    let (mut to, mut via, mut dev, mut src) = (None, None, None, None);
    let (mut table_id, mut metric, mut scope_word) = (None, None, None);
    while let Some(option) = words.next() {
        match option.text.as_str() {
            "inet6" => is_v6 = true,
            "inet" | "no_track" | "to" | "unicast" => {}
            "src" => src = Some(host(value(option, &mut words, findings)?, findings)?),
            "via" | "gw" => {
                let mut word = value(option, &mut words, findings)?;
                if ["inet", "inet6"].contains(&word.text.as_str()) {
                    word = value(option, &mut words, findings)?;
                }
                via = Some(host(word, findings)?);
            }
            "dev" | "oif" => dev = Some(interface(value(option, &mut words, findings)?, findings)?),
            "table" => table_id = Some(table(value(option, &mut words, findings)?, "route", findings)?),
            "metric" | "priority" | "preference" => {
                metric = Some(count(value(option, &mut words, findings)?, (0, u32::MAX), "route", findings)?);
            }
            "scope" => scope_word = Some(scope(value(option, &mut words, findings)?, findings)?),
            "default" => to = Some(None),
            text if to.is_none() && text.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':') => {
                to = Some(Some(network(option, findings)?));
            }
            _ => return dropped(option, "route", findings),
        }
    }
    let Some(to) = to else {
        findings.warning(
            statement.at(),
            "this route leads nowhere: it is left out",
            "write a network, or `default`",
        );
        return None;
    };
    let of_others = via.or(src).map(Family::of);
    let to =
        to.unwrap_or_else(|| Network::all(of_others.unwrap_or(if is_v6 { Family::V6 } else { Family::V4 })));
    if [via, src].into_iter().flatten().any(|address| Family::of(address) != to.family()) {
        let message = "this route has addresses of both families: it is left out, as in Keepalived";
        findings.warning(statement.at(), message, "write addresses of one family");
        return None;
    }
    Some(Route { to, via, dev, src, table: table_id, metric, scope: scope_word })
}

/// An entry of `virtual_rules`. What it cannot hold whole is left out: half a rule matches more.
pub(super) fn rule(statement: &Statement, findings: &mut Findings) -> Option<Rule> {
    let mut words = statement.words.iter();
    let (mut from, mut to, mut iif, mut table_id, mut priority) = (None, None, None, None, None);
    while let Some(option) = words.next() {
        match option.text.as_str() {
            "inet" | "inet6" | "no_track" => {}
            "from" | "to" => {
                let word = value(option, &mut words, findings)?;
                let network = if word.text == "all" { None } else { Some(network(word, findings)?) };
                *(if option.text == "from" { &mut from } else { &mut to }) = network;
            }
            "iif" | "dev" => iif = Some(interface(value(option, &mut words, findings)?, findings)?),
            "table" | "lookup" => {
                table_id = Some(table(value(option, &mut words, findings)?, "rule", findings)?)
            }
            "priority" | "preference" | "pref" | "order" => {
                priority =
                    Some(count(value(option, &mut words, findings)?, (1, PRIORITY_MAX), "rule", findings)?);
            }
            _ => return dropped(option, "rule", findings),
        }
    }
    let families: Vec<_> = [from, to].into_iter().flatten().map(Network::family).collect();
    let message = match (table_id, families.as_slice()) {
        (None, _) => "this rule has no table: it is left out",
        (_, []) => "this rule has neither `from` nor `to` with a network: it is left out",
        (_, [one, other]) if one != other => "this rule has both families: it is left out, as in Keepalived",
        (Some(table), _) => return Some(Rule { from, to, iif, table, priority }),
    };
    findings.warning(
        statement.at(),
        message,
        "write `from` or `to` with networks of one family, and `table`",
    );
    None
}

fn dropped<T>(option: &Word, what: &str, findings: &mut Findings) -> Option<T> {
    let message = format!(
        "{} is not taken over, and without it this {what} would mean something else: it is left out",
        quote(&option.text)
    );
    findings.warning(
        option.at,
        message,
        format!("set this {what} by a notify script, or write it without that word"),
    );
    None
}

fn host(word: &Word, findings: &mut Findings) -> Option<IpAddr> {
    let bare = word.text.split_once('/').map_or(word.text.as_str(), |(address, _)| address);
    match link_address(bare) {
        Ok(address) => Some(address),
        Err(Fault { message, remedy }) => {
            findings.warning(word.at, format!("{message}: its line is left out"), remedy);
            None
        }
    }
}

fn network(word: &Word, findings: &mut Findings) -> Option<Network> {
    let (address, length) = prefixed(word, findings)?;
    let network = Network::around(address, length)?;
    if network.address() != address {
        let message = format!("{} has bits set behind its prefix: `{network}` is used", quote(&word.text));
        findings.warning(word.at, message, format!("write {network}"));
    }
    Some(network)
}

fn table(word: &Word, what: &str, findings: &mut Findings) -> Option<u32> {
    match word.text.as_str() {
        "main" => Some(254),
        "default" => Some(253),
        "local" => Some(255),
        _ => count(word, (1, u32::MAX), what, findings),
    }
}

fn count(word: &Word, (min, max): (u32, u32), what: &str, findings: &mut Findings) -> Option<u32> {
    let number = word.text.parse().ok().filter(|number| (min..=max).contains(number));
    if number.is_none() {
        let message =
            format!("{} is no number from {min} to {max}: this {what} is left out", quote(&word.text));
        findings.warning(word.at, message, "write a number; names of tables are not looked up");
    }
    number
}

/// IFNAMSIZ without its final NUL.
const LABEL_MAX: usize = 15;
/// Behind it come main and default.
const PRIORITY_MAX: u32 = 32_765;
