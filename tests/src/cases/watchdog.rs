//! No daemon for longer than the watchdog allows: every packet passes, as if no program were attached.

use lb_common::{
    counter::Counter::{AnswerEcho, PassMulticast, PassNotIp, PassWatchdog},
    entry::Mode,
    flow::Ticks,
};
use lb_user::pure::config::network::Family;

use super::{
    Case,
    echo::{ping, pong},
    every_mode,
    nat::{answer, pair},
    packet::{Datagram, Fragment, arp},
    shape::{ack, syn, udp},
    world::{A, BACK, FRONT, WEB, World},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [abandoned(now), replies(now), alive(now)];
    groups.into_iter().flatten().collect()
}

fn abandoned(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    let part = Datagram { fragment: Fragment::First(32), dont_fragment: false, ..udp(&[1; 64]) };
    for (mode, family) in every_mode() {
        let world = || World::new(mode, now).watched(PATIENCE + 1, PATIENCE);
        let packets = [
            ("a SYN", syn().of(family)),
            ("data", ack().of(family)),
            ("udp", udp(b"query").of(family)),
            ("a ping", ping(family)),
            ("a tagged SYN", Datagram { tags: vec![7], ..syn().of(family) }),
            ("a fragment", part.clone().of(family)),
        ];
        for (name, packet) in packets {
            let name = format!("no daemon, {mode:?} {family:?}: {name}");
            cases.push(Case::new(&name, world(), &packet).passes(PassWatchdog));
        }
    }
    let bare = || World::new(Mode::Dsr, now).watched(u32::MAX / 2, PATIENCE);
    let many = Datagram { to: [0xff; 6], ..syn() };
    cases.push(Case::new("no daemon: to everybody", bare(), &many).passes(PassMulticast));
    cases.push(Case::bytes("no daemon: not ip", bare(), arp([203, 0, 113, 80].into())).passes(PassNotIp));
    cases
}

/// Their connections are over: what the server hears of them is the kernel's word.
fn replies(now: Ticks) -> Vec<Case> {
    [Mode::Nat, Mode::Gateway]
        .into_iter()
        .map(|mode| {
            let flow = pair(A, WEB, now);
            let (sent, _) = answer(&ack(), &flow);
            let world = World::new(mode, now).pair(flow).watched(PATIENCE + 1, PATIENCE);
            Case::new(&format!("no daemon, {mode:?}: a reply"), world, &sent).from(BACK).passes(PassWatchdog)
        })
        .collect()
}

/// Silence as long as the patience is none too long, and a stamp from the future is one of now.
fn alive(now: Ticks) -> Vec<Case> {
    let pong = |name: &str, silent: u32| {
        let ping = ping(Family::V4);
        let world = World::new(Mode::Dsr, now).watched(silent, PATIENCE);
        Case::new(name, world, &ping).leaves(FRONT, AnswerEcho, &pong(&ping))
    };
    vec![pong("a daemon that was alive just in time", PATIENCE), pong("a daemon that is ahead", u32::MAX)]
}

const PATIENCE: u32 = 7;
