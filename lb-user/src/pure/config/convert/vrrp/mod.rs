//! `[[vrrp]]`, `[[vrrp_group]]` and what they track: values, then what one means for another.

mod auth;
mod cast;
mod cross;
mod estate;
mod group;
mod hooks;
mod lint;
mod router;
mod track;
mod tracker;

use std::path::PathBuf;

use super::{
    Either, PATH_MAX,
    check::{Typed, identity as check_identity},
    checked, choice, command, either, name, number, or_never, required, unique, within,
};
use crate::pure::config::{
    error::{Findings, Span, Spanned, quote},
    model::vrrp::{Group, Router, Track, Vrrp},
    raw,
    secret::{Part, SecretFile},
};

/// What the rest of the configuration says that virtual routers depend on.
pub(super) struct Around {
    pub(super) services: Vec<String>,
    /// Whether the datapath is attached anywhere.
    pub(super) forwards: bool,
    /// Whether other nodes of ours are known.
    pub(super) has_peers: bool,
    /// Whether mail is sent.
    pub(super) mails: bool,
}

/// A router with the places of its keys. What has faults is None.
struct Draft {
    at: Span,
    name: Option<Spanned<String>>,
    typed: Typed,
    router: Option<Router>,
    tracks: Vec<Spanned<Track>>,
    secrets: Vec<(Part, PathBuf)>,
}

struct DraftGroup {
    name: Option<Spanned<String>>,
    members: Vec<Spanned<String>>,
    tracks: Vec<Spanned<Track>>,
    group: Option<Group>,
}

pub(super) fn vrrp(
    raw: raw::Vrrp,
    around: &Around,
    findings: &mut Findings,
) -> Option<(Vrrp, Vec<SecretFile>)> {
    let trackers = tracker::trackers(raw.scripts, raw.processes, raw.files, findings);
    let drafts: Vec<_> = raw.routers.into_iter().map(|router| router::draft(router, findings)).collect();
    let groups: Vec<_> = raw.groups.into_iter().map(|group| group::draft(group, findings)).collect();

    cross::routers(&drafts, findings);
    cross::groups(&groups, &drafts, findings);
    cross::tracked(&drafts, &groups, &trackers, around, findings);
    lint::lint(&drafts, &groups, &trackers, around, findings);

    let mut secrets = Vec::new();
    let mut routers = Some(Vec::new());
    for (index, draft) in drafts.into_iter().enumerate() {
        let file = |(part, path)| SecretFile { router: index, part, path };
        secrets.extend(draft.secrets.into_iter().map(file));
        routers = routers.zip(draft.router).map(|(mut all, router)| {
            all.push(router);
            all
        });
    }
    let groups = groups.into_iter().map(|draft| draft.group).collect::<Option<Vec<_>>>();
    let vrrp = Vrrp {
        routers: routers?,
        groups: groups?,
        scripts: tracker::whole(trackers.scripts)?,
        processes: tracker::whole(trackers.processes)?,
        files: tracker::whole(trackers.files)?,
        fifos: Vec::new(),
    };
    Some((vrrp, secrets))
}

impl Draft {
    /// As messages name it.
    fn label(&self) -> String {
        label(self.name.as_ref())
    }
}

fn label(name: Option<&Spanned<String>>) -> String {
    name.map_or_else(|| "without a name".to_owned(), |name| quote(&name.value))
}
