//! What is told, in which words, when, and what is summed up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    By, Delivery, EVENTS_KEPT, Event, History, Level, Limit, Notice, Outbox, Replay, ServerName,
    event::TEXT_MAX, letter,
};
use crate::pure::{
    config::model::Admin,
    vrrp::{
        happening::{End, Happening},
        node::State,
    },
};

fn web1() -> ServerName {
    ServerName {
        service: Some("web".to_owned()),
        server: "web1".to_owned(),
        address: "10.0.5.91:8888".to_owned(),
    }
}

fn gone() -> ServerName {
    ServerName {
        service: None,
        server: "10.0.5.9:80 (no longer configured)".to_owned(),
        address: "10.0.5.9:80".to_owned(),
    }
}

fn down() -> Notice {
    Notice::Down { server: web1(), detail: "connection refused".to_owned() }
}

fn event(notice: &Notice) -> Event {
    notice.event(noon(), &"lb1".into())
}

fn noon() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

#[test]
fn every_notice_has_its_words() {
    use Level::{Info, Warning};
    let detail = || "why".to_owned();
    let service = || "web".to_owned();
    let interface = || "eth0".to_owned();
    let address = "10.0.5.91".parse().unwrap();
    let (operator, agent) = (By::Operator, By::Agent);
    let cases = [
        (Notice::Up { server: web1(), detail: detail() }, "server-up", Info, "web/web1 is up: why"),
        (Notice::Down { server: web1(), detail: detail() }, "server-down", Warning, "web/web1 is down: why"),
        (
            Notice::Down { server: gone(), detail: detail() },
            "server-down",
            Warning,
            "10.0.5.9:80 (no longer configured) is down: why",
        ),
        (
            Notice::Unreachable { address, servers: vec![web1(), gone()], reason: "no route" },
            "server-unreachable",
            Warning,
            "10.0.5.91 (web/web1, 10.0.5.9:80 (no longer configured)) cannot be reached: no route",
        ),
        (
            Notice::Unreachable { address, servers: vec![web1(); 7], reason: "no route" },
            "server-unreachable",
            Warning,
            "10.0.5.91 (web/web1, web/web1, web/web1, web/web1, web/web1 and 2 more) cannot be reached: no route",
        ),
        (
            Notice::NotChecked { server: web1(), detail: "check not run: why".to_owned() },
            "check-not-run",
            Warning,
            "web/web1: check not run: why",
        ),
        (
            Notice::Suspect { server: web1(), detail: detail() },
            "server-suspect",
            Warning,
            "web/web1 is suspect: why; checking it now",
        ),
        (
            Notice::Administered { server: web1(), from: Admin::Ready, to: Admin::Drain, by: operator },
            "server-admin",
            Info,
            "web/web1 is set to drain, it was ready, by the operator",
        ),
        (
            Notice::Weighted { server: web1(), from: 3, to: 0, by: agent },
            "server-weight",
            Info,
            "web/web1 has weight 0, it was 3, by the agent",
        ),
        (
            Notice::Added { server: web1(), by: operator },
            "server-added",
            Info,
            "web/web1 (10.0.5.91:8888) was added by the operator",
        ),
        (
            Notice::Removed { server: web1(), by: operator },
            "server-removed",
            Info,
            "web/web1 (10.0.5.91:8888) was removed by the operator",
        ),
        (
            Notice::ServiceUp { service: service(), detail: detail() },
            "service-up",
            Info,
            "service web is up: why",
        ),
        (
            Notice::ServiceDown { service: service(), detail: detail() },
            "service-down",
            Warning,
            "service web is down: why",
        ),
        (
            Notice::Panic { service: service(), usable: 1, servers: 3 },
            "panic-on",
            Warning,
            "web: 1 of 3 servers usable, below its panic threshold: all are used",
        ),
        (
            Notice::Calm { service: service(), usable: 2, servers: 3 },
            "panic-off",
            Info,
            "web: 2 of 3 servers usable: only those are used",
        ),
        (Notice::Reloaded { detail: detail() }, "reloaded", Info, "reloaded: why"),
        (
            Notice::ReloadRefused { detail: detail() },
            "reload-refused",
            Warning,
            "the configuration was not reloaded, nothing was changed: why",
        ),
        (
            Notice::FlowsCrowded { records: 9, max: 10 },
            "flows-crowded",
            Warning,
            "the flow table holds 9 records of 10: raise [datapath] flows",
        ),
        (
            Notice::FlowsEased { records: 5, max: 10 },
            "flows-eased",
            Info,
            "the flow table has room again: 5 records of 10",
        ),
        (
            Notice::InterfaceGone { interface: interface(), detail: "is down".to_owned() },
            "interface-gone",
            Warning,
            "interface eth0 is down",
        ),
        (
            Notice::InterfaceBack { interface: interface(), detail: "is back".to_owned() },
            "interface-back",
            Info,
            "interface eth0 is back",
        ),
        (
            Notice::Healed { detail: detail() },
            "drift-healed",
            Warning,
            "the kernel's tables were put right: why",
        ),
        (
            Notice::TrackerUp { what: "script chk".to_owned(), detail: detail() },
            "tracker-up",
            Info,
            "script chk is up: why",
        ),
        (
            Notice::TrackerDown { what: "script chk".to_owned(), detail: detail() },
            "tracker-down",
            Warning,
            "script chk is down: why",
        ),
        (
            Notice::TrackerBroken { what: "script chk".to_owned(), detail: detail() },
            "tracker-broken",
            Warning,
            "script chk cannot tell, and counts as failed: why",
        ),
        (Notice::Started { detail: detail() }, "started", Info, "ready: why"),
        (Notice::Stopping, "stopping", Info, "stopping"),
        (Notice::Suppressed { count: 37 }, "suppressed", Warning, "and 37 more: see `steelyard status`"),
        (
            Notice::Lagged { count: 37 },
            "lagged",
            Warning,
            "events that passed too fast for this reader: 37; see `steelyard events`",
        ),
    ];
    for (notice, kind, level, text) in cases {
        let event = event(&notice);
        assert_eq!((event.kind, event.level, event.text.as_str()), (kind, level, text));
    }
}

#[test]
fn json_holds_what_is_known() {
    let json = |notice: &Notice| serde_json::to_string(&event(notice).status()).unwrap();
    assert_eq!(
        json(&down()),
        r#"{"time":"2026-11-20T12:00:00.000000Z","node":"lb1","kind":"server-down","level":"warning","service":"web","server":"web1","address":"10.0.5.91:8888","from":"up","to":"down","detail":"connection refused","text":"web/web1 is down: connection refused"}"#
    );
    let weighted = Notice::Weighted { server: gone(), from: 3, to: 5, by: By::Agent };
    let status = event(&weighted).status();
    assert_eq!((status.service, status.by), (None, Some("agent".to_owned())));
    assert_eq!((status.from.as_deref(), status.to.as_deref()), (Some("3"), Some("5")));
    assert_eq!(
        json(&Notice::Stopping),
        r#"{"time":"2026-11-20T12:00:00.000000Z","node":"lb1","kind":"stopping","level":"info","text":"stopping"}"#
    );
}

#[test]
fn the_environment_is_whole() {
    let variables: Vec<String> =
        event(&down()).environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        variables,
        [
            "STEELYARD_EVENT=server-down",
            "STEELYARD_LEVEL=warning",
            "STEELYARD_TIME=2026-11-20T12:00:00.000000Z",
            "STEELYARD_NODE=lb1",
            "STEELYARD_SERVICE=web",
            "STEELYARD_SERVER=web1",
            "STEELYARD_ADDRESS=10.0.5.91:8888",
            "STEELYARD_INTERFACE=",
            "STEELYARD_ROUTER=",
            "STEELYARD_FROM=up",
            "STEELYARD_TO=down",
            "STEELYARD_BY=",
            "STEELYARD_DETAIL=connection refused",
            "STEELYARD_TEXT=web/web1 is down: connection refused",
        ]
    );
}

/// A server's answer can be in the detail: it must not end a line, a header or a variable.
#[test]
fn a_hostile_answer_stays_one_bounded_line() {
    let hostile = format!("\r\nBcc: x@example.com\0\x1b[2J{}", "é".repeat(10_000));
    let event = event(&Notice::Down { server: web1(), detail: hostile });
    let detail = event.about.detail.clone().unwrap();
    for text in [&detail, &event.text, &letter(&[Arc::new(event.clone())]).subject] {
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.chars().count() <= TEXT_MAX + 1, "{}", text.len());
    }
}

#[test]
fn mails_read_like_keepalived_s() {
    let mail = |notices: &[Notice]| {
        let events: Vec<_> = notices.iter().map(|notice| Arc::new(event(notice))).collect();
        letter(&events)
    };
    let detail = || "none of 3 servers usable".to_owned();
    let service = Notice::ServiceDown { service: "web".to_owned(), detail: detail() };
    for (notices, subject) in [
        (vec![down()], "[lb1] Server web/web1 (10.0.5.91:8888) - DOWN"),
        (vec![service.clone()], "[lb1] Service web - DOWN"),
        (vec![Notice::Stopping], "[lb1] stopping"),
        (vec![became(State::Active)], "[lb1] VRRP Instance VI_1 - Entering MASTER state"),
        (vec![became(State::Fault)], "[lb1] VRRP Instance VI_1 - Entering FAULT state"),
        (vec![down(), down(), service], "[lb1] 3 changes: 2 server-down, 1 service-down"),
    ] {
        assert_eq!(mail(&notices).subject, subject);
    }
    assert_eq!(
        mail(&[down(), Notice::Suppressed { count: 37 }]).body,
        "2026-11-20T12:00:00.000000Z  web/web1 is down: connection refused\n\
         2026-11-20T12:00:00.000000Z  and 37 more: see `steelyard status`\n\
         \n-- \nsteelyard on lb1: `steelyard status` shows how things stand now\n"
    );
}

fn became(to: State) -> Notice {
    let why = "chk_haproxy fails".to_owned();
    Notice::Vrrp(Happening::Became { router: "VI_1".to_owned(), from: State::Backup, to, priority: 100, why })
}

#[test]
fn virtual_routers_are_mailed_as_keepalived_mails_them() {
    let group = |to| Happening::GroupBecame { group: "G1".to_owned(), to };
    let stopped = Happening::Ended { router: "VI_1".to_owned(), how: End::Stopped };
    let ended = Happening::GroupEnded { group: "G1".to_owned(), how: End::Stopped };
    for (notice, topic, head) in [
        (
            became(State::Active),
            "VRRP Instance VI_1 - Entering MASTER state",
            "=> VRRP Instance is now owning VRRP VIPs <=",
        ),
        (
            became(State::Backup),
            "VRRP Instance VI_1 - Entering BACKUP state",
            "=> VRRP Instance is no longer owning VRRP VIPs <=",
        ),
        (
            Notice::Vrrp(group(State::Fault)),
            "VRRP Group G1 - Entering FAULT state",
            "=> All VRRP group instances are now in FAULT state <=",
        ),
        (Notice::Vrrp(stopped), "VRRP Instance VI_1 - Stopping", "=> VRRP Instance stopping <="),
        (Notice::Vrrp(ended), "VRRP Group G1 - Stopping", "=> All VRRP group instances are now stopping <="),
    ] {
        let event = event(&notice);
        let letter = letter(&[Arc::new(event.clone())]);
        assert_eq!(letter.subject, format!("[lb1] {topic}"));
        let (said, rest) = letter.body.split_once("\n\n").unwrap();
        assert!(said == head && rest.contains(&event.text), "{}", letter.body);
    }
    let lower = Happening::LowerPriority {
        router: "VI_1".to_owned(),
        peer: "192.0.2.2".parse().unwrap(),
        priority: 50,
    };
    let letter = letter(&[Arc::new(event(&Notice::Vrrp(lower)))]);
    assert!(letter.subject.starts_with("[lb1] VI_1: 192.0.2.2 sent an advert"), "{}", letter.subject);
}

#[test]
fn events_of_routers_name_them() {
    let status = event(&became(State::Active)).status();
    assert_eq!((status.kind.as_str(), status.router.as_deref()), ("vrrp-active", Some("VI_1")));
    assert_eq!((status.from.as_deref(), status.to.as_deref()), (Some("backup"), Some("active")));
    assert_eq!(status.detail.as_deref(), Some("chk_haproxy fails"));
    let environment = event(&became(State::Active)).environment();
    assert!(environment.contains(&("STEELYARD_ROUTER", "VI_1".to_owned())));
}

#[test]
fn every_event_has_a_time_of_its_own() {
    let mut history = History::new("lb1");
    let first = history.push(noon(), &down());
    let second = history.push(noon(), &down());
    // The clock is set back.
    let third = history.push("2020-01-01T00:00:00Z".parse().unwrap(), &down());
    assert!(first.time < second.time && second.time < third.time);
    assert_eq!(history.replay(Replay::Since(first.time)), [second, Arc::clone(&third)]);
    assert_eq!(history.replay(Replay::Last(1)), [third]);
    assert_eq!(history.replay(Replay::Last(100)).len(), 3);
}

#[test]
fn the_history_is_bounded() {
    let mut history = History::new("lb1");
    for _ in 0..10_000 {
        history.push(noon(), &down());
    }
    assert_eq!(history.replay(Replay::Last(usize::MAX)).len(), EVENTS_KEPT);
}

#[test]
fn no_minute_has_more_than_the_limit() {
    let begin = an_instant();
    let mut limit = Limit::new(3);
    let mut taken = Vec::new();
    for second in 0..300 {
        let now = begin + Duration::from_secs(second);
        if limit.take(now) {
            taken.push(now);
        }
    }
    assert_eq!(taken.len(), 15, "three in each of five minutes");
    for window in taken.windows(4) {
        assert!(window[3].duration_since(window[0]) >= Duration::from_secs(60));
    }
}

fn delivered(count: usize, more: u64) -> Option<Delivery> {
    let event = Arc::new(event(&down()));
    Some(Delivery { events: std::iter::repeat_n(event, count).collect(), more })
}

fn put(outbox: &mut Outbox, now: Instant, count: usize) {
    for _ in 0..count {
        outbox.put(now, Arc::new(event(&down())));
    }
}

#[test]
fn single_events_go_at_once_and_what_is_too_much_is_summed_up() {
    let mut outbox = Outbox::single(2);
    let now = an_instant();
    assert_eq!((outbox.deadline(), outbox.take(now)), (None, None));
    for _ in 0..2 {
        put(&mut outbox, now, 1);
        assert_eq!(outbox.take(now), delivered(1, 0));
    }
    put(&mut outbox, now, 38);
    assert_eq!(outbox.take(now), None, "the limit holds");
    let later = now + Duration::from_secs(60);
    assert_eq!(outbox.deadline(), Some(later));
    assert_eq!(outbox.take(later), delivered(1, 0));
    assert_eq!(outbox.take(later), delivered(0, 37));
    assert_eq!((outbox.deadline(), outbox.take(later)), (None, None));
}

#[test]
fn summaries_come_once_a_minute() {
    let mut outbox = Outbox::single(100);
    let now = an_instant();
    outbox.miss(now, 5);
    assert_eq!(outbox.take(now), delivered(0, 5));
    outbox.miss(now, 2);
    outbox.miss(now, 1);
    assert_eq!(outbox.take(now), None);
    // Events do not wait for the summary.
    put(&mut outbox, now, 1);
    assert_eq!(outbox.take(now), delivered(1, 0));
    let later = now + Duration::from_secs(60);
    assert_eq!(outbox.deadline(), Some(later));
    assert_eq!(outbox.take(later), delivered(0, 3));
}

#[test]
fn events_that_come_together_go_together() {
    let second = Duration::from_secs(1);
    let mut outbox = Outbox::gathering(1, 10, second);
    let now = an_instant();
    put(&mut outbox, now, 1);
    put(&mut outbox, now + second / 2, 12);
    assert_eq!(outbox.take(now + second / 2), None);
    assert_eq!(outbox.deadline(), Some(now + second));
    assert_eq!(outbox.take(now + second), delivered(10, 3));
    // The next waits for the limit, and takes along what comes until then.
    put(&mut outbox, now + 2 * second, 1);
    put(&mut outbox, now + 40 * second, 1);
    assert_eq!(outbox.deadline(), Some(now + 61 * second));
    assert_eq!(outbox.take(now + 61 * second), delivered(2, 0));
}

#[test]
fn the_rest_goes_whatever_the_limit() {
    let mut outbox = Outbox::single(1);
    let now = an_instant();
    put(&mut outbox, now, 1);
    assert_eq!(outbox.take(now), delivered(1, 0));
    put(&mut outbox, now, 3);
    assert_eq!(outbox.rest(now), delivered(1, 0));
    assert_eq!(outbox.rest(now), delivered(0, 2));
    assert_eq!(outbox.rest(now), None);
}

#[test]
fn a_storm_keeps_no_more_than_a_delivery() {
    let mut outbox = Outbox::gathering(60, 100, Duration::from_secs(1));
    let now = an_instant();
    put(&mut outbox, now, 10_000);
    assert_eq!(outbox.take(now + Duration::from_secs(1)), delivered(100, 9_900));
}

/// `Instant` has no constructor of its own; which moment it is does not matter.
#[expect(clippy::disallowed_methods, reason = "a moment to count from")]
fn an_instant() -> Instant {
    Instant::now()
}
