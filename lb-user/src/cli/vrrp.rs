//! The virtual routers of a running daemon: listed, shown, handed over.

use comfy_table::Cell;
use hyper::Method;

use super::{
    CliError,
    args::{Common, Output, VrrpCommand},
    ask::{escape, get, send, tell},
    color::Paint,
    render::{finish, number, right, table},
};
use crate::{
    io::admin::Done,
    pure::status::{
        PeerRouterStatus, PeerStatus, RouterStatus, SenderStatus, TimersStatus, TrackedStatus, VrrpStatus,
    },
};

pub(super) fn vrrp(common: &Common, command: &VrrpCommand) -> Result<(), CliError> {
    match command {
        VrrpCommand::List(output) => {
            let status: VrrpStatus = get(common, "/v1/vrrp")?;
            tell(&status, output, |status| list(status, Paint::stdout()))
        }
        VrrpCommand::Show { name, output } => {
            let router: RouterStatus = get(common, &page(name))?;
            tell(&router, output, |router| show(router, Paint::stdout()))
        }
        VrrpCommand::Failover { name, output } => fail_over(common, name, output),
    }
}

fn fail_over(common: &Common, name: &str, output: &Output) -> Result<(), CliError> {
    let done: Done = send(common, Method::POST, &format!("{}/failover", page(name)), &())?;
    tell(&done, output, |done| format!("{}\n", done.done))
}

fn page(name: &str) -> String {
    format!("/v1/vrrp/{}", escape(name))
}

fn list(status: &VrrpStatus, paint: Paint) -> String {
    if status.routers.is_empty() {
        return "no virtual routers: add a [[vrrp]] to the configuration\n".to_owned();
    }
    let mut text = routers(status, paint);
    if !status.groups.is_empty() {
        let mut table = table(&["group", "state", "members"]);
        for group in &status.groups {
            table.add_row([
                Cell::new(&group.name),
                Cell::new(state(&group.state, paint)),
                Cell::new(group.members.join(" ")),
            ]);
        }
        text += &format!("\n{}", finish(&table));
    }
    if !status.peers.is_empty() {
        text += &format!("\n{}", peers(&status.peers, paint));
    }
    let refused = counted(status.refused.iter());
    if !refused.is_empty() {
        text += &format!("\nrefused, of no router here: {refused}\n");
    }
    text
}

/// One row each; also a part of `steelyard status`.
pub(super) fn routers(status: &VrrpStatus, paint: Paint) -> String {
    let mut table = table(&["router", "state", "prio", "vrid", "interface", "since", "addresses"]);
    for router in &status.routers {
        table.add_row([
            Cell::new(&router.name),
            Cell::new(state(&router.state, paint)),
            right(priority(router)),
            right(router.vrid),
            Cell::new(&router.interface),
            right(span(router.state_ms * 1_000)),
            Cell::new(first(&router.addresses)),
        ]);
    }
    finish(&table)
}

fn peers(peers: &[PeerStatus], paint: Paint) -> String {
    let mut table = table(&["peer", "state", "heard", "detail"]);
    for peer in peers {
        let state = match peer.state.as_str() {
            "alive" => paint.green("alive"),
            "silent" | "refused" => paint.red(&peer.state),
            other => paint.yellow(other),
        };
        table.add_row([
            Cell::new(&peer.address),
            Cell::new(state),
            right(peer.age_ms.map_or_else(|| "never".to_owned(), ago)),
            Cell::new(peer.detail.clone().unwrap_or_else(|| told(peer))),
        ]);
    }
    finish(&table)
}

/// "VRID 51 backup 250", of the first of its routers.
fn told(peer: &PeerStatus) -> String {
    let router =
        |router: &PeerRouterStatus| format!("VRID {} {} {}", router.vrid, router.state, router.priority);
    match &peer.routers[..] {
        [] => String::new(),
        routers => first(&routers.iter().map(router).collect::<Vec<_>>()),
    }
}

fn show(router: &RouterStatus, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text += &wrapped(name, value);
    let RouterStatus { name, interface, vrid, family, version, .. } = router;
    line("router", &format!("{name}, VRID {vrid} on {interface}, {family}, version {version}"));
    let since = span(router.state_ms * 1_000);
    line("state", &format!("{} for {since}: {}", state(&router.state, paint), router.reason));
    let preempts = if router.preempt { "preempts" } else { "never preempts" };
    line("priority", &format!("{}, {preempts}", priority(router)));
    line("addresses", &or_none(&router.addresses.join(" ")));
    if let Some(group) = &router.group {
        line("group", group);
    }
    line("timers", &timers(&router.timers, &router.state));
    let counters = &router.counters;
    line(
        "changes",
        &format!(
            "{} of state; active {} times, released {} times",
            number(router.transitions),
            number(counters.became_active),
            number(counters.released_active)
        ),
    );
    let adverts = |all, zero| format!("{} adverts, {} of priority 0", number(all), number(zero));
    line("sent", &adverts(counters.adverts_sent, counters.priority_zero_sent));
    let lower = match counters.lower_priority_received {
        0 => String::new(),
        lower => format!(", {} of a lower priority while active", number(lower)),
    };
    line("received", &(adverts(counters.adverts_received, counters.priority_zero_received) + &lower));
    line("refused", &or_none(&counted(counters.refused.iter())));
    text += &senders(router, paint);
    text + &tracked(&router.tracked, paint)
}

fn timers(timers: &TimersStatus, state: &str) -> String {
    let mut text = format!("adverts every {}", span(timers.interval_ms * 1_000));
    if timers.master_interval_ms != 0 && timers.master_interval_ms != timers.interval_ms {
        text += &format!(", from the active router every {}", span(timers.master_interval_ms * 1_000));
    }
    text += &format!("; skew {}, master down {}", span(timers.skew_us), span(timers.master_down_us));
    if let Some(next) = timers.next_us {
        let what = if state == "active" { "next advert" } else { "master counts as down" };
        text += &format!("; {what} in {}", span(next));
    }
    text
}

fn senders(router: &RouterStatus, paint: Paint) -> String {
    if router.senders.is_empty() {
        return String::new();
    }
    let mut table = table(&["  sender", "prio", "version", "every", "heard", "adverts", "addresses"]);
    for sender in &router.senders {
        let verdict = match sender.refused.as_deref() {
            None => paint.green("taken"),
            // Whether they are taken nevertheless is the operator's choice (`address_check`).
            Some("addresses") => paint.yellow("differ"),
            Some(_) => paint.red("refused"),
        };
        table.add_row([
            Cell::new(format!("  {}", sender.address)),
            right(sender.priority),
            right(sender.version),
            right(span(sender.interval_ms * 1_000)),
            right(ago(sender.age_ms)),
            Cell::new(verdict),
            Cell::new(first(&sender.addresses)),
        ]);
    }
    let whys = router.senders.iter().filter_map(why);
    format!("\nheard\n{}{}", finish(&table), whys.collect::<String>())
}

/// What differs in its adverts.
fn why(sender: &SenderStatus) -> Option<String> {
    let refused = sender.refused.as_ref()?;
    let text = match &sender.detail {
        Some(detail) => format!("{refused}: {detail}"),
        None => refused.clone(),
    };
    Some(wrapped_at(&format!("  {}", sender.address), &text, SENDER_WIDTH))
}

fn tracked(tracked: &[TrackedStatus], paint: Paint) -> String {
    if tracked.is_empty() {
        return String::new();
    }
    let mut table = table(&["  tracked", "state", "effect"]);
    for one in tracked {
        let state = match one.state.as_str() {
            "up" => paint.green("up"),
            "down" => paint.red("down"),
            other => paint.yellow(other),
        };
        table.add_row([Cell::new(format!("  {}", one.what)), Cell::new(state), Cell::new(&one.effect)]);
    }
    let results = tracked.iter().filter_map(|one| {
        // Its colon keeps the two apart.
        Some(wrapped_at(&format!("  {}: ", one.what), one.detail.as_deref()?, RESULT_INDENT))
    });
    format!("\n{}{}", finish(&table), results.collect::<String>())
}

fn state(state: &str, paint: Paint) -> String {
    match state {
        "active" => paint.green(state),
        "fault" => paint.red(state),
        "initialize" => paint.yellow(state),
        other => other.to_owned(),
    }
}

/// "100", or "80 of 100" while what is tracked changes it.
fn priority(router: &RouterStatus) -> String {
    match (router.priority_effective, router.priority) {
        (effective, base) if effective == base => base.to_string(),
        (effective, base) => format!("{effective} of {base}"),
    }
}

fn first(addresses: &[String]) -> String {
    match addresses {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

/// "ttl 3, password 1"
fn counted<'a>(counters: impl Iterator<Item = (&'a String, &'a u64)>) -> String {
    let some = counters.filter(|(_, count)| **count > 0);
    some.map(|(name, count)| format!("{name} {}", number(*count))).collect::<Vec<_>>().join(", ")
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

fn ago(age_ms: u64) -> String {
    format!("{} ago", span(age_ms * 1_000))
}

/// Microseconds in the two largest of their units.
fn span(us: u64) -> String {
    let (seconds, ms) = (us / 1_000_000, us / 1_000);
    match seconds {
        0 if ms == 0 => format!("{us}us"),
        0 if ms < 10 && !us.is_multiple_of(1_000) => format!("{:.1}ms", us as f64 / 1_000.0),
        0 => format!("{ms}ms"),
        1..60 if us.is_multiple_of(1_000_000) => format!("{seconds}s"),
        1..60 => format!("{:.2}s", us as f64 / 1_000_000.0),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn wrapped(name: &str, text: &str) -> String {
    wrapped_at(name, text, NAME_WIDTH)
}

/// A name, and text beside it that goes on below itself. Colour is not counted.
fn wrapped_at(name: &str, text: &str, indent: usize) -> String {
    let mut lines = vec![format!("{name:<indent$}")];
    let mut width = lines[0].chars().count();
    let mut is_first = true;
    for word in text.split(' ') {
        let length = visible(word);
        if !is_first && width + 1 + length > WIDTH {
            lines.push(" ".repeat(indent));
            (width, is_first) = (indent, true);
        }
        if let Some(line) = lines.last_mut() {
            let blank = if is_first { "" } else { " " };
            *line += &format!("{blank}{word}");
            width += blank.len() + length;
        }
        is_first = false;
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Characters that a terminal shows.
fn visible(word: &str) -> usize {
    let mut is_colour = false;
    let shown = word.chars().filter(|c| match (*c, is_colour) {
        ('\x1b', _) => {
            is_colour = true;
            false
        }
        ('m', true) => {
            is_colour = false;
            false
        }
        (_, colour) => !colour,
    });
    shown.count()
}

const WIDTH: usize = 80;
const NAME_WIDTH: usize = 11;
const SENDER_WIDTH: usize = 13;
/// Of the second line of a tracker's last result.
const RESULT_INDENT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::status::{GroupStatus, RouterCounters};

    fn router() -> RouterStatus {
        RouterStatus {
            name: "VI_1".to_owned(),
            interface: "eth0".to_owned(),
            vrid: 51,
            family: "IPv4".to_owned(),
            version: 3,
            state: "active".to_owned(),
            reason: "no advert of a higher priority came within the master-down time of 3.609 s".to_owned(),
            state_ms: 185_000,
            transitions: 3,
            priority: 100,
            priority_effective: 80,
            preempt: true,
            addresses: vec!["10.0.5.96/20".to_owned(), "10.0.5.97/20".to_owned()],
            group: Some("VG_1".to_owned()),
            timers: TimersStatus {
                interval_ms: 1_000,
                master_interval_ms: 1_000,
                skew_us: 609_375,
                master_down_us: 3_609_375,
                next_us: Some(412_000),
            },
            senders: vec![SenderStatus {
                address: "10.0.5.92".to_owned(),
                priority: 90,
                age_ms: 320,
                version: 2,
                interval_ms: 1_000,
                addresses: vec!["10.0.5.96".to_owned()],
                refused: Some("version".to_owned()),
                detail: Some(
                    "it speaks version 2, and this router version 3; set the same on both".to_owned(),
                ),
            }],
            tracked: vec![TrackedStatus {
                what: "script chk_lb".to_owned(),
                state: "down".to_owned(),
                effect: "weight -20".to_owned(),
                detail: Some(
                    "timeout after 10s: waiting for the lock of somebody who does not end".to_owned(),
                ),
            }],
            counters: RouterCounters {
                adverts_sent: 1_234,
                refused: [("version".to_owned(), 12), ("ttl".to_owned(), 0)].into(),
                ..RouterCounters::default()
            },
        }
    }

    #[test]
    fn one_router_is_shown_whole_in_eighty_columns() {
        let expected = "\
router     VI_1, VRID 51 on eth0, IPv4, version 3
state      active for 3m 5s: no advert of a higher priority came within the
           master-down time of 3.609 s
priority   80 of 100, preempts
addresses  10.0.5.96/20 10.0.5.97/20
group      VG_1
timers     adverts every 1s; skew 609ms, master down 3.61s; next advert in 412ms
changes    3 of state; active 0 times, released 0 times
sent       1 234 adverts, 0 of priority 0
received   0 adverts, 0 of priority 0
refused    version 12

heard
  SENDER     PRIO  VERSION  EVERY  HEARD      ADVERTS  ADDRESSES
  10.0.5.92    90        2     1s  320ms ago  refused  10.0.5.96
  10.0.5.92  version: it speaks version 2, and this router version 3; set the
             same on both

  TRACKED        STATE  EFFECT
  script chk_lb  down   weight -20
  script chk_lb: timeout after 10s: waiting for the lock of somebody who does
    not end
";
        assert_eq!(show(&router(), Paint::Plain), expected);
    }

    #[test]
    fn a_list_has_routers_groups_and_peers() {
        let status = VrrpStatus {
            routers: vec![router()],
            groups: vec![GroupStatus {
                name: "VG_1".to_owned(),
                state: "active".to_owned(),
                members: vec!["VI_1".to_owned(), "VI_2".to_owned()],
            }],
            peers: vec![PeerStatus {
                address: "10.0.5.92".to_owned(),
                state: "alive".to_owned(),
                age_ms: Some(12),
                routers: vec![PeerRouterStatus {
                    vrid: 51,
                    state: "backup".to_owned(),
                    priority: 250,
                    ..PeerRouterStatus::default()
                }],
                ..PeerStatus::default()
            }],
            refused: [("carp".to_owned(), 2_000)].into(),
        };
        let expected = "\
ROUTER  STATE   PRIO       VRID  INTERFACE  SINCE  ADDRESSES
VI_1    active  80 of 100    51  eth0       3m 5s  10.0.5.96/20 +1

GROUP  STATE   MEMBERS
VG_1   active  VI_1 VI_2

PEER       STATE  HEARD     DETAIL
10.0.5.92  alive  12ms ago  VRID 51 backup 250

refused, of no router here: carp 2 000
";
        assert_eq!(list(&status, Paint::Plain), expected);
        let none = "no virtual routers: add a [[vrrp]] to the configuration\n";
        assert_eq!(list(&VrrpStatus::default(), Paint::Plain), none);
    }

    #[test]
    fn spans() {
        let cases = [
            (250, "250us"),
            (1_500, "1.5ms"),
            (27_343, "27ms"),
            (1_000_000, "1s"),
            (3_609_375, "3.61s"),
            (185_000_000, "3m 5s"),
            (7_260_000_000, "2h 1m"),
            (180_000_000_000, "2d 2h"),
        ];
        for (us, text) in cases {
            assert_eq!(span(us), text);
        }
    }
}
