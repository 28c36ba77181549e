//! From files to lines: comments, `include`, lines for one host only, definitions, sequences and lists.
//!
//! Owns what Keepalived does before it looks at words. Must not know what a line means.

use std::collections::HashMap;

use super::Foreign;
use crate::pure::config::error::{Findings, Span, quote};

/// A line without its comment, and everything on it replaced that stands for something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    /// The line of the file that it comes from.
    pub at: Span,
    /// `text` is what stands at `at`, to the byte.
    pub is_verbatim: bool,
}

/// The lines of all files that no other includes, one file after the other. `first`: the index of the first source.
pub(super) fn lines(files: &[Foreign<'_>], first: usize, findings: &mut Findings) -> Vec<Line> {
    let mut reader =
        Reader { files, first, definitions: HashMap::new(), lines: Vec::new(), room: ROOM, findings };
    for (index, _) in files.iter().enumerate().filter(|(_, file)| file.included.is_none()) {
        reader.file(index, 0);
    }
    reader.lines
}

struct Reader<'a, 'f> {
    files: &'a [Foreign<'a>],
    first: usize,
    definitions: HashMap<String, String>,
    lines: Vec<Line>,
    /// Bytes that may still be made.
    room: usize,
    findings: &'f mut Findings,
}

/// Where a line comes from.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    /// From 1.
    number: usize,
    at: Span,
    is_verbatim: bool,
    /// Replacements and files around it.
    depth: usize,
}

impl Reader<'_, '_> {
    fn file(&mut self, index: usize, depth: usize) {
        let text = self.files[index].source.text;
        let mut start = 0;
        let mut rows = text.split_inclusive('\n').enumerate();
        while let Some((row, raw)) = rows.next() {
            let content = uncommented(raw.trim_end_matches(['\n', '\r']));
            let body = content.trim_start().trim_start_matches('\u{feff}').trim();
            let offset = start + content.find(body).unwrap_or_default();
            start += raw.len();
            let at = Span { file: self.first + index, start: offset, end: offset + body.len() };
            let place = Place { file: index, number: row + 1, at, is_verbatim: true, depth };
            if !is_definition(body) || !body.ends_with('\\') {
                self.line(body, place);
                continue;
            }
            let mut whole = body.trim_end_matches('\\').trim_end().to_owned();
            for (_, raw) in rows.by_ref() {
                start += raw.len();
                let next = uncommented(raw.trim_end_matches(['\n', '\r'])).trim();
                whole.push('\n');
                whole.push_str(next.trim_end_matches('\\').trim_end());
                if !next.ends_with('\\') {
                    break;
                }
            }
            self.line(&whole, place);
        }
    }

    fn line(&mut self, text: &str, place: Place) {
        if text.is_empty() || !self.has_room(text, place) {
            return;
        }
        if place.depth > DEPTH_MAX {
            let message = "this line includes or replaces itself without end: it is left out";
            self.findings.warning(
                place.at,
                message,
                "correct the definitions, or the files that include each other",
            );
            return;
        }
        let inner = Place { is_verbatim: false, depth: place.depth + 1, ..place };
        if let Some(condition) = text.strip_prefix('@') {
            let (id, rest) = condition.split_once(char::is_whitespace).unwrap_or((condition, ""));
            let own = self.files[place.file].config_id;
            if id.strip_prefix('^').map_or(id == own, |other| other != own) {
                self.line(rest.trim(), inner);
            }
        } else if let Some((name, value)) = definition(text) {
            if self.definitions.len() < DEFINITIONS_MAX {
                self.definitions.insert(name.to_owned(), value.trim().to_owned());
            }
        } else if let Some(pattern) = included(text) {
            self.include(pattern, place);
        } else if let Some(replaced) = self.replaced(text, place.file) {
            self.several(&replaced, inner);
        } else if text.starts_with("~SEQ") || text.starts_with("~LST") {
            self.repeat(text, place, inner);
        } else {
            let line = Line { text: text.to_owned(), at: place.at, is_verbatim: place.is_verbatim };
            self.lines.push(line);
        }
    }

    fn several(&mut self, text: &str, place: Place) {
        for line in text.lines() {
            self.line(line.trim(), place);
        }
    }

    /// What stands in a file has room in any case: it is bounded as a file.
    fn has_room(&mut self, text: &str, place: Place) -> bool {
        if place.is_verbatim {
            return true;
        }
        let left = self.room.checked_sub(text.len() + LINE_COST);
        if left.is_none() && self.room > 0 {
            let message = "definitions, sequences and lists make more than 4 MiB of text here";
            self.findings.error(place.at, message, "let them make less");
        }
        self.room = left.unwrap_or(0);
        left.is_some()
    }

    fn include(&mut self, pattern: &str, place: Place) {
        let here = Some((place.file, place.number));
        let parts: Vec<usize> =
            (0..self.files.len()).filter(|&part| self.files[part].included == here).collect();
        if parts.is_empty() {
            let message = format!("{} names no file that can be read: nothing is included", quote(pattern));
            self.findings.warning(place.at, message, "correct the path, which is relative to this file; only the last part of it may have wildcards");
        }
        for part in parts {
            self.file(part, place.depth + 1);
        }
    }

    /// None: nothing on the line stands for something else.
    fn replaced(&mut self, text: &str, file: usize) -> Option<String> {
        let mut replaced = String::new();
        let mut rest = text;
        let mut is_changed = false;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            replaced.push_str(before);
            let found = reference(from).and_then(|(name, length)| Some((self.meaning(name, file)?, length)));
            let Some((value, length)) = found else {
                replaced.push('$');
                rest = &from[1..];
                continue;
            };
            replaced.push_str(&value);
            is_changed = true;
            rest = &from[length..];
            if replaced.len() > REPLACED_MAX {
                break;
            }
        }
        replaced.push_str(rest);
        is_changed.then_some(replaced)
    }

    fn meaning(&self, name: &str, file: usize) -> Option<String> {
        let file = &self.files[file];
        let value = match name {
            "_PWD" => file.source.name.rsplit_once('/').map_or(".", |(directory, _)| directory),
            "_INSTANCE" => file.config_id,
            // As the lexer takes them for no comment.
            "_HASH" => "\\#",
            "_BANG" => "\\!",
            _ => self.definitions.get(name)?,
        };
        Some(value.to_owned())
    }

    fn repeat(&mut self, text: &str, place: Place, inner: Place) {
        let Some((names, rounds, rest)) = sequence(text).or_else(|| list(text)) else {
            let message = "this sequence or list cannot be read, and its line is left out";
            self.findings.warning(
                place.at,
                message,
                format!("write it like `~SEQ(N, 1, 3) ..` or `~LST(N, a, b) ..`, of at most {ROUNDS_MAX}"),
            );
            return;
        };
        for round in rounds {
            for (name, value) in names.iter().zip(round) {
                self.definitions.insert(name.clone(), value);
            }
            self.several(rest, inner);
            if self.room == 0 {
                break;
            }
        }
        for name in names {
            self.definitions.remove(&name);
        }
    }
}

/// Up to the `!` or `#` that begins a comment; within quotes and behind a backslash they do not.
fn uncommented(line: &str) -> &str {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (_, '\\') => is_escaped = true,
            (None, '!' | '#') => return &line[..at],
            // A lone apostrophe quotes nothing.
            (None, '"' | '\'') if line[at + 1..].contains(c) => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    line
}

fn is_definition(text: &str) -> bool {
    let bare = text.strip_prefix('@').and_then(|rest| rest.split_once(char::is_whitespace));
    definition(bare.map_or(text, |(_, rest)| rest.trim())).is_some()
}

/// `$NAME=VALUE`
fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.strip_prefix('$')?.split_once('=')?;
    is_name(name).then_some((name, value))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `$NAME` before a blank or the end, `${NAME}` anywhere: the name, and the bytes of all of it.
fn reference(text: &str) -> Option<(&str, usize)> {
    let rest = text.strip_prefix('$')?;
    let (name, length) = match rest.strip_prefix('{') {
        Some(braced) => {
            let (name, _) = braced.split_once('}')?;
            (name, name.len() + 3)
        }
        None => {
            let name = rest.split(char::is_whitespace).next()?;
            (name, name.len() + 1)
        }
    };
    is_name(name).then_some((name, length))
}

/// The file of an `include` line, and of its variants.
pub(super) fn included(text: &str) -> Option<&str> {
    let (word, path) = text.split_once(char::is_whitespace)?;
    let is_include = ["include", "includea", "includeb", "includem", "includer", "includew"].contains(&word);
    is_include.then(|| path.trim().trim_matches('"')).filter(|path| !path.is_empty())
}

/// The file of each `include` line, with the number of the line from 1.
pub fn includes(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(row, line)| included(uncommented(line).trim()).map(|path| (row + 1, path)))
}

/// Names, the values of each round, and what is repeated.
type Repeated<'t> = (Vec<String>, Vec<Vec<String>>, &'t str);

/// `~SEQ(NAME[, START[, STEP]], END) ..`, `~SEQx` for hexadecimal.
fn sequence(text: &str) -> Option<Repeated<'_>> {
    let rest = text.strip_prefix("~SEQ")?;
    let (is_hex, rest) = rest.strip_prefix('x').map_or((false, rest), |rest| (true, rest));
    let (arguments, rest) = rest.strip_prefix('(')?.split_once(')')?;
    let mut arguments = arguments.split(',').map(str::trim);
    let name = arguments.next().filter(|name| is_name(name))?;
    let numbers = arguments.map(integer).collect::<Option<Vec<i64>>>()?;
    let (start, step, end) = match numbers[..] {
        [end] if end < 0 => (-1, -1, end),
        [end] => (1, 1, end),
        [start, end] => (start, if end < start { -1 } else { 1 }, end),
        [start, step, end] if step != 0 => (start, step, end),
        _ => return None,
    };
    let values = std::iter::successors(Some(start), |value| value.checked_add(step));
    let within = values.take_while(|value| if step > 0 { *value <= end } else { *value >= end });
    let shown = |value| if is_hex { format!("{value:x}") } else { format!("{value}") };
    let rounds: Vec<_> = within.take(ROUNDS_MAX + 1).map(|value| vec![shown(value)]).collect();
    (rounds.len() <= ROUNDS_MAX).then(|| (vec![name.to_owned()], rounds, rest.trim()))
}

fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `~LST(NAME, VALUE, ..) ..`, `~LST({NAME, ..}, {VALUE, ..}, ..) ..`
fn list(text: &str) -> Option<Repeated<'_>> {
    let (arguments, rest) = text.strip_prefix("~LST(")?.split_once(')')?;
    let mut entries = Vec::new();
    let mut left = arguments.trim();
    while !left.is_empty() {
        let (entry, after) = match left.strip_prefix('{') {
            Some(braced) => {
                let (entry, after) = braced.split_once('}')?;
                (entry, after.trim_start().strip_prefix(',').unwrap_or(after))
            }
            None => left.split_once(',').unwrap_or((left, "")),
        };
        let several = left.starts_with('{');
        let values = if several { entry.split(',').collect() } else { vec![entry] };
        entries.push(values.into_iter().map(|value| value.trim().to_owned()).collect::<Vec<_>>());
        left = after.trim();
        if entries.len() > ROUNDS_MAX {
            return None;
        }
    }
    let (names, rounds) = entries.split_first()?;
    let is_whole =
        rounds.iter().all(|round| round.len() == names.len()) && names.iter().all(|name| is_name(name));
    (is_whole && !rounds.is_empty()).then(|| (names.clone(), rounds.to_vec(), rest.trim()))
}

/// Files that include each other, and definitions within definitions.
const DEPTH_MAX: usize = 16;
const DEFINITIONS_MAX: usize = 10_000;
/// Of one sequence: three within each other make all that there is room for.
const ROUNDS_MAX: usize = 65_536;
/// Bytes of one line after its replacements.
const REPLACED_MAX: usize = 1 << 18;
/// Bytes that may be made of definitions, sequences and lists.
const ROOM: usize = 4 << 20;
/// A line costs time, even an empty one.
const LINE_COST: usize = 64;
