//! What check results mean.
//!
//! Owns what is known of one server's health, and how much of its share it takes. Must not know how a check is made,
//! when it is due, nor what follows from its result; what an operator or an agent wants of a server is kept apart.
//!
//! ```text
//!               failed                       fall failures in a row
//! Unchecked ───────────────► Down      Up ─────────────────────────► Down ─ too often within a while ─► Held
//!     │        passed                   ▲  rise successes in a row    │ ▲                                │
//!     └───────────────────────► Up      └─────────────────────────────┘ └── hold after the last failure ─┘
//! ```

mod ramp;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use self::ramp::Ramp;
use super::{
    config::model::{Damping, Service, check::StartState},
    schedule::Pace,
};

/// One server's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    terms: Terms,
    /// When it went down, the oldest first; at most as many as damping counts.
    downs: VecDeque<Instant>,
    /// Since its last recovery.
    ramp: Option<Ramp>,
}

/// What a service says of its servers' health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether anybody asks at all.
    checked: bool,
    rise: u32,
    fall: u32,
    start: StartState,
    damping: Option<Damping>,
    slow_start: Option<Duration>,
}

/// A server became usable or unusable, or its first check found it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    WentUp,
    WentDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Always usable.
    NoCheck,
    /// The first result decides.
    Unchecked,
    /// Fewer than `fall` failures in a row so far.
    Up { failures: u32 },
    /// Fewer than `rise` successes in a row so far.
    Down { successes: u32 },
    /// Stays down so long, whatever its checks say: it went down too often.
    Held { until: Instant, successes: u32 },
}

impl Terms {
    pub fn of(service: &Service) -> Terms {
        let check = &service.check;
        Terms {
            checked: !check.kind.is_none(),
            rise: check.rise,
            fall: check.fall,
            start: check.start,
            damping: service.damping,
            slow_start: service.slow_start,
        }
    }

    /// Of a server whose service is gone: nobody asks, and nothing changes any more.
    pub fn nobodys() -> Terms {
        Terms { checked: true, rise: 1, fall: 1, start: StartState::Up, damping: None, slow_start: None }
    }
}

impl Health {
    /// A server that nothing is known about.
    pub fn new(terms: Terms) -> Health {
        Health::with_state(terms, State::Unchecked)
    }

    /// A server whose state was found at the start: it stays until `rise` or `fall` results say otherwise.
    pub fn adopted(terms: Terms, up: bool) -> Health {
        let state = if up { State::Up { failures: 0 } } else { State::Down { successes: 0 } };
        Health::with_state(terms, state)
    }

    /// Takes the result of one check.
    pub fn handle(&mut self, now: Instant, passed: bool) -> Option<Change> {
        let Terms { rise, fall, .. } = self.terms;
        match (self.state, passed) {
            (State::NoCheck, true | false) => None,
            (State::Unchecked, true) => {
                let change = (!self.usable()).then_some(Change::WentUp);
                self.state = State::Up { failures: 0 };
                change
            }
            (State::Unchecked, false) => {
                self.state = State::Down { successes: 0 };
                Some(Change::WentDown)
            }
            (State::Up { .. }, true) => self.stay(State::Up { failures: 0 }),
            (State::Up { failures }, false) if failures + 1 < fall => {
                self.stay(State::Up { failures: failures + 1 })
            }
            (State::Up { .. }, false) => Some(self.go_down(now)),
            (State::Down { successes }, true) if successes + 1 < rise => {
                self.stay(State::Down { successes: successes + 1 })
            }
            (State::Down { .. }, true) => Some(self.recover(now)),
            (State::Down { .. }, false) => self.stay(State::Down { successes: 0 }),
            (State::Held { until, successes }, true) if now < until || successes + 1 < rise => {
                self.stay(State::Held { until, successes: successes.saturating_add(1) })
            }
            (State::Held { .. }, true) => Some(self.recover(now)),
            (State::Held { .. }, false) => {
                let hold = self.terms.damping.map(|damping| damping.hold);
                self.stay(held(now, hold.unwrap_or_default()))
            }
        }
    }

    /// Time passes: a server that was held may be up again.
    pub fn advance(&mut self, now: Instant) -> Option<Change> {
        if self.ramp.is_some_and(|ramp| ramp.deadline(now).is_none()) {
            self.ramp = None;
        }
        match self.state {
            State::Held { until, successes } if until <= now && successes >= self.terms.rise => {
                Some(self.recover(now))
            }
            State::Held { until, successes } if until <= now => self.stay(State::Down { successes }),
            State::NoCheck
            | State::Unchecked
            | State::Up { .. }
            | State::Down { .. }
            | State::Held { .. } => None,
        }
    }

    /// When time alone changes something next; not after now if that is due already.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Held { until, .. } => Some(until),
            State::NoCheck | State::Unchecked | State::Up { .. } | State::Down { .. } => {
                self.ramp.and_then(|ramp| ramp.deadline(now))
            }
        }
    }

    /// Takes a changed configuration; what is known about the server stays, unless checks end or begin.
    pub fn reconfigure(&mut self, terms: Terms) -> Option<Change> {
        let was_usable = self.usable();
        let state = match self.state {
            State::NoCheck => State::Up { failures: 0 },
            State::Held { successes, .. } if terms.damping.is_none() => State::Down { successes },
            State::Unchecked | State::Up { .. } | State::Down { .. } | State::Held { .. } => self.state,
        };
        let counted = terms.damping.map_or(0, |damping| damping.changes as usize);
        self.downs.drain(..self.downs.len().saturating_sub(counted));
        self.ramp = self.ramp.filter(|_| terms.slow_start.is_some());
        self.state = if terms.checked { state } else { State::NoCheck };
        self.terms = terms;
        match (was_usable, self.usable()) {
            (false, true) => Some(Change::WentUp),
            (true, false) => Some(Change::WentDown),
            (true, true) | (false, false) => None,
        }
    }

    /// Whether the server may get new connections.
    pub fn usable(&self) -> bool {
        match self.state {
            State::NoCheck | State::Up { .. } => true,
            State::Unchecked => self.terms.start == StartState::Up,
            State::Down { .. } | State::Held { .. } => false,
        }
    }

    /// Whether a first result is there, or none will come.
    pub fn is_known(&self) -> bool {
        self.state != State::Unchecked
    }

    /// Percent of its share of new connections that the server takes: less than all for a while after it recovered.
    pub fn share(&self, now: Instant) -> u8 {
        match self.ramp {
            _ if !self.usable() => 0,
            Some(ramp) => ramp.share(now),
            None => 100,
        }
    }

    pub fn pace(&self) -> Pace {
        match self.state {
            State::NoCheck | State::Unchecked | State::Up { failures: 0 } => Pace::Normal,
            State::Up { .. } => Pace::Fast,
            State::Down { successes: 0 } | State::Held { .. } => Pace::Down,
            State::Down { .. } => Pace::Fast,
        }
    }

    /// As in `ServerStatus::health`.
    pub fn name(&self) -> &'static str {
        match self.state {
            State::NoCheck => "no-check",
            State::Unchecked => UNCHECKED,
            State::Up { failures: 0 } => "up",
            State::Up { .. } => "going down",
            State::Down { successes: 0 } => "down",
            State::Down { .. } => "going up",
            State::Held { .. } => "held",
        }
    }

    /// How far a change has come, "1/3", or how long the server is held, "25 s left"; None while the results
    /// confirm the state.
    pub fn detail(&self, now: Instant) -> Option<String> {
        match self.state {
            State::NoCheck | State::Unchecked => None,
            State::Up { failures: 0 } | State::Down { successes: 0 } => None,
            State::Up { failures } => Some(format!("{failures}/{}", self.terms.fall)),
            State::Down { successes } => Some(format!("{successes}/{}", self.terms.rise)),
            State::Held { until, .. } => {
                let left = until.saturating_duration_since(now).as_millis().div_ceil(1_000);
                Some(format!("went down too often, {left} s left"))
            }
        }
    }

    fn with_state(terms: Terms, state: State) -> Health {
        let state = if terms.checked { state } else { State::NoCheck };
        Health { state, terms, downs: VecDeque::new(), ramp: None }
    }

    fn stay(&mut self, state: State) -> Option<Change> {
        self.state = state;
        None
    }

    fn recover(&mut self, now: Instant) -> Change {
        self.state = State::Up { failures: 0 };
        self.ramp = self.terms.slow_start.map(|over| Ramp::new(now, over));
        Change::WentUp
    }

    fn go_down(&mut self, now: Instant) -> Change {
        self.ramp = None;
        let damping = self.terms.damping;
        let damping = damping.filter(|&damping| self.too_often(now, damping));
        self.state = damping.map_or(State::Down { successes: 0 }, |Damping { hold, .. }| held(now, hold));
        Change::WentDown
    }

    /// Counts this time, too.
    fn too_often(&mut self, now: Instant, damping: Damping) -> bool {
        self.downs.push_back(now);
        while self.downs.len() > damping.changes as usize {
            self.downs.pop_front();
        }
        self.downs.retain(|&down| now.saturating_duration_since(down) <= damping.within);
        self.downs.len() >= damping.changes as usize
    }
}

fn held(now: Instant, hold: Duration) -> State {
    State::Held { until: now + hold, successes: 0 }
}

/// The name of a health that no result says anything of yet.
pub const UNCHECKED: &str = "unchecked";

#[cfg(test)]
mod tests;
