//! How long nobody, or the wrong node, answers: when nodes vanish, are cut off, and come back.

use std::time::Duration;

use super::{Input, Link, Net, PAIR, Router, link, settings};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A pair, settled, whose routers are changed like this.
fn pair(change: impl Fn(&mut Router)) -> Net {
    let mut net = Net::new(PAIR);
    for index in 0..PAIR.len() {
        let mut settings = settings(index, PAIR);
        settings.vrrp.routers.iter_mut().for_each(&change);
        net.input(index, Input::Configure(settings));
    }
    net.run(Duration::from_secs(8));
    net.only(0);
    net
}

fn announces(router: &mut Router) {
    router.announce.times = [0, 10, 50, 200, 1_000].map(ms).to_vec();
}

fn cut_off(net: &mut Net) {
    net.cut(0, 1);
    net.cut(1, 0);
    net.nodes[0].is_gone = true;
}

#[test]
fn heartbeats_never_delay_the_rfc_s_timer() {
    for phase in 0..50 {
        let mut net = pair(|router| router.interval = ms(10));
        net.run(ms(phase));
        net.watch();
        net.crash(0);
        net.run(ms(500));
        net.only(1);
        assert!(net.seen().0 <= 38, "{phase}: {:?}", net.seen());
    }
}

#[test]
fn who_vanishes_while_it_is_asked_to_hand_over_is_waited_for_no_longer() {
    for phase in 12..50 {
        let mut net = pair(|router| router.interval = ms(10));
        net.crash(0);
        net.run(ms(500));
        net.start(0, PAIR, 77);
        let mut settings = settings(0, PAIR);
        settings.vrrp.routers[0].interval = ms(10);
        net.input(0, Input::Configure(settings));
        net.run(ms(phase));
        net.watch();
        net.crash(1);
        net.run(ms(500));
        net.only(0);
        assert!(net.seen().0 <= 38, "{phase}: {:?}", net.seen());
    }
}

#[test]
fn who_was_cut_off_with_its_adverts_is_believed_to_be_silent_again() {
    for length in (150..2_000).step_by(170) {
        for phase in (0..60).step_by(11) {
            let mut net = pair(|_| {});
            net.run(ms(phase));
            cut_off(&mut net);
            net.run(ms(length + phase));
            net.heal();
            net.run(ms(400));
            net.only(0);
            net.watch();
            cut_off(&mut net);
            net.run(ms(120));
            net.only(1);
        }
    }
}

#[test]
fn a_link_that_bounces_costs_little_more_than_the_bounce() {
    // The other end of the link may be open a little later than the kernel says that there is a carrier.
    for late in [0, 1, 5, 15, 40] {
        for phase in (0..1_000).step_by(37) {
            let mut net = pair(announces);
            net.run(ms(phase));
            net.watch();
            cut_off(&mut net);
            net.input(0, Input::Link(Link { is_up: false, ..link(0) }));
            net.run(ms(200));
            net.input(0, Input::Link(link(0)));
            net.run(ms(late));
            net.heal();
            net.run(Duration::from_secs(5));
            net.only(0);
            assert!(net.unanswered <= 200 + late as u32 + 20, "{late}, {phase}: {}", net.unanswered);
            assert!(net.seen().1 <= 120, "{late}, {phase}: {:?}", net.seen());
        }
    }
}
