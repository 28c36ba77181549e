//! Telling: one task for each peer, and what control gives them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lb_common::slot::{ServerId, Slot};
use tokio::{select, sync::mpsc, time::sleep};
use tracing::{debug, info, warn};

use super::{Batch, Cluster, Joined, Named, OUTGOING, Outgoing, RingName, Rings};
use crate::{
    io::{
        kernel::{Sweep, Telling, Told},
        replica::{ReplicaError, Teller},
    },
    pure::{
        replica::{Message, RECORDS_MAX, RingPart, SLOTS_MAX},
        state::State,
    },
};

/// Connects to every peer, again and again.
pub(in crate::daemon) async fn tell_all(cluster: &Arc<Cluster>, joined: &mpsc::Sender<Joined>) {
    join_all(cluster.peers.iter().map(|&peer| tell_peer(cluster, peer, joined))).await;
}

async fn tell_peer(cluster: &Cluster, peer: IpAddr, joined: &mpsc::Sender<Joined>) {
    let mut said = false;
    // A peer with another secret takes a connection and ends it, again and again.
    let mut was_brief = false;
    loop {
        let address = SocketAddr::new(peer, cluster.port);
        let ended = match Teller::connect(address, &cluster.secret).await {
            Ok(teller) => {
                if !was_brief {
                    info!("telling node {peer} of this node's connections");
                    said = false;
                }
                let (sender, outgoing) = mpsc::channel(OUTGOING);
                if joined.send(Joined { peer, sender }).await.is_err() {
                    return;
                }
                let begun = Instant::now();
                let ended = tell(teller, cluster, outgoing).await;
                was_brief = begun.elapsed() < BRIEF;
                ended
            }
            Err(error) => Err(error),
        };
        match ended {
            // It fell behind, and begins anew.
            Ok(()) => debug!("node {peer} did not keep up"),
            Err(error) if !said => {
                warn!("cannot tell node {peer} of this node's connections: {error}; trying on");
                said = true;
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

/// Until the peer is gone, or control lets it go.
async fn tell(
    mut teller: Teller,
    cluster: &Cluster,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), ReplicaError> {
    let hello = Message::Hello { node: cluster.node.clone(), interfaces: cluster.interfaces.clone() };
    teller.tell(&hello).await?;
    let mut known = BTreeMap::new();
    loop {
        let next = select! {
            next = outgoing.recv() => next,
            closed = teller.closed() => {
                closed?;
                continue;
            }
        };
        match next {
            None => return Ok(()),
            Some(Outgoing::Complete) => teller.tell(&Message::Complete).await?,
            Some(Outgoing::Rings(rings)) => {
                introduce(&mut teller, &mut known, &rings.servers).await?;
                for (name, slots) in &rings.rings {
                    tell_ring(&mut teller, name, slots).await?;
                }
            }
            Some(Outgoing::Records { batch, all }) => {
                introduce(&mut teller, &mut known, &batch.servers).await?;
                let wanted = batch.records.iter().filter(|told| all || told.is_news);
                let records: Vec<_> = wanted.map(|told| told.record).collect();
                for records in records.chunks(RECORDS_MAX) {
                    teller.tell(&Message::Records(records.to_vec())).await?;
                }
            }
        }
    }
}

/// Says whom numbers name that the peer does not know, or knows as somebody else.
async fn introduce(
    teller: &mut Teller,
    known: &mut BTreeMap<u32, (String, SocketAddr)>,
    servers: &[Named],
) -> Result<(), ReplicaError> {
    for (id, service, address) in servers {
        let named = (service.clone(), *address);
        if known.get(id) != Some(&named) {
            let message = Message::Server { id: *id, service: service.clone(), address: *address };
            teller.tell(&message).await?;
            known.insert(*id, named);
        }
    }
    Ok(())
}

async fn tell_ring(
    teller: &mut Teller,
    (service, family): &RingName,
    slots: &[Slot],
) -> Result<(), ReplicaError> {
    for (position, part) in slots.chunks(SLOTS_MAX).enumerate() {
        let ring = RingPart {
            service: service.clone(),
            family: *family,
            slots: slots.len() as u32,
            first: (position * SLOTS_MAX) as u32,
            part: part.iter().map(|slot| (slot.base().0, slot.lookup())).collect(),
        };
        teller.tell(&Message::Ring(ring)).await?;
    }
    Ok(())
}

/// Control's side: the peers that are connected, and what they have heard.
#[derive(Default)]
pub(in crate::daemon) struct Sessions {
    sessions: Vec<Session>,
    /// As they were last told.
    rings: BTreeMap<RingName, Arc<Vec<Slot>>>,
}

struct Session {
    peer: IpAddr,
    sender: mpsc::Sender<Outgoing>,
    stage: Stage,
}

/// How much a peer knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing yet: it begins with the next round.
    New,
    /// A round is telling it everything.
    Catching,
    Current,
}

impl Sessions {
    pub(in crate::daemon) fn join(&mut self, Joined { peer, sender }: Joined) {
        self.sessions.retain(|session| session.peer != peer);
        self.sessions.push(Session { peer, sender, stage: Stage::New });
    }

    /// Before a round begins: what it is to collect.
    pub(in crate::daemon) fn begin(&mut self, sweep: &mut Sweep, state: &State) {
        if !sweep.is_between_rounds() {
            return;
        }
        self.tell_rings(state);
        let fresh = self.sessions.iter().any(|session| session.stage == Stage::New);
        if fresh {
            let all = Outgoing::Rings(Arc::new(named_rings(state, self.rings.clone())));
            self.send(|stage| (stage == Stage::New).then(|| all.clone()));
            for session in &mut self.sessions {
                session.stage = if session.stage == Stage::New { Stage::Catching } else { session.stage };
            }
        }
        sweep.telling = match (self.sessions.is_empty(), fresh) {
            (true, _) => Telling::Nothing,
            (false, false) => Telling::News,
            (false, true) => Telling::Everything,
        };
    }

    /// What a pass has collected.
    pub(in crate::daemon) fn tell(&mut self, records: Vec<Told>, state: &State) {
        if records.is_empty() || self.sessions.is_empty() {
            return;
        }
        let ids: BTreeSet<_> = records.iter().map(|told| told.record.server).collect();
        let batch = Arc::new(Batch { servers: named(state, ids), records });
        self.send(|stage| match stage {
            Stage::New => None,
            stage => Some(Outgoing::Records { batch: Arc::clone(&batch), all: stage == Stage::Catching }),
        });
    }

    /// A round has ended.
    pub(in crate::daemon) fn end(&mut self) {
        self.send(|stage| (stage == Stage::Catching).then_some(Outgoing::Complete));
        for session in &mut self.sessions {
            session.stage = if session.stage == Stage::Catching { Stage::Current } else { session.stage };
        }
    }

    fn tell_rings(&mut self, state: &State) {
        let rings: BTreeMap<RingName, _> = state
            .told_rings()
            .map(|(service, family, slots)| ((service.to_owned(), family), Arc::clone(slots)))
            .collect();
        let is_same =
            |name: &RingName, slots| self.rings.get(name).is_some_and(|told| Arc::ptr_eq(told, slots));
        let changed: BTreeMap<_, _> = rings
            .iter()
            .filter(|(name, slots)| !is_same(name, slots))
            .map(|(name, slots)| (name.clone(), Arc::clone(slots)))
            .collect();
        self.rings = rings;
        if !changed.is_empty() {
            let changed = Outgoing::Rings(Arc::new(named_rings(state, changed)));
            self.send(|stage| (stage != Stage::New).then(|| changed.clone()));
        }
    }

    /// Who does not keep up, or is gone, is let go.
    fn send(&mut self, what: impl Fn(Stage) -> Option<Outgoing>) {
        self.sessions.retain(|session| match what(session.stage) {
            Some(outgoing) => session.sender.try_send(outgoing).is_ok(),
            None => !session.sender.is_closed(),
        });
    }
}

fn named_rings(state: &State, rings: BTreeMap<RingName, Arc<Vec<Slot>>>) -> Rings {
    let ids = rings.values().flat_map(|slots| slots.iter()).map(|slot| slot.base().0);
    Rings { servers: named(state, ids.collect()), rings: rings.into_iter().collect() }
}

fn named(state: &State, ids: BTreeSet<u32>) -> Vec<Named> {
    let name = |id| state.told_of(ServerId(id)).map(|(service, address)| (id, service.to_owned(), address));
    ids.into_iter().filter_map(name).collect()
}

const RETRY: Duration = Duration::from_millis(500);
/// A connection that ends so soon was not wanted.
const BRIEF: Duration = Duration::from_secs(1);
