//! Hearing: connections that peers make, and what becomes of what they tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lb_common::{net::Mac, slot::ServerId};
use tokio::{net::TcpStream, select, sync::mpsc, task::JoinSet, time::sleep};
use tracing::{info, warn};

use super::{Cluster, RingName};
use crate::{
    daemon::control::Control,
    io::{
        kernel::{Import, Imported, now},
        replica::{Listener, ReplicaError, bind},
    },
    pure::{
        replica::{Carried, Message, RingPart},
        state::View,
    },
};

/// What a peer said.
pub(in crate::daemon) enum Heard {
    Message {
        peer: IpAddr,
        message: Message,
    },
    /// Its connection ended.
    Gone {
        peer: IpAddr,
    },
}

/// Takes connections of the configured peers, one of each: a new one ends the one before.
pub(in crate::daemon) async fn listen(cluster: &Arc<Cluster>, heard: &mpsc::Sender<Heard>) {
    if cluster.peers.is_empty() {
        return;
    }
    let listener = match bind(cluster.port) {
        Ok(listener) => listener,
        Err(error) => return warn!("other nodes cannot tell of their connections: {error}"),
    };
    let mut tasks = JoinSet::new();
    let mut running = BTreeMap::new();
    // A peer with another secret tries again and again: its fault is told once, until it was heard.
    let mut said = BTreeSet::new();
    loop {
        let accepted = select! {
            accepted = listener.accept() => accepted,
            // One that a newer connection ended says nothing.
            Some(done) = tasks.join_next() => {
                let Ok(Ended { peer, was_heard, error }) = done else { continue };
                if was_heard {
                    said.remove(&peer);
                }
                if let Some(error) = error && said.insert(peer) {
                    warn!("what node {peer} tells of its connections is lost: {error}");
                }
                continue;
            }
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            // Without descriptors the next attempt fails at once, too.
            Err(error) => {
                warn!("cannot take a connection of another node: {error}; see the limit of open files");
                sleep(PAUSE).await;
                continue;
            }
        };
        let peer = source.ip().to_canonical();
        if !cluster.peers.contains(&peer) {
            continue;
        }
        let (cluster, heard) = (Arc::clone(cluster), heard.clone());
        let task = tasks.spawn(async move { attend(stream, peer, &cluster, &heard).await });
        if let Some(before) = running.insert(peer, task) {
            before.abort();
        }
    }
}

/// A connection that is over.
struct Ended {
    peer: IpAddr,
    /// Something that it said was believed.
    was_heard: bool,
    error: Option<ReplicaError>,
}

async fn attend(stream: TcpStream, peer: IpAddr, cluster: &Cluster, heard: &mpsc::Sender<Heard>) -> Ended {
    let mut was_heard = false;
    let error = pass_on(stream, peer, cluster, heard, &mut was_heard).await.err();
    // Control is gone only when the daemon stops.
    let _ = heard.send(Heard::Gone { peer }).await;
    Ended { peer, was_heard, error }
}

async fn pass_on(
    stream: TcpStream,
    peer: IpAddr,
    cluster: &Cluster,
    heard: &mpsc::Sender<Heard>,
    was_heard: &mut bool,
) -> Result<(), ReplicaError> {
    let mut listener = Listener::open(stream, &cluster.secret).await?;
    while let Some(message) = listener.hear().await? {
        *was_heard = true;
        if heard.send(Heard::Message { peer, message }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Control's side: what is known of each peer that tells.
#[derive(Default)]
pub(in crate::daemon) struct Peers {
    peers: BTreeMap<IpAddr, Peer>,
    /// Records of peers that found no place here, since the start.
    pub refused: u64,
    pub made: u64,
    /// Sources of `nat` flows that this node does not have.
    foreign_sources: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Peer {
    servers: BTreeMap<u32, (String, SocketAddr)>,
    /// Its interfaces, as this node's and their MAC addresses.
    interfaces: BTreeMap<u32, (u32, u64)>,
    rings: BTreeMap<RingName, Owners>,
    is_complete: bool,
}

impl Peers {
    /// Whether it has told everything.
    pub(in crate::daemon) fn is_complete(&self, peer: IpAddr) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.is_complete)
    }
}

impl Control {
    pub(in crate::daemon) async fn hear(&mut self, heard: Heard) {
        let Heard::Message { peer, message } = heard else {
            let Heard::Gone { peer } = heard else { return };
            self.peers.peers.remove(&peer);
            return;
        };
        match message {
            Message::Hello { node, interfaces } => {
                info!("node {peer} ({node}) tells of its connections");
                let interfaces = self.own_interfaces(interfaces).await;
                self.peers.peers.insert(peer, Peer { interfaces, ..Peer::default() });
            }
            Message::Server { id, service, address } => {
                if let Some(known) = self.peers.peers.get_mut(&peer)
                    && known.servers.len() < SERVERS_MAX
                {
                    known.servers.insert(id, (service, address));
                }
            }
            Message::Ring(part) => {
                if let Some(view) = self.peers.peers.get_mut(&peer).and_then(|known| known.part(part)) {
                    self.state.follow(&view);
                }
            }
            Message::Records(records) => self.import(peer, &records),
            Message::Complete => {
                if let Some(known) = self.peers.peers.get_mut(&peer) {
                    known.is_complete = true;
                }
            }
        }
    }

    /// The interfaces here that have the names of the peer's.
    async fn own_interfaces(&self, theirs: Vec<(u32, String)>) -> BTreeMap<u32, (u32, u64)> {
        let mut found = BTreeMap::new();
        for (index, name) in theirs {
            if let Ok(own) = self.net.interface(&name).await {
                let mac = own.mac.map_or(0, |mac| Mac::from_bytes(mac).0);
                found.insert(index, (own.index, mac));
            }
        }
        found
    }

    fn import(&mut self, peer: IpAddr, records: &[Carried]) {
        let Some(known) = self.peers.peers.get(&peer) else { return };
        let (memory, now) = (self.kernel.memory(), now());
        let mut servers: BTreeMap<u32, Option<(ServerId, u32, bool)>> = BTreeMap::new();
        for record in records {
            let server = servers.entry(record.server).or_insert_with(|| {
                let (service, address) = known.servers.get(&record.server)?;
                let id = self.state.local_server(service, *address)?;
                Some((id, self.state.service_id(service)?, !self.state.is_here(service)))
            });
            let source = record.pair.map(|pair| pair.source).filter(|&source| source != record.client);
            let position = source.map(|source| (source.ip(), self.state.nat_position(source.ip())));
            if let Some((source, None)) = position
                && self.peers.foreign_sources.len() < SOURCES_MAX
                && self.peers.foreign_sources.insert(source)
            {
                warn!(
                    "nat flows of node {peer} with source {source} cannot go on here: give [datapath] nat_source an \
                     address that moves with the services', the same on all nodes"
                );
            }
            let imported = match (*server, position) {
                (None, _) | (_, Some((_, None))) => Imported::Senseless,
                (Some((server, service, replace)), position) => {
                    let towards = record.pair.and_then(|pair| known.interfaces.get(&pair.interface));
                    let (interface, own_mac) = towards.copied().unwrap_or_default();
                    let nat_source = position.and_then(|(_, position)| position).unwrap_or(0);
                    let import =
                        Import { record: *record, server, service, nat_source, interface, own_mac, replace };
                    memory.import(&import, now)
                }
            };
            match imported {
                Imported::Made => self.peers.made += 1,
                Imported::Known => {}
                Imported::Taken | Imported::Full | Imported::Senseless => self.peers.refused += 1,
            }
        }
    }
}

impl Peer {
    /// A view, once the last part of a ring is here.
    fn part(&mut self, part: RingPart) -> Option<View> {
        let RingPart { service, family, slots, first, part } = part;
        let name = (service, family);
        if first == 0 {
            if self.rings.len() >= RINGS_MAX {
                return None;
            }
            self.rings.insert(name.clone(), Vec::new());
        }
        let gathered = self.rings.get_mut(&name)?;
        if gathered.len() != first as usize {
            return None;
        }
        let address = |id: u32| self.servers.get(&id).map(|(_, address)| *address);
        gathered.extend(part.into_iter().map(|(id, lookup)| (address(id), lookup)));
        if gathered.len() < slots as usize {
            return None;
        }
        let slots = self.rings.remove(&name)?;
        Some(View { service: name.0, family, slots })
    }
}

/// See `View::slots`.
type Owners = Vec<(Option<SocketAddr>, bool)>;

/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_secs(1);
const SERVERS_MAX: usize = lb_common::limits::SERVERS_MAX as usize;
/// Rings whose last part has not come.
const RINGS_MAX: usize = 4;
/// Sources that are warned of.
const SOURCES_MAX: usize = 64;
