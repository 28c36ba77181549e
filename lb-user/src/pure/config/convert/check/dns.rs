//! `type = "dns"`: what is asked, and the address that should be in the answer.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::{checked, choice};
use crate::pure::config::{
    convert::required,
    error::{Findings, Span, Spanned, quote},
    model::check::Dns,
    raw::Own,
    value::{Fault, fault},
};

pub(super) fn dns(own: Own, at: Span, findings: &mut Findings) -> Option<Dns> {
    let query = required(own.query, "query", "\"www.example.com\"", at, findings)
        .and_then(|typed| checked(&typed, findings, name));
    let expect = own.said.expect.or(None, |typed| {
        checked(&typed, findings, address).map(|address| Some(Spanned::new(typed.at, address)))
    })?;
    let (of_address, word) = match &expect {
        Some(Spanned { value: IpAddr::V6(_), .. }) => (AAAA, "AAAA"),
        Some(_) | None => (A, "A"),
    };
    let record = own.record.or(of_address, |typed| choice(&typed, "record", &RECORDS, &[], findings))?;
    if let Some(expect) = expect.as_ref().filter(|_| record != of_address && record != ANY) {
        findings.error(
            expect.at,
            format!("`{}` cannot be in the answer: records of this type do not hold it", expect.value),
            format!("set `record = \"{word}\"`, or remove `expect`"),
        );
        return None;
    }
    Some(Dns { query: query?, record, expect: expect.map(|expect| expect.value) })
}

fn name(text: &str) -> Result<String, Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_plain) || Name::from_ascii(text).is_err() {
        return Err(fault(
            format!("{} is not a domain name", quote(text)),
            "write labels of 1 to 63 letters, digits, `-` and `_` with dots between them",
        ));
    }
    Ok(text.into())
}

fn address(text: &str) -> Result<IpAddr, Fault> {
    text.parse().map_err(|_| {
        fault(
            format!("{} is not an IP address", quote(text)),
            "write the address that the answer should hold, such as \"10.0.5.96\"",
        )
    })
}

const A: u16 = 1;
const AAAA: u16 = 28;
const ANY: u16 = 255;
/// IANA, "Resource Record (RR) TYPEs".
const RECORDS: [(&str, u16); 12] = [
    ("A", A),
    ("AAAA", AAAA),
    ("CNAME", 5),
    ("NS", 2),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("SRV", 33),
    ("CAA", 257),
    ("HTTPS", 65),
    ("ANY", ANY),
];
