//! Virtual routers and the kernel: the sockets of adverts, frames and heartbeats, the addresses, routes and rules of
//! routers, and the links that they stand on.
//!
//! Its netlink sockets are synchronous: the kernel answers a request before the request's system call returns. Must
//! not know elections.

pub mod addresses;
mod filter;
pub mod frames;
mod item;
pub mod links;
mod netlink;
pub mod pulse;
pub mod realtime;
pub mod socket;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::netlink::NetlinkError;

/// What marks addresses, routes and rules as ours (IFA_PROTO, RTPROT): no other program uses this number.
const MARK: u8 = 83;
