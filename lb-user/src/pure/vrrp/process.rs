//! How many processes of a name there are, and whether that is enough.
//!
//! ```text
//! the kernel's announcements ─► Sign ─┐
//! a look at all of /proc ─────────────┴─► Census ─► Verdict of each tracker
//! ```
//!
//! Must not know how processes are looked at: `io::track` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    time::Instant,
};

use super::node::Verdict;
use crate::pure::config::model::vrrp::Process;

/// What a process is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// At most 15 bytes of the program's name, unless it named itself.
    pub comm: OsString,
    /// None: a kernel thread, or not ours to see.
    pub program: Option<PathBuf>,
}

/// What the kernel announces of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Announcements were asked for, and this says whether they come.
    Answer {
        errno: u32,
    },
    Forked {
        parent: u32,
        child: u32,
    },
    /// It runs another program, or has another name.
    Changed {
        process: u32,
    },
    Ended {
        process: u32,
    },
}

/// The processes of every tracker.
#[derive(Debug, Default)]
pub struct Census {
    counts: BTreeMap<String, Count>,
}

#[derive(Debug)]
struct Count {
    tracked: Process,
    found: BTreeSet<u32>,
    verdict: Verdict,
    /// What the number says, and when that counts.
    turns: Option<(Verdict, Instant)>,
}

impl Census {
    /// Trackers that stay keep their verdict; processes have to be looked at anew.
    pub fn configure(&mut self, tracked: &[Process]) {
        let mut before = std::mem::take(&mut self.counts);
        for process in tracked {
            let known = before.remove(&process.name);
            let verdict = known.map_or(Verdict::Unknown, |known| known.verdict);
            let count = Count { tracked: process.clone(), found: BTreeSet::new(), verdict, turns: None };
            self.counts.insert(process.name.clone(), count);
        }
    }

    /// All processes there are.
    pub fn replace(&mut self, now: Instant, all: &[(u32, Identity)]) {
        for count in self.counts.values_mut() {
            let of_it = all.iter().filter(|(_, identity)| matches(&count.tracked.process, identity));
            count.found = of_it.map(|&(process, _)| process).collect();
            count.weigh(now);
        }
    }

    /// One process; None: it is gone. True: there are more or fewer of some than before.
    pub fn seen(&mut self, now: Instant, process: u32, identity: Option<&Identity>) -> bool {
        let mut any = false;
        for count in self.counts.values_mut() {
            let changed = match identity {
                Some(identity) if matches(&count.tracked.process, identity) => count.found.insert(process),
                Some(_) | None => count.found.remove(&process),
            };
            if changed {
                count.weigh(now);
            }
            any |= changed;
        }
        any
    }

    /// Whether a child of this one may count.
    pub fn counts(&self, process: u32) -> bool {
        self.counts.values().any(|count| count.found.contains(&process))
    }

    /// A delay may have passed.
    pub fn pass(&mut self, now: Instant) {
        for count in self.counts.values_mut() {
            count.pass(now);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.counts.values().filter_map(|count| count.turns.map(|(_, at)| at)).min()
    }

    /// Each tracker's name, verdict, and number of processes.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, Verdict, usize)> {
        self.counts.iter().map(|(name, count)| (name.as_str(), count.verdict, count.found.len()))
    }
}

impl Count {
    fn weigh(&mut self, now: Instant) {
        let number = self.found.len();
        let most = self.tracked.quorum_max.map_or(usize::MAX, |max| max as usize);
        let verdict =
            if (self.tracked.quorum as usize..=most).contains(&number) { Verdict::Up } else { Verdict::Down };
        self.turns = match self.turns {
            _ if verdict == self.verdict => None,
            Some((to, at)) if to == verdict => Some((to, at)),
            // The first look decides at once.
            _ if self.verdict == Verdict::Unknown => Some((verdict, now)),
            _ => Some((verdict, now + self.tracked.delay)),
        };
        self.pass(now);
    }

    fn pass(&mut self, now: Instant) {
        if let Some((verdict, at)) = self.turns
            && at <= now
        {
            (self.verdict, self.turns) = (verdict, None);
        }
    }
}

/// `wanted` is a file name, or a path where it has a slash.
fn matches(wanted: &str, identity: &Identity) -> bool {
    let program = identity.program.as_deref();
    if wanted.contains('/') {
        return program == Some(Path::new(wanted));
    }
    let named = wanted.len() <= COMM_MAX && identity.comm == wanted;
    named || program.and_then(Path::file_name).is_some_and(|name| name == wanted)
}

/// TASK_COMM_LEN without its zero.
const COMM_MAX: usize = 15;

/// What asks the kernel for announcements: a netlink header, a connector's, and PROC_CN_MCAST_LISTEN
/// (linux/cn_proc.h).
pub fn subscription() -> [u8; 40] {
    let mut message = [0; 40];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &40_u32.to_ne_bytes());
    put(4, &NLMSG_DONE.to_ne_bytes());
    put(CONNECTOR, &CN_IDX_PROC.to_ne_bytes());
    put(CONNECTOR + 4, &CN_VAL_PROC.to_ne_bytes());
    put(CONNECTOR + 16, &4_u16.to_ne_bytes());
    put(EVENT, &PROC_CN_MCAST_LISTEN.to_ne_bytes());
    message
}

/// One announcement; None: of no concern.
pub fn sign(message: &[u8]) -> Option<Sign> {
    let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    if (word(CONNECTOR)?, word(CONNECTOR + 4)?) != (CN_IDX_PROC, CN_VAL_PROC) {
        return None;
    }
    // All are pairs of a thread and the process that it is of.
    let (thread, process) = (word(DATA), word(DATA + 4));
    match word(EVENT)? {
        PROC_EVENT_NONE => Some(Sign::Answer { errno: thread? }),
        PROC_EVENT_FORK => {
            let (child_thread, child) = (word(DATA + 8)?, word(DATA + 12)?);
            (child_thread == child).then_some(Sign::Forked { parent: process?, child })
        }
        PROC_EVENT_EXEC | PROC_EVENT_COMM => Some(Sign::Changed { process: process? }),
        PROC_EVENT_EXIT => (thread? == process?).then_some(Sign::Ended { process: process? }),
        _ => None,
    }
}

/// Where a connector's header begins: behind nlmsghdr.
const CONNECTOR: usize = 16;
/// Where an event begins: behind cn_msg.
const EVENT: usize = CONNECTOR + 20;
/// And what it tells: behind its kind, the CPU and the time.
const DATA: usize = EVENT + 16;

const NLMSG_DONE: u16 = 3;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_EVENT_NONE: u32 = 0;
const PROC_EVENT_FORK: u32 = 1;
const PROC_EVENT_EXEC: u32 = 2;
const PROC_EVENT_COMM: u32 = 0x200;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pure::testing::an_instant;

    const SECOND: Duration = Duration::from_secs(1);

    fn identity(comm: &str, program: Option<&str>) -> Identity {
        Identity { comm: comm.into(), program: program.map(PathBuf::from) }
    }

    fn tracked(process: &str, quorum: u32, quorum_max: Option<u32>, delay: Duration) -> Process {
        Process { name: "it".to_owned(), process: process.to_owned(), quorum, quorum_max, delay }
    }

    fn verdict(census: &Census) -> Verdict {
        census.verdicts().next().unwrap().1
    }

    #[test]
    fn a_process_is_known_by_its_name_or_path() {
        for (wanted, comm, program, expected) in [
            ("haproxy", "haproxy", Some("/usr/sbin/haproxy"), true),
            ("haproxy", "haproxy", None, true),
            ("haproxy", "worker-1", Some("/usr/sbin/haproxy"), true),
            ("haproxy", "haproxy2", Some("/usr/sbin/haproxy2"), false),
            ("check.sh", "check.sh", Some("/bin/dash"), true),
            ("/usr/sbin/haproxy", "haproxy", Some("/usr/sbin/haproxy"), true),
            ("/usr/sbin/haproxy", "haproxy", Some("/opt/haproxy"), false),
            ("/usr/sbin/haproxy", "haproxy", None, false),
            ("a-very-long-name-of-a-daemon", "a-very-long-nam", Some("/a-very-long-name-of-a-daemon"), true),
            ("a-very-long-name-of-a-daemon", "a-very-long-nam", Some("/a-very-long-nama"), false),
        ] {
            assert_eq!(matches(wanted, &identity(comm, program)), expected, "{wanted} {comm} {program:?}");
        }
    }

    #[test]
    fn quorum_decides_and_only_after_the_delay() {
        let start = an_instant();
        let haproxy = identity("haproxy", None);
        let mut census = Census::default();
        census.configure(&[tracked("haproxy", 2, Some(3), 2 * SECOND)]);
        assert_eq!(verdict(&census), Verdict::Unknown);
        census.replace(start, &[(7, haproxy.clone()), (8, haproxy.clone()), (9, identity("sh", None))]);
        assert_eq!((verdict(&census), census.deadline()), (Verdict::Up, None));
        assert!(census.counts(7) && !census.counts(9));

        // One of two ends, and another takes its place before the delay has passed.
        census.seen(start, 8, None);
        assert_eq!((verdict(&census), census.deadline()), (Verdict::Up, Some(start + 2 * SECOND)));
        census.seen(start + SECOND, 10, Some(&haproxy));
        assert_eq!((verdict(&census), census.deadline()), (Verdict::Up, None));

        census.seen(start + SECOND, 10, Some(&identity("sh", None)));
        census.pass(start + 2 * SECOND);
        assert_eq!(verdict(&census), Verdict::Up);
        census.pass(start + 3 * SECOND);
        assert_eq!(verdict(&census), Verdict::Down);
        // Too many are as bad.
        census.replace(start + 4 * SECOND, &[7, 8, 9, 10].map(|process| (process, haproxy.clone())));
        census.pass(start + 9 * SECOND);
        assert_eq!((verdict(&census), census.deadline()), (Verdict::Down, None));
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let start = an_instant();
        let mut census = Census::default();
        census.configure(&[tracked("haproxy", 1, None, Duration::ZERO)]);
        census.replace(start, &[(7, identity("haproxy", None))]);
        census.configure(&[tracked("nginx", 1, None, SECOND)]);
        assert_eq!(verdict(&census), Verdict::Up);
        census.replace(start, &[(7, identity("haproxy", None))]);
        census.pass(start + SECOND);
        assert_eq!(verdict(&census), Verdict::Down);
    }

    /// As the kernel lays it out: nlmsghdr, cn_msg, kind, CPU, time, data.
    fn message(kind: u32, data: [u32; 4]) -> Vec<u8> {
        let words = [76, 3, 0, 0, 1, 1, 0, 0, 40, kind, 0, 0, 0];
        words.into_iter().chain(data).flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn announcements_are_read_or_passed_over() {
        for (kind, data, expected) in [
            (0, [1, 0, 0, 0], Some(Sign::Answer { errno: 1 })),
            (1, [5, 5, 6, 6], Some(Sign::Forked { parent: 5, child: 6 })),
            // A thread is no process.
            (1, [5, 5, 6, 5], None),
            (2, [5, 5, 0, 0], Some(Sign::Changed { process: 5 })),
            (0x200, [6, 5, 0, 0], Some(Sign::Changed { process: 5 })),
            (0x8000_0000, [5, 5, 0, 17], Some(Sign::Ended { process: 5 })),
            (0x8000_0000, [6, 5, 0, 17], None),
            (4, [5, 5, 0, 0], None),
        ] {
            let message = message(kind, data);
            assert_eq!(sign(&message), expected, "{kind} {data:?}");
            // Whatever is cut off is no announcement, and no panic.
            for length in 0..message.len() {
                let _ = sign(&message[..length]);
            }
        }
    }
}
