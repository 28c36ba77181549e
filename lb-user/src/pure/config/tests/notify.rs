//! `[notify]`: what it means, its faults one at a time, and the words Keepalived has for it.

use std::time::Duration;

use super::{accepted, check, refused, with};
use crate::pure::config::model::{Mail, Notify};

#[test]
fn everything() {
    let text = with(
        "[log]",
        r#"[notify]
command = ["/usr/local/bin/notify", "two words"]
webhook = "https://hooks.example.com:8443/lb?to=ops"
email = ["ops@example.com", "ka@localhost"]
email_from = "lb1@example.com"
smtp_server = "127.0.0.1:2525"
timeout = "3s"
per_minute = 6
[log]"#,
    );
    let expected = Notify {
        command: vec!["/usr/local/bin/notify".into(), "two words".into()],
        webhook: Some("https://hooks.example.com:8443/lb?to=ops".into()),
        mail: Some(Mail {
            server: "127.0.0.1:2525".into(),
            from: "lb1@example.com".into(),
            to: vec!["ops@example.com".into(), "ka@localhost".into()],
        }),
        timeout: Duration::from_secs(3),
        per_minute: 6,
    };
    let parsed = accepted(&text);
    assert_eq!((parsed.config.notify, parsed.warnings), (expected, Vec::new()));
}

#[test]
fn a_string_is_split_on_blanks_and_a_list_is_not() {
    let cases = [
        (r#""/bin/notify""#, vec!["/bin/notify"]),
        (r#"" /bin/notify  a b ""#, vec!["/bin/notify", "a", "b"]),
        (r#"["/opt/my notify", "a b", ""]"#, vec!["/opt/my notify", "a b", ""]),
    ];
    for (typed, expected) in cases {
        let text = with("[log]", &format!("[notify]\ncommand = {typed}\n[log]"));
        assert_eq!(accepted(&text).config.notify.command, expected, "{typed}");
    }
}

#[test]
fn mail_servers() {
    for server in
        ["mail.example.com", "mail.example.com:587", "localhost", "192.0.2.25", "[2001:db8::25]:25", "::1"]
    {
        let text = with(
            "[log]",
            &format!(
                "[notify]\nemail = \"a@b.example\"\nemail_from = \"c@b.example\"\nsmtp_server = \"{server}\"\n[log]"
            ),
        );
        let mail = accepted(&text).config.notify.mail.expect("`email` is given");
        assert_eq!((mail.server.as_str(), mail.to.len()), (server, 1));
    }
}

#[test]
fn faults() {
    let notify = |keys: &str| format!("[notify]\n{keys}\n[log]");
    let mail = |server: &str| {
        notify(&format!("email = \"a@b.example\"\nemail_from = \"c@b.example\"\nsmtp_server = \"{server}\""))
    };
    check(&[
        ("command empty", "[log]", &notify("command = []"), "8:11: `command` is empty"),
        ("command blank", "[log]", &notify("command = \"  \""), "8:11: `command` is empty"),
        (
            "command relative",
            "[log]",
            &notify("command = \"notify.sh\""),
            "8:11: `notify.sh` is not an absolute path",
        ),
        (
            "command a number",
            "[log]",
            &notify("command = 1"),
            "8:11: `command` must be a string or a list of strings, not an integer",
        ),
        ("webhook no URL", "[log]", &notify("webhook = \"http://a b\""), "8:11: this is not a URL"),
        (
            "webhook a path",
            "[log]",
            &notify("webhook = \"/hook\""),
            "8:11: this URL is neither http nor https",
        ),
        (
            "webhook of another scheme",
            "[log]",
            &notify("webhook = \"ftp://a/b\""),
            "8:11: this URL is neither http nor https",
        ),
        (
            "webhook with a user",
            "[log]",
            &notify("webhook = \"http://a:b@c/\""),
            "8:11: this URL has a user in it, which is not sent",
        ),
        (
            "webhook with a fragment",
            "[log]",
            &notify("webhook = \"http://a/#b\""),
            "8:11: this URL has a `#` in it, and what follows is not sent",
        ),
        ("email empty", "[log]", &notify("email = []"), "8:9: `email` is empty"),
        (
            "smtp_server missing",
            "[log]",
            &notify("email = \"a@b.example\"\nemail_from = \"c@b.example\""),
            "7:1: `smtp_server` is missing here",
        ),
        (
            "email_from missing",
            "[log]",
            &notify("email = \"a@b.example\"\nsmtp_server = \"b\""),
            "7:1: `email_from` is missing here",
        ),
        (
            "email nonsense",
            "[log]",
            &notify("email = \"ops\"\nemail_from = \"c@b.example\"\nsmtp_server = \"b\""),
            "8:9: `ops` is not a mail address",
        ),
        (
            "email with a line",
            "[log]",
            &notify("email = \"a@b.example\\r\\nRCPT\"\nemail_from = \"c@b.example\"\nsmtp_server = \"b\""),
            "8:9: `a@b.example  RCPT` is not a mail address",
        ),
        (
            "email twice",
            "[log]",
            &notify(
                "email = [\"a@b.example\", \"a@b.example\"]\nemail_from = \"c@b.example\"\nsmtp_server = \"b\"",
            ),
            "8:25: the address `a@b.example` is given twice",
        ),
        ("smtp_server with a blank", "[log]", &mail("mail host"), "10:15: `mail host` is not a mail server"),
        ("smtp_server port 0", "[log]", &mail("mail:0"), "10:15: `mail:0` is not a mail server"),
        ("smtp_server empty", "[log]", &mail(""), "10:15: `` is not a mail server"),
        (
            "timeout too short",
            "[log]",
            &notify("timeout = \"1ms\""),
            "8:11: `timeout` is out of range: `1ms`",
        ),
        ("per_minute zero", "[log]", &notify("per_minute = 0"), "8:14: `per_minute` is out of range: 0"),
    ]);
}

#[test]
fn words_of_others_lead_to_ours() {
    let cases = [
        (
            "[log]",
            "[notify]\nnotification_email = [\"a@b.example\"]\n[log]",
            "its name is `email`, in [notify]",
        ),
        ("node = \"lb1\"", "notification_email_from = \"a@b\"", "its name is `email_from`, in [notify]"),
        ("node = \"lb1\"", "smtp_server = \"192.0.2.25\"", "its name is `smtp_server`, in [notify]"),
        ("node = \"lb1\"", "smtp_connect_timeout = 30", "its name is `timeout`, in [notify]"),
        ("node = \"lb1\"", "router_id = \"lb1\"", "its name is `node`, in [global]"),
        ("port = 80", "port = 80\nslowstart = \"1m\"", "its name is `slow_start`, in [[service]]"),
        ("interval = \"2s\"", "inter = \"2s\"", "its name is `interval`, in [service.check]"),
        (
            "interval = \"2s\"",
            "type = \"script\"\nmisc_path = \"/bin/true\"",
            "its name is `command`, in [service.check]",
        ),
    ];
    for (old, new, remedy) in cases {
        let errors = refused(&with(old, new));
        assert_eq!((errors.len(), errors[0].remedy.as_str()), (1, remedy), "{new}: {errors:?}");
    }
}
