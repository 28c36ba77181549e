//! What a driver is told: the packets of one run, and the value of the map that says so.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lb_common::net::{Be16, Be32};

use super::orders::{self, IPV4, IPV4_TAGGED, IPV6, LONG, Orders};
use crate::bench::packet::{Ends, Kind, Packet};

/// Packets of many flows, one of each in turn.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Script<'a> {
    pub(in crate::bench) packet: Packet,
    /// A power of two.
    pub(in crate::bench) flows: u32,
    pub(in crate::bench) order: Order,
    /// Whether the program under test moves the head of the packet; otherwise it may cut the tail.
    pub(in crate::bench) moves_head: bool,
    /// Of each flow; empty: those of clients, counted on.
    pub(in crate::bench) ends: &'a [Ends],
}

/// Which flow comes after which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Order {
    Ascending,
    /// Multiples of a large odd number: neighbours in time are far apart in every table that was filled in
    /// ascending order, and no prefetcher follows.
    Scattered,
}

impl Script<'_> {
    pub(super) fn orders(&self) -> Result<Orders> {
        ensure!(self.flows.is_power_of_two(), "{} flows are not a power of two", self.flows);
        ensure!(
            self.ends.is_empty() || self.ends.len() == self.flows as usize,
            "not every flow has its ends"
        );
        let first = self.ends_of(0);
        let frame = self.packet.frame(first.common())?;
        Ok(Orders {
            packets: 0,
            flow_mask: u64::from(self.flows - 1),
            stride: self.order.stride(),
            length: frame.len() as u64,
            layout: match (first.to.ip(), self.packet.vlan) {
                (IpAddr::V4(_), None) => IPV4,
                (IpAddr::V4(_), Some(_)) => IPV4_TAGGED,
                (IpAddr::V6(_), _) => IPV6,
            },
            is_udp: u64::from(self.packet.kind == Kind::Udp),
            moves_head: u64::from(self.moves_head),
            from_map: u64::from(!self.ends.is_empty()),
            template: template(&frame).context("the packet is too long for the driver")?,
            first: first.into(),
            zero: 0,
        })
    }

    /// Entries of the driver's map of ends, in the order of the packets.
    pub(super) fn listed(&self) -> impl Iterator<Item = Ends> {
        (0..self.ends.len() as u64).map(|number| self.ends_of(number))
    }

    /// The frame of the packet with this number, built without the driver.
    pub(super) fn frame(&self, number: u64) -> Result<Vec<u8>> {
        self.packet.frame(self.ends_of(number))
    }

    fn ends_of(&self, number: u64) -> Ends {
        let flow = number.wrapping_mul(self.order.stride()) & u64::from(self.flows - 1);
        self.ends.get(flow as usize).copied().unwrap_or_else(|| self.packet.ends(flow as u32))
    }
}

impl Order {
    fn stride(self) -> u64 {
        match self {
            Order::Ascending => 1,
            Order::Scattered => SCATTER,
        }
    }
}

impl From<Ends> for orders::Ends {
    fn from(Ends { from, to }: Ends) -> orders::Ends {
        orders::Ends {
            source: last_bytes(from),
            destination: last_bytes(to),
            source_port: Be16::new(from.port()),
            destination_port: Be16::new(to.port()),
        }
    }
}

fn last_bytes(end: SocketAddr) -> Be32 {
    match end.ip() {
        IpAddr::V4(address) => Be32::from(address),
        IpAddr::V6(address) => Be32::new(address.to_bits() as u32),
    }
}

fn template(frame: &[u8]) -> Option<[u16; LONG / 2]> {
    let mut words = [0; LONG / 2];
    let (pairs, rest) = frame.as_chunks::<2>();
    words
        .get_mut(..pairs.len())?
        .copy_from_slice(&pairs.iter().copied().map(u16::from_ne_bytes).collect::<Vec<_>>());
    rest.is_empty().then_some(words)
}

/// 2^32 divided by the golden ratio: multiples spread evenly.
const SCATTER: u64 = 0x9e37_79b1;
