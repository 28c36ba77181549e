//! What goes wrong at the start: one clear line with the next step, the right exit code, nothing half done.

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Forward, Steelyard, client::Requests, steelyard::Finished, topology::attach, xdp::Program,
};

use super::bed;

#[test]
fn a_faulty_file_is_reported_with_every_position() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    steelyard
        .write_config("[global]\nnod = \"lb1\"\n[datapath]\ninterfaces = [\"eth0\"]\nflows = \"many\"\n")?;
    for command in ["run", "check"] {
        let done = steelyard.cli(&[command])?;
        ensure!(done.code == Some(2), "{command}: {done:?}");
        for position in ["steelyard.toml:2:1", "steelyard.toml:5:9"] {
            ensure!(done.stderr.contains(position), "{command} does not say {position}: {}", done.stderr);
        }
        ensure!(done.stderr.contains("node"), "{command} does not name the nearest key: {}", done.stderr);
    }
    nothing_is_attached(&bed, &steelyard)
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    std::fs::remove_file(steelyard.config_file())?;
    let done = steelyard.cli(&["run"])?;
    ensure!(done.code == Some(2) && done.stderr.contains("steelyard.toml"), "{done:?}");
    Ok(())
}

#[test]
fn a_missing_interface_is_named_with_those_that_exist() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    config.interfaces = vec!["eht7".to_owned()];
    let steelyard = Steelyard::new(&bed, &config)?;
    let done = steelyard.cli(&["run"])?;
    one_line_names(&done, &["eht7", "eth0"])?;
    nothing_is_attached(&bed, &steelyard)
}

#[test]
fn a_foreign_program_is_left_alone() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    // On the second interface, so that the first is attached, or would be, before the fault shows.
    let foreign = attach(&bed.balancer.namespace, "eth1", Program::Pass)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    let done = steelyard.cli(&["run"])?;
    one_line_names(&done, &["eth1"])?;
    ensure!(!steelyard.attached("eth0")?, "eth0 is half attached");
    ensure!(steelyard.attached("eth1")?, "the foreign program was taken off");
    ensure!(!steelyard.pin().exists(), "{} is left", steelyard.pin().display());
    drop(foreign);
    Ok(())
}

#[test]
fn a_second_daemon_gives_way() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let pid = steelyard.status()?.pid;
    one_line_names(&steelyard.cli(&["run"])?, &["another steelyard"])?;
    ensure!(steelyard.status()?.pid == pid, "the first daemon is gone");
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()
}

#[test]
fn detach_refuses_while_a_daemon_runs() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let done = steelyard.cli(&["detach"])?;
    one_line_names(&done, &["another steelyard", "stop it first"])?;
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()
}

#[test]
fn missing_privileges_are_named() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    let done = steelyard.cli_as_nobody(&["run"])?;
    one_line_names(&done, &["root"])?;
    nothing_is_attached(&bed, &steelyard)
}

#[test]
fn commands_without_a_daemon_end_with_3() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    for command in [&["status"][..], &["counters"], &["service", "list"], &["server", "list"]] {
        let done = steelyard.cli(command)?;
        ensure!(done.code == Some(3), "{command:?}: {done:?}");
        ensure!(done.stderr.contains("steelyard run"), "{command:?} has no next step: {}", done.stderr);
    }
    Ok(())
}

#[test]
fn bad_usage_ends_with_2() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    for command in [&["statsu"][..], &["explain", "10.0.0.1"], &["explain", "10.0.0.1:1", "10.0.0.2:2/sctp"]]
    {
        let done = steelyard.cli(command)?;
        ensure!(done.code == Some(2) && !done.stderr.is_empty(), "{command:?}: {done:?}");
    }
    Ok(())
}

#[test]
fn a_good_file_is_checked_without_a_daemon() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Dsr)?;
    let steelyard = Steelyard::new(&bed, &config)?;
    let done = steelyard.cli(&["check"])?;
    ensure!(done.code == Some(0), "{done:?}");
    nothing_is_attached(&bed, &steelyard)
}

/// Exit code 1, and an error of one line that names `words`. Warnings before it are its own lines.
fn one_line_names(done: &Finished, words: &[&str]) -> Result<()> {
    ensure!(done.code == Some(1), "{done:?}");
    let line = done.stderr.lines().last().unwrap_or_default();
    ensure!(!line.is_empty() && !done.stderr.contains("panicked"), "{done:?}");
    for word in words {
        ensure!(line.contains(word), "the error does not name {word}: {}", done.stderr);
    }
    Ok(())
}

fn nothing_is_attached(bed: &Bed, steelyard: &Steelyard) -> Result<()> {
    for interface in bed.layout.interfaces() {
        ensure!(!steelyard.attached(interface)?, "{interface} has a program");
    }
    ensure!(!steelyard.pin().exists(), "{} is left", steelyard.pin().display());
    Ok(())
}
