//! How long a dead server still gets new connections.

use std::{
    fmt,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::bed::{
    Arms, Bed, Config, Forward, Layout, Steelyard,
    client::{Knock, knock},
    config::{FALL, INTERVAL_MS},
    steelyard::is_down,
};

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Death {
    pub forward: String,
    /// refused: its process is gone; silent: its link is.
    pub kind: String,
    /// From the death to the beginning of the last connection that went there.
    pub last_ms: f64,
    /// `fall` checks, one timeout, and 100 ms.
    pub limit_ms: f64,
    /// Connections that went there meanwhile, and all.
    pub lost: usize,
    pub tried: usize,
}

/// Of a server whose process is gone, and of one whose link is.
#[derive(Debug, Clone, Serialize)]
pub struct Deaths(Vec<Death>);

impl Deaths {
    pub fn of(forward: Forward) -> Result<Deaths> {
        let deaths = [false, true].into_iter().map(|silent| time_to_the_last(forward, silent));
        deaths.collect::<Result<_>>().map(Deaths)
    }

    pub fn in_time(&self) -> bool {
        self.0.iter().all(|death| death.last_ms <= death.limit_ms)
    }
}

impl fmt::Display for Deaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|death| {
            writeln!(
                f,
                "{} {}: the last connection to a dead server began {:.0} ms after its death (limit {:.0} ms); {} of {} \
                 went there",
                death.forward, death.kind, death.last_ms, death.limit_ms, death.lost, death.tried
            )
        })
    }
}

/// Kills one of three servers while new connections come at a steady pace.
pub fn time_to_the_last(forward: Forward, silent: bool) -> Result<Death> {
    let bed = Bed::new(Layout::new(Arms::Two, forward))?;
    let config = Config::of(&bed);
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let stop = AtomicBool::new(false);
    let (died, tries) = thread::scope(|scope| -> Result<_> {
        let trying = scope.spawn(|| try_on(&bed, bed.service(), &stop));
        let died = Instant::now();
        if silent {
            bed.servers[0].host.namespace.ip("link set eth0 down\n")?;
        } else {
            bed.servers[0].kill();
        }
        let seen = steelyard.wait("web1 to be down", |status| is_down(status, "web", "web1"));
        stop.store(true, Ordering::Relaxed);
        let tries = trying.join().expect("a client does not panic")?;
        seen?;
        Ok((died, tries))
    })?;
    ensure!(tries.len() > 50, "only {} connections were tried", tries.len());
    let lost: Vec<_> = tries.iter().filter(|(at, open)| !open && *at >= died).map(|(at, _)| *at).collect();
    let last = lost.iter().max().context("no connection went to the dead server")?;
    steelyard.show_log = false;
    let limit = INTERVAL_MS * FALL + INTERVAL_MS + 100;
    Ok(Death {
        forward: forward.name().to_owned(),
        kind: if silent { "silent" } else { "refused" }.to_owned(),
        last_ms: last.duration_since(died).as_secs_f64() * 1_000.0,
        limit_ms: f64::from(limit),
        lost: lost.len(),
        tried: tries.len(),
    })
}

/// When each connection began, and whether it opened. Each has a thread: one that gets no answer holds up no other.
fn try_on(bed: &Bed, target: SocketAddr, stop: &AtomicBool) -> Result<Vec<(Instant, bool)>> {
    thread::scope(|scope| {
        let mut tries = Vec::new();
        while !stop.load(Ordering::Relaxed) && tries.len() < TRIES_MAX {
            let at = Instant::now();
            tries.push((at, scope.spawn(move || knock(&bed.client, target, PATIENCE))));
            crate::bed::wait::pause(PACE);
        }
        let end = |(at, knock): (Instant, thread::ScopedJoinHandle<'_, Result<(Knock, Duration)>>)| {
            let (knock, _) = knock.join().expect("a knock does not panic")?;
            Ok((at, knock == Knock::Open))
        };
        tries.into_iter().map(end).collect()
    })
}

/// Shorter than TCP's first repetition, which might find another server.
const PATIENCE: Duration = Duration::from_millis(900);
const PACE: Duration = Duration::from_millis(5);
const TRIES_MAX: usize = 2_000;
