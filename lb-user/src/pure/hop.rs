//! How a server is reached at layer 2: what the netlink adapter reports and the planner reads.

use std::net::Ipv4Addr;

pub type Mac = [u8; 6];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Hop(NextHop),
    /// The kernel has no route.
    NoRoute,
    /// The address is one of this machine's own: XDP cannot forward to it.
    Local,
    /// The route's interface is down, or is not Ethernet.
    LinkUnusable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface the route leaves through.
    pub interface: u32,
    pub interface_mac: Mac,
    /// The source address the kernel prefers on this route.
    pub source: Ipv4Addr,
    /// The address resolved on the link: the server itself or a gateway.
    pub via: Ipv4Addr,
    /// The neighbour's MAC; None while it is unresolved.
    pub neighbour: Option<Mac>,
}
