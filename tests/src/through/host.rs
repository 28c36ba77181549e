//! The kernel's packet and tables on the host, with the three ways in which a checksum can be under way.

use std::{cell::RefCell, collections::BTreeMap};

use lb_common::{
    entry::{Server, ServerEntry},
    slot::ServerId,
    through::{Connection, ConnectionKey, Target},
};
use lb_ebpf::{
    checksum::Sum,
    frame::{Frame, Header},
    through::{Bytes, Covered, Field, SocketBuffer, ThroughTables, Version},
};

use super::packet::{L3, folded, transport};
use crate::cases::host::frame::frame;

/// What the kernel knows of a packet's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// The transport's stands in the packet.
    Whole,
    /// Only the pseudo header is summed: the interface does the rest (CHECKSUM_PARTIAL).
    Partial,
    /// The interface summed up all that it received behind the link header (CHECKSUM_COMPLETE).
    Complete(u16),
}

pub struct HostBuffer {
    words: Vec<u16>,
    length: usize,
    pub sums: Sums,
    pub mark: u32,
    /// Bytes in the first piece until more are pulled.
    pub linear: usize,
}

impl HostBuffer {
    pub fn new(bytes: &[u8], mark: u32) -> Self {
        let mut buffer =
            HostBuffer { words: Vec::new(), length: 0, sums: Sums::Whole, mark, linear: usize::MAX };
        buffer.set(bytes);
        buffer
    }

    /// As a socket hands it over to an interface that computes checksums.
    pub fn partial(bytes: &[u8], mark: u32) -> Self {
        let mut bytes = bytes.to_vec();
        let (pseudo, _, field) = transport(&bytes);
        bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        HostBuffer { sums: Sums::Partial, ..HostBuffer::new(&bytes, mark) }
    }

    /// As an interface hands it over that has summed it up.
    pub fn complete(bytes: &[u8]) -> Self {
        HostBuffer { sums: Sums::Complete(folded(&bytes[L3..])), ..HostBuffer::new(bytes, 0) }
    }

    /// As it leaves, or reaches a socket: every checksum in its place.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.bytes();
        match self.sums {
            Sums::Whole => {}
            Sums::Partial => {
                let (_, start, field) = transport(&bytes);
                let sum = !folded(&bytes[start..]);
                bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            }
            Sums::Complete(sum) => {
                let real = folded(&bytes[L3..]);
                assert_eq!(sum % 0xffff, real % 0xffff, "the kernel would think the packet damaged");
            }
        }
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_ne_bytes());
        bytes.take(self.length).collect()
    }

    fn set(&mut self, bytes: &[u8]) {
        let padded = bytes.iter().copied().chain([0]).collect::<Vec<_>>();
        self.words = padded.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        self.length = bytes.len();
    }

    fn replace(&mut self, offset: usize, new: &[u8], summed: bool) {
        let mut bytes = self.bytes();
        let old = &mut bytes[offset..offset + new.len()];
        if summed {
            self.resum(old, new);
        }
        old.copy_from_slice(new);
        self.set(&bytes);
    }

    fn resum(&mut self, old: &[u8], new: &[u8]) {
        if let Sums::Complete(sum) = &mut self.sums {
            *sum = plus(*sum, plus(!folded(old), folded(new)));
        }
    }

    fn splice(&mut self, gone: usize, come: usize) {
        let mut bytes = self.bytes();
        let old: Vec<_> = bytes.splice(L3..L3 + gone, vec![0; come]).collect();
        self.resum(&old, &[]);
        self.set(&bytes);
    }
}

impl SocketBuffer for HostBuffer {
    fn mark(&self) -> u32 {
        self.mark
    }

    fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    fn frame(&mut self) -> Frame<'_> {
        let end = self.length.min(self.linear);
        frame(&mut self.words, 0, end)
    }

    fn pull(&mut self, bytes: u32) {
        self.linear = self.linear.max(bytes as usize);
    }

    fn store<T: Header>(&mut self, offset: usize, header: T, bytes: Bytes) -> Option<()> {
        let mut place = vec![0u16; size_of::<T>().div_ceil(2)];
        *frame(&mut place, 0, size_of::<T>()).at::<T>(0)? = header;
        let new: Vec<_> = place.iter().flat_map(|word| word.to_ne_bytes()).take(size_of::<T>()).collect();
        self.replace(offset, &new, bytes == Bytes::Summed);
        Some(())
    }

    fn amend(&mut self, field: Field, change: Sum, of: Covered) -> Option<()> {
        let bytes = self.bytes();
        let old = u16::from_be_bytes([bytes[field.offset], bytes[field.offset + 1]]);
        let change = u16::from_be(!change.field().0);
        let new = match self.sums {
            Sums::Partial if of == Covered::Payload => return Some(()),
            Sums::Partial => plus(old, change),
            Sums::Whole | Sums::Complete(_) if field.optional && old == 0 => return Some(()),
            Sums::Whole | Sums::Complete(_) => match !plus(!old, change) {
                0 if field.optional => 0xffff,
                new => new,
            },
        };
        self.replace(field.offset, &new.to_be_bytes(), of == Covered::Ends);
        Some(())
    }

    fn convert(&mut self, to: Version) -> Option<()> {
        match to {
            Version::V6 => self.splice(0, V6 - V4),
            Version::V4 => self.splice(V6 - V4, 0),
        }
        Some(())
    }

    fn wrap(&mut self, outer: Version, udp: bool) -> Option<()> {
        let ip = match outer {
            Version::V4 => V4,
            Version::V6 => V6,
        };
        self.splice(0, ip + if udp { 8 } else { 0 });
        Some(())
    }
}

/// Of IP headers.
const V4: usize = 20;
const V6: usize = 40;

/// Ones' complement.
fn plus(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// One server and its target, and the connections of its checks.
pub struct HostTables {
    id: ServerId,
    target: Target,
    entry: ServerEntry,
    connections: RefCell<BTreeMap<ConnectionKey, &'static Connection>>,
}

impl HostTables {
    pub fn new(id: ServerId, target: Target, server: Server) -> Self {
        let entry = ServerEntry::default();
        entry.store(server);
        HostTables { id, target, entry, connections: RefCell::default() }
    }
}

impl ThroughTables for HostTables {
    fn target(&self, server: ServerId) -> Option<&Target> {
        (server == self.id).then_some(&self.target)
    }

    fn server(&self, server: ServerId) -> Option<&ServerEntry> {
        (server == self.id).then_some(&self.entry)
    }

    fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        self.connections.borrow().get(key).copied()
    }

    fn remember(&self, key: &ConnectionKey, connection: &Connection) -> Option<()> {
        // A table hands out references for as long as it lives, whatever is remembered later: a few are never freed.
        self.connections.borrow_mut().insert(*key, Box::leak(Box::new(*connection)));
        Some(())
    }
}
