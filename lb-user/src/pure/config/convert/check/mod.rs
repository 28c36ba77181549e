//! `[service.check]`: its values and defaults, and which keys are for which types.

mod dialogue;
mod dns;
mod http;
mod kind;
mod payload;
mod tls;

use std::time::Duration;

use self::kind::{Kind, Owners, TCP_OR_UDP};
use super::{checked, choice, number, within};
use crate::pure::config::{
    address,
    error::{Findings, Span, Spanned, quote},
    model::check::{COUNT, Check, CheckKind, INTERVAL, ProxyHeader, StartState, TIMEOUT, Through},
    raw::{self, Field, Port, Text},
    value::{self, Fault, fault},
};

/// A check with the places of its keys.
pub(super) struct DraftCheck {
    pub(super) check: Check,
    pub(super) typed: Typed,
}

/// What was typed, and where.
pub(super) struct Typed {
    /// The table.
    at: Span,
    /// Each key with the place of its value.
    keys: Vec<(&'static str, Span)>,
}

impl Typed {
    pub(super) fn new(at: Span, keys: Vec<(&'static str, Span)>) -> Typed {
        Typed { at, keys }
    }

    /// The key's place, else the table's.
    pub(super) fn near(&self, key: &str) -> Span {
        self.at(key).unwrap_or(self.at)
    }

    /// None: the key was not typed.
    pub(super) fn at(&self, key: &str) -> Option<Span> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, at)| *at)
    }
}

/// `owner` is the service, whose check may say nothing at all.
pub(super) fn check(
    raw: Option<Spanned<raw::Check>>,
    owner: Span,
    findings: &mut Findings,
) -> Option<DraftCheck> {
    let Spanned { at, value: raw } = raw.unwrap_or_else(|| Spanned::new(owner, raw::Check::default()));
    let typed = Typed::new(at, raw.typed);
    let kinds = Kind::ALL.map(|kind| (kind.name(), kind));
    let kind = raw.kind.or(Kind::Tcp, |word| choice(&word, "type", &kinds, &[], findings));
    if let Some(kind) = kind {
        belongs(kind, &typed, findings);
        agent_port(kind, &typed, findings);
    }
    let through = through(raw.through, kind, &typed, findings);
    let times = times(raw.times, findings);
    let rise = raw.rise.or(COUNT, |typed| number(&typed, "rise", 1, COUNT_MAX, findings));
    let fall = raw.fall.or(COUNT, |typed| number(&typed, "fall", 1, COUNT_MAX, findings));
    let starts = [("up", StartState::Up), ("down", StartState::Down)];
    let start = raw.start.or(StartState::Up, |word| choice(&word, "start", &starts, &[], findings));
    let spread = raw.spread.or(0, |typed| number(&typed, "spread", 0, SPREAD_MAX, findings));
    let address = raw.address.or(None, |typed| checked(&typed, findings, address::address).map(Some));
    let port = raw.port.or(None, |typed| port(&typed, findings).map(Some));
    let source = raw.source.or(None, |typed| checked(&typed, findings, address::address).map(Some));
    let versions = [("v1", ProxyHeader::V1), ("v2", ProxyHeader::V2)];
    let proxy_header =
        raw.proxy_header.or(None, |word| choice(&word, "proxy_header", &versions, &[], findings).map(Some));
    let kind = kind.and_then(|kind| kind::convert(kind, raw.own, &typed, findings));
    let times = times?;
    let check = Check {
        kind: kind?,
        through: through?,
        interval: times.interval,
        fast_interval: times.fast_interval,
        down_interval: times.down_interval,
        timeout: times.timeout,
        rise: rise?,
        fall: fall?,
        start: start?,
        spread: spread?,
        address: address?,
        port: port?,
        source: source?,
        proxy_header: proxy_header?,
    };
    steered_silence(&check, &typed, findings);
    Some(DraftCheck { check, typed })
}

/// Silence would pass, also where nothing goes through the data path.
fn steered_silence(check: &Check, typed: &Typed, findings: &mut Findings) {
    let silent = matches!(&check.kind, CheckKind::Udp(udp) if udp.expect.is_none());
    if let Some(at) = typed.at("through").filter(|_| silent && check.through == Through::Datapath) {
        findings.error(
            at,
            "a udp check through the data path needs an answer: silence would pass wherever the packet went",
            "add `expect` or `expect_regex`",
        );
    }
}

/// A key of another type is refused: it would be read as if it did something.
fn belongs(kind: Kind, typed: &Typed, findings: &mut Findings) {
    for &(key, at) in &typed.keys {
        let Some((_, owners)) = kind::KEYS.iter().find(|(owned, _)| *owned == key) else { continue };
        if owners.has(kind) {
            continue;
        }
        let is_move = kind::MOVES.contains(&key);
        let remedy = match owners {
            _ if kind == Kind::Tcp && is_move => {
                format!("write it as a move: `dialogue = [{{ {key} = .. }}]`")
            }
            Owners::Only(kinds) => format!("remove it, or set `type` to {}", kind::either_of(kinds)),
            Owners::AllBut(kinds) => {
                format!("remove it; it is for every type but {}", kind::either_of(kinds))
            }
        };
        findings.error(at, format!("`{key}` means nothing to `type = \"{}\"`", kind.name()), remedy);
    }
}

/// The port of the server is its service's, where no agent listens.
fn agent_port(kind: Kind, typed: &Typed, findings: &mut Findings) {
    if kind == Kind::Agent && typed.at("port").is_none() {
        findings.missing(
            typed.at,
            "port",
            "`port` is missing here: an agent has one of its own",
            "add `port = 5555`",
        );
    }
}

fn through(raw: Field<Text>, kind: Option<Kind>, typed: &Typed, findings: &mut Findings) -> Option<Through> {
    raw.or(Through::Direct, |word| {
        let ways = [("direct", Through::Direct), ("datapath", Through::Datapath)];
        let way = choice(&word, "through", &ways, &[], findings)?;
        if way == Through::Direct {
            return Some(way);
        }
        if let Some(kind) = kind.filter(|kind| !TCP_OR_UDP.has(*kind)) {
            findings.error(
                word.at,
                format!("`through = \"datapath\"` means nothing to `type = \"{}\"`", kind.name()),
                "remove it, or choose a type that checks over TCP or UDP",
            );
        }
        if let Some(at) = typed.at("address") {
            let place = findings.place(word.at);
            findings.error(
                at,
                format!("`address` and `through = \"datapath\"` ({place}) are both given"),
                "remove `address`: through the data path a check goes to the service's own address",
            );
        }
        Some(way)
    })
}

#[derive(Clone, Copy)]
struct Times {
    interval: Duration,
    fast_interval: Duration,
    down_interval: Duration,
    timeout: Duration,
}

fn times(raw: raw::Times, findings: &mut Findings) -> Option<Times> {
    let interval = raw.interval.or(INTERVAL, |typed| interval(&typed, "interval", findings));
    let unlike = interval.unwrap_or(INTERVAL);
    let fast = raw.fast_interval.or(unlike, |typed| self::interval(&typed, "fast_interval", findings));
    let down = raw.down_interval.or(unlike, |typed| self::interval(&typed, "down_interval", findings));
    let shortest = [("interval", interval), ("fast_interval", fast), ("down_interval", down)]
        .into_iter()
        .filter_map(|(key, interval)| Some((interval?, key)))
        .min_by_key(|(interval, _)| *interval);
    let timeout_default = shortest.map_or(TIMEOUT, |(interval, _)| interval.min(TIMEOUT));
    let timeout = raw.timeout.or(timeout_default, |typed| {
        let timeout = within(&typed, "timeout", ("1ms", TIMEOUT_MIN), ("1h", INTERVAL_MAX), findings)?;
        match shortest {
            Some((interval, key)) if timeout > interval => {
                findings.error(
                    typed.at,
                    format!(
                        "`timeout` is longer than `{key}`: the next check would start before this one ends"
                    ),
                    format!("shorten `timeout`, or lengthen `{key}`"),
                );
                None
            }
            _ => Some(timeout),
        }
    });
    Some(Times { interval: interval?, fast_interval: fast?, down_interval: down?, timeout: timeout? })
}

fn interval(typed: &Text, key: &str, findings: &mut Findings) -> Option<Duration> {
    within(typed, key, ("10ms", INTERVAL_MIN), ("1h", INTERVAL_MAX), findings)
}

fn port(typed: &Spanned<Port>, findings: &mut Findings) -> Option<u16> {
    match &typed.value {
        Port::Number(port) => number(&Spanned::new(typed.at, *port), "port", 1, u16::MAX, findings),
        Port::Text(text) => checked(&Spanned::new(typed.at, text.clone()), findings, not_a_number),
    }
}

/// One port is a number: text is not one.
fn not_a_number(text: &str) -> Result<u16, Fault> {
    Err(match text.parse::<u16>() {
        Ok(port) => {
            fault("`port` must be an integer, not a string", format!("write `port = {}`", port.max(1)))
        }
        Err(_) => fault(format!("{} is not a port", quote(text)), "write one port from 1 to 65535"),
    })
}

/// Who a check says it is: a user of a database or of this machine, or the name in a greeting.
pub(super) fn identity(text: &str) -> Result<String, Fault> {
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || !(1..=value::NAME_MAX).contains(&text.len()) {
        return Err(fault(
            format!("{} is not a name", quote(text)),
            format!("use 1 to {} visible ASCII characters, without blanks", value::NAME_MAX),
        ));
    }
    Ok(text.into())
}

const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Of `rise` and `fall`.
const COUNT_MAX: u32 = 255;
/// More than half of the interval would let two runs change places.
const SPREAD_MAX: u8 = 50;
