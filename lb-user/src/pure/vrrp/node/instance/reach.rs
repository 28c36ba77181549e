//! How an instance is on the wire: its sockets, and why it can neither send nor hear.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Action, Family, Hands, Instance, Link, Sockets, World};

/// Its sockets could not be opened: without them it would hear nobody, and take itself for the only one.
pub(super) struct Deaf {
    why: String,
    pub(super) again_at: Instant,
    /// They are being opened; if nothing is said against it until `again_at`, they are open.
    tried: bool,
}

impl Instance {
    pub(in super::super) fn deafen(&mut self, now: Instant, why: String) {
        self.deaf = Some(Deaf { why, again_at: now + RETRY, tried: false });
    }

    fn open(&mut self, hands: &mut Hands<'_>) {
        if let Some(deaf) = &mut self.deaf {
            deaf.tried = true;
            deaf.again_at = hands.now + RETRY;
        }
        if let Some(sockets) = self.sockets.clone() {
            hands.outbox.open.push(Action::Open { router: self.id, sockets });
        }
    }

    fn shut(&mut self, hands: &mut Hands<'_>) {
        self.deaf = None;
        if self.sockets.take().is_some() {
            hands.outbox.close.push(Action::Close { router: self.id });
        }
    }

    fn try_again(&mut self, hands: &mut Hands<'_>) {
        match &self.deaf {
            Some(Deaf { again_at, tried, .. }) if *again_at <= hands.now => {
                if *tried {
                    self.deaf = None;
                } else {
                    self.open(hands);
                }
            }
            Some(_) | None => {}
        }
    }

    /// Makes its sockets those of its interface; returns why it cannot send.
    pub(super) fn reach(&mut self, hands: &mut Hands<'_>) -> Option<String> {
        let (world, name) = (hands.world, self.config.interface.clone());
        let Some(link) = world.links.get(&name) else {
            self.shut(hands);
            return Some(format!("interface {name} does not exist yet"));
        };
        if let Some(device) = self.config.virtual_interface().filter(|name| !world.links.contains_key(name)) {
            // The next device of this name is another one, and sockets are of a device.
            self.shut(hands);
            return Some(format!("device {device} of the virtual MAC does not exist yet"));
        }
        self.mac = match self.config.virtual_mac {
            Some(_) => self.config.virtual_router_mac(),
            None => link.mac,
        };
        let source = self.source(link, world);
        if let Some(source) = source {
            let group = (!self.config.is_unicast()).then(|| self.config.group_address());
            let sockets = Sockets { interface: link.index, vrid: self.config.vrid, source, group };
            if self.sockets.as_ref() != Some(&sockets) {
                self.sockets = Some(sockets);
                self.open(hands);
            }
        }
        self.try_again(hands);
        if !link.is_up {
            return Some(format!("interface {name} is down"));
        }
        match (source, self.config.source) {
            (Some(_), _) => self.deaf.as_ref().map(|deaf| {
                format!("it cannot hear, and so would win: {}; tried again every second", deaf.why)
            }),
            (None, Some(source)) => Some(format!("no interface has the source address {source} yet")),
            (None, None) => {
                let kind = match self.config.family {
                    Family::V4 => "IPv4",
                    Family::V6 => "link-local IPv6",
                };
                Some(format!("interface {name} has no {kind} address yet"))
            }
        }
    }

    /// It stays the one in use while that is there.
    fn source(&self, link: &Link, world: &World) -> Option<IpAddr> {
        if let Some(source) = self.config.source {
            return Some(source).filter(|&source| world.has(source));
        }
        let is_ours = |address: IpAddr| self.estate.addresses.iter().any(|ours| ours.address == address);
        let fits = |address: IpAddr| match (self.config.family, address) {
            (Family::V4, IpAddr::V4(_)) => !is_ours(address),
            (Family::V6, IpAddr::V6(v6)) => v6.is_unicast_link_local() && !is_ours(address),
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => false,
        };
        let there: Vec<_> = link.addresses.iter().map(|&(address, _)| address).filter(|&a| fits(a)).collect();
        let current = self.sockets.as_ref().map(|sockets| sockets.source);
        current.filter(|current| there.contains(current)).or(there.first().copied())
    }
}

/// Between two attempts to open sockets.
const RETRY: Duration = Duration::from_secs(1);
