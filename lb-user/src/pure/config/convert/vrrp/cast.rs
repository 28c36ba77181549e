//! Between whom adverts go: one group, or some peers.

use std::net::IpAddr;

use super::{Typed, checked, number, required, unique};
use crate::pure::config::{
    address,
    error::{Findings, Spanned, quote},
    model::vrrp::UnicastPeer,
    network::Family,
    raw::vrrp as raw,
    value::{Fault, fault},
};

pub(super) struct Cast {
    pub(super) peers: Vec<UnicastPeer>,
    pub(super) source: Option<IpAddr>,
    pub(super) multicast: Option<IpAddr>,
}

pub(super) fn cast(raw: raw::Cast, family: Family, typed: &Typed, findings: &mut Findings) -> Option<Cast> {
    let of_family = |address: IpAddr| match Family::of(address) == family {
        true => Ok(address),
        false => Err(fault(
            format!("`{address}` is not {}, as the adverts are", family.name()),
            "write an address of that family, or set `family`",
        )),
    };
    let own = |text: &str| address::link_address(text).and_then(of_family);
    let source = raw.source.or(None, |typed| checked(&typed, findings, own).map(Some));
    let group = |text: &str| multicast(text).and_then(of_family);
    let multicast = raw.multicast_group.or(None, |typed| checked(&typed, findings, group).map(Some));
    let peers = raw.unicast_peers.or(Vec::new(), |list| {
        if let Some(over) = list.get(PEERS_MAX) {
            findings.error(over.at, "too many `unicast_peers`", format!("keep at most {PEERS_MAX}"));
        }
        let read: Vec<_> = list.into_iter().map(|raw| peer(raw, own, findings)).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let (peers, source, multicast) = (peers?, source?, multicast?);
    unique(peers.iter().map(|peer| &peer.0), findings, |address| format!("the peer `{address}`"));
    if let Some((own, _)) = peers.iter().find(|(peer, _)| Some(peer.value) == source) {
        let message = format!("`{}` is the own `source`", own.value);
        findings.error(own.at, message, "list the other routers only");
    }
    if let Some(at) = typed.at("multicast_group").filter(|_| !peers.is_empty()) {
        let message = "`multicast_group` means nothing with `unicast_peers`";
        findings.error(at, message, "remove one of the two");
    }
    let peers = peers.into_iter().map(|(address, ttl)| UnicastPeer { address: address.value, ttl });
    Some(Cast { peers: peers.collect(), source, multicast })
}

type Peer = (Spanned<IpAddr>, (u8, u8));

fn peer(
    raw: Spanned<raw::Peer>,
    read: impl Fn(&str) -> Result<IpAddr, Fault>,
    findings: &mut Findings,
) -> Option<Peer> {
    let Spanned { at, value: raw } = raw;
    let typed = required(raw.address, "address", "\"10.0.5.92\"", at, findings);
    let address = typed
        .and_then(|typed| checked(&typed, findings, read).map(|address| Spanned::new(typed.at, address)));
    let min = raw.ttl_min.or(0, |typed| number(&typed, "ttl_min", 0, u8::MAX, findings));
    let max = raw.ttl_max.or(u8::MAX, |typed| number(&typed, "ttl_max", 1, u8::MAX, findings));
    let (min, max) = (min?, max?);
    if min > max {
        findings.error(at, format!("no TTL is from {min} to {max}"), "let `ttl_min` be the smaller one");
        return None;
    }
    Some((address?, (min, max)))
}

fn multicast(text: &str) -> Result<IpAddr, Fault> {
    text.parse().ok().filter(IpAddr::is_multicast).ok_or_else(|| {
        fault(
            format!("{} is not a multicast address", quote(text)),
            "remove `multicast_group`: 224.0.0.18 and ff02::12 are VRRP's own",
        )
    })
}

const PEERS_MAX: usize = 64;
