//! TLS of a check: the name that is asked for, who vouches for the certificate, and when its end is near.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::uri::Authority;
use rustls::pki_types::DnsName;

use super::{checked, choice, within};
use crate::pure::config::{
    convert::{Either, PATH_MAX, bounded, either, unique_list, values},
    error::{Findings, quote},
    model::check::{Tls, Verify},
    raw::{self, Field, Text},
    value::{self, Fault, fault},
};

pub(super) fn tls(raw: raw::Tls, findings: &mut Findings) -> Option<Tls> {
    with(raw, None, protocol, findings)
}

/// The name that is asked for is `host`'s where none is typed.
pub(super) fn of_https(raw: raw::Tls, host: Option<&str>, findings: &mut Findings) -> Option<Tls> {
    with(raw, host.and_then(name_in), http_protocol, findings)
}

/// HTTP/2 is all that gRPC speaks.
pub(super) fn of_grpc(raw: raw::Tls, findings: &mut Findings) -> Option<Tls> {
    let tls = with(raw, None, protocol, findings)?;
    Some(Tls { alpn: vec![HTTP_2.into()], ..tls })
}

fn with(
    raw: raw::Tls,
    name_default: Option<String>,
    protocol: fn(&str) -> Result<String, Fault>,
    findings: &mut Findings,
) -> Option<Tls> {
    let server_name =
        raw.server_name.or(name_default, |typed| checked(&typed, findings, server_name).map(Some));
    let verify = verify(raw.verify, raw.ca_file, findings);
    let alpn = raw.alpn.or(Vec::new(), |list| {
        bounded(&list, "alpn", ALPN_MAX, findings);
        unique_list(list, "protocol", findings, protocol).map(values)
    });
    let expiry_warning = raw.expiry_warning.or(EXPIRY_WARNING, |typed| {
        within(&typed, "expiry_warning", ("0s", Duration::ZERO), ("365d", EXPIRY_WARNING_MAX), findings)
    });
    Some(Tls { server_name: server_name?, verify: verify?, alpn: alpn?, expiry_warning: expiry_warning? })
}

fn verify(verify: Field<Text>, ca_file: Field<Text>, findings: &mut Findings) -> Option<Verify> {
    match either(("verify", verify), ("ca_file", ca_file), findings)? {
        Either::Neither => Some(Verify::None),
        Either::First(word) if word.value.starts_with('/') => {
            let message = format!("{} is not a value of `verify`", quote(&word.value));
            findings.error(word.at, message, "write a file of authorities as `ca_file = \"/..\"`");
            None
        }
        Either::First(word) => choice(&word, "verify", &VERIFIES, &[], findings)
            .map(|is_verified| if is_verified { Verify::System } else { Verify::None }),
        Either::Second(file) => {
            let path: PathBuf = checked(&file, findings, |text| value::path(text, PATH_MAX))?;
            Some(Verify::File(path))
        }
    }
}

/// SNI carries names, never addresses (RFC 6066, section 3).
fn server_name(text: &str) -> Result<String, Fault> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(fault(
            format!("{} is an address: a server is asked for by its name", quote(text)),
            "write the name, or remove `server_name`; a certificate is then verified for the address",
        ));
    }
    DnsName::try_from(text).map(|_| text.into()).map_err(|_| {
        fault(format!("{} is not the name of a server", quote(text)), "write one such as \"www.example.com\"")
    })
}

fn name_in(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    server_name(authority.host()).ok()
}

fn protocol(text: &str) -> Result<String, Fault> {
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || !(1..=PROTOCOL_MAX).contains(&text.len()) {
        return Err(fault(
            format!("{} is not the name of a protocol", quote(text)),
            "write one that IANA lists for ALPN, such as \"h2\" or \"imap\"",
        ));
    }
    Ok(text.into())
}

fn http_protocol(text: &str) -> Result<String, Fault> {
    if ![HTTP_2, "http/1.1"].contains(&text) {
        return Err(fault(
            format!("{} is not a protocol that an https check speaks", quote(text)),
            "write \"h2\" or \"http/1.1\"",
        ));
    }
    Ok(text.into())
}

/// The keys of a check that are for TLS alone.
pub(super) const KEYS: [&str; 4] = ["server_name", "verify", "ca_file", "expiry_warning"];
/// Whether by the machine's authorities; those of a file have their own key.
const VERIFIES: [(&str, bool); 2] = [("none", false), ("system", true)];
const HTTP_2: &str = "h2";
const ALPN_MAX: usize = 8;
/// Its length is one byte (RFC 7301, section 3.1).
const PROTOCOL_MAX: usize = 255;
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const EXPIRY_WARNING_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
