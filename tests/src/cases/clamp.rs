//! The MSS of SYNs, lowered to what the service says.

use etherparse::TcpHeader;
use lb_common::{counter::Counter::MssClamped, flow::Ticks};

use super::{
    Case,
    modes::Way,
    packet::{Datagram, Fragment},
    shape::tcp,
    world::World,
};

/// What the service allows, and what clients offer.
const MOST: u16 = 1_400;

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let world = || way.world(now).services(|service| service.mss = MOST);
        for (name, before, after) in lowered() {
            cases.push(lowers(way, name, world(), &syn(&before), &syn(&after), now));
        }
        for (name, options) in kept() {
            let packet = syn(&options).of(way.vip);
            cases.push(way.forwards(&format!("mss kept: {name}"), world(), &packet, now));
        }
        for (name, packet) in others() {
            let packet = packet.of(way.vip);
            let pair = way.pair(&packet, now);
            let known = if way.mode.rewrites() { world().pair(pair) } else { world() };
            cases.push(way.forwards(&format!("mss kept: {name}"), known, &packet, now));
        }
        let tagged = |mss| syn(&offer(mss)).tagged(&[7]);
        cases.push(lowers(way, "with a tag", world(), &tagged(1_460), &tagged(MOST), now));
        let with_data = |mss| Datagram { payload: b"early".to_vec(), ..syn(&offer(mss)) };
        cases.push(lowers(way, "with data", world(), &with_data(1_460), &with_data(MOST), now));
    }
    cases
}

/// Options as they come and go.
fn lowered() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let both = |before: &[u8], after: &[u8]| {
        let around = |mss| [before, &offer(mss), after].concat();
        (around(1_460), around(MOST))
    };
    let table: [(&str, &[u8], &[u8]); 6] = [
        ("the only option", &[], &[]),
        ("first of several", &[], &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]),
        ("behind two NOPs", &[1, 1], &[1, 1]),
        ("at an odd offset", &[1], &[1, 1, 1]),
        ("at another odd offset", &[3, 3, 7], &[0]),
        ("behind others", &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], &[]),
    ];
    let mut options: Vec<_> = table
        .into_iter()
        .map(|(name, before, after)| {
            let (before, after) = both(before, after);
            (name, before, after)
        })
        .collect();
    options.push(("the greatest", offer(u16::MAX), offer(MOST)));
    options.push(("one more than allowed", offer(MOST + 1), offer(MOST)));
    options.push((
        "twice, the first counts",
        [offer(1_460), offer(1_460)].concat(),
        [offer(MOST), offer(1_460)].concat(),
    ));
    options
}

fn kept() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("no options", vec![]),
        ("none offered", vec![4, 2, 1, 1]),
        ("as much as allowed", offer(MOST)),
        ("less than allowed", offer(536)),
        ("0", offer(0)),
        ("behind the end of options", [vec![0, 1, 1, 1], offer(1_460)].concat()),
        ("behind an option of no length", [vec![8, 0, 1, 1], offer(1_460)].concat()),
        ("behind an option of length 1", [vec![8, 1, 1, 1], offer(1_460)].concat()),
        ("behind an option that reaches beyond the header", [vec![8, 40, 1, 1], offer(1_460)].concat()),
        ("of length 3", vec![2, 3, 5, 180]),
        ("of length 6", vec![2, 6, 5, 180, 1, 1, 1, 1]),
        ("cut by the end of the header", vec![1, 2, 4, 5]),
        ("behind more options than are looked at", [vec![1; 12], offer(1_460)].concat()),
    ]
}

/// Packets that offer nothing.
fn others() -> Vec<(&'static str, Datagram)> {
    let with = |flags: fn(&mut TcpHeader)| {
        tcp(&[], |header| {
            flags(header);
            options(header, &offer(1_460));
        })
    };
    vec![
        ("a SYN and ACK", with(|header| (header.syn, header.ack) = (true, true))),
        ("an ACK", with(|header| header.ack = true)),
        ("no flag at all", with(|_| ())),
    ]
}

/// The SYN leaves as `after` would, had it come like this.
fn lowers(way: Way, what: &str, world: World, before: &Datagram, after: &Datagram, now: Ticks) -> Case {
    let (before, after) = (before.clone().of(way.vip), after.clone().of(way.vip));
    let case = way.forwards(&format!("mss lowered: {what}"), world, &after, now).counts(MssClamped);
    assert_eq!(before.fragment, Fragment::Whole);
    Case { packet: before.bytes(), ..case }
}

fn syn(raw: &[u8]) -> Datagram {
    tcp(&[], |header| {
        header.syn = true;
        options(header, raw);
    })
}

fn options(header: &mut TcpHeader, raw: &[u8]) {
    header.set_options_raw(raw).expect("cases use whole words of options");
}

fn offer(mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    vec![2, 4, high, low]
}
