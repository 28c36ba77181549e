//! The surroundings of `decap` on the host: a packet in poisoned memory that can lose its start, and addresses.
//!
//! Must not know cases or expectations: the fuzz target includes this module as its own.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::net::{Be32, Be128};
use lb_ebpf::{
    decap::{DecapPacket, DecapTables},
    frame::Frame,
};

use super::frame::frame;

/// In front of the packet and behind it.
const ROOM: usize = 64;

pub struct HostPacket {
    words: Vec<u16>,
    start: usize,
    end: usize,
    arrived: Vec<u8>,
    poison: u8,
    /// Whether the driver refuses to move the start.
    pub fixed: bool,
}

impl HostPacket {
    /// `poison` fills the room around the packet: what is decided must not depend on it.
    pub fn new(bytes: &[u8], poison: u8) -> Self {
        let end = ROOM + bytes.len();
        let mut room = vec![poison; (end + ROOM).next_multiple_of(2)];
        room[ROOM..end].copy_from_slice(bytes);
        let words = room.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        HostPacket { words, start: ROOM, end, arrived: bytes.to_vec(), poison, fixed: false }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.memory()[self.start..self.end].to_vec()
    }

    /// Nothing was written outside what arrived, nor to what was stripped.
    pub fn stayed_within(&self) -> bool {
        let memory = self.memory();
        let behind = &memory[ROOM + self.arrived.len()..];
        memory[..ROOM].iter().chain(behind).all(|&byte| byte == self.poison)
            && memory[ROOM..self.start] == self.arrived[..self.start - ROOM]
    }

    fn memory(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl DecapPacket for HostPacket {
    fn frame(&mut self) -> Frame<'_> {
        frame(&mut self.words, self.start, self.end)
    }

    fn length(&self) -> u32 {
        (self.end - self.start) as u32
    }

    fn strip(&mut self, bytes: u32) -> Option<()> {
        let start = self.start + bytes as usize;
        if self.fixed || start + ETHERNET > self.end {
            return None;
        }
        self.start = start;
        Some(())
    }
}

/// Less than an Ethernet header no packet may become.
const ETHERNET: usize = 14;

/// The addresses this server answers for.
#[derive(Debug, Clone, Default)]
pub struct HostTables(pub BTreeSet<IpAddr>);

impl DecapTables for HostTables {
    fn is_vip4(&self, address: Be32) -> bool {
        self.0.contains(&IpAddr::V4(address.into()))
    }

    fn is_vip6(&self, address: Be128) -> bool {
        self.0.contains(&IpAddr::V6(address.into()))
    }
}
