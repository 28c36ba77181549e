//! What works, and is probably not meant: each is a warning.

use std::{collections::HashSet, time::Duration};

use super::{Around, Draft, DraftGroup, track::named, tracker::Trackers};
use crate::pure::config::{
    error::{Findings, Span, Spanned},
    model::vrrp::{Effect, Hooks, Preempt, Router, Track, Tracked, Version, Wish},
};

pub(super) fn lint(
    drafts: &[Draft],
    groups: &[DraftGroup],
    trackers: &Trackers,
    around: &Around,
    findings: &mut Findings,
) {
    for draft in drafts {
        let Some(router) = &draft.router else { continue };
        weights(draft, router, group_of(router, groups), around, findings);
        skew(draft, router, around, findings);
        wish(draft, router, findings);
        labels(draft, router, findings);
        silence(draft, router, findings);
        mail(draft.typed.at("smtp_alert"), &router.notify, around, findings);
    }
    for (name, group) in groups.iter().filter_map(|draft| Some((draft.name.as_ref()?, draft.group.as_ref()?)))
    {
        mail(Some(name.at), &group.notify, around, findings);
    }
    idle(drafts, groups, trackers, findings);
}

/// Whether what is tracked can move the addresses at all.
fn weights(draft: &Draft, router: &Router, group: Option<&str>, around: &Around, findings: &mut Findings) {
    let weighted: Vec<&Spanned<Track>> =
        draft.tracks.iter().filter(|track| !matches!(track.value.effect, Effect::Fault { .. })).collect();
    let Some(first) = weighted.first() else { return };
    if router.is_owner() {
        findings.warning(
            first.at,
            "a weight does nothing here: priority 255 owns the addresses, and does not change",
            "remove `weight`, so that a failure is a fault, or lower `priority`",
        );
        return;
    }
    if let Some(group) = group {
        findings.warning(
            first.at,
            format!("a weight of one router does nothing in group `{group}`, whose routers change together"),
            "move it to `track` of the [[vrrp_group]]",
        );
        return;
    }
    if router.preempt == Preempt::Never && !around.has_peers {
        findings.warning(
            first.at,
            "a weight moves nothing where no router preempts: the others wait until this one is silent",
            "remove `weight`, so that a failure is a fault, or name the other nodes in [cluster] `peers`",
        );
    }
    let (low, high) = range(router.priority, &weighted);
    if low < 1 || high > 254 {
        let at =
            if low < 1 { lowest(&weighted) } else { highest(&weighted) }.map_or(first.at, |track| track.at);
        findings.warning(
            at,
            format!("with all weights the priority is {low} to {high}, and 1 to 254 is what there is"),
            "choose smaller weights, or a `priority` with room for them",
        );
    }
}

fn group_of<'a>(router: &Router, groups: &'a [DraftGroup]) -> Option<&'a str> {
    let has = |draft: &&DraftGroup| draft.members.iter().any(|member| member.value == router.name);
    groups.iter().find(has)?.name.as_ref().map(|name| name.value.as_str())
}

/// The priorities that scripts and the like can make, before they are clamped. A file's number is unknown.
fn range(priority: u8, weighted: &[&Spanned<Track>]) -> (i32, i32) {
    let (mut low, mut high) = (i32::from(priority), i32::from(priority));
    for change in weighted.iter().filter_map(|track| change(&track.value)) {
        low += change.min(0);
        high += change.max(0);
    }
    (low, high)
}

/// What it adds at one of its two ends; at the other, nothing.
fn change(track: &Track) -> Option<i32> {
    match track.effect {
        Effect::Weight { weight, reverse: false } => Some(weight.into()),
        Effect::Weight { weight, reverse: true } => Some(-i32::from(weight)),
        Effect::Fault { .. } | Effect::Scaled { .. } => None,
    }
}

fn lowest<'a>(weighted: &[&'a Spanned<Track>]) -> Option<&'a Spanned<Track>> {
    weighted.iter().copied().min_by_key(|track| change(&track.value))
}

fn highest<'a>(weighted: &[&'a Spanned<Track>]) -> Option<&'a Spanned<Track>> {
    weighted.iter().copied().max_by_key(|track| change(&track.value))
}

/// A router that is told to take over waits for its skew. Between nodes of ours nobody waits.
fn skew(draft: &Draft, router: &Router, around: &Around, findings: &mut Findings) {
    let skew = router.skew(router.interval);
    if around.has_peers || router.is_owner() || skew <= SKEW_MAX {
        return;
    }
    let short = match router.version {
        Version::V2 => "",
        Version::V3 => ", a shorter `advert_interval`",
    };
    findings.warning(
        draft.typed.near("priority"),
        format!(
            "a graceful fail-over takes {} ms here: so long this router waits (Skew_Time) once the active one resigned",
            skew.as_millis()
        ),
        format!(
            "use priorities close to 255 on all routers, such as 254 and 250{short}, or name nodes of steelyard in [cluster] `peers`"
        ),
    );
}

fn wish(draft: &Draft, router: &Router, findings: &mut Findings) {
    if let Some(at) = draft.typed.at("state")
        && router.wish == Wish::Master
        && router.preempt == Preempt::Never
    {
        findings.warning(
            at,
            "`state = \"master\"` and `preempt = false` contradict each other",
            "remove `state`: without preemption whoever is active stays so",
        );
    }
}

/// The kernel takes any label; tools that list addresses by interface show those that begin with its name.
fn labels(draft: &Draft, router: &Router, findings: &mut Findings) {
    let addresses = router.addresses.iter().chain(&router.excluded);
    for address in addresses {
        let dev = address.dev.as_ref().unwrap_or(&router.interface);
        if let Some(label) = address.label.as_ref().filter(|label| !label.starts_with(dev.as_str())) {
            findings.warning(
                draft.typed.near("addresses"),
                format!("the label `{label}` does not begin with `{dev}`: `ifconfig` and `ip` will not show it there"),
                format!("write \"{dev}:{label}\""),
            );
        }
    }
}

/// A router without addresses is for clouds, where a program moves them.
fn silence(draft: &Draft, router: &Router, findings: &mut Findings) {
    let moves = !router.addresses.is_empty() || !router.excluded.is_empty() || !router.routes.is_empty();
    let tells = router.notify.any.is_some() || router.notify.master.is_some();
    if !moves && !tells {
        findings.warning(
            draft.at,
            format!(
                "router {} has no addresses and tells nobody: becoming active changes nothing",
                draft.label()
            ),
            "add `addresses`, or `notify_master` with a program that moves them",
        );
    }
}

fn mail(at: Option<Span>, hooks: &Hooks, around: &Around, findings: &mut Findings) {
    if let Some(at) = at.filter(|_| hooks.mail && !around.mails) {
        findings.warning(at, "no mail is sent: [notify] has no `email`", "add it, or remove `smtp_alert`");
    }
}

/// What nobody tracks is not run.
fn idle(drafts: &[Draft], groups: &[DraftGroup], trackers: &Trackers, findings: &mut Findings) {
    let tracks = drafts.iter().flat_map(|draft| &draft.tracks);
    let tracks = tracks.chain(groups.iter().flat_map(|group| &group.tracks));
    let tracked: HashSet<&Tracked> = tracks.map(|track| &track.value.what).collect();
    let scripts = trackers.scripts.iter().filter_map(|tracker| tracker.name.as_ref());
    let processes = trackers.processes.iter().filter_map(|tracker| tracker.name.as_ref());
    let files = trackers.files.iter().filter_map(|tracker| tracker.name.as_ref());
    let all = scripts
        .map(|name| (name.at, Tracked::Script(name.value.clone())))
        .chain(processes.map(|name| (name.at, Tracked::Process(name.value.clone()))))
        .chain(files.map(|name| (name.at, Tracked::File(name.value.clone()))));
    for (at, what) in all.filter(|(_, what)| !tracked.contains(what)) {
        let message = format!("nobody tracks {}: it is not looked at", named(&what));
        findings.warning(at, message, "add it to `track` of a [[vrrp]], or remove it");
    }
}

/// Longer outages are noticed.
const SKEW_MAX: Duration = Duration::from_millis(100);
