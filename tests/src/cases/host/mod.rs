//! The surroundings of the packet path on the host: a packet in poisoned memory, tables in ordinary maps.
//!
//! Must not know cases or expectations: the fuzz target includes this module as its own.

pub(crate) mod frame;
mod networks;
mod packet;
pub mod records;
mod tables;

pub use self::{
    packet::HostPacket,
    tables::{ANSWERS_PER_TICK, HostTables},
};
