//! Events as a mail, in the manner of Keepalived's: the node in brackets, the server, UP or DOWN.

use std::sync::Arc;

use super::Event;

/// A mail's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub subject: String,
    pub body: String,
}

/// One mail for all of them; `events` is not empty.
pub fn letter(events: &[Arc<Event>]) -> Letter {
    let node = events.first().map_or("", |event| &*event.node);
    let (topic, head) = match events {
        [event] => (topic(event), of_router(event).map(|(_, head)| format!("{head}\n\n"))),
        _ => (format!("{} changes: {}", events.len(), kinds(events)), None),
    };
    let lines: String = events.iter().map(|event| format!("{}  {}\n", event.time(), event.text)).collect();
    Letter {
        subject: format!("[{node}] {topic}"),
        body: format!(
            "{}{lines}\n-- \nsteelyard on {node}: `steelyard status` shows how things stand now\n",
            head.unwrap_or_default()
        ),
    }
}

/// "Server web/web1 (10.0.5.91:8888) - DOWN"
fn topic(event: &Event) -> String {
    let about = &event.about;
    let state = about.to.as_deref().unwrap_or(event.kind).to_uppercase();
    match (&about.service, &about.server, &about.address) {
        (Some(service), Some(server), Some(address)) => {
            format!("Server {service}/{server} ({address}) - {state}")
        }
        (Some(service), None, _) => format!("Service {service} - {state}"),
        _ => match of_router(event) {
            Some((topic, _)) => topic,
            None => event.text.chars().take(SUBJECT_MAX).collect(),
        },
    }
}

/// The subject and first line of Keepalived's mail, of what Keepalived mails of virtual routers.
fn of_router(event: &Event) -> Option<(String, String)> {
    let name: String = event.about.router.as_deref()?.chars().take(SUBJECT_MAX).collect();
    let is_group = matches!(event.kind, "vrrp-group" | "vrrp-group-ended");
    let what = if is_group { "Group" } else { "Instance" };
    if matches!(event.kind, "vrrp-ended" | "vrrp-group-ended") {
        let head = match is_group {
            true => "=> All VRRP group instances are now stopping <=",
            false => "=> VRRP Instance stopping <=",
        };
        return Some((format!("VRRP {what} {name} - Stopping"), head.to_owned()));
    }
    let is_change = is_group || matches!(event.kind, "vrrp-active" | "vrrp-backup" | "vrrp-fault");
    let state = match event.about.to.as_deref().filter(|_| is_change)? {
        "active" => "MASTER",
        "backup" => "BACKUP",
        "fault" => "FAULT",
        _ => return None,
    };
    let head = match (is_group, state) {
        (true, _) => format!("=> All VRRP group instances are now in {state} state <="),
        (false, "MASTER") => "=> VRRP Instance is now owning VRRP VIPs <=".to_owned(),
        (false, _) => "=> VRRP Instance is no longer owning VRRP VIPs <=".to_owned(),
    };
    Some((format!("VRRP {what} {name} - Entering {state} state"), head))
}

/// "2 server-down, 1 service-down"
fn kinds(events: &[Arc<Event>]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for event in events {
        match counts.iter_mut().find(|(kind, _)| *kind == event.kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((event.kind, 1)),
        }
    }
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

const SUBJECT_MAX: usize = 150;
