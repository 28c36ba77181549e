//! Devices with a virtual router's MAC, one beside each interface that such a router stands on.
//!
//! Private: what one of them sends does not come back to another. None has a link-local address, which all nodes
//! would share. They carry our mark, so that the next start finds what a killed daemon has left.

use std::{collections::BTreeMap, fs, io};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode},
};
use nix::net::if_::if_nametoindex;

use super::netlink::{Client, NetlinkError, Request};
use crate::pure::hop::Mac;

pub struct Macvlans {
    client: Client,
    /// Those that are there, by name.
    there: BTreeMap<String, Macvlan>,
    /// What settings of the interfaces below were, to be put back.
    before: BTreeMap<String, [(&'static str, String); 2]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macvlan {
    pub name: String,
    pub base: String,
    pub mac: Mac,
}

impl Macvlans {
    /// Removes what a killed daemon has left. In the network namespace of the calling thread.
    pub fn new() -> Result<Macvlans, NetlinkError> {
        let mut macvlans =
            Macvlans { client: Client::new()?, there: BTreeMap::new(), before: BTreeMap::new() };
        let links =
            macvlans.client.dump("interfaces", &RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let ours = links.iter().filter_map(link_in).filter(|link| is_ours(link));
        let removals: Vec<_> = ours.map(|link| removal(link.header.index)).collect();
        macvlans.client.carry_out(&removals)?;
        Ok(macvlans)
    }

    /// Makes those that are missing where their interface is there, and takes away those that are not wanted. Says
    /// what could not be done.
    pub fn reconcile(&mut self, wanted: &[Macvlan]) -> Result<Vec<String>, NetlinkError> {
        let surplus: Vec<_> = self.there.values().filter(|there| !wanted.contains(there)).cloned().collect();
        for there in surplus {
            self.remove(&there)?;
        }
        let mut failed = Vec::new();
        for (place, macvlan) in wanted.iter().enumerate() {
            if wanted[..place].iter().any(|other| other.name == macvlan.name) {
                failed.push(format!("two virtual routers want a device {}: give one a name", macvlan.name));
                continue;
            }
            // One that is not there yet is waited for.
            let Ok(base) = if_nametoindex(macvlan.base.as_str()) else {
                self.there.remove(&macvlan.name);
                continue;
            };
            if let Err(error) = self.ensure(macvlan, base)? {
                failed.push(format!("cannot make the device {}: {error}", macvlan.name));
            }
        }
        self.restore(|base| wanted.iter().any(|macvlan| macvlan.base == base));
        Ok(failed)
    }

    /// At the end.
    pub fn remove_all(&mut self) -> Result<(), NetlinkError> {
        self.reconcile(&[]).map(drop)
    }

    fn ensure(&mut self, macvlan: &Macvlan, base: u32) -> Result<io::Result<()>, NetlinkError> {
        if let Some(found) = self.find(&macvlan.name)? {
            if is_it(&found, macvlan, base) {
                self.there.insert(macvlan.name.clone(), macvlan.clone());
                return Ok(Ok(()));
            }
            if !is_ours(&found) {
                let text = "there is one that is not ours: give the virtual MAC another name";
                return Ok(Err(io::Error::other(text)));
            }
            self.client.carry_out(&[removal(found.header.index)])?;
        }
        let results = self.client.carry_out(&[creation(macvlan, base), marking(&macvlan.name)])?;
        if let Some(Err(error)) = results.into_iter().next() {
            let text = match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => "this kernel has no macvlan (CONFIG_MACVLAN)".to_owned(),
                _ => error.to_string(),
            };
            return Ok(Err(io::Error::other(text)));
        }
        self.there.insert(macvlan.name.clone(), macvlan.clone());
        if let Err(error) = self.prepare(macvlan) {
            return Ok(Err(error));
        }
        let Some(found) = self.find(&macvlan.name)? else { return Ok(Err(io::ErrorKind::NotFound.into())) };
        let results = self.client.carry_out(&[switch_on(found.header.index)])?;
        Ok(results.into_iter().next().unwrap_or(Ok(())))
    }

    /// The addresses are on the device, and only the device answers for them; packets to them come in by it though
    /// the way back is by the interface below.
    fn prepare(&mut self, macvlan: &Macvlan) -> io::Result<()> {
        for (setting, value) in
            [("accept_local", "1"), ("rp_filter", "0"), ("arp_filter", "0"), ("arp_ignore", "1")]
        {
            set(&macvlan.name, setting, value)?;
        }
        // Without IPv6 there is no such setting, and no such address.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", macvlan.name), NO_LINK_LOCAL);
        let base = &macvlan.base;
        if !self.before.contains_key(base) {
            let read = |setting| Ok::<_, io::Error>((setting, get(base, setting)?));
            let before = [read("arp_ignore")?, read("arp_filter")?];
            self.before.insert(base.clone(), before);
        }
        set(base, "arp_ignore", "1")?;
        set(base, "arp_filter", "1")?;
        if get("all", "rp_filter")? != "0" {
            return Err(io::Error::other(
                "net.ipv4.conf.all.rp_filter is on, which drops what comes in by it: set it to 0, and that of each \
                 interface instead",
            ));
        }
        Ok(())
    }

    /// Settings of interfaces that carry no device any more.
    fn restore(&mut self, carries: impl Fn(&str) -> bool) {
        for (base, before) in self.before.extract_if(.., |base, _| !carries(base)) {
            for (setting, value) in before {
                // An interface that is gone has none.
                let _ = set(&base, setting, &value);
            }
        }
    }

    fn remove(&mut self, macvlan: &Macvlan) -> Result<(), NetlinkError> {
        self.there.remove(&macvlan.name);
        if let Some(found) = self.find(&macvlan.name)?.filter(is_ours) {
            self.client.carry_out(&[removal(found.header.index)])?;
        }
        Ok(())
    }

    fn find(&mut self, name: &str) -> Result<Option<LinkMessage>, NetlinkError> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.client.ask(RouteNetlinkMessage::GetLink(question))?;
        Ok(answer.as_ref().and_then(link_in).cloned())
    }
}

fn link_in(message: &RouteNetlinkMessage) -> Option<&LinkMessage> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}

fn is_ours(link: &LinkMessage) -> bool {
    link.attributes.contains(&LinkAttribute::IfAlias(ALIAS.to_owned()))
}

fn is_it(link: &LinkMessage, macvlan: &Macvlan, base: u32) -> bool {
    let wanted = [LinkAttribute::Link(base), LinkAttribute::Address(macvlan.mac.to_vec())];
    is_ours(link) && wanted.iter().all(|attribute| link.attributes.contains(attribute))
}

fn creation(macvlan: &Macvlan, base: u32) -> Request {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(macvlan.name.clone()),
        LinkAttribute::Link(base),
        LinkAttribute::Address(macvlan.mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Private)])),
        ]),
    ];
    Request { message: RouteNetlinkMessage::NewLink(link), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// Only what is there can be marked.
fn marking(name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(ALIAS.to_owned())];
    Request { message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}

fn switch_on(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Request { message: RouteNetlinkMessage::NewLink(link), flags: 0 }
}

fn removal(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    Request { message: RouteNetlinkMessage::DelLink(link), flags: 0 }
}

fn path(device: &str, setting: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{device}/{setting}")
}

fn get(device: &str, setting: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(device, setting))?.trim().to_owned())
}

fn set(device: &str, setting: &str, value: &str) -> io::Result<()> {
    let named = |error| io::Error::other(format!("net.ipv4.conf.{device}.{setting} = {value}: {error}"));
    fs::write(path(device, setting), value).map_err(named)
}

/// IN6_ADDR_GEN_MODE_NONE.
const NO_LINK_LOCAL: &str = "1";
/// The mark of a device.
const ALIAS: &str = "steelyard virtual router";
