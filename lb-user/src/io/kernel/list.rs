//! Lists the records of the flow tables.

use std::{collections::BinaryHeap, thread};

use lb_common::{
    flow::{FlowKey, FlowView, NAT_REQUEST, Owner, Ticks},
    flow_table::{self, FlowMemory, WAYS},
    net::{Family, V4, V6},
    slot::ServerId,
};

use super::{flows::now, tables::TableMemory};
use crate::pure::record::Record;

/// Buckets read before another thread may have the CPU.
const PASS_BUCKETS: u32 = 4_096;

/// The first records in their order, and how many there are.
#[derive(Debug, Default)]
pub struct Listing {
    pub total: u64,
    pub records: Vec<Record>,
}

impl TableMemory {
    /// Records of the servers of a service, or of all. Reads both tables to their end: not for a thread that others
    /// wait for.
    pub fn list(&self, service: Option<u32>, max: usize) -> Listing {
        let mut first = First { total: 0, max, records: BinaryHeap::new() };
        let is_wanted = |id: ServerId| match service {
            None => true,
            Some(service) => {
                let server = self.server(id).and_then(lb_common::entry::ServerEntry::load);
                server.is_some_and(|server| server.service == service)
            }
        };
        visit::<V4>(self, now(), &is_wanted, &mut first);
        visit::<V6>(self, now(), &is_wanted, &mut first);
        Listing { total: first.total, records: first.records.into_sorted_vec() }
    }
}

/// Keeps the lowest records.
struct First {
    total: u64,
    max: usize,
    records: BinaryHeap<Record>,
}

impl First {
    fn add(&mut self, record: Record) {
        self.total += 1;
        self.records.push(record);
        if self.records.len() > self.max {
            self.records.pop();
        }
    }
}

fn visit<F: Family>(
    memory: &impl FlowMemory<F>,
    now: Ticks,
    is_wanted: &impl Fn(ServerId) -> bool,
    first: &mut First,
) {
    for bucket in 0..memory.flow_buckets() {
        if bucket % PASS_BUCKETS == PASS_BUCKETS - 1 {
            thread::yield_now();
        }
        let Some(tags) = memory.flow_tags(bucket).filter(|tags| !tags.is_empty()) else { continue };
        for index in (0..WAYS).filter(|&way| tags.is_used(way)).map(|way| bucket * WAYS + way) {
            let record = record(memory, index, now).filter(|record| is_wanted(record.server));
            record.into_iter().for_each(|record| first.add(record));
        }
    }
}

fn record<F: Family>(memory: &impl FlowMemory<F>, index: u32, now: Ticks) -> Option<Record> {
    let found = flow_table::nat(memory, index)?;
    let (key, view) = (found.flow.key()?, found.view());
    // Removed and given to another flow while it was read.
    if !found.flow.is(&key) {
        return None;
    }
    Record::new(&key, &view, reply(memory, &key, &view), now)
}

/// The server's half of a pair whose client's half this is.
pub(super) fn reply<F: Family>(
    memory: &impl FlowMemory<F>,
    key: &FlowKey<F>,
    view: &FlowView<F>,
) -> Option<Owner> {
    if view.state & NAT_REQUEST == 0 {
        return None;
    }
    let twin = flow_table::nat(memory, flow_table::find(memory, &key.twin(view.rewrite))?)?;
    // Another flow may have taken the place of a half that was removed.
    twin.rewrites_to(key.tuple().reversed()).then(|| twin.flow.owner())
}
