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
pub mod announce;
mod checksum;
pub mod codec;
pub mod conflict;
pub mod file;
#[cfg(test)]
mod fixture;
pub mod flood;
pub mod frame;
pub mod group;
pub mod happening;
pub mod hmac;
pub mod hooks;
pub mod mismatch;
pub mod node;
pub mod process;
pub mod pulse;
pub mod receive;
pub mod router;
pub mod script;
pub mod served;
#[cfg(test)]
mod testing;
pub mod timer;
pub mod tracking;
