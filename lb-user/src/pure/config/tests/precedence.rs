//! Services that could take the same packet: which pairs an order decides, and which are refused.

use std::fmt::Write;

use lb_common::limits::{ACCESS_NETWORKS_MAX, WILDCARD_NETWORKS_MAX, WILDCARD_RULES_MAX};

use super::{accepted, refused};

const HEAD: &str = "[cluster]\nsecret = \"hush\"\n[datapath]\ninterfaces = [\"eth0\"]\n";

/// Services `s0`, `s1`, ... of these addresses and ports, four lines each from line 5 on.
fn services(ends: &[(&str, &str)]) -> String {
    let mut text = String::from(HEAD);
    for (number, (address, port)) in ends.iter().enumerate() {
        write!(
            text,
            "[[service]]\nname = \"s{number}\"\naddress = {address}\nport = {port}\nforward = \"ipip\"\nserver = [{{ name = \"a\", address = \"10.9.9.9\" }}]\ncheck = {{ type = \"none\" }}\nslots = 256\n"
        )
        .unwrap();
    }
    text
}

#[test]
fn the_more_specific_one_wins() {
    let cases: [&[(&str, &str)]; 7] = [
        &[("\"10.0.5.96\"", "80"), ("\"10.0.5.96\"", "81")],
        &[("\"10.0.5.96\"", "80"), ("\"10.0.5.96\"", "\"any\"")],
        &[("\"10.0.5.96\"", "\"any\""), ("\"10.0.5.96\"", "\"80-90\""), ("\"10.0.5.96\"", "\"85-90\"")],
        &[("\"10.0.5.96\"", "\"80-89\""), ("\"10.0.5.96\"", "\"90-99\""), ("\"10.0.5.96\"", "\"80-99\"")],
        &[("\"10.0.5.96\"", "80"), ("\"10.0.5.0/24\"", "80"), ("\"10.0.0.0/8\"", "80")],
        &[("\"10.0.5.96\"", "\"80-90\""), ("\"10.0.5.0/24\"", "\"85-95\"")],
        &[("\"2001:db8::96\"", "\"any\""), ("\"2001:db8::/64\"", "\"any\""), ("\"10.0.5.96\"", "\"any\"")],
    ];
    for ends in cases {
        accepted(&services(ends));
    }
}

#[test]
fn what_no_order_decides_is_refused() {
    let cases: [(&[(&str, &str)], &str); 6] = [
        (
            &[("\"10.0.5.0/24\"", "\"any\""), ("\"10.0.5.0/24\"", "\"1-65535\"")],
            "15: service `s1` takes 10.0.5.0/24:any/tcp from service `s0` (steelyard.toml:7)",
        ),
        (
            &[("\"2001:db8::96\"", "80"), ("[\"10.0.5.96\", \"2001:db8::96/128\"]", "80")],
            "15: service `s1` takes [2001:db8::96]:80/tcp from service `s0` (steelyard.toml:7)",
        ),
        (
            &[("\"10.0.5.96\"", "\"80-90\""), ("\"10.0.5.96\"", "\"85-95\"")],
            "15: ports 85-95 of service `s1` and 80-90 of service `s0` (steelyard.toml:7) cross on 10.0.5.96, tcp",
        ),
        (
            &[("\"10.0.5.96\"", "\"85-95\""), ("\"10.0.5.96\"", "\"80-90\"")],
            "15: ports 80-90 of service `s1` and 85-95 of service `s0` (steelyard.toml:7) cross on 10.0.5.96, tcp",
        ),
        (
            &[("\"10.0.5.96\"", "\"80-90\""), ("\"10.0.5.96\"", "\"90-95\"")],
            "15: ports 90-95 of service `s1` and 80-90 of service `s0` (steelyard.toml:7) cross on 10.0.5.96, tcp",
        ),
        (
            &[("\"10.0.5.96\"", "\"1-99\""), ("\"10.0.5.96\"", "\"10-20\""), ("\"10.0.5.96\"", "\"30-100\"")],
            "23: ports 30-100 of service `s2` and 1-99 of service `s0` (steelyard.toml:7) cross on 10.0.5.96, tcp",
        ),
    ];
    for (ends, expected) in cases {
        let found: Vec<String> = refused(&services(ends))
            .iter()
            .map(|error| format!("{}: {}", error.line, error.message))
            .collect();
        assert_eq!(found, [expected], "{ends:?}");
    }
}

#[test]
fn rules_for_one_address_are_bounded() {
    let ranges: Vec<String> =
        (1..=WILDCARD_RULES_MAX).map(|n| format!("\"{}-{}\"", n * 10, n * 10 + 5)).collect();
    let (last, rest) = ranges.split_last().unwrap();
    let mut ends: Vec<(&str, &str)> = rest.iter().map(|range| ("\"10.0.0.0/8\"", range.as_str())).collect();
    ends.push(("\"10.0.5.96\"", "80"));
    ends.push(("\"10.0.5.0/24\"", last));
    ends.push(("\"10.0.6.0/24\"", last));
    accepted(&services(&ends));
    ends.push(("\"10.0.5.96\"", "\"any\""));
    let found: Vec<String> = refused(&services(&ends)).iter().map(|error| error.message.clone()).collect();
    assert_eq!(found, ["17 rules apply to 10.0.5.96, more than 16"]);
}

#[test]
fn networks_are_bounded() {
    let list = |count: u32| {
        let all: Vec<String> = (0..count).map(|n| format!("\"10.{}.{}.0/24\"", n >> 8, n & 255)).collect();
        format!("[{}]", all.join(", "))
    };
    accepted(&services(&[(&list(WILDCARD_NETWORKS_MAX), "80"), (&list(WILDCARD_NETWORKS_MAX), "81")]));
    let found: Vec<String> =
        refused(&services(&[("\"10.200.0.1\"", "\"any\""), (&list(WILDCARD_NETWORKS_MAX), "80")]))
            .iter()
            .map(|error| error.message.clone())
            .collect();
    assert_eq!(
        found,
        [
            "from service `s1` on, the services have more than 4096 networks, or addresses with more than one port"
        ]
    );

    let client = |n: u32| format!("\"10.0.{}.{}\"", n >> 8, n & 255);
    let all: Vec<String> = (0..ACCESS_NETWORKS_MAX).map(client).collect();
    let lists = |deny: &str| {
        format!("{}allow = [{}]\ndeny = [{deny}]\n", services(&[("\"10.0.5.96\"", "80")]), all.join(","))
    };
    accepted(&lists(""));
    let found: Vec<String> =
        refused(&lists("\"10.1.0.0/16\"")).iter().map(|error| error.message.clone()).collect();
    assert_eq!(
        found,
        ["from service `s0` on, the services have more than 65536 networks in `allow` and `deny`"]
    );
}
