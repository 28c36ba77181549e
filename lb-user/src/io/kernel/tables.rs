//! The tables in map memory: what stands there, and carrying out one step.

use std::{net::Ipv4Addr, sync::Arc};

use aya::maps::{
    MapData,
    xdp::{DevMapHash, XdpMapError},
};
use lb_common::{
    entry::{Globals, ServerEntry, ServiceEntry, ServiceKey, SlotEntry, first_bucket},
    flow::Flow,
    flow_table::{FlowMemory, Tags},
    hash,
    limits::{PROBES_MAX, SERVICE_BUCKETS},
    net::Be32,
    slot::{ServerId, Slot},
};

use super::mapped::Mapped;
use crate::pure::plan::{Step, Tables};

/// Tables that several threads read while one writes.
pub struct TableMemory {
    pub(super) globals: Mapped<Globals>,
    pub(super) services: Mapped<ServiceEntry>,
    pub(super) ring: Mapped<SlotEntry>,
    pub(super) servers: Mapped<ServerEntry>,
    pub(super) flow_tags: Mapped<Tags>,
    pub(super) flows: Mapped<Flow>,
}

impl FlowMemory for TableMemory {
    fn flow_buckets(&self) -> u32 {
        self.flow_tags.len() as u32
    }

    fn flow_seed(&self) -> u64 {
        self.globals().flow_seed.get()
    }

    fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
        self.flow_tags.get(bucket as usize)
    }

    fn flow_record(&self, index: u32) -> Option<&Flow> {
        self.flows.get(index as usize)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the service table has no bucket left near that of {0:?}: configure fewer services")]
    ServicesFull(ServiceKey),
    #[error(
        "slots {first}..{end} lie outside the ring map of {len}: run `steelyard detach`, then start again"
    )]
    RingTooSmall { first: u32, end: u64, len: usize },
    #[error("server id {0} lies outside the server table: run `steelyard detach`, then start again")]
    NoSuchServer(u32),
    #[error("cannot send packets out of interface {index}: its driver must support XDP redirection")]
    Device { index: u32, source: XdpMapError },
}

impl TableMemory {
    /// Where a key stands in the service table.
    fn find(&self, key: ServiceKey) -> Option<&ServiceEntry> {
        probes(key)
            .map(|bucket| &self.services[bucket])
            .take_while(|entry| entry.key.get() != ServiceKey::EMPTY.0)
            .find(|entry| entry.key.get() == key.0)
    }

    pub fn service(&self, key: ServiceKey) -> Option<lb_common::entry::Service> {
        self.find(key).map(ServiceEntry::load)
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
    pub(super) fn load(&self, devices: &DevMapHash<MapData>) -> Tables {
        let globals = self.globals();
        let sources = globals.nat_sources.iter().map(|word| Be32(word.get() as u32));
        let mut tables = Tables {
            hash_key: globals.hash_key(),
            nat_sources: sources.take_while(|source| source.0 != 0).map(Ipv4Addr::from).collect(),
            devices: devices.keys().filter_map(Result::ok).collect(),
            ..Tables::default()
        };
        for entry in self.services.iter() {
            let key = ServiceKey(entry.key.get());
            if key.is_used() {
                let service = entry.load();
                tables.services.insert(key, service);
                let slots = (0..=service.ring_mask)
                    .map_while(|index| self.slot(service.ring_base.wrapping_add(index)))
                    .collect();
                tables.rings.insert(service.ring_base, Arc::new(slots));
            }
        }
        for (id, entry) in (0u32..).zip(self.servers.iter()) {
            if entry.target.get() != 0 {
                tables.servers.insert(ServerId(id), entry.load());
            }
        }
        tables
    }

    /// Carries out a step on map memory; `Err` leaves the tables as they were.
    pub(super) fn apply(&self, step: &Step, devices: &mut DevMapHash<MapData>) -> Result<(), StepError> {
        match step {
            Step::SetHashKey(key) => {
                for (word, value) in self.globals().hash_key.iter().zip(key.0) {
                    word.set(value);
                }
            }
            Step::SetNatSources(sources) => self.set_nat_sources(sources),
            &Step::AddDevice(index) => {
                let insert = devices.insert(index, index, None, 0);
                insert.map_err(|source| StepError::Device { index, source })?;
            }
            Step::SetServer(id, server) => {
                self.server(*id).ok_or(StepError::NoSuchServer(id.0))?.store(*server);
            }
            Step::SetSlots(base, changes) => self.set_slots(*base, changes)?,
            Step::SetService(key, service) => {
                let entry = self.place(*key).ok_or(StepError::ServicesFull(*key))?;
                entry.store(*service);
                // The words before the key: a reader that finds the key finds the service.
                std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
                entry.key.set(key.0);
            }
            Step::RemoveService(key) => {
                self.remove_service(*key);
            }
            Step::RemoveRing(_) => {}
            Step::RemoveServer(id) => {
                let entry = self.server(*id).ok_or(StepError::NoSuchServer(id.0))?;
                for word in [&entry.target, &entry.hop, &entry.source, &entry.egress] {
                    word.set(0);
                }
            }
            Step::RemoveDevice(index) => {
                // Gone already when the interface is.
                let _ = devices.remove(*index);
            }
        }
        Ok(())
    }

    /// The filter only grows: replies to a source no longer in use must still find their flows.
    fn set_nat_sources(&self, sources: &[Ipv4Addr]) {
        let globals = self.globals();
        let mut filter = globals.nat_filter.get();
        for (word, source) in globals.nat_sources.iter().zip(sources) {
            let address = Be32::from(*source);
            filter |= hash::address_bit(address);
            word.set(address.0.into());
        }
        globals.nat_filter.set(filter);
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

    /// Leaves a mark that lets probes go on, and takes marks away where the chain ends behind them.
    fn remove_service(&self, key: ServiceKey) {
        let is_key = |bucket: &usize| self.services[*bucket].key.get() == key.0;
        let Some(mut bucket) = probes(key).find(is_key) else { return };
        self.services[bucket].key.set(ServiceKey::REMOVED.0);
        let last = SERVICE_BUCKETS as usize - 1;
        while self.services[(bucket + 1) & last].key.get() == ServiceKey::EMPTY.0
            && self.services[bucket].key.get() == ServiceKey::REMOVED.0
        {
            self.services[bucket].key.set(ServiceKey::EMPTY.0);
            bucket = bucket.wrapping_sub(1) & last;
        }
    }

    /// The bucket of a key: its own, or the first that is not in use.
    fn place(&self, key: ServiceKey) -> Option<&ServiceEntry> {
        let free = |entry: &&ServiceEntry| !ServiceKey(entry.key.get()).is_used();
        self.find(key).or_else(|| probes(key).map(|bucket| &self.services[bucket]).find(free))
    }
}

fn probes(key: ServiceKey) -> impl Iterator<Item = usize> {
    let first = first_bucket(key);
    (0..PROBES_MAX).map(move |probe| (first.wrapping_add(probe) & (SERVICE_BUCKETS - 1)) as usize)
}
