//! All tracked processes: looked at when the kernel announces some, and now and then.

use std::time::{Duration, Instant};

use tokio::{select, sync::watch, task::spawn_blocking, time::sleep_until};
use tracing::info;

use super::{Reporter, at, is_over};
use crate::{
    io::track::processes::{self, Heard, ListenError, Listener},
    pure::{
        config::model::vrrp::{Process, Tracked},
        vrrp::{
            node::Verdict,
            process::{Census, Sign},
        },
    },
};

pub(super) async fn follow(mut settings: watch::Receiver<Vec<Process>>, reporter: Reporter) {
    let mut census = Census::default();
    census.configure(&settings.borrow_and_update());
    let mut listener = listen().await;
    let mut due = Instant::now();
    loop {
        // Cancel safe: nothing is lost by any of them.
        select! {
            biased;
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                census.configure(&settings.borrow_and_update());
                due = Instant::now();
            }
            () = sleep_until(due.into()) => {
                due = survey(&mut census, listener.is_some(), &reporter).await;
                if is_over(&settings) {
                    return;
                }
                report(&census, &reporter);
            }
            () = at(census.deadline()) => {
                census.pass(Instant::now());
                report(&census, &reporter);
            }
            heard = hear(&mut listener) => match heard {
                Ok(Heard::Sign(sign)) => {
                    if take(&mut census, sign) {
                        report(&census, &reporter);
                    }
                }
                Ok(Heard::Overrun) => due = due.min(Instant::now() + OVERRUN),
                Ok(Heard::Nothing) => {}
                Err(error) => {
                    info!("{error}; tracked processes are looked at every {POLL:?}");
                    (listener, due) = (None, Instant::now());
                }
            },
        }
    }
}

async fn listen() -> Option<Listener> {
    match Listener::open().await {
        Ok(listener) => Some(listener),
        Err(error) => {
            info!("{error}; tracked processes are looked at every {POLL:?}");
            None
        }
    }
}

async fn hear(listener: &mut Option<Listener>) -> Result<Heard, ListenError> {
    match listener {
        Some(listener) => listener.hear().await,
        None => std::future::pending().await,
    }
}

/// A look at all there are; returns when the next is due. What was announced meanwhile waits and is taken in later.
async fn survey(census: &mut Census, hears: bool, reporter: &Reporter) -> Instant {
    let started = Instant::now();
    let all = spawn_blocking(processes::all).await;
    let now = Instant::now();
    let (found, failure) = match all {
        Ok(Ok(all)) => (all, None),
        Ok(Err(error)) => (Vec::new(), Some(format!("/proc cannot be read: {error}; mount it"))),
        Err(_) => (Vec::new(), Some("the daemon stops".to_owned())),
    };
    census.replace(now, &found);
    for (name, ..) in census.verdicts() {
        reporter.broken(&Tracked::Process(name.to_owned()), failure.as_deref());
    }
    let pause = if hears { SURVEY } else { POLL };
    now + pause.max((now - started) * PAUSE)
}

/// True: there are more or fewer than before.
fn take(census: &mut Census, sign: Sign) -> bool {
    let now = Instant::now();
    match sign {
        Sign::Changed { process } => census.seen(now, process, processes::look(process).as_ref()),
        Sign::Ended { process } => census.seen(now, process, None),
        // A child is what its parent is until it says otherwise.
        Sign::Forked { parent, child } if census.counts(parent) => {
            census.seen(now, child, processes::look(child).as_ref())
        }
        Sign::Forked { .. } | Sign::Answer { .. } => false,
    }
}

fn report(census: &Census, reporter: &Reporter) {
    for (name, verdict, number) in census.verdicts() {
        if verdict != Verdict::Unknown {
            let words = format!("{number} process{}", if number == 1 { "" } else { "es" });
            reporter.found(&Tracked::Process(name.to_owned()), verdict, &words);
        }
    }
}

/// Between two looks at all processes where nothing is announced.
const POLL: Duration = Duration::from_millis(250);
/// And where all is, in case something was not.
const SURVEY: Duration = Duration::from_secs(10);
/// As many times as long as a look takes is between two: 5 % of a CPU at the most.
const PAUSE: u32 = 20;
/// From a flood of announcements to a look at all processes.
const OVERRUN: Duration = Duration::from_millis(100);
