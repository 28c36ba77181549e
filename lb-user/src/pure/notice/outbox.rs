//! What one sink has to tell, and when: gathers, limits, and sums up what could not be told one by one.
//!
//! Must not know what a sink is, nor the time: it gets `now`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Event;

/// At most so many in any minute.
#[derive(Debug)]
pub struct Limit {
    per_minute: usize,
    taken: VecDeque<Instant>,
}

impl Limit {
    pub fn new(per_minute: u32) -> Self {
        Limit { per_minute: per_minute.max(1) as usize, taken: VecDeque::new() }
    }

    /// What was taken under the old limit still counts.
    pub fn set(&mut self, per_minute: u32) {
        self.per_minute = per_minute.max(1) as usize;
    }

    /// True: one more is within the limit, and is counted.
    pub fn take(&mut self, now: Instant) -> bool {
        while self.taken.front().is_some_and(|&first| now.duration_since(first) >= MINUTE) {
            self.taken.pop_front();
        }
        let free = self.taken.len() < self.per_minute;
        if free {
            self.taken.push_back(now);
        }
        free
    }

    /// From when on one more is within the limit. None: at once.
    fn free_at(&self) -> Option<Instant> {
        let excess = self.taken.len().checked_sub(self.per_minute)?;
        self.taken.get(excess).map(|&taken| taken + MINUTE)
    }
}

/// What goes out at once; not both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    pub events: Vec<Arc<Event>>,
    /// Events of which the sink is told no more than that there were so many.
    pub more: u64,
}

/// Events on their way to one sink.
#[derive(Debug)]
pub struct Outbox {
    limit: Limit,
    /// Events that one delivery may hold.
    together: usize,
    /// How long the first waits for others to join it.
    gather: Duration,
    waiting: Vec<Arc<Event>>,
    /// When the first of those that wait came.
    since: Option<Instant>,
    /// Told by their number alone.
    missed: u64,
    /// The next summary is not due before.
    summary_at: Option<Instant>,
}

impl Outbox {
    /// One event a delivery.
    pub fn single(per_minute: u32) -> Self {
        Outbox::gathering(per_minute, 1, Duration::ZERO)
    }

    pub fn gathering(per_minute: u32, together: usize, gather: Duration) -> Self {
        Outbox {
            limit: Limit::new(per_minute),
            together,
            gather,
            waiting: Vec::new(),
            since: None,
            missed: 0,
            summary_at: None,
        }
    }

    pub fn set_limit(&mut self, per_minute: u32) {
        self.limit.set(per_minute);
    }

    pub fn put(&mut self, now: Instant, event: Arc<Event>) {
        if self.waiting.len() < self.together {
            self.since.get_or_insert(now);
            self.waiting.push(event);
        } else {
            self.miss(now, 1);
        }
    }

    /// Events that nobody will be told of one by one.
    pub fn miss(&mut self, now: Instant, count: u64) {
        if count > 0 {
            self.missed += count;
            self.summary_at.get_or_insert(now + self.gather);
        }
    }

    /// When `take` has something. None: not before the next event.
    pub fn deadline(&self) -> Option<Instant> {
        let first =
            [self.since.map(|since| since + self.gather), self.summary()].into_iter().flatten().min()?;
        Some(self.limit.free_at().map_or(first, |free| free.max(first)))
    }

    pub fn take(&mut self, now: Instant) -> Option<Delivery> {
        if self.deadline().is_none_or(|deadline| now < deadline) || !self.limit.take(now) {
            return None;
        }
        Some(self.pack(now))
    }

    /// What is left when there is no later, limit or not.
    pub fn rest(&mut self, now: Instant) -> Option<Delivery> {
        let nothing = self.waiting.is_empty() && self.missed == 0;
        (!nothing).then(|| self.pack(now))
    }

    fn summary(&self) -> Option<Instant> {
        self.summary_at.filter(|_| self.missed > 0)
    }

    /// Events first; the summary joins them where several go together, and else waits for a delivery of its own.
    fn pack(&mut self, now: Instant) -> Delivery {
        self.since = None;
        let events = std::mem::take(&mut self.waiting);
        let mut more = 0;
        if self.missed > 0 && (events.is_empty() || self.together > 1) {
            more = std::mem::take(&mut self.missed);
            self.summary_at = Some(now + MINUTE);
        }
        Delivery { events, more }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
