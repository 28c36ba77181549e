//! Any packets through the packet path, over tables that the input chooses and the packets change.
//!
//! ```text
//! input: tables, then packets: kind, ticks since the last one, damage, payload
//! ```
//!
//! Nothing may panic, leave the packet's bytes, touch what passes, spoil or mend a checksum, spoil the flow table
//! or leave half a NAT pair, but for what gave way half open; and nothing may depend on the bytes around a packet.
#![no_main]

#[path = "../../tests/src/cases/checksum.rs"]
mod checksum;
#[path = "../../tests/src/cases/host/mod.rs"]
#[expect(dead_code, reason = "the packet cases use the rest")]
mod host;

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use lb_common::{
    counter::Counter,
    entry::{Hop, Mode, Server, Service, ServiceKey},
    flow::{NAT_REPLY, NAT_REQUEST, OPENING, Ticks},
    flow_table::WAYS,
    hash::HashKey,
    net::{Be16, Be32, Mac, TCP, UDP},
    slot::{ServerId, Slot},
};
use lb_ebpf::{Action, Outcome, forward};
use libfuzzer_sys::fuzz_target;

use self::{
    checksum::{Checksums, Transport},
    host::{HostPacket, HostTables},
};

fuzz_target!(|input: &[u8]| {
    assert_eq!(run(input, 0xa5), run(input, 0x5a), "depends on bytes outside the packets");
});

/// What became of every packet.
fn run(input: &[u8], poison: u8) -> Vec<(Outcome, Vec<u8>)> {
    let mut input = Input(input);
    let (shape, servers) = (input.byte(), input.byte());
    let mut tables = tables(shape, servers);
    let mut now = NOW;
    let mut outcomes = Vec::new();
    while !input.0.is_empty() && outcomes.len() < PACKETS_MAX as usize {
        now += u32::from(input.byte()).pow(2);
        tables.set_now(Ticks(now));
        let (bytes, interface) = input.packet(&outcomes);
        let mut packet = HostPacket::new(&bytes, interface, poison);
        let outcome = forward(&mut packet, &tables);
        tables.count_outcome(outcome);
        judge(&bytes, outcome, &packet);
        outcomes.push((outcome, packet.bytes()));
        judge_flows(&tables);
        judge_counts(&tables, outcomes.len() as u64);
    }
    outcomes
}

fn judge(arrived: &[u8], outcome: Outcome, packet: &HostPacket) {
    assert!(packet.stayed_within(), "wrote outside the packet: {outcome:?}");
    let bytes = packet.bytes();
    match outcome.action() {
        Action::Pass => assert!(packet.is_untouched(), "{outcome:?}"),
        Action::Drop => {}
        Action::Transmit if RESETS.contains(&outcome.counter()) => {
            let right = Checksums { ip: true, transport: Transport::Right };
            assert_eq!(Checksums::of(&bytes), Some(right), "{bytes:x?}");
            assert_eq!(bytes.len(), 54);
        }
        Action::Transmit | Action::Redirect(_) => {
            assert_eq!(bytes.len(), arrived.len());
            assert_eq!(Checksums::of(&bytes), Checksums::of(arrived), "{arrived:x?} became {bytes:x?}");
        }
    }
}

/// Half of a pair stands alone only where the other gave way to another flow, which a confirmed one never does.
/// The twin's key may belong to that flow by then.
fn judge_flows(tables: &HostTables) {
    let flows = tables.flows();
    for (key, flow) in &flows {
        let other = match flow.state & (NAT_REQUEST | NAT_REPLY) {
            0 => continue,
            NAT_REQUEST => NAT_REPLY,
            _ => NAT_REQUEST,
        };
        let twin_key = key.twin(flow.rewrite);
        let is_twin = flows.get(&twin_key).is_some_and(|twin| {
            twin.state & other != 0
                && twin.state & OPENING == flow.state & OPENING
                && twin_key.twin(twin.rewrite) == *key
        });
        assert!(is_twin || flow.state & OPENING != 0, "half a pair: {key:?} {flow:?}");
    }
}

/// Every packet leaves by one way, and what goes to a server is on its account.
fn judge_counts(tables: &HostTables, packets: u64) {
    let counters = tables.counters();
    let sum = |wanted: &dyn Fn(Counter) -> bool| -> u64 {
        counters.iter().filter(|(counter, _)| wanted(**counter)).map(|(_, count)| count).sum()
    };
    assert_eq!(sum(&|counter| !matches!(counter, Counter::FlowRecorded | Counter::FlowUnrecorded)), packets);
    let forwarded = sum(&|counter| matches!(counter, Counter::ForwardDsr | Counter::ForwardNatRequest));
    assert_eq!(tables.traffic().values().map(|counts| counts.packets).sum::<u64>(), forwarded);
}

/// The bits of `shape`: mode, reset, lookup, one arm, current, base; those of `servers`: which live and which
/// have a next hop, and how many buckets the flow table has.
fn tables(shape: u8, servers: u8) -> HostTables {
    let bit = |n: u32| shape >> n & 1 != 0;
    let buckets = 1 + u32::from(servers >> 4 & 1);
    let mut tables = HostTables::new(Ticks(NOW), buckets * WAYS, SLOTS);
    tables.set_hash_key(HashKey([1, 2]));
    tables.set_nat_sources(&NAT_SOURCES);
    for (index, id) in [1u32, 2].into_iter().enumerate() {
        let hop = Hop {
            lives: servers >> index & 1 != 0,
            resolved: servers >> (index + 2) & 1 == 0,
            mac: Mac::from_bytes([2, 0, 0, 0, 2, index as u8]),
            source_mac: Mac::from_bytes([2, 0, 0, 0, 2, 9]),
            interface: if bit(3) { FRONT } else { BACK },
        };
        let address = Be32::from(Ipv4Addr::from(TARGET));
        let server = Server {
            hop,
            nat_first: 0,
            nat_count: 2,
            address,
            port: Be16::new(8_080 + id as u16),
            service: 1,
        };
        tables.set_server(ServerId(id), server);
    }
    let id = |choice: u8| ServerId(u32::from(choice & 3));
    let slot = Slot::new(id(shape >> 4), id(shape >> 6), bit(2));
    (0..SLOTS).for_each(|index| tables.set_slot(index, slot));
    let mode = if bit(0) { Mode::Nat } else { Mode::Dsr };
    let service = Service { id: 1, ring_base: 0, ring_mask: SLOTS - 1, mode, reset: bit(1), idle_ticks: 224 };
    for (port, protocol) in [(WEB, TCP), (NAMES, UDP)] {
        let key = ServiceKey::new(Be32::from(Ipv4Addr::from(VIP)), Be16::new(port), protocol);
        tables.set_service(key, service);
    }
    tables
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// Zero when there are no more.
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn bytes(&mut self, count: u8) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(self.0.len().min(count.into()));
        self.0 = rest;
        taken.to_vec()
    }

    /// A frame and the interface it arrives on: a valid one, damaged or not, or the answer to one that was sent
    /// out before, or any bytes.
    fn packet(&mut self, sent: &[(Outcome, Vec<u8>)]) -> (Vec<u8>, u32) {
        let kind = self.byte();
        let damage = self.byte();
        let damage = self.bytes((damage & 3) * 2);
        let (mut frame, interface) = match kind & 3 {
            0 => (self.tcp(kind >> 2), FRONT),
            1 => (self.udp(kind >> 2), FRONT),
            2 => (sent.last().and_then(|(_, frame)| answer(frame)).unwrap_or_default(), BACK),
            _ => {
                let length = self.byte();
                (self.bytes(length), FRONT)
            }
        };
        for pair in damage.chunks_exact(2) {
            if let Some(byte) = frame.get_mut(usize::from(pair[0])) {
                *byte ^= pair[1];
            } else {
                frame.truncate(pair[1].into());
            }
        }
        (frame, interface)
    }

    fn tcp(&mut self, flags: u8) -> Vec<u8> {
        let bit = |n: u32| flags >> n & 1 != 0;
        let client = self.byte();
        let length = self.byte();
        let mut frame = Vec::new();
        let mut header = etherparse::TcpHeader::new(1_000 + u16::from(client & 3), WEB, 7, 512);
        (header.syn, header.ack, header.fin, header.rst) = (bit(0), bit(1), bit(2), bit(3));
        let built = PacketBuilder::ethernet2(CLIENT_MAC, FRONT_MAC)
            .ipv4([192, 0, 2, client >> 2], VIP, 64)
            .tcp_header(header)
            .write(&mut frame, &self.bytes(length));
        built.expect("a vector takes any packet of this size");
        frame
    }

    fn udp(&mut self, variant: u8) -> Vec<u8> {
        let client = self.byte();
        let length = self.byte();
        let mut frame = Vec::new();
        let built = PacketBuilder::ethernet2(CLIENT_MAC, FRONT_MAC)
            .ipv4([192, 0, 2, client >> 2], VIP, 64)
            .udp(1_000 + u16::from(client & 3), NAMES)
            .write(&mut frame, &self.bytes(length));
        built.expect("a vector takes any packet of this size");
        if variant & 1 != 0 {
            frame[40..42].fill(0);
        }
        frame
    }
}

/// A frame with its ends exchanged, which leaves all checksums as they are. None for what is too short.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    for (first, second, length) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        answer.get_mut(second..second + length)?.copy_from_slice(&frame[first..first + length]);
        answer.get_mut(first..first + length)?.copy_from_slice(&frame[second..second + length]);
    }
    Some(answer)
}

const NOW: u32 = 100_000;
const RESETS: [usize; 2] = [Counter::ResetNoServer as usize, Counter::ResetNoFlow as usize];
const SLOTS: u32 = 4;
const PACKETS_MAX: u32 = 24;
const FRONT: u32 = 1;
const BACK: u32 = 2;
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const VIP: [u8; 4] = [203, 0, 113, 80];
const WEB: u16 = 80;
const NAMES: u16 = 53;
const TARGET: [u8; 4] = [10, 0, 0, 11];
const NAT_SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];
