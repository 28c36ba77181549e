//! What `steelyard import` writes means the same.

use super::{accepted, read, seeds, with};
use crate::pure::{
    config::{Parsed, parse},
    import::toml::written,
};

fn check(text: &str) {
    let parsed = accepted(text);
    let own = written(&parsed);
    let again = parse("steelyard.toml", &own).unwrap_or_else(|errors| panic!("{errors:#?}\n{own}"));
    let Parsed { config, secrets, .. } = again;
    assert_eq!(config, parsed.config, "{own}");
    assert_eq!(secrets, parsed.secrets, "{own}");
    for warning in &parsed.warnings {
        assert!(own.contains(&warning.message), "{own}");
    }
}

#[test]
fn seeds_are_the_same_again() {
    for text in seeds::ALL {
        check(text);
    }
}

#[test]
fn everything_at_once_is_the_same_again() {
    check(include_str!("files/everything.conf"));
}

#[test]
fn files_of_keys_stay_files() {
    let key = "ab".repeat(32);
    let text = with(&format!(
        "auth_hmac {{\n key 1 hex:{key}\n key 2 file:/etc/steelyard/key\n active_key 2\n mode permissive\n}}"
    ));
    check(&text);
    let parsed = accepted(&text);
    assert_eq!(parsed.secrets.len(), 1);
    assert!(written(&parsed).contains("auth_hmac = [\n  { id = 2, key_file = \"/etc/steelyard/key\" },\n"));
}

#[test]
fn words_are_quoted() {
    let text = with("notify \"/bin/notify 'a \\\"b\\\"' \\\\\\\\ 'tab\there'\"");
    let (router, _) = super::router(&text);
    assert_eq!(router.notify.any.unwrap().command, ["/bin/notify", "a \"b\"", "\\", "tab\there"]);
    check(&text);
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    let own = "[[vrrp]]\nname = \"VI_1\"\ninterface = \"eth0\"\nvrid = 51\nversion = 2\naddresses = [\"10.0.5.97\"]\n";
    let both = |own: &str, foreign: &str| {
        let own = crate::pure::config::Source { name: "steelyard.toml", text: own };
        crate::pure::config::parse_with(&[own], &[super::foreign("k.conf", foreign)])
    };
    let errors = both(own, super::BASE).unwrap_err();
    let expected =
        ["1: [[vrrp]] `VI_1` has the VRID 51 on eth0 already", "1: [[vrrp]] `VI_1` has this name already"];
    assert_eq!(super::shown(&errors), expected);
    assert!(errors.iter().all(|error| error.file == "k.conf"));

    let other = own.replace("VI_1", "VI_2").replace("51", "52");
    let parsed = both(
        &format!("[global]\nnode = \"a\"\n{other}"),
        &format!("global_defs {{ router_id b }}\n{}", super::BASE),
    );
    let parsed = parsed.unwrap();
    assert_eq!(parsed.config.vrrp.routers.len(), 2);
    assert_eq!(parsed.config.global.node.as_deref(), Some("a"));
    let said = super::shown(&parsed.warnings);
    assert!(said.contains(&"1: the node is called a: router_id is not used".to_owned()), "{said:?}");
}

#[test]
fn nothing_to_run_is_an_error() {
    let errors = read("vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 256\n}").unwrap_err();
    assert_eq!(super::shown(&errors), ["1: no vrrp_instance of these files can run"]);
    assert!(read("").is_ok(), "a file without routers is none that lost them");
}
