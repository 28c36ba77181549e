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
    let topic = match events {
        [event] => topic(event),
        _ => format!("{} changes: {}", events.len(), kinds(events)),
    };
    let lines: String = events.iter().map(|event| format!("{}  {}\n", event.time(), event.text)).collect();
    Letter {
        subject: format!("[{node}] {topic}"),
        body: format!("{lines}\n-- \nsteelyard on {node}: `steelyard status` shows how things stand now\n"),
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
        _ => event.text.chars().take(SUBJECT_MAX).collect(),
    }
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
