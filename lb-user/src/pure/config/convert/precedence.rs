//! Which service takes a packet that several could take: the longest prefix wins, then the narrowest range of
//! ports.
//!
//! Owns the refusal of services that this order does not decide between, and of more rules for one address
//! than the program looks at. Must not know what a service does with its packets.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use lb_common::limits::{WILDCARD_NETWORKS_MAX, WILDCARD_RULES_MAX};

use super::service::Draft;
use crate::pure::config::{
    error::{Findings, Span},
    model::Protocol,
    network::{Network, Ports, endpoint},
};

/// What one service takes of one network.
struct Claim<'a> {
    ports: Ports,
    draft: &'a Draft,
    /// Where the network is typed; later in the files is greater.
    at: Span,
}

type Claims<'a> = BTreeMap<(Network, Protocol), Vec<Claim<'a>>>;

pub(super) fn check(drafts: &[Draft], findings: &mut Findings) {
    let mut claims = claims(drafts);
    for ((network, protocol), claims) in &mut claims {
        undecided(*network, *protocol, claims, findings);
    }
    crowded(&claims, findings);
}

/// Whether a network needs a rule: one address with one port is looked up as it is.
pub(super) fn is_wildcard(network: Network, ports: Ports) -> bool {
    !(network.is_host() && ports.is_exact())
}

fn claims(drafts: &[Draft]) -> Claims<'_> {
    let mut claims = Claims::new();
    for draft in drafts {
        let Some(ports) = draft.ports else { continue };
        for typed in &draft.addresses {
            for &protocol in &draft.protocols {
                let of_network = claims.entry((typed.value, protocol)).or_default();
                of_network.push(Claim { ports, draft, at: typed.at });
            }
        }
    }
    claims
}

/// On one network each range of ports lies within another, or apart from it.
fn undecided(network: Network, protocol: Protocol, claims: &mut [Claim<'_>], findings: &mut Findings) {
    claims.sort_by_key(|claim| (claim.ports.first, Reverse(claim.ports.last)));
    let mut around: Vec<&Claim<'_>> = Vec::new();
    for claim in &*claims {
        while around.pop_if(|outer| outer.ports.last < claim.ports.first).is_some() {}
        if let Some(outer) = around.last() {
            let earlier = (outer.at.file, outer.at.start) < (claim.at.file, claim.at.start);
            let (first, second) = if earlier { (*outer, claim) } else { (claim, *outer) };
            if outer.ports == claim.ports {
                same(network, protocol, first, second, findings);
            } else if !outer.ports.covers(claim.ports) {
                crossing(network, protocol, first, second, findings);
            }
        }
        around.push(claim);
    }
}

fn same(
    network: Network,
    protocol: Protocol,
    first: &Claim<'_>,
    second: &Claim<'_>,
    findings: &mut Findings,
) {
    let message = format!(
        "service {} takes {}/{} from service {} ({})",
        second.draft.label(),
        endpoint(network, second.ports),
        protocol.name(),
        first.draft.label(),
        findings.place(first.at),
    );
    findings.error(second.at, message, "change the address, port or protocol of one of the two");
}

fn crossing(
    network: Network,
    protocol: Protocol,
    first: &Claim<'_>,
    second: &Claim<'_>,
    findings: &mut Findings,
) {
    let message = format!(
        "ports {} of service {} and {} of service {} ({}) cross on {network}, {}",
        second.ports,
        second.draft.label(),
        first.ports,
        first.draft.label(),
        findings.place(first.at),
        protocol.name(),
    );
    findings.error(
        second.at,
        message,
        "let one range lie within the other, which it then wins from, or apart",
    );
}

/// Told of the widest network that has too many, at the last service that adds one.
fn crowded(claims: &Claims<'_>, findings: &mut Findings) {
    let mut rules: HashMap<Network, (u32, Span)> = HashMap::new();
    for ((network, _), claims) in claims {
        for claim in claims.iter().filter(|claim| is_wildcard(*network, claim.ports)) {
            let (count, at) = rules.entry(*network).or_insert((0, claim.at));
            *count += 1;
            if (at.file, at.start) < (claim.at.file, claim.at.start) {
                *at = claim.at;
            }
        }
    }
    if rules.len() > WILDCARD_NETWORKS_MAX as usize {
        return;
    }
    for (network, (own, at)) in &rules {
        let all: u32 = network.enclosing().filter_map(|network| rules.get(&network)).map(|(n, _)| n).sum();
        if all > WILDCARD_RULES_MAX as u32 && all - own <= WILDCARD_RULES_MAX as u32 {
            findings.error(
                *at,
                format!("{all} rules apply to {network}, more than {WILDCARD_RULES_MAX}"),
                "use fewer ranges of ports and fewer networks within each other; each protocol counts",
            );
        }
    }
}
