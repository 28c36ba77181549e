//! When each check is due.
//!
//! Owns the timetable of all checks. Must not know what a check asks, what came of it, nor who runs it.
//!
//! ```text
//! add ─► waiting ── due ──► running ── done ─► waiting, an interval after the last start
//!           ▲ pace: another interval
//!           └ expedite: now
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::config::model::check::Check;

/// Names one check; an id that was removed is not given to another check while the old one may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(pub u32);

/// A check's place within its interval, in 65536ths of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase(pub u16);

/// How often a check runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    #[default]
    Normal,
    /// Its server is on the way up or down.
    Fast,
    /// Its server is down.
    Down,
}

/// The intervals of a check, from start to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    normal: Duration,
    fast: Duration,
    down: Duration,
    /// Percent of the interval by which each run comes later than it would, at most.
    spread: u8,
}

/// What checks should do other than before: the latest order for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders(BTreeMap<CheckId, Order>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    pub pace: Option<Pace>,
    pub at_once: bool,
}

impl Orders {
    pub fn set_pace(&mut self, id: CheckId, pace: Pace) {
        self.0.entry(id).or_default().pace = Some(pace);
    }

    pub fn expedite(&mut self, id: CheckId) {
        self.0.entry(id).or_default().at_once = true;
    }

    /// Later orders replace those that wait; a run that is wanted at once stays wanted.
    pub fn add(&mut self, later: Orders) {
        for (id, order) in later.0 {
            let waiting = self.0.entry(id).or_default();
            waiting.pace = order.pace.or(waiting.pace);
            waiting.at_once |= order.at_once;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl CheckId {
    /// Spreads ids evenly, neighbouring ones far apart (Knuth, volume 3, section 6.4: Fibonacci hashing).
    pub fn phase(self) -> Phase {
        Phase((self.0.wrapping_mul(0x9e37_79b1) >> 16) as u16)
    }

    /// As good as random, and different for each run (the finalizer of SplitMix64: Steele et al., OOPSLA 2014).
    fn scatter(self, run: u32) -> Phase {
        let seed = u64::from(self.0) << 32 | u64::from(run);
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Phase((mixed >> 48) as u16)
    }
}

impl Rhythm {
    pub fn of(check: &Check) -> Rhythm {
        Rhythm {
            normal: check.interval.max(INTERVAL_MIN),
            fast: check.fast_interval.max(INTERVAL_MIN),
            down: check.down_interval.max(INTERVAL_MIN),
            spread: check.spread,
        }
    }

    fn interval(self, pace: Pace) -> Duration {
        match pace {
            Pace::Normal => self.normal,
            Pace::Fast => self.fast,
            Pace::Down => self.down,
        }
    }
}

/// Holds one entry per check added: the configuration bounds them.
///
/// Every check has a grid of instants, one interval apart, placed by its phase so that thousands do not fire
/// together. A run starts an interval after the one before, or a little sooner until it is on its grid: so a
/// change of pace, an order out of turn or a late start never makes a pause longer than the interval, and whatever made
/// many checks fire together is over after a few rounds. Spread comes on top. The first run does not wait for
/// the grid, so that one learns soon who is up.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<CheckId, Entry>,
    /// The waiting entries, each once.
    queue: BTreeSet<(Instant, CheckId)>,
}

#[derive(Debug)]
struct Entry {
    rhythm: Rhythm,
    pace: Pace,
    phase: Phase,
    /// Grids begin here.
    added: Instant,
    /// When the last run started, or would have without its spread; None before the first.
    last: Option<Instant>,
    /// Runs started.
    runs: u32,
    state: Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// `delay`: by how much the spread has moved it.
    Waiting { due: Instant, delay: Duration },
    /// `again`: another run is wanted at once.
    Running { again: bool },
}

impl Schedule {
    /// The first run is due within the interval and within a second. A check that is there already begins anew, at
    /// its pace; a run of it that is under way no longer counts.
    pub fn add(&mut self, id: CheckId, rhythm: Rhythm, now: Instant, phase: Phase) {
        let pace = self.entries.get(&id).map_or(Pace::Normal, |known| known.pace);
        self.remove(id);
        let due = now + phase.of(rhythm.normal.min(FIRST_RUN_WITHIN));
        self.queue.insert((due, id));
        let entry = Entry {
            rhythm,
            pace,
            phase,
            added: now,
            last: None,
            runs: 0,
            state: Run::Waiting { due, delay: Duration::ZERO },
        };
        self.entries.insert(id, entry);
    }

    /// A run of the check that has not ended may still end.
    pub fn remove(&mut self, id: CheckId) {
        if let Some(Entry { state: Run::Waiting { due, .. }, .. }) = self.entries.remove(&id) {
            self.queue.remove(&(due, id));
        }
    }

    /// From the last run on. Ignored for a check that is not there.
    pub fn set_pace(&mut self, id: CheckId, pace: Pace, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.pace != pace) else { return };
        entry.pace = pace;
        if matches!(entry.state, Run::Waiting { .. }) {
            self.wait_anew(id, now);
        }
    }

    /// Wants a run now; while one is under way, right after it, because that one may have asked too soon.
    pub fn expedite(&mut self, id: CheckId, now: Instant) {
        match self.entries.get_mut(&id).map(|entry| &mut entry.state) {
            Some(Run::Running { again }) => *again = true,
            Some(Run::Waiting { due, .. }) if *due > now => self.wait_until(id, now, Duration::ZERO),
            Some(Run::Waiting { .. }) | None => {}
        }
    }

    pub fn obey(&mut self, orders: Orders, now: Instant) {
        for (id, order) in orders.0 {
            if let Some(pace) = order.pace {
                self.set_pace(id, pace, now);
            }
            if order.at_once {
                self.expedite(id, now);
            }
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
            entry.start(now);
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
        let Some(entry) = self.entries.get(&id) else { return };
        match entry.state {
            Run::Waiting { .. } => {}
            Run::Running { again: true } => self.wait_until(id, now, Duration::ZERO),
            Run::Running { again: false } => self.wait_anew(id, now),
        }
    }

    fn wait_anew(&mut self, id: CheckId, now: Instant) {
        if let Some((due, delay)) = self.entries.get(&id).and_then(|entry| entry.next(id)) {
            // A run that took the whole interval, as a timeout may, must not cost the next one.
            self.wait_until(id, due.max(now), delay);
        }
    }

    fn wait_until(&mut self, id: CheckId, due: Instant, delay: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Run::Waiting { due: before, .. } = entry.state {
            self.queue.remove(&(before, id));
        }
        entry.state = Run::Waiting { due, delay };
        self.queue.insert((due, id));
    }
}

impl Entry {
    fn start(&mut self, now: Instant) {
        let delay = match self.state {
            Run::Waiting { delay, .. } => delay,
            Run::Running { .. } => Duration::ZERO,
        };
        self.last = Some(now.checked_sub(delay).unwrap_or(now));
        self.runs = self.runs.wrapping_add(1);
        self.state = Run::Running { again: false };
    }

    /// When the next run is due, and how much of that is spread: an interval after the last one, or up to a quarter
    /// of it sooner, towards the grid. None: it never ran.
    fn next(&self, id: CheckId) -> Option<(Instant, Duration)> {
        let interval = self.rhythm.interval(self.pace);
        let due = self.last? + interval;
        let grid = self.added + self.phase.of(interval);
        let past = due.checked_duration_since(grid).map_or(0, |past| past.as_nanos() % interval.as_nanos());
        // Less than an interval, and 64 bits of nanoseconds are 584 years.
        let past = Duration::from_nanos(past as u64);
        // The second run is on the grid at once.
        let early_max = if self.runs == 1 { interval } else { interval / TOWARDS_GRID };
        let delay = id.scatter(self.runs).of(interval * u32::from(self.rhythm.spread) / 100);
        Some((due - past.min(early_max) + delay, delay))
    }
}

impl Phase {
    fn of(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / (1 << 16)
    }
}

/// The part of an interval by which a run may be early to come nearer to its grid.
const TOWARDS_GRID: u32 = 4;
/// An interval of zero would be due for ever.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const FIRST_RUN_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
