//! What every case is compared with: the least an encapsulation can cost, measured in the same rounds.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use etherparse::{IpNumber, Ipv4Header};

use super::{
    driver::{Call, Driver, Order, Ran, Script},
    packet::{Kind, OWN_MAC, Packet},
    rig::VIP,
};

/// A program that prepends a fixed IPv4 header to TCP over IPv4 and looks at no map; and its floor.
pub(super) struct Reference {
    floor: Driver,
    program: Driver,
}

/// What a packet costs with each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) floor: Ran,
    pub(super) program: Ran,
}

impl Reference {
    pub(super) fn new() -> Result<Reference> {
        let packet = Packet { kind: Kind::Ack, to: VIP, vlan: None };
        let script = Script { packet, flows: 1, order: Order::Ascending, moves_head: true, ends: &[] };
        let mut floor = Driver::load(Call::Floor, 0)?;
        let mut program = Driver::load(Call::Encapsulation, 0)?;
        floor.check(&script, Ok)?;
        program.check(&script, encapsulated).context("the reference program")?;
        Ok(Reference { floor, program })
    }

    pub(super) fn run(&mut self, packets: u32) -> Result<Cost> {
        let cost = Cost { floor: self.floor.run(packets)?, program: self.program.run(packets)? };
        ensure!(cost.program.action == XDP_TX, "the reference program returned {}", cost.program.action);
        Ok(cost)
    }
}

/// What the program makes of a frame.
fn encapsulated(frame: Vec<u8>) -> Result<Vec<u8>> {
    let inner = frame.get(ETHERNET_HEADER..).context("a frame without a header")?;
    let length = u16::try_from(inner.len())?;
    let outer = Ipv4Header::new(length, TTL, IpNumber::IPV4, TUNNEL_SOURCE.octets(), TUNNEL_SERVER.octets())?;
    let mut frame = [&SERVER_MAC[..], &OWN_MAC, &ETHERTYPE_IPV4].concat();
    outer.write(&mut frame)?;
    frame.extend_from_slice(inner);
    Ok(frame)
}

const XDP_TX: u32 = 3;
const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const TTL: u8 = 64;
const SERVER_MAC: [u8; 6] = [2, 0, 0, 1, 0, 1];
const TUNNEL_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 1);
const TUNNEL_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
