//! Filters that the kernel runs before a socket hears anything: classic BPF.

use std::{collections::BTreeSet, net::IpAddr};

use socket2::SockFilter;

use crate::pure::config::network::Family;

/// Adverts of these VRIDs, and one in `SAMPLE` of any other.
pub(super) fn adverts(family: Family, vrids: &BTreeSet<u8>) -> Vec<SockFilter> {
    let mut program = match family {
        // A raw IPv4 socket is given the IP header, an IPv6 one is not.
        Family::V4 => vec![load(LDX_HEADER_LENGTH, 0), load(LD_BYTE_BEHIND_X, 1)],
        Family::V6 => vec![load(LD_BYTE, 1)],
    };
    for vrid in vrids {
        program.extend(accept_if((*vrid).into()));
    }
    program.extend([load(LD_WORD, RANDOM), SockFilter::new(AND, 0, 0, SAMPLE - 1)]);
    program.extend(accept_if(0));
    program.push(reject());
    program
}

/// ARP packets whose sender is, and neighbour advertisements whose target is probably, one of these addresses.
pub(super) fn claims(family: Family, addresses: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    let mut program = match family {
        Family::V4 => vec![load(LD_WORD, ARP_SENDER)],
        Family::V6 => vec![
            load(LD_BYTE, IPV6_NEXT_HEADER),
            SockFilter::new(JEQ, 1, 0, 58),
            reject(),
            load(LD_BYTE, ICMPV6_TYPE),
            SockFilter::new(JEQ, 1, 0, 136),
            reject(),
            load(LD_WORD, NA_TARGET_END),
        ],
    };
    let words: BTreeSet<u32> = addresses.iter().filter_map(|address| last_word(family, *address)).collect();
    if words.len() > WORDS_MAX {
        // More than a program can compare: the reader compares.
        program.push(accept());
        return program;
    }
    for word in words {
        program.extend(accept_if(word));
    }
    program.push(reject());
    program
}

pub(super) fn nothing() -> [SockFilter; 1] {
    [reject()]
}

fn last_word(family: Family, address: IpAddr) -> Option<u32> {
    match (family, address) {
        (Family::V4, IpAddr::V4(address)) => Some(address.to_bits()),
        (Family::V6, IpAddr::V6(address)) => Some(address.to_bits() as u32),
        (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => None,
    }
}

/// Jumps are too short to leave a long list by.
fn accept_if(value: u32) -> [SockFilter; 2] {
    [SockFilter::new(JEQ, 0, 1, value), accept()]
}

fn accept() -> SockFilter {
    SockFilter::new(RET, 0, 0, u32::MAX)
}

fn reject() -> SockFilter {
    SockFilter::new(RET, 0, 0, 0)
}

fn load(code: u16, k: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, k)
}

/// A power of two.
const SAMPLE: u32 = 8;

const LD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LD_BYTE_BEHIND_X: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_IND) as u16;
const LDX_HEADER_LENGTH: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

// From the Ethernet header on.
const ARP_SENDER: u32 = 14 + 14;
const IPV6_NEXT_HEADER: u32 = 14 + 6;
const ICMPV6_TYPE: u32 = 14 + 40;
const NA_TARGET_END: u32 = 14 + 40 + 8 + 12;

/// Two instructions each, of 4096.
const WORDS_MAX: usize = 2_000;
