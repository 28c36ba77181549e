//! `[[vrrp]]` and what belongs to it: what it means, its faults one at a time, and Keepalived's words for it.

use std::time::Duration;

use super::{BASE, accepted, only, refused};
use crate::pure::config::{
    Parsed,
    model::vrrp::{
        Address, AddressCheck, Announce, Auth, Checksum, Effect, Group, Hmac, HmacKey, HmacMode, Hook, Hooks,
        Preempt, Process, Route, Router, Rule, Scope, Script, Track, TrackFile, Tracked, UnicastPeer,
        Version, VirtualMac, Vrrp, Wish,
    },
    network::{Family, Network},
};

/// As short as it can be; `BASE` has 19 lines before it.
const ROUTER: &str = r#"[[vrrp]]
name = "VI_1"
interface = "eth0"
vrid = 51
priority = 250
addresses = ["10.0.5.96/20"]
"#;

fn routers(text: &str) -> Vec<Router> {
    accepted(&format!("{BASE}{text}")).config.vrrp.routers
}

/// `ROUTER` with one part of it replaced.
fn with(old: &str, new: &str) -> String {
    assert_eq!(ROUTER.matches(old).count(), 1, "{old:?} is in the router once");
    format!("{BASE}{}", ROUTER.replace(old, new))
}

fn more(keys: &str) -> String {
    format!("{BASE}{ROUTER}{keys}")
}

fn warnings(parsed: &Parsed) -> Vec<String> {
    parsed.warnings.iter().map(|warning| format!("{}: {}", warning.line, warning.message)).collect()
}

fn address(text: &str, prefix: u8) -> Address {
    let address = text.parse().unwrap();
    Address { address, prefix, dev: None, label: None, scope: None, broadcast: None }
}

fn plain() -> Router {
    Router {
        name: "VI_1".into(),
        interface: "eth0".into(),
        vrid: 51,
        family: Family::V4,
        version: Version::V3,
        priority: 250,
        wish: Wish::Backup,
        interval: Duration::from_secs(1),
        down_timer_adverts: 3,
        addresses: vec![address("10.0.5.96", 20)],
        excluded: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        preempt: Preempt::After(Duration::ZERO),
        start_delay: Duration::ZERO,
        unicast_peers: Vec::new(),
        source: None,
        multicast: None,
        auth: Auth::None,
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

#[test]
fn nothing_but_what_is_required_means_the_defaults() {
    let parsed = accepted(&more(""));
    let vrrp = Vrrp { routers: vec![plain()], ..Vrrp::default() };
    assert_eq!((parsed.config.vrrp, parsed.warnings), (vrrp, Vec::new()));
}

#[test]
fn everything_of_a_router() {
    let text = r#"[[vrrp]]
name = "VI_2"
interface = "eth0"
vrid = 52
version = 2
priority = 254
state = "MASTER"
advert_interval = "2s"
down_timer_adverts = 5
preempt_delay = "1m"
start_delay = "10s"
hand_over = false
refuse_on_mismatch = true
addresses = ["10.0.5.97", { address = "10.0.5.98/20", dev = "eth1", label = "eth1:0", scope = "link", broadcast = "10.0.15.255" }]
excluded_addresses = ["2001:db8::98/64"]
routes = [{ to = "default", via = "10.0.5.1", dev = "eth0", src = "10.0.5.97", table = 100, metric = 5, scope = "global" }]
rules = [{ from = "10.0.5.97", iif = "eth1", table = 100, priority = 1000 }]
accept = true
unicast_peers = ["10.0.5.92", { address = "10.0.5.93", ttl_min = 254 }]
source = "10.0.5.91"
auth_pass = "1111"
address_check = "new_master"
virtual_mac = { name = "vrrp.x", transmit_base = true }
garp = { times = ["0s", "100ms"], delay = "0s", refresh = "0s", spacing = "1ms" }
track_interfaces = ["eth1", { interface = "eth2", weight = -20 }]
track = [{ service = "web", weight = 10, reverse = true }, { datapath = true }]
notify = "/bin/notify all"
notify_master = ["/bin/master"]
notify_user = "nobody"
"#;
    let hook = |words: &[&str]| {
        let command = words.iter().map(ToString::to_string).collect();
        Some(Hook { command, user: Some("nobody".into()) })
    };
    let track = |what, effect| Track { what, effect };
    let expected = Router {
        name: "VI_2".into(),
        vrid: 52,
        version: Version::V2,
        priority: 254,
        wish: Wish::Master,
        interval: Duration::from_secs(2),
        down_timer_adverts: 5,
        preempt: Preempt::After(Duration::from_secs(60)),
        start_delay: Duration::from_secs(10),
        hand_over: false,
        refuse_on_mismatch: true,
        addresses: vec![
            address("10.0.5.97", 32),
            Address {
                dev: Some("eth1".into()),
                label: Some("eth1:0".into()),
                scope: Some(Scope::Link),
                broadcast: Some([10, 0, 15, 255].into()),
                ..address("10.0.5.98", 20)
            },
        ],
        excluded: vec![address("2001:db8::98", 64)],
        routes: vec![Route {
            to: Network::all(Family::V4),
            via: Some([10, 0, 5, 1].into()),
            dev: Some("eth0".into()),
            src: Some([10, 0, 5, 97].into()),
            table: Some(100),
            metric: Some(5),
            scope: Some(Scope::Global),
        }],
        rules: vec![Rule {
            from: Some(Network::host([10, 0, 5, 97].into())),
            to: None,
            iif: Some("eth1".into()),
            table: 100,
            priority: Some(1000),
        }],
        unicast_peers: vec![
            UnicastPeer { address: [10, 0, 5, 92].into(), ttl: (0, 255) },
            UnicastPeer { address: [10, 0, 5, 93].into(), ttl: (254, 255) },
        ],
        source: Some([10, 0, 5, 91].into()),
        auth: Auth::Pass(*b"1111\0\0\0\0"),
        address_check: AddressCheck::NewMaster,
        virtual_mac: Some(VirtualMac { name: Some("vrrp.x".into()), transmit_base: true }),
        announce: Announce {
            times: vec![Duration::ZERO, Duration::from_millis(100)],
            delay: Duration::ZERO,
            refresh: Duration::ZERO,
            spacing: Duration::from_millis(1),
        },
        track: vec![
            track(Tracked::Interface("eth1".into()), Effect::Fault { reverse: false }),
            track(Tracked::Interface("eth2".into()), Effect::Weight { weight: -20, reverse: false }),
            track(Tracked::Service("web".into()), Effect::Weight { weight: 10, reverse: true }),
            track(Tracked::Datapath, Effect::Fault { reverse: false }),
        ],
        notify: Hooks {
            any: hook(&["/bin/notify", "all"]),
            master: hook(&["/bin/master"]),
            ..Hooks::default()
        },
        ..plain()
    };
    assert_eq!(routers(text), [expected]);
}

#[test]
fn groups_and_trackers() {
    let text = r#"[[vrrp]]
name = "VI_2"
interface = "eth0"
vrid = 52
priority = 250
addresses = ["10.0.5.97"]
track = [{ script = "chk" }, { process = "nginx", weight = 3 }, { file = "by_hand" }, { file = "other", weight = 0 }]
[[vrrp_group]]
name = "VG_1"
members = ["VI_1"]
track = [{ file = "by_hand", weight = -2 }]
notify_fault = "/bin/fault"
[[track_script]]
name = "chk"
command = "/bin/check lb"
interval = "5s"
fall = 2
user = "nobody"
init_fail = true
[[track_process]]
name = "nginx"
process = "/usr/sbin/nginx"
quorum_max = 9
delay = "1s"
[[track_file]]
name = "by_hand"
file = "/etc/lb/priority"
[[track_file]]
name = "other"
file = "/etc/lb/other"
interval = "100ms"
"#;
    let parsed = accepted(&more(text));
    assert_eq!(warnings(&parsed), Vec::<String>::new());
    let vrrp = parsed.config.vrrp;
    let effects: Vec<_> = vrrp.routers[1].track.iter().map(|track| track.effect).collect();
    let expected = [
        Effect::Fault { reverse: false },
        Effect::Weight { weight: 3, reverse: false },
        Effect::Scaled { weight: 1 },
        Effect::Fault { reverse: false },
    ];
    assert_eq!(effects, expected);
    let group = Group {
        name: "VG_1".into(),
        members: vec!["VI_1".into()],
        track: vec![Track { what: Tracked::File("by_hand".into()), effect: Effect::Scaled { weight: -2 } }],
        notify: Hooks {
            fault: Some(Hook { command: vec!["/bin/fault".into()], user: None }),
            ..Hooks::default()
        },
    };
    assert_eq!(vrrp.groups, [group]);
    let script = Script {
        name: "chk".into(),
        command: vec!["/bin/check".into(), "lb".into()],
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 2,
        user: Some("nobody".into()),
        init_fail: true,
    };
    assert_eq!(vrrp.scripts, [script]);
    let process = Process {
        name: "nginx".into(),
        process: "/usr/sbin/nginx".into(),
        quorum: 1,
        quorum_max: Some(9),
        delay: Duration::from_secs(1),
    };
    assert_eq!(vrrp.processes, [process]);
    let file = |name: &str, path: &str, millis| TrackFile {
        name: name.into(),
        path: path.into(),
        interval: Duration::from_millis(millis),
    };
    let files = [file("by_hand", "/etc/lb/priority", 1_000), file("other", "/etc/lb/other", 100)];
    assert_eq!(vrrp.files, files);
}

#[test]
fn the_cluster_and_the_fifo() {
    let text = BASE
        .replace(
            "[datapath]",
            "peers = [\"10.0.5.92\", \"2001:db8::2\"]\nport = 9000\nheartbeat = \"50ms\"\n[datapath]",
        )
        .replace("[log]", "[notify]\nfifo = \"/run/lb.fifo\"\n[log]");
    let config = accepted(&text).config;
    assert_eq!(config.vrrp.fifos, [std::path::Path::new("/run/lb.fifo")]);
    let cluster = config.cluster;
    assert_eq!((cluster.peers.len(), cluster.port), (2, 9_000));
    let (heartbeat, patience) = (Duration::from_millis(50), Duration::from_millis(200));
    assert_eq!((cluster.heartbeat, cluster.patience), (heartbeat, patience));
    let cases = [
        (
            "alone",
            "secret = \"hush\"",
            "peers = [\"10.0.5.92\"]",
            "4:9: `peers` without a secret: no heartbeat could be believed",
        ),
        (
            "twice",
            "[datapath]",
            "peers = [\"10.0.5.92\", \"10.0.5.92\"]\n[datapath]",
            "5:23: the address `10.0.5.92` is given twice",
        ),
        ("port", "[datapath]", "port = 65535\n[datapath]", "5:8: `port` is out of range: 65535"),
        (
            "impatient",
            "[datapath]",
            "patience = \"40ms\"\n[datapath]",
            "5:12: `patience` ends before a second heartbeat can come: they are 25ms apart",
        ),
    ];
    super::check(&cases);
}

#[test]
fn secrets_in_files() {
    let text = more("version = 2\nauth_pass_file = \"/etc/lb/pass\"\n")
        + &ROUTER.replace("VI_1", "VI_2").replace("51", "52").replace("5.96", "5.97")
        + "auth_hmac = [{ id = 7, key_file = \"/etc/lb/key\" }, { id = 8, key = \"01234567890123456789012345678901\" }]\nauth_hmac_mode = \"permissive\"\n";
    let mut parsed = accepted(&text);
    let read = |path: &std::path::Path| match path.to_str() {
        Some("/etc/lb/pass") => Ok(b"hush".to_vec()),
        Some("/etc/lb/key") => Ok([b'x'; 32].to_vec()),
        _ => Err("no such file"),
    };
    parsed.read_secrets(read).unwrap();
    assert_eq!(parsed.config.vrrp.routers[0].auth, Auth::Pass(*b"hush\0\0\0\0"));
    let hmac = Hmac {
        keys: vec![
            HmacKey { id: 7, key: vec![b'x'; 32] },
            HmacKey { id: 8, key: b"01234567890123456789012345678901".to_vec() },
        ],
        mode: HmacMode::Permissive,
    };
    assert_eq!(parsed.config.vrrp.routers[1].auth, Auth::Hmac(hmac));

    let mut parsed = accepted(&text);
    let error = parsed.read_secrets(|_| Ok::<_, String>(b"longer than eight".to_vec())).unwrap_err();
    let wrong = "[[vrrp]] VI_1: /etc/lb/pass: a password has 1 to 8 bytes, and this one has 17: shorten it";
    assert_eq!(error, wrong);
    assert_eq!(accepted(&text).read_secrets(|_| Err("gone")), Err("[[vrrp]] VI_1: gone".to_owned()));
}

#[test]
fn the_family_is_that_of_the_addresses() {
    let cases = [
        ("vrid = 51", "vrid = 51", "[\"2001:db8::96/64\"]", Family::V6),
        ("vrid = 51", "vrid = 51", "[\"fe80::96\"]", Family::V6),
        ("vrid = 51", "vrid = 51\nfamily = \"ipv6\"\nnotify = \"/bin/x\"", "[]", Family::V6),
        ("vrid = 51", "vrid = 51\nunicast_peers = [\"2001:db8::2\"]\nnotify = \"/bin/x\"", "[]", Family::V6),
        ("vrid = 51", "vrid = 51\nnotify = \"/bin/x\"", "[]", Family::V4),
    ];
    for (old, new, addresses, expected) in cases {
        let text = ROUTER.replace(old, new).replace("[\"10.0.5.96/20\"]", addresses);
        assert_eq!(routers(&text)[0].family, expected, "{text}");
    }
}

#[test]
fn faults_of_values() {
    let cases = [
        ("no name", "name = \"VI_1\"", "", "20:1: `name` is missing here"),
        ("no vrid", "vrid = 51", "", "20:1: `vrid` is missing here"),
        ("vrid 0", "51", "0", "23:8: `vrid` is out of range: 0"),
        ("vrid 256", "51", "256", "23:8: `vrid` is out of range: 256"),
        ("loopback", "eth0", "lo", "22:13: adverts on `lo` reach nobody"),
        ("priority 0", "250", "0", "24:12: `priority` is out of range: 0"),
        ("priority 1000", "250", "1000", "24:12: `priority` is out of range: 1000"),
        ("prefix", "/20", "/33", "25:14: `33` is not the length of a prefix"),
        ("prefix 0", "/20", "/0", "25:14: `0` is not the length of a prefix"),
        ("no address", "10.0.5.96/20", "vip", "25:14: `vip` is not an IP address"),
        ("multicast", "10.0.5.96/20", "224.0.0.1", "25:14: `224.0.0.1` is a multicast address"),
        (
            "two families",
            "[\"10.0.5.96/20\"]",
            "[\"10.0.5.96\", \"2001:db8::1\"]",
            "25:27: `2001:db8::1` is not IPv4, and adverts carry one family",
        ),
        (
            "a long label",
            "\"10.0.5.96/20\"",
            "{ address = \"10.0.5.96\", label = \"eth0:0123456789abc\" }",
            "25:47: `eth0:0123456789abc` is not a label",
        ),
        (
            "a label of IPv6",
            "\"10.0.5.96/20\"",
            "{ address = \"2001:db8::1\", label = \"eth0:0\" }",
            "25:49: an IPv6 address has no label",
        ),
    ];
    for (name, old, new, expected) in cases {
        only(name, &with(old, new), expected);
    }
}

#[test]
fn faults_of_keys() {
    let key = "auth_hmac = [{ id = 1, key = \"01234567890123456789012345678901\" }";
    let cases = [
        ("accept", "accept = false", "26:10: `accept` in [[vrrp]] is not built yet"),
        ("version", "version = 4", "26:11: `version` is out of range: 4"),
        ("state", "state = \"active\"", "26:9: `active` is not a value of `state`"),
        (
            "v2 100ms",
            "version = 2\nadvert_interval = \"100ms\"",
            "27:19: `advert_interval` is out of range: `100ms`",
        ),
        (
            "v2 1.5s",
            "version = 2\nadvert_interval = \"1s500ms\"",
            "27:19: version 2 has no advert interval of 1.5s",
        ),
        (
            "v2 256s",
            "version = 2\nadvert_interval = \"256s\"",
            "27:19: `advert_interval` is out of range: `256s`",
        ),
        ("v3 15ms", "advert_interval = \"15ms\"", "26:19: version 3 has no advert interval of 15ms"),
        ("v3 41s", "advert_interval = \"41s\"", "26:19: `advert_interval` is out of range: `41s`"),
        ("adverts", "down_timer_adverts = 0", "26:22: `down_timer_adverts` is out of range: 0"),
        (
            "delayed never",
            "preempt = false\npreempt_delay = \"1s\"",
            "27:17: `preempt_delay` means nothing with `preempt = false`",
        ),
        (
            "own peer",
            "source = \"10.0.5.1\"\nunicast_peers = [\"10.0.5.1\"]",
            "27:18: `10.0.5.1` is the own `source`",
        ),
        (
            "peer twice",
            "unicast_peers = [\"10.0.5.1\", \"10.0.5.1\"]",
            "26:30: the peer `10.0.5.1` is taken: steelyard.toml:26 has it already",
        ),
        (
            "peer of IPv6",
            "unicast_peers = [\"2001:db8::1\"]",
            "26:18: `2001:db8::1` is not IPv4, as the adverts are",
        ),
        (
            "ttl",
            "unicast_peers = [{ address = \"10.0.5.1\", ttl_min = 9, ttl_max = 8 }]",
            "26:18: no TTL is from 9 to 8",
        ),
        ("no group", "multicast_group = \"10.0.5.1\"", "26:19: `10.0.5.1` is not a multicast address"),
        (
            "both casts",
            "multicast_group = \"224.0.0.9\"\nunicast_peers = [\"10.0.5.1\"]",
            "26:19: `multicast_group` means nothing with `unicast_peers`",
        ),
        (
            "long password",
            "version = 2\nauth_pass = \"123456789\"",
            "27:13: `auth_pass`: a password has 1 to 8 bytes, and this one has 9: shorten it",
        ),
        (
            "both",
            &format!("auth_pass = \"1111\"\n{key}]"),
            "26:13: a password and `auth_hmac` are both given",
        ),
        ("key id", &format!("{key}, {{ id = 0, key_file = \"/k\" }}]"), "26:75: `id` is out of range: 0"),
        (
            "key id twice",
            &format!("{key}, {{ id = 1, key_file = \"/k\" }}]"),
            "26:75: the key id 1 is taken: steelyard.toml:26 has it already",
        ),
        ("no key", "auth_hmac = [{ id = 1 }]", "26:14: `key` is missing here"),
        ("mode alone", "auth_hmac_mode = \"enforce\"", "26:18: `auth_hmac_mode` without `auth_hmac`"),
        (
            "v2 checksum",
            "version = 2\nchecksum = \"message\"",
            "27:12: `checksum` is for version 3 over IPv4: elsewhere there is one form",
        ),
        (
            "unicast mac",
            "virtual_mac = true\nunicast_peers = [\"10.0.5.1\"]",
            "26:15: unicast adverts cannot leave with the virtual MAC: peers resolve the interface's own",
        ),
        ("no garp", "garp = { times = [] }", "26:18: `times` has 0 entries"),
        ("garp order", "garp = { times = [\"1s\", \"0s\"] }", "26:18: `times` does not ascend"),
        (
            "route",
            "routes = [{ to = \"default\", via = \"2001:db8::1\" }]",
            "26:11: `0.0.0.0/0` and `2001:db8::1` are of different families",
        ),
        ("rule", "rules = [{ table = 1 }]", "26:10: a rule needs the packets that it is for"),
        ("hook", "notify = \"notify.sh\"", "26:10: `notify.sh` is not an absolute path"),
        ("track", "track = [{ weight = 5 }]", "26:10: this entry of `track` names nothing"),
        (
            "track two",
            "track = [{ interface = \"eth1\", service = \"web\" }]",
            "26:10: one entry of `track` names two things",
        ),
        ("weight", "track = [{ service = \"web\", weight = 300 }]", "26:38: `weight` is out of range: 300"),
        (
            "twice",
            "track_interfaces = [\"eth1\", \"eth1\"]",
            "26:29: interface `eth1` is tracked twice: steelyard.toml:26 does already",
        ),
        ("unknown", "track = [{ service = \"wev\" }]", "26:10: no [[service]] is named `wev`"),
        ("unknown script", "track = [{ script = \"x\" }]", "26:10: no [[track_script]] is named `x`"),
        (
            "no list",
            "track_interfaces = \"eth1\"",
            "26:20: `track_interfaces` must be a list of strings or tables, not a string",
        ),
    ];
    for (name, keys, expected) in cases {
        only(name, &more(keys), expected);
    }
}

#[test]
fn faults_between_tables() {
    let second = |old: &str, new: &str| {
        let text = ROUTER.replace("VI_1", "VI_2").replace("51", "52").replace("5.96", "5.97");
        assert_eq!(text.matches(old).count(), 1, "{old:?}");
        more(&text.replace(old, new))
    };
    let cases = [
        (
            "names",
            second("VI_2", "VI_1"),
            "27:8: the router name `VI_1` is taken: steelyard.toml:21 has it already",
        ),
        (
            "vrids",
            second("52", "51"),
            "29:8: the VRID 51 of IPv4 on `eth0` is taken: steelyard.toml:23 has it already",
        ),
        ("addresses", second("5.97", "5.96"), "31:13: `10.0.5.96` is an address of [[vrrp]] `VI_1`, too"),
        (
            "group of nobody",
            more("[[vrrp_group]]\nname = \"G\"\nmembers = [\"VI_2\"]\n"),
            "28:12: no [[vrrp]] is named `VI_2`",
        ),
        (
            "in two groups",
            more(
                "[[vrrp_group]]\nname = \"G\"\nmembers = [\"VI_1\"]\n[[vrrp_group]]\nname = \"H\"\nmembers = [\"VI_1\"]\n",
            ),
            "31:12: the router `VI_1` is taken: steelyard.toml:28 has it already",
        ),
        ("empty group", more("[[vrrp_group]]\nname = \"G\"\nmembers = []\n"), "28:11: `members` is empty"),
        (
            "scripts",
            more(
                "track = [{ script = \"a\" }]\n[[track_script]]\nname = \"a\"\ncommand = \"/a\"\n[[track_script]]\nname = \"a\"\ncommand = \"/b\"\n",
            ),
            "31:8: the script name `a` is taken: steelyard.toml:28 has it already",
        ),
        (
            "the same VRID in IPv6 is another router",
            second("52", "51").replace("\"10.0.5.97/20\"", "\"2001:db8::1\"") + "vrid_ = 1\n",
            "32:1: unknown key `vrid_` in [[vrrp]]",
        ),
    ];
    for (name, text, expected) in cases {
        only(name, &text, expected);
    }
}

#[test]
fn keepalived_has_other_words() {
    let cases = [
        ("virtual_router_id = 51", "its name is `vrid`, in [[vrrp]]"),
        ("advert_int = 1", "its name is `advert_interval`, in [[vrrp]]"),
        ("nopreempt = true", "its name is `preempt`, in [[vrrp]]"),
        ("virtual_ipaddress = []", "its name is `addresses`, in [[vrrp]]"),
        ("unicast_src_ip = \"10.0.5.1\"", "its name is `source`, in [[vrrp]]"),
        ("[[vrrp_instance]]", "its name is `vrrp`, in the file, as a list of tables"),
        ("[[vrrp_script]]", "its name is `track_script`, in the file, as a list of tables"),
    ];
    for (typed, remedy) in cases {
        let errors = refused(&more(&format!("{typed}\n")));
        let remedies: Vec<_> = errors.iter().map(|error| error.remedy.as_str()).collect();
        assert_eq!(remedies, [remedy], "{typed}");
    }
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let slow = "24: a graceful fail-over takes 609 ms here: so long this router waits (Skew_Time) once the active one resigned";
    let cases = [
        ("skew", with("250", "100"), vec![slow]),
        (
            "skew of nodes of ours",
            with("250", "100").replace("[datapath]", "peers = [\"10.0.5.92\"]\n[datapath]"),
            vec![],
        ),
        ("skew of short intervals", with("250", "100\nadvert_interval = \"100ms\""), vec![]),
        (
            "owner",
            with("250", "255\ntrack = [{ service = \"web\", weight = -5 }]"),
            vec!["25: a weight does nothing here: priority 255 owns the addresses, and does not change"],
        ),
        (
            "never preempts",
            more("preempt = false\ntrack = [{ service = \"web\", weight = -5 }]\n"),
            vec![
                "27: a weight moves nothing where no router preempts: the others wait until this one is silent",
            ],
        ),
        (
            "clamped",
            more("track = [{ service = \"web\", weight = 10 }, { datapath = true, weight = -4 }]\n"),
            vec!["26: with all weights the priority is 246 to 260, and 1 to 254 is what there is"],
        ),
        (
            "password",
            more("auth_pass = \"1111\"\n"),
            vec!["26: the password is not used: version 3 has none"],
        ),
        (
            "contradiction",
            more("state = \"master\"\npreempt = false\n"),
            vec!["26: `state = \"master\"` and `preempt = false` contradict each other"],
        ),
        ("mail", more("smtp_alert = true\n"), vec!["26: no mail is sent: [notify] has no `email`"]),
        (
            "idle",
            more("[[track_file]]\nname = \"f\"\nfile = \"/f\"\n"),
            vec!["27: nobody tracks file `f`: it is not looked at"],
        ),
        (
            "no addresses",
            with("[\"10.0.5.96/20\"]", "[]"),
            vec!["20: router `VI_1` has no addresses and tells nobody: becoming active changes nothing"],
        ),
        (
            "label",
            with("\"10.0.5.96/20\"", "{ address = \"10.0.5.96\", label = \"vip\" }"),
            vec![
                "25: the label `vip` does not begin with `eth0`: `ifconfig` and `ip` will not show it there",
            ],
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(warnings(&accepted(&text)), expected, "{name}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let typed = [
        "auth_pass = \"hushhushhush\"",
        "auth_hmac = [\n  { id = 1, key = \"hushhushhush\" },\n]",
        "auth_hmac = [{ id = 1, key = \"hushhushhush\" }]",
    ];
    for keys in typed {
        for error in refused(&more(&format!("version = 2\n{keys}\n"))) {
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
