//! `cargo xtask bench veth`: packets per second that one core forwards over links, by each way of doing it.
//!
//! Owns the links, the ways to forward and the accounting. Must not know how a way works inside.
//!
//! ```text
//!  generator ── balancer ── sink      a lane: three namespaces, one way to forward in the middle
//!      │            │         │
//!  TEST_RUN,    one NAPI    counts and
//!  live frames  thread      drops             frames sent back are counted where they were generated
//!    CPU A        CPU B       CPU B
//! ```
//!
//! The generator waits for room in the queue, so that no frame is lost. The thread that serves the balancer's queue
//! is bound to a core of its own. What it forwards it also delivers: the receiving link is served on the same core,
//! within the time of the same thread.

mod lane;
mod napi;
mod report;
mod way;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde::Serialize;

pub use self::report::Report;
use self::{lane::Lane, way::Way};
use super::{
    cpu,
    driver::{Order, Script},
    packet::{Kind, Packet},
    rig::VIP,
};
use crate::bed::poll;

/// How much is sent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub rounds: u32,
    /// Sent to each way in each round.
    pub frames_per_round: u32,
    /// A power of two.
    pub flows: u32,
}

/// Which processors do what.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cpus {
    pub generator: usize,
    pub forwarder: usize,
}

/// What a way did in one round.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    /// Sent, counted by the way, and delivered, each of them.
    pub forwarded: u64,
    /// CPU time of the thread that forwards.
    pub cpu_ns: u64,
}

/// Runs every way in turn, round after round. `go_on` is asked between calls; an error from it ends the measurement.
pub fn measure(plan: Plan, go_on: &dyn Fn() -> Result<()>) -> Result<Report> {
    let cpus = Cpus::choose()?;
    cpu::bind(Pid::from_raw(0), cpus.generator)?;
    let mut lanes = Vec::new();
    for (number, &way) in Way::ALL.iter().enumerate() {
        go_on()?;
        let lane = Lane::new(number, way, &script(plan.flows)).with_context(|| way.name())?;
        lane.bind(cpus.forwarder)?;
        lanes.push((way, lane, Vec::new()));
    }
    for (way, lane, _) in &mut lanes {
        // Every flow is known from then on, and every neighbour.
        round(lane, plan.flows.max(FIRST_FRAMES), go_on).with_context(|| way.name())?;
    }
    for _ in 0..plan.rounds {
        for (way, lane, rounds) in &mut lanes {
            rounds.push(round(lane, plan.frames_per_round, go_on).with_context(|| way.name())?);
        }
    }
    let rounds = lanes.into_iter().map(|(way, _, rounds)| (way, rounds)).collect();
    Report::new(plan, cpus, rounds)
}

impl Cpus {
    fn choose() -> Result<Cpus> {
        let allowed = cpu::allowed()?;
        let (&generator, &forwarder) =
            allowed.first().zip(allowed.last()).context("the process may use no cpu")?;
        ensure!(generator != forwarder, "this needs two cpus: one sends, one forwards");
        Ok(Cpus { generator, forwarder })
    }
}

fn script(flows: u32) -> Script<'static> {
    let packet = Packet { kind: Kind::Ack, to: VIP, vlan: None };
    Script { packet, flows, order: Order::Scattered, moves_head: false, ends: &[] }
}

fn round(lane: &mut Lane, frames: u32, go_on: &dyn Fn() -> Result<()>) -> Result<Round> {
    let (before, cpu_before) = (lane.forwarded()?, lane.cpu_ns()?);
    let mut left = frames;
    while left > 0 {
        go_on()?;
        let now = left.min(FRAMES_PER_CALL);
        lane.send(now)?;
        left -= now;
    }
    let after = settled(lane)?;
    let forwarded = after - before;
    ensure!(forwarded == u64::from(frames), "{forwarded} of {frames} frames were forwarded");
    lane.check_delivery(after)?;
    Ok(Round { forwarded, cpu_ns: lane.cpu_ns()? - cpu_before })
}

/// The number of frames forwarded once the queue is empty: the thread used no time between two looks.
fn settled(lane: &Lane) -> Result<u64> {
    let mut last = None;
    poll("the end of forwarding", SETTLE, || {
        let now = lane.forwarded().ok().zip(lane.cpu_ns().ok());
        let quiet = now.is_some() && now == last;
        last = now;
        if quiet { now.map(|(forwarded, _)| forwarded) } else { None }
    })
}

/// The first that are sent, and not measured.
const FIRST_FRAMES: u32 = 1 << 12;
/// A call stays far below a second.
const FRAMES_PER_CALL: u32 = 1 << 18;
const SETTLE: Duration = Duration::from_secs(5);
