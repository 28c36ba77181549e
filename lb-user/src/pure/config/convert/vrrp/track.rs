//! What a router or a group tracks, and what becomes of it then.

use super::{checked, number};
use crate::pure::config::{
    error::{Findings, Span, Spanned},
    model::vrrp::{Effect, Track, Tracked},
    raw::{Field, Number, Text, vrrp as raw},
    value,
};

/// None: something in it has a fault.
pub(super) fn tracks(
    interfaces: Field<Vec<Spanned<raw::TrackInterface>>>,
    others: Field<Vec<Spanned<raw::Track>>>,
    findings: &mut Findings,
) -> Option<Vec<Spanned<Track>>> {
    let interfaces = interfaces.or(Vec::new(), |list| {
        let read = |Spanned { at, value: raw }: Spanned<raw::TrackInterface>| {
            let raw::TrackInterface { interface, weight, reverse } = raw;
            let raw = raw::Track { interface, weight, reverse, ..raw::Track::default() };
            track(Spanned::new(at, raw), findings)
        };
        list.into_iter().map(read).collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let others = others.or(Vec::new(), |list| {
        let read: Vec<_> = list.into_iter().map(|raw| track(raw, findings)).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let mut tracks = interfaces?;
    tracks.extend(others?);
    if let Some(over) = tracks.get(TRACKS_MAX) {
        let message = format!("{} things are tracked", tracks.len());
        findings.error(over.at, message, format!("keep at most {TRACKS_MAX}"));
    }
    let mut seen: Vec<&Spanned<Track>> = Vec::new();
    for track in &tracks {
        if let Some(first) = seen.iter().find(|first| first.value.what == track.value.what) {
            let place = findings.place(first.at);
            let message = format!("{} is tracked twice: {place} does already", named(&track.value.what));
            findings.error(track.at, message, "keep one of the two");
        }
        seen.push(track);
    }
    Some(tracks)
}

fn track(raw: Spanned<raw::Track>, findings: &mut Findings) -> Option<Spanned<Track>> {
    let Spanned { at, value: raw } = raw;
    let reverse = raw.reverse.or(false, Some);
    let weight = weight(raw.weight, matches!(raw.file, Field::Given(_)), findings);
    let datapath = raw.datapath.or(false, Some);
    let mut found = Vec::new();
    let mut is_whole = true;
    let named = [
        (raw.script, Tracked::Script as fn(String) -> Tracked),
        (raw.process, Tracked::Process),
        (raw.file, Tracked::File),
        (raw.service, Tracked::Service),
    ];
    for (field, make) in named {
        is_whole &= add(&mut found, field, make, value::name, findings);
    }
    is_whole &= add(&mut found, raw.interface, Tracked::Interface, value::interface, findings);
    if datapath? {
        found.push(Tracked::Datapath);
    }
    if !is_whole {
        return None;
    }
    let what = match (found.pop(), found.is_empty()) {
        (Some(what), true) => what,
        (None, _) => return nothing(at, findings),
        (Some(_), false) => {
            findings.error(at, "one entry of `track` names two things", "write an entry for each");
            return None;
        }
    };
    let effect = effect(&what, weight?, reverse?);
    Some(Spanned::new(at, Track { what, effect }))
}

/// False: it was typed, and is wrong.
fn add(
    found: &mut Vec<Tracked>,
    field: Field<Text>,
    make: fn(String) -> Tracked,
    read: fn(&str) -> Result<String, value::Fault>,
    findings: &mut Findings,
) -> bool {
    match field {
        Field::Absent => true,
        Field::Wrong => false,
        Field::Given(typed) => {
            let name = checked(&typed, findings, read);
            found.extend(name.clone().map(make));
            name.is_some()
        }
    }
}

fn nothing(at: Span, findings: &mut Findings) -> Option<Spanned<Track>> {
    findings.error(
        at,
        "this entry of `track` names nothing",
        "add `interface`, `script`, `process`, `file` or `service` with a name, or `datapath = true`",
    );
    None
}

/// None in it: no weight was typed.
fn weight(raw: Field<Number>, of_file: bool, findings: &mut Findings) -> Option<Option<i16>> {
    let max = if of_file { FILE_WEIGHT_MAX } else { WEIGHT_MAX };
    raw.or(None, |typed| number(&typed, "weight", -max, max, findings).map(Some))
}

/// As Keepalived has it: a file's number counts once where no weight is given, and everything else that has
/// none decides about Fault.
fn effect(what: &Tracked, weight: Option<i16>, reverse: bool) -> Effect {
    match (what, weight) {
        (Tracked::File(_), None) => Effect::Scaled { weight: if reverse { -1 } else { 1 } },
        (_, None | Some(0)) => Effect::Fault { reverse },
        (Tracked::File(_), Some(weight)) => Effect::Scaled { weight: if reverse { -weight } else { weight } },
        (_, Some(weight)) => Effect::Weight { weight, reverse },
    }
}

pub(super) fn named(what: &Tracked) -> String {
    match what {
        Tracked::Interface(name) => format!("interface `{name}`"),
        Tracked::Script(name) => format!("script `{name}`"),
        Tracked::Process(name) => format!("process `{name}`"),
        Tracked::File(name) => format!("file `{name}`"),
        Tracked::Service(name) => format!("service `{name}`"),
        Tracked::Datapath => "the datapath".to_owned(),
    }
}

const WEIGHT_MAX: i16 = 253;
const FILE_WEIGHT_MAX: i16 = 254;
const TRACKS_MAX: usize = 64;
