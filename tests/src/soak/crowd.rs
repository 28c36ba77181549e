//! Connections and datagram flows that are kept, each with the server that it began with.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bed::{Bed, Family, Host, client::Session};

pub struct Crowd {
    sessions: Vec<Kept>,
    flows: Vec<Flow>,
}

struct Kept {
    /// None: found broken, and counted then.
    session: Option<Session>,
    server: String,
    opened: Instant,
    /// Its server was down since it opened.
    excused: bool,
}

struct Flow {
    socket: UdpSocket,
    server: String,
    excused: bool,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub answered: u32,
    /// No answer, or another server's, though their own has lived all along.
    pub broken: u32,
    /// The same of those whose own was down meanwhile.
    pub excused: u32,
    /// Datagram flows that another server answers, or nobody, though their own has lived.
    pub datagrams_moved: u32,
}

impl Crowd {
    pub fn open(bed: &Bed, connections: usize, datagrams: usize) -> Result<Crowd> {
        let mut crowd = Crowd { sessions: Vec::new(), flows: Vec::new() };
        crowd.more(bed, connections)?;
        let open = || -> Result<Flow> {
            let any = Family::of(bed.vip()).unspecified();
            let socket = bed.client.namespace.enter(|| UdpSocket::bind((any, 0)))??;
            socket.connect(bed.service())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let server = ask(&socket).context("the first datagram of a flow")?;
            Ok(Flow { socket, server, excused: false })
        };
        crowd.flows = (0..datagrams).map(|_| open()).collect::<Result<_>>()?;
        Ok(crowd)
    }

    /// Opens as many further connections.
    pub fn more(&mut self, bed: &Bed, connections: usize) -> Result<()> {
        let share = connections.div_ceil(OPENERS);
        let opened = thread::scope(|scope| {
            let openers: Vec<_> = (0..OPENERS)
                .map(|opener| share.min(connections.saturating_sub(opener * share)))
                .map(|count| scope.spawn(move || open(&bed.client, bed, count)))
                .collect();
            openers.into_iter().map(|opener| opener.join().expect("an opener does not panic")).collect()
        });
        let opened: Result<Vec<Vec<Kept>>> = opened;
        self.sessions.extend(opened?.into_iter().flatten());
        Ok(())
    }

    /// A server went down at some time after `since`: what it had then may break.
    pub fn excuse(&mut self, server: &str) {
        let now = Instant::now();
        for kept in self.sessions.iter_mut().filter(|kept| kept.server == server && kept.opened <= now) {
            kept.excused = true;
        }
        for flow in self.flows.iter_mut().filter(|flow| flow.server == server) {
            flow.excused = true;
        }
    }

    pub fn connections(&self) -> usize {
        self.sessions.iter().filter(|kept| kept.session.is_some()).count()
    }

    pub fn of(&self, server: &str) -> usize {
        self.sessions.iter().filter(|kept| kept.session.is_some() && kept.server == server).count()
    }

    /// Asks the first so many connections, and every flow of datagrams.
    pub fn ask(&mut self, first: usize) -> Asked {
        let first = first.min(self.sessions.len());
        let sessions = &mut self.sessions[..first];
        let share = sessions.len().div_ceil(OPENERS).max(1);
        let asked = thread::scope(|scope| {
            let askers: Vec<_> = sessions
                .chunks_mut(share)
                .map(|chunk| scope.spawn(|| chunk.iter_mut().map(Kept::ask).fold(Asked::default(), add)))
                .collect();
            let asked = askers.into_iter().map(|asker| asker.join().expect("an asker does not panic"));
            asked.fold(Asked::default(), add)
        });
        self.flows.iter_mut().map(Flow::ask).fold(asked, add)
    }
}

impl Kept {
    fn ask(&mut self) -> Asked {
        let Some(session) = &mut self.session else { return Asked::default() };
        if session.who().is_ok_and(|server| server == self.server) {
            return Asked { answered: 1, ..Asked::default() };
        }
        self.session = None;
        match self.excused {
            true => Asked { excused: 1, ..Asked::default() },
            false => Asked { broken: 1, ..Asked::default() },
        }
    }
}

impl Flow {
    /// A flow that moved belongs to its new server from then on.
    fn ask(&mut self) -> Asked {
        // One datagram may be lost in a full queue of the bed; three are not.
        let answer = (0..3).find_map(|_| ask(&self.socket).ok());
        let same = answer.as_ref() == Some(&self.server);
        if let Some(server) = answer {
            self.server = server;
        }
        match (same, std::mem::take(&mut self.excused)) {
            (true, _) => Asked { answered: 1, ..Asked::default() },
            (false, true) => Asked { excused: 1, ..Asked::default() },
            (false, false) => Asked { datagrams_moved: 1, ..Asked::default() },
        }
    }
}

fn add(sum: Asked, more: Asked) -> Asked {
    Asked {
        answered: sum.answered + more.answered,
        broken: sum.broken + more.broken,
        excused: sum.excused + more.excused,
        datagrams_moved: sum.datagrams_moved + more.datagrams_moved,
    }
}

fn open(client: &Host, bed: &Bed, count: usize) -> Result<Vec<Kept>> {
    let target = bed.service();
    let open = |_| -> Result<Kept> {
        let session = Session::open_in(target, PATIENCE)?;
        let server = session.server.clone();
        Ok(Kept { session: Some(session), server, opened: Instant::now(), excused: false })
    };
    client.namespace.enter(|| (0..count).map(open).collect::<Result<_>>())?.context("opening the crowd")
}

fn ask(socket: &UdpSocket) -> Result<String> {
    socket.send(b"who\n")?;
    let mut name = [0; 64];
    let size = socket.recv(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..size]).into_owned())
}

/// The client's ends are in this process; servers, which have a part of the others each, inherit the limit.
pub(super) fn allow_descriptors(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, count.max(soft), count.max(hard))
        .with_context(|| format!("raising the limit of open files from {hard} to {count}"))
}

const OPENERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(3);
