//! A packet with poisoned room around it.

use lb_ebpf::{Packet, frame::Frame};

use super::frame;

/// What XDP leaves in front of a packet (XDP_PACKET_HEADROOM), and as much behind it.
const ROOM: usize = 256;
/// Of the headroom, what the kernel keeps for itself (`struct xdp_frame`).
const KEPT: usize = 40;
const ETHERNET: usize = 14;

pub struct HostPacket {
    words: Vec<u16>,
    start: usize,
    end: usize,
    /// The lowest place that the start may be moved to.
    bound: usize,
    arrived: Vec<u8>,
    /// As the reach of the packet was widest.
    reached: usize,
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
        HostPacket {
            words,
            start: ROOM,
            end,
            bound: KEPT,
            arrived: bytes.to_vec(),
            reached: ROOM,
            interface,
            poison,
        }
    }

    /// With so many bytes free in front.
    pub fn with_headroom(self, bytes: usize) -> Self {
        HostPacket { bound: ROOM - bytes, ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.memory()[self.start..self.end].to_vec()
    }

    /// As it arrived, to the byte.
    pub fn is_untouched(&self) -> bool {
        self.bytes() == self.arrived
    }

    /// Nothing was written in front of where the packet ever began, or behind what arrived.
    pub fn stayed_within(&self) -> bool {
        let memory = self.memory();
        let behind = &memory[ROOM + self.arrived.len()..];
        memory[..self.reached].iter().chain(behind).all(|&byte| byte == self.poison)
    }

    fn memory(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl Packet for HostPacket {
    fn frame(&mut self) -> Frame<'_> {
        frame::frame(&mut self.words, self.start, self.end)
    }

    fn length(&self) -> u32 {
        (self.end - self.start) as u32
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn grow(&mut self, bytes: i32) -> Option<()> {
        let start = self.start.checked_add_signed(-(bytes as isize))?;
        if start < self.bound || start + ETHERNET > self.end {
            return None;
        }
        self.start = start;
        self.reached = self.reached.min(start);
        Some(())
    }

    fn truncate(&mut self, length: u32) -> Option<()> {
        let end = self.start + length as usize;
        if end > self.end || (length as usize) < ETHERNET {
            return None;
        }
        self.end = end;
        Some(())
    }
}
