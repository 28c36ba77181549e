//! Follows how a set of servers is reached, and whether a set of interfaces is there, and tells what changes.
//!
//! ```text
//! kernel events ──► dirty ──20 ms──► pass: look up, compare with what was told ──► NetEvent
//! watched set   ──►       ◄──15 s──  everything; stale neighbours are confirmed
//! every second: unresolved neighbours are probed
//! ```
//!
//! Must not know what the addresses are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    mem,
    net::IpAddr,
    time::Duration,
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tracing::{info, warn};

use super::{
    Interface, LinkAddress, Net, NetError,
    lookup::{Found, Lookup, Neighbour},
    monitor::{Change, Monitor},
};
use crate::pure::hop::{Mac, Reach};

/// What to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    pub addresses: BTreeSet<IpAddr>,
    pub interfaces: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetEvent {
    Hop(HopEvent),
    Link(LinkEvent),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopEvent {
    pub address: IpAddr,
    pub reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    pub name: String,
    pub state: LinkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Absent,
    Down {
        index: u32,
    },
    /// An index other than before: the interface was replaced, and what was attached to it is gone.
    Up {
        index: u32,
    },
}

/// Tells each address's reach and each interface's state at once, then whenever it changes. Runs until
/// the receiver of `events` or the sender of `wanted` is dropped; when netlink fails it says so in the
/// log and starts again. Dropping the future is safe at any point.
///
/// A neighbour's MAC is kept while the kernel looks for the neighbour again, and given up when nobody answers.
pub async fn follow(wanted: watch::Receiver<Watched>, events: mpsc::Sender<NetEvent>) {
    let mut follower = Follower::new(wanted, events);
    let mut pause = RETRY_MIN;
    loop {
        let started = Instant::now();
        let Err(stop) = follower.session().await;
        let Stop::Failed(error) = stop else { return };
        if started.elapsed() > RETRY_MAX {
            pause = RETRY_MIN;
        }
        warn!("following routes and neighbours stopped, next try in {pause:?}: {error}");
        select! {
            () = follower.events.closed() => return,
            () = time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

struct Follower {
    wanted: watch::Receiver<Watched>,
    events: mpsc::Sender<NetEvent>,
    /// What was told last.
    targets: BTreeMap<IpAddr, Target>,
    links: BTreeMap<String, Option<LinkState>>,
    dirty: Dirty,
    probes_fail: bool,
}

#[derive(Default)]
struct Target {
    told: Option<Reach>,
    /// Where the kernel resolves the next hop that was told.
    next: Option<LinkAddress>,
    /// The kernel holds no valid neighbour entry for it.
    unresolved: bool,
}

enum Stop {
    Closed,
    Failed(NetError),
}

impl From<NetError> for Stop {
    fn from(error: NetError) -> Stop {
        Stop::Failed(error)
    }
}

impl Follower {
    fn new(wanted: watch::Receiver<Watched>, events: mpsc::Sender<NetEvent>) -> Follower {
        Follower {
            wanted,
            events,
            targets: BTreeMap::new(),
            links: BTreeMap::new(),
            dirty: Dirty::default(),
            probes_fail: false,
        }
    }

    /// Follows over one pair of sockets, until one of them fails.
    async fn session(&mut self) -> Result<Infallible, Stop> {
        // Events before state: what changes during the first pass is in the monitor's buffer.
        let mut monitor = Monitor::new()?;
        let net = Net::new()?;
        let mut resync = time::interval(RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe = time::interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.retarget();
        loop {
            let due = self.dirty.due;
            select! {
                () = self.events.closed() => return Err(Stop::Closed),
                changed = self.wanted.changed() => {
                    changed.map_err(|_| Stop::Closed)?;
                    self.retarget();
                }
                changes = monitor.changes() => {
                    for change in changes? {
                        self.dirty.note(change, &self.targets);
                    }
                }
                () = time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.pass(&net, Refresh::No).await?;
                }
                _ = resync.tick() => {
                    self.dirty.everything = true;
                    self.pass(&net, Refresh::Stale).await?;
                }
                _ = probe.tick() => self.probe_unresolved(&net).await?,
            }
        }
    }

    fn retarget(&mut self) {
        let wanted = self.wanted.borrow_and_update();
        self.links.retain(|name, _| wanted.interfaces.contains(name));
        for name in &wanted.interfaces {
            if !self.links.contains_key(name) {
                self.links.insert(name.clone(), None);
                self.dirty.everything = true;
                self.dirty.due = Some(Instant::now());
            }
        }
        self.targets.retain(|address, _| wanted.addresses.contains(address));
        for address in &wanted.addresses {
            if !self.targets.contains_key(address) {
                self.targets.insert(*address, Target::default());
                self.dirty.addresses.insert(*address);
                self.dirty.due = Some(Instant::now());
            }
        }
    }

    async fn pass(&mut self, net: &Net, refresh: Refresh) -> Result<(), Stop> {
        let dirty = mem::take(&mut self.dirty);
        let mut lookup = Lookup::new(net);
        let mut probes = BTreeSet::new();
        for address in dirty.addresses(&self.targets) {
            let found = lookup.find(address).await?;
            probes.extend(self.learn(address, found, refresh).await?);
        }
        for at in probes {
            self.probe(net, at).await?;
        }
        if dirty.everything {
            self.tell_links(net).await?;
        }
        Ok(())
    }

    /// Tells what is new. Returns the neighbour to probe, if there is a reason to.
    async fn learn(
        &mut self,
        address: IpAddr,
        found: Found,
        refresh: Refresh,
    ) -> Result<Option<LinkAddress>, Stop> {
        let Some(target) = self.targets.get_mut(&address) else { return Ok(None) };
        let Found { mut reach, neighbour } = found;
        if let (Reach::Hop(hop), Some((at, Neighbour::Absent | Neighbour::Incomplete))) =
            (&mut reach, neighbour)
        {
            hop.neighbour = target.held_neighbour(at);
        }
        target.next = neighbour.map(|(at, _)| at);
        target.unresolved = neighbour.is_some_and(|(_, entry)| !entry.is_valid());
        if target.told != Some(reach) {
            send(&self.events, NetEvent::Hop(HopEvent { address, reach })).await?;
            target.told = Some(reach);
        }
        let unsure = |(_, entry): &(LinkAddress, Neighbour)| match entry {
            Neighbour::Absent => true,
            Neighbour::Stale(_) => refresh == Refresh::Stale,
            Neighbour::Incomplete | Neighbour::Failed | Neighbour::Valid(_) => false,
        };
        Ok(neighbour.filter(unsure).map(|(at, _)| at))
    }

    async fn tell_links(&mut self, net: &Net) -> Result<(), Stop> {
        for (name, told) in &mut self.links {
            let state = LinkState::of(net.find_interface(name).await?.as_ref());
            if *told != Some(state) {
                send(&self.events, NetEvent::Link(LinkEvent { name: name.clone(), state })).await?;
                *told = Some(state);
            }
        }
        Ok(())
    }

    async fn probe_unresolved(&mut self, net: &Net) -> Result<(), Stop> {
        let unresolved = self.targets.values().filter(|target| target.unresolved);
        let unresolved: BTreeSet<_> = unresolved.filter_map(|target| target.next).collect();
        for at in unresolved {
            self.probe(net, at).await?;
        }
        Ok(())
    }

    /// A probe that the kernel refuses ends nothing: the neighbour stays unresolved and is asked for again.
    async fn probe(&mut self, net: &Net, at: LinkAddress) -> Result<(), Stop> {
        match net.probe(at).await {
            Ok(()) if self.probes_fail => {
                info!("neighbour probes work again");
                self.probes_fail = false;
            }
            Ok(()) => {}
            // The interface went away; its event is on the way.
            Err(error) if error.errno() == Some(libc::ENODEV) => {}
            Err(error @ NetError::Refused { .. }) => {
                if !self.probes_fail {
                    warn!("{error}");
                }
                self.probes_fail = true;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Target {
    /// A flushed neighbour table must not interrupt a server whose MAC will be the same in a millisecond.
    fn held_neighbour(&self, at: LinkAddress) -> Option<Mac> {
        match self.told {
            Some(Reach::Hop(before)) if self.next == Some(at) => before.neighbour,
            _ => None,
        }
    }
}

async fn send(events: &mpsc::Sender<NetEvent>, event: NetEvent) -> Result<(), Stop> {
    events.send(event).await.map_err(|_| Stop::Closed)
}

impl LinkState {
    fn of(interface: Option<&Interface>) -> LinkState {
        match interface {
            None => LinkState::Absent,
            Some(&Interface { index, up: true, .. }) => LinkState::Up { index },
            Some(&Interface { index, up: false, .. }) => LinkState::Down { index },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    No,
    /// Confirm stale neighbours.
    Stale,
}

/// What the next pass looks at. Bounded by the watched set and, for 20 ms, by the kernel's neighbour table.
#[derive(Default)]
struct Dirty {
    everything: bool,
    addresses: BTreeSet<IpAddr>,
    hops: BTreeSet<LinkAddress>,
    due: Option<Instant>,
}

impl Dirty {
    fn note(&mut self, change: Change, targets: &BTreeMap<IpAddr, Target>) {
        match change {
            Change::Everything => self.everything = true,
            Change::Routes { first, last } => {
                let concerned = targets.range(first..=last).map(|(address, _)| *address);
                self.addresses.extend(concerned);
            }
            Change::Neighbour(at) => {
                self.hops.insert(at);
            }
        }
        let clean = !self.everything && self.addresses.is_empty() && self.hops.is_empty();
        if !clean && self.due.is_none() {
            self.due = Some(Instant::now() + COALESCE);
        }
    }

    fn addresses(&self, targets: &BTreeMap<IpAddr, Target>) -> Vec<IpAddr> {
        let concerned = |address: &IpAddr, target: &Target| {
            self.everything
                || self.addresses.contains(address)
                || target.next.is_some_and(|next| self.hops.contains(&next))
        };
        targets.iter().filter(|(address, target)| concerned(address, target)).map(|(a, _)| *a).collect()
    }
}

/// Events come in groups: a link that goes down takes its routes and neighbours along.
const COALESCE: Duration = Duration::from_millis(20);
/// The kernel gives a neighbour up after three questions, one second apart.
const PROBE: Duration = Duration::from_secs(1);
/// Shorter than the shortest time the kernel trusts a confirmed neighbour (half of base_reachable_time, 30 s).
const RESYNC: Duration = Duration::from_secs(15);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
