//! Whether an advert counts: the receive checks of RFC 3768 and RFC 9568, section 7.1, and Keepalived's.
//!
//! Each refusal names the field and both values, for two nodes that do not understand each other hold the addresses
//! both. Never a password. Must not know states: what an advert means is the router's matter.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use aws_lc_rs::constant_time;
use jiff::Timestamp;

use super::{
    advert::{Advert, AuthField, Refusal, Seen},
    codec::{Flaw, Parsed, parse},
    hmac::{Senders, Signed},
};
use crate::pure::config::model::vrrp::{AddressCheck, Auth, Router, UnicastPeer, Version};

/// What a router knows when an advert arrives.
#[derive(Debug)]
pub struct Expected<'a> {
    pub router: &'a Router,
    /// Source of the router's own adverts.
    pub own: Option<IpAddr>,
    /// Who sent the last advert that counted.
    pub active: Option<IpAddr>,
    /// For how long this sender's addresses have differed; zero: not before.
    pub differs_for: Duration,
    pub clock: Timestamp,
    /// Of this router.
    pub senders: &'a mut Senders,
}

/// An advert that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub advert: Advert,
    /// How its addresses differ from the router's, to be counted and told as `Refusal::Addresses`.
    pub difference: Option<String>,
}

/// One that does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub refusal: Refusal,
    /// The field and both values.
    pub detail: String,
    /// If it is whole.
    pub advert: Option<Advert>,
}

/// `bytes` begin with the message, and its VRID is the router's.
pub fn receive(bytes: &[u8], seen: &Seen, expected: Expected<'_>) -> Result<Heard, Rejected> {
    if seen.destination.is_multicast() && seen.ttl != TTL {
        let detail = format!("the advert's ttl is {}, it must be {TTL}: a router forwarded it", seen.ttl);
        return Err(Rejected { refusal: Refusal::Ttl, detail, advert: None });
    }
    let parsed = parse(bytes, seen).map_err(Flaw::without_advert)?;
    match check(&parsed, seen, expected) {
        Ok(difference) => Ok(Heard { advert: parsed.advert, difference }),
        Err(flaw) => Err(flaw.with(parsed.advert)),
    }
}

/// What is signed proves who says it before it is asked what it says. Returns how the addresses differ.
fn check(parsed: &Parsed<'_>, seen: &Seen, mut expected: Expected<'_>) -> Result<Option<String>, Flaw> {
    let Parsed { advert, .. } = parsed;
    let router = expected.router;
    check_origin(advert, seen, &expected)?;
    check_auth(parsed, seen, &mut expected)?;
    check_interval(advert, router)?;
    check_cast(seen, router)?;
    check_owner(advert, router)?;
    match difference(advert, router) {
        Some(detail) if is_refused_for_addresses(seen, &expected) => {
            Err(Flaw { refusal: Refusal::Addresses, detail })
        }
        difference => Ok(difference),
    }
}

/// An advert whose VRID no router here has, on this interface and in this family.
pub fn stranger(bytes: &[u8], seen: &Seen) -> Rejected {
    match parse(bytes, seen) {
        Ok(Parsed { advert, .. }) => {
            let detail = format!(
                "{} uses vrid {} with priority {}, no router here has it on this interface",
                seen.source, advert.vrid, advert.priority
            );
            Rejected { refusal: Refusal::Vrid, detail, advert: Some(advert) }
        }
        Err(flaw) => flaw.without_advert(),
    }
}

impl Flaw {
    fn with(self, advert: Advert) -> Rejected {
        Rejected { refusal: self.refusal, detail: self.detail, advert: Some(advert) }
    }

    fn without_advert(self) -> Rejected {
        Rejected { refusal: self.refusal, detail: self.detail, advert: None }
    }
}

fn check_origin(advert: &Advert, seen: &Seen, expected: &Expected<'_>) -> Result<(), Flaw> {
    let (theirs, ours) = (advert.version, expected.router.version);
    if expected.own == Some(seen.source) {
        let detail = format!("the advert comes from {}, this node's own address", seen.source);
        return Err(Flaw { refusal: Refusal::Own, detail });
    }
    if theirs != ours {
        let detail =
            format!("the advert has version {}, this router version {}", theirs.number(), ours.number());
        return Err(Flaw { refusal: Refusal::Version, detail });
    }
    Ok(())
}

fn check_auth(parsed: &Parsed<'_>, seen: &Seen, expected: &mut Expected<'_>) -> Result<(), Flaw> {
    let router = expected.router;
    let mismatch = |theirs: &str| {
        let ours = name(&router.auth);
        let detail = format!("the authentication of the advert is {theirs}, that of this router {ours}");
        Err(Flaw { refusal: Refusal::AuthMismatch, detail })
    };
    match (&router.auth, parsed.advert.auth) {
        (_, AuthField::Other(kind)) if kind > AUTH_HEADER => {
            let detail =
                format!("the advert has authentication type {kind}, there are 0, 1 and {AUTH_HEADER}");
            Err(Flaw { refusal: Refusal::AuthType, detail })
        }
        (_, AuthField::Other(kind)) => mismatch(&format!("of type {kind} (AH)")),
        (Auth::Hmac(hmac), AuthField::None) => {
            let Parsed { message, trailer, .. } = *parsed;
            let (interval, clock) = (router.interval, expected.clock);
            expected.senders.verify(hmac, &Signed { message, trailer, source: seen.source, interval, clock })
        }
        (Auth::None | Auth::Pass(_), _) if !parsed.trailer.is_empty() => mismatch(SIGNATURE),
        (Auth::None, AuthField::None) => Ok(()),
        // Version 3 has no field for the password.
        (Auth::Pass(_), AuthField::None) if router.version == Version::V3 => Ok(()),
        (Auth::Pass(_), AuthField::None) => mismatch("none (type 0)"),
        (Auth::None | Auth::Hmac(_), AuthField::Pass(_)) => mismatch(PASSWORD),
        (Auth::Pass(ours), AuthField::Pass(theirs)) => constant_time::verify_slices_are_equal(ours, &theirs)
            .map_err(|_| Flaw {
                refusal: Refusal::Password,
                detail: format!("the password of {} is not that of this router (auth_pass)", seen.source),
            }),
    }
}

fn name(auth: &Auth) -> &'static str {
    match auth {
        Auth::None => "none",
        Auth::Pass(_) => PASSWORD,
        Auth::Hmac(_) => SIGNATURE,
    }
}

fn check_interval(advert: &Advert, router: &Router) -> Result<(), Flaw> {
    let is_wrong = match advert.version {
        Version::V2 => advert.interval != router.interval,
        // It is learned, and nobody waits for no time.
        Version::V3 => advert.interval.is_zero(),
    };
    if !is_wrong {
        return Ok(());
    }
    let detail = format!(
        "the advert's interval is {:?}, that of this router {:?} (advert_interval)",
        advert.interval, router.interval
    );
    Err(Flaw { refusal: Refusal::Interval, detail })
}

fn check_cast(seen: &Seen, router: &Router) -> Result<(), Flaw> {
    if router.is_unicast() {
        return check_peer(seen, &router.unicast_peers);
    }
    if seen.destination == router.group_address() {
        return Ok(());
    }
    let how = if seen.destination.is_multicast() { "to the group" } else { "unicast, to" };
    let detail = format!(
        "the advert came {how} {}, this router uses the group {}",
        seen.destination,
        router.group_address()
    );
    Err(Flaw { refusal: Refusal::Cast, detail })
}

fn check_peer(seen: &Seen, peers: &[UnicastPeer]) -> Result<(), Flaw> {
    if seen.destination.is_multicast() {
        let detail = format!(
            "the advert came by multicast, to {}, this router uses unicast (unicast_peers)",
            seen.destination
        );
        return Err(Flaw { refusal: Refusal::Cast, detail });
    }
    let Some(peer) = peers.iter().find(|peer| peer.address == seen.source) else {
        let known: Vec<_> = peers.iter().take(SHOWN).map(|peer| peer.address.to_string()).collect();
        let more = if peers.len() > SHOWN { " and others" } else { "" };
        let detail = format!("{} is no unicast peer, these are: {}{more}", seen.source, known.join(", "));
        return Err(Flaw { refusal: Refusal::Source, detail });
    };
    let (least, most) = peer.ttl;
    if (least..=most).contains(&seen.ttl) {
        return Ok(());
    }
    let detail = format!("the advert's ttl is {}, that of this peer is from {least} to {most}", seen.ttl);
    Err(Flaw { refusal: Refusal::Ttl, detail })
}

fn check_owner(advert: &Advert, router: &Router) -> Result<(), Flaw> {
    if router.is_owner() && advert.priority == u8::MAX {
        let detail = "the advert has priority 255, and so has this router: only one can own the addresses";
        return Err(Flaw { refusal: Refusal::Owner, detail: detail.to_owned() });
    }
    Ok(())
}

/// Their order means nothing.
fn difference(advert: &Advert, router: &Router) -> Option<String> {
    let theirs: BTreeSet<IpAddr> = advert.addresses.iter().copied().collect();
    let ours: BTreeSet<IpAddr> = router.addresses.iter().map(|address| address.address).collect();
    if theirs == ours {
        return None;
    }
    let parts = [("only the advert has", &theirs - &ours), ("only this router has", &ours - &theirs)];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(_, addresses)| !addresses.is_empty())
        .map(|(who, addresses)| format!("{who} {}", listed(&addresses)))
        .collect();
    Some(format!("the addresses differ: {}", parts.join(", ")))
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    let shown: Vec<_> = addresses.iter().take(SHOWN).map(IpAddr::to_string).collect();
    match addresses.len().saturating_sub(SHOWN) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

fn is_refused_for_addresses(seen: &Seen, expected: &Expected<'_>) -> bool {
    match expected.router.address_check {
        AddressCheck::Report => false,
        AddressCheck::NewMaster => expected.active != Some(seen.source),
        AddressCheck::Refuse => expected.differs_for >= ADDRESS_GRACE,
    }
}

/// In which the other node may be reloaded, too.
pub const ADDRESS_GRACE: Duration = Duration::from_secs(60);

/// What no router has lowered (RFC 5082).
const TTL: u8 = 255;
/// Type 2: IP's authentication header, which neither standard has kept.
const AUTH_HEADER: u8 = 2;
const PASSWORD: &str = "a password (type 1)";
const SIGNATURE: &str = "a signature (auth_hmac)";
/// Addresses in one sentence.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests;
