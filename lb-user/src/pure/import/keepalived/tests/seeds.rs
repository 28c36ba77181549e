//! Whole files, as people wrote them.

use std::time::Duration;

use super::{accepted, shown};
use crate::pure::config::{
    model::{
        Config, Mail,
        vrrp::{
            Address, AddressCheck, Announce, Auth, Checksum, Effect, Hooks, Preempt, Router, Script, Track,
            Tracked, Version, Vrrp, Wish,
        },
    },
    network::Family,
};

const PAIR_1: &str = include_str!("files/000-ds1.conf");
const PAIR_2: &str = include_str!("files/000-ds2.conf");
const RABBIT_1: &str = include_str!("files/001-node1.conf");
const RABBIT_2: &str = include_str!("files/001-node2.conf");
const LVS_1: &str = include_str!("files/003-lvs1.conf");
const LVS_2: &str = include_str!("files/003-lvs2.conf");
const MONITORED: &str = include_str!("files/004-162.conf");
const MONITORED_BACKUP: &str = include_str!("files/004-163.conf");
const TRACKED: &str = include_str!("files/004-162-tracked.conf");
pub(super) const ALL: [&str; 9] =
    [PAIR_1, PAIR_2, RABBIT_1, RABBIT_2, LVS_1, LVS_2, MONITORED, MONITORED_BACKUP, TRACKED];

fn base(interface: &str, vrid: u8, priority: u8, wish: Wish, address: &str, prefix: u8) -> Router {
    let address = Address {
        address: address.parse().unwrap(),
        prefix,
        dev: None,
        label: None,
        scope: None,
        broadcast: None,
    };
    Router {
        name: "VI_1".into(),
        interface: interface.into(),
        vrid,
        family: Family::V4,
        version: Version::V2,
        priority,
        wish,
        interval: Duration::from_secs(1),
        down_timer_adverts: 3,
        addresses: vec![address],
        excluded: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        preempt: Preempt::After(Duration::ZERO),
        start_delay: Duration::ZERO,
        unicast_peers: Vec::new(),
        source: None,
        multicast: None,
        auth: Auth::Pass(*b"1111\0\0\0\0"),
        checksum: Checksum::Auto,
        address_check: AddressCheck::Report,
        virtual_mac: None,
        accept: true,
        announce: Announce::default(),
        track: Vec::new(),
        hand_over: true,
        refuse_on_mismatch: false,
        notify: Hooks::default(),
    }
}

fn check(text: &str, node: &str, mail: Option<Mail>, vrrp: Vrrp, expected: &[&str]) {
    let parsed = accepted(text);
    let Config { global, notify, vrrp: found, .. } = parsed.config;
    assert_eq!(found, vrrp);
    assert_eq!(global.node.as_deref(), Some(node));
    let timeout = if mail.is_some() { 30 } else { 10 };
    assert_eq!((notify.mail, notify.timeout), (mail, Duration::from_secs(timeout)));
    assert_eq!(shown(&parsed.warnings), expected);
}

fn alone(router: Router) -> Vrrp {
    Vrrp { routers: vec![router], ..Vrrp::default() }
}

#[test]
fn a_pair_whose_priority_is_out_of_range() {
    let router = |priority, wish| base("eno1", 51, priority, wish, "10.0.5.96", 20);
    let expected = ["11: `1000` is no value of `priority`: 100 is used, as in Keepalived"];
    check(PAIR_1, "LVS_DEVEL", None, alone(router(100, Wish::Master)), &expected);
    check(PAIR_2, "LVS_DEVEL", None, alone(router(10, Wish::Backup)), &[]);
}

#[test]
fn a_pair_that_tracks_its_proxy() {
    let router = |priority, wish| Router {
        auth: Auth::Pass(*b"123456\0\0"),
        track: vec![Track {
            what: Tracked::Script("chk_haproxy".into()),
            effect: Effect::Weight { weight: -20, reverse: false },
        }],
        ..base("ens33", 1, priority, wish, "192.168.0.123", 32)
    };
    let script = Script {
        name: "chk_haproxy".into(),
        command: vec!["/etc/keepalived/haproxy_check.sh".into()],
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 1,
        user: None,
        init_fail: false,
    };
    let expected = [
        "5: this script runs as the daemon's user: Keepalived runs it as keepalived_script, where there is such a user",
    ];
    let vrrp = |router| Vrrp { scripts: vec![script.clone()], ..alone(router) };
    check(RABBIT_1, "node1", None, vrrp(router(100, Wish::Master)), &expected);
    check(RABBIT_2, "node2", None, vrrp(router(90, Wish::Backup)), &expected);
}

#[test]
fn a_pair_with_virtual_servers_and_a_password_that_is_not_used() {
    let router =
        |priority, wish| Router { auth: Auth::None, ..base("eth0", 50, priority, wish, "192.168.4.15", 32) };
    let mail =
        Mail { server: "127.0.0.1".into(), from: "ka@localhost".into(), to: vec!["ops@localhost".into()] };
    let expected = [
        "18: `pass` is no value of `auth_type`: there is no authentication, as in Keepalived",
        "23: `virtual_server` is not taken over yet: nothing in this block has an effect",
    ];
    check(LVS_1, "lvs1", Some(mail.clone()), alone(router(100, Wish::Master)), &expected);
    check(LVS_2, "lvs2", Some(mail), alone(router(50, Wish::Backup)), &expected);
}

#[test]
fn a_pair_made_from_the_sample() {
    let router = |priority, wish| {
        let mut router = base("eth0", 239, priority, wish, "172.20.0.248", 16);
        router.addresses[0].dev = Some("eth0".into());
        router.addresses[0].label = Some("eth0:0".into());
        router
    };
    let mail = Mail {
        server: "192.168.200.1".into(),
        from: "Alexandre.Cassen@firewall.loc".into(),
        to: vec![
            "acassen@firewall.loc".into(),
            "failover@firewall.loc".into(),
            "sysadmin@firewall.loc".into(),
        ],
    };
    let said = |first: usize| {
        [
            format!(
                "{first}: `vrrp_skip_check_adv_addr` does nothing here: adverts with other addresses are taken and reported in any case, because two masters are worse"
            ),
            format!(
                "{}: `vrrp_iptables` does nothing here: addresses are never hidden by a firewall",
                first + 3
            ),
        ]
    };
    let [skip, iptables] = &said(13);
    let expected = [skip.as_str(), iptables];
    check(MONITORED, "LVS_DEVEL", Some(mail.clone()), alone(router(100, Wish::Master)), &expected);
    check(MONITORED_BACKUP, "LVS_DEVEL", Some(mail.clone()), alone(router(80, Wish::Backup)), &expected);

    let script = Script {
        name: "magedu".into(),
        command: vec!["/etc/keepalived/scripts/vrrp_script.sh".into()],
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(10),
        rise: 5,
        fall: 2,
        user: Some("root".into()),
        init_fail: true,
    };
    let what = Tracked::Script("magedu".into());
    let tracked = Router {
        track: vec![Track { what, effect: Effect::Weight { weight: -80, reverse: false } }],
        ..router(100, Wish::Master)
    };
    let [skip, iptables] = &said(23);
    let init_fail = "10: `init_fail` works here as documented: failed until it succeeded `rise` times; Keepalived up to 2.4 ignores it";
    let vrrp = Vrrp { scripts: vec![script], ..alone(tracked) };
    check(TRACKED, "LVS_DEVEL", Some(mail), vrrp, &[init_fail, skip, iptables]);
}
