//! Stable ids: a server keeps its id while anything in the kernel may name it.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    limits::{SERVERS_MAX, SERVICES_MAX},
    slot::ServerId,
};

/// What a server is, across restarts: its service and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey {
    pub service: u32,
    pub address: SocketAddr,
}

/// Hands out the lowest free server id; an id is free again only when the caller releases it.
#[derive(Debug, Clone, Default)]
pub struct ServerIds {
    ids: BTreeMap<ServerKey, ServerId>,
    keys: BTreeMap<ServerId, ServerKey>,
    /// Every id below is in use: where to look for a free one.
    full_below: u32,
}

impl ServerIds {
    /// Takes over an id found in the pinned tables.
    pub fn adopt(&mut self, id: ServerId, key: ServerKey) {
        self.ids.insert(key, id);
        self.keys.insert(id, key);
    }

    /// None: the table of servers is full.
    pub fn get_or_insert(&mut self, key: ServerKey) -> Option<ServerId> {
        if let Some(&id) = self.ids.get(&key) {
            return Some(id);
        }
        let first = self.full_below.max(1);
        let id = ServerId(lowest_free(self.keys.range(ServerId(first)..).map(|(id, _)| id.0), first));
        if id.0 >= SERVERS_MAX {
            return None;
        }
        self.full_below = id.0 + 1;
        self.adopt(id, key);
        Some(id)
    }

    pub fn get(&self, key: &ServerKey) -> Option<ServerId> {
        self.ids.get(key).copied()
    }

    /// For ids that no slot and no live record names.
    pub fn release(&mut self, id: ServerId) {
        if let Some(key) = self.keys.remove(&id) {
            self.ids.remove(&key);
            self.full_below = self.full_below.min(id.0);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (ServerId, ServerKey)> {
        self.keys.iter().map(|(&id, &key)| (id, key))
    }
}

/// The lowest service id that `used` does not hold; None when all are taken.
pub fn free_service_id(used: impl IntoIterator<Item = u32>) -> Option<u32> {
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort_unstable();
    used.dedup();
    let id = lowest_free(used.into_iter(), 0);
    (id < SERVICES_MAX).then_some(id)
}

fn lowest_free(sorted: impl Iterator<Item = u32>, first: u32) -> u32 {
    let mut free = first;
    for used in sorted {
        if used > free {
            break;
        }
        free = used + 1;
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> ServerKey {
        ServerKey { service: 0, address: SocketAddr::from(([10, 0, 0, n], 80)) }
    }

    #[test]
    fn an_id_stays_until_it_is_released() {
        let mut ids = ServerIds::default();
        assert_eq!(ids.get_or_insert(key(1)), Some(ServerId(1)));
        assert_eq!(ids.get_or_insert(key(2)), Some(ServerId(2)));
        assert_eq!(ids.get_or_insert(key(1)), Some(ServerId(1)));
        ids.release(ServerId(1));
        assert_eq!(ids.get(&key(1)), None);
        assert_eq!(ids.get_or_insert(key(3)), Some(ServerId(1)));
        assert_eq!(ids.get_or_insert(key(1)), Some(ServerId(3)));
    }

    #[test]
    fn adopted_ids_are_not_given_again() {
        let mut ids = ServerIds::default();
        ids.adopt(ServerId(2), key(9));
        assert_eq!(ids.get_or_insert(key(1)), Some(ServerId(1)));
        assert_eq!(ids.get_or_insert(key(2)), Some(ServerId(3)));
        assert_eq!(ids.get_or_insert(key(9)), Some(ServerId(2)));
    }

    #[test]
    fn free_service_ids() {
        assert_eq!(free_service_id([]), Some(0));
        assert_eq!(free_service_id([2, 0, 0, 1, 4]), Some(3));
        assert_eq!(free_service_id(0..SERVICES_MAX), None);
    }
}
