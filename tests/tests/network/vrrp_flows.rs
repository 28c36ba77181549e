//! Connections through nodes that share an address go on when it moves: what one node has recorded, the other knows.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Family::V4, Pair, Steelyard, client::Session, pair::INTERFACE, poll};

/// `dsr`, whose slots do not settle while the test runs; `nat`, whose flows are all recorded; both with an address
/// that moves, and so does the source of `nat`.
fn config(pair: &Pair, node: usize, steelyard: &Steelyard, servers: usize) -> String {
    let peer = pair.nodes[1 - node].address(V4);
    let [dsr, nat, source] = [0, 1, 2].map(|number| Pair::vip(V4, number));
    let bits = Pair::prefix(V4);
    let mut text = format!(
        "[global]\nnode = \"{}\"\nadmin_socket = {:?}\nstate = {:?}\n\n\
         [cluster]\nsecret = \"of the bed\"\npeers = [\"{peer}\"]\n\n\
         [datapath]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\npin = {:?}\nnat_source = [\"{source}\"]\n\n\
         [[vrrp]]\nname = \"shared\"\ninterface = \"{INTERFACE}\"\nvrid = 7\npriority = {}\n\
         advert_interval = \"100ms\"\naddresses = [\"{dsr}/{bits}\", \"{nat}/{bits}\", \"{source}/{bits}\"]\n",
        Pair::name(node),
        steelyard.socket(),
        steelyard.state(),
        steelyard.pin(),
        200 - node * 100,
    );
    for (name, address, forward) in [("dsr", dsr, "dsr"), ("nat", nat, "nat")] {
        let members: Vec<_> = pair.servers[..servers]
            .iter()
            .map(|server| format!("{{ name = {:?}, address = \"{}\" }}", server.name, server.at(V4)))
            .collect();
        text += &format!(
            "\n[[service]]\nname = \"{name}\"\naddress = [\"{address}\"]\nport = 80\nprotocol = \"tcp\"\n\
             forward = \"{forward}\"\ncheck = {{ type = \"tcp\", interval = \"200ms\" }}\nserver = [{}]\n",
            members.join(", ")
        );
    }
    text
}

fn targets() -> [SocketAddr; 2] {
    [0, 1].map(|number| SocketAddr::new(Pair::vip(V4, number), 80))
}

/// Both run, the first has the addresses, and each knows that the other one's servers are up.
fn running(pair: &Pair, servers: usize) -> Result<[Steelyard<'_>; 2]> {
    let mut nodes = [pair.steelyard(0)?, pair.steelyard(1)?];
    for (number, node) in nodes.iter_mut().enumerate() {
        node.write_config(&config(pair, number, node, servers))?;
        node.start()?;
    }
    for address in targets() {
        pair.wait_for_holders(address.ip(), &[0], LIMIT)?;
    }
    for node in &nodes {
        node.wait("every server to be up", lb_tests::bed::steelyard::all_up)?;
    }
    Ok(nodes)
}

fn open(pair: &Pair, sessions: &mut Vec<Session>) -> Result<()> {
    for target in targets() {
        for _ in 0..EACH {
            sessions.push(Session::open(&pair.client, target).with_context(|| format!("to {target}"))?);
        }
    }
    Ok(())
}

fn all_answer(sessions: &mut [Session], when: &str) -> Result<()> {
    let mut lost = Vec::new();
    for (at, session) in sessions.iter_mut().enumerate() {
        match session.who() {
            Ok(server) if server == session.server => {}
            Ok(server) => lost.push(format!("{at}: {} became {server}", session.server)),
            Err(error) => lost.push(format!("{at}: {}: {error:#}", session.server)),
        }
    }
    ensure!(lost.is_empty(), "{} of {} ended {when}: {lost:?}", lost.len(), sessions.len());
    Ok(())
}

/// Whether the node has as many records as the one that has the connections.
fn same_flows(nodes: &[Steelyard<'_>; 2]) -> Option<()> {
    let [first, second] = nodes.each_ref().map(|node| node.flows(&[]).ok().map(|flows| flows.total));
    (first? >= EACH as u64 && first == second).then_some(())
}

/// With and without warning, there and back, while a service has more servers than when its connections began.
#[test]
fn connections_follow_their_address_from_node_to_node() -> Result<()> {
    let pair = Pair::new(2, 3)?;
    let mut nodes = running(&pair, 2)?;
    let mut sessions = Vec::new();
    open(&pair, &mut sessions)?;
    for (number, node) in nodes.iter().enumerate() {
        node.write_config(&config(&pair, number, node, 3))?;
        node.done(&["reload"])?;
        node.wait("the third server to be up", lb_tests::bed::steelyard::all_up)?;
    }
    open(&pair, &mut sessions)?;
    all_answer(&mut sessions, "when a server came")?;
    poll("the other node to know every flow", LIMIT, || same_flows(&nodes))?;

    pair.cut(0)?;
    holders(&pair, 1)?;
    all_answer(&mut sessions, "when a node vanished")?;
    pair.mend(0)?;
    holders_alone(&pair, &[0])?;
    all_answer(&mut sessions, "when it came back")?;

    nodes[0].terminate()?;
    holders_alone(&pair, &[1])?;
    all_answer(&mut sessions, "when a node stopped")?;
    nodes[0].start()?;
    holders_alone(&pair, &[0])?;
    all_answer(&mut sessions, "when it started")
}

/// A node that has forgotten everything learns it before it may win.
#[test]
fn a_node_that_starts_afresh_knows_the_others_connections() -> Result<()> {
    let pair = Pair::new(2, 3)?;
    let mut nodes = running(&pair, 2)?;
    let mut sessions = Vec::new();
    open(&pair, &mut sessions)?;
    for (number, node) in nodes.iter().enumerate() {
        node.write_config(&config(&pair, number, node, 3))?;
        node.done(&["reload"])?;
        node.wait("the third server to be up", lb_tests::bed::steelyard::all_up)?;
    }
    open(&pair, &mut sessions)?;
    for node in [1, 0] {
        nodes[node].terminate()?;
        nodes[node].done(&["detach"])?;
        holders_alone(&pair, &[1 - node])?;
        all_answer(&mut sessions, "when a node was gone")?;
        nodes[node].start()?;
        nodes[node].wait("every server to be up", lb_tests::bed::steelyard::all_up)?;
        poll("the other node to know every flow", LIMIT, || same_flows(&nodes))?;
        holders_alone(&pair, &[0])?;
        all_answer(&mut sessions, "when it was back")?;
    }
    Ok(())
}

/// The node has them, whoever else does.
fn holders(pair: &Pair, node: usize) -> Result<()> {
    for address in targets().map(|target| target.ip()) {
        poll("the other node to take over", LIMIT, || pair.holds(node, address).ok()?.then_some(()))?;
    }
    Ok(())
}

fn holders_alone(pair: &Pair, nodes: &[usize]) -> Result<()> {
    targets().into_iter().try_for_each(|target| pair.wait_for_holders(target.ip(), nodes, LIMIT))
}

const EACH: usize = 16;
const LIMIT: Duration = Duration::from_secs(15);
