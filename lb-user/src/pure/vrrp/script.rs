//! What the results of a tracked script mean, and when it runs next.
//!
//! As Keepalived has it: the first result decides at once, afterwards `rise` successes or `fall` failures in a row do.
//! With `init_fail` it counts as failed until it has succeeded `rise` times, as Keepalived's manual says. Must not
//! know how a script is run, nor what follows from its verdict.

use std::time::Instant;

use super::node::Verdict;
use crate::pure::config::model::vrrp::Script;

/// One script's verdict, and its next run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    script: Script,
    state: State,
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first result decides.
    New,
    /// So it was under an earlier definition: the first result of this one decides.
    Kept { up: bool },
    /// Fewer than `fall` failures in a row so far.
    Up { failures: u32 },
    /// Fewer than `rise` successes in a row so far.
    Down { successes: u32 },
}

impl Course {
    /// Due at once.
    pub fn new(now: Instant, script: Script) -> Course {
        let state = if script.init_fail { State::Down { successes: 0 } } else { State::New };
        Course { script, state, due: now }
    }

    pub fn script(&self) -> &Script {
        &self.script
    }

    pub fn verdict(&self) -> Verdict {
        match self.state {
            State::New => Verdict::Unknown,
            State::Kept { up: true } | State::Up { .. } => Verdict::Up,
            State::Kept { up: false } | State::Down { .. } => Verdict::Down,
        }
    }

    /// When it is to be run next.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// A run that began at `started` has a result. One that took longer than the interval is followed by the next
    /// at once: there is never more than one.
    pub fn end(&mut self, started: Instant, now: Instant, passed: bool) -> Verdict {
        self.due = now.max(started + self.script.interval);
        self.state = match (self.state, passed) {
            (State::New | State::Kept { .. }, true) => State::Up { failures: 0 },
            (State::New | State::Kept { .. }, false) => State::Down { successes: 0 },
            (State::Up { .. }, true) => State::Up { failures: 0 },
            (State::Up { failures }, false) if failures + 1 < self.script.fall => {
                State::Up { failures: failures + 1 }
            }
            (State::Up { .. }, false) => State::Down { successes: 0 },
            (State::Down { successes }, true) if successes + 1 < self.script.rise => {
                State::Down { successes: successes + 1 }
            }
            (State::Down { .. }, true) => State::Up { failures: 0 },
            (State::Down { .. }, false) => State::Down { successes: 0 },
        };
        self.verdict()
    }

    /// A reload changed it: what is known stays until the new one has a result, which is asked for at once.
    pub fn adjust(&mut self, now: Instant, script: Script) {
        if self.script == script {
            return;
        }
        self.state = match self.verdict() {
            Verdict::Up => State::Kept { up: true },
            Verdict::Down => State::Kept { up: false },
            Verdict::Unknown | Verdict::Number(_) => State::New,
        };
        (self.script, self.due) = (script, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pure::testing::an_instant;

    const SECOND: Duration = Duration::from_secs(1);

    fn script(rise: u32, fall: u32, init_fail: bool) -> Script {
        Script {
            name: "chk".to_owned(),
            command: vec!["/bin/true".to_owned()],
            interval: SECOND,
            timeout: SECOND,
            rise,
            fall,
            user: None,
            init_fail,
        }
    }

    /// Results as `+` and `-`, the verdicts before and after them as `?`, `U` and `D`.
    fn check(script: Script, results: &str, expected: &str) {
        let mut now = an_instant();
        let mut course = Course::new(now, script);
        let mut verdicts = String::from(letter(course.verdict()));
        for result in results.chars() {
            assert_eq!(course.due(), now);
            let verdict = course.end(now, now, result == '+');
            verdicts.push(letter(verdict));
            now += SECOND;
        }
        assert_eq!(verdicts, expected, "{results}");
    }

    fn letter(verdict: Verdict) -> char {
        match verdict {
            Verdict::Unknown => '?',
            Verdict::Up => 'U',
            Verdict::Down => 'D',
            Verdict::Number(_) => '#',
        }
    }

    #[test]
    fn the_first_result_decides_and_rise_and_fall_thereafter() {
        check(script(1, 1, false), "+-+", "?UDU");
        check(script(3, 2, false), "+-+--+++", "?UUUUDDDU");
        check(script(3, 2, false), "-++-+++", "?DDDDDDU");
        check(script(5, 2, false), "+--", "?UUD");
    }

    #[test]
    fn with_init_fail_it_has_to_succeed_first() {
        check(script(3, 1, true), "+++-", "DDDUD");
        check(script(3, 1, true), "+-+++", "DDDDDU");
        check(script(1, 1, true), "+", "DU");
    }

    #[test]
    fn a_run_that_is_late_is_followed_by_the_next_at_once() {
        let start = an_instant();
        let mut course = Course::new(start, script(1, 1, false));
        course.end(start, start + SECOND / 2, true);
        assert_eq!(course.due(), start + SECOND);
        course.end(start + SECOND, start + 4 * SECOND, true);
        assert_eq!(course.due(), start + 4 * SECOND);
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let start = an_instant();
        let mut course = Course::new(start, script(3, 3, false));
        course.end(start, start, true);
        let before = course.clone();
        course.adjust(start, script(3, 3, false));
        assert_eq!(course, before);
        course.adjust(start + SECOND / 4, script(1, 2, true));
        assert_eq!((course.verdict(), course.due()), (Verdict::Up, start + SECOND / 4));
        // The new definition's first result decides.
        assert_eq!(course.end(start + SECOND, start + SECOND, false), Verdict::Down);
    }
}
