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
//! The thread that serves the balancer's queue is bound to a core of its own. What it forwards it also delivers:
//! the receiving link is served on the same core, within the time of the same thread.

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
    /// Offered to each way in each round, more than most can take.
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
    pub offered: u64,
    /// Counted by the way, and delivered, each of them.
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
        let frames = if way.records_flows() { plan.flows } else { plan.flows.min(FIRST_FRAMES) };
        warm_up(lane, frames, go_on).with_context(|| way.name())?;
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

/// Frames of as many flows, so slowly that none may be lost.
fn warm_up(lane: &mut Lane, frames: u32, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut left = frames;
    while left > 0 {
        go_on()?;
        let burst = left.min(QUEUE_SAFE);
        let before = lane.forwarded()?;
        lane.send(burst)?;
        let expected = before + u64::from(burst);
        let arrived = |lane: &Lane| lane.forwarded().is_ok_and(|now| now == expected);
        poll("the way of every frame", SETTLE, || arrived(lane).then_some(()))
            .with_context(|| format!("{:?} of {expected} frames were forwarded", lane.forwarded()))?;
        left -= burst;
    }
    lane.check_delivery(frames.into())
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
    lane.check_delivery(after)?;
    ensure!(forwarded > 0, "no frame was forwarded");
    Ok(Round { offered: frames.into(), forwarded, cpu_ns: lane.cpu_ns()? - cpu_before })
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

/// Fewer than a queue of a veth holds (256).
const QUEUE_SAFE: u32 = 192;
/// Sent without loss by a way that has nothing to learn of a flow.
const FIRST_FRAMES: u32 = 1 << 11;
/// A call stays far below a second.
const FRAMES_PER_CALL: u32 = 1 << 18;
const SETTLE: Duration = Duration::from_secs(5);
