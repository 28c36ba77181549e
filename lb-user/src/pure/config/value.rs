//! Values written as text: durations, names, paths.
//!
//! Owns their grammar. Must not know which key a value belongs to.

use std::{path::PathBuf, time::Duration};

use super::error::quote;

/// What is wrong with a value, and the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// `"2s"`, `"1m30s"`: whole numbers with units, the largest unit first.
pub(crate) fn duration(text: &str) -> Result<Duration, Fault> {
    let fault = |message: String| fault(message, "write a number with a unit, such as 500ms, 2s or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut smallest = Duration::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let number: u32 = number.parse().map_err(|_| fault(format!("{} is not a duration", quote(text))))?;
        let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let what = match (unit, tail) {
                ("", "") => "has no unit",
                ("", _) => "has something else than numbers and units",
                _ => "has an unknown unit",
            };
            return Err(fault(format!("the duration {} {what}", quote(text))));
        };
        if *length >= smallest {
            return Err(fault(format!("the units of {} are out of order", quote(text))));
        }
        smallest = *length;
        total = length
            .checked_mul(number)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| fault(format!("the duration {} is too long", quote(text))))?;
        rest = tail;
    }
    if text.is_empty() { Err(fault("the duration is empty".into())) } else { Ok(total) }
}

/// What `server SERVICE/SERVER` on the command line, metrics and logs can carry.
pub(crate) fn name(text: &str) -> Result<String, Fault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.', ':'].contains(&c);
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(allowed) {
        return Err(fault(
            format!("{} is not a name", quote(text)),
            format!("use 1 to {NAME_MAX} letters, digits and `-`, `_`, `.`, `:`"),
        ));
    }
    Ok(text.into())
}

/// As the kernel's dev_valid_name().
pub(crate) fn interface(text: &str) -> Result<String, Fault> {
    let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let is_valid = (1..=INTERFACE_NAME_MAX).contains(&text.len()) && !text.contains(refused);
    if !is_valid || text == "." || text == ".." {
        return Err(fault(
            format!("{} is not an interface name", quote(text)),
            format!(
                "write a name that `ip link` shows: 1 to {INTERFACE_NAME_MAX} bytes without `/`, `:` or spaces"
            ),
        ));
    }
    Ok(text.into())
}

/// An absolute path: the daemon's working directory is nobody's business.
pub(crate) fn path(text: &str, bytes_max: usize) -> Result<PathBuf, Fault> {
    if !text.starts_with('/') || text.contains('\0') {
        return Err(fault(
            format!("{} is not an absolute path", quote(text)),
            "write the whole path, starting with `/`",
        ));
    }
    if text.len() > bytes_max {
        return Err(fault(
            format!("the path {} is too long", quote(text)),
            format!("use at most {bytes_max} bytes"),
        ));
    }
    Ok(text.into())
}

/// A directory on a bpf file system, which allows no dot in a name.
pub(crate) fn pin(text: &str, bytes_max: usize) -> Result<PathBuf, Fault> {
    if text.contains('.') {
        return Err(fault(
            format!("{} has a dot in it, which a bpf file system does not allow", quote(text)),
            "choose a name without dots",
        ));
    }
    path(text, bytes_max)
}

pub(crate) fn fault(message: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault { message: message.into(), remedy: remedy.into() }
}

const UNITS: [(&str, Duration); 6] = [
    ("us", Duration::from_micros(1)),
    ("ms", Duration::from_millis(1)),
    ("s", Duration::from_secs(1)),
    ("m", Duration::from_secs(60)),
    ("h", Duration::from_secs(60 * 60)),
    ("d", Duration::from_secs(24 * 60 * 60)),
];
pub(crate) const NAME_MAX: usize = 64;
/// IFNAMSIZ without its final NUL.
const INTERFACE_NAME_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("0s", Some(Duration::ZERO)),
            ("250us", Some(Duration::from_micros(250))),
            ("10ms", Some(Duration::from_millis(10))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("2d1h", Some(Duration::from_secs(49 * 3_600))),
            ("", None),
            ("2", None),
            ("s", None),
            ("-2s", None),
            ("1.5s", None),
            ("1m 30s", None),
            ("30s1m", None),
            ("1s1s", None),
            ("2 s", None),
            ("2w", None),
            ("2S", None),
            ("99999999999s", None),
            ("4294967295d4294967295h", Some(Duration::from_secs(4_294_967_295 * 25 * 3_600))),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }
}
