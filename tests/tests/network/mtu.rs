//! Packets too long for their way, and how both ends come to shorter ones.

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Arms, Bed, Server, Steelyard, client::Session, datagrams, layout};

use super::{bed_of, every_mode};

/// Every link carries 1500 bytes, and an encapsulation needs some of them.
#[test]
fn a_client_learns_what_an_encapsulation_leaves() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward.encapsulates()) {
        for arms in [Arms::One, Arms::Two] {
            let (bed, config) = bed_of(mode.layout(arms))?;
            let _steelyard = Steelyard::running(&bed, &config)?;
            let place = || format!("{} {arms:?}", mode.name);
            ensure!(datagrams::path_mtu(&bed.client, bed.service())? == layout::MTU as u32);
            let mut session = Session::open(&bed.client, bed.service()).with_context(place)?;
            session.upload(TRANSFER).with_context(place)?;
            session.download(TRANSFER).with_context(place)?;
            let learnt = datagrams::path_mtu(&bed.client, bed.service())?;
            ensure!(learnt as usize == bed.layout.packet_max(), "{}: {learnt}", place());
        }
    }
    Ok(())
}

/// A link between the servers and the client carries less: who tells the servers finds their balancer first,
/// since their packets come from the VIP.
#[test]
fn a_server_learns_of_a_narrow_way_to_the_client() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward.keeps_vip()) {
        let (bed, config) = bed_of(mode.layout(Arms::Two))?;
        let router = &bed.router.as_ref().context("a router")?.namespace;
        router.ip(&format!("link set eth0 mtu {NARROW}\n"))?;
        let via = bed.balancer.address(mode.family);
        router.ip(&format!("route add {} via {via}\n", bed.vip()))?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mut session = Session::open(&bed.client, bed.service()).with_context(|| mode.name)?;
        session.download(TRANSFER).with_context(|| mode.name)?;
        let server = named(&bed, &session.server)?;
        let learnt = datagrams::path_mtu(&server.host, bed.client_port(9))?;
        ensure!(learnt == NARROW, "{}: {learnt}", mode.name);
    }
    Ok(())
}

#[test]
fn a_clamp_shows_in_the_syn() -> Result<()> {
    for mode in every_mode() {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        config.services[0].mss = Some(CLAMP);
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mss = Session::open(&bed.client, bed.service()).with_context(|| mode.name)?.mss()?;
        ensure!(mss == CLAMP, "{}: {mss}", mode.name);
        // What is small enough already stays.
        let via = bed.balancer.address(mode.family);
        bed.client.namespace.ip(&format!("route replace {} via {via} advmss 1000\n", bed.vip()))?;
        let mut session = Session::open(&bed.client, bed.service()).with_context(|| mode.name)?;
        let mss = session.mss()?;
        ensure!(mss == 1_000, "{}: {mss}", mode.name);
        session.upload(TRANSFER).with_context(|| mode.name)?;
    }
    Ok(())
}

#[test]
fn without_a_clamp_the_syn_is_the_clients() -> Result<()> {
    for mode in every_mode() {
        let (bed, config) = bed_of(mode.layout(Arms::One))?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mss = Session::open(&bed.client, bed.service()).with_context(|| mode.name)?.mss()?;
        let whole = layout::MTU - mode.family.header() - TCP_HEADER;
        ensure!(usize::from(mss) == whole, "{}: {mss}", mode.name);
    }
    Ok(())
}

fn named<'a>(bed: &'a Bed, name: &str) -> Result<&'a Server> {
    bed.servers.iter().find(|server| server.name == name).context("a server of the bed")
}

const TRANSFER: u64 = 10_000_000;
/// IPv6 allows no less than 1280.
const NARROW: u32 = 1_320;
const CLAMP: u16 = 1_300;
const TCP_HEADER: usize = 20;
