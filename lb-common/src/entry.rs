//! What the daemon writes and the kernel reads: services, rules, servers, and the values they share.
//!
//! The maps are mapped into the daemon. Every field is one aligned word, written with one store; a reader
//! that meets a change half done sees each word whole.

mod globals;
mod network;
mod server;
mod service;

use core::net::IpAddr;

pub use self::{
    globals::Globals,
    network::{ALLOW, DENY, RULES_WORDS, Rule, RuleEntry, Rules, Scoped},
    server::{Hop, Server, ServerEntry, Tags},
    service::{EMPTY, Mode, PolicyEntry, REMOVED, Scheduler, Service, ServiceEntry, ServiceKey},
};
use crate::{
    net::{Be32, Be128, Family},
    word::Word,
};

/// A word of the ring map; see `slot`.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SlotEntry(pub Word);

/// IPv4: in the low half of the first word. Never all zero for an address that a server may have.
fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [Be32::from(address).0.into(), 0],
        IpAddr::V6(address) => Be128::from(address).0,
    }
}

#[inline(always)]
fn address<F: Family>(words: &[Word; 2]) -> F::Address {
    let (low, high) = (words[0].get(), words[1].get());
    F::from_words([low, high])
}

const _: () = assert!(size_of::<SlotEntry>() == 8);
