//! Answers as text for people.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{color::Paint, vrrp};
use crate::{
    io::admin::server::ServerRow,
    pure::status::{
        Counters, Decision, Explanation, Flows, RecordStatus, RingStatus, ServerStatus, ServiceStatus,
        SlotStatus, Status, Traffic,
    },
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
    for change in &status.changes {
        text += &format!("{} {change}\n", paint.yellow("not in the file:"));
    }
    if !status.vrrp.routers.is_empty() {
        text += &format!("\n{}", vrrp::routers(&status.vrrp, paint));
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
        "  {} of {} servers usable, {}, {}\n",
        service.servers_usable,
        service.servers.len(),
        rings(service, paint),
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
            Cell::new(detail(server, paint)),
        ]);
    }
    text + &finish(&table)
}

/// "16 384 slots (0 unsettled)", for each family where each has a ring of its own.
fn rings(service: &ServiceStatus, paint: Paint) -> String {
    let ring = |ring: &RingStatus| {
        let family = ring.family.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
        let empty = match ring.slots_empty {
            0 => String::new(),
            empty => paint.red(&format!(", {} without a server", number(empty.into()))),
        };
        let (slots, unsettled) = (number(ring.slots.into()), number(ring.slots_unsettled.into()));
        format!("{family}{slots} slots ({unsettled} unsettled{empty})")
    };
    service.rings.iter().map(ring).collect::<Vec<_>>().join(", ")
}

/// The check's last result, behind what keeps packets from the server.
fn detail(server: &ServerStatus, paint: Paint) -> String {
    match &server.unreachable {
        Some(reason) => {
            format!("{}; {}", paint.red(&format!("unreachable: {reason}")), brief(&server.detail))
        }
        None => brief(&server.detail),
    }
}

/// What fits a row; `server show` has all of it.
fn brief(detail: &str) -> String {
    match detail.char_indices().nth(DETAIL_MAX) {
        Some((end, _)) => format!("{}..", &detail[..end]),
        None => detail.to_owned(),
    }
}

const DETAIL_MAX: usize = 60;

pub(super) fn services(services: &[ServiceStatus], paint: Paint) -> String {
    let mut table = table(&[
        "service",
        "addresses",
        "forward",
        "balance",
        "usable",
        "unsettled",
        "connections",
        "packets",
        "bytes",
    ]);
    for service in services {
        let usable = format!("{}/{}", service.servers_usable, service.servers.len());
        let usable = if service.servers_usable == 0 { paint.red(&usable) } else { usable };
        table.add_row([
            Cell::new(&service.name),
            Cell::new(service.addresses.join(" ")),
            Cell::new(&service.forward),
            Cell::new(&service.balance),
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
            Cell::new(detail(&row.server, paint)),
        ]);
    }
    finish(&table)
}

pub(super) fn server(row: &ServerRow, paint: Paint) -> String {
    let server = &row.server;
    let vlans: Vec<_> = server.vlans.iter().map(|id| format!(" vlan {id}")).collect();
    let interface = server.interface.as_ref().map(|name| name.clone() + &vlans.concat());
    let lines = [
        ("server", label(&format!("{}/{}", row.service, server.name), server)),
        ("address", server.address.clone()),
        ("weight", server.weight.to_string()),
        ("health", health(server, paint)),
        ("detail", server.detail.clone()),
        ("slots", number(server.slots.into())),
        ("of older", format!("{} slots", number(server.slots_base.into()))),
        ("recorded", format!("{} flows", number(server.flows))),
        ("neighbour", server.neighbour.clone().unwrap_or_else(|| paint.red("unresolved"))),
        ("interface", interface.unwrap_or_else(|| paint.red("no route"))),
        ("mtu", server.mtu.map_or_else(|| paint.red("no route"), |bytes| number(bytes.into()))),
        ("reachable", server.unreachable.as_ref().map_or_else(|| "yes".to_owned(), |why| paint.red(why))),
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

pub(super) fn flows(flows: &Flows) -> String {
    let mut table = table(&["service", "client", "vip", "server", "state", "idle s", "rewritten"]);
    for flow in &flows.flows {
        let rewritten = flow.rewritten.as_ref();
        let rewritten = rewritten.map(|ends| format!("{} > {}", ends.source, ends.destination));
        let scope = if flow.all_ports { " (all ports)" } else { "" };
        table.add_row([
            Cell::new(flow.service.as_deref().unwrap_or("(gone)")),
            Cell::new(&flow.client),
            Cell::new(format!("{}/{}{scope}", flow.vip, flow.protocol)),
            Cell::new(&flow.server),
            Cell::new(&flow.state),
            right(number(flow.idle_s)),
            Cell::new(rewritten.unwrap_or_default()),
        ]);
    }
    let shown = flows.flows.len() as u64;
    let note = match flows.total {
        total if total > shown => format!("{} of {} flows are shown\n", number(shown), number(total)),
        total => format!("{} flows\n", number(total)),
    };
    if shown == 0 { note } else { finish(&table) + &note }
}

pub(super) fn explanation(explanation: &Explanation) -> String {
    let Explanation { client, vip, protocol, new, established, .. } = explanation;
    let on = explanation.arrival.as_ref().map(|name| format!(", in by {name}")).unwrap_or_default();
    let mut text = format!("{client} > {vip}/{protocol}{on}\n");
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "?".to_owned());
    if let Some(service) = &explanation.service {
        let (forward, balance) = (word(&explanation.forward), word(&explanation.balance));
        text += &line("service", &format!("{service} ({forward}, {balance})"));
        text += &line("found by", &word(&explanation.found));
        text += &line("access", &word(&explanation.access));
    }
    if let Some(found) = &explanation.slot {
        let in_turn = ["roundrobin", "leastconn"].contains(&explanation.balance.as_deref().unwrap_or(""));
        text += &line("slot", &slot(found, in_turn));
    }
    text += &line("recorded", &explanation.recorded.as_ref().map_or_else(|| "no".to_owned(), record));
    text += &decision("new", new);
    // Without a SYN all packets are alike.
    if protocol == "tcp" { text + &decision("established", established) } else { text }
}

/// `in_turn`: a ring says only whose the connections are that began elsewhere.
fn slot(slot: &SlotStatus, in_turn: bool) -> String {
    let name = |server: &Option<String>| server.clone().unwrap_or_else(|| "nobody".to_owned());
    let SlotStatus { index, current, base, lookup } = slot;
    match lookup {
        _ if in_turn => format!("{index}: {}, for connections that no syn began here", name(current)),
        false => format!("{index}: {}, settled", name(current)),
        true => {
            format!("{index}: current {}, base {}, records are looked up", name(current), name(base))
        }
    }
}

fn record(record: &RecordStatus) -> String {
    let whose = if record.of_client { "the client" } else { "this connection" };
    let ends = match (&record.nat_source, &record.nat_destination) {
        (Some(source), Some(destination)) => format!(" as {source} > {destination}"),
        _ => String::new(),
    };
    format!("{}{ends}, {}, idle {} ms: decides for {whose}", record.server, record.state, record.idle_ms)
}

fn decision(name: &str, decision: &Decision) -> String {
    let server = decision.server.as_deref().unwrap_or("nobody");
    let mut text = line(name, &format!("{server}: {}", decision.reason));
    text += &line("", &decision.sent);
    text += &line("", &format!("counted as {}", decision.verdict));
    if let Some(bytes) = decision.packet_max {
        text += &line("", &format!("packets of up to {bytes} bytes fit the way"));
    }
    decision.notes.iter().fold(text, |text, note| text + &line("", note))
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<11} {text}\n")
}

fn label(name: &str, server: &ServerStatus) -> String {
    if server.backup { format!("{name} (backup)") } else { name.to_owned() }
}

fn health(server: &ServerStatus, paint: Paint) -> String {
    let health = match server.health.as_str() {
        "up" => paint.green("up"),
        "down" | "held" => paint.red(&server.health),
        other => paint.yellow(other),
    };
    match server.admin.as_str() {
        "ready" | "" => health,
        admin => format!("{} ({health})", paint.yellow(admin)),
    }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

/// Without the preset's leading and trailing blanks.
pub(super) fn finish(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

pub(super) fn right(value: impl ToString) -> Cell {
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
pub(super) fn number(value: u64) -> String {
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
    use crate::pure::status::FlowStatus;

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

    fn flow(client: &str, all_ports: bool) -> FlowStatus {
        FlowStatus {
            service: Some("web".to_owned()),
            client: client.to_owned(),
            vip: "10.0.5.96:80".to_owned(),
            all_ports,
            protocol: "tcp".to_owned(),
            server: "web1".to_owned(),
            state: "established".to_owned(),
            idle_s: 1_234,
            rewritten: None,
        }
    }

    #[test]
    fn flows_say_how_many_there_are() {
        let all = Flows { total: 2, flows: vec![flow("192.0.2.1:1", false), flow("192.0.2.2", true)] };
        let text = flows(&all);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].contains("10.0.5.96:80/tcp ") && lines[1].contains("1 234"), "{text}");
        assert!(lines[2].contains("(all ports)"), "{text}");
        assert_eq!(lines[3], "2 flows");
        assert!(flows(&Flows { total: 12_000, ..all }).ends_with("2 of 12 000 flows are shown\n"));
        assert_eq!(flows(&Flows { total: 0, flows: Vec::new() }), "0 flows\n");
    }

    #[test]
    fn an_unreachable_server_says_why() {
        let server = ServerStatus {
            name: "web1".to_owned(),
            address: "10.0.5.91:80".to_owned(),
            weight: 1,
            backup: true,
            health: "up".to_owned(),
            admin: "ready".to_owned(),
            detail: "connected in 0.2 ms".to_owned(),
            slots: 0,
            slots_base: 0,
            flows: 0,
            neighbour: None,
            interface: Some("eth0".to_owned()),
            mtu: Some(1_500),
            vlans: vec![100, 7],
            unreachable: Some("its next hop does not answer arp".to_owned()),
            traffic: Traffic::default(),
        };
        let row = ServerRow { service: "web".to_owned(), server };
        let text = super::server(&row, Paint::Plain);
        for part in
            ["web/web1 (backup)", "eth0 vlan 100 vlan 7", "1 500", "does not answer arp", "unresolved"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            servers(&[row], Paint::Plain)
                .contains("unreachable: its next hop does not answer arp; connected")
        );
    }
}
