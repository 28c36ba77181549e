//! Values that Keepalived does not take, and what it takes instead.

use std::{fmt::Debug, time::Duration};

use super::{BASE, accepted, read, router, shown, with};
use crate::pure::config::model::vrrp::{
    Auth, Checksum, Effect, Preempt, Router, Script, Tracked, Version, Wish,
};

/// Lines of an instance, what is looked at, and what is said of them.
fn check<T: PartialEq + Debug>(cases: &[(&str, T, &[&str])], look: impl Fn(&Router) -> T) {
    for (lines, expected, said) in cases {
        let (router, found) = router(&with(lines));
        let found: Vec<_> = found.iter().map(|said| said.split_once(": ").unwrap().1).collect();
        assert_eq!((&look(&router), found.as_slice()), (expected, *said), "{lines}");
    }
}

#[test]
fn priorities() {
    let outside = |text: &str| format!("`{text}` is no value of `priority`: 100 is used, as in Keepalived");
    let (many, zero, word) = (outside("1000"), outside("0"), outside("high"));
    check(
        &[
            ("", 100, &[]),
            ("priority 255", 255, &[]),
            ("priority 1000", 100, &[&many]),
            ("priority 0", 100, &[&zero]),
            ("priority high", 100, &[&word]),
            ("priority", 100, &["`priority` has no value: it is ignored, as in Keepalived"]),
            (
                "priority 7\npriority 8",
                8,
                &["`priority` is given again (k.conf:2): the last one counts, as in Keepalived"],
            ),
        ],
        |router| router.priority,
    );
}

#[test]
fn states() {
    check(
        &[
            ("", Wish::Backup, &[]),
            ("state MASTER", Wish::Master, &[]),
            (
                "state master",
                Wish::Backup,
                &["`master` is no value of `state`: BACKUP is taken, as in Keepalived"],
            ),
            (
                "state MASTER\nstate BACKUP",
                Wish::Master,
                &["`state` is MASTER already: BACKUP is ignored, as in Keepalived"],
            ),
            ("state BACKUP\nstate MASTER", Wish::Master, &[]),
        ],
        |router| router.wish,
    );
}

#[test]
fn preemption() {
    let delay = |seconds| Preempt::After(Duration::from_secs(seconds));
    check(
        &[
            ("nopreempt", Preempt::Never, &[]),
            ("nopreempt\npreempt", delay(0), &[]),
            ("preempt_delay 60", delay(60), &[]),
            (
                "preempt_delay 1001",
                delay(0),
                &["`1001` is no value of `preempt_delay`: there is no delay, as in Keepalived"],
            ),
            (
                "state MASTER\nnopreempt",
                delay(0),
                &["`nopreempt` is ignored with `state MASTER`, as in Keepalived"],
            ),
            (
                "state MASTER\npreempt_delay 5",
                delay(0),
                &["`preempt_delay` is ignored with `state MASTER`, as in Keepalived"],
            ),
            (
                "nopreempt\npreempt_delay 5",
                Preempt::Never,
                &["`preempt_delay` is ignored with `nopreempt`, as in Keepalived"],
            ),
        ],
        |router| router.preempt,
    );
}

#[test]
fn intervals() {
    let rounded = |version: u8, typed: &str, used: &str| {
        format!("version {version} has no advert interval of {typed}: {used} is used, as in Keepalived")
    };
    let refused =
        |text: &str| format!("`{text}` is no value of `advert_int`: 1 second is used, as in Keepalived");
    let ms = Duration::from_millis;
    check(
        &[
            ("advert_int 1", ms(1_000), &[]),
            ("advert_int 0.4", ms(1_000), &[&rounded(2, "400ms", "1s")]),
            ("advert_int 1.4", ms(1_000), &[&rounded(2, "1.4s", "1s")]),
            ("advert_int 1.5", ms(2_000), &[&rounded(2, "1.5s", "2s")]),
            ("advert_int 255", ms(255_000), &[]),
            ("advert_int 0", ms(1_000), &[&refused("0")]),
            ("advert_int 0.001", ms(1_000), &[&refused("0.001")]),
            ("advert_int 256", ms(1_000), &[&refused("256")]),
            ("advert_int 1s", ms(1_000), &[&refused("1s")]),
            ("version 3\nadvert_int 0.01", ms(10), &[]),
            ("version 3\nadvert_int .255", ms(260), &[&rounded(3, "255ms", "260ms")]),
            ("version 3\nadvert_int 41", ms(40_950), &[&rounded(3, "41s", "40.95s")]),
        ],
        |router| router.interval,
    );
}

#[test]
fn authentication() {
    let pass = |kind: &str, pass: &str| format!("authentication {{\nauth_type {kind}\nauth_pass {pass}\n}}");
    let (short, long, lower, none) = (
        pass("PASS", "1111"),
        pass("PASS", "123456789"),
        pass("pass", "1111"),
        "authentication { auth_pass 1 }".to_owned(),
    );
    let v3 = format!("version 3\n{short}");
    check(
        &[
            (short.as_str(), Auth::Pass(*b"1111\0\0\0\0"), &[]),
            (
                &long,
                Auth::Pass(*b"12345678"),
                &["the password is longer than 8 characters: the first 8 are used, as in Keepalived"],
            ),
            (
                &lower,
                Auth::None,
                &["`pass` is no value of `auth_type`: there is no authentication, as in Keepalived"],
            ),
            (
                &none,
                Auth::None,
                &["there is a password without an `auth_type`: there is no authentication, as in Keepalived"],
            ),
            (
                "authentication { auth_type PASS }",
                Auth::None,
                &["there is no password: there is no authentication, as in Keepalived"],
            ),
            (&v3, Auth::None, &["version 3 has no authentication: it is ignored, as in Keepalived"]),
        ],
        |router| router.auth.clone(),
    );
    let errors = read(&with(&pass("AH", "1111"))).unwrap_err();
    let expected =
        "3: `auth_type AH` is not built, and beside a node that has it this one would be a second master";
    assert_eq!(shown(&errors), [expected]);
}

/// What is said ends in logs.
#[test]
fn no_secret_is_shown() {
    let key = "5ec2e7".repeat(11);
    let texts = [
        with("authentication {\nauth_type PASS\nauth_pass 5ec2e75ec2e7\n}"),
        with("authentication { auth_type pass auth_pass 5ec2e7 }"),
        with(&format!("auth_hmac {{\nkey 1 hex:{key}0\nkey 2 {key}\nactive_key 2\ntime_window 9\n}}")),
        with(&format!("auth_hmac {{ key x hex:{key}\n}}")),
        with("auth_pass 5ec2e7"),
    ];
    for text in texts {
        let found = match read(&text) {
            Ok(parsed) => parsed.warnings,
            Err(errors) => errors,
        };
        assert!(!found.is_empty(), "{text}");
        for diagnostic in found {
            assert!(!diagnostic.to_string().contains("5ec2e7"), "{diagnostic}");
        }
    }
}

#[test]
fn versions_and_families() {
    let v6 = BASE.replace("10.0.5.96/20", "fe80::96\n2001:db8::96/64\n10.0.5.96/20");
    let (found, said) = router(&v6.replacen('\n', "\nversion 2\n", 1));
    assert_eq!((found.version, found.addresses.len()), (Version::V3, 2));
    let expected = [
        "1: IPv6 has version 3 only, and that is used, as in Keepalived",
        "8: `10.0.5.96` is not IPv6, as the first address is: it is ignored, as in Keepalived",
    ];
    assert_eq!(said, expected);
    check(
        &[
            ("version 3", (Version::V3, Checksum::Auto), &[]),
            (
                "version 4",
                (Version::V2, Checksum::Auto),
                &["`4` is no value of `version`: it is ignored, as in Keepalived"],
            ),
            ("version 3\nv3_checksum_as_v2", (Version::V3, Checksum::MessageOnly), &[]),
            ("version 3\nv3_checksum_as_v2 no", (Version::V3, Checksum::PseudoHeader), &[]),
        ],
        |router| (router.version, router.checksum),
    );
}

#[test]
fn addresses() {
    let with = |entry: &str| BASE.replace("10.0.5.96/20", entry);
    let cases = [
        ("10.0.5.96", Some(32), vec![]),
        ("10.0.5.96/255.255.240.0", Some(20), vec![]),
        (
            "10.0.5.96/33",
            Some(32),
            vec![
                "`10.0.5.96/33` has no length of a prefix that is right: Keepalived takes 32, and so does this",
            ],
        ),
        ("10.0.5/24", None, vec!["`10.0.5/24` is no IP address: it is ignored, as in Keepalived"]),
        ("127.0.0.1/8", None, vec!["`127.0.0.1` is a loopback address: it is left out"]),
        (
            "10.0.5.96 label eth0:a_very_long_label",
            Some(32),
            vec!["`eth0:a_very_long_label` is no label of an address: it is left out"],
        ),
        (
            "2001:db8::96 label eth0:0",
            Some(128),
            vec!["`eth0:0` is for IPv4 only: it is ignored, as in Keepalived"],
        ),
        ("10.0.5.96 -nodad home", Some(32), vec!["`home` is left out: the address is set without it"]),
        ("10.0.5.96 scope nowhere", Some(32), vec!["the scope `nowhere` is left out"]),
        (
            "10.0.5.96 10.0.5.97",
            Some(32),
            vec!["`10.0.5.97` is no option of an address: it is ignored, as in Keepalived"],
        ),
        ("10.0.5.96 dev", None, vec!["`dev` has no value: its line is ignored"]),
        ("10.0.5.96\n10.0.5.96", Some(32), vec!["`10.0.5.96` is given already: it is ignored"]),
        ("", None, vec![]),
    ];
    for (entry, prefix, expected) in cases {
        let (router, said) = router(&with(entry));
        let said: Vec<_> = said.iter().map(|said| said.split_once(": ").unwrap().1).collect();
        let found = router.addresses.first().map(|address| address.prefix);
        assert_eq!((found, said), (prefix, expected), "{entry}");
    }
    let many: String = (0..300).map(|n| format!("10.1.{}.{}\n", n / 200, n % 200 + 1)).collect();
    let (router, said) = router(&with(&many));
    assert_eq!((router.addresses.len(), router.excluded.len(), said.len()), (255, 45, 45));
}

#[test]
fn announcements() {
    check(
        &[
            ("garp_master_repeat 2", (2, 5, 60), &[]),
            ("garp_master_delay 0\ngarp_master_refresh 0", (5, 0, 0), &[]),
            (
                "garp_master_repeat 0",
                (5, 5, 60),
                &["`0` is no value of `garp_master_repeat`: the keyword is ignored, as in Keepalived"],
            ),
            (
                "garp_lower_prio_repeat 1",
                (5, 5, 60),
                &[
                    "`garp_lower_prio_repeat` does nothing here: after an advert of lower priority the addresses are announced as after becoming Active",
                ],
            ),
        ],
        |router| {
            (router.announce.times.len(), router.announce.delay.as_secs(), router.announce.refresh.as_secs())
        },
    );
    let zero = format!("global_defs {{\nvrrp_garp_interval 0\nvrrp_gna_interval 0\n}}\n{BASE}");
    assert_eq!(router(&zero), router(BASE), "it stands in every distribution's example, and means nothing");
}

#[test]
fn instances_that_cannot_run_are_left_out() {
    let other = BASE.replace("VI_1", "VI_2");
    let cases = [
        (
            other.replace("51", "256"),
            vec![
                "`256` is no value of `virtual_router_id`: it counts as missing, as in Keepalived",
                "`VI_2` has no virtual_router_id from 1 to 255: it is left out, as in Keepalived",
            ],
        ),
        (
            other.replace("virtual_router_id 51", ""),
            vec!["`VI_2` has no virtual_router_id from 1 to 255: it is left out, as in Keepalived"],
        ),
        (
            other.clone(),
            vec![
                "`VI_1` has the VRID 51 on eth0 already (k.conf:1): this block is ignored, as in Keepalived",
            ],
        ),
        (
            other.replace("eth0", "lo"),
            vec!["`VI_2` is on lo, where nobody hears it: it is left out, as in Keepalived"],
        ),
        (other.replace("interface eth0", ""), vec!["`VI_2` has no interface: it is left out"]),
        (
            BASE.replace("51", "52"),
            vec!["`VI_1` exists already (k.conf:1): this block is ignored, as in Keepalived"],
        ),
        (other.replace("VI_2", ""), vec!["`vrrp_instance` has no value: it is ignored, as in Keepalived"]),
    ];
    for (second, expected) in cases {
        let (_, mut said) = router(&format!("{BASE}{second}"));
        said.sort();
        let mut said: Vec<_> = said.iter().map(|said| said.split_once(": ").unwrap().1).collect();
        said.sort_unstable();
        assert_eq!(said, expected, "{second}");
    }
}

#[test]
fn scripts() {
    let script = |lines: &str| -> (Script, Vec<String>) {
        let text = format!("vrrp_script s {{\nuser nobody\n{lines}\n}}\n{}", with("track_script { s }"));
        let mut parsed = accepted(&text);
        let said = shown(&parsed.warnings);
        (parsed.config.vrrp.scripts.remove(0), said)
    };
    let commands: [(&str, &[&str], &[&str]); 5] = [
        ("script \"/p a 'b c' d\"", &["/p", "a", "b c", "d"], &[]),
        ("script /p", &["/p"], &[]),
        ("script \"killall -0 haproxy\"", &["killall", "-0", "haproxy"], &[]),
        (
            "script /p a b",
            &["/p", "a", "b"],
            &["3: `a` and what follows are arguments here; Keepalived 2.2 runs the script without them"],
        ),
        (
            "script /p // why",
            &["/p"],
            &["3: `//` begins no comment: it is read as one more word, which is ignored as in Keepalived"],
        ),
    ];
    for (lines, command, expected) in commands {
        let (script, said) = script(lines);
        assert_eq!(
            (script.command.as_slice(), said.as_slice()),
            (
                &command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()[..],
                &expected.iter().map(|said| (*said).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{lines}"
        );
    }
    let second = Duration::from_secs(1);
    let times = [
        ("", (second, second, 1, 1)),
        ("interval 5", (second * 5, second * 5, 1, 1)),
        ("interval 0.5\ntimeout 2", (second / 2, second * 2, 1, 1)),
        ("interval 0", (second, second, 1, 1)),
        ("timeout 0\nrise 0\nfall x", (second, second, 1, 1)),
        ("rise 5\nfall 2", (second, second, 5, 2)),
    ];
    for (lines, expected) in times {
        let (script, _) = script(&format!("script /p\n{lines}"));
        assert_eq!((script.interval, script.timeout, script.rise, script.fall), expected, "{lines}");
    }
}

#[test]
fn weights() {
    let track = |own: &str, entry: &str| {
        let text = format!(
            "vrrp_script s {{\nuser nobody\nscript /p\n{own}\n}}\n{}",
            with(&format!("track_script {{ s {entry} }}"))
        );
        let (router, said) = router(&text);
        (router.track.first().map(|track| track.effect), said.len())
    };
    let weight = |weight, reverse| Some(Effect::Weight { weight, reverse });
    let fault = |reverse| Some(Effect::Fault { reverse });
    let cases = [
        ("", "", (fault(false), 0)),
        ("weight -20", "", (weight(-20, false), 0)),
        ("weight 20 reverse", "", (weight(20, true), 0)),
        ("weight -20", "weight 30 reverse", (weight(30, true), 0)),
        ("weight -20", "weight 0 reverse", (fault(true), 0)),
        ("weight -20", "weight 300", (weight(-20, false), 1)),
        ("weight -20", "weight 254", (weight(253, false), 1)),
        ("weight -20", "weight 5 no_reverse", (weight(5, false), 1)),
        ("weight 300", "", (fault(false), 1)),
        ("weight -20", "weight", (None, 2)),
        ("weight -20", "heavy", (None, 2)),
    ];
    for (own, entry, expected) in cases {
        assert_eq!(track(own, entry), expected, "{own} {entry}");
    }
}

#[test]
fn what_is_tracked() {
    let first = |text: &str| {
        let (router, said) = router(text);
        (router.track.into_iter().map(|track| (track.what, track.effect)).collect::<Vec<_>>(), said)
    };
    let script = "vrrp_script s {\nuser nobody\nscript /p\n}\n";
    let fault = Effect::Fault { reverse: false };
    let tracked = vec![(Tracked::Script("s".into()), fault)];
    let below = "4: Keepalived finds only what stands above, and would not track this; here it is tracked";
    let cases = [
        (format!("{script}{}", with("track_script { s }")), tracked.clone(), vec![]),
        (format!("{}{script}", with("\n\ntrack_script { s }")), tracked, vec![below]),
        (
            with("track_script { x }"),
            vec![],
            vec!["2: `VI_1` tracks something that does not exist: this is ignored, as in Keepalived"],
        ),
        (
            format!("{script}{BASE}"),
            vec![],
            vec!["1: nobody tracks `s`: it is left out, and Keepalived does not run it either"],
        ),
        (
            with("track_interface { eth0 }"),
            vec![],
            vec!["2: `VI_1` tracks its own interface anyway: this is ignored, as in Keepalived"],
        ),
        (
            with("track_interface {\neth1\neth1 weight 3\n}"),
            vec![(Tracked::Interface("eth1".into()), fault)],
            vec!["4: this is tracked already: the line is ignored, as in Keepalived"],
        ),
        (
            with("priority 255\ntrack_interface { eth1 weight 3 }"),
            vec![],
            vec![
                "3: `VI_1` tracks nothing with a weight, because its priority is 255: this is ignored, as in Keepalived",
            ],
        ),
        (
            format!("track_file f {{\nfile /f\n}}\n{}", with("track_file { f }")),
            vec![(Tracked::File("f".into()), Effect::Scaled { weight: 1 })],
            vec![],
        ),
        (
            format!("vrrp_track_process p {{\nprocess nginx\n}}\n{}", with("track_process { p }")),
            vec![(Tracked::Process("p".into()), Effect::Weight { weight: 1, reverse: false })],
            vec![],
        ),
    ];
    for (text, expected, said) in cases {
        let said: Vec<String> = said.into_iter().map(str::to_owned).collect();
        assert_eq!(first(&text), (expected, said), "{text}");
    }
}

#[test]
fn groups() {
    let two = format!("{BASE}{}", BASE.replace("VI_1", "VI_2").replace("51", "52").replace("5.96", "5.97"));
    let group = |lines: &str| {
        let mut parsed = accepted(&format!("{two}vrrp_sync_group G {{\n{lines}\n}}\n"));
        let said = shown(&parsed.warnings);
        (parsed.config.vrrp.groups.pop().map(|group| group.members), said)
    };
    let both = Some(vec!["VI_1".to_owned(), "VI_2".to_owned()]);
    assert_eq!(group("group {\nVI_1\nVI_2\n}"), (both.clone(), vec![]));
    assert_eq!(group("group { VI_1 VI_2 }"), (both.clone(), vec![]));
    let (members, said) = group("group {\nVI_1\nVI_2\nVI_3\nVI_1\n}");
    assert_eq!(members, both);
    let expected = [
        "19: there is no vrrp_instance `VI_3`: it is ignored, as in Keepalived",
        "20: `VI_1` is in a group already: it is ignored, as in Keepalived",
    ];
    assert_eq!(said, expected);
    let (members, said) = group("");
    assert_eq!(members, None);
    assert_eq!(said, ["15: the group `G` has no member: it is left out, as in Keepalived"]);

    let weighted = with("track_interface { eth1 weight 5 }");
    let own = "vrrp_sync_group G {\ngroup { VI_1 }\n}\n";
    let (router_of, said) = router(&format!("{weighted}{own}"));
    assert!(router_of.track.is_empty());
    assert_eq!(
        said,
        [
            "2: `VI_1` tracks nothing with a weight, because it is in a vrrp_sync_group without `sync_group_tracking_weight`: this is ignored, as in Keepalived"
        ]
    );
    let (router_of, _) =
        router(&format!("{weighted}{}", own.replace("group {", "sync_group_tracking_weight\ngroup {")));
    assert_eq!(router_of.track.len(), 1);
}

#[test]
fn hooks() {
    let hook = |line: &str| {
        let (router, said) = router(&with(line));
        (router.notify.master.map(|hook| (hook.command.join("|"), hook.user)), said.len())
    };
    let cases = [
        ("notify_master /p", (Some(("/p".to_owned(), None)), 0)),
        (
            "notify_master \"/p 'a b' c\" nobody",
            (Some(("/p|a b|c".to_owned(), Some("nobody".to_owned()))), 0),
        ),
        ("notify_master /p nobody nogroup", (Some(("/p".to_owned(), Some("nobody".to_owned()))), 1)),
        ("notify_master /p -a b", (Some(("/p|-a|b".to_owned(), None)), 1)),
        ("notify_master /p\nnotify_master /q", (Some(("/p".to_owned(), None)), 1)),
        ("notify_master ./p", (None, 1)),
        ("notify_master \"\"", (None, 1)),
        ("notify_master", (None, 1)),
    ];
    for (line, expected) in cases {
        assert_eq!(hook(line), expected, "{line}");
    }
}

/// Words of the manual that are read and do something else, or nothing, each say so.
#[test]
fn no_word_is_dropped_in_silence() {
    let instance = [
        "dont_track_primary",
        "track_src_ip",
        "use_vmac_addr",
        "use_ipvlan",
        "promote_secondaries",
        "debug 1",
        "no_accept",
        "strict_mode",
        "skip_check_adv_addr on",
        "lower_prio_no_advert",
        "higher_prio_send_advert",
        "garp_extra_if 5",
        "unicast_ttl 3",
        "old_unicast_checksum",
        "kernel_rx_buf_size 5",
        "linkbeat_use_polling",
        "track_bfd { b }",
        "vmac_xmit_base",
        "notify_priority_changes on",
        "garp_master_refresh_repeat 2",
        "nonsense",
        "virtual_routes { blackhole 10.0.0.0/8 }",
        "virtual_rules { fwmark 5 table 7 }",
        "virtual_routes { 10.0.0.0/8 via 10.0.5.1 mtu 9000 }",
        "unicast_peer { x }",
        "mcast_src_ip x",
        "mcast_dst_ip 10.0.0.1",
        "down_timer_adverts 101",
        "auth_hmac { key 1 short key 2 }",
    ];
    for line in instance {
        let text = with(line);
        let found = read(&text).map_or_else(|errors| errors, |parsed| parsed.warnings);
        assert!(!found.is_empty(), "{line}");
    }
    let global = [
        "vrrp_strict",
        "vrrp_skip_check_adv_addr",
        "vrrp_iptables",
        "enable_script_security",
        "enable_dbus",
        "lvs_flush",
        "router_id \"a b\"",
        "notification_email { not-an-address }",
        "notification_email { a@b.c }",
        "notify_fifo relative",
        "dynamic_interfaces",
        "vrrp_version 4",
        "vrrp_rt_priority 50",
        "nonsense",
        "vrrp_mcast_group4 10.0.0.1",
        "vrrp_garp_lower_prio_repeat 1",
        "smtp_server 127.0.0.1 //text",
    ];
    for line in global {
        let parsed = accepted(&format!("global_defs {{\n{line}\n}}\n{BASE}"));
        assert!(!parsed.warnings.is_empty(), "{line}");
    }
    let top = [
        "virtual_server 10.0.0.1 80 {\n}",
        "static_ipaddress { 10.0.0.1 }",
        "net_namespace x",
        "bfd_instance b {\n}",
        "garp_group {\n}",
        "nonsense",
        "interface_up_down_delays { eth0 1 }",
    ];
    for block in top {
        let parsed = accepted(&format!("{block}\n{BASE}"));
        assert_eq!(parsed.warnings.len(), 1, "{block}: {:?}", shown(&parsed.warnings));
    }
}
