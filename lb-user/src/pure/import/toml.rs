//! Virtual routers as a file of our own, for those who leave another program.
//!
//! Owns how they are written; `pure::config` reads them back to the same.

use std::{fmt::Write, net::IpAddr, path::Path, time::Duration};

use crate::pure::config::{
    Parsed,
    error::Diagnostic,
    model::{
        Config, Notify,
        vrrp::{
            Address, AddressCheck, Announce, Auth, Checksum, Effect, Group, Hmac, HmacMode, Hook, Hooks,
            Preempt, Process, Route, Router, Rule, Scope, Script, Track, TrackFile, Tracked, UnicastPeer,
            Wish,
        },
    },
    network::{Family, Network},
    secret::{Part, SecretFile},
};

/// The whole file. What its origin means otherwise, or not at all, stands in comments above.
pub fn written(parsed: &Parsed) -> String {
    let Config { global, notify, vrrp, .. } = &parsed.config;
    let mut file = File { text: String::new() };
    file.comments(&parsed.warnings);
    if let Some(node) = &global.node {
        file.header("[global]");
        file.key("node", quoted(node));
    }
    file.notify(notify, &vrrp.fifos);
    for script in &vrrp.scripts {
        file.script(script);
    }
    for process in &vrrp.processes {
        file.process(process);
    }
    for tracked in &vrrp.files {
        file.tracked_file(tracked);
    }
    for (index, router) in vrrp.routers.iter().enumerate() {
        file.router(router, index, &parsed.secrets);
    }
    for group in &vrrp.groups {
        file.group(group);
    }
    file.text
}

struct File {
    text: String,
}

impl File {
    fn comments(&mut self, warnings: &[Diagnostic]) {
        for Diagnostic { file, line, message, .. } in warnings {
            let name = Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
            let plain: String =
                format!("{name}:{line}: {message}").chars().filter(|c| !c.is_control()).collect();
            self.line(&format!("# {plain}"));
        }
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn header(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(name);
    }

    fn key(&mut self, key: &str, value: impl AsRef<str>) {
        self.line(&format!("{key} = {}", value.as_ref()));
    }

    /// Where it is not the default.
    fn key_if(&mut self, is_other: bool, key: &str, value: impl AsRef<str>) {
        if is_other {
            self.key(key, value);
        }
    }

    fn notify(&mut self, notify: &Notify, fifos: &[std::path::PathBuf]) {
        if notify.mail.is_none() && fifos.is_empty() {
            return;
        }
        self.header("[notify]");
        if let Some(mail) = &notify.mail {
            self.key("email", list(mail.to.iter().map(|to| quoted(to))));
            self.key("email_from", quoted(&mail.from));
            self.key("smtp_server", quoted(&mail.server));
            self.key("timeout", duration(notify.timeout));
        }
        if !fifos.is_empty() {
            self.key("fifo", list(fifos.iter().map(|fifo| quoted(&fifo.to_string_lossy()))));
        }
    }

    fn script(&mut self, script: &Script) {
        self.header("[[track_script]]");
        self.key("name", quoted(&script.name));
        self.key("command", list(script.command.iter().map(|word| quoted(word))));
        self.key("interval", duration(script.interval));
        self.key("timeout", duration(script.timeout));
        self.key("rise", script.rise.to_string());
        self.key("fall", script.fall.to_string());
        if let Some(user) = &script.user {
            self.key("user", quoted(user));
        }
        self.key_if(script.init_fail, "init_fail", "true");
    }

    fn process(&mut self, process: &Process) {
        self.header("[[track_process]]");
        self.key("name", quoted(&process.name));
        self.key("process", quoted(&process.process));
        self.key("quorum", process.quorum.to_string());
        if let Some(max) = process.quorum_max {
            self.key("quorum_max", max.to_string());
        }
        self.key("delay", duration(process.delay));
    }

    fn tracked_file(&mut self, file: &TrackFile) {
        self.header("[[track_file]]");
        self.key("name", quoted(&file.name));
        self.key("file", quoted(&file.path.to_string_lossy()));
        self.key("interval", duration(file.interval));
    }

    fn router(&mut self, router: &Router, index: usize, secrets: &[SecretFile]) {
        self.header("[[vrrp]]");
        self.key("name", quoted(&router.name));
        self.key("interface", quoted(&router.interface));
        self.key("vrid", router.vrid.to_string());
        let is_v6 = router.family == Family::V6;
        self.key_if(is_v6 && router.addresses.is_empty(), "family", "\"ipv6\"");
        self.key("version", router.version.number().to_string());
        self.key("priority", router.priority.to_string());
        self.key_if(router.wish == Wish::Master, "state", "\"master\"");
        self.key("advert_interval", duration(router.interval));
        let adverts = router.down_timer_adverts;
        self.key_if(adverts != 3, "down_timer_adverts", adverts.to_string());
        self.key("addresses", list(router.addresses.iter().map(address)));
        let excluded = list(router.excluded.iter().map(address));
        self.key_if(!router.excluded.is_empty(), "excluded_addresses", excluded);
        self.key_if(!router.routes.is_empty(), "routes", list(router.routes.iter().map(route)));
        self.key_if(!router.rules.is_empty(), "rules", list(router.rules.iter().map(rule)));
        match router.preempt {
            Preempt::Never => self.key("preempt", "false"),
            Preempt::After(delay) => self.key_if(!delay.is_zero(), "preempt_delay", duration(delay)),
        }
        self.key_if(!router.start_delay.is_zero(), "start_delay", duration(router.start_delay));
        self.wire(router, index, secrets);
        self.announce(&router.announce);
        self.key_if(!router.track.is_empty(), "track", list(router.track.iter().map(track)));
        self.hooks(&router.notify);
    }

    fn wire(&mut self, router: &Router, index: usize, secrets: &[SecretFile]) {
        let peers = list(router.unicast_peers.iter().map(peer));
        self.key_if(!router.unicast_peers.is_empty(), "unicast_peers", peers);
        if let Some(source) = router.source {
            self.key("source", quoted(&source.to_string()));
        }
        if let Some(group) = router.multicast {
            self.key("multicast_group", quoted(&group.to_string()));
        }
        match &router.auth {
            Auth::None => {}
            Auth::Pass(pass) => {
                let end = pass.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let text = String::from_utf8_lossy(&pass[..end]);
                if matches!(text, std::borrow::Cow::Owned(_)) {
                    self.line(
                        "# the password is no text: put its bytes into a file, and name it by auth_pass_file",
                    );
                }
                self.key("auth_pass", quoted(&text));
            }
            Auth::Hmac(hmac) => self.hmac(hmac, index, secrets),
        }
        match router.checksum {
            Checksum::Auto => {}
            Checksum::PseudoHeader => self.key("checksum", "\"pseudo_header\""),
            Checksum::MessageOnly => self.key("checksum", "\"message\""),
        }
        match router.address_check {
            AddressCheck::Report => {}
            AddressCheck::NewMaster => self.key("address_check", "\"new_master\""),
            AddressCheck::Refuse => self.key("address_check", "\"refuse\""),
        }
        if let Some(mac) = &router.virtual_mac {
            let name = mac.name.as_ref().map(|name| ("name", quoted(name)));
            let base = mac.transmit_base.then(|| ("transmit_base", "true".to_owned()));
            match table(name.into_iter().chain(base)) {
                table if table == "{}" => self.key("virtual_mac", "true"),
                table => self.key("virtual_mac", table),
            }
        }
        self.key_if(!router.accept, "accept", "false");
        self.key_if(!router.hand_over, "hand_over", "false");
        self.key_if(router.refuse_on_mismatch, "refuse_on_mismatch", "true");
    }

    fn hmac(&mut self, hmac: &Hmac, router: usize, secrets: &[SecretFile]) {
        let keys = hmac.keys.iter().enumerate().map(|(index, key)| {
            let is_this = |file: &&SecretFile| file.router == router && file.part == Part::Key(index);
            let secret = match secrets.iter().find(is_this) {
                Some(file) => ("key_file", quoted(&file.path.to_string_lossy())),
                None => {
                    let digits: String = key.key.iter().map(|byte| format!("{byte:02x}")).collect();
                    ("key", quoted(&format!("hex:{digits}")))
                }
            };
            table([("id", key.id.to_string()), secret])
        });
        self.key("auth_hmac", list(keys));
        match hmac.mode {
            HmacMode::Enforce => {}
            HmacMode::Permissive => self.key("auth_hmac_mode", "\"permissive\""),
            HmacMode::ReceiveOnly => self.key("auth_hmac_mode", "\"receive_only\""),
        }
    }

    fn announce(&mut self, announce: &Announce) {
        let usual = Announce::default();
        let times = list(announce.times.iter().copied().map(duration));
        let parts = [
            (announce.times != usual.times).then_some(("times", times)),
            (announce.delay != usual.delay).then(|| ("delay", duration(announce.delay))),
            (announce.refresh != usual.refresh).then(|| ("refresh", duration(announce.refresh))),
            (announce.spacing != usual.spacing).then(|| ("spacing", duration(announce.spacing))),
        ];
        self.key_if(*announce != usual, "garp", table(parts.into_iter().flatten()));
    }

    fn hooks(&mut self, hooks: &Hooks) {
        let Hooks { any, master, backup, fault, stop, deleted, lower_priority, mail } = hooks;
        let named = [
            ("notify", any),
            ("notify_master", master),
            ("notify_backup", backup),
            ("notify_fault", fault),
            ("notify_stop", stop),
            ("notify_deleted", deleted),
            ("notify_master_rx_lower_pri", lower_priority),
        ];
        let given: Vec<(&str, &Hook)> =
            named.into_iter().filter_map(|(key, hook)| Some((key, hook.as_ref()?))).collect();
        for (key, hook) in &given {
            self.key(key, list(hook.command.iter().map(|word| quoted(word))));
        }
        if let Some((_, first)) = given.first() {
            if given.iter().any(|(_, hook)| hook.user != first.user) {
                self.line("# these programs ran as several users: here all of them run as one");
            }
            if let Some(user) = &first.user {
                self.key("notify_user", quoted(user));
            }
        }
        self.key_if(*mail, "smtp_alert", "true");
    }

    fn group(&mut self, group: &Group) {
        self.header("[[vrrp_group]]");
        self.key("name", quoted(&group.name));
        self.key("members", list(group.members.iter().map(|member| quoted(member))));
        self.key_if(!group.track.is_empty(), "track", list(group.track.iter().map(track)));
        self.hooks(&group.notify);
    }
}

fn address(address: &Address) -> String {
    let typed = match address.prefix == Family::of(address.address).bits() {
        true => quoted(&address.address.to_string()),
        false => quoted(&format!("{}/{}", address.address, address.prefix)),
    };
    let Address { dev, label, scope, broadcast, .. } = address;
    if dev.is_none() && label.is_none() && scope.is_none() && broadcast.is_none() {
        return typed;
    }
    let parts = [
        Some(("address", typed)),
        dev.as_ref().map(|dev| ("dev", quoted(dev))),
        label.as_ref().map(|label| ("label", quoted(label))),
        scope.map(|scope| ("scope", quoted(scope_word(scope)))),
        broadcast.map(|broadcast| ("broadcast", quoted(&broadcast.to_string()))),
    ];
    table(parts.into_iter().flatten())
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::Site => "site",
        Scope::Link => "link",
        Scope::Host => "host",
    }
}

fn route(route: &Route) -> String {
    let ip = |address: IpAddr| quoted(&address.to_string());
    let parts = [
        Some(("to", quoted(&destination(route.to)))),
        route.via.map(|via| ("via", ip(via))),
        route.dev.as_ref().map(|dev| ("dev", quoted(dev))),
        route.src.map(|src| ("src", ip(src))),
        route.table.map(|table| ("table", table.to_string())),
        route.metric.map(|metric| ("metric", metric.to_string())),
        route.scope.map(|scope| ("scope", quoted(scope_word(scope)))),
    ];
    table(parts.into_iter().flatten())
}

fn destination(to: Network) -> String {
    match (to.length(), to.family()) {
        (0, Family::V4) => "default".to_owned(),
        (0, Family::V6) => "default6".to_owned(),
        _ => to.to_string(),
    }
}

fn rule(rule: &Rule) -> String {
    let parts = [
        rule.from.map(|from| ("from", quoted(&from.to_string()))),
        rule.to.map(|to| ("to", quoted(&to.to_string()))),
        rule.iif.as_ref().map(|iif| ("iif", quoted(iif))),
        Some(("table", rule.table.to_string())),
        rule.priority.map(|priority| ("priority", priority.to_string())),
    ];
    table(parts.into_iter().flatten())
}

fn peer(peer: &UnicastPeer) -> String {
    let address = quoted(&peer.address.to_string());
    match peer.ttl {
        (0, u8::MAX) => address,
        (min, max) => {
            table([("address", address), ("ttl_min", min.to_string()), ("ttl_max", max.to_string())])
        }
    }
}

fn track(track: &Track) -> String {
    let what = match &track.what {
        Tracked::Interface(name) => ("interface", quoted(name)),
        Tracked::Script(name) => ("script", quoted(name)),
        Tracked::Process(name) => ("process", quoted(name)),
        Tracked::File(name) => ("file", quoted(name)),
        Tracked::Service(name) => ("service", quoted(name)),
        Tracked::Datapath => ("datapath", "true".to_owned()),
    };
    let (weight, reverse) = match track.effect {
        // A file without a weight has 1.
        Effect::Fault { reverse } => (matches!(track.what, Tracked::File(_)).then_some(0), reverse),
        Effect::Weight { weight, reverse } => (Some(weight), reverse),
        Effect::Scaled { weight } => (Some(weight), false),
    };
    let weight = weight.map(|weight| ("weight", weight.to_string()));
    let reverse = reverse.then(|| ("reverse", "true".to_owned()));
    table([what].into_iter().chain(weight).chain(reverse))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    let is_short = items.iter().map(String::len).sum::<usize>() < SHORT;
    match is_short {
        true => format!("[{}]", items.join(", ")),
        false => format!("[\n{}]", items.iter().fold(String::new(), |all, item| all + "  " + item + ",\n")),
    }
}

fn table(parts: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let parts: Vec<String> = parts.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
    if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn duration(duration: Duration) -> String {
    let mut left = duration.as_micros();
    let mut text = String::new();
    for (unit, micros) in UNITS {
        let count = left / micros;
        left %= micros;
        if count > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    quoted(&text)
}

const UNITS: [(&str, u128); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
/// Characters of a list on one line.
const SHORT: usize = 80;
