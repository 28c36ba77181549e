//! Virtual routers and the kernel: their addresses, routes, rules and devices, and the links that they stand on.
//!
//! Owns the netlink sockets of the thread of the virtual routers, which are synchronous: the kernel answers a request
//! before the request's system call returns. Must not know elections.

pub mod addresses;
mod item;
pub mod links;
mod netlink;
#[cfg(test)]
mod tests;

pub use self::netlink::NetlinkError;

/// What marks addresses, routes and rules as ours (IFA_PROTO, RTPROT): no other program uses this number.
const MARK: u8 = 83;
