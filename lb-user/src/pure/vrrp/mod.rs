//! Virtual routers: who owns the addresses (RFC 9568, RFC 3768).
//!
//! ```text
//! packet ─► receive (every check of the RFCs) ─┐
//! links, trackers, orders, peers ──────────────┼─► Node ─► Router, Group, Announcer ─► Action
//! time ────────────────────────────────────────┘             │
//!                                                            └─► status, Happening (what is told)
//! ```
//!
//! Must not know sockets, netlink or threads: `daemon::vrrp` feeds it and carries out what it wants.

pub mod advert;
mod checksum;
pub mod codec;
#[cfg(test)]
mod fixture;
pub mod flood;
pub mod frame;
pub mod happening;
pub mod hmac;
pub mod node;
pub mod receive;
