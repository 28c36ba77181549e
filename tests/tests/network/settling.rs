//! Slots that changed hands: looked up while a connection lives elsewhere, and no longer.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Steelyard,
    client::{Requests, Session},
    poll,
    steelyard::all_up,
};
use lb_user::pure::status::Status;

use super::{bed, keep_their_servers, sessions};

#[test]
fn slots_settle_as_their_last_connections_end() -> Result<()> {
    let (bed, config) = short_lived(Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut open = sessions(&bed, 40)?;
    add_web3(&bed, &steelyard)?;
    // Nobody is silent for T: whoever lives is recorded, and holds its own slot alone.
    asked_until(&steelyard, &mut open, |unsettled, count| (1..=count).contains(&unsettled))?;
    drop(open);
    ensure!(steelyard.counter("slots_lookup")? > 0);
    steelyard.wait("every slot to settle", |status| unsettled(status) == 0)?;
    ensure!(steelyard.counter("slots_lookup")? == 0);
    let before = steelyard.counter("flow_recorded")?;
    let new = Requests::new(bed.service(), 100).tcp(&bed.client)?;
    new.all_answered()?;
    ensure!(new.of("web3") > 0, "{new:?}");
    ensure!(steelyard.counter("flow_recorded")? == before, "a settled slot records nothing");
    Ok(())
}

/// Pairs are looked up anyway: their slots need no more than T.
#[test]
fn slots_of_pairs_settle_while_their_connections_stay() -> Result<()> {
    let (bed, config) = short_lived(Forward::Gateway)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut open = sessions(&bed, 40)?;
    add_web3(&bed, &steelyard)?;
    asked_until(&steelyard, &mut open, |unsettled, _| unsettled == 0)
}

/// The third server is to be added.
fn short_lived(forward: Forward) -> Result<(Bed, Config)> {
    let (bed, mut config) = bed(Arms::One, forward)?;
    config.services[0].idle_timeout = Some("3s");
    config.services[0].servers.truncate(2);
    Ok((bed, config))
}

fn add_web3(bed: &Bed, steelyard: &Steelyard<'_>) -> Result<()> {
    let address = Config::of(bed).services[0].servers[2].address.to_string();
    steelyard.done(&["server", "add", "web/web3", &address])?;
    let status = steelyard.wait("web3 to be up", all_up)?;
    ensure!(unsettled(&status) > 1_000, "a third of the slots: {}", unsettled(&status));
    Ok(())
}

/// Asks every session again and again, until the slots with lookup are as many as `wanted` says of them and the sessions.
fn asked_until(
    steelyard: &Steelyard<'_>,
    sessions: &mut [Session],
    wanted: impl Fn(usize, usize) -> bool,
) -> Result<()> {
    let count = sessions.len();
    poll("the slots of silent connections to settle", Duration::from_secs(30), || {
        let asked = keep_their_servers(sessions, None).and_then(|()| steelyard.status());
        match asked {
            Ok(status) => wanted(unsettled(&status), count).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    })??;
    keep_their_servers(sessions, None)
}

fn unsettled(status: &Status) -> usize {
    status.services.iter().map(|service| service.slots_unsettled as usize).sum()
}
