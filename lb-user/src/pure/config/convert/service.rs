//! One `[[service]]`: its values and defaults, and what its own keys mean for each other.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use lb_common::limits;

use super::{addresses, checked, choice, number};
use crate::pure::config::{
    error::{Findings, Span, Spanned, quote},
    model::{Check, CheckKind, Forward, IdleTimeout, NoServer, Protocol, Server, Service},
    raw::{self, Field, List, Port, Text},
    value::{self, fault},
};

/// A service with its positions; what is None or empty is wrong, and a finding says so.
pub(super) struct Draft {
    pub(super) at: Span,
    pub(super) name: Option<Spanned<String>>,
    pub(super) addresses: Vec<Spanned<Ipv4Addr>>,
    pub(super) port: Option<u16>,
    pub(super) protocols: Vec<Protocol>,
    pub(super) slots: Option<u32>,
    pub(super) servers: Vec<DraftServer>,
    forward: Option<Forward>,
    idle: Option<IdleTimeout>,
    no_server: Option<NoServer>,
    check: Option<Check>,
}

pub(super) struct DraftServer {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<(Ipv4Addr, Option<u16>)>>,
    weight: Option<u16>,
}

impl Draft {
    pub(super) fn new(raw: Spanned<raw::Service>, findings: &mut Findings) -> Draft {
        let Spanned { at, value: raw } = raw;
        let protocols = protocols(raw.protocol, findings);
        let forward = required(raw.forward, "forward", "\"nat\"", at, findings)
            .and_then(|typed| choice(&typed, "forward", &FORWARDS, &FORWARDS_UNBUILT, findings));
        // `balance` has one value so far: it is checked, not kept.
        let _ = raw.balance.or((), |typed| {
            choice(&typed, "balance", &[("maglev", ())], &["source", "roundrobin", "leastconn"], findings)
        });
        let no_servers = [("reset", NoServer::Reset), ("drop", NoServer::Drop)];
        let draft = Draft {
            at,
            name: name(raw.name, at, findings),
            addresses: service_addresses(raw.address, at, findings),
            port: required(raw.port, "port", "80", at, findings).and_then(|typed| port(&typed, findings)),
            protocols,
            slots: raw.slots.or(limits::SLOTS_DEFAULT, |typed| slots(&typed, findings)),
            servers: raw
                .servers
                .given()
                .unwrap_or_default()
                .into_iter()
                .map(|server| DraftServer::new(server, findings))
                .collect(),
            forward,
            idle: idle(raw.idle_timeout, findings),
            no_server: raw
                .no_server
                .or(NoServer::Reset, |typed| choice(&typed, "no_server", &no_servers, &[], findings)),
            check: check(raw.check.map(|table| table.value).unwrap_or_default(), findings),
        };
        draft.unique_servers(findings);
        draft.keeps_port(findings);
        draft.warn(findings);
        draft
    }

    pub(super) fn finish(self) -> Option<Service> {
        let port = self.port?;
        let servers = self.servers.into_iter().map(|server| server.finish(port));
        Some(Service {
            name: self.name?.value,
            addresses: self.addresses.into_iter().map(|address| address.value).collect(),
            port,
            protocols: self.protocols,
            forward: self.forward?,
            slots: self.slots?,
            idle: self.idle?,
            no_server: self.no_server?,
            check: self.check?,
            servers: servers.collect::<Option<Vec<_>>>()?,
        })
    }

    /// For messages.
    pub(super) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| "without a name".into(), |name| quote(&name.value))
    }

    fn unique_servers(&self, findings: &mut Findings) {
        let names = self.servers.iter().filter_map(|server| server.name.as_ref());
        unique(names, findings, |name| format!("the server name {}", quote(name)));

        let resolved: Vec<_> = self
            .servers
            .iter()
            .filter_map(|server| server.address.as_ref())
            .filter_map(|typed| {
                let (address, port) = typed.value;
                Some(Spanned::new(typed.at, SocketAddrV4::new(address, port.or(self.port)?)))
            })
            .collect();
        unique(resolved.iter(), findings, |address| format!("the server address `{address}`"));
    }

    fn keeps_port(&self, findings: &mut Findings) {
        let (Some(Forward::Dsr), Some(service_port)) = (self.forward, self.port) else { return };
        for typed in self.servers.iter().filter_map(|server| server.address.as_ref()) {
            if let (address, Some(port)) = typed.value
                && port != service_port
            {
                findings.error(
                    typed.at,
                    format!("`dsr` cannot change the port from {service_port} to {port}"),
                    format!("write \"{address}\" and let the server listen on {service_port}, or use `forward = \"nat\"`"),
                );
            }
        }
    }

    fn warn(&self, findings: &mut Findings) {
        let at = self.name.as_ref().map_or(self.at, |name| name.at);
        if self.servers.is_empty() {
            let message = format!("service {} has no servers: its clients are refused", self.label());
            findings.warning(at, message, "add `server = [{ name = \"..\", address = \"..\" }]`");
        }
        let is_tcp_check = matches!(self.check, Some(Check { kind: CheckKind::Tcp, port: None, .. }));
        if self.protocols == [Protocol::Udp] && is_tcp_check {
            findings.warning(
                at,
                format!(
                    "service {} is udp only, and its servers are checked with tcp connections",
                    self.label()
                ),
                "set `type = \"none\"` in [service.check], or `port` to a tcp port of the servers",
            );
        }
    }
}

impl DraftServer {
    fn new(raw: Spanned<raw::Server>, findings: &mut Findings) -> DraftServer {
        let Spanned { at, value: raw } = raw;
        DraftServer {
            name: name(raw.name, at, findings),
            address: required(raw.address, "address", "\"10.0.5.91:8888\"", at, findings).and_then(|typed| {
                checked(&typed, findings, value::server_address).map(|value| Spanned::new(typed.at, value))
            }),
            weight: raw.weight.or(1, |typed| number(&typed, "weight", 0, u16::MAX, findings)),
        }
    }

    fn finish(self, service_port: u16) -> Option<Server> {
        let (address, port) = self.address?.value;
        Some(Server {
            name: self.name?.value,
            address: SocketAddrV4::new(address, port.unwrap_or(service_port)),
            weight: self.weight?,
        })
    }
}

/// Names both places of every value that comes again.
pub(super) fn unique<'a, T: Eq + Hash + 'a>(
    typed: impl Iterator<Item = &'a Spanned<T>>,
    findings: &mut Findings,
    what: impl Fn(&T) -> String,
) {
    let mut first_at: HashMap<&T, Span> = HashMap::new();
    for entry in typed {
        match first_at.get(&entry.value) {
            None => {
                first_at.insert(&entry.value, entry.at);
            }
            Some(first) => {
                let message =
                    format!("{} is taken: {} has it already", what(&entry.value), findings.place(*first));
                findings.error(entry.at, message, "change or remove one of the two");
            }
        }
    }
}

fn required<T>(
    field: Field<T>,
    key: &'static str,
    example: &str,
    owner: Span,
    findings: &mut Findings,
) -> Option<T> {
    if matches!(field, Field::Absent) {
        findings.missing(owner, key, format!("`{key}` is missing here"), format!("add `{key} = {example}`"));
    }
    field.given()
}

fn name(raw: Field<Text>, owner: Span, findings: &mut Findings) -> Option<Spanned<String>> {
    let typed = required(raw, "name", "\"web\"", owner, findings)?;
    checked(&typed, findings, value::name).map(|name| Spanned::new(typed.at, name))
}

fn service_addresses(raw: Field<List>, owner: Span, findings: &mut Findings) -> Vec<Spanned<Ipv4Addr>> {
    let example = "\"10.0.5.96\"";
    let Some(list) = required(raw, "address", example, owner, findings) else { return Vec::new() };
    if list.value.is_empty() {
        findings.error(list.at, "`address` is empty", format!("write at least one: `address = {example}`"));
    }
    addresses(list, findings).unwrap_or_default()
}

fn port(typed: &Spanned<Port>, findings: &mut Findings) -> Option<u16> {
    let text = match &typed.value {
        Port::Number(port) => {
            return number(&Spanned::new(typed.at, *port), "port", 1, u16::MAX, findings);
        }
        Port::Text(text) => text,
    };
    let fault = match text.parse::<u16>() {
        Ok(port) => {
            fault("`port` must be an integer, not a string", format!("write `port = {}`", port.max(1)))
        }
        Err(_) if value::port_range(text) => fault(
            format!("port ranges and \"any\" are not built yet: {}", quote(text)),
            "write one port from 1 to 65535",
        ),
        Err(_) => fault(format!("{} is not a port", quote(text)), "write one port from 1 to 65535"),
    };
    findings.error(typed.at, fault.message, fault.remedy);
    None
}

fn protocols(raw: Field<Text>, findings: &mut Findings) -> Vec<Protocol> {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let words: [(&str, &[Protocol]); 3] = [("tcp", &[tcp]), ("udp", &[udp]), ("both", &[tcp, udp])];
    raw.or(&[tcp][..], |typed| choice(&typed, "protocol", &words, &[], findings)).unwrap_or_default().to_vec()
}

fn slots(typed: &raw::Number, findings: &mut Findings) -> Option<u32> {
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
        let idle = within(&typed, "idle_timeout", ("1s", IDLE_MIN), ("24h", IDLE_MAX), findings)?;
        Some(IdleTimeout { tcp: idle, udp: idle })
    })
}

fn check(raw: raw::Check, findings: &mut Findings) -> Option<Check> {
    let kind =
        raw.kind.or(CheckKind::Tcp, |typed| choice(&typed, "type", &CHECKS, &CHECKS_UNBUILT, findings));
    let interval = raw.interval.or(CHECK_INTERVAL, |typed| {
        within(&typed, "interval", ("10ms", CHECK_INTERVAL_MIN), ("1h", CHECK_INTERVAL_MAX), findings)
    });
    let timeout_default = interval.map_or(CHECK_TIMEOUT, |interval| interval.min(CHECK_TIMEOUT));
    let timeout = raw.timeout.or(timeout_default, |typed| {
        let timeout =
            within(&typed, "timeout", ("1ms", CHECK_TIMEOUT_MIN), ("1h", CHECK_INTERVAL_MAX), findings)?;
        if interval.is_some_and(|interval| timeout > interval) {
            findings.error(
                typed.at,
                "`timeout` is longer than `interval`: the next check would start before this one ends",
                "shorten `timeout`, or lengthen `interval`",
            );
            return None;
        }
        Some(timeout)
    });
    let rise = raw.rise.or(CHECK_COUNT, |typed| number(&typed, "rise", 1, CHECK_COUNT_MAX, findings));
    let fall = raw.fall.or(CHECK_COUNT, |typed| number(&typed, "fall", 1, CHECK_COUNT_MAX, findings));
    let port = raw.port.or(None, |typed| port(&typed, findings).map(Some));
    Some(Check { kind: kind?, interval: interval?, timeout: timeout?, rise: rise?, fall: fall?, port: port? })
}

fn within(
    typed: &Text,
    key: &str,
    (min_text, min): (&str, Duration),
    (max_text, max): (&str, Duration),
    findings: &mut Findings,
) -> Option<Duration> {
    checked(typed, findings, |text| {
        let duration = value::duration(text)?;
        if (min..=max).contains(&duration) {
            return Ok(duration);
        }
        Err(fault(
            format!("`{key}` is out of range: {}", quote(text)),
            format!("write {min_text} to {max_text}"),
        ))
    })
}

const FORWARDS: [(&str, Forward); 2] = [("nat", Forward::Nat), ("dsr", Forward::Dsr)];
const FORWARDS_UNBUILT: [&str; 3] = ["gateway", "ipip", "gue"];
const CHECKS: [(&str, CheckKind); 2] = [("tcp", CheckKind::Tcp), ("none", CheckKind::None)];
const CHECKS_UNBUILT: [&str; 9] = ["http", "https", "tls", "udp", "dns", "grpc", "icmp", "script", "agent"];

const IDLE_TCP: Duration = Duration::from_secs(15 * 60);
const IDLE_UDP: Duration = Duration::from_secs(30);
const IDLE_MIN: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(10);
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const CHECK_TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// `rise` and `fall`.
const CHECK_COUNT: u32 = 3;
const CHECK_COUNT_MAX: u32 = 255;
