//! One tracked file: read again and again, on a thread that may hang with its file system.

use std::time::{Duration, Instant};

use tokio::{
    select,
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, sleep_until, timeout},
};

use super::{Reporter, is_over};
use crate::{
    io::track::file::{self, Content, TrackFileError, WRITING},
    pure::{
        config::model::vrrp::{TrackFile, Tracked},
        vrrp::{self, node::Verdict},
    },
};

pub(super) async fn follow(mut settings: watch::Receiver<TrackFile>, reporter: Reporter) {
    let mut file = settings.borrow_and_update().clone();
    let what = Tracked::File(file.name.clone());
    let mut due = Instant::now();
    loop {
        // Cancel safe: neither loses anything.
        select! {
            biased;
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                file = settings.borrow_and_update().clone();
                due = Instant::now();
            }
            () = sleep_until(due.into()) => {
                due = Instant::now() + file.interval;
                if look(&what, &file, &settings, &reporter).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// None: nobody wants to know any more.
async fn look(
    what: &Tracked,
    file: &TrackFile,
    settings: &watch::Receiver<TrackFile>,
    reporter: &Reporter,
) -> Option<()> {
    let mut read = reading(file);
    let answer = match timeout(PATIENCE, &mut read).await {
        Ok(answer) => answer,
        Err(_) => {
            let fault = format!("{} does not answer: see its file system", file.path.display());
            reporter.broken(what, Some(&fault));
            reporter.found(what, Verdict::Down, &fault);
            // Another look would hang, too.
            let mut settings = settings.clone();
            select! {
                answer = &mut read => answer,
                _ = settings.wait_for(|_| false) => return None,
            }
        }
    };
    let content = match answer {
        Ok(Ok(Content::Emptied)) => {
            sleep(WRITING).await;
            reading(file).await
        }
        answer => answer,
    };
    if is_over(settings) {
        return None;
    }
    match content {
        Ok(Ok(content)) => {
            let (number, words) = match content {
                Content::Absent => vrrp::file::number(None),
                Content::Present(bytes) => vrrp::file::number(Some(&bytes)),
                // It is emptied again and again.
                Content::Emptied => vrrp::file::number(Some(b"")),
            };
            reporter.broken(what, None);
            reporter.found(what, Verdict::Number(number), &words);
        }
        Ok(Err(error)) => {
            reporter.broken(what, Some(&error.to_string()));
            reporter.found(what, Verdict::Down, &error.to_string());
        }
        // The daemon stops.
        Err(_) => return None,
    }
    Some(())
}

fn reading(file: &TrackFile) -> JoinHandle<Result<Content, TrackFileError>> {
    let path = file.path.clone();
    spawn_blocking(move || file::read(&path))
}

/// A file system that takes longer is one that hangs.
const PATIENCE: Duration = Duration::from_secs(5);
