//! `cargo xtask bench rings`: how long rings take to build, and a large configuration to load.
//!
//! Owns the cases and the clock. The daemon's time is from its start to its first answer, at which the program is
//! attached and every ring written.

use std::{
    fmt::{self, Display, Write as _},
    hint,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use anyhow::{Context, Result};
use lb_user::pure::{
    config,
    place::ring_slots,
    plan::Tables,
    ring::{self, Member},
    state::{Start, State},
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{cpu, machine::Machine, spread::part};
use crate::bed::{Arms, Bed, Config, Forward, Layout, Steelyard};

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub rounds: u32,
}

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub plan: Plan,
    pub lines: Vec<Line>,
}

/// Milliseconds: of CPU, and for the daemon's start of the clock.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub name: String,
    pub median: f64,
    pub max: f64,
}

/// `go_on` is asked between rounds.
pub fn measure(plan: Plan, go_on: &dyn Fn() -> Result<()>) -> Result<Report> {
    cpu::pin()?;
    let mut lines = vec![
        rounds("65 536 slots, 1 000 servers", plan, go_on, || build(|_| 100))?,
        rounds("the same, half of them down", plan, go_on, || build(|id| if id % 2 == 0 { 100 } else { 0 }))?,
        rounds("the same, half of them starting", plan, go_on, || {
            build(|id| if id % 2 == 0 { 100 } else { 10 })
        })?,
        rounds("65 536 slots in rotation", plan, go_on, || ring::rotation(SLOTS, &members(|_| 100)).len())?,
    ];
    let text = large("/nowhere", "/nowhere/pin", "eth0");
    let loads = Plan { rounds: LOADS };
    lines.push(rounds("1 000 services of 20: read", loads, go_on, || {
        config::parse("bench.toml", &text).map_or(0, |parsed| parsed.config.services.len())
    })?);
    let parsed =
        config::parse("bench.toml", &text).ok().context("the bench's configuration is refused")?.config;
    lines.push(rounds("1 000 services of 20: plan", loads, go_on, || {
        let start = Start {
            config: parsed.clone(),
            secret: b"bench",
            pinned: Tables::default(),
            ring_slots: ring_slots(&parsed),
            flows_max: 262_144,
            now: Instant::now(),
        };
        State::new(start).map_or(0, |mut state| state.plan().len())
    })?);
    lines.push(daemon(go_on)?);
    Ok(Report { machine: Machine::here()?, plan, lines })
}

fn rounds(name: &str, plan: Plan, go_on: &dyn Fn() -> Result<()>, work: impl Fn() -> usize) -> Result<Line> {
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        go_on()?;
        let before = cpu_ms()?;
        hint::black_box(work());
        times.push(cpu_ms()? - before);
    }
    Ok(line(name, times))
}

fn line(name: &str, mut times: Vec<f64>) -> Line {
    times.sort_by(f64::total_cmp);
    Line { name: name.to_owned(), median: part(&times, 0.5), max: part(&times, 1.0) }
}

/// The real daemon, in a bed of its own.
fn daemon(go_on: &dyn Fn() -> Result<()>) -> Result<Line> {
    let mut times = Vec::new();
    for _ in 0..LOADS {
        go_on()?;
        let bed = Bed::new(Layout::new(Arms::One, Forward::Ipip))?;
        let mut steelyard = Steelyard::new(&bed, &Config::of(&bed))?;
        steelyard.show_log = false;
        let (socket, pin) = (steelyard.socket(), steelyard.pin());
        steelyard.write_config(&large(&socket.to_string_lossy(), &pin.to_string_lossy(), "eth0"))?;
        let begin = Instant::now();
        steelyard.start()?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(line("1 000 services of 20: daemon ready (clock)", times))
}

fn build(share: impl Fn(u32) -> u8) -> usize {
    ring::build(1, SLOTS, &members(share)).len()
}

fn members(share: impl Fn(u32) -> u8) -> Vec<Member> {
    let member = |id: u32| {
        let address = SocketAddr::from((Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + id), 80));
        Member { id, address, weight: (id % 7 + 1) as u16, share: share(id) }
    };
    (1..=SERVERS).map(member).collect()
}

fn large(socket: &str, pin: &str, interface: &str) -> String {
    let mut text = format!(
        "[global]\nadmin_socket = {socket:?}\n[cluster]\nsecret = \"bench\"\n\
         [datapath]\ninterfaces = [{interface:?}]\npin = {pin:?}\n"
    );
    for service in 0..SERVICES {
        let servers: Vec<_> =
            (1..=SERVERS_EACH).map(|n| format!("{{ name = \"s{n}\", address = \"10.9.0.{n}\" }}")).collect();
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "[[service]]\nname = \"web{service}\"\naddress = \"{address}\"\nport = {}\nforward = \"ipip\"\n\
             check = {{ type = \"none\" }}\nserver = [{}]\n",
            1_000 + service,
            servers.join(", ")
        );
    }
    text
}

/// Of this thread.
fn cpu_ms() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6)
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, kernel {}, {}.", self.machine.cpu, self.machine.kernel, self.machine.date)?;
        writeln!(f)?;
        writeln!(f, "| what | ms, median | max |\n|---|--:|--:|")?;
        self.lines
            .iter()
            .try_for_each(|Line { name, median, max }| writeln!(f, "| {name} | {median:.1} | {max:.1} |"))
    }
}

const SLOTS: u32 = 65_536;
const SERVERS: u32 = 1_000;
const SERVICES: u32 = 1_000;
const SERVERS_EACH: u32 = 20;
/// Each takes seconds.
const LOADS: u32 = 3;
