//! One `[[vrrp_group]]`.

use super::{DraftGroup, checked, hooks, name, required, track};
use crate::pure::config::{
    error::{Findings, Spanned},
    model::vrrp::Group,
    raw::vrrp as raw,
    value,
};

pub(super) fn draft(raw: Spanned<raw::Group>, findings: &mut Findings) -> DraftGroup {
    let Spanned { at, value: raw } = raw;
    let name = name(raw.name, at, findings);
    let typed = required(raw.members, "members", "[\"VI_1\", \"VI_2\"]", at, findings);
    let mut members = Vec::new();
    let mut is_whole = false;
    if let Some(list) = typed {
        if list.value.is_empty() {
            findings.error(list.at, "`members` is empty", "list the routers of the group by their names");
        }
        let read = |typed| checked(typed, findings, value::name).map(|name| Spanned::new(typed.at, name));
        members = list.value.iter().filter_map(read).collect();
        is_whole = members.len() == list.value.len() && !members.is_empty();
    }
    let tracks = track::tracks(raw.track_interfaces, raw.track, findings);
    let notify = hooks::hooks(raw.hooks, findings);
    let group = name.as_ref().filter(|_| is_whole).zip(tracks.as_ref()).zip(notify).map(
        |((name, tracks), notify)| Group {
            name: name.value.clone(),
            members: members.iter().map(|member| member.value.clone()).collect(),
            track: tracks.iter().map(|track| track.value.clone()).collect(),
            notify,
        },
    );
    DraftGroup { name, members, tracks: tracks.unwrap_or_default(), group }
}
