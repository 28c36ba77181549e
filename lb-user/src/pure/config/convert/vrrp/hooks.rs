//! Programs that a router or a group tells of its changes.

use super::{check_identity, checked, command};
use crate::pure::config::{
    error::Findings,
    model::vrrp::{Hook, Hooks},
    raw::{Field, List, vrrp as raw},
};

pub(super) fn hooks(raw: raw::Hooks, findings: &mut Findings) -> Option<Hooks> {
    let user = raw.user.or(None, |typed| checked(&typed, findings, check_identity).map(Some));
    let mut hook = |list: Field<List>, key| {
        list.or(None, |list| {
            let command = command::named(list, key, findings)?;
            Some(Some(Hook { command, user: user.clone().flatten() }))
        })
    };
    let any = hook(raw.any, "notify");
    let master = hook(raw.master, "notify_master");
    let backup = hook(raw.backup, "notify_backup");
    let fault = hook(raw.fault, "notify_fault");
    let stop = hook(raw.stop, "notify_stop");
    let deleted = hook(raw.deleted, "notify_deleted");
    let lower_priority = hook(raw.lower_priority, "notify_master_rx_lower_pri");
    user?;
    Some(Hooks {
        any: any?,
        master: master?,
        backup: backup?,
        fault: fault?,
        stop: stop?,
        deleted: deleted?,
        lower_priority: lower_priority?,
        mail: raw.mail.or(false, Some)?,
    })
}
