//! The README's demonstration: real requests through XDP, a server that dies, a daemon that is killed.

use std::{
    env,
    io::{self, IsTerminal, Stdout, Write, stdout},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    bed::{
        Arms, Bed, Config, Forward, Layout, Steelyard,
        client::{Histogram, Load, Requests, Session},
        config::{FALL, INTERVAL_MS},
        interrupt,
        steelyard::{all_up, is_down, server},
    },
    bench::ended,
};

fn main() -> ExitCode {
    let watch = match interrupt::watch() {
        Ok(watch) => watch,
        Err(error) => return ended(Err(error)),
    };
    let told = run(&mut Page::new());
    watch.finish();
    ended(told.or_else(|error| if is_closed_pipe(&error) { Ok(()) } else { Err(error) }))
}

fn run(page: &mut Page) -> Result<()> {
    let start = Instant::now();
    page.say("A client, a balancer with two interfaces and three servers, each in a network namespace.")?;
    page.say("Every request below is a TCP connection of its own, balanced by XDP in the kernel.")?;
    for forward in [Forward::Nat, Forward::Dsr] {
        let bed = Bed::new(Layout::new(Arms::Two, forward))?;
        let mut steelyard = Steelyard::running(&bed, &config(&bed))?;
        let told = tell(page, &bed, &mut steelyard);
        steelyard.show_log = told.as_ref().is_err_and(is_news);
        told?;
    }
    page.say("")?;
    page.say(&format!("Done in {}. Namespaces, maps and programs are removed.", seconds(start)))
}

fn config(bed: &Bed) -> Config {
    let mut config = Config::of(bed);
    for (server, weight) in config.services[0].servers.iter_mut().zip(WEIGHTS) {
        server.weight = weight;
    }
    config
}

fn tell(page: &mut Page, bed: &Bed, steelyard: &mut Steelyard) -> Result<()> {
    introduce(page, bed)?;
    show_shares(page, bed, steelyard)?;
    kill_a_server(page, bed, steelyard)?;
    drain_a_server(page, bed, steelyard)?;
    kill_the_daemon(page, bed, steelyard)
}

fn introduce(page: &mut Page, bed: &Bed) -> Result<()> {
    page.head(match bed.layout.forward {
        Forward::Nat => "nat: source and destination rewritten, replies come back through the balancer",
        Forward::Gateway => "gateway: destination rewritten, servers route replies through the balancer",
        Forward::Ipip => "ipip: packets put into packets, servers open them and answer the client themselves",
        Forward::Gue => "gue: packets put into datagrams, servers open them and answer the client themselves",
        Forward::Dsr => "dsr: only the MAC address rewritten, servers answer the client themselves",
    })?;
    let servers: Vec<_> = bed.servers.iter().map(|server| server.listens[0].to_string()).collect();
    page.say(&format!(
        "{} asks {}; behind it {}.",
        bed.client.address(bed.layout.family),
        bed.service(),
        servers.join(", ")
    ))
}

/// The table of who answered, beside what the kernel counted for each.
fn show_shares(page: &mut Page, bed: &Bed, steelyard: &Steelyard) -> Result<()> {
    let start = Instant::now();
    let seen = Requests::new(bed.service(), REQUESTS).tcp(&bed.client)?;
    seen.all_answered()?;
    page.say(&format!("{REQUESTS} requests in {}, none failed.", seconds(start)))?;
    page.say("")?;
    page.say("  server  weight  configured  measured  requests  packets in   bytes in")?;
    let status = steelyard.status()?;
    let sum: u16 = WEIGHTS.iter().sum();
    for (peer, weight) in bed.servers.iter().zip(WEIGHTS) {
        let traffic =
            server(&status, "web", &peer.name).context("a server is missing in the status")?.traffic;
        page.say(&format!(
            "  {:<6}  {weight:>6}  {:>8.1} %  {:>6.1} %  {:>8}  {:>10}  {:>9}",
            peer.name,
            100.0 * f64::from(weight) / f64::from(sum),
            100.0 * seen.share(&peer.name),
            seen.of(&peer.name),
            traffic.packets,
            traffic.bytes,
        ))?;
    }
    page.say("")?;
    page.say("  what the kernel counted, in packets:")?;
    for (name, count) in steelyard.counters()?.iter().filter(|(_, count)| **count > 0) {
        page.say(&format!("  {name:<24}{count:>10}"))?;
    }
    Ok(())
}

fn kill_a_server(page: &mut Page, bed: &Bed, steelyard: &Steelyard) -> Result<()> {
    let victim = &bed.servers[0];
    page.say("")?;
    page.strong(&format!("{} is killed while requests go on.", victim.name))?;
    let load = Load::start(&bed.client, bed.service(), 2);
    let start = Instant::now();
    victim.kill();
    steelyard.wait("the dead server to leave the ring", |status| is_down(status, "web", &victim.name))?;
    page.say(&format!(
        "  Out of the ring after {} (a check every {INTERVAL_MS} ms, down after {FALL} failures).",
        seconds(start)
    ))?;
    let until_then = load.stop()?;
    page.say(&format!("  Until then {} were refused by it.", of_all(&until_then)))?;
    let without = Requests::new(bed.service(), REQUESTS / 4).tcp(&bed.client)?;
    without.all_answered()?;
    ensure!(without.of(&victim.name) == 0, "{} still gets requests", victim.name);
    page.say(&format!("  After that {} failed: the others share its part.", of_all(&without)))?;

    let load = Load::start(&bed.client, bed.service(), 2);
    let start = Instant::now();
    victim.start()?;
    steelyard.wait("the server to return", all_up)?;
    let back = seconds(start);
    let with = Requests::new(bed.service(), REQUESTS / 4).tcp(&bed.client)?;
    let meanwhile = load.stop()?;
    meanwhile.all_answered()?;
    with.all_answered()?;
    page.say(&format!(
        "  Started again: back after {back}, {:.1} % of requests.",
        100.0 * with.share(&victim.name)
    ))
}

fn drain_a_server(page: &mut Page, bed: &Bed, steelyard: &Steelyard) -> Result<()> {
    let drained = &bed.servers[1].name;
    page.say("")?;
    page.strong(&format!("{drained} is drained, and the configuration reloaded with other weights."))?;
    let open = || Session::open(&bed.client, bed.service());
    let mut sessions = (0..SESSIONS).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let theirs = sessions.iter().filter(|session| session.server == *drained).count();
    steelyard.done(&["server", "drain", &format!("web/{drained}")])?;
    let new = Requests::new(bed.service(), REQUESTS / 4).tcp(&bed.client)?;
    new.all_answered()?;
    ensure!(new.of(drained) == 0, "{drained} still gets new connections");
    page.say(&format!("  Of {} new connections it gets none.", new.answered()))?;
    let mut other = config(bed);
    other.services[0].servers[0].weight = 1;
    steelyard.reload(&other)?;
    for session in &mut sessions {
        let answered = session.who()?;
        ensure!(answered == session.server, "{answered} answered for {}", session.server);
    }
    page.say(&format!(
        "  All {SESSIONS} connections from before go on where they were, {theirs} of them there."
    ))?;
    steelyard.done(&["server", "enable", &format!("web/{drained}")])?;
    steelyard.reload(&config(bed))
}

fn kill_the_daemon(page: &mut Page, bed: &Bed, steelyard: &mut Steelyard) -> Result<()> {
    page.say("")?;
    page.strong("kill -9 for the daemon while requests go on.")?;
    let load = Load::start(&bed.client, bed.service(), 2);
    let before = steelyard.status()?;
    steelyard.kill9()?;
    let dead = Requests::new(bed.service(), REQUESTS / 2).tcp(&bed.client)?;
    dead.all_answered()?;
    page.say(&format!("  While it is dead, {} failed: the kernel forwards on its own.", of_all(&dead)))?;
    let start = Instant::now();
    steelyard.start()?;
    let adopted = seconds(start);
    let after = steelyard.wait("every server to be up", all_up)?;
    let meanwhile = load.stop()?;
    meanwhile.all_answered()?;
    page.say(&format!(
        "  The next start adopts what it finds within {adopted}; {} failed.",
        of_all(&meanwhile)
    ))?;
    page.say(&format!(
        "  Process {} became {}; connections counted before: {}, now: {}.",
        before.pid,
        after.pid,
        before.services.iter().map(|service| service.traffic.connections).sum::<u64>(),
        after.services.iter().map(|service| service.traffic.connections).sum::<u64>(),
    ))
}

fn of_all(seen: &Histogram) -> String {
    format!("{} of {} requests", seen.failed, seen.failed + seen.answered())
}

fn seconds(start: Instant) -> String {
    format!("{:.2} s", start.elapsed().as_secs_f64())
}

fn is_news(error: &anyhow::Error) -> bool {
    !is_closed_pipe(error) && !interrupt::came()
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Standard output; bold only on a terminal whose user did not set NO_COLOR.
struct Page {
    out: Stdout,
    bold: bool,
}

impl Page {
    fn new() -> Page {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Page { out: stdout(), bold: stdout().is_terminal() && !unwanted }
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.out, "{line}")?)
    }

    fn strong(&mut self, line: &str) -> Result<()> {
        if self.bold { self.say(&format!("\x1b[1m{line}\x1b[0m")) } else { self.say(line) }
    }

    fn head(&mut self, line: &str) -> Result<()> {
        self.say("")?;
        self.strong(&format!("== {line}"))
    }
}

const WEIGHTS: [u16; 3] = [3, 2, 1];
const SESSIONS: usize = 100;
const REQUESTS: u32 = 2_000;
