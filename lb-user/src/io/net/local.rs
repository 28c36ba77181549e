//! The addresses of this machine that packets may come from.

use futures_util::{TryStreamExt, stream};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};

use super::{Net, NetError, Request, ask};
use crate::pure::state::LocalAddress;

impl Net {
    /// Those that reach beyond a link, and that the kernel would choose for what is new; first ones first.
    pub async fn local_addresses(&self) -> Result<Vec<LocalAddress>, NetError> {
        let addresses = self.handle.address().get().execute().try_collect::<Vec<_>>();
        let addresses = ask(Request::Addresses, stream::once(addresses)).await?;
        Ok(addresses.iter().filter_map(local).collect())
    }
}

fn local(message: &AddressMessage) -> Option<LocalAddress> {
    let header = &message.header;
    if header.scope != AddressScope::Universe || header.flags.intersects(UNFIT) {
        return None;
    }
    let given = |own: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if own => Some(*address),
            AddressAttribute::Address(address) if !own => Some(*address),
            _ => None,
        })
    };
    // On a link between two ends, the other attribute is that of the far one.
    let address = given(true).or_else(|| given(false))?;
    Some(LocalAddress { interface: header.index, address })
}

const UNFIT: AddressHeaderFlags =
    AddressHeaderFlags::Deprecated.union(AddressHeaderFlags::Tentative).union(AddressHeaderFlags::Dadfailed);
