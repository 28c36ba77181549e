//! Two nodes of ours share addresses: elections, and what becomes of the addresses when something fails.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Family::{self, V4, V6},
    Pair, Steelyard,
    client::ping,
    pair::INTERFACE,
    poll,
};

/// A router in each family on `eth0`, an advert every 100 ms. There is no data path: a node may do VRRP alone.
fn config(steelyard: &Steelyard, priority: u8, interface: &str) -> String {
    config_with(steelyard, priority, interface, "")
}

fn config_with(steelyard: &Steelyard, priority: u8, interface: &str, more: &str) -> String {
    let mut text = format!(
        "[global]\nadmin_socket = {:?}\nstate = {:?}\n\n[datapath]\npin = {:?}\n",
        steelyard.socket(),
        steelyard.state(),
        steelyard.pin()
    );
    for family in Family::BOTH {
        let bits = Pair::prefix(family);
        text += &format!(
            "\n[[vrrp]]\nname = \"{family:?}\"\ninterface = {interface:?}\nvrid = 51\nversion = 3\n\
             priority = {priority}\nadvert_interval = \"100ms\"\naddresses = [\"{}/{bits}\"]\n{more}",
            vip(family)
        );
    }
    text
}

fn vip(family: Family) -> std::net::IpAddr {
    Pair::vip(family, 7)
}

fn holders(pair: &Pair, nodes: &[usize]) -> Result<()> {
    Family::BOTH.into_iter().try_for_each(|family| pair.wait_for_holders(vip(family), nodes, LIMIT))
}

/// Whoever holds the addresses answers for them.
fn answered(pair: &Pair) -> Result<()> {
    for family in Family::BOTH {
        poll("an echo from the shared address", LIMIT, || {
            ping(&pair.client, vip(family), Duration::from_millis(100)).ok()
        })?;
    }
    Ok(())
}

/// Both run; the first has the addresses.
fn running(pair: &Pair) -> Result<[Steelyard<'_>; 2]> {
    let mut nodes = [pair.steelyard(0)?, pair.steelyard(1)?];
    for (node, priority) in nodes.iter_mut().zip([200, 100]) {
        node.write_config(&config(node, priority, INTERFACE))?;
        node.start()?;
    }
    holders(pair, &[0])?;
    Ok(nodes)
}

#[test]
fn the_end_of_a_node_moves_its_addresses_and_its_return_brings_them_back() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [mut first, _second] = running(&pair)?;
    answered(&pair)?;
    let ended = first.terminate()?;
    ensure!(ended.success(), "it ended with {ended}");
    holders(&pair, &[1])?;
    answered(&pair)?;
    first.start()?;
    holders(&pair, &[0])?;
    answered(&pair)
}

#[test]
fn what_a_killed_daemon_has_left_is_removed_by_the_next() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [mut first, _second] = running(&pair)?;
    first.kill9()?;
    holders(&pair, &[0, 1])?;
    // It would be backup: nothing but its start removes them.
    first.write_config(&config(&first, 50, INTERFACE))?;
    first.start()?;
    holders(&pair, &[1])?;
    ensure!(first.log().contains("removed what a daemon that was killed had left"), "it said nothing of it");
    Ok(())
}

#[test]
fn an_address_that_somebody_removed_returns_at_once() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [_first, second] = running(&pair)?;
    for family in [V4, V6] {
        let (address, bits) = (vip(family), Pair::prefix(family));
        pair.nodes[0].namespace.ip(&format!("addr del {address}/{bits} dev {INTERFACE}\n"))?;
        pair.wait_for_holders(address, &[0], LIMIT)?;
    }
    answered(&pair)?;
    ensure!(!second.log().contains("is active"), "the other node took over");
    Ok(())
}

#[test]
fn a_link_without_carrier_moves_the_addresses() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let _nodes = running(&pair)?;
    pair.unplug(0)?;
    holders(&pair, &[1])?;
    answered(&pair)?;
    pair.plug_in(0)?;
    holders(&pair, &[0])?;
    answered(&pair)
}

#[test]
fn a_reload_moves_nothing_that_stays() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [first, second] = running(&pair)?;
    let text = config(&first, 200, INTERFACE);
    let more =
        text.replacen("advert_interval", "excluded_addresses = [\"10.99.0.1/32\"]\nadvert_interval", 1);
    first.write_config(&more.replace("priority = 200", "priority = 190"))?;
    first.done(&["reload"])?;
    pair.wait_for_holders([10, 99, 0, 1].into(), &[0], LIMIT)?;
    // A file with a mistake changes nothing.
    first.write_config(&text.replace("vrid = 51", "vrid = 510"))?;
    let refused = first.cli(&["reload"])?;
    ensure!(refused.code == Some(1) || refused.code == Some(2), "{refused:?}");
    first.write_config(&text)?;
    first.done(&["reload"])?;
    pair.wait_for_holders([10, 99, 0, 1].into(), &[], LIMIT)?;
    holders(&pair, &[0])?;
    let active = [first, second].map(|node| node.log().matches("kind=\"vrrp-active\"").count());
    ensure!(active == [2, 0], "they became active {active:?} times, for two routers");
    Ok(())
}

#[test]
fn an_interface_that_is_missing_is_waited_for() -> Result<()> {
    let pair = Pair::new(1, 0)?;
    let mut node = pair.steelyard(0)?;
    node.write_config(&config(&node, 100, "late0"))?;
    node.start()?;
    poll("a word about the interface", LIMIT, || node.log().contains("late0").then_some(()))?;
    let late = |line: &str| pair.nodes[0].namespace.ip(&format!("{line}\n"));
    late("link add late0 type veth peer name late1")?;
    late("link set late1 up")?;
    late("link set late0 up")?;
    late("addr add 10.99.0.1/24 dev late0")?;
    holders(&pair, &[0])?;
    // Another one of the same name is no hindrance.
    late("link del late0")?;
    holders(&pair, &[])?;
    late("link add late0 type veth peer name late1")?;
    late("link set late1 up")?;
    late("link set late0 up")?;
    late("addr add 10.99.0.1/24 dev late0")?;
    holders(&pair, &[0])
}

/// The neighbours of the address notice nothing when it moves: its MAC moves along.
#[test]
fn a_virtual_mac_moves_with_the_address() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let mut nodes = [pair.steelyard(0)?, pair.steelyard(1)?];
    for (node, priority) in nodes.iter_mut().zip([200, 100]) {
        node.write_config(&config_with(node, priority, INTERFACE, "virtual_mac = true\n"))?;
        node.start()?;
    }
    holders(&pair, &[0])?;
    answered(&pair)?;
    all_at_virtual_macs(&pair)?;
    let devices = |node: usize| -> Result<String> {
        Ok(pair.nodes[node].namespace.ip_json(&["link", "show", "type", "macvlan"])?.to_string())
    };
    for device in ["vrrp.51", "vrrp6.51"] {
        ensure!(devices(0)?.contains(device), "there is no {device}: {}", devices(0)?);
    }
    nodes[0].kill9()?;
    // The switch learns the way from adverts.
    pair.cut(0)?;
    answered(&pair)?;
    all_at_virtual_macs(&pair)?;
    pair.mend(0)?;
    nodes[0].start()?;
    holders(&pair, &[0])?;
    answered(&pair)?;
    nodes[0].terminate()?;
    ensure!(!devices(0)?.contains("vrrp"), "a device is left: {}", devices(0)?);
    holders(&pair, &[1])
}

/// As the client has learned.
fn all_at_virtual_macs(pair: &Pair) -> Result<()> {
    for (family, mac) in [(V4, "00:00:5e:00:01:33"), (V6, "00:00:5e:00:02:33")] {
        let address = vip(family).to_string();
        let neighbours = pair.client.namespace.ip_json(&["neigh", "show", "to", &address])?;
        let known = neighbours.get(0).and_then(|known| known.get("lladdr"));
        ensure!(known.and_then(|known| known.as_str()) == Some(mac), "{address} is at {known:?}");
    }
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(10);
