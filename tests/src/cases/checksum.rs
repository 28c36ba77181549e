//! Checksums as a receiver verifies them: over all bytes, with nothing from the packet path.
//!
//! Must not know cases: the fuzz target includes this module as its own.

use etherparse::{Ipv4HeaderSlice, UdpHeaderSlice, checksum::Sum16BitWords, ip_number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    pub ip: bool,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Right,
    Wrong,
    /// UDP with a checksum field of zero (RFC 768), or no transport known here.
    Without,
}

impl Checksums {
    /// None for a frame that is not a whole IPv4 packet.
    pub fn of(frame: &[u8]) -> Option<Checksums> {
        let (_, packet) = frame.split_at_checked(ETHERNET)?;
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let payload = packet.get(header.slice().len()..header.total_len().into())?;
        let ip = Sum16BitWords::new().add_slice(header.slice()).ones_complement() == 0;
        Some(Checksums { ip, transport: transport(&header, payload)? })
    }
}

fn transport(ip: &Ipv4HeaderSlice<'_>, payload: &[u8]) -> Option<Transport> {
    let covered = match ip.protocol() {
        ip_number::TCP => payload,
        ip_number::UDP => {
            let udp = UdpHeaderSlice::from_slice(payload).ok()?;
            if udp.checksum() == 0 {
                return Some(Transport::Without);
            }
            payload.get(..udp.length().into())?
        }
        _ => return Some(Transport::Without),
    };
    let sum = Sum16BitWords::new()
        .add_4bytes(ip.source())
        .add_4bytes(ip.destination())
        .add_2bytes([0, ip.protocol().0])
        .add_2bytes((covered.len() as u16).to_be_bytes())
        .add_slice(covered);
    Some(if sum.ones_complement() == 0 { Transport::Right } else { Transport::Wrong })
}

const ETHERNET: usize = 14;
