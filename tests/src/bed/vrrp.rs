//! Virtual routers as values a scenario can change, written for each product that shares one.

use std::{fmt::Write, net::IpAddr};

use super::{Family, Pair, Steelyard, pair::INTERFACE};

/// One virtual router with one address, the same on all nodes but for what says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtual {
    /// Below 100: the address follows it.
    pub vrid: u8,
    pub family: Family,
    pub version: u8,
    /// By node.
    pub priorities: Vec<u8>,
    pub interval_ms: u32,
    /// The node that does not take the address from a lower one.
    pub no_preempt: Option<usize>,
    /// Version 2 only.
    pub pass: Option<&'static str>,
    pub unicast: bool,
    /// The node that tracks the script `flag`, and its weight.
    pub track: Option<(usize, i16)>,
}

impl Virtual {
    /// Version 3 over multicast, an advert every 100 ms.
    pub fn new(vrid: u8, family: Family, priorities: &[u8]) -> Virtual {
        Virtual {
            vrid,
            family,
            version: 3,
            priorities: priorities.to_vec(),
            interval_ms: 100,
            no_preempt: None,
            pass: None,
            unicast: false,
            track: None,
        }
    }

    /// Version 2 over IPv4, an advert a second.
    pub fn old(vrid: u8, priorities: &[u8]) -> Virtual {
        Virtual { version: 2, interval_ms: 1_000, ..Virtual::new(vrid, Family::V4, priorities) }
    }

    pub fn address(&self) -> IpAddr {
        Pair::vip(self.family, self.vrid)
    }

    pub fn name(&self) -> String {
        match self.family {
            Family::V4 => format!("vr{}", self.vrid),
            Family::V6 => format!("vr{}-v6", self.vrid),
        }
    }

    /// The node that has it while all are well.
    pub fn favourite(&self) -> usize {
        let best = self.priorities.iter().enumerate().max_by_key(|(_, priority)| **priority);
        best.map_or(0, |(node, _)| node)
    }

    fn others(&self, pair: &Pair, node: usize) -> Vec<IpAddr> {
        let nodes = 0..self.priorities.len();
        nodes.filter(|other| *other != node).map(|other| pair.nodes[other].address(self.family)).collect()
    }

    /// A `[[vrrp]]`.
    pub fn to_toml(&self, pair: &Pair, node: usize) -> String {
        let Virtual { vrid, version, interval_ms, .. } = self;
        let mut text = format!(
            "\n[[vrrp]]\nname = {:?}\ninterface = {INTERFACE:?}\nvrid = {vrid}\nversion = {version}\n\
             priority = {}\nadvert_interval = \"{interval_ms}ms\"\naddresses = [\"{}/{}\"]\n",
            self.name(),
            self.priorities[node],
            self.address(),
            Pair::prefix(self.family),
        );
        if self.no_preempt == Some(node) {
            text += "preempt = false\n";
        }
        if let Some(pass) = self.pass {
            text += &format!("auth_pass = {pass:?}\n");
        }
        if self.unicast {
            let peers: Vec<_> = self.others(pair, node).iter().map(|peer| format!("\"{peer}\"")).collect();
            let source = pair.nodes[node].address(self.family);
            text += &format!("unicast_peers = [{}]\nsource = \"{source}\"\n", peers.join(", "));
        }
        if let Some((tracking, weight)) = self.track
            && tracking == node
        {
            text += &format!("track = [{{ script = \"flag\", weight = {weight} }}]\n");
        }
        text
    }

    /// A `vrrp_instance`.
    pub fn to_keepalived(&self, pair: &Pair, node: usize) -> String {
        let Virtual { vrid, version, interval_ms, .. } = self;
        let mut text = format!(
            "vrrp_instance {} {{\n  state BACKUP\n  interface {INTERFACE}\n  virtual_router_id {vrid}\n\
             \x20 version {version}\n  priority {}\n  advert_int {}\n\
             \x20 virtual_ipaddress {{\n    {}/{}\n  }}\n",
            self.name(),
            self.priorities[node],
            f64::from(*interval_ms) / 1e3,
            self.address(),
            Pair::prefix(self.family),
        );
        if self.no_preempt == Some(node) {
            text += "  nopreempt\n";
        }
        if let Some(pass) = self.pass {
            text += &format!("  authentication {{\n    auth_type PASS\n    auth_pass {pass}\n  }}\n");
        }
        if self.unicast {
            text +=
                &format!("  unicast_src_ip {}\n  unicast_peer {{\n", pair.nodes[node].address(self.family));
            for peer in self.others(pair, node) {
                // Writing to a String does not fail.
                let _ = writeln!(text, "    {peer}");
            }
            text += "  }\n";
        }
        if let Some((tracking, weight)) = self.track
            && tracking == node
        {
            text += &format!("  track_script {{\n    flag weight {weight}\n  }}\n");
        }
        text + "}\n"
    }
}

/// The whole file of a node that balances nothing. `peers`: the other nodes of its cluster.
pub fn steelyard_config(
    pair: &Pair,
    steelyard: &Steelyard,
    node: usize,
    peers: &[usize],
    routers: &[Virtual],
) -> String {
    let peers: Vec<_> =
        peers.iter().map(|peer| format!("\"{}\"", pair.nodes[*peer].address(Family::V4))).collect();
    let mut text = format!(
        "[global]\nnode = {:?}\nadmin_socket = {:?}\nstate = {:?}\n\n\
         [cluster]\nsecret = \"of the bed\"\npeers = [{}]\n\n\
         [datapath]\ninterfaces = [{INTERFACE:?}]\nmode = \"native\"\npin = {:?}\n",
        Pair::name(node),
        steelyard.socket(),
        steelyard.state(),
        peers.join(", "),
        steelyard.pin(),
    );
    if routers.iter().any(|router| router.track.is_some_and(|(tracking, _)| tracking == node)) {
        text += &format!(
            "\n[[track_script]]\nname = \"flag\"\ncommand = [\"/usr/bin/test\", \"!\", \"-e\", \"{}\"]\n\
             interval = \"100ms\"\nfall = 1\nrise = 1\n",
            pair.folder(node).join(FLAG).display(),
        );
    }
    routers.iter().for_each(|router| text += &router.to_toml(pair, node));
    text
}

pub fn keepalived_config(pair: &Pair, node: usize, routers: &[Virtual]) -> String {
    let mut text = format!(
        "global_defs {{\n  router_id {}\n  script_user root\n}}\n\
         vrrp_script flag {{\n  script \"/usr/bin/test ! -e {}\"\n  interval 1\n  fall 1\n  rise 1\n}}\n",
        Pair::name(node),
        pair.folder(node).join(FLAG).display(),
    );
    routers.iter().for_each(|router| text += &router.to_keepalived(pair, node));
    text
}

/// While this file is in the folder of a node, its script `flag` fails.
pub const FLAG: &str = "flag";
