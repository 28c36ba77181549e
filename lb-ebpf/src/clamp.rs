//! Lowers the MSS that SYNs offer (RFC 9293, section 3.7.1): a client's bounds what the server sends, a server's, where
//! it passes here, what the client does.

use lb_common::{
    counter::Counter,
    net::{Be16, Family},
};

use crate::{
    checksum::Sum,
    header::{TCP_OPTION_END, TCP_OPTION_MSS, TCP_OPTION_NOP, Tcp, TcpOption},
    parse::Parsed,
    tables::{Packet, Tables},
};

/// Leaves a packet whose options do not make sense as it is: the server judges them.
#[inline(always)]
pub(crate) fn mss<F: Family>(packet: &mut impl Packet, tables: &impl Tables, parsed: &Parsed<F>, most: u16) {
    if most != 0 && lower(packet, parsed.l4, most).is_some() {
        tables.count(Counter::MssClamped);
    }
}

#[inline(always)]
fn lower(packet: &mut impl Packet, l4: usize, most: u16) -> Option<()> {
    let mut frame = packet.frame();
    let end = (frame.at::<Tcp>(l4)?.data_offset >> 4) as usize * 4;
    let mut offset = size_of::<Tcp>();
    for _ in 0..OPTIONS_MAX {
        if offset + size_of::<TcpOption>() > end {
            return None;
        }
        let option = frame.at::<TcpOption>(l4 + (offset & OFFSET_MASK))?;
        match option.kind {
            TCP_OPTION_END => return None,
            TCP_OPTION_NOP => offset += 1,
            TCP_OPTION_MSS => {
                let old = u16::from_be_bytes(option.value);
                if option.length as usize != size_of::<TcpOption>() || old <= most {
                    return None;
                }
                option.value = most.to_be_bytes();
                let odd = !offset.is_multiple_of(2);
                let tcp = frame.at::<Tcp>(l4)?;
                let sum = Sum::of_field(tcp.checksum).replace16(placed(old, odd), placed(most, odd));
                tcp.checksum = sum.field();
                return Some(());
            }
            _ if option.length < 2 => return None,
            _ => offset += option.length as usize,
        }
    }
    None
}

/// A value as the checksum sees it: in two words when it begins at an odd byte.
#[inline(always)]
fn placed(value: u16, odd: bool) -> Be16 {
    Be16::new(if odd { value.swap_bytes() } else { value })
}

/// Options looked at: real SYNs have MSS first or close to it.
const OPTIONS_MAX: u32 = 10;
/// A TCP header has at most 60 bytes.
const OFFSET_MASK: usize = 0x3f;
