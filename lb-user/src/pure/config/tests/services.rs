//! One fault at a time in a `[[service]]`: where it is reported, and how.

use std::time::Duration;

use super::{accepted, check, only, with};
use crate::pure::config::model::Damping;

#[test]
fn addresses() {
    check(&[
        (
            "address no address",
            r#""10.0.5.96""#,
            r#""www.example.com""#,
            "11:11: `www.example.com` is not an IP address",
        ),
        (
            "address with port",
            r#""10.0.5.96""#,
            r#""10.0.5.96:8080""#,
            "11:11: `10.0.5.96:8080` has a port, which does not belong here",
        ),
        (
            "address twice",
            r#""10.0.5.96""#,
            r#"["10.0.5.96", "10.0.5.96"]"#,
            "11:25: the address `10.0.5.96` is given twice",
        ),
        (
            "address unspecified",
            r#""10.0.5.96""#,
            r#""0.0.0.0""#,
            "11:11: `0.0.0.0` is the unspecified address",
        ),
        ("address loopback", r#""10.0.5.96""#, r#""127.0.0.1""#, "11:11: `127.0.0.1` is a loopback address"),
        (
            "address multicast",
            r#""10.0.5.96""#,
            r#""224.0.0.18""#,
            "11:11: `224.0.0.18` is a multicast address",
        ),
        (
            "address broadcast",
            r#""10.0.5.96""#,
            r#""255.255.255.255""#,
            "11:11: `255.255.255.255` is the broadcast address",
        ),
        ("server address a name", r#""10.0.5.92""#, r#""node2:80""#, "16:27: `node2` is not an IP address"),
        (
            "address with port, IPv6",
            r#""10.0.5.96""#,
            r#""[2001:db8::96]:80""#,
            "11:11: `[2001:db8::96]:80` has a port, which does not belong here",
        ),
        (
            "address in brackets",
            r#""10.0.5.96""#,
            r#""[2001:db8::96]""#,
            "11:11: `[2001:db8::96]` stands in brackets, which only a port needs",
        ),
        (
            "address link-local",
            r#""10.0.5.96""#,
            r#""fe80::96""#,
            "11:11: `fe80::96` is a link-local address",
        ),
        (
            "address mapped",
            r#""10.0.5.96""#,
            r#""::ffff:10.0.5.96""#,
            "11:11: `::ffff:10.0.5.96` is an IPv4 address written as IPv6",
        ),
        (
            "network with host bits",
            r#""10.0.5.96""#,
            r#""10.0.6.1/24""#,
            "11:11: `10.0.6.1/24` has bits set behind its prefix",
        ),
        (
            "prefix too long",
            r#""10.0.5.96""#,
            r#""10.0.6.0/33""#,
            "11:11: `33` is not the length of a prefix",
        ),
        (
            "network of everything",
            r#""10.0.5.96""#,
            r#""0.0.0.0/0""#,
            "11:11: `0.0.0.0/0` holds `0.0.0.0`, which is not for services",
        ),
        (
            "server is a network",
            r#""10.0.5.92""#,
            r#""10.0.7.0/24""#,
            "16:27: `10.0.7.0/24` is a network, not one address",
        ),
        (
            "server with ports",
            r#""10.0.5.92""#,
            r#""10.0.5.92:80-90""#,
            "16:27: `80-90` is more than one port",
        ),
        (
            "server of another family",
            r#""10.0.5.92""#,
            r#""2001:db8::1""#,
            "16:27: `nat` keeps the family of a packet: service `web` has no IPv6 address for this server",
        ),
        ("server port zero", r#""10.0.5.92""#, r#""10.0.5.92:0""#, "16:27: `0` is not a port"),
        ("server loopback", r#""10.0.5.92""#, r#""127.0.0.2""#, "16:27: `127.0.0.2` is a loopback address"),
        (
            "server name twice",
            r#""b""#,
            r#""a""#,
            "16:12: the server name `a` is taken: steelyard.toml:15 has it already",
        ),
        (
            "server address twice",
            r#""10.0.5.92""#,
            r#""10.0.5.91:8888""#,
            "16:27: the server address `10.0.5.91:8888` is taken: steelyard.toml:15 has it already",
        ),
        (
            "server address twice by default port",
            r#""10.0.5.91:8888""#,
            r#""10.0.5.92:80""#,
            "16:27: the server address `10.0.5.92:80` is taken: steelyard.toml:15 has it already",
        ),
        (
            "server is the vip",
            r#""10.0.5.92""#,
            r#""10.0.5.96""#,
            "16:27: the server address `10.0.5.96` is the address of service `web` (steelyard.toml:11)",
        ),
        (
            "dsr with another port",
            r#""nat""#,
            r#""dsr""#,
            "15:27: `dsr` cannot change the port from 80 to 8888",
        ),
        (
            "ipip with another port",
            r#""nat""#,
            r#""ipip""#,
            "15:27: `ipip` cannot change the port from 80 to 8888",
        ),
        (
            "gue with another port",
            r#""nat""#,
            r#""gue""#,
            "15:27: `gue` cannot change the port from 80 to 8888",
        ),
    ]);
}

#[test]
fn what_a_service_asks_for() {
    check(&[
        (
            "port range turned round",
            "port = 80",
            r#"port = "90-80""#,
            "12:8: the range `90-80` ends before it begins",
        ),
        ("port range from 0", "port = 80", r#"port = "0-80""#, "12:8: `0-80` begins at port 0"),
        ("port range too far", "port = 80", r#"port = "80-65536""#, "12:8: `80-65536` is not a port"),
        (
            "no port to check",
            "port = 80",
            r#"port = "80-90""#,
            "16:27: no port to check: service `web` has port 80-90, and the server none",
        ),
        (
            "balance unknown",
            "port = 80",
            "port = 80\nbalance = \"wrr\"",
            "13:11: `wrr` is not a value of `balance`",
        ),
        (
            "persistence without unit",
            "port = 80",
            "port = 80\npersistence = 30",
            "13:15: `persistence` is a duration and needs a unit",
        ),
        (
            "persistence too short",
            "port = 80",
            "port = 80\npersistence = \"10ms\"",
            "13:15: `persistence` is out of range: `10ms`",
        ),
        ("mss too small", "port = 80", "port = 80\nmss = 535", "13:7: `mss` is out of range: 535"),
        ("mss too large", "port = 80", "port = 80\nmss = 9001", "13:7: `mss` is out of range: 9001"),
        (
            "nobody allowed",
            "port = 80",
            "port = 80\nallow = []",
            "13:9: `allow` is empty: nobody could connect",
        ),
        (
            "allow with host bits",
            "port = 80",
            r#"port = 80
allow = ["10.0.0.1/8"]"#,
            "13:10: `10.0.0.1/8` has bits set behind its prefix",
        ),
        (
            "deny twice",
            "port = 80",
            r#"port = 80
deny = ["10.0.0.1", "10.0.0.1/32"]"#,
            "13:21: the network `10.0.0.1/32` is given twice",
        ),
        (
            "backup not a flag",
            r#""10.0.5.92" }"#,
            r#""10.0.5.92", backup = 1 }"#,
            "16:49: `backup` must be true or false, not an integer",
        ),
        (
            "slow start without unit",
            "port = 80",
            "port = 80\nslow_start = 30",
            "13:14: `slow_start` is a duration and needs a unit",
        ),
        (
            "slow start too short",
            "port = 80",
            r#"port = 80
slow_start = "10ms""#,
            "13:14: `slow_start` is out of range: `10ms`",
        ),
        ("panic above all", "port = 80", "port = 80\npanic = 101", "13:9: `panic` is out of range: 101"),
        (
            "damping no table",
            "port = 80",
            "port = 80\ndamping = true",
            "13:11: `damping` must be one table, not true or false",
        ),
        (
            "damping of no change",
            "port = 80",
            "port = 80\ndamping = { changes = 0 }",
            "13:23: `changes` is out of range: 0",
        ),
        (
            "damping too short",
            "port = 80",
            r#"port = 80
damping = { hold = "10ms" }"#,
            "13:20: `hold` is out of range: `10ms`",
        ),
        (
            "damping, unknown key",
            "port = 80",
            r#"port = 80
damping = { holds = "10s" }"#,
            "13:13: unknown key `holds` in [service.damping]",
        ),
        (
            "suspects too late",
            "port = 80",
            "port = 80\nsuspect_after = 257",
            "13:17: `suspect_after` is out of range: 257",
        ),
    ]);
}

#[test]
fn suspects_need_replies() {
    let text = with("\"nat\"", "\"dsr\"\nsuspect_after = 3").replace(":8888", "");
    only(
        "dsr",
        &text,
        "14:17: `suspect_after` means nothing to `forward = \"dsr\"`: its replies do not pass here",
    );
    for (keys, expected) in
        [("\"dsr\"", 0), ("\"ipip\"\nsuspect_after = 0", 0), ("\"nat\"\nsuspect_after = 3", 3)]
    {
        let text = with("\"nat\"", keys).replace(":8888", "");
        assert_eq!(accepted(&text).config.services[0].suspect_after, expected, "{keys}");
    }
}

#[test]
fn damping_fills_in_its_defaults() {
    let text = with("port = 80", "port = 80\ndamping = {}");
    let expected = Damping { changes: 4, within: Duration::from_secs(60), hold: Duration::from_secs(120) };
    assert_eq!(accepted(&text).config.services[0].damping, Some(expected));
}
