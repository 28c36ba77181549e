//! The named packet cases: tables, a packet, and all that must come of it.
//!
//! One table for two rings. The host ring runs it through the packet path compiled for this machine, the
//! kernel ring through the loaded program; both compare everything. Expectations are built here from values,
//! by etherparse, never by the packet path.
//!
//! ```text
//! World + packet ──► host ring   ──► Effect ─┐
//!        │      └──► kernel ring ──► Effect ─┼─ equal
//!        └─ Case::expected ─────────────────┘
//! ```

mod access;
mod answers;
pub mod checksum;
mod clamp;
mod crowded;
mod device;
mod direct;
mod echo;
mod expected;
mod fragments;
pub mod host;
mod malformed;
mod modes;
mod moving;
mod nat;
mod on_host;
pub mod packet;
mod pairs;
mod passing;
#[cfg(test)]
mod properties;
mod refused;
mod related;
#[cfg(test)]
mod ring;
mod schedulers;
mod services;
#[cfg(test)]
mod settling;
mod shape;
mod truncated;
mod unrecorded;
mod unsettled;
mod vlan;
mod watchdog;
mod wildcards;
pub mod world;

use std::collections::BTreeMap;

use lb_common::{
    counter::{Counter, TrafficCounts},
    entry::Mode,
    flow::Ticks,
    fragment::{FragmentEntry, FragmentKey},
    slot::ServerId,
};
use lb_ebpf::Action;
use lb_user::pure::config::network::Family;

pub use self::on_host::on_host;
use self::{
    packet::Datagram,
    world::{Key, Record, World},
};

pub struct Case {
    pub name: String,
    pub world: World,
    pub packet: Vec<u8>,
    pub ingress: u32,
    /// Bytes free in front of the packet, where it matters.
    pub headroom: Option<usize>,
    pub expected: Effect,
    total_length: u64,
}

/// All that a packet does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub action: Action,
    pub packet: Vec<u8>,
    /// Those that grew.
    pub counters: BTreeMap<Counter, u64>,
    pub flows: BTreeMap<Key, Record>,
    pub fragments: BTreeMap<FragmentKey, FragmentEntry>,
    /// Those that are not zero, by service.
    pub turns: BTreeMap<u32, u64>,
    /// When flows of each service last went without a record.
    pub refused: BTreeMap<u32, Ticks>,
    /// Those that are not zero.
    pub load: BTreeMap<ServerId, u64>,
    /// Servers that got something.
    pub traffic: BTreeMap<ServerId, TrafficCounts>,
}

/// Every case, at one moment of the clock that stamps records.
pub fn all(now: Ticks) -> Vec<Case> {
    let groups = [
        direct::cases(now),
        unsettled::cases(now),
        nat::cases(now),
        pairs::cases(now),
        unrecorded::cases(now),
        crowded::cases(now),
        refused::cases(now),
        passing::cases(now),
        malformed::cases(now),
        services::cases(now),
        modes::cases(now),
        vlan::cases(now),
        echo::cases(now),
        answers::cases(now),
        fragments::cases(now),
        clamp::cases(now),
        access::cases(now),
        related::cases(now),
        wildcards::cases(now),
        truncated::cases(now),
        schedulers::cases(now),
        watchdog::cases(now),
        moving::cases(now),
    ];
    groups.into_iter().flatten().collect()
}

/// Those that the kernel half decides after the packet path: they run in the kernel ring alone.
pub fn kernel_alone(now: Ticks) -> Vec<Case> {
    device::cases(now)
}

/// Every mode, over both families.
fn every_mode() -> impl Iterator<Item = (Mode, Family)> {
    MODES.into_iter().flat_map(|mode| Family::ALL.map(|family| (mode, family)))
}

const MODES: [Mode; 5] = [Mode::Dsr, Mode::Ipip, Mode::Gue, Mode::Nat, Mode::Gateway];

impl Case {
    /// What a failed run is told by: the parts that are not as expected.
    pub fn difference(&self, found: &Effect) -> String {
        let expected = &self.expected;
        let parts = [
            ("action", format!("{:?}", found.action), format!("{:?}", expected.action)),
            ("packet", format!("{:02x?}", found.packet), format!("{:02x?}", expected.packet)),
            ("counters", format!("{:?}", found.counters), format!("{:?}", expected.counters)),
            ("flows", format!("{:x?}", found.flows), format!("{:x?}", expected.flows)),
            ("fragments", format!("{:?}", found.fragments), format!("{:?}", expected.fragments)),
            ("turns", format!("{:?}", found.turns), format!("{:?}", expected.turns)),
            ("refused", format!("{:?}", found.refused), format!("{:?}", expected.refused)),
            ("load", format!("{:?}", found.load), format!("{:?}", expected.load)),
            ("traffic", format!("{:?}", found.traffic), format!("{:?}", expected.traffic)),
        ];
        let differing = parts.into_iter().filter(|(_, found, expected)| found != expected);
        let lines = differing.map(|(part, found, expected)| {
            format!("\n  {part}:\n       found {found}\n    expected {expected}")
        });
        self.name.clone() + &lines.collect::<String>()
    }

    /// Until told otherwise the packet passes, and nothing changes.
    fn new(name: &str, world: World, packet: &Datagram) -> Case {
        let total_length = packet.total_length().into();
        Case { total_length, ..Case::bytes(name, world, packet.bytes()) }
    }

    fn bytes(name: &str, world: World, packet: Vec<u8>) -> Case {
        let expected = Effect {
            action: Action::Pass,
            packet: packet.clone(),
            counters: BTreeMap::new(),
            flows: world.flows.iter().copied().collect(),
            fragments: world.fragments.iter().copied().collect(),
            turns: world.turns.clone(),
            refused: BTreeMap::new(),
            load: world.load.clone(),
            traffic: BTreeMap::new(),
        };
        Case {
            name: name.to_owned(),
            world,
            packet,
            ingress: world::FRONT,
            headroom: None,
            expected,
            total_length: 0,
        }
    }

    fn from(mut self, interface: u32) -> Case {
        self.ingress = interface;
        self
    }

    fn passes(self, counter: Counter) -> Case {
        self.counts(counter)
    }

    fn drops(mut self, counter: Counter) -> Case {
        self.expected.action = Action::Drop;
        self.counts(counter)
    }

    fn leaves(mut self, interface: u32, counter: Counter, packet: &Datagram) -> Case {
        let same = interface == self.ingress;
        self.expected.action = if same { Action::Transmit } else { Action::Redirect(interface) };
        self.expected.packet = packet.bytes();
        self.counts(counter)
    }

    /// A flow that finds no room stamps its service.
    fn counts(mut self, counter: Counter) -> Case {
        if matches!(counter, Counter::FlowUnrecorded | Counter::DropFlowsFull | Counter::DropNatPorts) {
            self.expected.refused.insert(world::SERVICE.id, self.world.now);
        }
        *self.expected.counters.entry(counter).or_default() += 1;
        self
    }

    fn serves(mut self, server: ServerId, connections: u64) -> Case {
        let counts = TrafficCounts { packets: 1, bytes: self.total_length, connections };
        self.expected.traffic.insert(server, counts);
        self
    }

    /// These and no others stand in the flow table afterwards.
    fn flows(mut self, flows: impl IntoIterator<Item = (Key, Record)>) -> Case {
        self.expected.flows = flows.into_iter().collect();
        self
    }

    /// Stands in the flow table afterwards, beside or instead of what stood there.
    fn keeps(mut self, flows: impl IntoIterator<Item = (Key, Record)>) -> Case {
        self.expected.flows.extend(flows);
        self
    }

    fn records(self, flows: impl IntoIterator<Item = (Key, Record)>) -> Case {
        self.keeps(flows).counts(Counter::FlowRecorded)
    }
}
