//! Whom a server sees: the client itself, or with `nat` one of the balancer's addresses.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Arms, Forward, Steelyard, client::Session};

use super::{bed_of, every_layout, every_mode};

#[test]
fn servers_see_the_client_except_by_nat() -> Result<()> {
    for layout in every_layout() {
        let (bed, config) = bed_of(layout)?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mut session = Session::open(&bed.client, bed.service())?;
        let (client, seen) = (session.client()?, session.seen_from()?);
        match layout.forward {
            Forward::Nat => ensure!(seen.ip() == bed.balancer_to_servers(), "{layout:?}: {seen}"),
            _ => ensure!(seen == client, "{layout:?}: {client} is seen as {seen}"),
        }
    }
    Ok(())
}

#[test]
fn nat_uses_every_source_it_is_given() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward == Forward::Nat) {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        let sources = [60, 61, 62].map(|last| bed.add_nat_source(last)).into_iter();
        config.nat_source = sources.collect::<Result<_>>()?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mut seen = BTreeSet::<IpAddr>::new();
        for _ in 0..60 {
            let mut session = Session::open(&bed.client, bed.service()).with_context(|| mode.name)?;
            seen.insert(session.seen_from()?.ip());
        }
        let wanted = config.nat_source.iter().copied().collect();
        ensure!(seen == wanted, "{}: {seen:?}, not {wanted:?}", mode.name);
    }
    Ok(())
}
