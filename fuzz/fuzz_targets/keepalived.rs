//! Any text as a keepalived.conf, and the same with a second file that it may include: no panic, every diagnostic
//! within the text, and what is taken over means the same once it is written as a configuration of our own.
#![no_main]

use lb_user::pure::{
    config::{
        Parsed, Source,
        error::Diagnostic,
        model::vrrp::{Auth, Hooks},
        parse, parse_with,
    },
    import::{keepalived::Foreign, toml::written},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, part) = input;
    let file = |name, text, included| Foreign { source: Source { name, text }, config_id: "lb1", included };
    let files = [file("/etc/main.conf", text, None), file("/etc/part.conf", part, Some((0, 1)))];
    let parsed = match parse_with(&[], &files, &[]) {
        Ok(parsed) => parsed,
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "refused without a reason");
            return judge(&diagnostics, text, part);
        }
    };
    judge(&parsed.warnings, text, part);
    let own = written(&parsed);
    if !can_be_written(&parsed) {
        return;
    }
    match parse("steelyard.toml", &own) {
        Ok(again) => assert_eq!(again.config, parsed.config, "{own}"),
        Err(errors) => panic!("{errors:#?}\n{own}"),
    }
});

fn judge(diagnostics: &[Diagnostic], text: &str, part: &str) {
    let lines = text.lines().count().max(part.lines().count()) + 1;
    for diagnostic in diagnostics {
        assert!(diagnostic.line <= lines, "{diagnostic}");
        assert!(!diagnostic.remedy.is_empty(), "{diagnostic}");
    }
}

/// What Keepalived allows and our own file does not, each with a comment where it is written: passwords that are no
/// text, hooks of several users, one address or one interface of a virtual MAC in two routers.
fn can_be_written(parsed: &Parsed) -> bool {
    let vrrp = &parsed.config.vrrp;
    let mut addresses = std::collections::HashSet::new();
    let mut names = std::collections::HashSet::new();
    let hooks =
        vrrp.routers.iter().map(|router| &router.notify).chain(vrrp.groups.iter().map(|group| &group.notify));
    hooks.into_iter().all(one_user)
        && vrrp.routers.iter().all(|router| {
            let own = router.addresses.iter().chain(&router.excluded);
            let is_text = match &router.auth {
                Auth::Pass(pass) => std::str::from_utf8(pass).is_ok(),
                Auth::None | Auth::Hmac(_) => true,
            };
            let mac = router.virtual_mac.as_ref().and_then(|mac| mac.name.as_ref());
            is_text
                && own.into_iter().all(|address| addresses.insert(address.address))
                && mac.is_none_or(|name| names.insert(name))
        })
}

fn one_user(hooks: &Hooks) -> bool {
    let Hooks { any, master, backup, fault, stop, deleted, lower_priority, .. } = hooks;
    let given = [any, master, backup, fault, stop, deleted, lower_priority];
    let mut users = given.into_iter().flatten().map(|hook| &hook.user);
    users.next().is_none_or(|first| users.all(|user| user == first))
}
