//! `[[track_script]]`, `[[track_process]]` and `[[track_file]]`.

use std::time::Duration;

use super::{PATH_MAX, check_identity, checked, command, name, number, required, within};
use crate::pure::config::{
    error::{Findings, Spanned, quote},
    model::vrrp::{Process, Script, TrackFile},
    raw::vrrp as raw,
    value::{self, Fault, fault},
};

pub(super) struct Trackers {
    pub(super) scripts: Vec<Tracker<Script>>,
    pub(super) processes: Vec<Tracker<Process>>,
    pub(super) files: Vec<Tracker<TrackFile>>,
}

/// None: it has faults.
pub(super) struct Tracker<T> {
    pub(super) name: Option<Spanned<String>>,
    tracker: Option<T>,
}

pub(super) fn trackers(
    scripts: Vec<Spanned<raw::Script>>,
    processes: Vec<Spanned<raw::Process>>,
    files: Vec<Spanned<raw::TrackFile>>,
    findings: &mut Findings,
) -> Trackers {
    Trackers {
        scripts: scripts.into_iter().map(|raw| script(raw, findings)).collect(),
        processes: processes.into_iter().map(|raw| process(raw, findings)).collect(),
        files: files.into_iter().map(|raw| file(raw, findings)).collect(),
    }
}

/// None: one of them has faults.
pub(super) fn whole<T>(trackers: Vec<Tracker<T>>) -> Option<Vec<T>> {
    trackers.into_iter().map(|tracker| tracker.tracker).collect()
}

fn script(raw: Spanned<raw::Script>, findings: &mut Findings) -> Tracker<Script> {
    let Spanned { at, value: raw } = raw;
    let name = name(raw.name, at, findings);
    let command = required(raw.command, "command", "\"/etc/steelyard/check.sh\"", at, findings)
        .and_then(|list| command::named(list, "command", findings));
    let interval = raw
        .interval
        .or(SECOND, |typed| within(&typed, "interval", ("10ms", INTERVAL_MIN), ("24h", DAY), findings));
    let timeout = raw.timeout.or(interval.unwrap_or(SECOND), |typed| {
        within(&typed, "timeout", ("1ms", TIMEOUT_MIN), ("1h", HOUR), findings)
    });
    let rise = raw.rise.or(1, |typed| number(&typed, "rise", 1, COUNT_MAX, findings));
    let fall = raw.fall.or(1, |typed| number(&typed, "fall", 1, COUNT_MAX, findings));
    let user = raw.user.or(None, |typed| checked(&typed, findings, check_identity).map(Some));
    let init_fail = raw.init_fail.or(false, Some);
    let build = |name: &Spanned<String>| {
        Some(Script {
            name: name.value.clone(),
            command: command?,
            interval: interval?,
            timeout: timeout?,
            rise: rise?,
            fall: fall?,
            user: user?,
            init_fail: init_fail?,
        })
    };
    Tracker { tracker: name.as_ref().and_then(build), name }
}

fn process(raw: Spanned<raw::Process>, findings: &mut Findings) -> Tracker<Process> {
    let Spanned { at, value: raw } = raw;
    let name = name(raw.name, at, findings);
    let process = required(raw.process, "process", "\"nginx\"", at, findings)
        .and_then(|typed| checked(&typed, findings, program));
    let quorum = raw.quorum.or(1, |typed| number(&typed, "quorum", 0, QUORUM_MAX, findings));
    let quorum_max =
        raw.quorum_max.or(None, |typed| number(&typed, "quorum_max", 0, QUORUM_MAX, findings).map(Some));
    let delay = raw
        .delay
        .or(Duration::ZERO, |typed| within(&typed, "delay", ("0s", Duration::ZERO), ("1h", HOUR), findings));
    if let (Some(min), Some(Some(max))) = (quorum, quorum_max)
        && max < min
    {
        let message = format!("no number of processes is from {min} to {max}");
        findings.error(at, message, "let `quorum` be the smaller one");
    }
    let build = |name: &Spanned<String>| {
        Some(Process {
            name: name.value.clone(),
            process: process?,
            quorum: quorum?,
            quorum_max: quorum_max?,
            delay: delay?,
        })
    };
    Tracker { tracker: name.as_ref().and_then(build), name }
}

fn file(raw: Spanned<raw::TrackFile>, findings: &mut Findings) -> Tracker<TrackFile> {
    let Spanned { at, value: raw } = raw;
    let name = name(raw.name, at, findings);
    let path = required(raw.file, "file", "\"/etc/steelyard/priority\"", at, findings)
        .and_then(|typed| checked(&typed, findings, |text| value::path(text, PATH_MAX)));
    let interval = raw
        .interval
        .or(SECOND, |typed| within(&typed, "interval", ("10ms", INTERVAL_MIN), ("24h", DAY), findings));
    let build = |name: &Spanned<String>| {
        Some(TrackFile { name: name.value.clone(), path: path?, interval: interval? })
    };
    Tracker { tracker: name.as_ref().and_then(build), name }
}

/// A path, or a file's name alone.
fn program(text: &str) -> Result<String, Fault> {
    let is_name = !text.contains('/') && !text.bytes().any(|byte| byte.is_ascii_control());
    if text.is_empty() || text.len() > PATH_MAX || !(text.starts_with('/') || is_name) {
        return Err(fault(
            format!("{} is neither a program's name nor its path", quote(text)),
            "write it as `ps -e` shows it, or the whole path, starting with `/`",
        ));
    }
    Ok(text.into())
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Of `rise` and `fall`.
const COUNT_MAX: u32 = 65_535;
const QUORUM_MAX: u32 = 65_535;
