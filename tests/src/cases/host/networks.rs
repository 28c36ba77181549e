//! Values by network, with the semantics of the kernel's longest-prefix tables.

use std::net::IpAddr;

use lb_common::{
    entry::Scoped,
    net::{Be32, V4, V6},
};
use lb_user::pure::config::network::{Family, Network};

/// A network in a scope, and what stands for it.
pub(super) struct Networks<V>(Vec<(u32, Scoped, V)>);

impl<V> Default for Networks<V> {
    fn default() -> Self {
        Networks(Vec::new())
    }
}

impl<V> Networks<V> {
    pub(super) fn insert(&mut self, scope: u32, network: Network, value: V) {
        self.remove(scope, network);
        let (bits, key) = place(scope, network);
        self.0.push((bits, key, value));
    }

    pub(super) fn remove(&mut self, scope: u32, network: Network) {
        let (bits, key) = place(scope, network);
        self.0.retain(|(other, standing, _)| (*other, *standing) != (bits, key));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the longest network around an address.
    pub(super) fn find(&self, key: &Scoped) -> Option<&V> {
        let around = self.0.iter().filter(|(bits, network, _)| common_bits(network, key) >= *bits);
        around.max_by_key(|(bits, _, _)| *bits).map(|(_, _, value)| value)
    }
}

fn place(scope: u32, network: Network) -> (u32, Scoped) {
    let is_v4 = network.family() == Family::V4;
    let key = match network.address() {
        IpAddr::V4(address) => Scoped::new::<V4>(scope, address.into()),
        IpAddr::V6(address) => Scoped::new::<V6>(scope, address.into()),
    };
    (Scoped::bits(network.length().into(), is_v4), key)
}

/// Bits in which two keys agree, from the first on, as the kernel counts them.
fn common_bits(a: &Scoped, b: &Scoped) -> u32 {
    let words = |key: &Scoped| [key.scope.0, key.address[0], key.address[1], key.address[2], key.address[3]];
    let mut common = 0;
    for (a, b) in words(a).into_iter().zip(words(b)) {
        let same = (Be32(a).get() ^ Be32(b).get()).leading_zeros();
        common += same;
        if same < 32 {
            break;
        }
    }
    common
}
