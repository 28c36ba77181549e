//! One virtual router with everything around its election: sockets, addresses, announcements, counters.

mod reach;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Instant};

use self::reach::Deaf;
use super::{Action, Condition, Estate, Link, Outbox, RouterId, Sockets, State, World};
use crate::pure::{
    config::{
        model::vrrp::{Address, Effect, Router as Config, Track, Tracked},
        network::Family,
    },
    hop::Mac,
    status::{RouterCounters, SenderStatus},
    vrrp::{
        advert::{ChecksumForm, Refusal, Seen},
        announce::Announcer,
        codec::{self, Outgoing},
        conflict::{Claim, Conflicts},
        frame::{self, ArpForm},
        group::Member,
        happening::{End, Happening},
        hmac::{Senders, Sequencer},
        mismatch::{Quota, Rivals},
        pulse::wire::{Entry, Key},
        receive::{Expected, receive},
        router::{Act, Event, Rival, Router, Terms},
        timer::Timer,
        tracking::{Counted, Standing, standing},
    },
};

pub(in crate::pure::vrrp) struct Instance {
    pub(super) id: RouterId,
    pub(super) config: Config,
    /// What the other nodes of the cluster call it.
    pub(super) key: Key,
    pub(super) group: Option<String>,
    /// What its group tracks.
    pub(super) group_track: Vec<Track>,
    pub(super) standing: Standing,
    /// Whether it may take part, as far as it is concerned itself.
    pub(super) own: Condition,
    /// When its timer is set to.
    pub(super) armed: Option<Instant>,
    election: Router,
    /// The end of its delay after the start.
    delayed_until: Option<Instant>,
    sockets: Option<Sockets>,
    deaf: Option<Deaf>,
    mac: Mac,
    estate: Arc<Estate>,
    announcer: Announcer,
    conflicts: Conflicts,
    rivals: Rivals,
    senders: Senders,
    /// Of the last advert that counted.
    form: Option<ChecksumForm>,
    counters: RouterCounters,
    refused: BTreeMap<Refusal, u64>,
    failure: Option<String>,
    /// Of what this node does to itself.
    quota: Quota,
    /// When the last advert came that counted.
    advert_at: Option<Instant>,
}

/// What only the instance knows of itself, for those who look.
pub(super) struct Shown {
    pub(super) reason: String,
    pub(super) since: Instant,
    pub(super) transitions: u64,
    pub(super) timer: Timer,
    pub(super) next: Option<Instant>,
    pub(super) senders: Vec<SenderStatus>,
    pub(super) counters: RouterCounters,
}

/// What an instance acts upon beside itself.
pub(super) struct Hands<'a> {
    pub(super) now: Instant,
    pub(super) world: &'a World,
    pub(super) sequencer: &'a mut Sequencer,
    pub(super) pacers: &'a mut BTreeMap<String, Option<Instant>>,
    pub(super) outbox: &'a mut Outbox,
}

impl Instance {
    /// A killed daemon may have left addresses: nothing is installed until it is Active.
    pub(super) fn new(id: RouterId, config: Config, hands: &mut Hands<'_>) -> Instance {
        let nothing = Estate { interface: config.interface.clone(), ..Estate::default() };
        hands.outbox.install.push(Action::Install { router: id, estate: Arc::new(nothing) });
        let delayed_until = hands.world.started + config.start_delay;
        Instance {
            id,
            group: None,
            group_track: Vec::new(),
            standing: Standing { priority: config.priority, ..Standing::default() },
            own: Condition::Waits("it has just been configured".to_owned()),
            armed: None,
            election: Router::new(hands.now, terms(&config, false), config.priority),
            delayed_until: Some(delayed_until).filter(|&until| until > hands.now),
            sockets: None,
            deaf: None,
            mac: [0; 6],
            estate: estate(&config),
            announcer: Announcer::default(),
            conflicts: Conflicts::default(),
            rivals: Rivals::default(),
            senders: Senders::default(),
            form: None,
            counters: RouterCounters::default(),
            refused: BTreeMap::new(),
            failure: None,
            quota: Quota::default(),
            advert_at: None,
            key: Key::of(&config),
            config,
        }
    }

    /// Applies what a reload changed, without an election.
    pub(super) fn reconfigure(&mut self, hands: &mut Hands<'_>, config: Config) {
        let estate = estate(&config);
        let is_moved = config.virtual_mac != self.config.virtual_mac;
        let is_changed = is_moved || *estate != *self.estate;
        self.estate = estate;
        self.key = Key::of(&config);
        self.config = config;
        if is_moved {
            // They are of the device, and opened anew when it is judged.
            self.sockets = None;
        }
        if is_changed {
            self.renew(hands);
        }
        self.election.set_terms(hands.now, terms(&self.config, self.group.is_some()));
    }

    pub(super) fn join(&mut self, hands: &mut Hands<'_>, group: Option<String>, track: Vec<Track>) {
        self.group = group;
        self.group_track = track;
        self.election.set_terms(hands.now, terms(&self.config, self.group.is_some()));
    }

    pub(super) fn state(&self) -> State {
        self.election.state()
    }

    pub(super) fn priority(&self) -> u8 {
        self.election.priority()
    }

    /// As the other nodes of the cluster see it.
    pub(super) fn entry(&self) -> Entry {
        let (version, state, priority) = (self.config.version, self.state(), self.priority());
        Entry { key: self.key, version, state, priority, is_held: self.election.holds_back() }
    }

    pub(super) fn advert_at(&self) -> Option<Instant> {
        self.advert_at
    }

    /// When the one that is Active counts as down by its adverts alone; None: none was heard, or it resigned.
    pub(super) fn master_down_at(&self) -> Option<Instant> {
        let lives = self.election.rival().is_some_and(|rival| rival.priority > 0);
        Some(self.advert_at.filter(|_| lives)? + self.election.timer().master_down())
    }

    /// Its timer is about to make it Active.
    pub(super) fn is_taking(&self, now: Instant) -> bool {
        self.state() == State::Backup && self.election.deadline().is_some_and(|at| at <= now)
    }

    pub(super) fn why_take(&self) -> String {
        self.election.why_take()
    }

    pub(super) fn best_rival(&self) -> Option<u8> {
        self.rivals.best()
    }

    pub(super) fn member(&self) -> Member<'_> {
        let (state, wants) = (self.state(), self.election.wants());
        Member { id: self.id, name: &self.config.name, state, wants, own: &self.own }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = self.delayed_until.filter(|_| self.state() == State::Initialize);
        let probe = self.conflicts.deadline(self.silent_from());
        let deaf = self.deaf.as_ref().map(|deaf| deaf.again_at);
        [self.election.deadline(), self.announcer.deadline(), probe, waits, deaf].into_iter().flatten().min()
    }

    /// Something that kept it from taking part has passed.
    pub(super) fn is_to_be_judged(&self, now: Instant) -> bool {
        self.delay_ends(now) || self.deaf.as_ref().is_some_and(|deaf| deaf.again_at <= now)
    }

    fn delay_ends(&self, now: Instant) -> bool {
        self.delayed_until.is_some_and(|until| until <= now)
    }

    pub(super) fn is_on(&self, interface: &str) -> bool {
        self.config.interface == interface
            || self.config.virtual_interface().is_some_and(|name| name == interface)
    }

    pub(super) fn tracks(&self, what: &Tracked) -> bool {
        self.config.track.iter().chain(&self.group_track).any(|track| track.what == *what)
    }

    /// Whether something of it belongs on a device beside its own interface.
    pub(super) fn has_on(&self, device: &str) -> bool {
        let addresses = self.estate.addresses.iter().map(|address| &address.dev);
        let mut devices = addresses.chain(self.estate.routes.iter().map(|route| &route.dev));
        devices.any(|dev| dev.as_deref() == Some(device))
    }

    pub(super) fn interface_index(&self) -> Option<u32> {
        self.sockets.as_ref().map(|sockets| sockets.interface)
    }

    pub(super) fn counted<'a>(&'a self, world: &World) -> Vec<Counted<'a>> {
        let own = self.config.track.iter().map(|track| (track, self.group.is_none()));
        let of_group = self.group_track.iter().map(|track| (track, true));
        let counted = |(track, weighs): (&'a Track, bool)| Counted {
            track,
            verdict: world.verdict(&track.what),
            weighs,
        };
        own.chain(of_group).map(counted).collect()
    }

    /// Reckons its priority and condition anew, and opens its sockets where it can.
    pub(super) fn judge(&mut self, hands: &mut Hands<'_>) {
        let link_fault = self.reach(hands);
        if self.delay_ends(hands.now) {
            self.delayed_until = None;
        }
        // Its own interface is a fault of the link, which may bounce, and not one of what it tracks.
        let own = Tracked::Interface(self.config.interface.clone());
        let mut counted = self.counted(hands.world);
        counted.retain(|one| one.track.what != own || one.track.effect != Effect::Fault { reverse: false });
        self.standing = standing(self.config.priority, &counted);
        self.own = self.condition(hands.world, link_fault);
    }

    fn condition(&self, world: &World, link_fault: Option<String>) -> Condition {
        let is_new = matches!(self.state(), State::Initialize | State::Fault);
        let by_link = self.standing.faults.is_empty();
        let faults: Vec<_> = link_fault.into_iter().chain(self.standing.faults.iter().cloned()).collect();
        if !world.ready {
            return Condition::Waits("this node is not ready to serve yet".to_owned());
        }
        if !faults.is_empty() {
            return Condition::Fault { why: faults.join("; "), by_link };
        }
        // What is not known yet must not stop one that runs.
        match self.standing.unknown.first() {
            Some(unknown) if is_new => Condition::Waits(unknown.clone()),
            _ if is_new && self.delayed_until.is_some() => Condition::Waits(format!(
                "its start is delayed by {:?} (start_delay)",
                self.config.start_delay
            )),
            Some(_) | None => Condition::Able,
        }
    }

    /// One thing for the election, and what it comes to.
    pub(super) fn elect(&mut self, hands: &mut Hands<'_>, event: Event<'_>) {
        let owned = self.election.owns();
        let acts = self.election.handle(hands.now, event);
        // Even if they were held: a link that went down takes some addresses along.
        let is_active = acts.iter().any(|act| matches!(act, Act::Became { to: State::Active, .. }));
        for act in acts {
            self.act(hands, act);
        }
        if is_active || self.election.owns() != owned {
            self.install(hands);
        }
    }

    fn act(&mut self, hands: &mut Hands<'_>, act: Act) {
        let router = || self.config.name.clone();
        match act {
            Act::Advertise { priority } => self.advertise(hands, priority),
            Act::Became { from, to } => self.became(hands, from, to),
            Act::AnnounceAgain => self.announcer.again(hands.now, &self.config.announce),
            Act::LowerPriority { peer, priority } => {
                self.counters.lower_priority_received += 1;
                if self.rivals.may_tell(hands.now) {
                    hands.outbox.told.push(Happening::LowerPriority { router: router(), peer, priority });
                }
            }
            Act::Overslept { late } => {
                let late_ms = late.as_millis() as u64;
                hands.outbox.told.push(Happening::Overslept { router: router(), late_ms });
            }
        }
    }

    fn became(&mut self, hands: &mut Hands<'_>, from: State, to: State) {
        self.failure = None;
        if from == State::Active {
            self.counters.released_active += 1;
            self.announcer.stop();
        }
        if to == State::Active {
            self.counters.became_active += 1;
            self.announcer.begin(hands.now, &self.config.announce);
            self.rivals.won(self.priority());
            for (address, mac) in self.conflicts.begin(hands.now) {
                let router = self.config.name.clone();
                hands.outbox.told.push(Happening::Conflict { router, address, mac });
            }
        } else {
            self.conflicts.stop();
        }
        let (router, why) = (self.config.name.clone(), self.election.why().to_owned());
        hands.outbox.told.push(Happening::Became { router, from, to, priority: self.priority(), why });
    }

    /// Without a link there is nobody to hear it.
    fn advertise(&mut self, hands: &mut Hands<'_>, priority: u8) {
        let is_up = hands.world.links.get(&self.config.interface).is_some_and(|link| link.is_up);
        let Some(sockets) = self.sockets.as_ref().filter(|_| is_up) else { return };
        let unicast = self.config.unicast_peers.iter().map(|peer| peer.address);
        for destination in sockets.group.into_iter().chain(unicast) {
            let outgoing = Outgoing {
                router: &self.config,
                priority,
                form: codec::form_to_send(self.config.checksum, self.form),
                source: sockets.source,
                destination,
                sequence: hands.sequencer.next(hands.world.timestamp(hands.now)),
            };
            let bytes = outgoing.encode();
            hands.outbox.send.push(Action::Send { router: self.id, destination, bytes });
        }
        self.counters.adverts_sent += 1;
        self.counters.priority_zero_sent += u64::from(priority == 0);
    }

    /// Installs what has changed, or the device that it belongs on.
    pub(super) fn renew(&mut self, hands: &mut Hands<'_>) {
        if self.election.owns() {
            self.install(hands);
            self.announcer.begin(hands.now, &self.config.announce);
        }
    }

    /// What belongs in the kernel now.
    fn install(&mut self, hands: &mut Hands<'_>) {
        let estate = if self.election.owns() {
            Arc::clone(&self.estate)
        } else {
            Arc::new(Estate { interface: self.config.interface.clone(), ..Estate::default() })
        };
        hands.outbox.install.push(Action::Install { router: self.id, estate });
    }

    /// Announcements and probes that are due.
    pub(super) fn announce(&mut self, hands: &mut Hands<'_>) {
        if self.conflicts.due(hands.now, self.silent_from()) {
            for (interface, mac, address) in self.targets(hands.world) {
                let bytes = match address {
                    IpAddr::V4(address) => frame::arp_probe(mac, address),
                    IpAddr::V6(address) => frame::neighbour_probe(mac, address),
                };
                hands.outbox.frame.push(Action::Frame { router: self.id, interface, bytes });
            }
        }
        if self.announcer.deadline().is_none_or(|at| at > hands.now) {
            return;
        }
        let targets = self.targets(hands.world);
        let addresses: Vec<_> = targets.iter().map(|&(_, _, address)| address).collect();
        let free_at = hands.pacers.entry(self.config.interface.clone()).or_default();
        for (address, form) in self.announcer.due(hands.now, &self.config.announce, &addresses, free_at) {
            let Some(&(interface, mac, _)) = targets.iter().find(|target| target.2 == address) else {
                continue;
            };
            let bytes = announcement(mac, address, form);
            hands.outbox.frame.push(Action::Frame { router: self.id, interface, bytes });
        }
    }

    /// (interface, MAC, address) of all that is announced.
    fn targets(&self, world: &World) -> Vec<(u32, Mac, IpAddr)> {
        let target = |address: &Address| {
            let on = address.dev.as_ref().filter(|dev| **dev != self.config.interface);
            match on {
                Some(dev) => world.links.get(dev).map(|link| (link.index, link.mac, address.address)),
                None => Some((self.interface_index()?, self.mac, address.address)),
            }
        };
        self.estate.addresses.iter().filter_map(target).collect()
    }

    /// When the one that is Active has been silent for so long that it is about to be given up.
    fn silent_from(&self) -> Option<Instant> {
        let interval = self.election.timer().interval;
        self.election
            .deadline()
            .filter(|_| self.election.is_silence())
            .and_then(|at| at.checked_sub(interval))
    }

    pub(super) fn receive(
        &mut self,
        hands: &mut Hands<'_>,
        seen: &Seen,
        bytes: &[u8],
    ) -> Result<Rival, Refusal> {
        let own = self.sockets.as_ref().map(|sockets| sockets.source);
        let expected = Expected {
            router: &self.config,
            own,
            active: self.election.rival().map(|rival| rival.from),
            differs_for: self.rivals.differs_for(hands.now, seen.source),
            clock: hands.world.timestamp(hands.now),
            senders: &mut self.senders,
        };
        let (now, router, peer) = (hands.now, &self.config.name, seen.source);
        match receive(bytes, seen, expected) {
            Ok(heard) => {
                let advert = &heard.advert;
                self.counters.adverts_received += 1;
                self.advert_at = Some(now);
                self.counters.priority_zero_received += u64::from(advert.priority == 0);
                self.form = Some(advert.checksum);
                self.conflicts.heard();
                if heard.difference.is_some() {
                    *self.refused.entry(Refusal::Addresses).or_default() += 1;
                }
                let above_us = own.is_none_or(|own| peer > own);
                let rival =
                    Rival { from: peer, priority: advert.priority, interval: advert.interval, above_us };
                hands.outbox.told.extend(self.rivals.heard(now, router, peer, &heard));
                Ok(rival)
            }
            Err(rejected) => {
                let refusal = rejected.refusal;
                *self.refused.entry(refusal).or_default() += 1;
                if !matches!(refusal, Refusal::Carp | Refusal::Duplicate) {
                    hands.outbox.told.extend(self.rivals.refused(now, router, peer, rejected));
                }
                Err(refusal)
            }
        }
    }

    pub(super) fn claimed(&mut self, hands: &mut Hands<'_>, interface: u32, address: IpAddr, mac: Mac) {
        let is_here = |&(index, _, ours): &(u32, Mac, IpAddr)| index == interface && ours == address;
        let is_ours = mac == self.mac || hands.world.links.values().any(|link| link.mac == mac);
        if is_ours || !self.targets(hands.world).iter().any(is_here) {
            return;
        }
        match self.conflicts.claimed(hands.now, address, mac) {
            Claim::Normal => {}
            Claim::Known => self.announcer.again(hands.now, &self.config.announce),
            Claim::Conflict => {
                self.announcer.again(hands.now, &self.config.announce);
                let router = self.config.name.clone();
                hands.outbox.told.push(Happening::Conflict { router, address, mac });
            }
        }
    }

    /// What somebody removed is there again at once: neighbours notice nothing, and nobody is elected. What leaves
    /// with a link comes back with it.
    pub(super) fn restore(&mut self, hands: &mut Hands<'_>) {
        if self.state() != State::Active {
            return;
        }
        self.install(hands);
        self.announcer.again(hands.now, &self.config.announce);
        if self.quota.allows(hands.now) {
            let addresses: Vec<_> = self.estate.addresses.iter().map(|one| one.address.to_string()).collect();
            let what = format!("something that it installed ({})", addresses.join(", "));
            hands.outbox.told.push(Happening::Restored { router: self.config.name.clone(), what });
        }
    }

    pub(super) fn failed(&mut self, hands: &mut Hands<'_>, what: String) {
        let is_news = self.failure.as_ref().is_none_or(|last| *last != what);
        self.failure = Some(what.clone());
        if is_news && self.quota.allows(hands.now) {
            hands.outbox.told.push(Happening::Failed { router: self.config.name.clone(), what });
        }
    }

    pub(super) fn shown(&self, now: Instant) -> Shown {
        let why = self.election.why();
        let reason = match &self.failure {
            Some(failure) => format!("{why}; last failure: {failure}"),
            None => why.to_owned(),
        };
        let refused =
            self.refused.iter().map(|(refusal, &count)| (refusal.name().to_owned(), count)).collect();
        Shown {
            reason,
            since: self.election.since(),
            transitions: self.election.transitions(),
            timer: self.election.timer(),
            next: self.election.deadline(),
            senders: self.rivals.status(now),
            counters: RouterCounters { refused, ..self.counters.clone() },
        }
    }

    pub(super) fn tell_priority(&mut self, hands: &mut Hands<'_>) {
        let (from, to) = (self.priority(), self.standing.priority);
        let why = match &self.standing.weights[..] {
            [] => format!("nothing moves it from its own, {}", self.config.priority),
            weights => format!("{}: {}", self.config.priority, weights.join(", ")),
        };
        let (router, state) = (self.config.name.clone(), self.state());
        hands.outbox.told.push(Happening::Priority { router, state, from, to, why });
    }

    /// Resigns, twice lest one is lost, and takes everything away.
    pub(super) fn end(&mut self, hands: &mut Hands<'_>, how: End) {
        if self.election.owns() {
            let _ = self.election.handle(hands.now, Event::Stop);
            self.counters.released_active += 1;
            self.advertise(hands, 0);
            self.advertise(hands, 0);
            self.install(hands);
        }
        self.announcer.stop();
        if self.sockets.take().is_some() {
            hands.outbox.close.push(Action::Close { router: self.id });
        }
        hands.outbox.told.push(Happening::Ended { router: self.config.name.clone(), how });
    }
}

/// What of the configuration decides its election.
pub(super) fn terms(config: &Config, grouped: bool) -> Terms {
    Terms {
        version: config.version,
        interval: config.interval,
        down_timer_adverts: config.down_timer_adverts,
        owner: config.is_owner(),
        preempt: config.preempt,
        wish: config.wish,
        hand_over: config.hand_over,
        refuse_on_mismatch: config.refuse_on_mismatch,
        grouped,
    }
}

fn estate(config: &Config) -> Arc<Estate> {
    Arc::new(Estate {
        interface: config.interface.clone(),
        addresses: config.addresses.iter().chain(&config.excluded).cloned().collect(),
        routes: config.routes.clone(),
        rules: config.rules.clone(),
    })
}

/// RFC 9568, section 6.4: the neighbour advertisement has the router flag.
fn announcement(mac: Mac, address: IpAddr, form: ArpForm) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => frame::gratuitous_arp(form, mac, address),
        IpAddr::V6(address) => frame::unsolicited_advertisement(mac, address, true),
    }
}
