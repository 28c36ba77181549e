//! What was typed: the keys of each table with their positions, before anybody asks what they mean.
//!
//! Owns which keys exist, in which table, of which type, and which of them are not built yet. Must not know
//! ranges, defaults, or how one key limits another: that is `convert`.

mod check;
mod notify;
mod reader;
mod service;
pub mod vrrp;

pub use check::{Check, Own, Request, Said, Times, Tls};
pub use notify::{Mail, Notify};
pub use service::{Damping, Life, Server, Service};
use toml::de::{DeTable, DeValue};

use self::reader::Reader;
use super::{
    Source,
    error::{Findings, Span, Spanned},
};

/// A configuration as typed, all files together. Holds the secret, so nothing here has a debug output.
#[derive(Default)]
pub struct Raw {
    pub global: Option<Spanned<Global>>,
    pub cluster: Option<Spanned<Cluster>>,
    pub datapath: Option<Spanned<Datapath>>,
    pub log: Option<Spanned<Log>>,
    pub notify: Option<Spanned<Notify>>,
    pub services: Vec<Spanned<Service>>,
    pub vrrp: Vrrp,
}

/// Lists of tables that are about virtual routers.
#[derive(Default)]
pub struct Vrrp {
    pub routers: Vec<Spanned<vrrp::Router>>,
    pub groups: Vec<Spanned<vrrp::Group>>,
    pub scripts: Vec<Spanned<vrrp::Script>>,
    pub processes: Vec<Spanned<vrrp::Process>>,
    pub files: Vec<Spanned<vrrp::TrackFile>>,
}

/// One key of a table.
#[derive(Default)]
pub enum Field<T> {
    #[default]
    Absent,
    /// Typed, but not as this key's type; a finding says so.
    Wrong,
    Given(T),
}

pub type Text = Spanned<String>;
pub type Number = Spanned<i64>;
pub type List = Spanned<Vec<Text>>;

pub enum Port {
    Number(i64),
    Text(String),
}

#[derive(Default)]
pub struct Global {
    pub node: Field<Text>,
    pub admin_socket: Field<Text>,
    pub state: Field<Text>,
}

#[derive(Default)]
pub struct Cluster {
    pub secret: Field<Text>,
    pub secret_file: Field<Text>,
    pub peers: Field<List>,
    pub port: Field<Number>,
    pub heartbeat: Field<Text>,
    pub patience: Field<Text>,
}

#[derive(Default)]
pub struct Datapath {
    pub interfaces: Field<List>,
    pub mode: Field<Text>,
    pub flows: Field<Number>,
    pub nat_source: Field<List>,
    pub pin: Field<Text>,
    pub watchdog: Field<Text>,
}

#[derive(Default)]
pub struct Log {
    pub level: Field<Text>,
}

/// Reads every source, whatever is wrong with the ones before it.
pub fn read(sources: &[Source<'_>], findings: &mut Findings) -> Raw {
    let mut raw = Raw::default();
    for (file, source) in sources.iter().enumerate() {
        let (table, errors) = DeTable::parse_recoverable(source.text);
        for error in errors {
            syntax(file, source.text, &error, findings);
        }
        raw.add_file(Reader::new(
            table.get_ref(),
            "the top level of the file",
            Span::start_of(file),
            findings,
        ));
    }
    raw
}

impl Raw {
    fn add_file(&mut self, mut root: Reader<'_, '_>) {
        let global = root.table("global", "[global]", Global::read);
        once(&mut self.global, global, "[global]", root.findings);
        let cluster = root.table("cluster", "[cluster]", Cluster::read);
        once(&mut self.cluster, cluster, "[cluster]", root.findings);
        let datapath = root.table("datapath", "[datapath]", Datapath::read);
        once(&mut self.datapath, datapath, "[datapath]", root.findings);
        let log = root.table("log", "[log]", Log::read);
        once(&mut self.log, log, "[log]", root.findings);
        let notify = root.table("notify", "[notify]", Notify::read);
        once(&mut self.notify, notify, "[notify]", root.findings);

        let remedy = "begin each service with the line `[[service]]`, in two brackets";
        if let Field::Given(services) = root.tables("service", "[[service]]", remedy, Service::read) {
            self.services.extend(services);
        }
        root.table_not_built("web", "[web]");
        root.table_not_built("frontend", "[[frontend]]");
        root.table_not_built("backend", "[[backend]]");
        root.table_not_built("haproxy_socket", "[haproxy_socket]");
        self.vrrp.add_file(&mut root);
        root.foreign("the file, as a list of tables", &vrrp::BLOCK_WORDS);
        root.finish();
    }
}

impl Vrrp {
    fn add_file(&mut self, root: &mut Reader<'_, '_>) {
        add(&mut self.routers, root, "vrrp", "[[vrrp]]", vrrp::Router::read);
        add(&mut self.groups, root, "vrrp_group", "[[vrrp_group]]", vrrp::Group::read);
        add(&mut self.scripts, root, "track_script", "[[track_script]]", vrrp::Script::read);
        add(&mut self.processes, root, "track_process", "[[track_process]]", vrrp::Process::read);
        add(&mut self.files, root, "track_file", "[[track_file]]", vrrp::TrackFile::read);
    }
}

/// The tables of one list that a file has.
fn add<'t, T>(
    all: &mut Vec<Spanned<T>>,
    root: &mut Reader<'t, '_>,
    key: &'static str,
    name: &'static str,
    read: impl FnMut(Reader<'t, '_>) -> T,
) {
    let remedy = format!("begin each of them with the line `{name}`, in two brackets");
    if let Field::Given(tables) = root.tables(key, name, &remedy, read) {
        all.extend(tables);
    }
}

impl Global {
    fn read(mut table: Reader<'_, '_>) -> Global {
        let global = Global {
            node: table.text("node", "\"lb1\""),
            admin_socket: table.text("admin_socket", "\"/run/steelyard/admin.sock\""),
            state: table.text("state", "\"/var/lib/steelyard\""),
        };
        table.not_built("threads", never);
        table.not_built("maxconn", never);
        table.not_built("user", never);
        table.foreign("[global]", &[("router_id", "node")]);
        table.foreign("[notify]", &notify::WORDS);
        table.foreign("[notify]", &[("smtp_server", "smtp_server")]);
        table.finish();
        global
    }
}

impl Cluster {
    fn read(mut table: Reader<'_, '_>) -> Cluster {
        let cluster = Cluster {
            secret: table.text("secret", "\"..\""),
            secret_file: table.text("secret_file", "\"/etc/steelyard/secret\""),
            peers: table.texts("peers", "[\"10.0.5.92\"]"),
            port: table.number("port", "8848"),
            heartbeat: table.duration("heartbeat", "\"25ms\""),
            patience: table.duration("patience", "\"100ms\""),
        };
        table.finish();
        cluster
    }
}

impl Datapath {
    fn read(mut table: Reader<'_, '_>) -> Datapath {
        let datapath = Datapath {
            interfaces: table.texts("interfaces", "[\"eth0\"]"),
            mode: table.text("mode", "\"auto\""),
            flows: table.number("flows", "262_144"),
            nat_source: table.texts("nat_source", "[\"10.0.5.93\"]"),
            pin: table.text("pin", "\"/sys/fs/bpf/steelyard\""),
            watchdog: table.duration("watchdog", "\"60s\""),
        };
        table.finish();
        datapath
    }
}

impl Log {
    fn read(mut table: Reader<'_, '_>) -> Log {
        let log = Log { level: table.text("level", "\"info\"") };
        table.not_built("access", is_empty_list);
        table.finish();
        log
    }
}

impl<T> Field<T> {
    pub fn given(self) -> Option<T> {
        match self {
            Field::Given(value) => Some(value),
            Field::Absent | Field::Wrong => None,
        }
    }

    /// None where the value is wrong.
    pub fn or<M>(self, default: M, convert: impl FnOnce(T) -> Option<M>) -> Option<M> {
        match self {
            Field::Absent => Some(default),
            Field::Wrong => None,
            Field::Given(value) => convert(value),
        }
    }
}

/// A table that the whole configuration has once: two files must not both hold it.
fn once<T>(slot: &mut Option<Spanned<T>>, read: Option<Spanned<T>>, name: &str, findings: &mut Findings) {
    match (slot.as_ref(), read) {
        (_, None) => {}
        (None, read) => *slot = read,
        (Some(first), Some(second)) => {
            let place = findings.place(first.at);
            findings.error(
                second.at,
                format!("`{name}` is given in two files: {place} has it already"),
                "move its keys into one of the two",
            );
        }
    }
}

fn syntax(file: usize, text: &str, error: &toml::de::Error, findings: &mut Findings) {
    let bytes = error.span().unwrap_or(0..0);
    let typed = text.get(bytes.clone()).unwrap_or_default();
    let at = Span { file, start: bytes.start, end: bytes.end };
    let message = match error.message() {
        message if message.contains("quoted") && typed.trim().is_empty() => "the value is missing",
        message => message,
    };
    if message == "duplicate key" {
        let message = format!("{} is given twice", super::error::quote(typed));
        return findings.syntax(at, message, "keep one of the two", false);
    }
    let remedy = if message.contains("quoted") || message == "the value is missing" {
        "write a value here; strings stand in double quotes"
    } else if message.contains("dotted key") {
        "remove one of the two: a name is either a value or a table"
    } else {
        "correct the line: `key = value`, strings in double quotes, lists in `[ ]`, tables in `{ }`"
    };
    findings.syntax(at, message, remedy, true);
}

fn never(_: &DeValue<'_>) -> bool {
    false
}

fn is_empty_list(value: &DeValue<'_>) -> bool {
    value.as_array().is_some_and(|items| items.is_empty())
}
