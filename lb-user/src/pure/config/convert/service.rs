//! One `[[service]]`: its values and defaults.

use std::time::Duration;

use lb_common::limits;

use super::{
    DAY, check, check::DraftCheck, checked, choice, life::Life, name, number, or_never, own, required,
    server::DraftServer, unique_list, values, within,
};
use crate::pure::config::{
    address,
    error::{Findings, Span, Spanned, quote},
    model::{Access, Balance, Forward, IdleTimeout, NoServer, Protocol, Service},
    network::{Family, Network, Ports},
    raw::{self, Field, List, Number, Port, Text},
};

/// A service with its positions; what is None or empty is wrong, and a finding says so.
pub(super) struct Draft {
    pub(super) at: Span,
    pub(super) name: Option<Spanned<String>>,
    pub(super) addresses: Vec<Spanned<Network>>,
    pub(super) ports: Option<Ports>,
    pub(super) protocols: Vec<Protocol>,
    pub(super) forward: Option<Forward>,
    pub(super) slots: Option<u32>,
    pub(super) access: Option<Access>,
    pub(super) servers: Vec<DraftServer>,
    pub(super) check: Option<DraftCheck>,
    pub(super) life: Option<Life>,
    balance: Option<Balance>,
    persistence: Option<Option<Duration>>,
    idle: Option<IdleTimeout>,
    mss: Option<Option<u16>>,
    no_server: Option<NoServer>,
}

impl Draft {
    pub(super) fn new(raw: Spanned<raw::Service>, findings: &mut Findings) -> Draft {
        let Spanned { at, value: raw } = raw;
        let no_servers = [("reset", NoServer::Reset), ("drop", NoServer::Drop)];
        let protocols = protocols(raw.protocol, findings);
        let draft = Draft {
            at,
            name: name(raw.name, at, findings),
            addresses: service_addresses(raw.address, at, findings),
            ports: required(raw.port, "port", "80", at, findings).and_then(|typed| ports(&typed, findings)),
            forward: required(raw.forward, "forward", "\"nat\"", at, findings)
                .and_then(|typed| choice(&typed, "forward", &FORWARDS, &[], findings)),
            balance: raw
                .balance
                .or(Balance::Maglev, |typed| choice(&typed, "balance", &BALANCES, &[], findings)),
            persistence: raw
                .persistence
                .or(None, |typed| or_never(&typed, "persistence", ("1s", IDLE_MIN), ("24h", DAY), findings)),
            slots: raw.slots.or(limits::SLOTS_DEFAULT, |typed| slots(&typed, findings)),
            mss: raw.mss.or(None, |typed| mss(&typed, &protocols, findings)),
            protocols,
            access: access(raw.allow, raw.deny, findings),
            servers: raw
                .servers
                .given()
                .unwrap_or_default()
                .into_iter()
                .map(|server| DraftServer::new(server, findings))
                .collect(),
            idle: idle(raw.idle_timeout, findings),
            no_server: raw
                .no_server
                .or(NoServer::Reset, |typed| choice(&typed, "no_server", &no_servers, &[], findings)),
            life: Life::new(raw.life, findings),
            check: check::check(raw.check, at, findings),
        };
        own::check(&draft, findings);
        draft
    }

    pub(super) fn finish(self) -> Option<Service> {
        let (ports, forward, life) = (self.ports?, self.forward?, self.life?);
        let servers = self.servers.into_iter().map(|server| server.finish(ports));
        Some(Service {
            name: self.name?.value,
            addresses: self.addresses.into_iter().map(|address| address.value).collect(),
            ports,
            protocols: self.protocols,
            forward,
            balance: self.balance?,
            persistence: self.persistence?,
            slots: self.slots?,
            idle: self.idle?,
            mss: self.mss?,
            no_server: self.no_server?,
            access: self.access?,
            check: self.check?.check,
            slow_start: life.slow_start,
            panic: life.panic,
            damping: life.damping,
            suspect_after: life.suspect_after(forward),
            servers: servers.collect::<Option<Vec<_>>>()?,
        })
    }

    /// For messages.
    pub(super) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| "without a name".into(), |name| quote(&name.value))
    }

    /// The first address of a family.
    pub(super) fn first_of(&self, family: Family) -> Option<&Spanned<Network>> {
        self.addresses.iter().find(|address| address.value.family() == family)
    }
}

fn service_addresses(raw: Field<List>, owner: Span, findings: &mut Findings) -> Vec<Spanned<Network>> {
    let example = "\"10.0.5.96\"";
    let Some(list) = required(raw, "address", example, owner, findings) else { return Vec::new() };
    if list.value.is_empty() {
        findings.error(list.at, "`address` is empty", format!("write at least one: `address = {example}`"));
    }
    unique_list(list, "address", findings, address::service_network).unwrap_or_default()
}

fn ports(typed: &Spanned<Port>, findings: &mut Findings) -> Option<Ports> {
    match &typed.value {
        Port::Number(port) => {
            let port = Spanned::new(typed.at, *port);
            number(&port, "port", 1, u16::MAX, findings).map(Ports::exact)
        }
        Port::Text(text) => checked(&Spanned::new(typed.at, text.clone()), findings, address::ports),
    }
}

fn mss(typed: &Number, protocols: &[Protocol], findings: &mut Findings) -> Option<Option<u16>> {
    if typed.value == 0 {
        return Some(None);
    }
    if !(i64::from(MSS_MIN)..=i64::from(MSS_MAX)).contains(&typed.value) {
        let message = format!("`mss` is out of range: {}", typed.value);
        findings.error(typed.at, message, format!("write {MSS_MIN} to {MSS_MAX}, or 0 to leave it alone"));
        return None;
    }
    if protocols == [Protocol::Udp] {
        findings.warning(typed.at, "`mss` means nothing to a service that is udp only", "remove `mss`");
    }
    u16::try_from(typed.value).ok().map(Some)
}

fn access(allow: Field<List>, deny: Field<List>, findings: &mut Findings) -> Option<Access> {
    let mut networks = |list| unique_list(list, "network", findings, address::network);
    let deny = deny.or(Vec::new(), &mut networks);
    let allow = allow.or(None, |list| {
        let at = list.at;
        networks(list).map(|networks| Some(Spanned::new(at, networks)))
    });
    let (allow, deny) = (allow?, deny?);
    let Some(allow) = allow else { return Some(Access { allow: Vec::new(), deny: values(deny) }) };
    if allow.value.is_empty() {
        findings.error(
            allow.at,
            "`allow` is empty: nobody could connect",
            "list the client networks, or remove `allow` to admit everyone",
        );
        return None;
    }
    Some(Access { allow: values(allow.value), deny: values(deny) })
}

fn protocols(raw: Field<Text>, findings: &mut Findings) -> Vec<Protocol> {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let words: [(&str, &[Protocol]); 3] = [("tcp", &[tcp]), ("udp", &[udp]), ("both", &[tcp, udp])];
    raw.or(&[tcp][..], |typed| choice(&typed, "protocol", &words, &[], findings)).unwrap_or_default().to_vec()
}

fn slots(typed: &Number, findings: &mut Findings) -> Option<u32> {
    let slots = number(typed, "slots", limits::SLOTS_MIN, limits::SLOTS_MAX, findings)?;
    if !slots.is_power_of_two() {
        let above = slots.next_power_of_two();
        findings.error(
            typed.at,
            format!("`slots` is not a power of two: {slots}"),
            format!("write {} or {above}", above / 2),
        );
        return None;
    }
    Some(slots)
}

fn idle(raw: Field<Text>, findings: &mut Findings) -> Option<IdleTimeout> {
    raw.or(IdleTimeout { tcp: IDLE_TCP, udp: IDLE_UDP }, |typed| {
        let idle = within(&typed, "idle_timeout", ("1s", IDLE_MIN), ("24h", DAY), findings)?;
        Some(IdleTimeout { tcp: idle, udp: idle })
    })
}

const FORWARDS: [(&str, Forward); 5] = [
    ("nat", Forward::Nat),
    ("gateway", Forward::Gateway),
    ("dsr", Forward::Dsr),
    ("ipip", Forward::Ipip),
    ("gue", Forward::Gue),
];
const BALANCES: [(&str, Balance); 4] = [
    ("maglev", Balance::Maglev),
    ("source", Balance::Source),
    ("roundrobin", Balance::RoundRobin),
    ("leastconn", Balance::LeastConn),
];

const IDLE_TCP: Duration = Duration::from_secs(15 * 60);
const IDLE_UDP: Duration = Duration::from_secs(30);
const IDLE_MIN: Duration = Duration::from_secs(1);

/// What every host takes without having said so (RFC 9293, section 3.7.1).
const MSS_MIN: u16 = 536;
/// No link carries more: jumbo frames have 9 000 bytes with their headers.
const MSS_MAX: u16 = 9_000;
