//! What one node tells another, in bytes: big-endian, a kind first, lengths before what they count.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::limits;

use crate::pure::config::network::Family;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First: who speaks, and how it calls its interfaces.
    Hello { node: String, interfaces: Vec<(u32, String)> },
    /// Whom a number names from here on.
    Server { id: u32, service: String, address: SocketAddr },
    /// Slots of a service whose addresses the sender has.
    Ring(RingPart),
    /// At most `RECORDS_MAX`.
    Records(Vec<Carried>),
    /// Everything there was when the connection began has been told.
    Complete,
}

/// Some slots of a ring, at most `SLOTS_MAX`: the server that owns what nobody recorded, and whether records matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPart {
    pub service: String,
    /// None: one ring serves both.
    pub family: Option<Family>,
    /// Of the whole ring.
    pub slots: u32,
    /// Of this part.
    pub first: u32,
    /// The server's number, and whether its slot looks records up.
    pub part: Vec<(u32, bool)>,
}

/// A recorded flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    pub protocol: u8,
    /// Stands for all flows of a client with a service; then both ports are 0.
    pub of_client: bool,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    /// The sender's number for it.
    pub server: u32,
    /// Since the client's last packet.
    pub silent_ticks: u32,
    /// `lb_common::flow::{OPENING, FIN, RST, UNCONFIRMED}`.
    pub state: u32,
    pub pair: Option<CarriedPair>,
}

/// What a flow that is rewritten has beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarriedPair {
    /// What the client's packets become.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Of the server's direction.
    pub silent_ticks: u32,
    pub state: u32,
    /// The client side's next hop, the sender's interface towards it, and VLAN tags.
    pub peer_mac: u64,
    pub interface: u32,
    pub tags: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of the other node makes no sense here: do both run the same release?")]
pub struct MessageError;

/// Of one message: fits a frame with room to spare.
pub const RECORDS_MAX: usize = 1_024;
pub const SLOTS_MAX: usize = 16_384;
const NAME_MAX: usize = 255;
const INTERFACES_MAX: usize = 1_024;

const HELLO: u8 = 1;
const SERVER: u8 = 2;
const RING: u8 = 3;
const RECORDS: u8 = 4;
const COMPLETE: u8 = 5;

const LOOKUP: u32 = 1 << 31;
const OF_CLIENT: u8 = 1;
const PAIR: u8 = 2;

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        match self {
            Message::Hello { node, interfaces } => {
                out.u8(HELLO);
                out.text(node);
                let interfaces = &interfaces[..interfaces.len().min(INTERFACES_MAX)];
                out.u16(interfaces.len() as u16);
                for (index, name) in interfaces {
                    out.u32(*index);
                    out.text(name);
                }
            }
            Message::Server { id, service, address } => {
                out.u8(SERVER);
                out.u32(*id);
                out.text(service);
                out.end(*address);
            }
            Message::Ring(ring) => {
                out.u8(RING);
                out.ring(ring);
            }
            Message::Records(records) => {
                out.u8(RECORDS);
                out.u16(records.len() as u16);
                records.iter().for_each(|record| out.record(record));
            }
            Message::Complete => out.u8(COMPLETE),
        }
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        let mut bytes = Reader(bytes);
        let message = bytes.message().ok_or(MessageError)?;
        if bytes.0.is_empty() { Ok(message) } else { Err(MessageError) }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// Cut where it is longer than any name may be.
    fn text(&mut self, text: &str) {
        let mut length = text.len().min(NAME_MAX);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        self.u8(length as u8);
        self.0.extend(&text.as_bytes()[..length]);
    }

    fn end(&mut self, end: SocketAddr) {
        match end.ip() {
            IpAddr::V4(address) => {
                self.u8(4);
                self.0.extend(address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.0.extend(address.octets());
            }
        }
        self.u16(end.port());
    }

    fn ring(&mut self, ring: &RingPart) {
        self.text(&ring.service);
        self.u8(match ring.family {
            None => 0,
            Some(Family::V4) => 4,
            Some(Family::V6) => 6,
        });
        self.u32(ring.slots);
        self.u32(ring.first);
        self.u32(ring.part.len() as u32);
        for &(server, lookup) in &ring.part {
            self.u32(server | if lookup { LOOKUP } else { 0 });
        }
    }

    fn record(&mut self, record: &Carried) {
        let of_client = if record.of_client { OF_CLIENT } else { 0 };
        self.u8(of_client | if record.pair.is_some() { PAIR } else { 0 });
        self.u8(record.protocol);
        self.end(record.client);
        self.end(record.vip);
        self.u32(record.server);
        self.u32(record.silent_ticks);
        self.u32(record.state);
        if let Some(pair) = &record.pair {
            self.end(pair.source);
            self.end(pair.destination);
            self.u32(pair.silent_ticks);
            self.u32(pair.state);
            self.u64(pair.peer_mac);
            self.u32(pair.interface);
            self.u32(pair.tags);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn message(&mut self) -> Option<Message> {
        Some(match self.u8()? {
            HELLO => {
                let node = self.text()?;
                let count = usize::from(self.u16()?);
                if count > INTERFACES_MAX {
                    return None;
                }
                let interfaces = (0..count).map(|_| Some((self.u32()?, self.text()?)));
                Message::Hello { node, interfaces: interfaces.collect::<Option<_>>()? }
            }
            SERVER => Message::Server { id: self.u32()?, service: self.text()?, address: self.end()? },
            RING => Message::Ring(self.ring()?),
            RECORDS => {
                let count = usize::from(self.u16()?);
                if count > RECORDS_MAX {
                    return None;
                }
                Message::Records((0..count).map(|_| self.record()).collect::<Option<_>>()?)
            }
            COMPLETE => Message::Complete,
            _ => return None,
        })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn end(&mut self) -> Option<SocketAddr> {
        let address = match self.u8()? {
            4 => IpAddr::from(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::from(Ipv6Addr::from(self.array::<16>()?)),
            _ => return None,
        };
        Some(SocketAddr::new(address, self.u16()?))
    }

    fn ring(&mut self) -> Option<RingPart> {
        let service = self.text()?;
        let family = match self.u8()? {
            0 => None,
            4 => Some(Family::V4),
            6 => Some(Family::V6),
            _ => return None,
        };
        let (slots, first, count) = (self.u32()?, self.u32()?, self.u32()?);
        let fits =
            slots <= limits::SLOTS_MAX && count as usize <= SLOTS_MAX && first.checked_add(count)? <= slots;
        if !fits {
            return None;
        }
        let slot = |word: u32| (word & !LOOKUP, word & LOOKUP != 0);
        let part = (0..count).map(|_| self.u32().map(slot)).collect::<Option<_>>()?;
        Some(RingPart { service, family, slots, first, part })
    }

    fn record(&mut self) -> Option<Carried> {
        let kind = self.u8()?;
        let protocol = self.u8()?;
        let (client, vip) = (self.end()?, self.end()?);
        let (server, silent_ticks, state) = (self.u32()?, self.u32()?, self.u32()?);
        let pair = if kind & PAIR != 0 { Some(self.pair()?) } else { None };
        let of_client = kind & OF_CLIENT != 0;
        Some(Carried { protocol, of_client, client, vip, server, silent_ticks, state, pair })
    }

    fn pair(&mut self) -> Option<CarriedPair> {
        Some(CarriedPair {
            source: self.end()?,
            destination: self.end()?,
            silent_ticks: self.u32()?,
            state: self.u32()?,
            peer_mac: self.u64()?,
            interface: self.u32()?,
            tags: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pure::replica::{FRAME_MAX, TAG_LENGTH};

    fn record(pair: bool) -> Carried {
        let end = |text: &str| text.parse().unwrap();
        Carried {
            protocol: 6,
            of_client: !pair,
            client: end("[2001:db8::1]:40000"),
            vip: end("[2001:db8::80]:80"),
            server: 7,
            silent_ticks: 3,
            state: 2,
            pair: pair.then(|| CarriedPair {
                source: end("[2001:db8::93]:2000"),
                destination: end("[2001:db8::91]:8888"),
                silent_ticks: 1,
                state: 4,
                peer_mac: 0x0203_0405_0607,
                interface: 9,
                tags: 100,
            }),
        }
    }

    fn messages() -> Vec<Message> {
        vec![
            Message::Hello { node: "lb1".into(), interfaces: vec![(2, "eth0".into()), (3, "eth1".into())] },
            Message::Server { id: 7, service: "web".into(), address: "10.0.0.1:80".parse().unwrap() },
            Message::Ring(RingPart {
                service: "web".into(),
                family: Some(Family::V6),
                slots: 4,
                first: 2,
                part: vec![(7, true), (0, false)],
            }),
            Message::Records(vec![record(false), record(true)]),
            Message::Complete,
        ]
    }

    #[test]
    fn every_message_comes_back() {
        for message in messages() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_too_long_is_refused() {
        for message in messages() {
            let bytes = message.encode();
            for length in 0..bytes.len() {
                assert_eq!(
                    Message::decode(&bytes[..length]),
                    Err(MessageError),
                    "{message:?} cut to {length}"
                );
            }
            assert_eq!(
                Message::decode(&[bytes, vec![0]].concat()),
                Err(MessageError),
                "{message:?} and a byte"
            );
        }
    }

    #[test]
    fn the_longest_messages_fit_a_frame() {
        let records = Message::Records(vec![record(true); RECORDS_MAX]);
        let ring = Message::Ring(RingPart {
            service: "s".repeat(NAME_MAX),
            family: None,
            slots: SLOTS_MAX as u32,
            first: 0,
            part: vec![(1, true); SLOTS_MAX],
        });
        let hello =
            Message::Hello { node: String::new(), interfaces: vec![(1, "i".repeat(15)); INTERFACES_MAX] };
        for message in [records, ring, hello] {
            assert!(message.encode().len() + TAG_LENGTH <= FRAME_MAX);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
