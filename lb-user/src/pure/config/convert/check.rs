//! `[service.check]`: its values and defaults.

use std::time::Duration;

use super::{checked, choice, number, within};
use crate::pure::config::{
    error::{Findings, Spanned, quote},
    model::check::{COUNT, Check, CheckKind, INTERVAL, TIMEOUT, Through},
    raw::{self, Port},
    value::{Fault, fault},
};

pub(super) fn check(raw: raw::Check, findings: &mut Findings) -> Option<Check> {
    let kind = raw.kind.or(false, |typed| choice(&typed, "type", &KINDS, &KINDS_UNBUILT, findings));
    let interval = raw.interval.or(INTERVAL, |typed| {
        within(&typed, "interval", ("10ms", INTERVAL_MIN), ("1h", INTERVAL_MAX), findings)
    });
    let timeout_default = interval.map_or(TIMEOUT, |interval| interval.min(TIMEOUT));
    let timeout = raw.timeout.or(timeout_default, |typed| {
        let timeout = within(&typed, "timeout", ("1ms", TIMEOUT_MIN), ("1h", INTERVAL_MAX), findings)?;
        if interval.is_some_and(|interval| timeout > interval) {
            findings.error(
                typed.at,
                "`timeout` is longer than `interval`: the next check would start before this one ends",
                "shorten `timeout`, or lengthen `interval`",
            );
            return None;
        }
        Some(timeout)
    });
    let rise = raw.rise.or(COUNT, |typed| number(&typed, "rise", 1, COUNT_MAX, findings));
    let fall = raw.fall.or(COUNT, |typed| number(&typed, "fall", 1, COUNT_MAX, findings));
    let port = raw.port.or(None, |typed| port(&typed, findings).map(Some));
    let through = raw.through.or(Through::Direct, |typed| choice(&typed, "through", &THROUGH, &[], findings));
    let kind = if kind? { CheckKind::None } else { CheckKind::Tcp(Vec::new()) };
    let interval = interval?;
    Some(Check {
        interval,
        fast_interval: interval,
        down_interval: interval,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        port: port?,
        through: through?,
        ..Check::of(kind)
    })
}

fn port(typed: &Spanned<Port>, findings: &mut Findings) -> Option<u16> {
    match &typed.value {
        Port::Number(port) => number(&Spanned::new(typed.at, *port), "port", 1, u16::MAX, findings),
        Port::Text(text) => checked(&Spanned::new(typed.at, text.clone()), findings, not_a_number),
    }
}

/// One port is a number: text is not one.
fn not_a_number(text: &str) -> Result<u16, Fault> {
    Err(match text.parse::<u16>() {
        Ok(port) => {
            fault("`port` must be an integer, not a string", format!("write `port = {}`", port.max(1)))
        }
        Err(_) => fault(format!("{} is not a port", quote(text)), "write one port from 1 to 65535"),
    })
}

const THROUGH: [(&str, Through); 2] = [("direct", Through::Direct), ("datapath", Through::Datapath)];
/// Whether there is none.
const KINDS: [(&str, bool); 2] = [("tcp", false), ("none", true)];
const KINDS_UNBUILT: [&str; 9] = ["http", "https", "tls", "udp", "dns", "grpc", "icmp", "script", "agent"];

const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Of `rise` and `fall`.
const COUNT_MAX: u32 = 255;
