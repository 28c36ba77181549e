//! What a configuration makes of the state: at the start, over what an earlier daemon pinned, and at every reload, over
//! what this one has learned. A server that both have keeps its id, its health and its way; a service its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::{
    entry::{self, Mode},
    flow::Ticks,
    hash::HashKey,
};
use siphasher::sip::SipHasher24;

use super::{Holdings, Ring, ServerState, ServiceState, Start, State, entries, usable::Usage, way};
use crate::pure::{
    config::model::{self, Admin, Config, check::CheckKind},
    health::{Health, Terms},
    ids::{ServerIds, ServerKey},
    place::{self, Place, PlaceError},
    report::Advice,
    schedule::Orders,
    settle::Survey,
};

impl State {
    pub fn new(start: Start<'_>) -> Result<Self, PlaceError> {
        let Start { config, secret, pinned, ring_slots, flows_max, now } = start;
        let at_start = Config { services: Vec::new(), ..config.clone() };
        let mut state = State {
            hash_key: pinned.hash_key,
            seed: 0,
            ring_slots,
            attached: Default::default(),
            services: Vec::new(),
            servers: BTreeMap::new(),
            ids: ServerIds::default(),
            by_address: BTreeMap::new(),
            reaches: BTreeMap::new(),
            nat_sources: pinned.nat_sources.clone(),
            unnamed: Default::default(),
            flows: 0,
            sweeps: 0,
            records: BTreeMap::new(),
            now: Ticks::default(),
            clock: now,
            wake: None,
            notices: Vec::new(),
            orders: Orders::default(),
            refused: BTreeMap::new(),
            survey: Survey::default(),
            settle_from: 0,
            holdings: Holdings::default(),
            crowded: false,
            stale: true,
            installed: pinned,
            config: at_start.clone(),
            at_start,
            flows_max,
        };
        state.adopt_servers();
        state.reconfigure(config, secret)?;
        Ok(state)
    }

    /// Every pinned server keeps its id; those the configuration still has are claimed by `enter_servers`.
    fn adopt_servers(&mut self) {
        for (&id, server) in &self.installed.servers {
            let address = SocketAddr::new(server.address, server.port.get());
            self.ids.adopt(id, ServerKey { service: server.service, address });
            let known = ServerState {
                address,
                service: server.service,
                index: None,
                position: None,
                health: Health::adopted(Terms::nobodys(), server.hop.lives),
                admin: Admin::Ready,
                advice: Advice::default(),
                detail: "as before the restart".to_owned(),
                usage: Usage::default(),
                pinned: Some(*server),
            };
            self.servers.insert(id, known);
        }
    }

    /// Takes another configuration; `plan` says what follows from it. On failure the state is of no further use: the
    /// caller tries with a copy.
    pub fn reconfigure(&mut self, config: Config, secret: &[u8]) -> Result<(), PlaceError> {
        let places = place::assign(&config, &self.installed, self.ring_slots)?;
        self.nat_sources = way::nat_sources(&config.datapath, &self.nat_sources)
            .ok_or(PlaceError::NatSources(self.nat_sources.len()))?;
        let (hash_key, seed) = (HashKey([derive(secret, 0), derive(secret, 1)]), derive(secret, 2));
        let same_seed = self.seed == seed && self.hash_key == hash_key;
        let panicking: BTreeSet<_> =
            self.services.iter().filter(|service| service.panics).map(|service| service.place.id).collect();
        let mut rings = self.take_rings(&config, same_seed);
        (self.hash_key, self.seed, self.config) = (hash_key, seed, config);
        self.index_servers(&places);
        for (index, place) in places.into_iter().enumerate() {
            let servers = self.enter_servers(index, place.id)?;
            let rings = place.rings.iter().map(|base| rings.remove(base).unwrap_or_default()).collect();
            let panics = panicking.contains(&place.id);
            self.services.push(ServiceState { place, servers, rings, panics });
        }
        self.by_address.clear();
        for (&id, server) in &self.servers {
            self.by_address.entry(server.address.ip()).or_default().insert(id);
        }
        self.reaches.retain(|address, _| self.by_address.contains_key(address));
        self.take_terms();
        // A server that comes back may be recorded again before it goes.
        self.unnamed.clear();
        self.stale = true;
        Ok(())
    }

    /// Health by the terms of the new configuration; what an agent said ends with its check.
    fn take_terms(&mut self) {
        let mut changed = Vec::new();
        for (&id, server) in &mut self.servers {
            let Some(index) = server.index else { continue };
            let service = &self.config.services[index];
            if !matches!(service.check.kind, CheckKind::Agent { .. }) {
                server.advice = Advice::default();
            }
            changed.extend(server.health.reconfigure(Terms::of(service)).map(|change| (id, change)));
        }
        for (id, change) in changed {
            let notice = self.changed(id, change, "its checks begin or end".to_owned());
            self.notices.push(notice);
        }
    }

    /// The rings there are, by their place; those of a service whose choice of servers works in another way are to be
    /// built again, though their members stay.
    fn take_rings(&mut self, config: &Config, same_seed: bool) -> BTreeMap<u32, Ring> {
        let mut rings = BTreeMap::new();
        for (state, old) in std::mem::take(&mut self.services).into_iter().zip(&self.config.services) {
            let as_before = |new: &model::Service| {
                new.name == old.name && new.balance == old.balance && new.forward == old.forward
            };
            let keeps = same_seed && config.services.iter().any(as_before);
            for (base, ring) in state.place.rings.into_iter().zip(state.rings) {
                rings.insert(base, if keeps { ring } else { ring.outdated() });
            }
        }
        rings
    }

    /// Which service each known server belongs to now; none has a position yet.
    fn index_servers(&mut self, places: &[Place]) {
        let by_id: BTreeMap<_, _> =
            places.iter().enumerate().map(|(index, place)| (place.id, index)).collect();
        for server in self.servers.values_mut() {
            server.index = by_id.get(&server.service).copied();
            server.position = None;
        }
    }

    fn enter_servers(
        &mut self,
        index: usize,
        service: u32,
    ) -> Result<Vec<lb_common::slot::ServerId>, PlaceError> {
        let configured = &self.config.services[index];
        let mut ids = Vec::with_capacity(configured.servers.len());
        for (position, server) in configured.servers.iter().enumerate() {
            let address = server.address;
            let id = self.ids.get_or_insert(ServerKey { service, address }).ok_or(PlaceError::Servers)?;
            let known = self.servers.entry(id).or_insert_with(|| ServerState {
                address,
                service,
                index: Some(index),
                position: None,
                health: Health::new(Terms::of(configured)),
                admin: Admin::Ready,
                advice: Advice::default(),
                detail: "not checked yet".to_owned(),
                usage: Usage::default(),
                pinned: None,
            });
            known.position = Some(position);
            known.admin = server.admin;
            if configured.check.kind.is_none() {
                known.detail = "counts as up".to_owned();
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// What the configuration changes that breaks connections, one sentence each; asked before the first plan with it.
    pub fn breaks(&self) -> Vec<String> {
        let pinned = &self.installed;
        let mut breaks = Vec::new();
        if !pinned.services.is_empty() && pinned.hash_key != self.hash_key {
            breaks.push(
                "the cluster secret differs from the one in force: connections that need no record move to other servers"
                    .to_owned(),
            );
        }
        for (state, service) in self.services.iter().zip(&self.config.services) {
            let moved = |(family, &base)| {
                place::standing(service, family, pinned).is_some_and(|old| old.ring_base != base)
            };
            let standing = |family| place::standing(service, family, pinned);
            let mode = entries::mode(service.forward);
            let mut before = service.rings().into_iter().filter_map(standing);
            if let Some(old) = before.next() {
                breaks.extend(broken(service, mode, &old));
            }
            let mut rings = service.rings().into_iter().zip(&state.place.rings);
            if !service.records_all() && rings.any(moved) {
                breaks.push(format!(
                    "the ring of service {} gets another size: its connections move to other servers",
                    service.name
                ));
            }
        }
        breaks
    }
}

/// What became of the connections of a service that was another one before.
fn broken(service: &model::Service, mode: Mode, old: &entry::Service) -> Option<String> {
    let name = &service.name;
    if mode != old.mode && (mode.rewrites() || old.mode.rewrites()) {
        return Some(format!("service {name} forwards in another way than before: its connections end"));
    }
    (!mode.rewrites() && service.by_client() != old.by_client).then(|| {
        let now = if service.by_client() { "address alone" } else { "address and port" };
        format!("service {name} goes by the client's {now} now: its connections move to other servers")
    })
}

/// Independent values from the cluster secret, equal on every node and in every version.
fn derive(secret: &[u8], purpose: u64) -> u64 {
    SipHasher24::new_with_keys(purpose, DERIVATION).hash(secret)
}

const DERIVATION: u64 = u64::from_be_bytes(*b"steelyrd");

#[cfg(test)]
mod tests;
