//! The other nodes of the cluster: routers that were Active on a dead one are taken over, and others handed over.
//!
//! Decides who does so and when; `pulse` knows who lives, `hand_over` who was asked, and the elections do the rest.

use std::{
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Action, Condition, Event, Hand, Happening, Instance, Life, Node, RouterId, Settings, State};
use crate::pure::vrrp::pulse::{
    self, Ask, Loss, Pulse,
    handover::{Cause, HandOvers, Leaving, PATIENCE},
    trust::Trust,
    wire::{Call, Entry, Key, Message},
};

pub(super) struct Peers {
    pub(super) pulse: Pulse,
    hand_overs: HandOvers,
    trust: Trust,
    /// Our routers are others than the peers know.
    is_roster_due: bool,
}

/// How a hand-over ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Claimed,
    Refused,
    Unanswered,
}

impl Peers {
    pub(super) fn new(seed: u64) -> Peers {
        let (hand_overs, trust) = (HandOvers::default(), Trust::default());
        Peers { pulse: Pulse::new(seed), hand_overs, trust, is_roster_due: false }
    }

    pub(super) fn configure(&mut self, now: Instant, settings: &Settings) {
        self.pulse.configure(now, &settings.cluster, settings.secret.as_deref());
        self.trust.keep(|peer| self.pulse.knows(peer));
        self.is_roster_due = true;
    }

    /// A router of ours did something.
    pub(super) fn note(&mut self, id: RouterId, before: Entry, after: Option<Entry>) {
        self.is_roster_due |= after != Some(before);
        let was_active = before.state == State::Active;
        if was_active && after.is_none_or(|after| after.state != State::Active) {
            self.hand_overs.forget(id);
        }
    }

    pub(super) fn is_leaving(&self, id: RouterId) -> bool {
        self.hand_overs.is_leaving(id)
    }

    pub(super) fn is_anybody_leaving(&self) -> bool {
        self.hand_overs.is_anybody_leaving()
    }

    pub(super) fn forget(&mut self, id: RouterId) {
        self.hand_overs.forget(id);
        self.is_roster_due = true;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pulse.deadline().into_iter().chain(self.hand_overs.deadline()).min()
    }
}

impl Node {
    /// What time and datagrams brought.
    pub(super) fn pass_peers(&mut self, now: Instant) {
        self.peers.pulse.pass(now);
        for event in self.peers.pulse.take_events() {
            self.peer_event(now, event);
        }
        for (peer, message) in self.peers.hand_overs.again(now) {
            self.peers.pulse.tell(peer, message);
        }
        for (id, leaving) in self.peers.hand_overs.expired(now) {
            self.unanswered(now, id, leaving, Outcome::Unanswered);
        }
        self.heed_the_deaf(now);
        self.doubt_the_silent(now);
    }

    /// Sends what the peers are to know now, and everything that waits.
    pub(super) fn tell_peers(&mut self, now: Instant) {
        if mem::take(&mut self.peers.is_roster_due) {
            let roster = self.instances.values().map(Instance::entry).collect();
            self.peers.pulse.set_roster(now, roster);
        }
        let pulse = &mut self.peers.pulse;
        let told = pulse.take_datagrams().into_iter().map(|(peer, bytes)| Action::Tell { peer, bytes });
        let answers = pulse.take_answers().into_iter().map(|(peer, bytes)| Action::Answer { peer, bytes });
        self.outbox.tell.extend(told.chain(answers));
    }

    fn peer_event(&mut self, now: Instant, event: pulse::Event) {
        match event {
            pulse::Event::Found { peer } => {
                self.outbox.told.push(Happening::PeerFound { peer });
                self.peers.trust.heard(peer);
            }
            pulse::Event::Refused { peer, detail } => {
                self.outbox.told.push(Happening::PeerRefused { peer, detail });
            }
            pulse::Event::Left { peer } => {
                self.outbox.told.push(Happening::PeerLeft { peer });
                self.peers.trust.heard(peer);
                self.peers.hand_overs.give_up(now, peer);
            }
            pulse::Event::Lost { peer, how, heard, active } => {
                self.outbox.told.push(Happening::PeerLost { peer });
                self.peers.hand_overs.give_up(now, peer);
                self.inherit(now, peer, how, heard, &active);
                self.bequeath(now, peer);
            }
            pulse::Event::Roster { peer } => self.contest(now, peer),
            pulse::Event::Asked { peer, what: Ask::Resign, call } => self.resigned(now, peer, call),
            pulse::Event::Asked { peer, what: Ask::Take, call } => self.wanted(now, peer, call),
            pulse::Event::Asked { peer, what: Ask::Claimed, call } => {
                if let Some((id, leaving)) = self.peers.hand_overs.claimed(peer, call.round) {
                    self.handed_over(now, id, &leaving, Outcome::Claimed);
                }
            }
            pulse::Event::Asked { peer, what: Ask::Refused, call } => {
                if let Some((id, leaving)) = self.peers.hand_overs.refused(peer, call.round) {
                    self.unanswered(now, id, leaving, Outcome::Refused);
                }
            }
        }
    }

    /// Takes over what was Active on a dead node, unless somebody else is to.
    fn inherit(&mut self, now: Instant, peer: IpAddr, how: Loss, heard: Instant, active: &[Entry]) {
        if self.life != Life::Runs || !self.peers.trust.is_trusted(now, peer) {
            return;
        }
        let why = match how {
            Loss::Silent => format!("node {peer} is silent"),
            Loss::Restarted => format!("the daemon of node {peer} died"),
        };
        let outlived = heard + self.peers.pulse.heartbeat() * 2;
        for id in self.ids() {
            let Some(instance) = self.instances.get(&id).filter(|one| one.state() == State::Backup) else {
                continue;
            };
            let was_there = instance.key.counterpart(active.iter().map(|entry| (entry.key, ()))).is_some();
            // Its adverts outlived its heartbeats: these are lost, and it is not.
            let is_heard = how == Loss::Silent && instance.advert_at().is_some_and(|at| at > outlived);
            let is_better_claimed = self.peers.pulse.is_better_claimed(instance.key, instance.priority());
            if was_there && !is_heard && !is_better_claimed {
                self.event(now, id, Event::Claim(&why));
                self.peers.trust.guessed(now, id, peer);
            }
        }
    }

    /// Its link is gone, and so are its heartbeats to a peer that waits: the peer takes over now, as this node would.
    fn bequeath(&mut self, now: Instant, peer: IpAddr) {
        for id in self.ids() {
            let Some(instance) = self.instances.get(&id).filter(|one| one.state() == State::Fault) else {
                continue;
            };
            if self.peers.pulse.waits_on(peer, instance.key) {
                let why = format!("node {peer} may have taken over");
                self.event(now, id, Event::Release { why: &why, hold_back: false });
            }
        }
    }

    /// An advert made a router of ours step down.
    pub(super) fn outbid(&mut self, now: Instant, id: RouterId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let lately = instance.config.interval * 2;
        let Peers { trust, pulse, .. } = &mut self.peers;
        trust.outbid(now, id, lately, |peer| !pulse.is_alive(peer));
    }

    /// Who was cut off and is back sends heartbeats again; whose adverts alone came does not.
    fn doubt_the_silent(&mut self, now: Instant) {
        let patience = self.peers.pulse.patience();
        for (id, peer, length) in self.peers.trust.doubt(now, patience) {
            let Some(instance) = self.instances.get(&id) else { continue };
            let router = instance.config.name.clone();
            let what = format!(
                "took over though node {peer} lives: its heartbeats were lost, its adverts were not; for {length:?} its \
                 silence is not acted on"
            );
            self.outbox.told.push(Happening::Failed { router, what });
        }
    }

    /// Two are Active after a network was in two: an advert at once ends it, not the next that is due.
    fn contest(&mut self, now: Instant, peer: IpAddr) {
        for id in self.ids() {
            let Some(instance) = self.instances.get(&id).filter(|one| one.state() == State::Active) else {
                continue;
            };
            if self.peers.pulse.is_active_on(peer, instance.key) {
                self.event(now, id, Event::Hand(Hand::Insist));
            }
        }
    }

    /// Where a peer is Active and cannot hear that we are, both would be for ever: who hears steps down.
    fn heed_the_deaf(&mut self, now: Instant) {
        let long = self.peers.pulse.patience() * 2;
        if !self.peers.pulse.is_unheard(now, long) {
            return;
        }
        for id in self.ids() {
            let Some(instance) = self.instances.get(&id).filter(|one| one.state() == State::Active) else {
                continue;
            };
            // It may be about to step down by an advert of ours.
            let long = long.max(instance.config.interval / 4);
            if let Some(peer) = self.peers.pulse.deaf_holder(now, instance.key, long) {
                let why = format!("node {peer} is active, and does not hear this one");
                self.event(now, id, Event::Release { why: &why, hold_back: false });
            }
        }
    }

    /// Hands a router over, with its group, if a peer can take it over. `above`: only to one of higher priority.
    pub(super) fn leave(&mut self, now: Instant, id: RouterId, cause: &Cause, above: Option<u8>) -> bool {
        if self.peers.is_leaving(id) {
            self.peers.hand_overs.change_cause(id, cause.clone());
            return true;
        }
        if self.instances.get(&id).is_none_or(|instance| instance.state() != State::Active) {
            return false;
        }
        let members = self.active_members(id);
        let successor = self.successor(&members);
        let Some((peer, _)) = successor.filter(|(_, entry)| above.is_none_or(|own| entry.priority > own))
        else {
            return false;
        };
        self.leave_to(now, peer, cause, members);
        true
    }

    fn successor(&self, members: &[(RouterId, (Key, u8))]) -> Option<(IpAddr, Entry)> {
        let keys: Vec<_> = members.iter().map(|(_, call)| call.0).collect();
        self.peers.pulse.successor(&keys)
    }

    /// The priority of the peer that it can be handed over to, if that is higher.
    pub(super) fn better_successor(&self, id: RouterId, effective: u8) -> Option<u8> {
        let (_, entry) = self.successor(&self.active_members(id))?;
        Some(entry.priority).filter(|priority| *priority > effective)
    }

    /// Why there is nothing to hand over.
    pub(super) fn not_here(&self, id: RouterId, state: State) -> String {
        let key = self.instances.get(&id).map(|instance| instance.key);
        match key.and_then(|key| self.peers.pulse.holder(key)) {
            Some((peer, _)) => format!("is {} here, and active on node {peer}: order it there", state.name()),
            None => format!("is {} here: there is nothing to hand over", state.name()),
        }
    }

    fn leave_to(&mut self, now: Instant, peer: IpAddr, cause: &Cause, members: Vec<(RouterId, (Key, u8))>) {
        for (id, call) in members {
            if self.peers.is_leaving(id) {
                continue;
            }
            self.event(now, id, Event::Hand(Hand::Leave));
            let message = self.peers.hand_overs.leave(now, id, peer, cause.clone(), call);
            self.peers.pulse.tell(peer, message);
        }
    }

    /// It, and those of its group that are Active as it is.
    fn active_members(&self, id: RouterId) -> Vec<(RouterId, (Key, u8))> {
        let group = self.group_of(id).map(|group| group.members.clone()).unwrap_or_default();
        let others = group.into_iter().filter(|other| *other != id);
        [id].into_iter()
            .chain(others)
            .filter_map(|id| self.instances.get(&id))
            .filter(|instance| instance.state() == State::Active)
            .map(|instance| (instance.id, (instance.key, instance.priority())))
            .collect()
    }

    /// A peer hands over to us.
    fn resigned(&mut self, now: Instant, peer: IpAddr, call: Call) {
        let Some(id) = self.find(call.key) else {
            return self.peers.pulse.tell(peer, Message::Refused(call));
        };
        let why = if self.peers.hand_overs.is_asking(id) {
            format!("it preempted {peer} of priority {}, which handed over", call.priority)
        } else {
            format!("node {peer} handed over")
        };
        self.peers.hand_overs.stop_asking(id);
        if !self.peers.is_leaving(id) {
            self.event(now, id, Event::Hand(Hand::Succeed(&why)));
        }
        let Some(instance) = self.instances.get(&id) else { return };
        let call = Call { priority: instance.priority(), ..call };
        let is_active = instance.state() == State::Active && !self.peers.is_leaving(id);
        let answer = if is_active { Message::Claimed(call) } else { Message::Refused(call) };
        self.peers.pulse.answer(peer, answer);
    }

    /// A peer wants to be Active in our place.
    fn wanted(&mut self, now: Instant, peer: IpAddr, call: Call) {
        let instance = self.find(call.key).and_then(|id| self.instances.get(&id));
        let Some(instance) = instance.filter(|instance| instance.state() == State::Active) else {
            return self.peers.pulse.tell(peer, Message::Refused(call));
        };
        let (id, is_above) = (instance.id, call.priority > instance.priority());
        if self.peers.is_leaving(id) {
            return;
        }
        if !is_above || instance.config.is_owner() {
            return self.peers.pulse.tell(peer, Message::Refused(call));
        }
        let members = self.active_members(id);
        self.leave_to(now, peer, &Cause::Taken, members);
    }

    /// Before a router preempts a living peer by its timer: it asks to be handed over, or waits for the peer to hear us,
    /// no longer than the peer's adverts may be missed. True: it is not to take over now.
    pub(super) fn asks_first(&mut self, now: Instant, id: RouterId) -> bool {
        let Some(instance) = self.instances.get(&id).filter(|one| one.state() == State::Backup) else {
            return false;
        };
        let (key, priority) = (instance.key, instance.priority());
        let interval = instance.config.interval;
        if self.peers.hand_overs.is_asking(id) {
            return true;
        }
        let Some(down_at) = instance.master_down_at().filter(|&at| at > now) else { return false };
        let Some((peer, _)) = self.peers.pulse.holder(key) else { return false };
        if self.peers.pulse.deaf_holder(now, key, Duration::ZERO).is_some() {
            self.event(now, id, Event::Hand(Hand::Postpone(down_at.min(now + interval))));
            return true;
        }
        let until = down_at.min(now + PATIENCE);
        let message = self.peers.hand_overs.ask((now, until), id, peer, (key, priority));
        self.peers.pulse.tell(peer, message);
        let later = now + interval.max(PATIENCE * 2);
        self.event(now, id, Event::Hand(Hand::Postpone(later)));
        true
    }

    /// Nobody took over what was offered, or gave what was asked for.
    fn unanswered(&mut self, now: Instant, id: RouterId, leaving: Option<Leaving>, outcome: Outcome) {
        if let Some(leaving) = leaving {
            return self.handed_over(now, id, &leaving, outcome);
        }
        let why = self.instances.get(&id).map(Instance::why_take).unwrap_or_default();
        self.event(now, id, Event::Claim(&why));
    }

    /// A hand-over is over: without a successor it is as the RFC has it.
    fn handed_over(&mut self, now: Instant, id: RouterId, leaving: &Leaving, outcome: Outcome) {
        let Some(instance) = self.instances.get(&id) else { return };
        let (router, peer) = (instance.config.name.clone(), leaving.peer());
        let is_claimed = outcome == Outcome::Claimed;
        let held = if leaving.cause == Cause::FailOver { "; this node holds back" } else { "" };
        let (to, detail) = match outcome {
            Outcome::Claimed => (Some(peer), format!("it is active there{held}")),
            Outcome::Refused => (None, format!("node {peer} cannot take over: resigned{held}")),
            Outcome::Unanswered => (None, format!("node {peer} did not answer: resigned{held}")),
        };
        if is_claimed || leaving.cause != Cause::Taken {
            self.outbox.told.push(Happening::HandOver { router, to, detail });
        }
        self.conclude(now, id, leaving, is_claimed);
    }

    fn conclude(&mut self, now: Instant, id: RouterId, leaving: &Leaving, is_claimed: bool) {
        let peer = leaving.peer();
        let to_whom =
            |why: &str| if is_claimed { format!("{why}: {peer} is active") } else { why.to_owned() };
        match &leaving.cause {
            Cause::Stop => self.end(now, id),
            Cause::FailOver => {
                let why = to_whom("an operator wants another node to be active; it holds back");
                self.event(now, id, Event::Release { why: &why, hold_back: true });
            }
            Cause::Outbid(why) => {
                let why = to_whom(why);
                self.event(now, id, Event::Release { why: &why, hold_back: false });
            }
            Cause::Taken if is_claimed => {
                let why = format!("node {peer} preempted it");
                self.event(now, id, Event::Release { why: &why, hold_back: false });
            }
            Cause::Taken => self.event(now, id, Event::Hand(Hand::Stay)),
            Cause::Fault => match self.instances.get(&id).map(|instance| self.condition(instance)) {
                Some(Condition::Fault { why, by_link }) => {
                    let by_link = by_link && !is_claimed;
                    self.event(now, id, Event::Fault { why: &why, by_link });
                    if !is_claimed && !self.peers.pulse.is_alive(peer) {
                        self.bequeath(now, peer);
                    }
                }
                Some(_) if is_claimed => {
                    let why = to_whom("it could not be active for a moment");
                    self.event(now, id, Event::Release { why: &why, hold_back: false });
                }
                Some(_) | None => self.event(now, id, Event::Hand(Hand::Stay)),
            },
        }
    }

    fn find(&self, key: Key) -> Option<RouterId> {
        if self.life != Life::Runs {
            return None;
        }
        key.counterpart(self.instances.values().map(|instance| (instance.key, instance.id)))
    }
}

#[cfg(test)]
mod tests;
