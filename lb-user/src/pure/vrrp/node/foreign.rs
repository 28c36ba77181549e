//! Who else uses VRRP's protocol here: VRIDs of nobody's on this node, and CARP. Told once of each sender.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Happening, Node, Seen, receive};
use crate::pure::vrrp::advert::Refusal;

/// Interface, VRID, and sender of those that were told; at most `FOREIGN_MAX`, then they are counted only.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    told: BTreeSet<(u32, u8, IpAddr)>,
}

impl Foreign {
    fn is_news(&mut self, interface: u32, vrid: u8, sender: IpAddr) -> bool {
        let place = (interface, vrid, sender);
        if self.told.len() >= FOREIGN_MAX {
            return false;
        }
        self.told.insert(place)
    }
}

impl Node {
    /// A packet that concerns no router here.
    pub(super) fn foreign(&mut self, seen: &Seen, bytes: &[u8]) {
        let rejected = receive::stranger(bytes, seen);
        *self.refused.entry(rejected.refusal).or_default() += 1;
        let Some(&vrid) = bytes.get(1).filter(|_| matches!(rejected.refusal, Refusal::Vrid | Refusal::Carp))
        else {
            return;
        };
        let mut links = self.world.links.values();
        let Some(link) = links.find(|link| link.index == seen.interface) else { return };
        let is_own = link.addresses.iter().any(|(address, _)| *address == seen.source);
        if !is_own && self.foreign.is_news(seen.interface, vrid, seen.source) {
            let (interface, peer, detail) = (link.name.clone(), seen.source, rejected.detail);
            self.outbox.told.push(Happening::Foreign { interface, peer, detail });
        }
    }
}

/// As many pairs of routers as one network has.
const FOREIGN_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn each_is_news_once_and_forgers_fill_no_memory() {
        let mut foreign = Foreign::default();
        let sender = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        for (interface, vrid, n, is_news) in
            [(2, 51, 1, true), (2, 51, 1, false), (3, 51, 1, true), (2, 52, 1, true), (2, 51, 2, true)]
        {
            assert_eq!(foreign.is_news(interface, vrid, sender(n)), is_news, "{interface} {vrid} {n}");
        }
        let told = (0..2_000).filter(|n| foreign.is_news(9, 51, sender(*n))).count();
        assert_eq!(told, FOREIGN_MAX - 4);
    }
}
