//! Flow records as values of either family, and the memory of a flow table filled with them and read back.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{
    entry::Tags,
    flow::{
        ARRIVAL, Flow, FlowKey, FlowView, NAT_REPLY, NAT_REQUEST, NatFlow, Owner, Ticks, Tuple, UNCONFIRMED,
    },
    flow_table::{self, FlowMemory, InsertError, WAYS},
    hash,
    net::{Be16, Family, Mac, V4, V6},
    slot::ServerId,
};

/// What a record is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    V4(FlowKey<V4>),
    V6(FlowKey<V6>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub server: ServerId,
    pub seen: Ticks,
    pub state: u32,
    /// Of the halves of pairs alone.
    pub rewrite: Option<Rewrite>,
}

/// What the packets of a half become, and where replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub interface: u32,
    pub tags: Tags,
    pub peer_mac: [u8; 6],
    pub own_mac: [u8; 6],
}

/// Memory of both tables.
pub trait Memory: FlowMemory<V4> + FlowMemory<V6> {}

impl<M: FlowMemory<V4> + FlowMemory<V6>> Memory for M {}

impl Key {
    pub fn new(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Key {
        match source {
            SocketAddr::V4(_) => Key::V4(FlowKey::new(tuple(source, destination), protocol)),
            SocketAddr::V6(_) => Key::V6(FlowKey::new(tuple(source, destination), protocol)),
        }
    }

    /// Of all flows of a client with a service.
    pub fn of_client(client: IpAddr, vip: IpAddr, protocol: u8, service: u32) -> Key {
        match client {
            IpAddr::V4(_) => {
                Key::V4(FlowKey::of_client(V4::from_ip(client), V4::from_ip(vip), protocol, service))
            }
            IpAddr::V6(_) => {
                Key::V6(FlowKey::of_client(V6::from_ip(client), V6::from_ip(vip), protocol, service))
            }
        }
    }

    /// Of the other half of a pair.
    pub fn twin(&self, rewrite: &Rewrite) -> Key {
        let Rewrite { source, destination, .. } = *rewrite;
        match self {
            Key::V4(key) => Key::V4(key.twin(tuple(source, destination))),
            Key::V6(key) => Key::V6(key.twin(tuple(source, destination))),
        }
    }
}

/// Fails as the packet path would.
pub fn insert(memory: &impl Memory, key: &Key, record: &Record) -> Result<(), InsertError> {
    match key {
        Key::V4(key) => {
            flow_table::insert(memory, key, record.seen, |index| fill::<V4>(memory, index, record))
        }
        Key::V6(key) => {
            flow_table::insert(memory, key, record.seen, |index| fill::<V6>(memory, index, record))
        }
    }
}

/// Every record of both tables. A tag or a record that stands alone is an error, and so is a key that stands twice.
pub fn all(memory: &impl Memory) -> Result<BTreeMap<Key, Record>, String> {
    let v4 = family::<V4>(memory)?.into_iter().map(|(key, record)| (Key::V4(key), record));
    let v6 = family::<V6>(memory)?.into_iter().map(|(key, record)| (Key::V6(key), record));
    Ok(v4.chain(v6).collect())
}

pub fn clear(memory: &impl Memory) {
    clear_family::<V4>(memory);
    clear_family::<V6>(memory);
}

fn clear_family<F: Family>(memory: &impl FlowMemory<F>) {
    for index in 0..memory.flow_buckets() * WAYS {
        if let Some(key) = memory.flow_record(index).and_then(Flow::key) {
            flow_table::release(memory, index, &key);
        }
    }
}

fn family<F: Addresses>(memory: &impl FlowMemory<F>) -> Result<BTreeMap<FlowKey<F>, Record>, String>
where
    FlowKey<F>: Ord,
{
    let mut records = BTreeMap::new();
    for index in 0..memory.flow_buckets() * WAYS {
        let used = memory.flow_tags(index / WAYS).is_some_and(|tags| tags.is_used(index % WAYS));
        let found = memory.flow_record(index).and_then(Flow::key);
        let found = found.and_then(|key| Some((key, record(flow_table::nat(memory, index)?))));
        if found.is_some() != used {
            return Err(format!("place {index}: tag {used}, record {found:?}"));
        }
        if let Some((key, record)) = found
            && records.insert(key, record).is_some()
        {
            return Err(format!("{key:?} stands twice"));
        }
    }
    Ok(records)
}

fn fill<F: Addresses>(memory: &impl FlowMemory<F>, index: u32, record: &Record) {
    let Record { server, seen, state, rewrite } = *record;
    let place = flow_table::nat(memory, index).expect("within the table");
    let Some(rewrite) = rewrite else {
        return place.flow.fill(Owner { server: server.0, seen, state });
    };
    let (peer_mac, own_mac) = (Mac::from_bytes(rewrite.peer_mac).0, Mac::from_bytes(rewrite.own_mac).0);
    place.fill(&FlowView {
        seen,
        state: state | hash::arrival(rewrite.interface, rewrite.tags.0, peer_mac, own_mac),
        rewrite: tuple(rewrite.source, rewrite.destination),
        peer_mac,
        own_mac,
        interface: rewrite.interface,
        tags: rewrite.tags.0,
        server: server.0,
        nat_source: nat_source(rewrite.source.ip()).unwrap_or(0),
    });
}

fn record<F: Addresses>(place: NatFlow<'_, F>) -> Record {
    let FlowView { seen, state, rewrite, peer_mac, own_mac, interface, tags, server, nat_source: position } =
        place.view();
    let end = |address, port: Be16| SocketAddr::new(F::to_ip(address), port.get());
    let rewrite = Rewrite {
        source: end(rewrite.source, rewrite.source_port),
        destination: end(rewrite.destination, rewrite.destination_port),
        interface,
        tags: Tags(tags),
        peer_mac: Mac(peer_mac).bytes(),
        own_mac: Mac(own_mac).bytes(),
    };
    if state & NAT_REQUEST != 0 && nat_source(rewrite.source.ip()).is_some_and(|known| known != position) {
        panic!("the record of {rewrite:?} names nat source {position}");
    }
    let is_half = state & (NAT_REQUEST | NAT_REPLY) != 0;
    Record {
        server: ServerId(server),
        seen,
        state: state & !(ARRIVAL | UNCONFIRMED),
        rewrite: is_half.then_some(rewrite),
    }
}

/// The sources of every world, which records name by position.
pub const NAT_SOURCES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3))];
pub const NAT_SOURCES6: [IpAddr; 2] = [own6(2), own6(3)];

const fn own6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 10, 0, 0, 0, 0, host))
}

/// Its position among them.
fn nat_source(address: IpAddr) -> Option<u32> {
    let position = NAT_SOURCES.iter().chain(&NAT_SOURCES6).position(|&source| source == address);
    position.map(|position| position as u32)
}

/// The addresses of a family as others write them.
trait Addresses: Family {
    fn from_ip(address: IpAddr) -> Self::Address;
    fn to_ip(address: Self::Address) -> IpAddr;
}

impl Addresses for V4 {
    fn from_ip(address: IpAddr) -> Self::Address {
        let IpAddr::V4(address) = address else { panic!("{address} is no IPv4 address") };
        address.into()
    }

    fn to_ip(address: Self::Address) -> IpAddr {
        IpAddr::V4(address.into())
    }
}

impl Addresses for V6 {
    fn from_ip(address: IpAddr) -> Self::Address {
        let IpAddr::V6(address) = address else { panic!("{address} is no IPv6 address") };
        address.into()
    }

    fn to_ip(address: Self::Address) -> IpAddr {
        IpAddr::V6(address.into())
    }
}

fn tuple<F: Addresses>(source: SocketAddr, destination: SocketAddr) -> Tuple<F> {
    Tuple {
        source: F::from_ip(source.ip()),
        destination: F::from_ip(destination.ip()),
        source_port: Be16::new(source.port()),
        destination_port: Be16::new(destination.port()),
    }
}
