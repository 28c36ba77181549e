//! `[notify]`: who is told of changes, and how.

use std::{path::PathBuf, time::Duration};

use http::{Uri, uri::Scheme};
use lettre::Address;

use super::{PATH_MAX, bounded, checked, command, number, required, unique_list, values, within};
use crate::pure::config::{
    address,
    error::{Findings, Span, Spanned, quote},
    model::{Mail, Notify},
    raw::{self, Field, List, Text},
    value::{self, Fault, fault},
};

pub(super) fn notify(raw: raw::Notify, at: Span, findings: &mut Findings) -> Option<Notify> {
    let command = raw.command.or(Vec::new(), |list| command::command(list, "command", findings));
    let webhook = raw.webhook.or(None, |typed| checked(&typed, findings, webhook).map(Some));
    let mail = mail(raw.mail, at, findings);
    let timeout = raw.timeout.or(TIMEOUT, |typed| {
        within(&typed, "timeout", ("100ms", TIMEOUT_MIN), ("10m", TIMEOUT_MAX), findings)
    });
    let per_minute =
        raw.per_minute.or(PER_MINUTE, |typed| number(&typed, "per_minute", 1, PER_MINUTE_MAX, findings));
    Some(Notify {
        command: command?,
        webhook: webhook?,
        mail: mail?,
        timeout: timeout?,
        per_minute: per_minute?,
    })
}

/// Programs read them that were told of by Keepalived.
pub(super) fn fifos(raw: Field<List>, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    raw.or(Vec::new(), |list| {
        bounded(&list, "fifo", FIFOS_MAX, findings);
        unique_list(list, "path", findings, |text| value::path(text, PATH_MAX)).map(values)
    })
}

/// A mail needs all three keys: a sender or a server that was guessed would lose it without a word.
fn mail(raw: raw::Mail, at: Span, findings: &mut Findings) -> Option<Option<Mail>> {
    let to = match raw.email {
        Field::Absent => {
            mail_to_nobody([raw.email_from, raw.smtp_server], findings);
            return Some(None);
        }
        Field::Wrong => return None,
        Field::Given(to) if to.value.is_empty() => {
            findings.error(to.at, "`email` is empty", "write at least one address, or remove the key");
            return None;
        }
        Field::Given(to) => to,
    };
    bounded(&to, "email", RECIPIENTS_MAX, findings);
    let to = unique_list(to, "address", findings, mail_address).map(values);
    let from = required(raw.email_from, "email_from", "\"lb1@example.com\"", at, findings)
        .and_then(|typed| checked(&typed, findings, mail_address));
    let server = required(raw.smtp_server, "smtp_server", "\"192.0.2.25\"", at, findings)
        .and_then(|typed| checked(&typed, findings, address::mail_server));
    Some(Some(Mail { server: server?, from: from?, to: to? }))
}

fn mail_to_nobody(keys: [Field<Text>; 2], findings: &mut Findings) {
    for Spanned { at, .. } in keys.into_iter().filter_map(Field::given) {
        findings.warning(at, "no mail is sent: `email` is missing", "add `email = [\"ops@example.com\"]`");
    }
}

fn mail_address(text: &str) -> Result<String, Fault> {
    match text.parse::<Address>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(fault(
            format!("{} is not a mail address", quote(text)),
            "write one such as \"ops@example.com\", without a name or brackets",
        )),
    }
}

/// Never shown: it may carry a token.
fn webhook(text: &str) -> Result<String, Fault> {
    let wrong = |message: &str| fault(message, "write one such as \"https://hooks.example.com/lb\"");
    let url: Uri = text.parse().map_err(|_| wrong("this is not a URL"))?;
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme()) {
        return Err(wrong("this URL is neither http nor https"));
    }
    if url.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(wrong("this URL has a user in it, which is not sent"));
    }
    if text.contains('#') {
        return Err(wrong("this URL has a `#` in it, and what follows is not sent"));
    }
    Ok(text.into())
}

const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);
const PER_MINUTE: u32 = 60;
const PER_MINUTE_MAX: u32 = 6_000;
const RECIPIENTS_MAX: usize = 16;
const FIFOS_MAX: usize = 8;
