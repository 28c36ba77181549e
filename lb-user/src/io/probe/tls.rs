//! The TLS check, and the TLS under the checks that speak inside of it.
//!
//! A handshake is always a whole one: a session that is resumed would show the certificate of another day.

mod trust;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConnection, Error, PeerIncompatible, ProtocolVersion,
    pki_types::{ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::parse_x509_certificate;

use super::{Failure, Trace, tcp};
use crate::pure::{
    config::{error::quote, model::check::Tls},
    report::Step,
    state::CheckTask,
};

/// Passes once the handshake is done.
pub(super) async fn check(trace: &mut Trace, task: &CheckTask, tls: &Tls) -> Result<(), Failure> {
    let stream = tcp::connect(trace, task).await?;
    let stream = handshake(trace, stream, task.target.ip(), tls, &tls.alpn).await?;
    let session = stream.get_ref().1;
    if !tls.alpn.is_empty() && session.alpn_protocol().is_none() {
        return Err(Failure::Server(format!("it chose none of the protocols {}", tls.alpn.join(", "))));
    }
    trace.answer = Some(answer(session));
    Ok(())
}

/// Offers the protocols of `alpn`, most wanted first. Warns of a certificate that ends soon.
pub(super) async fn handshake(
    trace: &mut Trace,
    stream: TcpStream,
    address: IpAddr,
    tls: &Tls,
    alpn: &[String],
) -> Result<TlsStream<TcpStream>, Failure> {
    trace.step(Step::Tls);
    let config = trust::config(&tls.verify, alpn).await.map_err(Failure::Local)?;
    let name = match &tls.server_name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| {
            Failure::Local(format!("{} is no host name: change the check's `server_name`", quote(name)))
        })?,
        None => ServerName::from(address),
    };
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| fault(&error))?;
    if let Some(end) = certificate_end(stream.get_ref().1) {
        trace.warning = ending(end, now(), tls.expiry_warning);
    }
    Ok(stream)
}

/// What an error on a stream with or without TLS says, and of whom.
pub(super) fn fault(error: &io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => Failure::Server(reason(error)),
        None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
            Failure::Server("connection closed".to_owned())
        }
        None => tcp::refusal(error),
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("it refuses, with the alert {alert:?}"),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "it speaks no version of TLS after 1.1".to_owned()
        }
        Error::InvalidCertificate(error) => certificate_reason(error),
        other => other.to_string(),
    }
}

fn certificate_reason(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate ended {} ago", span(seconds(*time) - seconds(*not_after)))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}: look at both clocks", day(seconds(*not_before)))
        }
        CertificateError::UnknownIssuer => "its certificate comes from an unknown authority".to_owned(),
        // An authority that was made anew keeps its name, not its key.
        CertificateError::BadSignature => {
            "its certificate comes from another authority of the same name".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "no name at all".to_owned(),
                names => {
                    names.iter().take(NAMES_MAX).map(|name| quote(bare(name))).collect::<Vec<_>>().join(", ")
                }
            };
            format!("its certificate is not for {}, but for {names}", quote(&expected.to_str()))
        }
        // Rustls has no word of its own for it.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own, which no server may show: issue one for it, or set `verify = \"none\"`"
                .to_owned()
        }
        other => format!("its certificate cannot be accepted: {other}"),
    }
}

/// Of `DnsName("a.example")`, as rustls gives the names of a certificate, what stands within.
fn bare(name: &str) -> &str {
    match name.split_once('(') {
        Some((_, within)) => within.trim_end_matches(')').trim_matches('"'),
        None => name,
    }
}

/// "TLS 1.3, certificate until 2027-02-11".
fn answer(session: &ClientConnection) -> String {
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS",
    };
    match certificate_end(session) {
        Some(end) => format!("{version}, certificate until {}", day(end)),
        None => format!("{version}, certificate unreadable"),
    }
}

/// The last second of the server's own certificate, from 1970 on.
fn certificate_end(session: &ClientConnection) -> Option<i64> {
    let own = session.peer_certificates()?.first()?;
    let (_, certificate) = parse_x509_certificate(own).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn ending(end: i64, now: i64, warning: Duration) -> Option<String> {
    match end - now {
        left if left < 0 => Some(format!("its certificate ended {} ago", span(-left))),
        left if left.unsigned_abs() <= warning.as_secs() => {
            Some(format!("its certificate ends in {}", span(left)))
        }
        _ => None,
    }
}

/// Never "1 day": below two of a unit the smaller one says more.
fn span(seconds: i64) -> String {
    match seconds {
        days if days >= 2 * DAY => format!("{} days", days / DAY),
        hours if hours >= 2 * HOUR => format!("{} hours", hours / HOUR),
        minutes => format!("{} minutes", minutes / MINUTE),
    }
}

fn day(second: i64) -> String {
    Timestamp::from_second(second)
        .map_or("a day beyond the calendar".to_owned(), |time| time.strftime("%F").to_string())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Of a certificate's names in a message.
const NAMES_MAX: usize = 3;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
