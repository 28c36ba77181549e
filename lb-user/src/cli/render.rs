//! Answers as text for people.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::color::Paint;
use crate::{
    io::admin::server::ServerRow,
    pure::status::{Counters, Decision, Explanation, ServerStatus, ServiceStatus, Status, Traffic},
};

pub(super) fn status(status: &Status, paint: Paint) -> String {
    let mut text = format!(
        "node {}  steelyard {}  pid {}  up {}\n",
        status.node,
        status.version,
        status.pid,
        duration(status.uptime_s)
    );
    let interfaces: Vec<_> = status
        .datapath
        .interfaces
        .iter()
        .map(|interface| {
            let mode = if interface.mode == "native" {
                interface.mode.clone()
            } else {
                paint.yellow(&interface.mode)
            };
            format!("{} ({mode})", interface.name)
        })
        .collect();
    let interfaces = if interfaces.is_empty() { "none".to_owned() } else { interfaces.join(", ") };
    text += &format!(
        "xdp on {interfaces}  flows {} of {}\n",
        number(status.datapath.flows),
        number(status.datapath.flows_max)
    );
    for warning in &status.warnings {
        text += &format!("{} {warning}\n", paint.yellow("warning:"));
    }
    for each in &status.services {
        text += "\n";
        text += &service(each, paint);
    }
    text
}

pub(super) fn service(service: &ServiceStatus, paint: Paint) -> String {
    let mut text = format!(
        "service {}  {}  {}  {}\n",
        service.name,
        service.addresses.join(" "),
        service.forward,
        service.balance
    );
    text += &format!(
        "  {} of {} servers usable, {} slots ({} unsettled), {}\n",
        service.servers_usable,
        service.servers.len(),
        number(service.slots.into()),
        number(service.slots_unsettled.into()),
        moved(&service.traffic)
    );
    let mut table = table(&[
        "  server",
        "address",
        "weight",
        "health",
        "slots %",
        "connections",
        "packets",
        "bytes",
        "detail",
    ]);
    for server in &service.servers {
        table.add_row([
            Cell::new(format!("  {}", label(&server.name, server))),
            Cell::new(&server.address),
            right(server.weight),
            Cell::new(health(server, paint)),
            right(share(server.slots, service.slots)),
            right(number(server.traffic.connections)),
            right(number(server.traffic.packets)),
            right(number(server.traffic.bytes)),
            Cell::new(&server.detail),
        ]);
    }
    text + &finish(&table)
}

pub(super) fn services(services: &[ServiceStatus], paint: Paint) -> String {
    let mut table =
        table(&["service", "addresses", "forward", "usable", "unsettled", "connections", "packets", "bytes"]);
    for service in services {
        let usable = format!("{}/{}", service.servers_usable, service.servers.len());
        let usable = if service.servers_usable == 0 { paint.red(&usable) } else { usable };
        table.add_row([
            Cell::new(&service.name),
            Cell::new(service.addresses.join(" ")),
            Cell::new(&service.forward),
            right(usable),
            right(number(service.slots_unsettled.into())),
            right(number(service.traffic.connections)),
            right(number(service.traffic.packets)),
            right(number(service.traffic.bytes)),
        ]);
    }
    finish(&table)
}

pub(super) fn servers(servers: &[ServerRow], paint: Paint) -> String {
    let mut table =
        table(&["server", "address", "weight", "health", "connections", "packets", "bytes", "detail"]);
    for row in servers {
        table.add_row([
            Cell::new(label(&format!("{}/{}", row.service, row.server.name), &row.server)),
            Cell::new(&row.server.address),
            right(row.server.weight),
            Cell::new(health(&row.server, paint)),
            right(number(row.server.traffic.connections)),
            right(number(row.server.traffic.packets)),
            right(number(row.server.traffic.bytes)),
            Cell::new(&row.server.detail),
        ]);
    }
    finish(&table)
}

pub(super) fn server(row: &ServerRow, paint: Paint) -> String {
    let server = &row.server;
    let lines = [
        ("server", label(&format!("{}/{}", row.service, server.name), server)),
        ("address", server.address.clone()),
        ("weight", server.weight.to_string()),
        ("health", health(server, paint)),
        ("detail", server.detail.clone()),
        ("slots", number(server.slots.into())),
        ("neighbour", server.neighbour.clone().unwrap_or_else(|| paint.red("unresolved"))),
        ("interface", server.interface.clone().unwrap_or_else(|| paint.red("no route"))),
        ("traffic", moved(&server.traffic)),
    ];
    lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

pub(super) fn counters(counters: &Counters) -> String {
    let mut table = table(&["counter", "packets"]);
    for (name, &count) in counters {
        table.add_row([Cell::new(name), right(number(count))]);
    }
    finish(&table)
}

pub(super) fn explanation(explanation: &Explanation) -> String {
    let mut text = format!("{} > {}/{}\n", explanation.client, explanation.vip, explanation.protocol);
    let Some(service) = &explanation.service else {
        return text + &format!("{}: {}\n", explanation.new.reason, explanation.new.sent);
    };
    text += &format!("service     {service} ({})\n", explanation.forward.as_deref().unwrap_or("?"));
    if let Some(slot) = &explanation.slot {
        let name = |server: &Option<String>| server.clone().unwrap_or_else(|| "nobody".to_owned());
        text += &match slot.lookup {
            false => format!("slot        {}: {}, settled\n", slot.index, name(&slot.current)),
            true => format!(
                "slot        {}: current {}, base {}, records are looked up\n",
                slot.index,
                name(&slot.current),
                name(&slot.base)
            ),
        };
    }
    text += &match &explanation.recorded {
        Some(record) => {
            let source =
                record.nat_source.as_ref().map(|source| format!(" from {source}")).unwrap_or_default();
            format!(
                "recorded    {}{source}, idle {} ms: decides for this connection\n",
                record.server, record.idle_ms
            )
        }
        None => "recorded    no\n".to_owned(),
    };
    text + &decision("new", &explanation.new) + &decision("established", &explanation.established)
}

fn decision(name: &str, decision: &Decision) -> String {
    let server = decision.server.as_deref().unwrap_or("nobody");
    format!("{name:<11} {server}: {}\n{:<11} {}\n", decision.reason, "", decision.sent)
}

fn label(name: &str, server: &ServerStatus) -> String {
    if server.backup { format!("{name} (backup)") } else { name.to_owned() }
}

fn health(server: &ServerStatus, paint: Paint) -> String {
    match server.health.as_str() {
        "up" => paint.green("up"),
        "down" => paint.red("down"),
        other => paint.yellow(other),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

/// Without the preset's leading and trailing blanks.
fn finish(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

fn right(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn moved(traffic: &Traffic) -> String {
    format!(
        "{} connections, {} packets, {} bytes",
        number(traffic.connections),
        number(traffic.packets),
        number(traffic.bytes)
    )
}

fn share(part: u32, whole: u32) -> String {
    format!("{:.1}", f64::from(part) * 100.0 / f64::from(whole.max(1)))
}

/// Digits in groups of three.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn durations_have_two_parts() {
        for (seconds, text) in [(5, "5s"), (65, "1m 5s"), (3_700, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
