use super::{
    super::fixture::{self, clock, sequence},
    *,
};
use crate::pure::config::{
    model::vrrp::{HmacKey, Version},
    network::Family,
};

/// A message and its trailer; the sender's clock is `behind` ours.
fn signed(hmac: &Hmac, behind: i64) -> (Vec<u8>, Vec<u8>) {
    let mut router = fixture::router(Version::V3, Family::V4);
    let message = fixture::advert(&router, 100, sequence(clock()));
    router.auth = crate::pure::config::model::vrrp::Auth::Hmac(hmac.clone());
    let sent = Timestamp::from_second(clock().as_second() - behind).unwrap();
    let trailer = sign(hmac, &message, source(), sequence(sent)).unwrap();
    (message, trailer.to_vec())
}

fn source() -> IpAddr {
    fixture::ip("10.98.0.1")
}

fn verify(
    senders: &mut Senders,
    hmac: &Hmac,
    (message, trailer): &(Vec<u8>, Vec<u8>),
    source: IpAddr,
) -> Result<(), (Refusal, String)> {
    let signed = Signed { message, trailer, source, interval: Duration::from_secs(1), clock: clock() };
    senders.verify(hmac, &signed).map_err(|flaw| (flaw.refusal, flaw.detail))
}

#[test]
fn a_changed_advert_is_forged() {
    let hmac = fixture::hmac(HmacMode::Enforce);
    let good = signed(&hmac, 0);
    assert_eq!(verify(&mut Senders::default(), &hmac, &good, source()), Ok(()));
    let forged =
        (Refusal::Hmac, "the digest of key 1 differs: the keys do, or the advert was changed".to_owned());
    for (at, what) in [(0, "version"), (1, "vrid"), (2, "priority"), (5, "interval"), (11, "address")] {
        let mut changed = good.clone();
        changed.0[at] ^= 1;
        assert_eq!(verify(&mut Senders::default(), &hmac, &changed, source()), Err(forged.clone()), "{what}");
    }
    for (at, what) in [(9, "fraction"), (11, "counter"), (12, "digest"), (27, "digest's end")] {
        let mut changed = good.clone();
        changed.1[at] ^= 1;
        assert_eq!(verify(&mut Senders::default(), &hmac, &changed, source()), Err(forged.clone()), "{what}");
    }
    let other = fixture::ip("10.98.0.3");
    assert_eq!(verify(&mut Senders::default(), &hmac, &good, other), Err(forged), "another sender");
    let mut checksum = good.clone();
    checksum.0[CHECKSUM] ^= 0xff;
    assert_eq!(
        verify(&mut Senders::default(), &hmac, &checksum, source()),
        Ok(()),
        "the checksum is not signed"
    );
}

#[test]
fn what_is_no_signature_is_named() {
    let hmac = fixture::hmac(HmacMode::Enforce);
    for (at, value, detail) in [
        (0, 2, "the signature has type 2, known is 1"),
        (1, 9, "the key has the id 9, this router knows 1"),
        (3, 1, "the trailer is no signature: its reserved bytes are not 0"),
    ] {
        let mut changed = signed(&hmac, 0);
        changed.1[at] = value;
        let expected = Err((Refusal::Hmac, detail.to_owned()));
        assert_eq!(verify(&mut Senders::default(), &hmac, &changed, source()), expected);
    }
}

#[test]
fn modes_differ_in_what_is_signed_and_demanded() {
    let (message, _) = signed(&fixture::hmac(HmacMode::Enforce), 0);
    let unsigned = (message.clone(), Vec::new());
    for (mode, signs, demands) in [
        (HmacMode::Enforce, true, true),
        (HmacMode::Permissive, true, false),
        (HmacMode::ReceiveOnly, false, false),
    ] {
        let hmac = fixture::hmac(mode);
        assert_eq!(sign(&hmac, &message, source(), sequence(clock())).is_some(), signs, "{mode:?}");
        let verdict = verify(&mut Senders::default(), &hmac, &unsigned, source());
        assert_eq!(verdict.is_err(), demands, "{mode:?}");
        let mut forged = signed(&fixture::hmac(HmacMode::Enforce), 0);
        forged.1[20] ^= 1;
        assert!(verify(&mut Senders::default(), &hmac, &forged, source()).is_err(), "{mode:?}");
    }
}

#[test]
fn the_first_key_signs_and_each_verifies() {
    let mut both = fixture::hmac(HmacMode::Enforce);
    both.keys.insert(0, HmacKey { id: 7, key: vec![7; 64] });
    let old = fixture::hmac(HmacMode::Enforce);
    assert_eq!(signed(&both, 0).1[1], 7);
    assert_eq!(verify(&mut Senders::default(), &both, &signed(&both, 0), source()), Ok(()));
    assert_eq!(verify(&mut Senders::default(), &both, &signed(&old, 0), source()), Ok(()));
    assert!(verify(&mut Senders::default(), &old, &signed(&both, 0), source()).is_err());
}

#[test]
fn clocks_may_differ_a_little() {
    let hmac = fixture::hmac(HmacMode::Enforce);
    for (behind, is_taken) in [(0, true), (5, true), (-5, true), (6, false), (-6, false), (100_000, false)] {
        let verdict = verify(&mut Senders::default(), &hmac, &signed(&hmac, behind), source());
        match verdict {
            Ok(()) => assert!(is_taken, "{behind}"),
            Err((refusal, detail)) => {
                assert!(!is_taken, "{behind}: {detail}");
                assert_eq!(refusal, Refusal::Replay);
            }
        }
    }
    let (_, detail) = verify(&mut Senders::default(), &hmac, &signed(&hmac, 6), source()).unwrap_err();
    let expected = "its clock is 6 s behind ours, 5 s are allowed: it was sent before, or the clocks differ";
    assert_eq!(detail, expected);
    let (message, trailer) = signed(&hmac, 9);
    let slow = Duration::from_secs(3);
    let signed =
        Signed { message: &message, trailer: &trailer, source: source(), interval: slow, clock: clock() };
    assert_eq!(Senders::default().verify(&hmac, &signed), Ok(()));
}

#[test]
fn an_advert_counts_once_from_each_sender() {
    let hmac = fixture::hmac(HmacMode::Enforce);
    let mut senders = Senders::default();
    let (older, newer) = (signed(&hmac, 1), signed(&hmac, 0));
    assert_eq!(verify(&mut senders, &hmac, &newer, source()), Ok(()));
    let late = clock() + Duration::from_secs(2);
    for (name, again, at, expected) in [
        ("an older one", &older, clock(), Refusal::Replay),
        ("the last one, delivered twice", &newer, clock(), Refusal::Duplicate),
        ("the last one, recorded", &newer, late, Refusal::Replay),
    ] {
        let (message, trailer) = again;
        let interval = Duration::from_secs(1);
        let signed = Signed { message, trailer, source: source(), interval, clock: at };
        assert_eq!(senders.verify(&hmac, &signed).unwrap_err().refusal, expected, "{name}");
    }
    let mut ahead = signed(&hmac, -5);
    ahead.1[20] ^= 1;
    assert!(verify(&mut senders, &hmac, &ahead, source()).is_err());
    assert_eq!(verify(&mut senders, &hmac, &signed(&hmac, -1), source()), Ok(()), "a forgery moves nothing");
}

#[test]
fn senders_make_room_for_others() {
    let hmac = fixture::hmac(HmacMode::Enforce);
    let mut senders = Senders::default();
    for sequence in 1..=2 * SENDERS_MAX as u64 {
        let address = IpAddr::from([10, 98, 1, sequence as u8]);
        senders.advance(address, sequence << 16, clock()).unwrap();
        senders.advance(source(), sequence << 16, clock()).unwrap();
        assert!(senders.last.len() <= SENDERS_MAX);
    }
    assert!(senders.advance(source(), 1, clock()).is_err(), "who is heard stays");
    assert!(
        senders
            .verify(
                &hmac,
                &Signed {
                    message: &[],
                    trailer: &[],
                    source: source(),
                    interval: Duration::ZERO,
                    clock: clock(),
                }
            )
            .is_err()
    );
}

#[test]
fn a_clock_that_is_set_right_ends_what_went_before() {
    let (mut sequencer, mut senders) = (Sequencer::default(), Senders::default());
    let hour = Duration::from_secs(3_600);
    let sent = [clock() + hour, clock()].map(|at| sequencer.next(at));
    let hmac = fixture::hmac(HmacMode::Enforce);
    let (message, _) = signed(&hmac, 0);
    let trailers = sent.map(|sequence| sign(&hmac, &message, source(), sequence).unwrap());
    for (trailer, clock) in [(trailers[0], clock() + hour), (trailers[1], clock())] {
        let interval = Duration::from_secs(1);
        let signed = Signed { message: &message, trailer: &trailer, source: source(), interval, clock };
        assert_eq!(senders.verify(&hmac, &signed), Ok(()), "both clocks are {clock}");
    }
}

#[test]
fn sequences_grow_though_the_clock_goes_back_a_little() {
    let mut sequencer = Sequencer::default();
    let back = clock() - Duration::from_secs(5);
    let sequences: Vec<_> =
        [clock(), clock(), back, clock() + Duration::from_secs(1)].map(|at| sequencer.next(at).0).to_vec();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    assert_eq!(sequences[1], sequences[0] + 1);
    assert!(is_after(3, u64::MAX - 3), "serial numbers wrap");
}
