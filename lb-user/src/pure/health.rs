//! What check results mean, and when the next check is due.
//!
//! Owns the state of each server and the timetable of all checks. Must not know how a check is made, nor what
//! follows from its result.
//!
//! ```text
//!               failed                       fall failures in a row
//! Unchecked ───────────────► Down      Up ─────────────────────────► Down
//!     │        passed                   ▲                              │
//!     └───────────────────────► Up      └──────────────────────────────┘
//!                                             rise successes in a row
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::config::model::check::Check;

/// One server's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    rise: u32,
    fall: u32,
}

/// A server became usable or unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    WentUp,
    WentDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Always usable.
    NoCheck,
    /// Usable, as in HAProxy; the first result decides.
    Unchecked,
    /// Fewer than `fall` failures in a row so far.
    Up { failures: u32 },
    /// Fewer than `rise` successes in a row so far.
    Down { successes: u32 },
}

impl Health {
    /// A server that nothing is known about.
    pub fn new(check: &Check) -> Health {
        Health::with_state(check, State::Unchecked)
    }

    /// A server whose state was found at the start: it stays until `rise` or `fall` results say otherwise. `check`:
    /// None when nobody asks any more.
    pub fn adopted(check: Option<&Check>, up: bool) -> Health {
        let state = if up { State::Up { failures: 0 } } else { State::Down { successes: 0 } };
        check.map_or(Health { state, rise: 1, fall: 1 }, |check| Health::with_state(check, state))
    }

    /// Takes the result of one check; answers only when the server becomes usable or unusable.
    pub fn handle(&mut self, passed: bool) -> Option<Change> {
        let (state, change) = match (self.state, passed) {
            (State::NoCheck, true | false) => (State::NoCheck, None),
            (State::Unchecked, true) => (State::Up { failures: 0 }, None),
            (State::Unchecked, false) => (State::Down { successes: 0 }, Some(Change::WentDown)),
            (State::Up { .. }, true) => (State::Up { failures: 0 }, None),
            (State::Up { failures }, false) if failures + 1 < self.fall => {
                (State::Up { failures: failures + 1 }, None)
            }
            (State::Up { .. }, false) => (State::Down { successes: 0 }, Some(Change::WentDown)),
            (State::Down { successes }, true) if successes + 1 < self.rise => {
                (State::Down { successes: successes + 1 }, None)
            }
            (State::Down { .. }, true) => (State::Up { failures: 0 }, Some(Change::WentUp)),
            (State::Down { .. }, false) => (State::Down { successes: 0 }, None),
        };
        self.state = state;
        change
    }

    /// Takes a changed configuration; what is known about the server stays, unless checks end or begin.
    pub fn reconfigure(&mut self, check: &Check) -> Option<Change> {
        let was_usable = self.usable();
        let state = match self.state {
            State::NoCheck => State::Unchecked,
            State::Unchecked | State::Up { .. } | State::Down { .. } => self.state,
        };
        *self = Health::with_state(check, state);
        (!was_usable && self.usable()).then_some(Change::WentUp)
    }

    /// Whether the server may get new connections.
    pub fn usable(&self) -> bool {
        !matches!(self.state, State::Down { .. })
    }

    /// As in `ServerStatus::health`.
    pub fn name(&self) -> &'static str {
        match self.state {
            State::NoCheck => "no-check",
            State::Unchecked => "unchecked",
            State::Up { .. } => "up",
            State::Down { .. } => "down",
        }
    }

    /// How far a change has come: "going down 1/3"; None while the results confirm the state.
    pub fn detail(&self) -> Option<String> {
        match self.state {
            State::NoCheck | State::Unchecked => None,
            State::Up { failures: 0 } | State::Down { successes: 0 } => None,
            State::Up { failures } => Some(format!("going down {failures}/{}", self.fall)),
            State::Down { successes } => Some(format!("going up {successes}/{}", self.rise)),
        }
    }

    fn with_state(check: &Check, state: State) -> Health {
        let state = if check.kind.is_none() { State::NoCheck } else { state };
        Health { state, rise: check.rise, fall: check.fall }
    }
}

/// Names one check; an id that was removed is not given to another check while the old one may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(pub u32);

/// A check's place within its interval, in 65536ths of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase(pub u16);

impl CheckId {
    /// Spreads ids evenly, neighbouring ones far apart (Knuth, volume 3, section 6.4: Fibonacci hashing).
    pub fn phase(self) -> Phase {
        Phase((self.0.wrapping_mul(0x9e37_79b1) >> 16) as u16)
    }
}

/// When each check is due. Holds one entry per check added: the configuration bounds them.
///
/// Every check has a grid of instants, one interval apart, placed by its phase so that thousands do not fire
/// together. It is due at the first of them that is more than half an interval after its last start; those
/// that passed before it could start are skipped. Only its first run is off the grid, so that one learns soon
/// who is up.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<CheckId, Entry>,
    /// The waiting entries, each once.
    queue: BTreeSet<(Instant, CheckId)>,
}

#[derive(Debug)]
struct Entry {
    interval: Duration,
    /// An instant of the grid, not after the next one.
    grid: Instant,
    state: Run,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    Waiting { due: Instant },
    Running { since: Instant },
}

impl Schedule {
    /// The first run is due within the interval and within a second. A check that is there already is changed
    /// to the interval; with the same interval nothing happens.
    pub fn add(&mut self, id: CheckId, interval: Duration, now: Instant, phase: Phase) {
        let interval = interval.max(INTERVAL_MIN);
        let known = self.entries.get(&id).map(|entry| (entry.interval, entry.state));
        if known.is_some_and(|(known, _)| known == interval) {
            return;
        }
        let due = now + phase.of(interval.min(FIRST_RUN_WITHIN));
        let state = match known {
            None => Run::Waiting { due },
            Some((_, Run::Waiting { due: old })) => Run::Waiting { due: due.min(old) },
            Some((_, running @ Run::Running { .. })) => running,
        };
        self.remove(id);
        if let Run::Waiting { due } = state {
            self.queue.insert((due, id));
        }
        self.entries.insert(id, Entry { interval, grid: now + phase.of(interval), state });
    }

    /// A run of the check that has not ended may still end.
    pub fn remove(&mut self, id: CheckId) {
        if let Some(Entry { state: Run::Waiting { due }, .. }) = self.entries.remove(&id) {
            self.queue.remove(&(due, id));
        }
    }

    /// At most `max` checks to start now, the longest overdue first. Each stays out of the schedule until
    /// `done`.
    pub fn due(&mut self, now: Instant, max: usize) -> Vec<CheckId> {
        let mut started = Vec::new();
        while started.len() < max
            && let Some(&(due, id)) = self.queue.first()
            && due <= now
        {
            self.queue.pop_first();
            let entry = self.entries.get_mut(&id).expect("add and remove keep queue and entries in step");
            entry.state = Run::Running { since: now };
            started.push(id);
        }
        started
    }

    /// When to call `due` next; None while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// The run that `due` started has ended. Ignored for a check that is not running.
    pub fn done(&mut self, id: CheckId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Run::Running { since } = entry.state else { return };
        entry.grid = entry.next_on_grid(since + entry.interval / 2);
        // A run that took the whole interval, as a timeout may, must not cost the next one.
        let due = entry.grid.max(now);
        entry.state = Run::Waiting { due };
        self.queue.insert((due, id));
    }
}

impl Entry {
    /// The first instant of the grid after the given one.
    fn next_on_grid(&self, after: Instant) -> Instant {
        if after < self.grid {
            return self.grid;
        }
        let past = (after - self.grid).as_nanos() % self.interval.as_nanos();
        // Less than an interval, and 64 bits of nanoseconds are 584 years.
        after + self.interval - Duration::from_nanos(past as u64)
    }
}

impl Phase {
    fn of(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / (1 << 16)
    }
}

/// An interval of zero would be due for ever.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const FIRST_RUN_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
