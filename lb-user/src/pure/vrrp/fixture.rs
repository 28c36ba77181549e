//! Routers and packets for tests.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{
    advert::{ChecksumForm, Seen},
    codec::Outgoing,
    hmac::{Sequence, Sequencer},
    testing,
};
use crate::pure::config::{
    model::vrrp::{Address, Hmac, HmacKey, HmacMode, Router, Version},
    network::Family,
};

/// VRID 51, priority 100, every second, two addresses, multicast.
pub(super) fn router(version: Version, family: Family) -> Router {
    let addresses = match family {
        Family::V4 => ["10.98.0.100", "10.98.0.101"],
        Family::V6 => ["fe80::100", "fd98::100"],
    };
    Router { family, version, addresses: addresses.map(address).to_vec(), ..testing::a_router("VI_1") }
}

pub(super) fn address(text: &str) -> Address {
    Address { address: ip(text), prefix: 24, dev: None, label: None, scope: None, broadcast: None }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn hmac(mode: HmacMode) -> Hmac {
    Hmac { keys: vec![HmacKey { id: 1, key: (0..32).collect() }], mode }
}

/// An advert of a router's peer, as it arrives.
pub(super) fn seen(router: &Router) -> Seen {
    let source = match router.family {
        Family::V4 => ip("10.98.0.1"),
        Family::V6 => ip("fe80::1"),
    };
    let destination = match (router.is_unicast(), router.family) {
        (false, _) => router.group_address(),
        (true, Family::V4) => ip("10.98.0.2"),
        (true, Family::V6) => ip("fe80::2"),
    };
    Seen { interface: 2, source, destination, ttl: 255 }
}

/// The peer's message, which is configured as `router` is.
pub(super) fn advert(router: &Router, priority: u8, sequence: Sequence) -> Vec<u8> {
    let Seen { source, destination, .. } = seen(router);
    Outgoing { router, priority, form: ChecksumForm::PseudoHeader, source, destination, sequence }.encode()
}

pub(super) fn sequence(clock: Timestamp) -> Sequence {
    Sequencer::default().next(clock)
}

/// When the clock of all tests stands still.
pub(super) fn clock() -> Timestamp {
    Timestamp::from_second(0x6800_0000).unwrap()
}
