//! Two nodes of ours that know each other by heartbeats: who dies is replaced before VRRP's timers end, and who leaves
//! does so without a lost request.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Family::{self, V4},
    Pair, Steelyard,
    client::ping,
    pair::INTERFACE,
    poll,
};

/// Adverts every second: a master counts as down after more than three.
fn config(pair: &Pair, steelyard: &Steelyard, node: usize) -> String {
    let mut text = format!(
        "[global]\nadmin_socket = {:?}\nstate = {:?}\n\n[datapath]\npin = {:?}\n\n\
         [cluster]\nsecret = \"hush\"\npeers = [\"{}\"]\n",
        steelyard.socket(),
        steelyard.state(),
        steelyard.pin(),
        pair.nodes[1 - node].address(V4)
    );
    for family in Family::BOTH {
        text += &format!(
            "\n[[vrrp]]\nname = \"{family:?}\"\ninterface = {INTERFACE:?}\nvrid = 51\npriority = {}\n\
             addresses = [\"{}/{}\"]\n",
            [200, 100][node],
            Pair::vip(family, 7),
            Pair::prefix(family)
        );
    }
    text
}

fn holders(pair: &Pair, nodes: &[usize], limit: Duration) -> Result<()> {
    Family::BOTH.into_iter().try_for_each(|family| pair.wait_for_holders(Pair::vip(family, 7), nodes, limit))
}

/// Both run and hear each other; the first has the addresses.
fn running(pair: &Pair) -> Result<[Steelyard<'_>; 2]> {
    let mut nodes = [pair.steelyard(0)?, pair.steelyard(1)?];
    for (number, node) in nodes.iter_mut().enumerate() {
        node.write_config(&config(pair, node, number))?;
        node.start()?;
    }
    for node in &nodes {
        poll("the nodes to hear each other", LIMIT, || node.log().contains("is alive").then_some(()))?;
    }
    holders(pair, &[0], LIMIT)?;
    Ok(nodes)
}

#[derive(Debug, Default)]
struct Seen {
    answered: u32,
    lost: u32,
    /// From an answered echo to the next one.
    outage: Duration,
}

/// Asks the shared address without a pause while something happens, and until it is answered again.
fn watched(pair: &Pair, limit: Duration, act: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let address = Pair::vip(V4, 7);
    poll("an echo from the shared address", LIMIT, || ping(&pair.client, address, limit).ok())?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut seen = Seen::default();
            let mut last = Instant::now();
            let deadline = last + LIMIT * 2;
            let mut is_answered = true;
            while (!ended.load(Ordering::Relaxed) || !is_answered) && Instant::now() < deadline {
                let sent = Instant::now();
                is_answered = ping(&pair.client, address, limit).is_ok();
                if is_answered {
                    seen.answered += 1;
                    seen.outage = seen.outage.max(sent - last);
                    last = sent;
                } else {
                    seen.lost += 1;
                }
            }
            seen
        });
        let acted = act();
        ended.store(true, Ordering::Relaxed);
        let seen = prober.join().map_err(|_| anyhow::anyhow!("the prober failed"))?;
        acted.map(|()| seen)
    })
}

#[test]
fn whoever_leaves_hands_over_without_a_lost_request() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [first, mut second] = running(&pair)?;
    let seen = watched(&pair, PATIENT, || {
        for family in ["V4", "V6"] {
            let said = first.done(&["vrrp", "failover", family])?;
            ensure!(said.contains("handed over"), "it said {said}");
        }
        holders(&pair, &[1], QUICK)
    })
    .context("by an order")?;
    ensure!(seen.lost == 0 && seen.answered > 0, "by an order: {seen:?}");
    let shown = first.done(&["vrrp", "show", "V4"])?;
    ensure!(shown.contains("holds back"), "{shown}");

    let seen = watched(&pair, PATIENT, || {
        let ended = second.terminate()?;
        ensure!(ended.success(), "it ended with {ended}");
        holders(&pair, &[0], QUICK)
    })
    .context("by a stop")?;
    ensure!(seen.lost == 0 && seen.answered > 0, "by a stop: {seen:?}");
    ensure!(!first.log().contains("is silent"), "who stops is not lost: {}", first.log());
    Ok(())
}

#[test]
fn whoever_dies_is_replaced_long_before_its_master_down_time() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [mut first, second] = running(&pair)?;
    let seen = watched(&pair, IMPATIENT, || {
        pair.cut(0)?;
        poll("the other node to take over", QUICK, || second.log().contains("V4 is active").then_some(()))
    })?;
    ensure!(seen.outage < QUICK, "its port was cut: {seen:?}");
    pair.mend(0)?;
    holders(&pair, &[0], LIMIT)?;

    first.kill9()?;
    // Its host is alive, and keeps them.
    holders(&pair, &[0, 1], QUICK).context("its daemon was killed")?;
    first.start()?;
    holders(&pair, &[1], QUICK).context("it started again")
}

const LIMIT: Duration = Duration::from_secs(10);
/// An echo that takes longer is lost, and not just late on a machine that is busy.
const PATIENT: Duration = Duration::from_millis(500);
const IMPATIENT: Duration = Duration::from_millis(20);
/// Far below the 3.2 s that the timers of the RFC take, far above what it takes on a quiet machine.
const QUICK: Duration = Duration::from_millis(1_500);
