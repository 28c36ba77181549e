//! A Rust file as facts: which paths it names and where, what stands out, how long it is.
//!
//! Works on tokens, so comments and strings do not count, and the inside of macros does. Resolves `crate`, `self`,
//! `super` and grouped imports; an alias made by `use a as b` is judged where it is made.

use std::collections::BTreeSet;
use std::str::FromStr;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::Finding;

#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) facts: Vec<Fact>,
    /// Lines that hold code: no blank lines, no comments, no `#[cfg(test)]` items.
    pub(super) code_lines: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) in_test: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `crate::io::net`, `std::fs::read`, `tokio`; a glob ends in `*`.
    Path(String),
    Macro(String),
    Unsafe,
    /// `#[ignore]`
    Ignore,
    /// `#![allow(..)]`
    ModuleAllow,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Result<Self, Finding> {
        let tokens = TokenStream::from_str(text).map_err(|error| Finding {
            file: path.into(),
            line: error.span().start().line,
            what: error.to_string(),
            rule: "a Rust file must be readable as Rust",
            remedy: "compile it",
        })?;
        let mut reader = Reader::default();
        reader.read(tokens, &Scope { module: module_of(path), in_test: is_test_file(path) });
        Ok(Self { path: path.into(), facts: reader.facts, code_lines: reader.lines.len() })
    }
}

/// The package's tests folder is a test; so is a module that the parent declares as `#[cfg(test)] mod tests;`.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// `lb-user/src/io/net/mod.rs` is `crate::io::net`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.split_once("src/").map_or(path, |(_, inner)| inner);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let names = inner.split('/').filter(|name| !["mod", "lib", "main"].contains(name));
    std::iter::once("crate").chain(names).map(String::from).collect()
}

#[derive(Clone)]
struct Scope {
    module: Vec<String>,
    in_test: bool,
}

#[derive(Default)]
struct Reader {
    facts: Vec<Fact>,
    lines: BTreeSet<usize>,
}

impl Reader {
    fn read(&mut self, stream: TokenStream, scope: &Scope) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        self.read_tokens(&tokens, scope.clone());
    }

    fn read_tokens(&mut self, tokens: &[TokenTree], mut scope: Scope) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    self.read_attribute(&tokens[at..], &mut scope)
                }
                TokenTree::Ident(_) => {
                    self.read_word(&tokens[at..], at.checked_sub(1).map(|i| &tokens[i]), &scope)
                }
                TokenTree::Group(group) => {
                    self.read_group(group, &scope);
                    1
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.count(token, &scope);
                    1
                }
            };
        }
    }

    fn read_group(&mut self, group: &Group, scope: &Scope) {
        if !scope.in_test && group.delimiter() != Delimiter::None {
            self.lines.extend([group.span_open().start().line, group.span_close().end().line]);
        }
        self.read(group.stream(), scope);
    }

    /// `#[..]` or `#![..]`, and with `#[cfg(test)]` the item below it. Returns how many tokens it took.
    fn read_attribute(&mut self, tokens: &[TokenTree], scope: &mut Scope) -> usize {
        let inner = is_punct(tokens.get(1), '!');
        let length = if inner { 3 } else { 2 };
        let Some(TokenTree::Group(group)) = tokens.get(length - 1) else {
            self.count(&tokens[0], scope);
            return 1;
        };
        let words = words(group);
        let is = |name: &str| words.first().is_some_and(|word| word == name);
        if is("doc") {
            return length;
        }
        let under_test = is("cfg") && words.iter().any(|w| w == "test") && !words.iter().any(|w| w == "not");
        if under_test && !inner {
            let end = length + item_length(&tokens[length..]);
            self.read_tokens(&tokens[length..end], Scope { in_test: true, ..scope.clone() });
            return end;
        }
        scope.in_test |= under_test;
        let line = tokens[0].span().start().line;
        if inner && words.iter().any(|word| word == "allow") {
            self.fact(line, Kind::ModuleAllow, scope);
        }
        if is("ignore") {
            self.fact(line, Kind::Ignore, scope);
        }
        self.count(&tokens[0], scope);
        self.read_group(group, scope);
        length
    }

    /// A path, a macro call, a module, `unsafe`, or just a word. Returns how many tokens it took.
    fn read_word(&mut self, tokens: &[TokenTree], before: Option<&TokenTree>, scope: &Scope) -> usize {
        let word = name(&tokens[0]);
        self.count(&tokens[0], scope);
        let line = tokens[0].span().start().line;
        match (word.as_str(), tokens.get(1), tokens.get(2)) {
            ("unsafe", ..) => self.fact(line, Kind::Unsafe, scope),
            ("mod", Some(module @ TokenTree::Ident(_)), Some(TokenTree::Group(body))) => {
                let mut scope = scope.clone();
                scope.module.push(name(module));
                self.read_group(body, &scope);
                return 3;
            }
            (_, Some(TokenTree::Punct(bang)), Some(TokenTree::Group(_) | TokenTree::Ident(_)))
                if bang.as_char() == '!' =>
            {
                self.fact(line, Kind::Macro(word), scope);
            }
            _ => return self.read_path(tokens, before, Vec::new(), scope),
        }
        1
    }

    /// `a::b::c` or `a::{b, c::d}` below `prefix`. Returns how many tokens it took.
    fn read_path(
        &mut self,
        tokens: &[TokenTree],
        before: Option<&TokenTree>,
        mut path: Vec<String>,
        scope: &Scope,
    ) -> usize {
        let line = tokens[0].span().start().line;
        let below_prefix = !path.is_empty();
        path.push(name(&tokens[0]));
        let mut length = 1;
        while is_path_separator(&tokens[length..]) {
            match tokens.get(length + 2) {
                Some(TokenTree::Group(tree)) if tree.delimiter() == Delimiter::Brace => {
                    self.read_use_tree(tree, &path, scope);
                    return length + 3;
                }
                Some(next @ TokenTree::Ident(_)) => path.push(name(next)),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => path.push("*".into()),
                _ => break,
            }
            self.count(&tokens[length + 2], scope);
            length += 3;
        }
        let imported = before.is_some_and(|word| ["use", "crate"].contains(&word.to_string().as_str()));
        if path.len() > 1 || below_prefix || imported {
            self.fact(line, Kind::Path(resolve(&path, &scope.module)), scope);
        }
        length
    }

    fn read_use_tree(&mut self, tree: &Group, prefix: &[String], scope: &Scope) {
        if !scope.in_test {
            self.lines.extend([tree.span_open().start().line, tree.span_close().end().line]);
        }
        let tokens: Vec<TokenTree> = tree.stream().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let renamed = at > 0 && tokens[at - 1].to_string() == "as";
            self.count(&tokens[at], scope);
            at += match &tokens[at] {
                TokenTree::Ident(word) if !renamed && word != "as" => {
                    self.read_path(&tokens[at..], None, prefix.to_vec(), scope)
                }
                TokenTree::Punct(star) if star.as_char() == '*' => {
                    self.read_path(&tokens[at..], None, prefix.to_vec(), scope)
                }
                _ => 1,
            };
        }
    }

    fn fact(&mut self, line: usize, kind: Kind, scope: &Scope) {
        self.facts.push(Fact { line, kind, in_test: scope.in_test });
    }

    fn count(&mut self, token: &TokenTree, scope: &Scope) {
        if !scope.in_test {
            self.lines.extend(token.span().start().line..=token.span().end().line);
        }
    }
}

/// Tokens of the item that begins here: up to its body or its semicolon.
fn item_length(tokens: &[TokenTree]) -> usize {
    let keyword = tokens.iter().find(|token| {
        matches!(token, TokenTree::Ident(_)) && !["pub", "crate"].contains(&token.to_string().as_str())
    });
    let is_import = keyword.is_some_and(|word| word.to_string() == "use");
    let is_last = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_import,
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    tokens.iter().position(is_last).map_or(tokens.len(), |last| last + 1)
}

fn resolve(path: &[String], module: &[String]) -> String {
    let mut base: &[String] = &[];
    let mut rest = path;
    if path[0] == "self" && path.len() > 1 {
        (base, rest) = (module, &path[1..]);
    } else if path[0] == "super" {
        let up = path.iter().take_while(|name| *name == "super").count();
        (base, rest) = (&module[..module.len().saturating_sub(up)], &path[up..]);
    }
    // `a::{self}` names `a`.
    let rest = rest.strip_suffix(&["self".to_owned()]).filter(|rest| !rest.is_empty()).unwrap_or(rest);
    let names: Vec<&str> = base.iter().chain(rest).map(String::as_str).collect();
    names.join("::").replace("lb_user::", "crate::")
}

/// All words of an attribute, whatever their nesting.
fn words(group: &Group) -> Vec<String> {
    let mut words = Vec::new();
    for token in group.stream() {
        match token {
            TokenTree::Group(group) => words.extend(self::words(&group)),
            TokenTree::Ident(word) => words.push(word.to_string()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => (),
        }
    }
    words
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    let joint = matches!(tokens.first(), Some(TokenTree::Punct(colon))
        if colon.as_char() == ':' && colon.spacing() == Spacing::Joint);
    joint && is_punct(tokens.get(1), ':')
}

fn is_punct(token: Option<&TokenTree>, expected: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

/// Without `r#`.
fn name(token: &TokenTree) -> String {
    token.to_string().trim_start_matches("r#").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn paths(file: &str, text: &str) -> Vec<String> {
        let source = Source::parse(file, text).unwrap();
        let path = |fact: Fact| if let Kind::Path(path) = fact.kind { Some(path) } else { None };
        source.facts.into_iter().filter_map(path).collect()
    }

    #[test]
    fn paths_are_found_and_resolved() {
        let file = "lb-user/src/pure/config/model.rs";
        let cases: [(&str, &[&str]); 14] = [
            ("use std::fs;", &["std::fs"]),
            ("use std::{fmt, fs::{self, File}};", &["std::fmt", "std::fs", "std::fs::File"]),
            ("use tokio;", &["tokio"]),
            ("extern crate tokio;", &["tokio"]),
            ("use tokio as t;", &["tokio"]),
            ("use crate::{io, pure::*};", &["crate::io", "crate::pure::*"]),
            ("use super::super::super::daemon;", &["crate::daemon"]),
            ("use self::inner::X;", &["crate::pure::config::model::inner::X"]),
            ("mod inner { use super::X; }", &["crate::pure::config::model::X"]),
            (
                "fn f() -> ::std::io::Result<()> { std::fs::read(\"x\") }",
                &["std::io::Result", "std::fs::read"],
            ),
            ("println!(\"{:?}\", std::env::args());", &["std::env::args"]),
            ("#[tokio::main] fn f() {}", &["tokio::main"]),
            ("let tokio = 1; x.io.net; f::<u8>();", &[]),
            ("// use std::fs;\n/* std::fs::x */ let a = \"std::fs::x\"; /// std::fs::y\nfn f() {}", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(paths(file, text), expected, "{text}");
        }
    }

    #[test]
    fn files_are_modules() {
        let cases = [
            ("lb-user/src/lib.rs", "crate"),
            ("lb-user/src/io/mod.rs", "crate::io"),
            ("lb-user/src/io/net/monitor.rs", "crate::io::net::monitor"),
            ("lb-user/src/io.rs", "crate::io"),
        ];
        for (file, module) in cases {
            assert_eq!(module_of(file).join("::"), module);
        }
    }

    #[test]
    fn what_stands_out_is_found() {
        let cases = [
            ("fn f() { todo!() }", Kind::Macro("todo".into()), false),
            ("fn f() { unsafe { g() } }", Kind::Unsafe, false),
            ("unsafe impl Pod for X {}", Kind::Unsafe, false),
            ("#![allow(dead_code)]", Kind::ModuleAllow, false),
            ("#![cfg_attr(not(test), allow(dead_code))]", Kind::ModuleAllow, false),
            ("#[cfg(test)] mod tests { #[test] #[ignore = \"slow\"] fn f() {} }", Kind::Ignore, true),
            ("#[cfg(test)] use a::{b, c}; fn f() { unsafe {} }", Kind::Unsafe, false),
            ("#![cfg(test)] fn f() { unsafe {} }", Kind::Unsafe, true),
            ("#[cfg(not(test))] fn f() { unsafe {} }", Kind::Unsafe, false),
        ];
        for (text, kind, in_test) in cases {
            let facts = Source::parse("a/src/b.rs", text).unwrap().facts;
            assert!(facts.iter().any(|f| f.kind == kind && f.in_test == in_test), "{text}: {facts:?}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_found() {
        let quiet = [
            "#[allow(dead_code)] fn f() {}",
            "#![deny(unsafe_code)]",
            "let x = \"todo!() unsafe\"; // todo!() unsafe",
            "if a != b {}",
            "/// todo!()\nfn f() {}",
        ];
        for text in quiet {
            let facts = Source::parse("a/src/b.rs", text).unwrap().facts;
            assert_eq!(facts, [], "{text}");
        }
    }

    #[test]
    fn only_code_counts_as_length() {
        let text = "//! head\n\n/// doc\nfn f() {\n    // why\n    g(\n        1,\n    );\n}\n/* a\nb */\n\
                    #[cfg(test)]\nmod tests {\n    fn t() {}\n}\nconst A: &str = \"x\ny\";\n";
        assert_eq!(Source::parse("a/src/b.rs", text).unwrap().code_lines, 7);
    }

    #[test]
    fn a_file_that_is_not_rust_is_a_finding() {
        assert_eq!(Source::parse("a/src/b.rs", "\nfn f( {").unwrap_err().file, "a/src/b.rs");
    }
}
