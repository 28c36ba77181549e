//! From `raw` to `model`: values, ranges and defaults of each table, then what one key means for another.
//!
//! A conversion returns None only after it has put the reason into the findings.

mod check;
mod cluster;
pub(in crate::pure) mod command;
mod cross;
mod life;
mod notify;
mod own;
mod precedence;
mod server;
mod service;
mod vrrp;

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    path::PathBuf,
    time::Duration,
};

use lb_common::limits;

pub(in crate::pure) use self::server::added_server;
use super::{
    address,
    error::{Findings, Span, Spanned, nearest, quote},
    model::{Config, Datapath, Global, Log, XdpMode, vrrp::Vrrp},
    raw::{self, Field, List, Number, Raw, Text},
    secret::SecretFile,
    value::{self, Fault, fault},
};

/// The configuration, and the secrets of virtual routers that are to be read into it.
pub(super) fn config(raw: Raw, findings: &mut Findings) -> Option<(Config, Vec<SecretFile>)> {
    let header = |at: Option<Span>| at.unwrap_or(Span::start_of(0));
    let cluster_at = header(raw.cluster.as_ref().map(|table| table.at));
    let datapath_at = header(raw.datapath.as_ref().map(|table| table.at));
    let notify_at = header(raw.notify.as_ref().map(|table| table.at));

    let global = global(raw.global.map(|table| table.value).unwrap_or_default(), findings);
    let cluster = cluster::cluster(raw.cluster.map(|table| table.value).unwrap_or_default(), findings);
    let datapath = datapath(raw.datapath.map(|table| table.value).unwrap_or_default(), findings);
    let log = log(raw.log.map(|table| table.value).unwrap_or_default(), findings);
    let mut raw_notify = raw.notify.map(|table| table.value).unwrap_or_default();
    let fifos = notify::fifos(std::mem::take(&mut raw_notify.fifo), findings);
    let notify = notify::notify(raw_notify, notify_at, findings);
    let drafts: Vec<_> =
        raw.services.into_iter().map(|service| service::Draft::new(service, findings)).collect();

    if let (Some(datapath), false) = (&datapath, drafts.is_empty()) {
        cross::interfaces(datapath, datapath_at, findings);
    }
    if let (Some(cluster), false) = (&cluster, drafts.is_empty()) {
        cross::secret(cluster, cluster_at, findings);
    }
    cross::services(&drafts, findings);

    let around = vrrp::Around {
        services: drafts
            .iter()
            .filter_map(|draft| draft.name.as_ref())
            .map(|name| name.value.clone())
            .collect(),
        forwards: datapath.as_ref().is_none_or(|datapath| !datapath.interfaces.is_empty()),
        has_peers: cluster.as_ref().is_none_or(|cluster| !cluster.peers.is_empty()),
        mails: notify.as_ref().is_none_or(|notify| notify.mail.is_some()),
    };
    let vrrp = vrrp::vrrp(raw.vrrp, &around, findings);

    let services = drafts.into_iter().map(service::Draft::finish).collect::<Option<Vec<_>>>();
    let (vrrp, secrets) = vrrp?;
    let config = Config {
        global: global?,
        cluster: cluster?,
        datapath: datapath?,
        log: log?,
        notify: notify?,
        services: services?,
        vrrp: Vrrp { fifos: fifos?, ..vrrp },
    };
    Some((config, secrets))
}

fn global(raw: raw::Global, findings: &mut Findings) -> Option<Global> {
    let node = raw.node.or(None, |typed| checked(&typed, findings, value::name).map(Some));
    let admin_socket = path(raw.admin_socket, ADMIN_SOCKET, SOCKET_PATH_MAX, findings);
    let state = path(raw.state, STATE, PATH_MAX, findings);
    Some(Global { node: node?, admin_socket: admin_socket?, state: state? })
}

fn datapath(raw: raw::Datapath, findings: &mut Findings) -> Option<Datapath> {
    let interfaces = raw.interfaces.or(Vec::new(), |list| {
        bounded(&list, "interfaces", limits::DEVICES_MAX as usize, findings);
        unique_list(list, "interface", findings, value::interface).map(values)
    });
    let modes = [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
    let mode = raw.mode.or(XdpMode::Auto, |typed| choice(&typed, "mode", &modes, &[], findings));
    let flows = raw.flows.or(limits::FLOWS_DEFAULT, |typed| {
        number(&typed, "flows", limits::FLOWS_MIN, limits::FLOWS_MAX, findings)
    });
    let nat_source = raw.nat_source.or(Vec::new(), |list| {
        bounded(&list, "nat_source", limits::NAT_SOURCES_MAX, findings);
        unique_list(list, "address", findings, address::address).map(values)
    });
    let pin = raw.pin.or(PIN.into(), |typed| checked(&typed, findings, |text| value::pin(text, PATH_MAX)));
    let watchdog = raw
        .watchdog
        .or(None, |typed| or_never(&typed, "watchdog", ("5s", WATCHDOG_MIN), ("24h", DAY), findings));
    Some(Datapath {
        interfaces: interfaces?,
        mode: mode?,
        flows: flows?,
        nat_source: nat_source?,
        pin: pin?,
        watchdog: watchdog?,
    })
}

fn log(raw: raw::Log, findings: &mut Findings) -> Option<Log> {
    let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, level));
    let level = raw.level.or("info", |typed| choice(&typed, "level", &levels, &[], findings));
    Some(Log { level: level?.into() })
}

fn path(raw: Field<Text>, default: &str, bytes_max: usize, findings: &mut Findings) -> Option<PathBuf> {
    raw.or(default.into(), |typed| checked(&typed, findings, |text| value::path(text, bytes_max)))
}

fn checked<T>(
    typed: &Text,
    findings: &mut Findings,
    read: impl FnOnce(&str) -> Result<T, Fault>,
) -> Option<T> {
    match read(&typed.value) {
        Ok(value) => Some(value),
        Err(Fault { message, remedy }) => {
            findings.error(typed.at, message, remedy);
            None
        }
    }
}

/// `unbuilt` are words of the language that this version cannot do yet.
fn choice<T: Copy>(
    typed: &Text,
    key: &str,
    built: &[(&str, T)],
    unbuilt: &[&str],
    findings: &mut Findings,
) -> Option<T> {
    checked(typed, findings, |text| {
        if let Some((_, value)) = built.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let words: Vec<&str> = built.iter().map(|(word, _)| *word).collect();
        let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        if unbuilt.contains(&text) {
            return Err(fault(format!("`{key} = \"{text}\"` is not built yet"), format!("use {all}")));
        }
        let remedy = match nearest(text, words) {
            Some(word) => format!("did you mean \"{word}\"? known: {all}"),
            None => format!("use {all}"),
        };
        Err(fault(format!("{} is not a value of `{key}`", quote(text)), remedy))
    })
}

fn number<T>(typed: &Number, key: &str, min: T, max: T, findings: &mut Findings) -> Option<T>
where
    T: Copy + Display + PartialOrd + TryFrom<i64>,
{
    let value = T::try_from(typed.value).ok().filter(|value| (min..=max).contains(value));
    if value.is_none() {
        findings.error(
            typed.at,
            format!("`{key}` is out of range: {}", typed.value),
            format!("write {min} to {max}"),
        );
    }
    value
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

/// The same where `"0s"` means never.
fn or_never(
    typed: &Text,
    key: &str,
    (min_text, min): (&str, Duration),
    max: (&str, Duration),
    findings: &mut Findings,
) -> Option<Option<Duration>> {
    if value::duration(&typed.value) == Ok(Duration::ZERO) {
        return Some(None);
    }
    within(typed, key, (&format!("0s, or {min_text}"), min), max, findings).map(Some)
}

/// What was typed of two keys that exclude each other.
enum Either {
    Neither,
    First(Text),
    Second(Text),
}

fn either(
    (first_key, first): (&str, Field<Text>),
    (second_key, second): (&str, Field<Text>),
    findings: &mut Findings,
) -> Option<Either> {
    match (first, second) {
        (Field::Wrong, _) | (_, Field::Wrong) => None,
        (Field::Absent, Field::Absent) => Some(Either::Neither),
        (Field::Given(first), Field::Absent) => Some(Either::First(first)),
        (Field::Absent, Field::Given(second)) => Some(Either::Second(second)),
        (Field::Given(first), Field::Given(second)) => {
            let place = findings.place(first.at);
            let message = format!("`{second_key}` and `{first_key}` ({place}) are both given");
            findings.error(second.at, message, "keep one of the two");
            None
        }
    }
}

/// Names both places of every value that comes again.
fn unique<'a, T: Eq + Hash + 'a>(
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

fn bounded(list: &List, key: &str, max: usize, findings: &mut Findings) {
    if let Some(first_over) = list.value.get(max) {
        let message = format!("`{key}` has {} entries", list.value.len());
        findings.error(first_over.at, message, format!("keep at most {max}"));
    }
}

/// Every entry is looked at; one wrong entry makes the list wrong.
fn unique_list<T: Clone + Eq + Hash>(
    list: List,
    noun: &str,
    findings: &mut Findings,
    read: impl Fn(&str) -> Result<T, Fault>,
) -> Option<Vec<Spanned<T>>> {
    let mut seen = HashSet::new();
    let mut is_whole = true;
    let mut read_all = Vec::new();
    for typed in list.value {
        let Some(value) = checked(&typed, findings, &read) else {
            is_whole = false;
            continue;
        };
        if !seen.insert(value.clone()) {
            let message = format!("the {noun} {} is given twice", quote(&typed.value));
            findings.error(typed.at, message, "keep one of the two");
            is_whole = false;
            continue;
        }
        read_all.push(Spanned::new(typed.at, value));
    }
    is_whole.then_some(read_all)
}

fn values<T>(list: Vec<Spanned<T>>) -> Vec<T> {
    list.into_iter().map(|entry| entry.value).collect()
}

const ADMIN_SOCKET: &str = "/run/steelyard/admin.sock";
const STATE: &str = "/var/lib/steelyard";
/// Shorter than a restart of the daemon would let packets pass at every upgrade.
/// A restart takes a second or two, and waits another for neighbours.
const WATCHDOG_MIN: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PIN: &str = "/sys/fs/bpf/steelyard";
/// sockaddr_un holds 108 bytes, one of them the final NUL.
const SOCKET_PATH_MAX: usize = 107;
/// PATH_MAX without its final NUL.
const PATH_MAX: usize = 4_095;
