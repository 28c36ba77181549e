//! `cargo xtask bench checks`: what it takes to check thousands of servers, and how punctual their checks are.
//!
//! Owns the servers and the clocks. Must not know how checks are scheduled: it sees connections arrive.
//!
//! ```text
//!  steelyard run ── connections ──► one listener for every address of a prefix     (CPU A)
//!     (CPU B)  └─── connections ──► an interface that swallows what it is given
//! ```

mod report;

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

pub use self::report::Report;
use super::cpu;
use crate::bed::{Arms, Bed, Check, Config, Forward, Layout, Member, Steelyard, wait};

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub servers: u32,
    pub interval_ms: u64,
    /// How long each case is watched.
    pub seconds: u64,
}

/// What was seen while some of the servers did not answer.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Percent of the servers.
    pub silent: u32,
    /// Of the whole daemon.
    pub cpu_percent: f64,
    pub memory_mib: f64,
    pub sockets_max: usize,
    /// Checks of servers that answer.
    pub checks: usize,
    /// In a tenth of a second.
    pub checks_min: u32,
    pub checks_max: u32,
    /// How much more than the interval lay between two checks of a server, in milliseconds.
    pub late_ms: Late,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Late {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// Watches the daemon once with each share of silent servers. `go_on` is asked now and then.
pub fn measure(plan: Plan, go_on: &dyn Fn() -> Result<()>) -> Result<Report> {
    let cpus = cpu::allowed()?;
    let (&ours, &daemons) = cpus.first().zip(cpus.last()).context("the process may use no cpu")?;
    ensure!(ours != daemons, "this needs two cpus: one checks, one answers");
    cpu::bind(Pid::from_raw(0), ours)?;
    let seen = SILENT.map(|silent| watch(plan, silent, daemons, go_on));
    Report::new(plan, seen.into_iter().collect::<Result<_>>()?)
}

fn watch(plan: Plan, silent: u32, cpu: usize, go_on: &dyn Fn() -> Result<()>) -> Result<Seen> {
    let bed = Bed::new(Layout::new(Arms::One, Forward::Nat))?;
    let balancer = &bed.balancer.namespace;
    // Every address of the one prefix is the namespace's own, whatever is sent to the other is lost.
    balancer.ip(&format!(
        "route add local {ANSWERING}/16 dev lo\nlink add black type veth peer name hole\n\
         link set black arp off up\nlink set hole up\n\
         route add {SILENT_SERVERS}/16 dev black\n"
    ))?;
    let listener = balancer.enter(listen)??;
    let crowd = Crowd::answer(listener);

    let config = config(&bed, plan, silent);
    let mut steelyard = Steelyard::new(&bed, &config)?;
    steelyard.show_log = false;
    steelyard.write_config(&two_seconds(
        &config.to_toml(&steelyard.socket(), &steelyard.state(), steelyard.pin()),
        plan,
    ))?;
    steelyard.start()?;
    let pid = steelyard.pid()?;
    cpu::bind_all(pid, cpu)?;
    pause_for(WARM_UP, go_on)?;

    let (begin, before) = (Instant::now(), cpu_ns(pid)?);
    let mut sockets_max = 0;
    while begin.elapsed() < Duration::from_secs(plan.seconds) {
        pause_for(LOOK, go_on)?;
        sockets_max = sockets_max.max(sockets(pid)?);
    }
    let (end, after) = (Instant::now(), cpu_ns(pid)?);
    let memory_mib = memory_kib(pid)? as f64 / 1_024.0;
    let checks = crowd.end()?;
    let within: Vec<_> = checks.into_iter().filter(|&(_, at)| begin <= at && at < end).collect();
    let per_tenth = per_tenth(&within, begin, plan.seconds);
    Ok(Seen {
        silent,
        cpu_percent: (after - before) as f64 * 100.0 / (end - begin).as_nanos() as f64,
        memory_mib,
        sockets_max,
        checks: within.len(),
        checks_min: per_tenth.iter().copied().min().unwrap_or(0),
        checks_max: per_tenth.iter().copied().max().unwrap_or(0),
        late_ms: late(&within, plan.interval_ms)?,
    })
}

/// A check that arrived, and when.
type Arrival = (IpAddr, Instant);

/// The servers that answer.
struct Crowd {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Arrival>>,
}

impl Crowd {
    fn answer(listener: TcpListener) -> Crowd {
        let ended = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut arrivals = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let at = Instant::now();
                        arrivals.extend(stream.local_addr().map(|address| (address.ip(), at)));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => wait::pause(BETWEEN_LOOKS),
                    // A connection that was reset before it was taken.
                    Err(_) => {}
                }
            }
            arrivals
        });
        Crowd { ended, thread }
    }

    fn end(self) -> Result<Vec<Arrival>> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that answers checks failed"))
    }
}

fn listen() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

fn config(bed: &Bed, plan: Plan, silent: u32) -> Config {
    let mut config = Config::of(bed);
    let server = |n: u32| {
        let prefix = if n % 100 < silent { SILENT_SERVERS } else { ANSWERING };
        let address = SocketAddr::from((Ipv4Addr::from_bits(prefix.to_bits() + n + 1), PORT));
        Member { name: format!("s{n}"), address, weight: 1, backup: false }
    };
    let numbers: Vec<u32> = (0..plan.servers).collect();
    let first = config.services.remove(0);
    for (index, some) in (0..).zip(numbers.chunks(PER_SERVICE)) {
        let mut service = first.clone();
        service.name = format!("web{index}");
        service.ports = crate::bed::Ports::One(8_000 + index);
        service.check = Check::Tcp;
        service.servers = some.iter().map(|&n| server(n)).collect();
        config.services.push(service);
    }
    config
}

/// The bed's checks come more often.
fn two_seconds(config: &str, plan: Plan) -> String {
    let timeout = (plan.interval_ms / 2).max(1);
    let line = |line: &str| match line.split_once(" = ") {
        Some(("interval", _)) => format!("interval = \"{}ms\"\n", plan.interval_ms),
        Some(("timeout", _)) => format!("timeout = \"{timeout}ms\"\n"),
        _ => format!("{line}\n"),
    };
    config.lines().map(line).collect()
}

fn per_tenth(checks: &[Arrival], begin: Instant, seconds: u64) -> Vec<u32> {
    let mut counts = vec![0; seconds as usize * 10];
    for (_, at) in checks {
        if let Some(count) = counts.get_mut(((*at - begin).as_millis() / 100) as usize) {
            *count += 1;
        }
    }
    counts
}

fn late(checks: &[Arrival], interval_ms: u64) -> Result<Late> {
    let mut last: HashMap<IpAddr, Instant> = HashMap::new();
    let mut late = Vec::new();
    for &(server, at) in checks {
        if let Some(before) = last.insert(server, at) {
            late.push((at - before).as_secs_f64() * 1e3 - interval_ms as f64);
        }
    }
    ensure!(!late.is_empty(), "no server was checked twice: watch for longer");
    late.sort_by(f64::total_cmp);
    let part = |part| super::spread::part(&late, part);
    Ok(Late { p50: part(0.5), p99: part(0.99), max: part(1.0) })
}

fn pause_for(time: Duration, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        go_on()?;
        wait::pause(left.min(LOOK));
    }
    Ok(())
}

/// Of all threads, in any mode.
fn cpu_ns(pid: Pid) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the daemon is gone")?;
    tasks
        .map(|task| {
            let path = task?.path().join("schedstat");
            let text = read(&path)?;
            let ns = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
            ns.with_context(|| format!("reading {}", path.display()))
        })
        .sum()
}

fn sockets(pid: Pid) -> Result<usize> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon is gone")?;
    // One that was closed meanwhile is none.
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

/// The most it ever had.
fn memory_kib(pid: Pid) -> Result<u64> {
    let status = read(Path::new(&format!("/proc/{pid}/status")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.context("the daemon's status says nothing of its memory")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Percent of the servers that never answer.
const SILENT: [u32; 2] = [0, 10];
const ANSWERING: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const SILENT_SERVERS: Ipv4Addr = Ipv4Addr::new(10, 129, 0, 0);
const PORT: u16 = 8_080;
const PER_SERVICE: usize = 100;
/// Every server has been checked, those that do not answer are down, and the log is quiet.
const WARM_UP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// Finer than the lateness that is looked for.
const BETWEEN_LOOKS: Duration = Duration::from_micros(500);
