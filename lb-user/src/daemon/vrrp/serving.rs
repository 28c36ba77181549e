//! Tells the thread whether this node serves what its routers stand for, as soon as control knows.

use super::Order;
use crate::daemon::control::{Control, TABLES};

impl Control {
    /// Changes only; what finds no room is told the next time.
    pub(super) fn tell_served(&mut self) {
        let forwards = self.forwards();
        let snapshot = self.snapshot.borrow().clone();
        for (what, verdict) in self.vrrp.served.compare(&self.settings.file.vrrp, &snapshot, forwards) {
            if !self.order_vrrp(Order::Tracked { what: what.clone(), verdict }) {
                self.vrrp.served.forget(&what);
            }
        }
    }

    /// Every configured interface has the program, and the tables are as planned.
    fn forwards(&self) -> bool {
        let wanted = &self.settings.file.datapath.interfaces;
        self.situation.lock().is_ok_and(|situation| {
            let attached = |name: &String| situation.interfaces.iter().any(|attached| attached.name == *name);
            wanted.iter().all(attached) && !situation.warnings.contains_key(TABLES)
        })
    }
}
