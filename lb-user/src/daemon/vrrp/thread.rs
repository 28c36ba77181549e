//! The thread: feeds the node with what happens, and carries out what it wants.
//!
//! ```text
//! orders, links, packets, time ─► Node ─► adverts, at once
//!                                   └───► work: addresses and frames, behind the adverts, in between the timers
//! ```
//!
//! Nothing here waits but `wait`, and each step of the loop is bounded, so that no flood delays a timer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::IpAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, ppoll},
    sys::{eventfd::EventFd, time::TimeSpec},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Order,
    failover::FailOvers,
    wires::{Device, Ready, Wires},
};
use crate::{
    io::vrrp::{
        NetlinkError,
        addresses::{Addresses, Shortfall},
        links::{Change, Links},
        macvlan::{Macvlan, Macvlans},
    },
    pure::{
        config::{
            model::{
                Cluster,
                vrrp::{Address, Router, Track, Tracked, Vrrp},
            },
            network::Family,
        },
        status::VrrpStatus,
        vrrp::{
            advert::Refusal,
            frame::Claim,
            happening::Happening,
            node::{Action, Estate, Input, Node, RouterId},
        },
    },
};

#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot wait for packets: {0}")]
    Wait(#[source] io::Error),
}

/// See the module. Whatever was installed is taken away when it is dropped, even by a panic.
pub(super) struct Thread {
    node: Node,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
    links: Links,
    addresses: Addresses,
    macvlans: Macvlans,
    /// Those of all virtual MACs, whether they are there or not.
    devices: Vec<Macvlan>,
    wires: Wires,
    work: VecDeque<Work>,
    /// What happened in this turn.
    news: Vec<Happening>,
    told: Told,
    status: Publisher,
    failovers: FailOvers,
    /// Interfaces that are gone, and the routers that had something on them.
    bereft: BTreeMap<String, BTreeSet<RouterId>>,
    /// Of the last that the node has seen.
    clock: Option<Instant>,
    /// Since when it ran without a pause.
    busy: Option<Instant>,
    is_stopped: bool,
}

/// What waits behind adverts.
enum Work {
    Install { router: RouterId, estate: Arc<Estate> },
    Frame { router: RouterId, interface: u32, bytes: Vec<u8> },
    Answer { peer: IpAddr, bytes: Vec<u8> },
}

impl Work {
    /// Whose it is; an answer is the node's.
    fn router(&self) -> Option<RouterId> {
        match self {
            Work::Install { router, .. } | Work::Frame { router, .. } => Some(*router),
            Work::Answer { .. } => None,
        }
    }
}

/// To control.
pub(super) struct Told {
    pub happenings: mpsc::Sender<Happening>,
    /// Those for which there was no room.
    pub lost: Arc<AtomicU64>,
}

/// What the thread is made from.
pub(super) struct Parts {
    pub orders: Receiver<Order>,
    pub wake: Arc<EventFd>,
    pub told: Told,
    pub status: watch::Sender<Arc<VrrpStatus>>,
    pub seed: u64,
}

impl Thread {
    /// In the network namespace of the calling thread. What a killed daemon has left is taken away.
    pub(super) fn new(parts: Parts, vrrp: &Vrrp) -> Result<(Thread, Vec<String>), ThreadError> {
        let mut addresses = Addresses::new()?;
        let removed = addresses.remove_leftovers(vrrp)?;
        let thread = Thread {
            node: Node::new(Instant::now(), parts.seed),
            orders: parts.orders,
            wake: parts.wake,
            links: Links::new()?,
            addresses,
            macvlans: Macvlans::new()?,
            devices: Vec::new(),
            wires: Wires::default(),
            work: VecDeque::new(),
            news: Vec::new(),
            told: parts.told,
            status: Publisher { sender: parts.status, last: None, is_stale: true },
            failovers: FailOvers::default(),
            bereft: BTreeMap::new(),
            clock: None,
            busy: None,
            is_stopped: false,
        };
        Ok((thread, removed))
    }

    /// Until it is told to stop.
    pub(super) fn run(&mut self) -> Result<(), ThreadError> {
        while !self.is_stopped {
            let turn = self.turn();
            self.report();
            turn?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), ThreadError> {
        self.tell_clock();
        let ready = self.wait()?;
        self.handle(Input::Pass);
        self.take_orders()?;
        self.hear_links()?;
        self.hear_packets(&ready);
        self.do_work()
    }

    /// Once for all changes of a turn: a status is of all routers, and so costs more the more change. It comes first,
    /// for whoever hears of a change looks at it.
    fn report(&mut self) {
        let at_once = self.news.iter().any(|happening| matches!(happening, Happening::Became { .. }));
        self.status.publish(&self.node, &self.wires, at_once);
        for happening in self.news.drain(..) {
            self.failovers.happened(&happening);
            self.told.tell(happening);
        }
        self.failovers.expire(Instant::now());
    }

    /// One input, and what is to be done at once.
    fn handle(&mut self, input: Input<'_>) {
        self.node.handle(Instant::now(), input);
        self.status.is_stale = true;
        // What fails is an input in turn.
        for _ in 0..ROUNDS {
            let actions = self.node.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                if let Err((router, what)) = self.act(action) {
                    self.node.handle(Instant::now(), Input::Failed { router, what });
                }
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), (RouterId, String)> {
        match action {
            Action::Open { router, sockets } => {
                let device = self.device(router);
                if let Err(why) = device.and_then(|device| self.wires.open(router, sockets, device)) {
                    self.node.handle(Instant::now(), Input::Deaf { router, why });
                }
                Ok(())
            }
            Action::Close { router } => {
                self.wires.close(router);
                Ok(())
            }
            Action::Send { router, destination, bytes } => {
                self.wires.send(router, destination, &bytes).map_err(|what| (router, what))
            }
            Action::Tell { peer, bytes } => {
                self.wires.tell(peer, &bytes);
                Ok(())
            }
            Action::Answer { peer, bytes } => {
                self.work.push_back(Work::Answer { peer, bytes });
                Ok(())
            }
            Action::Install { router, estate } => {
                // Only the last counts, and what was to be announced of the one before is not true any more.
                self.work.retain(|work| work.router() != Some(router));
                self.work.push_back(Work::Install { router, estate });
                Ok(())
            }
            Action::Frame { router, interface, bytes } => {
                self.work.push_back(Work::Frame { router, interface, bytes });
                Ok(())
            }
            Action::Happened(happening) => {
                self.news.push(happening);
                Ok(())
            }
            Action::Stopped => {
                self.is_stopped = true;
                Ok(())
            }
        }
    }

    /// Of a router with a virtual MAC.
    fn device(&self, router: RouterId) -> Result<Option<Device>, String> {
        let Some(config) = self.node.router(router) else { return Ok(None) };
        let (Some(virtual_mac), Some(name)) = (&config.virtual_mac, config.virtual_interface()) else {
            return Ok(None);
        };
        let index = if_nametoindex(name.as_str()).map_err(|_| format!("there is no device {name} yet"))?;
        let mac = (!virtual_mac.transmit_base).then(|| config.virtual_router_mac());
        Ok(Some(Device { index, mac }))
    }

    /// As far as it goes without delaying a timer; all of it at the end.
    fn do_work(&mut self) -> Result<(), ThreadError> {
        while let Some(work) = self.work.pop_front() {
            let failure = match work {
                Work::Install { router, estate } => {
                    self.install(router, &estate).err().map(|what| (router, what))
                }
                Work::Frame { router, interface, bytes } => {
                    self.wires.send_frame(interface, &bytes).err().map(|what| (router, what))
                }
                Work::Answer { peer, bytes } => {
                    self.wires.tell(peer, &bytes);
                    None
                }
            };
            if let Some((router, what)) = failure {
                self.handle(Input::Failed { router, what });
            }
            let is_due = self.node.deadline().is_some_and(|deadline| deadline <= Instant::now());
            if is_due && !self.is_stopped {
                break;
            }
        }
        let needs_routes = self.addresses.needs_routes();
        self.links.watch_routes(needs_routes).map_err(|error| NetlinkError::Receive(error).into())
    }

    fn install(&mut self, router: RouterId, estate: &Estate) -> Result<(), String> {
        let moved = self.node.router(router).and_then(|config| on_device(config, estate));
        let estate = moved.as_ref().unwrap_or(estate);
        let Shortfall { failed, foreign } =
            self.addresses.install(router, estate).map_err(|error| error.to_string())?;
        // The addresses' owner has them of its own, for ever.
        if let Some(config) = self.node.router(router).filter(|config| !config.is_owner()) {
            for what in foreign {
                let what = format!(
                    "{what} was there before and does not leave with the router: remove it from the system's \
                     own configuration, or two nodes have it"
                );
                self.news.push(Happening::Failed { router: config.name.clone(), what });
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// Until something is to be read or done. A flood never makes it run without a pause.
    fn wait(&mut self) -> Result<Ready, ThreadError> {
        let now = Instant::now();
        let deadlines = [self.node.deadline(), self.status.deadline(), self.failovers.deadline()];
        let next = deadlines.into_iter().flatten().chain(self.clock.map(|clock| clock + CLOCK)).min();
        let mut left = next.map_or(CLOCK, |next| next.saturating_duration_since(now));
        if !self.work.is_empty() {
            left = Duration::ZERO;
        }
        let is_wild = self.busy.is_some_and(|since| now.saturating_duration_since(since) > BUSY_MAX);
        let mut fds = Vec::new();
        if is_wild {
            left = left.min(BREATH);
        } else {
            let own = [self.wake.as_fd(), self.links.as_fd()];
            fds.extend(own.into_iter().chain(self.wires.fds()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        let count = match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(ThreadError::Wait(errno.into())),
        };
        let has_paused = left > Duration::ZERO && count == 0;
        self.busy = if has_paused || is_wild { None } else { self.busy.or(Some(now)) };
        let mut has_news = fds.iter().skip(OWN_FDS).map(|fd| fd.any() != Some(false));
        Ok(self.wires.ready(|| has_news.next().unwrap_or(false)))
    }

    fn tell_clock(&mut self) {
        let now = Instant::now();
        if self.clock.is_none_or(|last| now.saturating_duration_since(last) >= CLOCK) {
            self.clock = Some(now);
            self.handle(Input::Clock(Timestamp::now()));
        }
    }

    fn take_orders(&mut self) -> Result<(), ThreadError> {
        // Not readable: nobody has ordered anything.
        let _ = self.wake.read();
        for _ in 0..super::ORDERS {
            let Ok(order) = self.orders.try_recv() else { break };
            match order {
                Order::Configure(settings) => {
                    let interfaces = interfaces(&settings.vrrp);
                    self.bereft.retain(|name, _| interfaces.contains(name));
                    self.devices = devices(&settings.vrrp);
                    self.make_devices()?;
                    for change in self.links.follow(interfaces)? {
                        self.handle_change(change)?;
                    }
                    self.wires.configure(&settings);
                    let cluster = settings.secret.is_some().then(|| settings.cluster.clone());
                    // Those that are peers no longer are told so by the port that they know.
                    let had_peers = self.wires.has_peers();
                    if !had_peers {
                        self.follow_peers(cluster.as_ref());
                    }
                    self.handle(Input::Configure(*settings));
                    if had_peers {
                        self.follow_peers(cluster.as_ref());
                    }
                }
                Order::Tracked { what, verdict } => self.handle(Input::Tracked { what, verdict }),
                Order::Ready(ready) => self.handle(Input::Ready(ready)),
                Order::FailOver { router, reply } => self.fail_over(router, reply),
                Order::Stop => self.handle(Input::Stop),
            }
        }
        Ok(())
    }

    fn follow_peers(&mut self, cluster: Option<&Cluster>) {
        if let Err(what) = self.wires.follow_peers(cluster) {
            self.news.push(Happening::Failed { router: "[cluster]".to_owned(), what });
        }
    }

    fn make_devices(&mut self) -> Result<(), ThreadError> {
        for what in self.macvlans.reconcile(&self.devices)? {
            self.news.push(Happening::Failed { router: "virtual_mac".to_owned(), what });
        }
        Ok(())
    }

    fn fail_over(&mut self, router: String, reply: oneshot::Sender<Result<String, String>>) {
        let status = self.node.status(Instant::now());
        if self.failovers.begin(&status, &router, reply, Instant::now()) {
            self.handle(Input::FailOver { router });
        }
    }

    fn hear_links(&mut self) -> Result<(), ThreadError> {
        let news = self.links.read(&self.addresses)?;
        let is_base =
            |name: &str| self.devices.iter().any(|device| device.base == name || device.name == name);
        let concerns = |change: &Change| match change {
            Change::Link(link) => is_base(&link.name),
            Change::Gone { name, .. } => is_base(name),
        };
        if news.changes.iter().any(concerns) {
            self.make_devices()?;
        }
        for change in news.changes {
            self.handle_change(change)?;
        }
        if news.suspicious {
            for (router, _) in self.addresses.verify()? {
                self.handle(Input::Removed { router });
            }
        }
        Ok(())
    }

    fn handle_change(&mut self, change: Change) -> Result<(), ThreadError> {
        match change {
            Change::Link(link) => {
                let back = self.bereft.remove(&link.name).unwrap_or_default();
                self.handle(Input::Link(link));
                for router in back {
                    self.handle(Input::Removed { router });
                }
            }
            Change::Gone { name, index } => {
                if let Some(index) = index {
                    self.wires.forget_interface(index);
                    let bereft = self.addresses.forget_interface(index)?;
                    self.bereft.entry(name.clone()).or_default().extend(bereft);
                }
                self.handle(Input::LinkGone { name });
            }
        }
        Ok(())
    }

    /// At the most one turn of each socket that has something; timers have theirs in between.
    fn hear_packets(&mut self, ready: &Ready) {
        for &id in &ready.adverts {
            let node = &mut self.node;
            self.wires.hear_adverts(id, |now, seen, bytes| {
                node.handle(now, Input::Packet { seen: *seen, bytes });
            });
            self.handle(Input::Pass);
        }
        for &place in &ready.frames {
            let node = &mut self.node;
            self.wires.hear_claims(place, |now, interface, Claim { address, mac }| {
                node.handle(now, Input::Claim { interface, address, mac });
            });
            self.handle(Input::Pass);
        }
        if ready.peers {
            let node = &mut self.node;
            self.wires.hear_peers(|now, source, bytes| node.handle(now, Input::Peer { source, bytes }));
            self.handle(Input::Pass);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The error that ends the thread is told already.
        let _ = self.addresses.remove_all();
        let _ = self.macvlans.remove_all();
    }
}

impl Told {
    fn tell(&self, happening: Happening) {
        if self.happenings.try_send(happening).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What readers see, at every change of a state, and else not too often.
struct Publisher {
    sender: watch::Sender<Arc<VrrpStatus>>,
    last: Option<Instant>,
    is_stale: bool,
}

impl Publisher {
    fn publish(&mut self, node: &Node, wires: &Wires, at_once: bool) {
        let now = Instant::now();
        let is_early = self.last.is_some_and(|last| now.saturating_duration_since(last) < PUBLISH);
        if at_once || self.is_stale && !is_early {
            let mut status = node.status(now);
            if wires.flooded() > 0 {
                status.refused.insert(Refusal::Flood.name().to_owned(), wires.flooded());
            }
            self.sender.send_replace(Arc::new(status));
            self.last = Some(now);
            self.is_stale = false;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.last.filter(|_| self.is_stale).map(|last| last + PUBLISH)
    }
}

/// Those that routers stand on, have something on, and track.
fn interfaces(vrrp: &Vrrp) -> BTreeSet<String> {
    let tracks = vrrp.routers.iter().map(|router| &router.track);
    let tracks = tracks.chain(vrrp.groups.iter().map(|group| &group.track));
    let tracked = tracks.flatten().filter_map(|Track { what, .. }| match what {
        Tracked::Interface(name) => Some(name),
        _ => None,
    });
    let addresses = vrrp.routers.iter().flat_map(|router| router.addresses.iter().chain(&router.excluded));
    let routes = vrrp.routers.iter().flat_map(|router| &router.routes);
    let devices = addresses.map(|address| &address.dev).chain(routes.map(|route| &route.dev)).flatten();
    let names = vrrp.routers.iter().map(|router| &router.interface).chain(tracked).chain(devices);
    let virtuals = vrrp.routers.iter().filter_map(Router::virtual_interface);
    names.cloned().chain(virtuals).collect()
}

fn devices(vrrp: &Vrrp) -> Vec<Macvlan> {
    let device = |router: &Router| {
        let (name, base) = (router.virtual_interface()?, router.interface.clone());
        Some(Macvlan { name, base, mac: router.virtual_router_mac() })
    };
    vrrp.routers.iter().filter_map(device).collect()
}

/// What a router with a virtual MAC has: its addresses are on the device. Beside no other, else there were two ways
/// into their network, and the kernel would ask for neighbours from the interface below in their name.
fn on_device(config: &Router, estate: &Estate) -> Option<Estate> {
    let device = config.virtual_interface()?;
    let mut estate = estate.clone();
    for address in estate.addresses.iter_mut().filter(|address| address.dev.is_none()) {
        let prefix = Family::of(address.address).bits();
        let moved =
            Address { prefix, dev: Some(device.clone()), label: None, broadcast: None, ..address.clone() };
        *address = moved;
    }
    Some(estate)
}

/// Those of `wait` that are not the wires'.
const OWN_FDS: usize = 2;
/// Failures that cause failures end here.
const ROUNDS: usize = 16;
const PUBLISH: Duration = Duration::from_millis(100);
/// Between two looks at the clock on the wall, which signed adverts carry.
const CLOCK: Duration = Duration::from_secs(10);
/// After so long without a pause it takes one, of this length, in which timers are all that counts: what floods it
/// waits in the sockets, and is dropped there.
const BUSY_MAX: Duration = Duration::from_millis(20);
const BREATH: Duration = Duration::from_millis(4);
