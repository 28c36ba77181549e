//! What a check sends and what it waits for: text, bytes, patterns.

use crate::pure::config::{
    convert::{Either, checked, either},
    error::{Findings, Spanned, quote},
    model::check::Pattern,
    raw::{Field, Text},
    value::{Fault, fault},
};

/// None: neither was typed.
pub(super) fn bytes(
    send: Field<Text>,
    send_hex: Field<Text>,
    findings: &mut Findings,
) -> Option<Option<Vec<u8>>> {
    match either(("send", send), ("send_hex", send_hex), findings)? {
        Either::Neither => Some(None),
        Either::First(typed) => checked(&typed, findings, text).map(|text| Some(text.into_bytes())),
        Either::Second(typed) => checked(&typed, findings, hex).map(Some),
    }
}

/// `key` is a text that is searched for as it stands; the other one is `expect_regex`. None: neither was typed.
pub(super) fn pattern(
    key: &str,
    literal: Field<Text>,
    regex: Field<Text>,
    findings: &mut Findings,
) -> Option<Option<Spanned<Pattern>>> {
    let (typed, pattern) = match either((key, literal), ("expect_regex", regex), findings)? {
        Either::Neither => return Some(None),
        Either::First(typed) => (typed.at, checked(&typed, findings, self::literal)?),
        Either::Second(typed) => (typed.at, checked(&typed, findings, self::regex)?),
    };
    Some(Some(Spanned::new(typed, pattern)))
}

/// Any text, but no book.
pub(super) fn text(text: &str) -> Result<String, Fault> {
    if text.len() > TEXT_MAX {
        return Err(too_long(text.len()));
    }
    Ok(text.into())
}

fn literal(typed: &str) -> Result<Pattern, Fault> {
    expression(typed, Pattern::literal(&text(typed)?))
}

fn regex(typed: &str) -> Result<Pattern, Fault> {
    expression(typed, Pattern::new(&text(typed)?))
}

fn expression(typed: &str, pattern: Result<Pattern, regex::Error>) -> Result<Pattern, Fault> {
    if typed.is_empty() {
        return Err(fault(
            "an empty text is in every answer",
            "write what an answer must have, or remove the key",
        ));
    }
    pattern.map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        fault(
            format!("{} is not a regular expression: {reason}", quote(typed)),
            "correct it; in a TOML string in single quotes a backslash stands for itself",
        )
    })
}

/// Pairs of digits, with blanks between them or not.
fn hex(text: &str) -> Result<Vec<u8>, Fault> {
    let no_hex = || {
        fault(
            format!("{} is not a row of bytes", quote(text)),
            "write two hexadecimal digits for each byte, such as \"0a0b\" or \"0a 0b\"",
        )
    };
    let mut bytes = Vec::new();
    for word in text.split_ascii_whitespace() {
        for pair in word.as_bytes().chunks(2) {
            let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
            let byte = digit(0).zip(digit(1)).map(|(high, low)| high << 4 | low).ok_or_else(no_hex)?;
            bytes.push(u8::try_from(byte).map_err(|_| no_hex())?);
        }
    }
    if bytes.len() > TEXT_MAX {
        return Err(too_long(bytes.len()));
    }
    Ok(bytes)
}

fn too_long(len: usize) -> Fault {
    fault(format!("{len} bytes are more than a check needs"), format!("write at most {TEXT_MAX}"))
}

/// A check is small: it runs every few seconds on every server.
const TEXT_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_digits() {
        let cases: [(&str, Option<&[u8]>); 8] = [
            ("0a0b", Some(&[0x0a, 0x0b])),
            ("0A 0b\n0c0d", Some(&[0x0a, 0x0b, 0x0c, 0x0d])),
            ("", Some(&[])),
            ("0", None),
            ("0a0", None),
            ("0 a0b", None),
            ("0x0a", None),
            ("+a", None),
        ];
        for (text, expected) in cases {
            assert_eq!(hex(text).ok().as_deref(), expected, "{text:?}");
        }
        assert!(hex(&"00".repeat(TEXT_MAX)).is_ok() && hex(&"00".repeat(TEXT_MAX + 1)).is_err());
    }

    #[test]
    fn text_is_searched_for_as_it_stands() {
        let pattern = literal("+PONG.").expect("a literal");
        assert!(pattern.is_in(b"\xff+PONG.\r\n") && !pattern.is_in(b"+PONGS"));
    }
}
