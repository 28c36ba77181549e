//! A VRRP message as values: what is in it, and why one is refused.

use std::{net::IpAddr, time::Duration};

use crate::pure::config::model::vrrp::Version;

/// A message that is whole and whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    pub version: Version,
    pub vrid: u8,
    /// 0: its sender stops being Active.
    pub priority: u8,
    /// Version 2: whole seconds. Version 3: centiseconds.
    pub interval: Duration,
    pub addresses: Vec<IpAddr>,
    pub auth: AuthField,
    /// Which form the checksum had; IPv4 of version 3 has two.
    pub checksum: ChecksumForm,
}

/// The authentication of version 2, and what stands for none in version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthField {
    None,
    /// Type 1.
    Pass([u8; 8]),
    /// Type 2, or one that no standard knows.
    Other(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumForm {
    /// RFC 9568.
    MessageOnly,
    /// Keepalived's and FRR's.
    PseudoHeader,
    /// Old Keepalived's: 224.0.0.18 stands in the pseudo header, wherever the advert goes.
    GroupPseudoHeader,
}

/// What the IP layer said of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of the interface that it came in by.
    pub interface: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

/// Why an advert is not taken. Each has a counter; the name is that of `counters` and of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Shorter or longer than it says.
    Length,
    /// Not 255 in multicast, or outside of what the unicast peer may have.
    Ttl,
    /// Another version than the router's, or none that there is.
    Version,
    /// Not an advertisement.
    Type,
    Checksum,
    /// No router of this node on this interface has this VRID.
    Vrid,
    /// An authentication type that no standard knows.
    AuthType,
    /// Another authentication type than ours.
    AuthMismatch,
    /// The password differs.
    Password,
    /// No trailer though one is demanded, an unknown key, or a digest that is wrong.
    Hmac,
    /// Signed, and older than what came before.
    Replay,
    /// Signed, and the last one of its sender once more.
    Duplicate,
    /// Version 2: the interval differs from ours.
    Interval,
    /// The addresses differ from ours.
    Addresses,
    /// Multicast where unicast is configured, or the other way round.
    Cast,
    /// From somebody who is no unicast peer.
    Source,
    /// We own the addresses (priority 255), and so does the sender.
    Owner,
    /// From our own address.
    Own,
    /// CARP, which uses the same IP protocol.
    Carp,
    /// More came at once than are looked at.
    Flood,
}

impl Refusal {
    pub const ALL: [Refusal; 20] = [
        Refusal::Length,
        Refusal::Ttl,
        Refusal::Version,
        Refusal::Type,
        Refusal::Checksum,
        Refusal::Vrid,
        Refusal::AuthType,
        Refusal::AuthMismatch,
        Refusal::Password,
        Refusal::Hmac,
        Refusal::Replay,
        Refusal::Duplicate,
        Refusal::Interval,
        Refusal::Addresses,
        Refusal::Cast,
        Refusal::Source,
        Refusal::Owner,
        Refusal::Own,
        Refusal::Carp,
        Refusal::Flood,
    ];

    /// As counters and messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Length => "length",
            Refusal::Ttl => "ttl",
            Refusal::Version => "version",
            Refusal::Type => "type",
            Refusal::Checksum => "checksum",
            Refusal::Vrid => "vrid",
            Refusal::AuthType => "auth_type",
            Refusal::AuthMismatch => "auth_mismatch",
            Refusal::Password => "password",
            Refusal::Hmac => "hmac",
            Refusal::Replay => "replay",
            Refusal::Duplicate => "duplicate",
            Refusal::Interval => "interval",
            Refusal::Addresses => "addresses",
            Refusal::Cast => "cast",
            Refusal::Source => "source",
            Refusal::Owner => "owner",
            Refusal::Own => "own",
            Refusal::Carp => "carp",
            Refusal::Flood => "flood",
        }
    }
}
