//! Every socket that the thread speaks and hears by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use nix::net::if_::if_indextoname;

use crate::{
    io::vrrp::{
        frames::Frames,
        pulse::PulseSocket,
        socket::{Adverts, SocketId},
    },
    pure::{
        config::{
            model::{Cluster, vrrp::Router},
            network::Family,
        },
        hop::Mac,
        vrrp::{
            advert::Seen,
            frame::{self, Claim},
            node::{RouterId, Settings, Sockets},
        },
    },
};

#[derive(Default)]
pub(super) struct Wires {
    adverts: Adverts,
    frames: BTreeMap<Place, Frames>,
    /// Whose claims are heard, by the name of the interface.
    claimed: BTreeMap<String, BTreeSet<IpAddr>>,
    peers: Option<Peers>,
    /// Routers whose adverts leave with a MAC of their own.
    virtuals: BTreeMap<RouterId, Virtual>,
    /// Of the next IPv4 header that is made here.
    id: u16,
}

struct Virtual {
    mac: Mac,
    sockets: Sockets,
}

/// The device of a virtual MAC.
pub(super) struct Device {
    pub index: u32,
    /// What adverts leave with. None: with that of the interface below.
    pub mac: Option<Mac>,
}

/// Where frames go out and come in.
type Place = (u32, Family);

struct Peers {
    port: u16,
    addresses: Vec<IpAddr>,
    socket: PulseSocket,
}

/// Which of them has something to be read.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub adverts: Vec<SocketId>,
    pub frames: Vec<Place>,
    pub peers: bool,
}

impl Wires {
    /// Whose claims are heard.
    pub(super) fn configure(&mut self, settings: &Settings) {
        self.claimed = BTreeMap::new();
        for router in &settings.vrrp.routers {
            for (interface, address) in addresses(router) {
                self.claimed.entry(interface.to_owned()).or_default().insert(address);
            }
        }
        let claimed = &self.claimed;
        self.frames.retain(|&(index, _), frames| {
            let addresses = name(index).and_then(|name| claimed.get(&name));
            addresses.is_some_and(|addresses| frames.hear(addresses.clone()).is_ok())
        });
    }

    pub(super) fn has_peers(&self) -> bool {
        self.peers.is_some()
    }

    /// The heartbeat port is open for these, whoever had it before. None: nobody is believed. The error says what is
    /// missing.
    pub(super) fn follow_peers(&mut self, cluster: Option<&Cluster>) -> Result<(), String> {
        let Some(Cluster { port, peers: addresses, .. }) =
            cluster.filter(|cluster| !cluster.peers.is_empty())
        else {
            self.peers = None;
            return Ok(());
        };
        let port = *port;
        if self.peers.as_ref().is_some_and(|peers| peers.port == port && peers.addresses == *addresses) {
            return Ok(());
        }
        // The port must be free again before it is opened for others.
        self.peers = None;
        let socket = PulseSocket::open(port, addresses).map_err(|error| error.to_string())?;
        self.peers = Some(Peers { port, addresses: addresses.clone(), socket });
        Ok(())
    }

    /// Adverts of others with a virtual MAC are heard on the device that has it, and nowhere else.
    pub(super) fn open(
        &mut self,
        router: RouterId,
        sockets: Sockets,
        device: Option<Device>,
    ) -> Result<(), String> {
        self.close(router);
        let place = (sockets.interface, Family::of(sockets.source));
        self.adverts.open(router, sockets.clone()).map_err(|error| error.to_string())?;
        if let Some(Device { index, mac }) = device {
            let heard = Sockets { interface: index, ..sockets.clone() };
            self.adverts.listen(router, heard).map_err(|error| error.to_string())?;
            self.virtuals.extend(mac.map(|mac| (router, Virtual { mac, sockets })));
        }
        self.frames_of(place).map(drop)
    }

    pub(super) fn close(&mut self, router: RouterId) {
        self.adverts.close(router);
        self.virtuals.remove(&router);
    }

    /// An interface is gone: one of the same name will be another one.
    pub(super) fn forget_interface(&mut self, index: u32) {
        self.frames.retain(|&(known, _), _| known != index);
    }

    pub(super) fn send(&mut self, router: RouterId, destination: IpAddr, bytes: &[u8]) -> Result<(), String> {
        if let Some(Virtual { mac, sockets }) = self.virtuals.get(&router) {
            self.id = self.id.wrapping_add(1);
            if let Some(frame) = frame::advert(*mac, sockets.source, destination, self.id, bytes) {
                return self.send_frame(sockets.interface, &frame);
            }
        }
        self.adverts.send(router, destination, bytes).map_err(|error| error.to_string())
    }

    /// What is lost is told by silence, as everything lost on the way is.
    pub(super) fn tell(&self, peer: IpAddr, bytes: &[u8]) {
        if let Some(peers) = &self.peers {
            let _ = peers.socket.send(peer, bytes);
        }
    }

    /// To an interface that is gone nothing is sent.
    pub(super) fn send_frame(&mut self, interface: u32, frame: &[u8]) -> Result<(), String> {
        if name(interface).is_none() {
            return Ok(());
        }
        let family = if frame.get(12..14) == Some(&ARP) { Family::V4 } else { Family::V6 };
        self.frames_of((interface, family))?.send(frame).map_err(|error| error.to_string())
    }

    fn frames_of(&mut self, place: Place) -> Result<&mut Frames, String> {
        let (index, family) = place;
        if !self.frames.contains_key(&place) {
            let mut frames = Frames::open(index, family).map_err(|error| error.to_string())?;
            if let Some(addresses) = name(index).and_then(|name| self.claimed.get(&name)) {
                frames.hear(addresses.clone()).map_err(|error| error.to_string())?;
            }
            self.frames.insert(place, frames);
        }
        self.frames.get_mut(&place).ok_or_else(|| "the packet socket vanished".to_owned())
    }

    /// In the order that `ready` asks in.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let adverts = self.adverts.sockets().map(|(_, fd)| fd);
        let frames = self.frames.values().map(AsFd::as_fd);
        adverts.chain(frames).chain(self.peers.iter().flat_map(|peers| peers.socket.fds()))
    }

    /// `has_news` is asked once for each descriptor.
    pub(super) fn ready(&self, mut has_news: impl FnMut() -> bool) -> Ready {
        let adverts = self.adverts.sockets().filter(|_| has_news()).map(|(id, _)| id).collect();
        let frames = self.frames.keys().filter(|_| has_news()).copied().collect();
        let fds = self.peers.iter().flat_map(|peers| peers.socket.fds());
        let peers = fds.filter(|_| has_news()).count() > 0;
        Ready { adverts, frames, peers }
    }

    /// One turn. An error is of the interface, which is watched elsewhere.
    pub(super) fn hear_adverts(&mut self, id: SocketId, mut take: impl FnMut(Instant, &Seen, &[u8])) {
        let now = Instant::now();
        let _ = self.adverts.receive(id, now, |seen, bytes| take(now, seen, bytes));
    }

    pub(super) fn hear_claims(&mut self, place: Place, mut take: impl FnMut(Instant, u32, Claim)) {
        let now = Instant::now();
        if let Some(frames) = self.frames.get_mut(&place) {
            let _ = frames.receive(|claim| take(now, place.0, claim));
        }
    }

    pub(super) fn hear_peers(&mut self, mut take: impl FnMut(Instant, IpAddr, &[u8])) {
        let Some(peers) = &mut self.peers else { return };
        for _ in 0..DATAGRAMS_PER_TURN {
            match peers.socket.receive() {
                Ok(Some((source, bytes))) => take(Instant::now(), source, bytes),
                Ok(None) => return,
                // What a peer's host answered to an earlier datagram: the peer is not there.
                Err(_) => {}
            }
        }
    }

    /// Messages that were not looked at since the start, since more came at once than that.
    pub(super) fn flooded(&self) -> u64 {
        self.adverts.flooded()
    }
}

/// All that a router holds, and the interface of each.
fn addresses(router: &Router) -> impl Iterator<Item = (&str, IpAddr)> {
    let all = router.addresses.iter().chain(&router.excluded);
    all.map(|address| (address.dev.as_ref().unwrap_or(&router.interface).as_str(), address.address))
}

fn name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

/// The type in an Ethernet header.
const ARP: [u8; 2] = [8, 6];
const DATAGRAMS_PER_TURN: usize = 64;
