//! Values written as text: durations, addresses, names, paths.
//!
//! Owns their grammar. Must not know which key a value belongs to.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

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

/// One IPv4 address that a packet can be sent to.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Fault> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return unicast(address);
    }
    if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Err(fault(
            format!("IPv6 is not built yet: {}", quote(text)),
            "remove it, or write an IPv4 address",
        ));
    }
    if let Some((address, _)) = text.split_once('/')
        && (address.parse::<Ipv4Addr>().is_ok() || address.parse::<Ipv6Addr>().is_ok())
    {
        return Err(fault(
            format!("address prefixes are not built yet: {}", quote(text)),
            "write single addresses, without `/` and a prefix length",
        ));
    }
    if let Some((address, port)) = text.split_once(':')
        && address.parse::<Ipv4Addr>().is_ok()
    {
        return Err(fault(
            format!("{} has a port, which does not belong here", quote(text)),
            format!("write \"{address}\"; a service's port has its own key, `port = {}`", port_example(port)),
        ));
    }
    Err(fault(
        format!("{} is not an IPv4 address", quote(text)),
        "write four numbers, such as 10.0.5.96; names are not resolved",
    ))
}

/// `IP` or `IP:PORT`.
pub(crate) fn server_address(text: &str) -> Result<(Ipv4Addr, Option<u16>), Fault> {
    let is_v6 = text.starts_with('[') || text.parse::<Ipv6Addr>().is_ok();
    if is_v6 {
        let host =
            text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(host, _)| host);
        return address(host).map(|address| (address, None));
    }
    let Some((host, port)) = text.split_once(':') else {
        return address(text).map(|address| (address, None));
    };
    let host = address(host)?;
    if port_range(port) {
        return Err(fault(
            format!("port ranges are not built yet: {}", quote(text)),
            format!("write one port: \"{host}:8080\""),
        ));
    }
    match port.parse::<u16>() {
        Ok(port) if port != 0 => Ok((host, Some(port))),
        _ => Err(fault(
            format!("{} is not a port", quote(port)),
            format!("write 1 to 65535: \"{host}:8080\"; without a port the service's is used"),
        )),
    }
}

/// Whether `text` is what a service that takes several ports will be written as.
pub(crate) fn port_range(text: &str) -> bool {
    let number = |part: &str| part.trim().parse::<u16>().is_ok();
    text == "any" || text.split_once('-').is_some_and(|(first, last)| number(first) && number(last))
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

fn unicast(address: Ipv4Addr) -> Result<Ipv4Addr, Fault> {
    let kind = match address {
        a if a.is_unspecified() => "the unspecified address",
        a if a.is_loopback() => "a loopback address",
        a if a.is_multicast() => "a multicast address",
        a if a.is_broadcast() => "the broadcast address",
        _ => return Ok(address),
    };
    Err(fault(
        format!("`{address}` is {kind}"),
        "write an address of one machine that others can reach over the network",
    ))
}

fn port_example(typed: &str) -> u16 {
    typed.parse().ok().filter(|port| *port != 0).unwrap_or(80)
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

    #[test]
    fn server_addresses() {
        let host = Ipv4Addr::new(10, 0, 5, 91);
        assert_eq!(server_address("10.0.5.91"), Ok((host, None)));
        assert_eq!(server_address("10.0.5.91:8888"), Ok((host, Some(8888))));
        for text in ["", ":", "10.0.5.91:", "10.0.5.91:0", "10.0.5.91:65536", "web1:80", "[::1", "10.0.5:80"]
        {
            assert!(server_address(text).is_err(), "{text:?}");
        }
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80"] {
            let fault = server_address(text).expect_err(text);
            assert!(fault.message.contains("IPv6 is not built yet"), "{text:?}: {fault:?}");
        }
    }
}
