//! The election of one virtual router: RFC 9568, section 6.4, with Keepalived's Fault.
//!
//! ```text
//!             able                    master down, claim
//! Initialize ──────► Backup ◄──────────────────────────────► Active
//!     ▲                │  ▲          a better advert, release   │
//!     │ waits          │  └─────────────── able ───────────┐    │
//!     └────────────────┴──────────────────────────────► Fault ◄─┘
//! ```
//!
//! Must not know addresses, trackers, sockets or other routers: it is told what they come to.

mod handing;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

pub use self::handing::Hand;
use super::{node::State, timer::Timer};
use crate::pure::config::model::vrrp::{Preempt, Version, Wish};

/// What of the configuration decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub version: Version,
    pub interval: Duration,
    pub down_timer_adverts: u8,
    /// Priority 255: the addresses' owner.
    pub owner: bool,
    pub preempt: Preempt,
    pub wish: Wish,
    pub hand_over: bool,
    pub refuse_on_mismatch: bool,
    /// It becomes Active by `Event::Claim` only: when all of its group want to.
    pub grouped: bool,
}

/// One virtual router's part in the election.
#[derive(Debug, Clone)]
pub struct Router {
    terms: Terms,
    /// With what is tracked.
    priority: u8,
    phase: Phase,
    /// Of the one that is Active: learned from its adverts in version 3.
    master_interval: Duration,
    /// Who was heard last.
    rival: Option<Rival>,
    /// Since when it could preempt the one that is Active.
    outranks_since: Option<Instant>,
    /// In its first election, and its wish is to win it: no delay of preemption counts.
    eager: bool,
    /// An operator moved it away: it does not preempt until it was Active again.
    holds_back: bool,
    /// It hands over to a node that may have the lower priority: no adverts.
    quiet: bool,
    /// It took over from a node that may have the higher priority: until then that one's adverts mean nothing.
    spares: Option<Instant>,
    since: Instant,
    why: String,
    transitions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Initialize,
    /// None: the master is down, and the group does not want to follow yet.
    Backup {
        down_at: Option<Instant>,
    },
    Active {
        sent: Instant,
        next: Instant,
    },
    /// `held`: it was Active until its link went, and nobody can have taken over before then.
    Fault {
        held: Option<Instant>,
    },
}

/// An advert that passed every check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    pub from: IpAddr,
    pub priority: u8,
    pub interval: Duration,
    /// Its sender's address is above ours, which decides between equal priorities.
    pub above_us: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing but time.
    Pass,
    /// Nothing keeps it from taking part.
    Able,
    /// It is not to take part yet.
    Waits(&'a str),
    Fault {
        why: &'a str,
        /// A link is down and may be back in a moment.
        by_link: bool,
    },
    Advert(Rival),
    /// An advert for this router was refused.
    Refused,
    Priority {
        effective: u8,
        /// The best of those whose adverts were heard and who did not resign.
        rival: Option<u8>,
    },
    /// Take over at once.
    Claim(&'a str),
    /// Let somebody else be Active.
    Release {
        why: &'a str,
        /// And do not preempt it.
        hold_back: bool,
    },
    /// Agreed with another node of the cluster.
    Hand(Hand<'a>),
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Advertise {
        priority: u8,
    },
    Became {
        from: State,
        to: State,
    },
    /// Neighbours may have learned a rival's MAC.
    AnnounceAgain,
    LowerPriority {
        peer: IpAddr,
        priority: u8,
    },
    Overslept {
        late: Duration,
    },
}

impl Router {
    pub fn new(now: Instant, terms: Terms, priority: u8) -> Router {
        Router {
            terms,
            priority,
            phase: Phase::Initialize,
            master_interval: terms.interval,
            rival: None,
            outranks_since: None,
            eager: terms.wish == Wish::Master,
            holds_back: false,
            quiet: false,
            spares: None,
            since: now,
            why: "starts".to_owned(),
            transitions: 0,
        }
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Initialize => State::Initialize,
            Phase::Backup { .. } => State::Backup,
            Phase::Active { .. } => State::Active,
            Phase::Fault { .. } => State::Fault,
        }
    }

    /// Whether its addresses are to be in the kernel.
    pub fn owns(&self) -> bool {
        match self.phase {
            Phase::Active { .. } | Phase::Fault { held: Some(_) } => true,
            Phase::Initialize | Phase::Backup { .. } | Phase::Fault { held: None } => false,
        }
    }

    /// The master is down, and it waits for its group.
    pub fn wants(&self) -> bool {
        self.phase == Phase::Backup { down_at: None }
    }

    /// In Backup, and nobody whom it could preempt was heard: if the timer ends, it is by silence.
    pub fn is_silence(&self) -> bool {
        self.state() == State::Backup && !self.is_preempting()
    }

    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Who was heard last.
    pub fn rival(&self) -> Option<Rival> {
        self.rival
    }

    pub fn why(&self) -> &str {
        &self.why
    }

    pub fn holds_back(&self) -> bool {
        self.holds_back
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Its own, with the interval of the one that is Active.
    pub fn timer(&self) -> Timer {
        let interval = match self.terms.version {
            Version::V2 => self.terms.interval,
            Version::V3 => self.master_interval,
        };
        let Terms { version, down_timer_adverts: adverts, .. } = self.terms;
        Timer { version, priority: self.priority, interval, adverts }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Initialize => None,
            Phase::Backup { down_at } => down_at,
            Phase::Active { next, .. } => Some(next).filter(|_| !self.quiet),
            Phase::Fault { held } => held,
        }
    }

    /// A reload changed what decides; timers that run keep running, at the most for the new times.
    pub fn set_terms(&mut self, now: Instant, terms: Terms) {
        let interval_changed = self.terms.interval != terms.interval;
        let regrouped = self.terms.grouped != terms.grouped;
        self.terms = terms;
        let latest = now + self.timer().master_down();
        if interval_changed && self.state() == State::Active {
            self.master_interval = terms.interval;
        }
        match &mut self.phase {
            Phase::Active { next, .. } => *next = (*next).min(now + terms.interval),
            Phase::Backup { down_at: down_at @ None } if regrouped => *down_at = Some(now),
            Phase::Backup { down_at: Some(down_at) } if interval_changed => *down_at = (*down_at).min(latest),
            Phase::Backup { .. } | Phase::Initialize | Phase::Fault { .. } => {}
        }
    }

    /// What follows from one thing that happened.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) -> Vec<Act> {
        match (self.phase, event) {
            (Phase::Initialize, Event::Able) => self.begin(now, "nothing keeps it from taking part"),
            (Phase::Initialize, Event::Waits(why)) => self.still(why),
            (
                Phase::Initialize,
                Event::Pass
                | Event::Advert(_)
                | Event::Refused
                | Event::Claim(_)
                | Event::Release { .. }
                | Event::Stop,
            ) => Vec::new(),

            (Phase::Backup { down_at }, Event::Pass) => self.master_down(now, down_at),
            (Phase::Backup { .. }, Event::Advert(heard)) => self.heard_in_backup(now, heard),
            (Phase::Backup { .. }, Event::Claim(why)) => self.take(now, why),
            (Phase::Backup { .. }, Event::Release { hold_back, .. }) => self.released(now, hold_back),
            (Phase::Backup { .. }, Event::Refused) => self.refused(now),
            (Phase::Backup { .. }, Event::Able) => Vec::new(),

            (Phase::Active { next, .. }, Event::Pass) => self.advert_due(now, next),
            (Phase::Active { sent, next }, Event::Advert(heard)) => {
                self.heard_in_active(now, heard, sent, next)
            }
            (Phase::Active { .. }, Event::Release { why, hold_back }) => {
                self.holds_back = hold_back;
                self.resign(now, self.timer().master_down(), why)
            }
            (Phase::Active { .. }, Event::Claim(_) | Event::Refused | Event::Able) => Vec::new(),

            (Phase::Fault { held }, Event::Pass) => self.hold_ended(now, held),
            (Phase::Fault { held: Some(_) }, Event::Able) => {
                self.take(now, "its link is back, and nobody else was heard meanwhile")
            }
            (Phase::Fault { held: None }, Event::Able) => self.begin(now, "its fault is over"),
            (Phase::Fault { held }, Event::Fault { why, by_link }) => {
                let acts = if by_link { Vec::new() } else { self.let_go(held) };
                why.clone_into(&mut self.why);
                acts
            }
            (Phase::Fault { held }, Event::Advert(heard)) => {
                self.rival = Some(heard);
                if heard.priority == 0 { Vec::new() } else { self.yield_held(held) }
            }
            (Phase::Fault { held }, Event::Release { .. }) => self.yield_held(held),
            (Phase::Fault { .. }, Event::Refused | Event::Claim(_)) => Vec::new(),

            (
                Phase::Initialize | Phase::Backup { .. } | Phase::Active { .. },
                Event::Fault { why, by_link },
            ) => self.fail(now, why, by_link),
            (Phase::Backup { .. } | Phase::Active { .. } | Phase::Fault { .. }, Event::Waits(why)) => {
                self.retire(now, why)
            }
            (Phase::Backup { .. } | Phase::Active { .. } | Phase::Fault { .. }, Event::Stop) => {
                self.retire(now, "stopped")
            }
            (phase, Event::Hand(hand)) => self.hand(now, phase, hand),
            (_, Event::Priority { effective, rival }) => self.set_priority(now, effective, rival),
        }
    }

    fn still(&mut self, why: &str) -> Vec<Act> {
        why.clone_into(&mut self.why);
        Vec::new()
    }

    /// RFC 9568, section 6.4.1. One that wishes to win with its whole group waits for one advert only.
    fn begin(&mut self, now: Instant, why: &str) -> Vec<Act> {
        if self.terms.owner && !self.terms.grouped {
            return self.take(now, "it owns the addresses");
        }
        let timer = self.timer();
        let wait = match (self.terms.owner, self.terms.grouped && self.eager) {
            (true, _) => Duration::ZERO,
            (false, true) => timer.interval + timer.skew(),
            (false, false) => timer.master_down(),
        };
        self.become_backup(now, wait, why)
    }

    fn master_down(&mut self, now: Instant, down_at: Option<Instant>) -> Vec<Act> {
        let Some(late) = down_at.and_then(|down_at| now.checked_duration_since(down_at)) else {
            return Vec::new();
        };
        let interval = self.timer().interval;
        if late > interval / 4 {
            // It slept, and adverts that came meanwhile are still to be read.
            self.phase = Phase::Backup { down_at: Some(now + interval / ANSWERS_PER_INTERVAL) };
            return Vec::new();
        }
        let why = self.why_take();
        self.master_is_down(now, &why)
    }

    fn master_is_down(&mut self, now: Instant, why: &str) -> Vec<Act> {
        if self.terms.grouped {
            self.phase = Phase::Backup { down_at: None };
            return Vec::new();
        }
        self.take(now, why)
    }

    /// What a take-over by the timer is due to.
    pub fn why_take(&self) -> String {
        match self.rival {
            None => format!("no advert was heard for {:?}", self.timer().master_down()),
            Some(Rival { from, priority: 0, .. }) => format!("{from} resigned"),
            Some(Rival { from, priority, .. }) if priority < self.priority && self.is_preempting() => {
                format!("it preempts {from} of priority {priority}")
            }
            Some(Rival { from, .. }) => format!("{from} sent no advert for {:?}", self.timer().master_down()),
        }
    }

    /// RFC 9568, section 6.4.2.
    fn heard_in_backup(&mut self, now: Instant, heard: Rival) -> Vec<Act> {
        let before = self.rival.replace(heard);
        if heard.priority == 0 {
            // Only the first counts: a stream of them must not keep the timer from ending.
            if before.is_none_or(|before| before.priority != 0 || before.from != heard.from) {
                self.phase = Phase::Backup { down_at: Some(now + self.timer().skew()) };
            }
            return Vec::new();
        }
        if heard.priority >= self.priority {
            self.outranks_since = None;
            self.eager = false;
        } else {
            let since = *self.outranks_since.get_or_insert(now);
            if self.may_preempt(now, since) {
                return Vec::new();
            }
        }
        self.master_interval = heard.interval.max(INTERVAL_MIN);
        self.phase = Phase::Backup { down_at: Some(now + self.timer().master_down()) };
        Vec::new()
    }

    /// It outranks the one that is Active, and will not leave it at that.
    fn is_preempting(&self) -> bool {
        let preempts = self.eager || self.terms.owner || self.terms.preempt != Preempt::Never;
        self.outranks_since.is_some() && preempts && !self.holds_back
    }

    fn may_preempt(&self, now: Instant, since: Instant) -> bool {
        if self.holds_back {
            return false;
        }
        match self.terms.preempt {
            _ if self.eager || self.terms.owner => true,
            Preempt::Never => false,
            Preempt::After(delay) => now >= since + delay,
        }
    }

    /// RFC 9568, section 6.4.3.
    fn heard_in_active(&mut self, now: Instant, heard: Rival, sent: Instant, next: Instant) -> Vec<Act> {
        self.rival = Some(heard);
        let beats_us = heard.priority > self.priority || heard.priority == self.priority && heard.above_us;
        if self.passes_over(now, heard, beats_us) {
            return Vec::new();
        }
        if heard.priority == 0 {
            let mut acts = self.answer(now, sent, next);
            acts.push(Act::AnnounceAgain);
            return acts;
        }
        if beats_us {
            self.master_interval = heard.interval.max(INTERVAL_MIN);
            let why = if heard.priority > self.priority {
                format!("{} has priority {}, this node {}", heard.from, heard.priority, self.priority)
            } else {
                format!("{} has the same priority and the higher address", heard.from)
            };
            let wait = self.timer().master_down();
            return self.become_backup(now, wait, &why);
        }
        let mut acts = self.answer(now, sent, next);
        acts.push(Act::LowerPriority { peer: heard.from, priority: heard.priority });
        acts.push(Act::AnnounceAgain);
        acts
    }

    /// An advert at once, unless one has just been sent: a flood must not make us send another.
    fn answer(&mut self, now: Instant, sent: Instant, next: Instant) -> Vec<Act> {
        let soonest = sent + self.terms.interval / ANSWERS_PER_INTERVAL;
        if now >= soonest {
            return self.advertise(now, now);
        }
        self.phase = Phase::Active { sent, next: next.min(soonest) };
        Vec::new()
    }

    fn advert_due(&mut self, now: Instant, next: Instant) -> Vec<Act> {
        let Some(late) = now.checked_duration_since(next).filter(|_| !self.quiet) else { return Vec::new() };
        let timer = self.timer();
        // Others may have taken over: to send now would be to fight them. One that is Active is heard within an
        // interval, so the wait is short.
        if late + timer.interval >= timer.master_down() {
            let wait = timer.interval + timer.skew();
            let mut acts = vec![Act::Overslept { late }];
            acts.extend(self.become_backup(now, wait, "it slept past the time in which others take over"));
            return acts;
        }
        self.advertise(now, next)
    }

    /// The next one is due an interval after this one was.
    fn advertise(&mut self, now: Instant, due: Instant) -> Vec<Act> {
        let next = due + self.terms.interval;
        let next = if next > now { next } else { now + self.terms.interval };
        self.phase = Phase::Active { sent: now, next };
        vec![Act::Advertise { priority: self.priority }]
    }

    fn refused(&mut self, now: Instant) -> Vec<Act> {
        if self.terms.refuse_on_mismatch {
            self.phase = Phase::Backup { down_at: Some(now + self.timer().master_down()) };
            "adverts that are refused arrive: see `steelyard vrrp show`".clone_into(&mut self.why);
        }
        Vec::new()
    }

    /// The timer that runs is moved by the difference of the skews, as Keepalived does.
    fn set_priority(&mut self, now: Instant, effective: u8, rival: Option<u8>) -> Vec<Act> {
        let skew_before = self.timer().skew();
        let fell = effective < self.priority;
        self.priority = effective;
        match self.phase {
            Phase::Backup { down_at: Some(down_at) } => {
                let ends = down_at + self.timer().skew();
                let down_at = ends.checked_sub(skew_before).unwrap_or(now).max(now);
                self.phase = Phase::Backup { down_at: Some(down_at) };
                Vec::new()
            }
            Phase::Active { .. } if fell && self.terms.hand_over && !self.quiet => match rival {
                Some(rival) if rival > effective => self.hand_over(now, rival),
                Some(_) | None => Vec::new(),
            },
            Phase::Active { .. }
            | Phase::Backup { down_at: None }
            | Phase::Initialize
            | Phase::Fault { .. } => Vec::new(),
        }
    }

    /// The rival's skew is shorter than ours. If it does not come, it is gone: it is not waited for as long as for one
    /// that was Active.
    fn hand_over(&mut self, now: Instant, rival: u8) -> Vec<Act> {
        let timer = self.timer();
        let why = format!("its priority fell to {}, below {rival} of a rival", self.priority);
        self.resign(now, timer.interval + timer.skew(), &why)
    }

    fn resign(&mut self, now: Instant, wait: Duration, why: &str) -> Vec<Act> {
        let mut acts = vec![Act::Advertise { priority: 0 }];
        acts.extend(self.become_backup(now, wait, why));
        acts
    }

    fn released(&mut self, now: Instant, hold_back: bool) -> Vec<Act> {
        self.holds_back |= hold_back;
        self.outranks_since = None;
        self.phase = Phase::Backup { down_at: Some(now + self.timer().master_down()) };
        Vec::new()
    }

    /// Others take over when they missed our adverts. Until then nobody else has the addresses: they stay, so that a
    /// link that bounces costs no more than the bounce.
    fn fail(&mut self, now: Instant, why: &str, by_link: bool) -> Vec<Act> {
        let held = match self.phase {
            Phase::Active { sent, .. } if by_link => {
                Some(sent + self.timer().missed()).filter(|&until| until > now)
            }
            Phase::Active { .. } | Phase::Initialize | Phase::Backup { .. } | Phase::Fault { .. } => None,
        };
        let mut acts = Vec::new();
        if self.state() == State::Active && held.is_none() {
            acts.push(Act::Advertise { priority: 0 });
        }
        acts.extend(self.enter(now, Phase::Fault { held }, why));
        acts
    }

    fn hold_ended(&mut self, now: Instant, held: Option<Instant>) -> Vec<Act> {
        match held {
            Some(until) if now >= until => self.let_go(held),
            Some(_) | None => Vec::new(),
        }
    }

    fn let_go(&mut self, held: Option<Instant>) -> Vec<Act> {
        self.phase = Phase::Fault { held: None };
        if held.is_some() { vec![Act::Advertise { priority: 0 }] } else { Vec::new() }
    }

    /// Somebody else has the addresses: no word that we resign.
    fn yield_held(&mut self, held: Option<Instant>) -> Vec<Act> {
        if held.is_some() {
            self.phase = Phase::Fault { held: None };
        }
        Vec::new()
    }

    fn retire(&mut self, now: Instant, why: &str) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.owns() {
            acts.push(Act::Advertise { priority: 0 });
        }
        acts.extend(self.enter(now, Phase::Initialize, why));
        acts
    }

    fn take(&mut self, now: Instant, why: &str) -> Vec<Act> {
        self.master_interval = self.terms.interval;
        self.eager = false;
        self.holds_back = false;
        let mut acts = vec![Act::Advertise { priority: self.priority }];
        acts.extend(self.enter(now, Phase::Active { sent: now, next: now + self.terms.interval }, why));
        acts
    }

    fn become_backup(&mut self, now: Instant, wait: Duration, why: &str) -> Vec<Act> {
        self.enter(now, Phase::Backup { down_at: Some(now + wait) }, why)
    }

    fn enter(&mut self, now: Instant, phase: Phase, why: &str) -> Vec<Act> {
        let from = self.state();
        self.phase = phase;
        self.outranks_since = None;
        self.quiet = false;
        self.spares = None;
        self.since = now;
        self.transitions += 1;
        why.clone_into(&mut self.why);
        vec![Act::Became { from, to: self.state() }]
    }
}

/// Adverts that are answered in one interval, at the most.
const ANSWERS_PER_INTERVAL: u32 = 10;
/// Version 3 has no shorter one but 0.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
