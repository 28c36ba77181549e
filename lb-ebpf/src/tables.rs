//! What the packet path needs from its surroundings: a packet it may change, and tables.
//!
//! Each trait has two implementers: the kernel half, and the host for tests.

use lb_common::{
    counter::Counter,
    entry::{EMPTY, Globals, Rules, Scoped, ServerEntry, Service, ServiceEntry, ServiceKey},
    flow::Ticks,
    flow_table::FlowMemory,
    fragment::{FragmentEntry, FragmentKey},
    limits::{PROBES_MAX, SERVICE_BUCKETS},
    net::{Be16, Family, V4, V6},
    slot::{ServerId, Slot},
    word::Word,
};

use crate::{
    forward::{Held, Task},
    frame::Frame,
};

pub trait Packet {
    /// The part of the packet that lies in one piece, with the headers.
    fn frame(&mut self) -> Frame<'_>;

    /// Length of the whole frame in bytes.
    fn length(&self) -> u32;

    /// Index of the interface the packet arrived on.
    fn interface(&self) -> u32;

    /// Puts `bytes` in front of the packet, or takes away as many; None when the driver refuses.
    fn grow(&mut self, bytes: i32) -> Option<()>;

    /// Cuts the frame to `length` bytes; None when it is shorter or the driver refuses.
    fn truncate(&mut self, length: u32) -> Option<()>;
}

/// What each IP version has tables of its own for.
pub trait FamilyTables<F: Family>: FlowMemory<F> {
    fn service_bucket(&self, index: u32) -> Option<&ServiceEntry<F>>;

    /// Keeps what is known of a packet for the next stage.
    fn hold(&self, held: &Held<F>);
    /// Changes what the next stage is to do, and nothing else.
    fn assign(&self, task: Task);
    /// What the stage before kept.
    fn held(&self) -> Option<Held<F>>;
}

pub trait Tables: FamilyTables<V4> + FamilyTables<V6> {
    fn globals(&self) -> Option<&Globals>;
    fn slot(&self, index: u32) -> Option<Slot>;
    fn server(&self, id: ServerId) -> Option<&ServerEntry>;

    /// Rules of the longest network around an address; the scope is 0.
    fn rules(&self, address: &Scoped) -> Option<&Rules>;
    /// What the longest network around a client says for the service in the scope: `ALLOW` or `DENY`.
    fn access(&self, client: &Scoped) -> Option<u32>;
    /// Connections begun with the services of a roundrobin or leastconn scheduler, by service id.
    fn turns(&self, service: u32) -> Option<&Word>;
    /// Open connections of a server of leastconn.
    fn load(&self, id: ServerId) -> Option<&Word>;

    /// When a flow last went without a record that its slot may need, by service id: `Ticks::stamp`.
    fn refused(&self, service: u32) -> Option<&Word>;

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry>;
    fn keep_fragment(&self, key: &FragmentKey, entry: &FragmentEntry);

    fn now(&self) -> Ticks;
    /// Whether one more ICMP error may be sent now; see `ANSWERS_PER_SECOND`.
    fn may_answer(&self, now: Ticks) -> bool;

    /// For what is counted on the way; ways out are counted by whoever takes the `Outcome`.
    fn count(&self, counter: Counter);
    fn count_server(&self, id: ServerId, bytes: u32, opening: bool);
}

/// Finds a service by linear probing.
#[inline(always)]
pub fn find_service<F: Family>(tables: &impl FamilyTables<F>, key: ServiceKey<F>) -> Option<Service> {
    let first = key.first_bucket();
    for probe in 0..PROBES_MAX {
        let entry = tables.service_bucket(first.wrapping_add(probe) & (SERVICE_BUCKETS - 1))?;
        if entry.is(key) {
            return Some(entry.policy.load());
        }
        if entry.word() == EMPTY {
            return None;
        }
    }
    None
}

/// Finds a service by network, port range and protocol.
#[inline(always)]
pub fn find_rule<F: Family>(
    tables: &impl Tables,
    address: F::Address,
    port: Be16,
    protocol: u8,
) -> Option<Service> {
    let rules = tables.rules(&Scoped::new::<F>(0, address))?;
    for entry in &rules.0 {
        if entry.is_end() {
            break;
        }
        if entry.matches(port.get(), protocol) {
            return Some(entry.service());
        }
    }
    None
}
