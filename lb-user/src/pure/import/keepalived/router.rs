//! From a `vrrp_instance` as typed to a virtual router: defaults, and one keyword against another.

use std::{net::IpAddr, time::Duration};

use super::{
    global::Globals,
    instance::{Draft, Keyed, Kind, Password},
    track::{Tracker, Trackers},
};
use crate::pure::config::{
    error::{Findings, Span, Spanned},
    model::vrrp::{
        Address, AddressCheck, Auth, Checksum, Preempt, Router, UnicastPeer, Version, VirtualMac, Wish,
    },
    network::Family,
};

/// What a router depends on beside its own block.
pub(super) struct Around<'a> {
    pub globals: &'a Globals,
    pub trackers: &'a mut Trackers,
    /// In a sync group whose members have no weights.
    pub is_grouped: bool,
}

/// None: Keepalived drops it, too.
pub(super) fn router(draft: Draft, around: Around<'_>, findings: &mut Findings) -> Option<Spanned<Router>> {
    let Around { globals, trackers, is_grouped } = around;
    let label = format!("`{}`", draft.name.value);
    let interface = interface(&draft, globals, findings)?;
    let Some(vrid) = draft.vrid else {
        let message =
            format!("{label} has no virtual_router_id from 1 to 255: it is left out, as in Keepalived");
        findings.warning(draft.name.at, message, "add `virtual_router_id N`, the same on all nodes");
        return None;
    };
    let family = family(&draft);
    let version = version(&draft, globals, family, findings);
    let interval = interval(&draft, version, findings);
    let preempt = preempt(&draft, findings);
    let peers = peers(draft.peers, draft.source.as_ref(), family, findings);
    let is_unicast = !peers.is_empty();
    let virtual_mac = virtual_mac(draft.virtual_mac, draft.transmit_base, is_unicast, &draft.name, findings);
    let (addresses, mut excluded) = addresses(draft.addresses, family, findings);
    excluded.extend(draft.excluded.into_iter().map(|address| address.value));
    let source = of_family(draft.source, family, findings);
    let common = globals.multicast[usize::from(family == Family::V6)].as_ref().map(|group| group.value);
    let multicast = of_family(draft.multicast, family, findings).or(common).filter(|_| !is_unicast);
    let who = Tracker {
        label: &label,
        interface: Some(&interface),
        unweighted: match (draft.priority, is_grouped) {
            (Some(u8::MAX), _) => Some("its priority is 255"),
            (_, true) => Some("it is in a vrrp_sync_group without `sync_group_tracking_weight`"),
            _ => None,
        },
        order: draft.order,
    };
    let track = trackers.resolve(draft.track, &who, findings);
    let router = Router {
        name: draft.name.value.clone(),
        vrid,
        family,
        version,
        priority: draft.priority.unwrap_or(100),
        wish: draft.wish.unwrap_or(Wish::Backup),
        interval,
        down_timer_adverts: draft.down_timer_adverts.or(globals.down_timer_adverts).unwrap_or(3),
        addresses,
        excluded,
        routes: draft.routes,
        rules: draft.rules,
        preempt,
        start_delay: globals.start_delay,
        unicast_peers: peers,
        source,
        multicast,
        auth: auth(draft.password, draft.hmac, version, findings),
        checksum: if version == Version::V3 && family == Family::V4 {
            draft.checksum
        } else {
            Checksum::Auto
        },
        // Keepalived refuses them, and then both nodes own what they agree on, too.
        address_check: AddressCheck::Report,
        virtual_mac,
        accept: true,
        announce: draft.garp.finish(globals.garp),
        track,
        hand_over: true,
        refuse_on_mismatch: false,
        notify: draft.told.finish(globals.smtp_alert, globals.script_user.as_deref()),
        interface,
    };
    Some(Spanned::new(draft.name.at, router))
}

fn interface(draft: &Draft, globals: &Globals, findings: &mut Findings) -> Option<String> {
    let at = draft.name.at;
    match draft.interface.as_ref().or(globals.interface.as_ref()) {
        Some(name) if name == "lo" => {
            let message = format!(
                "`{}` is on lo, where nobody hears it: it is left out, as in Keepalived",
                draft.name.value
            );
            findings.warning(at, message, "write the interface that the other nodes are on");
            None
        }
        Some(name) => Some(name.clone()),
        None => {
            let message = format!("`{}` has no interface: it is left out", draft.name.value);
            findings.warning(at, message, "add `interface NAME`");
            None
        }
    }
}

fn family(draft: &Draft) -> Family {
    let first = draft.addresses.first().map(|address| address.value.address);
    if draft.native_ipv6 && first.is_none() {
        return Family::V6;
    }
    let peer = draft.peers.first().map(|peer| peer.value.address);
    let spoken = draft.source.as_ref().or(draft.multicast.as_ref()).map(|address| address.value);
    first.or(peer).or(spoken).map_or(Family::V4, Family::of)
}

fn version(draft: &Draft, globals: &Globals, family: Family, findings: &mut Findings) -> Version {
    if family == Family::V6 {
        if draft.version == Some(Version::V2) {
            let message = "IPv6 has version 3 only, and that is used, as in Keepalived";
            findings.warning(draft.name.at, message, "write `version 3`");
        }
        return Version::V3;
    }
    draft.version.unwrap_or(globals.version)
}

/// Rounded to what adverts can say.
fn interval(draft: &Draft, version: Version, findings: &mut Findings) -> Duration {
    let (unit, min, max) = match version {
        Version::V2 => (Duration::from_secs(1), 1, 255),
        Version::V3 => (Duration::from_millis(10), 1, 4_095),
    };
    let Some(typed) = &draft.interval else { return Duration::from_secs(1) };
    let units = (typed.value + unit / 2).as_micros() / unit.as_micros();
    let rounded = unit * u32::try_from(units).unwrap_or(max).clamp(min, max);
    if rounded != typed.value {
        let message = format!(
            "version {} has no advert interval of {:?}: {rounded:?} is used, as in Keepalived",
            version.number(),
            typed.value
        );
        let remedy = match version {
            Version::V2 => "write whole seconds, or `version 3` on all nodes",
            Version::V3 => "write hundredths of a second, 40.95 at the most",
        };
        findings.warning(typed.at, message, remedy);
    }
    rounded
}

fn preempt(draft: &Draft, findings: &mut Findings) -> Preempt {
    let delay = draft.preempt_delay.as_ref().filter(|delay| !delay.value.is_zero());
    if draft.wish == Some(Wish::Master) {
        for (at, word) in [(draft.nopreempt, "nopreempt"), (delay.map(|delay| delay.at), "preempt_delay")] {
            if let Some(at) = at {
                let message = format!("`{word}` is ignored with `state MASTER`, as in Keepalived");
                findings.warning(at, message, "write `state BACKUP` on all nodes");
            }
        }
        return Preempt::After(Duration::ZERO);
    }
    if draft.nopreempt.is_none() {
        return Preempt::After(delay.map_or(Duration::ZERO, |delay| delay.value));
    }
    if let Some(delay) = delay {
        let message = "`preempt_delay` is ignored with `nopreempt`, as in Keepalived";
        findings.warning(delay.at, message, "keep one of the two");
    }
    Preempt::Never
}

fn peers(
    typed: Vec<Spanned<UnicastPeer>>,
    source: Option<&Spanned<IpAddr>>,
    family: Family,
    findings: &mut Findings,
) -> Vec<UnicastPeer> {
    let mut peers: Vec<UnicastPeer> = Vec::new();
    for Spanned { at, value: peer } in typed {
        let why = if Family::of(peer.address) != family {
            "is of the other family"
        } else if source.is_some_and(|source| source.value == peer.address) {
            "is its own source address"
        } else if peers.iter().any(|known| known.address == peer.address) {
            "is given already"
        } else if peers.len() == PEERS_MAX {
            "is one too many"
        } else {
            peers.push(peer);
            continue;
        };
        let message = format!("the peer `{}` {why}: it is ignored", peer.address);
        findings.warning(at, message, format!("list the other nodes, once each, {PEERS_MAX} at the most"));
    }
    peers
}

fn of_family(address: Option<Spanned<IpAddr>>, family: Family, findings: &mut Findings) -> Option<IpAddr> {
    let Spanned { at, value } = address?;
    if Family::of(value) == family {
        return Some(value);
    }
    let message =
        format!("`{value}` is not {} as the adverts are: it is ignored, as in Keepalived", family.name());
    findings.warning(at, message, "write an address of that family");
    None
}

/// Those for adverts, and those that find no room in them.
fn addresses(
    typed: Vec<Spanned<Address>>,
    family: Family,
    findings: &mut Findings,
) -> (Vec<Address>, Vec<Address>) {
    let max = if family == Family::V4 { ADVERT_V4_MAX } else { ADVERT_V6_MAX };
    let (mut addresses, mut excluded): (Vec<Address>, Vec<Address>) = (Vec::new(), Vec::new());
    for Spanned { at, value: address } in typed {
        let is_known = |known: &Address| known.address == address.address;
        if Family::of(address.address) != family {
            let message = format!(
                "`{}` is not {}, as the first address is: it is ignored, as in Keepalived",
                address.address,
                family.name()
            );
            findings.warning(at, message, "move it to `virtual_ipaddress_excluded`");
        } else if addresses.iter().chain(&excluded).any(is_known) {
            let message = format!("`{}` is given already: it is ignored", address.address);
            findings.warning(at, message, "keep one of the two");
        } else if addresses.len() < max {
            addresses.push(address);
        } else {
            let message =
                format!("adverts hold {max} addresses: `{}` is taken as excluded from them", address.address);
            findings.warning(at, message, "move it to `virtual_ipaddress_excluded`");
            excluded.push(address);
        }
    }
    (addresses, excluded)
}

fn auth(
    password: Option<Password>,
    hmac: Option<Spanned<Keyed>>,
    version: Version,
    findings: &mut Findings,
) -> Auth {
    if let Some(hmac) = hmac {
        if let Some(password) = password {
            let message = "`authentication` is ignored beside `auth_hmac`";
            findings.warning(password.at, message, "remove one of the two");
        }
        return Auth::Hmac(hmac.value.hmac);
    }
    let Some(Password { at, kind, is_told, pass }) = password else { return Auth::None };
    let Some(kind) = kind else {
        if pass.is_some() && !is_told {
            let message =
                "there is a password without an `auth_type`: there is no authentication, as in Keepalived";
            findings.warning(
                at,
                message,
                "remove it, or write `auth_type PASS` on all nodes at the same time",
            );
        }
        return Auth::None;
    };
    if version == Version::V3 {
        let message = "version 3 has no authentication: it is ignored, as in Keepalived";
        findings.warning(at, message, "remove it, or use `auth_hmac`");
        return Auth::None;
    }
    match (kind.value, pass) {
        (Kind::Pass, Some(pass)) => Auth::Pass(pass),
        (Kind::Pass, None) => {
            let message = "there is no password: there is no authentication, as in Keepalived";
            findings.warning(at, message, "add `auth_pass` on all nodes at the same time");
            Auth::None
        }
        (Kind::Header, _) => {
            // Without it each node would refuse the other's adverts, and both would be master.
            let message = "`auth_type AH` is not built, and beside a node that has it this one would be a second master";
            findings.error(kind.at, message, "write `auth_type PASS` on all nodes first");
            Auth::None
        }
    }
}

fn virtual_mac(
    mac: Option<VirtualMac>,
    transmit_base: Option<Span>,
    is_unicast: bool,
    name: &Spanned<String>,
    findings: &mut Findings,
) -> Option<VirtualMac> {
    let Some(mac) = mac else {
        if let Some(at) = transmit_base {
            let message = "`vmac_xmit_base` is ignored without `use_vmac`, as in Keepalived";
            findings.warning(at, message, "add `use_vmac`, or remove it");
        }
        return None;
    };
    if is_unicast && transmit_base.is_none() {
        let message = format!("`{}` is unicast: its adverts leave with the interface's own MAC", name.value);
        findings.warning(name.at, message, "add `vmac_xmit_base`");
    }
    Some(VirtualMac { transmit_base: is_unicast || transmit_base.is_some(), ..mac })
}

const PEERS_MAX: usize = 64;
/// They are counted in a byte.
const ADVERT_V4_MAX: usize = 255;
/// In a packet of 1 500 bytes: 40 of them IPv6's header, 8 the message's, 28 the trailer of `auth_hmac`.
const ADVERT_V6_MAX: usize = (1_500 - 40 - 8 - 28) / 16;
