//! Records of the flow tables on their way to and from other nodes.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    flow::{
        ARRIVAL, FIN, FlowKey, FlowView, NAT_REPLY, NAT_REQUEST, OPENING, Owner, RST, Ticks, Tuple,
        UNCONFIRMED,
    },
    flow_table::{self, FlowMemory, InsertError},
    net::{Be16, Be128, Family, V4, V6},
    slot::ServerId,
};

use super::tables::TableMemory;
use crate::pure::replica::{Carried, CarriedPair};

/// A record of another node's, in terms of this node's tables.
#[derive(Debug, Clone, Copy)]
pub struct Import {
    pub record: Carried,
    pub server: ServerId,
    /// Of a record of all flows of a client.
    pub service: u32,
    /// Position of the source that a `nat` flow has; 0 in the other modes.
    pub nat_source: u32,
    /// This node's interface towards the client, and its MAC address.
    pub interface: u32,
    pub own_mac: u64,
    /// What stands here gives way.
    pub replace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// A new record.
    Made,
    /// It was here.
    Known,
    /// Its place, or the port that it was given, is another flow's here.
    Taken,
    Full,
    /// Ends of two families.
    Senseless,
}

impl TableMemory {
    /// Makes a record, or brings a known one up to date. A pair is made whole or not at all.
    pub fn import(&self, import: &Import, now: Ticks) -> Imported {
        match (import.record.client, import.record.vip) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => carry_in::<V4>(self, import, now),
            (SocketAddr::V6(_), SocketAddr::V6(_)) => carry_in::<V6>(self, import, now),
            _ => Imported::Senseless,
        }
    }
}

/// The record of a flow, or of the client's half of a pair that is whole.
pub(super) fn carry_out<F: Family>(
    memory: &impl FlowMemory<F>,
    key: &FlowKey<F>,
    index: u32,
    owner: &Owner,
    now: Ticks,
) -> Option<Carried> {
    let (client, vip) = ends(key.tuple());
    let pair = match owner.state & NAT_REQUEST != 0 {
        false => None,
        true => {
            let request = flow_table::nat(memory, index)?;
            let rewrite = request.rewrite();
            let (_, reply) = flow_table::read(memory, &key.twin(rewrite))?;
            if reply.rewrite != key.tuple().reversed() {
                return None;
            }
            let (source, destination) = ends(rewrite);
            Some(CarriedPair {
                source,
                destination,
                silent_ticks: now.since(reply.seen),
                state: reply.state & STATES,
                peer_mac: reply.peer_mac,
                interface: reply.interface,
                tags: reply.tags,
            })
        }
    };
    Some(Carried {
        protocol: key.protocol(),
        of_client: key.is_of_client(),
        client,
        vip,
        server: owner.server,
        silent_ticks: now.since(owner.seen),
        state: owner.state & STATES,
        pair,
    })
}

fn carry_in<F: Family>(memory: &impl FlowMemory<F>, import: &Import, now: Ticks) -> Imported {
    let record = &import.record;
    let key = match record.of_client {
        true => FlowKey::<F>::of_client(
            address::<F>(record.client.ip()),
            address::<F>(record.vip.ip()),
            record.protocol,
            import.service,
        ),
        false => FlowKey::new(tuple::<F>(record.client, record.vip), record.protocol),
    };
    match &record.pair {
        None => alone(memory, &key, import, now),
        Some(pair)
            if pair.source.is_ipv4() == record.client.is_ipv4()
                && pair.destination.is_ipv4() == record.client.is_ipv4() =>
        {
            both(memory, &key, import, pair, now)
        }
        Some(_) => Imported::Senseless,
    }
}

fn alone<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>, import: &Import, now: Ticks) -> Imported {
    let seen = before(now, import.record.silent_ticks);
    let owner = Owner { server: import.server.0, seen, state: import.record.state & STATES };
    if let Some((flow, _, known)) = flow_table::owner(memory, key) {
        if known.server == owner.server && known.state & (NAT_REQUEST | NAT_REPLY) == 0 {
            refresh(flow, known, seen, owner.state);
            return Imported::Known;
        }
        if !import.replace {
            return Imported::Taken;
        }
        flow_table::remove(memory, key);
    }
    let fill = |index| {
        if let Some(flow) = memory.flow_record(index) {
            flow.fill(owner);
        }
    };
    outcome(flow_table::insert(memory, key, now, fill))
}

fn both<F: Family>(
    memory: &impl FlowMemory<F>,
    key: &FlowKey<F>,
    import: &Import,
    pair: &CarriedPair,
    now: Ticks,
) -> Imported {
    let rewrite = tuple::<F>(pair.source, pair.destination);
    let back = key.tuple().reversed();
    let twin = key.twin(rewrite);
    let request =
        half(import, NAT_REQUEST | import.record.state & STATES, import.record.silent_ticks, rewrite, now);
    let reply = half(import, NAT_REPLY | pair.state & STATES, pair.silent_ticks, back, now);
    match (flow_table::read(memory, key), flow_table::read(memory, &twin)) {
        (Some((here, view)), Some((there, other))) if view.rewrite == rewrite && other.rewrite == back => {
            refresh(here.flow, here.flow.owner(), request.seen, request.state);
            refresh(there.flow, there.flow.owner(), reply.seen, reply.state);
            return Imported::Known;
        }
        (None, None) => {}
        (here, there) => {
            if !import.replace {
                return Imported::Taken;
            }
            // Halves of flows that the other node does not know go with their own twins.
            for (key, view) in [(key, here.map(|found| found.1)), (&twin, there.map(|found| found.1))] {
                if let Some(view) = view {
                    flow_table::remove(memory, &key.twin(view.rewrite));
                    flow_table::remove(memory, key);
                }
            }
        }
    }
    let fill = |view: FlowView<F>| {
        move |index| {
            if let Some(found) = flow_table::nat(memory, index) {
                found.fill(&view);
            }
        }
    };
    // The reply's half first, as the program does: a request must not leave before its answer finds its way back.
    match outcome(flow_table::insert(memory, &twin, now, fill(reply))) {
        Imported::Made => {}
        other => return other,
    }
    let made = outcome(flow_table::insert(memory, key, now, fill(request)));
    if made != Imported::Made {
        flow_table::remove(memory, &twin);
    }
    made
}

fn half<F: Family>(
    import: &Import,
    state: u32,
    silent_ticks: u32,
    rewrite: Tuple<F>,
    now: Ticks,
) -> FlowView<F> {
    let pair = import.record.pair;
    FlowView {
        seen: before(now, silent_ticks),
        // Without a digest of where requests arrive, the next one tells the reply's half anew.
        state: state & !ARRIVAL,
        rewrite,
        peer_mac: pair.map_or(0, |pair| pair.peer_mac),
        own_mac: import.own_mac,
        interface: import.interface,
        tags: pair.map_or(0, |pair| pair.tags),
        server: import.server.0,
        nat_source: import.nat_source,
    }
}

/// Never makes a record look older, nor opens what has closed.
fn refresh<F: Family>(flow: &lb_common::flow::Flow<F>, known: Owner, seen: Ticks, state: u32) {
    let clear = known.state & (OPENING | UNCONFIRMED) & !state;
    let latest = if seen.since(known.seen) > 0 { seen } else { known.seen };
    flow.touch(latest, state & (FIN | RST), clear);
}

fn outcome(inserted: Result<(), InsertError>) -> Imported {
    match inserted {
        Ok(()) => Imported::Made,
        Err(InsertError::Exists) => Imported::Known,
        Err(InsertError::Full) => Imported::Full,
    }
}

/// A stamp so long ago.
fn before(now: Ticks, silent_ticks: u32) -> Ticks {
    Ticks(now.0.wrapping_sub(silent_ticks.min(u32::MAX / 4)))
}

fn tuple<F: Family>(source: SocketAddr, destination: SocketAddr) -> Tuple<F> {
    Tuple {
        source: address::<F>(source.ip()),
        destination: address::<F>(destination.ip()),
        source_port: Be16::new(source.port()),
        destination_port: Be16::new(destination.port()),
    }
}

/// The caller knows the family.
fn address<F: Family>(address: IpAddr) -> F::Address {
    F::unmapped(Be128::from_ip(address))
}

fn ends<F: Family>(tuple: Tuple<F>) -> (SocketAddr, SocketAddr) {
    let end = |address: F::Address, port: Be16| SocketAddr::new(F::mapped(address).to_ip(), port.get());
    (end(tuple.source, tuple.source_port), end(tuple.destination, tuple.destination_port))
}

/// What bits mean the same on every node.
const STATES: u32 = OPENING | UNCONFIRMED | FIN | RST;

#[cfg(test)]
mod tests;
