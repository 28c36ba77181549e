//! What the packet path needs from its surroundings: a packet it may change, and tables.
//!
//! Each trait has two implementers: the kernel half, and the host for tests.

use lb_common::{
    counter::Counter,
    entry::{Globals, ServerEntry, Service, ServiceEntry, ServiceKey, first_bucket},
    flow::Ticks,
    flow_table::FlowMemory,
    limits::{PROBES_MAX, SERVICE_BUCKETS},
    slot::{ServerId, Slot},
};

use crate::frame::Frame;

pub trait Packet {
    fn frame(&mut self) -> Frame<'_>;

    /// Index of the interface the packet arrived on.
    fn interface(&self) -> u32;

    /// Cuts the frame to `length` bytes; None when it is shorter or the driver refuses.
    fn truncate(&mut self, length: u32) -> Option<()>;
}

pub trait Tables: FlowMemory {
    fn globals(&self) -> Option<&Globals>;
    fn service_bucket(&self, index: u32) -> Option<&ServiceEntry>;
    fn slot(&self, index: u32) -> Option<Slot>;
    fn server(&self, id: ServerId) -> Option<&ServerEntry>;

    fn now(&self) -> Ticks;

    /// For what is counted on the way; ways out are counted by whoever takes the `Outcome`.
    fn count(&self, counter: Counter);
    fn count_server(&self, id: ServerId, bytes: u32, opening: bool);
}

/// Finds a service by linear probing.
#[inline(always)]
pub fn find_service(tables: &impl Tables, key: ServiceKey) -> Option<Service> {
    let first = first_bucket(key);
    for probe in 0..PROBES_MAX {
        let entry = tables.service_bucket(first.wrapping_add(probe) & (SERVICE_BUCKETS - 1))?;
        let found = ServiceKey(entry.key.get());
        if found == key {
            return Some(entry.load());
        }
        if found == ServiceKey::EMPTY {
            return None;
        }
    }
    None
}
