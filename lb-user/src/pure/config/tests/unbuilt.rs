//! What the language has and this version has not: refused by name, unless it asks for nothing.

use super::{BASE, accepted, refused, with};

const LANGUAGE: &str = include_str!("language.toml");

#[test]
fn values_and_keys() {
    let cases = [
        (r#"node = "lb1""#, "threads = 2", "2:11: `threads` in [global] is not built yet"),
        (r#"node = "lb1""#, "maxconn = 100_000", "2:11: `maxconn` in [global] is not built yet"),
        (r#"node = "lb1""#, r#"user = "steelyard""#, "2:8: `user` in [global] is not built yet"),
        (
            r#"level = "info""#,
            r#"access = ["udp:127.0.0.1:514 local0"]"#,
            "8:10: `access` in [log] is not built yet",
        ),
        (
            "[log]",
            r#"[web]
bind = "127.0.0.1:9090"
[log]"#,
            "7:1: `[web]` is not built yet",
        ),
    ];
    for (old, new, expected) in cases {
        only(&with(old, new), expected);
    }
}

#[test]
fn tables() {
    let cases = [
        (
            r#"[[frontend]]
name = "x"
"#,
            "20:1: `[[frontend]]` is not built yet",
        ),
        (
            r#"[[backend]]
name = "x"
"#,
            "20:1: `[[backend]]` is not built yet",
        ),
        (
            r#"[haproxy_socket]
path = "/x"
"#,
            "20:1: `[haproxy_socket]` is not built yet",
        ),
    ];
    for (table, expected) in cases {
        only(&format!("{BASE}{table}"), expected);
    }
}

#[test]
fn what_asks_for_nothing_is_accepted() {
    let plain = accepted(BASE);
    let cases = [
        ("port = 80", "port = 80\npersistence = \"0s\""),
        ("port = 80", "port = 80\npersistence = \"0ms\""),
        ("port = 80", "port = 80\nmss = 0"),
        ("port = 80", "port = 80\ndeny = []"),
        ("\"10.0.5.92\" }", "\"10.0.5.92\", backup = false }"),
        ("port = 80", "port = 80\nslow_start = \"0s\"\npanic = 0"),
        ("interval = \"2s\"", "interval = \"2s\"\nthrough = \"direct\"\nspread = 0"),
        ("[log]", "watchdog = \"0s\"\n[log]"),
        ("level = \"info\"", "level = \"info\"\naccess = []"),
    ];
    for (old, new) in cases {
        assert_eq!(accepted(&with(old, new)), plain, "{new}");
    }
}

/// Every key of the language is known: whatever is refused is refused as not built.
#[test]
fn whole_language() {
    let errors = refused(LANGUAGE);
    let other: Vec<_> = errors.iter().filter(|error| !error.message.contains("not built yet")).collect();
    assert!(other.is_empty(), "{other:#?}");
    assert_eq!(errors.len(), 7);
}

/// The layer-4 part of the language means something once what is not built is taken out.
#[test]
fn built_part_of_the_language() {
    let (layer_4, _) = LANGUAGE.split_once("# ---- layer 7").expect("the language has a part for layer 7");
    let text = [
        ("threads = 2", ""),
        ("maxconn = 100_000", ""),
        ("user = ", "#"),
        ("access = ", "#"),
        ("[web]\nbind = ", "#"),
    ]
    .iter()
    .fold(layer_4.to_string(), |text, (old, new)| {
        assert_eq!(text.matches(old).count(), 1, "{old:?} is in the language once");
        text.replace(old, new)
    });
    let parsed = accepted(&text);
    let warned: Vec<&str> = parsed.warnings.iter().map(|warning| warning.message.as_str()).collect();
    let no_v6 = "clients of 2001:db8::96 are refused: ";
    assert_eq!(
        warned,
        [format!("{no_v6}`allow` has no IPv6 network"), format!("{no_v6}service `web` has no IPv6 server")]
    );
    let service = &parsed.config.services[0];
    assert_eq!((service.name.as_str(), service.addresses.len(), service.servers.len()), ("web", 2, 3));
}

fn only(text: &str, expected: &str) {
    let found: Vec<String> = refused(text)
        .iter()
        .map(|error| format!("{}:{}: {}", error.line, error.column, error.message))
        .collect();
    assert_eq!(found, [expected], "{text}");
}
