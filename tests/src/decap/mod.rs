//! The named cases of `decap`: a packet, and what must come of it, on the host and in the kernel.

pub mod host;
mod malformed;
mod opened;
mod passed;
pub mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::decap::Counter;
use lb_ebpf::decap::{DecapOutcome, decap};

use self::{
    host::{HostPacket, HostTables},
    tunnel::{Carrier, Tunnel, datagram},
};
use crate::cases::host::frame;

pub struct Case {
    pub name: String,
    pub packet: Vec<u8>,
    pub expected: Effect,
}

/// All that a packet does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub outcome: DecapOutcome,
    pub packet: Vec<u8>,
}

impl Case {
    fn opens(name: &str, tunnel: &Tunnel) -> Case {
        let counter = match tunnel.carrier {
            Carrier::Ipip => Counter::OpenIpip,
            Carrier::Gue { .. } | Carrier::GueHeader { .. } => Counter::OpenGue,
        };
        let expected = Effect { outcome: DecapOutcome::Pass(counter), packet: tunnel.opened() };
        Case { name: name.to_owned(), packet: tunnel.bytes(), expected }
    }

    fn passes(name: &str, packet: Vec<u8>, counter: Counter) -> Case {
        let expected = Effect { outcome: DecapOutcome::Pass(counter), packet: packet.clone() };
        Case { name: name.to_owned(), packet, expected }
    }

    fn drops(name: &str, packet: Vec<u8>, counter: Counter) -> Case {
        let expected = Effect { outcome: DecapOutcome::Drop(counter), packet: packet.clone() };
        Case { name: name.to_owned(), packet, expected }
    }
}

pub fn all() -> Vec<Case> {
    let mut cases = opened::cases();
    cases.extend(passed::cases());
    cases.extend(malformed::cases());
    cases
}

/// `poison` surrounds the packet; the effect must not depend on it.
pub fn on_host(case: &Case, poison: u8) -> Effect {
    let mut packet = HostPacket::new(&case.packet, poison);
    let outcome = decap(&mut packet, &HostTables([VIP4.into(), VIP6.into()].into()));
    assert!(packet.stayed_within(), "{}: wrote outside the packet", case.name);
    Effect { outcome, packet: packet.bytes() }
}

/// What a client asks, for a listed address.
fn query(v4: bool) -> Vec<u8> {
    query_to(if v4 { VIP4.into() } else { VIP6.into() })
}

fn query_to(vip: IpAddr) -> Vec<u8> {
    let client: IpAddr = if vip.is_ipv4() { CLIENT4.into() } else { CLIENT6.into() };
    datagram(SocketAddr::new(client, 40_000), SocketAddr::new(vip, 53), b"question")
}

/// Outer and inner family, IPv4 or not.
const MIXES: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

fn mix(outer: bool, inner: bool) -> String {
    let word = |v4| if v4 { "4" } else { "6" };
    format!("{} in {}", word(inner), word(outer))
}

pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
const STRANGER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_the_effect_it_promises() {
        let mut failed = Vec::new();
        for case in all() {
            for poison in [0xa5, 0x5a, 0x45] {
                let found = on_host(&case, poison);
                if found != case.expected {
                    failed.push(format!("{}\n  {found:x?}\n  {:x?}", case.name, case.expected));
                }
            }
        }
        assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    }

    #[test]
    fn names_are_unique_and_every_way_out_has_a_case() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        for counter in Counter::ALL.iter().filter(|&&counter| counter != Counter::DropRefused) {
            let leaves = |case: &Case| match case.expected.outcome {
                DecapOutcome::Pass(way) | DecapOutcome::Drop(way) => way == *counter,
            };
            assert!(cases.iter().any(leaves), "no case for {}", counter.name());
        }
    }

    #[test]
    fn a_driver_that_refuses_costs_the_packet() {
        let case = &opened::cases()[0];
        let mut packet = HostPacket::new(&case.packet, 0xa5);
        packet.fixed = true;
        let outcome = decap(&mut packet, &HostTables([VIP4.into(), VIP6.into()].into()));
        assert_eq!(outcome, DecapOutcome::Drop(Counter::DropRefused));
    }
}
