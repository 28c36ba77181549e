//! Reads the per-CPU counters.

use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues},
    sys::SyscallError,
};
use lb_common::{
    counter::{Counter, Counts, TrafficCounts},
    limits::SERVERS_MAX,
    slot::ServerId,
};

use crate::pure::status;

pub struct Counters {
    pub(super) counts: PerCpuArray<MapData, Counts>,
    pub(super) traffic: PerCpuArray<MapData, TrafficCounts>,
}

impl Counters {
    /// Every counter by name, summed over the CPUs.
    pub fn all(&self) -> Result<status::Counters, MapError> {
        let per_cpu = self.counts.get(&0, 0)?;
        let sum = |counter: Counter| per_cpu.iter().map(|counts| counts.0[counter as usize]).sum();
        Ok(Counter::ALL.iter().map(|&counter| (counter.name().to_owned(), sum(counter))).collect())
    }

    pub fn traffic(&self, id: ServerId) -> Result<status::Traffic, MapError> {
        let mut sum = status::Traffic::default();
        for counts in self.traffic.get(&id.0, 0)?.iter() {
            sum.packets += counts.packets;
            sum.bytes += counts.bytes;
            sum.connections += counts.connections;
        }
        Ok(sum)
    }

    /// What servers that are gone moved for a service.
    pub fn retired(&self, service: u32) -> Result<status::Traffic, MapError> {
        self.traffic(retired_index(service))
    }

    /// Moves a server's counts to its service's account, before the id is given to another server.
    pub(super) fn retire(&mut self, id: ServerId, service: u32) -> Result<(), MapError> {
        let account = retired_index(service);
        let (old, gone) = (self.traffic.get(&account.0, 0)?, self.traffic.get(&id.0, 0)?);
        let sum = old.iter().zip(gone.iter()).map(|(a, b)| TrafficCounts {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
            connections: a.connections + b.connections,
        });
        let sum = per_cpu(sum.collect())?;
        let zero = per_cpu(vec![TrafficCounts::default(); old.len()])?;
        self.traffic.set(account.0, sum, 0)?;
        self.traffic.set(id.0, zero, 0)
    }
}

/// Services' accounts stand behind the servers in the traffic map.
fn retired_index(service: u32) -> ServerId {
    ServerId(SERVERS_MAX + service)
}

fn per_cpu(values: Vec<TrafficCounts>) -> Result<PerCpuValues<TrafficCounts>, MapError> {
    PerCpuValues::try_from(values)
        .map_err(|io_error| SyscallError { call: "one value for each possible cpu", io_error }.into())
}
