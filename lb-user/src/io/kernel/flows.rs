//! Sweeps the void records out of the flow table.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    flow::{FIN, FlowKey, NAT_REPLY, NAT_REQUEST, Owner, RST, Ticks},
    flow_table::{self, FlowMemory, WAYS},
    net::{Family, V4, V6},
    slot::ServerId,
};
use nix::time::{ClockId, clock_gettime};

use super::tables::TableMemory;
use crate::pure::flows::{Verdict, alone, pair};

/// Buckets looked at in one pass: bounds what a pass costs.
const PASS_BUCKETS: u32 = 4_096;

/// Goes round the flow tables, a bounded piece at a time.
#[derive(Default)]
pub struct Sweep {
    v4: Progress,
    v6: Progress,
    /// Of the round under way.
    found: Round,
}

/// How far a round over one table is.
#[derive(Default)]
struct Progress {
    /// The next bucket.
    next: u32,
    done: bool,
    /// Ways with a tag and no record: being written, or lost by a writer that was killed.
    unwritten: BTreeSet<u32>,
    unwritten_before: BTreeSet<u32>,
}

/// What a round over both tables found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Records that stay.
    pub records: u64,
    /// How many name each server.
    pub named: BTreeMap<ServerId, u64>,
    /// Connections of each server that nobody has ended yet.
    pub open: BTreeMap<ServerId, Open>,
}

/// By the kind of their records: the servers of a service have pairs, or records that stand alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    pub pairs: u64,
    pub alone: u64,
}

impl Sweep {
    /// One pass: deletes what is void among the next records. Returns the round's result at its end.
    ///
    /// `idle_ticks` gives the idle time of a server's flows by protocol, or of its clients' records; None for a server
    /// that is gone.
    pub fn pass(
        &mut self,
        memory: &TableMemory,
        now: Ticks,
        idle_ticks: impl Fn(ServerId, u8, bool) -> Option<u32>,
    ) -> Option<Round> {
        if !self.v4.done {
            self.v4.pass::<V4>(memory, now, &idle_ticks, &mut self.found);
        } else if !self.v6.done {
            self.v6.pass::<V6>(memory, now, &idle_ticks, &mut self.found);
        }
        if !(self.v4.done && self.v6.done) {
            return None;
        }
        self.v4.begin();
        self.v6.begin();
        Some(std::mem::take(&mut self.found))
    }
}

impl Progress {
    fn pass<F: Family>(
        &mut self,
        memory: &impl FlowMemory<F>,
        now: Ticks,
        idle_ticks: &impl Fn(ServerId, u8, bool) -> Option<u32>,
        found: &mut Round,
    ) {
        let end = self.next.saturating_add(PASS_BUCKETS).min(memory.flow_buckets());
        for bucket in self.next..end {
            self.bucket(memory, now, bucket, idle_ticks, found);
        }
        self.next = end;
        self.done = end == memory.flow_buckets();
    }

    fn bucket<F: Family>(
        &mut self,
        memory: &impl FlowMemory<F>,
        now: Ticks,
        bucket: u32,
        idle_ticks: &impl Fn(ServerId, u8, bool) -> Option<u32>,
        found: &mut Round,
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
            let owner = flow.owner();
            let idle = idle_ticks(ServerId(owner.server), key.protocol(), key.is_of_client());
            if verdict(memory, now, &key, index, &owner, idle) == Verdict::Remove {
                // A packet may have revived it, or another flow taken its place, meanwhile.
                if flow.owner() == owner {
                    flow_table::release(memory, index, &key);
                }
            } else {
                found.add(&owner);
            }
        }
    }

    fn begin(&mut self) {
        let unwritten = std::mem::take(&mut self.unwritten);
        *self = Progress { unwritten_before: unwritten, ..Progress::default() };
    }
}

impl Round {
    fn add(&mut self, owner: &Owner) {
        self.records += 1;
        *self.named.entry(ServerId(owner.server)).or_default() += 1;
        let open = self.open.entry(ServerId(owner.server)).or_default();
        match owner.state {
            state if state & (NAT_REPLY | FIN | RST) != 0 => {}
            state if state & NAT_REQUEST != 0 => open.pairs += 1,
            _ => open.alone += 1,
        }
    }
}

fn verdict<F: Family>(
    memory: &impl FlowMemory<F>,
    now: Ticks,
    key: &FlowKey<F>,
    index: u32,
    owner: &Owner,
    idle: Option<u32>,
) -> Verdict {
    match alone(now, owner, idle) {
        Verdict::SeeTwin => {
            let half = flow_table::nat(memory, index);
            let twin = half.and_then(|half| flow_table::find(memory, &key.twin(half.rewrite())));
            let twin = twin.and_then(|index| flow_table::nat(memory, index));
            // Another flow may have taken the place of a half that was removed.
            let twin = twin.filter(|twin| twin.rewrites_to(key.tuple().reversed()));
            pair(now, owner, twin.map(|twin| twin.flow.owner()).as_ref(), idle)
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
