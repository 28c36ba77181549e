//! Checks through the data path: which they are, where they go, and what they come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    net::{Be16, Be128},
    slot::ServerId,
    through::{Target, mark},
};

use super::{ServerState, State, entries};
use crate::pure::config::{
    model::{
        Forward, Service,
        check::{Check, CheckKind, Through},
    },
    network::Family,
};

/// How a check reaches the service's address on its very server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steered {
    /// Of the probe's sockets.
    pub mark: u32,
    pub vip: SocketAddr,
    pub forward: Forward,
}

/// An address of this machine that packets may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddress {
    pub interface: u32,
    pub address: IpAddr,
}

/// What the programs that steer checks have to know, and where they have to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steering {
    pub targets: BTreeMap<ServerId, Target>,
    /// Those that checks leave through and answers come back through.
    pub interfaces: BTreeSet<u32>,
    /// Names of servers whose checks have no address to come from.
    pub sourceless: Vec<String>,
}

impl State {
    /// Whether any check goes through the data path.
    pub fn steers(&self) -> bool {
        self.config.services.iter().any(is_steered)
    }

    /// `local`: in the order of preference.
    pub fn steering(&self, local: &[LocalAddress]) -> Steering {
        let is_vip = |local: &LocalAddress| {
            let services = self.config.services.iter();
            services.flat_map(|service| &service.addresses).any(|network| network.contains(local.address))
        };
        let local: Vec<_> = local.iter().filter(|local| !is_vip(local)).copied().collect();
        let mut steering = Steering::default();
        for (&id, known) in &self.servers {
            let Some((service, steered)) = self.steered(id, known) else { continue };
            let Some(port) = check_port(&service.check, known) else { continue };
            let hop = self.hop(known);
            if hop.resolved {
                steering.interfaces.insert(hop.interface);
            }
            let source = check_source(service, &steered, known, hop.interface, &local);
            if source.is_none() {
                steering.sourceless.push(self.name(id).to_string());
            }
            let target = Target {
                vip: Be128::from_ip(steered.vip.ip()),
                source: source.flatten().map_or(Be128::default(), Be128::from_ip),
                vip_port: Be16::new(steered.vip.port()),
                port: Be16::new(port),
                mode: entries::mode(steered.forward) as u32,
            };
            steering.targets.insert(id, target);
        }
        if !steering.targets.is_empty() {
            steering.interfaces.extend(&self.attached);
        }
        steering
    }

    pub(super) fn steered(&self, id: ServerId, known: &ServerState) -> Option<(&Service, Steered)> {
        let service = &self.config.services[known.index?];
        if !is_steered(service) {
            return None;
        }
        let port = check_port(&service.check, known)?;
        let vip = SocketAddr::new(vip(service, Family::of(known.address.ip()))?, port);
        Some((service, Steered { mark: mark(id), vip, forward: service.forward }))
    }
}

/// What packets for the VIP come from; the inner None: what the kernel chooses on the way to the server. None: they
/// are of another family, in which this machine has no address. `local`: without VIPs.
fn check_source(
    service: &Service,
    steered: &Steered,
    known: &ServerState,
    interface: u32,
    local: &[LocalAddress],
) -> Option<Option<IpAddr>> {
    let family = Family::of(steered.vip.ip());
    if family == Family::of(known.address.ip()) {
        return Some(None);
    }
    if let Some(source) = service.check.source.filter(|&source| Family::of(source) == family) {
        return Some(Some(source));
    }
    let fits = |local: &&LocalAddress| Family::of(local.address) == family;
    let near = local.iter().filter(fits).find(|local| local.interface == interface);
    near.or_else(|| local.iter().find(fits)).map(|local| Some(local.address))
}

/// What a probe's socket is bound to: a source of the family that it connects in.
pub(super) fn bound(check: &Arc<Check>, target: SocketAddr) -> Arc<Check> {
    match check.source {
        Some(source) if Family::of(source) != Family::of(target.ip()) => {
            Arc::new(Check { source: None, ..Check::clone(check) })
        }
        _ => Arc::clone(check),
    }
}

/// A server that is gone may have had no port of its own.
pub(super) fn check_port(check: &Check, known: &ServerState) -> Option<u16> {
    check.port.or(Some(known.address.port()).filter(|&port| port != 0))
}

fn is_steered(service: &Service) -> bool {
    let check = &service.check;
    let has_ports = check.kind.is_stream() || matches!(check.kind, CheckKind::Udp(_) | CheckKind::Dns(_));
    check.through == Through::Datapath && has_ports && service.forward.keeps_port()
}

/// The first of the server's own family, else the first that it may serve.
fn vip(service: &Service, family: Family) -> Option<IpAddr> {
    let mut addresses = service.addresses.iter();
    let own = addresses.clone().find(|network| network.family() == family);
    let any = || addresses.next().filter(|_| !service.forward.keeps_family());
    own.or_else(any).map(|network| network.address())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::{
        config,
        hop::{NextHop, Reach, Tags},
        plan::Tables,
        state::{Event, tests::start},
    };

    const SERVERS: [&str; 2] = ["10.0.0.1", "fd00::1"];

    fn state(forward: &str, addresses: &str, check: &str) -> State {
        let list = SERVERS.map(|address| format!("{{ name = \"{address}\", address = \"{address}\" }}"));
        let text = format!(
            "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"x\"\n[[service]]\nname = \"web\"\n\
             address = [{addresses}]\nport = 80\nforward = \"{forward}\"\nserver = [{}]\n\
             check = {{ type = \"tcp\", through = \"datapath\"{check} }}\n",
            list.join(", ")
        );
        let config = config::parse("test.toml", &text).expect("a valid configuration").config;
        let mut state = start(config, Tables::default());
        for (interface, server) in (2..).zip(SERVERS) {
            let address: IpAddr = server.parse().expect("an address");
            let hop = NextHop {
                interface,
                interface_mac: [2; 6],
                source: address,
                via: address,
                neighbour: Some([4; 6]),
                mtu: 1_500,
                tags: Tags::NONE,
            };
            state.handle(Event::Reached { address, reach: Reach::Hop(hop) });
        }
        state
    }

    fn vips(state: &State) -> Vec<String> {
        let vip = |task: crate::pure::state::CheckTask| task.through.map(|through| through.vip.to_string());
        state.checks().into_iter().filter_map(vip).collect()
    }

    fn sources(state: &State, local: &[LocalAddress]) -> Vec<String> {
        let targets = state.steering(local).targets;
        targets.values().map(|target| target.source.to_ip().to_string()).collect()
    }

    fn local(interface: u32, address: &str) -> LocalAddress {
        LocalAddress { interface, address: address.parse().expect("an address") }
    }

    #[test]
    fn a_check_goes_to_the_address_of_the_servers_own_family() {
        let both = state("ipip", "\"2001:db8::9\", \"192.0.2.9\", \"192.0.2.10\"", "");
        assert_eq!(vips(&both), ["192.0.2.9:80", "[2001:db8::9]:80"]);
        assert_eq!(sources(&both, &[]), ["::", "::"], "the kernel chooses");
        assert_eq!(both.steering(&[]).sourceless, Vec::<String>::new());
        let other_port = state("gue", "\"192.0.2.9\"", ", port = 8080");
        assert_eq!(vips(&other_port), ["192.0.2.9:8080", "192.0.2.9:8080"]);
    }

    #[test]
    fn the_socket_connects_to_the_server_itself() {
        let state = state("ipip", "\"192.0.2.9\"", ", port = 8080");
        let targets: Vec<_> = state.checks().iter().map(|task| task.target.to_string()).collect();
        assert_eq!(targets, ["10.0.0.1:8080", "[fd00::1]:8080"]);
        let ports: Vec<_> = state.steering(&[]).targets.values().map(|target| target.port.get()).collect();
        assert_eq!(ports, [8_080, 8_080]);
    }

    #[test]
    fn another_family_needs_an_address_that_is_no_vip() {
        let state = state("gue", "\"192.0.2.9\"", "");
        let vip = local(3, "192.0.2.9");
        assert_eq!(sources(&state, &[vip]), ["::", "::"]);
        assert_eq!(state.steering(&[vip]).sourceless, ["web/fd00::1"]);
        let far = local(7, "198.51.100.1");
        assert_eq!(sources(&state, &[vip, far]), ["::", "198.51.100.1"]);
        let near = local(3, "198.51.100.2");
        assert_eq!(sources(&state, &[vip, far, near, local(3, "fd00::9")]), ["::", "198.51.100.2"]);
    }

    #[test]
    fn programs_stand_where_packets_leave_and_arrive() {
        let mut state = state("ipip", "\"192.0.2.9\"", "");
        state.attach(9);
        assert_eq!(state.steering(&[]).interfaces, [2, 3, 9].into());
    }
}
