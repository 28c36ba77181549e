//! One `[[service]]`: what its own keys mean for each other.

use super::{life::sees_replies, server::Target, service::Draft, unique};
use crate::pure::config::{
    error::{Findings, Span, Spanned, quote},
    model::{
        Protocol,
        check::{Check, Through},
    },
    network::{Family, shown},
};

pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    unique_servers(draft, findings);
    keeps_port(draft, findings);
    keeps_family(draft, findings);
    check_port(draft, findings);
    check_through(draft, findings);
    check_source(draft, findings);
    suspects(draft, findings);
    access(draft, findings);
    warn(draft, findings);
}

fn unique_servers(draft: &Draft, findings: &mut Findings) {
    let names = draft.servers.iter().filter_map(|server| server.name.as_ref());
    unique(names, findings, |name| format!("the server name {}", quote(name)));

    let Some(ports) = draft.ports else { return };
    let resolved: Vec<_> =
        targets(draft).map(|typed| Spanned::new(typed.at, typed.value.resolved(ports))).collect();
    unique(resolved.iter(), findings, |address| format!("the server address `{}`", shown(*address)));
}

fn keeps_port(draft: &Draft, findings: &mut Findings) {
    let (Some(forward), Some(ports)) = (draft.forward, draft.ports) else { return };
    if !forward.keeps_port() {
        return;
    }
    for typed in targets(draft) {
        let Target { address, port: Some(port) } = typed.value else { continue };
        if ports.single() != Some(port) {
            let listen = match ports.single() {
                Some(port) => format!("let the server listen on {port}"),
                None => "let the server listen on the ports of the service".into(),
            };
            findings.error(
                typed.at,
                format!("`{}` cannot change the port from {ports} to {port}", forward.name()),
                format!("write \"{address}\" and {listen}, or use `forward = \"nat\"`"),
            );
        }
    }
}

fn keeps_family(draft: &Draft, findings: &mut Findings) {
    // Addresses that were refused may have been of any family.
    let Some(forward) = draft.forward.filter(|forward| forward.keeps_family()) else { return };
    if draft.addresses.is_empty() || draft.servers.iter().any(|server| server.address.is_none()) {
        return;
    }
    for typed in targets(draft) {
        let family = Family::of(typed.value.address);
        if draft.first_of(family).is_none() {
            findings.error(
                typed.at,
                format!(
                    "`{}` keeps the family of a packet: service {} has no {} address for this server",
                    forward.name(),
                    draft.label(),
                    family.name()
                ),
                format!(
                    "give the service an {} address, or use `forward = \"ipip\"` or \"gue\"",
                    family.name()
                ),
            );
        }
    }
    for family in Family::ALL {
        let served = targets(draft).any(|typed| Family::of(typed.value.address) == family);
        if let Some(vip) = draft.first_of(family).filter(|_| !served && !draft.servers.is_empty()) {
            findings.warning(
                vip.at,
                format!(
                    "clients of {} are refused: service {} has no {} server",
                    vip.value,
                    draft.label(),
                    family.name()
                ),
                format!("add a server with an {} address, or remove the address here", family.name()),
            );
        }
    }
}

/// A check needs one port to connect to. Told once: one remedy serves all servers.
fn check_port(draft: &Draft, findings: &mut Findings) {
    if !draft.check.as_ref().is_some_and(|drafted| drafted.check.needs_port()) {
        return;
    }
    let Some(ports) = draft.ports.filter(|ports| !ports.is_exact()) else { return };
    if let Some(typed) = targets(draft).find(|typed| typed.value.port.is_none()) {
        let own = match draft.forward {
            Some(forward) if !forward.keeps_port() => ", or give the server one port",
            _ => "",
        };
        findings.error(
            typed.at,
            format!("no port to check: service {} has port {ports}, and the server none", draft.label()),
            format!("add `port` or `type = \"none\"` to [service.check]{own}"),
        );
    }
}

/// What goes as the service's packets do needs a mode in which packets keep the service's address.
fn check_through(draft: &Draft, findings: &mut Findings) {
    let (Some(forward), Some(drafted)) = (draft.forward, &draft.check) else { return };
    let Some(at) = drafted.typed.at("through") else { return };
    if drafted.check.through == Through::Datapath && !forward.keeps_port() {
        findings.error(
            at,
            format!("`through = \"datapath\"` means nothing to `forward = \"{}\"`", forward.name()),
            "remove it; it is for dsr, ipip and gue, whose servers hold the service's address",
        );
    }
}

/// Packets cannot leave from an address of another family than they go to.
fn check_source(draft: &Draft, findings: &mut Findings) {
    let Some(drafted) = &draft.check else { return };
    let (Some(source), Some(at)) = (drafted.check.source, drafted.typed.at("source")) else { return };
    let ends: Vec<_> = match (drafted.check.through, drafted.check.address) {
        (Through::Datapath, _) => draft.addresses.iter().map(|vip| vip.value.address()).collect(),
        (Through::Direct, Some(address)) => vec![address],
        (Through::Direct, None) => targets(draft).map(|typed| typed.value.address).collect(),
    };
    if let Some(end) = ends.iter().find(|end| Family::of(**end) != Family::of(source)) {
        findings.error(
            at,
            format!("no check can go from {source} to {end}, an {} address", Family::of(*end).name()),
            "remove `source`, or make two services of this one, with a `source` each",
        );
    }
}

fn suspects(draft: &Draft, findings: &mut Findings) {
    let (Some(forward), Some(life)) = (draft.forward, &draft.life) else { return };
    let Some(typed) = &life.suspect_after else { return };
    if typed.value > 0 && !sees_replies(forward) {
        findings.error(
            typed.at,
            format!(
                "`suspect_after` means nothing to `forward = \"{}\"`: its replies do not pass here",
                forward.name()
            ),
            "remove it; it is for nat and gateway",
        );
    }
}

/// A list that names networks of one family only shuts the other out.
fn access(draft: &Draft, findings: &mut Findings) {
    let Some(access) = draft.access.as_ref().filter(|access| !access.allow.is_empty()) else { return };
    for family in Family::ALL {
        let allowed = access.allow.iter().any(|network| network.family() == family);
        if let Some(vip) = draft.first_of(family).filter(|_| !allowed) {
            findings.warning(
                vip.at,
                format!("clients of {} are refused: `allow` has no {} network", vip.value, family.name()),
                "add the networks of those clients to `allow`, or remove the address here",
            );
        }
    }
}

fn warn(draft: &Draft, findings: &mut Findings) {
    let at = draft.name.as_ref().map_or(draft.at, |name| name.at);
    if draft.servers.is_empty() {
        let message = format!("service {} has no servers: its clients are refused", draft.label());
        findings.warning(at, message, "add `server = [{ name = \"..\", address = \"..\" }]`");
    }
    warn_protocol(draft, at, findings);
}

/// A check of the service's port over a protocol that the service does not have.
fn warn_protocol(draft: &Draft, at: Span, findings: &mut Findings) {
    let Some(Check { kind, port: None, .. }) = draft.check.as_ref().map(|check| &check.check) else { return };
    if draft.protocols == [Protocol::Udp] && kind.is_stream() {
        findings.warning(
            at,
            format!(
                "service {} is udp only, and its servers are checked with tcp connections",
                draft.label()
            ),
            "set another `type` in [service.check], such as \"udp\" or \"none\", or `port` to a tcp port of the servers",
        );
    }
    if draft.protocols == [Protocol::Tcp] && kind.has_port() && !kind.is_stream() {
        findings.warning(
            at,
            format!("service {} is tcp only, and its servers are checked over udp", draft.label()),
            "set another `type` in [service.check], such as \"tcp\", or `port` to a udp port of the servers",
        );
    }
}

fn targets(draft: &Draft) -> impl Iterator<Item = &Spanned<Target>> {
    draft.servers.iter().filter_map(|server| server.address.as_ref())
}
