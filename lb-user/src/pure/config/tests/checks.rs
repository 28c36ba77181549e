//! `[service.check]`: what each type means, and its faults one at a time.

use std::{net::IpAddr, time::Duration};

use super::{DNS, accepted, check, only, with};
use crate::pure::{
    config::model::check::{
        Check, CheckKind, Dns, Exchange, Grpc, Http, Pattern, ProxyHeader, Script, StartState, Through, Tls,
        Udp, Verify,
    },
    dialogue,
};

const HERE: &str = r#"interval = "2s""#;

/// The check that these keys make.
fn checked(keys: &str) -> Check {
    accepted(&with(HERE, keys)).config.services.swap_remove(0).check
}

fn kind(keys: &str) -> CheckKind {
    checked(keys).kind
}

/// Faults of keys that stand alone in the check, whose first line is 19.
fn refused(cases: &[(&str, &str)]) {
    for (keys, expected) in cases {
        check(&[(keys, HERE, keys, expected)]);
    }
}

#[test]
fn what_every_check_may_say() {
    let second = Duration::from_secs(1);
    let text = r#"type = "tcp"
interval = "10s"
fast_interval = "1s"
down_interval = "1m"
timeout = "500ms"
rise = 2
fall = 1
start = "down"
spread = 50
address = "10.0.9.1"
port = 8081
source = "10.0.9.2"
proxy_header = "v2""#;
    let expected = Check {
        kind: CheckKind::Tcp(Vec::new()),
        through: Through::Direct,
        interval: 10 * second,
        fast_interval: second,
        down_interval: 60 * second,
        timeout: second / 2,
        rise: 2,
        fall: 1,
        start: StartState::Down,
        spread: 50,
        address: Some(IpAddr::from([10, 0, 9, 1])),
        port: Some(8081),
        source: Some(IpAddr::from([10, 0, 9, 2])),
        proxy_header: Some(ProxyHeader::V2),
    };
    assert_eq!(checked(text), expected);
}

#[test]
fn times_follow_each_other() {
    let ms = Duration::from_millis;
    let cases = [
        ("interval = \"5s\"", [5_000, 5_000, 5_000, 1_000]),
        ("interval = \"5s\"\nfast_interval = \"300ms\"", [5_000, 300, 5_000, 300]),
        ("down_interval = \"100ms\"", [2_000, 2_000, 100, 100]),
        ("down_interval = \"30s\"", [2_000, 2_000, 30_000, 1_000]),
        ("fast_interval = \"3s\"\ntimeout = \"2s\"", [2_000, 3_000, 2_000, 2_000]),
    ];
    for (keys, expected) in cases {
        let check = checked(keys);
        let found = [check.interval, check.fast_interval, check.down_interval, check.timeout];
        assert_eq!(found, expected.map(ms), "{keys}");
    }
}

#[test]
fn http() {
    let plain = Http {
        tls: None,
        method: "GET".into(),
        uri: "/".into(),
        host: None,
        headers: Vec::new(),
        body: Vec::new(),
        status: vec![200..=399],
        body_matches: None,
    };
    let https = |tls: Tls| Http { tls: Some(tls), ..plain.clone() };
    assert_eq!(kind(r#"type = "http""#), CheckKind::Http(plain.clone()));
    assert_eq!(kind(r#"type = "https""#), CheckKind::Http(https(plain_tls())));

    let said = r#"type = "http"
method = "POST"
uri = "/healthz?deep=1"
host = "www.example.com:8080"
headers = { "X-Check" = "a b", Authorization = "Basic eDp5" }
body = "ping"
expect = "200-299, 401"
expect_body = "it's (ok)""#;
    let all = Http {
        method: "POST".into(),
        uri: "/healthz?deep=1".into(),
        host: Some("www.example.com:8080".into()),
        headers: vec![("Authorization".into(), "Basic eDp5".into()), ("X-Check".into(), "a b".into())],
        body: b"ping".to_vec(),
        status: vec![200..=299, 401..=401],
        body_matches: Some(Pattern::literal("it's (ok)").expect("a literal")),
        ..plain.clone()
    };
    assert_eq!(kind(said), CheckKind::Http(all));

    let by_regex = "type = \"http\"\nexpect_regex = '\"status\": *\"up\"'";
    let body_matches = Some(Pattern::new("\"status\": *\"up\"").expect("an expression"));
    assert_eq!(kind(by_regex), CheckKind::Http(Http { body_matches, ..plain }));
}

#[test]
fn a_server_is_asked_for_by_its_host() {
    let cases = [
        (r#"host = "www.example.com:8443""#, Some("www.example.com")),
        ("host = \"www.example.com\"\nserver_name = \"example.org\"", Some("example.org")),
        (r#"host = "10.0.5.96:8443""#, None),
        (r#"host = "[2001:db8::1]:8443""#, None),
    ];
    for (keys, expected) in cases {
        let CheckKind::Http(Http { tls: Some(tls), .. }) = kind(&format!("type = \"https\"\n{keys}")) else {
            panic!("{keys}: no https");
        };
        assert_eq!(tls.server_name.as_deref(), expected, "{keys}");
    }
}

#[test]
fn tls() {
    assert_eq!(kind(r#"type = "tls""#), CheckKind::Tls(plain_tls()));
    let said = r#"type = "tls"
server_name = "imap.example.com"
ca_file = "/etc/steelyard/ca.pem"
alpn = ["imap"]
expiry_warning = "0s""#;
    let all = Tls {
        server_name: Some("imap.example.com".into()),
        verify: Verify::File("/etc/steelyard/ca.pem".into()),
        alpn: vec!["imap".into()],
        expiry_warning: Duration::ZERO,
    };
    assert_eq!(kind(said), CheckKind::Tls(all));
    for (word, verify) in [("none", Verify::None), ("system", Verify::System)] {
        let expected = CheckKind::Tls(Tls { verify, ..plain_tls() });
        assert_eq!(kind(&format!("type = \"tls\"\nverify = \"{word}\"")), expected);
    }
}

#[test]
fn grpc() {
    let plain = Grpc { tls: None, service: String::new() };
    assert_eq!(kind(r#"type = "grpc""#), CheckKind::Grpc(plain.clone()));
    assert_eq!(kind("type = \"grpc\"\ntls = false"), CheckKind::Grpc(plain));
    let said = "type = \"grpc\"\nservice = \"shop.Cart\"\ntls = true\nverify = \"system\"";
    let tls = Tls { verify: Verify::System, alpn: vec!["h2".into()], ..plain_tls() };
    assert_eq!(kind(said), CheckKind::Grpc(Grpc { tls: Some(tls), service: "shop.Cart".into() }));
}

#[test]
fn dialogues() {
    let said = r#"type = "tcp"
dialogue = [
  { expect_regex = '^\* OK' },
  { send = "a LOGOUT\r\n" },
  { send_hex = "0d 0a" },
  { expect = "* BYE" },
]"#;
    let moves = vec![
        Exchange::Expect(Pattern::new(r"^\* OK").expect("an expression")),
        Exchange::Send(b"a LOGOUT\r\n".to_vec()),
        Exchange::Send(b"\r\n".to_vec()),
        Exchange::Expect(Pattern::literal("* BYE").expect("a literal")),
    ];
    let ready_made = [
        (r#"type = "smtp""#, dialogue::smtp("localhost")),
        ("type = \"smtp\"\nhelo = \"lb1.example.com\"", dialogue::smtp("lb1.example.com")),
        (r#"type = "redis""#, dialogue::redis()),
        (r#"type = "mysql""#, dialogue::mysql(None)),
        ("type = \"mysql\"\nuser = \"lb\"", dialogue::mysql(Some("lb"))),
        ("type = \"postgresql\"\nuser = \"lb\"", dialogue::postgresql("lb")),
        (said, moves),
    ];
    for (keys, expected) in ready_made {
        assert_eq!(kind(keys), CheckKind::Tcp(expected), "{keys}");
    }
}

#[test]
fn datagrams_programs_and_agents() {
    let both = |keys: &str| {
        let text = with("port = 80", "port = 80\nprotocol = \"both\"").replace(HERE, keys);
        accepted(&text).config.services.swap_remove(0).check.kind
    };
    let dns = |record, expect: Option<&str>| {
        let expect = expect.map(|address| address.parse().expect("an address"));
        CheckKind::Dns(Dns { query: "www.example.com".into(), record, expect })
    };
    let ask = "type = \"dns\"\nquery = \"www.example.com\"";
    let command = vec!["/usr/local/bin/check".into(), "web".into()];
    let cases = [
        (r#"type = "none""#.into(), CheckKind::None),
        (r#"type = "icmp""#.into(), CheckKind::Icmp),
        (r#"type = "udp""#.into(), CheckKind::Udp(Udp { send: Vec::new(), expect: None })),
        (
            "type = \"udp\"\nsend_hex = \"ff00\"\nexpect = \"pong\"".into(),
            CheckKind::Udp(Udp { send: vec![0xff, 0], expect: Pattern::literal("pong").ok() }),
        ),
        (ask.into(), dns(1, None)),
        (format!("{ask}\nrecord = \"MX\""), dns(15, None)),
        (format!("{ask}\nexpect = \"10.0.5.96\""), dns(1, Some("10.0.5.96"))),
        (format!("{ask}\nexpect = \"2001:db8::1\""), dns(28, Some("2001:db8::1"))),
        (format!("{ask}\nrecord = \"ANY\"\nexpect = \"2001:db8::1\""), dns(255, Some("2001:db8::1"))),
        (
            "type = \"script\"\ncommand = \"/usr/local/bin/check  web\"\nuser = \"nobody\"".into(),
            CheckKind::Script(Script { command, user: Some("nobody".into()) }),
        ),
        ("type = \"agent\"\nport = 5555".into(), CheckKind::Agent { send: Vec::new() }),
        (
            "type = \"agent\"\nport = 5555\nsend = \"web1\\n\"".into(),
            CheckKind::Agent { send: b"web1\n".to_vec() },
        ),
    ];
    for (keys, expected) in cases {
        assert_eq!(both(&keys), expected, "{keys}");
    }
}

#[test]
fn keys_are_for_some_types_only() {
    refused(&[
        ("uri = \"/\"", "19:7: `uri` means nothing to `type = \"tcp\"`"),
        ("send = \"x\"", "19:8: `send` means nothing to `type = \"tcp\"`"),
        ("type = \"http\"\nsend = \"x\"", "20:8: `send` means nothing to `type = \"http\"`"),
        ("type = \"http\"\nverify = \"none\"", "20:10: `verify` means nothing to `type = \"http\"`"),
        ("type = \"tls\"\nhost = \"x\"", "20:8: `host` means nothing to `type = \"tls\"`"),
        ("type = \"icmp\"\nport = 7", "20:8: `port` means nothing to `type = \"icmp\"`"),
        (
            "type = \"icmp\"\nproxy_header = \"v1\"",
            "20:16: `proxy_header` means nothing to `type = \"icmp\"`",
        ),
        ("type = \"redis\"\nuser = \"x\"", "20:8: `user` means nothing to `type = \"redis\"`"),
        ("type = \"grpc\"\nalpn = [\"h2\"]", "20:8: `alpn` means nothing to `type = \"grpc\"`"),
        ("type = \"grpc\"\nca_file = \"/ca.pem\"", "20:11: `ca_file` means nothing to a grpc check in clear"),
        ("type = \"none\"\nquery = \"x\"", "20:9: `query` means nothing to `type = \"none\"`"),
        (
            "type = \"script\"\ncommand = \"/x\"\nsource = \"10.0.5.93\"",
            "21:10: `source` means nothing to `type = \"script\"`",
        ),
    ]);
    let remedies = [
        ("uri = \"/\"", "remove it, or set `type` to \"http\" or \"https\""),
        ("send = \"x\"", "write it as a move: `dialogue = [{ send = .. }]`"),
        ("type = \"icmp\"\nport = 7", "remove it; it is for every type but \"icmp\""),
    ];
    for (keys, remedy) in remedies {
        assert_eq!(super::refused(&with(HERE, keys))[0].remedy, remedy, "{keys}");
    }
}

#[test]
fn faults_of_every_check() {
    refused(&[
        ("type = \"htp\"", "19:8: `htp` is not a value of `type`"),
        ("fast_interval = \"9ms\"", "19:17: `fast_interval` is out of range: `9ms`"),
        ("down_interval = \"61m\"", "19:17: `down_interval` is out of range: `61m`"),
        (
            "fast_interval = \"500ms\"\ntimeout = \"1s\"",
            "20:11: `timeout` is longer than `fast_interval`: the next check would start before this one ends",
        ),
        ("start = \"on\"", "19:9: `on` is not a value of `start`"),
        ("spread = 51", "19:10: `spread` is out of range: 51"),
        ("address = \"web1\"", "19:11: `web1` is not an IP address"),
        ("source = \"10.0.5.93:80\"", "19:10: `10.0.5.93:80` has a port, which does not belong here"),
        (
            "source = \"2001:db8::93\"",
            "19:10: no check can go from 2001:db8::93 to 10.0.5.91, an IPv4 address",
        ),
        ("proxy_header = \"v3\"", "19:16: `v3` is not a value of `proxy_header`"),
        ("through = \"tunnel\"", "19:11: `tunnel` is not a value of `through`"),
        ("through = \"datapath\"", "19:11: `through = \"datapath\"` means nothing to `forward = \"nat\"`"),
    ]);
}

#[test]
fn the_data_path_takes_some_checks() {
    let dsr = |keys: &str| with("\"nat\"", "\"dsr\"").replace(":8888", "").replace(HERE, keys);
    let kinds = [
        "type = \"tcp\"",
        "type = \"udp\"\nport = 81\nexpect = \"x\"",
        "type = \"https\"",
        "type = \"agent\"\nport = 5555",
    ];
    for keys in kinds {
        let text = dsr(&format!("through = \"datapath\"\n{keys}"));
        assert_eq!(accepted(&text).config.services[0].check.through, Through::Datapath, "{keys}");
    }
    for kind in ["icmp", "none", "script\"\ncommand = \"/x"] {
        let name = kind.split('"').next().unwrap_or_default();
        let text = dsr(&format!("through = \"datapath\"\ntype = \"{kind}\""));
        only(name, &text, &format!("19:11: `through = \"datapath\"` means nothing to `type = \"{name}\"`"));
    }
    only(
        "silence",
        &dsr("through = \"datapath\"\ntype = \"udp\"\nport = 81"),
        "19:11: a udp check through the data path needs an answer: silence would pass wherever the packet went",
    );
    only(
        "address",
        &dsr("through = \"datapath\"\naddress = \"10.0.9.1\""),
        "20:11: `address` and `through = \"datapath\"` (steelyard.toml:19) are both given",
    );
}

#[test]
fn a_request_stays_one_request() {
    let cases = [
        ("method = \"GET / HTTP/1.1\\r\\n\"", "20:10: `GET / HTTP/1.1  ` is not an HTTP method"),
        ("method = \"\"", "20:10: `` is not an HTTP method"),
        ("method = \"get\"", "20:10: the method `get` is in small letters"),
        ("method = \"CONNECT\"", "20:10: `CONNECT` asks for a tunnel, not for an answer"),
        ("uri = \"http://x/\"", "20:7: `http://x/` is not a path"),
        ("uri = \"/a b\"", "20:7: `/a b` cannot stand in a request"),
        ("uri = \"/\\r\\nX: y\"", "20:7: `/  X: y` cannot stand in a request"),
        ("uri = \"/#top\"", "20:7: `/#top` cannot stand in a request"),
        ("host = \"a\\r\\nX: y\"", "20:8: `a  X: y` is not a host"),
        ("host = \"me@there\"", "20:8: `me@there` is not a host"),
        ("host = \"\"", "20:8: `` is not a host"),
        ("headers = { \"X A\" = \"b\" }", "20:13: `X A` is not the name of a header"),
        ("headers = { \"X\\r\\nY\" = \"b\" }", "20:13: `X  Y` is not the name of a header"),
        (
            "headers = { X = \"b\\r\\nY: c\" }",
            "20:17: the value of this header cannot stand in one line of a request",
        ),
        ("headers = { Host = \"b\" }", "20:13: `headers` cannot set the host"),
        (
            "headers = { Content-Length = \"9\" }",
            "20:13: `content-length` says where a request ends, which the check sees to itself",
        ),
        ("headers = { X = 1 }", "20:17: `headers` must be a table of strings, not an integer"),
        ("headers = \"X: b\"", "20:11: `headers` must be a table of strings, not a string"),
        ("expect = \"200-\"", "20:10: `200-` is neither a status nor a range of them"),
        ("expect = 200", "20:10: `expect` must be a string, not an integer"),
        ("expect_regex = \"(\"", "20:16: `(` is not a regular expression: unclosed group"),
        ("expect_body = \"\"", "20:15: an empty text is in every answer"),
        (
            "expect_body = \"a\"\nexpect_regex = \"b\"",
            "21:16: `expect_regex` and `expect_body` (steelyard.toml:20) are both given",
        ),
        ("method = \"HEAD\"\nexpect_body = \"a\"", "21:15: an answer to `HEAD` has no body"),
    ];
    for (keys, expected) in cases {
        refused(&[(&format!("type = \"http\"\n{keys}"), expected)]);
    }
}

#[test]
fn faults_of_tls() {
    let cases = [
        (
            "server_name = \"10.0.5.96\"",
            "20:15: `10.0.5.96` is an address: a server is asked for by its name",
        ),
        ("server_name = \"a b\"", "20:15: `a b` is not the name of a server"),
        ("verify = \"required\"", "20:10: `required` is not a value of `verify`"),
        ("verify = \"/ca.pem\"", "20:10: `/ca.pem` is not a value of `verify`"),
        ("ca_file = \"ca.pem\"", "20:11: `ca.pem` is not an absolute path"),
        (
            "verify = \"system\"\nca_file = \"/ca.pem\"",
            "21:11: `ca_file` and `verify` (steelyard.toml:20) are both given",
        ),
        ("alpn = [\"h3\"]", "20:9: `h3` is not a protocol that an https check speaks"),
        ("alpn = [\"h2\", \"h2\"]", "20:15: the protocol `h2` is given twice"),
        ("expiry_warning = \"366d\"", "20:18: `expiry_warning` is out of range: `366d`"),
    ];
    for (keys, expected) in cases {
        refused(&[(&format!("type = \"https\"\n{keys}"), expected)]);
    }
}

#[test]
fn faults_of_the_others() {
    let many = format!("dialogue = [{}]", "{ send = \"a\" },".repeat(33));
    let long = format!("dialogue = [{{ send = \"{}\" }}]", "a".repeat(4_097));
    refused(&[
        ("dialogue = [{}]", "19:13: this move is empty"),
        ("dialogue = [{ send = \"\" }]", "19:13: this move sends nothing"),
        ("dialogue = [{ expct = \"a\" }]", "19:15: unknown key `expct` in `dialogue`"),
        ("dialogue = [{ send = \"a\", expect = \"b\" }]", "19:13: this move both sends and waits"),
        (
            "dialogue = [{ send = \"a\", send_hex = \"0b\" }]",
            "19:38: `send_hex` and `send` (steelyard.toml:19) are both given",
        ),
        ("dialogue = [{ send_hex = \"0\" }]", "19:26: `0` is not a row of bytes"),
        ("dialogue = [\"PING\"]", "19:13: `dialogue` must be a list of tables, not a string"),
        (&many, "19:493: `dialogue` has 33 moves"),
        (&long, "19:22: 4097 bytes are more than a check needs"),
        ("type = \"smtp\"\nhelo = \"a\\r\\nDATA\"", "20:8: `a  DATA` is not a name"),
        ("type = \"postgresql\"", "18:1: `user` is missing here"),
        ("type = \"postgresql\"\nuser = \"a\\u0000b\"", "20:8: `a b` is not a name"),
        ("type = \"dns\"", "18:1: `query` is missing here"),
        ("type = \"dns\"\nquery = \"a b\"", "20:9: `a b` is not a domain name"),
        ("type = \"dns\"\nquery = \"a..b\"", "20:9: `a..b` is not a domain name"),
        ("type = \"dns\"\nquery = \"a\"\nrecord = \"AAA\"", "21:10: `AAA` is not a value of `record`"),
        ("type = \"dns\"\nquery = \"a\"\nexpect = \"b\"", "21:10: `b` is not an IP address"),
        (
            "type = \"dns\"\nquery = \"a\"\nrecord = \"MX\"\nexpect = \"10.0.0.1\"",
            "22:10: `10.0.0.1` cannot be in the answer: records of this type do not hold it",
        ),
        ("type = \"script\"", "18:1: `command` is missing here"),
        ("type = \"script\"\ncommand = []", "20:11: `command` is empty"),
        ("type = \"script\"\ncommand = \"check.sh\"", "20:11: `check.sh` is not an absolute path"),
        ("type = \"script\"\ncommand = [\"/x\", \"a\\u0000\"]", "20:18: `a ` cannot be handed to a program"),
        ("type = \"agent\"", "18:1: `port` is missing here: an agent has one of its own"),
    ]);
}

#[test]
fn a_datagram_needs_a_port_too() {
    let text = DNS.replace("port = 53", "port = \"50-59\"") + "check = { type = \"dns\", query = \"a\" }\n";
    only(
        "dns",
        &format!("{}{text}", super::BASE),
        "26:35: no port to check: service `dns` has port 50-59, and the server none",
    );
}

/// What a configuration that says nothing of TLS means.
fn plain_tls() -> Tls {
    Tls {
        server_name: None,
        verify: Verify::None,
        alpn: Vec::new(),
        expiry_warning: Duration::from_secs(14 * 24 * 60 * 60),
    }
}
