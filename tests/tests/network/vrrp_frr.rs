//! Virtual routers of version 3 shared with FRR's vrrpd, in both roles and over both families.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Family, Pair,
    frr::{Frr, FrrRouter},
    observer::Observer,
    tcpdump::Tcpdump,
    vrrp::{Virtual, steelyard_config},
};

#[test]
fn elections_are_won_and_lost() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let observer = Observer::start(&pair)?;
    let tcpdump = Tcpdump::start(&pair, "ip proto 112 or ip6 proto 112")?;
    let routers: Vec<Virtual> = [(31, [200, 100]), (32, [100, 200])]
        .into_iter()
        .flat_map(|(vrid, priorities)| Family::BOTH.map(|family| Virtual::new(vrid, family, &priorities)))
        .collect();
    let mut ours = pair.steelyard(OURS)?;
    ours.write_config(&steelyard_config(&pair, &ours, OURS, &[], &routers))?;
    let theirs: Vec<FrrRouter> = routers
        .chunks(2)
        .map(|both| FrrRouter {
            vrid: both[0].vrid,
            priority: both[0].priorities[THEIRS],
            interval_ms: 100,
            addresses: [both[0].address(), both[1].address()],
        })
        .collect();

    ours.start()?;
    advertised(&observer, &routers, |_| OURS).context("steelyard alone")?;
    let frr = Frr::running(&pair, THEIRS, &theirs)?;
    advertised(&observer, &routers, Virtual::favourite)
        .with_context(|| frr.show("show vrrp").unwrap_or_default())
        .context("FRR came")?;
    ours.terminate()?;
    advertised(&observer, &routers, |_| THEIRS).context("steelyard stopped")?;
    ours.start()?;
    advertised(&observer, &routers, Virtual::favourite).context("steelyard came back")?;
    drop(frr);
    advertised(&observer, &routers, |_| OURS).context("FRR ended")?;

    let decoded = tcpdump.stop()?;
    let complaint = decoded.lines().find(|line| line.contains("bad "));
    ensure!(complaint.is_none(), "tcpdump complains: {complaint:?}");
    Ok(())
}

fn advertised(observer: &Observer, routers: &[Virtual], by: impl Fn(&Virtual) -> usize) -> Result<()> {
    routers
        .iter()
        .try_for_each(|router| observer.wait_for(router.vrid, router.family, by(router), QUIET, ELECTED))
}

const OURS: usize = 0;
const THEIRS: usize = 1;
/// A few adverts long.
const QUIET: Duration = Duration::from_millis(350);
const ELECTED: Duration = Duration::from_secs(10);
