//! Comments, braces, quotes, definitions, includes, damage.

use super::{BASE, accepted, foreign, router, shown, with};
use crate::pure::config::{Source, parse_with};

/// The same router, whatever it is written like.
#[test]
fn every_style_means_the_same() {
    let (expected, said) = router(BASE);
    assert_eq!(said, [""; 0]);
    let cases = [
        (
            "with a block on one line",
            BASE.replace(
                "virtual_ipaddress {\n        10.0.5.96/20\n    }",
                "virtual_ipaddress { 10.0.5.96/20 }",
            ),
        ),
        ("without blanks", BASE.replace("{\n        10.0.5.96/20\n    }", "{10.0.5.96/20}")),
        ("braces on lines of their own", BASE.replace(" {", "\n\n{")),
        ("with carriage returns", BASE.replace('\n', "\r\n")),
        ("with a byte order mark", format!("\u{feff}{BASE}")),
        ("with comments", BASE.replace('\n', " ! one, \"two\" { # three\n# four }\n")),
        ("quoted", BASE.replace("eth0", "\"eth0\"").replace("VI_1", "'VI_1'")),
        ("with definitions", format!("$ID=5\n$REST=1 # a comment\n{}", BASE.replace("51", "${ID}$REST"))),
        (
            "with a definition of several lines",
            format!(
                "$VIP= \\\n virtual_ipaddress {{ \\\n ${{NET}}.96/20 \\\n }}\n$NET=10.0.5\n{}",
                BASE.replace("virtual_ipaddress {\n        10.0.5.96/20\n    }", "$VIP")
            ),
        ),
        (
            "for this host",
            BASE.replace(
                "    interface eth0",
                "@lb1 interface eth0\n@lb2 interface eth1\n@^lb2 virtual_router_id 51\n@^lb1 priority 7",
            ),
        ),
    ];
    for (name, text) in cases {
        let (found, said) = router(&text);
        let said: Vec<_> = said.iter().filter(|said| !said.contains("is given again")).collect();
        assert_eq!((found, said), (expected.clone(), vec![]), "{name}:\n{text}");
    }
}

#[test]
fn sequences_and_lists() {
    let many = |line: &str| {
        let (router, said) = router(&BASE.replace("        10.0.5.96/20", line));
        assert_eq!(said, [""; 0], "{line}");
        router.addresses.iter().map(|address| address.address.to_string()).collect::<Vec<_>>()
    };
    let cases: [(&str, &[&str]); 6] = [
        ("~SEQ(N, 3) 10.0.${N}.1", &["10.0.1.1", "10.0.2.1", "10.0.3.1"]),
        ("~SEQ(N, 3, 1) 10.0.${N}.1", &["10.0.3.1", "10.0.2.1", "10.0.1.1"]),
        ("~SEQ(N, 1, 2, 5) 10.0.${N}.1", &["10.0.1.1", "10.0.3.1", "10.0.5.1"]),
        ("~SEQx(N, 0x9, 0xb) 2001:db8::${N}", &["2001:db8::9", "2001:db8::a", "2001:db8::b"]),
        ("~LST(A, 1, 7) ~SEQ(B, 2) 10.0.${A}.${B}", &["10.0.1.1", "10.0.1.2", "10.0.7.1", "10.0.7.2"]),
        ("~LST({A, B}, {1, 2}, {3, 4}) 10.0.${A}.${B}", &["10.0.1.2", "10.0.3.4"]),
    ];
    for (line, expected) in cases {
        assert_eq!(many(line), expected, "{line}");
    }
}

#[test]
fn damage_is_told_and_the_rest_runs() {
    let cases = [
        (
            "the last brace is missing",
            BASE.trim_end().trim_end_matches('}').to_owned(),
            vec![
                "1: the `}` of this `vrrp_instance` is missing: Keepalived runs what it could read, and so does this",
            ],
        ),
        (
            "a brace too many",
            format!("}}\n{BASE}"),
            vec!["1: this `}` is one too many: Keepalived reads on, and so does this"],
        ),
        (
            "the first line of a block is missing",
            format!("router_id lvs1\n}}\n{BASE}"),
            vec![
                "1: unknown keyword `router_id` in the file: it is ignored, as in Keepalived",
                "2: this `}` is one too many: Keepalived reads on, and so does this",
            ],
        ),
        (
            "a block without a keyword",
            format!("{{\n x\n}}\n{BASE}"),
            vec!["1: this `{` belongs to no keyword"],
        ),
        (
            "slashes are no comment",
            with("priority 100 // 主"),
            vec!["2: `//` begins no comment: it is read as one more word, which is ignored as in Keepalived"],
        ),
        (
            "slashes alone",
            with("//主 priority 7"),
            vec!["2: unknown keyword `//主` in vrrp_instance: it is ignored, as in Keepalived"],
        ),
        ("full-width blanks", with("priority 100\u{3000}# x"), vec![]),
        (
            "full-width exclamation mark",
            with("priority 100 ！主"),
            vec!["2: `！主` and what follows it are ignored, as in Keepalived"],
        ),
        (
            "a quote without an end",
            with("notify \"/bin/notify"),
            vec!["2: the quote that begins here does not end on this line: it is taken to"],
        ),
        (
            "a block in another",
            format!("global_defs {{\n{BASE}"),
            vec![
                "1: the `}` of this `global_defs` is missing: Keepalived runs what it could read, and so does this",
                "2: unknown keyword `vrrp_instance` in global_defs: it is ignored, as in Keepalived",
            ],
        ),
        (
            "a definition of itself",
            format!("$A=x ${{A}}\n$A\n{BASE}"),
            vec!["2: this line includes or replaces itself without end: it is left out"],
        ),
        (
            "a sequence without an end",
            format!("~SEQ(N, 1, 0, 2) x\n{BASE}"),
            vec!["1: this sequence or list cannot be read, and its line is left out"],
        ),
        (
            "no such file",
            format!("include more/*.conf\n{BASE}"),
            vec!["1: `more/*.conf` names no file that can be read: nothing is included"],
        ),
    ];
    for (name, text, expected) in cases {
        let parsed = accepted(&text);
        assert_eq!(shown(&parsed.warnings), expected, "{name}:\n{text}");
    }
}

#[test]
fn included_files_stand_where_they_are_included() {
    let files = [
        foreign(
            "/etc/keepalived/keepalived.conf",
            "global_defs {\n include node.conf\n}\ninclude vrrp/*.conf\n",
        ),
        super::Foreign { included: Some((0, 2)), ..foreign("/etc/keepalived/node.conf", "router_id lb1") },
        super::Foreign {
            included: Some((0, 4)),
            ..foreign(
                "/etc/keepalived/vrrp/a.conf",
                "vrrp_script s {\n script ${_PWD}/check.sh\n user nobody\n}\n",
            )
        },
        super::Foreign {
            included: Some((0, 4)),
            ..foreign(
                "/etc/keepalived/vrrp/b.conf",
                "vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 51\n priority 0\n track_script { s }\n}\n",
            )
        },
    ];
    let parsed = parse_with(&[Source { name: "steelyard.toml", text: "" }], &files).unwrap();
    assert_eq!(parsed.config.global.node.as_deref(), Some("lb1"));
    assert_eq!(parsed.config.vrrp.scripts[0].command, ["/etc/keepalived/vrrp/check.sh"]);
    let [warning] = &parsed.warnings[..] else { panic!("{:?}", parsed.warnings) };
    assert_eq!((warning.file.as_str(), warning.line), ("/etc/keepalived/vrrp/b.conf", 4));
}

#[test]
fn what_is_replaced_is_bounded() {
    let doubling: String =
        (0..40).map(|n| format!("$A{n}= \\\n${{A{}}} \\\n${{A{}}}\n", n + 1, n + 1)).collect();
    let bombs = [
        format!("{doubling}$A40=x\n${{A0}}\n"),
        "~SEQ(A, 3000) ~SEQ(B, 3000) ~SEQ(C, 3000) x\n".to_owned(),
        "{".repeat(100_000),
        format!("$L={}\n{}", "x".repeat(20_000), "~SEQ(N, 300) $L\n"),
    ];
    for bomb in bombs {
        // It ends, and whatever is wrong with it is told.
        let found = match super::read(&bomb) {
            Ok(parsed) => parsed.warnings,
            Err(errors) => errors,
        };
        assert!(!found.is_empty());
    }
}
