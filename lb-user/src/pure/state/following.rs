//! Slots of services whose addresses another node has: that node's connections are the ones that count.
//!
//! While a virtual router of this node is Backup, no connection of its services is seen here, and what this node's
//! own checks made of their slots says nothing of who owns what. So the slots follow the node that tells of them:
//! `current` stays as this node plans it, `base` and `lookup` are the other's. When the addresses come here, the slots
//! stay as they stand, and go on by this node's own history.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    flow::{FlowKey, Ticks},
    slot::{ServerId, Slot},
};

use super::{State, settling::records};
use crate::pure::{
    config::{
        model::{Forward, Service},
        network::Family,
    },
    settle::Records,
};

/// Addresses that virtual routers move, and those of them that are here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    pub movable: BTreeSet<IpAddr>,
    pub held: BTreeSet<IpAddr>,
}

/// A ring as the node tells of it that has the service's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub service: String,
    pub family: Option<Family>,
    /// Who owns what is not recorded, None for a server that this node does not have; and whether records matter.
    pub slots: Vec<(Option<SocketAddr>, bool)>,
}

impl Holdings {
    /// Whether some address of the service may be here and is not.
    fn is_elsewhere(&self, service: &Service) -> bool {
        let is_elsewhere = |address: &IpAddr| self.movable.contains(address) && !self.held.contains(address);
        service.addresses.iter().any(|network| is_elsewhere(&network.address()))
    }
}

impl State {
    /// Where addresses are. Services whose addresses came here go on by what they have.
    pub fn hold(&mut self, holdings: Holdings) {
        if self.holdings == holdings {
            return;
        }
        self.holdings = holdings;
        for index in 0..self.services.len() {
            let here = !self.holdings.is_elsewhere(&self.config.services[index]);
            for ring in &mut self.services[index].rings {
                self.stale |= here && ring.followed.take().is_some();
            }
        }
    }

    /// Whether a service's connections come here: at least, no other node is known to have them.
    pub fn is_here(&self, service: &str) -> bool {
        self.named(service).is_some_and(|index| self.is_at_home(index))
    }

    fn is_at_home(&self, index: usize) -> bool {
        !self.holdings.is_elsewhere(&self.config.services[index])
    }

    /// Takes another node's view of a ring over. False: this node has the service's addresses itself, or has another
    /// such ring.
    pub fn follow(&mut self, view: &View) -> bool {
        let Some(index) = self.named(&view.service).filter(|&index| !self.is_at_home(index)) else {
            return false;
        };
        let service = &self.config.services[index];
        let ring = service.rings().iter().position(|family| *family == view.family);
        let (Some(ring), true) = (ring, service.slots as usize == view.slots.len()) else { return false };
        let ids = self.by_server_address(index);
        let slot = |&(address, lookup): &(Option<SocketAddr>, bool)| {
            let base = address.and_then(|address| ids.get(&address).copied()).unwrap_or_default();
            Slot::new(ServerId::NONE, base, lookup)
        };
        let slots: Vec<_> = view.slots.iter().map(slot).collect();
        let followed = &mut self.services[index].rings[ring].followed;
        if followed.as_deref() != Some(&slots) {
            *followed = Some(Arc::new(slots));
            self.stale = true;
        }
        true
    }

    /// The server of a service with this address.
    pub fn local_server(&self, service: &str, address: SocketAddr) -> Option<ServerId> {
        let index = self.named(service)?;
        let of_service = |id: &ServerId| {
            self.servers
                .get(id)
                .is_some_and(|server| server.index == Some(index) && server.address == address)
        };
        self.by_address.get(&address.ip())?.iter().copied().find(of_service)
    }

    /// The id that records of all flows of a client carry.
    pub fn service_id(&self, service: &str) -> Option<u32> {
        self.named(service).map(|index| self.services[index].place.id)
    }

    /// Position of a source address of `nat`.
    pub fn nat_position(&self, source: IpAddr) -> Option<u32> {
        self.nat_sources.iter().position(|&known| known == source).map(|position| position as u32)
    }

    /// Service and address of a server whose connections come here; None: others are to tell of them, or nobody.
    pub fn told_of(&self, id: ServerId) -> Option<(&str, SocketAddr)> {
        let server = self.servers.get(&id)?;
        let index = server.index?;
        self.is_at_home(index).then(|| (&*self.config.services[index].name, server.address))
    }

    /// Whether other nodes are to know of a server's record: it may say what no slot does.
    pub fn is_told<F: lb_common::net::Family>(&self, id: ServerId, key: &FlowKey<F>, now: Ticks) -> bool {
        let Some(index) = self.servers.get(&id).and_then(|server| server.index) else { return false };
        self.is_at_home(index)
            && match records(&self.config.services[index]) {
                Records::Always => true,
                Records::Unsettled => self.site(id, key, now).is_some_and(|site| site.slot.lookup()),
            }
    }

    /// The rings of services whose connections come here, as they are installed.
    pub fn told_rings(&self) -> impl Iterator<Item = (&str, Option<Family>, &Arc<Vec<Slot>>)> {
        let here = (0..self.services.len()).filter(|&index| self.is_at_home(index));
        here.flat_map(move |index| {
            let service = &self.config.services[index];
            let places = self.services[index].place.rings.iter();
            service.rings().into_iter().zip(places).filter_map(move |(family, place)| {
                Some((&*service.name, family, self.installed.rings.get(place)?))
            })
        })
    }

    fn named(&self, service: &str) -> Option<usize> {
        self.config.services.iter().position(|known| known.name == service)
    }

    fn by_server_address(&self, index: usize) -> BTreeMap<SocketAddr, ServerId> {
        let servers = self.servers.iter().filter(|(_, server)| server.index == Some(index));
        servers.map(|(&id, server)| (server.address, id)).collect()
    }
}

/// The slot of a service whose connections another node has. `view`: its base and lookup are that node's.
/// `base_lives`: the server in that base is not down here.
pub(super) fn followed(service: &Service, wanted: ServerId, view: Slot, base_lives: bool) -> Slot {
    if service.forward == Forward::Nat && !service.by_client() {
        return Slot::settled(wanted);
    }
    let base = if base_lives && !view.base().is_none() { view.base() } else { wanted };
    let lookup = view.lookup() || base != wanted;
    match records(service) {
        Records::Always if base == wanted => Slot::settled(wanted),
        Records::Always | Records::Unsettled => Slot::new(wanted, base, lookup),
    }
}

#[cfg(test)]
mod tests;
