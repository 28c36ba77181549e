//! `[notify]` as typed.

use super::{Field, List, Number, Text, reader::Reader};

#[derive(Default)]
pub struct Notify {
    pub command: Field<List>,
    pub webhook: Field<Text>,
    pub mail: Mail,
    pub fifo: Field<List>,
    pub timeout: Field<Text>,
    pub per_minute: Field<Number>,
}

#[derive(Default)]
pub struct Mail {
    pub email: Field<List>,
    pub email_from: Field<Text>,
    pub smtp_server: Field<Text>,
}

impl Notify {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Notify {
        let notify = Notify {
            command: table.words("command", "[\"/usr/local/bin/notify\"]"),
            webhook: table.text("webhook", "\"https://hooks.example.com/lb\""),
            mail: Mail {
                email: table.text_or_texts("email", "[\"ops@example.com\"]"),
                email_from: table.text("email_from", "\"lb1@example.com\""),
                smtp_server: table.text("smtp_server", "\"192.0.2.25\""),
            },
            fifo: table.text_or_texts("fifo", "[\"/run/steelyard/vrrp.fifo\"]"),
            timeout: table.duration("timeout", "\"10s\""),
            per_minute: table.number("per_minute", "60"),
        };
        table.foreign("[notify]", &WORDS);
        table.finish();
        notify
    }
}

/// Those of Keepalived's global_defs.
pub(super) const WORDS: [(&str, &str); 5] = [
    ("notification_email", "email"),
    ("notification_email_from", "email_from"),
    ("smtp_connect_timeout", "timeout"),
    ("notify_fifo", "fifo"),
    ("vrrp_notify_fifo", "fifo"),
];
