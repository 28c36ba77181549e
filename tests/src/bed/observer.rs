//! Everything that nodes advertise, as the switch hears it: by port, so that nobody can pass for another.
//!
//! Reads adverts with its own few lines: it must not take the program's word for what they say.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket};
use nix::sys::{
    socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt::{RcvBuf, ReceiveTimeout},
    },
    time::{TimeVal, TimeValLike},
};

use super::{Family, Pair, poll, topology::interface_index};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert {
    pub at: Instant,
    /// By its port.
    pub node: usize,
    pub source: IpAddr,
    pub version: u8,
    pub vrid: u8,
    pub priority: u8,
}

pub struct Observer {
    adverts: Arc<Mutex<Vec<Advert>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Observer {
    pub fn start(pair: &Pair) -> Result<Observer> {
        let ports: HashMap<usize, usize> = (0..pair.nodes.len())
            .map(|node| Ok((interface_index(&pair.switch, &pair.port(node))? as usize, node)))
            .collect::<Result<_>>()?;
        let adverts = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (heard, end) = (Arc::clone(&adverts), Arc::clone(&ended));
        let thread = pair.switch.background(move || listen(&ports, &heard, &end));
        Ok(Observer { adverts, ended, thread: Some(thread) })
    }

    /// All since the start, in the order they came.
    pub fn adverts(&self) -> Vec<Advert> {
        self.adverts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last for a virtual router.
    pub fn last(&self, vrid: u8, family: Family) -> Option<Advert> {
        let of = |advert: &&Advert| advert.vrid == vrid && Family::of(advert.source) == family;
        self.adverts.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().find(of).copied()
    }

    /// Returns once the node alone has advertised a virtual router for `quiet`.
    pub fn wait_for(
        &self,
        vrid: u8,
        family: Family,
        node: usize,
        quiet: Duration,
        limit: Duration,
    ) -> Result<()> {
        poll(&format!("adverts of VRID {vrid} by {} alone", Pair::name(node)), limit, || {
            let adverts = self.adverts();
            let now = Instant::now();
            let recent = adverts
                .iter()
                .filter(|advert| advert.vrid == vrid && Family::of(advert.source) == family)
                .filter(|advert| now.duration_since(advert.at) < quiet);
            let by: HashSet<usize> = recent.map(|advert| advert.node).collect();
            (by == HashSet::from([node])).then_some(())
        })
        .with_context(|| format!("the last was {:?}", self.last(vrid, family)))
    }

    /// What it heard, unless it missed something.
    pub fn stop(mut self) -> Result<Vec<Advert>> {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the observer failed"))???;
        }
        Ok(self.adverts())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it has to say is asked for by `stop`.
            let _ = thread.join();
        }
    }
}

fn listen(ports: &HashMap<usize, usize>, adverts: &Mutex<Vec<Advert>>, ended: &AtomicBool) -> Result<()> {
    let socket = packet_socket()?;
    let mut frame = [0; FRAME_MAX];
    while !ended.load(Ordering::Relaxed) {
        let (size, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            Ok((size, Some(from))) => (size, from),
            Ok((_, None)) | Err(nix::Error::EAGAIN | nix::Error::EINTR) => continue,
            Err(error) => return Err(error).context("listening for adverts"),
        };
        // The same frame is seen again at the ports that it leaves by.
        if from.pkttype() == libc::PACKET_OUTGOING {
            continue;
        }
        let Some(&node) = ports.get(&from.ifindex()) else { continue };
        if let Some(advert) = read(&frame[..size], node) {
            let mut adverts = adverts.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(adverts.len() < ADVERTS_MAX, "more than {ADVERTS_MAX} adverts: watch for a shorter time");
            adverts.push(advert);
        }
    }
    Ok(())
}

/// Of every interface: which one a frame came by is told with it.
fn packet_socket() -> Result<OwnedFd> {
    let protocol = SockProtocol::EthAll;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("opening a packet socket")?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(50))?;
    setsockopt(&socket, RcvBuf, &(4 << 20))?;
    Ok(socket)
}

fn read(frame: &[u8], node: usize) -> Option<Advert> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, payload) = match packet.net? {
        NetSlice::Ipv4(ip) => (IpAddr::from(ip.header().source_addr()), ip.payload().clone()),
        NetSlice::Ipv6(ip) => (IpAddr::from(ip.header().source_addr()), ip.payload().clone()),
        NetSlice::Arp(_) => return None,
    };
    let &[kind, vrid, priority, ..] = payload.payload else { return None };
    (payload.ip_number.0 == VRRP).then(|| Advert {
        at: Instant::now(),
        node,
        source,
        version: kind >> 4,
        vrid,
        priority,
    })
}

const VRRP: u8 = 112;
const FRAME_MAX: usize = 2_048;
const ADVERTS_MAX: usize = 4_000_000;
