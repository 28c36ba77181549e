//! The front of a frame: Ethernet addresses, VLAN tags, and the outer headers of tunnels.

use lb_common::{
    counter::Counter,
    entry::{Hop, Tags},
    hash,
    net::{Be16, Mac},
};

use crate::{
    forward::Outcome,
    frame::Frame,
    header::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, Ethernet, L3_OFFSET, Vlan},
    tables::Packet,
};

/// Where a frame came from, so that answers find the way back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub interface: u32,
    pub peer_mac: Mac,
    pub own_mac: Mac,
    pub tags: Tags,
}

impl Arrival {
    /// See `flow::ARRIVAL`.
    #[inline(always)]
    pub(crate) fn digest(self) -> u32 {
        hash::arrival(self.interface, self.tags.0, self.peer_mac.0, self.own_mac.0)
    }
}

/// `l3`: where the IP header stands.
#[inline(always)]
pub(crate) fn arrival(packet: &mut impl Packet, l3: usize) -> Option<Arrival> {
    let interface = packet.interface();
    let mut frame = packet.frame();
    let &mut Ethernet { destination, source, .. } = frame.at::<Ethernet>(0)?;
    let mut tags = Tags::default();
    if l3 > L3_OFFSET {
        tags = tags.with(frame.at::<Vlan>(L3_OFFSET)?.control.get());
    }
    if l3 > L3_OFFSET + size_of::<Vlan>() {
        tags = tags.with(frame.at::<Vlan>(L3_OFFSET + size_of::<Vlan>())?.control.get());
    }
    Some(Arrival { interface, peer_mac: source.get(), own_mac: destination.get(), tags })
}

/// Length of Ethernet header and tags.
#[inline(always)]
pub(crate) fn length(tags: Tags) -> usize {
    L3_OFFSET + tags.count() as usize * size_of::<Vlan>()
}

/// Makes room for a new front: link header and `outer` bytes more, where the frame now has `l3` bytes.
#[inline(always)]
pub(crate) fn resize(packet: &mut impl Packet, l3: usize, tags: Tags, outer: usize) -> Result<(), Outcome> {
    let more = (length(tags) + outer) as i32 - l3 as i32;
    if more == 0 {
        return Ok(());
    }
    packet.grow(more).ok_or(Outcome::drop(Counter::DropHeadroom))
}

/// Addresses, tags and type of a frame that is to leave.
#[inline(always)]
pub(crate) fn write(
    frame: &mut Frame<'_>,
    destination: Mac,
    source: Mac,
    tags: Tags,
    ethertype: Be16,
) -> Option<()> {
    let ethernet = frame.at::<Ethernet>(0)?;
    ethernet.destination.set(destination);
    ethernet.source.set(source);
    match tags.count() {
        0 => ethernet.ethertype = ethertype,
        1 => {
            ethernet.ethertype = ETHERTYPE_VLAN;
            *frame.at::<Vlan>(L3_OFFSET)? = Vlan { control: Be16::new(tags.inner()), ethertype };
        }
        _ => {
            ethernet.ethertype = ETHERTYPE_QINQ;
            *frame.at::<Vlan>(L3_OFFSET)? =
                Vlan { control: Be16::new(tags.outer()), ethertype: ETHERTYPE_VLAN };
            *frame.at::<Vlan>(L3_OFFSET + size_of::<Vlan>())? =
                Vlan { control: Be16::new(tags.inner()), ethertype };
        }
    }
    Some(())
}

#[inline(always)]
pub(crate) fn leave(packet: &impl Packet, interface: u32, counter: Counter) -> Outcome {
    if interface == packet.interface() {
        Outcome::transmit(counter)
    } else {
        Outcome::redirect(counter, interface)
    }
}

/// The front of a packet that goes to a server as it is.
#[inline(always)]
pub(crate) fn to_hop(frame: &mut Frame<'_>, hop: &Hop, ethertype: Be16) -> Option<()> {
    write(frame, hop.mac, hop.source_mac, hop.tags, ethertype)
}
