//! Other nodes are told of this one's connections, and this one learns of theirs.
//!
//! ```text
//! control ─ Outgoing, bounded ─► one task for each peer ─► TCP
//! control ◄─ Heard, bounded ───── one task for each connection that peers make
//! ```
//!
//! A peer that does not keep up is dropped: it connects again and hears everything anew.

mod hear;
mod hold;
mod tell;

use std::{net::IpAddr, sync::Arc};

use lb_common::slot::Slot;
use tokio::sync::{mpsc, watch};

pub(super) use self::{
    hear::{Heard, Peers, listen},
    tell::{Sessions, tell_all},
};
use crate::{io::kernel::Told, pure::config::network::Family};

/// Who the other nodes are.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    pub node: String,
    /// This node's interfaces with the program.
    pub interfaces: Vec<(u32, String)>,
    pub peers: Vec<IpAddr>,
    /// TCP: the one after that of the heartbeats.
    pub port: u16,
    pub secret: Vec<u8>,
}

/// What a task is to tell its peer.
#[derive(Clone)]
pub(super) enum Outgoing {
    Rings(Arc<Rings>),
    /// `all`: also what is no news to others.
    Records {
        batch: Arc<Batch>,
        all: bool,
    },
    Complete,
}

/// Records of one pass, and whom they name.
pub(super) struct Batch {
    pub servers: Vec<Named>,
    pub records: Vec<Told>,
}

/// Rings that changed, and whom they name.
pub(super) struct Rings {
    pub servers: Vec<Named>,
    pub rings: Vec<(RingName, Arc<Vec<Slot>>)>,
}

/// Service and family of a ring.
pub(super) type RingName = (String, Option<Family>);

/// A server's number, service and address.
pub(super) type Named = (u32, String, std::net::SocketAddr);

/// A task that has reached its peer.
pub(super) struct Joined {
    pub peer: IpAddr,
    pub sender: mpsc::Sender<Outgoing>,
}

/// Both directions, until the sender of the settings is gone. Restarts with each change of them.
pub(super) async fn run(
    mut settings: watch::Receiver<Cluster>,
    joined: mpsc::Sender<Joined>,
    heard: mpsc::Sender<Heard>,
) {
    loop {
        let cluster = Arc::new(settings.borrow_and_update().clone());
        let both = async {
            tokio::join!(tell_all(&cluster, &joined), listen(&cluster, &heard));
        };
        tokio::select! {
            () = both => {}
            changed = settings.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        // Without peers there is nothing to do until the settings change.
        if settings.changed().await.is_err() {
            return;
        }
    }
}

/// Messages that wait for one peer: more than a round over a large table makes.
pub(super) const OUTGOING: usize = 4_096;
/// Messages of peers that wait for control; who sends more waits, too.
pub(super) const HEARD: usize = 16;
/// Peers that have connected and wait for control.
pub(super) const JOINED: usize = 16;
