//! Single values as Keepalived reads them, each with its fall-back.
//!
//! Owns the findings that all keywords share. A function returns None only after it said why.

use std::{net::IpAddr, time::Duration};

use super::parser::{Statement, Word};
use crate::pure::config::{
    address::link_address,
    error::{Findings, Span, Spanned, nearest, quote},
    network::Family,
    value::{self, Fault, NAME_MAX},
};

/// The one value of a keyword.
pub(super) fn only<'s>(statement: &'s Statement, findings: &mut Findings) -> Option<&'s Word> {
    let Some((value, rest)) = statement.values().split_first() else {
        let message = format!("`{}` has no value: it is ignored, as in Keepalived", statement.keyword());
        findings.warning(statement.at(), message, "write its value on the same line");
        return None;
    };
    extra(rest, findings);
    Some(value)
}

/// Words behind those that count.
pub(super) fn extra(rest: &[Word], findings: &mut Findings) {
    let Some(first) = rest.first() else { return };
    if first.text.starts_with("//") {
        let message =
            "`//` begins no comment: it is read as one more word, which is ignored as in Keepalived";
        findings.warning(first.at, message, "begin the comment with `#` or `!`");
    } else {
        let message = format!("{} and what follows it are ignored, as in Keepalived", quote(&first.text));
        findings.warning(first.at, message, "remove the words, or begin a comment with `#`");
    }
}

/// A keyword that nobody knows here. Keepalived ignores it with its block.
pub(super) fn unknown(statement: &Statement, owner: &str, known: &[&'static str], findings: &mut Findings) {
    let keyword = statement.keyword();
    if keyword == "{" {
        return;
    }
    let remedy = match nearest(keyword, known.iter().copied()) {
        _ if keyword.starts_with("//") => "`//` begins no comment: write `#` or `!`".to_owned(),
        _ if owner != TOP && BLOCKS.contains(&keyword) => {
            format!("a `}}` is missing above: `{keyword}` stands at the top of the file, not in {owner}")
        }
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "remove it".to_owned(),
    };
    let message = format!("unknown keyword {} in {owner}: it is ignored, as in Keepalived", quote(keyword));
    findings.warning(statement.at(), message, remedy);
}

pub(super) const TOP: &str = "the file";
const BLOCKS: [&str; 6] =
    ["global_defs", "vrrp_instance", "vrrp_sync_group", "vrrp_script", "virtual_server", "track_file"];

/// A keyword that is known, but does nothing here.
pub(super) fn unused(statement: &Statement, why: &str, findings: &mut Findings) {
    let message = format!("`{}` does nothing here: {why}", statement.keyword());
    findings.warning(statement.at(), message, "nothing is to be done; remove it to be rid of this warning");
}

/// A whole number in a range; `fallback` says what is used instead of another one.
pub(super) fn number<T: TryFrom<i64>>(
    statement: &Statement,
    (min, max): (i64, i64),
    fallback: &str,
    findings: &mut Findings,
) -> Option<T> {
    let word = only(statement, findings)?;
    let value = word.text.parse().ok().filter(|value| (min..=max).contains(value));
    let value = value.and_then(|value| T::try_from(value).ok());
    if value.is_none() {
        refused(statement, word, fallback, &format!("write {min} to {max}"), findings);
    }
    value
}

/// Seconds, with a fraction where there is one, in a range of microseconds.
pub(super) fn timer(
    statement: &Statement,
    (min_us, max_us): (u64, u64),
    fallback: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    let word = only(statement, findings)?;
    let value = seconds(&word.text).filter(|value| {
        u64::try_from(value.as_micros()).is_ok_and(|micros| (min_us..=max_us).contains(&micros))
    });
    if value.is_none() {
        let shown = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let remedy = format!("write {} to {} seconds", shown(min_us), shown(max_us));
        refused(statement, word, fallback, &remedy, findings);
    }
    value
}

pub(super) fn refused(
    statement: &Statement,
    word: &Word,
    fallback: &str,
    remedy: &str,
    findings: &mut Findings,
) {
    let message = format!(
        "{} is no value of `{}`: {fallback}, as in Keepalived",
        quote(&word.text),
        statement.keyword()
    );
    findings.warning(word.at, message, remedy);
}

/// On where nothing else is written.
pub(super) fn flag(statement: &Statement, findings: &mut Findings) -> Option<bool> {
    let Some((word, rest)) = statement.values().split_first() else { return Some(true) };
    extra(rest, findings);
    match word.text.as_str() {
        "on" | "true" | "yes" => Some(true),
        "off" | "false" | "no" => Some(false),
        _ => {
            refused(statement, word, "the keyword is ignored", "write on or off", findings);
            None
        }
    }
}

/// `1`, `0.25`, `.5`: digits behind the sixth are dropped.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(Duration::from_secs(whole.into()) + Duration::from_micros(micros))
}

/// An address alone.
pub(super) fn address(word: &Word, what: &str, findings: &mut Findings) -> Option<IpAddr> {
    let address = link_address(&word.text).ok();
    if address.is_none() {
        let message = format!("{} is no address of {what}: it is ignored", quote(&word.text));
        findings.warning(word.at, message, "write an IPv4 or IPv6 address of one machine");
    }
    address
}

/// `ADDRESS[/LENGTH]`: a length that is missing or wrong makes it one address, as in Keepalived.
pub(super) fn prefixed(word: &Word, findings: &mut Findings) -> Option<(IpAddr, u8)> {
    let (typed, length) = match word.text.split_once('/') {
        Some((typed, length)) => (typed, Some(length)),
        None => (word.text.as_str(), None),
    };
    let Ok(address) = typed.parse::<IpAddr>() else {
        let message = format!("{} is no IP address: it is ignored, as in Keepalived", quote(&word.text));
        findings.warning(word.at, message, "write an address such as 10.0.5.96/20");
        return None;
    };
    let bits = Family::of(address).bits();
    let Some(length) = length else { return Some((address, bits)) };
    let dotted = || Some(length.parse::<std::net::Ipv4Addr>().ok()?.to_bits().leading_ones() as u8);
    let length = length.parse().ok().or_else(dotted).filter(|length| *length <= bits);
    if length.is_none() {
        let message = format!(
            "{} has no length of a prefix that is right: Keepalived takes {bits}, and so does this",
            quote(&word.text)
        );
        findings.warning(word.at, message, format!("write 0 to {bits} behind the `/`"));
    }
    Some((address, length.unwrap_or(bits)))
}

/// A command as one string: words at blanks, quotes around words that have blanks in them.
pub(super) fn command_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// An interface as the kernel names them.
pub(super) fn interface(word: &Word, findings: &mut Findings) -> Option<String> {
    match value::interface(&word.text) {
        Ok(name) => Some(name),
        Err(Fault { message, remedy }) => {
            findings.warning(word.at, format!("{message}: it is ignored, as in Keepalived"), remedy);
            None
        }
    }
}

/// A name that status pages, metrics and the command line can carry.
pub(super) fn name(word: &Word, findings: &mut Findings) -> Spanned<String> {
    let name = value::name(&word.text).unwrap_or_else(|Fault { remedy, .. }| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.', ':'].contains(&c);
        let shown = word.text.chars().take(NAME_MAX).map(|c| if allowed(c) { c } else { '_' });
        let name = if word.text.is_empty() { "_".into() } else { shown.collect::<String>() };
        let message = format!("{} is called `{name}` here, by notify scripts, too", quote(&word.text));
        findings.warning(word.at, message, remedy);
        name
    });
    Spanned::new(word.at, name)
}

/// Where a keyword of a block stood before: most count as they come last.
pub(super) fn again(statement: &Statement, before: Option<Span>, findings: &mut Findings) {
    if let Some(before) = before {
        let message = format!(
            "`{}` is given again ({}): the last one counts, as in Keepalived",
            statement.keyword(),
            findings.place(before)
        );
        findings.warning(statement.at(), message, "keep one of the two");
    }
}
