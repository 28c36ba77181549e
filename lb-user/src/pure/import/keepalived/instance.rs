//! One `vrrp_instance` as typed: each keyword with its fall-back, before they meet each other.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    address::{route, rule, virtual_address},
    garp::Garp,
    global::{multicast, skip_check, strict, version},
    leftover,
    notify::Told,
    parser::Statement,
    track::{Entry, entries},
    value::{address, again, extra, flag, interface, name, number, only, refused, seconds, timer, unknown},
};
use crate::pure::config::{
    error::{Findings, Span, Spanned, quote},
    model::vrrp::{
        Address, Checksum, Hmac, HmacKey, HmacMode, Route, Rule, Tracked, UnicastPeer, Version, VirtualMac,
        Wish,
    },
    secret,
};

pub(super) struct Draft {
    pub name: Spanned<String>,
    /// Among the blocks of all files.
    pub order: usize,
    pub wish: Option<Wish>,
    pub interface: Option<String>,
    pub version: Option<Version>,
    pub vrid: Option<u8>,
    pub priority: Option<u8>,
    pub interval: Option<Spanned<Duration>>,
    pub down_timer_adverts: Option<u8>,
    pub addresses: Vec<Spanned<Address>>,
    pub excluded: Vec<Spanned<Address>>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub nopreempt: Option<Span>,
    pub preempt_delay: Option<Spanned<Duration>>,
    pub peers: Vec<Spanned<UnicastPeer>>,
    pub source: Option<Spanned<IpAddr>>,
    pub multicast: Option<Spanned<IpAddr>>,
    pub password: Option<Password>,
    pub hmac: Option<Spanned<Keyed>>,
    pub checksum: Checksum,
    pub virtual_mac: Option<VirtualMac>,
    pub transmit_base: Option<Span>,
    pub native_ipv6: bool,
    pub garp: Garp,
    pub track: Vec<Entry>,
    pub told: Told,
}

/// `authentication`
pub(super) struct Password {
    pub at: Span,
    pub kind: Option<Spanned<Kind>>,
    /// What it said of the kind was told already.
    pub is_told: bool,
    /// Cut and filled up.
    pub pass: Option<[u8; 8]>,
}

/// `auth_hmac`
pub(super) struct Keyed {
    pub hmac: Hmac,
    /// Of keys that are still empty.
    pub files: Vec<(usize, PathBuf)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pass,
    /// RFC 2338, type 2.
    Header,
}

impl Draft {
    fn new(name: Spanned<String>, order: usize) -> Draft {
        Draft {
            name,
            order,
            wish: None,
            interface: None,
            version: None,
            vrid: None,
            priority: None,
            interval: None,
            down_timer_adverts: None,
            addresses: Vec::new(),
            excluded: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            nopreempt: None,
            preempt_delay: None,
            peers: Vec::new(),
            source: None,
            multicast: None,
            password: None,
            hmac: None,
            checksum: Checksum::Auto,
            virtual_mac: None,
            transmit_base: None,
            native_ipv6: false,
            garp: Garp::default(),
            track: Vec::new(),
            told: Told::default(),
        }
    }

    pub(super) fn read(block: &Statement, order: usize, findings: &mut Findings) -> Option<Draft> {
        let mut draft = Draft::new(name(only(block, findings)?, findings), order);
        for (at, statement) in block.children().iter().enumerate() {
            let before =
                block.children()[..at].iter().rfind(|before| before.keyword() == statement.keyword());
            if ONCE.contains(&statement.keyword()) {
                again(statement, before.map(Statement::at), findings);
            }
            let is_known = draft.election(statement, findings)
                || draft.wire(statement, findings)
                || draft.estate(statement, findings)
                || draft.tracking(statement, findings)
                || draft.told.read(statement, findings)
                || draft.garp.read(statement.keyword(), statement, findings)
                || leftover::instance(statement, findings);
            if !is_known {
                unknown(statement, "vrrp_instance", &WORDS, findings);
            }
        }
        Some(draft)
    }

    fn election(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        match statement.keyword() {
            "state" => self.state(statement, findings),
            "virtual_router_id" => {
                self.vrid = number(statement, (1, 255), "it counts as missing", findings);
            }
            "priority" => {
                self.priority = number(statement, (1, 255), "100 is used", findings).or(Some(100));
            }
            "advert_int" => self.advert_int(statement, findings),
            "down_timer_adverts" => {
                self.down_timer_adverts = number(statement, (1, 100), "it is ignored", findings);
            }
            "nopreempt" => {
                extra(statement.values(), findings);
                self.nopreempt = Some(statement.at());
            }
            "preempt" => {
                extra(statement.values(), findings);
                self.nopreempt = None;
            }
            "preempt_delay" => {
                let delay = timer(statement, (0, 1_000_000_000), "there is no delay", findings);
                self.preempt_delay = delay.map(|delay| Spanned::new(statement.at(), delay));
            }
            _ => return false,
        }
        true
    }

    fn state(&mut self, statement: &Statement, findings: &mut Findings) {
        let Some(word) = only(statement, findings) else { return };
        match word.text.as_str() {
            "MASTER" => self.wish = Some(Wish::Master),
            "BACKUP" if self.wish == Some(Wish::Master) => {
                let message = "`state` is MASTER already: BACKUP is ignored, as in Keepalived";
                findings.warning(word.at, message, "keep one of the two");
            }
            "BACKUP" => self.wish = Some(Wish::Backup),
            _ => {
                self.wish = Some(Wish::Backup);
                refused(statement, word, "BACKUP is taken", "write MASTER or BACKUP in capitals", findings);
            }
        }
    }

    fn advert_int(&mut self, statement: &Statement, findings: &mut Findings) {
        let Some(word) = only(statement, findings) else { return };
        let interval =
            seconds(&word.text).filter(|interval| (INTERVAL_MIN..=INTERVAL_MAX).contains(interval));
        match interval {
            Some(interval) => self.interval = Some(Spanned::new(word.at, interval)),
            None => refused(statement, word, "1 second is used", "write 0.01 to 255 seconds", findings),
        }
    }

    fn wire(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        match statement.keyword() {
            "interface" => {
                let word = only(statement, findings);
                self.interface = word.and_then(|word| interface(word, findings));
            }
            "version" => {
                self.version = version(statement, "it is ignored", findings).or(self.version);
            }
            "native_ipv6" => self.native_ipv6 = true,
            "mcast_src_ip" | "unicast_src_ip" => {
                let word = only(statement, findings);
                let own = word.and_then(|word| {
                    Some(Spanned::new(word.at, address(word, statement.keyword(), findings)?))
                });
                self.source = own.or(self.source.take());
            }
            "mcast_dst_ip" => self.multicast = multicast(statement, None, findings),
            "unicast_peer" => {
                for child in statement.children() {
                    self.peers.extend(peer(child, findings));
                }
            }
            "authentication" => self.password = Some(authentication(statement, findings)),
            "auth_hmac" => self.hmac = hmac(statement, findings),
            "v3_checksum_as_v2" => {
                let is_on = flag(statement, findings) == Some(true);
                self.checksum = if is_on { Checksum::MessageOnly } else { Checksum::PseudoHeader };
            }
            "skip_check_adv_addr" => skip_check(statement, findings),
            "strict_mode" => strict(statement, findings),
            _ => return false,
        }
        true
    }

    fn estate(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        let children = statement.children();
        match statement.keyword() {
            "virtual_ipaddress" => {
                self.addresses.extend(children.iter().filter_map(|child| virtual_address(child, findings)));
            }
            "virtual_ipaddress_excluded" => {
                self.excluded.extend(children.iter().filter_map(|child| virtual_address(child, findings)));
            }
            "virtual_routes" => {
                self.routes.extend(children.iter().filter_map(|child| route(child, findings)))
            }
            "virtual_rules" => self.rules.extend(children.iter().filter_map(|child| rule(child, findings))),
            "use_vmac" => self.virtual_mac = Some(virtual_mac(statement, findings)),
            "vmac_xmit_base" => self.transmit_base = Some(statement.at()),
            "accept" => {}
            "no_accept" => {
                let message = "`no_accept` is not taken over: the addresses answer";
                findings.warning(
                    statement.at(),
                    message,
                    "remove it; with Keepalived it drops all packets to the virtual addresses",
                );
            }
            _ => return false,
        }
        true
    }

    fn tracking(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        let Some(what) = tracked(statement.keyword()) else { return false };
        self.track.extend(entries(statement, what, findings));
        true
    }
}

/// What a `track_` block holds.
pub(super) fn tracked(keyword: &str) -> Option<fn(String) -> Tracked> {
    match keyword {
        "track_interface" => Some(Tracked::Interface),
        "track_script" => Some(Tracked::Script),
        "track_process" => Some(Tracked::Process),
        "track_file" => Some(Tracked::File),
        _ => None,
    }
}

/// `ADDRESS [min_ttl N] [max_ttl N]`
fn peer(statement: &Statement, findings: &mut Findings) -> Option<Spanned<UnicastPeer>> {
    let first = &statement.words[0];
    let address = address(first, "a peer", findings)?;
    let (mut min, mut max) = (0, u8::MAX);
    let mut rest = statement.values();
    while let [option, value, behind @ ..] = rest {
        let ttl = value.text.parse().ok();
        match (option.text.as_str(), ttl) {
            ("min_ttl", Some(ttl)) => min = ttl,
            ("max_ttl", Some(ttl)) => max = ttl,
            _ => break,
        }
        rest = behind;
    }
    extra(rest, findings);
    if min > max {
        let message = format!("no TTL is from {min} to {max}: any is taken");
        findings.warning(first.at, message, "let min_ttl be the smaller one");
        (min, max) = (0, u8::MAX);
    }
    Some(Spanned::new(first.at, UnicastPeer { address, ttl: (min, max) }))
}

fn authentication(statement: &Statement, findings: &mut Findings) -> Password {
    let mut password = Password { at: statement.at(), kind: None, is_told: false, pass: None };
    for child in statement.children() {
        match child.keyword() {
            "auth_type" => {
                let Some(word) = only(child, findings) else { continue };
                let kind = match word.text.as_str() {
                    "PASS" => Kind::Pass,
                    "AH" => Kind::Header,
                    _ => {
                        let remedy = "write PASS, on all nodes at the same time: a node with and a node without become two masters";
                        refused(child, word, "there is no authentication", remedy, findings);
                        password.is_told = true;
                        continue;
                    }
                };
                password.kind = Some(Spanned::new(word.at, kind));
            }
            "auth_pass" => {
                let Some(word) = only(child, findings) else { continue };
                let bytes = word.text.as_bytes();
                if bytes.len() > 8 {
                    let message =
                        "the password is longer than 8 characters: the first 8 are used, as in Keepalived";
                    findings.warning(child.at(), message, "shorten it, or use `auth_hmac`");
                }
                password.pass = secret::password(&bytes[..bytes.len().min(8)]).ok();
            }
            _ => unknown(child, "authentication", &["auth_type", "auth_pass"], findings),
        }
    }
    password
}

/// Findings are at the block: its lines hold keys.
fn hmac(statement: &Statement, findings: &mut Findings) -> Option<Spanned<Keyed>> {
    let at = statement.at();
    let mut keys: Vec<(HmacKey, Option<PathBuf>)> = Vec::new();
    let mut mode = HmacMode::Enforce;
    let mut active = None;
    for child in statement.children() {
        let value = child.values().first().map(|word| word.text.as_str());
        match (child.keyword(), value) {
            ("key", Some(id)) => keys.extend(hmac_key(id, child, at, findings)),
            ("active_key", Some(id)) => active = id.parse::<u8>().ok(),
            ("mode", Some("enforce")) => mode = HmacMode::Enforce,
            ("mode", Some("permissive")) => mode = HmacMode::Permissive,
            ("mode", Some("receive-only")) => mode = HmacMode::ReceiveOnly,
            ("anti_replay", Some("time")) => {}
            ("anti_replay", _) => {
                findings.warning(
                    at,
                    "`anti_replay` is by time here",
                    "keep the clocks of the nodes together",
                );
            }
            ("time_window", _) => {
                let message = "`time_window` is left out: it is three adverts, and 5 seconds at the least";
                findings.warning(at, message, "remove it");
            }
            _ => {
                let message = "`auth_hmac` has a line that is ignored";
                findings.warning(at, message, "write key, active_key, anti_replay and mode");
            }
        }
    }
    keys.sort_by_key(|(key, _)| key.id);
    keys.dedup_by_key(|(key, _)| key.id);
    // The first one signs.
    keys.sort_by_key(|(key, _)| Some(key.id) != active);
    if keys.first().is_none_or(|(key, _)| Some(key.id) != active && keys.len() > 1) {
        let message = "`auth_hmac` has no key that signs: no peer would take an advert";
        findings.error(at, message, "add `key ID hex:..` of 32 to 64 bytes, and `active_key ID`");
        return None;
    }
    let place = |(index, (_, path)): (usize, &(HmacKey, Option<PathBuf>))| Some((index, path.clone()?));
    let files = keys.iter().enumerate().filter_map(place).collect();
    let hmac = Hmac { keys: keys.into_iter().map(|(key, _)| key).collect(), mode };
    Some(Spanned::new(at, Keyed { hmac, files }))
}

/// `ID TEXT`, `ID hex:DIGITS`, `ID file:PATH`
fn hmac_key(
    id: &str,
    child: &Statement,
    at: Span,
    findings: &mut Findings,
) -> Option<(HmacKey, Option<PathBuf>)> {
    let Some(id) = id.parse::<u8>().ok().filter(|id| *id != 0) else {
        findings.warning(at, "a key of `auth_hmac` has no id: it is ignored", "write 1 to 255 before it");
        return None;
    };
    let text = child.values().get(1).map(|word| word.text.as_str()).unwrap_or_default();
    if let Some(path) = text.strip_prefix("file:").filter(|path| path.starts_with('/')) {
        return Some((HmacKey { id, key: Vec::new() }, Some(path.into())));
    }
    match secret::key(text.as_bytes()) {
        Ok(key) => Some((HmacKey { id, key }, None)),
        Err(error) => {
            findings.warning(at, format!("the key {id} of `auth_hmac` is ignored"), error);
            None
        }
    }
}

/// `[NAME] [MAC]`
fn virtual_mac(statement: &Statement, findings: &mut Findings) -> VirtualMac {
    let mut mac = VirtualMac { name: None, transmit_base: false };
    for word in statement.values() {
        if word.text.contains(':') {
            let message = format!("the MAC {} is left out: it is that of RFC 9568", quote(&word.text));
            findings.warning(word.at, message, "remove it");
        } else if mac.name.is_none() {
            mac.name = interface(word, findings);
        } else {
            extra(std::slice::from_ref(word), findings);
        }
    }
    mac
}

const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(255);

const ONCE: [&str; 12] = [
    "interface",
    "version",
    "virtual_router_id",
    "priority",
    "advert_int",
    "down_timer_adverts",
    "preempt_delay",
    "mcast_src_ip",
    "unicast_src_ip",
    "mcast_dst_ip",
    "authentication",
    "auth_hmac",
];
const WORDS: [&str; 40] = [
    "state",
    "interface",
    "version",
    "virtual_router_id",
    "priority",
    "advert_int",
    "down_timer_adverts",
    "nopreempt",
    "preempt",
    "preempt_delay",
    "authentication",
    "auth_hmac",
    "native_ipv6",
    "mcast_src_ip",
    "unicast_src_ip",
    "mcast_dst_ip",
    "unicast_peer",
    "v3_checksum_as_v2",
    "skip_check_adv_addr",
    "strict_mode",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "virtual_routes",
    "virtual_rules",
    "use_vmac",
    "vmac_xmit_base",
    "accept",
    "no_accept",
    "track_interface",
    "track_script",
    "track_process",
    "track_file",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "smtp_alert",
    "garp_master_delay",
    "garp_master_repeat",
];
