//! Which services' addresses are here, as the virtual routers' thread tells.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    daemon::control::Control,
    pure::{config::model::vrrp::Vrrp, state::Holdings, status::VrrpStatus, vrrp::node::State},
};

impl Control {
    /// Connections of services whose addresses are elsewhere are followed, those of the others told of.
    pub(in crate::daemon) fn hold(&mut self) {
        let status = Arc::clone(&self.vrrp.handle.status.borrow());
        self.state.hold(holdings(&self.settings.file.vrrp, &status));
    }
}

fn holdings(vrrp: &Vrrp, status: &VrrpStatus) -> Holdings {
    let is_active = |name: &str| {
        status.routers.iter().any(|router| router.name == name && router.state == State::Active.name())
    };
    let (mut movable, mut held) = (BTreeSet::<IpAddr>::new(), BTreeSet::new());
    for router in &vrrp.routers {
        let addresses = router.all_addresses().map(|own| own.address);
        movable.extend(addresses.clone());
        if is_active(&router.name) {
            held.extend(addresses);
        }
    }
    Holdings { movable, held }
}
