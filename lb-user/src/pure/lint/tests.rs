use super::*;
use crate::pure::{
    config::{self, model::Config},
    status::PeerStatus,
};

fn config(text: &str) -> Config {
    config::parse("steelyard.toml", text).unwrap_or_else(|errors| panic!("{errors:#?}")).config
}

fn router(keys: &str) -> Config {
    config(&format!(
        "[cluster]\nsecret = \"hush\"\npeers = [\"10.0.5.92\"]\n[[vrrp]]\nname = \"V\"\ninterface = \"eth0\"\nvrid = 51\npriority = 100\n{keys}\n\
         [[service]]\nname = \"web\"\naddress = \"10.0.5.97\"\nport = 80\nforward = \"nat\"\nserver = [{{ name = \"a\", address = \"10.0.5.1\" }}]\n[datapath]\ninterfaces = [\"eth0\"]\n"
    ))
}

type Addresses<'a> = &'a [(&'a str, u8)];

fn eth0(addresses: Addresses<'_>) -> Vec<HostInterface> {
    let addresses = addresses.iter().map(|(address, prefix)| (address.parse().unwrap(), *prefix)).collect();
    vec![HostInterface { name: "eth0".into(), addresses }]
}

#[test]
fn the_host_is_asked_for_interfaces_and_networks() {
    let vip = "addresses = [\"10.0.5.96/20\"]";
    let cases: [(&str, &str, Addresses<'_>, &[&str]); 8] = [
        ("as it should be", vip, &[("10.0.5.91", 20)], &[]),
        ("while active", vip, &[("10.0.5.91", 20), ("10.0.5.96", 20)], &[]),
        (
            "outside",
            vip,
            &[("192.168.1.1", 24)],
            &[
                "[[vrrp]] V: 10.0.5.96 is in no network of eth0 (192.168.1.0/24): hosts there reach it only by a route to this node",
            ],
        ),
        (
            "outside, while active",
            vip,
            &[("192.168.1.1", 24), ("10.0.5.96", 20)],
            &[
                "[[vrrp]] V: 10.0.5.96 is in no network of eth0 (192.168.1.0/24): hosts there reach it only by a route to this node",
            ],
        ),
        (
            "mute",
            vip,
            &[("fe80::1", 64)],
            &["[[vrrp]] V: eth0 has no IPv4 address that adverts could come from: add one"],
        ),
        ("link-local", "addresses = [\"fe80::96/64\"]", &[("fe80::1", 64)], &[]),
        (
            "another source",
            "addresses = [\"10.0.5.96\"]\nsource = \"10.0.5.93\"",
            &[("10.0.5.91", 20)],
            &["[[vrrp]] V: `source` 10.0.5.93 is no address of eth0: the router waits for it"],
        ),
        (
            "itself",
            "addresses = [\"10.0.5.96\"]\nunicast_peers = [\"10.0.5.92\"]",
            &[("10.0.5.92", 20)],
            &[
                "[cluster] peers: 10.0.5.92 is this node's own address: list the other nodes only",
                "[[vrrp]] V: the unicast peer 10.0.5.92 is this node's own address: list the other routers only",
            ],
        ),
    ];
    for (name, keys, addresses, expected) in cases {
        let config = router(keys);
        assert_eq!(host(&config.vrrp, &config.cluster, &eth0(addresses)), expected, "{name}");
    }
    let config = router(vip);
    let absent = "[[vrrp]] V: there is no interface eth0 here: the router waits for it";
    assert_eq!(host(&config.vrrp, &config.cluster, &[]), [absent]);
    let config = router("addresses = [{ address = \"10.0.5.96\", dev = \"eth1\" }]");
    let absent = "[[vrrp]] V: there is no interface eth1 here for 10.0.5.96: correct `dev`";
    assert_eq!(host(&config.vrrp, &config.cluster, &eth0(&[("10.0.5.91", 20)])), [absent]);
}

fn heard(sender: SenderStatus) -> VrrpStatus {
    let router = RouterStatus {
        name: "V".into(),
        interface: "eth0".into(),
        vrid: 51,
        family: "IPv4".into(),
        senders: vec![sender],
        ..RouterStatus::default()
    };
    VrrpStatus { routers: vec![router], ..VrrpStatus::default() }
}

fn sender() -> SenderStatus {
    SenderStatus {
        address: "10.0.5.92".into(),
        priority: 90,
        age_ms: 10,
        version: 3,
        interval_ms: 1_000,
        addresses: vec!["10.0.5.96".into()],
        refused: None,
        detail: None,
    }
}

#[test]
fn a_configuration_is_held_against_the_routers_that_are_heard() {
    let vip = "addresses = [\"10.0.5.96/20\"]\n";
    let cases: [(&str, &str, SenderStatus, &[&str]); 8] = [
        ("equal", "", sender(), &[]),
        (
            "version",
            "",
            SenderStatus { version: 2, ..sender() },
            &["speaks version 2, and this is version 3: neither hears the other, set `version = 2`"],
        ),
        ("learned interval", "", SenderStatus { interval_ms: 100, ..sender() }, &[]),
        (
            "interval",
            "version = 2",
            SenderStatus { interval_ms: 2_000, version: 2, ..sender() },
            &["sends every 2000 ms, and version 2 refuses any other `advert_interval` than its own, 1s"],
        ),
        (
            "addresses",
            "",
            SenderStatus { addresses: vec!["10.0.5.97".into()], ..sender() },
            &["has other addresses: only there 10.0.5.97, only here 10.0.5.96: make the lists equal"],
        ),
        (
            "unread",
            "",
            SenderStatus { addresses: Vec::new(), refused: Some("checksum".into()), ..sender() },
            &["is refused by the daemon that runs (checksum)"],
        ),
        (
            "tie",
            "",
            SenderStatus { priority: 100, ..sender() },
            &["has priority 100, too: the higher address wins; give them different ones"],
        ),
        ("enough", "track = [{ service = \"web\", weight = -11 }]", sender(), &[]),
    ];
    for (name, keys, sender, expected) in cases {
        let config = router(&format!("{vip}{keys}"));
        let expected: Vec<_> = expected.iter().map(|text| format!("[[vrrp]] V: 10.0.5.92 {text}")).collect();
        assert_eq!(live(&config.vrrp, &heard(sender)), expected, "{name}");
    }
}

#[test]
fn a_weight_that_moves_nothing_is_found_by_the_rivals_priority() {
    let text = |from, to, remedy: &str| {
        format!(
            "[[vrrp]] V: when service web fails, the priority falls from {from} to {to}, and 10.0.5.92 has 90: \
             the addresses stay here; {remedy}"
        )
    };
    let cases = [
        ("weight = -5", vec![text(100, 95, "use a weight of at least 11")]),
        ("weight = -10", vec![]),
        ("weight = -11", vec![]),
        ("weight = 5", vec![text(105, 100, "use a `priority` that is lower by 11")]),
        ("weight = 5, reverse = true", vec![text(100, 95, "use a weight of at least 11")]),
        ("weight = 0", vec![]),
    ];
    for (weight, expected) in cases {
        let keys = format!("addresses = [\"10.0.5.96\"]\ntrack = [{{ service = \"web\", {weight} }}]");
        assert_eq!(live(&router(&keys).vrrp, &heard(sender())), expected, "{weight}");
    }
}

/// A backup sends no adverts: what nodes of ours say of themselves is what is known of it.
#[test]
fn a_configuration_is_held_against_the_nodes_of_the_cluster() {
    let there = |version, state: &str, priority| {
        let router =
            PeerRouterStatus { vrid: 51, family: "IPv4".into(), version, state: state.into(), priority };
        let peer = PeerStatus {
            address: "10.0.5.92".into(),
            state: "alive".into(),
            routers: vec![router],
            ..PeerStatus::default()
        };
        let mut status = heard(sender());
        status.routers[0].senders.clear();
        VrrpStatus { peers: vec![peer], ..status }
    };
    let vip = "addresses = [\"10.0.5.96\"]\n";
    let weight = "track = [{ service = \"web\", weight = -5 }]";
    let stays = "when service web fails, the priority falls from 100 to 95, and 10.0.5.92 has 90: \
                 the addresses stay here; use a weight of at least 11";
    let cases = [
        ("well", "", there(3, "backup", 90), vec![]),
        (
            "version",
            "",
            there(2, "active", 90),
            vec!["node 10.0.5.92 has this router in version 2, and this is version 3: use one for both"],
        ),
        (
            "tie",
            "",
            there(3, "backup", 100),
            vec!["node 10.0.5.92 has priority 100, too: the higher address wins; give them different ones"],
        ),
        ("weight", weight, there(3, "backup", 90), vec![stays]),
        ("weight, and nobody able", weight, there(3, "fault", 90), vec![]),
    ];
    for (name, keys, status, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|text| format!("[[vrrp]] V: {text}")).collect();
        assert_eq!(live(&router(&format!("{vip}{keys}")).vrrp, &status), expected, "{name}");
    }
}

#[test]
fn what_is_refused_is_a_trouble_as_long_as_it_is_heard() {
    let refused = SenderStatus {
        refused: Some("password".into()),
        detail: Some("the passwords differ".into()),
        ..sender()
    };
    let expected =
        "V: 10.0.5.92 does not agree (password): the passwords differ; both nodes may hold the addresses";
    assert_eq!(troubles(&heard(refused.clone())), [expected]);
    assert_eq!(troubles(&heard(SenderStatus { age_ms: 120_000, ..refused })), Vec::<String>::new());
    assert_eq!(troubles(&heard(sender())), Vec::<String>::new());
}
