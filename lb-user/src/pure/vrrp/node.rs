//! All virtual routers of this node, as one function over what happens.
//!
//! Each router is an `Instance`: its election, and everything about it that the node must know. What concerns several is
//! here: which one a packet is for, groups, timers, the order of actions.

mod configure;
mod foreign;
mod instance;
mod outbox;
mod peers;
mod status;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;

use self::{
    foreign::Foreign,
    instance::{Hands, Instance},
    outbox::Outbox,
    peers::Peers,
    world::World,
};
use super::{
    advert::{Refusal, Seen},
    codec,
    group::{self, Condition, Group, Member},
    happening::{End, Happening},
    hmac::Sequencer,
    pulse::handover::Cause,
    receive,
    router::{Event, Hand, Rival},
};
use crate::pure::{
    config::{
        model::{
            Cluster,
            vrrp::{Address, Route, Router, Rule, Tracked, Vrrp},
        },
        network::Family,
    },
    hop::Mac,
    status::VrrpStatus,
};

/// RFC 9568, section 6.2, and Keepalived's Fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not yet ready, or stopped.
    Initialize,
    Backup,
    Active,
    /// Something that it tracks fails: it neither sends nor wins.
    Fault,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Initialize => "initialize",
            State::Backup => "backup",
            State::Active => "active",
            State::Fault => "fault",
        }
    }

    /// As Keepalived's notify scripts and FIFOs have it.
    pub fn keepalived_name(self) -> &'static str {
        match self {
            State::Initialize => "INIT",
            State::Backup => "BACKUP",
            State::Active => "MASTER",
            State::Fault => "FAULT",
        }
    }
}

/// What routers are made from.
#[derive(Debug, Clone)]
pub struct Settings {
    pub vrrp: Vrrp,
    pub cluster: Cluster,
    /// Of the cluster; None: no heartbeat is sent or believed.
    pub secret: Option<Vec<u8>>,
}

/// A router as adapters name it; never reused while the thread lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u32);

pub enum Input<'a> {
    /// Nothing happened but time.
    Pass,
    /// What the clock on the wall says at `now`: at the start, and once in a while. Signed adverts carry it.
    Clock(Timestamp),
    /// At the start and at every reload that is accepted.
    Configure(Settings),
    /// Everything known of one interface; again whenever it changes.
    Link(Link),
    /// It is not there, or no longer.
    LinkGone {
        name: String,
    },
    /// A VRRP message without its IP header, with whatever follows in the same IP packet.
    Packet {
        seen: Seen,
        bytes: &'a [u8],
    },
    /// An ARP packet or neighbour advertisement that claims an address of a router. Never our own.
    Claim {
        interface: u32,
        address: IpAddr,
        mac: [u8; 6],
    },
    /// What was installed for a router is gone, and nobody here removed it.
    Removed {
        router: RouterId,
    },
    Tracked {
        what: Tracked,
        verdict: Verdict,
    },
    /// Whether this node can serve: checks have a first result, and what peers know is imported.
    Ready(bool),
    /// An operator wants another node to be Active.
    FailOver {
        router: String,
    },
    /// A heartbeat port's datagram.
    Peer {
        source: IpAddr,
        bytes: &'a [u8],
    },
    /// The sockets that a router wanted could not be opened.
    Deaf {
        router: RouterId,
        why: String,
    },
    /// An adapter could not do something else that was wanted.
    Failed {
        router: RouterId,
        what: String,
    },
    /// Resign everywhere, hand over where somebody takes over; `Action::Stopped` when all of it is done.
    Stop,
}

/// What is known of something tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No result yet: a tracker that decides about Fault holds its router in Initialize.
    Unknown,
    Up,
    Down,
    /// A file's number.
    Number(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// Administratively up with carrier.
    pub is_up: bool,
    pub mac: [u8; 6],
    /// In the kernel's order, tentative ones left out.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// In the order in which they are to be done; those of one router never overtake each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sockets for a router's adverts. Again with other values when they change.
    Open {
        router: RouterId,
        sockets: Sockets,
    },
    Close {
        router: RouterId,
    },
    /// A message without its IP header.
    Send {
        router: RouterId,
        destination: IpAddr,
        bytes: Vec<u8>,
    },
    /// Make what it has in the kernel this, no more and no less. Empty: take all of it away.
    Install {
        router: RouterId,
        estate: Arc<Estate>,
    },
    /// An Ethernet frame: gratuitous ARP, unsolicited neighbour advertisement, or a probe.
    Frame {
        router: RouterId,
        interface: u32,
        bytes: Vec<u8>,
    },
    /// To a node of the cluster.
    Tell {
        peer: IpAddr,
        bytes: Vec<u8>,
    },
    /// The same, behind all that was wanted before, addresses in the kernel included: it says that they are there.
    Answer {
        peer: IpAddr,
        bytes: Vec<u8>,
    },
    Happened(Happening),
    Stopped,
}

/// Where a router's adverts go out and come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    pub interface: u32,
    /// What others send is not heard, but for samples.
    pub vrid: u8,
    /// Of the adverts.
    pub source: IpAddr,
    /// The group to join; None: unicast.
    pub group: Option<IpAddr>,
}

/// What a router has in the kernel while it is Active.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estate {
    /// The router's interface; what has no `dev` of its own is there.
    pub interface: String,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
}

/// See the module.
pub struct Node {
    world: World,
    instances: BTreeMap<RouterId, Instance>,
    groups: BTreeMap<String, Group>,
    next_id: u32,
    /// Which router has a VRID on an interface.
    on_wire: BTreeMap<(u32, u8, Family), RouterId>,
    /// Which routers have an address; two groups of routers may share one.
    by_address: BTreeMap<IpAddr, Vec<RouterId>>,
    /// When each is due, in order.
    timers: BTreeSet<(Instant, RouterId)>,
    /// When an interface may have its next announcement.
    pacers: BTreeMap<String, Option<Instant>>,
    sequencer: Sequencer,
    /// Packets that concern no router here.
    refused: BTreeMap<Refusal, u64>,
    foreign: Foreign,
    peers: Peers,
    life: Life,
    outbox: Outbox,
    actions: Vec<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    /// Some routers are being handed over, the others have ended.
    Stops,
    Stopped,
}

impl Node {
    /// Without routers, until it is configured. `seed` makes the incarnation that peers tell this start by.
    pub fn new(now: Instant, seed: u64) -> Node {
        Node {
            world: World::new(now),
            instances: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_id: 0,
            on_wire: BTreeMap::new(),
            by_address: BTreeMap::new(),
            timers: BTreeSet::new(),
            pacers: BTreeMap::new(),
            sequencer: Sequencer::default(),
            refused: BTreeMap::new(),
            foreign: Foreign::default(),
            peers: Peers::new(seed),
            life: Life::Runs,
            outbox: Outbox::default(),
            actions: Vec::new(),
        }
    }

    /// Takes one thing in that happened at `now`. Deadlines that have passed are handled before it.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        // What a peer said counts before its silence.
        if let Input::Peer { source, bytes } = input {
            self.peers.pulse.receive(now, source, bytes);
            return self.pass(now);
        }
        self.pass(now);
        if self.life == Life::Runs {
            self.take_in(now, input);
            self.pass(now);
        }
    }

    /// What is to be done since it was last asked.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When `Input::Pass` is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at).into_iter().chain(self.peers.deadline()).min()
    }

    /// As it is configured; None: it has left.
    pub fn router(&self, id: RouterId) -> Option<&Router> {
        self.instances.get(&id).map(|instance| &instance.config)
    }

    /// What operators see.
    pub fn status(&self, now: Instant) -> VrrpStatus {
        status::of(self, now)
    }

    /// Lets somebody else be Active, with its group, and does not preempt it.
    fn release(&mut self, now: Instant, id: RouterId, why: &str) {
        let members = self.group_of(id).map_or(BTreeSet::from([id]), |group| group.members.clone());
        for id in members {
            self.event(now, id, Event::Release { why, hold_back: true });
        }
    }

    fn take_in(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Pass | Input::Peer { .. } => {}
            Input::Clock(timestamp) => self.world.clock = Some((now, timestamp)),
            Input::Configure(settings) => {
                self.peers.configure(now, &settings);
                self.configure(now, settings.vrrp);
            }
            Input::Link(link) => self.link(now, link),
            Input::LinkGone { name } => self.link_gone(now, &name),
            Input::Packet { seen, bytes } => self.packet(now, &seen, bytes),
            Input::Claim { interface, address, mac } => self.claimed(now, interface, address, mac),
            Input::Removed { router } => self.with(now, router, Instance::restore),
            Input::Tracked { what, verdict } => self.tracked(now, what, verdict),
            Input::Ready(ready) => {
                self.world.ready = ready;
                self.judge(now, &self.ids());
            }
            Input::FailOver { router } => self.fail_over(now, &router),
            Input::Deaf { router, why } => {
                self.with(now, router, |instance, hands| instance.deafen(hands.now, why));
                self.judge(now, &BTreeSet::from([router]));
            }
            Input::Failed { router, what } => {
                self.with(now, router, |instance, hands| instance.failed(hands, what));
            }
            Input::Stop => self.stop(now),
        }
    }

    /// Everything that is due.
    fn pass(&mut self, now: Instant) {
        self.pass_peers(now);
        if self.life == Life::Runs {
            self.pass_routers(now);
        }
        self.tell_peers(now);
        self.outbox.flush(&mut self.actions);
        self.finish_stop(now);
    }

    fn pass_routers(&mut self, now: Instant) {
        // Each sets its next deadline after `now`; a take-over, a group and an announcement may make it due again.
        for _ in 0..TURNS * self.instances.len() {
            let Some(&(_, id)) = self.timers.first().filter(|&&(at, _)| at <= now) else { break };
            if self.instances.get(&id).is_some_and(|instance| instance.is_to_be_judged(now)) {
                self.judge(now, &BTreeSet::from([id]));
            }
            let is_taking = |instance: &Instance| instance.group.is_none() && instance.is_taking(now);
            if !self.instances.get(&id).is_some_and(is_taking) || !self.asks_first(now, id) {
                self.event(now, id, Event::Pass);
            }
            self.with(now, id, Instance::announce);
        }
    }

    /// One thing for the election of one router, and what it means for its group.
    fn event(&mut self, now: Instant, id: RouterId, event: Event<'_>) {
        let Some(before) = self.instances.get(&id).map(Instance::entry) else { return };
        self.with(now, id, |instance, hands| instance.elect(hands, event));
        self.peers.note(id, before, self.instances.get(&id).map(Instance::entry));
        self.follow(now, id, before.state);
    }

    fn with(&mut self, now: Instant, id: RouterId, act: impl FnOnce(&mut Instance, &mut Hands<'_>)) {
        let Node { instances, world, sequencer, pacers, outbox, timers, .. } = self;
        let Some(instance) = instances.get_mut(&id) else { return };
        act(instance, &mut Hands { now, world, sequencer, pacers, outbox });
        if let Some(armed) = instance.armed.take() {
            timers.remove(&(armed, id));
        }
        instance.armed = instance.deadline();
        timers.extend(instance.armed.map(|at| (at, id)));
    }

    /// The members of a group move together.
    fn follow(&mut self, now: Instant, id: RouterId, before: State) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(name) = instance.group.clone() else { return };
        let (after, why) = (instance.state(), format!("{} of its group is", instance.config.name));
        let others = |node: &Node, state: State| -> Vec<RouterId> {
            let is = |id: &RouterId| node.instances.get(id).is_some_and(|other| other.state() == state);
            node.groups
                .get(&name)
                .into_iter()
                .flat_map(|group| group.members.iter().copied().filter(is))
                .collect()
        };
        match (before, after) {
            (State::Active, State::Backup) => {
                let why = format!("{why} backup");
                for id in others(self, State::Active) {
                    self.event(now, id, Event::Release { why: &why, hold_back: false });
                }
            }
            (State::Initialize | State::Backup | State::Fault, State::Active) => {
                let why = format!("{why} active");
                for id in others(self, State::Backup) {
                    self.event(now, id, Event::Claim(&why));
                }
            }
            _ => {
                for id in group::takers(&self.members(&name)) {
                    if self.asks_first(now, id) {
                        continue;
                    }
                    let why = self.instances.get(&id).map(Instance::why_take).unwrap_or_default();
                    self.event(now, id, Event::Claim(&why));
                }
            }
        }
        self.tell_group(&name);
    }

    fn tell_group(&mut self, name: &str) {
        let common = group::common(&self.members(name));
        let Some(group) = self.groups.get_mut(name) else { return };
        if let Some(to) = common
            && group.told != common
        {
            group.told = common;
            // All begin in it.
            if to != State::Initialize {
                self.outbox.told.push(Happening::GroupBecame { group: name.to_owned(), to });
            }
        }
    }

    fn members(&self, group: &str) -> Vec<Member<'_>> {
        let members = self.groups.get(group).into_iter().flat_map(|group| &group.members);
        members.filter_map(|id| self.instances.get(id)).map(Instance::member).collect()
    }

    fn group_of(&self, id: RouterId) -> Option<&Group> {
        self.instances.get(&id)?.group.as_ref().and_then(|name| self.groups.get(name))
    }

    fn ids(&self) -> BTreeSet<RouterId> {
        self.instances.keys().copied().collect()
    }

    /// Reckons anew what these routers and their groups may do.
    fn judge(&mut self, now: Instant, ids: &BTreeSet<RouterId>) {
        let mut all = ids.clone();
        for id in ids {
            all.extend(self.group_of(*id).into_iter().flat_map(|group| &group.members));
        }
        for &id in &all {
            self.with(now, id, Instance::judge);
        }
        for id in all {
            let Some(instance) = self.instances.get(&id) else { continue };
            let condition = self.condition(instance);
            self.meet(now, id, &condition);
        }
    }

    /// What holds for it, with its group.
    fn condition(&self, instance: &Instance) -> Condition {
        match &instance.group {
            Some(group) => group::condition(instance.id, &self.members(group)).unwrap_or(Condition::Able),
            None => instance.own.clone(),
        }
    }

    /// A fault counts before the priority, which else would hand over first.
    fn meet(&mut self, now: Instant, id: RouterId, condition: &Condition) {
        if let Condition::Fault { why, by_link } = condition
            && !self.leave(now, id, &Cause::Fault, None)
        {
            self.event(now, id, Event::Fault { why, by_link: *by_link });
        }
        self.weigh(now, id);
        match condition {
            Condition::Able => self.event(now, id, Event::Able),
            Condition::Waits(why) => self.event(now, id, Event::Waits(why)),
            Condition::Fault { .. } => {}
        }
    }

    fn weigh(&mut self, now: Instant, id: RouterId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let (effective, rival, before) =
            (instance.standing.priority, instance.best_rival(), instance.priority());
        if effective == before {
            return;
        }
        let may_leave = effective < before && instance.config.hand_over;
        self.with(now, id, Instance::tell_priority);
        let above = may_leave.then(|| self.better_successor(id, effective)).flatten();
        self.event(now, id, Event::Priority { effective, rival: rival.filter(|_| above.is_none()) });
        if let Some(above) = above {
            let why = format!("its priority fell to {effective}, below {above} of a peer");
            self.leave(now, id, &Cause::Outbid(why), Some(effective));
        }
    }

    fn link(&mut self, now: Instant, link: Link) {
        let (name, index) = (link.name.clone(), link.index);
        let before = self.world.links.insert(link.name.clone(), link);
        self.interface_changed(now, &name);
        if before.is_none_or(|before| before.index != index) {
            let concerned = self.instances.values().filter(|instance| instance.has_on(&name));
            for id in concerned.map(|instance| instance.id).collect::<Vec<_>>() {
                self.with(now, id, Instance::renew);
            }
        }
    }

    fn link_gone(&mut self, now: Instant, name: &str) {
        self.world.links.remove(name);
        self.interface_changed(now, name);
    }

    fn interface_changed(&mut self, now: Instant, name: &str) {
        let what = Tracked::Interface(name.to_owned());
        let concerned = |instance: &&Instance| instance.is_on(name) || instance.tracks(&what);
        let ids = self.instances.values().filter(concerned).map(|instance| instance.id).collect();
        self.judge(now, &ids);
        self.index_interfaces();
    }

    fn tracked(&mut self, now: Instant, what: Tracked, verdict: Verdict) {
        let concerned = |instance: &&Instance| instance.tracks(&what);
        let ids = self.instances.values().filter(concerned).map(|instance| instance.id).collect();
        self.world.learn(what, verdict);
        self.judge(now, &ids);
    }

    fn index_interfaces(&mut self) {
        let key = |instance: &Instance| {
            let interface = instance.interface_index()?;
            Some(((interface, instance.config.vrid, instance.config.family), instance.id))
        };
        self.on_wire = self.instances.values().filter_map(key).collect();
        let virtual_macs = self.instances.values().filter_map(|instance| {
            let link = self.world.links.get(&instance.config.virtual_interface()?)?;
            Some(((link.index, instance.config.vrid, instance.config.family), instance.id))
        });
        self.on_wire.extend(virtual_macs.collect::<Vec<_>>());
    }

    fn packet(&mut self, now: Instant, seen: &Seen, bytes: &[u8]) {
        let family = Family::of(seen.source);
        let router = codec::vrid(bytes).and_then(|vrid| self.on_wire.get(&(seen.interface, vrid, family)));
        let Some(&id) = router else {
            return self.foreign(seen, bytes);
        };
        let mut heard = None;
        self.with(now, id, |instance, hands| heard = Some(instance.receive(hands, seen, bytes)));
        match heard {
            Some(Ok(rival)) => self.advert(now, id, rival),
            // Somebody else's protocol: it says nothing of this router.
            Some(Err(Refusal::Carp)) => self.foreign(seen, bytes),
            Some(Err(refusal)) if refusal.is_of_a_rival() => self.event(now, id, Event::Refused),
            Some(Err(_)) | None => {}
        }
    }

    fn advert(&mut self, now: Instant, id: RouterId, rival: Rival) {
        let state = |node: &Node| node.instances.get(&id).map(Instance::state);
        let before = state(self);
        self.event(now, id, Event::Advert(rival));
        if (before, state(self)) == (Some(State::Active), Some(State::Backup)) {
            self.outbid(now, id);
        }
    }

    fn claimed(&mut self, now: Instant, interface: u32, address: IpAddr, mac: Mac) {
        for id in self.by_address.get(&address).cloned().unwrap_or_default() {
            self.with(now, id, |instance, hands| instance.claimed(hands, interface, address, mac));
        }
    }

    fn fail_over(&mut self, now: Instant, name: &str) {
        let Some(instance) = self.instances.values().find(|instance| instance.config.name == name) else {
            let detail = "there is no such router: see `steelyard vrrp list`".to_owned();
            self.outbox.told.push(Happening::HandOver { router: name.to_owned(), to: None, detail });
            return;
        };
        let (id, state) = (instance.id, instance.state());
        if state == State::Active && self.leave(now, id, &Cause::FailOver, None) {
            return;
        }
        let detail = if state == State::Active {
            self.release(now, id, "an operator wants another node to be active; it holds back");
            "resigned, and holds back until no other node is active".to_owned()
        } else {
            self.not_here(id, state)
        };
        self.outbox.told.push(Happening::HandOver { router: name.to_owned(), to: None, detail });
    }

    fn stop(&mut self, now: Instant) {
        self.life = Life::Stops;
        for id in self.ids() {
            let is_active = self.instances.get(&id).is_some_and(|instance| instance.state() == State::Active);
            if !is_active || !self.leave(now, id, &Cause::Stop, None) {
                self.end(now, id);
            }
        }
    }

    fn end(&mut self, now: Instant, id: RouterId) {
        self.peers.forget(id);
        self.with(now, id, |instance, hands| instance.end(hands, End::Stopped));
    }

    /// Once every router has ended.
    fn finish_stop(&mut self, now: Instant) {
        if self.life != Life::Stops || self.peers.is_anybody_leaving() {
            return;
        }
        self.life = Life::Stopped;
        self.timers.clear();
        for group in std::mem::take(&mut self.groups).into_keys() {
            self.outbox.told.push(Happening::GroupEnded { group, how: End::Stopped });
        }
        self.peers.pulse.say_goodbye(|_| true);
        self.tell_peers(now);
        self.outbox.flush(&mut self.actions);
        self.actions.push(Action::Stopped);
    }
}

/// Of one router in one pass: its election, its group's, its announcement, and one to spare.
const TURNS: usize = 4;

#[cfg(test)]
mod tests;
