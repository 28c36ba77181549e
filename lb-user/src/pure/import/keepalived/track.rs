//! What routers and groups track: the things themselves, and what each does to whoever tracks it.

use std::time::Duration;

use super::{
    notify::{runnable, split, user},
    parser::{Statement, Word},
    value::{self, again, extra, name, number, only, refused, timer, unknown, unused},
};
use crate::pure::config::{
    command,
    error::{Findings, Span, Spanned, quote},
    model::vrrp::{Effect, Process, Script, Track, TrackFile, Tracked},
    value as config_value,
};

/// All of them; only those that somebody tracks are kept.
#[derive(Default)]
pub(super) struct Trackers {
    pub scripts: Vec<Known<Script>>,
    pub processes: Vec<Known<Process>>,
    pub files: Vec<Known<TrackFile>>,
}

pub(super) struct Known<T> {
    pub what: T,
    pub name: Spanned<String>,
    /// Of whoever tracks it without saying one.
    weight: Weight,
    /// Among the blocks of all files.
    order: usize,
    pub is_tracked: bool,
}

#[derive(Clone, Copy)]
struct Weight {
    weight: i16,
    is_reversed: bool,
}

/// One line of a `track_` block, before it is known what it means.
pub(super) struct Entry {
    what: Tracked,
    at: Span,
    /// None: the tracked thing's own.
    weight: Option<Weight>,
}

/// Who tracks.
pub(super) struct Tracker<'a> {
    pub label: &'a str,
    /// Its own interface, which it tracks anyway.
    pub interface: Option<&'a str>,
    /// Why it has no weights.
    pub unweighted: Option<&'static str>,
    pub order: usize,
}

impl Trackers {
    pub(super) fn script(&mut self, statement: &Statement, order: usize, findings: &mut Findings) {
        let Some(name) = new_name(statement, &self.scripts, findings) else { return };
        let mut weight = Weight { weight: 0, is_reversed: false };
        let mut read = Script {
            name: name.value.clone(),
            command: Vec::new(),
            interval: SECOND,
            timeout: Duration::ZERO,
            rise: 1,
            fall: 1,
            user: None,
            init_fail: false,
        };
        for (at, child) in statement.children().iter().enumerate() {
            let before =
                statement.children()[..at].iter().rfind(|before| before.keyword() == child.keyword());
            again(child, before.map(Statement::at), findings);
            let is_known = script_word(&mut read, &mut weight, child, findings);
            if !is_known {
                unknown(child, "vrrp_script", &SCRIPT_WORDS, findings);
            }
        }
        if read.command.is_empty() {
            let message =
                format!("the script {} has no program: it is ignored, as in Keepalived", quote(&name.value));
            findings.warning(name.at, message, "add `script \"/path/to/program\"`");
            return;
        }
        if read.timeout.is_zero() {
            read.timeout = read.interval.min(TIMEOUT_MAX);
        }
        self.scripts.push(Known { what: read, name, weight, order, is_tracked: false });
    }

    pub(super) fn process(&mut self, statement: &Statement, order: usize, findings: &mut Findings) {
        let Some(name) = new_name(statement, &self.processes, findings) else { return };
        let is_given = |keyword| statement.children().iter().any(|child| child.keyword() == keyword);
        let mut weight = Weight { weight: 1, is_reversed: false };
        let mut read = Process {
            name: name.value.clone(),
            process: String::new(),
            quorum: 1,
            quorum_max: None,
            delay: Duration::ZERO,
        };
        for child in statement.children() {
            if !process_word(&mut read, &mut weight, child, findings) {
                unknown(child, "vrrp_track_process", &PROCESS_WORDS, findings);
            }
        }
        if command::program(&read.process).is_err() {
            let message =
                format!("the process {} has no `process` with a name: it is ignored", quote(&name.value));
            findings.warning(name.at, message, "add `process NAME`");
            return;
        }
        if !is_given("quorum") {
            read.quorum = read.quorum.min(read.quorum_max.unwrap_or(1));
        }
        if read.quorum_max.is_some_and(|max| max < read.quorum) {
            let message = "`quorum_max` is less than `quorum`: it is ignored";
            findings.warning(name.at, message, "let `quorum` be the smaller one");
            read.quorum_max = None;
        }
        self.processes.push(Known { what: read, name, weight, order, is_tracked: false });
    }

    pub(super) fn file(&mut self, statement: &Statement, order: usize, findings: &mut Findings) {
        let Some(name) = new_name(statement, &self.files, findings) else { return };
        let mut weight = Weight { weight: 1, is_reversed: false };
        let mut read = TrackFile { name: name.value.clone(), path: "".into(), interval: FILE_INTERVAL };
        for child in statement.children() {
            match child.keyword() {
                "file" => {
                    if let Some(word) = only(child, findings) {
                        read.path = word.text.clone().into();
                    }
                }
                "weight" => own_weight(child, -254..=254, &mut weight, findings),
                "init_file" => unused(child, "the file is read, never written", findings),
                _ => unknown(child, "track_file", &["file", "weight", "init_file"], findings),
            }
        }
        if config_value::path(&read.path.to_string_lossy(), PATH_MAX).is_err() {
            let message = format!("the file {} has no absolute path: it is ignored", quote(&name.value));
            findings.warning(name.at, message, "add `file /path/to/file`");
            return;
        }
        self.files.push(Known { what: read, name, weight, order, is_tracked: false });
    }

    /// What the entries mean for their tracker.
    pub(super) fn resolve(
        &mut self,
        entries: Vec<Entry>,
        who: &Tracker<'_>,
        findings: &mut Findings,
    ) -> Vec<Track> {
        let mut tracks: Vec<Track> = Vec::new();
        for entry in entries {
            if tracks.iter().any(|track| track.what == entry.what) {
                let message = "this is tracked already: the line is ignored, as in Keepalived";
                findings.warning(entry.at, message, "keep one of the two");
                continue;
            }
            if tracks.len() == TRACKS_MAX {
                let message = format!("{} tracks {TRACKS_MAX} things already: this is left out", who.label);
                findings.warning(entry.at, message, "track less");
                break;
            }
            let Some(own) = self.own_weight(&entry, who, findings) else { continue };
            let effect = effect(&entry.what, entry.weight.unwrap_or(own));
            if let (Some(why), Effect::Weight { .. } | Effect::Scaled { .. }) = (who.unweighted, effect) {
                let message = format!(
                    "{} tracks nothing with a weight, because {why}: this is ignored, as in Keepalived",
                    who.label
                );
                findings.warning(entry.at, message, "write `weight 0` to make its failure a fault");
                continue;
            }
            tracks.push(Track { what: entry.what, effect });
        }
        tracks
    }

    /// None: there is no such thing, or it is not to be tracked.
    fn own_weight(&mut self, entry: &Entry, who: &Tracker<'_>, findings: &mut Findings) -> Option<Weight> {
        let found = match &entry.what {
            Tracked::Interface(name) if who.interface == Some(name) => {
                let message = format!(
                    "{} tracks its own interface anyway: this is ignored, as in Keepalived",
                    who.label
                );
                findings.warning(entry.at, message, "remove the line");
                return None;
            }
            Tracked::Interface(_) | Tracked::Service(_) | Tracked::Datapath => {
                return Some(Weight { weight: 0, is_reversed: false });
            }
            Tracked::Script(name) => track(&mut self.scripts, name),
            Tracked::Process(name) => track(&mut self.processes, name),
            Tracked::File(name) => track(&mut self.files, name),
        };
        let Some((weight, order)) = found else {
            let message = format!(
                "{} tracks something that does not exist: this is ignored, as in Keepalived",
                who.label
            );
            findings.warning(entry.at, message, "correct the name, or add what it names");
            return None;
        };
        if order > who.order {
            let message =
                "Keepalived finds only what stands above, and would not track this; here it is tracked";
            findings.warning(
                entry.at,
                message,
                "move what it names above this block, on the other nodes, too",
            );
        }
        Some(weight)
    }
}

fn track<T>(known: &mut [Known<T>], name: &str) -> Option<(Weight, usize)> {
    let found = known.iter_mut().find(|known| known.name.value == name)?;
    found.is_tracked = true;
    Some((found.weight, found.order))
}

/// Those that somebody tracks.
pub(super) fn tracked<T>(known: Vec<Known<T>>, findings: &mut Findings) -> Vec<Spanned<T>> {
    let mut kept = Vec::new();
    for Known { what, name, is_tracked, .. } in known {
        if is_tracked {
            kept.push(Spanned::new(name.at, what));
        } else {
            let message = format!(
                "nobody tracks {}: it is left out, and Keepalived does not run it either",
                quote(&name.value)
            );
            findings.warning(
                name.at,
                message,
                "track it in a vrrp_instance or a vrrp_sync_group, or remove it",
            );
        }
    }
    kept
}

fn new_name<T>(
    statement: &Statement,
    known: &[Known<T>],
    findings: &mut Findings,
) -> Option<Spanned<String>> {
    let name = name(only(statement, findings)?, findings);
    if let Some(first) = known.iter().find(|known| known.name.value == name.value) {
        let message = format!(
            "{} exists already ({}): this block is ignored, as in Keepalived",
            quote(&name.value),
            findings.place(first.name.at)
        );
        findings.warning(name.at, message, "give it another name");
        return None;
    }
    Some(name)
}

fn script_word(read: &mut Script, weight: &mut Weight, child: &Statement, findings: &mut Findings) -> bool {
    let one = "1 second is taken";
    match child.keyword() {
        "script" => read.command = command(child, findings),
        "interval" => {
            let interval = timer(child, INTERVALS_US, one, findings).unwrap_or(SECOND);
            read.interval = at_most(interval, INTERVAL_MAX, child, findings);
        }
        "timeout" => {
            let timeout = timer(child, INTERVALS_US, one, findings).unwrap_or(SECOND);
            read.timeout = at_most(timeout, TIMEOUT_MAX, child, findings);
        }
        "rise" => read.rise = number(child, (1, COUNT_MAX), "1 is taken", findings).unwrap_or(1),
        "fall" => read.fall = number(child, (1, COUNT_MAX), "1 is taken", findings).unwrap_or(1),
        "weight" => own_weight(child, -253..=253, weight, findings),
        "user" => read.user = user(child.values(), findings).or(read.user.take()),
        "init_fail" => {
            extra(child.values(), findings);
            read.init_fail = true;
            let message = "`init_fail` works here as documented: failed until it succeeded `rise` times; Keepalived up to 2.4 ignores it";
            findings.warning(child.at(), message, "remove it to have the first result decide");
        }
        _ => return false,
    }
    true
}

fn at_most(typed: Duration, max: Duration, child: &Statement, findings: &mut Findings) -> Duration {
    if typed > max {
        let message =
            format!("`{}` is {} seconds here at the most, and that is taken", child.keyword(), max.as_secs());
        findings.warning(child.at(), message, "write less");
    }
    typed.min(max)
}

/// Of a script: all of one quoted string, or the words as they stand.
fn command(child: &Statement, findings: &mut Findings) -> Vec<String> {
    let Some((first, rest)) = child.values().split_first() else {
        only(child, findings);
        return Vec::new();
    };
    let mut command = split(first);
    if let Some(argument) = rest.first().filter(|word| !word.text.starts_with("//")) {
        let message = format!(
            "{} and what follows are arguments here; Keepalived 2.2 runs the script without them",
            quote(&argument.text)
        );
        findings.warning(argument.at, message, "put the script and its arguments into quotes");
        command.extend(rest.iter().map(|word| word.text.clone()));
    } else {
        extra(rest, findings);
    }
    runnable(command, first.at, findings).unwrap_or_default()
}

fn process_word(read: &mut Process, weight: &mut Weight, child: &Statement, findings: &mut Findings) -> bool {
    match child.keyword() {
        "process" => {
            let Some((process, arguments)) = child.values().split_first() else {
                only(child, findings);
                return true;
            };
            read.process = process.text.clone();
            if let Some(first) = arguments.first() {
                let message = format!(
                    "{} is left out: processes are told by their name, whatever their arguments are",
                    quote(&first.text)
                );
                findings.warning(
                    first.at,
                    message,
                    "track the process by a script, when its arguments matter",
                );
            }
        }
        "quorum" => read.quorum = number(child, (1, COUNT_MAX), "1 is taken", findings).unwrap_or(1),
        "quorum_max" => read.quorum_max = number(child, (0, COUNT_MAX), "there is none", findings),
        "delay" => read.delay = timer(child, DELAYS_US, "there is none", findings).unwrap_or_default(),
        "fork_delay" | "terminate_delay" => {
            let delay = timer(child, DELAYS_US, "there is none", findings).unwrap_or_default();
            read.delay = read.delay.max(delay);
            let message = format!("`{}` holds for both directions here", child.keyword());
            findings.warning(child.at(), message, "write `delay`, which holds for both");
        }
        "weight" => own_weight(child, -254..=254, weight, findings),
        "param_match" | "full_command" => unused(child, "processes are told by their name", findings),
        _ => return false,
    }
    true
}

fn own_weight(
    child: &Statement,
    range: std::ops::RangeInclusive<i64>,
    weight: &mut Weight,
    findings: &mut Findings,
) {
    let Some((word, rest)) = child.values().split_first() else {
        only(child, findings);
        return;
    };
    match weight_of(word, rest, range.clone(), findings) {
        Some(given) => *weight = given,
        None => {
            let remedy = format!("write {} to {}", range.start(), range.end());
            refused(child, word, "the weight is ignored", &remedy, findings);
        }
    }
}

/// `N [reverse|noreverse]`
fn weight_of(
    word: &Word,
    rest: &[Word],
    range: std::ops::RangeInclusive<i64>,
    findings: &mut Findings,
) -> Option<Weight> {
    let number: i64 = word.text.parse().ok()?;
    if number.abs() == 254 && *range.end() == 253 {
        findings.warning(
            word.at,
            format!("{number} is too much: 253 is taken, as in Keepalived"),
            "write -253 to 253",
        );
    } else if !range.contains(&number) {
        return None;
    }
    let limited = if *range.end() == 253 { number.clamp(-253, 253) } else { number };
    let (is_reversed, rest) = match rest.split_first() {
        Some((word, rest)) if word.text == "reverse" => (true, rest),
        Some((word, rest)) if word.text == "noreverse" => (false, rest),
        _ => (false, rest),
    };
    extra(rest, findings);
    Some(Weight { weight: i16::try_from(limited).ok()?, is_reversed })
}

/// The lines of a `track_` block.
pub(super) fn entries(
    statement: &Statement,
    what: fn(String) -> Tracked,
    findings: &mut Findings,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for child in statement.children() {
        let range = match what(String::new()) {
            Tracked::Interface(_) | Tracked::Script(_) => -253..=253,
            _ => -254..=254,
        };
        let is_interface = matches!(what(String::new()), Tracked::Interface(_));
        let first = &child.words[0];
        let name = match is_interface {
            true => value::interface(first, findings),
            false => Some(name(first, &mut *findings).value),
        };
        let Some(name) = name else { continue };
        let weight = match child.values() {
            [] => None,
            [word, number, rest @ ..] if word.text == "weight" => {
                let weight = weight_of(number, rest, range.clone(), findings);
                if weight.is_none() {
                    let message =
                        format!("{} is no weight: it is ignored, as in Keepalived", quote(&number.text));
                    let remedy = format!("write {} to {}", range.start(), range.end());
                    findings.warning(number.at, message, remedy);
                }
                weight
            }
            [word, ..] => {
                let message =
                    format!("{} is no option here: the line is ignored, as in Keepalived", quote(&word.text));
                findings.warning(word.at, message, "write `NAME [weight N [reverse]]`");
                continue;
            }
        };
        entries.push(Entry { what: what(name), at: child.at(), weight });
    }
    entries
}

fn effect(what: &Tracked, Weight { weight, is_reversed: reverse }: Weight) -> Effect {
    match what {
        _ if weight == 0 => Effect::Fault { reverse },
        Tracked::File(_) => Effect::Scaled { weight: if reverse { -weight } else { weight } },
        _ => Effect::Weight { weight: weight.clamp(-253, 253), reverse },
    }
}

const SCRIPT_WORDS: [&str; 8] =
    ["script", "interval", "timeout", "weight", "rise", "fall", "user", "init_fail"];
const PROCESS_WORDS: [&str; 9] = [
    "process",
    "param_match",
    "weight",
    "quorum",
    "quorum_max",
    "fork_delay",
    "terminate_delay",
    "delay",
    "full_command",
];
const SECOND: Duration = Duration::from_secs(1);
/// Keepalived hears of changes at once.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Keepalived 2.3 takes fractions.
const INTERVALS_US: (u64, u64) = (10_000, 1_000_000_000_000);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);
const DELAYS_US: (u64, u64) = (0, 3_600_000_000);
const COUNT_MAX: i64 = 65_535;
const TRACKS_MAX: usize = 64;
/// PATH_MAX without its final NUL.
const PATH_MAX: usize = 4_095;
