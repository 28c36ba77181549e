//! What stands in the kernel's tables and should not: found part by part, and mended.
//!
//! The kernel changes nothing of what the daemon installs, slots included, so a difference is somebody else's doing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_common::net::{TCP, UDP};

use super::State;
use crate::pure::{
    config::network::shown,
    plan::{Key, Part, Step, Tables, diff},
};

impl State {
    /// What the tables hold once the last plan is carried out.
    pub fn installed(&self) -> &Tables {
        &self.installed
    }

    /// Every part there is.
    pub fn parts(&self) -> Vec<Part> {
        let rings = self.installed.rings.keys().map(|&base| Part::Ring(base));
        Part::WITHOUT_RINGS.into_iter().chain(rings).collect()
    }

    /// The steps that make one part what was installed. `found`: that part as it stands, whatever else it holds.
    pub fn mend(&self, part: Part, found: &Tables) -> Vec<Step> {
        diff(&found.only(part), &self.installed.only(part))
    }

    /// What a step of `mend` is about, for people.
    pub fn mended(&self, step: &Step) -> String {
        match step {
            Step::SetHashKey(_) => "the hash key".to_owned(),
            Step::SetNatSources(_) => "the nat sources".to_owned(),
            Step::AddGateway(address) | Step::RemoveGateway(address) => format!("the replies of {address}"),
            Step::AddDevice(index) | Step::RemoveDevice(index) => format!("device {index}"),
            Step::SetServer(id, _) | Step::RemoveServer(id) => format!("server {}", self.name(*id)),
            Step::SetSlots(base, slots) => match slots.len() {
                1 => format!("a slot of {}", self.ring_name(*base)),
                count => format!("{count} slots of {}", self.ring_name(*base)),
            },
            Step::RemoveRing(base) => self.ring_name(*base),
            Step::SetAccess(_, network, _) | Step::RemoveAccess(_, network) => {
                format!("the access of {network}")
            }
            Step::SetService(key, _) | Step::RemoveService(key) => format!("service {}", key_name(*key)),
            Step::SetWildcards(network, _) | Step::RemoveWildcards(network) => {
                format!("the services of {network}")
            }
        }
    }

    fn ring_name(&self, base: u32) -> String {
        let owner = self.services.iter().zip(&self.config.services);
        let owner = owner.filter(|(state, _)| state.place.rings.contains(&base)).map(|(_, service)| service);
        owner.map(|service| format!("service {}", service.name)).next().unwrap_or(format!("ring {base}"))
    }
}

fn key_name(key: Key) -> String {
    let (address, port, protocol) = match key {
        Key::V4(key) => (IpAddr::from(Ipv4Addr::from(key.address())), key.port(), key.protocol()),
        Key::V6(key) => (IpAddr::from(Ipv6Addr::from(key.address())), key.port(), key.protocol()),
    };
    match protocol {
        TCP => format!("{}/tcp", shown(SocketAddr::new(address, port.get()))),
        UDP => format!("{}/udp", shown(SocketAddr::new(address, port.get()))),
        _ => address.to_string(),
    }
}

impl Tables {
    /// One part of these tables, and nothing else.
    fn only(&self, part: Part) -> Tables {
        let mut tables = Tables::default();
        match part {
            Part::Shared => {
                tables.hash_key = self.hash_key;
                tables.nat_sources.clone_from(&self.nat_sources);
                tables.gateways.clone_from(&self.gateways);
            }
            Part::Devices => tables.devices.clone_from(&self.devices),
            Part::Servers => tables.servers.clone_from(&self.servers),
            Part::Access => tables.access.clone_from(&self.access),
            Part::Services => tables.services.clone_from(&self.services),
            Part::Wildcards => tables.wildcards.clone_from(&self.wildcards),
            Part::Ring(base) => {
                tables.rings.extend(self.rings.get(&base).map(|ring| (base, Arc::clone(ring))));
            }
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use lb_common::slot::{ServerId, Slot};

    use super::*;
    use crate::pure::{config, state::tests::start};

    const SERVICE: &str = "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"test\"\n\
        [[service]]\nname = \"web\"\naddress = [\"192.0.2.10\", \"2001:db8::/64\"]\nport = 80\nforward = \"ipip\"\n\
        slots = 256\ndeny = [\"198.51.100.0/24\"]\ncheck = { type = \"none\" }\n\
        server = [{ name = \"a\", address = \"10.0.0.1\" }, { name = \"b\", address = \"10.0.0.2\" }]\n";

    fn state() -> State {
        let config = config::parse("test.toml", SERVICE).expect("valid").config;
        let mut state = start(config, Tables::default());
        state.attach(2);
        state.plan();
        state
    }

    /// Damage, the part it is found in, and what a warning says of it.
    type Damage = (fn(&mut Tables), fn(&Tables) -> Part, &'static str);

    #[test]
    fn whatever_was_changed_is_mended() {
        fn ring(tables: &mut Tables) -> &mut Vec<Slot> {
            tables.rings.values_mut().next().map(Arc::make_mut).expect("a ring")
        }
        let damages: [Damage; 9] = [
            (|tables| tables.hash_key.0[0] ^= 1, |_| Part::Shared, "the hash key"),
            (|tables| tables.devices.clear(), |_| Part::Devices, "device 2"),
            (|tables| tables.devices.extend([9]), |_| Part::Devices, "device 9"),
            (|tables| tables.servers.retain(|id, _| id.0 != 1), |_| Part::Servers, "server web/a"),
            (
                |tables| tables.servers.values_mut().for_each(|server| server.weight += 1),
                |_| Part::Servers,
                "server web/b",
            ),
            (|tables| tables.services.clear(), |_| Part::Services, "service 192.0.2.10:80/tcp"),
            (|tables| tables.wildcards.clear(), |_| Part::Wildcards, "the services of 2001:db8::/64"),
            (|tables| tables.access.clear(), |_| Part::Access, "the access of 198.51.100.0/24"),
            (
                |tables| ring(tables)[..3].fill(Slot::settled(ServerId::NONE)),
                |tables| Part::Ring(tables.rings.keys().copied().next().unwrap_or_default()),
                "3 slots of service web",
            ),
        ];
        let state = state();
        for (damage, part, words) in damages {
            let part = part(state.installed());
            let mut found = state.installed().clone();
            damage(&mut found);
            let steps = state.mend(part, &found);
            let told: Vec<_> = steps.iter().map(|step| state.mended(step)).collect();
            assert!(told.iter().any(|told| told == words), "{told:?} do not say {words}");
            steps.into_iter().for_each(|step| found.apply(step));
            assert_eq!(&found, state.installed(), "{words}");
        }
    }

    #[test]
    fn what_stands_as_installed_is_left_alone() {
        let state = state();
        for part in state.parts() {
            assert_eq!(state.mend(part, state.installed()), [], "{part:?}");
        }
    }
}
