//! `[cluster]`: the other nodes, and what is shared with them.

use std::time::Duration;

use super::{Either, PATH_MAX, bounded, checked, either, number, unique_list, values, within};
use crate::pure::config::{
    address,
    error::{Findings, Span},
    model::{Cluster, Secret},
    raw, value,
};

pub(super) fn cluster(raw: raw::Cluster, findings: &mut Findings) -> Option<Cluster> {
    let secret = secret(("secret", raw.secret), ("secret_file", raw.secret_file), findings);
    let mut peers_at = None;
    let peers = raw.peers.or(Vec::new(), |list| {
        peers_at = Some(list.at);
        bounded(&list, "peers", PEERS_MAX, findings);
        unique_list(list, "address", findings, address::address).map(values)
    });
    let port = raw.port.or(PORT, |typed| number(&typed, "port", 1, PORT_MAX, findings));
    let heartbeat = raw.heartbeat.or(HEARTBEAT, |typed| {
        within(&typed, "heartbeat", ("5ms", HEARTBEAT_MIN), ("1s", HEARTBEAT_MAX), findings)
    });
    let mut patience_at = None;
    let patience = raw.patience.or(PATIENCE.max(heartbeat.unwrap_or_default() * 4), |typed| {
        patience_at = Some(typed.at);
        within(&typed, "patience", ("10ms", PATIENCE_MIN), ("1m", PATIENCE_MAX), findings)
    });
    let cluster =
        Cluster { secret: secret?, peers: peers?, port: port?, heartbeat: heartbeat?, patience: patience? };
    patient(&cluster, patience_at, findings);
    if let Some(at) = peers_at.filter(|_| !cluster.peers.is_empty() && cluster.secret == Secret::Unset) {
        findings.error(
            at,
            "`peers` without a secret: no heartbeat could be believed",
            "add `secret = \"..\"` or `secret_file = \"/..\"`, the same on all nodes",
        );
    }
    Some(cluster)
}

/// One late or lost heartbeat must not look like a dead node.
fn patient(cluster: &Cluster, at: Option<Span>, findings: &mut Findings) {
    if let Some(at) = at.filter(|_| cluster.patience < cluster.heartbeat * 2) {
        findings.error(
            at,
            format!(
                "`patience` ends before a second heartbeat can come: they are {:?} apart",
                cluster.heartbeat
            ),
            format!("write at least \"{:?}\", or shorten `heartbeat`", cluster.heartbeat * 3),
        );
    }
}

type Key<'a> = (&'a str, raw::Field<raw::Text>);

fn secret(inline: Key<'_>, file: Key<'_>, findings: &mut Findings) -> Option<Secret> {
    match either(inline, file, findings)? {
        Either::Neither => Some(Secret::Unset),
        Either::First(secret) if secret.value.is_empty() => {
            findings.error(
                secret.at,
                "`secret` is empty",
                "write a secret, the same on all nodes, or remove the key",
            );
            None
        }
        Either::First(secret) => Some(Secret::Inline(secret.value)),
        Either::Second(file) => {
            checked(&file, findings, |text| value::path(text, PATH_MAX)).map(Secret::File)
        }
    }
}

const PORT: u16 = 8848;
/// The next one is for what is replicated.
const PORT_MAX: u16 = u16::MAX - 1;
const PEERS_MAX: usize = 15;
const HEARTBEAT: Duration = Duration::from_millis(25);
const HEARTBEAT_MIN: Duration = Duration::from_millis(5);
const HEARTBEAT_MAX: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(100);
const PATIENCE_MIN: Duration = Duration::from_millis(10);
const PATIENCE_MAX: Duration = Duration::from_secs(60);
