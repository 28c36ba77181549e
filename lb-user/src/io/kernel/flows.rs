//! Sweeps the void records out of the flow table.

use std::collections::BTreeSet;

use lb_common::{
    flow::{FlowKey, FlowView, Ticks},
    flow_table::{self, FlowMemory, WAYS},
    slot::ServerId,
};
use nix::time::{ClockId, clock_gettime};

use super::tables::TableMemory;
use crate::pure::flows::{Verdict, alone, pair};

/// Buckets looked at in one pass: bounds what a pass costs.
const PASS_BUCKETS: u32 = 4_096;

/// Goes round the flow table, a bounded piece at a time.
#[derive(Default)]
pub struct Sweep {
    /// The next bucket.
    next: u32,
    /// Of the round under way.
    records: u64,
    named: BTreeSet<ServerId>,
    /// Ways with a tag and no record: being written, or lost by a writer that was killed.
    unwritten: BTreeSet<u32>,
    unwritten_before: BTreeSet<u32>,
}

/// What a round over the whole table found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Records that stay.
    pub records: u64,
    /// Servers they name.
    pub named: BTreeSet<ServerId>,
}

impl Sweep {
    /// One pass: deletes what is void among the next records. Returns the round's result at its end.
    ///
    /// `idle_ticks` gives the idle time of a server's flows by protocol; None for a server that is gone.
    pub fn pass(
        &mut self,
        memory: &TableMemory,
        now: Ticks,
        idle_ticks: impl Fn(ServerId, u8) -> Option<u32>,
    ) -> Option<Round> {
        let end = self.next.saturating_add(PASS_BUCKETS).min(memory.flow_buckets());
        for bucket in self.next..end {
            self.bucket(memory, now, bucket, &idle_ticks);
        }
        self.next = end;
        (end == memory.flow_buckets()).then(|| self.finish())
    }

    fn bucket(
        &mut self,
        memory: &TableMemory,
        now: Ticks,
        bucket: u32,
        idle_ticks: &impl Fn(ServerId, u8) -> Option<u32>,
    ) {
        let Some(tags) = memory.flow_tags(bucket).filter(|tags| !tags.is_empty()) else { return };
        for index in (0..WAYS).filter(|&way| tags.is_used(way)).map(|way| bucket * WAYS + way) {
            let Some(flow) = memory.flow_record(index) else { return };
            let Some(key) = flow.key() else {
                if self.unwritten_before.contains(&index) {
                    flow_table::free(memory, index);
                } else {
                    self.unwritten.insert(index);
                }
                continue;
            };
            let view = flow.view();
            let idle = idle_ticks(ServerId(view.server), key.protocol());
            if verdict(memory, now, &key, &view, idle) == Verdict::Remove {
                // A packet may have revived it, or another flow taken its place, meanwhile.
                if flow.view() == view {
                    flow_table::release(memory, index, &key);
                }
            } else {
                self.records += 1;
                self.named.insert(ServerId(view.server));
            }
        }
    }

    fn finish(&mut self) -> Round {
        self.next = 0;
        self.unwritten_before = std::mem::take(&mut self.unwritten);
        Round { records: std::mem::take(&mut self.records), named: std::mem::take(&mut self.named) }
    }
}

fn verdict(memory: &TableMemory, now: Ticks, key: &FlowKey, view: &FlowView, idle: Option<u32>) -> Verdict {
    match alone(now, view, idle) {
        Verdict::SeeTwin => {
            let found = flow_table::read(memory, &key.twin(view.rewrite)).map(|(_, twin)| twin);
            // Another flow may have taken the place of a half that was removed.
            let twin = found.filter(|twin| twin.rewrite == key.tuple().reversed());
            pair(now, view, twin.as_ref(), idle)
        }
        verdict => verdict,
    }
}

/// The clock that stamps records: the kernel reads the same one.
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs());
    Ticks::from_ns(time)
}
