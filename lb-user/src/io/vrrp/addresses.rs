//! What routers have in the kernel: addresses, routes and rules.
//!
//! ```text
//! Estate (wanted) ─┐
//!                  ├─ diff ─► requests, one send ─► held
//! held ────────────┘
//! ```
//!
//! Only what was added here is taken away. It carries a mark, so that the next start finds what a killed daemon left.

use std::{collections::BTreeMap, fs, io};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    route::{RouteMessage, RouteProtocol},
    rule::{RuleAttribute, RuleMessage},
};
use nix::net::if_::if_nametoindex;

use super::{
    MARK,
    item::{Item, address_key, address_of, is_marked},
    netlink::{Client, NetlinkError, Request},
};
use crate::pure::{
    config::{
        model::vrrp::{Address, Vrrp},
        network::Family,
    },
    vrrp::node::{Estate, RouterId},
};

pub struct Addresses {
    client: Client,
    held: BTreeMap<RouterId, Vec<Held>>,
    /// Whether the kernel keeps the mark of an address (Linux 5.18).
    keeps_marks: bool,
    /// Interfaces that were told to promote secondaries.
    promoting: Vec<u32>,
}

/// Wanted, and there.
#[derive(Clone)]
struct Held {
    item: Item,
    /// Put there by us: to be taken away by us.
    is_ours: bool,
}

/// What did not go as wanted; empty: all is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shortfall {
    /// One sentence each.
    pub failed: Vec<String>,
    /// Was there already, and was not put there by a daemon of ours: it stays for ever.
    pub foreign: Vec<String>,
}

impl Addresses {
    /// In the network namespace of the calling thread.
    pub fn new() -> Result<Addresses, NetlinkError> {
        Ok(Addresses {
            client: Client::new()?,
            held: BTreeMap::new(),
            keeps_marks: keeps_marks(),
            promoting: Vec::new(),
        })
    }

    /// Makes what a router has this, no more and no less.
    pub fn install(&mut self, router: RouterId, estate: &Estate) -> Result<Shortfall, NetlinkError> {
        let mut shortfall = Shortfall::default();
        let wanted = resolve(estate, &mut shortfall.failed);
        let none = Vec::new();
        let held = self.held.get(&router).unwrap_or(&none);
        let steps = steps(held, &wanted);
        let mut now_held: Vec<_> = held.iter().filter(|held| wanted.contains(&held.item)).cloned().collect();
        self.promote_secondaries(&wanted);
        let requests: Vec<_> = steps.iter().map(Step::request).collect();
        let results = self.client.carry_out(&requests)?;
        for (step, result) in steps.into_iter().zip(results) {
            match (step, result) {
                (Step::Add(item), Ok(())) => now_held.push(Held { item, is_ours: true }),
                (Step::Add(item), Err(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                    let is_ours = self.is_left_by_us(&item)?;
                    if !is_ours {
                        shortfall.foreign.push(item.shown());
                    }
                    now_held.push(Held { item, is_ours });
                }
                (Step::Add(item), Err(error)) => {
                    shortfall.failed.push(format!("cannot add {}: {error}", item.shown()));
                }
                (Step::Remove(item), Err(error)) if !is_gone(&error) => {
                    shortfall.failed.push(format!("cannot remove {}: {error}", item.shown()));
                    now_held.push(Held { item, is_ours: true });
                }
                (Step::Remove(_), _) => {}
            }
        }
        self.held.remove(&router);
        if !now_held.is_empty() {
            self.held.insert(router, now_held);
        }
        Ok(shortfall)
    }

    /// Of something that is there already.
    fn is_left_by_us(&mut self, item: &Item) -> Result<bool, NetlinkError> {
        if let Item::Address { index, .. } = item {
            let listed = self.addresses(*index)?;
            return Ok(listed.iter().any(|listed| is_marked(listed) && item.is(&new_address(listed))));
        }
        // The kernel removes it only if it has our mark.
        let again = [item.remove(), item.add()];
        Ok(self.client.carry_out(&again)?.iter().all(Result::is_ok))
    }

    /// Looks at everything that is held; names the routers of which something is gone, and what.
    pub fn verify(&mut self) -> Result<Vec<(RouterId, Vec<String>)>, NetlinkError> {
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let mut listed: Vec<_> = self.addresses(ALL)?.iter().map(new_address).collect();
        let held = || self.held.values().flatten();
        let has_routes = held().any(|held| matches!(held.item, Item::Route { .. }));
        let has_rules = held().any(|held| matches!(held.item, Item::Rule { .. }));
        if has_routes {
            listed.extend(self.routes()?.into_iter().map(RouteNetlinkMessage::NewRoute));
        }
        if has_rules {
            listed.extend(self.rules()?.into_iter().map(RouteNetlinkMessage::NewRule));
        }
        let mut lost = Vec::new();
        for (&router, held) in &mut self.held {
            let gone = held.extract_if(.., |held| listed.iter().all(|listed| !held.item.is(listed)));
            let gone: Vec<_> = gone.map(|held| held.item.shown()).collect();
            if !gone.is_empty() {
                lost.push((router, gone));
            }
        }
        self.held.retain(|_, held| !held.is_empty());
        Ok(lost)
    }

    /// Whether an announcement of the kernel's about this address concerns what is held.
    pub fn holds(&self, message: &AddressMessage) -> bool {
        let message = new_address(message);
        self.held.values().flatten().any(|held| held.item.is(&message))
    }

    /// Whether the kernel's routes or rules matter.
    pub fn needs_routes(&self) -> bool {
        self.held.values().flatten().any(|held| !matches!(held.item, Item::Address { .. }))
    }

    /// An interface is gone, and what was on it. Where it only has another name, what is ours leaves it. Names the
    /// routers that had something there.
    pub fn forget_interface(&mut self, index: u32) -> Result<Vec<RouterId>, NetlinkError> {
        self.promoting.retain(|known| *known != index);
        let (mut bereft, mut requests) = (Vec::new(), Vec::new());
        for (&router, held) in &mut self.held {
            let gone: Vec<_> = held.extract_if(.., |held| held.item.is_on(index)).collect();
            if !gone.is_empty() {
                bereft.push(router);
            }
            requests.extend(gone.iter().rev().filter(|held| held.is_ours).map(|held| held.item.remove()));
        }
        self.client.carry_out(&requests)?;
        Ok(bereft)
    }

    /// Takes everything away, at the end of the thread.
    pub fn remove_all(&mut self) -> Result<(), NetlinkError> {
        let held = std::mem::take(&mut self.held);
        let ours = held.values().flatten().filter(|held| held.is_ours);
        let requests: Vec<_> = ours.rev().map(|held| held.item.remove()).collect();
        self.client.carry_out(&requests).map(drop)
    }

    /// What a daemon that was killed has left, by its mark; on a kernel that keeps none, an address that is exactly
    /// what is configured. Says what was removed.
    pub fn remove_leftovers(&mut self, vrrp: &Vrrp) -> Result<Vec<String>, NetlinkError> {
        let keeps_marks = self.keeps_marks;
        let is_ours = |listed: &&AddressMessage| match keeps_marks {
            true => is_marked(listed),
            false => is_configured(listed, vrrp),
        };
        let (mut requests, mut removed) = (Vec::new(), Vec::new());
        for listed in self.rules()? {
            removed.push("a rule".to_owned());
            requests.push(Request { message: RouteNetlinkMessage::DelRule(listed), flags: 0 });
        }
        for listed in self.routes()? {
            removed.push("a route".to_owned());
            requests.push(Request { message: RouteNetlinkMessage::DelRoute(listed), flags: 0 });
        }
        let addresses = self.client.dump("addresses", &address_question(ALL))?;
        for listed in addresses.iter().filter_map(address_in).filter(is_ours) {
            let (index, address, prefix) = address_of(listed);
            removed.push(format!("{address}/{prefix}"));
            let message = RouteNetlinkMessage::DelAddress(address_key(index, address, prefix));
            requests.push(Request { message, flags: 0 });
        }
        let results = self.client.carry_out(&requests)?;
        Ok(removed
            .into_iter()
            .zip(results)
            .filter(|(_, result)| result.is_ok())
            .map(|(what, _)| what)
            .collect())
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<AddressMessage>, NetlinkError> {
        let listed = self.client.dump("addresses", &address_question(index))?;
        Ok(listed.iter().filter_map(address_in).cloned().collect())
    }

    /// Ours.
    fn routes(&mut self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut ours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            question.header.protocol = RouteProtocol::Other(MARK);
            let listed = self.client.dump("routes", &RouteNetlinkMessage::GetRoute(question))?;
            ours.extend(listed.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route)
                    if route.header.protocol == RouteProtocol::Other(MARK) =>
                {
                    Some(route)
                }
                _ => None,
            }));
        }
        Ok(ours)
    }

    /// Ours.
    fn rules(&mut self) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mark = RuleAttribute::Protocol(RouteProtocol::Other(MARK));
        let mut ours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RuleMessage::default();
            question.header.family = family;
            let listed = match self.client.dump("rules", &RouteNetlinkMessage::GetRule(question)) {
                // A kernel without policy rules has none of ours.
                Err(NetlinkError::Dump { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    continue;
                }
                listed => listed?,
            };
            ours.extend(listed.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRule(rule) if rule.attributes.contains(&mark) => Some(rule),
                _ => None,
            }));
        }
        Ok(ours)
    }

    /// Where several addresses share a prefix, the kernel removes all of them with the first unless it may promote
    /// the next: addresses of others would leave with ours. Without the right to write settings those of ours return
    /// as anything does that somebody else removed.
    fn promote_secondaries(&mut self, fresh: &[Item]) {
        for item in fresh {
            let Item::Address { index, dev, address } = item else { continue };
            if address.address.is_ipv6() || address.prefix == 32 || self.promoting.contains(index) {
                continue;
            }
            let _ = fs::write(format!("/proc/sys/net/ipv4/conf/{dev}/promote_secondaries"), "1");
            self.promoting.push(*index);
        }
    }
}

enum Step {
    Add(Item),
    Remove(Item),
}

impl Step {
    fn request(&self) -> Request {
        match self {
            Step::Add(item) => item.add(),
            Step::Remove(item) => item.remove(),
        }
    }
}

/// From what is held to what is wanted. An address that stays never leaves, so what is new comes first, unless it
/// stands in the place of the old. Rules leave before the routes that they lead to, and those before their addresses.
fn steps(held: &[Held], wanted: &[Item]) -> Vec<Step> {
    let fresh = || wanted.iter().filter(|item| held.iter().all(|held| held.item != **item));
    let surplus = held.iter().filter(|held| held.is_ours && !wanted.contains(&held.item));
    let (in_the_way, other): (Vec<_>, Vec<_>) =
        surplus.partition(|held| fresh().any(|item| item.clashes(&held.item)));
    let remove = |held: &Held| Step::Remove(held.item.clone());
    let first = in_the_way.into_iter().map(remove);
    let last = other.into_iter().rev().map(remove);
    first.chain(fresh().cloned().map(Step::Add)).chain(last).collect()
}

/// What an estate is on the devices that there are. A device that is missing is told.
fn resolve(estate: &Estate, failed: &mut Vec<String>) -> Vec<Item> {
    let mut items = Vec::new();
    let mut index_of = |dev: &str| {
        let index = if_nametoindex(dev).ok();
        if index.is_none() {
            failed.push(format!("there is no interface {dev}"));
        }
        index
    };
    for address in &estate.addresses {
        let dev = address.dev.as_ref().unwrap_or(&estate.interface).clone();
        if let Some(index) = index_of(&dev) {
            items.push(Item::Address { index, dev, address: address.clone() });
        }
    }
    for route in &estate.routes {
        let dev = route.dev.as_ref().or_else(|| route.via.is_none().then_some(&estate.interface));
        let index = dev.map(|dev| index_of(dev));
        if index != Some(None) {
            items.push(Item::Route { index: index.flatten(), route: route.clone() });
        }
    }
    let family = estate.addresses.first().map_or(Family::V4, |address| Family::of(address.address));
    for rule in &estate.rules {
        let network = rule.from.or(rule.to);
        let family = network.map_or(family, |network| Family::of(network.address()));
        items.push(Item::Rule { family, rule: rule.clone() });
    }
    items
}

/// Where the kernel keeps no mark.
fn is_configured(listed: &AddressMessage, vrrp: &Vrrp) -> bool {
    let (index, address, prefix) = address_of(listed);
    vrrp.routers.iter().filter(|router| !router.is_owner()).any(|router| {
        let is_it = |wanted: &Address| {
            let dev = wanted.dev.as_ref().unwrap_or(&router.interface);
            (wanted.address, wanted.prefix) == (address, prefix)
                && if_nametoindex(dev.as_str()).is_ok_and(|known| known == index)
        };
        router.addresses.iter().chain(&router.excluded).any(is_it)
    })
}

fn keeps_marks() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map(|part| part.trim().parse::<u32>());
    matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (5, 18))
}

/// Gone is what was wanted.
fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::EADDRNOTAVAIL, libc::ESRCH, libc::ENOENT, libc::ENODEV, libc::ENXIO];
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

/// `index` 0: of all interfaces.
pub(super) fn address_question(index: u32) -> RouteNetlinkMessage {
    let mut question = AddressMessage::default();
    question.header.index = index;
    RouteNetlinkMessage::GetAddress(question)
}

pub(super) fn address_in(message: &RouteNetlinkMessage) -> Option<&AddressMessage> {
    match message {
        RouteNetlinkMessage::NewAddress(message) => Some(message),
        _ => None,
    }
}

fn new_address(message: &AddressMessage) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(message.clone())
}

const ALL: u32 = 0;
