//! Connections that stay open through an event, and how many of them are left.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bed::{Host, client::Session};

pub(super) struct Crowd(Vec<Session>);

impl Crowd {
    /// Each knows by which server it was answered.
    pub(super) fn open(client: &Host, target: SocketAddr, connections: usize) -> Result<Crowd> {
        let share = connections.div_ceil(OPENERS);
        let opened = thread::scope(|scope| {
            let openers: Vec<_> = (0..OPENERS)
                .map(|opener| share.min(connections.saturating_sub(opener * share)))
                .map(|count| {
                    scope.spawn(move || {
                        client.namespace.enter(|| {
                            (0..count).map(|_| Session::open_in(target, PATIENCE)).collect::<Result<Vec<_>>>()
                        })?
                    })
                })
                .collect();
            openers.into_iter().map(|opener| opener.join().expect("an opener does not panic")).collect()
        });
        let opened: Result<Vec<_>> = opened;
        Ok(Crowd(opened.context("opening the crowd")?.into_iter().flatten().collect()))
    }

    /// How many do not answer any more, or not as the server that they were opened to. Silence is waited for a few
    /// times; then the silent rest of a share counts as lost, too.
    pub(super) fn lost(mut self) -> usize {
        let share = self.0.len().div_ceil(OPENERS).max(1);
        thread::scope(|scope| {
            let askers: Vec<_> =
                self.0.chunks_mut(share).map(|chunk| scope.spawn(|| lost_of(chunk))).collect();
            askers.into_iter().map(|asker| asker.join().expect("an asker does not panic")).sum()
        })
    }
}

fn lost_of(sessions: &mut [Session]) -> usize {
    let (mut lost, mut silent) = (0, 0);
    for (index, session) in sessions.iter_mut().enumerate() {
        match session.who() {
            Ok(server) if server == session.server => {}
            Ok(_) => lost += 1,
            Err(error) => {
                lost += 1;
                let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
                silent += usize::from(error.downcast_ref().is_some_and(timed_out));
            }
        }
        if silent >= SILENT_MAX {
            return lost + sessions.len() - index - 1;
        }
    }
    lost
}

/// Each connection has an end in this process; what it starts inherits the limit.
pub(super) fn allow_descriptors(connections: usize) -> Result<()> {
    let count = connections as u64 + 4_096;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard.max(count))
        .with_context(|| format!("raising the limit of open files from {soft} to {count}"))
}

const OPENERS: usize = 4;
const SILENT_MAX: usize = 3;
const PATIENCE: Duration = Duration::from_secs(3);
