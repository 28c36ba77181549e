//! What explain says is where the next connection goes, and saying it changes nothing.

use std::{fmt::Debug, path::Path};

use anyhow::{Context, Result, ensure};
use aya::{
    Pod,
    maps::{Array, Map, MapData, PerCpuArray},
};
use lb_common::counter::TrafficCounts;
use lb_tests::bed::{
    Arms, Bed, Check, Forward, Ports, Steelyard,
    client::{Session, tcp_from, udp_from},
};
use lb_user::pure::status::{Decision, Explanation};

use super::{Mode, bed_of, each_forward, every_mode};

#[test]
fn the_next_connection_goes_where_explain_says() -> Result<()> {
    for (mode, balance) in every_mode().zip(BALANCES.into_iter().cycle()) {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        config.services[0].balance = Some(balance);
        let steelyard = Steelyard::running(&bed, &config)?;
        agree(&bed, &steelyard, mode).with_context(|| format!("{} {balance}", mode.name))?;
    }
    Ok(())
}

fn agree(bed: &Bed, steelyard: &Steelyard<'_>, mode: Mode) -> Result<()> {
    for port in 20_000..20_012 {
        let client = bed.client_port(port);
        let explained = steelyard.explain(client, bed.service(), "tcp")?;
        let answered = tcp_from(&bed.client, client, bed.service())?;
        ensure!(explained.new.server.as_deref() == Some(&answered), "{answered} answered: {explained:#?}");
        fits(mode, bed, &explained.new).with_context(|| format!("{explained:#?}"))?;
        let datagram = steelyard.explain(client, bed.service(), "udp")?;
        let answered = udp_from(&bed.client, client, bed.service())?;
        ensure!(datagram.new.server.as_deref() == Some(&answered), "{answered} answered: {datagram:#?}");
    }
    let mut session = Session::open(&bed.client, bed.service())?;
    session.who()?;
    let explained = steelyard.explain(session.client()?, bed.service(), "tcp")?;
    ensure!(explained.established.server.as_ref() == Some(&session.server), "{explained:#?}");
    fits(mode, bed, &explained.established).with_context(|| format!("{explained:#?}"))?;
    session.who()?;
    Ok(())
}

/// Whether a header is one of the mode.
fn fits(mode: Mode, bed: &Bed, decision: &Decision) -> Result<()> {
    let header = decision.header.as_ref().context("no header")?;
    let server = decision.server.as_deref().context("no server")?;
    let member = bed.servers.iter().find(|member| member.name == server).context("an unknown server")?;
    let forward = mode.forward;
    ensure!(decision.verdict.starts_with(&format!("forward_{}", forward.name())), "{decision:?}");
    ensure!(header.interface == "eth1" && decision.action == "redirect", "{header:?}");
    ensure!(header.outer.is_some() == forward.encapsulates(), "{header:?}");
    if let Some(outer) = &header.outer {
        let address = member.at(mode.server_family).ip().to_string();
        let gue = forward == Forward::Gue;
        ensure!(
            outer.destination.contains(&address) && outer.destination.ends_with(":6080") == gue,
            "{outer:?}"
        );
        ensure!(outer.ttl == 64, "{outer:?}");
    }
    let destination = if forward.keeps_vip() { bed.service() } else { member.own() };
    ensure!(header.destination == destination.to_string() && header.ttl == 63, "{header:?}");
    let packet_max = bed.layout.packet_max() as u32;
    ensure!(decision.packet_max == Some(packet_max), "{packet_max}: {decision:?}");
    Ok(())
}

#[test]
fn explain_leaves_no_trace() -> Result<()> {
    for (mode, balance) in each_forward().zip(BALANCES.into_iter().cycle()) {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        // Nobody else may send anything.
        config.services[0].check = Check::None;
        config.services[0].balance = Some(balance);
        let steelyard = Steelyard::running(&bed, &config)?;
        let mut sessions: Vec<_> =
            (0..4).map(|_| Session::open(&bed.client, bed.service())).collect::<Result<_>>()?;
        let before = Traces::read(&steelyard)?;
        for session in &sessions {
            steelyard.explain(session.client()?, bed.service(), "tcp")?;
        }
        for port in 20_000..20_010 {
            for protocol in ["tcp", "udp"] {
                let explained = steelyard.explain(bed.client_port(port), bed.service(), protocol)?;
                ensure!(explained.new.server.is_some(), "{explained:#?}");
            }
        }
        let after = Traces::read(&steelyard)?;
        before.same(&after).with_context(|| format!("{} {balance}", mode.name))?;
        sessions.iter_mut().try_for_each(|session| session.who().map(drop))?;
    }
    Ok(())
}

/// What the program writes.
struct Traces {
    v4: FlowMaps<32>,
    v6: FlowMaps<64>,
    turns: Vec<u64>,
    load: Vec<u64>,
    traffic: Vec<TrafficCounts>,
    counters: Vec<(String, u64)>,
}

impl Traces {
    fn read(steelyard: &Steelyard<'_>) -> Result<Traces> {
        let maps = &steelyard.pin().join(lb_common::LAYOUT).join("maps");
        // The machine's own neighbour discovery passes all the time.
        let counters = steelyard.counters()?.into_iter().filter(|(name, _)| !name.starts_with("pass_"));
        Ok(Traces {
            v4: FlowMaps::read(maps, '4')?,
            v6: FlowMaps::read(maps, '6')?,
            turns: array(maps, "turns")?,
            load: array(maps, "load")?,
            traffic: traffic(maps)?,
            counters: counters.collect(),
        })
    }

    fn same(&self, after: &Traces) -> Result<()> {
        self.v4.same(&after.v4).context("IPv4")?;
        self.v6.same(&after.v6).context("IPv6")?;
        same("turns", &self.turns, &after.turns)?;
        same("load", &self.load, &after.load)?;
        same("traffic", &self.traffic, &after.traffic)?;
        same("counters", &self.counters, &after.counters)
    }
}

/// Of a family whose records have `N` bytes, and so have their halves.
struct FlowMaps<const N: usize> {
    tags: Vec<[u8; 16]>,
    records: Vec<[u8; N]>,
    halves: Vec<[u8; N]>,
}

impl<const N: usize> FlowMaps<N> {
    fn read(maps: &Path, family: char) -> Result<Self> {
        Ok(FlowMaps {
            tags: array(maps, &format!("flow_tags{family}"))?,
            records: array(maps, &format!("flows{family}"))?,
            halves: array(maps, &format!("halves{family}"))?,
        })
    }

    fn same(&self, after: &Self) -> Result<()> {
        same("tags", &self.tags, &after.tags)?;
        same("records", &self.records, &after.records)?;
        same("halves", &self.halves, &after.halves)
    }
}

fn same<T: PartialEq + Debug>(name: &str, before: &[T], after: &[T]) -> Result<()> {
    let moved = before.iter().zip(after).find(|(before, after)| before != after);
    ensure!(moved.is_none() && before.len() == after.len(), "{name}: {moved:?}");
    Ok(())
}

fn array<T: Pod>(maps: &Path, name: &str) -> Result<Vec<T>> {
    let array = Array::<_, T>::try_from(Map::Array(MapData::from_pin(maps.join(name))?))?;
    array.iter().map(|value| Ok(value?)).collect()
}

fn traffic(maps: &Path) -> Result<Vec<TrafficCounts>> {
    let map = Map::PerCpuArray(MapData::from_pin(maps.join("traffic"))?);
    let array = PerCpuArray::<_, TrafficCounts>::try_from(map)?;
    let sum = |id: u32| {
        let counts = array.get(&id, 0)?;
        Ok(counts.iter().fold(TrafficCounts::default(), |sum, more| TrafficCounts {
            packets: sum.packets + more.packets,
            bytes: sum.bytes + more.bytes,
            connections: sum.connections + more.connections,
        }))
    };
    (0..SERVERS).map(sum).collect()
}

#[test]
fn explain_tells_who_may_connect_and_how_the_service_was_found() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let denied = bed.client_port(20_000);
        let web = &mut config.services[0];
        web.deny = vec![denied.ip().to_string()];
        let check_port = bed.layout.server_port();
        let wide = config.add("wide", 81);
        wide.deny = Vec::new();
        wide.set_ports(Ports::Range(8_100, 8_109), check_port);
        let steelyard = Steelyard::running(&bed, &config)?;
        let explained = steelyard.explain(denied, bed.service(), "tcp")?;
        expect(&explained, "address and port", "denied: in ", "drop_access").with_context(|| mode.name)?;
        ensure!(explained.new.server.is_none() && explained.new.action == "drop", "{explained:#?}");
        let counter = if mode.forward.keeps_vip() {
            format!("forward_{}", mode.forward.name())
        } else {
            format!("forward_{}_request", mode.forward.name())
        };
        let explained = steelyard.explain(denied, bed.vip_port(8_105), "tcp")?;
        expect(&explained, "ports 8100-8109", "everybody", &counter).with_context(|| mode.name)?;
        let explained = steelyard.explain(denied, bed.vip_port(8_110), "tcp")?;
        ensure!(explained.service.is_none() && explained.new.action == "pass", "{explained:#?}");
    }
    Ok(())
}

fn expect(explained: &Explanation, found: &str, access: &str, verdict: &str) -> Result<()> {
    let contains = |text: &Option<String>, part: &str| text.as_ref().is_some_and(|text| text.contains(part));
    ensure!(contains(&explained.found, found) && contains(&explained.access, access), "{explained:#?}");
    ensure!(explained.new.verdict == verdict, "{explained:#?}");
    Ok(())
}

/// Sessions are listed until they end, and by service.
#[test]
fn flows_are_listed() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        config.services[0].balance = Some("roundrobin");
        config.add("other", 81).check = Check::None;
        let steelyard = Steelyard::running(&bed, &config)?;
        let mut sessions: Vec<_> =
            (0..6).map(|_| Session::open(&bed.client, bed.service())).collect::<Result<_>>()?;
        sessions.iter_mut().try_for_each(|session| session.who().map(drop))?;
        let listed = steelyard.flows(&["--service", "web"])?;
        ensure!(listed.total == 6 && listed.flows.len() == 6, "{}: {listed:#?}", mode.name);
        ensure!(listed.flows.is_sorted_by_key(|flow| flow.client.clone()), "{listed:#?}");
        for session in &sessions {
            let client = session.client()?.to_string();
            let flow = listed.flows.iter().find(|flow| flow.client == client).context("not listed")?;
            ensure!(flow.server == session.server && flow.vip == bed.service().to_string(), "{flow:?}");
            ensure!(flow.service.as_deref() == Some("web") && flow.protocol == "tcp", "{flow:?}");
            ensure!(flow.state == "established" && flow.idle_s < 10 && !flow.all_ports, "{flow:?}");
            ensure!(flow.rewritten.is_some() != mode.forward.keeps_vip(), "{}: {flow:?}", mode.name);
        }
        ensure!(steelyard.flows(&["--service", "other"])?.total == 0, "{}", mode.name);
        let done = steelyard.cli(&["flows"])?;
        ensure!(done.code == Some(0) && done.stdout.ends_with("6 flows\n"), "{done:?}");
        let unknown = steelyard.cli(&["flows", "--service", "nobody"])?;
        ensure!(unknown.code == Some(1) && unknown.stderr.contains("web"), "{unknown:?}");
    }
    Ok(())
}

/// One client, one record.
#[test]
fn a_client_is_listed_without_ports() -> Result<()> {
    for mode in each_forward().filter(|mode| mode.forward.keeps_vip()) {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        config.services[0].balance = Some("roundrobin");
        config.services[0].persistence = Some("30s");
        let steelyard = Steelyard::running(&bed, &config)?;
        let first = tcp_from(&bed.client, bed.client_port(20_000), bed.service())?;
        let explained = steelyard.explain(bed.client_port(20_001), bed.service(), "tcp")?;
        ensure!(explained.recorded.as_ref().is_some_and(|record| record.of_client), "{explained:#?}");
        ensure!(explained.new.server.as_ref() == Some(&first), "{explained:#?}");
        let listed = steelyard.flows(&[])?;
        let flow = listed.flows.first().context("no record")?;
        ensure!(listed.total == 1 && flow.all_ports, "{}: {listed:#?}", mode.name);
        ensure!(flow.vip == bed.vip().to_string() && flow.server == first, "{flow:?}");
    }
    Ok(())
}

/// One for each mode in turn.
const BALANCES: [&str; 3] = ["maglev", "roundrobin", "leastconn"];
/// Ids that the bed's servers may have.
const SERVERS: u32 = 64;
