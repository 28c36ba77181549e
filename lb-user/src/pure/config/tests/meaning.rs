//! What a correct text means, what it only warns of, and how many faults are told at once.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use lb_common::limits;
use proptest::prelude::*;

use super::{BASE, DNS, accepted, refused, shown, with};
use crate::pure::config::{
    Parsed, Source,
    error::{DIAGNOSTICS_MAX, Severity},
    model::{
        Access, Admin, Balance, Cluster, Config, Damping, Datapath, Forward, Global, IdleTimeout, Log,
        NoServer, Notify, Protocol, Secret, Server, Service, XdpMode,
        check::{Check, CheckKind},
        vrrp::{Router, Vrrp},
    },
    network::{Family, Network, Ports},
    parse_files,
};

#[test]
fn nothing_means_the_defaults() {
    let parsed = accepted("");
    let expected = Config {
        global: Global {
            node: None,
            admin_socket: "/run/steelyard/admin.sock".into(),
            state: "/var/lib/steelyard".into(),
        },
        cluster: Cluster {
            secret: Secret::Unset,
            peers: Vec::new(),
            port: 8848,
            heartbeat: Duration::from_millis(25),
            patience: Duration::from_millis(100),
        },
        datapath: Datapath {
            interfaces: Vec::new(),
            mode: XdpMode::Auto,
            flows: limits::FLOWS_DEFAULT,
            nat_source: Vec::new(),
            pin: "/sys/fs/bpf/steelyard".into(),
            watchdog: None,
        },
        log: Log { level: "info".into() },
        notify: Notify {
            command: Vec::new(),
            webhook: None,
            mail: None,
            timeout: Duration::from_secs(10),
            per_minute: 60,
        },
        services: Vec::new(),
        vrrp: Vrrp::default(),
    };
    assert_eq!(parsed.config, expected);
    assert_eq!(parsed.warnings, []);
}

#[test]
fn a_service_fills_in_its_defaults() {
    let text = with("\n[service.check]\ninterval = \"2s\"", "");
    let expected = Service {
        name: "web".into(),
        addresses: vec![host("10.0.5.96")],
        ports: Ports::exact(80),
        protocols: vec![Protocol::Tcp],
        forward: Forward::Nat,
        balance: Balance::Maglev,
        persistence: None,
        slots: limits::SLOTS_DEFAULT,
        idle: IdleTimeout { tcp: Duration::from_secs(900), udp: Duration::from_secs(30) },
        mss: None,
        no_server: NoServer::Reset,
        access: Access::default(),
        check: check(2_000, 1_000),
        slow_start: None,
        panic: 0,
        damping: None,
        suspect_after: 5,
        servers: vec![server("a", "10.0.5.91:8888", 1), server("b", "10.0.5.92:80", 1)],
    };
    assert_eq!(accepted(&text).config.services, [expected]);
}

#[test]
fn a_service_says_everything() {
    let text = r#"
[datapath]
interfaces = ["eth0", "eth1"]
mode = "native"
flows = 1_048_576
nat_source = ["10.0.5.93", "2001:db8::93"]
pin = "/run/bpf/lb"
watchdog = "1m"
[cluster]
secret_file = "/etc/steelyard/secret"
[[service]]
name = "dns"
address = ["10.0.5.97", "10.0.6.0/24", "2001:db8::97"]
port = 53
protocol = "both"
forward = "dsr"
balance = "leastconn"
persistence = "1h"
mss = 1400
allow = ["10.0.0.0/8", "2001:db8::/32"]
deny = ["10.6.6.6"]
idle_timeout = "1m30s"
slots = 512
no_server = "drop"
slow_start = "30s"
panic = 40
damping = { changes = 3, within = "10m", hold = "5m" }
server = [
  { name = "a", address = "10.0.5.91:53", weight = 0 },
  { name = "b", address = "2001:db8::91", backup = true },
]
check = { type = "none", interval = "500ms", timeout = "250ms", rise = 1, fall = 255, port = 8080 }
"#;
    let parsed = accepted(text);
    let minute_and_half = Duration::from_secs(90);
    let expected = Service {
        name: "dns".into(),
        addresses: vec![
            host("10.0.5.97"),
            Network::around("10.0.6.0".parse().unwrap(), 24).unwrap(),
            host("2001:db8::97"),
        ],
        ports: Ports::exact(53),
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        forward: Forward::Dsr,
        balance: Balance::LeastConn,
        persistence: Some(Duration::from_secs(3_600)),
        slots: 512,
        idle: IdleTimeout { tcp: minute_and_half, udp: minute_and_half },
        mss: Some(1_400),
        no_server: NoServer::Drop,
        access: Access {
            allow: ["10.0.0.0", "2001:db8::"]
                .map(|address| {
                    Network::around(address.parse().unwrap(), if address.contains(':') { 32 } else { 8 })
                        .unwrap()
                })
                .into(),
            deny: vec![host("10.6.6.6")],
        },
        check: Check { kind: CheckKind::None, rise: 1, fall: 255, port: Some(8080), ..check(500, 250) },
        slow_start: Some(Duration::from_secs(30)),
        panic: 40,
        damping: Some(Damping {
            changes: 3,
            within: Duration::from_secs(600),
            hold: Duration::from_secs(300),
        }),
        suspect_after: 0,
        servers: vec![
            server("a", "10.0.5.91:53", 0),
            Server { backup: true, ..server("b", "[2001:db8::91]:53", 1) },
        ],
    };
    assert_eq!(parsed.config.services, [expected]);
    assert_eq!(parsed.config.cluster.secret, Secret::File(PathBuf::from("/etc/steelyard/secret")));
    let datapath = Datapath {
        interfaces: vec!["eth0".into(), "eth1".into()],
        mode: XdpMode::Native,
        flows: 1_048_576,
        nat_source: vec![IpAddr::from([10, 0, 5, 93]), "2001:db8::93".parse().unwrap()],
        pin: "/run/bpf/lb".into(),
        watchdog: Some(Duration::from_secs(60)),
    };
    assert_eq!(parsed.config.datapath, datapath);
    assert_eq!(parsed.warnings, []);
}

#[test]
fn the_default_timeout_fits_a_short_interval() {
    let parsed = accepted(&with("interval = \"2s\"", "interval = \"300ms\""));
    assert_eq!(parsed.config.services[0].check, check(300, 300));
}

#[test]
fn the_examples_are_correct() {
    for (name, text) in EXAMPLES {
        let parsed = accepted(text);
        assert_eq!(parsed.warnings, [], "{name}");
        assert!(!parsed.config.services.is_empty(), "{name}");
    }
}

/// Both nodes have everything in common that has to be.
#[test]
fn the_pair_of_the_examples_is_one() {
    let [one, other] = ["ha-pair, one", "ha-pair, the other"].map(|name| {
        let (_, text) = EXAMPLES.iter().find(|(known, _)| *known == name).expect("it is among them");
        accepted(text).config
    });
    assert_ne!((&one.global.node, &one.cluster.peers), (&other.global.node, &other.cluster.peers));
    assert_eq!((&one.cluster.secret, &one.services), (&other.cluster.secret, &other.services));
    let [one, other] = [one, other].map(|config| config.vrrp.routers[0].clone());
    assert!(one.priority > other.priority);
    assert_eq!(Router { priority: other.priority, ..one }, other);
}

#[test]
fn a_server_without_a_port_keeps_the_packets() {
    let cases = [
        ("one port", r#"port = 80"#, r#"forward = "nat""#, 80),
        ("a range", r#"port = "8000-8999""#, r#"forward = "gateway""#, 0),
        ("any port", r#"port = "any""#, r#"forward = "nat""#, 0),
        ("one port, encapsulated", r#"port = 80"#, r#"forward = "gue""#, 80),
        ("any port, encapsulated", r#"port = "any""#, r#"forward = "ipip""#, 0),
        ("a range, dsr", r#"port = "8000-8999""#, r#"forward = "dsr""#, 0),
    ];
    for (name, port, forward, expected) in cases {
        let text = BASE
            .replace(":8888", "")
            .replace("port = 80", port)
            .replace(r#"forward = "nat""#, forward)
            .replace(r#"interval = "2s""#, r#"type = "none""#);
        let service = &accepted(&text).config.services[0];
        assert_eq!(service.servers[1].address.port(), expected, "{name}");
    }
    let with_port = with("port = 80", r#"port = "any""#).replace("10.0.5.92", "10.0.5.92:443");
    let service = &accepted(&with_port).config.services[0];
    assert_eq!(service.servers.iter().map(|server| server.address.port()).collect::<Vec<_>>(), [8_888, 443]);
}

#[test]
fn packets_stay_in_their_family_or_not() {
    let both = |forward: &str| {
        let text = with(r#""10.0.5.96""#, r#"["10.0.5.96", "2001:db8::96"]"#)
            .replace(":8888", "")
            .replace("10.0.5.92", "2001:db8::92")
            .replace("\"nat\"", &format!("\"{forward}\""));
        accepted(&text)
    };
    for (forward, rings) in [("nat", 2), ("gateway", 2), ("dsr", 2), ("ipip", 1), ("gue", 1)] {
        let Parsed { config, warnings, .. } = both(forward);
        assert_eq!(warnings, [], "{forward}");
        assert_eq!(config.services[0].rings().len(), rings, "{forward}");
    }
    for (service, server) in [("10.0.5.96", "2001:db8::91"), ("2001:db8::96", "10.0.5.91")] {
        let text = BASE
            .replace("10.0.5.96", service)
            .replace("\"10.0.5.91:8888\"", &format!("\"{server}\""))
            .replace(", address = \"10.0.5.92\"", ", address = \"10.0.5.92\", weight = 0")
            .replace("\"nat\"", "\"gue\"");
        assert_eq!(accepted(&text).warnings, [], "{service} to {server}");
    }
}

#[test]
fn access_is_open_to_those_it_does_not_name() {
    let cases = [
        ("", true, true),
        (r#"allow = "0.0.0.0/0""#, true, false),
        (r#"allow = ["0.0.0.0/0", "::/0"]"#, true, true),
        (r#"allow = ["10.0.0.0/8", "::/0"]"#, false, true),
        (r#"deny = ["10.0.0.0/8"]"#, false, true),
        (r#"deny = []"#, true, true),
        ("allow = [\"0.0.0.0/0\", \"::/0\"]\ndeny = [\"2001:db8::1\"]", true, false),
    ];
    for (keys, v4, v6) in cases {
        let access = &accepted(&with("port = 80", &format!("port = 80\n{keys}"))).config.services[0].access;
        assert_eq!((access.is_open(Family::V4), access.is_open(Family::V6)), (v4, v6), "{keys}");
    }
}

#[test]
fn warnings() {
    let cases = [
        ("no secret", with("secret = \"hush\"", ""), "3:1: no cluster secret"),
        ("no secret, no table", with("[cluster]\nsecret = \"hush\"\n", ""), "1:1: no cluster secret"),
        (
            "no servers",
            format!("{BASE}{}", DNS.replace("{ name = \"a\", address = \"10.0.5.95\" }", "")),
            "21:8: service `dns` has no servers",
        ),
        (
            "no server of a family",
            with(r#""10.0.5.96""#, r#"["10.0.5.96", "2001:db8::96"]"#),
            "11:25: clients of 2001:db8::96 are refused: service `web` has no IPv6 server",
        ),
        (
            "no allowed client of a family",
            with(
                "\"10.0.5.96\"\nport = 80\nforward = \"nat\"",
                "[\"10.0.5.96\", \"2001:db8::96\"]\nport = 80\nforward = \"ipip\"\nallow = [\"10.0.0.0/8\"]",
            )
            .replace(":8888", ""),
            "11:25: clients of 2001:db8::96 are refused: `allow` has no IPv6 network",
        ),
        (
            "mss of udp",
            format!("{BASE}{}check = {{ type = \"none\" }}\nmss = 1400\n", DNS.replace("both", "udp")),
            "28:7: `mss` means nothing",
        ),
        ("udp by tcp", format!("{BASE}{}", DNS.replace("both", "udp")), "21:8: service `dns` is udp only"),
        (
            "tcp by udp",
            with("interval = \"2s\"", "type = \"udp\""),
            "10:8: service `web` is tcp only, and its servers are checked over udp",
        ),
        (
            "a sender without mail",
            with("[log]", "[notify]\nemail_from = \"lb@example.com\"\n[log]"),
            "8:14: no mail is sent: `email` is missing",
        ),
    ];
    for (name, text, expected) in cases {
        let warnings = accepted(&text).warnings;
        assert_eq!(warnings.len(), 1, "{name}: {}", shown(&warnings));
        let warning = &warnings[0];
        assert_eq!(warning.severity, Severity::Warning, "{name}");
        let found = format!("{}:{}: {}", warning.line, warning.column, warning.message);
        assert!(found.starts_with(expected), "{name}: {found}");
    }
}

#[test]
fn a_diagnostic_shows_its_line() {
    let errors = refused(&with("port = 80", "port = 80\n\tprotocl = \"tcp\""));
    let expected = "\
steelyard.toml:13:2: error: unknown key `protocl` in [[service]]
   |
13 |     protocl = \"tcp\"
   |     ^^^^^^^
help: did you mean `protocol`?";
    assert_eq!(errors[0].to_string(), expected);
}

#[test]
fn many_faults_at_once_in_order() {
    let text = BASE
        .replace("\"lb1\"", "\"l b\"")
        .replace("\"hush\"", "hush")
        .replace("[\"eth0\"]", "[]")
        .replace("port = 80", "port = 0\nslots = 3")
        .replace("\"nat\"", "\"gre\"")
        .replace("\"b\"", "\"a\"")
        .replace("interval", "intervall");
    let lines: Vec<usize> = refused(&text).iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 4, 12, 13, 14, 17, 20]);
}

#[test]
fn a_misspelt_key_is_not_also_missing() {
    let errors = refused(&with("address = \"10.0.5.96\"", "addres = \"10.0.5.96\""));
    assert_eq!(errors.len(), 1, "{}", shown(&errors));
    assert_eq!(errors[0].remedy, "did you mean `address`?");
}

#[test]
fn too_many_faults_are_counted() {
    let errors = refused(&"[[service]]\n".repeat(200));
    assert_eq!(errors.len(), DIAGNOSTICS_MAX + 1);
    let last = &errors[DIAGNOSTICS_MAX];
    assert_eq!(last.message, format!("and {} more from here on", 4 * 200 + 1 - DIAGNOSTICS_MAX));
}

#[test]
fn secrets_are_never_shown() {
    let cases = [
        with("secret = \"hush\"", "secret = hush"),
        with("secret = \"hush\"", "secret \"hush\""),
        with("secret = \"hush\"", "secre = \"hush\""),
        with("secret = \"hush\"", "secret = \"\"\"\nhush\\q\"\"\""),
        with("[cluster]\nsecret = \"hush\"", "[cluster] secret = \"hush\""),
        with("[cluster]\nsecret = \"hush\"", "")
            .replace("[global]", "cluster = { secret = \"hush\", x = 1 }\n[global]"),
        with("[cluster]\nsecret = \"hush\"", "").replace("[global]", "cluster.secert = \"hush\"\n[global]"),
        with("[cluster]\nsecret = \"hush\"", "secret = \"hush\""),
        with("[log]", "[notify]\nwebhook = \"ftp://example.com/hush\"\n[log]"),
        with("interval = \"2s\"", "type = \"http\"\nheaders = { Authorization = \"hush\\n\" }"),
    ];
    for text in cases {
        let errors = shown(&refused(&text));
        assert!(!errors.contains("hush"), "{errors}");
    }
}

#[test]
fn a_long_line_is_cut() {
    let text = with("node = \"lb1\"", &format!("node = \"{}\"", "x".repeat(100_000)));
    assert!(shown(&refused(&text)).len() < 1_000);
}

#[test]
fn several_files_are_one_configuration() {
    let sources = [Source { name: "10-base.toml", text: BASE }, Source { name: "20-dns.toml", text: DNS }];
    let parsed = parse_files(&sources).expect("both are correct");
    let names: Vec<&str> = parsed.config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web", "dns"]);
    assert_eq!(parse_files(&[]).expect("no file is no fault").config, accepted("").config);
}

#[test]
fn faults_between_files_name_both() {
    let second = format!("[global]\nnode = \"lb2\"\n{}", DNS.replace("\"dns\"", "\"web\""));
    let sources = [Source { name: "a.toml", text: BASE }, Source { name: "b.toml", text: &second }];
    let errors = parse_files(&sources).expect_err("[global] and a name are given twice");
    let found: Vec<String> =
        errors.iter().map(|error| format!("{}:{}: {}", error.file, error.line, error.message)).collect();
    assert_eq!(
        found,
        [
            "b.toml:1: `[global]` is given in two files: a.toml:1 has it already",
            "b.toml:4: the service name `web` is taken: a.toml:10 has it already",
        ]
    );
}

#[test]
fn limits_are_told_once() {
    let services = limits::SERVICES_MAX as usize;
    let mut text = String::from(BASE);
    for number in 0..services {
        let [high, low] = (number as u16).to_be_bytes();
        text += &format!(
            "[[service]]\nname = \"s{number}\"\naddress = \"10.1.{high}.{low}\"\nport = 80\nforward = \"nat\"\nserver = []\n"
        );
    }
    let found: Vec<String> = refused(&text).iter().map(|error| error.message.clone()).collect();
    let last = services - 1;
    assert_eq!(
        found,
        [
            "from service `s2047` on, the services have more than 33554432 slots".to_string(),
            format!(
                "from service `s{last}` on, the services have more than 4096 addresses (each protocol of an address counts)"
            ),
            format!("from service `s{last}` on, the services have more than 4096 entries"),
        ]
    );
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}|[\\x00-\\x7f]{0,200}") {
        answered(&text);
    }

    /// Pieces of correct text in any order reach further than noise does.
    #[test]
    fn any_pieces_are_answered(pieces in prop::collection::vec(0..PIECES.len(), 0..40)) {
        answered(&pieces.into_iter().map(|piece| PIECES[piece]).collect::<String>());
    }

    #[test]
    fn any_damage_is_answered(at in 0..BASE.len(), len in 0..40_usize, new in "\\PC{0,5}") {
        let end = (at + len).min(BASE.len());
        answered(&format!("{}{new}{}", &BASE[..at], &BASE[end..]));
    }
}

/// Refused with a reason for each fault, or accepted; never a panic.
fn answered(text: &str) {
    if let Err(errors) = crate::pure::config::parse("steelyard.toml", text) {
        assert!(!errors.is_empty());
        let lines = text.split('\n').count();
        for error in &errors {
            assert!(error.severity == Severity::Error && error.line <= lines, "{error}");
            assert!(!error.message.is_empty() && !error.remedy.is_empty(), "{error}");
        }
    }
}

const EXAMPLES: [(&str, &str); 6] = [
    ("steelyard", include_str!("../../../../../examples/steelyard.toml")),
    ("gateway", include_str!("../../../../../examples/gateway.toml")),
    ("ipip", include_str!("../../../../../examples/ipip.toml")),
    ("gue", include_str!("../../../../../examples/gue.toml")),
    ("ha-pair, one", include_str!("../../../../../examples/ha-pair/lb1.toml")),
    ("ha-pair, the other", include_str!("../../../../../examples/ha-pair/lb2.toml")),
];

const PIECES: [&str; 72] = [
    "[global]",
    "[cluster]",
    "[datapath]",
    "[[service]]",
    "[service.check]",
    "[log]",
    "[notify]",
    "[[vrrp]]\n",
    "[[vrrp_group]]\n",
    "[[track_script]]\n",
    "[[track_process]]\n",
    "[[track_file]]\n",
    "vrid = 51\n",
    "version = 2\n",
    "interface = \"eth0\"\n",
    "addresses = [\"10.0.5.96/20\", { address = \"fe80::1\" }]\n",
    "track = [{ script = \"a\", weight = -1 }]\n",
    "members = [\"a\"]\n",
    "auth_hmac = [{ id = 1, key = \"hex:0\" }]\n",
    "virtual_mac = true\n",
    "garp = { times = [\"1s\"] }\n",
    "peers = [\"10.0.5.92\"]\n",
    "routes = [{ to = \"default\" }]\n",
    "type = \"https\"\n",
    "type = \"udp\"\n",
    "type = \"dns\"\n",
    "type = \"script\"\n",
    "headers",
    "host",
    "expect",
    "expect_regex",
    "send_hex",
    "dialogue",
    "verify",
    "ca_file",
    "query",
    "command",
    "email",
    "webhook",
    "damping",
    "\n",
    "\n",
    "\n",
    "name",
    "address",
    "port",
    "server",
    "interval",
    "interfaces",
    " = ",
    "=",
    ".",
    ",",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\"web\"",
    "\"10.0.5.96\"",
    "\"2001:db8::/32\"",
    "\"80-90\"",
    "forward",
    "\"ipip\"",
    "allow",
    "true",
    "80",
    "\"2s\"",
    "\"\"\"",
    "'",
    "#",
    "é",
];

fn check(interval_ms: u64, timeout_ms: u64) -> Check {
    let interval = Duration::from_millis(interval_ms);
    Check {
        interval,
        fast_interval: interval,
        down_interval: interval,
        timeout: Duration::from_millis(timeout_ms),
        ..Check::of(CheckKind::Tcp(Vec::new()))
    }
}

fn server(name: &str, address: &str, weight: u16) -> Server {
    let address = address.parse().expect("an address with a port");
    Server { name: name.into(), address, weight, backup: false, admin: Admin::Ready }
}

fn host(address: &str) -> Network {
    Network::host(address.parse().expect("an address"))
}
