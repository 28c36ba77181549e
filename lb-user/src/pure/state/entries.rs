//! What a service's configuration says, in the words of the kernel's tables.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    entry::{self, Mode, Rule, Scheduler},
    flow::Ticks,
    net::{Family as _, TCP, UDP, V4, V6},
};

use crate::pure::{
    config::{
        model::{Balance, Forward, NoServer, Protocol, Service},
        network::{Family, Network},
    },
    place::Place,
    plan::{Key, Tables, Verdict},
};

/// Every key that one ring of a service is found by: single addresses with a single port.
pub(in crate::pure) fn keys(
    service: &Service,
    family: Option<Family>,
) -> impl Iterator<Item = (Key, Protocol)> + '_ {
    let port = service.ports.single();
    hosts(service, family).filter_map(move |network| Some((network.address(), port?))).flat_map(
        move |(address, port)| {
            let key = move |&protocol| (Key::new(address, port, number(protocol)), protocol);
            service.protocols.iter().map(key)
        },
    )
}

/// Every network that one ring of a service is found by where no key does.
pub(in crate::pure) fn rules(
    service: &Service,
    family: Option<Family>,
) -> impl Iterator<Item = (Network, Protocol)> + '_ {
    let exact = service.ports.is_exact();
    networks(service, family)
        .filter(move |network| !(exact && network.is_host()))
        .flat_map(move |network| service.protocols.iter().map(move |&protocol| (network, protocol)))
}

fn networks(service: &Service, family: Option<Family>) -> impl Iterator<Item = Network> + '_ {
    let wanted = move |network: &Network| family.is_none_or(|family| network.family() == family);
    service.addresses.iter().copied().filter(wanted)
}

fn hosts(service: &Service, family: Option<Family>) -> impl Iterator<Item = Network> + '_ {
    networks(service, family).filter(|network| network.is_host())
}

/// The IP protocol number.
pub fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

pub(super) fn ticks(time: Duration) -> u32 {
    Ticks::in_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Silence after which the record of a service's client is void.
pub(super) fn client_ticks(service: &Service) -> u32 {
    let idle = service.protocols.iter().map(|&protocol| idle_ticks(service, protocol)).max();
    service.persistence.map_or(idle.unwrap_or(0), ticks)
}

pub(super) fn idle_ticks(service: &Service, protocol: Protocol) -> u32 {
    ticks(match protocol {
        Protocol::Tcp => service.idle.tcp,
        Protocol::Udp => service.idle.udp,
    })
}

/// Enters a service: its keys, its addresses, and who may use it.
pub(super) fn enter(tables: &mut Tables, own: &mut Rules, place: &Place, service: &Service) {
    for (family, &ring_base) in service.rings().into_iter().zip(&place.rings) {
        for (key, protocol) in keys(service, family) {
            tables.services.insert(key, value(place, ring_base, service, key.family(), protocol));
        }
        for (network, protocol) in rules(service, family) {
            let service_value = value(place, ring_base, service, network.family(), protocol);
            let rule = Rule {
                protocol: number(protocol),
                first: service.ports.first,
                last: service.ports.last,
                service: service_value,
            };
            own.entry(network).or_default().push(rule);
        }
        let any = service.protocols.first().copied().unwrap_or(Protocol::Tcp);
        for network in networks(service, family) {
            let vip = value(place, ring_base, service, network.family(), any);
            if network.is_host() {
                tables.services.entry(Key::of_vip(network.address())).or_insert(vip);
            } else {
                let echo = Rule { protocol: icmp(network.family()), first: 0, last: 0, service: vip };
                own.entry(network).or_default().push(echo);
            }
        }
    }
    tables
        .access
        .extend(verdicts(service).into_iter().map(|(network, verdict)| ((place.id, network), verdict)));
}

/// Rules by the network they were configured for.
pub(super) type Rules = BTreeMap<Network, Vec<Rule>>;

/// The rules that apply to each network's addresses, the most specific first: its own by the width of their
/// ports, then those of the networks around it.
pub(super) fn flatten(mut own: Rules) -> Rules {
    for rules in own.values_mut() {
        rules.sort_by_key(|rule| rule.last - rule.first);
    }
    let around = |network: &Network| -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        for rule in network.enclosing().filter_map(|around| own.get(&around)).flatten() {
            let known = |known: &Rule| {
                (known.protocol, known.first, known.last) == (rule.protocol, rule.first, rule.last)
            };
            if !rules.iter().any(known) {
                rules.push(*rule);
            }
        }
        rules
    };
    own.keys().map(|network| (*network, around(network))).collect()
}

fn icmp(family: Family) -> u8 {
    match family {
        Family::V4 => V4::ICMP,
        Family::V6 => V6::ICMP,
    }
}

fn value(
    place: &Place,
    ring_base: u32,
    service: &Service,
    family: Family,
    protocol: Protocol,
) -> entry::Service {
    entry::Service {
        id: place.id,
        ring_base,
        ring_mask: service.slots - 1,
        mode: mode(service.forward),
        scheduler: match service.balance {
            Balance::Maglev | Balance::Source => Scheduler::Ring,
            Balance::RoundRobin => Scheduler::RoundRobin,
            Balance::LeastConn => Scheduler::LeastConn,
        },
        by_client: service.by_client(),
        access: !service.access.is_open(family),
        reset: service.no_server == NoServer::Reset,
        mss: if protocol == Protocol::Tcp { service.mss.unwrap_or(0) } else { 0 },
        idle_ticks: idle_ticks(service, protocol),
        client_ticks: if service.by_client() { client_ticks(service) } else { 0 },
    }
}

pub(super) fn mode(forward: Forward) -> Mode {
    match forward {
        Forward::Nat => Mode::Nat,
        Forward::Gateway => Mode::Gateway,
        Forward::Dsr => Mode::Dsr,
        Forward::Ipip => Mode::Ipip,
        Forward::Gue => Mode::Gue,
    }
}

/// What the longest network around a client must say: `deny` wins over every `allow` around or within it.
fn verdicts(service: &Service) -> BTreeMap<Network, Verdict> {
    let access = &service.access;
    let denied = |network: Network| access.deny.iter().any(|deny| deny.covers(network));
    let verdict = |network: Network| if denied(network) { Verdict::Deny } else { Verdict::Allow };
    let mut verdicts = BTreeMap::new();
    if Family::ALL.into_iter().all(|family| access.is_open(family)) {
        return verdicts;
    }
    // Both: an IPv4 client stands within ::/0, too, as its address is mapped.
    let others = if access.allow.is_empty() { Verdict::Allow } else { Verdict::Deny };
    verdicts.extend(Family::ALL.map(|family| (Network::all(family), others)));
    let listed = access.allow.iter().chain(&access.deny);
    verdicts.extend(listed.map(|&network| (network, verdict(network))));
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::config::parse;

    fn service(keys: &str) -> Service {
        let text = format!(
            "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"x\"\n[[service]]\nname = \"s\"\n\
             forward = \"ipip\"\nserver = [{{ name = \"a\", address = \"10.0.0.1\" }}]\ncheck = {{ type = \"none\" }}\n{keys}\n"
        );
        parse("test.toml", &text).expect("valid").config.services.remove(0)
    }

    fn network(text: &str) -> Network {
        let (address, length) = text.split_once('/').expect("a prefix");
        Network::around(address.parse().expect("an address"), length.parse().expect("a length"))
            .expect("within the family")
    }

    #[test]
    fn the_longest_network_says_who_may_connect() {
        let service = service(
            "address = \"192.0.2.1\"\nport = 80\nallow = [\"10.0.0.0/8\", \"10.1.2.0/24\", \"2001:db8::/32\"]\n\
             deny = [\"10.1.0.0/16\", \"10.0.0.7/32\"]",
        );
        let verdicts = verdicts(&service);
        for (text, expected) in [
            ("0.0.0.0/0", Verdict::Deny),
            ("::/0", Verdict::Deny),
            ("10.0.0.0/8", Verdict::Allow),
            ("10.1.0.0/16", Verdict::Deny),
            ("10.1.2.0/24", Verdict::Deny),
            ("10.0.0.7/32", Verdict::Deny),
            ("2001:db8::/32", Verdict::Allow),
        ] {
            assert_eq!(verdicts.get(&network(text)), Some(&expected), "{text}");
        }
        assert_eq!(verdicts.len(), 7);
    }

    #[test]
    fn denying_a_family_leaves_the_other_alone() {
        let service = service("address = \"192.0.2.1\"\nport = 80\ndeny = [\"::/0\", \"10.0.0.0/8\"]");
        let verdicts = verdicts(&service);
        for (text, expected) in
            [("0.0.0.0/0", Verdict::Allow), ("::/0", Verdict::Deny), ("10.0.0.0/8", Verdict::Deny)]
        {
            assert_eq!(verdicts.get(&network(text)), Some(&expected), "{text}");
        }
    }

    #[test]
    fn narrow_ports_and_long_prefixes_come_first() {
        let place = Place { id: 1, rings: vec![0] };
        let mut tables = Tables::default();
        let mut own = Rules::new();
        for keys in [
            "address = \"192.0.2.0/24\"\nport = \"any\"",
            "address = \"192.0.2.0/24\"\nport = \"8000-8999\"",
            "address = \"192.0.2.9\"\nport = \"1-9000\"",
            "address = \"192.0.2.9\"\nport = 80",
        ] {
            enter(&mut tables, &mut own, &place, &service(keys));
        }
        let rules = flatten(own);
        let shown = |text: &str| -> Vec<(u8, u16, u16)> {
            let rules = rules[&network(text)].iter();
            rules.map(|rule| (rule.protocol, rule.first, rule.last)).collect()
        };
        assert_eq!(shown("192.0.2.0/24"), [(V4::ICMP, 0, 0), (TCP, 8_000, 8_999), (TCP, 1, 65_535)]);
        assert_eq!(
            shown("192.0.2.9/32"),
            [(TCP, 1, 9_000), (V4::ICMP, 0, 0), (TCP, 8_000, 8_999), (TCP, 1, 65_535)]
        );
        let address = "192.0.2.9".parse().expect("valid");
        assert_eq!(
            tables.services.keys().copied().collect::<std::collections::BTreeSet<_>>(),
            [Key::new(address, 80, TCP), Key::of_vip(address)].into()
        );
    }
}
