//! The events of late, in order, each with a time of its own.

use std::{collections::VecDeque, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{Event, Notice};

/// Events that can be asked for again.
pub const EVENTS_KEPT: usize = 1_000;

/// The last `EVENTS_KEPT` events.
pub struct History {
    node: Arc<str>,
    kept: VecDeque<Arc<Event>>,
    last: Timestamp,
}

/// Which of the events that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    Last(usize),
    /// Those later than this; a reader that comes back names the last it saw.
    Since(Timestamp),
}

impl History {
    pub fn new(node: &str) -> Self {
        History { node: node.into(), kept: VecDeque::new(), last: Timestamp::UNIX_EPOCH }
    }

    /// Takes a notice in. No two events have one time, and none an earlier time than the one before it, however the
    /// clock is set: the time says which event it is.
    pub fn push(&mut self, now: Timestamp, notice: &Notice) -> Arc<Event> {
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let next = self.last.saturating_add(MICROSECOND).unwrap_or(self.last);
        self.last = now.max(next);
        let event = Arc::new(notice.event(self.last, &self.node));
        if self.kept.len() == EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&event));
        event
    }

    /// Oldest first.
    pub fn replay(&self, replay: Replay) -> Vec<Arc<Event>> {
        let skipped = match replay {
            Replay::Last(count) => self.kept.len().saturating_sub(count),
            Replay::Since(time) => self.kept.partition_point(|event| event.time <= time),
        };
        self.kept.iter().skip(skipped).cloned().collect()
    }

    pub fn node(&self) -> &Arc<str> {
        &self.node
    }
}

const MICROSECOND: SignedDuration = SignedDuration::from_micros(1);
