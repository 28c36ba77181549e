//! Checksums as a receiver verifies them: over all bytes, with nothing from the packet path.
//!
//! Must not know cases: the fuzz target includes this module as its own.

use etherparse::checksum::Sum16BitWords;

/// Of a packet, of what it carries in a tunnel, and of what an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    /// Of every IPv4 header outside of quotes.
    pub ip: bool,
    /// Of the innermost packet.
    pub transport: Transport,
    /// Header and transport of the quoted packet; true and `Without` where nothing is quoted. Also `Without`: a transport
    /// that contradicts the packet around it, since errors are sent about those, too.
    pub quoted: (bool, Transport),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Right,
    Wrong,
    /// UDP with a checksum field of zero (RFC 768), a fragment, a part, or no transport known here.
    Without,
}

impl Checksums {
    /// None for a frame that is not a whole IP packet.
    pub fn of(frame: &[u8]) -> Option<Checksums> {
        let mut l3 = ETHERNET;
        while let [0x81, 0x00] | [0x88, 0xa8] = frame.get(l3 - 2..l3)? {
            l3 += 4;
        }
        let packet = Packet::read(frame.get(l3..)?, Reading::Whole)?;
        packet.checksums()
    }

    /// Nothing that a receiver would refuse.
    pub fn is_right(&self) -> bool {
        self.ip && self.transport != Transport::Wrong
    }
}

/// An IP packet, taken apart.
struct Packet<'a> {
    header_is_right: bool,
    /// Both addresses, for the pseudo header.
    ends: &'a [u8],
    protocol: u8,
    is_fragment: bool,
    is_v4: bool,
    payload: &'a [u8],
    /// The payload is all there.
    is_whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Whole,
    /// May end before the packet does.
    Quote,
}

impl<'a> Packet<'a> {
    fn read(bytes: &'a [u8], reading: Reading) -> Option<Packet<'a>> {
        match bytes.first()? >> 4 {
            4 => Packet::read_v4(bytes, reading),
            6 => Packet::read_v6(bytes, reading),
            _ => None,
        }
    }

    fn read_v4(bytes: &'a [u8], reading: Reading) -> Option<Packet<'a>> {
        let header = bytes.get(..usize::from(bytes[0] & 0xf) * 4).filter(|header| header.len() >= 20)?;
        let total = usize::from(word(header, 2));
        let payload = cut(bytes, header.len(), total, reading)?;
        Some(Packet {
            header_is_right: Sum16BitWords::new().add_slice(header).ones_complement() == 0,
            ends: &header[12..20],
            protocol: header[9],
            is_fragment: word(header, 6) & 0x3fff != 0,
            is_v4: true,
            payload,
            is_whole: header.len() + payload.len() == total,
        })
    }

    fn read_v6(bytes: &'a [u8], reading: Reading) -> Option<Packet<'a>> {
        let header = bytes.get(..40)?;
        let total = 40 + usize::from(word(header, 4));
        let (mut protocol, mut start, mut is_fragment) = (header[6], 40, false);
        while let 0 | 43 | 44 | 60 = protocol {
            let extension = bytes.get(start..start + 8)?;
            if protocol == 44 {
                is_fragment |= word(extension, 2) & 0xfff9 != 0;
                start += 8;
            } else {
                start += (usize::from(extension[1]) + 1) * 8;
            }
            protocol = extension[0];
            if is_fragment {
                break;
            }
        }
        let payload = cut(bytes, start, total, reading)?;
        let is_whole = start + payload.len() == total;
        let ends = &header[8..40];
        Some(Packet { header_is_right: true, ends, protocol, is_fragment, is_v4: false, payload, is_whole })
    }

    fn checksums(&self) -> Option<Checksums> {
        if let Some(inner) = self.inner() {
            let inner = Packet::read(inner, Reading::Whole)?.checksums()?;
            return Some(Checksums { ip: inner.ip && self.header_is_right, ..inner });
        }
        let quoted = match self.quote() {
            Some(quoted) => (quoted.header_is_right, quoted.transport().unwrap_or(Transport::Without)),
            None => (true, Transport::Without),
        };
        Some(Checksums { ip: self.header_is_right, transport: self.transport()?, quoted })
    }

    /// The packet in a tunnel.
    fn inner(&self) -> Option<&'a [u8]> {
        match self.protocol {
            4 | 41 => Some(self.payload),
            17 if self.payload.len() > 8 && word(self.payload, 2) == 6_080 => Some(&self.payload[8..]),
            _ => None,
        }
    }

    /// The packet that an error is about.
    fn quote(&self) -> Option<Packet<'a>> {
        let is_error = match (self.is_v4, self.protocol) {
            (true, 1) => matches!(self.payload.first()?, 3 | 11 | 12),
            (false, 58) => matches!(self.payload.first()?, 1..=4),
            _ => false,
        };
        if self.is_fragment || !is_error {
            return None;
        }
        Packet::read(self.payload.get(8..)?, Reading::Quote)
    }

    fn transport(&self) -> Option<Transport> {
        if self.is_fragment || !self.is_whole {
            return Some(Transport::Without);
        }
        let covered = match self.protocol {
            6 | 58 => self.payload,
            1 if self.is_v4 => return Some(judge(Sum16BitWords::new().add_slice(self.payload))),
            17 => {
                let header = self.payload.get(..8)?;
                if word(header, 6) == 0 {
                    return Some(Transport::Without);
                }
                self.payload.get(..word(header, 4).into())?
            }
            _ => return Some(Transport::Without),
        };
        Some(judge(
            Sum16BitWords::new()
                .add_slice(self.ends)
                .add_2bytes([0, self.protocol])
                .add_4bytes((covered.len() as u32).to_be_bytes())
                .add_slice(covered),
        ))
    }
}

fn judge(sum: Sum16BitWords) -> Transport {
    if sum.ones_complement() == 0 { Transport::Right } else { Transport::Wrong }
}

fn cut(bytes: &[u8], start: usize, total: usize, reading: Reading) -> Option<&[u8]> {
    match reading {
        Reading::Whole => bytes.get(start..total),
        Reading::Quote => bytes.get(start..total.min(bytes.len())),
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const ETHERNET: usize = 14;
