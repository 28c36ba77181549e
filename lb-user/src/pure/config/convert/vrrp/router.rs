//! One `[[vrrp]]`: its values and defaults, and its own keys against each other.

use std::time::Duration;

use super::{
    Draft, Typed, auth, cast, checked, choice, estate, hooks, name, number, or_never, required, track, within,
};
use crate::pure::config::{
    error::{Findings, Spanned},
    model::vrrp::{AddressCheck, Announce, Checksum, Preempt, Router, Version, VirtualMac, Wish},
    network::Family,
    raw::{Field, List, Text, vrrp as raw},
    value::{self, Fault, fault},
};

pub(super) fn draft(raw: Spanned<raw::Router>, findings: &mut Findings) -> Draft {
    let Spanned { at, value: mut raw } = raw;
    let typed = Typed::new(at, std::mem::take(&mut raw.typed));
    let name = name(std::mem::take(&mut raw.name), at, findings);
    let tracks =
        track::tracks(std::mem::take(&mut raw.track_interfaces), std::mem::take(&mut raw.track), findings);
    let mut draft = Draft { at, name, typed, router: None, tracks: Vec::new(), secrets: Vec::new() };
    let router = router(raw, &mut draft, findings);
    let whole = tracks.is_some();
    draft.tracks = tracks.unwrap_or_default();
    draft.router = router.filter(|_| whole).zip(draft.name.as_ref()).map(|(router, name)| {
        let track = draft.tracks.iter().map(|track| track.value.clone()).collect();
        Router { name: name.value.clone(), track, ..router }
    });
    draft
}

/// Without its name and what it tracks.
fn router(raw: raw::Router, draft: &mut Draft, findings: &mut Findings) -> Option<Router> {
    let (at, typed) = (draft.at, &draft.typed);
    let interface = required(raw.interface, "interface", "\"eth0\"", at, findings)
        .and_then(|typed| checked(&typed, findings, interface));
    let vrid = required(raw.vrid, "vrid", "51", at, findings)
        .and_then(|typed| number(&typed, "vrid", 1, u8::MAX, findings));
    let version = raw.version.or(Version::V3, |typed| {
        number(&typed, "version", 2, 3, findings)
            .map(|number| if number == 2 { Version::V2 } else { Version::V3 })
    });
    let priority = raw.priority.or(PRIORITY, |typed| number(&typed, "priority", 1, u8::MAX, findings));
    let wish = raw.state.or(Wish::Backup, |typed| choice(&typed, "state", &WISHES, &[], findings));
    let interval = raw.timing.advert_interval.or(INTERVAL, |typed| interval(&typed, version?, findings));
    let preempt = preempt(raw.timing.preempt, raw.timing.preempt_delay, typed, findings);
    let down_timer_adverts =
        raw.timing.down_timer_adverts.or(3, |typed| number(&typed, "down_timer_adverts", 1, 100, findings));
    let start_delay = raw.timing.start_delay.or(Duration::ZERO, |typed| {
        within(&typed, "start_delay", ("0s", Duration::ZERO), ("1h", HOUR), findings)
    });
    let auth = auth::auth(raw.auth, version, typed, &mut draft.secrets, findings);
    let typed = &draft.typed;
    let estate = estate::estate(raw.estate, raw.family, &raw.cast, typed, findings)?;
    if version == Some(Version::V2) && estate.family == Family::V6 {
        findings.error(typed.near("version"), "version 2 has no IPv6", "remove `version`: 3 is the default");
        return None;
    }
    let cast = cast::cast(raw.cast, estate.family, typed, findings);
    let checksum =
        raw.wire.checksum.or(Checksum::Auto, |typed| choice(&typed, "checksum", &CHECKSUMS, &[], findings));
    if let Some(at) =
        typed.at("checksum").filter(|_| version != Some(Version::V3) || estate.family == Family::V6)
    {
        findings.error(at, "`checksum` is for version 3 over IPv4: elsewhere there is one form", "remove it");
    }
    let address_check = raw
        .wire
        .address_check
        .or(AddressCheck::Report, |typed| choice(&typed, "address_check", &ADDRESS_CHECKS, &[], findings));
    let virtual_mac = raw.virtual_mac.or(None, |typed| virtual_mac(typed, findings));
    let cast = cast?;
    transmits(virtual_mac.as_ref(), !cast.peers.is_empty(), typed, findings);
    let announce = raw.garp.map_or(Some(Announce::default()), |garp| announce(garp.value, findings));
    let notify = hooks::hooks(raw.hooks, findings);
    Some(Router {
        name: String::new(),
        interface: interface?,
        vrid: vrid?,
        family: estate.family,
        version: version?,
        priority: priority?,
        wish: wish?,
        interval: interval?,
        down_timer_adverts: down_timer_adverts?,
        addresses: estate.addresses,
        excluded: estate.excluded,
        routes: estate.routes,
        rules: estate.rules,
        preempt: preempt?,
        start_delay: start_delay?,
        unicast_peers: cast.peers,
        source: cast.source,
        multicast: cast.multicast,
        auth: auth?,
        checksum: checksum?,
        address_check: address_check?,
        virtual_mac: virtual_mac?,
        accept: true,
        announce: announce?,
        track: Vec::new(),
        hand_over: raw.timing.hand_over.or(true, Some)?,
        refuse_on_mismatch: raw.timing.refuse_on_mismatch.or(false, Some)?,
        notify: notify?,
    })
}

/// Adverts must reach other machines.
fn interface(text: &str) -> Result<String, Fault> {
    match text {
        "lo" => {
            Err(fault("adverts on `lo` reach nobody", "write the interface that the other routers are on"))
        }
        _ => value::interface(text),
    }
}

/// RFC 3768, section 5.3.7; RFC 9568, section 5.2.7.
fn interval(typed: &Text, version: Version, findings: &mut Findings) -> Option<Duration> {
    let key = "advert_interval";
    let (min, max, step, remedy) = match version {
        Version::V2 => {
            let remedy = "write whole seconds, or use version 3 on all routers";
            (("1s", SECOND), ("255s", SECOND * 255), SECOND, remedy)
        }
        Version::V3 => {
            let remedy = "write a multiple of 10ms, which is the unit of version 3";
            (("10ms", CENTISECOND), ("40s950ms", CENTISECOND * 4_095), CENTISECOND, remedy)
        }
    };
    let interval = within(typed, key, min, max, findings)?;
    if interval.as_micros() % step.as_micros() != 0 {
        let message = format!("version {} has no advert interval of {interval:?}", version.number());
        findings.error(typed.at, message, remedy);
        return None;
    }
    Some(interval)
}

fn preempt(flag: Field<bool>, delay: Field<Text>, typed: &Typed, findings: &mut Findings) -> Option<Preempt> {
    let preempts = flag.or(true, Some);
    let delay = delay.or(Duration::ZERO, |typed| {
        within(&typed, "preempt_delay", ("0s", Duration::ZERO), ("1h", HOUR), findings)
    });
    if preempts? {
        return delay.map(Preempt::After);
    }
    if let Some(at) = typed.at("preempt_delay") {
        findings.error(at, "`preempt_delay` means nothing with `preempt = false`", "remove one of the two");
        return None;
    }
    Some(Preempt::Never)
}

fn virtual_mac(raw: Spanned<raw::VirtualMac>, findings: &mut Findings) -> Option<Option<VirtualMac>> {
    let raw::VirtualMac { is_off, name, transmit_base } = raw.value;
    if is_off {
        return Some(None);
    }
    let name = name.or(None, |typed| checked(&typed, findings, value::interface).map(Some));
    Some(Some(VirtualMac { name: name?, transmit_base: transmit_base.or(false, Some)? }))
}

/// A unicast peer answers to the MAC that it resolved, and only the interface below answers for its address.
fn transmits(mac: Option<&Option<VirtualMac>>, is_unicast: bool, typed: &Typed, findings: &mut Findings) {
    if is_unicast && matches!(mac, Some(Some(VirtualMac { transmit_base: false, .. }))) {
        findings.error(
            typed.near("virtual_mac"),
            "unicast adverts cannot leave with the virtual MAC: peers resolve the interface's own",
            "write `virtual_mac = { transmit_base = true }`",
        );
    }
}

fn announce(raw: raw::Garp, findings: &mut Findings) -> Option<Announce> {
    let defaults = Announce::default();
    let times = raw.times.or(defaults.times, |list| times(&list, findings));
    let delay = raw.delay.or(defaults.delay, |typed| {
        within(&typed, "delay", ("0s", Duration::ZERO), ("10m", MINUTE * 10), findings)
    });
    let refresh = raw.refresh.or(defaults.refresh, |typed| {
        or_never(&typed, "refresh", ("1s", SECOND), ("24h", HOUR * 24), findings)
            .map(Option::unwrap_or_default)
    });
    let spacing = raw.spacing.or(defaults.spacing, |typed| {
        within(&typed, "spacing", ("0s", Duration::ZERO), ("1s", SECOND), findings)
    });
    Some(Announce { times: times?, delay: delay?, refresh: refresh?, spacing: spacing? })
}

fn times(list: &List, findings: &mut Findings) -> Option<Vec<Duration>> {
    if list.value.is_empty() || list.value.len() > TIMES_MAX {
        let message = format!("`times` has {} entries", list.value.len());
        findings.error(list.at, message, format!("write 1 to {TIMES_MAX}"));
        return None;
    }
    let read = |typed| within(typed, "times", ("0s", Duration::ZERO), ("1m", MINUTE), findings);
    let times = list.value.iter().map(read).collect::<Option<Vec<_>>>()?;
    if !times.is_sorted_by(|first, second| first < second) {
        findings.error(list.at, "`times` does not ascend", "write each later than the one before it");
        return None;
    }
    Some(times)
}

impl Default for Announce {
    fn default() -> Announce {
        Announce {
            times: [0, 10, 50, 200, 1_000].map(Duration::from_millis).to_vec(),
            delay: Duration::from_secs(5),
            refresh: MINUTE,
            spacing: Duration::ZERO,
        }
    }
}

const WISHES: [(&str, Wish); 4] =
    [("backup", Wish::Backup), ("master", Wish::Master), ("BACKUP", Wish::Backup), ("MASTER", Wish::Master)];
const CHECKSUMS: [(&str, Checksum); 3] =
    [("auto", Checksum::Auto), ("pseudo_header", Checksum::PseudoHeader), ("message", Checksum::MessageOnly)];
const ADDRESS_CHECKS: [(&str, AddressCheck); 3] = [
    ("report", AddressCheck::Report),
    ("new_master", AddressCheck::NewMaster),
    ("refuse", AddressCheck::Refuse),
];
const PRIORITY: u8 = 100;
const INTERVAL: Duration = SECOND;
const CENTISECOND: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const TIMES_MAX: usize = 32;
