//! Any packets through the packet path, over tables that the input chooses and the packets change.
//!
//! ```text
//! input: tables, then packets: ticks since the last one, kind, shape, damage, payload
//! ```
//!
//! Nothing may panic, leave the packet's bytes, touch what passes, spoil or mend a checksum, spoil the flow table
//! or leave half a NAT pair, but for what gave way half open; and nothing may depend on the bytes around a packet.
#![no_main]

#[path = "../../tests/src/cases/checksum.rs"]
#[expect(dead_code, reason = "the packet cases use the rest")]
mod checksum;
#[path = "../../tests/src/cases/host/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the packet cases use the rest")]
mod host;
#[path = "pipeline/input.rs"]
mod input;
#[path = "pipeline/network.rs"]
mod network;
#[path = "../../tests/src/cases/packet.rs"]
#[expect(dead_code, reason = "the packet cases use the rest")]
mod packet;

use lb_common::{
    counter::Counter,
    flow::{NAT_REPLY, NAT_REQUEST, OPENING, Ticks, UNCONFIRMED},
    flow_table,
};
use lb_ebpf::{Action, Outcome, forward};
use libfuzzer_sys::fuzz_target;

use self::{
    checksum::{Checksums, Transport},
    host::{HostPacket, HostTables, records::Key},
    input::Input,
    network::Network,
};

fuzz_target!(|input: &[u8]| {
    assert_eq!(run(input, 0xa5), run(input, 0x5a), "depends on bytes outside the packets");
});

/// What became of every packet.
fn run(input: &[u8], poison: u8) -> Vec<(Outcome, Vec<u8>)> {
    let mut input = Input(input);
    let network = Network::choose(&mut input);
    let mut tables = network.tables();
    let mut now = network::NOW;
    let mut outcomes = Vec::new();
    while !input.is_empty() && outcomes.len() < PACKETS_MAX {
        now += u32::from(input.byte()).pow(2);
        tables.set_now(Ticks(now));
        let (bytes, interface) = input.packet(&outcomes);
        let mut packet = HostPacket::new(&bytes, interface, poison);
        let outcome = forward(&mut packet, &tables);
        tables.count_outcome(outcome);
        judge(&network, &bytes, outcome, &packet);
        outcomes.push((outcome, packet.bytes()));
        judge_flows(&tables);
        judge_counts(&tables, outcomes.len() as u64);
    }
    outcomes
}

fn judge(network: &Network, arrived: &[u8], outcome: Outcome, packet: &HostPacket) {
    assert!(packet.stayed_within(), "wrote outside the packet: {outcome:?}");
    let bytes = packet.bytes();
    match outcome.action() {
        Action::Pass => assert!(packet.is_untouched(), "{outcome:?}"),
        Action::Drop => {}
        Action::Next(stage) => panic!("ended before stage {stage}"),
        Action::Transmit if is_answer(outcome) => {
            let found = Checksums::of(&bytes).map(|found| (found.ip, found.transport));
            assert_eq!(found, Some((true, Transport::Right)), "{arrived:x?} became {bytes:x?}");
        }
        Action::Transmit | Action::Redirect(_) => {
            assert!(bytes.len() <= arrived.len() + GROWTH_MAX, "{outcome:?}: grew by too much");
            judge_checksums(network, arrived, outcome, &bytes);
        }
    }
}

fn judge_checksums(network: &Network, arrived: &[u8], outcome: Outcome, bytes: &[u8]) {
    // What comes with the port of a tunnel looks like one.
    if arrived.windows(2).any(|port| port == GUE_PORT) {
        return;
    }
    let (mut before, mut after) = (Checksums::of(arrived), Checksums::of(bytes));
    assert!(after.is_some(), "{outcome:?}: {arrived:x?} became {bytes:x?}, which is no packet");
    if network.rewrites() {
        // The checksum of a quoted TCP header stays: seldom is it there, and nobody looks at it.
        for found in [&mut before, &mut after].into_iter().flatten() {
            found.quoted.1 = Transport::Without;
        }
    }
    assert_eq!(after, before, "{outcome:?}: {arrived:x?} became {bytes:x?}");
}

fn is_answer(outcome: Outcome) -> bool {
    ANSWERS.contains(&Counter::ALL[outcome.counter()])
}

/// Half of a pair stands alone only where the other gave way to another flow, which a confirmed one never does.
/// The twin's key may belong to that flow by then.
fn judge_flows(tables: &HostTables) {
    let flows = tables.records();
    for (key, flow) in &flows {
        let Some(rewrite) = &flow.rewrite else { continue };
        let other = if flow.state & NAT_REQUEST != 0 { NAT_REPLY } else { NAT_REQUEST };
        let twin_key = key.twin(rewrite);
        let is_twin = flows.get(&twin_key).is_some_and(|twin| {
            twin.state & other != 0
                && twin.state & OPENING == flow.state & OPENING
                && twin.rewrite.as_ref().is_some_and(|rewrite| twin_key.twin(rewrite) == *key)
        });
        let gives_way = raw_state(tables, key) & (OPENING | UNCONFIRMED) != 0;
        assert!(is_twin || gives_way, "half a pair: {key:?} {flow:?}");
    }
}

/// The bits of a record, those included that cases do not compare.
fn raw_state(tables: &HostTables, key: &Key) -> u32 {
    let owner = match key {
        Key::V4(key) => flow_table::owner(tables, key).map(|(_, _, owner)| owner),
        Key::V6(key) => flow_table::owner(tables, key).map(|(_, _, owner)| owner),
    };
    owner.map_or(0, |owner| owner.state)
}

/// Every packet leaves by one way, and what goes to a server is on its account.
fn judge_counts(tables: &HostTables, packets: u64) {
    let counters = tables.counters();
    let sum = |wanted: &dyn Fn(&Counter) -> bool| -> u64 {
        counters.iter().filter(|(counter, _)| wanted(counter)).map(|(_, count)| count).sum()
    };
    assert_eq!(sum(&|counter| !ON_THE_WAY.contains(counter)), packets);
    let forwarded = sum(&|counter| REQUESTS.contains(counter));
    assert_eq!(tables.traffic().values().map(|counts| counts.packets).sum::<u64>(), forwarded);
}

const ANSWERS: [Counter; 5] = [
    Counter::ResetNoServer,
    Counter::ResetNoFlow,
    Counter::AnswerNoServer,
    Counter::AnswerTooBig,
    Counter::AnswerTtl,
];
const ON_THE_WAY: [Counter; 3] = [Counter::FlowRecorded, Counter::FlowUnrecorded, Counter::MssClamped];
const REQUESTS: [Counter; 5] = [
    Counter::ForwardDsr,
    Counter::ForwardIpip,
    Counter::ForwardGue,
    Counter::ForwardNatRequest,
    Counter::ForwardGatewayRequest,
];
const PACKETS_MAX: usize = 24;
/// Two tags, an IPv6 header and UDP.
const GROWTH_MAX: usize = 8 + 40 + 8;
/// 6080.
const GUE_PORT: [u8; 2] = [0x17, 0xc0];
