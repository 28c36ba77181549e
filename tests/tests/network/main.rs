//! Scenarios: `steelyard` between real clients and real servers, in namespaces.

mod access;
mod addresses;
mod backup;
mod bad_input;
mod balance;
mod changes;
mod continuity;
mod decap;
mod drift;
mod explain;
mod failover;
mod families;
mod following;
mod fragments;
mod icmp;
mod large;
mod lifecycle;
mod matrix;
mod modes;
mod mtu;
mod notices;
mod passing;
mod persistence;
mod reload;
mod restart;
mod schedulers;
mod settling;
mod soak;
mod suspect;
mod through;
mod unusable;
mod upgrade;
mod view;
mod vrrp;
mod vrrp_flows;
mod vrrp_frr;
mod vrrp_import;
mod vrrp_keepalived;
mod vrrp_pulse;
mod vrrp_seeds;
mod vrrp_track;
mod vrrp_view;
mod vrrp_wire;
mod wildcard;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config,
    Family::{self, V4, V6},
    Forward, Layout, Steelyard,
    client::Session,
};

/// A forward mode with the families it carries.
#[derive(Debug, Clone, Copy)]
struct Mode {
    name: &'static str,
    forward: Forward,
    family: Family,
    server_family: Family,
}

const TABLE: [Mode; 14] = [
    mode("nat v4", Forward::Nat, V4, V4),
    mode("nat v6", Forward::Nat, V6, V6),
    mode("gateway v4", Forward::Gateway, V4, V4),
    mode("gateway v6", Forward::Gateway, V6, V6),
    mode("dsr v4", Forward::Dsr, V4, V4),
    mode("dsr v6", Forward::Dsr, V6, V6),
    mode("ipip 4in4", Forward::Ipip, V4, V4),
    mode("ipip 6in6", Forward::Ipip, V6, V6),
    mode("ipip 4in6", Forward::Ipip, V4, V6),
    mode("ipip 6in4", Forward::Ipip, V6, V4),
    mode("gue 4in4", Forward::Gue, V4, V4),
    mode("gue 6in6", Forward::Gue, V6, V6),
    mode("gue 4in6", Forward::Gue, V4, V6),
    mode("gue 6in4", Forward::Gue, V6, V4),
];

const fn mode(name: &'static str, forward: Forward, family: Family, server_family: Family) -> Mode {
    Mode { name, forward, family, server_family }
}

impl Mode {
    fn layout(self, arms: Arms) -> Layout {
        Layout::new(arms, self.forward).over(self.family, self.server_family)
    }
}

fn every_mode() -> impl Iterator<Item = Mode> {
    TABLE.into_iter()
}

/// Every mode on both layouts.
fn every_layout() -> impl Iterator<Item = Layout> {
    every_mode().flat_map(|mode| [Arms::One, Arms::Two].map(|arms| mode.layout(arms)))
}

/// One row of each forward mode, the families in turn: for what depends little on either.
fn each_forward() -> impl Iterator<Item = Mode> {
    Forward::ALL.into_iter().enumerate().filter_map(|(turn, forward)| {
        let rows: Vec<Mode> = every_mode().filter(|mode| mode.forward == forward).collect();
        rows.get(turn % rows.len().max(1)).copied()
    })
}

fn bed(arms: Arms, forward: Forward) -> Result<(Bed, Config)> {
    bed_of(Layout::new(arms, forward))
}

fn bed_of(layout: Layout) -> Result<(Bed, Config)> {
    let bed = Bed::new(layout)?;
    let config = Config::of(&bed);
    Ok((bed, config))
}

/// Connections that stay open.
fn sessions(bed: &Bed, count: usize) -> Result<Vec<Session>> {
    let open = || Session::open(&bed.client, bed.service());
    (0..count).map(|_| open()).collect::<Result<_>>().context("opening sessions")
}

/// Asks all of them but those of one server, which may be gone.
fn keep_their_servers(sessions: &mut [Session], except: Option<&str>) -> Result<()> {
    for session in sessions.iter_mut().filter(|session| Some(session.server.as_str()) != except) {
        let answered = session.who().with_context(|| format!("asking {}", session.server))?;
        ensure!(answered == session.server, "{answered} answered for {}", session.server);
    }
    Ok(())
}

/// Packets that the program has sent on, both ways.
fn forwarded(steelyard: &Steelyard) -> Result<u64> {
    let counters = steelyard.counters()?;
    Ok(counters.iter().filter(|(name, _)| name.starts_with("forward_")).map(|(_, count)| count).sum())
}
