//! A keepalived.conf as it stands, run by `steelyard` on the first node and by Keepalived on the second.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Family::{V4, V6},
    Pair, Steelyard,
    keepalived::Keepalived,
    poll,
    vrrp::{FLAG, Virtual, keepalived_config, steelyard_config},
};
use nix::sys::signal::Signal;

/// Each node runs the file that Keepalived would run there, and one takes over from the other.
#[test]
fn a_node_of_a_running_pair_is_swapped() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let routers = [
        Virtual { pass: Some("longer than eight"), ..Virtual::old(31, &[150, 100]) },
        Virtual { unicast: true, ..Virtual::old(32, &[100, 150]) },
        Virtual { track: Some((OURS, -80)), ..Virtual::new(33, V4, &[150, 100]) },
        Virtual::new(34, V6, &[150, 100]),
    ];
    let mut before = Keepalived::new(&pair, OURS, &keepalived_config(&pair, OURS, &routers))?;
    let mut other = Keepalived::new(&pair, THEIRS, &keepalived_config(&pair, THEIRS, &routers))?;
    before.start()?;
    other.start()?;
    held(&pair, &routers, Virtual::favourite).context("two of Keepalived")?;

    before.stop()?;
    let mut ours = ours(&pair, &keepalived_config(&pair, OURS, &routers))?;
    ours.start()?;
    held(&pair, &routers, Virtual::favourite).context("steelyard in place of one")?;
    fs::write(pair.folder(OURS).join(FLAG), "")?;
    held(&pair, &routers[2..3], |_| THEIRS).context("the tracked script fails")?;
    fs::remove_file(pair.folder(OURS).join(FLAG))?;
    held(&pair, &routers[2..3], |_| OURS).context("the tracked script succeeds again")?;
    ours.terminate()?;
    held(&pair, &routers, |_| THEIRS).context("steelyard stopped")
}

#[test]
fn a_reload_reads_the_file_again_and_a_bad_one_changes_nothing() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let routers = |more: &[Virtual]| [&[Virtual::new(35, V4, &[150])], more].concat();
    let one = routers(&[]);
    let mut ours = ours(&pair, &keepalived_config(&pair, OURS, &one))?;
    ours.start()?;
    held(&pair, &one, |_| OURS)?;

    let two = routers(&[Virtual::new(36, V4, &[150])]);
    let text = keepalived_config(&pair, OURS, &two);
    fs::write(file(&pair), &text)?;
    ours.signal(Signal::SIGHUP)?;
    held(&pair, &two, |_| OURS).context("a router was added")?;

    let bad = text.replacen("version 3", "version 2\nauthentication { auth_type AH\n}", 1);
    fs::write(file(&pair), bad)?;
    ours.signal(Signal::SIGHUP)?;
    poll("the refusal in the log", ELECTED, || ours.log().contains("auth_type AH").then_some(()))?;
    let refused = ours.cli(&["reload"])?;
    ensure!(refused.code == Some(2), "the reload ended with {:?}: {}", refused.code, refused.stderr);
    held(&pair, &two, |_| OURS).context("a bad file")?;
    Ok(())
}

#[test]
fn what_import_writes_is_accepted() -> Result<()> {
    let pair = Pair::new(1, 0)?;
    let routers = [Virtual { pass: Some("1111"), track: Some((OURS, -80)), ..Virtual::old(37, &[150]) }];
    let ours = ours(&pair, &keepalived_config(&pair, OURS, &routers))?;
    let source = file(&pair).display().to_string();
    let written = pair.folder(OURS).join("imported.toml").display().to_string();
    ours.done(&["import", "--keepalived", &source, "-o", &written])?;
    ours.done(&["check", "-c", &written])?;
    let again = ours.cli(&["import", "--keepalived", &source, "-o", &written])?;
    ensure!(again.code == Some(1), "a file that is there is not overwritten: {:?}", again.code);
    let text = fs::read_to_string(&written)?;
    ensure!(text.contains("[[vrrp]]") && text.contains("weight = -80"), "{text}");
    Ok(())
}

/// The daemon's own file has no router.
fn ours<'a>(pair: &'a Pair, keepalived: &str) -> Result<Steelyard<'a>> {
    fs::write(file(pair), keepalived)?;
    let mut steelyard = pair.steelyard(OURS)?;
    steelyard.write_config(&steelyard_config(pair, &steelyard, OURS, &[], &[]))?;
    steelyard.flags = vec!["--keepalived".to_owned(), file(pair).display().to_string()];
    Ok(steelyard)
}

fn file(pair: &Pair) -> std::path::PathBuf {
    pair.folder(OURS).join("taken-over.conf")
}

/// Returns once every address is on the node named, and there alone.
fn held(pair: &Pair, routers: &[Virtual], by: impl Fn(&Virtual) -> usize) -> Result<()> {
    let end = Instant::now() + ELECTED;
    routers.iter().try_for_each(|router| {
        let left = end.saturating_duration_since(Instant::now());
        pair.wait_for_holders(router.address(), &[by(router)], left).with_context(|| format!("{router:?}"))
    })
}

const OURS: usize = 0;
const THEIRS: usize = 1;
/// Longer than the slowest election.
const ELECTED: Duration = Duration::from_secs(10);
