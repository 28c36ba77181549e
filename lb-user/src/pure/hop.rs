//! How a server is reached at layer 2: what the netlink adapter reports and the planner reads.

use std::net::IpAddr;

pub type Mac = [u8; 6];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Hop(NextHop),
    /// The kernel has no route.
    NoRoute,
    /// The address is one of this machine's own: XDP cannot forward to it.
    Local,
    /// The route's interface is down, is not Ethernet, or adds more VLAN tags than `Tags` holds.
    LinkUnusable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that frames leave through: below the route's own where that is a VLAN device.
    pub interface: u32,
    /// The MAC that frames carry: that of the route's own interface.
    pub interface_mac: Mac,
    /// The source address the kernel prefers on this route; unspecified where the machine has none.
    pub source: IpAddr,
    /// The address resolved on the link: the server itself or a gateway, link-local ones included.
    pub via: IpAddr,
    /// The neighbour's MAC; None while it is unresolved.
    pub neighbour: Option<Mac>,
    /// Bytes of the largest IP packet that the route takes.
    pub mtu: u32,
    pub tags: Tags,
}

/// The VLAN tags that frames carry, at most two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags {
    outer: Option<VlanTag>,
    /// Only beneath an outer one.
    inner: Option<VlanTag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// EtherType: 0x8100 (IEEE 802.1Q) or 0x88a8 (IEEE 802.1ad).
    pub protocol: u16,
    pub id: u16,
}

impl Tags {
    pub const NONE: Tags = Tags { outer: None, inner: None };

    /// The same frames with one more tag in front; None when there is no room for it.
    pub fn within(self, tag: VlanTag) -> Option<Tags> {
        match self.inner {
            None => Some(Tags { outer: Some(tag), inner: self.outer }),
            Some(_) => None,
        }
    }

    /// Outermost first, as they stand in a frame.
    pub fn iter(self) -> impl Iterator<Item = VlanTag> {
        [self.outer, self.inner].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_outermost_first_and_end_at_two() {
        let customer = VlanTag { protocol: 0x8100, id: 7 };
        let provider = VlanTag { protocol: 0x88a8, id: 100 };
        let one = Tags::NONE.within(customer).unwrap();
        let two = one.within(provider).unwrap();
        assert_eq!(Tags::NONE.iter().count(), 0);
        assert_eq!(one.iter().collect::<Vec<_>>(), [customer]);
        assert_eq!(two.iter().collect::<Vec<_>>(), [provider, customer]);
        assert_eq!(two.within(provider), None);
    }
}
