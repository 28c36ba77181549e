use std::net::Ipv4Addr;

use super::*;
use crate::pure::testing::an_instant;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Version 3, priority 100, an advert each second: skew 609.375 ms, master down 3609.375 ms.
fn terms() -> Terms {
    Terms {
        version: Version::V3,
        interval: ms(1_000),
        down_timer_adverts: 3,
        owner: false,
        preempt: Preempt::After(Duration::ZERO),
        wish: Wish::Backup,
        hand_over: true,
        refuse_on_mismatch: true,
        grouped: false,
    }
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

fn rival(priority: u8) -> Rival {
    Rival { from: PEER, priority, interval: ms(1_000), above_us: true }
}

fn in_phase(now: Instant, terms: Terms, phase: Phase) -> Router {
    Router { phase, ..Router::new(now, terms, 100) }
}

/// The acts, short.
fn said(acts: &[Act]) -> String {
    let one = |act: &Act| match act {
        Act::Advertise { priority } => format!("advert {priority}"),
        Act::Became { to, .. } => to.name().to_owned(),
        Act::AnnounceAgain => "announce".to_owned(),
        Act::LowerPriority { .. } => "lower".to_owned(),
        Act::Overslept { .. } => "overslept".to_owned(),
    };
    acts.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The phase, with its times in milliseconds from `now`.
fn shown(now: Instant, phase: Phase) -> String {
    let at = |at: Instant| (at - now).as_millis();
    match phase {
        Phase::Initialize => "initialize".to_owned(),
        Phase::Backup { down_at: None } => "wants".to_owned(),
        Phase::Backup { down_at: Some(down_at) } => format!("backup {}", at(down_at)),
        Phase::Active { next, .. } => format!("active {}", at(next)),
        Phase::Fault { held: None } => "fault".to_owned(),
        Phase::Fault { held: Some(until) } => format!("held {}", at(until)),
    }
}

#[test]
fn every_state_takes_every_event() {
    let now = an_instant() + ms(1_000_000);
    let initialize = Phase::Initialize;
    let backup = Phase::Backup { down_at: Some(now + ms(2_000)) };
    let wants = Phase::Backup { down_at: None };
    let active = Phase::Active { sent: now - ms(600), next: now + ms(400) };
    let fault = Phase::Fault { held: None };
    let held = Phase::Fault { held: Some(now + ms(900)) };
    let by_link = Event::Fault { why: "", by_link: true };
    let by_script = Event::Fault { why: "", by_link: false };
    let release = Event::Release { why: "", hold_back: false };
    let moved = |effective| Event::Priority { effective, rival: Some(90) };
    for (phase, event, acts, after) in [
        (initialize, Event::Pass, "", "initialize"),
        (initialize, Event::Able, "backup", "backup 3609"),
        (initialize, Event::Waits(""), "", "initialize"),
        (initialize, by_link, "fault", "fault"),
        (initialize, by_script, "fault", "fault"),
        (initialize, Event::Advert(rival(0)), "", "initialize"),
        (initialize, Event::Advert(rival(50)), "", "initialize"),
        (initialize, Event::Advert(rival(150)), "", "initialize"),
        (initialize, Event::Refused, "", "initialize"),
        (initialize, moved(80), "", "initialize"),
        (initialize, Event::Claim(""), "", "initialize"),
        (initialize, release, "", "initialize"),
        (initialize, Event::Stop, "", "initialize"),
        (backup, Event::Pass, "", "backup 2000"),
        (backup, Event::Able, "", "backup 2000"),
        (backup, Event::Waits(""), "initialize", "initialize"),
        (backup, by_link, "fault", "fault"),
        (backup, by_script, "fault", "fault"),
        (backup, Event::Advert(rival(0)), "", "backup 609"),
        (backup, Event::Advert(rival(50)), "", "backup 2000"),
        (backup, Event::Advert(rival(100)), "", "backup 3609"),
        (backup, Event::Advert(rival(150)), "", "backup 3609"),
        (backup, Event::Refused, "", "backup 3609"),
        // The skew of 80 is 78.125 ms longer than that of 100.
        (backup, moved(80), "", "backup 2078"),
        (backup, Event::Claim(""), "advert 100, active", "active 1000"),
        (backup, release, "", "backup 3609"),
        (backup, Event::Stop, "initialize", "initialize"),
        (wants, Event::Pass, "", "wants"),
        (wants, Event::Able, "", "wants"),
        (wants, Event::Waits(""), "initialize", "initialize"),
        (wants, by_link, "fault", "fault"),
        (wants, by_script, "fault", "fault"),
        (wants, Event::Advert(rival(0)), "", "backup 609"),
        (wants, Event::Advert(rival(50)), "", "wants"),
        (wants, Event::Advert(rival(150)), "", "backup 3609"),
        (wants, Event::Refused, "", "backup 3609"),
        (wants, moved(80), "", "wants"),
        (wants, Event::Claim(""), "advert 100, active", "active 1000"),
        (wants, release, "", "backup 3609"),
        (wants, Event::Stop, "initialize", "initialize"),
        (active, Event::Pass, "", "active 400"),
        (active, Event::Able, "", "active 400"),
        (active, Event::Waits(""), "advert 0, initialize", "initialize"),
        (active, by_link, "fault", "held 2400"),
        (active, by_script, "advert 0, fault", "fault"),
        (active, Event::Advert(rival(0)), "advert 100, announce", "active 1000"),
        (active, Event::Advert(rival(50)), "advert 100, lower, announce", "active 1000"),
        (active, Event::Advert(rival(100)), "backup", "backup 3609"),
        (
            active,
            Event::Advert(Rival { above_us: false, ..rival(100) }),
            "advert 100, lower, announce",
            "active 1000",
        ),
        (active, Event::Advert(rival(150)), "backup", "backup 3609"),
        (active, Event::Refused, "", "active 400"),
        (active, moved(95), "", "active 400"),
        // An interval and the skew of 80.
        (active, moved(80), "advert 0, backup", "backup 1687"),
        (active, Event::Claim(""), "", "active 400"),
        (active, release, "advert 0, backup", "backup 3609"),
        (active, Event::Stop, "advert 0, initialize", "initialize"),
        (fault, Event::Pass, "", "fault"),
        (fault, Event::Able, "backup", "backup 3609"),
        (fault, Event::Waits(""), "initialize", "initialize"),
        (fault, by_link, "", "fault"),
        (fault, by_script, "", "fault"),
        (fault, Event::Advert(rival(0)), "", "fault"),
        (fault, Event::Advert(rival(50)), "", "fault"),
        (fault, Event::Advert(rival(150)), "", "fault"),
        (fault, Event::Refused, "", "fault"),
        (fault, moved(80), "", "fault"),
        (fault, Event::Claim(""), "", "fault"),
        (fault, release, "", "fault"),
        (fault, Event::Stop, "initialize", "initialize"),
        (held, Event::Pass, "", "held 900"),
        (held, Event::Able, "advert 100, active", "active 1000"),
        (held, Event::Waits(""), "advert 0, initialize", "initialize"),
        (held, by_link, "", "held 900"),
        (held, by_script, "advert 0", "fault"),
        (held, Event::Advert(rival(0)), "", "held 900"),
        (held, Event::Advert(rival(50)), "", "fault"),
        (held, Event::Advert(rival(150)), "", "fault"),
        (held, Event::Refused, "", "held 900"),
        (held, moved(80), "", "held 900"),
        (held, Event::Claim(""), "", "held 900"),
        (held, release, "", "fault"),
        (held, Event::Stop, "advert 0, initialize", "initialize"),
    ] {
        let mut router = in_phase(now, terms(), phase);
        let found = said(&router.handle(now, event));
        assert_eq!(
            (found.as_str(), shown(now, router.phase).as_str()),
            (acts, after),
            "{} and {event:?}",
            shown(now, phase)
        );
    }
}

#[test]
fn every_state_takes_its_deadline() {
    let now = an_instant() + ms(1_000_000);
    let grouped = Terms { grouped: true, ..terms() };
    let backup = |late| Phase::Backup { down_at: Some(now - ms(late)) };
    let active = |silent| Phase::Active { sent: now - ms(silent), next: now - ms(silent) + ms(1_000) };
    for (name, terms, phase, acts, after) in [
        ("master down", terms(), backup(0), "advert 100, active", "active 1000"),
        ("a little late", terms(), backup(250), "advert 100, active", "active 1000"),
        ("adverts may wait to be read", terms(), backup(251), "", "backup 100"),
        ("for its group", grouped, backup(0), "", "wants"),
        ("an advert", terms(), active(1_000), "advert 100", "active 1000"),
        ("a late advert does not move those after it", terms(), active(1_300), "advert 100", "active 700"),
        ("a very late one does", terms(), active(3_609), "advert 100", "active 1000"),
        ("it slept", terms(), active(3_610), "overslept, backup", "backup 1609"),
        ("nobody came back", terms(), Phase::Fault { held: Some(now) }, "advert 0", "fault"),
    ] {
        let mut router = in_phase(now, terms, phase);
        let found = said(&router.handle(now, Event::Pass));
        assert_eq!((found.as_str(), shown(now, router.phase).as_str()), (acts, after), "{name}");
    }
}

#[test]
fn the_owner_is_active_at_once() {
    let now = an_instant();
    for (grouped, acts, after) in [(false, "advert 255, active", "active 1000"), (true, "backup", "backup 0")]
    {
        let terms = Terms { owner: true, grouped, ..terms() };
        let mut router = Router::new(now, terms, 255);
        assert_eq!(said(&router.handle(now, Event::Able)), acts);
        assert_eq!(shown(now, router.phase), after);
    }
}

#[test]
fn a_member_that_wishes_to_be_master_waits_for_one_advert() {
    let now = an_instant();
    let mut router = Router::new(now, Terms { grouped: true, wish: Wish::Master, ..terms() }, 100);
    router.handle(now, Event::Able);
    assert_eq!(shown(now, router.phase), "backup 1609");
}

/// Adverts of a lower rival each second; returns when the router became Active, in milliseconds.
fn preempts_after(terms: Terms, prepare: impl Fn(&mut Router, Instant)) -> Option<u64> {
    let start = an_instant();
    let mut router = Router::new(start, terms, 100);
    router.handle(start, Event::Able);
    prepare(&mut router, start);
    (0..200_u64).map(|n| n * 100).find(|&at| {
        let now = start + ms(at);
        let mut acts = router.handle(now, Event::Pass);
        if at % 1_000 == 0 {
            acts.extend(router.handle(now, Event::Advert(rival(50))));
        }
        acts.iter().any(|act| matches!(act, Act::Became { to: State::Active, .. }))
    })
}

#[test]
fn preemption() {
    let with = |preempt, wish| Terms { preempt, wish, ..terms() };
    let delay = Preempt::After(ms(5_000));
    let nothing = |_: &mut Router, _| {};
    assert_eq!(preempts_after(terms(), nothing), Some(3_700));
    assert_eq!(
        preempts_after(with(delay, Wish::Backup), nothing),
        Some(7_700),
        "the last tolerated came at 4 s"
    );
    assert_eq!(preempts_after(with(Preempt::Never, Wish::Backup), nothing), None);
    assert_eq!(
        preempts_after(with(Preempt::Never, Wish::Master), nothing),
        Some(3_700),
        "its first election"
    );
    let moved_away = |router: &mut Router, now| {
        router.handle(now, Event::Claim(""));
        router.handle(now, Event::Release { why: "an operator wants it", hold_back: true });
    };
    assert_eq!(preempts_after(terms(), moved_away), None);
}

#[test]
fn one_that_never_preempts_takes_over_from_silence() {
    let now = an_instant();
    let mut router = Router::new(now, Terms { preempt: Preempt::Never, ..terms() }, 100);
    router.handle(now, Event::Able);
    router.handle(now, Event::Advert(rival(50)));
    assert!(router.is_silence(), "it is about to be given up, not preempted");
    router.handle(now + ms(3_610), Event::Pass);
    assert_eq!((router.state(), router.why()), (State::Active, "10.0.0.2 sent no advert for 3.609375s"));
}

#[test]
fn one_that_was_moved_away_takes_over_when_nobody_else_is_there() {
    let now = an_instant();
    let mut router = in_phase(now, terms(), Phase::Active { sent: now, next: now + ms(1_000) });
    router.handle(now, Event::Release { why: "", hold_back: true });
    let acts = router.handle(now + router.timer().master_down(), Event::Pass);
    assert_eq!(said(&acts), "advert 100, active");
    assert!(!router.holds_back);
}

#[test]
fn intervals_are_learned_in_version_3_until_it_is_active_itself() {
    let now = an_instant();
    for (version, learned) in [(Version::V2, 1_000), (Version::V3, 100)] {
        let backup = Phase::Backup { down_at: Some(now + ms(2_000)) };
        let mut router = in_phase(now, Terms { version, ..terms() }, backup);
        router.handle(now, Event::Advert(Rival { interval: ms(100), ..rival(150) }));
        assert_eq!(router.timer().interval, ms(learned), "{version:?}");
        router.handle(now, Event::Claim(""));
        assert_eq!(router.timer().interval, ms(1_000), "{version:?}");
    }
    let mut router = in_phase(now, terms(), Phase::Backup { down_at: Some(now) });
    router.handle(now, Event::Advert(Rival { interval: Duration::ZERO, ..rival(150) }));
    assert_eq!(router.timer().interval, ms(10), "one that waits for no time");
}

#[test]
fn a_flood_keeps_no_timer_from_ending_and_makes_no_flood() {
    let start = an_instant();
    let mut router = in_phase(start, terms(), Phase::Backup { down_at: Some(start + ms(3_609)) });
    let took = (0..20_000_u64).map(|n| start + Duration::from_micros(n * 50)).find(|&now| {
        let passed = router.handle(now, Event::Pass);
        router.handle(now, Event::Advert(rival(0)));
        !passed.is_empty()
    });
    assert_eq!(took.map(|at| (at - start).as_millis()), Some(609), "resignations, again and again");
    let mut sent = 0;
    for now in (20_000..60_000_u64).map(|n| start + Duration::from_micros(n * 50)) {
        let mut acts = router.handle(now, Event::Pass);
        acts.extend(router.handle(now, Event::Advert(rival(50))));
        sent += acts.iter().filter(|act| matches!(act, Act::Advertise { .. })).count();
    }
    assert!((10..=22).contains(&sent), "{sent} adverts in 2 s");
}

#[test]
fn a_link_that_bounces_costs_no_election() {
    let start = an_instant();
    let by_link = Event::Fault { why: "interface eth0 is down", by_link: true };
    for (name, back_ms, rival_heard, acts) in [
        ("in time", 200, None, "advert 100, active"),
        ("too late", 3_001, None, "backup"),
        ("somebody took over", 200, Some(rival(50)), "backup"),
        ("somebody stopped", 200, Some(rival(0)), "advert 100, active"),
    ] {
        let mut router = in_phase(start, terms(), Phase::Active { sent: start, next: start + ms(1_000) });
        router.handle(start + ms(1), by_link);
        assert!(router.owns(), "{name}");
        let back = start + ms(back_ms);
        router.handle(back, Event::Pass);
        if let Some(rival) = rival_heard {
            router.handle(back, Event::Advert(rival));
        }
        assert_eq!(said(&router.handle(back, Event::Able)), acts, "{name}");
    }
}

#[test]
fn hand_over_is_asked_for_and_needs_a_rival_that_is_better() {
    let now = an_instant();
    let falls = |hand_over, effective, rival| {
        let active = Phase::Active { sent: now, next: now + ms(1_000) };
        let mut router = in_phase(now, Terms { hand_over, ..terms() }, active);
        said(&router.handle(now, Event::Priority { effective, rival }))
    };
    assert_eq!(falls(true, 80, Some(81)), "advert 0, backup");
    assert_eq!(falls(true, 80, Some(80)), "");
    assert_eq!(falls(true, 80, None), "");
    assert_eq!(falls(true, 120, Some(150)), "", "it rose");
    assert_eq!(falls(false, 80, Some(81)), "");
}

#[test]
fn every_state_takes_every_hand() {
    let now = an_instant() + ms(1_000_000);
    let backup = Phase::Backup { down_at: Some(now + ms(2_000)) };
    let wants = Phase::Backup { down_at: None };
    let active = Phase::Active { sent: now - ms(600), next: now + ms(400) };
    let held = Phase::Fault { held: Some(now + ms(900)) };
    let hands = [Hand::Leave, Hand::Stay, Hand::Succeed(""), Hand::Postpone(now + ms(50))];
    for (phase, expected) in [
        (Phase::Initialize, ["initialize"; 4]),
        (backup, ["backup 2000", "backup 2000", "active 1000", "backup 50"]),
        (wants, ["wants", "wants", "active 1000", "backup 50"]),
        (active, ["active 400"; 4]),
        (Phase::Fault { held: None }, ["fault"; 4]),
        (held, ["held 900"; 4]),
    ] {
        for (hand, after) in hands.into_iter().zip(expected) {
            let mut router = in_phase(now, terms(), phase);
            let acts = said(&router.handle(now, Event::Hand(hand)));
            assert_eq!(shown(now, router.phase), after, "{phase:?}, {hand:?}");
            let is_taken = after == "active 1000";
            assert_eq!(acts, if is_taken { "advert 100, active" } else { "" }, "{phase:?}, {hand:?}");
        }
        let mut router = in_phase(now, terms(), phase);
        let acts = said(&router.handle(now, Event::Hand(Hand::Insist)));
        assert_eq!(acts, if phase == active { "advert 100" } else { "" }, "{phase:?}");
    }
}

#[test]
fn one_that_leaves_is_quiet_until_it_stays_or_is_outbid() {
    let now = an_instant();
    let leaving = || {
        let mut router = in_phase(now, terms(), Phase::Active { sent: now, next: now + ms(400) });
        router.handle(now, Event::Hand(Hand::Leave));
        assert_eq!(router.deadline(), None);
        router
    };
    let after = now + ms(500);
    for (event, acts) in [
        (Event::Pass, ""),
        (Event::Advert(rival(0)), ""),
        (Event::Advert(rival(50)), ""),
        (Event::Advert(rival(150)), "backup"),
        (Event::Priority { effective: 50, rival: Some(90) }, ""),
        (Event::Hand(Hand::Insist), ""),
        (Event::Hand(Hand::Stay), "advert 100"),
        (Event::Release { why: "", hold_back: true }, "advert 0, backup"),
        (Event::Stop, "advert 0, initialize"),
    ] {
        assert_eq!(said(&leaving().handle(after, event)), acts, "{event:?}");
    }
}

#[test]
fn a_successor_does_not_mind_what_the_leaver_sent_before() {
    let now = an_instant();
    let mut router = in_phase(now, terms(), Phase::Backup { down_at: Some(now + ms(2_000)) });
    router.handle(now, Event::Hand(Hand::Succeed("")));
    assert_eq!(said(&router.handle(now + ms(50), Event::Advert(rival(150)))), "");
    assert_eq!(said(&router.handle(now + ms(99), Event::Advert(rival(0)))), "announce");
    assert_eq!(said(&router.handle(now + ms(100), Event::Advert(rival(150)))), "backup");
}
