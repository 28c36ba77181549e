//! A packet with poisoned room around it.

use lb_ebpf::{Packet, frame::Frame};

use super::frame;

/// What XDP leaves in front of a packet (XDP_PACKET_HEADROOM), and as much behind it.
const ROOM: usize = 256;

pub struct HostPacket {
    words: Vec<u16>,
    end: usize,
    arrived: Vec<u8>,
    interface: u32,
    poison: u8,
}

impl HostPacket {
    /// `poison` fills the room around the packet: what is decided must not depend on it.
    pub fn new(bytes: &[u8], interface: u32, poison: u8) -> Self {
        let end = ROOM + bytes.len();
        let mut room = vec![poison; (end + ROOM).next_multiple_of(2)];
        room[ROOM..end].copy_from_slice(bytes);
        let words = room.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        HostPacket { words, end, arrived: bytes.to_vec(), interface, poison }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.memory()[ROOM..self.end].to_vec()
    }

    /// As it arrived, to the byte.
    pub fn is_untouched(&self) -> bool {
        self.bytes() == self.arrived
    }

    /// Nothing was written in front of the packet or behind what arrived.
    pub fn stayed_within(&self) -> bool {
        let memory = self.memory();
        let behind = &memory[ROOM + self.arrived.len()..];
        memory[..ROOM].iter().chain(behind).all(|&byte| byte == self.poison)
    }

    fn memory(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl Packet for HostPacket {
    fn frame(&mut self) -> Frame<'_> {
        frame::frame(&mut self.words, ROOM, self.end)
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn truncate(&mut self, length: u32) -> Option<()> {
        let end = ROOM + length as usize;
        if end > self.end {
            return None;
        }
        self.end = end;
        Some(())
    }
}
