use proptest::prelude::*;

use super::{super::fixture, *};
use crate::pure::config::model::vrrp::HmacMode;

/// A message in hexadecimal digits, blanks left out.
fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn seen(source: &str, destination: &str) -> Seen {
    Seen { interface: 2, source: fixture::ip(source), destination: fixture::ip(destination), ttl: 255 }
}

/// With the checksum that belongs to it in version 2.
fn sealed(mut message: Vec<u8>) -> Vec<u8> {
    message[CHECKSUM..HEADER].fill(0);
    let checksum = Sum::of(&message).finish();
    message[CHECKSUM..HEADER].copy_from_slice(&checksum.to_be_bytes());
    message
}

#[test]
fn keepaliveds_advert_of_version_2() {
    let message = sealed(bytes("21 33 64 01 01 01 0000 0a620064 3131313100000000"));
    let parsed = parse(&message, &seen("10.98.0.1", "224.0.0.18")).unwrap();
    let expected = Advert {
        version: Version::V2,
        vrid: 51,
        priority: 100,
        interval: Duration::from_secs(1),
        addresses: vec![fixture::ip("10.98.0.100")],
        auth: AuthField::Pass(*b"1111\0\0\0\0"),
        checksum: ChecksumForm::MessageOnly,
    };
    assert_eq!(parsed, Parsed { advert: expected, message: &message, trailer: &[] });

    let mut router = fixture::router(Version::V2, Family::V4);
    router.addresses.truncate(1);
    router.auth = Auth::Pass(*b"1111\0\0\0\0");
    assert_eq!(fixture::advert(&router, 100, fixture::sequence(fixture::clock())), message);
}

#[test]
fn keepaliveds_advert_of_version_3() {
    let message = bytes("31336401 0064 74af 0a620064");
    let parsed = parse(&message, &seen("10.98.0.1", "224.0.0.18")).unwrap();
    let expected = Advert {
        version: Version::V3,
        vrid: 51,
        priority: 100,
        interval: Duration::from_secs(1),
        addresses: vec![fixture::ip("10.98.0.100")],
        auth: AuthField::None,
        checksum: ChecksumForm::PseudoHeader,
    };
    assert_eq!(parsed.advert, expected);

    let mut router = fixture::router(Version::V3, Family::V4);
    router.addresses.truncate(1);
    assert_eq!(fixture::advert(&router, 100, fixture::sequence(fixture::clock())), message);
}

/// Keepalived's own test of `auth_hmac`.
#[test]
fn keepaliveds_signed_advert() {
    let mut router = fixture::router(Version::V3, Family::V4);
    router.addresses = vec![fixture::address("192.0.2.100")];
    router.auth = Auth::Hmac(fixture::hmac(HmacMode::Enforce));
    let expected =
        bytes("3133c80100644402c0000264 010100006800000080000000 1b84bc4e8e43892dc6d98448f8ee2265");
    let clock = fixture::clock() + Duration::from_millis(500);
    let outgoing = Outgoing {
        router: &router,
        priority: 200,
        form: ChecksumForm::MessageOnly,
        source: fixture::ip("198.51.100.10"),
        destination: fixture::ip("224.0.0.18"),
        sequence: fixture::sequence(clock),
    };
    assert_eq!(outgoing.encode(), expected);
    let parsed = parse(&expected, &seen("198.51.100.10", "224.0.0.18")).unwrap();
    assert_eq!(parsed.advert.checksum, ChecksumForm::MessageOnly);
    assert_eq!((parsed.message.len(), parsed.trailer.len()), (12, 28));
}

#[test]
fn each_form_of_the_checksum_is_taken_and_remembered() {
    let router = fixture::router(Version::V3, Family::V4);
    let (source, destination) = (fixture::ip("10.98.0.1"), fixture::ip("10.98.0.2"));
    let sequence = fixture::sequence(fixture::clock());
    for form in [ChecksumForm::MessageOnly, ChecksumForm::PseudoHeader, ChecksumForm::GroupPseudoHeader] {
        let outgoing = Outgoing { router: &router, priority: 100, form, source, destination, sequence };
        let message = outgoing.encode();
        assert_eq!(parse(&message, &seen("10.98.0.1", "10.98.0.2")).unwrap().advert.checksum, form);
        assert_eq!(form_to_send(Checksum::Auto, Some(form)), form);
    }
    assert_eq!(form_to_send(Checksum::Auto, None), ChecksumForm::PseudoHeader);
    assert_eq!(
        form_to_send(Checksum::MessageOnly, Some(ChecksumForm::PseudoHeader)),
        ChecksumForm::MessageOnly
    );
    assert_eq!(
        form_to_send(Checksum::PseudoHeader, Some(ChecksumForm::MessageOnly)),
        ChecksumForm::PseudoHeader
    );
}

#[test]
fn the_checksum_of_ipv6_covers_the_trailer() {
    let mut router = fixture::router(Version::V3, Family::V6);
    router.auth = Auth::Hmac(fixture::hmac(HmacMode::Enforce));
    let message = fixture::advert(&router, 100, fixture::sequence(fixture::clock()));
    let seen = fixture::seen(&router);
    assert_eq!(message.len(), 8 + 2 * 16 + hmac::TRAILER);
    assert!(pseudo(seen.source, seen.destination, &message).is_right());
    assert_eq!(parse(&message, &seen).unwrap().advert.addresses.len(), 2);
}

#[test]
fn what_is_no_advert_is_named() {
    let v2 = "21 33 64 01 00 01 0000 0a620064 0000000000000000";
    let v3 = "31 33 64 01 0064 74af 0a620064";
    let carp = "21 33 00 07 00 01 0000".to_owned() + &"00".repeat(28);
    let longer = v3.to_owned() + "00";
    let cases = [
        ("empty", String::new(), Refusal::Length, "the advert is 0 bytes long, its header 8"),
        ("half a header", v3[..17].to_owned(), Refusal::Length, "the advert is 6 bytes long, its header 8"),
        (
            "truncated",
            v3[..23].to_owned(),
            Refusal::Length,
            "the advert is 9 bytes long, one of 1 addresses has 12",
        ),
        ("longer", longer, Refusal::Length, "the advert is 13 bytes long, one of 1 addresses has 12"),
        (
            "no auth data",
            v2[..36].to_owned(),
            Refusal::Length,
            "the advert is 14 bytes long, one of 1 addresses has 20",
        ),
        (
            "too many",
            v3.replacen("64 01", "64 02", 1),
            Refusal::Length,
            "the advert is 12 bytes long, one of 2 addresses has 16",
        ),
        (
            "version 1",
            v3.replacen("31", "11", 1),
            Refusal::Version,
            "the advert has version 1, there are 2 and 3",
        ),
        (
            "version 4",
            v3.replacen("31", "41", 1),
            Refusal::Version,
            "the advert has version 4, there are 2 and 3",
        ),
        (
            "type 2",
            v3.replacen("31", "32", 1),
            Refusal::Type,
            "the message has type 2, an advertisement has 1",
        ),
        ("checksum", v3.replacen("74af", "74ae", 1), Refusal::Checksum, "the checksum 74ae is wrong"),
        ("carp", carp, Refusal::Carp, "carp has the same ip protocol, and uses the id 51 here"),
    ];
    for (name, digits, refusal, detail) in cases {
        let flaw = parse(&bytes(&digits), &seen("10.98.0.1", "224.0.0.18")).unwrap_err();
        assert_eq!((flaw.refusal, flaw.detail.as_str()), (refusal, detail), "{name}");
    }
    let flaw = parse(&bytes(v2), &seen("fe80::1", "ff02::12")).unwrap_err();
    assert_eq!(flaw.detail, "the advert has version 2, which has no IPv6");
}

#[test]
fn the_intervals_are_rounded_into_their_fields() {
    for (version, interval, expected) in [
        (Version::V2, Duration::from_secs(255), Duration::from_secs(255)),
        (Version::V3, Duration::from_millis(10), Duration::from_millis(10)),
        (Version::V3, Duration::from_millis(40_950), Duration::from_millis(40_950)),
    ] {
        let mut router = fixture::router(version, Family::V4);
        router.interval = interval;
        let message = fixture::advert(&router, 1, fixture::sequence(fixture::clock()));
        assert_eq!(parse(&message, &fixture::seen(&router)).unwrap().advert.interval, expected);
    }
}

fn routers() -> impl Strategy<Value = Router> {
    let kinds = prop_oneof![
        Just((Version::V2, Family::V4)),
        Just((Version::V3, Family::V4)),
        Just((Version::V3, Family::V6)),
    ];
    let auths = prop_oneof![
        Just(Auth::None),
        any::<[u8; 8]>().prop_map(Auth::Pass),
        Just(Auth::Hmac(fixture::hmac(HmacMode::Permissive))),
        Just(Auth::Hmac(fixture::hmac(HmacMode::ReceiveOnly))),
    ];
    (kinds, auths, 1..=u8::MAX, prop::collection::vec(any::<u128>(), 0..=255)).prop_map(
        |((version, family), auth, vrid, addresses)| {
            let mut router = fixture::router(version, family);
            let template = router.addresses[0].clone();
            router.addresses = addresses
                .into_iter()
                .map(|bits| match family {
                    Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
                    Family::V6 => Ipv6Addr::from_bits(bits).into(),
                })
                .map(|address| crate::pure::config::model::vrrp::Address { address, ..template.clone() })
                .collect();
            Router { vrid, auth, ..router }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(router in routers(), priority: u8) {
        let seen = fixture::seen(&router);
        let message = fixture::advert(&router, priority, fixture::sequence(fixture::clock()));
        let Parsed { advert, trailer, .. } = parse(&message, &seen).unwrap();
        prop_assert_eq!((advert.version, advert.vrid, advert.priority), (router.version, router.vrid, priority));
        prop_assert_eq!(advert.interval, router.interval);
        let addresses: Vec<_> = router.addresses.iter().map(|address| address.address).collect();
        prop_assert_eq!(advert.addresses, addresses);
        let is_signed = matches!(&router.auth, Auth::Hmac(hmac) if hmac.mode != HmacMode::ReceiveOnly);
        prop_assert_eq!(trailer.len(), if is_signed { hmac::TRAILER } else { 0 });
        match (router.version, router.auth) {
            (Version::V2, Auth::Pass(password)) => prop_assert_eq!(advert.auth, AuthField::Pass(password)),
            _ => prop_assert_eq!(advert.auth, AuthField::None),
        }
    }

    #[test]
    fn no_single_changed_bit_is_read(router in routers(), priority: u8, position: prop::sample::Index) {
        let seen = fixture::seen(&router);
        let mut message = fixture::advert(&router, priority, fixture::sequence(fixture::clock()));
        let original = parse(&message, &seen).unwrap().message.len();
        let position = position.index(original * 8);
        message[position / 8] ^= 1 << (position % 8);
        prop_assert!(parse(&message, &seen).is_err());
    }

    #[test]
    fn no_message_is_too_strange(message: Vec<u8>, is_v4: bool, first in 0x20_u8..0x40) {
        let seen = if is_v4 { seen("10.98.0.1", "224.0.0.18") } else { seen("fe80::1", "ff02::12") };
        let _ = parse(&message, &seen);
        let _ = parse(&[&[first], &message[..]].concat(), &seen);
    }
}
