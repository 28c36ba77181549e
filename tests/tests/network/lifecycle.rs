//! The daemon dies, stops, starts again and leaves: packets are not disturbed, until `detach`.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Forward, Steelyard,
    client::{Load, Requests, Session},
    poll,
    steelyard::{all_up, is_down},
};
use nix::sys::signal::Signal;

use super::{bed, forwarded};

#[test]
fn kill_9_disturbs_no_packet_by_nat() -> Result<()> {
    kill_9_disturbs_no_packet(Forward::Nat)
}

#[test]
fn kill_9_disturbs_no_packet_by_dsr() -> Result<()> {
    kill_9_disturbs_no_packet(Forward::Dsr)
}

fn kill_9_disturbs_no_packet(forward: Forward) -> Result<()> {
    let (bed, config) = bed(Arms::Two, forward)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut up = Session::open(&bed.client, bed.service())?;
    let mut down = Session::open(&bed.client, bed.service())?;
    let mut upload = up.begin_upload(TRANSFER)?;
    let mut download = down.begin_download(TRANSFER)?;
    let load = Load::start(&bed.client, bed.service(), 2);
    upload.give(TRANSFER / 4)?;
    download.take(TRANSFER / 4)?;
    let before = forwarded(&steelyard)?;
    let dropped = drops(&steelyard)?;

    steelyard.kill9()?;
    upload.give(TRANSFER / 4)?;
    download.take(TRANSFER / 4)?;
    let dead = Requests::new(bed.service(), 300).tcp(&bed.client)?;
    dead.all_answered()?;
    ensure!(steelyard.cli(&["status"])?.code == Some(3), "a dead daemon must be exit code 3");

    steelyard.start()?;
    let adopted = forwarded(&steelyard)?;
    ensure!(adopted > before + 300, "the counters did not continue: {before}, then {adopted}");
    steelyard.wait("every server to be up", all_up)?;
    upload.finish()?;
    download.finish()?;
    load.stop()?.all_answered()?;
    let more = drops(&steelyard)? - dropped;
    ensure!(more == 0, "{more} packets were dropped on the way: {:?}", steelyard.counters()?);
    Ok(())
}

fn drops(steelyard: &Steelyard<'_>) -> Result<u64> {
    let counters = steelyard.counters()?;
    Ok(counters.iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, count)| count).sum())
}

#[test]
fn an_adopted_ring_still_follows_the_checks() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut sessions: Vec<_> =
        (0..30).map(|_| Session::open(&bed.client, bed.service())).collect::<Result<_>>()?;
    steelyard.kill9()?;
    bed.servers[1].kill();
    steelyard.start()?;
    steelyard.wait("web2 to leave the ring", |status| is_down(status, "web", "web2"))?;
    let without = Requests::new(bed.service(), 300).tcp(&bed.client)?;
    without.all_answered()?;
    ensure!(without.of("web2") == 0, "{without:?}");
    for session in sessions.iter_mut().filter(|session| session.server != "web2") {
        ensure!(session.who()? == session.server);
    }
    Ok(())
}

#[test]
fn sigterm_leaves_forwarding_and_detach_leaves_nothing() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut session = Session::open(&bed.client, bed.service())?;
    let end = steelyard.terminate()?;
    ensure!(end.success(), "the daemon ended with {end}");
    ensure!(session.who()? == session.server);
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()?;
    ensure!(steelyard.attached("eth0")? && steelyard.attached("eth1")?);

    let detached = steelyard.cli(&["detach"])?;
    ensure!(detached.code == Some(0), "{detached:?}");
    nothing_is_left(&bed, &steelyard)?;
    let again = steelyard.cli(&["detach"])?;
    ensure!(again.code == Some(0), "detaching what is detached is done: {again:?}");
    Ok(())
}

/// Also that a first start and a start after `detach` are the same.
#[test]
fn run_with_detach_leaves_nothing() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let mut steelyard = Steelyard::new(&bed, &config)?;
    steelyard.flags = vec!["--detach".to_owned()];
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()?;
    let end = steelyard.terminate()?;
    ensure!(end.success(), "the daemon ended with {end}");
    nothing_is_left(&bed, &steelyard)
}

/// Reload is not built yet, and a unit file that sends its signal must not end the daemon.
#[test]
fn other_signals_leave_the_daemon_running() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let pid = steelyard.status()?.pid;
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        steelyard.signal(signal)?;
    }
    poll("both reloads", Duration::from_secs(5), || {
        (steelyard.log().matches("reloaded: ").count() >= 2).then_some(())
    })?;
    ensure!(steelyard.status()?.pid == pid);
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

#[test]
fn an_interface_that_is_no_longer_configured_is_left() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Dsr)?;
    let usual = config.clone();
    config.mode = "auto";
    config.interfaces.push("lo".to_owned());
    let mut steelyard = Steelyard::running(&bed, &config)?;
    ensure!(steelyard.attached("lo")?);
    steelyard.terminate()?;
    steelyard.configure(&usual)?;
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    ensure!(!steelyard.attached("lo")?, "lo still has the program");
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

#[test]
fn pins_that_somebody_removed_are_missed() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    std::fs::remove_file(steelyard.pin().join(lb_common::LAYOUT).join("links/eth0"))?;
    let status = steelyard.wait("a warning", |status| {
        status.warnings.iter().any(|text| text.contains("eth0") && text.contains("gone"))
    })?;
    ensure!(status.datapath.interfaces.is_empty(), "{:?}", status.datapath.interfaces);
    Ok(())
}

#[test]
fn a_start_after_detach_begins_anew() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()?;
    steelyard.terminate()?;
    ensure!(steelyard.cli(&["detach"])?.code == Some(0));
    nothing_is_left(&bed, &steelyard)?;
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

fn nothing_is_left(bed: &Bed, steelyard: &Steelyard) -> Result<()> {
    ensure!(!steelyard.pin().exists(), "{} is left", steelyard.pin().display());
    // The kernel takes a program off a moment after its last reference.
    for interface in bed.layout.interfaces() {
        poll("the end of the attachment", Duration::from_secs(5), || {
            steelyard.attached(interface).ok().filter(|attached| !attached)
        })?;
    }
    Ok(())
}

const TRANSFER: u64 = 64_000_000;
