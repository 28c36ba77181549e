//! What is not for a service is the kernel's, untouched.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Knock, Session, knock, ping},
    server::Peer,
};

use super::{bed, bed_of, every_mode};

#[test]
fn other_traffic_reaches_the_balancer_itself() -> Result<()> {
    for mode in every_mode() {
        let (bed, config) = bed_of(mode.layout(Arms::One))?;
        let steelyard = Steelyard::running(&bed, &config)?;
        let own = SocketAddr::new(bed.balancer.address(mode.family), 22);
        let on_vip = bed.vip_port(22);
        let _sshd = Peer::start(&bed.balancer.namespace, "balancer", &[own, on_vip])?;
        let passed = steelyard.counter("pass_no_service")?;
        for target in [own, on_vip] {
            let mut session = Session::open(&bed.client, target)?;
            ensure!(session.server == "balancer", "{target}: {}", session.server);
            session.upload(1_000_000)?;
            session.download(1_000_000)?;
        }
        ensure!(steelyard.counter("pass_no_service")? > passed + 100);
        for target in [bed.vip(), own.ip()] {
            ping(&bed.client, target, Duration::from_secs(2))?;
        }
        let closed = knock(&bed.client, bed.vip_port(23), Duration::from_secs(2))?.0;
        ensure!(closed == Knock::Refused, "the kernel refuses what nobody serves: {closed:?}");
    }
    Ok(())
}

/// The balancer's own connections, in the other direction: answers to it are not a service's either.
#[test]
fn the_balancer_reaches_the_servers_itself() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let _steelyard = Steelyard::running(&bed, &config)?;
    for server in &bed.servers {
        let session = Session::open(&bed.balancer, server.listens[0])?;
        ensure!(session.server == server.name);
    }
    Ok(())
}
