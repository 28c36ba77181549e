//! What is wrong with a configuration, where, and what to do about it.
//!
//! Owns positions, the collection of findings, and how they are shown. Must not know which keys exist.

use std::{borrow::Cow, collections::HashSet, fmt};

use super::Source;

/// One thing an operator should change. `Display` shows it with its line, as a compiler does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// The next step; never empty.
    pub remedy: String,
    pub excerpt: Excerpt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// The line a diagnostic is about, cut to a readable length, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    /// Characters of `text` before the carets.
    pub offset: usize,
    /// Carets; at least 1.
    pub len: usize,
}

/// Bytes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Index of the source.
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    pub at: Span,
    pub value: T,
}

/// Collects what is wrong, so that all of it is reported at once.
pub struct Findings {
    files: Vec<Lines>,
    errors: Bounded,
    warnings: Bounded,
    /// Whether everything that was typed has been understood as TOML.
    is_complete: bool,
    misspelt: HashSet<(Span, &'static str)>,
}

impl Findings {
    pub fn new(sources: &[Source<'_>]) -> Findings {
        Findings {
            files: sources.iter().map(Lines::new).collect(),
            errors: Bounded::default(),
            warnings: Bounded::default(),
            is_complete: true,
            misspelt: HashSet::new(),
        }
    }

    pub fn error(&mut self, at: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(Finding { kind: Kind::Error, at, message: message.into(), remedy: remedy.into() });
    }

    pub fn warning(&mut self, at: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Finding {
            kind: Kind::Warning,
            at,
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// The text is not TOML here; `cascades` when the same mistake may be reported again on its line.
    pub fn syntax(
        &mut self,
        at: Span,
        message: impl Into<String>,
        remedy: impl Into<String>,
        cascades: bool,
    ) {
        let kind = if cascades { Kind::Syntax } else { Kind::Twice };
        self.is_complete &= !cascades;
        self.errors.push(Finding { kind, at, message: message.into(), remedy: remedy.into() });
    }

    /// `key` is absent from the table at `owner`. Not reported after a syntax error, which may have swallowed
    /// it, nor where it was only misspelt.
    pub fn missing(
        &mut self,
        owner: Span,
        key: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.is_complete && !self.misspelt.contains(&(owner, key)) {
            self.error(owner, message, remedy);
        }
    }

    /// An unknown key of the table at `owner` was probably meant as `key`.
    pub fn misspelt(&mut self, owner: Span, key: &'static str) {
        self.misspelt.insert((owner, key));
    }

    /// `file:line`, for a message that names a second place.
    pub fn place(&self, at: Span) -> String {
        let lines = &self.files[at.file];
        format!("{}:{}", lines.name, lines.line(at.start) + 1)
    }

    /// The warnings when nothing is wrong, else the errors. Sorted, without duplicates, at most
    /// `DIAGNOSTICS_MAX` and a last one that counts the rest.
    pub fn finish(self, sources: &[Source<'_>]) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let Findings { files, errors, warnings, .. } = self;
        let failed = !errors.kept.is_empty();
        let Bounded { kept: mut list, over } = if failed { errors } else { warnings };
        list.sort_by(|a, b| a.order().cmp(&b.order()));
        list.dedup_by(|a, b| a.order() == b.order());
        drop_echoes(&files, &mut list);

        let more = list.len().saturating_sub(DIAGNOSTICS_MAX) + over;
        let mut shown: Vec<Diagnostic> =
            list.iter().take(DIAGNOSTICS_MAX).map(|finding| show(&files, sources, finding)).collect();
        if let Some(next) = list.get(DIAGNOSTICS_MAX).or(list.last().filter(|_| over > 0)) {
            let mut rest = show(&files, sources, next);
            rest.message = format!("and {more} more from here on");
            rest.remedy = "mend those above, then check again".into();
            shown.push(rest);
        }
        if failed { Err(shown) } else { Ok(shown) }
    }
}

impl Span {
    pub fn start_of(file: usize) -> Span {
        Span { file, start: 0, end: 0 }
    }
}

impl<T> Spanned<T> {
    pub fn new(at: Span, value: T) -> Spanned<T> {
        Spanned { at, value }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.severity, self.message)?;
        let Excerpt { text, offset, len } = &self.excerpt;
        if !text.trim().is_empty() {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{number} | {text}")?;
            writeln!(f, "{gutter} | {}{}", " ".repeat(*offset), "^".repeat(*len))?;
        }
        write!(f, "help: {}", self.remedy)
    }
}

impl std::error::Error for Diagnostic {}

/// What was typed, fit for a message: cut, and without control characters.
pub fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTE_MAX).flat_map(printable).collect();
    if text.chars().nth(QUOTE_MAX).is_some() {
        shown.push_str("..");
    }
    format!("`{shown}`")
}

/// The candidate an operator probably meant.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > QUOTE_MAX {
        return None;
    }
    let typed = typed.to_ascii_lowercase();
    let edits_max = (typed.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&typed, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The first findings, and how many came after them.
#[derive(Default)]
struct Bounded {
    kept: Vec<Finding>,
    over: usize,
}

impl Bounded {
    fn push(&mut self, finding: Finding) {
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        } else {
            self.over += 1;
        }
    }
}

struct Finding {
    kind: Kind,
    at: Span,
    message: String,
    remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Not TOML; what else is reported on its line is probably an echo.
    Syntax,
    /// TOML refuses a repeated key, and nothing around it suffers.
    Twice,
    Error,
    Warning,
}

impl Finding {
    fn order(&self) -> (usize, usize, &str) {
        (self.at.file, self.at.start, &self.message)
    }
}

/// Where the lines of a file start.
struct Lines {
    name: String,
    starts: Vec<usize>,
}

impl Lines {
    fn new(source: &Source<'_>) -> Lines {
        let after_newlines = source.text.match_indices('\n').map(|(at, _)| at + 1);
        Lines { name: source.name.into(), starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// From 0.
    fn line(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte).saturating_sub(1)
    }
}

/// On a line with a syntax error only its first one is kept.
fn drop_echoes(files: &[Lines], list: &mut Vec<Finding>) {
    let place = |finding: &Finding| (finding.at.file, files[finding.at.file].line(finding.at.start));
    let broken: HashSet<_> = list.iter().filter(|finding| finding.kind == Kind::Syntax).map(place).collect();
    let mut told = HashSet::new();
    list.retain(|finding| match finding.kind {
        Kind::Syntax => told.insert(place(finding)),
        Kind::Twice | Kind::Error | Kind::Warning => !broken.contains(&place(finding)),
    });
}

fn show(files: &[Lines], sources: &[Source<'_>], finding: &Finding) -> Diagnostic {
    let Span { file, start, end } = finding.at;
    let text = sources[file].text;
    let line = files[file].line(start);
    let from = files[file].starts[line];
    let content = text[from..].lines().next().unwrap_or_default();

    let start = text.floor_char_boundary(start).max(from);
    let until = text.floor_char_boundary(end).min(from + content.len()).max(start);
    let column = text[from..start].chars().count();
    let len = text[start..until].chars().count();
    let severity = match finding.kind {
        Kind::Syntax | Kind::Twice | Kind::Error => Severity::Error,
        Kind::Warning => Severity::Warning,
    };
    Diagnostic {
        severity,
        file: sources[file].name.into(),
        line: line + 1,
        column: column + 1,
        message: finding.message.clone(),
        remedy: finding.remedy.clone(),
        excerpt: excerpt(&without_secret(text, from, content), column, len),
    }
}

fn excerpt(content: &str, column: usize, len: usize) -> Excerpt {
    let skipped = column.saturating_sub(EXCERPT_MAX / 2);
    let width = |c: char| printable(c).count();
    let window: Vec<char> = content.chars().skip(skipped).take(EXCERPT_MAX).collect();
    let before = (column - skipped).min(window.len());
    let marked = len.min(window.len() - before);
    Excerpt {
        text: window.iter().copied().flat_map(printable).collect(),
        offset: window[..before].iter().copied().map(width).sum(),
        len: window[before..before + marked].iter().copied().map(width).sum::<usize>().max(1),
    }
}

/// The line without what may be a secret: diagnostics end in logs, and a key may be mistyped. So nothing of
/// [cluster] is shown but names, and elsewhere nothing after a word that announces a secret.
fn without_secret<'a>(text: &str, from: usize, content: &'a str) -> Cow<'a, str> {
    let until = from + content.len();
    let header = text[..until].lines().rev().find(|line| line.trim_start().starts_with('['));
    if header.is_some_and(|header| header.contains("cluster")) {
        return match content.find(['=', ']']) {
            Some(end) => format!("{} ..", &content[..=end]).into(),
            None => "".into(),
        };
    }
    let lower = content.to_ascii_lowercase();
    let word_end = |word: &str| lower.find(word).map(|at| at + word.len());
    let is_cluster = content.trim_start().trim_start_matches(['"', '\'']).starts_with("cluster");
    let announced = if is_cluster {
        word_end("cluster")
    } else {
        SECRET_WORDS.iter().filter_map(|word| word_end(word)).min()
    };
    announced.map_or(content.into(), |end| format!("{} ..", &content[..end]).into())
}

/// A character as it is shown: a tab and a control character keep their place as spaces.
fn printable(c: char) -> impl Iterator<Item = char> {
    let (shown, times) = match c {
        '\t' => (' ', 4),
        c if c.is_control() => (' ', 1),
        c => (c, 1),
    };
    std::iter::repeat_n(shown, times)
}

/// More are counted, not listed: whoever reads a hundred starts mending.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Held before sorting: a wrong file must not fill the memory with its mistakes.
const FINDINGS_MAX: usize = 10_000;
const QUOTE_MAX: usize = 60;
const EXCERPT_MAX: usize = 160;
/// In lower case. Headers of a check and the URL of a webhook carry secrets too, and so do the keys of `auth_hmac`,
/// which may stand on lines of their own.
const SECRET_WORDS: [&str; 9] =
    ["secret", "auth_pass", "auth_hmac", "key =", "key=", "password", "authorization", "cookie", "webhook"];
