use proptest::prelude::*;

use super::{
    super::fixture::{self, address, clock, ip, sequence},
    *,
};
use crate::pure::config::{
    model::vrrp::{HmacMode, UnicastPeer},
    network::Family,
};

/// A peer's advert in the making, and what the router that hears it expects.
struct Case {
    ours: Router,
    theirs: Router,
    priority: u8,
    seen: Seen,
    own: Option<IpAddr>,
    active: Option<IpAddr>,
    differs_for: Duration,
}

impl Case {
    /// Two routers that agree.
    fn new(version: Version, family: Family) -> Case {
        let router = fixture::router(version, family);
        let seen = fixture::seen(&router);
        Case {
            ours: router.clone(),
            theirs: router,
            priority: 100,
            seen,
            own: None,
            active: None,
            differs_for: Duration::ZERO,
        }
    }

    fn with(version: Version, change: impl FnOnce(&mut Case)) -> Case {
        let mut case = Case::new(version, Family::V4);
        change(&mut case);
        case
    }

    fn receive(&self) -> Result<Heard, Rejected> {
        let message = fixture::advert(&self.theirs, self.priority, sequence(clock()));
        self.receive_bytes(&message, &mut Senders::default())
    }

    fn receive_bytes(&self, message: &[u8], senders: &mut Senders) -> Result<Heard, Rejected> {
        let (own, active, differs_for) = (self.own, self.active, self.differs_for);
        let expected = Expected { router: &self.ours, own, active, differs_for, clock: clock(), senders };
        receive(message, &self.seen, expected)
    }

    #[track_caller]
    fn refused(&self, refusal: Refusal, detail: &str) {
        let rejected = self.receive().unwrap_err();
        assert_eq!((rejected.refusal, rejected.detail.as_str()), (refusal, detail));
    }
}

fn unicast(router: &mut Router, peers: &[(&str, (u8, u8))]) {
    router.unicast_peers =
        peers.iter().map(|(address, ttl)| UnicastPeer { address: ip(address), ttl: *ttl }).collect();
}

/// Ours is unicast, and so is what we hear.
fn unicast_case(ttl: u8) -> Case {
    Case::with(Version::V3, |case| {
        unicast(&mut case.ours, &[("10.98.0.1", (250, 255)), ("10.98.0.5", (1, 255))]);
        case.theirs = case.ours.clone();
        case.seen = Seen { ttl, ..fixture::seen(&case.ours) };
    })
}

#[test]
fn routers_that_agree_hear_each_other() {
    for (version, family) in [(Version::V2, Family::V4), (Version::V3, Family::V4), (Version::V3, Family::V6)]
    {
        let case = Case::new(version, family);
        let heard = case.receive().unwrap();
        assert_eq!((heard.advert.version, heard.advert.priority, heard.difference), (version, 100, None));
    }
    unicast_case(250).receive().unwrap();
    let auth = Auth::Pass(*b"secret\0\0");
    for version in [Version::V2, Version::V3] {
        Case::with(version, |case| {
            case.ours.auth = auth.clone();
            case.theirs.auth = auth.clone();
        })
        .receive()
        .unwrap();
    }
    let resigns = Case::with(Version::V3, |case| case.priority = 0).receive().unwrap();
    assert_eq!(resigns.advert.priority, 0);
}

#[test]
fn an_interval_of_version_3_is_for_learning() {
    let mut case = Case::new(Version::V3, Family::V4);
    case.theirs.interval = Duration::from_millis(250);
    assert_eq!(case.receive().unwrap().advert.interval, Duration::from_millis(250));
    let mut message = fixture::advert(&case.theirs, 100, sequence(clock()));
    // 25 centiseconds become none, which the checksum gets back.
    message[5] = 0;
    message[7] = message[7].wrapping_add(25);
    let rejected = case.receive_bytes(&message, &mut Senders::default()).unwrap_err();
    assert_eq!(rejected.refusal, Refusal::Interval, "{}", rejected.detail);
}

#[test]
fn a_refusal_names_the_field_and_both_values() {
    use Version::{V2, V3};
    let v2 = |change: &dyn Fn(&mut Case)| Case::with(V2, |case| change(case));
    let v3 = |change: &dyn Fn(&mut Case)| Case::with(V3, |case| change(case));

    v3(&|case| case.seen.ttl = 254)
        .refused(Refusal::Ttl, "the advert's ttl is 254, it must be 255: a router forwarded it");
    v3(&|case| case.theirs.version = V2)
        .refused(Refusal::Version, "the advert has version 2, this router version 3");
    v2(&|case| case.theirs.version = V3)
        .refused(Refusal::Version, "the advert has version 3, this router version 2");
    v3(&|case| case.own = Some(ip("10.98.0.1")))
        .refused(Refusal::Own, "the advert comes from 10.98.0.1, this node's own address");
    v2(&|case| case.theirs.interval = Duration::from_secs(3))
        .refused(Refusal::Interval, "the advert's interval is 3s, that of this router 1s (advert_interval)");
    v3(&|case| {
        case.ours.priority = 255;
        case.priority = 255;
    })
    .refused(
        Refusal::Owner,
        "the advert has priority 255, and so has this router: only one can own the addresses",
    );
    v3(&|case| case.seen.source = ip("10.98.0.9"))
        .refused(Refusal::Checksum, "the advert's checksum is wrong in every known form");
}

#[test]
fn authentication_that_differs_is_named_and_no_password_is() {
    let pass = |password: &[u8; 8]| Auth::Pass(*password);
    let cases = [
        (
            pass(b"secret-1"),
            Auth::None,
            Refusal::AuthMismatch,
            "none (type 0), that of this router a password (type 1)",
        ),
        (
            Auth::None,
            pass(b"secret-1"),
            Refusal::AuthMismatch,
            "a password (type 1), that of this router none",
        ),
        (
            Auth::Hmac(fixture::hmac(HmacMode::Enforce)),
            pass(b"secret-1"),
            Refusal::AuthMismatch,
            "a password (type 1), that of this router a signature (auth_hmac)",
        ),
        (
            Auth::None,
            Auth::Hmac(fixture::hmac(HmacMode::Enforce)),
            Refusal::AuthMismatch,
            "a signature (auth_hmac), that of this router none",
        ),
        (
            pass(b"secret-1"),
            pass(b"secret-2"),
            Refusal::Password,
            "the password of 10.98.0.1 is not that of this router",
        ),
        (
            Auth::Hmac(fixture::hmac(HmacMode::Enforce)),
            Auth::None,
            Refusal::Hmac,
            "the advert is not signed, this router demands it",
        ),
    ];
    for (ours, theirs, refusal, detail) in cases {
        let case = Case::with(Version::V2, |case| {
            case.ours.auth = ours;
            case.theirs.auth = theirs;
        });
        let rejected = case.receive().unwrap_err();
        assert_eq!(rejected.refusal, refusal, "{}", rejected.detail);
        assert!(rejected.detail.contains(detail), "{}", rejected.detail);
        assert!(!rejected.detail.contains("secret"), "{}", rejected.detail);
        assert_eq!(rejected.advert.map(|advert| advert.priority), Some(100));
    }
}

#[test]
fn authentication_types_that_nobody_has_are_told_apart() {
    let case = Case::new(Version::V2, Family::V4);
    let message = fixture::advert(&case.theirs, 100, sequence(clock()));
    for (kind, refusal) in [(2, Refusal::AuthMismatch), (3, Refusal::AuthType), (255, Refusal::AuthType)] {
        let mut message = message.clone();
        message[4] = kind;
        let checksum = u16::from_be_bytes([message[6], message[7]]);
        let (less, borrow) = checksum.overflowing_sub(u16::from(kind) << 8);
        message[6..8].copy_from_slice(&less.wrapping_sub(borrow.into()).to_be_bytes());
        let rejected = case.receive_bytes(&message, &mut Senders::default()).unwrap_err();
        assert_eq!(rejected.refusal, refusal, "{}", rejected.detail);
        assert!(rejected.detail.contains(&format!("type {kind}")), "{}", rejected.detail);
    }
}

#[test]
fn multicast_and_unicast_do_not_mix() {
    Case::with(Version::V3, |case| unicast(&mut case.ours, &[("10.98.0.1", (1, 255))])).refused(
        Refusal::Cast,
        "the advert came by multicast, to 224.0.0.18, this router uses unicast (unicast_peers)",
    );
    Case::with(Version::V3, |case| {
        unicast(&mut case.theirs, &[("10.98.0.2", (1, 255))]);
        case.seen = fixture::seen(&case.theirs);
    })
    .refused(Refusal::Cast, "the advert came unicast, to 10.98.0.2, this router uses the group 224.0.0.18");
    Case::with(Version::V3, |case| case.ours.multicast = Some(ip("224.0.0.99"))).refused(
        Refusal::Cast,
        "the advert came to the group 224.0.0.18, this router uses the group 224.0.0.99",
    );
}

#[test]
fn unicast_peers_are_known_and_as_far_away_as_configured() {
    unicast_case(249).refused(Refusal::Ttl, "the advert's ttl is 249, that of this peer is from 250 to 255");
    let mut stranger = unicast_case(255);
    unicast(&mut stranger.ours, &[("10.98.0.5", (1, 255))]);
    stranger.refused(Refusal::Source, "10.98.0.1 is no unicast peer, these are: 10.98.0.5");
}

#[test]
fn lists_of_addresses_differ_whatever_their_order() {
    let reordered = Case::with(Version::V3, |case| case.theirs.addresses.reverse());
    assert_eq!(reordered.receive().unwrap().difference, None);

    let mut case = Case::with(Version::V3, |case| {
        case.theirs.addresses[0] = address("10.98.0.7");
    });
    let detail = "the addresses differ: only the advert has 10.98.0.7, only this router has 10.98.0.100";
    assert_eq!(case.receive().unwrap().difference.as_deref(), Some(detail));

    case.ours.address_check = AddressCheck::NewMaster;
    case.refused(Refusal::Addresses, detail);
    case.active = Some(ip("10.98.0.1"));
    assert_eq!(case.receive().unwrap().difference.as_deref(), Some(detail));

    case.ours.address_check = AddressCheck::Refuse;
    assert_eq!(case.receive().unwrap().difference.as_deref(), Some(detail), "the other may be reloaded yet");
    case.differs_for = ADDRESS_GRACE;
    case.refused(Refusal::Addresses, detail);

    let many = Case::with(Version::V3, |case| {
        case.theirs.addresses = (0..7).map(|n| address(&format!("10.98.1.{n}"))).collect();
        case.ours.addresses.clear();
    });
    assert_eq!(
        many.receive().unwrap().difference.as_deref(),
        Some("the addresses differ: only the advert has 10.98.1.0 10.98.1.1 10.98.1.2 10.98.1.3 and 3 more")
    );
}

#[test]
fn a_signed_advert_counts_once() {
    let case = Case::with(Version::V3, |case| {
        case.ours.auth = Auth::Hmac(fixture::hmac(HmacMode::Enforce));
        case.theirs.auth = case.ours.auth.clone();
    });
    let mut senders = Senders::default();
    let message = fixture::advert(&case.theirs, 100, sequence(clock()));
    case.receive_bytes(&message, &mut senders).unwrap();
    assert_eq!(case.receive_bytes(&message, &mut senders).unwrap_err().refusal, Refusal::Duplicate);
}

#[test]
fn owner_hears_who_does_not_own() {
    let case = Case::with(Version::V3, |case| case.ours.priority = 255);
    assert_eq!(case.receive().unwrap().advert.priority, 100);
}

#[test]
fn strangers_are_told_by_name() {
    let case = Case::new(Version::V3, Family::V4);
    let message = fixture::advert(&case.theirs, 100, sequence(clock()));
    let rejected = stranger(&message, &case.seen);
    assert_eq!(rejected.refusal, Refusal::Vrid);
    assert_eq!(
        rejected.detail,
        "10.98.0.1 uses vrid 51 with priority 100, no router here has it on this interface"
    );
    assert_eq!(stranger(&message[..9], &case.seen).refusal, Refusal::Length);
}

proptest! {
    #[test]
    fn no_packet_is_too_strange(message: Vec<u8>, ttl: u8, is_unicast: bool) {
        let mut case = Case::new(Version::V2, Family::V4);
        case.ours.auth = Auth::Hmac(fixture::hmac(HmacMode::Permissive));
        case.seen.ttl = ttl;
        if is_unicast {
            unicast(&mut case.ours, &[("10.98.0.1", (0, 255))]);
        }
        let _ = case.receive_bytes(&message, &mut Senders::default());
        let _ = stranger(&message, &case.seen);
    }
}
