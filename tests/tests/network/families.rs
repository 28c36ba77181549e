//! One service, two families: each has its VIP and its servers.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Family, Forward, Layout, Steelyard,
    client::{Requests, Session},
    layout::SERVICE_PORT,
};

#[test]
fn each_family_has_the_servers_that_can_answer_it() -> Result<()> {
    for forward in [Forward::Nat, Forward::Gateway, Forward::Dsr] {
        let bed = Bed::new(Layout::new(Arms::Two, forward))?;
        let _steelyard = Steelyard::running(&bed, &Config::of_both_families(&bed))?;
        asked_over_both(&bed).with_context(|| forward.name())?;
    }
    Ok(())
}

/// Who encapsulates may use servers of any family for clients of any family, mixed in one service.
#[test]
fn an_encapsulation_carries_both_families_to_all_servers() -> Result<()> {
    for forward in [Forward::Ipip, Forward::Gue] {
        let bed = Bed::new(Layout::new(Arms::Two, forward))?;
        let mut config = Config::of_both_families(&bed);
        // web1 by IPv4, web2 and web3 by IPv6.
        config.services[0]
            .servers
            .retain(|server| ["web1-v4", "web2-v6", "web3-v6"].contains(&server.name.as_str()));
        let _steelyard = Steelyard::running(&bed, &config)?;
        asked_over_both(&bed).with_context(|| forward.name())?;
    }
    Ok(())
}

fn asked_over_both(bed: &Bed) -> Result<()> {
    for family in Family::BOTH {
        let target = SocketAddr::new(bed.vip_of(family), SERVICE_PORT);
        for seen in
            [Requests::new(target, 300).tcp(&bed.client)?, Requests::new(target, 300).udp(&bed.client)?]
        {
            seen.all_answered().with_context(|| format!("{family:?}"))?;
            for server in &bed.servers {
                ensure!(seen.of(&server.name) > 50, "{family:?}: {seen:?}");
            }
        }
        let mut session = Session::open(&bed.client, target)?;
        session.upload(1_000_000)?;
        session.download(1_000_000)?;
    }
    Ok(())
}
