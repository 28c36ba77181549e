use super::*;
use crate::pure::config::parse;

const FILE: &str = r#"
[datapath]
interfaces = ["eth0"]
[cluster]
secret = "x"
[[service]]
name = "web"
address = "192.0.2.10"
port = 80
forward = "nat"
server = [{ name = "a", address = "10.0.0.1", weight = 3 }, { name = "b", address = "10.0.0.2" }]
[[service]]
name = "dns"
address = "192.0.2.10"
port = 53
forward = "dsr"
server = [{ name = "a", address = "10.0.0.1" }]
"#;

fn file() -> Config {
    parse("test.toml", FILE).expect("valid").config
}

fn added(name: &str, address: &str) -> Change {
    Change::Add(Added { name: name.into(), address: address.into(), weight: 2, backup: false })
}

/// The servers of `web` in force, and what differs from the file, after these changes.
fn after(changes: &[(&str, Change)]) -> (Vec<String>, Vec<String>) {
    let mut overlay = Overlay::default();
    for (server, change) in changes {
        overlay.change(&file(), "web", server, change.clone()).expect("allowed");
    }
    let text = serde_json::to_string(&overlay).expect("json");
    assert_eq!(serde_json::from_str::<Overlay>(&text).expect("what was written"), overlay);
    let config = overlay.apply(&file());
    let shown = |server: &Server| {
        format!("{} {} {} {}", server.name, shown(server.address), server.weight, server.admin.name())
    };
    (config.services[0].servers.iter().map(shown).collect(), overlay.differences(&file()))
}

/// A name; changes by server; the servers in force and what differs from the file afterwards.
type Case<'a> = (&'a str, &'a [(&'a str, Change)], &'a [&'a str], &'a [&'a str]);

#[test]
fn changes_and_what_they_leave() {
    let a = "a 10.0.0.1:80 3 ready";
    let b = "b 10.0.0.2:80 1 ready";
    let cases: [Case<'_>; 9] = [
        ("nothing", &[], &[a, b], &[]),
        (
            "drained and weighed",
            &[("a", Change::Admin(Admin::Drain)), ("a", Change::Weight(5))],
            &["a 10.0.0.1:80 5 drain", b],
            &["web/a: drain, weight 5 (the file says weight 3)"],
        ),
        (
            "as the file again",
            &[
                ("a", Change::Weight(5)),
                ("a", Change::Admin(Admin::Maintenance)),
                ("a", Change::Weight(3)),
                ("a", Change::Admin(Admin::Ready)),
            ],
            &[a, b],
            &[],
        ),
        (
            "one more, set like any other",
            &[
                ("c", added("c", "10.0.0.3:8080")),
                ("c", Change::Weight(7)),
                ("c", Change::Admin(Admin::Drain)),
            ],
            &[a, b, "c 10.0.0.3:8080 7 drain"],
            &["web/c was added at 10.0.0.3:8080", "web/c: drain"],
        ),
        ("one less", &[("b", Change::Remove)], &[a], &["web/b was removed"]),
        ("added and removed", &[("c", added("c", "10.0.0.3")), ("c", Change::Remove)], &[a, b], &[]),
        (
            "another one by the same name",
            &[("b", Change::Remove), ("b", added("b", "10.0.0.9"))],
            &[a, "b 10.0.0.9:80 2 ready"],
            &["web/b was added at 10.0.0.9", "web/b was removed"],
        ),
        (
            "removed and added with another weight",
            &[("b", Change::Remove), ("b", added("b", "10.0.0.2"))],
            &[a, "b 10.0.0.2:80 2 ready"],
            &["web/b: weight 2 (the file says weight 1)"],
        ),
        (
            "removed and added as it was",
            &[
                ("b", Change::Remove),
                (
                    "b",
                    Change::Add(Added {
                        name: "b".into(),
                        address: "10.0.0.2".into(),
                        weight: 1,
                        backup: false,
                    }),
                ),
            ],
            &[a, b],
            &[],
        ),
    ];
    for (name, changes, servers, differences) in cases {
        let (in_force, differing) = after(changes);
        assert_eq!(in_force, servers, "{name}");
        assert_eq!(differing, differences, "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let cases = [
        ("mail", "a", Change::Weight(1), "no service named `mail`: there are web, dns"),
        ("web", "z", Change::Weight(1), "no server named `z`: there are a, b"),
        ("web", "a", added("a", "10.0.0.9"), "service web has a server a already: choose another name"),
        (
            "web",
            "c",
            added("c", "10.0.0.2"),
            "service web has a server 10.0.0.2:80 (b) already: choose another address",
        ),
        (
            "web",
            "c",
            added("c", "192.0.2.10"),
            "192.0.2.10 is an address of service web: give the server's own address",
        ),
        (
            "dns",
            "c",
            added("c", "10.0.0.3:54"),
            "`dsr` cannot change the port from 53 to 54: write 10.0.0.3 alone",
        ),
        (
            "dns",
            "c",
            added("c", "2001:db8::1"),
            "`dsr` keeps the family of a packet, and service dns has no IPv6 address: add a server of the service's own \
             family",
        ),
    ];
    for (service, server, change, expected) in cases {
        let mut overlay = Overlay::default();
        let refused = overlay.change(&file(), service, server, change).expect_err(expected);
        assert_eq!(refused.to_string(), expected);
        assert_eq!(overlay, Overlay::default(), "{expected}");
    }
}

#[test]
fn a_new_file_ends_what_it_makes_pointless() {
    let mut overlay = Overlay::default();
    for (service, server, change) in [
        ("web", "b", Change::Admin(Admin::Drain)),
        ("web", "a", Change::Admin(Admin::Drain)),
        ("web", "c", added("c", "10.0.0.3")),
        ("web", "d", added("d", "10.0.0.4")),
        ("dns", "a", Change::Admin(Admin::Maintenance)),
    ] {
        overlay.change(&file(), service, server, change).expect("allowed");
    }
    let mut new = file();
    new.services.truncate(1);
    new.services[0].servers[1].name = "c".into();
    let pruned = overlay.prune(&new);
    assert_eq!(
        pruned,
        [
            "service dns is gone from the file, and what was changed in it",
            "web/c, added at runtime, is no longer: the file has c at 10.0.0.2:80",
            "web/b is gone from the file, and with it: drain",
        ]
    );
    assert_eq!(overlay.differences(&new), ["web/d was added at 10.0.0.4", "web/a: drain"]);
}
