//! `global_defs`: what holds for all routers, and for the node.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use lettre::Address as MailAddress;

use super::{
    garp::Garp,
    leftover,
    notify::user,
    parser::{Statement, Word},
    value::{extra, flag, interface, number, only, refused, timer, unknown, unused},
};
use crate::pure::config::{
    address::mail_server,
    error::{Findings, Span, Spanned, quote},
    model::{Mail, vrrp::Version},
    value,
};

pub(super) struct Globals {
    pub node: Option<Spanned<String>>,
    pub mail: MailDraft,
    pub version: Version,
    pub multicast: [Option<Spanned<IpAddr>>; 2],
    pub garp: Garp,
    pub down_timer_adverts: Option<u8>,
    pub start_delay: Duration,
    pub interface: Option<String>,
    pub script_user: Option<String>,
    pub smtp_alert: bool,
    pub fifos: Vec<PathBuf>,
}

#[derive(Default)]
pub(super) struct MailDraft {
    at: Option<Span>,
    to: Vec<String>,
    from: Option<String>,
    server: Option<String>,
    pub timeout: Option<Duration>,
}

impl Default for Globals {
    fn default() -> Globals {
        Globals {
            node: None,
            mail: MailDraft::default(),
            // Keepalived's, whatever ours is.
            version: Version::V2,
            multicast: [None, None],
            garp: Garp::default(),
            down_timer_adverts: None,
            start_delay: Duration::ZERO,
            interface: None,
            script_user: None,
            smtp_alert: false,
            fifos: Vec::new(),
        }
    }
}

impl Globals {
    pub(super) fn read(&mut self, block: &Statement, findings: &mut Findings) {
        for statement in block.children() {
            let keyword = statement.keyword();
            let garp = keyword.strip_prefix("vrrp_").filter(|word| Garp::WORDS.contains(word));
            if garp.is_some_and(|word| self.garp.read(word, statement, findings)) {
                continue;
            }
            let is_known = self.node_word(statement, findings)
                || self.mail.read(statement, findings)
                || self.router_word(statement, findings)
                || leftover::global(statement, findings);
            if !is_known {
                unknown(statement, "global_defs", &WORDS, findings);
            }
        }
    }

    fn node_word(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        match statement.keyword() {
            "router_id" => self.node = self.router_id(statement, findings),
            "script_user" => self.script_user = user(statement.values(), findings),
            "smtp_alert" | "smtp_alert_vrrp" => {
                self.smtp_alert = flag(statement, findings).unwrap_or(self.smtp_alert);
            }
            "default_interface" => {
                let word = only(statement, findings);
                self.interface = word.and_then(|word| interface(word, findings)).or(self.interface.take());
            }
            "notify_fifo" | "vrrp_notify_fifo" => self.fifo(statement, findings),
            _ => return false,
        }
        true
    }

    fn router_id(&self, statement: &Statement, findings: &mut Findings) -> Option<Spanned<String>> {
        let word = only(statement, findings)?;
        if value::name(&word.text).is_err() {
            let message = format!("{} is no name of a node here: the host name is used", quote(&word.text));
            findings.warning(word.at, message, "use letters, digits and `-`, `_`, `.`, `:`");
            return None;
        }
        Some(Spanned::new(word.at, word.text.clone()))
    }

    fn fifo(&mut self, statement: &Statement, findings: &mut Findings) {
        let Some((word, rest)) = statement.values().split_first() else {
            only(statement, findings);
            return;
        };
        if let Some(user) = rest.first() {
            let message = format!("{} is left out: the FIFO belongs to the daemon's user", quote(&user.text));
            findings.warning(user.at, message, "make the FIFO beforehand, with the owner that it needs");
        }
        let path = PathBuf::from(&word.text);
        if value::path(&word.text, PATH_MAX).is_err() {
            let message = format!("{} is no absolute path: nothing is written there", quote(&word.text));
            findings.warning(word.at, message, "write the whole path of the FIFO");
        } else if self.fifos.contains(&path) {
            let message = "this FIFO is given already: nothing is written twice";
            findings.warning(word.at, message, "keep one of the two");
        } else {
            self.fifos.push(path);
        }
    }

    fn router_word(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        match statement.keyword() {
            "vrrp_version" => {
                self.version = version(statement, "version 2 is used", findings).unwrap_or(Version::V2);
            }
            "vrrp_mcast_group4" | "vrrp_mcast_group6" => {
                let is_v4 = statement.keyword().ends_with('4');
                if let Some(group) = multicast(statement, Some(is_v4), findings) {
                    self.multicast[usize::from(!is_v4)] = Some(group);
                }
            }
            "vrrp_down_timer_adverts" => {
                self.down_timer_adverts = number(statement, (1, 100), "3 is used", findings);
            }
            "vrrp_startup_delay" => {
                let delay = timer(statement, DELAYS_US, "there is none", findings);
                self.start_delay = delay.unwrap_or_default();
            }
            "vrrp_skip_check_adv_addr" => skip_check(statement, findings),
            "vrrp_strict" => strict(statement, findings),
            _ => return false,
        }
        true
    }
}

impl MailDraft {
    fn read(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        match statement.keyword() {
            "notification_email" => {
                self.at = Some(statement.at());
                for word in statement.children().iter().flat_map(|child| &child.words) {
                    self.recipient(word, findings);
                }
            }
            "notification_email_from" => {
                if let Some(word) = only(statement, findings) {
                    self.from = mail_address(word, findings).or(self.from.take());
                }
            }
            "smtp_server" => self.server = server(statement, findings).or(self.server.take()),
            "smtp_connect_timeout" => {
                let seconds: Option<u32> =
                    number(statement, (1, 600), "1 to 600 seconds are taken", findings);
                self.timeout = seconds.map(|seconds| Duration::from_secs(seconds.into()));
            }
            _ => return false,
        }
        true
    }

    fn recipient(&mut self, word: &Word, findings: &mut Findings) {
        let Some(address) = mail_address(word, findings) else { return };
        if self.to.len() == RECIPIENTS_MAX {
            let message =
                format!("{} gets no mail: there are more than {RECIPIENTS_MAX} addresses", quote(&word.text));
            findings.warning(word.at, message, "write to a mailing list");
        } else if !self.to.contains(&address) {
            self.to.push(address);
        }
    }

    pub(super) fn finish(self, findings: &mut Findings) -> Option<Mail> {
        let at = self.at.filter(|_| !self.to.is_empty())?;
        let Some(server) = self.server else {
            let message = "no mail is sent: `smtp_server` is missing";
            findings.warning(at, message, "add `smtp_server HOST` to global_defs");
            return None;
        };
        let from = self.from.unwrap_or_else(|| {
            let message = format!("mail comes from {FROM}: Keepalived has the host's name behind the @");
            findings.warning(at, message, "add `notification_email_from ADDRESS`");
            FROM.to_owned()
        });
        Some(Mail { server, from, to: self.to })
    }
}

fn mail_address(word: &Word, findings: &mut Findings) -> Option<String> {
    let address = word.text.parse::<MailAddress>().ok();
    if address.is_none() {
        let message = format!("{} is no mail address: it is left out", quote(&word.text));
        findings.warning(word.at, message, "write one such as ops@example.com, without a name or brackets");
    }
    address.map(|address| address.to_string())
}

/// `HOST [PORT]`
fn server(statement: &Statement, findings: &mut Findings) -> Option<String> {
    let Some((host, rest)) = statement.values().split_first() else {
        only(statement, findings);
        return None;
    };
    let is_port = |word: &&Word| !word.text.starts_with("//");
    let typed = match rest.first().filter(is_port) {
        Some(port) if host.text.contains(':') => format!("[{}]:{}", host.text, port.text),
        Some(port) => format!("{}:{}", host.text, port.text),
        None => host.text.clone(),
    };
    extra(if typed.len() > host.text.len() { &rest[1..] } else { rest }, findings);
    if mail_server(&typed).is_err() {
        let remedy = "write a name or an address, and the port behind it where it is not 25";
        refused(statement, host, "no mail is sent there", remedy, findings);
        return None;
    }
    Some(typed)
}

pub(super) fn version(statement: &Statement, fallback: &str, findings: &mut Findings) -> Option<Version> {
    match number::<u8>(statement, (2, 3), fallback, findings)? {
        2 => Some(Version::V2),
        _ => Some(Version::V3),
    }
}

/// `is_v4`: of this family, where it matters.
pub(super) fn multicast(
    statement: &Statement,
    is_v4: Option<bool>,
    findings: &mut Findings,
) -> Option<Spanned<IpAddr>> {
    let word = only(statement, findings)?;
    let group: Option<IpAddr> = word.text.parse().ok();
    let Some(group) =
        group.filter(|group| group.is_multicast() && is_v4.is_none_or(|is_v4| is_v4 == group.is_ipv4()))
    else {
        refused(statement, word, "the usual group is used", "write a multicast address", findings);
        return None;
    };
    Some(Spanned::new(word.at, group))
}

pub(super) fn skip_check(statement: &Statement, findings: &mut Findings) {
    if flag(statement, findings) == Some(true) {
        let why =
            "adverts with other addresses are taken and reported in any case, because two masters are worse";
        unused(statement, why, findings);
    }
}

pub(super) fn strict(statement: &Statement, findings: &mut Findings) {
    if flag(statement, findings) == Some(true) {
        let message = format!(
            "`{}` is not enforced: addresses answer, and what RFC 9568 forbids goes on",
            statement.keyword()
        );
        let remedy = "remove it: with Keepalived it drops all packets to the virtual addresses";
        findings.warning(statement.at(), message, remedy);
    }
}

const WORDS: [&str; 21] = [
    "router_id",
    "notification_email",
    "notification_email_from",
    "smtp_server",
    "smtp_connect_timeout",
    "smtp_alert",
    "smtp_alert_vrrp",
    "script_user",
    "enable_script_security",
    "default_interface",
    "notify_fifo",
    "vrrp_notify_fifo",
    "vrrp_version",
    "vrrp_mcast_group4",
    "vrrp_mcast_group6",
    "vrrp_down_timer_adverts",
    "vrrp_startup_delay",
    "vrrp_skip_check_adv_addr",
    "vrrp_strict",
    "vrrp_garp_interval",
    "vrrp_garp_master_delay",
];
const DELAYS_US: (u64, u64) = (0, 3_600_000_000);
const RECIPIENTS_MAX: usize = 16;
/// PATH_MAX without its final NUL.
const PATH_MAX: usize = 4_095;
const FROM: &str = "keepalived@localhost";
