//! The flow table from userspace: looking a record up, and sweeping the void ones out.

use std::{collections::BTreeSet, os::fd::AsFd, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::{
    flow::{FlowKey, FlowView, Ticks},
    slot::ServerId,
};
use nix::time::{ClockId, clock_gettime};

use super::batch::{Batch, Cursor, FlowWords};
use crate::pure::flows::{Verdict, alone, pair};

/// Records looked at in one pass: bounds what a pass costs.
const PASS_RECORDS: usize = 4_096;

pub struct Flows {
    map: HashMap<MapData, FlowKey, FlowWords>,
    /// The same map for batches: the typed handle does not give its descriptor away.
    batches: MapData,
}

/// Goes round the flow table, a bounded piece at a time.
pub struct Sweep {
    batch: Batch,
    cursor: Option<Cursor>,
    /// Of the round under way.
    records: u64,
    named: BTreeSet<ServerId>,
}

/// What a round over the whole table found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Records that stay.
    pub records: u64,
    /// Servers they name.
    pub named: BTreeSet<ServerId>,
}

impl Flows {
    pub(super) fn open(pin: &Path) -> Result<Self, MapError> {
        let map = HashMap::try_from(Map::HashMap(MapData::from_pin(pin)?))?;
        Ok(Flows { map, batches: MapData::from_pin(pin)? })
    }

    pub fn get(&self, key: &FlowKey) -> Result<Option<FlowView>, MapError> {
        match self.map.get(key, 0) {
            Ok(words) => Ok(Some(FlowView::from_words(&words))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One pass: deletes what is void among the next records. Returns the round's result at its end.
    ///
    /// `idle_ticks` gives the idle time of a server's flows by protocol; None for a server that is gone.
    pub fn sweep(
        &mut self,
        sweep: &mut Sweep,
        now: Ticks,
        idle_ticks: impl Fn(ServerId, u8) -> Option<u32>,
    ) -> Result<Option<Round>, MapError> {
        let read = sweep.batch.read(self.batches.fd().as_fd(), sweep.cursor);
        let (count, next) = read.map_err(|io_error| {
            MapError::from(aya::sys::SyscallError { call: "BPF_MAP_LOOKUP_BATCH", io_error })
        })?;
        let mut void = Vec::new();
        for (key, words) in sweep.batch.records(count) {
            let flow = FlowView::from_words(words);
            let idle = idle_ticks(ServerId(flow.server), key.protocol());
            if self.verdict(now, key, &flow, idle)? == Verdict::Remove {
                void.push(*key);
            } else {
                sweep.records += 1;
                sweep.named.insert(ServerId(flow.server));
            }
        }
        for key in void {
            // A new connection may have taken its place since the batch was read.
            if let Some(flow) = self.get(&key)?
                && self.verdict(now, &key, &flow, idle_ticks(ServerId(flow.server), key.protocol()))?
                    == Verdict::Remove
            {
                self.remove(&key)?;
            }
        }
        sweep.cursor = next;
        Ok(next.is_none().then(|| Round {
            records: std::mem::take(&mut sweep.records),
            named: std::mem::take(&mut sweep.named),
        }))
    }

    fn verdict(
        &self,
        now: Ticks,
        key: &FlowKey,
        flow: &FlowView,
        idle: Option<u32>,
    ) -> Result<Verdict, MapError> {
        match alone(now, flow, idle) {
            Verdict::SeeTwin => {
                let twin = self.get(&key.twin(flow.rewrite))?;
                Ok(pair(now, flow, twin.as_ref(), idle))
            }
            verdict => Ok(verdict),
        }
    }

    /// The kernel may have been faster.
    fn remove(&mut self, key: &FlowKey) -> Result<(), MapError> {
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Sweep {
    pub fn new() -> Self {
        Sweep { batch: Batch::new(PASS_RECORDS), cursor: None, records: 0, named: BTreeSet::new() }
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Sweep::new()
    }
}

/// The clock that stamps records: the kernel reads the same one.
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs());
    Ticks::from_ns(time)
}
