//! Packets of every shape cut at every byte, and header chains that end in nothing.

use lb_common::{
    counter::Counter::{self, DropFragment, DropMalformed, PassExtensions, PassProtocol, PassTruncated},
    entry::Mode,
    flow::Ticks,
};
use lb_user::pure::config::network::Family;

use super::{
    Case,
    packet::{Datagram, Extension, Fragment, Transport},
    shape::{ack, syn, tcp, udp},
    world::World,
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [cut(now), parts(now), chains(now), liars(now)];
    groups.into_iter().flatten().collect()
}

fn shapes() -> Vec<(&'static str, Datagram)> {
    let options = tcp(b"x", |header| {
        header.syn = true;
        header.set_options_raw(&[1; 8]).expect("eight bytes of options fit a header");
    });
    let v6 = |packet: Datagram, extensions| Datagram { extensions, ..packet.of(Family::V6) };
    vec![
        ("tcp with options", options.clone()),
        ("ip options", Datagram { options: vec![1; 12], ..syn() }),
        ("udp behind all ip options", Datagram { options: vec![1; 40], ..udp(b"q") }),
        ("a tag", syn().tagged(&[5])),
        ("two tags", udp(b"q").tagged(&[5, 6])),
        ("two tags and ip options", Datagram { options: vec![1; 4], ..syn().tagged(&[5, 6]) }),
        ("tcp over ipv6", v6(options, vec![])),
        ("udp over ipv6", v6(udp(b"q"), vec![])),
        ("hop-by-hop options", v6(syn(), vec![Extension::options(0, 1)])),
        ("a routing header", v6(syn(), vec![Extension::routing(3)])),
        ("destination options", v6(udp(b"q"), vec![Extension::options(60, 2)])),
        ("an atomic fragment", Datagram { fragment: Fragment::Atomic, ..v6(udp(b"q"), vec![]) }),
        (
            "tags and extension headers",
            v6(syn().tagged(&[7, 8]), vec![Extension::options(0, 1), Extension::routing(1)]),
        ),
    ]
}

/// Up to the ports nobody knows whose it is; from there on its lengths contradict the frame.
fn cut(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, packet) in shapes() {
        let whole = packet.bytes();
        let ports = packet.link(etherparse::EtherType::IPV4).len() + packet.header_length() + 4;
        for length in 14..whole.len() {
            let mode = super::MODES[length % super::MODES.len()];
            let name = format!("{name} cut to {length} bytes, {mode:?}").to_lowercase();
            let case = Case::bytes(&name, World::new(mode, now), whole[..length].to_vec());
            cases.push(if length < ports { case.passes(PassTruncated) } else { case.drops(DropMalformed) });
        }
    }
    cases
}

/// The same of later fragments, whose ports are not known.
fn parts(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::ALL {
        let later = Datagram {
            fragment: Fragment::Later(5),
            transport: Transport::Rest(17),
            payload: vec![1; 16],
            ..udp(&[]).of(family)
        };
        let whole = later.bytes();
        for length in 14..whole.len() {
            let name = format!("a later fragment over {} cut to {length} bytes", family.name());
            let case = Case::bytes(&name, World::new(Mode::Dsr, now), whole[..length].to_vec());
            let in_headers = length < 14 + later.header_length();
            // The padding in front of an IPv4 payload is not looked at.
            let known = length >= 14 + 20 && family == Family::V4;
            cases.push(if in_headers && !known {
                case.passes(PassTruncated)
            } else {
                case.drops(DropFragment)
            });
        }
    }
    cases
}

/// Chains of extension headers that are too long, or lead to something else.
fn chains(now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let v6 = |extensions| Datagram { extensions, ..ack().of(Family::V6) };
    let options = |count: usize| (0..count).map(|_| Extension::options(60, 1)).collect::<Vec<_>>();
    let mut cases: Vec<Case> = [6, 7, 20]
        .into_iter()
        .map(|count| {
            Case::new(&format!("{count} extension headers"), dsr(), &v6(options(count)))
                .passes(PassExtensions)
        })
        .collect();
    let part = Datagram { fragment: Fragment::Atomic, ..v6(options(6)) };
    cases.push(Case::new("6 extension headers and a fragment's", dsr(), &part).passes(PassExtensions));
    for (name, number) in [
        ("an encrypted payload", 50),
        ("an authentication header", 51),
        ("no next header", 59),
        ("a mobility header", 135),
        ("a host identity header", 139),
        ("a number for experiments", 253),
        ("ipv6 in ipv6", 41),
        ("ipv4 in ipv6", 4),
    ] {
        let other = Datagram { transport: Transport::Rest(number), payload: vec![6; 40], ..v6(vec![]) };
        cases.push(Case::new(&format!("ipv6: {name}"), dsr(), &other).passes(PassProtocol));
        let behind = Datagram { extensions: options(1), ..other };
        cases.push(Case::new(&format!("ipv6: {name} behind options"), dsr(), &behind).passes(PassProtocol));
    }
    let icmp = Datagram { transport: Transport::Rest(1), payload: vec![8; 40], ..v6(vec![]) };
    cases.push(Case::new("ipv6: icmp of ipv4", dsr(), &icmp).passes(PassProtocol));
    let icmp = Datagram { transport: Transport::Rest(58), payload: vec![128; 40], ..ack() };
    cases.push(Case::new("ipv4: icmp of ipv6", dsr(), &icmp).passes(PassProtocol));
    cases
}

/// Headers that say they are longer than the packet, with a transport where they end: in the padding.
fn liars(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in super::MODES {
        let mut case = |name: &str, bytes: Vec<u8>, counter: Counter| {
            let name = format!("{mode:?}: {name}").to_lowercase();
            let case = Case::bytes(&name, World::new(mode, now), bytes);
            cases.push(if counter == DropMalformed { case.drops(counter) } else { case.passes(counter) });
        };
        let mut options = Datagram { options: vec![1; 40], ..syn() }.bytes();
        options[16..18].copy_from_slice(&40u16.to_be_bytes());
        case("ip options beyond the packet, in the padding", options, DropMalformed);
        let mut far = tcp(&[], |header| header.syn = true).bytes();
        far[14] = 0x4f;
        case("ip options beyond the frame", far, PassTruncated);
        let mut chain =
            Datagram { extensions: vec![Extension::options(60, 2)], ..syn().of(Family::V6) }.bytes();
        chain[18..20].copy_from_slice(&12u16.to_be_bytes());
        case("an extension header beyond the packet, in the padding", chain.clone(), DropMalformed);
        chain[18..20].copy_from_slice(&36u16.to_be_bytes());
        chain[55] = 255;
        case("an extension header beyond the frame", chain, PassTruncated);
    }
    cases
}
