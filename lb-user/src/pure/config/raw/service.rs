//! `[[service]]` as typed, with its servers.

use super::{Check, Field, List, Number, Port, Text, reader::Reader};
use crate::pure::config::error::Spanned;

#[derive(Default)]
pub struct Service {
    pub name: Field<Text>,
    pub address: Field<List>,
    pub port: Field<Spanned<Port>>,
    pub protocol: Field<Text>,
    pub forward: Field<Text>,
    pub balance: Field<Text>,
    pub persistence: Field<Text>,
    pub idle_timeout: Field<Text>,
    pub slots: Field<Number>,
    pub mss: Field<Number>,
    pub no_server: Field<Text>,
    pub allow: Field<List>,
    pub deny: Field<List>,
    pub life: Life,
    pub servers: Field<Vec<Spanned<Server>>>,
    pub check: Option<Spanned<Check>>,
}

#[derive(Default)]
pub struct Server {
    pub name: Field<Text>,
    pub address: Field<Text>,
    pub weight: Field<Number>,
    pub backup: Field<bool>,
}

/// How servers come and go beside their checks.
#[derive(Default)]
pub struct Life {
    pub slow_start: Field<Text>,
    pub panic: Field<Number>,
    pub damping: Option<Spanned<Damping>>,
    pub suspect_after: Field<Number>,
}

#[derive(Default)]
pub struct Damping {
    pub changes: Field<Number>,
    pub within: Field<Text>,
    pub hold: Field<Text>,
}

impl Service {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Service {
        let service = Service {
            name: table.text("name", "\"web\""),
            address: table.text_or_texts("address", "\"10.0.5.96\""),
            port: table.port("port", "80"),
            protocol: table.text("protocol", "\"tcp\""),
            forward: table.text("forward", "\"nat\""),
            balance: table.text("balance", "\"maglev\""),
            persistence: table.duration("persistence", "\"10m\""),
            idle_timeout: table.duration("idle_timeout", "\"15m\""),
            slots: table.number("slots", "16_384"),
            mss: table.number("mss", "1400"),
            no_server: table.text("no_server", "\"reset\""),
            allow: table.text_or_texts("allow", "[\"10.0.0.0/8\"]"),
            deny: table.text_or_texts("deny", "[\"10.0.0.0/8\"]"),
            life: Life::read(&mut table),
            servers: table.tables(
                "server",
                "`server`",
                "write it like `server = [{ name = \"web1\", address = \"10.0.5.91:8888\" }]`",
                Server::read,
            ),
            check: table.table("check", "[service.check]", Check::read),
        };
        table.foreign("[[service]]", &WORDS);
        table.finish();
        service
    }
}

impl Server {
    fn read(mut table: Reader<'_, '_>) -> Server {
        let server = Server {
            name: table.text("name", "\"web1\""),
            address: table.text("address", "\"10.0.5.91:8888\""),
            weight: table.number("weight", "1"),
            backup: table.flag("backup"),
        };
        table.finish();
        server
    }
}

impl Life {
    fn read(table: &mut Reader<'_, '_>) -> Life {
        Life {
            slow_start: table.duration("slow_start", "\"1m\""),
            panic: table.number("panic", "50"),
            damping: table.table("damping", "[service.damping]", Damping::read),
            suspect_after: table.number("suspect_after", "5"),
        }
    }
}

impl Damping {
    fn read(mut table: Reader<'_, '_>) -> Damping {
        let damping = Damping {
            changes: table.number("changes", "4"),
            within: table.duration("within", "\"1m\""),
            hold: table.duration("hold", "\"2m\""),
        };
        table.finish();
        damping
    }
}

/// HAProxy's and Keepalived's words.
const WORDS: [(&str, &str); 5] = [
    ("slowstart", "slow_start"),
    ("lb_algo", "balance"),
    ("lb_kind", "forward"),
    ("persistence_timeout", "persistence"),
    ("real_server", "server"),
];
