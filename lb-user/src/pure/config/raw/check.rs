//! `[service.check]` as typed: what every check may say, and what belongs to some types only.

use super::{Field, List, Number, Port, Text, reader::Reader};
use crate::pure::config::error::{Span, Spanned};

#[derive(Default)]
pub struct Check {
    /// Every key that was typed, and where its value is.
    pub typed: Vec<(&'static str, Span)>,
    pub kind: Field<Text>,
    pub through: Field<Text>,
    pub times: Times,
    pub rise: Field<Number>,
    pub fall: Field<Number>,
    pub start: Field<Text>,
    pub spread: Field<Number>,
    pub address: Field<Text>,
    pub port: Field<Spanned<Port>>,
    pub source: Field<Text>,
    pub proxy_header: Field<Text>,
    pub own: Own,
}

#[derive(Default)]
pub struct Times {
    pub interval: Field<Text>,
    pub fast_interval: Field<Text>,
    pub down_interval: Field<Text>,
    pub timeout: Field<Text>,
}

/// What belongs to some types only.
#[derive(Default)]
pub struct Own {
    pub request: Request,
    pub tls: Tls,
    pub said: Said,
    pub dialogue: Field<Vec<Spanned<Said>>>,
    pub query: Field<Text>,
    pub record: Field<Text>,
    pub service: Field<Text>,
    /// The key `tls`.
    pub is_encrypted: Field<bool>,
    pub command: Field<List>,
    pub user: Field<Text>,
    pub helo: Field<Text>,
}

#[derive(Default)]
pub struct Request {
    pub method: Field<Text>,
    pub uri: Field<Text>,
    pub host: Field<Text>,
    pub headers: Field<Vec<(Text, Text)>>,
    pub body: Field<Text>,
    pub expect_body: Field<Text>,
}

#[derive(Default)]
pub struct Tls {
    pub server_name: Field<Text>,
    pub verify: Field<Text>,
    pub ca_file: Field<Text>,
    pub alpn: Field<List>,
    pub expiry_warning: Field<Text>,
}

/// A move of a dialogue, or all there is to one.
#[derive(Default)]
pub struct Said {
    /// Nothing at all was typed, not even an unknown key.
    pub is_empty: bool,
    pub send: Field<Text>,
    pub send_hex: Field<Text>,
    pub expect: Field<Text>,
    pub expect_regex: Field<Text>,
}

impl Check {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Check {
        let mut check = Check {
            typed: Vec::new(),
            kind: table.text("type", "\"tcp\""),
            through: table.text("through", "\"direct\""),
            times: Times::read(&mut table),
            rise: table.number("rise", "3"),
            fall: table.number("fall", "3"),
            start: table.text("start", "\"up\""),
            spread: table.number("spread", "5"),
            address: table.text("address", "\"10.0.5.91\""),
            port: table.port("port", "8080"),
            source: table.text("source", "\"10.0.5.93\""),
            proxy_header: table.text("proxy_header", "\"v2\""),
            own: Own::read(&mut table),
        };
        check.typed = table.typed();
        table.foreign("[service.check]", &WORDS);
        table.finish();
        check
    }
}

impl Times {
    fn read(table: &mut Reader<'_, '_>) -> Times {
        Times {
            interval: table.duration("interval", "\"2s\""),
            fast_interval: table.duration("fast_interval", "\"500ms\""),
            down_interval: table.duration("down_interval", "\"10s\""),
            timeout: table.duration("timeout", "\"1s\""),
        }
    }
}

impl Own {
    fn read(table: &mut Reader<'_, '_>) -> Own {
        Own {
            request: Request::read(table),
            tls: Tls::read(table),
            said: Said::read(table, "\"200-399\""),
            dialogue: table.tables(
                "dialogue",
                "`dialogue`",
                "write it like `dialogue = [{ send = \"PING\\r\\n\" }, { expect = \"+PONG\" }]`",
                |mut table| {
                    let said = Said::read(&mut table, "\"+PONG\"");
                    table.finish();
                    said
                },
            ),
            query: table.text("query", "\"www.example.com\""),
            record: table.text("record", "\"A\""),
            service: table.text("service", "\"shop.Cart\""),
            is_encrypted: table.flag("tls"),
            command: table.words("command", "[\"/usr/local/bin/check\", \"web\"]"),
            user: table.text("user", "\"nobody\""),
            helo: table.text("helo", "\"lb1.example.com\""),
        }
    }
}

impl Request {
    fn read(table: &mut Reader<'_, '_>) -> Request {
        Request {
            method: table.text("method", "\"GET\""),
            uri: table.text("uri", "\"/healthz\""),
            host: table.text("host", "\"www.example.com\""),
            headers: table.pairs("headers", "{ \"X-Check\" = \"1\" }"),
            body: table.text("body", "\"ping\""),
            expect_body: table.text("expect_body", "\"ok\""),
        }
    }
}

impl Tls {
    fn read(table: &mut Reader<'_, '_>) -> Tls {
        Tls {
            server_name: table.text("server_name", "\"www.example.com\""),
            verify: table.text("verify", "\"system\""),
            ca_file: table.text("ca_file", "\"/etc/steelyard/ca.pem\""),
            alpn: table.texts("alpn", "[\"h2\"]"),
            expiry_warning: table.duration("expiry_warning", "\"14d\""),
        }
    }
}

impl Said {
    fn read(table: &mut Reader<'_, '_>, expect_example: &str) -> Said {
        Said {
            is_empty: table.is_empty(),
            send: table.text("send", "\"PING\\r\\n\""),
            send_hex: table.text("send_hex", "\"0a0b\""),
            expect: table.text("expect", expect_example),
            expect_regex: table.text("expect_regex", "\"^2\""),
        }
    }
}

/// HAProxy's and Keepalived's words.
const WORDS: [(&str, &str); 15] = [
    ("inter", "interval"),
    ("delay_loop", "interval"),
    ("fastinter", "fast_interval"),
    ("downinter", "down_interval"),
    ("connect_timeout", "timeout"),
    ("misc_timeout", "timeout"),
    ("connect_ip", "address"),
    ("connect_port", "port"),
    ("bindto", "source"),
    ("path", "uri"),
    ("status_code", "expect"),
    ("check_sni", "server_name"),
    ("sni", "server_name"),
    ("misc_path", "command"),
    ("helo_name", "helo"),
];
