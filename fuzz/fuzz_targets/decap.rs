//! Any frame through `decap`: a byte that says whether the outer IPv4 checksum is to be right, then the frame.
//!
//! Nothing may panic or be written outside the packet, what is not opened stays to the byte, what is opened is the
//! end of what arrived, for a listed address and whole; and nothing may depend on the bytes around a packet.
#![no_main]

#[path = "../../tests/src/cases/host/frame.rs"]
mod frame;
#[path = "../../tests/src/decap/host.rs"]
mod host;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpHeaders, SlicedPacket, checksum::Sum16BitWords};
use lb_common::decap::Counter;
use lb_ebpf::decap::{DecapOutcome, decap};
use libfuzzer_sys::fuzz_target;

use self::host::{HostPacket, HostTables};

fuzz_target!(|input: &[u8]| {
    let Some((&sealed, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if sealed & 1 == 1 {
        seal(&mut bytes);
    }
    assert_eq!(run(&bytes, 0xa5), run(&bytes, 0x45), "depends on bytes outside the packet");
});

fn run(arrived: &[u8], poison: u8) -> (DecapOutcome, Vec<u8>) {
    let mut packet = HostPacket::new(arrived, poison);
    let outcome = decap(&mut packet, &HostTables([VIP4.into(), VIP6.into()].into()));
    assert!(packet.stayed_within(), "wrote outside the packet: {outcome:?}");
    let left = packet.bytes();
    match outcome {
        DecapOutcome::Pass(Counter::OpenIpip | Counter::OpenGue) => judge_opened(arrived, &left),
        DecapOutcome::Pass(_) | DecapOutcome::Drop(Counter::DropMalformed) => assert_eq!(left, arrived),
        DecapOutcome::Drop(_) => panic!("{outcome:?}"),
    }
    (outcome, left)
}

fn judge_opened(arrived: &[u8], left: &[u8]) {
    let link = link_length(arrived);
    assert_eq!(link_length(left), link);
    assert_eq!(left[..link - 2], arrived[..link - 2], "the tags and addresses are kept");
    let inner = &left[link..];
    assert!(arrived.ends_with(inner) && left.len() + 20 <= arrived.len());
    let listed: [IpAddr; 2] = [VIP4.into(), VIP6.into()];
    let (kind, destination, length): (_, IpAddr, _) = match inner[0] >> 4 {
        4 => ([8, 0], address::<4>(&inner[16..]).into(), short(&inner[2..])),
        _ => ([0x86, 0xdd], address::<16>(&inner[24..]).into(), 40 + short(&inner[4..])),
    };
    assert_eq!(left[link - 2..link], kind);
    assert!(listed.contains(&destination) && length <= inner.len());
    // An independent reader agrees on where the outer headers end, as far as it looks.
    let outer = SlicedPacket::from_ethernet(arrived).ok().and_then(|packet| packet.net);
    if let Some(outer) = outer.and_then(|net| Some(net.ip_payload_ref()?.payload.len())) {
        assert!(length <= outer, "longer than what carried it");
    }
    assert!(IpHeaders::from_slice_lax(inner).is_ok() || inner[0] >> 4 == 4);
}

fn link_length(bytes: &[u8]) -> usize {
    let tag = |at: usize| matches!(bytes.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    14 + 4 * [12, 16].into_iter().take_while(|&at| tag(at)).count()
}

/// Of an outer IPv4 header without options, wherever it stands.
fn seal(bytes: &mut [u8]) {
    let start = if bytes.len() < 14 { 14 } else { link_length(bytes) };
    let Some(header) = bytes.get_mut(start..start + 20) else { return };
    header[10..12].fill(0);
    let sum = Sum16BitWords::new().add_slice(header).ones_complement();
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
}

fn address<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("the slice has this length")
}

fn short(bytes: &[u8]) -> usize {
    u16::from_be_bytes([bytes[0], bytes[1]]).into()
}

const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
