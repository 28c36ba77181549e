//! Takes keys out of a TOML table by name and type.
//!
//! Owns the findings every table shares: wrong types, unknown keys, keys that are not built yet. Must not
//! know what a value means.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{Field, List, Number, Port, Text};
use crate::pure::config::error::{Findings, Span, Spanned, nearest, quote};

pub(super) struct Reader<'t, 'f> {
    table: &'t DeTable<'t>,
    /// As an operator writes it: `[[service]]`.
    name: &'static str,
    at: Span,
    known: Vec<&'static str>,
    /// Words of other programs, the key that means the same here, and its table.
    foreign: Vec<(&'static str, &'static str, &'static str)>,
    pub(super) findings: &'f mut Findings,
}

impl<'t, 'f> Reader<'t, 'f> {
    pub(super) fn new(
        table: &'t DeTable<'t>,
        name: &'static str,
        at: Span,
        findings: &'f mut Findings,
    ) -> Self {
        Reader { table, name, at, known: Vec::new(), foreign: Vec::new(), findings }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// `example` is a good value as it would be typed.
    pub(super) fn text(&mut self, key: &'static str, example: &str) -> Field<Text> {
        self.field(key, |reader, at, value| match value {
            DeValue::String(text) => Field::Given(Spanned::new(at, text.to_string())),
            other => reader.wrong_type(key, at, other, "a string", example),
        })
    }

    /// A string with a unit; a number alone does not say whether it means seconds.
    pub(super) fn duration(&mut self, key: &'static str, example: &str) -> Field<Text> {
        self.field(key, |reader, at, value| match value {
            DeValue::String(text) => Field::Given(Spanned::new(at, text.to_string())),
            DeValue::Integer(_) | DeValue::Float(_) => {
                reader.findings.error(
                    at,
                    format!("`{key}` is a duration and needs a unit"),
                    format!("write it as a string with a unit: `{key} = {example}`"),
                );
                Field::Wrong
            }
            other => reader.wrong_type(key, at, other, "a duration", example),
        })
    }

    pub(super) fn number(&mut self, key: &'static str, example: &str) -> Field<Number> {
        self.field(key, |reader, at, value| match integer(value) {
            Some(number) => Field::Given(Spanned::new(at, number)),
            None => reader.wrong_type(key, at, value, "an integer", example),
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Field<bool> {
        self.field(key, |reader, at, value| match value {
            DeValue::Boolean(flag) => Field::Given(*flag),
            other => reader.wrong_type(key, at, other, "true or false", "true"),
        })
    }

    pub(super) fn port(&mut self, key: &'static str, example: &str) -> Field<Spanned<Port>> {
        self.field(key, |reader, at, value| match value {
            DeValue::String(text) => Field::Given(Spanned::new(at, Port::Text(text.to_string()))),
            DeValue::Integer(_) if let Some(number) = integer(value) => {
                Field::Given(Spanned::new(at, Port::Number(number)))
            }
            other => reader.wrong_type(key, at, other, "an integer", example),
        })
    }

    pub(super) fn texts(&mut self, key: &'static str, example: &str) -> Field<List> {
        self.field(key, |reader, at, value| match value {
            DeValue::Array(_) => reader.list(key, at, value, example),
            other => reader.wrong_type(key, at, other, "a list of strings", example),
        })
    }

    pub(super) fn text_or_texts(&mut self, key: &'static str, example: &str) -> Field<List> {
        self.field(key, |reader, at, value| match value {
            DeValue::String(text) => Field::Given(Spanned::new(at, vec![Spanned::new(at, text.to_string())])),
            DeValue::Array(_) => reader.list(key, at, value, example),
            other => reader.wrong_type(key, at, other, "a string or a list of strings", example),
        })
    }

    /// A program and its arguments; one string is split on blanks.
    pub(super) fn words(&mut self, key: &'static str, example: &str) -> Field<List> {
        self.field(key, |reader, at, value| match value {
            DeValue::String(text) => {
                let words = text.split_ascii_whitespace().map(|word| Spanned::new(at, word.to_string()));
                Field::Given(Spanned::new(at, words.collect()))
            }
            DeValue::Array(_) => reader.list(key, at, value, example),
            other => reader.wrong_type(key, at, other, "a string or a list of strings", example),
        })
    }

    /// A table whose keys are the operator's own.
    pub(super) fn pairs(&mut self, key: &'static str, example: &str) -> Field<Vec<(Text, Text)>> {
        self.field(key, |reader, at, value| {
            let wanted = "a table of strings";
            let DeValue::Table(table) = value else {
                return reader.wrong_type(key, at, value, wanted, example);
            };
            let mut pairs = Vec::new();
            for (name, value) in table.iter().filter(|(_, value)| !is_placeholder(value.span())) {
                let at = reader.span(value.span());
                match value.get_ref() {
                    DeValue::String(text) => {
                        let name = Spanned::new(reader.span(name.span()), name.get_ref().to_string());
                        pairs.push((name, Spanned::new(at, text.to_string())));
                    }
                    other => {
                        let _: Field<()> = reader.wrong_type(key, at, other, wanted, example);
                    }
                }
            }
            Field::Given(pairs)
        })
    }

    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        read: impl FnOnce(Reader<'t, '_>) -> T,
    ) -> Option<Spanned<T>> {
        let (at, value) = self.take(key)?;
        match value {
            DeValue::Table(table) => {
                Some(Spanned::new(at, read(Reader::new(table, name, at, self.findings))))
            }
            other => {
                let message = format!("`{key}` must be one table, not {}", kind(other));
                self.findings.error(
                    at,
                    message,
                    format!("write `{name}` once, with the keys on the lines below it"),
                );
                None
            }
        }
    }

    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        remedy: &str,
        mut read: impl FnMut(Reader<'t, '_>) -> T,
    ) -> Field<Vec<Spanned<T>>> {
        self.field(key, |reader, at, value| {
            let wrong = |found| format!("`{key}` must be a list of tables, not {}", kind(found));
            let DeValue::Array(items) = value else {
                reader.findings.error(at, wrong(value), remedy);
                return Field::Wrong;
            };
            let mut read_all = Vec::new();
            for item in items {
                let at = reader.span(item.span());
                match item.get_ref() {
                    DeValue::Table(table) => {
                        let inner = Reader::new(table, name, at, reader.findings);
                        read_all.push(Spanned::new(at, read(inner)));
                    }
                    other => reader.findings.error(at, wrong(other), remedy),
                }
            }
            Field::Given(read_all)
        })
    }

    /// A list in which a string stands for a table that has only its first key.
    pub(super) fn texts_or_tables<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        example: &str,
        short: impl Fn(Text) -> T,
        mut read: impl FnMut(Reader<'t, '_>) -> T,
    ) -> Field<Vec<Spanned<T>>> {
        self.field(key, |reader, at, value| {
            let (wanted, example) = ("a list of strings or tables", format!("[{example}]"));
            let DeValue::Array(items) = value else {
                return reader.wrong_type(key, at, value, wanted, &example);
            };
            let mut read_all = Vec::new();
            for item in items {
                let at = reader.span(item.span());
                match item.get_ref() {
                    DeValue::String(text) => {
                        let text = Spanned::new(at, text.to_string());
                        read_all.push(Spanned::new(at, short(text)));
                    }
                    DeValue::Table(table) => {
                        let inner = Reader::new(table, name, at, reader.findings);
                        read_all.push(Spanned::new(at, read(inner)));
                    }
                    other => {
                        let _: Field<()> = reader.wrong_type(key, at, other, wanted, &example);
                    }
                }
            }
            Field::Given(read_all)
        })
    }

    /// True, false, or a table that says more.
    pub(super) fn flag_or_table<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        short: impl FnOnce(bool) -> T,
        read: impl FnOnce(Reader<'t, '_>) -> T,
    ) -> Field<Spanned<T>> {
        self.field(key, |reader, at, value| match value {
            DeValue::Boolean(flag) => Field::Given(Spanned::new(at, short(*flag))),
            DeValue::Table(table) => {
                Field::Given(Spanned::new(at, read(Reader::new(table, name, at, reader.findings))))
            }
            other => reader.wrong_type(key, at, other, "true, false or a table", "true"),
        })
    }

    /// A key that a later version will honour: refused, unless its value asks for nothing.
    pub(super) fn not_built(&mut self, key: &'static str, asks_nothing: fn(&DeValue<'_>) -> bool) {
        let Some((at, value)) = self.take(key) else { return };
        if !asks_nothing(value) {
            let message = format!("`{key}` in {} is not built yet", self.name);
            self.findings.error(at, message, format!("remove `{key}`"));
        }
    }

    /// The same for a whole table, or for each of a list of tables.
    pub(super) fn table_not_built(&mut self, key: &'static str, name: &'static str) {
        let Some((at, value)) = self.take(key) else { return };
        let places = match value {
            DeValue::Array(items) => items.iter().map(|item| self.span(item.span())).collect(),
            _ => vec![at],
        };
        for at in places {
            self.findings.error(
                at,
                format!("`{name}` is not built yet"),
                format!("remove `{name}` and its keys"),
            );
        }
    }

    /// Words of other programs that an operator may type here: the remedy leads to the key of `table`.
    pub(super) fn foreign(&mut self, table: &'static str, words: &[(&'static str, &'static str)]) {
        self.foreign.extend(words.iter().map(|&(theirs, ours)| (theirs, ours, table)));
    }

    /// The keys asked for so far that are there, each with the place of its value.
    pub(super) fn typed(&self) -> Vec<(&'static str, Span)> {
        let place = |&key| Some((key, self.span(self.table.get(key)?.span())));
        self.known.iter().filter_map(place).collect()
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let at = Span { file: self.at.file, start: key.span().start, end: key.span().end };
            let foreign = self.foreign.iter().find(|(theirs, ..)| *theirs == name);
            let remedy = match (foreign, nearest(name, self.known.iter().copied())) {
                (Some((_, ours, table)), _) => {
                    self.findings.misspelt(self.at, ours);
                    format!("its name is `{ours}`, in {table}")
                }
                (None, Some(known)) => {
                    self.findings.misspelt(self.at, known);
                    format!("did you mean `{known}`?")
                }
                (None, None) => format!("remove it; the keys known here are {}", self.known.join(", ")),
            };
            self.findings.error(at, format!("unknown key {} in {}", quote(name), self.name), remedy);
        }
    }

    fn field<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self, Span, &'t DeValue<'t>) -> Field<T>,
    ) -> Field<T> {
        match self.take(key) {
            Some((at, value)) => read(self, at, value),
            None if self.table.contains_key(key) => Field::Wrong,
            None => Field::Absent,
        }
    }

    /// None where the key is absent or its value could not be read.
    fn take(&mut self, key: &'static str) -> Option<(Span, &'t DeValue<'t>)> {
        self.known.push(key);
        let value = self.table.get(key)?;
        (!is_placeholder(value.span())).then(|| (self.span(value.span()), value.get_ref()))
    }

    fn list(&mut self, key: &str, at: Span, value: &DeValue<'_>, example: &str) -> Field<List> {
        let items = value.as_array().map(|items| &**items).unwrap_or_default();
        let mut texts = Vec::new();
        for item in items {
            let at = self.span(item.span());
            match item.get_ref() {
                DeValue::String(text) => texts.push(Spanned::new(at, text.to_string())),
                other => {
                    let _: Field<()> = self.wrong_type(key, at, other, "a list of strings", example);
                }
            }
        }
        if texts.is_empty() && !items.is_empty() {
            Field::Wrong
        } else {
            Field::Given(Spanned::new(at, texts))
        }
    }

    fn wrong_type<T>(
        &mut self,
        key: &str,
        at: Span,
        found: &DeValue<'_>,
        wanted: &str,
        example: &str,
    ) -> Field<T> {
        let message = match found {
            DeValue::Integer(number) if wanted == "an integer" => {
                format!("`{key}` is out of range: {}", quote(&number.to_string()))
            }
            found => format!("`{key}` must be {wanted}, not {}", kind(found)),
        };
        self.findings.error(at, message, format!("write it like `{key} = {example}`"));
        Field::Wrong
    }

    fn span(&self, bytes: Range<usize>) -> Span {
        Span { file: self.at.file, start: bytes.start, end: bytes.end }
    }
}

/// The parser puts one where it could not read a value.
fn is_placeholder(bytes: Range<usize>) -> bool {
    bytes == (0..0)
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
