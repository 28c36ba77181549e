//! Daemons that are killed at any moment, start at once, or do not come back.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Knock, Load, Requests, Session, knock},
    poll,
    steelyard::all_up,
};

use super::bed;

/// A start is at another point each time.
#[test]
fn kill_9_at_any_moment_of_a_start_loses_no_request() -> Result<()> {
    for forward in [Forward::Nat, Forward::Dsr] {
        let (bed, config) = bed(Arms::Two, forward)?;
        let mut steelyard = Steelyard::running(&bed, &config)?;
        let load = Load::start(&bed.client, bed.service(), 2);
        for requests in (0..12).map(|turn| turn * 9) {
            steelyard.kill9()?;
            steelyard.start()?;
            let until = load.done() + requests;
            poll("more requests", LIMIT, || (load.done() >= until).then_some(()))?;
        }
        steelyard.wait("every server to be up", all_up)?;
        load.stop()?.all_answered()?;
    }
    Ok(())
}

#[test]
fn of_many_starts_one_wins() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut session = Session::open(&bed.client, bed.service())?;
    let load = Load::start(&bed.client, bed.service(), 2);
    for _ in 0..3 {
        steelyard.kill9()?;
        let lost = steelyard.race(STARTS)?;
        ensure!(lost.len() == STARTS - 1, "{lost:?}");
        for words in lost {
            ensure!(words.contains("another steelyard"), "{words}");
        }
    }
    steelyard.wait("every server to be up", all_up)?;
    ensure!(session.who()? == session.server);
    load.stop()?.all_answered()
}

/// Nobody has pinned anything yet.
#[test]
fn of_many_first_starts_one_wins() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let mut steelyard = Steelyard::new(&bed, &config)?;
    ensure!(steelyard.race(STARTS)?.len() == STARTS - 1);
    steelyard.wait("every server to be up", all_up)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

/// The machine itself has the VIP, and nobody listens there: it refuses what the program would forward.
#[test]
fn the_watchdog_lets_packets_pass_until_a_daemon_is_back() -> Result<()> {
    let (bed, mut config) = bed(Arms::Two, Forward::Nat)?;
    config.watchdog = Some("5s");
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let knocks = || knock(&bed.client, bed.service(), Duration::from_millis(500)).map(|(knock, _)| knock);
    ensure!(knocks()? == Knock::Open);
    steelyard.kill9()?;
    ensure!(knocks()? == Knock::Open, "a restart has time");
    poll("the machine itself to answer", LIMIT, || {
        knocks().is_ok_and(|knock| knock == Knock::Refused).then_some(())
    })?;
    steelyard.start()?;
    ensure!(knocks()? == Knock::Open, "a daemon is back");
    ensure!(steelyard.counter("pass_watchdog")? > 0);
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()
}

const STARTS: usize = 6;
const LIMIT: Duration = Duration::from_secs(20);
