//! `type = "http"` and `"https"`: a request that is one request whatever is typed, and the answers that will do.

use std::ops::RangeInclusive;

use http::{
    Method,
    header::{self, HeaderName, HeaderValue},
    uri::{Authority, PathAndQuery},
};

use super::{checked, payload, tls};
use crate::pure::config::{
    error::{Findings, quote},
    model::check::Http,
    raw::{Request, Said, Text, Tls},
    value::{Fault, fault},
};

/// `tls`: None in clear.
pub(super) fn http(request: Request, said: Said, tls: Option<Tls>, findings: &mut Findings) -> Option<Http> {
    let method = request.method.or("GET".into(), |typed| checked(&typed, findings, method));
    let uri = request.uri.or("/".into(), |typed| checked(&typed, findings, uri));
    let host = request.host.or(None, |typed| checked(&typed, findings, host).map(Some));
    let tls = match tls {
        None => Some(None),
        Some(tls) => tls::of_https(tls, host.as_ref().and_then(Option::as_deref), findings).map(Some),
    };
    let headers = request.headers.or(Vec::new(), |pairs| headers(&pairs, findings));
    let body = request.body.or(String::new(), |typed| checked(&typed, findings, payload::text));
    let status = said.expect.or(vec![STATUS_DEFAULT], |typed| checked(&typed, findings, statuses));
    let body_matches = payload::pattern("expect_body", request.expect_body, said.expect_regex, findings)?;
    let method = method?;
    if let Some(pattern) = body_matches.as_ref().filter(|_| method == "HEAD") {
        findings.error(pattern.at, "an answer to `HEAD` has no body", "remove this key, or `method`");
        return None;
    }
    Some(Http {
        tls: tls?,
        method,
        uri: uri?,
        host: host?,
        headers: headers?,
        body: body?.into_bytes(),
        status: status?,
        body_matches: body_matches.map(|pattern| pattern.value),
    })
}

fn method(text: &str) -> Result<String, Fault> {
    if Method::from_bytes(text.as_bytes()).is_err() {
        return Err(fault(format!("{} is not an HTTP method", quote(text)), "write one such as \"GET\""));
    }
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let remedy = format!("write \"{}\"", text.to_ascii_uppercase());
        return Err(fault(format!("the method {} is in small letters", quote(text)), remedy));
    }
    if text == Method::CONNECT {
        return Err(fault("`CONNECT` asks for a tunnel, not for an answer", "write \"GET\" or \"HEAD\""));
    }
    Ok(text.into())
}

/// Path and query (RFC 9112, section 3.2.1).
fn uri(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        return Err(fault(
            format!("{} is not a path", quote(text)),
            "write path and query, starting with `/`; the host has its own key, `host`",
        ));
    }
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_plain || text.len() > URI_MAX || text.parse::<PathAndQuery>().is_err() {
        return Err(fault(
            format!("{} cannot stand in a request", quote(text)),
            format!(
                "use at most {URI_MAX} visible ASCII characters, no `#`; write others as `%` and two digits"
            ),
        ));
    }
    Ok(text.into())
}

fn host(text: &str) -> Result<String, Fault> {
    if text.contains('@') || text.parse::<Authority>().is_err() {
        return Err(fault(
            format!("{} is not a host", quote(text)),
            "write a name or an address, and a port where it belongs: \"www.example.com:8080\"",
        ));
    }
    Ok(text.into())
}

fn headers(pairs: &[(Text, Text)], findings: &mut Findings) -> Option<Vec<(String, String)>> {
    if let Some((over, _)) = pairs.get(HEADERS_MAX) {
        let message = format!("`headers` has {} entries", pairs.len());
        findings.error(over.at, message, format!("keep at most {HEADERS_MAX}"));
        return None;
    }
    let read: Vec<_> = pairs
        .iter()
        .map(|(name, value)| {
            let name = checked(name, findings, header_name);
            let value = checked(value, findings, header_value);
            Some((name?, value?))
        })
        .collect();
    read.into_iter().collect()
}

fn header_name(text: &str) -> Result<String, Fault> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        return Err(fault(
            format!("{} is not the name of a header", quote(text)),
            "use letters, digits and `-`, without blanks and without `:`",
        ));
    };
    if name == header::HOST {
        return Err(fault("`headers` cannot set the host", "write it as `host = \"..\"`"));
    }
    if FRAMING.contains(&name) {
        return Err(fault(
            format!("`{name}` says where a request ends, which the check sees to itself"),
            "remove this header",
        ));
    }
    Ok(text.into())
}

/// Never shown: it may be a secret.
fn header_value(text: &str) -> Result<String, Fault> {
    if text.len() > URI_MAX || HeaderValue::from_str(text).is_err() {
        return Err(fault(
            "the value of this header cannot stand in one line of a request",
            format!("use at most {URI_MAX} visible ASCII characters and blanks"),
        ));
    }
    Ok(text.into())
}

/// `"200-399,401"`.
fn statuses(text: &str) -> Result<Vec<RangeInclusive<u16>>, Fault> {
    let wrong = |part: &str| {
        fault(
            format!("{} is neither a status nor a range of them", quote(part)),
            "write statuses from 100 to 599 and ranges of them, such as \"200-399,401\"",
        )
    };
    let number = |text: &str| {
        let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|status| is_number && STATUSES.contains(status))
    };
    text.split(',')
        .map(str::trim)
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let ends = number(first.trim_end()).zip(number(last.trim_start()));
            ends.filter(|(first, last)| first <= last)
                .map(|(first, last)| first..=last)
                .ok_or_else(|| wrong(part))
        })
        .collect()
}

const STATUS_DEFAULT: RangeInclusive<u16> = 200..=399;
const STATUSES: RangeInclusive<u16> = 100..=599;
const HEADERS_MAX: usize = 32;
/// Of a URI and of a header's value: servers refuse requests with lines above 8 KiB.
const URI_MAX: usize = 4_096;
/// Headers between which a server and its proxies may disagree where a request ends (RFC 9112, section 11.2), and
/// those of one connection (RFC 9110, section 7.6.1).
const FRAMING: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lists() {
        let cases: [(&str, Option<&[RangeInclusive<u16>]>); 12] = [
            ("200", Some(&[200..=200])),
            ("200-399,401", Some(&[200..=399, 401..=401])),
            (" 200 - 299 , 304 ", Some(&[200..=299, 304..=304])),
            ("100-599", Some(&[100..=599])),
            ("", None),
            ("200,", None),
            ("99", None),
            ("600", None),
            ("+20", None),
            ("0200", None),
            ("399-200", None),
            ("2xx", None),
        ];
        for (text, expected) in cases {
            assert_eq!(statuses(text).ok().as_deref(), expected, "{text:?}");
        }
    }
}
