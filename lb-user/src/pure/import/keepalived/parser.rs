//! From lines to blocks: words, quotes, braces.
//!
//! Owns the grammar, and what becomes of text that does not follow it. Must not know a single keyword.

use super::text::Line;
use crate::pure::config::error::{Findings, Span};

/// What stands on a line, and the block behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// Not empty.
    pub words: Vec<Word>,
    pub block: Option<Vec<Statement>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    /// Some of it stood in quotes.
    pub is_quoted: bool,
    pub at: Span,
}

impl Statement {
    pub(super) fn keyword(&self) -> &str {
        &self.words[0].text
    }

    pub(super) fn at(&self) -> Span {
        self.words[0].at
    }

    pub(super) fn values(&self) -> &[Word] {
        &self.words[1..]
    }

    pub(super) fn children(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }
}

pub(super) fn parse(lines: &[Line], findings: &mut Findings) -> Vec<Statement> {
    let mut parser = Parser { top: Vec::new(), open: Vec::new() };
    for line in lines {
        parser.line(line, findings);
    }
    parser.finish(findings)
}

struct Parser {
    top: Vec<Statement>,
    /// Those whose blocks have not ended yet, the outermost first.
    open: Vec<Statement>,
}

impl Parser {
    fn line(&mut self, line: &Line, findings: &mut Findings) {
        let mut words = Vec::new();
        for token in tokens(line, findings) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open(at) => {
                    self.statement(&mut words);
                    self.begin(at, findings);
                }
                Token::Close(at) => {
                    self.statement(&mut words);
                    self.end(at, findings);
                }
            }
        }
        self.statement(&mut words);
    }

    fn statement(&mut self, words: &mut Vec<Word>) {
        if !words.is_empty() {
            let statement = Statement { words: std::mem::take(words), block: None };
            self.current().push(statement);
        }
    }

    fn current(&mut self) -> &mut Vec<Statement> {
        match self.open.last_mut() {
            Some(owner) => owner.block.get_or_insert_default(),
            None => &mut self.top,
        }
    }

    /// A brace belongs to what stands before it, on its line or a line above.
    fn begin(&mut self, at: Span, findings: &mut Findings) {
        let owner = self.current().pop_if(|last| last.block.is_none());
        let owner = owner.unwrap_or_else(|| {
            findings.warning(
                at,
                "this `{` belongs to no keyword",
                "remove it, and its `}`; what it holds is not read",
            );
            Statement { words: vec![Word { text: "{".into(), is_quoted: false, at }], block: None }
        });
        if self.open.len() == DEPTH_MAX {
            findings.warning(at, format!("more than {DEPTH_MAX} blocks within each other"), "remove some");
            self.current().push(owner);
            return;
        }
        self.open.push(Statement { block: Some(Vec::new()), ..owner });
    }

    fn end(&mut self, at: Span, findings: &mut Findings) {
        match self.open.pop() {
            Some(closed) => self.current().push(closed),
            None => findings.warning(
                at,
                "this `}` is one too many: Keepalived reads on, and so does this",
                "remove it, or add the `{` that is missing above",
            ),
        }
    }

    fn finish(mut self, findings: &mut Findings) -> Vec<Statement> {
        while let Some(owner) = self.open.pop() {
            let message = format!(
                "the `}}` of this `{}` is missing: Keepalived runs what it could read, and so does this",
                owner.keyword()
            );
            findings.warning(owner.at(), message, "add the `}`");
            self.current().push(owner);
        }
        self.top
    }
}

enum Token {
    Word(Word),
    Open(Span),
    Close(Span),
}

fn tokens(line: &Line, findings: &mut Findings) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = line.text.as_str();
    loop {
        rest = rest.trim_start();
        let start = line.text.len() - rest.len();
        let place = |length: usize| match line.is_verbatim {
            true => Span { start: line.at.start + start, end: line.at.start + start + length, ..line.at },
            false => line.at,
        };
        let Some(first) = rest.chars().next() else { return tokens };
        let length = match first {
            '{' => {
                tokens.push(Token::Open(place(1)));
                1
            }
            '}' => {
                tokens.push(Token::Close(place(1)));
                1
            }
            _ => {
                let (text, is_quoted, length) = word(rest, &mut |length| {
                    let message = "the quote that begins here does not end on this line: it is taken to";
                    findings.warning(place(length), message, "add the second quote");
                });
                tokens.push(Token::Word(Word { text, is_quoted, at: place(length) }));
                length
            }
        };
        rest = &rest[length..];
    }
}

/// The word at the beginning of a text, whether some of it was quoted, and its bytes. `rest` begins with no blank.
fn word(rest: &str, unended: &mut impl FnMut(usize)) -> (String, bool, usize) {
    let mut text = String::new();
    let mut is_quoted = false;
    let mut at = 0;
    while let Some(c) = rest[at..].chars().next() {
        let behind = &rest[at + c.len_utf8()..];
        match c {
            '"' => {
                is_quoted = true;
                let length = quoted(behind, &mut text).unwrap_or_else(|| {
                    unended(rest.len());
                    behind.len()
                });
                at += 1 + length;
            }
            '\'' if behind.contains('\'') => {
                is_quoted = true;
                let length = behind.find('\'').unwrap_or_default();
                text.push_str(&behind[..length]);
                at += length + 2;
            }
            '\\' => {
                let escaped = behind.chars().next().filter(|c| ['#', '!', '"', '\'', '\\'].contains(c));
                text.push(escaped.unwrap_or('\\'));
                at += 1 + escaped.map_or(0, char::len_utf8);
            }
            '$' if behind.starts_with('{') => {
                let length = behind.find('}').map_or(1, |end| end + 2);
                text.push_str(&rest[at..at + length]);
                at += length;
            }
            c if c.is_whitespace() && c.is_ascii() => break,
            '{' | '}' => break,
            c => {
                text.push(c);
                at += c.len_utf8();
            }
        }
    }
    (text, is_quoted, at)
}

/// Behind a double quote: the bytes up to the one that ends it, which is counted. None: nothing does.
fn quoted(rest: &str, text: &mut String) -> Option<usize> {
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some(at + 1),
            '\\' => match chars.next() {
                // What a command's own words need is left to those who split it.
                Some((_, c @ ('\'' | ' '))) => text.extend(['\\', c]),
                Some((_, c)) => text.push(unescaped(c)),
                None => text.push('\\'),
            },
            c => text.push(c),
        }
    }
    None
}

fn unescaped(c: char) -> char {
    match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'E' => '\u{1b}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        c => c,
    }
}

/// Blocks within each other; Keepalived's own need four.
const DEPTH_MAX: usize = 32;
