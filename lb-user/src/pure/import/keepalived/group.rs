//! `vrrp_sync_group`.

use super::{
    global::Globals,
    instance::tracked,
    notify::Told,
    parser::Statement,
    track::{Entry, Tracker, Trackers, entries},
    value::{extra, name, only, unknown, unused},
};
use crate::pure::config::{
    error::{Findings, Spanned, quote},
    model::vrrp::Group,
};

pub(super) struct Draft {
    name: Spanned<String>,
    order: usize,
    pub members: Vec<Spanned<String>>,
    track: Vec<Entry>,
    told: Told,
    /// Members may have weights of their own.
    pub has_weights: bool,
}

impl Draft {
    pub(super) fn read(block: &Statement, order: usize, findings: &mut Findings) -> Option<Draft> {
        let name = name(only(block, findings)?, findings);
        let mut draft = Draft {
            name,
            order,
            members: Vec::new(),
            track: Vec::new(),
            told: Told::default(),
            has_weights: false,
        };
        for statement in block.children() {
            match statement.keyword() {
                "group" => {
                    let words = statement.children().iter().flat_map(|child| &child.words);
                    draft.members.extend(words.map(|word| super::value::name(word, findings)));
                }
                "global_tracking" | "sync_group_tracking_weight" => {
                    extra(statement.values(), findings);
                    draft.has_weights = true;
                }
                "notify_priority_changes" => {
                    unused(
                        statement,
                        "changes of the priority are events, and not written to FIFOs",
                        findings,
                    );
                }
                "track_bfd" => unused(statement, "BFD is not built", findings),
                keyword => match tracked(keyword) {
                    Some(what) => draft.track.extend(entries(statement, what, findings)),
                    None if draft.told.read(statement, findings) => {}
                    None => unknown(statement, "vrrp_sync_group", &WORDS, findings),
                },
            }
        }
        Some(draft)
    }

    /// `routers`: their names, and whether each is in a group already.
    pub(super) fn finish(
        self,
        globals: &Globals,
        trackers: &mut Trackers,
        is_known: impl Fn(&str) -> bool,
        taken: &mut Vec<String>,
        findings: &mut Findings,
    ) -> Option<Spanned<Group>> {
        let mut members = Vec::new();
        for Spanned { at, value: member } in self.members {
            if !is_known(&member) {
                let message =
                    format!("there is no vrrp_instance {}: it is ignored, as in Keepalived", quote(&member));
                findings.warning(at, message, "correct the name, or remove it");
            } else if taken.contains(&member) {
                let message =
                    format!("{} is in a group already: it is ignored, as in Keepalived", quote(&member));
                findings.warning(at, message, "keep it in one group");
            } else {
                taken.push(member.clone());
                members.push(member);
            }
        }
        if members.is_empty() {
            let message = format!(
                "the group {} has no member: it is left out, as in Keepalived",
                quote(&self.name.value)
            );
            findings.warning(self.name.at, message, "add `group { NAME .. }`");
            return None;
        }
        let label = format!("the group `{}`", self.name.value);
        let who = Tracker { label: &label, interface: None, unweighted: None, order: self.order };
        let track = trackers.resolve(self.track, &who, findings);
        let notify = self.told.finish(globals.smtp_alert, globals.script_user.as_deref());
        Some(Spanned::new(self.name.at, Group { name: self.name.value, members, track, notify }))
    }
}

const WORDS: [&str; 13] = [
    "group",
    "track_interface",
    "track_script",
    "track_process",
    "track_file",
    "sync_group_tracking_weight",
    "global_tracking",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "smtp_alert",
];
