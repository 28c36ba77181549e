//! The types of a check: their names, their keys, and what each makes of them.

use super::{Typed, checked, dialogue, dns, http, identity, payload, tls};
use crate::pure::{
    config::{
        convert::{command, required},
        error::{Findings, Span},
        model::check::{CheckKind, Grpc, Script, Udp},
        raw::{Field, Own},
    },
    dialogue as ready_made,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Tcp,
    Http,
    Https,
    Tls,
    Udp,
    Dns,
    Grpc,
    Icmp,
    Script,
    Agent,
    Smtp,
    Redis,
    Mysql,
    Postgresql,
}

/// Types that a key is for.
pub(super) enum Owners {
    Only(&'static [Kind]),
    AllBut(&'static [Kind]),
}

impl Kind {
    pub(super) const ALL: [Kind; 15] = [
        Kind::Tcp,
        Kind::Http,
        Kind::Https,
        Kind::Tls,
        Kind::Udp,
        Kind::Dns,
        Kind::Grpc,
        Kind::Icmp,
        Kind::Script,
        Kind::Agent,
        Kind::Smtp,
        Kind::Redis,
        Kind::Mysql,
        Kind::Postgresql,
        Kind::None,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Tcp => "tcp",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Tls => "tls",
            Kind::Udp => "udp",
            Kind::Dns => "dns",
            Kind::Grpc => "grpc",
            Kind::Icmp => "icmp",
            Kind::Script => "script",
            Kind::Agent => "agent",
            Kind::Smtp => "smtp",
            Kind::Redis => "redis",
            Kind::Mysql => "mysql",
            Kind::Postgresql => "postgresql",
        }
    }
}

impl Owners {
    pub(super) fn has(&self, kind: Kind) -> bool {
        match self {
            Owners::Only(kinds) => kinds.contains(&kind),
            Owners::AllBut(kinds) => !kinds.contains(&kind),
        }
    }
}

pub(super) fn convert(kind: Kind, own: Own, typed: &Typed, findings: &mut Findings) -> Option<CheckKind> {
    Some(match kind {
        Kind::None => CheckKind::None,
        Kind::Icmp => CheckKind::Icmp,
        Kind::Tcp => CheckKind::Tcp(dialogue::moves(own.dialogue, findings)?),
        Kind::Http => CheckKind::Http(http::http(own.request, own.said, None, findings)?),
        Kind::Https => CheckKind::Http(http::http(own.request, own.said, Some(own.tls), findings)?),
        Kind::Tls => CheckKind::Tls(tls::tls(own.tls, findings)?),
        Kind::Udp => CheckKind::Udp(udp(own, findings)?),
        Kind::Dns => CheckKind::Dns(dns::dns(own, typed.at, findings)?),
        Kind::Grpc => CheckKind::Grpc(grpc(own, typed, findings)?),
        Kind::Script => CheckKind::Script(script(own, typed.at, findings)?),
        Kind::Agent => {
            let send = payload::bytes(own.said.send, Field::Absent, findings)?;
            CheckKind::Agent { send: send.unwrap_or_default() }
        }
        Kind::Smtp => {
            let helo = own.helo.or(HELO.into(), |typed| checked(&typed, findings, identity));
            CheckKind::Tcp(ready_made::smtp(&helo?))
        }
        Kind::Redis => CheckKind::Tcp(ready_made::redis()),
        Kind::Mysql => {
            let user = own.user.or(None, |typed| checked(&typed, findings, identity).map(Some));
            CheckKind::Tcp(ready_made::mysql(user?.as_deref()))
        }
        Kind::Postgresql => {
            let user = required(own.user, "user", "\"steelyard\"", typed.at, findings)?;
            CheckKind::Tcp(ready_made::postgresql(&checked(&user, findings, identity)?))
        }
    })
}

/// For remedies: `"http" or "https"`.
pub(super) fn either_of(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| format!("\"{}\"", kind.name())).collect::<Vec<_>>().join(" or ")
}

fn udp(own: Own, findings: &mut Findings) -> Option<Udp> {
    let send = payload::bytes(own.said.send, own.said.send_hex, findings);
    let expect = payload::pattern("expect", own.said.expect, own.said.expect_regex, findings);
    Some(Udp { send: send?.unwrap_or_default(), expect: expect?.map(|pattern| pattern.value) })
}

fn grpc(own: Own, typed: &Typed, findings: &mut Findings) -> Option<Grpc> {
    let service = own.service.or(String::new(), |typed| checked(&typed, findings, payload::text));
    let is_encrypted = own.is_encrypted.or(false, Some)?;
    if is_encrypted {
        return Some(Grpc { tls: Some(tls::of_grpc(own.tls, findings)?), service: service? });
    }
    for key in tls::KEYS {
        if let Some(at) = typed.at(key) {
            let message = format!("`{key}` means nothing to a grpc check in clear");
            findings.error(at, message, format!("add `tls = true`, or remove `{key}`"));
        }
    }
    Some(Grpc { tls: None, service: service? })
}

fn script(own: Own, at: Span, findings: &mut Findings) -> Option<Script> {
    let user = own.user.or(None, |typed| checked(&typed, findings, identity).map(Some));
    let command = required(own.command, "command", "[\"/usr/local/bin/check\"]", at, findings)
        .and_then(|typed| command::command(typed, "command", findings));
    Some(Script { command: command?, user: user? })
}

/// Keys that are not for every type; all others are.
pub(super) const KEYS: [(&str, Owners); 26] = [
    ("port", Owners::AllBut(&[Kind::Icmp])),
    ("source", Owners::AllBut(&[Kind::Script])),
    ("proxy_header", Owners::Only(&STREAMS)),
    ("method", Owners::Only(&HTTP)),
    ("uri", Owners::Only(&HTTP)),
    ("host", Owners::Only(&HTTP)),
    ("headers", Owners::Only(&HTTP)),
    ("body", Owners::Only(&HTTP)),
    ("expect_body", Owners::Only(&HTTP)),
    ("expect", Owners::Only(&[Kind::Http, Kind::Https, Kind::Udp, Kind::Dns])),
    ("expect_regex", Owners::Only(&[Kind::Http, Kind::Https, Kind::Udp])),
    ("server_name", Owners::Only(&TLS)),
    ("verify", Owners::Only(&TLS)),
    ("ca_file", Owners::Only(&TLS)),
    ("expiry_warning", Owners::Only(&TLS)),
    ("alpn", Owners::Only(&[Kind::Https, Kind::Tls])),
    ("dialogue", Owners::Only(&[Kind::Tcp])),
    ("send", Owners::Only(&[Kind::Udp, Kind::Agent])),
    ("send_hex", Owners::Only(&[Kind::Udp])),
    ("query", Owners::Only(&[Kind::Dns])),
    ("record", Owners::Only(&[Kind::Dns])),
    ("service", Owners::Only(&[Kind::Grpc])),
    ("tls", Owners::Only(&[Kind::Grpc])),
    ("command", Owners::Only(&[Kind::Script])),
    ("user", Owners::Only(&[Kind::Script, Kind::Mysql, Kind::Postgresql])),
    ("helo", Owners::Only(&[Kind::Smtp])),
];
/// Those of them that a dialogue holds.
pub(super) const MOVES: [&str; 4] = ["send", "send_hex", "expect", "expect_regex"];
pub(super) const TCP_OR_UDP: Owners = Owners::AllBut(&[Kind::None, Kind::Icmp, Kind::Script]);

const HTTP: [Kind; 2] = [Kind::Http, Kind::Https];
const TLS: [Kind; 3] = [Kind::Https, Kind::Tls, Kind::Grpc];
const STREAMS: [Kind; 10] = [
    Kind::Tcp,
    Kind::Http,
    Kind::Https,
    Kind::Tls,
    Kind::Grpc,
    Kind::Agent,
    Kind::Smtp,
    Kind::Redis,
    Kind::Mysql,
    Kind::Postgresql,
];
/// As HAProxy greets.
const HELO: &str = "localhost";
