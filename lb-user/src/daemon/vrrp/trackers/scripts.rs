//! One tracked script: run again and again, one copy at a time.

use std::{pin::pin, time::Instant};

use tokio::{
    select,
    sync::watch,
    time::{sleep, sleep_until},
};
use tracing::warn;

use super::{Reporter, is_over};
use crate::{
    io::track::script::{self, Ran},
    pure::{
        config::model::vrrp::{Script, Tracked},
        vrrp::{node::Verdict, script::Course},
    },
};

pub(super) async fn follow(mut settings: watch::Receiver<Script>, reporter: Reporter) {
    let script = settings.borrow_and_update().clone();
    let what = Tracked::Script(script.name.clone());
    let mut course = Course::new(Instant::now(), script);
    if course.verdict() != Verdict::Unknown {
        reporter.found(&what, course.verdict(), "not run yet: `init_fail`");
    }
    let mut was_late = false;
    loop {
        // Cancel safe: neither loses anything.
        select! {
            biased;
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                was_late = false;
                course.adjust(Instant::now(), settings.borrow_and_update().clone());
            }
            () = sleep_until(course.due().into()) => {
                let started = Instant::now();
                let ran = run(&what, course.script(), &mut was_late, &reporter).await;
                if is_over(&settings) {
                    return;
                }
                let verdict = course.end(started, Instant::now(), ran.passed);
                reporter.broken(&what, ran.fault.as_deref());
                reporter.found(&what, verdict, &ran.words);
            }
        }
    }
}

/// Says so as soon as the run takes longer than the interval, and until one takes less than half of it; the log has it
/// once.
async fn run(what: &Tracked, script: &Script, was_late: &mut bool, reporter: &Reporter) -> Ran {
    let mut run = pin!(script::run(script));
    let (interval, started) = (script.interval, Instant::now());
    select! {
        biased;
        ran = &mut run => {
            if started.elapsed() < interval / 2 {
                reporter.late(what, None);
            }
            ran
        }
        () = sleep(interval), if interval < script.timeout => {
            let fault = format!("takes longer than its interval of {interval:?} and runs less often: raise it");
            reporter.late(what, Some(&fault));
            if !std::mem::replace(was_late, true) {
                warn!("{what} {fault}");
            }
            run.await
        }
    }
}
