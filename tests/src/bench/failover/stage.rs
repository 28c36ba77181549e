//! Two nodes with one product, a responder on each, and what is done to them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Run,
    crowd::{self, Crowd},
    event::{Event, Timing},
    probe::Prober,
    product::{Node, Product, RESPONDER_PORT},
};
use crate::bed::{Family, Pair, layout::SERVICE_PORT, pair::INTERFACE, poll, server::Peer, wait::pause};

pub(super) struct Stage<'a> {
    pair: &'a Pair,
    timing: Timing,
    nodes: [Node<'a>; 2],
    responders: [Option<Peer>; 2],
}

impl<'a> Stage<'a> {
    pub(super) fn new(pair: &'a Pair, product: Product, timing: Timing) -> Result<Stage<'a>> {
        crowd::allow_descriptors(CONNECTIONS_MAX)?;
        let nodes = [Node::new(pair, 0, product, timing)?, Node::new(pair, 1, product, timing)?];
        let mut stage = Stage { pair, timing, nodes, responders: [None, None] };
        for node in [A, B] {
            stage.respond(node)?;
        }
        for node in &mut stage.nodes {
            node.start()?;
        }
        Ok(stage)
    }

    /// The event once, from a steady state to a steady state; and how many connections of a crowd it cost.
    pub(super) fn run(&mut self, event: Event, crowd: Option<usize>) -> Result<(Run, Option<usize>)> {
        let begin = self.before(event)?;
        let vip = Pair::vip(Family::V4, 0);
        let prober = Prober::start(&self.pair.client, SocketAddr::new(vip, RESPONDER_PORT));
        let started = Instant::now();
        let steady = || prober.steady(Pair::name(begin), started).then_some(());
        poll("steady answers before the event", STEADY, steady)?;
        let crowd = crowd.map(|connections| {
            Crowd::open(&self.pair.client, SocketAddr::new(vip, SERVICE_PORT), connections)
        });
        let crowd = crowd.transpose()?;

        wait_until(Instant::now() + phase(self.timing));
        poll("steady answers until the event", STEADY, steady)?;
        let at = Instant::now();
        let end = self.happen(event)?;
        poll("steady answers after the event", STEADY, || prober.steady(Pair::name(end), at).then_some(()))?;
        let [udp, tcp] = prober.stop(at.checked_sub(BEFORE).unwrap_or(started))?;
        let lost = crowd.map(Crowd::lost);
        let one_holder_ms = self.after(event)?;

        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Ok((
            Run {
                outage_ms: ms(udp.outage.max(tcp.outage)),
                udp_ms: ms(udp.outage),
                tcp_ms: ms(tcp.outage),
                failed: udp.failed + tcp.failed,
                pause_ms: ms(udp.pause.max(tcp.pause)),
                one_holder_ms,
            },
            lost,
        ))
    }

    /// Brings both nodes to where the event begins; the one that has the address then.
    fn before(&mut self, event: Event) -> Result<usize> {
        let holder = match event {
            Event::Return | Event::ReturnFast => {
                if self.nodes[A].runs() {
                    self.nodes[A].stop()?;
                }
                B
            }
            _ => A,
        };
        self.holder(holder).context("before the event")?;
        if self.nodes.iter().all(Node::runs) {
            self.nodes.iter().try_for_each(Node::settle)?;
        }
        Ok(holder)
    }

    /// The node that answers in the end.
    fn happen(&mut self, event: Event) -> Result<usize> {
        match event {
            Event::Stop | Event::StopFast => self.nodes[A].stop()?,
            Event::Vanish | Event::VanishFast => self.pair.cut(A)?,
            Event::LinkDown | Event::LinkDownFast => self.pair.unplug(A)?,
            Event::Bounce => {
                let end = Instant::now() + BOUNCE;
                self.pair.unplug(A)?;
                wait_until(end);
                self.pair.plug_in(A)?;
                return Ok(A);
            }
            Event::Kill | Event::KillFast => self.nodes[A].kill9()?,
            Event::Service => self.responders[A] = None,
            Event::Return | Event::ReturnFast => {
                self.nodes[A].start()?;
                return Ok(A);
            }
        }
        Ok(B)
    }

    /// Undoes the event, until the first node has the address again.
    fn after(&mut self, event: Event) -> Result<Option<f64>> {
        let restarted = Instant::now();
        match event {
            Event::Stop | Event::StopFast => self.nodes[A].start()?,
            Event::Vanish | Event::VanishFast => self.boot(A)?,
            Event::LinkDown | Event::LinkDownFast => self.pair.plug_in(A)?,
            Event::Bounce | Event::Return | Event::ReturnFast => {}
            Event::Kill | Event::KillFast => {
                self.nodes[A].start()?;
                let vip = Pair::vip(Family::V4, 0);
                poll("one holder after the restart", HOLDER, || {
                    (self.pair.holders(vip).ok()?.len() == 1).then_some(())
                })?;
                return Ok(Some(restarted.elapsed().as_secs_f64() * 1e3));
            }
            Event::Service => self.respond(A)?,
        }
        Ok(None)
    }

    /// A host that vanished comes back with nothing that it had.
    fn boot(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill9()?;
        let vip = Pair::vip(Family::V4, 0);
        if self.pair.holds(node, vip)? {
            self.pair.nodes[node].namespace.ip(&format!("addr del {vip}/24 dev {INTERFACE}\n"))?;
        }
        self.pair.mend(node)?;
        self.nodes[node].start()
    }

    fn holder(&self, node: usize) -> Result<()> {
        self.pair.wait_for_holders(Pair::vip(Family::V4, 0), &[node], HOLDER)
    }

    fn respond(&mut self, node: usize) -> Result<()> {
        let host = &self.pair.nodes[node];
        let listens = [Pair::vip(Family::V4, 0), host.address(Family::V4)]
            .map(|address| SocketAddr::new(address, RESPONDER_PORT));
        self.responders[node] = Some(Peer::start(&host.namespace, Pair::name(node), &listens)?);
        Ok(())
    }
}

/// A part of the time between two adverts, another one each time.
fn phase(timing: Timing) -> Duration {
    let interval = match timing {
        Timing::Second => Duration::from_secs(1),
        Timing::Fast => Duration::from_millis(10),
    };
    let noise = jiff::Timestamp::now().subsec_nanosecond().unsigned_abs() % 1_000;
    SETTLED + interval * noise / 1_000
}

fn wait_until(end: Instant) {
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        pause(left);
    }
}

const A: usize = 0;
const B: usize = 1;
const BOUNCE: Duration = Duration::from_millis(200);
/// Adverts have gone both ways.
const SETTLED: Duration = Duration::from_millis(200);
/// Answers that are looked at from before the event.
const BEFORE: Duration = Duration::from_millis(100);
/// Longer than the slowest election after the slowest script.
const HOLDER: Duration = Duration::from_secs(20);
const STEADY: Duration = Duration::from_secs(20);
const CONNECTIONS_MAX: usize = 10_000;
