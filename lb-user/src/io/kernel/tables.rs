//! The tables in map memory: what stands there, and carrying out one step.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key as Prefix, LpmTrie},
    xdp::{DevMapHash, XdpMapError},
};
use lb_common::{
    entry::{
        self, ALLOW, DENY, EMPTY, Globals, REMOVED, RULES_WORDS, Rule, Rules, Scoped, ServerEntry,
        ServiceEntry, ServiceKey, SlotEntry,
    },
    flow::{Flow, Half, Ticks},
    flow_table::{FlowMemory, Tags},
    limits::{NAT_SOURCES_MAX, PROBES_MAX, SERVICE_BUCKETS},
    net::{Be128, Family, V4, V6},
    slot::{ServerId, Slot},
    word::Word,
};

use super::{mapped::Mapped, pod::PodScoped};
use crate::pure::{
    config::network::Network,
    plan::{Key, Part, Step, Tables, Verdict},
};

/// Tables that several threads read while one writes.
pub struct TableMemory {
    pub(super) globals: Mapped<Globals>,
    pub(super) services4: Mapped<ServiceEntry<V4>>,
    pub(super) services6: Mapped<ServiceEntry<V6>>,
    pub(super) ring: Mapped<SlotEntry>,
    pub(super) servers: Mapped<ServerEntry>,
    pub(super) turns: Mapped<Word>,
    pub(super) refused: Mapped<Word>,
    pub(super) load: Mapped<Word>,
    pub(super) flow_tags4: Mapped<Tags>,
    pub(super) flows4: Mapped<Flow<V4>>,
    pub(super) halves4: Mapped<Half<V4>>,
    pub(super) flow_tags6: Mapped<Tags>,
    pub(super) flows6: Mapped<Flow<V6>>,
    pub(super) halves6: Mapped<Half<V6>>,
}

/// Tables that are reached by system calls: one writer, and few changes.
pub(super) struct TableMaps {
    pub(super) devices: DevMapHash<MapData>,
    pub(super) wildcards: LpmTrie<MapData, PodScoped, [u64; RULES_WORDS]>,
    pub(super) access: LpmTrie<MapData, PodScoped, u32>,
}

macro_rules! flow_memory {
    ($family:ty, $tags:ident, $flows:ident, $halves:ident) => {
        impl FlowMemory<$family> for TableMemory {
            fn flow_buckets(&self) -> u32 {
                self.$tags.len() as u32
            }

            fn flow_seed(&self) -> u64 {
                self.globals().flow_seed()
            }

            fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
                self.$tags.get(bucket as usize)
            }

            fn flow_record(&self, index: u32) -> Option<&Flow<$family>> {
                self.$flows.get(index as usize)
            }

            fn flow_half(&self, index: u32) -> Option<&Half<$family>> {
                self.$halves.get(index as usize)
            }

            fn flow_lost(&self, server: u32, now: Ticks) {
                let service = self.server(ServerId(server)).map(ServerEntry::service);
                if let Some(at) = service.and_then(|service| self.refused.get(service as usize)) {
                    at.set(now.stamp());
                }
            }
        }
    };
}

flow_memory!(V4, flow_tags4, flows4, halves4);
flow_memory!(V6, flow_tags6, flows6, halves6);

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the service table has no bucket left near that of {0:?}: configure fewer services")]
    ServicesFull(Key),
    #[error(
        "slots {first}..{end} lie outside the ring map of {len}: run `steelyard detach`, then start again"
    )]
    RingTooSmall { first: u32, end: u64, len: usize },
    #[error("server id {0} lies outside the server table: run `steelyard detach`, then start again")]
    NoSuchServer(u32),
    #[error("cannot send packets out of interface {index}: its driver must support XDP redirection")]
    Device { index: u32, source: XdpMapError },
    #[error("cannot enter {network} in the map {map}: {source}; configure fewer networks")]
    Network { map: &'static str, network: Network, source: MapError },
}

impl TableMemory {
    pub fn service(&self, key: Key) -> Option<entry::Service> {
        match key {
            Key::V4(key) => find(&self.services4, key).map(|entry| entry.policy.load()),
            Key::V6(key) => find(&self.services6, key).map(|entry| entry.policy.load()),
        }
    }

    pub fn slot(&self, index: u32) -> Option<Slot> {
        self.ring.get(index as usize).map(|entry| Slot(entry.0.get()))
    }

    pub fn server(&self, id: ServerId) -> Option<&ServerEntry> {
        self.servers.get(id.0 as usize)
    }

    pub fn globals(&self) -> &Globals {
        &self.globals[0]
    }

    /// Reads everything back: what an earlier daemon wrote.
    pub(super) fn load(&self, maps: &TableMaps) -> Tables {
        let globals = self.globals();
        let mut tables = Tables {
            hash_key: globals.hash_key(),
            nat_sources: globals.nat_sources().collect(),
            devices: maps.devices(),
            wildcards: maps.wildcards(),
            access: maps.access(),
            services: self.services(),
            servers: self.servers(),
            ..Tables::default()
        };
        let rings: Vec<_> =
            tables.all_services().map(|service| (service.ring_base, service.ring_mask)).collect();
        for (base, mask) in rings {
            let slots = || (0..=mask).map_while(|index| self.slot(base.wrapping_add(index))).collect();
            tables.rings.entry(base).or_insert_with(|| Arc::new(slots()));
        }
        tables
    }

    /// When a flow of a service last went without a record.
    pub fn refused_at(&self, service: u32) -> Option<Ticks> {
        Ticks::of_stamp(self.refused.get(service as usize)?.get())
    }

    /// Fills new tables of services and a longer ring with what stands in `old`.
    pub(super) fn copy_services(&self, old: &TableMemory) {
        copy_buckets(&old.services4, &self.services4);
        copy_buckets(&old.services6, &self.services6);
        for (new, old) in self.ring.iter().zip(old.ring.iter()) {
            new.0.set(old.0.get());
        }
    }

    /// One part as it stands; None: it is as `installed`.
    pub(super) fn differing(&self, maps: &TableMaps, part: Part, installed: &Tables) -> Option<Tables> {
        let none = Tables::default();
        let (found, as_installed) = match part {
            Part::Shared => {
                let found = self.shared(installed);
                let same = found.hash_key == installed.hash_key
                    && found.nat_sources == installed.nat_sources
                    && found.gateways == installed.gateways;
                (found, same)
            }
            Part::Devices => {
                let devices = maps.devices();
                let same = devices == installed.devices;
                (Tables { devices, ..none }, same)
            }
            Part::Servers => {
                let servers = self.servers();
                let same = servers == installed.servers;
                (Tables { servers, ..none }, same)
            }
            Part::Access => {
                let access = maps.access();
                let same = access == installed.access;
                (Tables { access, ..none }, same)
            }
            Part::Services => {
                let services = self.services();
                let same = services == installed.services;
                (Tables { services, ..none }, same)
            }
            Part::Wildcards => {
                // Without its flag the program looks into the map no more.
                let seen = self.globals().has_wildcards() || installed.wildcards.is_empty();
                let wildcards = if seen { maps.wildcards() } else { BTreeMap::new() };
                let same = wildcards == installed.wildcards;
                (Tables { wildcards, ..none }, same)
            }
            Part::Ring(base) => {
                let installed = installed.rings.get(&base)?;
                let standing = (base..).zip(installed.iter()).map(|(index, _)| self.slot(index));
                let same = standing.clone().eq(installed.iter().map(|&slot| Some(slot)));
                let found = if same { Vec::new() } else { standing.map_while(|slot| slot).collect() };
                (Tables { rings: [(base, Arc::new(found))].into(), ..none }, same)
            }
        };
        (!as_installed).then_some(found)
    }

    /// Of the filters, which are not lists, only whether those that are installed pass.
    fn shared(&self, installed: &Tables) -> Tables {
        let globals = self.globals();
        let complete = installed.nat_sources.iter().all(|&source| globals.expects_replies_to(source));
        let gateways = installed.gateways.iter().copied();
        Tables {
            hash_key: globals.hash_key(),
            nat_sources: if complete { globals.nat_sources().collect() } else { Vec::new() },
            gateways: gateways.filter(|&gateway| globals.expects_replies_from(gateway)).collect(),
            ..Tables::default()
        }
    }

    /// Those that a packet finds.
    fn services(&self) -> BTreeMap<Key, entry::Service> {
        let keys4 = self.services4.iter().filter_map(|entry| Some(Key::V4(entry.key()?)));
        let keys6 = self.services6.iter().filter_map(|entry| Some(Key::V6(entry.key()?)));
        keys4.chain(keys6).filter_map(|key| Some((key, self.service(key)?))).collect()
    }

    fn servers(&self) -> BTreeMap<ServerId, entry::Server> {
        let entries = (0u32..).zip(self.servers.iter());
        entries.filter_map(|(id, entry)| Some((ServerId(id), entry.load()?))).collect()
    }

    /// How many connections each server of a leastconn service has, once a sweep has counted them.
    pub fn set_load(&self, id: ServerId, connections: u64) {
        if let Some(load) = self.load.get(id.0 as usize) {
            load.set(connections);
        }
    }

    /// Carries out a step on map memory; `Err` leaves the tables as they were.
    pub(super) fn apply(&self, step: &Step, maps: &mut TableMaps) -> Result<(), StepError> {
        match step {
            Step::SetHashKey(key) => self.globals().set_hash_key(*key),
            Step::SetNatSources(sources) => self.set_nat_sources(sources),
            Step::AddGateway(address) => self.globals().expect_replies_from(*address),
            &Step::AddDevice(index) => {
                let insert = maps.devices.insert(index, index, None, 0);
                insert.map_err(|source| StepError::Device { index, source })?;
            }
            Step::SetServer(id, server) => {
                self.server(*id).ok_or(StepError::NoSuchServer(id.0))?.store(*server);
            }
            Step::SetSlots(base, changes) => self.set_slots(*base, changes)?,
            Step::SetAccess(service, network, verdict) => maps.set_access(*service, *network, *verdict)?,
            Step::SetService(key, service) => self.set_service(*key, *service)?,
            Step::SetWildcards(network, rules) => {
                maps.set_wildcards(*network, rules)?;
                self.globals().set_wildcards(true);
            }
            Step::RemoveWildcards(network) => {
                maps.remove_wildcards(*network);
                self.globals().set_wildcards(maps.wildcards.keys().next().is_some());
            }
            Step::RemoveService(Key::V4(key)) => remove(&self.services4, *key),
            Step::RemoveService(Key::V6(key)) => remove(&self.services6, *key),
            Step::RemoveAccess(service, network) => maps.remove_access(*service, *network),
            // The filter of replies only grows, and a ring is whoever's comes next.
            Step::RemoveRing(_) | Step::RemoveGateway(_) => {}
            Step::RemoveServer(id) => self.server(*id).ok_or(StepError::NoSuchServer(id.0))?.clear(),
            Step::RemoveDevice(index) => {
                // Gone already when the interface is.
                let _ = maps.devices.remove(*index);
            }
        }
        Ok(())
    }

    fn set_nat_sources(&self, sources: &[IpAddr]) {
        for (index, &source) in sources.iter().enumerate() {
            self.globals().expect_replies_to(source);
            self.globals().set_nat_source(index, source);
        }
        for index in sources.len()..NAT_SOURCES_MAX {
            self.globals().set_nat_source(index, Ipv4Addr::UNSPECIFIED.into());
        }
    }

    fn set_service(&self, key: Key, service: entry::Service) -> Result<(), StepError> {
        let full = StepError::ServicesFull(key);
        match key {
            Key::V4(key) => set(&self.services4, key, service).ok_or(full)?,
            Key::V6(key) => set(&self.services6, key, service).ok_or(full)?,
        }
        Ok(())
    }

    fn set_slots(&self, base: u32, changes: &[(u32, Slot)]) -> Result<(), StepError> {
        let last = changes.iter().map(|&(index, _)| index).max().unwrap_or(0);
        let end = u64::from(base) + u64::from(last) + 1;
        if end > self.ring.len() as u64 {
            return Err(StepError::RingTooSmall { first: base, end, len: self.ring.len() });
        }
        for &(index, slot) in changes {
            self.ring[(base + index) as usize].0.set(slot.0);
        }
        Ok(())
    }
}

impl TableMaps {
    fn devices(&self) -> BTreeSet<u32> {
        self.devices.keys().filter_map(Result::ok).collect()
    }

    fn wildcards(&self) -> BTreeMap<Network, Vec<Rule>> {
        let entries = self.wildcards.iter().filter_map(Result::ok);
        entries
            .filter_map(|(key, rules)| Some((network(&key)?.1, Rules::from_words(&rules).list().collect())))
            .collect()
    }

    fn access(&self) -> BTreeMap<(u32, Network), Verdict> {
        let verdict = |value: u32| if value == DENY { Verdict::Deny } else { Verdict::Allow };
        let entries = self.access.iter().filter_map(Result::ok);
        entries.filter_map(|(key, value)| Some((network(&key)?, verdict(value)))).collect()
    }

    fn set_wildcards(&mut self, network: Network, rules: &[Rule]) -> Result<(), StepError> {
        let insert = self.wildcards.insert(&prefix(0, network), Rules::new(rules).to_words(), 0);
        insert.map_err(|source| StepError::Network { map: "wildcards", network, source })
    }

    fn remove_wildcards(&mut self, network: Network) {
        // Gone already is as good.
        let _ = self.wildcards.remove(&prefix(0, network));
    }

    fn set_access(&mut self, service: u32, network: Network, verdict: Verdict) -> Result<(), StepError> {
        let value = match verdict {
            Verdict::Allow => ALLOW,
            Verdict::Deny => DENY,
        };
        let insert = self.access.insert(&prefix(service, network), value, 0);
        insert.map_err(|source| StepError::Network { map: "access", network, source })
    }

    fn remove_access(&mut self, service: u32, network: Network) {
        // Gone already is as good.
        let _ = self.access.remove(&prefix(service, network));
    }
}

fn prefix(scope: u32, network: Network) -> Prefix<PodScoped> {
    let address = Be128::from_ip(network.address());
    let bits = Scoped::bits(network.length().into(), network.address().is_ipv4());
    Prefix::new(bits, PodScoped(Scoped::new::<V6>(scope, address)))
}

/// The scope, and the network in it.
fn network(key: &Prefix<PodScoped>) -> Option<(u32, Network)> {
    let scoped = key.data().0;
    let bits = key.prefix_len().checked_sub(Scoped::bits(0, false))?;
    let address = scoped.address().to_ip();
    let length = if address.is_ipv4() { bits.checked_sub(96)? } else { bits };
    Some((scoped.scope.get(), Network::around(address, length.try_into().ok()?)?))
}

/// Where a key stands in a service table.
fn find<F: Family>(table: &[ServiceEntry<F>], key: ServiceKey<F>) -> Option<&ServiceEntry<F>> {
    probes(key)
        .map(|bucket| &table[bucket])
        .take_while(|entry| entry.word() != EMPTY)
        .find(|entry| entry.is(key))
}

fn copy_buckets<F: Family>(from: &[ServiceEntry<F>], to: &[ServiceEntry<F>]) {
    for (old, new) in from.iter().zip(to) {
        match old.key() {
            Some(key) => new.publish(key, old.policy.load()),
            None => new.withdraw(old.word()),
        }
    }
}

/// Leaves no second bucket of the key behind, which one that was hidden behind damage would be.
fn set<F: Family>(table: &[ServiceEntry<F>], key: ServiceKey<F>, service: entry::Service) -> Option<()> {
    let chosen = place(table, key)?;
    chosen.publish(key, service);
    let others = probes(key).map(|bucket| &table[bucket]);
    others
        .filter(|entry| entry.is(key) && !std::ptr::eq(*entry, chosen))
        .for_each(|entry| entry.withdraw(REMOVED));
    Some(())
}

/// The bucket of a key: its own, or the first that is not in use.
fn place<F: Family>(table: &[ServiceEntry<F>], key: ServiceKey<F>) -> Option<&ServiceEntry<F>> {
    let free = |entry: &&ServiceEntry<F>| entry.key().is_none();
    find(table, key).or_else(|| probes(key).map(|bucket| &table[bucket]).find(free))
}

/// Leaves a mark that lets probes go on, and takes marks away where the chain ends behind them.
fn remove<F: Family>(table: &[ServiceEntry<F>], key: ServiceKey<F>) {
    let Some(mut bucket) = probes(key).find(|&bucket| table[bucket].is(key)) else { return };
    table[bucket].withdraw(REMOVED);
    let last = SERVICE_BUCKETS as usize - 1;
    while table[(bucket + 1) & last].word() == EMPTY && table[bucket].word() == REMOVED {
        table[bucket].withdraw(EMPTY);
        bucket = bucket.wrapping_sub(1) & last;
    }
}

fn probes<F: Family>(key: ServiceKey<F>) -> impl Iterator<Item = usize> {
    let first = key.first_bucket();
    (0..PROBES_MAX).map(move |probe| (first.wrapping_add(probe) & (SERVICE_BUCKETS - 1)) as usize)
}
