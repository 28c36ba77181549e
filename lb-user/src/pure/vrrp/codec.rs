//! Adverts as bytes: RFC 3768 and RFC 9568, section 5.
//!
//! ```text
//! v2  21 vrid priority n authtype seconds  checksum  n x IPv4          8 bytes of authentication
//! v3  31 vrid priority n 0:4 centiseconds:12  checksum  n x IPv4 or IPv6
//! either may be followed by a trailer of 28 bytes: see `hmac`
//! ```
//!
//! Must not know what a router expects: that is `receive`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{
    advert::{Advert, AuthField, ChecksumForm, Refusal, Seen},
    checksum::Sum,
    hmac::{self, Sequence},
};
use crate::pure::config::{
    model::vrrp::{Auth, Checksum, Router, Version},
    network::Family,
};

/// IP protocol number.
pub const PROTOCOL: u8 = 112;

/// A message that is whole, and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    pub advert: Advert,
    /// From the version to the end of the addresses, or of the authentication.
    pub message: &'a [u8],
    /// Empty, or `hmac::TRAILER` bytes.
    pub trailer: &'a [u8],
}

/// Why a message is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub refusal: Refusal,
    pub detail: String,
}

/// A message without its IP header, and whatever follows in the packet.
pub fn parse<'a>(bytes: &'a [u8], seen: &Seen) -> Result<Parsed<'a>, Flaw> {
    let Some((&[first, vrid, priority, count, ..], _)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(flaw(
            Refusal::Length,
            format!("the advert is {} bytes long, its header {HEADER}", bytes.len()),
        ));
    };
    if is_carp(bytes) {
        return Err(flaw(
            Refusal::Carp,
            format!("carp has the same ip protocol, and uses the id {vrid} here"),
        ));
    }
    let family = Family::of(seen.source);
    let version = match (first >> 4, family) {
        (2, Family::V4) => Version::V2,
        (2, Family::V6) => {
            return Err(flaw(Refusal::Version, "the advert has version 2, which has no IPv6".to_owned()));
        }
        (3, Family::V4 | Family::V6) => Version::V3,
        (other, Family::V4 | Family::V6) => {
            return Err(flaw(Refusal::Version, format!("the advert has version {other}, there are 2 and 3")));
        }
    };
    if first & 0xf != ADVERTISEMENT {
        return Err(flaw(
            Refusal::Type,
            format!("the message has type {}, an advertisement has {ADVERTISEMENT}", first & 0xf),
        ));
    }
    let length = message_length(version, family, usize::from(count));
    let (message, trailer) = split(bytes, length).ok_or_else(|| {
        let detail =
            format!("the advert is {} bytes long, one of {count} addresses has {length}", bytes.len());
        flaw(Refusal::Length, detail)
    })?;
    // Without the value, which is another one in each advert: what is told once is then told always.
    let checksum = checksum_form(version, message, trailer, seen).ok_or_else(|| {
        flaw(Refusal::Checksum, "the advert's checksum is wrong in every known form".to_owned())
    })?;
    let advert = Advert {
        version,
        vrid,
        priority,
        interval: interval(version, message),
        addresses: addresses(family, message, usize::from(count)),
        auth: auth_field(version, message),
        checksum,
    };
    Ok(Parsed { advert, message, trailer })
}

/// Of a message that may be anything.
pub fn vrid(bytes: &[u8]) -> Option<u8> {
    bytes.get(1).copied()
}

/// An advert that a router sends.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub router: &'a Router,
    /// 0: resigns.
    pub priority: u8,
    /// Used for IPv4 of version 3 only.
    pub form: ChecksumForm,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Used where the router signs only.
    pub sequence: Sequence,
}

impl Outgoing<'_> {
    /// Without an IP header. Of more than 255 addresses, which no configuration has, the first 255.
    pub fn encode(&self) -> Vec<u8> {
        let router = self.router;
        let addresses = &router.addresses[..router.addresses.len().min(usize::from(u8::MAX))];
        let mut bytes = vec![
            router.version.number() << 4 | ADVERTISEMENT,
            router.vrid,
            self.priority,
            addresses.len() as u8,
        ];
        bytes.extend(match router.version {
            Version::V2 => [auth_type(router), router.interval.as_secs().clamp(1, 255) as u8],
            Version::V3 => centiseconds(router.interval).to_be_bytes(),
        });
        bytes.extend([0, 0]);
        for address in addresses {
            match address.address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        match (router.version, &router.auth) {
            (Version::V2, Auth::Pass(password)) => bytes.extend(password),
            (Version::V2, Auth::None | Auth::Hmac(_)) => bytes.extend([0; AUTH_DATA]),
            (Version::V3, _) => {}
        }
        let length = bytes.len();
        if let Auth::Hmac(hmac) = &router.auth
            && let Some(trailer) = hmac::sign(hmac, &bytes, self.source, self.sequence)
        {
            bytes.extend(trailer);
        }
        let checksum = self.sum(&bytes, length).finish();
        bytes[CHECKSUM..HEADER].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn sum(&self, bytes: &[u8], length: usize) -> Sum {
        let message = &bytes[..length];
        match (self.router.version, self.router.family) {
            (Version::V2, _) => Sum::of(message),
            (Version::V3, Family::V4) => summed(self.form, message, self.source, self.destination),
            (Version::V3, Family::V6) => pseudo(self.source, self.destination, bytes),
        }
    }
}

/// What a router's adverts have, given the form of the last peer's.
pub fn form_to_send(configured: Checksum, heard: Option<ChecksumForm>) -> ChecksumForm {
    match configured {
        Checksum::Auto => heard.unwrap_or(ChecksumForm::PseudoHeader),
        Checksum::PseudoHeader => ChecksumForm::PseudoHeader,
        Checksum::MessageOnly => ChecksumForm::MessageOnly,
    }
}

/// OpenBSD's: its count of words is that of its own authentication, which as a VRRP message would be longer.
fn is_carp(bytes: &[u8]) -> bool {
    bytes.len() == CARP && bytes[0] == 0x21 && bytes[3] == 7
}

fn message_length(version: Version, family: Family, count: usize) -> usize {
    HEADER
        + count * usize::from(family.bits() / 8)
        + match version {
            Version::V2 => AUTH_DATA,
            Version::V3 => 0,
        }
}

/// Into the message and its trailer, if nothing else is there.
fn split(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(length).filter(|(_, trailer)| matches!(trailer.len(), 0 | hmac::TRAILER))
}

/// None: it is right in no form.
fn checksum_form(version: Version, message: &[u8], trailer: &[u8], seen: &Seen) -> Option<ChecksumForm> {
    let (source, destination) = (seen.source, seen.destination);
    match (version, Family::of(source)) {
        (Version::V2, _) => Sum::of(message).is_right().then_some(ChecksumForm::MessageOnly),
        (Version::V3, Family::V4) => {
            let forms =
                [ChecksumForm::MessageOnly, ChecksumForm::PseudoHeader, ChecksumForm::GroupPseudoHeader];
            forms.into_iter().find(|form| summed(*form, message, source, destination).is_right())
        }
        // It covers what IPv6 calls the upper-layer packet, which includes the trailer.
        (Version::V3, Family::V6) => {
            let sum = Sum::pseudo(source, destination, PROTOCOL, message.len() + trailer.len());
            // Only the trailer could be odd, and it comes last.
            sum.and(message).and(trailer).is_right().then_some(ChecksumForm::PseudoHeader)
        }
    }
}

fn summed(form: ChecksumForm, message: &[u8], source: IpAddr, destination: IpAddr) -> Sum {
    match form {
        ChecksumForm::MessageOnly => Sum::of(message),
        ChecksumForm::PseudoHeader => pseudo(source, destination, message),
        ChecksumForm::GroupPseudoHeader => pseudo(source, GROUP_V4.into(), message),
    }
}

fn pseudo(source: IpAddr, destination: IpAddr, bytes: &[u8]) -> Sum {
    Sum::pseudo(source, destination, PROTOCOL, bytes.len()).and(bytes)
}

fn interval(version: Version, message: &[u8]) -> Duration {
    match version {
        Version::V2 => Duration::from_secs(message[5].into()),
        Version::V3 => {
            Duration::from_millis(10 * u64::from(u16::from_be_bytes([message[4] & 0xf, message[5]])))
        }
    }
}

fn addresses(family: Family, message: &[u8], count: usize) -> Vec<IpAddr> {
    let list = &message[HEADER..];
    match family {
        Family::V4 => list.as_chunks::<4>().0.iter().take(count).map(|a| Ipv4Addr::from(*a).into()).collect(),
        Family::V6 => {
            list.as_chunks::<16>().0.iter().take(count).map(|a| Ipv6Addr::from(*a).into()).collect()
        }
    }
}

fn auth_field(version: Version, message: &[u8]) -> AuthField {
    match (version, message[4]) {
        (Version::V3, _) | (Version::V2, 0) => AuthField::None,
        (Version::V2, 1) => message.last_chunk().map_or(AuthField::Other(1), |data| AuthField::Pass(*data)),
        (Version::V2, other) => AuthField::Other(other),
    }
}

fn auth_type(router: &Router) -> u8 {
    match router.auth {
        Auth::Pass(_) => 1,
        Auth::None | Auth::Hmac(_) => 0,
    }
}

/// The field has twelve bits.
fn centiseconds(interval: Duration) -> u16 {
    (interval.as_millis() / 10).clamp(1, 0xfff) as u16
}

fn flaw(refusal: Refusal, detail: String) -> Flaw {
    Flaw { refusal, detail }
}

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const ADVERTISEMENT: u8 = 1;
/// Up to and with the checksum.
const HEADER: usize = 8;
/// Where the checksum is.
pub(super) const CHECKSUM: usize = 6;
/// Of version 2, there even without authentication.
const AUTH_DATA: usize = 8;
/// A CARP header: 8 bytes, a counter of 8, a digest of 20.
const CARP: usize = 36;

#[cfg(test)]
mod tests;
